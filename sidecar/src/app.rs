//! Puts the parts together: [`App::start`] binds and writes everything that must be there before an agent starts,
//! [`App::run`] proves one mint, becomes ready and serves until it is told to end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::service::service_fn;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::sync::watch;
use tollgate_shared::admin::Admin;
use tollgate_shared::contract::MintMode;
use tollgate_shared::drain;
use tollgate_shared::ready::{BlockReady, Ready};
use tollgate_shared::serve::{Limits, Listener};
use tollgate_shared::tls;

use crate::agent_files::Files;
use crate::authority;
use crate::config::{Config, RecordTarget};
use crate::credential::Credential;
use crate::local::LocalTokens;
use crate::metrics::{self, Metrics};
use crate::mint::Mint;
use crate::mint::own::{OwnMints, why};
use crate::place;
use crate::proxy::{Proxy, Tunnels};
use crate::rate::Bucket;
use crate::record::{FileConfig, Recorder, RecorderConfig, SinkConfig};
use crate::upstream::Upstream;

/// Header fields and bytes of a request. The API server takes 1 MiB (`http.DefaultMaxHeaderBytes`); real clients send a tenth
/// of this, the longest being the command of an exec.
const HEAD_FIELDS: usize = 256;
const HEAD_BYTES: usize = 256 * 1024;
/// Between two tries of the first mint; it waits for the namespace's RoleBinding.
const MINT_PAUSE: Duration = Duration::from_secs(1);

/// A sidecar with its ports bound and its files written.
pub struct App {
    proxy: Arc<Proxy>,
    mints: Arc<OwnMints>,
    listeners: Vec<Listener>,
    admin: Admin,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    watch: drain::Watch,
    minting: BlockReady,
    draining: Ready,
    /// The first mint is done.
    proved: bool,
    drain_deadline: Duration,
}

impl App {
    /// Binds the ports, writes the agents' files, opens the records. `watch` tells the end.
    ///
    /// # Errors
    /// What keeps the sidecar from starting, with the knob to turn.
    pub async fn start(config: &Config, watch: drain::Watch) -> anyhow::Result<Self> {
        let connected = place::connect(config)?;
        let ready = Ready::default();
        let minting = ready.block("the first minted token");
        let listeners = bind(config).await?;
        let port = listeners
            .first()
            .map_or(config.settings.port, |listener| listener.address().port());
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));

        let served = authority::serve(&config.state_dir, OffsetDateTime::now_utc())?;
        let files = Files {
            ca_pem: &served.ca_pem,
            namespace: &config.target.namespace,
            port,
        };
        let tokens = place::write_agent_files(config, &files)?;
        let server = tls::server_config(served.chain, served.key, &[tls::HTTP_1_1])?;

        let local_tokens = LocalTokens::new(
            config.settings.local_auth,
            tokens
                .iter()
                .map(|(container, token)| (container.clone(), token)),
        );
        let (proxy, mints) = gate(config, connected, local_tokens, metrics, watch.clone())?;
        let asked = metrics::Asked {
            recorder: proxy.recorder.clone(),
            mint: Arc::clone(&proxy.mint),
        };
        asked.register(&mut registry);
        let admin = bind_admin(config, &ready, Arc::new(registry)).await?;
        let tls = watch::channel(Arc::new(server)).1;
        Ok(Self {
            proxy: Arc::new(proxy),
            mints: Arc::new(mints),
            listeners,
            admin,
            tls,
            watch,
            minting,
            draining: ready,
            proved: false,
            drain_deadline: config.drain_deadline,
        })
    }

    /// The same after its first mint, for whoever would rather hear at once why no token can be minted than wait for one.
    ///
    /// # Errors
    /// Why none could be minted, or that the end was signalled.
    pub async fn proved(mut self) -> anyhow::Result<Self> {
        let mut ending = self.watch.clone();
        let minted = tokio::select! {
            minted = self.mints.mint(why::FIRST_MINT) => minted.map(drop).map_err(|refusal| refusal.message),
            () = ending.signaled() => Err("told to end before a token was minted".to_owned()),
        };
        if let Err(message) = minted {
            self.proxy.recorder.shutdown(self.drain_deadline).await;
            anyhow::bail!(message);
        }
        self.proved = true;
        Ok(self)
    }

    /// Addresses of the API proxy.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Address of the admin port.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Serves until the end is signalled, then drains; what still runs at the deadline of the configuration is cut.
    pub async fn run(self) {
        let Self {
            proxy,
            mints,
            listeners,
            admin,
            tls,
            watch,
            minting,
            draining,
            proved,
            drain_deadline,
        } = self;
        let mut ending = watch.clone();
        let (admin_drain, admin_watch) = drain::channel();
        let admin = tokio::spawn(admin.serve(admin_watch));
        let mut serving = tokio::task::JoinSet::new();
        let mut keeping = tokio::task::JoinSet::new();
        if let Some(stock) = proxy.stock.clone() {
            let (mints, watch) = (Arc::clone(&mints), watch.clone());
            keeping.spawn(async move { stock.keep(mints, watch).await });
        }
        for listener in listeners {
            let proxy = Arc::clone(&proxy);
            let make = move |peer| {
                let proxy = Arc::clone(&proxy);
                service_fn(move |request| {
                    let proxy = Arc::clone(&proxy);
                    // Boxed: hyper keeps room for this future as long as the connection lives, a watch for hours.
                    Box::pin(async move {
                        Ok::<_, std::convert::Infallible>(proxy.serve(request, peer).await)
                    })
                })
            };
            serving.spawn(listener.with_tls(tls.clone()).serve(make, watch.clone()));
        }
        tokio::select! {
            () = prove_mint(&mints, proved) => {
                drop(minting);
                tracing::info!("ready");
            }
            () = ending.signaled() => {}
        }
        ending.signaled().await;
        let _draining = draining.block("the end of the process");
        while serving.join_next().await.is_some() {}
        proxy.tunnels.ended().await;
        keeping.shutdown().await;
        proxy.recorder.shutdown(drain_deadline).await;
        admin_drain.signal();
        drop(admin.await);
        tracing::info!("ended");
    }
}

