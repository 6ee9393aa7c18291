//! `tollgate-webhook check`: explains. Of a file (`file`), what admission would say of its pods; of a namespace on a live cluster
//! (`cluster`), what is not as it should be and who can get round. Both judge with the functions that admission itself uses.

mod cluster;
mod file;
mod finding;
mod install;
mod metadata;
mod pods;
mod principals;
mod rules;
mod selector;
mod snapshot;
mod ways;

use serde::Serialize;

pub use self::cluster::{BadCluster, check_namespace};
pub use self::file::{BadInput, check_files};
use crate::cli::Output;

/// What is printed, and whether all is well.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// For stdout.
    pub text: String,
    /// For stderr; may be empty.
    pub summary: String,
    /// Whether the exit status is 0.
    pub is_good: bool,
}

/// Results as text, or as one JSON list.
fn render<T: Serialize>(results: &[T], output: Output, text: impl Fn(&T) -> String) -> String {
    match output {
        Output::Text => results.iter().map(text).collect(),
        Output::Json => {
            let json = serde_json::to_string_pretty(results);
            json.map(|json| json + "\n").unwrap_or_default()
        }
    }
}
