//! Reads `manifests/base`, one object a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

/// `manifests/`.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// Every object of `manifests/base`, with its file.
pub(crate) static BASE: LazyLock<Vec<(PathBuf, Value)>> = LazyLock::new(read);

fn read() -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("base")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is_yaml = path
                .extension()
                .is_some_and(|extension| extension == "yaml");
            if path.is_dir() {
                folders.push(path);
            } else if is_yaml && path.file_name().unwrap() != "kustomization.yaml" {
                let text = fs::read_to_string(&path).unwrap();
                // A second document in the file is an error.
                let object = serde_saphyr::from_str(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path, object));
            }
        }
    }
    found
}

/// The one object of this kind and name.
pub(crate) fn base(kind: &str, name: &str) -> &'static Value {
    let wanted = (kind.to_owned(), name.to_owned());
    let mut found = of_kind(kind).filter(|object| id(object) == wanted);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "two of {kind} {name}");
    object
}

/// Kind and name.
pub(crate) fn id(object: &Value) -> (String, String) {
    let name = object.pointer("/metadata/name").unwrap_or(&Value::Null);
    (text(&object["kind"]), text(name))
}

/// The text that must be there.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

/// The list that must be there.
pub(crate) fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

/// All objects of a kind.
pub(crate) fn of_kind(kind: &str) -> impl Iterator<Item = &'static Value> {
    BASE.iter()
        .map(|(_, object)| object)
        .filter(move |object| object["kind"] == kind)
}
