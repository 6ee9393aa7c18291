//! Pairs broken in every way, and a reload as a kubelet does it.

use std::os::unix::fs::symlink;

use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use time::Duration;

use super::*;
use crate::certificates::tests::api_server::ApiServer;
use crate::certificates::tests::listen;

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

/// Something that is done to a mounted folder.
type Spoil = fn(&Path);

/// Ways in which the kubelet or an administrator leaves no readable pair: what is done to the folder, and the file to blame. (A
/// test that runs as root cannot take a right away.)
fn unreadable() -> [(Spoil, &'static str); 4] {
    [
        (
            |path| std::fs::remove_file(path.join("..data").join(CHAIN)).unwrap(),
            CHAIN,
        ),
        (
            |path| std::fs::remove_file(path.join("..data").join(KEY)).unwrap(),
            KEY,
        ),
        (
            |path| std::fs::remove_file(path.join("..data")).unwrap(),
            CHAIN,
        ),
        (
            |path| {
                std::fs::remove_file(path.join("..data").join(KEY)).unwrap();
                std::fs::create_dir(path.join("..data").join(KEY)).unwrap();
            },
            KEY,
        ),
    ]
}

#[test]
fn an_unreadable_pair_refuses_the_start_and_keeps_the_last_good() {
    let metrics = Metrics::register(&mut Registry::default());
    let now = OffsetDateTime::now_utc();
    for (index, (spoil, file)) in unreadable().into_iter().enumerate() {
        let mut mount = Mount::new(&good());
        let mut files = Files::open(mount.path()).unwrap();
        let last = Arc::clone(&files.served().borrow());
        spoil(&mount.path());
        assert!(!files.look(now, &metrics), "{index}");
        assert!(Arc::ptr_eq(&last, &files.served().borrow()), "{index}");
        let error = Files::open(mount.path()).err().unwrap().to_string();
        let path = mount.path().join(file).display().to_string();
        assert!(error.starts_with(&path), "{index}: {error}");
        mount.swap(&good());
        assert!(files.look(now, &metrics), "{index}");
        assert!(!Arc::ptr_eq(&last, &files.served().borrow()), "{index}");
    }
}

#[test]
fn a_reload_takes_the_good_and_keeps_the_last_good() {
    let metrics = Metrics::register(&mut Registry::default());
    let mut mount = Mount::new(&good());
    let mut files = Files::open(mount.path()).unwrap();
    let served = files.served();
    let mut last = Arc::clone(&served.borrow());
    let now = OffsetDateTime::now_utc();
    assert!(files.look(now, &metrics));
    // What a replica that has just started would vouch for.
    let believes = |files: &Files| {
        let other = Files::open(files.folder.clone()).unwrap().vouchers();
        let (other, own) = (other.borrow(), files.vouchers());
        own.borrow().believe(&other) && other.believe(&own.borrow())
    };
    assert!(believes(&files));
    for (pair, ..) in broken() {
        mount.swap(&pair);
        assert!(!files.look(now, &metrics) && !files.look(now, &metrics));
        assert!(Arc::ptr_eq(&last, &served.borrow()));

        mount.swap(&good());
        assert!(!believes(&files));
        assert!(files.look(now, &metrics) && believes(&files));
        assert!(!Arc::ptr_eq(&last, &served.borrow()));
        last = Arc::clone(&served.borrow());
    }
    // Nobody renews it.
    assert!(!files.look(now + Duration::days(2), &metrics));
}

/// As the injector of cert-manager does it: certificate first, or `caBundle` first.
#[tokio::test]
async fn trusted_once_every_ca_bundle_is_that_of_the_served_certificate() {
    let server = ApiServer::new();
    let (metrics, client) = (Metrics::register(&mut Registry::default()), server.client());
    let (first, second) = (good(), good());
    let mut mount = Mount::new(&first);
    let mut files = Files::open(mount.path()).unwrap();
    let address = listen(files.served()).await;
    assert!(!trusted(&client, address).await, "no caBundle");
    server.trust(&first[0]);
    assert!(trusted(&client, address).await);

    mount.swap(&second);
    assert!(files.look(OffsetDateTime::now_utc(), &metrics));
    assert!(
        !trusted(&client, address).await,
        "the caBundle of the first"
    );
    server.trust(&[first[0].clone(), second[0].clone()].concat());
    assert!(trusted(&client, address).await);
}
