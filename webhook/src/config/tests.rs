//! Flags, variables and files, good and broken, and a reload as a kubelet does it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::*;

const RELEASE: &str = "# comment\nimage: i@sha256:1\n";
const SETTINGS: &str = "allowedAudiences: [sts.amazonaws.com]\ndefaults:\n  tokenTtl: 15m\n";

/// A folder as a kubelet mounts it: `a.yaml -> ..data/a.yaml`, `..data -> ..N`.
struct Mount {
    folder: TempDir,
    version: u32,
}

impl Mount {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Self { folder, version: 0 };
        mount.swap(files);
        mount
    }

    /// With this beside a part of the release.
    fn with(content: &[u8]) -> Self {
        Self::new(&[
            ("release.yaml", RELEASE.as_bytes()),
            ("settings.yaml", content),
        ])
    }

    fn good() -> Self {
        Self::with(SETTINGS.as_bytes())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn settings(&self) -> PathBuf {
        self.path().join("..data/settings.yaml")
    }

    fn source(&self) -> Result<Source, Vec<String>> {
        Source::open(vec![self.path().to_owned()], Vec::new())
    }

    /// In the order of a kubelet's `AtomicWriter`.
    fn swap(&mut self, files: &[(&str, &[u8])]) {
        self.version += 1;
        let (path, version) = (self.folder.path(), format!("..{}", self.version));
        std::fs::create_dir(path.join(&version)).unwrap();
        for (name, content) in files {
            std::fs::write(path.join(&version).join(name), content).unwrap();
        }
        symlink(&version, path.join("..tmp")).unwrap();
        let before = std::fs::read_link(path.join("..data"));
        std::fs::rename(path.join("..tmp"), path.join("..data")).unwrap();
        for (name, _) in files {
            if std::fs::symlink_metadata(path.join(name)).is_err() {
                symlink(Path::new("..data").join(name), path.join(name)).unwrap();
            }
        }
        if let Ok(before) = before {
            std::fs::remove_dir_all(path.join(before)).unwrap();
        }
    }

    fn swap_settings(&mut self, content: &[u8]) {
        self.swap(&[
            ("release.yaml", RELEASE.as_bytes()),
            ("settings.yaml", content),
        ]);
    }
}

#[test]
fn reads_all_three_sources() {
    let (release, settings) = (
        Mount::new(&[("release.yaml", RELEASE.as_bytes())]),
        Mount::new(&[("mine.yaml", SETTINGS.as_bytes())]),
    );
    let paths = format!("{},{}", release.path().display(), settings.path().display());
    let flags = [("config", paths), ("address", "127.0.0.1:0".to_owned())];
    let variables = [("TOLLGATE_LOG_LEVEL".to_owned(), "debug".to_owned())];
    let config = Config::from(&flags, variables).unwrap();
    assert_eq!(config.address.to_string(), "127.0.0.1:0");
    assert_eq!(config.admin_address.to_string(), "[::]:6480");
    assert_eq!(config.log_level, LogLevel::Debug);
    let current = config.source.current();
    assert_eq!(current.borrow().image, "i@sha256:1");
    assert_eq!(current.borrow().defaults.token_ttl.seconds(), 900);
}

