use super::*;

#[test]
fn sets_ours() {
    let hop = Hop::of(&HeaderMap::new()).unwrap();
    let sent = hop.upstream(
        HeaderMap::new(),
        HeaderValue::from_static("Bearer x"),
        HeaderValue::from_static("id"),
    );
    assert_eq!(sent.len(), 2);
    assert!(sent[AUTHORIZATION].is_sensitive());
}
