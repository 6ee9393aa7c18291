//! A table of kubeconfigs: what each is read as, or what is said of it.

use super::*;

const PATH: &str = "/home/me/.kube/config";
const SECRET: &str = "c2VjcmV0.dG9rZW4.b2Y";

/// A good kubeconfig, as kind writes it, with these fields for cluster and user.
fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\npreferences: {{}}\ncurrent-context: here\n\
         contexts:\n- name: here\n  context: {{cluster: one, user: admin}}\n- name: there\n  context: {{cluster: two, user: none}}\n\
         clusters:\n- name: one\n  cluster:\n{}\nusers:\n- name: admin\n  user:\n{}\n",
        indented(cluster),
        indented(user)
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn read(text: &str) -> Result<Login, String> {
    Login::read(text, Path::new(PATH), Wanted::default()).map_err(|faults| faults.join("\n"))
}

const CLUSTER: &str = "server: https://127.0.0.1:6443\ncertificate-authority-data: Q0E=";
const TOKEN: &str = "token: c2VjcmV0.dG9rZW4.b2Y";

fn with_cluster(cluster: &str) -> Result<Login, String> {
    read(&kubeconfig(cluster, TOKEN))
}

fn with_user(user: &str) -> Result<Login, String> {
    read(&kubeconfig(CLUSTER, user))
}

fn exec(fields: &str) -> String {
    format!("exec:\n{}", indented(fields))
}

const PLUGIN: &str =
    "apiVersion: client.authentication.k8s.io/v1\ninteractiveMode: Never\ncommand: plugin";

#[test]
fn reads_the_forms_that_kubectl_reads() {
    let login = with_cluster(CLUSTER).unwrap();
    assert_eq!(login.cluster.authority, "127.0.0.1:6443");
    assert!(matches!(login.cluster.ca, Ca::Given(Source::Data(data)) if data == b"CA"));
    assert!(matches!(login.user, User::Token(token) if token.expose() == SECRET));

    let login = with_cluster(
        "server: https://api.example.com/\ncertificate-authority: ca.crt\ntls-server-name: kubernetes",
    )
    .unwrap();
    assert_eq!(login.cluster.authority, "api.example.com");
    assert_eq!(login.cluster.server_name.as_deref(), Some("kubernetes"));
    assert!(
        matches!(login.cluster.ca, Ca::Given(Source::File(path)) if path == Path::new("/home/me/.kube/ca.crt"))
    );

    let login = with_cluster("server: https://api.example.com").unwrap();
    assert!(matches!(login.cluster.ca, Ca::System));

    let login = with_user("token: old\ntokenFile: ../token").unwrap();
    assert!(
        matches!(login.user, User::TokenFile(path) if path == Path::new("/home/me/.kube/../token"))
    );

    let login =
        with_user("client-certificate: /pki/me.crt\nclient-key-data: |\n  S0\n  VZ").unwrap();
    let User::Certificate { certificate, key } = login.user else {
        panic!("no certificate");
    };
    assert!(matches!(certificate, Source::File(path) if path == Path::new("/pki/me.crt")));
    assert!(matches!(key, Source::Data(data) if data == b"KEY"));

    let plugin = format!(
        "{PLUGIN}\nargs: [get, 1]\nenv: [{{name: A, value: b}}]\nprovideClusterInfo: true\ninstallHint: install it"
    );
    let User::Exec(plugin) = with_user(&exec(&plugin)).unwrap().user else {
        panic!("no plugin");
    };
    assert_eq!(plugin.command, Path::new("plugin"));
    assert_eq!(plugin.args, ["get", "1"]);
    assert_eq!(plugin.env, [("A".to_owned(), "b".to_owned())]);
    assert!(plugin.wants_cluster && plugin.version == ExecVersion::V1);
    let beta = "apiVersion: client.authentication.k8s.io/v1beta1\ncommand: bin/plugin";
    let User::Exec(plugin) = with_user(&exec(beta)).unwrap().user else {
        panic!("no plugin");
    };
    assert_eq!(plugin.command, Path::new("/home/me/.kube/bin/plugin"));
    assert_eq!(plugin.version, ExecVersion::V1Beta1);
}

#[test]
fn flags_win_over_the_file() {
    let text = kubeconfig("server: http://old.example.com/path", TOKEN);
    let wanted = Wanted {
        server: Some("https://new.example.com:8443"),
        context: None,
    };
    let login = Login::read(&text, Path::new(PATH), wanted).unwrap();
    assert_eq!(login.cluster.authority, "new.example.com:8443");
    let wanted = Wanted {
        context: Some("there"),
        server: None,
    };
    let faults = Login::read(&text, Path::new(PATH), wanted).unwrap_err();
    assert_eq!(
        faults,
        [
            "has no cluster \"two\"; its clusters: one",
            "has no user \"none\"; its users: admin"
        ]
    );
}

