//! One AdmissionReview in, one out; pure. Whatever cannot be judged is refused: with `allowed: false` where there is a uid to
//! answer to, with an error otherwise. Nothing is allowed because something could not be read.

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderStringWriter;
use serde_json::{Map, Value, json};
use tollgate_shared::contract::Injection;

use super::subject::Subject;
use crate::events::{Hint, is_real};
use crate::inject::{Context, Decision, InjectConfig, PatchOp, decide};
use crate::json::{Json, Tree};
use crate::reason::{Denial, Reason};
use crate::validate::{self, Operation, Verdict};
use crate::voucher::Vouching;

/// The only version that we speak.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What most operations take, as base64.
const OPERATION: usize = 200;

/// The group that kubelets are in.
const NODES: &str = "system:nodes";

/// Which webhook was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The mutating one.
    Mutate,
    /// The validating one.
    Validate,
}

impl Stage {
    /// As in the path and in the metric.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        }
    }
}

/// An answered review.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    /// The AdmissionReview to send.
    pub(crate) review: Value,
    /// `allowed`, `patched` or `denied`.
    pub(crate) decision: &'static str,
    /// Why.
    pub(crate) reason: Reason,
    /// Whether nothing comes of it whatever we say.
    pub(crate) dry_run: bool,
    /// The workload whose owner should know; never on a dry run.
    pub(crate) hint: Option<Hint>,
    /// Whom the log names; of denials only.
    pub(crate) denied: Option<Subject>,
}

/// The body is no AdmissionReview that could be answered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadReview {
    #[error("the body is not JSON as it must be: {0}")]
    Json(String),
    #[error(
        "the body is not an AdmissionReview of {API_VERSION}, the only version that this webhook speaks"
    )]
    Version,
    #[error("the AdmissionReview has no request with a uid")]
    NoRequest,
}

/// By what a review is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    /// The operator's configuration.
    pub(crate) config: &'a InjectConfig,
    /// See [`Context::vouching`].
    pub(crate) vouching: Option<Vouching<'a>>,
}

/// Answers the review in `body`.
pub(crate) fn answer(
    stage: Stage,
    injection: Injection,
    body: &[u8],
    terms: Terms<'_>,
) -> Result<Answer, BadReview> {
    let review = Tree::parse(body).map_err(|error| BadReview::Json(error.to_string()))?;
    let review = review.root();
    let is = |key: &str, value: &str| text(review, key) == Some(value);
    if !is("apiVersion", API_VERSION) || !is("kind", KIND) {
        return Err(BadReview::Version);
    }
    let request = review.get("request").ok_or(BadReview::NoRequest)?;
    let uid = text(request, "uid")
        .filter(|uid| !uid.is_empty())
        .ok_or(BadReview::NoRequest)?;
    let decided = read(request).map(|request| match stage {
        Stage::Mutate => mutate(&request, &context(&request, injection, terms)),
        Stage::Validate => judge(&request, &context(&request, injection, terms)),
    });
    let decided = decided.unwrap_or_else(Outcome::denied);
    let hint = match decided.is_worth_telling() {
        true => Hint::read(request, decided.reason),
        false => None,
    };
    let denied = matches!(decided.verdict, Judged::Denied(_)).then(|| Subject::read(request));
    Ok(Answer {
        dry_run: !is_real(request),
        hint,
        denied,
        ..decided.into_answer(stage, uid)
    })
}

/// What of a request matters.
struct Request<'a> {
    operation: Operation,
    namespace: &'a str,
    object: Json<'a>,
    old_object: Option<Json<'a>>,
    from_node: bool,
}

