//! `docs/threat-model.md` names tests, fixtures and policies: each of them must exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::files::root;

/// Names of all functions in the repository's Rust code.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_built = path.file_name().is_some_and(|name| name == "target");
        if path.is_dir() && !is_built {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn names_in_the_threat_model_exist() {
    let repository = root().join("..");
    let page = fs::read_to_string(repository.join("docs/threat-model.md")).unwrap();
    let mut tests = BTreeSet::new();
    for folder in ["shared", "webhook", "sidecar", "e2e"] {
        functions(&repository.join(folder), &mut tests);
    }
    let mut named = 0;
    for word in page.split('`').skip(1).step_by(2) {
        let is_test = word.matches('_').count() >= 1
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_test {
            assert!(tests.contains(word), "no test {word}");
            named += 1;
        } else if word.starts_with("fixtures/") {
            let folder = repository.join("webhook/tests").join(word);
            assert!(folder.is_dir(), "no {word}");
        } else if word.starts_with("policies/") {
            let file = root().join("base").join(word);
            assert!(file.is_file(), "no {word}");
        }
    }
    assert!(named > 20, "only {named} tests are named");
}
