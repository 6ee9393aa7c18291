//! The one place where a refusal becomes HTTP: a `metav1.Status` as the API server writes them, so that every client shows
//! the message and can switch on the reason.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response};
use serde_json::json;

use crate::refusal::Refusal;

/// Renders a refusal. `details.causes[0].reason` is our reason code.
#[must_use]
pub fn response(refusal: &Refusal) -> Response<Bytes> {
    let Refusal {
        reason,
        message,
        retry_after,
    } = refusal;
    let status = reason.status();
    let mut details = json!({ "causes": [{ "reason": reason.code(), "message": message }] });
    if let (Some(seconds), Some(details)) = (retry_after, details.as_object_mut()) {
        details.insert("retryAfterSeconds".to_owned(), json!(seconds));
    }
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("tollgate: {message} ({})", reason.code()),
        "reason": reason.word(),
        "details": details,
        "code": status.as_u16(),
    });
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Reason;

    #[test]
    fn every_reason_is_a_status_that_clients_know() {
        for &reason in Reason::ALL {
            let response = response(&Refusal::new(reason, "say \"what\"\nto do"));
            assert_eq!(response.status(), reason.status());
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["code"], reason.status().as_u16(), "{reason:?}");
            assert_eq!(body["details"]["causes"][0]["reason"], reason.code());
            assert!(
                body["message"]
                    .as_str()
                    .unwrap()
                    .ends_with(&format!("({})", reason.code()))
            );
        }
    }

    #[test]
    fn retry_after_stands_in_both_places() {
        let refusal = Refusal {
            reason: Reason::MintThrottled,
            message: String::new(),
            retry_after: Some(7),
        };
        let response = response(&refusal);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["details"]["retryAfterSeconds"], 7);
    }
}
