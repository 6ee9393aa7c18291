//! The Tollgate sidecar: an API proxy on localhost that decides, records, mints one token per call and forwards.

pub mod refusal;
