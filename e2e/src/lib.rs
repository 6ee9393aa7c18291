//! Tools for tests on a real cluster: a namespace for one test, an agent pod in it, and readers for what both the sidecar and the
//! API server write. Nothing here knows the inside of the product; it sees what a user sees.

pub mod agent;
pub mod audit;
pub mod cluster;
pub mod compare;
pub mod config;
mod dump;
pub mod exec;
pub mod installed;
pub mod join;
pub mod jwt;
pub mod load;
pub mod namespace;
pub mod node;
pub mod process;
pub mod program;
pub mod records;
pub mod scan;
pub mod spy;
pub mod wait;
