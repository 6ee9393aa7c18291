//! What the sidecar shows to the API server when it asks for tokens. It is used for TokenRequests alone: a call of the agent goes
//! out over connections that know nothing of it.

use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use tollgate_shared::secret::Token;

use crate::file::{FileError, Fresh};
use crate::upstream::Upstream;

/// A credential for TokenRequests.
pub enum Credential {
    /// A token in a file that is replaced before the token ends: a pod's bootstrap token.
    File(Fresh<Token>),
}

/// A credential as one TokenRequest shows it.
pub struct Shown {
    /// `Authorization`, unless the connection itself shows a certificate.
    pub bearer: Option<HeaderValue>,
    /// Connections that show a certificate; `None` where those of the calls do.
    pub connections: Option<Arc<Upstream>>,
    generation: u64,
}

impl Credential {
    /// The bootstrap token of a pod.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn bootstrap(folder: &Path) -> Result<Self, FileError> {
        let token = Fresh::open(folder.join("token"), |text| {
            Token::parse(text).map_err(|error| format!("(bootstrap token): {error}"))
        });
        token.map(Self::File)
    }

    /// The credential as it is now.
    pub fn get(&self) -> Shown {
        match self {
            Self::File(token) => shown(token.get()),
        }
    }

    /// Another credential than the one that was refused with 401, if there is one by now.
    pub fn renew(&self, refused: &Shown) -> Option<Shown> {
        let now = match self {
            // Its writer may have replaced it since we looked.
            Self::File(token) => shown(token.look_again()),
        };
        (now.generation != refused.generation).then_some(now)
    }
}

fn shown((token, generation): (Arc<Token>, u64)) -> Shown {
    Shown {
        bearer: Some(token.bearer()),
        connections: None,
        generation,
    }
}
