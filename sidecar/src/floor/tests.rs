use http::Method;
use http::header::{HeaderName, HeaderValue};

use super::*;

fn reason(method: &Method, target: &str) -> Option<Reason> {
    let call = Call::resolve(method, target).unwrap();
    check(&call, &HeaderMap::new())
        .err()
        .map(|refusal| refusal.reason)
}

const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];
const WRITES: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
const READS: [Method; 2] = [Method::GET, Method::HEAD];

/// For each rule: paths that it closes to some methods, and neighbours that stay open to all.
#[test]
fn closes_what_it_must_and_no_more() {
    let token = Reason::FloorTokenRequest;
    let node = Reason::FloorNodeProxy;
    let certificate = Reason::FloorCertificate;
    let admission = Reason::FloorAdmission;
    let ca = Reason::FloorClusterCa;
    let exec = Reason::FloorSidecarExec;
    let all: &[Method] = &METHODS;
    let writes: &[Method] = &WRITES;
    let named = "/apis/certificates.k8s.io/v1/certificatesigningrequests/x";
    for (target, reason_closed, closed) in [
        ("/api/v1/namespaces/a/serviceaccounts/b/token", token, all),
        ("/api/v1/namespaces/a/serviceaccounts/b/token/", token, all),
        ("/api/v1/namespaces/a/serviceaccounts/b/token/x", token, all),
        ("/api/v1/serviceaccounts/b/token", token, all),
        ("/api/v1/nodes/n/proxy", node, all),
        ("/api/v1/nodes/n/proxy/run/a/b/c?cmd=id", node, all),
        ("/api/v1/nodes/https:n:10250/proxy/pods", node, all),
        (
            named,
            certificate,
            &[Method::POST, Method::PUT, Method::PATCH],
        ),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            certificate,
            &[Method::POST, Method::PUT, Method::PATCH],
        ),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval",
            certificate,
            &[Method::POST, Method::PUT, Method::PATCH],
        ),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests/x/status",
            certificate,
            &[Method::POST, Method::PUT, Method::PATCH],
        ),
        (
            "/apis/certificates.k8s.io/v1beta1/namespaces/a/podcertificaterequests",
            certificate,
            &[Method::POST, Method::PUT, Method::PATCH],
        ),
        (
            "/apis/tollgate.dev/v1alpha1/namespaces/a/policies/x",
            admission,
            writes,
        ),
        (
            "/apis/tollgate.dev/v1alpha1/clusterpolicies",
            admission,
            writes,
        ),
        ("/apis/tollgate.dev/v2/anything/x/status", admission, writes),
        ("/apis/sub.tollgate.dev/v1/things/x", admission, writes),
        (
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/x",
            admission,
            writes,
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            admission,
            writes,
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/x",
            admission,
            writes,
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/x",
            admission,
            writes,
        ),
        (
            "/apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicies/x/status",
            admission,
            writes,
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/policies.tollgate.dev",
            admission,
            writes,
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            admission,
            &[Method::DELETE],
        ),
        (
            "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.tollgate.dev",
            admission,
            writes,
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings",
            admission,
            writes,
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings/x",
            admission,
            writes,
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/x",
            admission,
            writes,
        ),
        (
            "/apis/authorization.openshift.io/v1/namespaces/a/rolebindings/x",
            admission,
            writes,
        ),
        (
            "/api/v1/namespaces/a/configmaps/kube-root-ca.crt",
            ca,
            writes,
        ),
        (
            "/api/v1/namespaces/a/configmaps/kube-root-ca%2Ecrt",
            ca,
            writes,
        ),
        ("/api/v1/namespaces/a/configmaps", ca, &[Method::DELETE]),
        ("/api/v1/configmaps", ca, &[Method::DELETE]),
        (
            "/api/v1/namespaces/a/pods/x/exec?container=tollgate&command=sh",
            exec,
            all,
        ),
        (
            "/api/v1/namespaces/a/pods/x/exec?command=sh&container=%74ollgate",
            exec,
            all,
        ),
        (
            "/api/v1/namespaces/a/pods/x/exec?container=a&container=tollgate",
            exec,
            all,
        ),
        (
            "/api/v1/namespaces/a/pods/x/exec?container=tollgate&container=a",
            exec,
            all,
        ),
        (
            "/api/v1/namespaces/a/pods/x/exec?container=&container=tollgate",
            exec,
            all,
        ),
        (
            "/api/v1/namespaces/a/pods/x/exec?container=a&container=b",
            exec,
            all,
        ),
        (
            "/api/v1/namespaces/a/pods/x/exec?container=+Tollgate%0A",
            exec,
            all,
        ),
        (
            "/api/v1/namespaces/a/pods/x/attach?container=tollgate",
            exec,
            all,
        ),
        // Neighbours.
        ("/api/v1/namespaces/a/serviceaccounts/token", token, &[]),
        ("/api/v1/namespaces/a/serviceaccounts/b", token, &[]),
        ("/api/v1/namespaces/a/secrets/token", token, &[]),
        (
            "/apis/example.com/v1/namespaces/a/serviceaccounts/b/token",
            token,
            &[],
        ),
        ("/api/v1/nodes/n", node, &[]),
        ("/api/v1/nodes/n/status", node, &[]),
        ("/api/v1/nodes/proxy", node, &[]),
        (
            "/api/v1/namespaces/a/services/x/proxy/nodes/n/proxy",
            node,
            &[],
        ),
        ("/api/v1/namespaces/a/pods/x/proxy/", node, &[]),
        (
            "/apis/certificates.k8s.io/v1beta1/clustertrustbundles/x",
            certificate,
            &[],
        ),
        (
            "/apis/cert-manager.io/v1/namespaces/a/certificaterequests/x",
            certificate,
            &[],
        ),
        ("/apis/nottollgate.dev/v1/things/x", admission, &[]),
        ("/apis/tollgate.dev.example.com/v1/things/x", admission, &[]),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com",
            admission,
            &[],
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/x.nottollgate.dev",
            admission,
            &[],
        ),
        (
            "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io",
            admission,
            &[],
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles/x",
            admission,
            &[],
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/x",
            admission,
            &[],
        ),
        ("/api/v1/namespaces/a/pods/x/binding", admission, &[]),
        ("/api/v1/namespaces/a/configmaps/other", ca, &[]),
        ("/api/v1/namespaces/a/secrets/kube-root-ca.crt", ca, &[]),
        ("/apis/apps/v1/namespaces/a/deployments", ca, &[]),
        ("/api/v1/namespaces/a/pods/x/exec?command=sh", exec, &[]),
        (
            "/api/v1/namespaces/a/pods/x/exec?command=sh&container=agent",
            exec,
            &[],
        ),
        (
            "/api/v1/namespaces/a/pods/x/exec?container=agent&container=agent",
            exec,
            &[],
        ),
        (
            "/api/v1/namespaces/a/pods/x/exec?container=agent&command=tollgate",
            exec,
            &[],
        ),
        (
            "/api/v1/namespaces/a/pods/tollgate/exec?container=agent",
            exec,
            &[],
        ),
        (
            "/api/v1/namespaces/a/pods/x/log?container=tollgate",
            exec,
            &[],
        ),
        ("/api/v1/namespaces/a/pods/x/portforward", exec, &[]),
    ] {
        for method in &METHODS {
            let expected = closed.contains(method).then_some(reason_closed);
            assert_eq!(reason(method, target), expected, "{method} {target}");
        }
    }
}

#[test]
fn reads_stay_open() {
    for target in [
        "/apis/tollgate.dev/v1alpha1/namespaces/a/policies?watch=1",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
        "/apis/rbac.authorization.k8s.io/v1/rolebindings",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        "/api/v1/namespaces/a/configmaps/kube-root-ca.crt",
        "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name=kube-root-ca.crt",
        "/healthz",
    ] {
        for method in &READS {
            assert_eq!(reason(method, target), None, "{method} {target}");
        }
    }
}

#[test]
fn refuses_impersonation_on_any_path() {
    for (name, closed) in [
        ("impersonate-user", true),
        ("Impersonate-Group", true),
        ("impersonate-extra-scopes", true),
        ("impersonate-uid", true),
        ("impersonate_user", true),
        ("impersonated", false),
        ("x-impersonate-user", false),
    ] {
        for target in ["/api/v1/pods", "/healthz", "/api/v1/nodes/n/proxy"] {
            let call = Call::resolve(&Method::GET, target).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static(""),
            );
            let found = check(&call, &headers).err().map(|refusal| refusal.reason);
            assert_eq!(
                found == Some(Reason::FloorImpersonation),
                closed,
                "{name} {target}"
            );
        }
    }
}
