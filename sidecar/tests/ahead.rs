//! `mint: ahead`: each token is on record before it is minted, used once or dropped on record, and a stock in trouble is out of the
//! calls' way.

mod rig;

use std::collections::BTreeSet;

use rig::api_server::Answer;
use rig::logged::{cluster_log, counters};
use rig::{Rig, closings, note};
use serde_json::Value;
use tollgate_shared::record::AuditId;

const STOCK: &str = "tollgate_stock_tokens";
const UNUSED: &str = "tollgate_unused_tokens_total";
const PODS: &str = "/api/v1/namespaces/agents/pods";

async fn ahead() -> Rig {
    let rig = Rig::with(&[("mint", "ahead")]).await;
    rig.api.mints(Answer::Token);
    rig
}

async fn call(rig: &Rig) {
    let answer = rig.get(PODS).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Two calls, and the token that the second one makes the stock hold.
async fn stocked() -> Rig {
    let rig = ahead().await;
    call(&rig).await;
    assert_eq!(rig.metric(STOCK).await, 0.0, "a lone call stocks nothing");
    call(&rig).await;
    rig.until_metric(STOCK, 1.0).await;
    rig
}

/// The closing lines of the sidecar's own mints.
fn own_mints(records: &[Value]) -> Vec<&Value> {
    let closing = |record: &&Value| record["stage"] == "ResponseComplete";
    let own = |record: &&Value| note(record, "reason") == "mint-ahead";
    records.iter().filter(closing).filter(own).collect()
}

#[tokio::test]
async fn each_token_is_used_once_and_known_before_it_is_minted() {
    let rig = stocked().await;
    for _ in 0..8 {
        call(&rig).await;
        rig.until_metric(STOCK, 1.0).await;
    }
    assert_eq!(rig.metric(UNUSED).await, 1.0, "the first mint");
    let (mints, calls) = (rig.api.seen_mints(), rig.api.seen_calls());
    let used: BTreeSet<&str> = calls
        .iter()
        .map(|call| call.header("authorization"))
        .collect();
    assert_eq!(used.len(), 10, "a token was used twice");
    assert_eq!(
        mints.len(),
        1 + 2 + 9,
        "the first, two on demand, nine ahead"
    );

    let log = cluster_log(&rig.api);
    let records = rig.end().await;
    let (own, closings) = (own_mints(&records), closings(&records));
    let outcomes: Vec<&str> = own.iter().map(|record| note(record, "outcome")).collect();
    assert_eq!(outcomes[..8], ["used"; 8]);
    assert_eq!(outcomes[8..], ["unused"]);
    for (call, mint) in closings[2..].iter().zip(&own) {
        for field in ["mint-audit-id", "credential-id"] {
            assert_eq!(note(call, field), note(mint, field), "the mint of the call");
        }
        assert_eq!(note(call, "mint-seconds"), "", "it cost the call nothing");
        let id: AuditId = mint["auditID"].as_str().unwrap().parse().unwrap();
        let sent = id.for_mint().to_string();
        assert_eq!(sent, note(mint, "mint-audit-id"));
        assert!(mints.iter().any(|mint| mint.header("audit-id") == sent));
    }
    assert_eq!(
        counters(&records, &log),
        "joined=10 aborted=0 unused-mint=2 missing-record=0 missing-call=0 not-logged=0",
        "the first mint and the last are unused"
    );
    // A mint whose closing line was lost with the process is still known by its opening line.
    let lost: Vec<Value> = records
        .iter()
        .filter(|record| {
            note(record, "reason") != "mint-ahead" || record["stage"] == "RequestReceived"
        })
        .cloned()
        .collect();
    let counted = counters(&lost, &log);
    assert!(
        counted.starts_with("joined=10 aborted=0 unused-mint=2 missing-record=0 "),
        "{counted}"
    );
}

#[tokio::test]
async fn an_idle_agent_has_no_stock() {
    let rig = stocked().await;
    rig.until_metric(STOCK, 0.0).await;
    assert_eq!(rig.metric(UNUSED).await, 2.0, "the first mint and this one");
    call(&rig).await;
    assert_eq!(rig.metric(STOCK).await, 0.0, "a lone call again");
    assert_eq!(rig.api.seen_mints().len(), 1 + 2 + 1 + 1);
    let records = rig.end().await;
    assert_eq!(note(own_mints(&records)[0], "outcome"), "unused");
}

#[tokio::test]
async fn the_end_drops_the_stock_on_record_and_gives_up_what_is_under_way() {
    let rig = stocked().await;
    rig.api.mints(Answer::Silence);
    call(&rig).await;
    while rig.api.seen_mints().len() < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let records = rig.end().await;
    let own = own_mints(&records);
    let outcomes: Vec<&str> = own.iter().map(|record| note(record, "outcome")).collect();
    assert_eq!(outcomes, ["used", "aborted"]);
    let rig = stocked().await;
    let records = rig.end().await;
    assert_eq!(note(own_mints(&records)[0], "outcome"), "unused");
}

#[tokio::test]
async fn a_throttled_stock_waits_and_calls_go_on() {
    let rig = stocked().await;
    let throttled = Answer::json("429 Too Many Requests", "retry-after: 600\r\n", "{}");
    rig.api.mints(throttled);
    call(&rig).await;
    // The mint ahead was refused; now a call mints for itself, and is refused too.
    while rig.api.seen_mints().len() < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let answer = rig.get(PODS).await;
    assert!(
        answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: 600"),
        "{answer}"
    );
    rig.api.mints(Answer::Token);
    let mints = rig.api.seen_mints().len();
    for _ in 0..5 {
        call(&rig).await;
    }
    assert_eq!(
        rig.api.seen_mints().len(),
        mints + 5,
        "one a call, none ahead"
    );
    assert_eq!(rig.metric(STOCK).await, 0.0);
    let records = rig.end().await;
    let refused = own_mints(&records)[1];
    assert_eq!(note(refused, "outcome"), "refused");
    assert_eq!(refused["responseStatus"]["reason"], "mint-throttled");
}

#[tokio::test]
async fn a_rejected_token_takes_the_stock_with_it() {
    let rig = stocked().await;
    call(&rig).await;
    rig.until_metric(STOCK, 1.0).await;
    rig.api.calls(Answer::json("401 Unauthorized", "", "{}"));
    // Nothing new comes in while it is looked at.
    rig.api.mints(Answer::Silence);
    let answer = rig.get(PODS).await;
    assert!(
        answer.starts_with("HTTP/1.1 401 "),
        "the answer is the answer: {answer}"
    );
    assert_eq!(rig.metric(STOCK).await, 0.0);
    assert_eq!(rig.api.seen_calls().len(), 4, "nothing is tried again");
}
