//! Tools for tests on a real cluster.
