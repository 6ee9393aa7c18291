//! `mint: ahead`: a small stock of unused tokens, each minted on record and used once. `Plan` decides; here are its clock, its
//! lock and the one task that mints and drops. The task sleeps without a timer while the stock is empty.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tollgate_shared::drain;
use tollgate_shared::record::AuditId;

use super::Minted;
use super::own::{OwnMints, Spare, why};
use crate::refusal::Refusal;

mod plan;

use plan::Plan;

/// Tokens that wait for a call.
pub struct Stock {
    plan: Mutex<Plan<Spare>>,
    /// Wakes the keeper.
    changed: Notify,
}

impl Default for Stock {
    fn default() -> Self {
        Self {
            plan: Mutex::new(Plan::new()),
            changed: Notify::new(),
        }
    }
}

impl Stock {
    /// A token for a call and the `Audit-ID` of its mint, if there is one. The keeper then sees to the next.
    pub fn take(&self) -> Option<(Minted, AuditId)> {
        let spare = self.plan().call(Instant::now());
        self.changed.notify_one();
        spare?.into_call()
    }

    /// The API server refused a mint for a call: the stock has to wait too.
    pub fn refused(&self, refusal: &Refusal) {
        self.plan().refused(Instant::now(), refusal.retry_after);
    }

    /// The API server answered 401 to a token of the stock: what killed that one has most likely killed all.
    pub fn distrust(&self) {
        self.plan().clear();
    }

    /// Mints and drops until the end is signalled, then drops the rest and waits for mints that are under way. Dropped, it
    /// gives those up.
    pub async fn keep(&self, mints: Arc<OwnMints>, mut ending: drain::Watch) {
        let mut filling = JoinSet::new();
        loop {
            let wake = self.plan().wake();
            tokio::select! {
                () = self.changed.notified() => {}
                Some(filled) = filling.join_next() => self.filled(filled),
                () = sleep_until(wake) => self.plan().expire(Instant::now()),
                () = ending.signaled() => break,
            }
            for _ in 0..self.plan().fill(Instant::now()) {
                let mints = Arc::clone(&mints);
                filling.spawn(async move { mints.mint(why::MINT_AHEAD).await });
            }
        }
        self.plan().close();
        while let Some(filled) = filling.join_next().await {
            self.filled(filled);
        }
    }

    fn filled(&self, filled: Result<Result<Spare, Refusal>, tokio::task::JoinError>) {
        let now = Instant::now();
        match filled {
            Ok(Ok(spare)) => self.plan().minted(now, spare),
            Ok(Err(refusal)) => self.plan().failed(now, refusal.retry_after),
            Err(error) => {
                tracing::error!(%error, "a mint ahead broke off");
                self.plan().failed(now, None);
            }
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan<Spare>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => pending().await,
    }
}
