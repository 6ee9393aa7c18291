use super::*;

#[test]
fn a_token_names_its_container() {
    let token = Token::parse("tgl1_abc").unwrap();
    let tokens = LocalTokens::new(LocalAuth::Token, [("agent".to_owned(), &token)]);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("bearer tgl1_abc"));
    assert_eq!(tokens.authenticate(&headers).unwrap(), Some("agent"));
}
