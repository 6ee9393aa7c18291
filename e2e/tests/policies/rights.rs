//! The rights of our own service accounts and of agents, as the API server's authorizer adds them up (`kubectl auth can-i --list --as=…`),
//! beyond what every service account has. They equal the files in `rights/`; `GOLDEN=write` writes these.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectRulesReviewStatus,
};
use kube::api::{Api, PostParams};
use tollgate_e2e::cluster::Cluster;
use tollgate_e2e::namespace::TestNamespace;
use tollgate_shared::contract::{SYSTEM_NAMESPACE, WEBHOOK_NAME};

use crate::actor::{account, impersonate};
use crate::fixture::grant;

/// Rules in words: verb, resource with its group, and the name it is limited to.
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
            for group in rule.api_groups.iter().flatten() {
                let resource = format!("{resource}.{group}");
                let resource = resource.trim_end_matches('.');
                for verb in &rule.verbs {
                    words.insert(format!("{resource} {verb} {names}").trim_end().to_owned());
                }
            }
        }
    }
    words
}

#[expect(
    clippy::disallowed_methods,
    reason = "whoever regenerates the golden files says so by a variable"
)]
fn golden(name: &str, found: &BTreeSet<String>) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies/rights");
    let path = path.join(name).with_extension("txt");
    let found: String = found.iter().map(|right| format!("{right}\n")).collect();
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, &found)?;
    }
    let wanted = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    assert_eq!(found, wanted, "{}", path.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_accounts_and_agents_may_do_this_and_no_more() -> anyhow::Result<()> {
    // The grant is the webhook's own but for the name: there need be no webhook to give it.
    TestNamespace::run(None, async |managed| {
        grant(managed).await?;
        let agent = account(&managed.name, "default");
        let webhook = account(SYSTEM_NAMESPACE, WEBHOOK_NAME);
        let probe = account(SYSTEM_NAMESPACE, "tollgate-guard-probe");
        for (file, user, namespace) in [
            ("webhook-everywhere", &webhook, "default"),
            ("webhook-at-home", &webhook, SYSTEM_NAMESPACE),
            ("guard-probe", &probe, SYSTEM_NAMESPACE),
            ("agent-elsewhere", &agent, "default"),
            ("agent-at-home", &agent, managed.name.as_str()),
        ] {
            let nobody = account("default", "has-no-rights");
            let nobody = rights(&managed.cluster, &nobody, namespace).await?;
            let ours = rights(&managed.cluster, user, namespace).await?;
            golden(file, &ours.difference(&nobody).cloned().collect())?;
        }
        Ok(())
    })
    .await
}

/// Not from the list of rules but asked one by one, so that a rule of whatever origin counts.
#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_can_read_no_secret_but_its_own_and_no_pod() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    let own = ("secrets", "get", SYSTEM_NAMESPACE, "tollgate-webhook-ca");
    let mut asked = vec![(own, true)];
    for namespace in ["", "default", "kube-system", SYSTEM_NAMESPACE] {
        for verb in ["get", "list", "watch"] {
            for resource in ["pods", "pods/log", "pods/exec", "secrets"] {
                for name in ["", "other"] {
                    asked.push(((resource, verb, namespace, name), false));
                }
            }
        }
    }
    for ((resource, verb, namespace, name), is_allowed) in asked {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = ResourceAttributes {
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(account(SYSTEM_NAMESPACE, WEBHOOK_NAME)),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{SYSTEM_NAMESPACE}"),
                    "system:authenticated".to_owned(),
                ]),
                resource_attributes: Some(attributes.clone()),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await?;
        let status = answer.status.unwrap_or_default();
        assert_eq!(status.allowed, is_allowed, "{attributes:?}");
    }
    Ok(())
}
