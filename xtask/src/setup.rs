//! What the tests need on the machine: other people's tools, to compare with, and Python packages for the
//! independent reader.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::run;

/// Programs and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("setfacl", "acl"),
    ("getfacl", "acl"),
    ("setfattr", "attr"),
    ("getfattr", "attr"),
    ("ip", "iproute2"),
    ("setcap", "libcap2-bin"),
    ("getcap", "libcap2-bin"),
    ("chattr", "e2fsprogs"),
    ("chromedriver", "chromium-driver"),
    ("chromium", "chromium"),
    ("lsattr", "e2fsprogs"),
    ("rsync", "rsync"),
    ("zstd", "zstd"),
    ("mtree", "mtree-netbsd"),
    ("strace", "strace"),
    ("systemd-analyze", "systemd"),
    ("bsdtar", "libarchive-tools"),
    ("curl", "curl"),
    ("casync", "casync"),
    ("umount", "mount"),
    ("python3", "python3"),
];

/// Installs the packages of programs that are missing.
pub fn install_programs() -> Result<()> {
    let missing = PROGRAMS.iter().filter(|(program, _)| !is_installed(program));
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !has_venv() {
        packages.push("python3-venv");
    }
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let install =
        format!("apt-get update && apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if !is_root() {
        bail!("programs that the tests need are missing; as root: {install}");
    }
    println!("== {install}");
    run::must_succeed(run::command("sh").args(["-c", &install]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    // The names above could be wrong for this system: better said here than by a test that comes later.
    if let Some((program, package)) = PROGRAMS.iter().find(|(program, _)| !is_installed(program)) {
        bail!("{program} is missing, though the package {package} is installed");
    }
    Ok(())
}

/// Makes the Python environment that the independent reader runs in, and gives its interpreter.
pub fn install_python_packages() -> Result<PathBuf> {
    let venv = run::target().join("venv");
    let python = venv.join("bin/python3");
    let requirements =
        ["spec/reference/requirements.txt", "tests/requirements.txt"].map(|path| run::root().join(path));
    let mut wanted = Vec::new();
    for path in &requirements {
        wanted.extend(fs::read(path).with_context(|| path.display().to_string())?);
    }
    // A copy of what was installed, written last: what was cut short is done again.
    let installed = venv.join("requirements.txt");
    if fs::read(&installed).is_ok_and(|found| found == wanted) && python.exists() {
        return Ok(python);
    }
    println!("== Python packages into {}", venv.display());
    run::must_succeed(run::command("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = run::command(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    requirements.iter().for_each(|path| {
        pip.arg("--requirement").arg(path);
    });
    run::must_succeed(pip)?;
    fs::write(&installed, wanted)?;
    Ok(python)
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // A user's PATH leaves out where Debian keeps getcap and the like; the tests look there as well.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

fn has_venv() -> bool {
    is_installed("python3")
        && run::command("python3")
            .args(["-c", "import venv, ensurepip"])
            .output()
            .is_ok_and(|out| out.status.success())
}

fn is_root() -> bool {
    fs::metadata(Path::new("/proc/self")).is_ok_and(|process| process.uid() == 0)
}
