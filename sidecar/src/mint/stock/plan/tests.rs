//! The stock over time. Tokens are numbers here.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A stock whose mints take a fixed time.
struct Run {
    plan: Plan<u32>,
    now: Instant,
    lead: Duration,
    /// When each mint under way ends.
    minting: VecDeque<Instant>,
    minted: u32,
    hits: u32,
    misses: u32,
}

impl Run {
    fn new(lead: Duration) -> Self {
        Self {
            plan: Plan::new(),
            now: Instant::now(),
            lead,
            minting: VecDeque::new(),
            minted: 0,
            hits: 0,
            misses: 0,
        }
    }

    fn call(&mut self) -> Option<u32> {
        let token = self.plan.call(self.now);
        match token {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        for _ in 0..self.plan.fill(self.now) {
            self.minting.push_back(self.now + self.lead);
        }
        token
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.minting.front().copied().filter(|at| *at <= end) {
            self.minting.pop_front();
            self.minted += 1;
            self.plan.minted(at, self.minted);
        }
        self.now = end;
    }
}

#[test]
fn a_lone_call_mints_nothing_ahead() {
    let mut run = Run::new(5 * MS);
    for _ in 0..5 {
        assert_eq!(run.call(), None);
        run.pass(IDLE);
    }
    assert_eq!(run.minted, 0);
    assert_eq!(run.plan.wake(), None);
}

#[test]
fn a_steady_agent_is_served_by_few_tokens() {
    // Every 10 ms, from an API server of 5, 50 and 300 ms.
    for (lead, most) in [(5, 1), (50, 8), (300, 32)] {
        let mut run = Run::new(lead * MS);
        for _ in 0..500 {
            run.call();
            run.pass(10 * MS);
        }
        (run.hits, run.misses) = (0, 0);
        for _ in 0..1000 {
            run.call();
            run.pass(10 * MS);
            assert!(run.plan.held.len() + run.plan.filling <= most);
        }
        assert_eq!(run.misses, 0, "{lead} ms");
    }
}

#[test]
fn a_burst_from_nothing_costs_one_token_and_bursts_that_come_again_are_learned() {
    let mut run = Run::new(5 * MS);
    let mut misses = Vec::new();
    for _ in 0..7 {
        run.misses = 0;
        for _ in 0..20 {
            run.call();
        }
        misses.push(run.misses);
        run.pass(2000 * MS);
    }
    assert_eq!(misses, [20, 19, 18, 16, 12, 4, 0]);
    run.pass(IDLE);
    let held = run.plan.held.len();
    run.plan.expire(run.now);
    assert_eq!((held, run.plan.held.len()), (32, 0));
}

#[test]
fn nothing_is_held_once_the_agent_is_idle() {
    let mut run = Run::new(5 * MS);
    for _ in 0..3 {
        run.call();
        run.pass(100 * MS);
    }
    assert_eq!(run.plan.held.len(), 1);
    let idle = run.now - 100 * MS + IDLE;
    assert_eq!(run.plan.wake(), Some(idle));
    run.plan.expire(idle - MS);
    assert_eq!(run.plan.held.len(), 1);
    run.plan.expire(idle);
    assert_eq!((run.plan.held.len(), run.plan.wake()), (0, None));
    // A mint that ends later is not kept.
    run.plan.minted(idle, 99);
    assert_eq!(run.plan.held.len(), 0);
    assert_eq!(run.plan.fill(idle), 0);
}

#[test]
fn what_becomes_too_old_makes_the_stock_smaller() {
    let mut run = Run::new(5 * MS);
    for _ in 0..3 {
        for _ in 0..6 {
            run.call();
        }
        run.pass(1000 * MS);
    }
    assert_eq!((run.plan.wanted, run.plan.held.len()), (4, 4));
    // One call every 9 s keeps the agent from being idle, and uses one token in 9 s.
    for _ in 0..12 {
        assert!(run.call().is_some());
        run.pass(8000 * MS);
        run.plan.expire(run.now);
        let too_old = |(since, _): &(Instant, u32)| run.now - *since >= HOLD;
        assert!(!run.plan.held.iter().any(too_old));
        run.pass(1000 * MS);
    }
    assert!(run.plan.wanted <= 3, "{}", run.plan.wanted);
}

#[test]
fn a_refusal_pauses_the_mints_ahead_and_a_longer_one_each_time() {
    let secs = Duration::from_secs;
    let mut run = Run::new(5 * MS);
    run.call();
    run.call();
    let fail = |run: &mut Run, retry_after: Option<u32>| {
        run.plan.failed(run.now, retry_after);
        run.minting.clear();
        run.plan.paused_until.unwrap() - run.now
    };
    for (retry_after, pause) in [
        (None, 1),
        (None, 2),
        (None, 4),
        (Some(60), 60),
        (Some(1), 16),
        (None, 30),
        (None, 30),
    ] {
        assert_eq!(run.plan.filling, 1);
        assert_eq!(fail(&mut run, retry_after), secs(pause));
        // A call in the meantime finds no token and starts no mint ahead.
        assert_eq!(run.call(), None);
        assert_eq!(run.plan.filling, 0);
        run.pass(secs(pause));
        // The pause may be longer than an agent's patience: two calls make a burst.
        run.call();
        run.call();
    }
    run.pass(MS * 5);
    assert_eq!(run.plan.failures, 0, "it works again");
    // Together: one failure, the longest wait.
    run.plan.refused(run.now, Some(3));
    run.plan.refused(run.now, Some(2));
    run.plan.refused(run.now, None);
    assert_eq!(run.plan.failures, 1);
    assert_eq!(run.plan.paused_until, Some(run.now + secs(3)));
}

#[test]
fn a_closed_stock_takes_and_gives_nothing() {
    let mut run = Run::new(5 * MS);
    for _ in 0..3 {
        run.call();
        run.pass(10 * MS);
    }
    run.plan.close();
    assert_eq!((run.call(), run.plan.wake()), (None, None));
    run.plan.minted(run.now, 7);
    assert_eq!(run.plan.held.len(), 0);
    assert_eq!(run.plan.fill(run.now), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Call,
    Pass(u64),
    Minted,
    Failed(Option<u32>),
    Distrust,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Call),
        3 => (0..15_000_u64).prop_map(Step::Pass),
        2 => (0..50_u64).prop_map(Step::Pass),
        4 => Just(Step::Minted),
        1 => proptest::option::of(0..40_u32).prop_map(Step::Failed),
        1 => Just(Step::Distrust),
    ]
}

