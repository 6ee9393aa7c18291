//! The policies of `manifests/base/policies`, tried on a real API server: for each rule a request that is refused and the
//! neighbour that is not. Nothing here needs the webhook: the policies must hold while it is down, so pods are made before their
//! namespace is managed. Policies with parameters are tried as copies, bound to the test's own namespace.

#![expect(
    clippy::too_many_lines,
    reason = "a test is a scene and one table of cases, which rustfmt spreads over many lines"
)]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod actor;
mod audience;
mod enforced;
mod fixture;
mod flow;
mod label;
mod outage;
mod own;
mod rights;
mod sidecar;
mod token;
mod want;
