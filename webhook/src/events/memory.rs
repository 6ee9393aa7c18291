//! What was looked at lately, so that a workload that fails in a loop costs a look now and then, not one a pod. Pure; bounded,
//! since anybody who reaches the port can give hints.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::hint::Hint;

/// How long nobody looks again.
const QUIET: Duration = Duration::from_secs(600);
/// How many hints of one namespace are followed in that time.
const OF_NAMESPACE: usize = 32;
/// How many of all namespaces.
const OF_ALL: usize = 1024;

/// Hints that were followed, and when.
#[derive(Debug, Default)]
pub(crate) struct Memory(HashMap<Hint, Instant>);

/// What becomes of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// It is followed, and remembered.
    Yes,
    /// It was followed a short time ago.
    Known,
    /// There are too many.
    TooMany,
}

impl Memory {
    /// Decides for one hint.
    pub(crate) fn follow(&mut self, hint: &Hint, now: Instant) -> Follow {
        self.0.retain(|_, then| now.duration_since(*then) < QUIET);
        if self.0.contains_key(hint) {
            return Follow::Known;
        }
        let of_namespace = self
            .0
            .keys()
            .filter(|known| known.namespace == hint.namespace);
        if self.0.len() >= OF_ALL || of_namespace.count() >= OF_NAMESPACE {
            return Follow::TooMany;
        }
        self.0.insert(hint.clone(), now);
        Follow::Yes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::json::Tree;
    use crate::reason::Reason;

    fn hint(namespace: &str, workload: usize) -> Hint {
        let uid = format!("{workload:08x}-3c55-4a43-8f0c-6a0d8f1c2b3a");
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid, "controller": true});
        let object = json!({"metadata": {"ownerReferences": [owner]}});
        let request = json!({"operation": "CREATE", "namespace": namespace, "object": object});
        Hint::read(Tree::of(&request).unwrap().root(), Reason::HostPath).unwrap()
    }

    #[test]
    fn a_loop_is_followed_once_in_a_while() {
        let (mut memory, begin) = (Memory::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(memory.follow(&hint("a", 0), begin), Follow::Yes);
        for second in 1..600 {
            assert_eq!(memory.follow(&hint("a", 0), at(second)), Follow::Known);
        }
        assert_eq!(memory.follow(&hint("a", 0), at(600)), Follow::Yes);
        let mut other = hint("a", 0);
        other.reason = Reason::SharedPid;
        assert_eq!(memory.follow(&other, at(601)), Follow::Yes);
    }

    #[test]
    fn no_namespace_takes_all_the_room_and_there_is_an_end_to_it() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let mut followed = 0;
        for namespace in 0..100 {
            for workload in 0..100 {
                let hint = hint(&format!("n{namespace}"), workload);
                followed += usize::from(memory.follow(&hint, now) == Follow::Yes);
                assert!(memory.0.len() <= OF_ALL);
            }
            assert_eq!(followed, OF_ALL.min((namespace + 1) * OF_NAMESPACE));
        }
        assert_eq!(memory.follow(&hint("n0", 0), now + QUIET), Follow::Yes);
        assert_eq!(memory.0.len(), 1);
    }
}
