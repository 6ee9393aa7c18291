//! `docs/audit.md` says what the code does.

use std::collections::BTreeSet;

use serde_json::Value;
use tollgate_shared::record::key;

use super::*;

const DOC: &str = include_str!("../../../../docs/audit.md");

/// The blocks of code marked ```` ```json <kind> ````.
fn blocks(kind: &str) -> Vec<&'static str> {
    let fence = format!("```json {kind}\n");
    let blocks = DOC.split(fence.as_str()).skip(1);
    blocks
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect()
}

/// The call of the examples, chained: its times and names never change.
fn example() -> Vec<String> {
    let at = |micros: u64| {
        SystemTime::UNIX_EPOCH + Duration::from_micros(1_785_578_400_000_000 + micros)
    };
    let opening = Opening {
        uri: "/api/v1/namespaces/demo/pods?limit=500".to_owned(),
        user_agent: Some("kubectl/v1.37.2 (linux/amd64) kubernetes/e6123b8".to_owned()),
        object: Some(ObjectRef {
            api_version: Some("v1".into()),
            resource: Some("pods".into()),
            namespace: Some("demo".into()),
            ..ObjectRef::default()
        }),
        verb: "list".to_owned(),
        tier: "policy",
        received: at(0),
        ..opening("")
    };
    let (who, facts) = (identity(), Arc::new(Facts::new(opening, false)));
    let mut lines = Vec::new();
    let mut event = facts.opening(&who, at(150));
    let chain = Chain::default().seal(&mut event, &mut lines).unwrap();
    let audit_id = event.audit_id.unwrap();
    let later = queue::Later {
        audit_id,
        facts: Arc::clone(&facts),
        minted: Some(call::Minted {
            credential_id: "JTI=5f3c2ad1-7c55-4b0e-9d0f-3c1b8a7e6d21".to_owned(),
            mint_audit_id: audit_id.for_mint(),
            took: Some(Duration::from_micros(3700)),
        }),
        ending: queue::Ending::Closed(Box::new(Closing {
            request_bytes: Some(0),
            response_bytes: Some(18_423),
            ..done()
        })),
        at: at(5500),
    };
    chain.seal(&mut later.event(&who), &mut lines).unwrap();
    let text = String::from_utf8(lines).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_example_is_what_the_recorder_writes() {
    let lines = example();
    let pretty = |line: &String| {
        let value: Value = serde_json::from_str(line).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    let blocks_now: Vec<String> = lines.iter().map(pretty).collect();
    for block in &blocks_now {
        println!("```json line\n{block}\n```");
    }
    assert_eq!(
        blocks("line"),
        blocks_now,
        "the blocks above belong into docs/audit.md"
    );
    assert_eq!(chain(&lines.join("\n")).len(), 2);
}

#[test]
fn every_outcome_has_an_example_that_is_a_line() {
    let mut outcomes = BTreeSet::new();
    let example = example();
    for block in blocks("outcome") {
        let mut line: Value = serde_json::from_str(example.last().unwrap()).unwrap();
        for (field, value) in serde_json::from_str::<Value>(block)
            .unwrap()
            .as_object()
            .unwrap()
        {
            match (line.get_mut(field).and_then(Value::as_object_mut), value) {
                (Some(fields), Value::Object(values)) => fields.extend(values.clone()),
                _ => drop(
                    line.as_object_mut()
                        .unwrap()
                        .insert(field.clone(), value.clone()),
                ),
            }
        }
        let line = line.to_string();
        let event = parse(&line).unwrap();
        outcomes.insert(event.annotations.outcome.unwrap().to_string());
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), outcome::ALL);
    for outcome in outcome::ALL {
        assert!(
            DOC.contains(&format!("\n`{outcome}`: ")),
            "{outcome} is not explained"
        );
    }
}

#[test]
fn the_table_has_every_field_and_no_other() {
    let rows = DOC
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches('|').count() == 6);
    let named: BTreeSet<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .collect();
    let mut fields: BTreeSet<&str> = key::ALL.into();
    let example = example();
    let line: Value = serde_json::from_str(example.last().unwrap()).unwrap();
    let top = line.as_object().unwrap().keys().map(String::as_str);
    fields.extend(top.filter(|field| !["annotations", "user", "responseStatus"].contains(field)));
    fields.extend(["user.username", "user.extra", "responseStatus.code"]);
    fields.extend(["responseStatus.reason", "responseStatus.message"]);
    assert_eq!(named, fields);
}
