//! Process shell.
fn main(){}
