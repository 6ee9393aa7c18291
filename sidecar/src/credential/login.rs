//! A kubeconfig's login as connections: reads the files that it names, and keeps the credential apart from the calls. There are
//! two sets of connections: that of the calls trusts the cluster's CA and shows nothing; what shows a certificate is for
//! TokenRequests alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use tollgate_shared::secret::Token;
use tollgate_shared::tls::{self, Identity};

use super::exec::Exec;
use super::{Credential, Kind, Shown};
use crate::file::Fresh;
use crate::kubeconfig::{Ca, Login, Source, User};
use crate::upstream::Upstream;

/// Where Linux distributions keep the certificates that a machine trusts, as Go looks for them
/// (`crypto/x509/root_linux.go`).
const SYSTEM_CA: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// No file of certificates is as large.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// Makes connections to one API server.
pub(super) struct Connector {
    authority: Authority,
    server_name: Option<ServerName<'static>>,
    roots: RootCertStore,
}

impl Connector {
    /// Connections of their own, which show this identity.
    ///
    /// # Errors
    /// When certificate and key are of no use, or not for each other.
    pub(super) fn connect(&self, identity: Option<Identity>) -> Result<Upstream, String> {
        let config = tls::client_config_with(self.roots.clone(), identity, &[]);
        let config = config.map_err(|error| error.to_string())?;
        Ok(Upstream::fixed(
            self.authority.clone(),
            self.server_name.clone(),
            &Arc::new(config),
        ))
    }
}

/// Connections for the calls, and the credential. A plugin gets `limit` to print it.
///
/// # Errors
/// Everything that is wrong with the files that the kubeconfig names, and with what is in them.
pub fn connect(login: Login, limit: Duration) -> Result<(Upstream, Credential), Vec<String>> {
    let Login { cluster, user } = login;
    let mut faults = Vec::new();
    let ca_pem = keep(ca(&cluster.ca), &mut faults);
    let given = matches!(cluster.ca, Ca::Given(_));
    let roots = ca_pem.as_deref().and_then(|pem| {
        let roots = tls::roots(pem).map_err(|error| format!("certificate-authority: {error}"));
        keep(roots, &mut faults)
    });
    let server_name = cluster.server_name.as_ref().map(|name| {
        ServerName::try_from(name.clone())
            .map_err(|_| format!("tls-server-name {name:?} is no name of a host"))
    });
    let server_name = server_name.and_then(|name| keep(name, &mut faults));
    let connector = Connector {
        authority: cluster.authority.clone(),
        server_name,
        roots: roots.unwrap_or_else(RootCertStore::empty),
    };
    let kind = match user {
        User::Token(token) => Ok(Kind::Fixed(Shown::token((Arc::new(token), 0)))),
        User::TokenFile(path) => token_file(path),
        User::Certificate { certificate, key } => identity(&certificate, &key)
            .and_then(|identity| connector.connect(Some(identity)))
            .map(|connections| Kind::Fixed(Shown::certificate(Arc::new(connections), 0))),
        User::Exec(plugin) => {
            let described = cluster.described_with(ca_pem.as_deref().filter(|_| given));
            let upstream = keep(connector.connect(None), &mut faults);
            let exec = Exec::new(plugin, described, connector, limit);
            return finish(upstream, Ok(Kind::Exec(Box::new(exec))), faults);
        }
    };
    let upstream = keep(connector.connect(None), &mut faults);
    finish(upstream, kind, faults)
}

fn finish(
    upstream: Option<Upstream>,
    kind: Result<Kind, String>,
    mut faults: Vec<String>,
) -> Result<(Upstream, Credential), Vec<String>> {
    match (upstream, keep(kind, &mut faults)) {
        (Some(upstream), Some(kind)) if faults.is_empty() => {
            Ok((upstream, Credential::of_kubeconfig(kind)))
        }
        _ => Err(faults),
    }
}

fn keep<T>(result: Result<T, String>, faults: &mut Vec<String>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn ca(ca: &Ca) -> Result<Vec<u8>, String> {
    match ca {
        Ca::Given(source) => content(source, "certificate-authority"),
        Ca::System => {
            let found = SYSTEM_CA.iter().find_map(|path| std::fs::read(path).ok());
            found.ok_or_else(|| {
                "there is no certificate-authority, and this machine has no list of trusted certificates".to_owned()
            })
        }
    }
}

fn content(source: &Source, field: &str) -> Result<Vec<u8>, String> {
    match source {
        Source::Data(data) => Ok(data.clone()),
        Source::File(path) => {
            read(path).map_err(|error| format!("{field} {}: {error}", path.display()))
        }
    }
}

/// A pipe or a device could give without end.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::metadata(path)?;
    if !file.is_file() || file.len() > FILE_LIMIT {
        return Err(std::io::Error::other("is no file of certificates or keys"));
    }
    std::fs::read(path)
}

fn token_file(path: PathBuf) -> Result<Kind, String> {
    let token = Fresh::open(path, |text| {
        Token::parse(text).map_err(|error| format!("(tokenFile): {error}"))
    });
    token.map(Kind::File).map_err(|error| error.to_string())
}

fn identity(certificate: &Source, key: &Source) -> Result<Identity, String> {
    let chain = content(certificate, "client-certificate")?;
    parse(&chain, &content(key, "client-key")?)
}

/// Certificate and key from PEM; the key never shows in an error.
pub(super) fn parse(certificate: &[u8], key: &[u8]) -> Result<Identity, String> {
    let chain = tls::certificates(certificate, "client-certificate");
    let chain = chain.map_err(|error| error.to_string())?;
    let key = tls::private_key(key, "client-key");
    let key =
        key.map_err(|_| "client-key: there is no unencrypted private key in it".to_owned())?;
    Ok((chain, key))
}

#[cfg(test)]
mod tests;
