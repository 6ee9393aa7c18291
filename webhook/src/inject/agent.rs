//! What an agent container gets: its files in place of the API server's token, and variables that point in-cluster clients to
//! the sidecar.

use std::borrow::Cow;

use tollgate_shared::contract::{AGENT_VOLUME, RESERVED_VOLUMES, SERVICE_ACCOUNT_PATH};
use tollgate_shared::no_proxy::{LOCAL, NO_PROXY, PROXIES, with_local};

use super::patch::{AgentMount, Changes, Content, PatchOp, add, append, prepend};
use super::pod::{Container, Mount, flag, list, text};
use crate::json::Json;
use crate::reason::{Denial, Reason};

/// The ServiceAccount plugin takes any volume of this name for its own and mounts it at its path
/// (`plugin/pkg/admission/serviceaccount/admission.go`).
const PLUGIN_PREFIX: &str = "kube-api-access-";
/// What one agent container needs.
#[derive(Debug)]
pub(crate) struct Agent<'a> {
    pub(crate) container: &'a Container<'a>,
    /// Names of the API server's token volumes, which are taken away.
    pub(crate) stripped: &'a [&'a str],
    /// Port of the API proxy.
    pub(crate) port: u16,
}

impl Agent<'_> {
    /// Adds the changes for this container; what is kept against our wish becomes a warning.
    pub(crate) fn prepare(&self, changes: &mut Changes) -> Result<(), Denial> {
        self.mounts(changes)?;
        self.no_proxy(changes)?;
        self.variables(changes)
    }

    fn mounts(&self, changes: &mut Changes) -> Result<(), Denial> {
        let (name, path) = (self.container.name, self.container.path());
        self.refuse_other_ways()?;
        let mut strip = Vec::new();
        let mut has_ours = false;
        for (index, mount) in self.container.mounts()?.enumerate() {
            let mount = mount?;
            if self.stripped.contains(&mount.volume) {
                strip.push(index);
            } else if RESERVED_VOLUMES.contains(&mount.volume) {
                if has_ours || !self.is_ours(&mount)? {
                    return Err(self.reserved(mount.volume));
                }
                has_ours = true;
            } else if mount.path == SERVICE_ACCOUNT_PATH && mount.volume.starts_with(PLUGIN_PREFIX)
            {
                strip.push(index);
            } else if is_in_our_place(mount.path) {
                let message = format!(
                    "container {name} mounts volume {} at {}, where the agent's files go; mount it elsewhere",
                    mount.volume, mount.path
                );
                return Err(Denial::new(Reason::ReservedPath, message));
            }
        }
        // From the end, so that the indexes before stay true.
        for index in strip.into_iter().rev() {
            let path = format!("{path}/volumeMounts/{index}");
            let message = format!("container {name} still mounts the API server's token");
            changes.must(PatchOp::Remove { path }, Reason::TokenLeft, message);
        }
        if !has_ours {
            let absent = list(self.container.value, "volumeMounts")?.absent;
            let mount = Content::Mount(AgentMount(name.to_owned()));
            for op in append(&format!("{path}/volumeMounts"), absent, vec![mount]) {
                let message = format!("container {name} lacks the agent's files");
                changes.must(op, Reason::SidecarDrift, message);
            }
        }
        Ok(())
    }

    /// Refuses our volumes where they are reached without a mount.
    fn refuse_other_ways(&self) -> Result<(), Denial> {
        let mut read = self.container.variable_volumes()?.into_iter();
        if let Some(volume) = read.find(|volume| RESERVED_VOLUMES.contains(volume)) {
            return Err(self.reserved(volume));
        }
        for device in list(self.container.value, "volumeDevices")?.items.iter() {
            let volume = text(device, "name")?.unwrap_or_default();
            if RESERVED_VOLUMES.contains(&volume) {
                return Err(self.reserved(volume));
            }
        }
        Ok(())
    }

    fn reserved(&self, volume: &str) -> Denial {
        let name = self.container.name;
        let message = format!(
            "container {name} reads {volume}, which is the sidecar's; remove what names it"
        );
        Denial::new(Reason::ReservedVolume, message)
    }

    /// Exactly the mount that we make.
    fn is_ours(&self, mount: &Mount<'_>) -> Result<bool, Denial> {
        let value = mount.value;
        Ok(mount.volume == AGENT_VOLUME
            && mount.path == SERVICE_ACCOUNT_PATH
            && text(value, "subPath")? == Some(self.container.name)
            && text(value, "subPathExpr")?.unwrap_or_default().is_empty()
            && text(value, "mountPropagation")?.is_none_or(|how| how == "None")
            && flag(value, "readOnly")?)
    }

    /// The variables that the kubelet derives from the Service `kubernetes`, pointing to the sidecar.
    fn service_variables(&self) -> [(&'static str, Cow<'static, str>); 8] {
        let port = Cow::from(self.port.to_string());
        let url = Cow::from(format!("tcp://127.0.0.1:{port}"));
        [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".into()),
            ("KUBERNETES_SERVICE_PORT", port.clone()),
            ("KUBERNETES_SERVICE_PORT_HTTPS", port.clone()),
            ("KUBERNETES_PORT", url.clone()),
            ("KUBERNETES_PORT_443_TCP", url),
            ("KUBERNETES_PORT_443_TCP_PROTO", "tcp".into()),
            ("KUBERNETES_PORT_443_TCP_PORT", port),
            ("KUBERNETES_PORT_443_TCP_ADDR", "127.0.0.1".into()),
        ]
    }

    fn variables(&self, changes: &mut Changes) -> Result<(), Denial> {
        let env = list(self.container.value, "env")?;
        let ours = self.service_variables();
        let mut present = [None; 8];
        let (mut has_proxy, mut has_exceptions) = (false, false);
        for entry in env.items.iter() {
            let name = name(entry);
            for ((own, _), present) in ours.iter().zip(&mut present) {
                if name == *own {
                    // Of entries with the same name the last one counts.
                    *present = Some(entry.get("value").and_then(Json::as_str));
                }
            }
            has_proxy |= is_proxy(name);
            has_exceptions |= NO_PROXY.contains(&name);
        }
        let mut missing = Vec::new();
        let mut kept = Vec::new();
        for ((name, value), present) in ours.into_iter().zip(present) {
            match present {
                None => missing.push(Content::Variable { name, value }),
                Some(present) if present == Some(&value) => {}
                Some(_) => kept.push(name),
            }
        }
        if has_proxy && !has_exceptions {
            missing.extend(NO_PROXY.map(|name| Content::Variable {
                name,
                value: LOCAL.join(",").into(),
            }));
        }
        if !kept.is_empty() {
            let (container, kept) = (self.container.name, kept.join(", "));
            changes.warn(format!(
                "container {container} sets {kept} itself: its calls may go round the sidecar, without a credential; remove it unless that is meant"
            ));
        }
        // First in the list: `$(VAR)` sees only what stands before.
        let path = format!("{}/env", self.container.path());
        for op in prepend(&path, env.absent, missing) {
            changes.may(op);
        }
        Ok(())
    }

    /// Appends the local addresses to every visible list of what is not proxied. Comes before [`Self::variables`], which moves
    /// the indexes.
    fn no_proxy(&self, changes: &mut Changes) -> Result<(), Denial> {
        for (index, entry) in list(self.container.value, "env")?.items.iter().enumerate() {
            let name = name(entry);
            if !NO_PROXY.contains(&name) {
                continue;
            }
            if entry.get("valueFrom").is_some_and(|from| !from.is_null()) {
                changes.warn(format!(
                    "container {} takes {name} from elsewhere: see that it holds {}",
                    self.container.name,
                    LOCAL.join(",")
                ));
                continue;
            }
            let value = text(entry, "value")?;
            if let Some(longer) = with_local(value.unwrap_or_default()) {
                let path = format!("{}/env/{index}/value", self.container.path());
                let op = match value {
                    Some(_) => PatchOp::Replace {
                        path,
                        value: longer.into(),
                    },
                    None => add(path, longer),
                };
                changes.may(op);
            }
        }
        Ok(())
    }
}

