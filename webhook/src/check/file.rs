//! What admission would say of the pods in some files, without a cluster.

use std::io::Read as _;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use tollgate_shared::contract::Injection;

use super::{Report, render};
use crate::cli::Output;
use crate::config;
use crate::inject::{Context, Decision, InjectConfig, PatchOp, inject};
use crate::json::Tree;
use crate::reason::{Denial, one_line};
use crate::validate::{Operation, Verdict, validate};
use crate::workload::{self, Made};
use crate::yaml;

/// What keeps files from being checked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", faults.join("\ntollgate-webhook: "))]
pub struct BadInput {
    /// Each with the name of its file.
    faults: Vec<String>,
    /// Whether the configuration is good, so that the files alone are to blame.
    pub is_configured: bool,
}

/// The largest input.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Checks every pod and workload in `files` (`-`: standard input) as if its namespace had this label.
///
/// # Errors
/// Every fault of every file, and of the configuration.
pub fn check_files(
    files: &[String],
    injection: Injection,
    config: &[PathBuf],
    output: Output,
) -> Result<Report, BadInput> {
    let mut faults = Vec::new();
    let config = match config {
        paths @ [_, ..] => config::read(paths).map_err(|mut found| faults.append(&mut found)),
        [] => Ok(InjectConfig::with_image(concat!(
            "tollgate-sidecar:",
            env!("CARGO_PKG_VERSION")
        ))),
    };
    let is_configured = config.is_ok();
    let mut objects = Vec::new();
    for file in files {
        match read(file).and_then(|text| parse(&text)) {
            Ok(found) => objects.extend(found.into_iter().map(|object| (file, object))),
            Err(found) => faults.extend(found.iter().map(|fault| format!("{file}: {fault}"))),
        }
    }
    let (Ok(config), true) = (config, faults.is_empty()) else {
        return Err(BadInput {
            faults,
            is_configured,
        });
    };
    let explain =
        |(file, object): &(&String, Value)| Explained::new(file, object, injection, &config);
    let explained: Vec<Explained> = objects.iter().map(explain).collect();
    Ok(Report {
        text: render(&explained, output, Explained::text),
        summary: String::new(),
        is_good: explained.iter().all(|one| one.decision != "denied"),
    })
}

fn read(file: &str) -> Result<String, Vec<String>> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin()
            .lock()
            .take(LIMIT + 1)
            .read_to_string(&mut text),
        path => std::fs::File::open(path)
            .and_then(|file| file.take(LIMIT + 1).read_to_string(&mut text)),
    };
    match read {
        Ok(size) if u64::try_from(size).is_ok_and(|size| size <= LIMIT) => Ok(text),
        Ok(_) => Err(vec![format!("is larger than {LIMIT} bytes")]),
        Err(error) => Err(vec![error.to_string()]),
    }
}

/// The objects of one file: documents of YAML or JSON, and the items of lists.
fn parse(text: &str) -> Result<Vec<Value>, Vec<String>> {
    // YAML that begins so is JSON nearly always, and JSON may hold what YAML may not.
    let json = text
        .trim_start()
        .starts_with('{')
        .then(|| Tree::parse(text.as_bytes()));
    let documents: Vec<Value> = match json {
        Some(Ok(document)) => vec![document.root().to_value()],
        _ => yaml::manifests(text).map_err(|fault| vec![fault])?,
    };
    let mut objects = Vec::new();
    let mut faults = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let is_list = |kind: &str| kind.ends_with("List");
        match (
            document.get("kind").and_then(Value::as_str),
            document.get("items"),
        ) {
            (Some(kind), Some(Value::Array(items))) if is_list(kind) => {
                objects.extend(items.iter().cloned());
            }
            (Some(_), _) => objects.push(document),
            (None, _) => faults.push(format!("document {} has no kind", index + 1)),
        }
    }
    if objects.is_empty() && faults.is_empty() {
        faults.push("there is no object in it".to_owned());
    }
    if faults.is_empty() {
        Ok(objects)
    } else {
        Err(faults)
    }
}

