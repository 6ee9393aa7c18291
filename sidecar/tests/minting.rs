//! Minting under every fault of an API server: each has its answer, its reason code and its record, and nothing is forwarded.

mod rig;

use std::fs;
use std::os::unix::fs::symlink;

use rig::api_server::{Answer, jwt};
use rig::{BOOTSTRAP, Rig, closings, note, swap};
use serde_json::json;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn each_failed_mint_has_its_answer_and_nothing_is_forwarded() {
    let status = |code: &str, headers: &str| {
        Answer::json(code, headers, r#"{"message":"said by the API server"}"#)
    };
    let rig = Rig::with(&[("mint-timeout", "200ms")]).await;
    let mut expected = Vec::new();
    for (answer, code, reason, part) in [
        (
            status("401 Unauthorized", ""),
            503,
            "mint-credential-rejected",
            "bootstrap token",
        ),
        (
            status("403 Forbidden", ""),
            503,
            "mint-forbidden",
            "tollgate.dev/injection",
        ),
        (
            status("404 Not Found", ""),
            503,
            "mint-target-gone",
            "deleted or replaced",
        ),
        (
            status("409 Conflict", ""),
            503,
            "mint-target-gone",
            "deleted or replaced",
        ),
        (
            status("422 Unprocessable Entity", ""),
            503,
            "mint-failed",
            "with 422: said by the API server",
        ),
        (
            status("429 Too Many Requests", "retry-after: 7\r\n"),
            429,
            "mint-throttled",
            "\"retryAfterSeconds\":7",
        ),
        (
            status("429 Too Many Requests", ""),
            429,
            "mint-throttled",
            "\"retryAfterSeconds\":1",
        ),
        (
            status("500 Internal Server Error", ""),
            503,
            "mint-unavailable",
            "with 500: said by the API server",
        ),
        (
            status("503 Service Unavailable", "retry-after: 3\r\n"),
            503,
            "mint-unavailable",
            "\"retryAfterSeconds\":3",
        ),
        (
            Answer::json("201 Created", "", "{}"),
            503,
            "mint-failed",
            "holds no token",
        ),
        (
            Answer::json("201 Created", "", "garbage"),
            503,
            "mint-failed",
            "holds no token",
        ),
        (
            Answer::json("200 OK", "", r#"{"status":{"token":"x"}}"#),
            503,
            "mint-failed",
            "with 200",
        ),
        (
            Answer::Last(b"HTTP/1.1 201 Created\r\ncontent-length: 99\r\n\r\n{".to_vec()),
            503,
            "mint-unavailable",
            "cannot be reached",
        ),
        (
            Answer::Last(Vec::new()),
            503,
            "mint-unavailable",
            "cannot be reached",
        ),
        (
            Answer::Last(b"garbage\r\n\r\n".to_vec()),
            503,
            "mint-unavailable",
            "cannot be reached",
        ),
        (Answer::Silence, 503, "mint-unavailable", "no answer within"),
    ] {
        rig.api.mints(answer);
        let got = rig.get("/api/v1/pods").await;
        assert!(
            got.starts_with(&format!("HTTP/1.1 {code} ")),
            "{part}: {got}"
        );
        assert!(
            got.contains(&format!("\"reason\":\"{reason}\"")) && got.contains(part),
            "{part}: {got}"
        );
        expected.push((code, reason));
    }
    assert!(rig.api.seen_calls().is_empty(), "no mint, no call");
    rig.api.mints(Answer::minted());
    assert!(
        rig.get("/api/v1/pods").await.starts_with("HTTP/1.1 200 "),
        "it recovers"
    );
    let records = rig.end().await;
    let closings = closings(&records);
    assert_eq!(closings.len(), expected.len() + 1);
    for (closing, (code, reason)) in closings.iter().zip(expected) {
        let status = &closing["responseStatus"];
        assert_eq!(
            (&status["code"], &status["reason"], note(closing, "outcome")),
            (&code.into(), &reason.into(), "refused")
        );
    }
}

#[tokio::test]
async fn a_rotated_bootstrap_token_is_taken_up_at_its_first_401() {
    const SECOND: &str = "c2Vjb25k.Ym9vdHN0cmFw.dG9rZW4";
    let rig = Rig::start().await;
    let folder = rig.folder.path().join("bootstrap");
    swap(&folder, "..1", BOOTSTRAP);
    fs::remove_file(folder.join("token")).unwrap();
    symlink("..data/token", folder.join("token")).unwrap();
    rig.api.mints(Answer::TokenFor(BOOTSTRAP));
    assert!(rig.get("/api/v1/pods").await.starts_with("HTTP/1.1 200 "));

    swap(&folder, "..2", SECOND);
    fs::remove_dir_all(folder.join("..1")).unwrap();
    rig.api.mints(Answer::TokenFor(SECOND));
    assert!(rig.get("/api/v1/pods").await.starts_with("HTTP/1.1 200 "));
    let shown = |at: &rig::api_server::Seen| at.header("authorization").to_owned();
    let mints = rig.api.seen_mints();
    assert_eq!(mints.last().map(shown), Some(format!("Bearer {SECOND}")));
    let ids: Vec<&str> = mints[2..]
        .iter()
        .map(|mint| mint.header("audit-id"))
        .collect();
    assert!(
        ids.iter().all(|id| *id == ids[0]),
        "one mint of one call: {ids:?}"
    );

    // Garbage in the file: the last good token stays, and what it is worth the API server says.
    swap(&folder, "..3", "not a token!");
    assert!(rig.get("/api/v1/pods").await.starts_with("HTTP/1.1 200 "));
    rig.api.mints(Answer::TokenFor(BOOTSTRAP));
    let answer = rig.get("/api/v1/pods").await;
    assert!(answer.contains("mint-credential-rejected"), "{answer}");
    let last = rig.api.seen_mints().last().map(shown);
    assert_eq!(last, Some(format!("Bearer {SECOND}")));
}

#[tokio::test]
async fn clocks_need_not_agree() {
    let rig = Rig::start().await;
    for issued in [0, 1_000_000_000, 99_999_999_999_u64] {
        let token = jwt(&json!({"jti": "x", "iat": issued, "exp": issued + 600}));
        rig.api.mints(Answer::token(&token));
        let answer = rig.get("/api/v1/pods").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{issued}: {answer}");
        let sent = rig
            .api
            .seen_calls()
            .last()
            .unwrap()
            .header("authorization")
            .to_owned();
        assert_eq!(sent, format!("Bearer {token}"));
    }
    // An API server whose clock does not agree with its own token says so, and that is the answer.
    rig.api.calls(Answer::json(
        "401 Unauthorized",
        "",
        r#"{"reason":"Unauthorized"}"#,
    ));
    let (mints, calls) = (rig.api.seen_mints().len(), rig.api.seen_calls().len());
    let answer = rig.get("/api/v1/pods").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert_eq!(
        (rig.api.seen_mints().len(), rig.api.seen_calls().len()),
        (mints + 1, calls + 1)
    );
    let long = jwt(&json!({"jti": "x", "iat": 1, "exp": 31_536_001}));
    rig.api.mints(Answer::token(&long));
    let answer = rig.get("/api/v1/pods").await;
    assert!(
        answer.contains("mint-failed") && answer.contains("600 s were asked for"),
        "{answer}"
    );
    assert_eq!(
        rig.api.seen_calls().len(),
        calls + 1,
        "a token of a year is not used"
    );
}

#[tokio::test]
async fn a_restarted_api_server_is_found_again() {
    let mut rig = Rig::start().await;
    assert!(rig.get("/api/v1/pods").await.starts_with("HTTP/1.1 200 "));
    rig.api.stop().await;
    let answer = rig.get("/api/v1/pods").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("mint-unavailable") && answer.contains("retry-after: 1\r\n"),
        "{answer}"
    );
    rig.api.restart().await;
    assert!(rig.get("/api/v1/pods").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn more_calls_than_the_cap_get_429_on_record_and_no_token() {
    let rig = Rig::with(&[("max-calls-per-second", "1")]).await;
    let (mut passed, mut refused) = (0, 0);
    // However slow this machine is: one of these comes within a second of the one before.
    while refused == 0 && passed < 100 {
        let (one, other) = tokio::join!(rig.get("/api/v1/pods"), rig.get("/api/v1/pods"));
        for answer in [one, other] {
            if answer.starts_with("HTTP/1.1 200 ") {
                passed += 1;
                continue;
            }
            assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
            assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
            assert!(answer.contains("too-many-calls"), "{answer}");
            refused += 1;
        }
    }
    assert!(refused > 0, "no cap");
    assert_eq!(rig.api.seen_calls().len(), passed);
    assert_eq!(rig.api.seen_mints().len(), 1 + passed, "the first mint");
    let records = rig.end().await;
    let of_cap = |record: &&&serde_json::Value| note(record, "reason") == "too-many-calls";
    let closings = closings(&records);
    let closings: Vec<_> = closings.iter().filter(of_cap).collect();
    assert_eq!(closings.len(), refused);
    assert_eq!(
        (note(closings[0], "decision"), note(closings[0], "outcome")),
        ("deny", "refused")
    );
}
