//! The `tftpool` command. Everything it does is in the library's `cli` module.

fn main() -> std::process::ExitCode {
    tftpool::cli::main()
}
