//! `METHOD<tab>target`: what is accepted reads the same to everybody, and the floor holds for it.
#![no_main]

use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use tollgate_sidecar::call::{Call, redact_commands};
use tollgate_sidecar::floor;

fuzz_target!(|text: &str| {
    let (method, target) = text.split_once('\t').unwrap_or(("GET", text));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else {
        return;
    };
    let redacted = redact_commands(target);
    assert_eq!(redacted, redact_commands(&redacted).as_ref());
    let Ok(call) = Call::resolve(&method, target) else {
        return;
    };
    assert_eq!(call.target(), target);
    assert_eq!(Call::resolve(&method, call.target()).as_ref(), Ok(&call));
    same_to_everybody(&call, target.split('?').next().unwrap_or_default());
    floor_holds(&call);
    if call.subresource == "exec" {
        let uri = redact_commands(call.target());
        let shown = Call::resolve(&method, &uri).expect("a redacted URI resolves");
        assert!(
            shown
                .commands()
                .all(|command| command.is_empty() || command == "REDACTED")
        );
        assert_eq!(shown.commands().count(), call.commands().count());
    }
});

fn same_to_everybody(call: &Call, raw: &str) {
    assert!(raw.is_ascii() && !raw.contains('\\') && !raw.contains('#'));
    assert_eq!(call.path.matches('/').count(), raw.matches('/').count());
    assert!(!call.path.chars().any(char::is_control));
    for part in [
        &call.group,
        &call.version,
        &call.resource,
        &call.subresource,
        &call.namespace,
    ] {
        assert!(!part.contains(['/', '%', ';', '?', '#']) && part != "." && part != "..");
    }
    assert!(!call.name.contains(['/', '%']));
    let mut plain: Vec<String> = call
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let mut eager = eager(raw);
    if call.subresource == "proxy" {
        let own = 5
            + usize::from(call.api_prefix == "apis")
            + if call.namespace.is_empty() { 0 } else { 2 };
        plain.truncate(own);
        eager.truncate(own);
    }
    assert_eq!(eager, plain);
}

/// The most eager reading of a raw path that a proxy could have: split, cut at parameters, decode twice, split what that
/// brought to light, resolve empty segments and dots.
fn eager(raw: &str) -> Vec<String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut segments: Vec<String> = Vec::new();
    for part in raw.split('/') {
        let once = decode(part);
        let bare = once.split(';').next().unwrap_or_default();
        for segment in decode(bare).split(['/', '\\', '?', '#']) {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                segment => segments.push(segment.to_owned()),
            }
        }
    }
    segments
}

/// The floor once more, by the decoded path alone.
fn floor_holds(call: &Call) {
    let refused = floor::check(call, &HeaderMap::new()).is_err();
    let path = call.path.trim_end_matches('/');
    if !path.starts_with("/api/v1/") {
        return;
    }
    let segments: Vec<&str> = path.split('/').collect();
    let core = |resource: &str, subresource: &str| {
        call.resource == resource && call.subresource == subresource
    };
    if core("serviceaccounts", "token") || core("nodes", "proxy") {
        assert!(refused, "{path}");
    }
    if core("pods", "exec") && call.containers().any(|container| container == "tollgate") {
        assert!(refused, "{path}");
    }
    if segments.ends_with(&["configmaps", "kube-root-ca.crt"])
        && call.resource == "configmaps"
        && call.verb.writes()
    {
        assert!(refused, "{path}");
    }
}
