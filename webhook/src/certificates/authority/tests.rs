//! The authority over time, and Secrets broken in every way.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{ServerName, UnixTime};
use x509_parser::extensions::ParsedExtension;

use super::*;

const NAME: &str = "tollgate-webhook.tollgate-system.svc";

fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn leaf(authority: &Authority, now: OffsetDateTime) -> Leaf {
    authority.leaf(&[NAME.to_owned()], now).unwrap()
}

/// Whether a client that trusts `bundle` takes the leaf at this time.
fn trusted(leaf: &Leaf, bundle: &str, now: OffsetDateTime) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        tollgate_shared::tls::provider(),
    )
    .build()
    .unwrap();
    let seconds = u64::try_from(now.unix_timestamp()).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let name = ServerName::try_from(NAME).unwrap();
    verifier
        .verify_server_cert(&leaf.chain[0], &[], &name, &[], now)
        .map(drop)
}

#[test]
fn the_leaf_is_what_strict_verifiers_want() {
    let authority = Authority::new(start()).unwrap();
    let leaf = leaf(&authority, start());
    assert_eq!(trusted(&leaf, &authority.bundle(), start()), Ok(()));
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
    let (_, ca) = x509_parser::parse_x509_certificate(&authority.current.certificate.der).unwrap();
    let find = |parsed: &x509_parser::certificate::X509Certificate<'_>| {
        let mut found = (None, None);
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => found.0 = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    found.1 = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        found
    };
    let ((leaf_ski, leaf_aki), (ca_ski, _)) = (find(&parsed), find(&ca));
    assert!(ca_ski.is_some() && leaf_ski.is_some());
    assert_eq!(leaf_aki, ca_ski);
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    assert!(!parsed.is_ca() && ca.is_ca());
}

/// Lives through two years with a tick every `period`; replicas that restart now and then must always be trusted by whoever
/// has seen the bundle of some minutes ago.
#[test]
fn every_leaf_is_trusted_through_all_renewals() {
    let period = Duration::minutes(4);
    let mut now = start();
    let mut authority = Authority::new(now).unwrap();
    let mut served = leaf(&authority, now);
    let mut seen = authority.bundle();
    let (mut renewals, mut leaves) = (0, 1);
    while now < start() + Duration::days(730) {
        // Quiet stretches are skipped, as the state changes only around renewals.
        let quiet = authority.next.is_none() && now < authority.current.certificate.two_thirds();
        now += if quiet { Duration::hours(7) } else { period };
        let issuer = authority.current.certificate.der.clone();
        if authority.advance(now).unwrap() {
            authority = Authority::from_secret(&authority.to_secret()).unwrap();
            renewals += usize::from(issuer != authority.current.certificate.der);
        }
        if !served.is_good(&authority, now) {
            served = leaf(&authority, now);
            leaves += 1;
        }
        assert_eq!(trusted(&served, &seen, now), Ok(()), "{now}");
        assert_eq!(trusted(&served, &authority.bundle(), now), Ok(()), "{now}");
        seen = authority.bundle();
    }
    assert_eq!(renewals, 2);
    assert!(leaves > 730 / 7, "{leaves}");
    let certificates = seen.matches("BEGIN").count();
    assert_eq!(certificates, 1, "old authorities are dropped");
}

/// Replicas look at the Secret up to a period apart.
#[test]
fn whoever_has_taken_a_renewal_and_who_has_not_believe_each_other() {
    let mut held = Authority::new(start()).unwrap();
    for after in [
        Duration::days(300),
        Duration::days(301),
        Duration::days(320),
    ] {
        let mut taken = Authority::from_secret(&held.to_secret()).unwrap();
        assert!(taken.advance(start() + after).unwrap(), "{after}");
        let (ahead, behind) = (taken.vouchers(Some(&held)), held.vouchers(None));
        assert!(ahead.believe(&behind) && behind.believe(&ahead), "{after}");
        held = taken;
    }
    let (first, last) = (
        Authority::new(start()).unwrap().vouchers(None),
        held.vouchers(Some(&held)),
    );
    assert!(!first.believe(&last) && !last.believe(&first));
}

#[test]
fn an_authority_that_slept_too_long_is_replaced() {
    let mut authority = Authority::new(start()).unwrap();
    let now = start() + Duration::days(400);
    assert!(authority.advance(now).unwrap());
    assert!(!authority.advance(now).unwrap());
    let leaf = leaf(&authority, now);
    assert_eq!(trusted(&leaf, &authority.bundle(), now), Ok(()));
}

