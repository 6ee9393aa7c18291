//! Minting under every fault of an API server: each has its answer, its reason code and its record, and nothing is forwarded.

mod rig;

use rig::api_server::Answer;
use rig::{Rig, closings, note};

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
