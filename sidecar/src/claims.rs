//! What a token says about itself. Nothing is verified here: the API server judges its tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use tollgate_shared::secret::Token;

/// The claims of a JWT, if it is one and has them.
pub(crate) fn of<T: DeserializeOwned>(token: &Token) -> Option<T> {
    let payload = token.expose().split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}