#[test]
fn an_authority_out_of_turn_keeps_the_one_before_for_as_long_as_its_leaves_live() {
    let (mut new, old) = (
        Authority::new(start()).unwrap(),
        Authority::new(start()).unwrap(),
    );
    let served = leaf(&old, start());
    assert!(!new.trusts(&served));
    assert!(new.keep(&old, start()) && !new.keep(&old, start()));
    assert!(new.trusts(&served) && !served.is_good(&new, start()));
    let mut stored = Authority::from_secret(&new.to_secret()).unwrap();
    for (after, is_trusted) in [(Duration::days(7), true), (Duration::days(9), false)] {
        let now = start() + after;
        assert_eq!(stored.advance(now).unwrap(), !is_trusted, "{after}");
        assert_eq!(stored.trusts(&served), is_trusted, "{after}");
    }
    // Known by what is trusted only.
    let mut anew = Authority::new(start()).unwrap();
    anew.keep_bundle("no certificate", start());
    assert_eq!(anew.bundle().matches("BEGIN").count(), 1);
    anew.keep_bundle(&old.bundle(), start());
    assert_eq!(trusted(&served, &anew.bundle(), start()), Ok(()));
    // One that is over vouches for nobody.
    let late = start() + Duration::days(400);
    assert!(!Authority::new(late).unwrap().keep(&old, late));
}

#[test]
fn a_leaf_is_renewed_in_time_and_after_a_jump_of_the_clock() {
    let authority = Authority::new(start()).unwrap();
    let leaf = leaf(&authority, start());
    for (after, good) in [
        (Duration::ZERO, true),
        (Duration::hours(-2), false),
        (Duration::days(4), true),
        (Duration::hours(7 * 16 + 1), false),
        (Duration::days(30), false),
    ] {
        assert_eq!(leaf.is_good(&authority, start() + after), good, "{after}");
    }
    let other = Authority::new(start()).unwrap();
    assert!(!leaf.is_good(&other, start()));
}

#[test]
fn refuses_every_broken_secret_without_repeating_a_key() {
    let mut authority = Authority::new(start()).unwrap();
    authority.next = Some(Ca::new(start()).unwrap());
    assert!(authority.keep(&Authority::new(start()).unwrap(), start()));
    let good = authority.to_secret();
    let other = Authority::new(start()).unwrap().to_secret();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let no_ca = pem_of(&leaf(&authority, start()).chain[0]);
    let half = |field: &str| {
        let bytes = &good[field].0;
        bytes[..bytes.len() / 2].to_vec()
    };
    let twice = [good["ca.crt"].0.clone(), other["ca.crt"].0.clone()].concat();
    let cases: Vec<(&str, Option<Vec<u8>>)> = vec![
        ("ca.crt", None),
        ("ca.key", None),
        ("next.crt", None),
        ("next.key", None),
        ("ca.crt", Some(Vec::new())),
        ("ca.key", Some(Vec::new())),
        ("ca.crt", Some(half("ca.crt"))),
        ("ca.key", Some(half("ca.key"))),
        ("ca.crt", Some(twice)),
        ("ca.crt", Some(no_ca.into())),
        ("ca.crt", Some(vec![0xff; 40])),
        ("ca.key", Some(vec![0xff; 40])),
        ("ca.key", Some(other["ca.key"].0.clone())),
        ("ca.key", Some(ed25519.serialize_pem().into())),
        ("next.key", Some(other["ca.key"].0.clone())),
        ("previous.crt", Some(b"x".to_vec())),
        ("previous.until", None),
        ("previous.until", Some(b"tomorrow".to_vec())),
        ("previous.until", Some(vec![b'9'; 30])),
    ];
    assert!(Authority::from_secret(&good).is_ok());
    for (field, bytes) in cases {
        let mut data = good.clone();
        match &bytes {
            Some(bytes) => data.insert(field.to_owned(), ByteString(bytes.clone())),
            None => data.remove(field),
        };
        let error = Authority::from_secret(&data).unwrap_err().to_string();
        assert!(error.starts_with(field), "{field} {bytes:?}: {error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
}

/// A certificate as PEM, for a test only.
fn pem_of(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
