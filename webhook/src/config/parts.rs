//! Where the configuration lies: folders as a kubelet mounts ConfigMaps, or single files. Each `*.yaml` of a folder is a part of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::ConfigMap;

/// The content of each part, by its name: a path, or a key of a ConfigMap.
pub type Parts = BTreeMap<String, Vec<u8>>;

/// The largest part; a ConfigMap holds no more.
const LIMIT: u64 = 1024 * 1024;

const NOT_READ: &str = "is not read: its name does not end with .yaml";

/// The link by which a kubelet swaps what a mounted folder holds.
const DATA: &str = "..data";

/// Reads all parts of these folders and files. A folder may be empty, but not all of them.
///
/// # Errors
/// Every file or folder that cannot be read, by its path.
pub(super) fn read(paths: &[PathBuf]) -> Result<Parts, Vec<String>> {
    let mut parts = Parts::new();
    let mut faults = Vec::new();
    for path in paths {
        let is_folder = fs::metadata(path).map(|found| found.is_dir());
        let result = match is_folder {
            Ok(true) => folder(path),
            Ok(false) => content(path, path).map(|part| [part].into()),
            Err(error) => Err(vec![at(path, error)]),
        };
        match result {
            Ok(found) => parts.extend(found),
            Err(found) => faults.extend(found),
        }
    }
    if parts.is_empty() && faults.is_empty() {
        let paths: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        faults.push(format!("{}: no *.yaml is there", paths.join(", ")));
    }
    if faults.is_empty() {
        Ok(parts)
    } else {
        Err(faults)
    }
}

/// What `folder` would find where this ConfigMap, of this name, is mounted.
///
/// # Errors
/// Every key that is no part.
pub fn of_config_map(name: &str, map: &ConfigMap) -> Result<Parts, Vec<String>> {
    let text = map.data.iter().flatten();
    let text = text.map(|(key, text)| (key, text.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten();
    let binary = binary.map(|(key, bytes)| (key, bytes.0.clone()));
    let mut parts = Parts::new();
    let mut faults = Vec::new();
    for (key, content) in text.chain(binary) {
        let shown = format!("{name}/{key}");
        match is_part(key) {
            true => drop(parts.insert(shown, content)),
            false => faults.push(format!("{shown}: {NOT_READ}")),
        }
    }
    if faults.is_empty() {
        Ok(parts)
    } else {
        Err(faults)
    }
}

fn is_part(name: &str) -> bool {
    name.ends_with(".yaml")
}

/// All parts of one folder, and of one generation: what a kubelet swaps in between is read again.
fn folder(path: &Path) -> Result<Parts, Vec<String>> {
    loop {
        let generation = generation(path)?;
        let parts = parts_of(path, &generation);
        if self::generation(path)? == generation {
            return parts;
        }
    }
}

/// The folder that holds the files now: behind `..data` where a kubelet mounted it.
fn generation(path: &Path) -> Result<PathBuf, Vec<String>> {
    let data = path.join(DATA);
    match fs::read_link(&data) {
        Ok(generation) => Ok(path.join(generation)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(vec![at(&data, error)]),
    }
}

fn parts_of(path: &Path, generation: &Path) -> Result<Parts, Vec<String>> {
    let fault = |error| vec![at(generation, error)];
    let mut parts = Parts::new();
    let mut faults = Vec::new();
    for entry in fs::read_dir(generation).map_err(fault)? {
        let name = entry.map_err(fault)?.file_name();
        let shown = path.join(&name);
        let text = name.to_string_lossy();
        // The kubelet's own; a key of a ConfigMap cannot begin so.
        if text.starts_with("..") {
            continue;
        }
        if !is_part(&text) {
            faults.push(at(&shown, NOT_READ));
            continue;
        }
        match content(&generation.join(&name), &shown) {
            Ok((name, bytes)) => drop(parts.insert(name, bytes)),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() {
        Ok(parts)
    } else {
        faults.sort();
        Err(faults)
    }
}

fn content(path: &Path, shown: &Path) -> Result<(String, Vec<u8>), Vec<String>> {
    let fault = |error| vec![at(shown, error)];
    if fs::metadata(path).map_err(fault)?.len() > LIMIT {
        return Err(vec![at(shown, format!("is larger than {LIMIT} bytes"))]);
    }
    let bytes = fs::read(path).map_err(fault)?;
    Ok((shown.display().to_string(), bytes))
}

fn at(path: &Path, problem: impl std::fmt::Display) -> String {
    format!("{}: {problem}", path.display())
}
