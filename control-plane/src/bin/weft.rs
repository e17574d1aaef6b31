//! Process shell of the operators' CLI.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_control_plane::cli::main()
}
