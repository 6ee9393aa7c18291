//! What one replica injects, another may judge. Where the two differ in configuration or release, the judge cannot know what the
//! other one makes; so whoever injects writes into the pod, under a key that only replicas have, after which configuration and when
//! (docs/adr/0082). Pure: key and time come from outside.
//!
//! A voucher is `payload.mac`, both base64url. The MAC is over the bytes of the payload as they are written, and over the namespace,
//! so nothing is read before it is known to be a replica's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::inject::Shape;

/// What the key of vouchers is derived for: the secret that it is derived from signs certificates, too.
const DERIVED: &[u8] = b"tollgate.dev voucher v1";
/// How long a voucher counts. Between the two stages other webhooks are asked, each for 30 s at most, mostly for milliseconds.
const LIFE: i64 = 120;
/// Until when the injecting stage leaves one alone: the judging one must still have time.
const FRESH: i64 = 60;
/// How far the clock of the judging replica may be behind.
const SKEW: i64 = 30;

/// The keys of vouchers: the first one vouches, all of them are believed.
#[derive(Clone)]
pub struct Vouchers(Vec<hmac::Key>);

impl fmt::Debug for Vouchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vouchers({} keys)", self.0.len())
    }
}

/// With what, and when, one review vouches and believes.
#[derive(Clone, Copy, Debug)]
pub struct Vouching<'a> {
    /// The keys.
    pub keys: &'a Vouchers,
    /// Seconds since 1970.
    pub now: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// Seconds since 1970.
    at: i64,
    sidecar: Shape,
}

impl Vouchers {
    /// Keys derived from secrets that all replicas share.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let derive = |secret| {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, DERIVED).as_ref())
        };
        Self(secrets.into_iter().map(derive).collect())
    }
}

impl Vouching<'_> {
    /// The voucher for a pod of `namespace` whose sidecar is made after `shape`; none without a key.
    pub(crate) fn issue(&self, namespace: &str, shape: Shape) -> Option<String> {
        let key = self.keys.0.first()?;
        let payload = Payload {
            at: self.now,
            sidecar: shape,
        };
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&payload).ok()?);
        let mac = hmac::sign(key, &signed(namespace, &payload));
        Some(format!("{payload}.{}", URL_SAFE_NO_PAD.encode(mac)))
    }

    /// After what the sidecar of a pod of `namespace` is made, if a replica has said so a moment ago.
    pub(crate) fn believe(&self, voucher: &str, namespace: &str) -> Option<Shape> {
        self.read(voucher, namespace, LIFE)
    }

    /// Whether `voucher` says this, and will still count when the pod is judged.
    pub(crate) fn is_fresh(&self, voucher: &str, namespace: &str, shape: &Shape) -> bool {
        self.read(voucher, namespace, FRESH).as_ref() == Some(shape)
    }

    fn read(&self, voucher: &str, namespace: &str, life: i64) -> Option<Shape> {
        let (payload, mac) = voucher.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        let signed = signed(namespace, payload);
        let mut keys = self.keys.0.iter();
        // In constant time.
        keys.find(|key| hmac::verify(key, &signed, &mac).is_ok())?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let payload: Payload = serde_json::from_slice(&payload).ok()?;
        let age = self.now.checked_sub(payload.at)?;
        (-SKEW..=life).contains(&age).then_some(payload.sidecar)
    }
}

/// No payload has a `/` in it, so this can be read in one way only.
fn signed(namespace: &str, payload: &str) -> Vec<u8> {
    [namespace, "/", payload].concat().into_bytes()
}

#[cfg(test)]
mod tests;
