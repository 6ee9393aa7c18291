//! `manifests/render` and the overlay of `docs/operations.md`: whatever components are combined, a released image arrives everywhere, each
//! component's part of the configuration is there, and the parts make one configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tollgate_e2e::program;
use tollgate_shared::contract::{UID, WEBHOOK_NAME};

use crate::files::{id, list, root, text};

/// Names of components, and the parts of the configuration that they bring.
const COMBINATIONS: [(&[&str], &[&str]); 7] = [
    (&[], &[]),
    (&["openshift"], &["openshift.yaml"]),
    (&["node-binding"], &["node-binding.yaml"]),
    (&["cert-manager"], &[]),
    (&["prometheus"], &[]),
    (
        &["openshift", "node-binding"],
        &["node-binding.yaml", "openshift.yaml"],
    ),
    (
        &["node-binding", "prometheus", "cert-manager", "openshift"],
        &["node-binding.yaml", "openshift.yaml"],
    ),
];

fn image(name: &str, digit: char) -> String {
    let digest: String = std::iter::repeat_n(digit, 64).collect();
    format!("registry.example/tollgate/{name}@sha256:{digest}")
}

fn kubectl() -> PathBuf {
    let own = root().join("../target/kind/kubectl");
    if own.is_file() { own } else { "kubectl".into() }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn rendered(components: &[&str]) -> String {
    let images = [image("sidecar", 'a'), image("webhook", 'b')];
    let mut render = Command::new(root().join("render"));
    output(render.arg("--images").args(images).args(components))
}

/// All objects, by kind and name.
fn objects(rendered: &str) -> BTreeMap<(String, String), Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(rendered).unwrap();
    let count = objects.len();
    let objects: BTreeMap<_, _> = objects
        .into_iter()
        .map(|object| (id(&object), object))
        .collect();
    assert!(count > 40 && objects.len() <= count, "{count}");
    objects
}

fn of<'a>(objects: &'a BTreeMap<(String, String), Value>, kind: &str) -> &'a Value {
    let wanted = (kind.to_owned(), WEBHOOK_NAME.to_owned());
    objects.get(&wanted).unwrap()
}

/// The sidecar that a pod gets by the parts in this ConfigMap.
fn sidecar(map: &Value) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let data = map.get("data").and_then(Value::as_object);
    for (key, content) in data.unwrap() {
        fs::write(folder.path().join(key), text(content)).unwrap();
    }
    let mut check = Command::new(program::path(WEBHOOK_NAME).unwrap())
        .args(["check", "-o", "json", "-f", "-", "--config"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let mut stdin = check.stdin.take().unwrap();
    stdin.write_all(pod.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = check.wait_with_output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sidecar = found.pointer("/0/pod/spec/initContainers/0");
    sidecar.unwrap().clone()
}

#[test]
fn any_components_render_with_released_images_and_one_configuration() {
    for (components, parts) in COMBINATIONS {
        let rendered = rendered(components);
        assert!(!rendered.contains(":dev"), "{components:?}");
        let objects = objects(&rendered);
        let pod = &of(&objects, "Deployment")["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], image("webhook", 'b'));
        let map = of(&objects, "ConfigMap");
        let keys: Vec<&String> = map["data"].as_object().unwrap().keys().collect();
        let wanted: Vec<&str> = parts.iter().copied().chain(["release.yaml"]).collect();
        assert_eq!(keys, wanted, "{components:?}");

        let sidecar = sidecar(map);
        assert_eq!(sidecar["image"], image("sidecar", 'a'), "{components:?}");
        let uid = &sidecar["securityContext"]["runAsUser"];
        let is_openshift = components.contains(&"openshift");
        assert_eq!(uid.is_null(), is_openshift, "{components:?}");
        assert!(is_openshift || uid == UID);
        assert_eq!(
            pod["securityContext"]["runAsUser"].is_null(),
            is_openshift,
            "{components:?}"
        );
        let binding = list(&sidecar["env"])
            .iter()
            .find(|variable| variable["name"] == "TOLLGATE_BINDING")
            .map(|variable| text(&variable["value"]));
        let is_node = components.contains(&"node-binding");
        assert_eq!(binding.as_deref() == Some("node"), is_node, "{binding:?}");
    }
}

#[test]
fn an_unknown_component_and_an_image_without_digest_are_refused() {
    let good = image("sidecar", 'a');
    for arguments in [
        [good.as_str(), good.as_str(), "nope"],
        [
            good.as_str(),
            "registry.example/tollgate/webhook:1",
            "openshift",
        ],
    ] {
        let mut render = Command::new(root().join("render"));
        let output = render.arg("--images").args(arguments).output().unwrap();
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{arguments:?}"
        );
        assert!(!output.stderr.is_empty());
    }
}

/// The YAML of `docs/operations.md` that has this kind.
fn documented(kind: &str) -> String {
    let page = fs::read_to_string(root().join("../docs/operations.md")).unwrap();
    let mut blocks = page.split("```yaml\n").skip(1);
    let wanted = format!("\nkind: {kind}\n");
    let block = blocks.find(|block| block.contains(&wanted)).unwrap();
    block.split("```").next().unwrap().to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = entry
            .map(|entry| (entry.path(), to.join(entry.file_name())))
            .unwrap();
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(path, to).unwrap();
        }
    }
}

#[test]
fn the_documented_overlay_adds_components_and_settings_to_a_release() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("install.yaml", &rendered(&[]));
    write("settings.yaml", &documented("ConfigMap"));
    write("kustomization.yaml", &documented("Kustomization"));
    copy(
        &root().join("components"),
        &folder.path().join("components"),
    );
    let overlay = output(Command::new(kubectl()).arg("kustomize").arg(folder.path()));
    let objects = objects(&overlay);
    let mut map = of(&objects, "ConfigMap").clone();
    let settings = &objects[&("ConfigMap".to_owned(), "tollgate-settings".to_owned())];
    for (key, content) in settings["data"].as_object().unwrap() {
        map["data"][key] = content.clone();
    }
    let sidecar = sidecar(&map);
    assert_eq!(sidecar["image"], image("sidecar", 'a'));
    assert!(sidecar["securityContext"]["runAsUser"].is_null());
    let ttl = json!({"name": "TOLLGATE_TOKEN_TTL", "value": "900s"});
    assert!(list(&sidecar["env"]).contains(&ttl), "{sidecar}");
}
