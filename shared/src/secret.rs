//! Bearer tokens as a type that cannot be printed.

use std::fmt;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

/// A bearer token. `Debug` shows nothing of it, there is no `Display`, and memory is wiped on drop.
#[derive(Clone)]
pub struct Token(SecretString);

/// The text cannot be a bearer token; it is not repeated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Nothing but white space.
    #[error("the token is empty")]
    Empty,
    /// A byte outside of RFC 6750's `b64token`.
    #[error("the token has a character that no bearer token has")]
    Character,
    /// Longer than any header could carry.
    #[error("the token is longer than 16 KiB")]
    Length,
}

impl Token {
    /// Takes a token from a file or an answer; surrounding white space is dropped.
    ///
    /// # Errors
    /// [`BadToken`], which never repeats the text.
    pub fn parse(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadToken::Empty);
        }
        if text.len() > 16 * 1024 {
            return Err(BadToken::Length);
        }
        // RFC 6750 section 2.1, b64token.
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
        {
            return Err(BadToken::Character);
        }
        Ok(Self(text.to_owned().into()))
    }

    /// `Bearer …`, marked sensitive so that no HTTP library prints or indexes it.
    #[must_use]
    pub fn bearer(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0.expose_secret()))
            .unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
        value.set_sensitive(true);
        value
    }

    /// The text itself: to compare it, write it to the agent's file, or read its claims.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing() {
        let token = Token::parse("abc.def.ghi\n").unwrap();
        assert_eq!(format!("{token:?}"), "Token([redacted])");
        assert_eq!(format!("{:?}", token.bearer()), "Sensitive");
        assert_eq!(token.bearer().as_bytes(), b"Bearer abc.def.ghi");
    }

    #[test]
    fn refuses_what_no_token_is() {
        assert_eq!(Token::parse(" \n").unwrap_err(), BadToken::Empty);
        assert_eq!(Token::parse("a b").unwrap_err(), BadToken::Character);
        assert_eq!(Token::parse("a\r\nb").unwrap_err(), BadToken::Character);
        assert_eq!(
            Token::parse(&"a".repeat(16 * 1024 + 1)).unwrap_err(),
            BadToken::Length
        );
    }
}
