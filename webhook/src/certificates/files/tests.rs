//! Pairs broken in every way, and a reload as a kubelet does it.

use std::os::unix::fs::symlink;

use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use time::Duration;

use super::*;

/// A folder as a kubelet mounts it.
struct Mount {
    folder: TempDir,
    version: u32,
}

impl Mount {
    fn new(pair: &[Vec<u8>; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in [CHAIN, KEY] {
            symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
        }
        let mut mount = Self { folder, version: 0 };
        mount.swap(pair);
        mount
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn swap(&mut self, [chain, key]: &[Vec<u8>; 2]) {
        self.version += 1;
        let version = format!("..{}", self.version);
        let path = self.folder.path();
        std::fs::create_dir(path.join(&version)).unwrap();
        std::fs::write(path.join(&version).join(CHAIN), chain).unwrap();
        std::fs::write(path.join(&version).join(KEY), key).unwrap();
        symlink(version, path.join("..tmp")).unwrap();
        std::fs::rename(path.join("..tmp"), path.join("..data")).unwrap();
    }
}

fn pair(names: &[String], from: Duration, to: Duration) -> [Vec<u8>; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names).unwrap();
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + from, now + to);
    let certificate = params.self_signed(&key).unwrap();
    [certificate.pem().into(), key.serialize_pem().into()]
}

fn good() -> [Vec<u8>; 2] {
    pair(&server_names(), -Duration::DAY, Duration::DAY)
}

/// Every way to break a pair: what it is called, the pair, the file to blame, and a part of the message.
fn broken() -> Vec<([Vec<u8>; 2], &'static str, &'static str)> {
    let [chain, key] = good();
    let [_, other_key] = good();
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let elsewhere = ["example.com".to_owned()];
    vec![
        ([vec![], key.clone()], CHAIN, "no certificate"),
        ([chain.clone(), vec![]], KEY, "key"),
        ([half(&chain), key.clone()], CHAIN, "chain"),
        ([chain.clone(), half(&key)], KEY, "key"),
        ([b"x".to_vec(), key.clone()], CHAIN, "no certificate"),
        ([vec![0xff; 99], key.clone()], CHAIN, "chain"),
        ([chain.clone(), vec![0xff; 99]], KEY, "key"),
        ([key.clone(), chain.clone()], CHAIN, "no certificate"),
        ([chain, other_key], KEY, "key"),
        (
            pair(&server_names(), -Duration::DAY, -Duration::HOUR),
            CHAIN,
            "expired",
        ),
        (
            pair(&server_names(), Duration::HOUR, Duration::DAY),
            CHAIN,
            "not valid yet",
        ),
        (
            pair(&elsewhere, -Duration::DAY, Duration::DAY),
            CHAIN,
            "tollgate-webhook.tollgate-system.svc",
        ),
    ]
}

#[test]
fn a_start_with_a_broken_pair_is_refused_with_the_file_and_the_reason() {
    assert!(Files::open(Mount::new(&good()).path()).is_ok());
    for (pair, file, part) in broken() {
        let mount = Mount::new(&pair);
        let error = Files::open(mount.path()).err().unwrap().to_string();
        let path = mount.path().join(file).display().to_string();
        assert!(
            error.starts_with(&path) && error.contains(part),
            "{part}: {error}"
        );
        assert!(!error.contains("PRIVATE"), "{error}");
    }
    let missing = Files::open("/nonexistent".into())
        .err()
        .unwrap()
        .to_string();
    assert!(missing.contains("/nonexistent/tls.crt"), "{missing}");
}

#[test]
fn a_reload_takes_the_good_and_keeps_the_last_good() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let is_good = || {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        page.contains("\ncertificates_good 1\n")
    };
    let mut mount = Mount::new(&good());
    let mut files = Files::open(mount.path()).unwrap();
    let served = files.served();
    let mut last = Arc::clone(&served.borrow());
    let now = OffsetDateTime::now_utc();
    for (pair, ..) in broken() {
        mount.swap(&pair);
        files.look(now, &metrics);
        assert!(Arc::ptr_eq(&last, &served.borrow()) && !is_good());

        mount.swap(&good());
        files.look(now, &metrics);
        assert!(!Arc::ptr_eq(&last, &served.borrow()) && is_good());
        last = Arc::clone(&served.borrow());
    }
    std::fs::remove_file(mount.path().join("..data")).unwrap();
    files.look(now, &metrics);
    assert!(Arc::ptr_eq(&last, &served.borrow()) && !is_good());
}
