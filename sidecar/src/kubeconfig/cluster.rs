//! The cluster of a kubeconfig's context.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::uri::Authority;
use serde_json::{Value, json};

use super::Source;
use super::entry::{Entry, Faults};

/// An API server.
pub struct Cluster {
    /// Host and port.
    pub authority: Authority,
    /// The name that its certificate has, where that is not its host.
    pub server_name: Option<String>,
    /// Whom to trust.
    pub ca: Ca,
    /// What an exec plugin may want to know of it, without the CA: `spec.cluster` of an `ExecCredential`.
    pub described: Value,
}

/// Certificates to trust.
pub enum Ca {
    /// Those of the kubeconfig.
    Given(Source),
    /// Those that this machine trusts, because the kubeconfig names none.
    System,
}

impl Cluster {
    pub(super) fn read(
        entry: &Entry<'_>,
        folder: &Path,
        server: Option<&str>,
        faults: &mut Faults,
    ) -> Option<Self> {
        if entry.flag("insecure-skip-tls-verify", faults) {
            let message = "is not supported, for whoever answers would get the credential: give the cluster's CA in \
                           certificate-authority or certificate-authority-data (and tls-server-name, if only the name differs)";
            entry.fault(faults, "insecure-skip-tls-verify", message);
        }
        if entry.value("proxy-url").is_some() {
            let message = "is not supported: reach the API server through a tunnel (such as ssh -L), name that with \
                           --api-server, and keep the certificate's name in tls-server-name";
            entry.fault(faults, "proxy-url", message);
        }
        let server_name = entry.text("tls-server-name", faults);
        let ca = entry.source("certificate-authority", folder, faults);
        let url = entry.text("server", faults);
        let own = match (&url, server) {
            (None, None) => Err("is missing"),
            (_, Some(url)) => authority(url),
            (Some(url), None) => authority(url),
        };
        let authority = match own {
            Ok(authority) => authority,
            Err(message) => {
                entry.fault(faults, "server", message);
                return None;
            }
        };
        let mut described = json!({ "server": format!("https://{authority}") });
        let more = [
            ("tls-server-name", server_name.clone().map(Value::from)),
            ("config", plugin_config(entry, faults)),
        ];
        for (field, value) in more {
            if let (Some(fields), Some(value)) = (described.as_object_mut(), value) {
                fields.insert(field.to_owned(), value);
            }
        }
        Some(Self {
            authority,
            server_name,
            ca: ca.map_or(Ca::System, Ca::Given),
            described,
        })
    }

    /// [`Self::described`] with the CA, where there is one.
    #[must_use]
    pub fn described_with(&self, ca_pem: Option<&[u8]>) -> Value {
        let mut described = self.described.clone();
        if let (Some(fields), Some(pem)) = (described.as_object_mut(), ca_pem) {
            let data = STANDARD.encode(pem);
            fields.insert("certificate-authority-data".to_owned(), data.into());
        }
        described
    }
}

/// `https://HOST[:PORT]`; the URL itself may hold a password, so it is not repeated.
fn authority(url: &str) -> Result<Authority, &'static str> {
    let uri: Uri = url
        .trim_end_matches('/')
        .parse()
        .map_err(|_| "is no URL of the form https://HOST:PORT")?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), _) => {
            Err("is plain http, which would show every token to the network: it must be https")
        }
        (Some("https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("has a user name in it; remove that")
        }
        (Some("https"), Some(_)) if !matches!(uri.path(), "" | "/") || uri.query().is_some() => {
            Err(
                "has a path, and API servers behind one are not supported: give the API server's own address, also with --api-server",
            )
        }
        (Some("https"), Some(authority)) => Ok(authority.clone()),
        _ => Err("is no URL of the form https://HOST:PORT"),
    }
}

/// Where the configuration for exec plugins stands among a cluster's extensions (`client-go/tools/clientcmd/api/types.go`).
const PLUGIN_EXTENSION: &str = "client.authentication.k8s.io/exec";

fn plugin_config(entry: &Entry<'_>, faults: &mut Faults) -> Option<Value> {
    let extensions = entry.list("extensions", faults).iter();
    let mut configs = extensions
        .filter(|extension| extension.get("name").and_then(Value::as_str) == Some(PLUGIN_EXTENSION))
        .filter_map(|extension| extension.get("extension"));
    configs.next().cloned()
}
