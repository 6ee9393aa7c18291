//! YAML of settings and kubeconfigs as JSON values, over the parser that `serde-saphyr` uses too: that crate itself would make the
//! sidecar half a megabyte larger (docs/adr/0056). Pure. What two readers could take differently is refused: duplicate keys, tags,
//! aliases. No error repeats the text, for it may hold a secret.

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

/// Deeper than any kubeconfig.
const DEPTH: usize = 64;

/// A mapping or a list that has not ended.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Mapping(Map<String, Value>, Option<String>),
}

/// Reads one document; an empty text is null.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut stack: Vec<Open> = Vec::new();
    let mut document = None;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| {
            let place = error.marker();
            format!(
                "is not YAML: line {}, column {}",
                place.line(),
                place.col() + 1
            )
        })?;
        let value = match event {
            Event::Scalar(text, style, 0, None) => scalar(&text, style),
            Event::SequenceStart(_, 0, None) => {
                push(&mut stack, Open::List(Vec::new()), &span)?;
                continue;
            }
            Event::MappingStart(_, 0, None) => {
                push(&mut stack, Open::Mapping(Map::new(), None), &span)?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Mapping(map, None)) => Value::Object(map),
                _ => return Err(at("does not end what it begins", &span)),
            },
            Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::MappingStart(..)
            | Event::Alias(_) => {
                return Err(at(
                    "uses an anchor, an alias or a tag, which are not read",
                    &span,
                ));
            }
            _ => continue,
        };
        match stack.last_mut() {
            Some(open) => open.take(value, &span)?,
            None if document.is_some() => return Err(at("holds several documents", &span)),
            None => document = Some(value),
        }
    }
    Ok(document.unwrap_or(Value::Null))
}

impl Open {
    fn take(&mut self, value: Value, span: &Span) -> Result<(), String> {
        match self {
            Self::List(list) => list.push(value),
            Self::Mapping(map, key) => match (key.take(), value) {
                (Some(key), value) => {
                    map.insert(key, value);
                }
                (None, name) => {
                    let name = match name {
                        Value::String(name) => name,
                        Value::Number(_) | Value::Bool(_) => name.to_string(),
                        _ => return Err(at("has a key that is no text", span)),
                    };
                    if map.contains_key(&name) {
                        return Err(at("has a key twice", span));
                    }
                    *key = Some(name);
                }
            },
        }
        Ok(())
    }
}

fn push(stack: &mut Vec<Open>, open: Open, span: &Span) -> Result<(), String> {
    if stack.len() >= DEPTH {
        return Err(at("is nested too deep", span));
    }
    stack.push(open);
    Ok(())
}

fn at(message: &str, span: &Span) -> String {
    let start = span.start;
    format!(
        "{message}: line {}, column {}",
        start.line(),
        start.col() + 1
    )
}

/// The core schema, as far as it loses nothing: any other number stays the text that it is.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => number.into(),
            _ => text.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_kubeconfigs_are_made_of() {
        for (text, value) in [
            ("", json!(null)),
            ("# nothing\n", json!(null)),
            ("---\na: b\n", json!({"a": "b"})),
            (
                "a: 1\nb: '1'\nc: 007\nd: 1.5\ne: 1e3\nf: -3",
                json!({"a": 1, "b": "1", "c": "007", "d": "1.5", "e": "1e3", "f": -3}),
            ),
            (
                "a: true\nb: no\nc: ~\nd:\ne: \"null\"",
                json!({"a": true, "b": "no", "c": null, "d": null, "e": "null"}),
            ),
            (
                "- a\n- [b, {c: d}]\n- e: f\n  g: []",
                json!(["a", ["b", {"c": "d"}], {"e": "f", "g": []}]),
            ),
            (
                "a: |\n  x\n  y\nb: >-\n  x\n  y",
                json!({"a": "x\ny\n", "b": "x y"}),
            ),
            (
                r#"{"a": ["b", 1, true, null], "c": {"d": "\u00e9\n"}}"#,
                json!({"a": ["b", 1, true, null], "c": {"d": "é\n"}}),
            ),
            ("1: a\ntrue: b", json!({"1": "a", "true": "b"})),
            ("a: b # c\n", json!({"a": "b"})),
        ] {
            assert_eq!(parse(text), Ok(value), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways_and_repeats_nothing() {
        let deep = "[".repeat(DEPTH + 1);
        for (text, part) in [
            ("a: secret\na: b", "has a key twice: line 2, column 1"),
            ("a: &x secret\nb: *x", "uses an anchor"),
            ("a: *x", "line 1"),
            ("a: !!binary secret", "uses an anchor, an alias or a tag"),
            ("a: b\n---\nc: secret", "several documents"),
            ("[a]: secret", "a key that is no text"),
            ("a: [secret", "is not YAML: line "),
            ("a: 'secret", "is not YAML: line "),
            ("a: b: secret", "is not YAML: line 1"),
            ("\u{0}secret", "line 1"),
            (&deep, "line 1, column 65"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(part), "{text:?}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
