//! A kubeconfig as a login: where the API server is, whom to trust, what to show. Pure: text in, a [`Login`] or every fault out;
//! the files that it names are read by `credential`. What cannot be used safely is refused with the way out, never passed over:
//! a kubeconfig that kubectl reads differently from us would log in as somebody else.
//!
//! No fault repeats a value that could be a secret.

mod cluster;
mod entry;
mod plugin;
mod user;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::entry::{Entry, Faults};
use crate::yaml;

pub use self::cluster::{Ca, Cluster};
pub use self::plugin::{ExecVersion, Plugin};
pub use self::user::User;

/// A context of a kubeconfig.
pub struct Login {
    /// The API server.
    pub cluster: Cluster,
    /// The credential.
    pub user: User,
}

/// Content that stands in the kubeconfig or in a file that it names.
pub enum Source {
    /// The content itself.
    Data(Vec<u8>),
    /// Path of the file.
    File(PathBuf),
}

/// What the kubeconfig's reader asks for beyond the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Another context than `current-context`.
    pub context: Option<&'a str>,
    /// Another URL than the cluster's `server`.
    pub server: Option<&'a str>,
}

impl Login {
    /// Reads a kubeconfig; relative paths in it begin at the folder of `path`.
    ///
    /// # Errors
    /// Everything that is wrong with the context asked for, and with what it names.
    pub fn read(text: &str, path: &Path, wanted: Wanted<'_>) -> Result<Self, Vec<String>> {
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let top = top(text).map_err(|fault| vec![fault])?;
        let mut faults = Faults::default();
        let login = login(&top, folder, wanted, &mut faults);
        match login {
            Some(login) if faults.0.is_empty() => Ok(login),
            _ => Err(faults.0),
        }
    }
}

impl std::fmt::Debug for Login {
    /// Says what kinds of things there are, and nothing of what they are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("server", &self.cluster.authority)
            .field("credential", &self.user.kind())
            .finish_non_exhaustive()
    }
}

fn top(text: &str) -> Result<Map<String, Value>, String> {
    let value = yaml::parse(text)?;
    match value {
        Value::Object(top) if top.is_empty() => Err("is empty".to_owned()),
        Value::Object(top) => match top.get("kind").and_then(Value::as_str) {
            None | Some("Config") => Ok(top),
            Some(kind) => Err(format!("is no kubeconfig but a {kind:?}")),
        },
        Value::Null => Err("is empty".to_owned()),
        _ => Err("is no kubeconfig: it is no mapping".to_owned()),
    }
}

fn login(
    top: &Map<String, Value>,
    folder: &Path,
    wanted: Wanted<'_>,
    faults: &mut Faults,
) -> Option<Login> {
    let current = match wanted.context {
        Some(name) => name.to_owned(),
        None => {
            let current = top.get("current-context").and_then(Value::as_str);
            let Some(name) = current.filter(|name| !name.is_empty()) else {
                faults.add(format!(
                    "has no current-context: name one of its contexts with --context ({})",
                    entry::names(top, "contexts")
                ));
                return None;
            };
            name.to_owned()
        }
    };
    let context = Entry::find(top, "contexts", "context", &current, faults)?;
    let mut named = |list, inner, field| {
        let name = context.text(field, faults);
        let Some(name) = name else {
            faults.add(format!("{context} names no {field}"));
            return None;
        };
        Entry::find(top, list, inner, &name, faults)
    };
    let cluster = named("clusters", "cluster", "cluster");
    let user = named("users", "user", "user");
    let cluster = cluster.and_then(|entry| Cluster::read(&entry, folder, wanted.server, faults));
    let user = user.and_then(|entry| User::read(&entry, folder, faults));
    Some(Login {
        cluster: cluster?,
        user: user?,
    })
}

#[cfg(test)]
mod tests;
