//! The only place that builds TLS configurations. One provider (ring), TLS 1.2 and 1.3, installed by hand: nothing here
//! depends on a process-wide default.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The protocol that both binaries serve.
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// The certificates or the key are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text is no PEM.
    #[error("{what}: {source}")]
    Pem {
        /// Which of the inputs.
        what: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in the text.
    #[error("{0}: there is no certificate in it")]
    Empty(&'static str),
    /// rustls refuses the certificate, the key, or the pair.
    #[error("{what}: {source}")]
    Unusable {
        /// Which of the inputs.
        what: &'static str,
        /// What rustls said; [`rustls::Error::InconsistentKeys`] when key and certificate do not belong together.
        source: rustls::Error,
    },
}

/// The cryptography of every TLS configuration.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes the provider the process's default too, for libraries that ask for one (kube). A second call changes nothing.
pub fn install_provider() {
    // An error means that a default is there already, and no other provider is compiled in.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A server's configuration from its chain (leaf first), the leaf's key, and the protocols it offers by ALPN.
///
/// # Errors
/// [`TlsError::Unusable`], also when key and leaf do not belong together.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let unusable = |source| TlsError::Unusable {
        what: "certificate and key of the server",
        source,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that builds TLS configurations"
    )]
    let builder = ServerConfig::builder_with_provider(provider());
    let mut config = builder
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// A certificate chain, leaf first, and the leaf's key, for a client to show.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A client's configuration that trusts the certificates of a PEM bundle and nothing else. A certificate that rustls cannot
/// use as a root is passed over as long as one remains, as Go does.
///
/// # Errors
/// [`TlsError`] for text that is no PEM, and for a bundle without a usable certificate.
pub fn client_config(ca_bundle: &[u8], protocols: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    client_config_with(roots(ca_bundle)?, None, protocols)
}

/// The certificates of a PEM bundle as what [`client_config_with`] trusts.
///
/// # Errors
/// As [`client_config`].
pub fn roots(ca_bundle: &[u8]) -> Result<RootCertStore, TlsError> {
    let what = "bundle of CA certificates";
    let certificates = certificates(ca_bundle, what)?;
    let mut roots = RootCertStore::empty();
    let mut refused = None;
    for certificate in certificates {
        if let Err(source) = roots.add(certificate) {
            refused = Some(source);
        }
    }
    match refused {
        Some(source) if roots.is_empty() => Err(TlsError::Unusable { what, source }),
        _ => Ok(roots),
    }
}

/// A client's configuration that trusts these roots and, if it has an identity, shows it to servers that ask.
///
/// # Errors
/// [`TlsError::Unusable`], also when key and leaf do not belong together.
pub fn client_config_with(
    roots: RootCertStore,
    identity: Option<Identity>,
    protocols: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let unusable = |source| TlsError::Unusable {
        what: "certificate and key of the client",
        source,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that builds TLS configurations"
    )]
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The certificates of a PEM text, at least one; `what` names the text in errors.
///
/// # Errors
/// [`TlsError::Pem`] or [`TlsError::Empty`].
pub fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(what));
    }
    Ok(certificates)
}

/// The private key of a PEM text; `what` names the text in errors, which never repeat it.
///
/// # Errors
/// [`TlsError::Pem`].
pub fn private_key(pem: &[u8], what: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| TlsError::Pem { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (rcgen::CertifiedKey<rcgen::KeyPair>, String, String) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        (pair, cert, key)
    }

    #[test]
    fn takes_what_belongs_together() {
        let (_, cert, key) = pair();
        let chain = certificates(cert.as_bytes(), "chain").unwrap();
        let key = private_key(key.as_bytes(), "key").unwrap();
        let config = server_config(chain, key, &[HTTP_1_1]).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
        assert!(client_config(cert.as_bytes(), &[]).is_ok());
    }

    #[test]
    fn refuses_a_key_of_another_certificate() {
        let ((_, cert, _), (_, _, other)) = (pair(), pair());
        let chain = certificates(cert.as_bytes(), "chain").unwrap();
        let key = private_key(other.as_bytes(), "key").unwrap();
        let error = server_config(chain, key, &[]).unwrap_err();
        assert!(matches!(
            error,
            TlsError::Unusable {
                source: rustls::Error::InconsistentKeys(_),
                ..
            }
        ));
    }

    #[test]
    fn a_client_shows_what_belongs_together() {
        let ((_, cert, key), (_, _, other)) = (pair(), pair());
        let identity = |key: &str| {
            let chain = certificates(cert.as_bytes(), "chain").unwrap();
            Some((chain, private_key(key.as_bytes(), "key").unwrap()))
        };
        let trusted = || roots(cert.as_bytes()).unwrap();
        let config = client_config_with(trusted(), identity(&key), &[]).unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        let error = client_config_with(trusted(), identity(&other), &[]).unwrap_err();
        assert!(error.to_string().contains("client"), "{error}");
        let config = client_config(cert.as_bytes(), &[]).unwrap();
        assert!(!config.client_auth_cert_resolver.has_certs());
    }

    #[test]
    fn refuses_broken_bundles_without_repeating_them() {
        let (_, cert, key) = pair();
        let truncated = &cert.as_bytes()[..cert.len() / 2];
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bundle in [b"".as_slice(), b"hello", key.as_bytes(), truncated, garbage] {
            let error = client_config(bundle, &[]).unwrap_err().to_string();
            assert!(error.contains("bundle of CA certificates"), "{error}");
            assert!(!error.contains("PRIVATE"), "{error}");
        }
        assert!(private_key(cert.as_bytes(), "key").is_err());
    }

    #[test]
    fn one_usable_root_is_enough() {
        let (_, cert, _) = pair();
        let bundle =
            format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{cert}");
        assert!(client_config(bundle.as_bytes(), &[]).is_ok());
    }
}
