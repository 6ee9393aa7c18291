//! Configuration as a set of named knobs, read once. Every bad value is reported, not only the first, and every knob that
//! nobody read is an error: a misspelt setting must not pass for a default.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::contract::{ENV_PREFIX, variable};

/// Exit code for a bad configuration (`EX_USAGE` of `sysexits.h`).
pub const EXIT_BAD_CONFIG: u8 = 64;
/// Exit code for input that cannot be read: a file, or the cluster that is to be looked at (`EX_NOINPUT`).
pub const EXIT_NO_INPUT: u8 = 66;
/// Exit code for a start that failed for another reason.
pub const EXIT_FAILED_START: u8 = 1;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where the value came from, as the user wrote it: `--token-ttl` or `TOLLGATE_TOKEN_TTL`.
    pub knob: String,
    /// What is wrong with it.
    pub message: String,
}

/// Everything wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BadConfig(pub Vec<Fault>);

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad configuration:")?;
        for Fault { knob, message } in &self.0 {
            write!(f, "\n  {knob} {message}")?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Given {
    from: String,
    value: String,
    read: bool,
}

/// Knobs by name (`token-ttl`), from flags, variables and perhaps a file; a flag wins.
#[derive(Debug, Default)]
pub struct Knobs {
    given: BTreeMap<String, Given>,
    faults: Vec<Fault>,
}

impl Knobs {
    /// `flags` are knob names with their values, `variables` the environment; of that only `TOLLGATE_…` counts.
    pub fn new<'a>(
        flags: impl IntoIterator<Item = (&'a str, String)>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut given = BTreeMap::new();
        for (name, value) in variables {
            if let Some(knob) = name
                .strip_prefix(ENV_PREFIX)
                .filter(|knob| !is_service_link(knob, &value))
            {
                let knob = knob.to_ascii_lowercase().replace('_', "-");
                given.insert(
                    knob,
                    Given {
                        from: name,
                        value,
                        read: false,
                    },
                );
            }
        }
        for (knob, value) in flags {
            given.insert(
                knob.to_owned(),
                Given {
                    from: format!("--{knob}"),
                    value,
                    read: false,
                },
            );
        }
        Self {
            given,
            faults: Vec::new(),
        }
    }

    /// Adds values from a file, `from` its name in faults; flags and variables win over them.
    pub fn add_file(&mut self, from: &str, values: impl IntoIterator<Item = (String, String)>) {
        for (knob, value) in values {
            let from = format!("{from}: {knob}");
            self.given.entry(knob).or_insert(Given {
                from,
                value,
                read: false,
            });
        }
    }

    /// Whether the knob is set, if only to nothing.
    #[must_use]
    pub fn is_given(&self, knob: &str) -> bool {
        self.given.contains_key(knob)
    }

    /// Adds a fault for each of these knobs that is set, and takes it for unset.
    pub fn refuse(&mut self, knobs: &[&str], message: &str) {
        for knob in knobs {
            if self.is_given(knob) {
                self.fault(knob, message);
                self.given.remove(*knob);
            }
        }
    }

    /// A text that is not empty, if the knob is set.
    pub fn text(&mut self, knob: &str) -> Option<String> {
        let given = self.given.get_mut(knob)?;
        given.read = true;
        if given.value.is_empty() {
            let fault = Fault {
                knob: given.from.clone(),
                message: "is empty".to_owned(),
            };
            self.faults.push(fault);
            return None;
        }
        Some(given.value.clone())
    }

    /// A text that must be there.
    pub fn required(&mut self, knob: &str) -> String {
        if !self.given.contains_key(knob) {
            self.fault(knob, "is missing");
        }
        self.text(knob).unwrap_or_default()
    }

    /// A parsed value, if the knob is set.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, knob: &str) -> Option<T> {
        let text = self.text(knob)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(knob, &format!("{text:?}: {error}"));
                None
            }
        }
    }

    /// A parsed value, or `default`.
    pub fn parse<T: FromStr<Err: fmt::Display>>(&mut self, knob: &str, default: T) -> T {
        self.optional(knob).unwrap_or(default)
    }

    /// Words between commas; an unset or an empty knob is the empty list.
    pub fn list(&mut self, knob: &str) -> Vec<String> {
        let Some(given) = self.given.get_mut(knob) else {
            return Vec::new();
        };
        given.read = true;
        if given.value.is_empty() {
            return Vec::new();
        }
        let words: Vec<String> = given
            .value
            .split(',')
            .map(|word| word.trim().to_owned())
            .collect();
        if words.iter().any(String::is_empty) {
            self.fault(knob, "has an empty word between its commas");
        }
        words
    }

    /// Adds a fault that the caller found in this knob's value.
    pub fn fault(&mut self, knob: &str, message: &str) {
        let knob = self
            .given
            .get(knob)
            .map_or_else(|| variable(knob), |given| given.from.clone());
        self.faults.push(Fault {
            knob,
            message: message.to_owned(),
        });
    }

    /// # Errors
    /// All faults, and every knob that was given but never read.
    pub fn finish(mut self) -> Result<(), BadConfig> {
        let unknown = self.given.values().filter(|given| !given.read);
        self.faults.extend(unknown.map(|given| Fault {
            knob: given.from.clone(),
            message: "is no setting of this program".to_owned(),
        }));
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(BadConfig(self.faults))
        }
    }
}

