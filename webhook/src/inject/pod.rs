//! A pod as raw JSON, read with care: what is absent or null is empty, what has another type than the API's is a denial, never
//! a default. Knows nothing of what we inject.

use std::collections::BTreeSet;

use crate::json::{self, Json, Kind};
use crate::reason::{Denial, Reason};

/// Longest path that the kernel takes.
const PATH_MAX: usize = 4096;
/// Most containers of a kind, and volumes: their names go into one variable of the sidecar, and the kernel takes 128 KiB of one,
/// which is 2,000 names at their longest.
const MOST_PARTS: usize = 2000;

/// A list that may be absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    pub(crate) items: json::List<'a>,
    /// Not there, or null: an operation must make it before it can add to it.
    pub(crate) absent: bool,
}

/// The list `key` of `parent`.
pub(crate) fn list<'a>(parent: Json<'a>, key: &str) -> Result<List<'a>, Denial> {
    match parent.get(key).map(Json::kind) {
        None | Some(Kind::Null) => Ok(List {
            items: parent.no_items(),
            absent: true,
        }),
        Some(Kind::List(items)) => Ok(List {
            items,
            absent: false,
        }),
        Some(_) => Err(Denial::malformed(key, "a list")),
    }
}

/// The text `key` of `parent`, if it is there.
pub(crate) fn text<'a>(parent: Json<'a>, key: &str) -> Result<Option<&'a str>, Denial> {
    match parent.get(key).map(Json::kind) {
        None | Some(Kind::Null) => Ok(None),
        Some(Kind::String(text)) => Ok(Some(text)),
        Some(_) => Err(Denial::malformed(key, "a text")),
    }
}

/// The flag `key` of `parent`; absent is false.
pub(crate) fn flag(parent: Json<'_>, key: &str) -> Result<bool, Denial> {
    match parent.get(key).map(Json::kind) {
        None | Some(Kind::Null) => Ok(false),
        Some(Kind::Bool(flag)) => Ok(flag),
        Some(_) => Err(Denial::malformed(key, "a boolean")),
    }
}

/// The whole number `key` of `parent`, if it is there.
pub(crate) fn number(parent: Json<'_>, key: &str) -> Result<Option<i64>, Denial> {
    let wrong = || Denial::malformed(key, "a whole number");
    match parent.get(key).map(Json::kind) {
        None | Some(Kind::Null) => Ok(None),
        Some(Kind::Number(number)) => number.as_i64().map(Some).ok_or_else(wrong),
        Some(_) => Err(wrong()),
    }
}

/// The object `key` of `parent`, if it is there.
pub(crate) fn object<'a>(parent: Json<'a>, key: &str) -> Result<Option<Json<'a>>, Denial> {
    match parent.get(key) {
        Some(value) if value.as_object().is_some() => Ok(Some(value)),
        Some(value) if !value.is_null() => Err(Denial::malformed(key, "an object")),
        _ => Ok(None),
    }
}

/// A container with its place in the pod.
#[derive(Clone, Debug)]
pub(crate) struct Container<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: Json<'a>,
    list: &'static str,
    index: usize,
}

/// A volume with its place in the pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volume<'a> {
    pub(crate) name: &'a str,
    pub(crate) index: usize,
    pub(crate) value: Json<'a>,
}

/// A mount of a volume in a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mount<'a> {
    /// Name of the volume.
    pub(crate) volume: &'a str,
    pub(crate) path: &'a str,
    pub(crate) value: Json<'a>,
}

impl<'a> Container<'a> {
    /// JSON Pointer.
    pub(crate) fn path(&self) -> String {
        format!("/spec/{}/{}", self.list, self.index)
    }