#[test]
fn reports_every_fault_of_all_three() {
    let mount = Mount::new(&[
        ("a.yaml", b"imagee: x\ndefaults: {tokenTtl: 60s, ttl: 1}\n"),
        ("b.yaml", b"defaults: {mint: never}\n"),
    ]);
    let flags = [
        ("config", mount.path().display().to_string()),
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
        "--config image: missing field",
        "a.yaml: imagee",
        "a.yaml: defaults.tokenTtl",
        "600s",
        "a.yaml: defaults.ttl",
        "b.yaml: defaults.mint",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// Every way to break a part: its content, and a part of the message.
const BROKEN: [(&[u8], &str); 12] = [
    (b"".as_slice(), "mapping"),
    (b"- a\n", "mapping"),
    (b"image: [", "YAML"),
    (b"\xff\xfe", "UTF-8"),
    (b"assignUid: true\nassignUid: false\n", "YAML"),
    (b"image: j\n", "image: is also in"),
    (b"allowedAudiences: ['']\n", "audience is empty"),
    (b"defaults: {port: 6480}\n", "two different ports"),
    (b"imagePullPolicy: Often\n", "Often"),
    (b"allowedAudiences: [a, b\n", "YAML"),
    (b"nope: 1\n", "nope"),
    (b"defaults:\n", "defaults: "),
];

/// Something that is done to a mounted folder.
type Spoil = fn(&Mount);

/// Ways in which there is nothing to read: what is done to the folder, and a part of the message.
const UNREADABLE: [(Spoil, &str); 6] = [
    (
        |mount| std::fs::remove_file(mount.path().join("..data")).unwrap(),
        "settings.yaml: No such file",
    ),
    (
        |mount| std::fs::remove_dir_all(mount.path().join("..1")).unwrap(),
        "..1: No such file",
    ),
    (
        |mount| {
            std::fs::remove_file(mount.settings()).unwrap();
            std::fs::create_dir(mount.settings()).unwrap();
        },
        "settings.yaml: Is a directory",
    ),
    (
        |mount| std::fs::write(mount.settings(), vec![b'#'; 1024 * 1024 + 1]).unwrap(),
        "settings.yaml: is larger",
    ),
    (
        |mount| std::fs::rename(mount.settings(), mount.path().join("..data/s.yml")).unwrap(),
        "s.yml: is not read",
    ),
    (
        |mount| {
            for name in ["release.yaml", "settings.yaml"] {
                std::fs::remove_file(mount.path().join("..data").join(name)).unwrap();
            }
        },
        "no *.yaml",
    ),
];

#[test]
fn refuses_broken_parts() {
    for (content, part) in BROKEN {
        let faults = Mount::with(content).source().unwrap_err().join("\n");
        assert!(
            faults.contains(part) && faults.contains("settings.yaml"),
            "{part}: {faults}"
        );
    }
    for (spoil, part) in UNREADABLE {
        let mount = Mount::good();
        spoil(&mount);
        let faults = mount.source().unwrap_err().join("\n");
        let path = mount.path().display().to_string();
        assert!(
            faults.contains(part) && faults.contains(&path),
            "{part}: {faults}"
        );
    }
    let missing = Source::open(vec!["/nonexistent".into()], Vec::new()).unwrap_err();
    assert!(missing.concat().contains("/nonexistent: No such file"));
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
    let mut mount = Mount::good();
    let mut source = mount.source().unwrap();
    let current = source.current();
    for (content, part) in BROKEN {
        let last = Arc::clone(&current.borrow());
        mount.swap_settings(content);
        source.look(&metrics);
        assert!(
            Arc::ptr_eq(&last, &current.borrow()) && !is_good(),
            "{part}"
        );
        mount.swap_settings(SETTINGS.as_bytes());
        source.look(&metrics);
        assert!(is_good(), "{part}");
    }
    for (spoil, part) in UNREADABLE {
        let mount = Mount::good();
        let mut source = mount.source().unwrap();
        let current = source.current();
        let last = Arc::clone(&current.borrow());
        spoil(&mount);
        source.look(&metrics);
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
    let mut mount = Mount::good();
    let mut source = mount.source().unwrap();
    let current = source.current();

    source.look(&metrics);
    assert!(page().contains("\nconfig_good 1\n") && !page().contains("config_reloads_total{"));

    mount.swap_settings(b"allowedAudiences: [j]\n");
    source.look(&metrics);
    assert_eq!(current.borrow().allowed_audiences, ["j"]);

    mount.swap_settings(b"allowedAudiences: [k]\nnope: 1\n");
    source.look(&metrics);
    source.look(&metrics);
    assert_eq!(current.borrow().allowed_audiences, ["j"]);
    assert!(page().contains("\nconfig_good 0\n"));
    assert!(page().contains("config_reloads_total{outcome=\"refused\"} 1"));

    mount.swap_settings(b"allowedAudiences: [l]\n");
    source.look(&metrics);
    assert_eq!(current.borrow().allowed_audiences, ["l"]);
    assert!(page().contains("\nconfig_good 1\n"));
    assert!(page().contains("config_reloads_total{outcome=\"taken\"} 2"));

    mount.swap(&[("release.yaml", b"image: next\n")]);
    source.look(&metrics);
    assert_eq!(*current.borrow().as_ref(), InjectConfig::with_image("next"));
}

#[test]
fn parts_of_two_generations_are_never_mixed() {
    let mut mount = Mount::with(b"allowedAudiences: [v0]\n");
    let path = vec![mount.path().to_owned()];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..500 {
                let image = format!("image: v{version}\n");
                let audiences = format!("allowedAudiences: [v{version}]\n");
                mount.swap(&[
                    ("release.yaml", image.as_bytes()),
                    ("settings.yaml", audiences.as_bytes()),
                ]);
            }
            is_over.store(true, Ordering::SeqCst);
        });
        loop {
            let was_over = is_over.load(Ordering::SeqCst);
            let config = read(&path).unwrap();
            if config.image != "i@sha256:1" {
                assert_eq!(config.allowed_audiences, [config.image]);
            }
            if was_over {
                break;
            }
        }
    });
    assert_eq!(read(&path).unwrap().image, "v499");
}
