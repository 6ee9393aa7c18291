//! Whatever else a file may be: what it holds is found, or an error names file and line.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// Two calls.
fn four() -> Vec<String> {
    let mut pod = Pod::new(POD);
    pod.call(1);
    pod.call(2);
    pod.lines
}

fn text(lines: &[String]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| format!("{line}\n").into_bytes())
        .collect()
}

fn map(change: impl Fn(&str) -> String) -> Vec<u8> {
    text(&four().iter().map(|line| change(line)).collect::<Vec<_>>())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn verify_bytes(files: &[Vec<u8>]) -> Result<Summary, VerifyError> {
    let folder = tempfile::tempdir().unwrap();
    let write = |(number, bytes): (usize, &Vec<u8>)| {
        let path = folder.path().join(format!("record.{number}"));
        fs::write(&path, bytes).unwrap();
        path
    };
    let files = files.iter().enumerate().map(write).collect();
    run(&Args {
        files,
        ..Args::default()
    })
}

/// The line, as `jq -S`, an object of a map, or a program without integers would write it.
fn rewritten(line: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap();
    value
        .to_string()
        .replace(":200}", ":200.0}")
        .replace("/", "\\/")
        .replace("\":", "\" : ")
}

/// A name for a person, and the bytes of a file.
type Case = (&'static str, Vec<u8>);

fn written_otherwise() -> Vec<Case> {
    let lines = four();
    let whole = text(&lines);
    let mut members = gzip(&text(&lines[..2]));
    members.extend(gzip(&text(&lines[2..])));
    vec![
        (
            "without a last line feed",
            whole[..whole.len() - 1].to_vec(),
        ),
        ("CRLF", map(|line| format!("{line}\r"))),
        ("BOM", [b"\xef\xbb\xbf", &*whole].concat()),
        ("NUL bytes", map(|line| format!("\0\0\0{line}\0"))),
        ("blank lines", map(|line| format!("\n \n{line}\n"))),
        ("jq -S", map(rewritten)),
        (
            "foreign lines",
            map(|line| format!("x\n{{\"json\":1}}\n[]\n{{\n\u{fffd}\n{line}\n\"x\"")),
        ),
        ("gzip", gzip(&whole)),
        ("gzip of several members", members),
        ("as it is", whole),
    ]
}

fn prefixed() -> Vec<Case> {
    let prefix = |prefix: &str| map(|line| format!("{prefix} {line}"));
    let split = map(|line| {
        let (one, two) = line.split_at(99);
        format!(
            "2026-08-01T10:00:00.1+02:00 stdout P {one}\n2026-08-01T10:00:00.1+02:00 stdout F {two}"
        )
    });
    vec![
        ("CRI", prefix("2026-08-01T10:00:00.000000001Z stdout F")),
        ("CRI, split", split),
        (
            "kubectl logs --timestamps",
            prefix("2026-08-01T10:00:00.000000001Z"),
        ),
        ("kubectl logs --prefix", prefix("[pod/agent-0/tollgate]")),
        (
            "both",
            prefix("[pod/agent-0/tollgate] 2026-08-01T10:00:00Z"),
        ),
        ("stern", prefix("agent-0 tollgate")),
    ]
}

fn wrapped() -> Vec<Case> {
    let string = |field: &str, prefix: &str| {
        map(|line| {
            json!({field: format!("{prefix}{line}\n"), "stream": "stdout", "time": "t"}).to_string()
        })
    };
    let object = |field: &str| {
        map(|line| json!({field: serde_json::from_str::<Value>(line).unwrap(), "n": 1}).to_string())
    };
    vec![
        ("Docker, Fluent Bit", string("log", "")),
        ("Vector, Filebeat, CloudWatch", string("message", "")),
        ("Loki", string("line", "")),
        ("Google Cloud Logging, text", string("textPayload", "")),
        ("Google Cloud Logging", object("jsonPayload")),
        ("an object", object("log")),
        (
            "Fluent Bit over CRI",
            string("log", "2026-08-01T10:00:00.1Z stdout F "),
        ),
    ]
}

#[test]
fn what_shippers_make_of_lines_is_read() {
    for (what, bytes) in [written_otherwise(), prefixed(), wrapped()].concat() {
        let summary = verify_bytes(&[bytes]).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = (summary.explain(), summary.lines, summary.chains);
        assert_eq!(found, (String::new(), 4, 1), "{what}");
    }
}

/// The second line, changed.
fn second(change: impl Fn(&str) -> String) -> Vec<u8> {
    let mut lines = four();
    lines[1] = change(&lines[1]);
    text(&lines)
}

fn pretty(line: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

/// What is wrong with each, and in which line.
fn damaged() -> Vec<(Case, u64, &'static str)> {
    let lines = four();
    let replace = |from: &'static str, to: &'static str| second(|line| line.replacen(from, to, 1));
    let mut not_utf8 = text(&lines);
    not_utf8[lines[0].len() + 20] = 0xff;
    let joined = [
        text(&lines[..1]),
        lines[1].clone().into_bytes(),
        text(&lines[2..]),
    ]
    .concat();
    let array = format!("[{}]\n", lines.join(",")).into_bytes();
    let long = "x".repeat(70_000);
    let long = second(|line| line.replace("\"demo\"", &format!("\"{long}\"")));
    let cut_in_envelope = second(|line| json!({"log": &line[..300]}).to_string());
    vec![
        (
            ("a NUL inside", replace("demo", "de\0mo")),
            2,
            "control character",
        ),
        (("not UTF-8", not_utf8), 2, "UTF-8"),
        (("two records in a line", joined), 2, "trailing characters"),
        (("cut", second(|line| line[..300].to_owned())), 2, "EOF"),
        (("cut in an envelope", cut_in_envelope), 2, "EOF"),
        (
            ("a field more", replace("{", "{\"kubernetes\":{},")),
            2,
            "unknown field `kubernetes`",
        ),
        (
            (
                "a field twice",
                replace("\"kind\":", "\"kind\":\"Event\",\"kind\":"),
            ),
            2,
            "duplicate field",
        ),
        (
            ("no number", replace("\"code\":200", "\"code\":\"200\"")),
            2,
            "an HTTP status",
        ),
        (("too long", long), 2, "longer than any line"),
        (("pretty", second(pretty)), 6, "over several lines"),
        (("an array", array), 1, "trailing characters"),
    ]
}

#[test]
fn what_is_wrong_is_named_by_file_and_line() {
    for ((what, bytes), place, why) in damaged() {
        let summary = verify_bytes(&[bytes]).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!summary.is_good(), "{what}");
        let said = summary.explain();
        let first = said.lines().next().unwrap_or_default();
        let place = format!("record.0:{place}: ");
        assert!(
            first.contains(&place) && first.contains(why),
            "{what}: {said}"
        );
    }
}

#[test]
fn what_is_no_text_is_an_error() {
    let utf16: Vec<u8> = [0xfeff]
        .into_iter()
        .chain(String::from_utf8(text(&four())).unwrap().encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let zipped = gzip(&text(&four()));
    let mut damaged = zipped.clone();
    damaged[40] ^= 0xff;
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (what, bytes, why) in [
        ("UTF-16", utf16, "UTF-16"),
        ("zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0], "zstd -d"),
        ("zip", b"PK\x03\x04....".to_vec(), "zip"),
        (
            "gzip that is cut",
            zipped[..zipped.len() / 2].to_vec(),
            "incomplete",
        ),
        ("gzip that is damaged", damaged, "corrupt"),
        ("noise", noise, "no line of a record"),
        ("nothing", Vec::new(), "no line of a record"),
        (
            "one gigantic line",
            vec![b'{'; 5_000_000],
            "no line of a record",
        ),
    ] {
        let error = verify_bytes(&[bytes])
            .map(|summary| summary.explain())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("record.0") && error.contains(why),
            "{what}: {error}"
        );
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    fs::write(&good, text(&four())).unwrap();
    for (bad, why) in [
        ("", "directory"),
        ("none", "No such file"),
        ("good/below", "Not a directory"),
    ] {
        let path = folder.path().join(bad);
        let error = run(&Args {
            files: vec![good.clone(), path.clone()],
            ..Args::default()
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains(&path.display().to_string()) && error.contains(why),
            "{bad}: {error}"
        );
    }
}

#[test]
fn compressed_segments_come_in_any_order() {
    let lines = four();
    let (one, two) = (gzip(&text(&lines[..1])), text(&lines[1..]));
    for files in [[one.clone(), two.clone()], [two, one]] {
        let summary = verify_bytes(&files).unwrap();
        assert_eq!((summary.explain().as_str(), summary.lines), ("", 4));
    }
}
