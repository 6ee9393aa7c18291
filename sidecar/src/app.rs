//! Puts the parts together: [`App::start`] binds and writes everything that must be there before an agent starts,
//! [`App::run`] proves one mint, becomes ready and serves until it is told to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use hyper::service::service_fn;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::sync::watch;
use tollgate_shared::admin::Admin;
use tollgate_shared::drain;
use tollgate_shared::ready::{BlockReady, Ready};
use tollgate_shared::serve::{Limits, Listener};
use tollgate_shared::tls;

use crate::agent_files::Files;
use crate::authority;
use crate::config::{Config, RecordTarget, Target};
use crate::local::LocalTokens;
use crate::metrics::Metrics;
use crate::mint::Mint;
use crate::place;
use crate::proxy::{Proxy, Tunnels};
use crate::record::{
    Closing, Decision, FileConfig, ObjectRef, Opening, Recorder, RecorderConfig, SinkConfig,
    outcome,
};
use crate::refusal::Refusal;

/// Header fields and bytes of a request. The API server takes 1 MiB (`http.DefaultMaxHeaderBytes`); real clients send a tenth
/// of this, the longest being the command of an exec.
const HEAD_FIELDS: usize = 256;
const HEAD_BYTES: usize = 256 * 1024;
/// Between two tries of the first mint; it waits for the namespace's RoleBinding.
const MINT_PAUSE: Duration = Duration::from_secs(1);

/// A sidecar with its ports bound and its files written.
pub struct App {
    proxy: Arc<Proxy>,
    listeners: Vec<Listener>,
    admin: Admin,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    watch: drain::Watch,
    minting: BlockReady,
    draining: Ready,
    /// The first mint; `None` once it is done.
    opening: Option<Opening>,
    drain_deadline: Duration,
}

impl App {
    /// Binds the ports, writes the agents' files, opens the records. `watch` tells the end.
    ///
    /// # Errors
    /// What keeps the sidecar from starting, with the knob to turn.
    pub async fn start(config: &Config, watch: drain::Watch) -> anyhow::Result<Self> {
        let (upstream, credential) = place::connect(config)?;
        let ready = Ready::default();
        let minting = ready.block("the first minted token");
        let listeners = bind(config).await?;
        let port = listeners
            .first()
            .map_or(config.settings.port, |listener| listener.address().port());
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let admin = bind_admin(config, &ready, Arc::new(registry)).await?;

        let served = authority::serve(&config.state_dir, OffsetDateTime::now_utc())?;
        let files = Files {
            ca_pem: &served.ca_pem,
            namespace: &config.target.namespace,
            port,
        };
        let tokens = place::write_agent_files(config, &files)?;
        let server = tls::server_config(served.chain, served.key, &[tls::HTTP_1_1])?;

        let mint = Mint::new(config, credential)?;
        let proxy = Proxy {
            upstream,
            recorder: Recorder::start(recorder_config(config)?)?,
            local_tokens: LocalTokens::new(
                config.settings.local_auth,
                tokens
                    .iter()
                    .map(|(container, token)| (container.clone(), token)),
            ),
            mint_mode: config.settings.mint,
            max_stream_age: config.max_stream_age,
            body_grace: config.body_grace,
            drain: watch.clone(),
            tunnels: Tunnels::default(),
            mint,
            metrics,
        };
        let opening = first_mint(config, &proxy.mint);
        let tls = watch::channel(Arc::new(server)).1;
        Ok(Self {
            proxy: Arc::new(proxy),
            listeners,
            admin,
            tls,
            watch,
            minting,
            draining: ready,
            opening: Some(opening),
            drain_deadline: config.drain_deadline,
        })
    }

    /// The same after its first mint, for whoever would rather hear at once why no token can be minted than wait for one.
    ///
    /// # Errors
    /// Why none could be minted, or that the end was signalled.
    pub async fn proved(mut self) -> anyhow::Result<Self> {
        if let Some(opening) = self.opening.take() {
            let mut ending = self.watch.clone();
            let minted = tokio::select! {
                minted = try_mint(&self.proxy, opening) => minted,
                () = ending.signaled() => Err("told to end before a token was minted".to_owned()),
            };
            if let Err(message) = minted {
                self.proxy.recorder.shutdown(self.drain_deadline).await;
                anyhow::bail!(message);
            }
        }
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
            listeners,
            admin,
            tls,
            watch,
            minting,
            draining,
            opening,
            drain_deadline,
        } = self;
        let mut ending = watch.clone();
        let (admin_drain, admin_watch) = drain::channel();
        let admin = tokio::spawn(admin.serve(admin_watch));
        let mut serving = tokio::task::JoinSet::new();
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
            () = prove_mint(&proxy, opening) => {
                drop(minting);
                tracing::info!("ready");
            }
            () = ending.signaled() => {}
        }
        ending.signaled().await;
        let _draining = draining.block("the end of the process");
        while serving.join_next().await.is_some() {}
        proxy.tunnels.ended().await;
        proxy.recorder.shutdown(drain_deadline).await;
        admin_drain.signal();
        drop(admin.await);
        tracing::info!("ended");
    }
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

/// The first mint belongs to no call, but is on record as every other.
fn first_mint(config: &Config, mint: &Mint) -> Opening {
    let Target {
        namespace, account, ..
    } = &config.target;
    Opening {
        verb: "create".to_owned(),
        uri: mint.path().to_string(),
        object: Some(ObjectRef {
            resource: Some("serviceaccounts".into()),
            namespace: Some(namespace.clone().into()),
            name: Some(account.clone().into()),
            api_group: None,
            api_version: Some("v1".into()),
            subresource: Some("token".into()),
        }),
        container: None,
        user_agent: None,
        source_ip: None,
        decision: Decision::Allow,
        reason: "first-mint",
        tier: "sidecar",
        policy: None,
        received: SystemTime::now(),
    }
}

/// Mints until one mint succeeds: a sidecar that starts before its namespace's RoleBinding waits for it.
async fn prove_mint(proxy: &Proxy, opening: Option<Opening>) {
    while let Some(opening) = &opening {
        match try_mint(
            proxy,
            Opening {
                received: SystemTime::now(),
                ..opening.clone()
            },
        )
        .await
        {
            Ok(()) => return,
            Err(reason) => tracing::warn!(reason, "not ready: no token could be minted yet"),
        }
        tokio::time::sleep(MINT_PAUSE).await;
    }
}

async fn try_mint(proxy: &Proxy, opening: Opening) -> Result<(), String> {
    let mut record = proxy
        .recorder
        .open(opening)
        .await
        .map_err(|error| error.to_string())?;
    let started = std::time::Instant::now();
    let audit_id = HeaderValue::from_str(&record.mint_audit_id().to_string())
        .map_err(|error| error.to_string())?;
    let minted = proxy.mint.mint(&proxy.upstream, &audit_id).await;
    let (outcome, refusal): (&str, Option<Refusal>) = match minted {
        Ok(minted) => {
            record.minted(minted.credential_id, started.elapsed());
            ("unused", None)
        }
        Err(refusal) => (outcome::REFUSED, Some(refusal)),
    };
    record.close(Closing {
        outcome,
        reason: refusal
            .as_ref()
            .map(|refusal| refusal.reason.code().to_owned()),
        message: refusal.as_ref().map(|refusal| refusal.message.clone()),
        ..Closing::default()
    });
    refusal.map_or(Ok(()), |refusal| Err(refusal.message))
}
