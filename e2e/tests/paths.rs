//! Differential test: our resolution of odd paths against the API server's, as its audit log shows it. The caller has no
//! rights, so nothing is done, and the API server resolves the path before it refuses.

use anyhow::Context as _;
use http::{Method, Request};
use kube::client::Body;
use tollgate_e2e::audit::{AuditEvent, AuditLog};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_sidecar::call::Call;

/// Request lines of the sidecar's own table.
const PATHS: &str = include_str!("../../sidecar/testdata/paths.tsv");

/// What both sides make of a request line, in the words of an audit event.
fn ours(call: &Call) -> String {
    if !call.resource_request {
        return call.verb.as_str().to_owned();
    }
    format!(
        "{} group {:?} version {:?} resource {:?} subresource {:?} namespace {:?} name {:?}",
        call.verb.as_str(),
        call.group,
        call.version,
        call.resource,
        call.subresource,
        call.namespace,
        call.name
    )
}

fn theirs(event: &AuditEvent) -> String {
    let Some(object) = &event.object_ref else {
        return event.verb.clone();
    };
    format!(
        "{} group {:?} version {:?} resource {:?} subresource {:?} namespace {:?} name {:?}",
        event.verb,
        object.api_group,
        object.api_version,
        object.resource,
        object.subresource,
        object.namespace,
        object.name
    )
}

async fn logged(
    client: &kube::Client,
    log: &mut AuditLog,
    method: &Method,
    target: &str,
    audit_id: &str,
) -> anyhow::Result<AuditEvent> {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("Audit-ID", audit_id)
        .body(Body::empty())?;
    client.send(request).await?;
    log.completed(audit_id).await
}

#[tokio::test]
async fn paths_mean_what_the_api_server_makes_of_them() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        let Some(mut log) = namespace.cluster.audit_log()? else {
            return Ok(());
        };
        let token = namespace.token("default", None).await?;
        let client = namespace.cluster.client_as(Some(token.expose()))?;
        let (mut compared, mut differences) = (0, Vec::new());
        for (number, line) in PATHS.lines().enumerate() {
            let mut columns = line.split('\t');
            let (Some(method), Some(target)) = (columns.next(), columns.next()) else {
                continue;
            };
            let Ok(method) = method.parse() else {
                continue;
            };
            // What we refuse cannot be read differently.
            let Ok(call) = Call::resolve(&method, target) else {
                continue;
            };
            let id = format!("{}-{number}", namespace.name);
            let event = logged(&client, &mut log, &method, target, &id)
                .await
                .with_context(|| format!("{method} {target}"))?;
            compared += 1;
            let (ours, theirs) = (ours(&call), theirs(&event));
            if ours != theirs {
                differences.push(format!(
                    "{method} {target}\n  ours   {ours}\n  theirs {theirs}"
                ));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        assert!(compared >= 150, "only {compared} paths were compared");
        Ok(())
    })
    .await
}
