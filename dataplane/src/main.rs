//! The `dataplane` binary: agent and command line in one.

fn main() -> std::process::ExitCode {
    control::heap::share();
    dataplane::cli::main()
}
