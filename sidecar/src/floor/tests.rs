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

/// For each rule: its code, the methods that it closes, and a path; then neighbours that stay open.
const TABLE: &str = "
floor-token-request  all             /api/v1/namespaces/a/serviceaccounts/b/token
floor-token-request  all             /api/v1/namespaces/a/serviceaccounts/b/token/
floor-token-request  all             /api/v1/namespaces/a/serviceaccounts/b/token/x
floor-token-request  all             /api/v1/serviceaccounts/b/token
floor-node-proxy     all             /api/v1/nodes/n/proxy
floor-node-proxy     all             /api/v1/nodes/n/proxy/run/a/b/c?cmd=id
floor-node-proxy     all             /api/v1/nodes/https:n:10250/proxy/pods
floor-certificate    POST,PUT,PATCH  /apis/certificates.k8s.io/v1/certificatesigningrequests/x
floor-certificate    POST,PUT,PATCH  /apis/certificates.k8s.io/v1/certificatesigningrequests
floor-certificate    POST,PUT,PATCH  /apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval
floor-certificate    POST,PUT,PATCH  /apis/certificates.k8s.io/v1/certificatesigningrequests/x/status
floor-certificate    POST,PUT,PATCH  /apis/certificates.k8s.io/v1beta1/namespaces/a/podcertificaterequests
floor-admission      writes          /apis/tollgate.dev/v1alpha1/namespaces/a/policies/x
floor-admission      writes          /apis/tollgate.dev/v1alpha1/clusterpolicies
floor-admission      writes          /apis/tollgate.dev/v2/anything/x/status
floor-admission      writes          /apis/sub.tollgate.dev/v1/things/x
floor-admission      writes          /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/x
floor-admission      writes          /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations
floor-admission      writes          /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/x
floor-admission      writes          /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/x
floor-admission      writes          /apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicies/x/status
floor-admission      writes          /apis/apiextensions.k8s.io/v1/customresourcedefinitions/policies.tollgate.dev
floor-admission      DELETE          /apis/apiextensions.k8s.io/v1/customresourcedefinitions
floor-admission      writes          /apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.tollgate.dev
floor-admission      writes          /apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings
floor-admission      writes          /apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings/x
floor-admission      writes          /apis/rbac.authorization.k8s.io/v1/clusterrolebindings/x
floor-admission      writes          /apis/authorization.openshift.io/v1/namespaces/a/rolebindings/x
floor-admission      writes          /apis/rbac.authorization.k8s.io/v1/clusterroles/system:public-info-viewer
floor-admission      writes          /apis/authorization.openshift.io/v1/clusterroles/x
floor-cluster-ca     writes          /api/v1/namespaces/a/configmaps/kube-root-ca.crt
floor-cluster-ca     writes          /api/v1/namespaces/a/configmaps/kube-root-ca%2Ecrt
floor-cluster-ca     DELETE          /api/v1/namespaces/a/configmaps
floor-cluster-ca     DELETE          /api/v1/configmaps
floor-sidecar-exec   all             /api/v1/namespaces/a/pods/x/exec?container=tollgate&command=sh
floor-sidecar-exec   all             /api/v1/namespaces/a/pods/x/exec?command=sh&container=%74ollgate
floor-sidecar-exec   all             /api/v1/namespaces/a/pods/x/exec?container=a&container=tollgate
floor-sidecar-exec   all             /api/v1/namespaces/a/pods/x/exec?container=tollgate&container=a
floor-sidecar-exec   all             /api/v1/namespaces/a/pods/x/exec?container=&container=tollgate
floor-sidecar-exec   all             /api/v1/namespaces/a/pods/x/exec?container=a&container=b
floor-sidecar-exec   all             /api/v1/namespaces/a/pods/x/exec?container=+Tollgate%0A
floor-sidecar-exec   all             /api/v1/namespaces/a/pods/x/attach?container=tollgate
# neighbours, open to every method
-                    none            /api/v1/namespaces/a/serviceaccounts/token
-                    none            /api/v1/namespaces/a/serviceaccounts/b
-                    none            /api/v1/namespaces/a/secrets/token
-                    none            /apis/example.com/v1/namespaces/a/serviceaccounts/b/token
-                    none            /api/v1/nodes/n
-                    none            /api/v1/nodes/n/status
-                    none            /api/v1/nodes/proxy
-                    none            /api/v1/namespaces/a/services/x/proxy/nodes/n/proxy
-                    none            /api/v1/namespaces/a/pods/x/proxy/
-                    none            /apis/certificates.k8s.io/v1beta1/clustertrustbundles/x
-                    none            /apis/cert-manager.io/v1/namespaces/a/certificaterequests/x
-                    none            /apis/nottollgate.dev/v1/things/x
-                    none            /apis/tollgate.dev.example.com/v1/things/x
-                    none            /apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com
-                    none            /apis/apiextensions.k8s.io/v1/customresourcedefinitions/x.nottollgate.dev
-                    none            /apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io
-                    none            /apis/rbac.authorization.k8s.io/v1/namespaces/a/roles/x
-                    none            /api/v1/namespaces/a/pods/x/binding
-                    none            /api/v1/namespaces/a/configmaps/other
-                    none            /api/v1/namespaces/a/secrets/kube-root-ca.crt
-                    none            /apis/apps/v1/namespaces/a/deployments
-                    none            /api/v1/namespaces/a/pods/x/exec?command=sh
-                    none            /api/v1/namespaces/a/pods/x/exec?command=sh&container=agent
-                    none            /api/v1/namespaces/a/pods/x/exec?container=agent&container=agent
-                    none            /api/v1/namespaces/a/pods/x/exec?container=agent&command=tollgate
-                    none            /api/v1/namespaces/a/pods/tollgate/exec?container=agent
-                    none            /api/v1/namespaces/a/pods/x/log?container=tollgate
-                    none            /api/v1/namespaces/a/pods/x/portforward
";

