//! The files that agent containers read in place of a service account's: local token, our CA, namespace, kubeconfig. Each
//! container has a folder of its own, which it mounts read-only; whoever shows a token is known by it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tollgate_shared::contract::{LOCAL_TOKEN_PREFIX, SERVICE_ACCOUNT_PATH};
use tollgate_shared::secret::Token;

/// A file of an agent container could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path} (agent-dir): {source}")]
pub struct AgentFileError {
    /// Its path.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// What stands in every agent container's folder besides its token.
pub struct Files<'a> {
    /// The sidecar's CA, PEM.
    pub ca_pem: &'a str,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The port on loopback.
    pub port: u16,
}

/// Writes the folders of all containers and gives their tokens. A token that stands there already is kept: clients read it
/// rarely, and a restart of the sidecar must not lock them out.
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    agent_dir: &Path,
    containers: &[String],
    files: &Files<'_>,
) -> Result<Vec<(String, Token)>, AgentFileError> {
    containers
        .iter()
        .map(|name| Ok((name.clone(), write_one(&agent_dir.join(name), files)?)))
        .collect()
}

/// Writes the folder of an agent that reads it where it is, as the same user: nobody else may.
///
/// # Errors
/// When a file cannot be written.
pub fn write_own(folder: &Path, files: &Files<'_>) -> Result<Token, AgentFileError> {
    write_files(folder, folder, 0o600, files)
}

fn write_one(folder: &Path, files: &Files<'_>) -> Result<Token, AgentFileError> {
    fs::create_dir_all(folder).map_err(failed(folder))?;
    // Agents run as any user; the folder itself is seen by one container alone.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(failed(folder))?;
    write_files(folder, Path::new(SERVICE_ACCOUNT_PATH), 0o644, files)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AgentFileError + use<> {
    let path = path.to_owned();
    move |source| AgentFileError {
        path: path.clone(),
        source,
    }
}

/// `seen` is where the agent finds the folder.
fn write_files(
    folder: &Path,
    seen: &Path,
    mode: u32,
    files: &Files<'_>,
) -> Result<Token, AgentFileError> {
    let token = match kept_token(&folder.join("token")) {
        Some(token) => token,
        None => new_token().map_err(failed(&folder.join("token")))?,
    };
    let kubeconfig = kubeconfig(files.port, files.namespace, seen);
    // No newline at the end of token or namespace: Python, JavaScript and kube-rs put them into headers and paths as they are.
    for (name, content) in [
        ("ca.crt", files.ca_pem),
        ("namespace", files.namespace),
        ("kubeconfig", &kubeconfig),
        ("token", token.expose()),
    ] {
        let path = folder.join(name);
        write_atomically(&path, content.as_bytes(), mode).map_err(failed(&path))?;
    }
    Ok(token)
}

fn kept_token(path: &Path) -> Option<Token> {
    let text = fs::read_to_string(path).ok()?;
    // Shorter than what we write means that it is not ours.
    (text.starts_with(LOCAL_TOKEN_PREFIX) && text.len() >= 40)
        .then(|| Token::parse(&text).ok())
        .flatten()
}

/// 256 random bits.
fn new_token() -> io::Result<Token> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let text = format!("{LOCAL_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    Token::parse(&text).map_err(io::Error::other)
}

/// A kubeconfig that points at the sidecar. `files` is where the reader finds `ca.crt` and `token`.
#[must_use]
pub fn kubeconfig(port: u16, namespace: &str, files: &Path) -> String {
    // A JSON string is a YAML one, whatever is in it.
    let file = |name: &str| Value::from(files.join(name).to_string_lossy()).to_string();
    let (ca, token) = (file("ca.crt"), file("token"));
    format!(
        r#"apiVersion: v1
kind: Config
clusters:
- name: tollgate
  cluster:
    server: https://127.0.0.1:{port}
    certificate-authority: {ca}
contexts:
- name: tollgate
  context:
    cluster: tollgate
    user: agent
    namespace: "{namespace}"
current-context: tollgate
users:
- name: agent
  user:
    tokenFile: {token}
"#
    )
}

/// Writes a file that only its owner reads, whole or not at all.
///
/// # Errors
/// As the file system gives them.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_atomically(path, content, 0o600)
}

fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // A left-over of a start that was cut short may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    // The umask takes bits away from `mode`.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: Files<'_> = Files {
        ca_pem: "CA",
        namespace: "agents",
        port: 7443,
    };

    #[test]
    fn every_container_has_its_own_token_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let containers = ["agent".to_owned(), "helper".to_owned()];
        let first = write(folder.path(), &containers, &FILES).unwrap();
        assert_ne!(first[0].1.expose(), first[1].1.expose());
        let second = write(folder.path(), &containers, &FILES).unwrap();
        for (before, after) in first.iter().zip(&second) {
            assert_eq!(before.0, after.0);
            assert_eq!(before.1.expose(), after.1.expose());
        }
        let read = |name: &str| fs::read_to_string(folder.path().join("agent").join(name)).unwrap();
        assert_eq!(read("token"), first[0].1.expose());
        assert!(read("token").starts_with("tgl1_") && read("token").len() == 48);
        assert_eq!(
            (read("ca.crt").as_str(), read("namespace").as_str()),
            ("CA", "agents")
        );
        assert!(read("kubeconfig").contains("server: https://127.0.0.1:7443"));
        let mode = fs::metadata(folder.path().join("agent/token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn an_agent_of_the_same_user_reads_its_folder_where_it_is_and_nobody_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("it's \"mine\"");
        fs::create_dir(&folder).unwrap();
        let token = write_own(&folder, &FILES).unwrap();
        let kubeconfig = fs::read_to_string(folder.join("kubeconfig")).unwrap();
        let read: Value = crate::yaml::parse(&kubeconfig).unwrap();
        let file = read["users"][0]["user"]["tokenFile"].as_str().unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), token.expose());
        let ca = read["clusters"][0]["cluster"]["certificate-authority"].as_str();
        assert_eq!(fs::read_to_string(ca.unwrap()).unwrap(), "CA");
        for name in ["kubeconfig", "token"] {
            let mode = fs::metadata(folder.join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(write_own(&folder, &FILES).unwrap().expose(), token.expose());
    }

    #[test]
    fn a_damaged_token_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("agent")).unwrap();
        for damaged in ["", "tgl1_", "tgl1_short", "something else"] {
            fs::write(folder.path().join("agent/token"), damaged).unwrap();
            let tokens = write(folder.path(), &["agent".to_owned()], &FILES).unwrap();
            assert_eq!(tokens[0].1.expose().len(), 48, "{damaged:?}");
        }
    }
}
