//! The Tollgate admission webhook.

pub mod app;
pub mod audience;
pub mod certificates;
pub mod check;
pub mod cli;
mod client;
pub mod config;
pub mod enable;
pub mod events;
pub mod inject;
mod json;
pub mod metrics;
pub mod reason;
pub mod review;
pub mod validate;
pub mod voucher;
mod workload;
mod yaml;
