//! Replicas take a changed file at different times, and what one injects another judges. So a new image of the sidecar is accepted at
//! once, but injected only when the file has reached every replica; the one before it is accepted for as long again.

use std::time::{Duration, Instant};

use crate::inject::InjectConfig;

/// How long a changed ConfigMap may take to reach every replica: a kubelet looks about once a minute, and what it sees may be old by
/// as much.
const SPREAD: Duration = Duration::from_secs(120);

/// Which image is injected, and which others are accepted.
#[derive(Debug)]
pub(super) struct Handover {
    injected: String,
    /// Since when the file names another image than the injected one.
    pending: Option<Instant>,
    /// Images that were injected before, and until when they are accepted.
    before: Vec<(String, Instant)>,
}

impl Handover {
    /// Nothing is handed over at the start.
    pub(super) fn new(config: &InjectConfig) -> Self {
        Self {
            injected: config.image.clone(),
            pending: None,
            before: Vec::new(),
        }
    }

    /// The file names this image now.
    pub(super) fn wanted(&mut self, image: &str, now: Instant) {
        self.pending = (image != self.injected).then_some(now);
    }

    /// What the file says, as it is to be followed at this time.
    pub(super) fn follow(&mut self, file: &InjectConfig, now: Instant) -> InjectConfig {
        if self.pending.is_some_and(|since| now >= since + SPREAD) {
            let old = std::mem::replace(&mut self.injected, file.image.clone());
            self.before.push((old, now + SPREAD));
            self.pending = None;
        }
        self.before.retain(|(_, until)| now < *until);
        let mut config = file.clone();
        config.image.clone_from(&self.injected);
        let before = self.before.iter().map(|(image, _)| image);
        let also = before.chain(self.pending.is_some().then_some(&file.image));
        config.previous_images.extend(also.cloned());
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether what `by` injects is accepted by `judge`.
    fn accepts(judge: &InjectConfig, by: &InjectConfig) -> bool {
        judge.image == by.image || judge.previous_images.contains(&by.image)
    }

    #[test]
    fn replicas_that_take_an_image_up_to_two_minutes_apart_accept_each_other() {
        let (old, new) = (InjectConfig::with_image("a"), InjectConfig::with_image("b"));
        let start = Instant::now();
        for apart in [0, 1, 30, 119] {
            let taken = [start, start + Duration::from_secs(apart)];
            let mut replicas = taken.map(|taken| (taken, Handover::new(&old), false));
            let mut injected = [String::new(), String::new()];
            for second in 0..600 {
                let now = start + Duration::from_secs(second);
                let follow = |(taken, handover, has): &mut (Instant, Handover, bool)| {
                    if now < *taken {
                        return handover.follow(&old, now);
                    }
                    if !*has {
                        handover.wanted("b", now);
                        *has = true;
                    }
                    handover.follow(&new, now)
                };
                let [first, second_one] = &mut replicas;
                let (first, other) = (follow(first), follow(second_one));
                assert!(
                    accepts(&first, &other) && accepts(&other, &first),
                    "{second}"
                );
                injected = [first.image, other.image];
            }
            assert_eq!(injected, ["b", "b"]);
        }
    }

    #[test]
    fn an_image_that_is_taken_back_is_never_injected_and_nothing_is_accepted_for_ever() {
        let (a, b) = (InjectConfig::with_image("a"), InjectConfig::with_image("b"));
        let start = Instant::now();
        let mut handover = Handover::new(&a);
        handover.wanted("b", start);
        assert_eq!(handover.follow(&b, start).previous_images, ["b"]);
        handover.wanted("a", start + Duration::from_secs(60));
        let followed = handover.follow(&a, start + Duration::from_secs(600));
        assert_eq!(
            (followed.image.as_str(), followed.previous_images.len()),
            ("a", 0)
        );
        handover.wanted("b", start);
        assert_eq!(handover.follow(&b, start + SPREAD).previous_images, ["a"]);
        assert!(
            handover
                .follow(&b, start + SPREAD * 2)
                .previous_images
                .is_empty()
        );
    }
}
