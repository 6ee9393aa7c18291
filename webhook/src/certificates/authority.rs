//! The webhook's certificate authority and what follows from the time: when it is renewed, which certificates the API server
//! must trust, which leaf a replica serves. Pure but for the randomness of new keys: the clock is an argument, the Secret's
//! data goes in and out as bytes.
//!
//! A new authority is trusted first and signs only later, so that every API server has seen the new `caBundle` by then; an old
//! one is trusted until the last leaf that it signed is gone. All replicas read the same Secret, so all of them do the same.
//! An authority that comes out of turn (a Secret restored or made anew) gets the one that served so far as its previous one.

mod ca;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use self::ca::{Ca, Certificate, Previous};
use crate::voucher::Vouchers;

/// How long a leaf is valid.
const LEAF_LIFE: Duration = Duration::days(7);
/// How far validity begins in the past, for API servers whose clock is behind.
const BACKDATED: Duration = Duration::hours(1);
/// How long a new authority is only trusted: API servers reload webhook configurations within seconds, replicas within one
/// period of the reconciler.
const TRUSTED_FIRST: Duration = Duration::minutes(10);

/// The last line of a certificate in PEM.
const END: &str = "-----END CERTIFICATE-----";

/// Keys of the Secret.
mod field {
    pub(super) const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
    pub(super) const NEXT: [&str; 2] = ["next.crt", "next.key"];
    pub(super) const PREVIOUS: &str = "previous.crt";
    pub(super) const PREVIOUS_UNTIL: &str = "previous.until";
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

/// What the Secret holds.
#[derive(Debug)]
pub(crate) struct Authority {
    current: Ca,
    next: Option<Ca>,
    previous: Option<Previous>,
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
                .then(|| Previous::read(data))
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
            let until = previous.until.unix_timestamp().to_string();
            let pem = previous.certificate.pem.clone();
            data.insert(field::PREVIOUS.to_owned(), ByteString(pem.into()));
            data.insert(field::PREVIOUS_UNTIL.to_owned(), ByteString(until.into()));
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
            self.previous = Some(Previous::new(old.certificate, now));
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
        let over = self.previous.take_if(|previous| now >= previous.until);
        Ok(over.is_some())
    }

    /// Goes on trusting the authority that signed so far; whether that changed anything.
    pub(crate) fn keep(&mut self, held: &Self, now: OffsetDateTime) -> bool {
        self.keep_certificate(&held.current.certificate, now)
    }

    /// Goes on trusting the authority that signs for `bundle`, its first one. What cannot be read was not trusted either.
    pub(crate) fn keep_bundle(&mut self, bundle: &str, now: OffsetDateTime) {
        let first = bundle.split_inclusive(END).next().unwrap_or_default();
        if let Ok(certificate) = Certificate::from_pem(first) {
            self.keep_certificate(&certificate, now);
        }
    }

    fn keep_certificate(&mut self, certificate: &Certificate, now: OffsetDateTime) -> bool {
        let is_trusted = self.trusted().any(|trusted| trusted.der == certificate.der);
        if is_trusted || now >= certificate.ends {
            return false;
        }
        self.previous = Some(Previous::new(certificate.clone(), now));
        true
    }

    /// Whether the leaf is from an authority that [`Self::bundle`] has in it.
    pub(crate) fn trusts(&self, leaf: &Leaf) -> bool {
        self.trusted().any(|trusted| trusted.der == leaf.issuer)
    }

    /// The certificates to trust: the signing one first.
    fn trusted(&self) -> impl Iterator<Item = &Certificate> {
        let next = self.next.as_ref().map(|ca| &ca.certificate);
        let previous = self.previous.as_ref().map(|previous| &previous.certificate);
        [Some(&self.current.certificate), next, previous]
            .into_iter()
            .flatten()
    }

    /// The certificates to trust, as PEM: the signing one first.
    pub(crate) fn bundle(&self) -> String {
        self.trusted()
            .map(|certificate| certificate.pem.as_str())
            .collect()
    }

    /// The keys of vouchers. Other replicas may take a new authority up to a period earlier or later, so what comes next is believed,
    /// and what was held until now is believed until the next look.
    pub(crate) fn vouchers(&self, held: Option<&Self>) -> Vouchers {
        let all = [Some(self), held].into_iter().flatten();
        let all = all.flat_map(|authority| [Some(&authority.current), authority.next.as_ref()]);
        let mut secrets: Vec<&[u8]> = Vec::new();
        for ca in all.flatten() {
            let secret = ca.key.serialized_der();
            if !secrets.contains(&secret) {
                secrets.push(secret);
            }
        }
        Vouchers::new(secrets)
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

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests;
