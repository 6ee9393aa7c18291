//! What nobody may do to the sidecar of a running pod: enter it, debug it, change it.

use k8s_openapi::api::core::v1::{Binding, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, Patch, PatchParams, PostParams, Request};
use kube::{Client, Resource as _};
use serde_json::{Value, json};
use tollgate_e2e::namespace::TestNamespace;

use crate::fixture::{copy_policy, injected_pod, manage};
use crate::want::{Want, want};

const DEBUG_GUARD: &str = include_str!("../../../manifests/base/policies/debug-guard.yaml");
const DEBUG_GUARD_BINDING: &str =
    include_str!("../../../manifests/base/policies/debug-guard-binding.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn no_exec_or_attach_into_the_sidecar() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        namespace.create_object(&injected_pod("p")?).await?;
        manage(namespace, Some("opt-in")).await?;
        let pods = namespace.pods();
        let into = |container: Option<&str>| AttachParams {
            container: container.map(str::to_owned),
            stderr: false,
            ..AttachParams::default()
        };
        let refused = Want::Refused("exec-sidecar");
        for (container, wanted) in [
            (Some("tollgate"), refused),
            // The pod runs nowhere, so the API server goes on to say that it has no host.
            (Some("agent"), Want::Admitted),
            (None, Want::Admitted),
        ] {
            want(&format!("exec into {container:?}"), wanted, async || {
                upgrade(pods.exec("p", ["true"], &into(container)).await)
            })
            .await?;
            want(&format!("attach to {container:?}"), wanted, async || {
                upgrade(pods.attach("p", &into(container)).await)
            })
            .await?;
        }
        Ok(())
    })
    .await
}

/// An upgrade that was answered with a `Status`, as any other call that was.
fn upgrade<T>(answer: kube::Result<T>) -> kube::Result<()> {
    answer.map(|_| ())
}

/// Adds an ephemeral container, on dry run.
async fn debug(client: &Client, namespace: &str, container: &Value) -> kube::Result<Pod> {
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let patch = json!({"spec": {"ephemeralContainers": [container]}});
    kube::Api::namespaced(client.clone(), namespace)
        .patch_ephemeral_containers("p", &params, &Patch::Strategic(patch))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_containers_stay_out_of_the_sidecar() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        namespace.create_object(&injected_pod("p")?).await?;
        let client = namespace.client();
        // From before: it is not judged again.
        let old = json!({"name": "old", "image": "i", "securityContext": {"runAsUser": 64430}});
        kube::Api::<Pod>::namespaced(client.clone(), &namespace.name)
            .patch_ephemeral_containers(
                "p",
                &PatchParams::default(),
                &Patch::Strategic(json!({"spec": {"ephemeralContainers": [old]}})),
            )
            .await?;
        // A copy of the policy where no webhook is asked; below, the policy itself.
        copy_policy(namespace, DEBUG_GUARD, DEBUG_GUARD_BINDING).await?;

        let volume = |name: &str| json!({"name": "d", "image": "i", "volumeMounts": [{"name": name, "mountPath": "/x"}]});
        let reserved = Want::Refused("reserved-volume");
        // Older API servers do not know the field and drop it, which leaves a variable without a source.
        let by_file = match namespace.cluster.minor().await? {
            ..35 => Want::Admitted,
            _ => reserved,
        };
        let cases = [
            ("plain", json!({"name": "d", "image": "i"}), Want::Success),
            ("aimed at the agent", json!({"name": "d", "image": "i", "targetContainerName": "agent"}), Want::Success),
            (
                "aimed at the sidecar",
                json!({"name": "d", "image": "i", "targetContainerName": "tollgate"}),
                Want::Refused("debug-sidecar"),
            ),
            ("with the bootstrap token", volume("tollgate-bootstrap"), reserved),
            ("with the agents' files", volume("tollgate-agent"), reserved),
            ("with the sidecar's state", volume("tollgate-state"), reserved),
            (
                "with a variable from the agents' files",
                json!({"name": "d", "image": "i", "env": [{"name": "X", "valueFrom": {
                    "fileKeyRef": {"volumeName": "tollgate-agent", "path": "agent/token", "key": "K"},
                }}]}),
                by_file,
            ),
            (
                "with our uid",
                json!({"name": "d", "image": "i", "securityContext": {"runAsUser": 64430}}),
                Want::Refused("uid-clash"),
            ),
            (
                "with another uid",
                json!({"name": "d", "image": "i", "securityContext": {"runAsUser": 64431}}),
                Want::Success,
            ),
        ];
        for (what, container, wanted) in &cases {
            want(what, *wanted, async || debug(&client, &namespace.name, container).await).await?;
        }
        manage(namespace, Some("enabled")).await?;
        for (what, container, wanted) in &cases {
            if matches!(wanted, Want::Refused(_)) {
                want(what, *wanted, async || debug(&client, &namespace.name, container).await).await?;
            }
        }
        Ok(())
    })
    .await
}

