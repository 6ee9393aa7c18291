//! Several replicas against one API server: races, an authority that comes out of turn, an outage.

pub(super) mod api_server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tollgate_shared::ready::Ready;

use self::api_server::{ApiServer, KINDS, configuration, secret};
use super::*;

/// A replica, its metrics, and what keeps it from being ready.
struct Replica {
    certificates: Certificates,
    registry: Registry,
    address: SocketAddr,
    block: Option<BlockReady>,
}

impl Replica {
    async fn start(server: &ApiServer) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let certificates = Certificates::try_start(server.client(), metrics)
            .await
            .unwrap();
        let address = listen(certificates.served()).await;
        let block = Some(Ready::default().block("trust"));
        Self {
            certificates,
            registry,
            address,
            block,
        }
    }

    async fn look(&mut self) -> Duration {
        let now = OffsetDateTime::now_utc();
        self.certificates
            .look(self.address, &mut self.block, now)
            .await
    }

    /// Looks until there is nothing left to do.
    async fn settle(&mut self) {
        while self.look().await != PERIOD {}
    }

    fn is_good(&self) -> bool {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        page.contains("\ncertificates_good 1\n")
    }

    /// Whether it accepts what the other one vouches for.
    fn believes(&self, other: &Self) -> bool {
        let vouchers = |replica: &Self| replica.certificates.vouchers().borrow().clone();
        vouchers(self).believe(&vouchers(other))
    }

    /// Whether an API server that trusts `bundle` (as the configurations have it) takes what this replica serves.
    async fn is_trusted_by(&self, bundle: &str) -> bool {
        let bundle = String::from_utf8(STANDARD.decode(bundle).unwrap()).unwrap();
        let [name] = server_names();
        trust::probe(self.address, &name, &bundle).await.is_ok()
    }
}

/// Serves nothing but 404 with the newest certificate, for as long as the test's runtime lives.
pub(super) async fn listen(served: watch::Receiver<Arc<ServerConfig>>) -> SocketAddr {
    use tollgate_shared::serve::{Limits, Listener};
    let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let listener = Listener::bind(any, Limits::default()).await.unwrap();
    let address = listener.address();
    let listener = listener.with_tls(served);
    tokio::spawn(async move {
        let (_drain, watch) = tollgate_shared::drain::channel();
        let make = |_peer| {
            hyper::service::service_fn(|_request| async {
                let body = http_body_util::Full::new(bytes::Bytes::new());
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            })
        };
        listener.serve(make, watch).await;
    });
    address
}

fn store(server: &ApiServer, authority: &Authority) {
    let data = serde_json::to_value(authority.to_secret()).unwrap();
    server.put(
        &secret(),
        json!({"metadata": {"name": SECRET}, "data": data}),
    );
}

#[tokio::test]
async fn replicas_that_start_together_agree_on_one_authority() {
    let server = ApiServer::new();
    let mut replicas =
        futures_util::future::join_all((0..5).map(|_| Replica::start(&server))).await;
    for replica in &mut replicas {
        replica.settle().await;
        assert!(replica.block.is_none() && replica.is_good());
    }
    for replica in &replicas {
        assert!(replica.is_trusted_by(&server.bundle()).await);
        assert!(replicas.iter().all(|other| replica.believes(other)));
    }
    assert_eq!(
        server.secret().as_object().unwrap().len(),
        2,
        "one authority, none before it"
    );
}

#[tokio::test]
async fn ready_only_when_both_configurations_trust_what_the_listener_serves() {
    let server = ApiServer::new();
    let mut replica = Replica::start(&server).await;
    let path = configuration(KINDS[1]);
    let configuration = server.get(&path).unwrap();
    server.remove(&path);
    assert_eq!(replica.look().await, IMPATIENT);
    assert!(replica.block.is_some(), "one configuration is missing");
    server.put(&path, configuration);
    assert_eq!(replica.look().await, IMPATIENT);
    assert!(replica.block.is_some(), "API servers have not seen it yet");
    let address = std::mem::replace(&mut replica.address, "127.0.0.1:1".parse().unwrap());
    assert_eq!(replica.look().await, IMPATIENT);
    assert!(
        replica.block.is_some() && !replica.is_good(),
        "the listener does not answer"
    );
    replica.address = address;
    assert_eq!(replica.look().await, PERIOD);
    assert!(replica.block.is_none() && replica.is_good());
}

