//! What the sidecar shows to the API server when it asks for tokens. It is used for TokenRequests alone: a call of the agent goes
//! out over connections that know nothing of it.

mod exec;
mod login;

use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;
use tollgate_shared::secret::Token;

use self::exec::Exec;
pub use self::login::connect;
use crate::claims;
use crate::file::{FileError, Fresh};
use crate::upstream::Upstream;

/// A credential for TokenRequests.
pub struct Credential {
    kind: Kind,
    /// Where it comes from.
    pub origin: Origin,
}

enum Kind {
    /// A token in a file that is replaced before the token ends.
    File(Fresh<Token>),
    /// One that never changes.
    Fixed(Shown),
    /// One that a program prints.
    Exec(Box<Exec>),
}

/// Whose credential it is: what is to be done when the API server refuses it depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A pod's bootstrap token.
    Pod,
    /// A kubeconfig's user.
    Kubeconfig,
}

/// A credential as one TokenRequest shows it.
#[derive(Clone)]
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
        Ok(Self {
            kind: Kind::File(token?),
            origin: Origin::Pod,
        })
    }

    const fn of_kubeconfig(kind: Kind) -> Self {
        Self {
            kind,
            origin: Origin::Kubeconfig,
        }
    }

    /// The credential as it is now.
    ///
    /// # Errors
    /// What keeps it from being had, for people.
    pub async fn get(&self) -> Result<Shown, String> {
        match &self.kind {
            Kind::File(token) => Ok(Shown::token(token.get())),
            Kind::Fixed(shown) => Ok(shown.clone()),
            Kind::Exec(exec) => exec.get().await,
        }
    }

    /// When the API server issued it, in seconds since 1970; only a bootstrap token says so.
    pub fn issued(&self) -> Option<u64> {
        #[derive(Deserialize)]
        struct Issued {
            iat: u64,
        }
        match (&self.kind, self.origin) {
            (Kind::File(token), Origin::Pod) => {
                claims::of::<Issued>(&token.get().0).map(|claims| claims.iat)
            }
            _ => None,
        }
    }

    /// Another credential than the one that was refused with 401, if there is one by now.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn renew(&self, refused: &Shown) -> Result<Option<Shown>, String> {
        let now = match &self.kind {
            // Its writer may have replaced it since we looked.
            Kind::File(token) => Shown::token(token.look_again()),
            Kind::Fixed(_) => return Ok(None),
            Kind::Exec(exec) => exec.renew(refused).await?,
        };
        Ok((now.generation != refused.generation).then_some(now))
    }
}

impl Shown {
    fn token((token, generation): (Arc<Token>, u64)) -> Self {
        Self {
            bearer: Some(token.bearer()),
            connections: None,
            generation,
        }
    }

    const fn certificate(connections: Arc<Upstream>, generation: u64) -> Self {
        Self {
            bearer: None,
            connections: Some(connections),
            generation,
        }
    }
}

impl Origin {
    /// What a 401 to a TokenRequest means.
    #[must_use]
    pub const fn unauthorized(self) -> &'static str {
        match self {
            Self::Pod => {
                "the API server does not accept the bootstrap token (expired, or the pod or its service account was replaced); \
                 if this lasts, delete the pod"
            }
            Self::Kubeconfig => {
                "the API server does not accept the kubeconfig's credential (expired, revoked, or of another cluster); log in \
                 again"
            }
        }
    }

    /// What a 403 to a TokenRequest for this service account means.
    #[must_use]
    pub fn forbidden(self, target: &str) -> String {
        match self {
            Self::Pod => format!(
                "the API server does not let this pod mint for {target}; check the label tollgate.dev/injection of the namespace \
                 and its RoleBinding tollgate"
            ),
            Self::Kubeconfig => format!(
                "the API server does not let the kubeconfig's user mint for {target}; it needs create on serviceaccounts/token \
                 in the namespace (where that is labelled enforced, mint on serviceaccounts.tollgate.dev too)"
            ),
        }
    }

    /// What a 404 or 409 to a TokenRequest for this service account means.
    #[must_use]
    pub fn gone(self, target: &str) -> String {
        match self {
            Self::Pod => {
                format!("the pod or the service account {target} was deleted or replaced")
            }
            Self::Kubeconfig => format!(
                "the service account {target}, or what its tokens are bound to (--bound-to), is not there"
            ),
        }
    }
}
