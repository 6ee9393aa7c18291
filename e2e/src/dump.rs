//! What a failed test leaves on standard error: pods, events, and the logs of every container, records of `tollgate` included.
//! Shows what it can and fails at nothing: the test's own failure is the one that counts.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt as _;
use kube::api::{ListParams, LogParams};

use crate::namespace::TestNamespace;

/// Lines of each log that are shown.
const TAIL: i64 = 200;

/// Writes everything that may explain a failure to standard error.
#[expect(
    clippy::print_stderr,
    reason = "the test harness captures what is printed and shows it for failed tests only"
)]
pub(crate) async fn namespace(namespace: &TestNamespace) {
    let mut text = format!("==== namespace {} ====\n", namespace.name);
    let _ = describe(namespace, &mut text).await;
    eprintln!("{text}");
}

async fn describe(namespace: &TestNamespace, text: &mut String) -> anyhow::Result<()> {
    let pods = namespace.pods();
    let listed = pods.list(&ListParams::default()).await?;
    for pod in &listed {
        let name = pod.name_any();
        writeln!(
            text,
            "---- pod {name}: {}",
            serde_json::to_string(&pod.status)?
        )?;
        for container in containers(pod) {
            for previous in [true, false] {
                let params = LogParams {
                    container: Some(container.clone()),
                    tail_lines: Some(TAIL),
                    previous,
                    ..LogParams::default()
                };
                // Most containers have no previous run.
                if let Ok(log) = pods.logs(&name, &params).await {
                    let run = if previous { " (previous run)" } else { "" };
                    writeln!(text, "---- log of {name}/{container}{run}\n{log}")?;
                }
            }
        }
    }
    for event in &namespace
        .api::<Event>()
        .list(&ListParams::default())
        .await?
    {
        writeln!(
            text,
            "---- event {} {}: {}",
            event.involved_object.name.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default()
        )?;
    }
    Ok(())
}

fn containers(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    all.map(|container| container.name.clone()).collect()
}
