//! Lines that a log shipper put into an object of its own: the field that holds the line, as a string or as an object. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::lines::without_prefix;

/// Fields by which shippers pass a line on. What is not among them must be taken out by other means (`jq -c .field`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    /// Docker's json-file, Fluent Bit, Fluentd.
    #[serde(borrow, default)]
    log: Option<&'a RawValue>,
    /// Vector, Filebeat, Logstash, CloudWatch.
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    /// Loki.
    #[serde(borrow, default)]
    line: Option<&'a RawValue>,
    /// Google Cloud Logging.
    #[serde(borrow, default)]
    json_payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text_payload: Option<&'a RawValue>,
}

/// The line in an envelope, if that is what this is.
pub(super) fn open(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
    let fields = [
        envelope.log,
        envelope.message,
        envelope.line,
        envelope.json_payload,
        envelope.text_payload,
    ];
    fields.into_iter().flatten().find_map(content)
}

fn content(field: &RawValue) -> Option<String> {
    let raw = field.get();
    if raw.starts_with('{') {
        return Some(raw.to_owned());
    }
    let text: String = serde_json::from_str(raw).ok()?;
    let line = without_prefix(text.as_bytes());
    let line = line.starts_with(b"{").then_some(line)?;
    String::from_utf8(line.to_vec()).ok()
}
