//! Changes reviews as JSON: of bytes changed blindly, next to nothing would still be a review.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

/// The pods of the golden cases, each in a review.
static REVIEWS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let mut paths: Vec<_> = fs::read_dir(fixtures)
        .expect("the fixtures")
        .map(|entry| entry.expect("a case").path().join("pod.yaml"))
        .collect();
    paths.sort();
    let read = |path| {
        let pod: Value = serde_saphyr::from_str(&fs::read_to_string(path).ok()?).ok()?;
        let operation = json!("CREATE");
        Some(json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "operation": operation, "namespace": "team-a",
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "object": pod,
            },
        }))
    };
    paths.into_iter().filter_map(read).collect()
});

/// Values that decisions turn on.
const TOKENS: [&str; 16] = [
    "null", "true", "false", "0", "-1", "64430", "6443", "\"\"", "\"true\"", "\"false\"", "\"tollgate\"",
    "\"tollgate-bootstrap\"", "\"tollgate-agent\"", "\"/var/run/secrets/kubernetes.io/serviceaccount\"", "[]", "{}",
];

/// A small generator: the fuzzer's seed decides everything.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        // Steele and Vigna, SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end.max(1) as u64).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// A changed input in `data`, and its size.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut dice = Dice(seed.into());
    let review = serde_json::from_slice::<Value>(&data[..size]).ok();
    let mut review = match review.filter(|_| dice.below(8) != 0) {
        Some(review) => review,
        None => dice.pick(&REVIEWS).clone(),
    };
    for _ in 0..=dice.below(4) {
        change(&mut review, &mut dice);
    }
    let text = review.to_string();
    if text.len() > max_size.min(data.len()) || dice.below(16) == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    data[..text.len()].copy_from_slice(text.as_bytes());
    text.len()
}

/// Pointers to every value below `value`.
fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn any_pointer(value: &Value, dice: &mut Dice) -> String {
    let mut found = Vec::new();
    pointers(value, "", &mut found);
    dice.pick(&found).clone()
}

/// One change: a part is taken away, copied from another review, repeated, or becomes another value.
fn change(review: &mut Value, dice: &mut Dice) {
    let path = any_pointer(review, dice);
    match dice.below(5) {
        0 => {
            let Some((parent, key)) = path.rsplit_once('/') else { return };
            match review.pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.remove(key)),
                Some(Value::Array(items)) => drop(key.parse().ok().map(|index: usize| items.remove(index))),
                _ => {}
            }
        }
        1 => {
            let other = dice.pick(&REVIEWS);
            if let (Some(here), Some(there)) = (review.pointer_mut(&path), other.pointer(&path)) {
                *here = there.clone();
            }
        }
        2 => {
            // A whole part of another pod: volumes, containers, labels.
            let other = dice.pick(&REVIEWS);
            let there = any_pointer(other, dice);
            let (Some((parent, key)), Some(value)) = (there.rsplit_once('/'), other.pointer(&there)) else { return };
            match review.pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.insert(key.replace("~1", "/").replace("~0", "~"), value.clone())),
                Some(Value::Array(items)) => items.push(value.clone()),
                _ => {}
            }
        }
        3 => {
            if let Some(Value::Array(items)) = review.pointer_mut(&path) {
                if let Some(item) = items.first().cloned() {
                    items.push(item);
                }
            }
        }
        _ => {
            let token = serde_json::from_str(dice.pick(&TOKENS)).expect("a value");
            if let Some(here) = review.pointer_mut(&path) {
                *here = token;
            }
        }
    }
}