    /// Its mounts, in order.
    pub(crate) fn mounts(&self) -> Result<impl Iterator<Item = Result<Mount<'a>, Denial>>, Denial> {
        let read = |value: Json<'a>| {
            let wrong = || Denial::malformed("volumeMounts", "a list of mounts");
            Ok(Mount {
                volume: text(value, "name")?.ok_or_else(wrong)?,
                path: text(value, "mountPath")?
                    .filter(|path| path.len() <= PATH_MAX)
                    .ok_or_else(wrong)?,
                value,
            })
        };
        Ok(list(self.value, "volumeMounts")?.items.iter().map(read))
    }

    /// Names of the volumes whose files its variables are read from (`fileKeyRef`, since Kubernetes 1.34): the kubelet reads
    /// them on the node, whether or not the container mounts the volume (`pkg/kubelet/kubelet_pods.go`).
    pub(crate) fn variable_volumes(&self) -> Result<Vec<&'a str>, Denial> {
        let mut volumes = Vec::new();
        for entry in list(self.value, "env")?.items.iter() {
            let Some(source) = object(entry, "valueFrom")? else {
                continue;
            };
            if let Some(file) = object(source, "fileKeyRef")? {
                volumes.extend(text(file, "volumeName")?);
            }
        }
        Ok(volumes)
    }
}

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod<'a> {
    pub(crate) metadata: Json<'a>,
    pub(crate) spec: Json<'a>,
    pub(crate) init: Vec<Container<'a>>,
    pub(crate) containers: Vec<Container<'a>>,
    pub(crate) ephemeral: Vec<Container<'a>>,
    pub(crate) volumes: Vec<Volume<'a>>,
}

impl<'a> Pod<'a> {
    /// Reads a pod.
    pub(crate) fn read(pod: Json<'a>) -> Result<Self, Denial> {
        let part = |key| object(pod, key)?.ok_or_else(|| Denial::malformed(key, "there"));
        let (metadata, spec) = (part("metadata")?, part("spec")?);
        let containers = containers(spec, "containers")?;
        if containers.is_empty() {
            return Err(Denial::new(
                Reason::BadRequest,
                "the pod has no container; add one",
            ));
        }
        let pod = Self {
            metadata,
            spec,
            init: self::containers(spec, "initContainers")?,
            containers,
            ephemeral: self::containers(spec, "ephemeralContainers")?,
            volumes: volumes(spec)?,
        };
        unique(
            "container",
            pod.all()
                .chain(&pod.ephemeral)
                .map(|container| container.name),
        )?;
        unique("volume", pod.volumes.iter().map(|volume| volume.name))?;
        Ok(pod)
    }

    /// Init containers and containers, in the order in which they start.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Container<'a>> {
        self.init.iter().chain(&self.containers)
    }

    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Result<Option<&'a str>, Denial> {
        match object(self.metadata, "labels")? {
            Some(labels) => text(labels, key),
            None => Ok(None),
        }
    }

    /// The pod's annotations; `None` where there are none.
    pub(crate) fn annotations(&self) -> Result<Option<Json<'a>>, Denial> {
        object(self.metadata, "annotations")
    }

    /// The value of an annotation.
    pub(crate) fn annotation(&self, key: &str) -> Result<Option<&'a str>, Denial> {
        match self.annotations()? {
            Some(annotations) => text(annotations, key),
            None => Ok(None),
        }
    }
}

fn containers<'a>(spec: Json<'a>, key: &'static str) -> Result<Vec<Container<'a>>, Denial> {
    let items = few(spec, key)?.iter().enumerate();
    let read = |(index, value): (usize, Json<'a>)| {
        let name = text(value, "name")?.unwrap_or_default();
        if !is_label(name) {
            let message =
                format!("{key} has a container whose name is no DNS label: {name:?}; rename it");
            return Err(Denial::new(Reason::BadRequest, message));
        }
        Ok(Container {
            name,
            value,
            list: key,
            index,
        })
    };
    items.map(read).collect()
}

fn volumes(spec: Json<'_>) -> Result<Vec<Volume<'_>>, Denial> {
    let items = few(spec, "volumes")?.iter().enumerate();
    let read = |(index, value)| {
        let name = text(value, "name")?;
        let name = name.ok_or_else(|| Denial::malformed("volumes", "a list of named volumes"))?;
        Ok(Volume { name, index, value })
    };
    items.map(read).collect()
}

/// The list `key` of parts that each take memory here, and would take far more of a node.
fn few<'a>(spec: Json<'a>, key: &str) -> Result<json::List<'a>, Denial> {
    let items = list(spec, key)?.items;
    if items.len() > MOST_PARTS {
        let message = format!("spec.{key} has more than {MOST_PARTS} entries; split the pod");
        return Err(Denial::new(Reason::BadRequest, message));
    }
    Ok(items)
}

/// The API server refuses a pod with the same name twice as well, but only after us.
fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Denial> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let message = format!("the pod has two {what}s named {name}; rename one");
            return Err(Denial::new(Reason::BadRequest, message));
        }
    }
    Ok(())
}

/// Whether `name` is a DNS label (RFC 1123). The names go into a list between commas and become names of folders.
pub(crate) fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
