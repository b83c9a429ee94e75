//! What the tests share: trees as literals and at random, folders on a real file system, a monitor that
//! remembers, the command `diptych`, and other people's tools to compare with.
//!
//! Everything here panics with a message that says what to do, for only tests call it.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

pub mod command;
pub mod dir;
pub mod disk;
pub mod edits;
pub mod fuzz_bodies;
pub mod golden;
pub mod heap;
pub mod monitor;
pub mod random;
pub mod readers;
pub mod tools;
pub mod tree;
pub mod vectors;

pub use command::diptych;
pub use dir::TestDir;
pub use monitor::TestMonitor;
pub use random::{Random, for_each_seed};
pub use tree::{Run, Tree};

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The workspace's folder, above that of the package whose tests run. Cargo says where that is when they are run,
/// and what was built need not have been built there.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&package).parent().unwrap().to_owned()
    })
}

/// Where cargo put what it built: the folder above the running test binary that cargo marked.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let marked = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    marked.unwrap_or_else(|| panic!("{} is not in a target folder of cargo", exe.display())).to_owned()
}
