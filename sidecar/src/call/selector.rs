//! The list options that decide a call's verb and name: `watch`, and `metadata.name` in `fieldSelector`. Follows the
//! decoding of `metainternalversion.ListOptions` and `apimachinery/pkg/fields/selector.go`.
//!
//! A label selector is not parsed. Where it is malformed the API server logs the call without a name and answers 400, so
//! nothing is gained by a name that we still show.

use super::query::Query;
use crate::refusal::{Reason, Refusal};

/// What `NewRequestInfo` takes from the query of a GET without a name.
pub(super) struct ListOptions {
    pub(super) watch: bool,
    pub(super) name: Option<String>,
}

impl ListOptions {
    pub(super) fn decode(query: &Query) -> Result<Self, Refusal> {
        let first = |key| query.all(key).next();
        // Go folds U+017F to an s in one of its two readings of `watch`, and not in the other.
        if first("watch").is_some_and(|value| !value.is_ascii()) {
            return Err(Refusal::new(
                Reason::BadRequest,
                "the parameter watch is neither true nor false",
            ));
        }
        // Absent, "0" and "false" are false; anything else, the empty string too, is true.
        let watch = first("watch")
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"));
        // One option that fails to decode, and the API server forgets all but `watch`.
        let numbers = ["limit", "timeoutSeconds"]
            .into_iter()
            .all(|key| first(key).is_none_or(|value| value.parse::<i64>().is_ok()));
        let name = first("fieldSelector")
            .filter(|_| numbers)
            .and_then(exact_name)
            .filter(|name| segment_name(name));
        Ok(Self { watch, name })
    }
}

/// `content.IsPathSegmentName`.
fn segment_name(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains(['/', '%'])
}

/// `fields.ParseSelector(selector).RequiresExactMatch("metadata.name")`; `None` too if the selector does not parse.
fn exact_name(selector: &str) -> Option<String> {
    let mut terms = split_terms(selector);
    // Go sorts the terms before it reads them, so of two names the lesser counts.
    terms.sort_unstable();
    let mut found = None;
    for term in terms {
        if term.is_empty() {
            continue;
        }
        let (field, operator, value) = split_term(term)?;
        let value = unescape(value)?;
        if operator != "!=" && field == "metadata.name" && found.is_none() {
            found = Some(value);
        }
    }
    found
}

/// Splits at commas that no backslash escapes.
fn split_terms(selector: &str) -> Vec<&str> {
    let mut escaped = false;
    selector
        .split(move |char| {
            if escaped {
                escaped = false;
                return false;
            }
            escaped = char == '\\';
            char == ','
        })
        .collect()
}

/// The first operator splits; `==` before `=`.
fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    term.char_indices().find_map(|(at, _)| {
        let (field, rest) = term.split_at(at);
        ["!=", "==", "="]
            .into_iter()
            .find_map(|operator| Some((field, operator, rest.strip_prefix(operator)?)))
    })
}

/// `fields.UnescapeValue`.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.push(
                chars
                    .next()
                    .filter(|char| matches!(char, '\\' | ',' | '='))?,
            ),
            ',' | '=' => return None,
            char => plain.push(char),
        }
    }
    Some(plain)
}
