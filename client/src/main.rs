//! The command `diptych`.

fn main() -> std::process::ExitCode {
    diptych_localfs::scan::raise_descriptor_limit();
    diptych_client::cli::run()
}
