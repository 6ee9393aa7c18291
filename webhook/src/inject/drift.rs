//! Compares what a pod has with what we would put there, in every field that carries security. Defaults of newer servers and
//! additions that cannot harm the sidecar are no drift.

use std::collections::BTreeMap;

use tollgate_shared::contract::{BOOTSTRAP_VOLUME, ENV_PREFIX, RESERVED_VOLUMES};

use super::config::API_SERVER_VARIABLES;
use super::pod::{Container, flag, list, number, object, text};
use crate::json::{Json, Kind};
use crate::reason::Denial;

/// Where identity webhooks mount their tokens into every container, ours included.
const FOREIGN_MOUNTS: &str = "/var/run/secrets/";

/// Whether a container of our name is one that we made, perhaps in another release, perhaps changed since: it mounts the
/// bootstrap volume. That is no proof, and needs to be none, since what we find so is compared, and replaced if it differs.
pub(crate) fn is_ours(container: &Container<'_>) -> Result<bool, Denial> {
    let mut is_ours = false;
    for mount in container.mounts()? {
        is_ours |= mount?.volume == BOOTSTRAP_VOLUME;
    }
    Ok(is_ours)
}

/// The first field in which `actual` differs from `wanted` to the sidecar's harm. `api_server` is [`InjectConfig::api_server`].
///
/// [`InjectConfig::api_server`]: super::InjectConfig::api_server
pub(crate) fn container<'a>(
    actual: &Container<'a>,
    wanted: Json<'_>,
    api_server: &BTreeMap<String, String>,
) -> Result<Option<&'a str>, Denial> {
    let value = actual.value;
    for field in [
        "image",
        "command",
        "args",
        "restartPolicy",
        "ports",
        "securityContext",
    ] {
        if !covers(value.get(field), wanted.get(field)) {
            return Ok(Some(field));
        }
    }
    for (pointer, field) in [
        ("/startupProbe/exec", "startupProbe"),
        ("/livenessProbe/httpGet", "livenessProbe"),
    ] {
        if !covers(value.pointer(pointer), wanted.pointer(pointer)) {
            return Ok(Some(field));
        }
    }
    for field in [
        "envFrom",
        "lifecycle",
        "readinessProbe",
        "restartPolicyRules",
        "stdin",
        "tty",
        "volumeDevices",
        "workingDir",
    ] {
        if !is_empty(value.get(field)) {
            return Ok(Some(field));
        }
    }
    for (pointer, field) in [
        ("/livenessProbe/httpGet/host", "livenessProbe"),
        ("/livenessProbe/httpGet/httpHeaders", "livenessProbe"),
        ("/resources/claims", "resources"),
    ] {
        if !is_empty(value.pointer(pointer)) {
            return Ok(Some(field));
        }
    }
    if let Some(field) = shows_more(value)? {
        return Ok(Some(field));
    }
    if loosens(value)? {
        return Ok(Some("securityContext"));
    }
    if opens_host_port(value)? {
        return Ok(Some("ports"));
    }
    if !same_environment(value, wanted, api_server)? {
        return Ok(Some("env"));
    }
    Ok((!same_mounts(actual, wanted)?).then_some("volumeMounts"))
}

/// Whether `actual` has all that `wanted` has: objects may hold more, lists may not.
pub(crate) fn covers(actual: Option<Json<'_>>, wanted: Option<Json<'_>>) -> bool {
    match (actual.map(Json::kind), wanted.map(Json::kind)) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(Kind::Object(actual)), Some(Kind::Object(wanted))) => wanted
            .iter()
            .all(|(key, wanted)| covers(actual.get(key), Some(wanted))),
        (Some(Kind::List(actual)), Some(Kind::List(wanted))) => {
            let mut pairs = actual.iter().zip(wanted.iter());
            actual.len() == wanted.len() && pairs.all(|(a, w)| covers(Some(a), Some(w)))
        }
        (Some(actual), Some(wanted)) => actual == wanted,
    }
}

fn is_empty(value: Option<Json<'_>>) -> bool {
    match value.map(Json::kind) {
        None | Some(Kind::Null | Kind::Bool(false)) => true,
        Some(Kind::String(text)) => text.is_empty(),
        Some(Kind::List(items)) => items.is_empty(),
        Some(Kind::Object(members)) => members.is_empty(),
        Some(_) => false,
    }
}

