//! Chains by themselves.

use super::*;

/// Eight lines of one pod; a name for each line would say no more than its number.
fn eight() -> Vec<String> {
    let mut pod = Pod::new(POD);
    for jti in 0..2 {
        pod.call(jti);
    }
    let outer = pod.open(Some(2));
    pod.call(3);
    pod.close(outer, "client-disconnected", Some(200));
    pod.lines
}

fn good(files: &[&str]) -> Summary {
    let summary = verify(files, None, false).unwrap();
    assert_eq!((summary.explain().as_str(), summary.is_good()), ("", true));
    summary
}

/// `FILE:LINE` of the first bad line, without its folder, and what is said about it.
fn first_fault(files: &[&str]) -> (String, String) {
    let summary = verify(files, None, false).unwrap();
    assert!(!summary.is_good());
    let fault = summary.faults.first().unwrap();
    let name = fault.message.rsplit_once("record.").unwrap();
    let (place, rest) = fault.message.split_once(": ").unwrap();
    assert!(!name.1.is_empty());
    let place = place.rsplit('/').next().unwrap();
    (place.to_owned(), rest.to_owned())
}

fn join(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn untouched() {
    let lines = eight();
    let summary = good(&[&join(&lines)]);
    assert_eq!(
        summary.to_string(),
        "lines=8 chains=1 open=0 repeated=0 foreign=0 bad=0"
    );
}

#[test]
fn a_deleted_line_is_named_by_the_one_after_it() {
    for deleted in 0..7 {
        let mut lines = eight();
        lines.remove(deleted);
        let (place, why) = first_fault(&[&join(&lines)]);
        assert_eq!(place, format!("record.0:{}", deleted + 1), "{why}");
    }
    // Nothing follows the last line: its call stays open.
    let mut lines = eight();
    lines.pop();
    assert_eq!(good(&[&join(&lines)]).open, 1);
}

#[test]
fn a_moved_line_is_named() {
    for moved in 0..7 {
        let mut lines = eight();
        lines.swap(moved, moved + 1);
        let (place, why) = first_fault(&[&join(&lines)]);
        assert_eq!(place, format!("record.0:{}", moved + 1), "{why}");
    }
}

#[test]
fn a_changed_line_is_named() {
    for changed in 0..8 {
        let mut lines = eight();
        lines[changed] = lines[changed].replace("pods/p", "pods/q");
        let (place, why) = first_fault(&[&join(&lines)]);
        assert_eq!(place, format!("record.0:{}", changed + 1));
        assert!(why.contains("was changed"), "{why}");
        let summary = verify(&[&join(&lines)], None, false).unwrap();
        assert_eq!(summary.fault_count, 1, "{}", summary.explain());
    }
}

#[test]
fn a_changed_line_with_a_hash_of_its_own_breaks_the_next() {
    let mut lines = eight();
    let mut forged = Pod::new(POD);
    forged.open_as(None, |line| line["verb"] = "list".into());
    lines[0] = forged.lines.remove(0);
    let (place, why) = first_fault(&[&join(&lines)]);
    assert_eq!(place, "record.0:2");
    assert!(why.contains("one of the two was changed"), "{why}");
}

#[test]
fn a_damaged_line_is_named_and_a_half_one_that_follows_whole_is_none() {
    let lines = eight();
    for keep in [40, 200, 700] {
        let mut damaged = lines.clone();
        damaged[3].truncate(keep);
        let (place, why) = first_fault(&[&join(&damaged)]);
        assert_eq!(place, "record.0:4", "{why}");
        // The last line of a file that was cut.
        let mut cut = lines.clone();
        cut[7].truncate(keep);
        assert_eq!(first_fault(&[&join(&cut)]).0, "record.0:8");
        // What a kill leaves: the successor writes the line again.
        let mut killed = lines.clone();
        killed.insert(3, lines[3][..keep].to_owned());
        good(&[&join(&killed)]);
        good(&[&join(&killed[..4]), &join(&killed[4..])]);
    }
}

#[test]
fn shippers_may_rewrite_prefix_split_and_mix() {
    let lines = eight();
    let rewritten: Vec<String> = lines
        .iter()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            value
                .to_string()
                .replace("\":", "\" : ")
                .replace('p', "\\u0070")
        })
        .collect();
    good(&[&join(&rewritten)]);
    let cri: String = lines
        .iter()
        .map(|line| {
            let (first, second) = line.split_at(line.len() / 2);
            format!("2026-08-01T10:00:00.1Z stdout P {first}\n2026-08-01T10:00:00.2Z stderr F {{\"tollgate.dev/\":\n2026-08-01T10:00:00.2Z stdout F {second}\n")
        })
        .collect();
    good(&[&cri]);
    let mixed: String = lines
        .iter()
        .map(|line| format!("I0801 a log line\n{{\"msg\":\"other JSON\"}}\n\n[pod/agent-0/tollgate] 2026-08-01T10:00:00Z {line}\r\n"))
        .collect();
    assert_eq!(good(&[&mixed]).foreign, 16);
}

