//! The sidecar's own certificate authority. Its key never leaves the state volume, which only the sidecar mounts; it survives a
//! restart because many clients read `ca.crt` once. The leaf is made at each start and lives in memory.
//!
//! The forms are what strict verifiers ask for (`VERIFY_X509_STRICT` of Python 3.13, rustls, Go): a real CA with key usage and
//! subject key identifier, a leaf with authority key identifier and with the addresses as IP SANs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::agent_files::write_private;

/// Names under which clients reach the API server in a cluster; those besides the addresses cost nothing.
pub const DNS_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// A pod may run for years, and clients read the CA once.
const LIFE: Duration = Duration::days(3650);

/// The CA could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the state folder.
    #[error("cannot use {path} (state-dir): {source}")]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key that does not parse, or could not be made.
    #[error("cannot make the local certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The CA file is no certificate.
    #[error("{0} (state-dir) holds no certificate; remove it and restart the pod")]
    NoCertificate(PathBuf),
}

/// What the server shows and what agents trust.
pub struct Served {
    /// The CA, PEM, for `ca.crt`.
    pub ca_pem: String,
    /// Leaf and CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Reads the CA from the state folder, or makes it, and signs a new leaf.
///
/// # Errors
/// See [`AuthorityError`].
pub fn serve(state_dir: &Path, now: OffsetDateTime) -> Result<Served, AuthorityError> {
    let (certificate_path, key_path) = (state_dir.join("ca.crt"), state_dir.join("ca.key"));
    let (ca_pem, ca_key) = match read(&key_path)? {
        // The certificate is written after the key: with a key alone the last start was cut short.
        Some(key_pem) => {
            let key = KeyPair::from_pem(&key_pem)?;
            match read(&certificate_path)? {
                Some(pem) => (pem, key),
                None => (create(&certificate_path, &key, now)?, key),
            }
        }
        None => {
            let key = KeyPair::generate()?;
            write(&key_path, &key.serialize_pem())?;
            (create(&certificate_path, &key, now)?, key)
        }
    };
    let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
        .map_err(|_| AuthorityError::NoCertificate(certificate_path))?;
    let leaf_key = KeyPair::generate()?;
    let leaf = leaf_params(now).signed_by(&leaf_key, &Issuer::new(ca_params(now), ca_key))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    Ok(Served {
        ca_pem,
        chain: vec![leaf.der().clone(), ca_der],
        key,
    })
}

fn create(path: &Path, key: &KeyPair, now: OffsetDateTime) -> Result<String, AuthorityError> {
    let pem = ca_params(now).self_signed(key)?.pem();
    write(path, &pem)?;
    Ok(pem)
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), AuthorityError> {
    write_private(path, text.as_bytes()).map_err(|source| AuthorityError::File {
        path: path.to_owned(),
        source,
    })
}

fn named(common_name: &str, now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // An hour back: the clocks of a pod's containers are one, but a resumed machine may set it back.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + LIFE;
    params
}

fn ca_params(now: OffsetDateTime) -> CertificateParams {
    let mut params = named("Tollgate sidecar CA", now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(now: OffsetDateTime) -> CertificateParams {
    let mut params = named("Tollgate sidecar", now);
    let addresses = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    params.subject_alt_names = addresses.into_iter().map(SanType::IpAddress).collect();
    let names = DNS_NAMES
        .into_iter()
        .filter_map(|name| name.try_into().ok());
    params.subject_alt_names.extend(names.map(SanType::DnsName));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_survives_a_restart_and_the_leaf_does_not() {
        let state = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let first = serve(state.path(), now).unwrap();
        let second = serve(state.path(), now + Duration::days(30)).unwrap();
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_ne!(first.chain[0], second.chain[0]);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(state.path().join("ca.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_start_cut_short_between_key_and_certificate_is_continued() {
        let state = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        serve(state.path(), now).unwrap();
        fs::remove_file(state.path().join("ca.crt")).unwrap();
        assert!(serve(state.path(), now).is_ok());
    }

    #[test]
    fn openssl_accepts_the_chain_strictly() {
        let state = tempfile::tempdir().unwrap();
        let served = serve(state.path(), OffsetDateTime::now_utc()).unwrap();
        let leaf = state.path().join("leaf.der");
        fs::write(&leaf, &served.chain[0]).unwrap();
        for extra in [
            ["-verify_ip", "127.0.0.1"],
            ["-verify_ip", "::1"],
            ["-verify_hostname", "kubernetes.default.svc"],
        ] {
            let output = std::process::Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
                .arg(state.path().join("ca.crt"))
                .args(extra)
                .arg(&leaf)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{extra:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
