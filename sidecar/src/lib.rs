//! The Tollgate sidecar: an API proxy on localhost that decides, records, mints one token per call and forwards.

pub mod agent_files;
pub mod app;
pub mod authority;
pub mod body;
pub mod call;
pub mod child;
pub mod cli;
pub mod config;
pub mod credential;
pub mod file;
pub mod floor;
pub mod headers;
pub mod kubeconfig;
pub mod local;
pub mod metrics;
pub mod mint;
mod names;
pub mod place;
pub mod probe;
pub mod proxy;
pub mod record;
pub mod refusal;
pub mod standalone;
pub mod status;
pub mod upstream;
pub mod verify;
