//! What `/metrics` says, and what alerts and documentation say of it.

mod rig;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use rig::Rig;
use rig::api_server::{Answer, jwt};
use serde_json::json;

/// The kubelet renews the bootstrap token by one that was issued 1000 s ago, and a call is made with it.
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
async fn renew(rig: &Rig) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let bootstrap = jwt(&json!({"iat": now.unwrap().as_secs() - 1000}));
    fs::write(rig.folder.path().join("bootstrap/token"), bootstrap).unwrap();
    rig.api.mints(Answer::json("401 Unauthorized", "", "{}"));
    // The 401 makes it look at the file, which has changed.
    rig.get("/api/v1/pods").await;
}

#[tokio::test]
async fn metrics_say_how_minting_goes() {
    let rig = Rig::start().await;
    let lines = rig.metric("tollgate_records_written_total").await;
    renew(&rig).await;
    let age = rig.metric("tollgate_bootstrap_token_age_seconds").await;
    assert!((1000.0..1000.0 + 3600.0).contains(&age), "{age}");
    rig.until_metric("tollgate_records_written_total", lines + 2.0)
        .await;
    assert_eq!(rig.metric("tollgate_records_refused_total").await, 0.0);
    assert_eq!(rig.metric("tollgate_open_streams").await, 0.0);
    assert_eq!(rig.metric("tollgate_mint_seconds_count").await, 1.0);
}

/// A misspelt name in an alert is an alert that never comes.
#[tokio::test]
async fn alerts_and_docs_name_metrics_that_exist() {
    let rig = Rig::start().await;
    renew(&rig).await;
    let page = rig.metrics().await;
    let known: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(known.contains(&"tollgate_calls"), "{page}");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(repository.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let alerts = repository.join("manifests/components/prometheus/sidecar-alerts.yaml");
    let mut alerted = 0;
    for file in pages.chain([alerts.clone()]) {
        let text = fs::read_to_string(&file).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = words.filter(|word| word.starts_with("tollgate_"));
        for word in ours.filter(|word| !word.starts_with("tollgate_webhook_")) {
            let ends = ["_total", "_bucket", "_sum", "_count"];
            let name = ends.iter().find_map(|end| word.strip_suffix(end));
            let name = name.unwrap_or(word);
            assert!(known.contains(&name), "{}: {word}", file.display());
            alerted += usize::from(file == alerts);
        }
    }
    assert_eq!(alerted, 2, "the alerts are read");
}
