//! The webhook's certificate authority and what follows from the time: when it is renewed, which certificates the API server
//! must trust, which leaf a replica serves. Pure but for the randomness of new keys: the clock is an argument, the Secret's
//! data goes in and out as bytes.
//!
//! A new authority is trusted first and signs only later, so that every API server has seen the new `caBundle` by then; an old
//! one is trusted until the last leaf that it signed is gone. All replicas read the same Secret, so all of them do the same.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// How long an authority is valid.
const CA_LIFE: Duration = Duration::days(365);
/// How long a leaf is valid.
const LEAF_LIFE: Duration = Duration::days(7);
/// How far validity begins in the past, for API servers whose clock is behind.
const BACKDATED: Duration = Duration::hours(1);
/// How long a new authority is only trusted: API servers reload webhook configurations within seconds, replicas within one
/// period of the reconciler.
const TRUSTED_FIRST: Duration = Duration::minutes(10);
/// How long after it stopped signing an authority is still trusted.
const TRUSTED_AFTER: Duration = Duration::days(8);

/// Keys of the Secret.
mod field {
    pub(super) const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
    pub(super) const NEXT: [&str; 2] = ["next.crt", "next.key"];
    pub(super) const PREVIOUS: &str = "previous.crt";
}

/// The Secret's content is not one that the webhook wrote.
#[derive(Debug, thiserror::Error)]
#[error("{field} {problem}; delete the Secret, and a new authority is made")]
pub(crate) struct BadAuthority {
    field: &'static str,
    problem: String,
}

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub(crate) struct CannotIssue(#[from] rcgen::Error);

#[derive(Debug)]
struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
    begins: OffsetDateTime,
    ends: OffsetDateTime,
}

#[derive(Debug)]
struct Ca {
    certificate: Certificate,
    key: KeyPair,
}

/// What the Secret holds.
#[derive(Debug)]
pub(crate) struct Authority {
    current: Ca,
    next: Option<Ca>,
    previous: Option<Certificate>,
}

/// The certificate that one replica serves; its key never leaves the process.
pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    issued: OffsetDateTime,
    pub(crate) ends: OffsetDateTime,
    issuer: CertificateDer<'static>,
}

impl Authority {
    /// A new authority.
    pub(crate) fn new(now: OffsetDateTime) -> Result<Self, CannotIssue> {
        Ok(Self {
            current: Ca::new(now)?,
            next: None,
            previous: None,
        })
    }

    /// Reads the Secret's data.
    pub(crate) fn from_secret(data: &BTreeMap<String, ByteString>) -> Result<Self, BadAuthority> {
        let has = |field: &str| data.contains_key(field);
        let next = field::NEXT.into_iter().any(has);
        Ok(Self {
            current: Ca::read(data, field::CURRENT)?,
            next: next.then(|| Ca::read(data, field::NEXT)).transpose()?,
            previous: has(field::PREVIOUS)
                .then(|| Certificate::read(data, field::PREVIOUS))
                .transpose()?,
        })
    }

    /// The Secret's data.
    pub(crate) fn to_secret(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        let cas = [
            (field::CURRENT, Some(&self.current)),
            (field::NEXT, self.next.as_ref()),
        ];
        for ([certificate, key], ca) in cas {
            let Some(ca) = ca else { continue };
            data.insert(
                certificate.to_owned(),
                ByteString(ca.certificate.pem.clone().into()),
            );
            data.insert(key.to_owned(), ByteString(ca.key.serialize_pem().into()));
        }
        if let Some(previous) = &self.previous {
            data.insert(
                field::PREVIOUS.to_owned(),
                ByteString(previous.pem.clone().into()),
            );
        }
        data
    }

    /// Does what the time asks for; whether anything changed.
    pub(crate) fn advance(&mut self, now: OffsetDateTime) -> Result<bool, CannotIssue> {
        let over = now >= self.current.certificate.ends;
        if let Some(next) = self
            .next
            .take_if(|next| over || now - next.certificate.made() >= TRUSTED_FIRST)
        {
            let old = std::mem::replace(&mut self.current, next);
            self.previous = Some(old.certificate);
            return Ok(true);
        }
        if over {
            *self = Self::new(now)?;
            return Ok(true);
        }
        if self.next.is_none() && now >= self.current.certificate.two_thirds() {
            self.next = Some(Ca::new(now)?);
            return Ok(true);
        }
        let made = self.current.certificate.made();
        let done = now - made >= TRUSTED_FIRST + TRUSTED_AFTER;
        Ok(self.previous.take_if(|_| done).is_some())
    }

    /// The certificates to trust, as PEM: the signing one first.
    pub(crate) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|ca| &ca.certificate);
        [
            Some(&self.current.certificate),
            next,
            self.previous.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(|certificate| certificate.pem.as_str())
        .collect()
    }

    /// A new leaf for these DNS names.
    pub(crate) fn leaf(&self, names: &[String], now: OffsetDateTime) -> Result<Leaf, CannotIssue> {
        let ca = &self.current;
        let issuer = Issuer::from_ca_cert_der(&ca.certificate.der, &ca.key)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        params.not_before = now - BACKDATED;
        params.not_after = (now + LEAF_LIFE).min(ca.certificate.ends);
        params.distinguished_name = common_name("tollgate-webhook");
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let ends = params.not_after;
        let leaf = params.signed_by(&key, &issuer)?;
        Ok(Leaf {
            chain: vec![leaf.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            issued: now,
            ends,
            issuer: ca.certificate.der.clone(),
        })
    }
}

impl Leaf {
    /// Whether this leaf still serves: its authority signs, two thirds of its life are not over, and the clock has not gone
    /// back behind its beginning.
    pub(crate) fn is_good(&self, authority: &Authority, now: OffsetDateTime) -> bool {
        self.issuer == authority.current.certificate.der
            && now >= self.issued - BACKDATED
            && now < self.issued + (self.ends - self.issued) * 2 / 3
    }
}

impl Ca {
    fn new(now: OffsetDateTime) -> Result<Self, CannotIssue> {
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

    fn read(
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
        let mut all = CertificateDer::pem_slice_iter(&pem.0);
        let (Some(Ok(der)), None) = (all.next(), all.next()) else {
            return Err(bad("is not one certificate in PEM"));
        };
        let (rest, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|_| bad("is no X.509 certificate"))?;
        if !rest.is_empty() || !parsed.is_ca() {
            return Err(bad("is no certificate of an authority"));
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
    fn made(&self) -> OffsetDateTime {
        self.begins + BACKDATED
    }

    fn two_thirds(&self) -> OffsetDateTime {
        self.made() + (self.ends - self.made()) * 2 / 3
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests;
