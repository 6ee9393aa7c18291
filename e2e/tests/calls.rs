//! Calls of an unmodified kubectl through the sidecar: each has its own token, two lines, and its event in the API server's log.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::json;
use tollgate_e2e::agent::{AGENT, AgentPod};
use tollgate_e2e::audit::AuditEvent;
use tollgate_e2e::join::{Call, Verdict};
use tollgate_e2e::jwt;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::Injection;
use tollgate_shared::record::{AuditId, key};

/// What the agents here may do.
fn rules() -> serde_json::Value {
    json!([{
        "apiGroups": [""],
        "resources": ["configmaps"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    }])
}

/// A forwarded call of the container [`AGENT`] that was answered with `code`.
fn check(call: &Call<'_>, code: u16, logged: bool) -> anyhow::Result<()> {
    assert_eq!(call.closing().map(AuditEvent::code), Some(code), "{call}");
    assert_eq!(call.annotation(key::CONTAINER), AGENT, "{call}");
    assert_eq!(call.annotation(key::DECISION), "allow", "{call}");
    if logged {
        assert_eq!(call.verdict, Verdict::Joined, "{call}");
        let of_call: AuditId = call.audit_id.parse()?;
        let mint = call.mint.with_context(|| format!("no mint: {call}"))?;
        assert_eq!(mint.audit_id, of_call.for_mint().to_string(), "{call}");
    }
    Ok(())
}

#[tokio::test]
async fn every_call_has_its_own_token_and_joins() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let mut log = namespace.cluster.audit_log()?;
        namespace.allow(rules()).await?;
        let agent = AgentPod::new("caller", &namespace.cluster.config.agent_image)
            .start(namespace)
            .await?;
        let created = agent
            .kubectl("create configmap note --from-literal=text=hello")
            .await?;
        assert_eq!(created.success()?, "configmap/note created\n");
        let got = agent
            .kubectl("get configmap note -o jsonpath={.data.text}")
            .await?;
        assert_eq!(got.success()?, "hello");
        let watched = agent
            .sh(
                "kubectl get configmaps --watch --no-headers -o name >/tmp/seen 2>&1 &
                 until grep configmap/note /tmp/seen; do kill -0 $! || exit; sleep 0.1; done
                 kill $!",
            )
            .await?;
        assert_eq!(watched.code, 0, "the watch ended by itself: {watched:?}");
        agent
            .kubectl("delete configmap note --wait=false")
            .await?
            .success()?;
        let forbidden = agent.kubectl("get secrets").await?.failure()?;
        assert!(forbidden.contains("(Forbidden)"), "{forbidden}");

        let joined = agent.joined(log.as_mut()).await?;
        for (what, code) in [
            ("create configmaps", 201),
            ("get configmaps", 200),
            ("watch configmaps", 200),
            ("delete configmaps", 200),
            ("list secrets", 403),
        ] {
            for call in joined.find(what, |call| call.what() == what)? {
                check(&call, code, joined.events.is_some())?;
            }
        }
        let calls = joined.calls();
        let ids: Vec<_> = calls
            .iter()
            .map(|call| call.annotation(key::CREDENTIAL_ID))
            .collect();
        assert!(ids.iter().all(|id| id.starts_with("JTI=")), "{ids:?}");
        assert_eq!(
            ids.iter().collect::<BTreeSet<_>>().len(),
            ids.len(),
            "a token was used twice"
        );
        assert_eq!(jwt::find(joined.records.text.as_bytes()), []);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_record_names_the_container_that_called() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let mut log = namespace.cluster.audit_log()?;
        namespace.allow(rules()).await?;
        let agent = AgentPod::new("two", &namespace.cluster.config.agent_image)
            .container("second", &["sleep", "infinity"])
            .start(namespace)
            .await?;
        for container in [AGENT, "second"] {
            let path = format!(
                "/api/v1/namespaces/{}/configmaps/by-{container}",
                namespace.name
            );
            agent
                .exec_in(container, &["kubectl", "get", "--raw", &path])
                .await?
                .failure()?;
        }
        let joined = agent.joined(log.as_mut()).await?;
        for container in [AGENT, "second"] {
            let name = format!("/by-{container}");
            let calls = joined.find(&name, |call| {
                call.opening()
                    .is_some_and(|record| record.request_uri.ends_with(&name))
            })?;
            for call in calls {
                assert_eq!(call.annotation(key::CONTAINER), container, "{call}");
                assert_eq!(
                    call.closing().map(|record| record.code()),
                    Some(404),
                    "{call}"
                );
            }
        }
        Ok(())
    })
    .await
}