#[test]
fn pods_may_be_merged_and_segments_given_in_any_order() {
    let one = eight();
    let mut other = Pod::new(OTHER_POD);
    for jti in 0..4 {
        other.call(jti);
    }
    let merged: Vec<String> = one
        .iter()
        .zip(&other.lines)
        .flat_map(|(one, other)| [one.clone(), other.clone()])
        .collect();
    let segments: Vec<String> = [&merged[..5], &merged[5..9], &merged[9..]].map(join).into();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let files: Vec<&str> = order.iter().map(|at| segments[*at].as_str()).collect();
        assert_eq!(good(&files).chains, 2);
    }
    let (place, why) = first_fault(&[&segments[0], &segments[2]]);
    assert_eq!(place, "record.1:1");
    assert!(why.contains("no file has the line before it"), "{why}");
}

#[test]
fn only_on_request_may_a_chain_begin_late() {
    let lines = eight();
    let late = join(&lines[3..]);
    let (place, why) = first_fault(&[&late]);
    assert_eq!(place, "record.0:1");
    assert!(why.contains("--partial"), "{why}");
    let summary = verify(&[&late], None, true).unwrap();
    assert!(summary.is_good(), "{}", summary.explain());
    let hole = join(&[&lines[3..5], &lines[6..]].concat());
    assert!(!verify(&[&hole], None, true).unwrap().is_good());
}

#[test]
fn what_a_restarted_recorder_writes_again_counts_once() {
    let mut pod = Pod::new(POD);
    for jti in 0..100 {
        pod.call(jti);
    }
    let lines = &pod.lines;
    let again = |back: usize| [&lines[..150], &lines[150 - back..]].concat();
    for back in [1, 2, MAX_REPEATED] {
        let summary = good(&[&join(&again(back))]);
        assert_eq!((summary.lines, summary.repeated), (200, back as u64));
        good(&[&join(&lines[..150]), &join(&lines[150 - back..])]);
    }
    let summary = verify(&[&join(&again(MAX_REPEATED + 1))], None, false).unwrap();
    assert!(!summary.is_good());
    // A whole file a second time is no repetition, wherever it begins.
    for (text, partial) in [(pod.text(), false), (join(&lines[70..]), true)] {
        let summary = verify(&[&text, &text], None, partial).unwrap();
        let said = summary.explain();
        assert!(!summary.is_good() && said.contains("record.1:1"), "{said}");
        assert!(said.contains("twice"), "{said}");
    }
}

#[test]
fn a_pod_whose_node_lost_its_state_begins_again() {
    let mut before = Pod::new(POD);
    before.call(0);
    let mut after = Pod::new(POD);
    after.open_as(None, |line| {
        line["requestReceivedTimestamp"] = "2026-08-01T11:00:00.000000Z".into()
    });
    let both = before.text() + &after.text();
    let summary = verify(&[&both], None, false).unwrap();
    assert_eq!((summary.is_good(), summary.chains), (true, 2));
    // Or somebody else did: nobody can tell, so it is said.
    let said = summary.explain();
    assert!(
        said.contains("record.0:3: begins another chain of pod 0c6f7a51"),
        "{said}"
    );
}

#[test]
fn calls_open_and_close_once() {
    let mut pod = Pod::new(POD);
    let call = pod.call(0);
    pod.close(call, "completed", Some(200));
    let (place, why) = first_fault(&[&pod.text()]);
    assert_eq!(
        (place.as_str(), why.as_str()),
        ("record.0:3", "closes a call that no line opens")
    );
}

#[test]
fn files_that_hold_nothing_are_no_success() {
    for text in ["", "\n\n", "garbage\n{\"a\":1}\n"] {
        let error = verify(&[text], None, false).unwrap_err();
        assert!(matches!(error, VerifyError::NoRecord(_)), "{error}");
    }
    let missing = Args {
        files: vec!["/nonexistent/record".into()],
        ..Args::default()
    };
    let error = run(&missing).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/record"), "{error}");
}

#[test]
fn garbage_of_any_length_is_passed_over() {
    let lines = eight();
    let text = format!(
        "{}\n{}\u{0}\n{}",
        "x".repeat(300_000),
        "{".repeat(70_000),
        join(&lines)
    );
    assert_eq!(good(&[&text]).lines, 8);
}
