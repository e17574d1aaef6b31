//! Process shell.
fn main() {}
