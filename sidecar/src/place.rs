//! What depends on where the sidecar runs, a pod or a machine of somebody's: its credential, its addresses, the agents' files, and
//! whom the records name. All else is the same.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Context as _;
use tollgate_shared::knobs::{BadConfig, Fault};
use tollgate_shared::secret::Token;

use crate::agent_files::{self, AgentFileError, Files};
use crate::config::{Config, Place, Standalone, Target};
use crate::credential::{self, Credential};
use crate::kubeconfig::{Login, Wanted};
use crate::record::{AuditId, Identity};
use crate::upstream::Upstream;

/// Connections for the calls, and the credential to mint with.
///
/// # Errors
/// [`BadConfig`] with every fault of a kubeconfig; what keeps a pod's files from being read.
pub fn connect(config: &Config) -> anyhow::Result<(Upstream, Credential)> {
    match &config.place {
        Place::Pod {
            api_server,
            bootstrap_dir,
            ..
        } => Ok((
            Upstream::new(api_server.clone(), &bootstrap_dir.join("ca.crt"))?,
            Credential::bootstrap(bootstrap_dir)?,
        )),
        Place::Standalone(standalone) => log_in(standalone, config).map_err(|faults| {
            let path = standalone.kubeconfig.display();
            let fault = |message| Fault {
                knob: format!("kubeconfig {path}"),
                message,
            };
            BadConfig(faults.into_iter().map(fault).collect()).into()
        }),
    }
}

fn log_in(standalone: &Standalone, config: &Config) -> Result<(Upstream, Credential), Vec<String>> {
    let path = &standalone.kubeconfig;
    let text =
        fs::read_to_string(path).map_err(|error| vec![format!("cannot be read: {error}")])?;
    let wanted = Wanted {
        context: standalone.context.as_deref(),
        server: standalone.server.as_deref(),
    };
    let login = Login::read(&text, path, wanted)?;
    tracing::info!(?login, "logging in by the kubeconfig");
    credential::connect(login, config.mint_timeout)
}

/// Loopback addresses of the proxy; the second one is optional.
#[must_use]
pub fn proxy_addresses(config: &Config) -> (IpAddr, Option<IpAddr>) {
    let second = match config.place {
        Place::Pod { .. } => Some(Ipv6Addr::LOCALHOST.into()),
        // The kubeconfig names the first, and a free port of one need not be free on the other.
        Place::Standalone(_) => None,
    };
    (Ipv4Addr::LOCALHOST.into(), second)
}

/// Addresses of the admin port, the first that can be had. The kubelet probes a pod's own; `[::]` takes IPv4 too, where there is
/// IPv6.
#[must_use]
pub fn admin_addresses(config: &Config) -> (IpAddr, IpAddr) {
    match config.place {
        Place::Pod { .. } => (Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()),
        Place::Standalone(_) => (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
    }
}

/// Writes what the agents read, and gives their tokens.
///
/// # Errors
/// When a file cannot be written.
pub fn write_agent_files(
    config: &Config,
    files: &Files<'_>,
) -> Result<Vec<(String, Token)>, AgentFileError> {
    let containers = &config.settings.containers;
    match config.place {
        Place::Pod { .. } => agent_files::write(&config.agent_dir, containers, files),
        Place::Standalone(_) => {
            let token = agent_files::write_own(&config.agent_dir, files)?;
            let agent = containers.first().cloned();
            Ok(vec![(agent.unwrap_or_default(), token)])
        }
    }
}

/// Whom the records name.
///
/// # Errors
/// When the state folder does not keep the name of its chain.
pub fn identity(config: &Config) -> anyhow::Result<Identity> {
    let Target {
        namespace, account, ..
    } = &config.target;
    let username = format!("system:serviceaccount:{namespace}:{account}");
    let namespace = namespace.clone();
    Ok(match &config.place {
        Place::Pod { pod, .. } => Identity {
            username,
            namespace,
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            node: pod.node.clone(),
            is_pod: true,
        },
        Place::Standalone(standalone) => Identity {
            username,
            namespace,
            pod: standalone.whose.clone(),
            pod_uid: chain_id(&config.state_dir)?,
            node: None,
            is_pod: false,
        },
    })
}

/// The name of the chain of a state folder, in place of a pod's UID: random, and as old as the folder.
fn chain_id(state_dir: &Path) -> anyhow::Result<String> {
    let path = state_dir.join("chain");
    let failed = || format!("cannot use {} (--state-dir)", path.display());
    if let Ok(id) = fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let id = AuditId::from_number(uuid_v4(bytes)).to_string();
    agent_files::write_private(&path, id.as_bytes()).with_context(failed)?;
    Ok(id)
}

/// RFC 9562 section 5.4.
const fn uuid_v4(bytes: [u8; 16]) -> u128 {
    let random = u128::from_be_bytes(bytes);
    random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_keeps_its_name_and_each_folder_has_its_own() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = chain_id(one.path()).unwrap();
        assert_eq!(chain_id(one.path()).unwrap(), id);
        assert_ne!(chain_id(other.path()).unwrap(), id);
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(["8", "9", "a", "b"].contains(&&id[19..20]), "{id}");
    }
}
