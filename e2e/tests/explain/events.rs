//! Events on workloads, and what does not make one.

use anyhow::Context as _;
use http::Request;
use http::header::CONTENT_TYPE;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tollgate_e2e::namespace::TestNamespace;
use tollgate_e2e::wait;
use tollgate_shared::contract::{
    Injection, POD_LABEL, SYSTEM_NAMESPACE, WEBHOOK_NAME, WEBHOOK_PORT,
};

/// A workload of some pods that may not be.
fn workload(kind: &str, name: &str, replicas: u32, spec: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    })
}

fn denied() -> Value {
    json!({"hostNetwork": true, "containers": [{"name": "agent", "image": "none"}]})
}

fn is_about(reference: Option<&ObjectReference>, name: &str) -> bool {
    reference.is_some_and(|reference| reference.name.as_deref() == Some(name))
}

/// Waits for our event on an object.
async fn told(namespace: &TestNamespace, name: &str) -> anyhow::Result<Event> {
    let what = format!("an event on {name}; is this version of Tollgate deployed?");
    let ours = |event: &Event| {
        event.reporting_controller.as_deref() == Some(WEBHOOK_NAME)
            && is_about(event.regarding.as_ref(), name)
    };
    wait::first(namespace.api(), watcher::Config::default(), &what, ours).await
}

/// Names of the objects that our events in the namespace are on.
async fn all_told(namespace: &TestNamespace) -> anyhow::Result<Vec<String>> {
    let events = namespace
        .api::<Event>()
        .list(&ListParams::default())
        .await?;
    let ours = events
        .into_iter()
        .filter(|event| event.reporting_controller.as_deref() == Some(WEBHOOK_NAME));
    let names = ours.filter_map(|event| event.regarding?.name);
    Ok(names.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_made_a_deployment_is_told_why_it_has_no_pods() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let deployment = workload("Deployment", "agent", 2, &denied());
        let made: Deployment = namespace.apply(&deployment).await?;
        let event = told(namespace, "agent").await?;
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.reason.as_deref(), Some("HostNetwork"));
        let note = event.note.unwrap_or_default();
        assert!(
            note.starts_with("host-network: spec.hostNetwork is true"),
            "{note}"
        );
        let regarding = event.regarding.context("an event on nothing")?;
        assert_eq!(
            (regarding.kind.as_deref(), &regarding.uid),
            (Some("Deployment"), &made.metadata.uid)
        );
        let related = event.related.context("no related object")?;
        assert_eq!(related.kind.as_deref(), Some("ReplicaSet"));

        // Each pod that the controller tries is denied, by either replica; they all are one event.
        let what = "the controller tries again";
        let retried = |event: &k8s_openapi::api::core::v1::Event| {
            event.reason.as_deref() == Some("FailedCreate")
                && event.count.is_some_and(|count| count > 3)
        };
        wait::first(namespace.api(), watcher::Config::default(), what, retried).await?;
        assert_eq!(all_told(namespace).await?, ["agent"]);
        Ok(())
    })
    .await
}

/// The token for which these pods are denied is not in the template: the API server adds it before the webhook sees a pod.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_made_a_cron_job_is_told_of_the_token_that_its_pods_would_get() -> anyhow::Result<()>
{
    TestNamespace::run(Some(Injection::Enforced), async |namespace| {
        let template = json!({
            "metadata": {"labels": {POD_LABEL: "false"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "agent", "image": "none"}]},
        });
        let job = json!({"template": template});
        let made: CronJob = namespace
            .apply(&json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
                "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": job}},
            }))
            .await?;
        // As `kubectl create job --from` makes it.
        let owner = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "controller": true,
            "name": "nightly", "uid": made.metadata.uid,
        });
        for metadata in [
            json!({"name": "nightly-1", "ownerReferences": [owner]}),
            json!({"name": "once"}),
        ] {
            let job =
                json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job});
            namespace.apply::<Job>(&job).await?;
        }
        for (name, kind) in [("nightly", "CronJob"), ("once", "Job")] {
            let event = told(namespace, name).await?;
            assert_eq!(event.reason.as_deref(), Some("NotTokenFree"));
            let note = event.note.unwrap_or_default();
            assert!(note.contains("automountServiceAccountToken"), "{note}");
            let regarding = event.regarding.context("an event on nothing")?;
            assert_eq!(regarding.kind.as_deref(), Some(kind));
        }
        Ok(())
    })
    .await
}

/// A review as the API server sends it for a pod of this controller; anybody can send one like it.
fn review(namespace: &str, owner: &ReplicaSet, spec: &Value) -> Value {
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
        "name": owner.name_any(), "uid": owner.metadata.uid,
    });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "namespace": namespace,
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "metadata": {"generateName": "forged-", "ownerReferences": [owner]},
                "spec": spec,
            },
        },
    })
}

/// Sends a review to one replica of the webhook, past the API server's own way.
async fn send(client: &Client, pod: &str, review: &Value) -> anyhow::Result<()> {
    let path = format!(
        "/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/https:{pod}:{WEBHOOK_PORT}/proxy/mutate/enabled"
    );
    let body = serde_json::to_vec(review)?;
    let request = Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .body(body)?;
    let answer: Value = client.request(request).await?;
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_on_a_dry_run_or_by_a_forged_review() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let client = namespace.client();
        let webhooks: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let selector = format!("app.kubernetes.io/name={WEBHOOK_NAME}");
        let webhook = wait::first(
            webhooks,
            watcher::Config::default().labels(&selector),
            "a webhook",
            wait::is_ready,
        )
        .await?
        .name_any();

        let make = async |name: &str, spec: &Value| {
            namespace
                .apply::<ReplicaSet>(&workload("ReplicaSet", name, 0, spec))
                .await
        };
        let good = json!({"containers": [{"name": "agent", "image": "none"}]});
        let (on_dry_run, well, last) = (
            make("on-dry-run", &denied()).await?,
            make("well", &good).await?,
            make("last", &denied()).await?,
        );
        let name = namespace.name.as_str();

        let mut dry = review(name, &on_dry_run, &denied());
        dry["request"]["dryRun"] = true.into();
        send(&client, &webhook, &dry).await?;
        send(&client, &webhook, &review(name, &well, &denied())).await?;
        let mut gone = well;
        gone.metadata.name = Some("gone".to_owned());
        send(&client, &webhook, &review(name, &gone, &denied())).await?;
        let mut other = review("default", &last, &denied());
        send(&client, &webhook, &other).await?;
        other["request"]["namespace"] = "../default".into();
        send(&client, &webhook, &other).await?;
        // One replica follows hints in their order, so when this one is told the others were looked at.
        send(&client, &webhook, &review(name, &last, &denied())).await?;
        told(namespace, "last").await?;
        assert_eq!(all_told(namespace).await?, ["last"]);
        Ok(())
    })
    .await
}
