//! A namespace that lives as long as one test: made with the label asked for, dumped when the test fails, deleted in any case.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tollgate_shared::contract::{Injection, NAMESPACE_LABEL, ROLE_BINDING};
use tollgate_shared::secret::Token;

use crate::cluster::Cluster;
use crate::{dump, wait};

/// Marks what this suite made, so that leftovers of a killed run can be found.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "tollgate-e2e");

/// Field manager of what the suite applies.
const MANAGER: &str = "tollgate-e2e";

/// A namespace of one test.
#[derive(Clone, Debug)]
pub struct TestNamespace {
    /// The cluster it is in.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
}

impl TestNamespace {
    /// Runs `test` in a new namespace with this label (`None`: not managed). When the test fails or panics, everything in the
    /// namespace is shown on standard error first.
    ///
    /// # Errors
    /// The test's own, or there is no cluster.
    ///
    /// # Panics
    /// When the test does, after the namespace was deleted.
    pub async fn run(
        injection: Option<Injection>,
        test: impl AsyncFnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let cluster = Cluster::connect().await?;
        let namespace = Self::create(cluster, injection).await?;
        let result = AssertUnwindSafe(test(&namespace)).catch_unwind().await;
        if !matches!(result, Ok(Ok(()))) {
            dump::namespace(&namespace).await;
        }
        let deleted = namespace.delete().await;
        match result {
            Ok(result) => result.and(deleted),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Makes a namespace that stays.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(cluster: Cluster, injection: Option<Injection>) -> anyhow::Result<Self> {
        let labels = injection.map(|value| (NAMESPACE_LABEL.to_owned(), value.to_string()));
        let own = (LABEL.0.to_owned(), LABEL.1.to_owned());
        let namespace = Namespace {
            metadata: ObjectMeta {
                generate_name: Some("tollgate-e2e-".to_owned()),
                labels: Some(labels.into_iter().chain([own]).collect()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let made = Api::all(cluster.client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .context("cannot make a namespace")?;
        let namespace = Self {
            cluster,
            name: made.name_any(),
        };
        // No pod is admitted before the controller has made it.
        let account = Api::<ServiceAccount>::namespaced(namespace.client(), &namespace.name);
        wait::until(
            account,
            "default",
            "the service account exists",
            |account| account.is_some(),
        )
        .await?;
        if injection.is_some() {
            wait::until(
                namespace.api::<RoleBinding>(),
                ROLE_BINDING,
                "the webhook's grant to mint; is Tollgate deployed?",
                |binding| binding.is_some(),
            )
            .await?;
        }
        Ok(namespace)
    }

    /// Gives every service account of the namespace these rights in it; `rules` as in a Role.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn allow(&self, rules: serde_json::Value) -> anyhow::Result<()> {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "agent"},
            "rules": &rules,
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "agent"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agent"},
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Group",
                "name": format!("system:serviceaccounts:{}", self.name),
            }],
        });
        self.apply::<Role>(&role).await?;
        self.apply::<RoleBinding>(&binding).await?;
        self.effective(&rules).await
    }

    /// Waits until the API server goes by the rules: it reads Roles from a cache.
    async fn effective(&self, rules: &serde_json::Value) -> anyhow::Result<()> {
        let first = |list: &str| rules.pointer(&format!("/0/{list}/0"));
        let resource = first("resources").and_then(serde_json::Value::as_str);
        let mut parts = resource.unwrap_or_default().splitn(2, '/');
        let review: SubjectAccessReview = serde_json::from_value(json!({
            "metadata": {},
            "spec": {
                "user": format!("system:serviceaccount:{}:default", self.name),
                "groups": [format!("system:serviceaccounts:{}", self.name)],
                "resourceAttributes": {
                    "namespace": self.name,
                    "verb": first("verbs"),
                    "group": first("apiGroups"),
                    "resource": parts.next(),
                    "subresource": parts.next(),
                },
            },
        }))?;
        let reviews = Api::<SubjectAccessReview>::all(self.client());
        let allowed = async {
            loop {
                let answer = reviews.create(&PostParams::default(), &review).await?;
                if answer.status.is_some_and(|status| status.allowed) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(wait::LIMIT, allowed).await;
        in_time.with_context(|| format!("{rules} never took effect"))?
    }

    /// Applies an object, server side.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply<K>(&self, object: &serde_json::Value) -> anyhow::Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let name = object
            .pointer("/metadata/name")
            .and_then(|name| name.as_str())
            .context("an object to apply needs a name")?;
        self.api()
            .patch(
                name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(object),
            )
            .await
            .with_context(|| format!("cannot apply {} {name}", K::kind(&())))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// The API server refuses it; the source is the client's own error.
    pub async fn create_object<K>(&self, object: &K) -> kube::Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Serialize,
    {
        self.api().create(&PostParams::default(), object).await
    }

    /// The objects of one kind in this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), &self.name)
    }

    /// The pods of this namespace.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        self.api()
    }

    /// A new token of a service account of this namespace, for ten minutes; bound to a pod, if one is given.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn token(&self, account: &str, pod: Option<&Pod>) -> anyhow::Result<Token> {
        let answer = self
            .api::<ServiceAccount>()
            .create_token_request(account, &PostParams::default(), &token_request(pod))
            .await
            .with_context(|| format!("no token for {account}"))?;
        let status = answer.status.context("a TokenRequest without a status")?;
        Ok(Token::parse(&status.token)?)
    }

    /// The CA of the API server, as the cluster publishes it here.
    ///
    /// # Errors
    /// It is not published.
    pub async fn ca_pem(&self) -> anyhow::Result<String> {
        const NAME: &str = "kube-root-ca.crt";
        let published = wait::until(self.api::<ConfigMap>(), NAME, "the CA", |map| map.is_some());
        let data = published.await?.and_then(|map| map.data);
        data.and_then(|mut data| data.remove("ca.crt"))
            .with_context(|| format!("no CA in {NAME}"))
    }

    /// The cluster's client.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.cluster.client.clone()
    }

    /// Asks for the deletion of the namespace; the cluster does it in its own time.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn delete(&self) -> anyhow::Result<()> {
        Api::<Namespace>::all(self.client())
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("cannot delete the namespace {}", self.name))?;
        Ok(())
    }
}

/// For ten minutes; bound to a pod, if one is given.
#[must_use]
pub fn token_request(pod: Option<&Pod>) -> TokenRequest {
    TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(600),
            bound_object_ref: pod.map(|pod| BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    }
}
