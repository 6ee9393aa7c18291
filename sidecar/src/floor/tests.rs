use http::Method;

use super::*;

#[test]
fn refuses_a_token_request() {
    let call = Call::resolve(
        &Method::POST,
        "/api/v1/namespaces/a/serviceaccounts/b/token",
    )
    .unwrap();
    let refusal = check(&call, &HeaderMap::new()).unwrap_err();
    assert_eq!(refusal.reason, Reason::FloorTokenRequest);
}