/// What would become of one object.
#[derive(Debug, Serialize)]
struct Explained {
    source: String,
    kind: String,
    namespace: String,
    name: String,
    /// `injected`, `unchanged`, `skipped` or `denied`; `no-pod` for an object that makes none, `not-judged` for one of which nobody
    /// here knows.
    decision: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
    warnings: Vec<String>,
    /// As it would be stored; only where it is injected.
    pod: Option<Value>,
}

impl Explained {
    fn new(source: &str, object: &Value, injection: Injection, config: &InjectConfig) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").or_else(|| text("/metadata/generateName"));
        let namespace = text("/metadata/namespace").unwrap_or("default");
        let mut explained = Self {
            source: source.to_owned(),
            kind: text("/kind").unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
            name: name.unwrap_or_default().to_owned(),
            decision: "no-pod",
            reason: None,
            message: None,
            warnings: Vec::new(),
            pod: None,
        };
        let context = Context::unvouched(injection, namespace, config);
        match workload::made(object) {
            Made::Pod(pod) => explained.decide(pod, &context),
            Made::Nothing => {}
            Made::Unknown => {
                explained.decision = "not-judged";
                explained.message = Some(format!(
                    "{} {} is no kind that is known here, and has no pod template where others have it; its pods are judged when they are made",
                    text("/apiVersion").unwrap_or_default(),
                    explained.kind
                ));
            }
        }
        explained
    }

    fn decide(&mut self, pod: Value, context: &Context<'_>) {
        let decision = inject(&pod, context);
        self.reason = Some(decision.reason().code());
        let stored = match decision {
            Decision::Deny(denial) => return self.deny(&denial),
            Decision::Skip(_) => {
                self.decision = "skipped";
                pod
            }
            Decision::Patch {
                operations,
                warnings,
            } => {
                self.warnings = warnings;
                self.decision = match operations.is_empty() {
                    true => "unchanged",
                    false => "injected",
                };
                match patched(pod, &operations) {
                    Ok(pod) => self.pod.insert(pod).clone(),
                    Err(error) => {
                        self.message = Some(error);
                        self.decision = "denied";
                        return;
                    }
                }
            }
        };
        // The stage that judges the final pod has the last word.
        if let Verdict::Deny(denial) = validate(Operation::Create, &stored, None, context) {
            self.reason = Some(denial.reason.code());
            self.deny(&denial);
        }
    }

    fn deny(&mut self, denial: &Denial) {
        self.decision = "denied";
        self.message = Some(denial.message.clone());
        self.pod = None;
    }

    /// Lines of comment, and the pod: all of it together is YAML.
    fn text(&self) -> String {
        let head = format!(
            "{}: {} {}/{}: {}",
            self.source, self.kind, self.namespace, self.name, self.decision
        );
        let reason = self
            .reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let message = self.message.as_ref();
        let message = message
            .map(|message| format!(": {message}"))
            .unwrap_or_default();
        let mut text = format!("# {}\n", one_line(&(head + &reason + &message)));
        for warning in &self.warnings {
            text += &format!("# warning: {}\n", one_line(warning));
        }
        if let Some(Ok(pod)) = self.pod.as_ref().map(serde_saphyr::to_string) {
            text += &format!("---\n{pod}");
        }
        text
    }
}

fn patched(mut pod: Value, operations: &[PatchOp]) -> Result<Value, String> {
    let text = |error: &dyn std::fmt::Display| format!("the patch does not apply: {error}");
    let operations = serde_json::to_value(operations).map_err(|error| text(&error))?;
    let patch: json_patch::Patch = serde_json::from_value(operations).map_err(|e| text(&e))?;
    json_patch::patch(&mut pod, &patch).map_err(|error| text(&error))?;
    Ok(pod)
}