/// Whether the kubelet made this variable of a Service: one named `tollgate-x` gives every container of its namespace
/// `TOLLGATE_X_SERVICE_HOST`, `TOLLGATE_X_PORT=tcp://…` and so on (`pkg/kubelet/envvars/envvars.go`). They are no settings,
/// and a Service must not keep a sidecar from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    let url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let part = |mark: &str| name == mark.trim_start_matches('_') || name.contains(mark);
    let of_port = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
        ["_PROTO", "_PORT", "_ADDR"]
            .iter()
            .any(|end| name.ends_with(&format!("{protocol}{end}")))
    });
    url || part("_SERVICE_HOST") || part("_SERVICE_PORT") || of_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn reports_everything_at_once() {
        let mut knobs = Knobs::new(
            [("token-ttl", "60s".to_owned())],
            variables(&[
                ("TOLLGATE_PORT", "x"),
                ("TOLLGATE_PROT", "1"),
                ("TOLLGATE_POD_UID", ""),
                ("PATH", "/"),
            ]),
        );
        knobs.parse::<u16>("port", 1);
        knobs.parse("token-ttl", crate::contract::TokenTtl::default());
        knobs.required("pod-uid");
        knobs.required("pod-name");
        let BadConfig(faults) = knobs.finish().unwrap_err();
        let names: Vec<&str> = faults.iter().map(|fault| fault.knob.as_str()).collect();
        assert_eq!(
            names,
            [
                "TOLLGATE_PORT",
                "--token-ttl",
                "TOLLGATE_POD_UID",
                "TOLLGATE_POD_NAME",
                "TOLLGATE_PROT"
            ]
        );
    }

    #[test]
    fn what_the_kubelet_makes_of_a_service_is_no_setting() {
        for (name, value) in [
            ("TOLLGATE_X_SERVICE_HOST", "10.0.0.1"),
            ("TOLLGATE_SERVICE_HOST", "10.0.0.1"),
            ("TOLLGATE_X_SERVICE_PORT", "80"),
            ("TOLLGATE_X_SERVICE_PORT_HTTP", "80"),
            ("TOLLGATE_X_PORT", "tcp://10.0.0.1:80"),
            ("TOLLGATE_PORT", "tcp://10.0.0.1:80"),
            ("TOLLGATE_X_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("TOLLGATE_X_PORT_80_TCP_PROTO", "tcp"),
            ("TOLLGATE_X_PORT_80_TCP_PORT", "80"),
            ("TOLLGATE_X_PORT_80_TCP_ADDR", "10.0.0.1"),
        ] {
            let mut knobs = Knobs::new([], variables(&[(name, value)]));
            assert_eq!(knobs.parse::<u16>("port", 1), 1, "{name}");
            assert_eq!(knobs.finish(), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_file_comes_last_and_its_unknown_keys_are_faults() {
        let mut knobs = Knobs::new(
            [("port", "2".to_owned())],
            variables(&[("TOLLGATE_MINT", "ahead")]),
        );
        let file = [
            ("port", "1"),
            ("mint", "x"),
            ("token-ttl", "15m"),
            ("tokn-ttl", "1"),
        ];
        let file = file.map(|(knob, value)| (knob.to_owned(), value.to_owned()));
        knobs.add_file("FILE", file);
        assert_eq!(knobs.parse::<u16>("port", 0), 2);
        assert_eq!(knobs.text("mint").as_deref(), Some("ahead"));
        assert_eq!(knobs.text("token-ttl").as_deref(), Some("15m"));
        let BadConfig(faults) = knobs.finish().unwrap_err();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].knob, "FILE: tokn-ttl");
    }

    #[test]
    fn what_does_not_go_together_is_refused_once() {
        let mut knobs = Knobs::new(
            [("pod-name", "x".to_owned())],
            variables(&[("TOLLGATE_POD_UID", "y")]),
        );
        knobs.refuse(&["pod-name", "pod-uid", "node-name"], "is for pods");
        assert_eq!(knobs.text("pod-name"), None);
        let BadConfig(faults) = knobs.finish().unwrap_err();
        let names: Vec<&str> = faults.iter().map(|fault| fault.knob.as_str()).collect();
        assert_eq!(names, ["--pod-name", "TOLLGATE_POD_UID"]);
    }

    #[test]
    fn a_flag_wins() {
        let mut knobs = Knobs::new(
            [("port", "2".to_owned())],
            variables(&[("TOLLGATE_PORT", "1")]),
        );
        assert_eq!(knobs.parse::<u16>("port", 0), 2);
        assert_eq!(knobs.finish(), Ok(()));
    }
}
