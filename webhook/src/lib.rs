//! The Tollgate admission webhook.

pub mod inject;
pub mod reason;
pub mod validate;