#[test]
fn closes_what_it_must_and_no_more() {
    let mut lines = 0;
    for line in TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let [code, methods, target] = cells.as_slice() else {
            panic!("{line}");
        };
        for method in &METHODS {
            let closed = match *methods {
                "all" => true,
                "none" => false,
                "writes" => WRITES.contains(method),
                methods => methods.split(',').any(|name| name == method.as_str()),
            };
            let found = reason(method, target).map(Reason::code);
            assert_eq!(found, closed.then_some(*code), "{method} {line}");
        }
        lines += 1;
    }
    assert!(lines > 60, "only {lines} lines");
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

/// Either nobody reads the request, or the floor does.
fn closed(method: &Method, target: &str) -> bool {
    Call::resolve(method, target).map_or(true, |call| check(&call, &HeaderMap::new()).is_err())
}

#[test]
fn no_spelling_of_the_container_gets_through() {
    for query in [
        "container=tollgate",
        "%63ontainer=tollgate",
        "container=%74%6F%6c%6C%67%61%74%65",
        "container=tollgate%09",
        "container=%0Atollgate",
        "container=tollgate+",
        "container=TOLLGATE",
        "container=tollgate%00",
        "container=tollgate;",
        "container=a;container=tollgate",
        "container=a%26container=tollgate&container=tollgate",
        "container=tollgate#&container=a",
        "container=tollgate&container=",
        "container=&container=tollgate",
        "container&container=tollgate",
        "&&container=tollgate&&",
        "container=a&container=b",
        "container=&container=a",
        "command=sh&container=tollgate&tty=true",
        "?container=tollgate&container=tollgate",
        "container=%zz&container=tollgate",
        "container=tollgate%ff",
        "container=tollgate&container=%e2%80%8btollgate",
    ] {
        for path in [
            "/api/v1/namespaces/a/pods/x/exec",
            "/api/v1/namespaces/a/pods/x/attach",
            "/api/v1/namespaces/a/pods/x/exec/",
            "/api/v1/namespaces/a/pods/x/%65xec",
            "/api/v1/namespaces/a/%70ods/x/attach",
            "/api/v1/pods/x/exec",
            "/api/v1/watch/namespaces/a/pods/x/exec",
        ] {
            for method in METHODS {
                let target = format!("{path}?{query}");
                assert!(closed(&method, &target), "{method} {target}");
            }
        }
    }
}

#[test]
fn no_spelling_of_a_path_gets_through() {
    for path in [
        "/api/v1/namespaces/a/serviceaccounts/b/%74oken",
        "/api/v1/namespaces/a/serviceaccounts//b/token",
        "/api/v1/namespaces/a/x/../serviceaccounts/b/token",
        "/api/v1/namespaces/a/serviceaccounts/b%2Ftoken",
        "/api/v1/namespaces/a/serviceaccounts/b/token;x=y",
        "/api/v1/namespaces/a/serviceaccounts/b/token%3Fx",
        "/api/v1/watch/namespaces/a/serviceaccounts/b/token",
        "/api/v1/proxy/namespaces/a/serviceaccounts/b/token",
        "/api/v1/proxy/nodes/n/run",
        "/api/v1/watch/nodes/n/proxy",
        "/api/v1/namespaces/a/nodes/n/proxy",
        "/api/v1/nodes/n/proxy//x/%2e%2e/y",
    ] {
        for method in METHODS {
            assert!(closed(&method, path), "{method} {path}");
        }
    }
}
