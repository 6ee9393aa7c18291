//! The user of a kubeconfig's context.

use std::path::{Path, PathBuf};

use tollgate_shared::secret::Token;

use super::Source;
use super::entry::{Entry, Faults, resolve};
use super::plugin::Plugin;

/// A credential.
pub enum User {
    /// A bearer token.
    Token(Token),
    /// A file with one, which somebody replaces before the token ends.
    TokenFile(PathBuf),
    /// A client certificate and its key, PEM.
    Certificate {
        /// The chain, leaf first.
        certificate: Source,
        /// The leaf's key.
        key: Source,
    },
    /// A program that prints a credential.
    Exec(Plugin),
}

/// Fields that mean a way to log in which we do not go, and what to do instead.
const REFUSED: [(&str, &str); 7] = [
    (
        "username",
        "is not supported: Kubernetes has no passwords since 1.19",
    ),
    (
        "password",
        "is not supported: Kubernetes has no passwords since 1.19",
    ),
    (
        "auth-provider",
        "is a way to log in that kubectl has given up (1.26): use an exec plugin, such as kubelogin, gke-gcloud-auth-plugin or \
         aws eks get-token",
    ),
    ("as", IMPERSONATION),
    ("as-uid", IMPERSONATION),
    ("as-groups", IMPERSONATION),
    ("as-user-extra", IMPERSONATION),
];
const IMPERSONATION: &str =
    "is impersonation, which is not supported: name a user that may itself request tokens";

impl User {
    pub(super) fn read(entry: &Entry<'_>, folder: &Path, faults: &mut Faults) -> Option<Self> {
        let before = faults.0.len();
        for (field, message) in REFUSED {
            if entry.value(field).is_some() {
                entry.fault(faults, field, message);
            }
        }
        let certificate = entry.source("client-certificate", folder, faults);
        let key = entry.source("client-key", folder, faults);
        let token_file = entry.text("tokenFile", faults);
        let token = entry.text("token", faults);
        let plugin = entry.inner("exec", faults);
        let ways = [
            ("client-certificate", certificate.is_some() || key.is_some()),
            ("token", token.is_some() || token_file.is_some()),
            ("exec", plugin.is_some()),
        ];
        let ways: Vec<&str> = ways
            .iter()
            .filter_map(|(way, there)| there.then_some(*way))
            .collect();
        if ways.is_empty() && faults.0.len() == before {
            faults.add(format!(
                "{entry} has no credential: no token, tokenFile, client-certificate or exec"
            ));
        }
        if ways.len() > 1 {
            faults.add(format!(
                "{entry} has several credentials ({}), and which one counts differs between clients; keep one",
                ways.join(", ")
            ));
        }
        if let Some(plugin) = plugin {
            return Plugin::read(&plugin, folder, faults).map(Self::Exec);
        }
        // As in client-go, the file counts where there are both.
        if let Some(file) = token_file {
            return Some(Self::TokenFile(resolve(&file, folder)));
        }
        match token {
            Some(token) => self::token(entry, &token, faults),
            None => self::certificate(entry, certificate, key, faults),
        }
    }

    /// What kind of credential it is, for people.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::TokenFile(_) => "token file",
            Self::Certificate { .. } => "client certificate",
            Self::Exec(_) => "exec plugin",
        }
    }
}

fn token(entry: &Entry<'_>, text: &str, faults: &mut Faults) -> Option<User> {
    let token = Token::parse(text);
    if let Err(error) = &token {
        entry.fault(faults, "token", &format!("cannot be one: {error}"));
    }
    token.ok().map(User::Token)
}

fn certificate(
    entry: &Entry<'_>,
    certificate: Option<Source>,
    key: Option<Source>,
    faults: &mut Faults,
) -> Option<User> {
    let alone = |faults: &mut Faults, field, other| {
        let message = format!("has no {other} or {other}-data beside it");
        entry.fault(faults, field, &message);
        None
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(User::Certificate { certificate, key }),
        (Some(_), None) => alone(faults, "client-certificate", "client-key"),
        (None, Some(_)) => alone(faults, "client-key", "client-certificate"),
        (None, None) => None,
    }
}
