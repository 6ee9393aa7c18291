//! Why a call is answered by the sidecar itself. Each reason has a code (in the `Status`, the record and the metric), an HTTP
//! status, the `reason` word that Kubernetes clients know, and a message that says what to do.

use http::StatusCode;

tollgate_shared::reasons! {
    /// The request could be read in two ways, or breaks HTTP's rules.
    BadRequest = "bad-request",
    /// The path could be read in two ways.
    AmbiguousPath = "ambiguous-path",
    /// A method that the API server does not resolve.
    UnknownMethod = "unknown-method",
    /// The body came too slowly.
    BodyTooSlow = "body-too-slow",
    /// The `Host` is not a local name (DNS rebinding).
    ForeignHost = "foreign-host",
    /// A browser made the request (CSRF).
    BrowserRequest = "browser-request",
    /// The local token is missing.
    LocalTokenMissing = "local-token-missing",
    /// The local token is not that of any agent container.
    LocalTokenWrong = "local-token-wrong",
    /// The floor: minting through the proxy.
    FloorTokenRequest = "floor-token-request",
    /// The floor: impersonation headers.
    FloorImpersonation = "floor-impersonation",
    /// The floor: exec or attach into a sidecar.
    FloorSidecarExec = "floor-sidecar-exec",
    /// The floor: the kubelet's API through `nodes/proxy`.
    FloorNodeProxy = "floor-node-proxy",
    /// The floor: certificate signing requests.
    FloorCertificate = "floor-certificate",
    /// The floor: writes to what admission and authorization are made of.
    FloorAdmission = "floor-admission",
    /// The floor: writes to the cluster CA that pods read.
    FloorClusterCa = "floor-cluster-ca",
    /// More calls than the pod may make in a second.
    TooManyCalls = "too-many-calls",
    /// The opening record could not be written.
    RecordUnavailable = "record-unavailable",
    /// The API server limits our mints.
    MintThrottled = "mint-throttled",
    /// The API server does not accept the credential that mints.
    MintCredentialRejected = "mint-credential-rejected",
    /// The API server does not let us mint.
    MintForbidden = "mint-forbidden",
    /// The pod, the node or the service account of the token is gone.
    MintTargetGone = "mint-target-gone",
    /// The API server cannot be reached or is in trouble, so it mints nothing.
    MintUnavailable = "mint-unavailable",
    /// The API server's answer to a mint is not one of these, nor a token as asked for.
    MintFailed = "mint-failed",
    /// The API server could not be reached, or broke off before it answered.
    UpstreamUnavailable = "upstream-unavailable",
    /// The API server did not answer in time.
    UpstreamTimeout = "upstream-timeout",
    /// The sidecar is shutting down.
    ShuttingDown = "shutting-down",
}

impl Reason {
    /// The reason of a code.
    #[must_use]
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.code() == code)
    }

    /// What kind of rule it is: the request itself, the local checks, the floor, or the sidecar's own state.
    #[must_use]
    pub const fn tier(self) -> &'static str {
        match self {
            Self::BadRequest | Self::AmbiguousPath | Self::UnknownMethod | Self::BodyTooSlow => {
                "request"
            }
            Self::ForeignHost
            | Self::BrowserRequest
            | Self::LocalTokenMissing
            | Self::LocalTokenWrong => "local",
            Self::FloorTokenRequest
            | Self::FloorImpersonation
            | Self::FloorSidecarExec
            | Self::FloorNodeProxy
            | Self::FloorCertificate
            | Self::FloorAdmission
            | Self::FloorClusterCa => "floor",
            _ => "sidecar",
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::AmbiguousPath => StatusCode::BAD_REQUEST,
            Self::UnknownMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::LocalTokenMissing | Self::LocalTokenWrong => StatusCode::UNAUTHORIZED,
            Self::ForeignHost
            | Self::BrowserRequest
            | Self::FloorTokenRequest
            | Self::FloorImpersonation
            | Self::FloorSidecarExec
            | Self::FloorNodeProxy
            | Self::FloorCertificate
            | Self::FloorAdmission
            | Self::FloorClusterCa => StatusCode::FORBIDDEN,
            Self::TooManyCalls | Self::MintThrottled => StatusCode::TOO_MANY_REQUESTS,
            Self::RecordUnavailable
            | Self::MintCredentialRejected
            | Self::MintForbidden
            | Self::MintTargetGone
            | Self::MintUnavailable
            | Self::MintFailed
            | Self::UpstreamUnavailable
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// `metav1.StatusReason`, which clients switch on (`apimachinery/pkg/apis/meta/v1/types.go`).
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self.status() {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::UNAUTHORIZED => "Unauthorized",
            StatusCode::FORBIDDEN => "Forbidden",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "Timeout",
            _ => "InternalError",
        }
    }
}

/// A call that goes no further: why, and what the agent's owner can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", reason.code())]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// One sentence that names what was refused and what to do; never holds a secret.
    pub message: String,
    /// `Retry-After` in seconds, where it makes sense.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A refusal without `Retry-After`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry_after: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes in a column of the tables under a heading.
    fn documented(heading: &str, column: usize) -> Vec<&'static str> {
        let text = include_str!("../../docs/operations.md");
        let (_, section) = text.split_once(&format!("## {heading}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(column));
        cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect()
    }

    #[test]
    fn every_code_is_in_the_documentation_and_no_other() {
        let refused = documented("When a call is refused", 1);
        let unminted = documented("When no token can be minted", 3);
        // `floor-…` stands for all that begin so.
        let is = |known: &str, code: &str| match known.strip_suffix('…') {
            Some(head) => code.starts_with(head),
            None => known == code,
        };
        for reason in Reason::ALL {
            let code = reason.code();
            assert!(refused.iter().any(|known| is(known, code)), "{code}");
            assert!(
                !code.starts_with("mint-") || unminted.contains(&code),
                "{code}"
            );
        }
        for known in refused.iter().chain(&unminted) {
            let found = Reason::ALL.iter().any(|reason| is(known, reason.code()));
            assert!(found, "{known}");
        }
    }
}
