//! From parts to one configuration. A setting stands in one part alone: no order decides which of two counts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Parts;
use crate::inject::{InjectConfig, LOWEST_PORT};
use crate::yaml;

/// Puts the parts together.
///
/// # Errors
/// Every fault that can be told apart, each with its part's name.
pub fn parse(parts: &Parts) -> Result<InjectConfig, Vec<String>> {
    let mut sum = Sum::default();
    for (part, content) in parts {
        match members(content) {
            Ok(members) => sum.add(part, members),
            Err(problem) => sum.faults.push(format!("{part}: {problem}")),
        }
    }
    sum.config()
}

fn members(content: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
    match serde_saphyr::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("is no mapping of settings; write {} for none".to_owned()),
        Err(error) => Err(yaml::fault(&error)),
    }
}

/// What the parts say together.
#[derive(Default)]
struct Sum {
    members: Map<String, Value>,
    /// Which part gives a setting, by the setting's place (`defaults.port`).
    givers: BTreeMap<String, String>,
    faults: Vec<String>,
}

/// A setting's place, and what is wrong with it.
type Fault = (String, String);

impl Sum {
    fn add(&mut self, part: &str, members: Map<String, Value>) {
        let mut members = members;
        self.take_new(part, "", &mut members);
        merge(&mut self.members, members);
    }

    /// Notes whose each setting is; takes away those that another part gives.
    fn take_new(&mut self, part: &str, prefix: &str, members: &mut Map<String, Value>) {
        members.retain(|key, value| {
            let place = format!("{prefix}{key}");
            let others = self.givers_of(&place);
            match value {
                Value::Object(members) if !self.givers.contains_key(&place) => {
                    self.take_new(part, &format!("{place}."), members);
                    true
                }
                _ if others.is_empty() => {
                    self.givers.insert(place, part.to_owned());
                    true
                }
                _ => {
                    let others = others.join(" and ");
                    self.faults.push(format!(
                        "{part}: {place}: is also in {others}; leave it in one of them"
                    ));
                    false
                }
            }
        });
    }

    /// The parts that give the setting, or one below it.
    fn givers_of(&self, place: &str) -> Vec<String> {
        let below = format!("{place}.");
        let of = |(at, _): &(&String, &String)| *at == place || at.starts_with(&below);
        let givers = self.givers.iter().filter(of);
        let givers: BTreeSet<&String> = givers.map(|(_, giver)| giver).collect();
        givers.into_iter().cloned().collect()
    }

    fn config(mut self) -> Result<InjectConfig, Vec<String>> {
        let config = settings(&self.members);
        let found = match &config {
            Ok(config) => unusable(config),
            Err(error) => member_faults(&self.members)
                .unwrap_or_else(|| vec![(String::new(), error.to_string())]),
        };
        // What is missing may be in a part that could not be read.
        let is_whole = self.faults.is_empty();
        for (place, problem) in found {
            let givers = self.givers_of(&place);
            if !givers.is_empty() {
                let givers = givers.join(" and ");
                self.faults.push(format!("{givers}: {place}: {problem}"));
            } else if is_whole {
                self.faults.push(format!("{place}: {problem}"));
            }
        }
        match config {
            Ok(config) if self.faults.is_empty() => Ok(config),
            _ => Err(self.faults),
        }
    }
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// One fault for each setting that is bad by itself, those of `defaults` too; `None` if each by itself is good.
fn member_faults(members: &Map<String, Value>) -> Option<Vec<Fault>> {
    let mut faults = Vec::new();
    let mut check = |place: &str, alone: Map<String, Value>| {
        if let Err(error) = settings(&alone) {
            faults.push((place.to_owned(), error.to_string()));
        }
    };
    if !members.contains_key("image") {
        check("image", Map::new());
    }
    for (key, value) in members {
        match (key.as_str(), value) {
            ("defaults", Value::Object(defaults)) => {
                for (key, value) in defaults {
                    let one = json!({ key: value });
                    check(&format!("defaults.{key}"), alone("defaults", one));
                }
            }
            _ => check(key, alone(key, value.clone())),
        }
    }
    (!faults.is_empty()).then_some(faults)
}

fn alone(key: &str, value: Value) -> Map<String, Value> {
    let image = ("image".to_owned(), json!("image"));
    [image, (key.to_owned(), value)].into_iter().collect()
}

/// What a type cannot say.
fn unusable(config: &InjectConfig) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault =
        |place: &str, problem: &str| faults.push((place.to_owned(), problem.to_owned()));
    if config.image.is_empty() || config.image.contains(char::is_whitespace) {
        fault("image", "is empty or has a space in it");
    }
    for (place, audiences) in [
        ("allowedAudiences", &config.allowed_audiences),
        ("apiAudiences", &config.api_audiences),
        ("defaults.audiences", &config.defaults.audiences),
    ] {
        if audiences.iter().any(String::is_empty) {
            fault(place, "an audience is empty");
        }
    }
    let defaults = &config.defaults;
    let lowest = defaults.port.min(defaults.admin_port);
    if lowest < LOWEST_PORT || defaults.port == defaults.admin_port {
        let problem = format!("port and adminPort must be two different ports from {LOWEST_PORT}");
        fault("defaults", &problem);
    }
    faults
}