/// What stands between the agents and the API server.
fn gate(
    config: &Config,
    (upstream, credential): (Upstream, Credential),
    local_tokens: LocalTokens,
    metrics: Arc<Metrics>,
    drain: drain::Watch,
) -> anyhow::Result<(Proxy, OwnMints)> {
    let upstream = Arc::new(upstream);
    let mint = Arc::new(Mint::new(config, credential)?);
    let recorder = Recorder::start(recorder_config(config)?)?;
    let mints = OwnMints::new(
        Arc::clone(&mint),
        Arc::clone(&upstream),
        recorder.clone(),
        Arc::clone(&metrics),
        &config.target,
    );
    let proxy = Proxy {
        upstream,
        mint,
        stock: (config.settings.mint == MintMode::Ahead).then(Arc::default),
        cap: config
            .settings
            .max_calls_per_second
            .map(|cap| Mutex::new(Bucket::new(cap))),
        recorder,
        local_tokens,
        max_stream_age: config.max_stream_age,
        body_grace: config.body_grace,
        drain,
        tunnels: Tunnels::default(),
        metrics,
    };
    Ok((proxy, mints))
}

/// IPv4 loopback always, IPv6 loopback where a pod has it.
async fn bind(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let limits = Limits {
        connections: config.max_connections,
        headers: HEAD_FIELDS,
        head_bytes: HEAD_BYTES,
        drain: config.drain_deadline,
        ..Limits::default()
    };
    let (first, second) = place::proxy_addresses(config);
    let first = Listener::bind((first, config.settings.port).into(), limits.clone()).await?;
    let port = first.address().port();
    let mut listeners = vec![first];
    let Some(second) = second else {
        return Ok(listeners);
    };
    match Listener::bind((second, port).into(), limits).await {
        Ok(listener) => listeners.push(listener),
        Err(error) if error.source.kind() == std::io::ErrorKind::AddrInUse => {
            return Err(error.into());
        }
        Err(error) => tracing::info!(%error, "serving on IPv4 alone"),
    }
    Ok(listeners)
}

async fn bind_admin(
    config: &Config,
    ready: &Ready,
    registry: Arc<Registry>,
) -> anyhow::Result<Admin> {
    let port = config.settings.admin_port;
    let (first, second) = place::admin_addresses(config);
    let bound = Admin::bind((first, port).into(), ready.clone(), Arc::clone(&registry)).await;
    match bound {
        Ok(admin) => Ok(admin),
        Err(_) => Ok(Admin::bind((second, port).into(), ready.clone(), registry).await?),
    }
}

fn recorder_config(config: &Config) -> anyhow::Result<RecorderConfig> {
    Ok(RecorderConfig {
        identity: place::identity(config)?,
        sink: match &config.record_target {
            RecordTarget::Stdout => SinkConfig::Stdout,
            RecordTarget::Stderr => SinkConfig::Stderr,
            RecordTarget::File { path, size, count } => SinkConfig::File(FileConfig {
                path: path.clone(),
                max_bytes: *size,
                keep: *count,
            }),
        },
        state_dir: Some(config.state_dir.clone()),
        deadline: config.record_deadline,
        keep_commands: config.record_exec_commands,
    })
}

/// Mints until one mint succeeds: a sidecar that starts before its namespace's RoleBinding waits for it.
async fn prove_mint(mints: &OwnMints, proved: bool) {
    while !proved && let Err(refusal) = mints.mint(why::FIRST_MINT).await {
        tracing::warn!(%refusal, "not ready: no token could be minted yet");
        tokio::time::sleep(MINT_PAUSE).await;
    }
}
