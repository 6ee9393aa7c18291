//! Looks for credentials of the API server in the agent containers of a pod: every regular file, mounts included, and the
//! environment and command line of every process. A token counts if a TokenReview accepts it; none is ever shown.
//!
//! The walk runs inside each container, as its own user: what that user cannot read, its agent cannot read either. It needs `sh`
//! and `cat` there; a container without them, or one that does not run, is reported as not walked.

mod split;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::Api;
use tollgate_shared::contract::CONTAINER;

use self::split::Splitter;
use crate::cluster::Cluster;
use crate::jwt::Jwt;
use crate::{exec, wait};

/// Longest walk of one container.
const LIMIT: Duration = Duration::from_secs(600);

/// Names every file on a line of its own, after a mark that no file can know, and writes the content of each file that may hold a
/// token. `/proc` and `/sys` hold the kernel's own files, of which only those of processes can carry one. Processes come
/// and go: a vanished file is no fault.
///
/// A `grep` that reads past zero bytes chooses the files; with another or none (busybox), all are written. A name with a newline
/// cannot go through the pipe: such a file is always written. Without `find` the shell walks by itself.
const WALK: &str = r#"
mark=$1
show='
mark=$1; shift
all=1; printf "a\000eyJ" | grep -qaF eyJ 2>/dev/null && all=
for file do
    printf "\n%s%s\n" "$mark" "$file"
    case $all$file in 1* | *"
"*) cat "$file" 2>/dev/null ;;
    esac
done
[ "$all" ] || grep -lasF -- eyJ "$@" | while IFS= read -r file; do
    printf "\n%s%s\n" "$mark" "$file"
    cat "$file" 2>/dev/null
done
'
walk() {
    for entry in "$1"/* "$1"/.*; do
        case $entry in
            */. | */.. | /proc | /sys) continue ;;
        esac
        if [ -L "$entry" ]; then continue
        elif [ -d "$entry" ]; then walk "$entry"
        elif [ -f "$entry" ]; then sh -c "$show" sh "$mark" "$entry"
        fi
    done
}
command -v cat >/dev/null || exit 127
sh -c "$show" sh "$mark" /proc/[0-9]*/environ /proc/[0-9]*/cmdline
if find / -path / -prune -exec true {} + 2>/dev/null; then
    find / \( -path /proc -o -path /sys \) -prune -o -type f -exec sh -c "$show" sh "$mark" {} + 2>/dev/null
else
    walk ""
fi
printf '\n%s%s\n' "$mark" end
"#;

/// What was found in one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Files and process entries that were looked at.
    pub files: usize,
    /// Everything shaped like a token, and where it lies.
    pub tokens: BTreeMap<Jwt, BTreeSet<String>>,
}

/// A token that the API server accepts, in an agent container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The container.
    pub container: String,
    /// The files and process entries that hold it.
    pub paths: BTreeSet<String>,
    /// Whose token it is.
    pub user: String,
}

/// The result for a whole pod.
#[derive(Debug, Default)]
pub struct Report {
    /// Containers that were walked: name and what was read.
    pub walked: Vec<(String, Walk)>,
    /// Containers that could not be walked, and why.
    pub not_walked: Vec<(String, String)>,
    /// Credentials of the API server.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Every container was walked and none holds a credential.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.not_walked.is_empty() && self.findings.is_empty()
    }
}

/// Scans every agent container of a pod, init containers included.
///
/// # Errors
/// There is no such pod, or a TokenReview failed.
pub async fn pod(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Report> {
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), namespace);
    let pod = pods
        .get(name)
        .await
        .with_context(|| format!("no pod {namespace}/{name}"))?;
    let spec = pod.spec.as_ref().context("a pod without a spec")?;
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let mut report = Report::default();
    for container in all
        .map(|container| &container.name)
        .filter(|name| *name != CONTAINER)
    {
        if let Some(why) = not_running(wait::container(&pod, container)) {
            report.not_walked.push((container.clone(), why));
            continue;
        }
        let target = exec::Target {
            client: &cluster.client,
            namespace,
            pod: name,
            container,
        };
        match walk(target).await {
            Ok(walk) => report.walked.push((container.clone(), walk)),
            Err(error) => report
                .not_walked
                .push((container.clone(), format!("{error:#}"))),
        }
    }
    report.findings = judge(cluster, &report.walked).await?;
    Ok(report)
}

fn not_running(status: Option<&ContainerStatus>) -> Option<String> {
    let state = status.and_then(|status| status.state.as_ref());
    match state {
        Some(state) if state.running.is_some() => None,
        Some(state) if state.terminated.is_some() => Some("it has ended".to_owned()),
        _ => Some("it has not started".to_owned()),
    }
}

/// Reads everything in one container.
///
/// # Errors
/// It has no shell or no `cat`, or the walk did not come to its end.
async fn walk(target: exec::Target<'_>) -> anyhow::Result<Walk> {
    let mark = mark()?;
    let mut splitter = Splitter::new(&mark);
    let command = ["sh", "-c", WALK, "sh", &mark];
    let run = exec::stream(target, &command, |bytes| splitter.feed(bytes));
    let (code, stderr) = tokio::time::timeout(LIMIT, run)
        .await
        .map_err(|_| anyhow!("the walk took more than {} s", LIMIT.as_secs()))?
        .context("`sh` cannot be run in it")?;
    ensure!(code != 127, "it has no `cat`");
    let split = splitter.end();
    ensure!(
        split.ended,
        "the walk broke off with exit code {code}: {stderr}"
    );
    let mut tokens: BTreeMap<Jwt, BTreeSet<String>> = BTreeMap::new();
    for (jwt, path) in split.found {
        tokens.entry(jwt).or_default().insert(path);
    }
    Ok(Walk {
        files: split.files.len(),
        tokens,
    })
}

/// A line that no file holds by chance.
fn mark() -> anyhow::Result<String> {
    let mut random = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    Ok(format!(
        "tollgate-scan-{:032x}:",
        u128::from_ne_bytes(random)
    ))
}

/// Asks the API server about every token, once.
async fn judge(cluster: &Cluster, walked: &[(String, Walk)]) -> anyhow::Result<Vec<Finding>> {
    let mut answers: BTreeMap<&Jwt, Option<String>> = BTreeMap::new();
    let mut findings = Vec::new();
    for (container, walk) in walked {
        for (jwt, paths) in &walk.tokens {
            let user = match answers.get(jwt) {
                Some(known) => known.clone(),
                None => cluster.review(jwt.expose()).await?,
            };
            if let Some(user) = &user {
                findings.push(Finding {
                    container: container.clone(),
                    paths: paths.clone(),
                    user: user.clone(),
                });
            }
            answers.insert(jwt, user);
        }
    }
    Ok(findings)
}
