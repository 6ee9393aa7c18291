use super::*;

#[test]
fn resolves_a_list() {
    let call = Call::resolve(&Method::GET, "/api/v1/namespaces/a/pods").unwrap();
    assert_eq!((call.verb, call.resource.as_str()), (Verb::List, "pods"));
}
