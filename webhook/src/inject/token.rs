//! Credentials for the API server that a pod's volumes carry: the API server's own projection, which is taken away, and those
//! that somebody wrote, which are refused. Recognised by content, never by name.

use tollgate_shared::contract::RESERVED_VOLUMES;

use super::config::InjectConfig;
use super::pod::{Pod, Volume, list, number, object, text};
use crate::json::List;
use crate::reason::{Denial, Reason};

/// Life of the token in the volume that the ServiceAccount plugin adds; by this number the API server knows it as well
/// (`pkg/serviceaccount/claims.go`, `WarnOnlyBoundTokenExpirationSeconds`).
const API_SERVER_TOKEN_SECONDS: i64 = 3607;
/// ConfigMaps in that volume; the second is OpenShift's.
const API_SERVER_CONFIG_MAPS: [&str; 2] = ["kube-root-ca.crt", "openshift-service-ca.crt"];
/// Signers of certificates that the API server itself accepts from clients have names in this domain.
const CLUSTER_SIGNERS: &str = "kubernetes.io/";

/// Sources of a projected volume.
fn sources<'a>(volume: &Volume<'a>) -> Result<List<'a>, Denial> {
    match object(volume.value, "projected")? {
        Some(projected) => Ok(list(projected, "sources")?.items),
        None => Ok(volume.value.no_items()),
    }
}

/// Whether a volume is the API server's own token volume: exactly what the ServiceAccount plugin writes, nothing besides.
pub(crate) fn is_api_server_volume(volume: &Volume<'_>) -> Result<bool, Denial> {
    let mut tokens = 0;
    for source in sources(volume)?.iter() {
        if let Some(token) = object(source, "serviceAccountToken")? {
            let plain = text(token, "path")? == Some("token")
                && number(token, "expirationSeconds")? == Some(API_SERVER_TOKEN_SECONDS)
                && text(token, "audience")?.unwrap_or_default().is_empty();
            if !plain {
                return Ok(false);
            }
            tokens += 1;
        } else if let Some(map) = object(source, "configMap")? {
            let name = text(map, "name")?.unwrap_or_default();
            if !API_SERVER_CONFIG_MAPS.contains(&name) {
                return Ok(false);
            }
        } else if object(source, "downwardAPI")?.is_none() {
            return Ok(false);
        }
    }
    Ok(tokens == 1)
}

/// Refuses every projection of a credential for the API server but the API server's own and our bootstrap volume.
pub(crate) fn refuse_foreign(pod: &Pod<'_>, config: &InjectConfig) -> Result<(), Denial> {
    for volume in &pod.volumes {
        // A reserved name is either our volume or denied as such.
        if RESERVED_VOLUMES.contains(&volume.name) || is_api_server_volume(volume)? {
            continue;
        }
        refuse_in(volume, config)?;
    }
    Ok(())
}

/// Refuses a pod whose volumes carry any credential for the API server, the API server's own included.
pub(crate) fn refuse_all(pod: &Pod<'_>, config: &InjectConfig) -> Result<(), Denial> {
    pod.volumes
        .iter()
        .try_for_each(|volume| refuse_in(volume, config))
}

fn refuse_in(volume: &Volume<'_>, config: &InjectConfig) -> Result<(), Denial> {
    for source in sources(volume)?.iter() {
        if let Some(token) = object(source, "serviceAccountToken")? {
            let audience = text(token, "audience")?.unwrap_or_default();
            refuse_audience(volume.name, audience, config)?;
        }
        if let Some(certificate) = object(source, "podCertificate")? {
            let signer = text(certificate, "signerName")?.unwrap_or_default();
            if signer.is_empty() || signer.starts_with(CLUSTER_SIGNERS) {
                let message = format!(
                    "volume {} projects a certificate of signer {signer:?}, which the API server may accept; remove it",
                    volume.name
                );
                return Err(Denial::new(Reason::PodCertificate, message));
            }
        }
    }
    Ok(())
}

fn refuse_audience(volume: &str, audience: &str, config: &InjectConfig) -> Result<(), Denial> {
    let among = |list: &[String]| list.iter().any(|known| known == audience);
    let message = if audience.is_empty() || among(&config.api_audiences) {
        format!(
            "volume {volume} projects a service account token for the API server; remove it, the sidecar mints tokens for \
             each call"
        )
    } else if !among(&config.allowed_audiences) {
        format!(
            "volume {volume} projects a token for audience {audience:?}; an administrator can allow it in allowedAudiences"
        )
    } else {
        return Ok(());
    };
    Err(Denial::new(Reason::ForeignToken, message))
}
