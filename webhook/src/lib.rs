//! The Tollgate admission webhook.
