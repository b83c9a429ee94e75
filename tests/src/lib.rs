//! What the tests share: trees as literals and at random, folders on a real file system, a monitor that
//! remembers, the command `diptych`, and other people's tools to compare with.
//!
//! Everything here panics with a message that says what to do, for only tests call it.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

pub mod command;
pub mod dir;
pub mod disk;
pub mod monitor;
pub mod random;
pub mod tools;
pub mod tree;

pub use command::diptych;
pub use dir::TestDir;
pub use monitor::TestMonitor;
pub use random::{Random, for_each_seed};
pub use tree::{Run, Tree};

use std::path::{Path, PathBuf};

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Where cargo put what it built: the folder above the running test binary that cargo marked.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let marked = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    marked.unwrap_or_else(|| panic!("{} is not in a target folder of cargo", exe.display())).to_owned()
}
