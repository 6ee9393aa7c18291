//! Variables of proxies. The sidecar is on loopback, which some clients would ask a proxy for. Pure.

/// The variables that, in either case, name a proxy.
pub const PROXIES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
/// The variables that name what is not proxied.
pub const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// What must not be proxied.
pub const LOCAL: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// `list` with the local addresses that it lacks; `None` where it lacks none, or excepts everything.
#[must_use]
pub fn with_local(list: &str) -> Option<String> {
    let has = |wanted: &str| list.split(',').any(|word| word.trim() == wanted);
    if has("*") {
        return None;
    }
    let missing: Vec<&str> = LOCAL.into_iter().filter(|local| !has(local)).collect();
    match (missing.is_empty(), list.trim().is_empty()) {
        (true, _) => None,
        (false, true) => Some(missing.join(",")),
        (false, false) => Some(format!(
            "{},{}",
            list.trim_end_matches(','),
            missing.join(",")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_only_what_is_missing() {
        for (list, expected) in [
            ("", Some("127.0.0.1,localhost,::1")),
            ("corp.example", Some("corp.example,127.0.0.1,localhost,::1")),
            ("localhost, a,", Some("localhost, a,127.0.0.1,::1")),
            ("a,127.0.0.1,localhost,::1", None),
            ("*", None),
        ] {
            assert_eq!(with_local(list).as_deref(), expected, "{list}");
        }
    }
}
