//! The manifests against the code: names, ports, paths and labels are those of `shared::contract`, and rules that every object of a
//! kind keeps. No cluster is needed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, and so may what it calls"
)]

mod examples;
mod files;
mod install;
mod policies;
mod render;
mod threat_model;
mod webhooks;
