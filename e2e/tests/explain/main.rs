//! What a user is told: events on workloads whose pods are denied, and `tollgate-webhook check` on a namespace of a live cluster.
#![expect(
    clippy::indexing_slicing,
    reason = "JSON of a test's own, in which a missing member is null"
)]

mod check;
mod events;
