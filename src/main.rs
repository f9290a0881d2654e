//! The `punchlan` program: arguments, logs, run, exit code. Everything else is in the library.

fn main() -> std::process::ExitCode {
    punchlan::cli::main(std::env::args_os())
}
