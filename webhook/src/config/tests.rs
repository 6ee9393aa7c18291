//! Flags, variables and the file, good and broken, and a reload as a kubelet does it.

use std::os::unix::fs::symlink;

use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::*;

const GOOD: &str = "# comment\nimage: i@sha256:1\nallowedAudiences: [sts.amazonaws.com]\ndefaults:\n  tokenTtl: 15m\n";

/// A folder as a kubelet mounts it: `config.yaml -> ..data/config.yaml`, `..data -> ..N`.
struct Mount {
    folder: TempDir,
    version: u32,
}

impl Mount {
    fn new(content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Self { folder, version: 0 };
        symlink("..data/config.yaml", mount.file()).unwrap();
        mount.swap(content);
        mount
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    fn swap(&mut self, content: &[u8]) {
        self.version += 1;
        let version = format!("..{}", self.version);
        let path = self.folder.path();
        std::fs::create_dir(path.join(&version)).unwrap();
        std::fs::write(path.join(&version).join("config.yaml"), content).unwrap();
        symlink(version, path.join("..tmp")).unwrap();
        std::fs::rename(path.join("..tmp"), path.join("..data")).unwrap();
    }
}

#[test]
fn reads_all_three_sources() {
    let mount = Mount::new(GOOD.as_bytes());
    let flags = [
        ("config", mount.file().display().to_string()),
        ("address", "127.0.0.1:0".to_owned()),
    ];
    let variables = [("TOLLGATE_LOG_LEVEL".to_owned(), "debug".to_owned())];
    let config = Config::from(&flags, variables).unwrap();
    assert_eq!(config.address.to_string(), "127.0.0.1:0");
    assert_eq!(config.admin_address.to_string(), "[::]:6480");
    assert_eq!(config.log_level, LogLevel::Debug);
    let current = config.file.current();
    assert_eq!(current.borrow().image, "i@sha256:1");
    assert_eq!(current.borrow().defaults.token_ttl.seconds(), 900);
}

#[test]
fn reports_every_fault_of_all_three() {
    let mount = Mount::new(b"imagee: x\ndefaults: {tokenTtl: 60s, ttl: 1, mint: never}\n");
    let flags = [
        ("config", mount.file().display().to_string()),
        ("address", "localhost".to_owned()),
    ];
    let variables = [
        ("TOLLGATE_LOG_LEVEL".to_owned(), "loud".to_owned()),
        ("TOLLGATE_NOPE".to_owned(), "1".to_owned()),
    ];
    let error = Config::from(&flags, variables).unwrap_err().to_string();
    for part in [
        "--address",
        "TOLLGATE_LOG_LEVEL",
        "TOLLGATE_NOPE",
        "image: missing field",
        "imagee",
        "defaults.tokenTtl",
        "600s",
        "defaults.ttl",
        "defaults.mint",
        "config.yaml",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// Every way to break the file: its content, and a part of the message.
const BROKEN: [(&[u8], &str); 11] = [
    (b"".as_slice(), "mapping"),
    (b"- a\n", "mapping"),
    (b"image: [", "YAML"),
    (b"\xff\xfe", "UTF-8"),
    (b"image: i\nimage: j\n", "YAML"),
    (b"image: ''\n", "empty"),
    (b"image: 'a b'\n", "space"),
    (b"image: i\nallowedAudiences: ['']\n", "audience is empty"),
    (b"image: i\ndefaults: {port: 6480}\n", "two different ports"),
    (b"image: i\nimagePullPolicy: Often\n", "Often"),
    (b"image: i\nallowedAudiences: [a, b\n", "YAML"),
];

/// Something that is done to a mounted folder.
type Spoil = fn(&Mount);

/// Ways in which there is nothing to read: what is done to the folder, and a part of the message.
const UNREADABLE: [(Spoil, &str); 4] = [
    (
        |mount| std::fs::remove_file(mount.file()).unwrap(),
        "No such file",
    ),
    (
        |mount| std::fs::remove_file(mount.folder.path().join("..data")).unwrap(),
        "No such file",
    ),
    (
        |mount| {
            std::fs::remove_file(mount.file()).unwrap();
            std::fs::create_dir(mount.file()).unwrap();
        },
        "directory",
    ),
    (
        |mount| {
            std::fs::write(mount.file(), vec![b'#'; 1024 * 1024 + 1]).unwrap();
        },
        "larger",
    ),
];

#[test]
fn refuses_broken_files() {
    for (content, part) in BROKEN {
        let faults = File::open(Mount::new(content).file())
            .unwrap_err()
            .join("\n");
        assert!(
            faults.contains(part) && faults.contains("config.yaml"),
            "{part}: {faults}"
        );
    }
    for (spoil, part) in UNREADABLE {
        let mount = Mount::new(GOOD.as_bytes());
        spoil(&mount);
        let faults = File::open(mount.file()).unwrap_err().join("\n");
        assert!(
            faults.contains(part) && faults.contains("config.yaml"),
            "{part}: {faults}"
        );
    }
}

#[test]
fn a_broken_reload_keeps_the_last_good() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let is_good = || {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        page.contains("\nconfig_good 1\n")
    };
    let mut mount = Mount::new(GOOD.as_bytes());
    let mut file = File::open(mount.file()).unwrap();
    let current = file.current();
    for (content, part) in BROKEN {
        let last = Arc::clone(&current.borrow());
        mount.swap(content);
        file.look(&metrics);
        assert!(
            Arc::ptr_eq(&last, &current.borrow()) && !is_good(),
            "{part}"
        );
        mount.swap(GOOD.as_bytes());
        file.look(&metrics);
        assert!(is_good(), "{part}");
    }
    for (spoil, part) in UNREADABLE {
        let mount = Mount::new(GOOD.as_bytes());
        let mut file = File::open(mount.file()).unwrap();
        let current = file.current();
        let last = Arc::clone(&current.borrow());
        spoil(&mount);
        file.look(&metrics);
        assert!(
            Arc::ptr_eq(&last, &current.borrow()) && !is_good(),
            "{part}"
        );
    }
}

#[test]
fn a_reload_takes_the_good_and_keeps_the_last_good() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let page = || {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        page
    };
    let mut mount = Mount::new(GOOD.as_bytes());
    let mut file = File::open(mount.file()).unwrap();
    let current = file.current();

    file.look(&metrics);
    assert!(page().contains("\nconfig_good 1\n") && !page().contains("config_reloads_total{"));

    mount.swap(b"image: i\nallowedAudiences: [j]\n");
    file.look(&metrics);
    assert_eq!(current.borrow().allowed_audiences, ["j"]);

    mount.swap(b"image: i\nallowedAudiences: [k]\nnope: 1\n");
    file.look(&metrics);
    file.look(&metrics);
    assert_eq!(current.borrow().allowed_audiences, ["j"]);
    assert!(page().contains("\nconfig_good 0\n"));
    assert!(page().contains("config_reloads_total{outcome=\"refused\"} 1"));

    std::fs::remove_file(mount.file()).unwrap();
    file.look(&metrics);
    assert_eq!(current.borrow().allowed_audiences, ["j"]);

    symlink("..data/config.yaml", mount.file()).unwrap();
    mount.swap(b"image: i\nallowedAudiences: [l]\n");
    file.look(&metrics);
    assert_eq!(current.borrow().allowed_audiences, ["l"]);
    assert!(page().contains("\nconfig_good 1\n"));
    assert!(page().contains("config_reloads_total{outcome=\"taken\"} 2"));
}