/// The field by which a file or the output of the sidecar would be shown in the pod's status: a message's path may be that of
/// any file that it writes.
fn shows_more(container: Json<'_>) -> Result<Option<&'static str>, Denial> {
    for (field, default) in [
        ("terminationMessagePath", "/dev/termination-log"),
        ("terminationMessagePolicy", "File"),
    ] {
        let value = text(container, field)?.unwrap_or_default();
        if !value.is_empty() && value != default {
            return Ok(Some(field));
        }
    }
    Ok(None)
}

/// Whether the security context has, beside what we wrote, something that takes protection away.
fn loosens(container: Json<'_>) -> Result<bool, Denial> {
    let Some(context) = object(container, "securityContext")? else {
        return Ok(true);
    };
    let adds = match object(context, "capabilities")? {
        Some(capabilities) => !list(capabilities, "add")?.items.is_empty(),
        None => false,
    };
    let unmasked = text(context, "procMount")?.is_some_and(|mount| mount != "Default");
    let unconfined = match object(context, "appArmorProfile")? {
        Some(profile) => text(profile, "type")? == Some("Unconfined"),
        None => false,
    };
    Ok(adds || unmasked || unconfined || number(context, "runAsUser")? == Some(0))
}

fn opens_host_port(container: Json<'_>) -> Result<bool, Denial> {
    for port in list(container, "ports")?.items.iter() {
        if number(port, "hostPort")?.is_some_and(|port| port != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Our variables are all there with our values and no other of our prefix is. Of others the sidecar reads the API server's
/// address alone, which platforms may change to a name of theirs, as they do in the webhook's own pod. To any other address a
/// bootstrap token must not go: the CA that it is checked by is a ConfigMap, which the tenant may have written.
fn same_environment(
    actual: Json<'_>,
    wanted: Json<'_>,
    api_server: &BTreeMap<String, String>,
) -> Result<bool, Denial> {
    for entry in list(actual, "env")?.items.iter() {
        let name = text(entry, "name")?.unwrap_or_default();
        let value = entry.get("value").and_then(Json::as_str);
        let known = api_server.get(name).map(String::as_str);
        let is_known = value.is_some() && value == known && is_empty(entry.get("valueFrom"));
        if name.starts_with(API_SERVER_VARIABLES) && !is_known {
            return Ok(false);
        }
    }
    let ours = |entry: &Json<'_>| {
        let name = entry.get("name").and_then(Json::as_str);
        name.is_none_or(|name| name.starts_with(ENV_PREFIX))
    };
    let actual: Vec<Json<'_>> = list(actual, "env")?.items.iter().filter(ours).collect();
    let wanted = list(wanted, "env")?.items;
    let has = |wanted: Json<'_>| actual.iter().any(|entry| same_variable(*entry, wanted));
    Ok(actual.len() == wanted.len() && wanted.iter().all(has))
}

/// An empty `value` may be left out by the API server.
fn same_variable(actual: Json<'_>, wanted: Json<'_>) -> bool {
    let is_there = |value: &Json<'_>| value.as_str() != Some("");
    let same = |key| actual.get(key).filter(is_there) == wanted.get(key).filter(is_there);
    same("name")
        && same("value")
        && match (actual.get("valueFrom"), wanted.get("valueFrom")) {
            (actual, None) => actual.is_none_or(Json::is_null),
            (actual, wanted) => covers(actual, wanted),
        }
}

/// Our mounts are all there, unchanged; others lie where they cannot shadow anything of ours.
fn same_mounts(actual: &Container<'_>, wanted: Json<'_>) -> Result<bool, Denial> {
    let wanted = list(wanted, "volumeMounts")?.items;
    let mut found = 0;
    for mount in actual.mounts()? {
        let mount = mount?;
        if RESERVED_VOLUMES.contains(&mount.volume) {
            let plain = is_empty(mount.value.get("subPath"))
                && is_empty(mount.value.get("subPathExpr"))
                && text(mount.value, "mountPropagation")?.is_none_or(|how| how == "None");
            let same = |wanted: Json<'_>| {
                covers(Some(mount.value), Some(wanted))
                    && flag(mount.value, "readOnly").ok() == flag(wanted, "readOnly").ok()
            };
            if !plain || !wanted.iter().any(same) {
                return Ok(false);
            }
            found += 1;
        } else if !mount.path.starts_with(FOREIGN_MOUNTS) || mount.path.contains("..") {
            return Ok(false);
        }
    }
    Ok(found == wanted.len())
}
