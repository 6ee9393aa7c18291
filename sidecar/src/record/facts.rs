//! What every line of a call repeats, cleaned and cut once; and the lines made from it. Pure.

use std::borrow::Cow;
use std::time::SystemTime;

use tollgate_shared::record::{
    Annotations, ApiVersion, Count, Decision, Digest, Event, Extra, Kind, Level, ObjectRef,
    ResponseStatus, Stage, Text, Timestamp, User, fit,
};

use crate::call::redact_commands;

use super::call::{Closing, Minted};
use super::queue::{Ending, Later};
use super::{Identity, Opening};

/// The API server's limit and mark (`apiserver/pkg/audit/request.go`, `maybeTruncateUserAgent`).
const USER_AGENT: usize = 1024;
const USER_AGENT_CUT: &str = "...TRUNCATED";

/// Longest JSON forms in bytes. With everything at its limit a line stays below `MAX_LINE`; a test holds that.
mod limit {
    pub(super) const URI: usize = 3840;
    pub(super) const USER_AGENT: usize = 1100;
    pub(super) const MESSAGE: usize = 1024;
    pub(super) const USERNAME: usize = 512;
    /// Names of Kubernetes have at most 253.
    pub(super) const NAME: usize = 256;
    pub(super) const WORD: usize = 64;
}

/// What is known of a call when it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    verb: String,
    uri: String,
    object: Option<ObjectRef<'static>>,
    container: Option<String>,
    user_agent: Option<String>,
    source_ip: Option<String>,
    decision: Decision,
    reason: Cow<'static, str>,
    tier: Cow<'static, str>,
    policy: Option<String>,
    rule: Option<String>,
    received: Timestamp,
    truncated: Option<String>,
}

/// Cuts fields and remembers which.
#[derive(Default)]
struct Cuts(String);

impl Cuts {
    fn text(&mut self, name: &str, text: String, max: usize) -> String {
        let (fitted, cut) = fit(&text, max);
        if cut {
            if !self.0.is_empty() {
                self.0.push(',');
            }
            self.0.push_str(name);
        }
        match fitted {
            Cow::Borrowed(_) => text,
            Cow::Owned(fitted) => fitted,
        }
    }

    fn object(&mut self, object: ObjectRef<'static>) -> ObjectRef<'static> {
        let mut part = |name, text: Option<Text<'static>>| {
            text.map(|text| Text::from(self.text(name, text.into_string(), limit::NAME)))
        };
        ObjectRef {
            api_group: part("apiGroup", object.api_group),
            api_version: part("apiVersion", object.api_version),
            name: part("name", object.name),
            namespace: part("namespace", object.namespace),
            resource: part("resource", object.resource),
            subresource: part("subresource", object.subresource),
        }
    }

    fn user_agent(&mut self, mut agent: String) -> String {
        if agent.len() > USER_AGENT {
            agent.truncate(agent.floor_char_boundary(USER_AGENT));
            agent.push_str(USER_AGENT_CUT);
        }
        self.text("userAgent", agent, limit::USER_AGENT)
    }
}

impl Facts {
    pub(super) fn new(opening: Opening, keep_commands: bool) -> Self {
        let mut cuts = Cuts::default();
        let uri = if keep_commands {
            opening.uri
        } else {
            redact_commands(&opening.uri).into_owned()
        };
        let (policy, rule) = opening.policy.unzip();
        let mut name = |field, text: String| cuts.text(field, text, limit::NAME);
        let (policy, rule) = (
            policy.map(|policy| name("policy", policy)),
            rule.map(|rule| name("rule", rule)),
        );
        let container = opening.container.map(|text| name("container", text));
        Self {
            verb: cuts.text("verb", opening.verb, limit::WORD),
            uri: cuts.text("requestURI", uri, limit::URI),
            object: opening.object.map(|object| cuts.object(object)),
            container,
            user_agent: opening.user_agent.map(|agent| cuts.user_agent(agent)),
            source_ip: opening.source_ip.map(|address| address.to_string()),
            decision: opening.decision,
            reason: Cow::Borrowed(opening.reason),
            tier: Cow::Borrowed(opening.tier),
            policy,
            rule,
            received: opening.received.into(),
            truncated: (!cuts.0.is_empty()).then_some(cuts.0),
        }
    }

    /// From an opening line of a predecessor.
    pub(super) fn of_event(event: &Event<'_>) -> Self {
        let owned = |text: &Option<Text<'_>>| text.as_deref().map(str::to_owned);
        let notes = &event.annotations;
        Self {
            verb: event.verb.to_string(),
            uri: event.request_uri.to_string(),
            object: event.object_ref.as_ref().map(ObjectRef::to_owned),
            container: owned(&notes.container),
            user_agent: owned(&event.user_agent),
            source_ip: event.source_ips.first().map(ToString::to_string),
            decision: notes.decision,
            reason: Cow::Owned(notes.reason.to_string()),
            tier: Cow::Owned(notes.tier.to_string()),
            policy: owned(&notes.policy),
            rule: owned(&notes.rule),
            received: event.request_received_timestamp,
            truncated: owned(&notes.truncated),
        }
    }

