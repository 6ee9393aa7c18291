//! The API server's audit log as a growing file of `audit.k8s.io/v1` events.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

/// Key in `user.extra` of a call: `JTI=…` of the token that made it.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// Annotation of a TokenRequest: `JTI=…` of the token that it made.
pub const ISSUED_CREDENTIAL_ID: &str = "authentication.kubernetes.io/issued-credential-id";

/// Longest wait for an event of a call that was answered: the log backend writes before or right after the answer, on a machine
/// that may have much else to do.
const LIMIT: Duration = Duration::from_secs(60);

/// One event; what is not needed here is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditEvent {
    /// `audit.k8s.io/v1`.
    pub api_version: String,
    /// `Event`.
    pub kind: String,
    /// The id that a client may choose.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub stage: String,
    /// Path and query as sent.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// The API server's verb.
    pub verb: String,
    /// Who the call was made as.
    pub user: User,
    /// What the call was about; nothing for a non-resource path.
    pub object_ref: Option<ObjectRef>,
    /// How it was answered.
    pub response_status: Option<ResponseStatus>,
    /// Name of the client's program.
    pub user_agent: String,
    /// RFC 3339, with microseconds.
    pub stage_timestamp: String,
    /// Further facts.
    pub annotations: BTreeMap<String, String>,
}

/// Who made a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct User {
    /// `system:serviceaccount:<namespace>:<name>`, or another user.
    pub username: String,
    /// Facts from the credential.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What a call was about. Absent and empty are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Group; empty for the core group.
    pub api_group: String,
    /// Version.
    pub api_version: String,
    /// Plural name of the kind.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// How a call was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    /// HTTP status.
    pub code: u16,
    /// The word for programs: one of Kubernetes' in the API server's log, a reason code in a record.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
}

impl AuditEvent {
    /// Reads one line.
    ///
    /// # Errors
    /// The line is no event of `audit.k8s.io/v1`.
    pub fn parse(line: &str) -> anyhow::Result<Self> {
        let event: Self = serde_json::from_str(line).context("not an event")?;
        ensure!(
            event.api_version == "audit.k8s.io/v1" && event.kind == "Event",
            "not an audit.k8s.io/v1 Event but {} {}",
            event.api_version,
            event.kind
        );
        Ok(event)
    }

    /// `JTI=…` of the token that the call was made with.
    #[must_use]
    pub fn credential_id(&self) -> Option<&str> {
        self.user
            .extra
            .get(CREDENTIAL_ID)?
            .first()
            .map(String::as_str)
    }

    /// HTTP status of the answer; 0 if there is none yet.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.response_status
            .as_ref()
            .map_or(0, |status| status.code)
    }

    /// Whether this is a TokenRequest.
    #[must_use]
    pub fn is_mint(&self) -> bool {
        self.verb == "create"
            && self.object_ref.as_ref().is_some_and(|object| {
                object.resource == "serviceaccounts" && object.subresource == "token"
            })
    }
}

/// Every event of a finished log file.
///
/// # Errors
/// The file cannot be read, or a line of it is no event.
pub fn read_file(path: &Path) -> anyhow::Result<Vec<AuditEvent>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // A log that is being written may end within a line.
    let whole = text
        .rfind('\n')
        .and_then(|end| text.get(..end))
        .unwrap_or("");
    parse_lines(whole).with_context(|| path.display().to_string())
}

fn parse_lines(text: &str) -> anyhow::Result<Vec<AuditEvent>> {
    let parse = |(number, line)| {
        AuditEvent::parse(line).with_context(|| format!("line {} of this part", number + 1))
    };
    text.lines().enumerate().map(parse).collect()
}

/// A log that grows while we read it.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: File,
    /// Where the first line begins that is looked at.
    start: u64,
    /// What was read since the last newline.
    rest: Vec<u8>,
    seen: Vec<AuditEvent>,
}

