//! Folders for tests, on a file system that keeps all attributes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, thread};

use rustix::fs::{XattrFlags, setxattr};

/// A folder of a test's own: below `DIPTYCH_TEST_DIR`, or else in cargo's target folder. It goes when the test
/// passes and stays when it fails.
pub struct TestDir(PathBuf);

impl TestDir {
    /// Makes one; `name` is for the people who look at what a failed test left.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let parent =
            env::var_os("DIPTYCH_TEST_DIR").map_or_else(|| crate::target().join("tmp"), PathBuf::from);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if let Err(error) = setxattr(&path, "user.diptych", b"probe", XattrFlags::empty()) {
            panic!(
                "{}: no extended attributes here ({error}); name a folder on ext4, xfs or btrfs in DIPTYCH_TEST_DIR",
                path.display()
            );
        }
        rustix::fs::removexattr(&path, "user.diptych").unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what the test left is in {}", self.0.display());
        } else if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Whether attributes in the `trusted` namespace can be set: root in most containers cannot. Says once that tests
/// go without, past the capture of what tests print.
pub fn may_set_trusted_xattrs() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        const CAP_SYS_ADMIN: u32 = 21;
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let may = u64::from_str_radix(effective.trim(), 16).unwrap() >> CAP_SYS_ADMIN & 1 == 1;
        if !may {
            let _ = writeln!(
                std::io::stderr(),
                "without CAP_SYS_ADMIN, made-up trees have no trusted attributes"
            );
        }
        may
    })
}
