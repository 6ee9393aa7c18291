//! YAML as Kubernetes reads it, and its faults in words for whoever wrote it.

use serde_json::{Number, Value};
use serde_saphyr::{Error, MessageFormatter as _, UserMessageFormatter};

use crate::reason::one_line;

/// The largest magnitude below which every whole number is a float and a 64-bit integer alike.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// The documents of a manifest. kubectl and the API server read YAML 1.1 (`sigs.k8s.io/yaml`, `resolve.go` of go-yaml v2): `0400` is 256,
/// `off` is false, `1e3` is 1000.
pub(crate) fn manifests(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    let mut documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| fault(&error))?;
    documents.iter_mut().for_each(whole);
    Ok(documents)
}

/// Where a text is no YAML, and why, on one line and without a piece of it.
pub(crate) fn fault(error: &Error) -> String {
    let error = error.without_snippet();
    let place = error.location().map_or_else(String::new, |place| {
        format!("line {}, column {}: ", place.line(), place.column())
    });
    let what = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key:?} is there twice")
        }
        Error::UnknownAnchor { .. } => "an alias names no anchor".to_owned(),
        Error::NonFiniteFloat { .. } => "a number has no end, which JSON cannot hold".to_owned(),
        Error::Budget { .. } => "it is too large or nested too deep".to_owned(),
        other => UserMessageFormatter.format_message(other).into_owned(),
    };
    one_line(&format!("is not YAML: {place}{what}"))
}

/// Go writes whole floats as integers when it makes JSON of YAML.
fn whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64());
            let is_whole = |float: &f64| float.fract() == 0.0 && float.abs() < WHOLE;
            let whole = float.filter(is_whole).map(|float| format!("{float:.0}"));
            if let Some(Ok(whole)) = whole.map(|text| text.parse::<i64>()) {
                *number = Number::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(members) => members.values_mut().for_each(whole),
        _ => {}
    }
}
