//! What an authority consists of: certificates, the keys that sign, and how long one that signs no more is trusted.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};

use super::{BACKDATED, BadAuthority, CannotIssue, common_name, field};

/// How long an authority is valid.
const CA_LIFE: Duration = Duration::days(365);
/// How long after it stopped signing an authority is still trusted.
const TRUSTED_AFTER: Duration = Duration::days(8);

/// A certificate of an authority.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) der: CertificateDer<'static>,
    /// With a newline at the end.
    pub(super) pem: String,
    begins: OffsetDateTime,
    pub(super) ends: OffsetDateTime,
}

/// An authority that can sign.
#[derive(Debug)]
pub(super) struct Ca {
    pub(super) certificate: Certificate,
    pub(super) key: KeyPair,
}

/// An authority that signs no more.
#[derive(Debug)]
pub(super) struct Previous {
    pub(super) certificate: Certificate,
    /// When it ceases to be trusted.
    pub(super) until: OffsetDateTime,
}

impl Ca {
    pub(super) fn new(now: OffsetDateTime) -> Result<Self, CannotIssue> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // Seconds, as X.509 has them.
        let now = now.replace_nanosecond(0).unwrap_or(now);
        params.not_before = now - BACKDATED;
        params.not_after = now + CA_LIFE;
        // Two authorities of one bundle must not share a name: some verifiers would try the first one only.
        params.distinguished_name =
            common_name(&format!("tollgate-webhook-ca {}", now.unix_timestamp()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let certificate = Certificate {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            begins: params.not_before,
            ends: params.not_after,
        };
        Ok(Self { certificate, key })
    }

    pub(super) fn read(
        data: &BTreeMap<String, ByteString>,
        [certificate, key]: [&'static str; 2],
    ) -> Result<Self, BadAuthority> {
        let bad = |problem: &str| BadAuthority {
            field: key,
            problem: problem.to_owned(),
        };
        let certificate = Certificate::read(data, certificate)?;
        let pem = data.get(key).ok_or_else(|| bad("is missing"))?;
        let pem = std::str::from_utf8(&pem.0).map_err(|_| bad("is no text"))?;
        // The library's own error is left out: it must not come near the key.
        let key = KeyPair::from_pem(pem).map_err(|_| bad("is no private key in PEM"))?;
        if !key.is_compatible(&PKCS_ECDSA_P256_SHA256) {
            return Err(bad("is no P-256 key"));
        }
        if certificate.public_key() != Some(key.subject_public_key_info()) {
            return Err(bad("does not belong to its certificate"));
        }
        Ok(Self { certificate, key })
    }
}

impl Certificate {
    fn read(
        data: &BTreeMap<String, ByteString>,
        field: &'static str,
    ) -> Result<Self, BadAuthority> {
        let bad = |problem: &str| BadAuthority {
            field,
            problem: problem.to_owned(),
        };
        let pem = data.get(field).ok_or_else(|| bad("is missing"))?;
        let text = std::str::from_utf8(&pem.0).map_err(|_| bad("is no text"))?;
        Self::from_pem(text).map_err(bad)
    }

    pub(super) fn from_pem(text: &str) -> Result<Self, &'static str> {
        let mut all = CertificateDer::pem_slice_iter(text.as_bytes());
        let (Some(Ok(der)), None) = (all.next(), all.next()) else {
            return Err("is not one certificate in PEM");
        };
        let (rest, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|_| "is no X.509 certificate")?;
        if !rest.is_empty() || !parsed.is_ca() {
            return Err("is no certificate of an authority");
        }
        let validity = parsed.validity();
        Ok(Self {
            begins: validity.not_before.to_datetime(),
            ends: validity.not_after.to_datetime(),
            pem: format!("{}\n", text.trim()),
            der: der.clone(),
        })
    }

    fn public_key(&self) -> Option<Vec<u8>> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.der).ok()?;
        Some(parsed.public_key().raw.to_vec())
    }

    /// When it was made.
    pub(super) fn made(&self) -> OffsetDateTime {
        self.begins + BACKDATED
    }

    pub(super) fn two_thirds(&self) -> OffsetDateTime {
        self.made() + (self.ends - self.made()) * 2 / 3
    }
}

impl Previous {
    pub(super) fn new(certificate: Certificate, now: OffsetDateTime) -> Self {
        let until = now + TRUSTED_AFTER;
        Self { certificate, until }
    }

    pub(super) fn read(data: &BTreeMap<String, ByteString>) -> Result<Self, BadAuthority> {
        let certificate = Certificate::read(data, field::PREVIOUS)?;
        let until = data.get(field::PREVIOUS_UNTIL);
        let until = until.and_then(|until| std::str::from_utf8(&until.0).ok()?.parse().ok());
        let until = until.and_then(|until| OffsetDateTime::from_unix_timestamp(until).ok());
        let until = until.ok_or_else(|| BadAuthority {
            field: field::PREVIOUS_UNTIL,
            problem: "is no time in seconds".to_owned(),
        })?;
        Ok(Self { certificate, until })
    }
}
