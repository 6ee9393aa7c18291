//! The rights of our own service accounts, as the API server's authorizer adds them up, beyond what every service account has.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{
    SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use kube::api::{Api, PostParams};
use tollgate_e2e::cluster::Cluster;
use tollgate_shared::contract::{SYSTEM_NAMESPACE, WEBHOOK_NAME};

use crate::actor::{account, impersonate};

/// Rules in words: verbs, resource, and the names it is limited to.
async fn rights(
    cluster: &Cluster,
    user: &str,
    namespace: &str,
) -> anyhow::Result<BTreeSet<String>> {
    let client = impersonate(cluster, user, &[], &[])?;
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.to_owned()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let answer = Api::<SelfSubjectRulesReview>::all(client)
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.map(words).unwrap_or_default())
}

fn words(status: SubjectRulesReviewStatus) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for rule in status.resource_rules {
        let names = rule.resource_names.unwrap_or_default().join(",");
        for resource in rule.resources.unwrap_or_default() {
            for verb in &rule.verbs {
                words.insert(format!("{verb} {resource} {names}").trim_end().to_owned());
            }
        }
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn our_accounts_may_do_this_and_no_more() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let everywhere = [
        "bind clusterroles tollgate-agent",
        "create rolebindings",
        "delete rolebindings tollgate",
        "get clusterroles tollgate-agent",
        "get mutatingwebhookconfigurations tollgate-webhook",
        "get validatingwebhookconfigurations tollgate-webhook",
        "list namespaces",
        "list rolebindings tollgate",
        "list validatingadmissionpolicies tollgate-token-guard",
        "list validatingadmissionpolicybindings tollgate-token-guard",
        "patch mutatingwebhookconfigurations tollgate-webhook",
        "patch validatingwebhookconfigurations tollgate-webhook",
        "update rolebindings tollgate",
        "watch namespaces",
        "watch rolebindings tollgate",
        "watch validatingadmissionpolicies tollgate-token-guard",
        "watch validatingadmissionpolicybindings tollgate-token-guard",
    ];
    let at_home = [
        "create configmaps",
        "create secrets",
        "create serviceaccounts/token tollgate-guard-probe",
        "get configmaps tollgate-guard",
        "get secrets tollgate-webhook-ca",
        "patch configmaps tollgate-guard",
        "update secrets tollgate-webhook-ca",
    ];
    let all: Vec<&str> = everywhere.iter().chain(&at_home).copied().collect();
    for (name, namespace, wanted) in [
        (WEBHOOK_NAME, "default", everywhere.as_slice()),
        (WEBHOOK_NAME, SYSTEM_NAMESPACE, &all),
        ("tollgate-guard-probe", SYSTEM_NAMESPACE, &[]),
    ] {
        let nobody = account(SYSTEM_NAMESPACE, "has-no-rights");
        let nobody = rights(&cluster, &nobody, namespace).await?;
        let ours = rights(&cluster, &account(SYSTEM_NAMESPACE, name), namespace).await?;
        let ours: BTreeSet<&str> = ours.difference(&nobody).map(String::as_str).collect();
        let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
        assert_eq!(ours, wanted, "{name} in {namespace}");
    }
    Ok(())
}
