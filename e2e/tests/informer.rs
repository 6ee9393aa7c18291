//! An unmodified client-go program with a shared informer, `kind/informer`: behind the sidecar it is told the same as with a
//! token of its own at the API server.

use std::collections::BTreeMap;

use serde_json::json;
use tollgate_e2e::agent::{AGENT, Agent, AgentPod, Joined};
use tollgate_e2e::exec::Output;
use tollgate_e2e::join::Verdict;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::Injection;
use tollgate_shared::record::key;

/// What the informer is told of the program's own changes, in order.
const TOLD: &str = "\
add early one
add late one
update late two
add unseen two
delete unseen two
delete late two
delete early one
";

/// client-go's two ways to fill an informer: one watch that begins with all objects, or a list and then a watch.
const WAYS: [&str; 2] = [
    "KUBE_FEATURE_WatchListClient=true informer",
    "KUBE_FEATURE_WatchListClient=false informer",
];

async fn start(namespace: &TestNamespace) -> anyhow::Result<Agent> {
    namespace
        .allow(json!([{
            "apiGroups": [""],
            "resources": ["configmaps"],
            "verbs": ["list", "watch", "create", "update", "delete"],
        }]))
        .await?;
    AgentPod::new("informer", &namespace.cluster.config.agent_image)
        .start(namespace)
        .await
}

/// Every call of the program has its lines and, in a cluster whose log can be read, its event.
fn check_records(joined: &Joined, minor: u32) {
    let calls = joined.calls();
    let calls: Vec<_> = calls
        .iter()
        .filter(|call| call.annotation(key::CONTAINER) == AGENT)
        .collect();
    let mut counts = BTreeMap::new();
    for call in &calls {
        *counts.entry(call.what()).or_insert(0_usize) += 1;
        if joined.events.is_some() {
            assert_eq!(call.verdict, Verdict::Joined, "{call}");
        }
        let stages: Vec<_> = call
            .records
            .iter()
            .map(|line| line.stage.as_str())
            .collect();
        let wanted: &[&str] = if call.what() == "watch configmaps" {
            &["RequestReceived", "ResponseStarted", "ResponseComplete"]
        } else {
            &["RequestReceived", "ResponseComplete"]
        };
        assert_eq!(stages, wanted, "{call}");
    }
    // For each way: three deletions before, two in between, three after; and one list, which only the second way makes, or the
    // first one too where the API server refuses its watch (before 1.34).
    let fallen_back = usize::from(minor < 34);
    let counts: Vec<_> = counts.iter().map(|(what, n)| (what.as_str(), *n)).collect();
    assert_eq!(
        counts,
        [
            ("create configmaps", 6),
            ("delete configmaps", 16),
            ("list configmaps", 1 + fallen_back),
            ("update configmaps", 6),
            ("watch configmaps", 2 + fallen_back),
        ]
    );
    let streamed = calls.iter().flat_map(|call| call.opening());
    let streamed = streamed.filter(|line| line.request_uri.contains("sendInitialEvents=true"));
    assert_eq!(streamed.count(), 1);
}

#[tokio::test]
async fn an_informer_is_told_the_same() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |managed| {
        TestNamespace::run(None, async |unmanaged| {
            let mut log = managed.cluster.audit_log()?;
            let (injected, direct) = tokio::try_join!(start(managed), start(unmanaged))?;
            for command in WAYS {
                let (ours, theirs) = tokio::try_join!(injected.sh(command), direct.sh(command))?;
                assert_eq!(ours, theirs, "{command}");
                let told = Output {
                    code: 0,
                    stdout: TOLD.to_owned(),
                    stderr: String::new(),
                };
                assert_eq!(ours, told, "{command}");
            }
            let minor = managed.cluster.minor().await?;
            check_records(&injected.joined(log.as_mut()).await?, minor);
            Ok(())
        })
        .await
    })
    .await
}
