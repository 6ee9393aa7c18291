//! What both Tollgate binaries use, and nothing that only one of them does.

pub mod contract;
pub mod drain;
pub mod duration;
pub mod knobs;
pub mod ready;
pub mod secret;
pub mod telemetry;
