//! What the files of a kubeconfig can be.

use std::fs;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

use super::super::Origin;
use super::*;
use crate::kubeconfig::Wanted;

fn pair() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// Connects by a kubeconfig in a folder with the files `ca`, `cert`, `key` and `token`, after `change` was done to them.
fn with(cluster: &str, user: &str, change: &dyn Fn(&Path)) -> Result<Credential, String> {
    let folder = tempfile::tempdir().unwrap();
    let pair = pair();
    for (name, content) in [
        ("ca", pair.cert.pem()),
        ("cert", pair.cert.pem()),
        ("key", pair.signing_key.serialize_pem()),
        ("token", "c2VjcmV0.dG9rZW4.b2Y\n".to_owned()),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    change(folder.path());
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1', {cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]"
    );
    let path = folder.path().join("config");
    let login = Login::read(&text, &path, Wanted::default()).unwrap();
    match connect(login, Duration::from_secs(1)) {
        Ok((_, credential)) => Ok(credential),
        Err(faults) => Err(faults.join("\n")),
    }
}

const CA: &str = "certificate-authority: ca";
const CERTIFICATE: &str = "client-certificate: cert, client-key: key";
const TOKEN: &str = "token: c2VjcmV0";
const TOKEN_FILE: &str = "tokenFile: token";

#[tokio::test]
async fn a_token_is_shown_as_a_header_and_a_certificate_by_connections_of_its_own() {
    for user in ["token: c2VjcmV0.dG9rZW4.b2Y", TOKEN_FILE] {
        let credential = with(CA, user, &|_| {}).unwrap();
        let shown = credential.get().await.unwrap();
        let bearer = shown.bearer.as_ref().unwrap();
        assert_eq!(bearer.as_bytes(), b"Bearer c2VjcmV0.dG9rZW4.b2Y");
        assert!(shown.connections.is_none());
        let again = credential.renew(&shown).await.unwrap();
        assert!(again.is_none(), "the same again");
    }
    let credential = with(CA, CERTIFICATE, &|_| {}).unwrap();
    let shown = credential.get().await.unwrap();
    assert!(shown.bearer.is_none() && shown.connections.is_some());
    assert_eq!(credential.origin, Origin::Kubeconfig);
}

fn remove(folder: &Path, name: &str) {
    fs::remove_file(folder.join(name)).unwrap();
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn every_bad_file_is_named_and_never_shown() {
    type Case = (&'static str, fn(&Path), &'static [&'static str]);
    let cases: [Case; 12] = [
        (
            TOKEN_FILE,
            |f| remove(f, "token"),
            &["cannot read", "/token"],
        ),
        (
            TOKEN_FILE,
            |f| write(f, "token", ""),
            &["the token is empty"],
        ),
        (
            TOKEN_FILE,
            |f| write(f, "token", "two secrets"),
            &["tokenFile"],
        ),
        (
            CERTIFICATE,
            |f| remove(f, "cert"),
            &["client-certificate", "/cert"],
        ),
        (CERTIFICATE, |f| remove(f, "key"), &["client-key", "/key"]),
        (
            CERTIFICATE,
            |f| {
                remove(f, "key");
                fs::create_dir(f.join("key")).unwrap();
            },
            &["client-key", "is no file"],
        ),
        (
            CERTIFICATE,
            |f| write(f, "cert", "secret"),
            &["client-certificate: there is no certificate"],
        ),
        (
            CERTIFICATE,
            |f| write(f, "key", "secret"),
            &["client-key: there is no unencrypted private key"],
        ),
        (
            CERTIFICATE,
            |f| write(f, "key", &pair().signing_key.serialize_pem()),
            &["certificate and key of the client"],
        ),
        (
            TOKEN,
            |f| remove(f, "ca"),
            &["certificate-authority", "/ca"],
        ),
        (
            TOKEN,
            |f| write(f, "ca", "secret"),
            &["certificate-authority", "there is no certificate in it"],
        ),
        (
            CERTIFICATE,
            |f| {
                remove(f, "ca");
                remove(f, "cert");
            },
            &["certificate-authority", "client-certificate"],
        ),
    ];
    for (user, change, parts) in cases {
        let message = with(CA, user, &change).err().unwrap_or_default();
        for part in parts {
            assert!(message.contains(part), "{user}: {part}: {message:?}");
        }
        assert!(!message.contains("secret"), "{message}");
    }
    let cluster = "certificate-authority: ca, tls-server-name: 'a b'";
    let message = with(cluster, TOKEN, &|_| {}).err().unwrap_or_default();
    assert!(message.contains("tls-server-name"), "{message}");
}
