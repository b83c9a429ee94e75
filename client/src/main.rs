//! The command `diptych`.

fn main() -> std::process::ExitCode {
    diptych_client::cli::run()
}
