//! Lines as a log may hold them: whatever the parser takes can be written and read again and hashes alike, and `verify` comes to
//! an end over any text with the same result however the lines are spelled.
#![no_main]

use std::io::Cursor;
use std::iter;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use tollgate_shared::record::{Chain, Event, check, parse};
use tollgate_sidecar::verify::{Summary, VerifyError, verify};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        if let Ok(event) = parse(line) {
            a_line_survives_a_shipper(line, event);
        }
    }
    // As records, as a cluster's log, and as both at once.
    let alone = run(bytes, None);
    let joined = run(bytes, Some(bytes));
    if let (Ok(alone), Ok(joined)) = (&alone, &joined) {
        assert_eq!(alone.lines, joined.lines);
        assert_eq!(alone.fault_count, joined.fault_count);
    }
    // Whatever else is wrong with them, lines of our own making are taken for lines.
    if let Ok(sealed) = sealed(&text) {
        assert!(sealed.is_empty() || run(&sealed, None).is_ok());
    }
});

fn run(records: &[u8], cluster: Option<&[u8]>) -> Result<Summary, VerifyError> {
    let name = || PathBuf::from("fuzz");
    verify(
        iter::once(Ok((name(), Cursor::new(records)))),
        cluster.map(|log| iter::once(Ok((name(), Cursor::new(log))))),
        false,
    )
}

fn a_line_survives_a_shipper(line: &str, mut event: Event<'_>) {
    let mut scratch = Vec::new();
    let good = check(line, &mut event, &mut scratch).ok();
    let written = serde_json::to_string(&event).expect("what was read can be written");
    let mut again = parse(&written).expect("what was written can be read");
    assert_eq!(again, event);
    let rewritten = check(&written, &mut again, &mut scratch).ok();
    // A line may also hash as it stands and not in its canonical form; what is good in that form is good in both.
    assert!(rewritten.is_none() || good == rewritten);
}

/// The events of a text as a chain of our own making.
fn sealed(text: &str) -> Result<Vec<u8>, serde_json::Error> {
    let mut chain = Chain::default();
    let mut out = Vec::new();
    for line in text.lines() {
        if let Ok(mut event) = parse(line) {
            chain = chain.seal(&mut event, &mut out)?;
        }
    }
    Ok(out)
}