/// Reads a request about a pod; anything else is not what our webhook configurations ask for.
fn read(request: Json<'_>) -> Result<Request<'_>, Denial> {
    let resource = request.get("resource");
    let is = |key: &str, value: &str| resource.and_then(|kind| text(kind, key)) == Some(value);
    if !(is("group", "") && is("version", "v1") && is("resource", "pods")) {
        let message =
            "this webhook judges pods of v1 only; correct the rules of the webhook configuration";
        return Err(Denial::new(Reason::BadRequest, message));
    }
    let operation = Operation::new(
        text(request, "operation").unwrap_or_default(),
        text(request, "subResource").unwrap_or_default(),
    );
    let is_object = |value: &Json<'_>| value.as_object().is_some();
    let namespace = text(request, "namespace").filter(|namespace| !namespace.is_empty());
    let object = request.get("object").filter(is_object);
    let old_object = request.get("oldObject").filter(is_object);
    match (operation, namespace, object) {
        (Operation::Other, _, _) => Err(Denial::new(
            Reason::BadRequest,
            "this webhook judges new pods, ephemeral containers and resizes only; correct the rules of the webhook configuration",
        )),
        (_, Some(namespace), Some(object)) => Ok(Request {
            operation,
            namespace,
            object,
            old_object,
            from_node: is_node(request),
        }),
        _ => Err(Denial::new(
            Reason::BadRequest,
            "the request has no namespace or no object; correct whatever sends it",
        )),
    }
}

fn is_node(request: Json<'_>) -> bool {
    let groups = request.pointer("/userInfo/groups").and_then(Json::as_list);
    groups.is_some_and(|groups| groups.iter().any(|group| group.as_str() == Some(NODES)))
}

fn text<'a>(object: Json<'a>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

fn context<'a>(request: &Request<'a>, injection: Injection, terms: Terms<'a>) -> Context<'a> {
    Context {
        injection: Some(injection),
        namespace: request.namespace,
        from_node: request.from_node,
        config: terms.config,
        vouching: terms.vouching,
    }
}

fn mutate(request: &Request<'_>, context: &Context<'_>) -> Outcome {
    if request.operation != Operation::Create {
        return Outcome::denied(Denial::new(
            Reason::BadRequest,
            "this webhook changes new pods only; correct the rules of the webhook configuration",
        ));
    }
    let decision = decide(request.object, context);
    let reason = decision.reason();
    match decision {
        Decision::Skip(_) => Outcome::allowed(reason),
        Decision::Patch {
            operations,
            warnings,
        } => Outcome {
            reason,
            verdict: Judged::Allowed {
                operations,
                warnings,
            },
        },
        Decision::Deny(denial) => Outcome::denied(denial),
    }
}

fn judge(request: &Request<'_>, context: &Context<'_>) -> Outcome {
    let verdict = validate::judge(
        request.operation,
        request.object,
        request.old_object,
        context,
    );
    match verdict {
        Verdict::Allow(reason) => Outcome::allowed(reason),
        Verdict::Deny(denial) => Outcome::denied(denial),
    }
}

struct Outcome {
    reason: Reason,
    verdict: Judged,
}

enum Judged {
    Allowed {
        operations: Vec<PatchOp>,
        warnings: Vec<String>,
    },
    Denied(Denial),
}

impl Outcome {
    const fn allowed(reason: Reason) -> Self {
        let verdict = Judged::Allowed {
            operations: Vec::new(),
            warnings: Vec::new(),
        };
        Self { reason, verdict }
    }

    fn denied(denial: Denial) -> Self {
        Self {
            reason: denial.reason,
            verdict: Judged::Denied(denial),
        }
    }

    /// A denial, or a warning with a change: what a user who made a workload, not the pod, does not see.
    const fn is_worth_telling(&self) -> bool {
        match &self.verdict {
            Judged::Denied(_) => true,
            Judged::Allowed {
                operations,
                warnings,
            } => !operations.is_empty() && !warnings.is_empty(),
        }
    }

    fn into_answer(self, stage: Stage, uid: &str) -> Answer {
        let reason = self.reason;
        match self.verdict {
            Judged::Denied(denial) => denied(uid, denial),
            Judged::Allowed {
                operations,
                warnings,
            } => match allowed(uid, reason, &operations, warnings) {
                Ok(review) => Answer {
                    review,
                    decision: match operations.is_empty() {
                        true => "allowed",
                        false => "patched",
                    },
                    reason,
                    dry_run: false,
                    hint: None,
                    denied: None,
                },
                Err(error) => {
                    tracing::error!(%error, stage = stage.as_str(), "cannot write a patch");
                    denied(
                        uid,
                        Denial::new(
                            Reason::BadRequest,
                            "the patch cannot be written; see the log of this webhook",
                        ),
                    )
                }
            },
        }
    }
}

fn denied(uid: &str, denial: Denial) -> Answer {
    let response = json!({
        "uid": uid,
        "allowed": false,
        "status": {"code": 403, "reason": "Forbidden", "message": denial.to_string()},
        "auditAnnotations": {"reason": denial.reason.code()},
    });
    Answer {
        review: envelope(response),
        decision: "denied",
        reason: denial.reason,
        dry_run: false,
        hint: None,
        denied: None,
    }
}

fn allowed(
    uid: &str,
    reason: Reason,
    operations: &[PatchOp],
    warnings: Vec<String>,
) -> Result<Value, serde_json::Error> {
    let mut response = Map::new();
    response.insert("uid".to_owned(), uid.into());
    response.insert("allowed".to_owned(), true.into());
    response.insert(
        "auditAnnotations".to_owned(),
        json!({"reason": reason.code()}),
    );
    // Patch and patchType: both or none (`request/admissionreview.go`, VerifyAdmissionResponse).
    if !operations.is_empty() {
        // A text that grows is copied.
        let room = String::with_capacity(operations.len() * OPERATION);
        let mut patch = EncoderStringWriter::from_consumer(room, &STANDARD);
        serde_json::to_writer(&mut patch, operations)?;
        let patch = patch.into_inner();
        response.insert("patchType".to_owned(), "JSONPatch".into());
        response.insert("patch".to_owned(), patch.into());
    }
    if !warnings.is_empty() {
        response.insert("warnings".to_owned(), warnings.into());
    }
    Ok(envelope(Value::Object(response)))
}

fn envelope(response: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": response})
}

#[cfg(test)]
mod tests;
