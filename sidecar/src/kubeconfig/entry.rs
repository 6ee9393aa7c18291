//! Named entries of a kubeconfig, and their fields with faults that name them.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Source;

/// Everything wrong so far.
#[derive(Debug, Default)]
pub(super) struct Faults(pub(super) Vec<String>);

impl Faults {
    pub(super) fn add(&mut self, fault: String) {
        self.0.push(fault);
    }
}

/// One entry; shown as `user "admin"`.
pub(super) struct Entry<'a> {
    kind: &'static str,
    name: String,
    fields: &'a Map<String, Value>,
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}

impl<'a> Entry<'a> {
    /// The one entry with this name in the list `list`; its fields are below `kind`.
    pub(super) fn find(
        top: &'a Map<String, Value>,
        list: &str,
        kind: &'static str,
        name: &str,
        faults: &mut Faults,
    ) -> Option<Self> {
        let mut found = entries(top, list)
            .filter(|entry| entry.get("name").and_then(word).as_deref() == Some(name));
        let Some(entry) = found.next() else {
            let names = names(top, list);
            faults.add(format!("has no {kind} {name:?}; its {list}: {names}"));
            return None;
        };
        if found.next().is_some() {
            faults.add(format!("has two entries for the {kind} {name:?}"));
        }
        let Some(fields) = entry.get(kind).and_then(Value::as_object) else {
            faults.add(format!("{kind} {name:?} is empty"));
            return None;
        };
        Some(Self {
            kind,
            name: name.to_owned(),
            fields,
        })
    }

    /// The same entry's inner mapping.
    pub(super) fn inner(&self, field: &str, faults: &mut Faults) -> Option<Self> {
        match self.fields.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::Object(fields)) => Some(Self {
                kind: self.kind,
                name: self.name.clone(),
                fields,
            }),
            Some(_) => {
                self.fault(faults, field, "is no mapping");
                None
            }
        }
    }

    pub(super) fn fault(&self, faults: &mut Faults, field: &str, message: &str) {
        faults.add(format!("{self}: {field} {message}"));
    }

    /// A text that is not empty.
    pub(super) fn text(&self, field: &str, faults: &mut Faults) -> Option<String> {
        let value = self.value(field)?;
        let text = word(value);
        if text.is_none() {
            self.fault(faults, field, "is no text");
        }
        text.filter(|text| !text.is_empty())
    }

    /// The field, unless it is null.
    pub(super) fn value(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn flag(&self, field: &str, faults: &mut Faults) -> bool {
        match self.value(field) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.fault(faults, field, "is neither true nor false");
                true
            }
        }
    }

    /// A list, empty where there is none.
    pub(super) fn list(&self, field: &str, faults: &mut Faults) -> &'a [Value] {
        match self.value(field) {
            None => &[],
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.fault(faults, field, "is no list");
                &[]
            }
        }
    }

    /// `FIELD-data` in base64, or the file that `FIELD` names. As in kubectl the data wins, but both at once are a fault: one of
    /// the two is not what somebody thinks.
    pub(super) fn source(&self, field: &str, folder: &Path, faults: &mut Faults) -> Option<Source> {
        let inline = format!("{field}-data");
        let (data, file) = (self.text(&inline, faults), self.text(field, faults));
        match (data, file) {
            (Some(_), Some(_)) => {
                self.fault(
                    faults,
                    field,
                    &format!("and {inline} are both there; remove one"),
                );
                None
            }
            (Some(data), None) => {
                let compact: String = data.split_ascii_whitespace().collect();
                let bytes = STANDARD.decode(compact);
                if bytes.is_err() {
                    self.fault(faults, &inline, "is not base64");
                }
                bytes.ok().map(Source::Data)
            }
            (None, Some(file)) => Some(Source::File(resolve(&file, folder))),
            (None, None) => None,
        }
    }
}

/// Where a path of a kubeconfig leads.
pub(super) fn resolve(path: &str, folder: &Path) -> PathBuf {
    folder.join(path)
}

/// YAML makes numbers of some names; kubectl takes them as texts.
pub(super) fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn entries<'a>(
    top: &'a Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    let list = top.get(list).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

/// The names of a list, for people.
pub(super) fn names(top: &Map<String, Value>, list: &str) -> String {
    let names: Vec<String> = entries(top, list)
        .filter_map(|entry| entry.get("name").and_then(word))
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
