//! A server with clients, for the tests of servers: the command on both sides, and `curl` for requests that no client of
//! ours makes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_format::pack::{PackHolds, decode_header};
use diptych_repository::DocumentKeys;
use diptych_repository::documents::{SnapshotDocument, SnapshotKind};
use diptych_tests::TestDir;
use diptych_tests::command::{Finished, binary, finish};
use diptych_tests::tools::{output, tool};

pub const PASSWORD: &str = "a password";

/// A server and what its clients have.
pub struct Served {
    pub directory: TestDir,
    pub child: Child,
    pub location: String,
    /// Without the namespace.
    pub url: String,
    pub fingerprint: Option<String>,
}

impl Served {
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let directory = TestDir::new(name);
        fs::create_dir(directory.join("root")).unwrap();
        Self::in_directory(directory, arguments)
    }

    pub fn plain(name: &str) -> Self {
        Self::start(name, &["--listen", "127.0.0.1:0", "--plain"])
    }

    pub fn in_directory(directory: TestDir, arguments: &[&str]) -> Self {
        Self::by(Command::new(binary()), directory, arguments)
    }

    /// Started by `command`, which runs our command in a place of its own.
    pub fn by(mut command: Command, directory: TestDir, arguments: &[&str]) -> Self {
        command.args(["serve", "--log", "none", "--root"]).arg(directory.join("root"));
        command.arg("--state").arg(directory.join("state")).args(arguments);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let line = line.trim().strip_prefix("serving at ").unwrap_or_else(|| panic!("{line}")).to_owned();
        let (places, fingerprint) = match line.split_once(", fingerprint ") {
            Some((places, fingerprint)) => (places, Some(fingerprint.to_owned())),
            None => (&*line, None),
        };
        let location = places.split(" and ").next().unwrap().to_owned();
        let authority = location.split("://").nth(1).unwrap_or_default();
        let scheme = if fingerprint.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{authority}");
        Self { directory, child, location, url, fingerprint }
    }

    pub fn repository(&self, namespace: &str) -> String {
        format!("{}/{namespace}", self.location)
    }

    pub fn local(&self, namespace: &str) -> PathBuf {
        self.directory.join("root").join(namespace)
    }

    /// A new token.
    pub fn token(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary());
        command
            .args(["token", "create", "someone", "--state"])
            .arg(self.directory.join("state"))
            .args(arguments);
        finish(&mut command).assert_code(0).text().trim().to_owned()
    }

    pub fn admin(&self) -> String {
        self.token(&["--rights", "admin"])
    }

    pub fn append(&self, namespace: &str) -> String {
        self.token(&["--rights", "append", "--namespace", namespace])
    }

    /// A client with a cache of its own for each token.
    pub fn client(&self, token: &str, repository: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        let cache = self.directory.join(format!("cache-{}", token.get(4..12).unwrap_or("none")));
        command.args(arguments).env("XDG_CACHE_HOME", cache).env("XDG_STATE_HOME", "/dev/null");
        command.env("DIPTYCH_TOKEN", token).env("DIPTYCH_REPO", repository).env("DIPTYCH_PASSWORD", PASSWORD);
        if let Some(fingerprint) = &self.fingerprint {
            command.env("DIPTYCH_FINGERPRINT", fingerprint);
        }
        command.current_dir(self.directory.path());
        command
    }

    #[track_caller]
    pub fn run(&self, token: &str, arguments: &[&str]) -> Finished {
        finish(&mut self.client(token, &self.repository("main"), arguments))
    }

    /// The same in a repository that is not encrypted.
    #[track_caller]
    pub fn run_plain(&self, token: &str, arguments: &[&str]) -> Finished {
        finish(self.client(token, &self.repository("main"), arguments).env_remove("DIPTYCH_PASSWORD"))
    }

    /// What the server answers to somebody who speaks HTTP: status and body.
    pub fn ask(&self, token: Option<&str>, method: &str, path: &str, body: Option<&Path>) -> (u16, Vec<u8>) {
        let mut curl = tool("curl");
        curl.args([
            "--silent",
            "--insecure",
            "--path-as-is",
            "--write-out",
            "\n%{http_code}",
            "--request",
            method,
        ]);
        if method == "HEAD" {
            curl.arg("--head");
        }
        if self.fingerprint.is_none() {
            curl.arg("--http2-prior-knowledge");
        }
        if let Some(token) = token {
            curl.arg("--header").arg(format!("authorization: Bearer {token}"));
        }
        if let Some(body) = body {
            curl.arg("--upload-file").arg(body);
        }
        let mut said = output(curl.arg(format!("{}{path}", self.url)));
        let end = said.iter().rposition(|byte| *byte == b'\n').unwrap();
        let status = String::from_utf8(said.split_off(end)).unwrap().trim().parse().unwrap();
        (status, said)
    }

    /// Sends a file; gives the status and the class of what is wrong.
    pub fn put(&self, token: &str, kind: &str, name: &str, bytes: &[u8]) -> (u16, String) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let file = self.directory.join(format!("sent-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::write(&file, bytes).unwrap();
        let (status, body) = self.ask(Some(token), "PUT", &format!("/v1/main/{kind}/{name}"), Some(&file));
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        (status, said["class"].as_str().unwrap_or_default().to_owned())
    }

    pub fn put_named(&self, token: &str, kind: &str, bytes: &[u8]) -> (u16, String) {
        self.put(token, kind, blake3::hash(bytes).to_hex().as_str(), bytes)
    }

    /// Two trees of some size.
    pub fn make_trees(&self) {
        for (tree, seed) in [("one", 1_u64), ("two", 2)] {
            for n in 0..40_u64 {
                let path = self.directory.join(format!("{tree}/{}/{n}", n % 3));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let mut hasher = blake3::Hasher::new();
                hasher.update(&(seed * 1000 + n).to_le_bytes());
                let mut bytes = vec![0; 30_000];
                hasher.finalize_xof().fill(&mut bytes);
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    /// The same snapshot as another kind of file.
    pub fn document_of_kind(&self, document: &SnapshotDocument, kind: SnapshotKind) -> Vec<u8> {
        let document = SnapshotDocument { kind, ..document.clone() };
        document.encode(&DocumentKeys::plain()).unwrap()
    }
}

/// Names of the files in a directory of a local repository, those in directories below it as well.
pub fn names(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(names(&entry.path())),
            false => found.push(entry.file_name().into_string().unwrap()),
        }
    }
    found.sort();
    found
}

pub fn pack_path(repository: &Path, name: &str) -> PathBuf {
    repository.join("data").join(&name[..2]).join(name)
}

pub fn tree_id(run: &Finished) -> String {
    let said = run.messages() + &run.text();
    said.split("tree id ").nth(1).unwrap_or_else(|| panic!("{said}"))[..64].to_owned()
}

/// How many packs of a local repository hold contents. What a killed server was still writing is none.
pub fn payload_packs(repository: &Path) -> usize {
    let holds = |name: &String| {
        let bytes = fs::read(pack_path(repository, name)).unwrap();
        decode_header(&bytes).unwrap()
    };
    names(&repository.join("data"))
        .iter()
        .filter(|name| !name.starts_with('.') && holds(name) == PackHolds::Payload)
        .count()
}
