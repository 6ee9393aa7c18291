//! What both Tollgate binaries use, and nothing that only one of them does.

pub mod admin;
pub mod contract;
pub mod drain;
pub mod duration;
pub mod knobs;
pub mod no_proxy;
pub mod ready;
pub mod reasons;
pub mod record;
pub mod secret;
pub mod serve;
pub mod signals;
pub mod telemetry;
pub mod tls;
