//! The e2e program.

fn main() {}