impl AuditLog {
    /// Opens the log at its present end: events that were written before are not looked at.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn from_now(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        // The last line may be half written: begin at the one before, or at the file's start.
        file.seek(SeekFrom::Start(end.saturating_sub(64 * 1024)))?;
        let mut before = Vec::new();
        file.by_ref().take(64 * 1024).read_to_end(&mut before)?;
        let complete = before.iter().rposition(|&byte| byte == b'\n');
        let rest = before.split_off(complete.map_or(0, |newline| newline + 1));
        let start = file.stream_position()? - rest.len() as u64;
        Ok(Self {
            path: path.to_owned(),
            file,
            start,
            rest,
            seen: Vec::new(),
        })
    }

    /// Every event since the log was opened.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is no event.
    pub fn events(&mut self) -> anyhow::Result<&[AuditEvent]> {
        self.file.read_to_end(&mut self.rest)?;
        if let Some(newline) = self.rest.iter().rposition(|&byte| byte == b'\n') {
            let after = self.rest.split_off(newline + 1);
            let lines = String::from_utf8(std::mem::replace(&mut self.rest, after))
                .with_context(|| format!("{} is not UTF-8", self.path.display()))?;
            let new = parse_lines(&lines).with_context(|| self.path.display().to_string())?;
            self.seen.extend(new);
        }
        Ok(&self.seen)
    }

    /// Copies what the API server wrote since the log was opened, as it wrote it.
    ///
    /// # Errors
    /// The log cannot be read, or the copy not be written.
    pub fn copy_to(&self, copy: &Path) -> anyhow::Result<()> {
        let mut log = File::open(&self.path)?;
        log.seek(SeekFrom::Start(self.start))?;
        std::io::copy(&mut log, &mut File::create(copy)?)?;
        Ok(())
    }

    /// Waits for the first event that `fits`, and returns it.
    ///
    /// # Errors
    /// None came within a minute; the message ends with `what`.
    pub async fn wait(
        &mut self,
        what: &str,
        fits: impl Fn(&AuditEvent) -> bool,
    ) -> anyhow::Result<AuditEvent> {
        let start = Instant::now();
        loop {
            if let Some(event) = self.events()?.iter().find(|event| fits(event)) {
                return Ok(event.clone());
            }
            if start.elapsed() > LIMIT {
                bail!(
                    "waited {} s in vain for an event in {}: {what}",
                    LIMIT.as_secs(),
                    self.path.display()
                );
            }
            // A file gives no notice of its own growth: look at it as `tail -f` does.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the event that closes the call of `audit_id`.
    ///
    /// # Errors
    /// None came within a minute.
    pub async fn completed(&mut self, audit_id: &str) -> anyhow::Result<AuditEvent> {
        self.wait(
            &format!("ResponseComplete of auditID {audit_id}"),
            |event| event.audit_id == audit_id && event.stage == "ResponseComplete",
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(id: &str) -> String {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"{id}","stage":"ResponseComplete"}}"#
        )
    }

    #[test]
    fn reads_what_comes_after_the_opening() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (old, half, new) = (line("old"), line("half"), line("new"));
        let (first, second) = half.split_at(20);
        write!(file, "{old}\n{first}").unwrap();
        let mut log = AuditLog::from_now(file.path()).unwrap();
        assert_eq!(log.events().unwrap(), []);
        write!(file, "{second}\n{new}\n{{").unwrap();
        let ids: Vec<_> = log
            .events()
            .unwrap()
            .iter()
            .map(|event| event.audit_id.clone())
            .collect();
        assert_eq!(ids, ["half", "new"]);
        let copy = tempfile::NamedTempFile::new().unwrap();
        log.copy_to(copy.path()).unwrap();
        let copied = std::fs::read_to_string(copy.path()).unwrap();
        assert_eq!(copied, format!("{half}\n{new}\n{{"));
    }

    #[test]
    fn refuses_foreign_lines() {
        assert!(AuditEvent::parse(&line("x")).is_ok());
        for foreign in ["", "hello", "{}", r#"{"kind":"Event","apiVersion":"v1"}"#] {
            assert!(AuditEvent::parse(foreign).is_err(), "{foreign:?}");
        }
    }
}