/// At every moment the configurations trust what each replica serves, also before a replica has looked.
#[tokio::test]
async fn an_authority_out_of_turn_takes_over_without_a_gap() {
    let server = ApiServer::new();
    let mut replicas = [Replica::start(&server).await, Replica::start(&server).await];
    for replica in &mut replicas {
        replica.settle().await;
    }
    let trusted = async |replicas: &[Replica]| {
        let bundle = server.bundle();
        let mut all = true;
        for replica in replicas {
            all &= replica.is_trusted_by(&bundle).await;
        }
        all
    };
    let before = server.bundle();
    store(&server, &Authority::new(OffsetDateTime::now_utc()).unwrap());
    for _ in 0..4 {
        for turn in 0..2 {
            replicas[turn].look().await;
            assert!(trusted(&replicas).await);
        }
    }
    assert_ne!(server.bundle(), before);
    assert!(replicas[0].believes(&replicas[1]) && replicas[1].believes(&replicas[0]));
    for replica in &replicas {
        assert!(
            !replica.is_trusted_by(&before).await,
            "the new authority signs"
        );
    }

    // Deleted, and a replica without a memory is the first to see it.
    server.remove(&secret());
    let mut third = Replica::start(&server).await;
    third.settle().await;
    assert!(trusted(&replicas).await && trusted(&[third]).await);
    for replica in &mut replicas {
        replica.settle().await;
    }
    assert!(trusted(&replicas).await);
}

#[tokio::test]
async fn a_secret_that_is_gone_is_written_again_as_it_was() {
    let server = ApiServer::new();
    let mut replica = Replica::start(&server).await;
    replica.settle().await;
    let (data, bundle) = (server.secret(), server.bundle());
    server.remove(&secret());
    replica.settle().await;
    assert_eq!((server.secret(), server.bundle()), (data, bundle));
}

#[tokio::test]
async fn a_broken_secret_or_an_outage_keeps_the_last_good_and_shows() {
    let server = ApiServer::new();
    let mut replica = Replica::start(&server).await;
    replica.settle().await;
    let (good, bundle) = (server.get(&secret()).unwrap(), server.bundle());
    let break_it: [(&str, Value); 3] = [
        ("ca.crt", json!("")),
        ("ca.key", json!("eA==")),
        ("next.crt", json!("eA==")),
    ];
    for (field, value) in break_it {
        let mut broken = good.clone();
        broken["data"][field] = value;
        server.put(&secret(), broken.clone());
        assert_eq!(replica.look().await, IMPATIENT);
        assert!(!replica.is_good(), "{field}");
        assert!(replica.is_trusted_by(&bundle).await && server.bundle() == bundle);
        let left = server.get(&secret()).unwrap();
        assert_eq!(
            left["data"], broken["data"],
            "nobody's Secret is overwritten"
        );
        let started =
            Certificates::try_start(server.client(), Metrics::register(&mut Registry::default()))
                .await;
        let refused = started.err().unwrap().to_string();
        assert!(
            refused.contains(SECRET) && refused.contains(field),
            "{refused}"
        );
        server.put(&secret(), good.clone());
        assert_eq!(replica.look().await, PERIOD);
        assert!(replica.is_good());
    }
    server.is_down(true);
    assert_eq!(replica.look().await, IMPATIENT);
    assert!(!replica.is_good() && replica.is_trusted_by(&bundle).await);
    server.is_down(false);
    replica.settle().await;
    assert!(replica.is_good());
}