/// A pod takes labels and annotations from the Binding that puts it on a node.
#[tokio::test(flavor = "multi_thread")]
async fn bindings_leave_the_marks_alone() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        namespace.create_object(&injected_pod("p")?).await?;
        manage(namespace, Some("enabled")).await?;
        let refused = Want::Refused("label-immutable");
        for (metadata, wanted) in [
            (json!({"labels": {"tollgate.dev/inject": "false"}}), refused),
            (
                json!({"annotations": {"tollgate.dev/injected": "9"}}),
                refused,
            ),
            (
                json!({"labels": {"topology.kubernetes.io/zone": "a"}}),
                Want::Success,
            ),
            (json!({}), Want::Success),
        ] {
            let what = metadata.to_string();
            let mut binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": metadata,
                "target": {"apiVersion": "v1", "kind": "Node", "name": "nowhere"},
            });
            binding["metadata"]["name"] = json!("p");
            let binding: Binding = serde_json::from_value(binding)?;
            let dry_run = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            want(&what, wanted, async || {
                namespace
                    .pods()
                    .create_subresource::<_, Status>("binding", "p", &dry_run, &binding)
                    .await
            })
            .await?;
            let old: Request = Request::new(Binding::url_path(&(), Some(&namespace.name)));
            want(&format!("{what}, the old way"), wanted, async || {
                let request = old.create(
                    &dry_run,
                    serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?,
                );
                namespace
                    .client()
                    .request::<Status>(request.map_err(kube::Error::BuildRequest)?)
                    .await
            })
            .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_leave_the_sidecar_and_its_marks_alone() -> anyhow::Result<()> {
    TestNamespace::run(None, async |namespace| {
        namespace.create_object(&injected_pod("p")?).await?;
        manage(namespace, Some("enabled")).await?;
        let (image, immutable) = (
            Want::Refused("sidecar-image"),
            Want::Refused("label-immutable"),
        );
        for (patch, wanted) in [
            (
                json!({"spec": {"initContainers": [{"name": "tollgate", "image": "evil"}]}}),
                image,
            ),
            (
                json!({"spec": {"containers": [{"name": "agent", "image": "next"}]}}),
                Want::Success,
            ),
            (
                json!({"metadata": {"labels": {"tollgate.dev/inject": "false"}}}),
                immutable,
            ),
            (
                json!({"metadata": {"labels": {"team": "blue"}}}),
                Want::Success,
            ),
            (
                json!({"metadata": {"annotations": {"tollgate.dev/injected": "9"}}}),
                immutable,
            ),
            (
                json!({"metadata": {"annotations": {"tollgate.dev/injected": null}}}),
                immutable,
            ),
            (
                json!({"metadata": {"finalizers": ["example.org/x"]}}),
                Want::Success,
            ),
        ] {
            let params = PatchParams {
                dry_run: true,
                ..PatchParams::default()
            };
            let pods = namespace.pods();
            let change = Patch::Strategic(patch.clone());
            want(&patch.to_string(), wanted, async || {
                pods.patch("p", &params, &change).await
            })
            .await?;
            // An update of the status changes labels and annotations as well, and nothing of the spec.
            if patch.get("metadata").is_some() {
                want(&format!("status: {patch}"), wanted, async || {
                    pods.patch_status("p", &params, &change).await
                })
                .await?;
            }
        }
        Ok(())
    })
    .await
}
