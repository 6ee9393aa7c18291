//! The record of one pod, as its sidecar writes it.

use std::io::Write;

use tollgate_shared::record::{AuditId, Chain, Stage, parse};

/// One call, for the cluster's log.
pub(crate) struct Call {
    pub(crate) id: AuditId,
    pub(crate) pod_uid: String,
    pub(crate) name: String,
    /// UUID of the token.
    pub(crate) jti: String,
    /// RFC 3339, with microseconds.
    pub(crate) time: String,
}

/// A pod that makes calls.
pub(crate) struct Pod {
    uid: String,
    chain: Chain,
}

impl Pod {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            uid: format!("0c6f7a51-0000-4000-8000-{number:012x}"),
            chain: Chain::default(),
        }
    }

    /// Writes the two lines of a call.
    pub(crate) fn call(&mut self, number: u64, out: &mut impl Write) -> anyhow::Result<Call> {
        let name = format!("p-{}", number % 1000);
        // Spread as a random one is: the number alone would put all into few parts of the join.
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let jti = format!(
            "5f3c2ad1-7c55-4b0e-{:04x}-{:012x}",
            spread >> 48,
            spread & 0xffff_ffff_ffff
        );
        let (minutes, micros) = (number / 60_000_000 % 60, number % 60_000_000);
        let time = format!(
            "2026-08-01T10:{minutes:02}:{:02}.{:06}Z",
            micros / 1_000_000,
            micros % 1_000_000
        );
        let opening = line(&self.uid, &name, &time, "RequestReceived", "", "");
        let id = self.write(&opening, None, out)?;
        let notes = format!(
            r#""tollgate.dev/credential-id":"JTI={jti}","tollgate.dev/mint-audit-id":"{}","tollgate.dev/mint-seconds":"0.003700","tollgate.dev/outcome":"completed","tollgate.dev/request-bytes":"0","tollgate.dev/response-bytes":"18423","tollgate.dev/upstream-seconds":"0.001500","#,
            id.for_mint()
        );
        let closing = line(
            &self.uid,
            &name,
            &time,
            "ResponseComplete",
            &notes,
            r#""responseStatus":{"code":200},"#,
        );
        self.write(&closing, Some(id), out)?;
        Ok(Call {
            id,
            pod_uid: self.uid.clone(),
            name,
            jti,
            time,
        })
    }

    fn write(
        &mut self,
        text: &str,
        id: Option<AuditId>,
        out: &mut impl Write,
    ) -> anyhow::Result<AuditId> {
        let mut event = parse(text)?;
        event.audit_id = id;
        let mut line = Vec::new();
        self.chain = self.chain.seal(&mut event, &mut line)?;
        out.write_all(&line)?;
        let opened = (event.stage == Stage::RequestReceived).then_some(event.audit_id);
        Ok(opened.flatten().or(id).unwrap_or(AuditId::from_number(0)))
    }
}

/// A line without its place in the chain; numbers and hashes are set when it is sealed.
fn line(uid: &str, name: &str, time: &str, stage: &str, notes: &str, status: &str) -> String {
    let zero = "0".repeat(64);
    format!(
        r#"{{"annotations":{{{notes}"tollgate.dev/container":"agent","tollgate.dev/decision":"allow","tollgate.dev/namespace":"demo","tollgate.dev/pod":"agent-0","tollgate.dev/pod-uid":"{uid}","tollgate.dev/previous-hash":"{zero}","tollgate.dev/reason":"no-policy","tollgate.dev/sequence":"0","tollgate.dev/tier":"policy"}},"apiVersion":"audit.k8s.io/v1","kind":"Event","level":"Metadata","objectRef":{{"apiVersion":"v1","name":"{name}","namespace":"demo","resource":"pods"}},"requestReceivedTimestamp":"{time}","requestURI":"/api/v1/namespaces/demo/pods/{name}",{status}"sourceIPs":["127.0.0.1"],"stage":"{stage}","stageTimestamp":"{time}","user":{{"extra":{{"authentication.kubernetes.io/node-name":["node-1"],"authentication.kubernetes.io/pod-name":["agent-0"],"authentication.kubernetes.io/pod-uid":["{uid}"]}},"username":"system:serviceaccount:demo:agent"}},"userAgent":"kubectl/v1.37.2 (linux/amd64) kubernetes/e6123b8","verb":"get"}}"#
    )
}