proptest! {
    #[test]
    fn whatever_happens(steps in prop::collection::vec(step(), 0..400)) {
        let mut plan: Plan<u32> = Plan::new();
        let mut now = Instant::now();
        let mut last_call = None;
        let (mut under_way, mut next) = (0, 0);
        let mut born = Vec::new();
        let mut used = BTreeSet::new();
        for step in steps {
            match step {
                Step::Call => {
                    if let Some(token) = plan.call(now) {
                        prop_assert!(used.insert(token), "used twice");
                        prop_assert!(now - born[token as usize] < HOLD, "too old");
                    }
                    last_call = Some(now);
                }
                Step::Pass(ms) => {
                    let end = now + Duration::from_millis(ms);
                    // As the keeper does: it sleeps until there is something to drop.
                    while let Some(wake) = plan.wake().filter(|wake| *wake <= end) {
                        now = now.max(wake);
                        plan.expire(now);
                        prop_assert!(plan.wake().is_none_or(|next| next > now), "it would spin");
                    }
                    now = end;
                }
                Step::Minted if under_way > 0 => {
                    under_way -= 1;
                    born.push(now);
                    plan.minted(now, next);
                    next += 1;
                }
                Step::Failed(retry_after) if under_way > 0 => {
                    under_way -= 1;
                    plan.failed(now, retry_after);
                    prop_assert_eq!(plan.fill(now), 0, "no pause");
                }
                Step::Distrust => plan.clear(),
                Step::Minted | Step::Failed(_) => {}
            }
            under_way += plan.fill(now);
            prop_assert_eq!(plan.fill(now), 0, "the same mints twice");
            prop_assert!(plan.held.len() + under_way <= MOST);
            prop_assert_eq!(plan.wake().is_some(), !plan.held.is_empty(), "a timer without a token");
            let idle = last_call.is_none_or(|last| now - last >= IDLE);
            prop_assert!(!idle || plan.held.is_empty(), "held for nobody");
        }
    }
}
