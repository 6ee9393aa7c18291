//! What no agent gets, whatever its rights: what hands out credentials, and the API server without the sidecar.

use serde_json::json;
use tollgate_e2e::agent::AgentPod;
use tollgate_e2e::join::Verdict;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::Injection;
use tollgate_shared::record::key;

/// Sets `$FILES`. With `--as`, kubectl looks for a kubeconfig and no longer at what the pod gives it.
const FILES: &str = "FILES=/var/run/secrets/kubernetes.io/serviceaccount;";

/// Reason code and a command that is refused with it, in the pod `greedy`.
const REFUSED: &[(&str, &str)] = &[
    ("floor-token-request", "kubectl create token default"),
    (
        "floor-impersonation",
        "kubectl --kubeconfig $FILES/kubeconfig get --raw /version --as system:admin",
    ),
    (
        "floor-impersonation",
        "kubectl --kubeconfig $FILES/kubeconfig get --raw /version --as x --as-group system:masters",
    ),
    (
        "floor-sidecar-exec",
        "kubectl exec greedy -c tollgate -- true",
    ),
    ("floor-sidecar-exec", "kubectl attach greedy -c tollgate"),
    (
        "floor-node-proxy",
        "kubectl get --raw /api/v1/nodes/any/proxy/pods",
    ),
    (
        "floor-cluster-ca",
        "kubectl delete configmap kube-root-ca.crt",
    ),
    (
        "floor-admission",
        "kubectl delete validatingwebhookconfiguration any",
    ),
    (
        "ambiguous-path",
        "curl -sk --fail-with-body -H \"Authorization: Bearer $(cat $FILES/token)\" \
         https://127.0.0.1:6443/api/v1/namespaces/any//configmaps",
    ),
];

#[tokio::test]
async fn what_hands_out_credentials_is_refused_before_a_mint() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        let mut log = namespace.cluster.audit_log()?;
        // Even an agent with every right in its namespace.
        namespace
            .allow(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))
            .await?;
        let agent = AgentPod::new("greedy", &namespace.cluster.config.agent_image)
            .start(namespace)
            .await?;
        for (code, command) in REFUSED {
            let output = agent.sh(&format!("{FILES} {command}")).await?;
            let said = format!("{}{}", output.stdout, output.stderr);
            assert_ne!(output.code, 0, "{command}: {said}");
            assert!(
                said.contains(code),
                "{command} was not refused as {code}: {said}"
            );
        }
        let joined = agent.joined(log.as_mut()).await?;
        for (code, command) in REFUSED {
            let what = format!("{command}, refused as {code}");
            for call in joined.find(&what, |call| call.annotation(key::REASON) == *code)? {
                assert_eq!(call.verdict, Verdict::NotForwarded, "{call}");
                assert_eq!(call.annotation(key::CREDENTIAL_ID), "", "minted: {call}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn going_round_the_sidecar_leads_nowhere() -> anyhow::Result<()> {
    TestNamespace::run(Some(Injection::Enabled), async |namespace| {
        namespace
            .allow(json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]))
            .await?;
        let agent = AgentPod::new("rogue", &namespace.cluster.config.agent_image)
            .start(namespace)
            .await?;
        let path = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
        let token = "$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)";
        for (server, header, code) in [
            (
                "https://kubernetes.default.svc",
                "Accept: */*".to_owned(),
                "403",
            ),
            (
                "https://kubernetes.default.svc",
                format!("Authorization: Bearer {token}"),
                "401",
            ),
            ("https://127.0.0.1:6443", "Accept: */*".to_owned(), "401"),
            (
                "https://127.0.0.1:6443",
                "Authorization: Bearer tgl1_wrong".to_owned(),
                "401",
            ),
            (
                "https://127.0.0.1:6443",
                format!("Authorization: Bearer {token}"),
                "200",
            ),
            (
                "http://127.0.0.1:6443",
                format!("Authorization: Bearer {token}"),
                "400",
            ),
        ] {
            let command = format!(
                "curl -sk -o /tmp/answer -w '%{{http_code}}' -H \"{header}\" {server}{path}"
            );
            let got = agent.sh(&command).await?.success()?;
            let answer = agent.sh("cat /tmp/answer").await?.success()?;
            assert_eq!(got, code, "{command}: {answer}");
            if got == "403" {
                assert!(answer.contains("system:anonymous"), "{answer}");
            }
        }
        Ok(())
    })
    .await
}