#[test]
fn what_is_no_kubeconfig_says_why() {
    let good = kubeconfig(CLUSTER, TOKEN);
    let twice = "current-context: x\ncontexts: [{name: x, context: {cluster: a, user: b}}, {name: x, context: {cluster: a, user: b}}]";
    for (text, part) in [
        ("", "is empty"),
        ("{}", "is empty"),
        ("a: [", "is not YAML: line "),
        ("token: 'secret", "is not YAML: line "),
        ("just words", "is no mapping"),
        ("- a list", "is no mapping"),
        ("kind: Pod", "is no kubeconfig but a \"Pod\""),
        ("kind: Config", "has no current-context"),
        ("current-context: ''", "has no current-context"),
        (
            &good.replace("current-context: here\n", ""),
            "with --context (here, there)",
        ),
        (
            &good.replace("current-context: here", "current-context: elsewhere"),
            "has no context \"elsewhere\"; its contexts: here, there",
        ),
        ("current-context: x\ncontexts: null", "its contexts: none"),
        (
            "current-context: x\ncontexts: [{name: x}]",
            "context \"x\" is empty",
        ),
        (
            "current-context: x\ncontexts: [{name: x, context: {user: y}}]",
            "context \"x\" names no cluster",
        ),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: y}}]",
            "context \"x\" names no user",
        ),
        (twice, "has two entries for the context \"x\""),
    ] {
        let message = read(text).unwrap_err();
        assert!(message.contains(part), "{text:?}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn clusters_that_cannot_be_used_say_why() {
    for (cluster, part) in [
        (
            "certificate-authority-data: Q0E=",
            "cluster \"one\": server is missing",
        ),
        ("server: [1]", "server is no text"),
        ("server: http://127.0.0.1:8080", "server is plain http"),
        ("server: https://x/k8s/clusters/c-1", "server has a path"),
        ("server: https://x?y", "server has a path"),
        ("server: https://me:secret@x", "server has a user name"),
        ("server: 127.0.0.1:6443", "is no URL"),
        ("server: \"https://a b\"", "is no URL"),
        ("server: ftp://x", "is no URL"),
        (
            "server: https://x\ncertificate-authority-data: '%'",
            "certificate-authority-data is not base64",
        ),
        (
            "server: https://x\ncertificate-authority-data: Q0E=\ncertificate-authority: f",
            "are both there",
        ),
        (
            "server: https://x\ninsecure-skip-tls-verify: true",
            "insecure-skip-tls-verify is not supported",
        ),
        (
            "server: https://x\ninsecure-skip-tls-verify: 'yes'",
            "neither true nor false",
        ),
        (
            "server: https://x\nproxy-url: http://p:3128",
            "proxy-url is not supported",
        ),
        ("server: https://x\nextensions: 1", "extensions is no list"),
    ] {
        let message = with_cluster(cluster).unwrap_err();
        assert!(message.contains(part), "{cluster:?}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn users_that_cannot_be_used_say_why() {
    let exec_with = |change: (&str, &str)| exec(&PLUGIN.replace(change.0, change.1));
    let plugin = exec(PLUGIN);
    for (user, part) in [
        ("{}", "user \"admin\" has no credential"),
        ("token: ''", "has no credential"),
        ("token: two secret words", "token cannot be one"),
        ("token: [secret]", "token is no text"),
        (
            "token: secret\nclient-certificate: a\nclient-key: b",
            "several credentials (client-certificate, token)",
        ),
        (
            &format!("token: secret\n{plugin}"),
            "several credentials (token, exec)",
        ),
        ("client-certificate-data: Q0E=", "has no client-key"),
        ("client-key-data: Q0E=", "has no client-certificate"),
        (
            "client-key-data: secret!\nclient-certificate-data: Q0E=",
            "client-key-data is not base64",
        ),
        (
            "username: me\npassword: secret",
            "password is not supported",
        ),
        (
            "auth-provider: {name: oidc, config: {id-token: secret}}",
            "use an exec plugin",
        ),
        ("token: secret\nas: other", "as is impersonation"),
        (
            "token: secret\nas-groups: [a]",
            "as-groups is impersonation",
        ),
        ("exec: plugin", "exec is no mapping"),
        (
            &exec_with(("command: plugin", "x: 1")),
            "exec.command is missing",
        ),
        (
            &exec_with(("/v1\n", "/v1alpha1\n")),
            "exec.apiVersion is neither",
        ),
        (
            &exec_with(("apiVersion", "x")),
            "exec.apiVersion is neither",
        ),
        (
            &exec_with(("Never", "Always")),
            "exec.interactiveMode is Always",
        ),
        (&exec_with(("Never", "Sometimes")), "is none of Never"),
        (
            &exec_with(("interactiveMode", "x")),
            "exec.interactiveMode is missing",
        ),
        (
            &exec(&format!("{PLUGIN}\nargs: [[secret]]")),
            "exec.args holds",
        ),
        (
            &exec(&format!("{PLUGIN}\nenv: [{{name: A}}]")),
            "exec.env holds",
        ),
        (
            &exec(&format!("{PLUGIN}\nenv: [{{name: A=, value: secret}}]")),
            "exec.env holds",
        ),
    ] {
        let message = with_user(user).unwrap_err();
        assert!(message.contains(part), "{user:?}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn every_fault_is_named_at_once_and_nothing_is_shown() {
    let message = read(&kubeconfig(
        "server: http://x\nproxy-url: http://p\ninsecure-skip-tls-verify: true",
        "token: secret\nexec: {command: x}\nas: y",
    ))
    .unwrap_err();
    for part in [
        "server is",
        "proxy-url is",
        "insecure-skip-tls-verify is",
        "several credentials",
        "exec.apiVersion is",
        "as is",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let login = with_cluster(CLUSTER).unwrap();
    let shown = format!("{login:?}");
    assert!(
        shown.contains("127.0.0.1:6443") && shown.contains("token"),
        "{shown}"
    );
    assert!(!shown.contains(SECRET), "{shown}");
}