/// The name of a variable; empty where it has none.
fn name(entry: Json<'_>) -> &str {
    let name = entry.get("name").and_then(Json::as_str);
    name.unwrap_or_default()
}

/// Whether a variable names a proxy: in capitals or without any.
fn is_proxy(name: &str) -> bool {
    let small = || !name.contains(|c: char| c.is_ascii_uppercase());
    let is = |proxy: &str| name == proxy || (name.eq_ignore_ascii_case(proxy) && small());
    PROXIES.into_iter().any(is)
}

/// Whether a mount lies where the agent's files go or below, under either of that place's names.
fn is_in_our_place(path: &str) -> bool {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    // `/var/run` is a link to `/run` in most images.
    if let ["var", "run", ..] = parts.as_slice() {
        parts.remove(0);
    }
    // Skips the root and `var`.
    let ours: Vec<&str> = SERVICE_ACCOUNT_PATH.split('/').skip(2).collect();
    parts.starts_with(&ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_spelling_of_our_place() {
        for (path, expected) in [
            (SERVICE_ACCOUNT_PATH, true),
            ("/var/run/secrets/kubernetes.io/serviceaccount/", true),
            ("/run/secrets/kubernetes.io/serviceaccount", true),
            (
                "//var/./run/x/../secrets/kubernetes.io//serviceaccount",
                true,
            ),
            ("var/run/secrets/kubernetes.io/serviceaccount", true),
            ("/run/secrets/kubernetes.io/serviceaccount/token", true),
            ("/var/run/secrets/kubernetes.io/serviceaccount2", false),
            ("/var/run/secrets", false),
            ("/var/secrets/kubernetes.io/serviceaccount", false),
            ("/", false),
            ("/data", false),
        ] {
            assert_eq!(is_in_our_place(path), expected, "{path}");
        }
    }
}