    /// The opening line, still without its place in the chain.
    pub(super) fn opening<'a>(&'a self, who: &'a Identity, now: SystemTime) -> Event<'a> {
        let some = |text: &'a Option<String>| text.as_deref().map(Text::from);
        Event {
            annotations: Annotations {
                container: some(&self.container),
                credential_id: None,
                decision: self.decision,
                hash: None,
                mint_audit_id: None,
                mint_seconds: None,
                namespace: who.namespace.as_str().into(),
                outcome: None,
                pod: who.pod.as_str().into(),
                pod_uid: who.pod_uid.as_str().into(),
                policy: some(&self.policy),
                previous_hash: Digest::ZERO,
                reason: (&*self.reason).into(),
                request_bytes: None,
                response_bytes: None,
                rule: some(&self.rule),
                sequence: Count(0),
                tier: (&*self.tier).into(),
                truncated: some(&self.truncated),
                upstream_seconds: None,
            },
            api_version: ApiVersion::V1,
            audit_id: None,
            kind: Kind::Event,
            level: Level::Metadata,
            object_ref: self.object.as_ref().map(ObjectRef::borrowed),
            request_received_timestamp: self.received,
            request_uri: self.uri.as_str().into(),
            response_status: None,
            source_ips: some(&self.source_ip).into_iter().collect(),
            stage: Stage::RequestReceived,
            stage_timestamp: now.into(),
            user: user(who),
            user_agent: some(&self.user_agent),
            verb: self.verb.as_str().into(),
        }
    }
}

impl Later {
    /// The line, still without its place in the chain.
    pub(super) fn event<'a>(&'a self, who: &'a Identity) -> Event<'a> {
        let mut event = self.facts.opening(who, self.at);
        event.audit_id = Some(self.audit_id);
        if let Some(minted) = &self.minted {
            add_minted(&mut event, minted);
        }
        match &self.ending {
            Ending::Started(code) => {
                event.stage = Stage::ResponseStarted;
                event.response_status = Some(ResponseStatus {
                    code: Some(*code),
                    message: None,
                    reason: None,
                });
            }
            Ending::Closed(closing) => add_closing(&mut event, closing),
        }
        event
    }
}

fn add_minted<'a>(event: &mut Event<'a>, minted: &'a Minted) {
    let notes = &mut event.annotations;
    notes.credential_id = Some(fit(&minted.credential_id, limit::WORD).0.into());
    notes.mint_audit_id = Some(minted.mint_audit_id);
    notes.mint_seconds = minted.took.map(Into::into);
}

fn add_closing<'a>(event: &mut Event<'a>, closing: &'a Closing) {
    event.stage = Stage::ResponseComplete;
    let text = |text: &'a Option<String>, max| text.as_deref().map(|text| fit(text, max).0.into());
    let status = ResponseStatus {
        code: closing.code,
        message: text(&closing.message, limit::MESSAGE),
        reason: text(&closing.reason, limit::WORD),
    };
    let said = status.code.is_some() || status.message.is_some() || status.reason.is_some();
    event.response_status = said.then_some(status);
    let notes = &mut event.annotations;
    notes.outcome = Some(closing.outcome.into());
    notes.request_bytes = closing.request_bytes.map(Count);
    notes.response_bytes = closing.response_bytes.map(Count);
    notes.upstream_seconds = closing.upstream.map(Into::into);
}

impl Identity {
    /// The same, cleaned and cut as every other field.
    pub(super) fn bounded(self) -> Self {
        let name = |text: String| fit(&text, limit::NAME).0.into_owned();
        Self {
            username: fit(&self.username, limit::USERNAME).0.into_owned(),
            pod: name(self.pod),
            pod_uid: name(self.pod_uid),
            namespace: name(self.namespace),
            node: self.node.map(name),
            is_pod: self.is_pod,
        }
    }
}

fn user(who: &Identity) -> User<'_> {
    let extra = if who.is_pod {
        Extra {
            node_name: who.node.as_ref().map(|node| [Text::from(node.as_str())]),
            pod_name: Some([Text::from(who.pod.as_str())]),
            pod_uid: Some([Text::from(who.pod_uid.as_str())]),
        }
    } else {
        Extra::default()
    };
    User {
        extra,
        username: who.username.as_str().into(),
    }
}
