//! What the API server is expected to say, and patience: selectors, RBAC and policies are read from caches, so an answer may be
//! of a moment ago. Asks again until the answer is the wanted one, and fails with the last answer.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::bail;

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// The wanted answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// Success.
    Success,
    /// Whatever comes after authorization and policies: success, or an error about the object itself.
    Admitted,
    /// A policy's refusal with this reason code.
    Refused(&'static str),
    /// A webhook should have been asked, and did not answer.
    Unanswered,
}

impl Want {
    fn is<T>(self, answer: &kube::Result<T>) -> bool {
        match (self, answer) {
            (Self::Success | Self::Admitted, Ok(_)) => true,
            (Self::Admitted, Err(kube::Error::Api(status))) => {
                status.code != 403 && !status.message.contains("ValidatingAdmissionPolicy")
            }
            (Self::Refused(code), Err(kube::Error::Api(status))) => status
                .message
                .contains(&format!("denied request: {code}: ")),
            (Self::Unanswered, Err(kube::Error::Api(status))) => {
                status.message.contains("failed calling webhook")
            }
            _ => false,
        }
    }
}

/// Sends `request` until the answer is the wanted one; `what` names the request in the error.
pub(crate) async fn want<T: Debug>(
    what: &str,
    want: Want,
    request: impl AsyncFn() -> kube::Result<T>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let answer = request().await;
        if want.is(&answer) {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            // Not the value: it may be a token.
            let answer = answer.map_or_else(|error| error.to_string(), |_| "success".to_owned());
            bail!("{what}: wanted {want:?}, got: {answer}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