fn settings(members: &Map<String, Value>) -> Result<InjectConfig, serde_json::Error> {
    serde_json::from_value(Value::Object(members.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(parts: &[(&str, &str)]) -> Result<InjectConfig, String> {
        let part = |(name, text): &(&str, &str)| ((*name).to_owned(), text.as_bytes().to_vec());
        parse(&parts.iter().map(part).collect()).map_err(|faults| faults.join("\n"))
    }

    #[test]
    fn parts_add_up_whatever_their_order() {
        let parts = [
            ("release", "image: i\n"),
            ("openshift", "assignUid: false\n"),
            ("node", "defaults: {binding: node}\n"),
            ("none", "{}\n"),
            ("nothing", "defaults: {}\n"),
            (
                "mine",
                "allowedAudiences: [a]\ndefaults: {tokenTtl: 15m, audiences: [b]}\n",
            ),
        ];
        let whole = "image: i\nassignUid: false\nallowedAudiences: [a]\ndefaults: {binding: node, tokenTtl: 15m, audiences: [b]}\n";
        let whole = sum(&[("whole", whole)]).unwrap();
        assert_eq!(sum(&parts).unwrap(), whole);
        let turned: Vec<(String, &str)> = parts
            .iter()
            .rev()
            .zip(0..)
            .map(|((_, text), index)| (index.to_string(), *text))
            .collect();
        let turned: Vec<(&str, &str)> = turned
            .iter()
            .map(|(name, text)| (name.as_str(), *text))
            .collect();
        assert_eq!(sum(&turned).unwrap(), whole);
    }

    #[test]
    fn what_two_parts_give_is_refused_with_the_names_of_both() {
        for (one, other, place) in [
            ("image: i", "image: i", "image"),
            (
                "{image: i, assignUid: true}",
                "assignUid: true",
                "assignUid",
            ),
            (
                "{image: i, allowedAudiences: [a]}",
                "allowedAudiences: [b]",
                "allowedAudiences",
            ),
            (
                "{image: i, defaults: {port: 7000, mint: ahead}}",
                "defaults: {port: 7000, binding: node}",
                "defaults.port",
            ),
            (
                "{image: i, defaults: {port: 7000}}",
                "defaults: 5",
                "defaults",
            ),
            (
                "{image: i, defaults: 5}",
                "defaults: {port: 7000}",
                "defaults",
            ),
            ("{image: i, defaults: null}", "defaults: null", "defaults"),
        ] {
            let fault = sum(&[("a", one), ("b", other)]).unwrap_err();
            assert!(
                fault.contains(&format!("b: {place}: is also in a;")),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_fault_has_the_name_of_its_part() {
        for (parts, wanted) in [
            (
                [("a", "image: i"), ("b", "defaults: {tokenTtl: 1s}")],
                "b: defaults.tokenTtl: ",
            ),
            ([("a", "image: i"), ("b", "nope: 1")], "b: nope: "),
            ([("a", "image: ''"), ("b", "{}")], "a: image: is empty"),
            ([("a", "{}"), ("b", "{}")], "image: missing field"),
            (
                [
                    ("a", "{image: i, defaults: {port: 7000}}"),
                    ("b", "defaults: {adminPort: 7000}"),
                ],
                "a and b: defaults: port and adminPort",
            ),
        ] {
            let faults = sum(&parts).unwrap_err();
            assert!(
                faults.starts_with(wanted) && !faults.contains('\n'),
                "{faults}"
            );
        }
        let faults = sum(&[("a", "image: ["), ("b", "{}")]).unwrap_err();
        assert!(!faults.contains("missing"), "{faults}");
    }
}
