//! A server, as its clients meet it: the command on both sides, and `curl` for requests that no client of ours makes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_repository::DocumentKeys;
use diptych_repository::documents::{Body, Lock, LockKind, RepositoryId, SnapshotDocument, SnapshotKind};
use diptych_tests::TestDir;
use diptych_tests::command::{Finished, binary, finish};
use diptych_tests::tools::{output, tool};

const PASSWORD: &str = "a password";

/// A server and what its clients have.
pub struct Served {
    pub directory: TestDir,
    pub child: Child,
    location: String,
    /// Without the namespace.
    pub url: String,
    fingerprint: Option<String>,
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

    fn in_directory(directory: TestDir, arguments: &[&str]) -> Self {
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
    fn put(&self, token: &str, kind: &str, name: &str, bytes: &[u8]) -> (u16, String) {
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

fn pack_path(repository: &Path, name: &str) -> PathBuf {
    repository.join("data").join(&name[..2]).join(name)
}

fn tree_id(run: &Finished) -> String {
    let said = run.messages() + &run.text();
    said.split("tree id ").nth(1).unwrap_or_else(|| panic!("{said}"))[..64].to_owned()
}

/// What was backed up to a server can be restored from it, by whoever may read, and is a repository where it lies.
/// Spec: P-2-2, P-3-1 to P-3-3, P-4-1, P-6-1.
#[test]
fn a_server_is_as_good_as_a_directory() {
    let served = Served::start("server-tls", &["--listen", "127.0.0.1:0"]);
    served.make_trees();
    let (admin, append) = (served.admin(), served.append("main"));
    let reader = served.token(&["--rights", "read", "--namespace", "main"]);
    served.run(&admin, &["init"]).assert_code(0);
    served.run(&admin, &["init"]).assert_code(1);
    let first = served.run(&append, &["backup", "one"]).assert_code(0);
    fs::write(served.directory.join("one/0/new"), "new").unwrap();
    fs::remove_file(served.directory.join("one/0/0")).unwrap();
    let second = served.run(&append, &["backup", "one", "--ignore-ctime"]).assert_code(0);
    assert_ne!(tree_id(&first), tree_id(&second));
    assert_eq!(served.run(&append, &["snapshots"]).assert_code(0).text().lines().count(), 2);
    for (token, code) in [(&append, 1), (&reader, 0)] {
        served.run(token, &["restore", "latest", "--target", &format!("out-{code}")]).assert_code(code);
    }
    let said = served.run(&append, &["cat", "latest:one/0/1"]).assert_code(1).messages();
    assert!(said.contains("may not read contents") && said.lines().count() == 1, "{said}");
    let hash = |path: &str| served.run(&reader, &["hash", path]).assert_code(0).text();
    assert!(hash("out-0").contains(&tree_id(&second)));
    served.run(&admin, &["check", "--read-data"]).assert_code(0);
    // Whoever has the files needs no server.
    let local = served.local("main");
    let mut command = served.client("", local.to_str().unwrap(), &["check", "--read-data"]);
    finish(&mut command).assert_code(0);
    // Over HTTP/1.1 as well.
    let about = output(
        tool("curl")
            .args([
                "--silent",
                "--insecure",
                "--http1.1",
                "--header",
                &format!("authorization: Bearer {append}"),
            ])
            .arg(format!("{}/v1/main", served.url)),
    );
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&about).unwrap(),
        serde_json::json!({ "protocol": 1, "rights": ["append"], "domain": &append[4..12] })
    );
    // Another certificate is another server.
    let mut command = served.client(&append, &served.repository("main"), &["snapshots"]);
    let said = finish(command.env("DIPTYCH_FINGERPRINT", "00".repeat(32))).assert_code(1).messages();
    assert!(said.contains(served.fingerprint.as_ref().unwrap()), "{said}");
    // And nobody vouches for this one.
    let mut command = served.client(&append, &served.repository("main"), &["snapshots"]);
    finish(command.env_remove("DIPTYCH_FINGERPRINT")).assert_code(1);
}

#[test]
fn a_unix_socket_and_ssh_lead_to_the_same() {
    let directory = TestDir::new("server-unix");
    fs::create_dir(directory.join("root")).unwrap();
    let socket = directory.join("socket");
    let served = Served::in_directory(directory, &["--unix", socket.to_str().unwrap()]);
    served.make_trees();
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    let first = served.run(&admin, &["backup", "one"]).assert_code(0);
    // What ssh does: it hands the words to a shell on the other end.
    let ssh = served.directory.join("ssh");
    fs::write(&ssh, "#!/bin/sh\n[ \"$1 $2\" = '-- user@host' ] || exit 1\nshift 2\nexec sh -c \"$*\"\n")
        .unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let location = format!("ssh://user@host{}", served.local("main").display());
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let run = |arguments: &[&str]| {
        let mut command = served.client("", &location, arguments);
        finish(command.env("DIPTYCH_SSH", &ssh).env("PATH", &path))
    };
    let second = run(&["backup", "one", "--host", "other"]).assert_code(0);
    assert_eq!(tree_id(&first), tree_id(&second));
    assert!(
        second.messages().contains(" 0 chunks") || second.messages().contains("stored in 1 "),
        "{}",
        second.messages()
    );
    run(&["restore", "latest", "--target", "out"]).assert_code(0);
    assert_eq!(run(&["snapshots"]).assert_code(0).text().lines().count(), 2);
    // Somebody else listens there.
    let mut other = Command::new(binary());
    other.args(["serve", "--root", "root", "--unix"]).arg(&socket).args(["--state", "other"]);
    let said = finish(other.current_dir(served.directory.path())).assert_code(1).messages();
    assert!(said.contains("in use"), "{said}");
}

/// All paths there are, with the methods that they take.
const ROUTES: [(&str, &str); 9] = [
    ("GET", "/v1/main"),
    ("PUT", "/v1/main"),
    ("POST", "/v1/main/mend"),
    ("GET", "/v1/main/strangers/data"),
    ("GET", "/v1/main/data"),
    ("GET", "/v1/main/config/config"),
    ("HEAD", "/v1/main/config/config"),
    ("DELETE", "/v1/main/config/config"),
    ("GET", "/v1/main/nothing/at/all"),
];

/// Spec: P-2-3 and P-2-4.
#[test]
fn without_a_good_token_there_is_nothing() {
    let served = Served::plain("server-tokens");
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    let expired = served.token(&["--rights", "admin", "--expires", "0h"]);
    let revoked = served.admin();
    let mut revoke = Command::new(binary());
    revoke.args(["token", "revoke", &revoked[4..12], "--state"]).arg(served.directory.join("state"));
    finish(&mut revoke).assert_code(0);
    finish(&mut revoke).assert_code(1);
    let other = served.token(&["--rights", "admin", "--namespace", "other"]);
    let wrong = format!("{}0", &admin[..admin.len() - 1]);
    let wrong = if wrong == admin { format!("{}1", &admin[..admin.len() - 1]) } else { wrong };
    for token in
        [None, Some(""), Some(&*wrong), Some("dpt_"), Some(&*expired), Some(&*revoked), Some(&*other)]
    {
        for (method, path) in ROUTES {
            assert_eq!(served.ask(token, method, path, None).0, 401, "{token:?} {method} {path}");
        }
        // Neither is a namespace that is not there told from one that is.
        assert_eq!(served.ask(token, "GET", "/v1/nowhere", None).0, 401);
    }
    assert_eq!(served.ask(Some(&admin), "GET", "/v1/main", None).0, 200);
    let said = served.run(&wrong, &["snapshots"]).assert_code(1).messages();
    assert!(said.contains("this token is not good here"), "{said}");
    // Spec: P-7-1 and P-7-2.
    assert_eq!(served.ask(None, "GET", "/healthz", None), (200, b"ok\n".to_vec()));
    let (status, metrics) = served.ask(None, "GET", "/metrics", None);
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(status == 200 && metrics.contains("diptych_requests_total{status=\"4xx\"}"), "{metrics}");
    let audit = fs::read_to_string(served.directory.join("state/audit.log")).unwrap();
    assert!(
        audit.lines().any(|line| line.contains("\"DELETE\"") && line.contains("\"status\":401")),
        "{audit}"
    );
    assert!(!audit.contains(&admin), "{audit}");
}

/// Spec: P-1-1 and P-3-4.
#[test]
fn a_token_that_appends_sees_nothing_of_others_and_removes_nothing() {
    let served = Served::plain("server-append");
    served.make_trees();
    let (admin, one, two) = (served.admin(), served.append("main"), served.append("main"));
    served.run(&admin, &["init"]).assert_code(0);
    served.run(&one, &["backup", "one"]).assert_code(0);
    let local = served.local("main");
    let of_one: Vec<(&str, Vec<String>)> =
        ["data", "index", "snapshots"].map(|kind| (kind, names(&local.join(kind)))).into();
    served.run(&two, &["backup", "two"]).assert_code(0);
    assert_eq!(served.run(&two, &["snapshots"]).assert_code(0).text().lines().count(), 1);
    let mut refused = 0;
    for (kind, names) in &of_one {
        for name in names {
            let path = format!("/v1/main/{kind}/{name}");
            for method in ["GET", "HEAD", "DELETE"] {
                assert_eq!(served.ask(Some(&two), method, &path, None).0, 404, "{method} {path}");
            }
            // Its own contents it does not read either, and nothing of it goes away.
            refused += u32::from(served.ask(Some(&one), "GET", &path, None).0 == 403);
            assert_eq!(served.ask(Some(&one), "DELETE", &path, None).0, 403, "{path}");
        }
    }
    assert_eq!(refused, 1, "one pack holds contents");
    // Others may hold a lease, or may not: it does not show.
    let held = served.local("main").join("locks");
    assert!(names(&held).is_empty());
    for path in
        ["/v1/main/data/../config", "/v1/..%2f..%2fetc/data", "/v1/main/data/%2e%2e", "/v1/.hidden/data"]
    {
        let status = served.ask(Some(&admin), "GET", path, None).0;
        assert_eq!(status, 404, "{path}");
    }
    let own = served.run(&one, &["snapshots"]).text()[..8].to_owned();
    for arguments in [&["forget", &own][..], &["key", "add", "--new-password-file", "one/0/0"]] {
        let said = served.run(&one, arguments).assert_code(1).messages();
        assert!(said.contains("this token may not"), "{said}");
    }
    // Whoever may forget may, and what is forgotten comes back.
    let keeper = served.token(&["--rights", "read,forget", "--namespace", "main"]);
    let id = served.run(&one, &["snapshots"]).text()[..8].to_owned();
    served.run(&keeper, &["forget", &id]).assert_code(0);
    assert_eq!(served.run(&keeper, &["snapshots"]).text().lines().count(), 1);
    served.run(&keeper, &["unforget", &id]).assert_code(0);
    assert_eq!(served.run(&keeper, &["snapshots"]).text().lines().count(), 2);
    served.run(&admin, &["check"]).assert_code(0);
}

#[test]
fn chunks_are_shared_within_a_domain_and_nowhere_else() {
    let served = Served::plain("server-domain");
    served.make_trees();
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    let of_domain = || served.token(&["--rights", "append", "--namespace", "main", "--domain", "web"]);
    let packs = || names(&served.local("main").join("data")).len();
    served.run(&of_domain(), &["backup", "one"]).assert_code(0);
    let before = packs();
    // Another machine with the same files sends no contents.
    let said = served.run(&of_domain(), &["backup", "one", "--host", "other"]).assert_code(0).messages();
    assert!(packs() <= before + 1, "{said}");
    let before = packs();
    served.run(&served.append("main"), &["backup", "one", "--host", "stranger"]).assert_code(0);
    // The same chunks in another order, or with other times, are other packs.
    assert!(packs() > before || names(&served.local("main").join("index")).len() > 2);
    served.run(&admin, &["check", "--read-data"]).assert_code(0);
}

/// Spec: P-4-1 to P-4-8, P-5-1, P-5-2, P-3-3.
#[test]
fn nothing_is_kept_that_is_not_what_it_says() {
    let served = Served::plain("server-arrive");
    served.make_trees();
    let (admin, append) = (served.admin(), served.append("main"));
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    // The same repository elsewhere, as material.
    let made = served.directory.join("made");
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(served.local("main")).arg(&made);
    output(&mut copy);
    let mut backup = served.client("", made.to_str().unwrap(), &["backup", "one"]);
    finish(backup.env_remove("DIPTYCH_PASSWORD")).assert_code(0);
    let only = |kind: &str| {
        let found = names(&made.join(kind));
        assert_eq!(found.len(), 1, "{found:?}");
        fs::read(made.join(kind).join(&found[0])).unwrap()
    };
    let (index, snapshot) = (only("index"), only("snapshots"));
    let packs: Vec<Vec<u8>> =
        names(&made.join("data")).iter().map(|name| fs::read(pack_path(&made, name)).unwrap()).collect();
    let corrupt = (422, "corrupt".to_owned());
    let created = (201, String::new());
    for (kind, bytes) in [("data", &packs[0]), ("index", &index), ("snapshots", &snapshot)] {
        let other = blake3::hash(b"other").to_hex();
        assert_eq!(served.put(&append, kind, other.as_str(), bytes), corrupt, "{kind}");
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert_eq!(served.put_named(&append, kind, &bytes[..cut]).0, 422, "{kind} {cut}");
        }
    }
    // A chunk of other bytes, in a pack that is named by all of them.
    let mut damaged = packs[0].clone();
    damaged[100] ^= 1;
    assert_eq!(served.put_named(&append, "data", &damaged), corrupt);
    let too_long = vec![b' '; (16 << 20) + 1];
    assert_eq!(served.put_named(&append, "snapshots", &too_long), (413, "limit".to_owned()));
    // Rows of packs that are not there, or not its own.
    assert_eq!(served.put_named(&append, "index", &index), corrupt);
    for pack in &packs {
        assert_eq!(served.put_named(&admin, "data", pack), created);
    }
    assert_eq!(served.put_named(&append, "index", &index), corrupt);
    for pack in &packs {
        assert_eq!(served.put_named(&append, "data", pack), created);
    }
    assert_eq!(
        served.put_named(&append, "snapshots", &snapshot),
        corrupt,
        "nothing is indexed, and there is no lease"
    );
    assert_eq!(served.put_named(&append, "index", &index), created);
    assert_eq!(served.put_named(&append, "snapshots", &snapshot), corrupt, "there is no lease");
    let document = SnapshotDocument::decode(&snapshot, &DocumentKeys::plain(), &id_of(&snapshot)).unwrap();
    let lock = |kind: LockKind, repository: RepositoryId| Lock {
        repository,
        kind,
        host: String::new(),
        user: String::new(),
        process: 1,
        written: jiff::Timestamp::UNIX_EPOCH,
    };
    let encode = |lock: Lock| lock.encode(&DocumentKeys::plain()).unwrap();
    let lease = || LockKind::Lease { sees: Vec::new() };
    let foreign = encode(lock(lease(), RepositoryId([7; 32])));
    assert_eq!(served.put_named(&append, "locks", &foreign), corrupt);
    let doom = encode(lock(LockKind::Doom { packs: Vec::new() }, document.repository));
    assert_eq!(served.put_named(&append, "locks", &doom), (403, "denied".to_owned()));
    let lease = encode(lock(lease(), document.repository));
    assert_eq!(served.put_named(&append, "locks", &lease), created);
    // A snapshot that names what is not there.
    let mut missing = document.clone();
    let Body::Snapshot(body) = &mut missing.body else { panic!() };
    body.archives[0].payload.root = diptych_format::Digest([9; 32]);
    let missing = missing.encode(&DocumentKeys::plain()).unwrap();
    assert_eq!(served.put_named(&append, "snapshots", &missing), corrupt);
    assert_eq!(served.put_named(&append, "snapshots", &snapshot), created);
    assert_eq!(served.put_named(&append, "snapshots", &snapshot), created, "twice is once");
    let config = fs::read(made.join("config")).unwrap();
    assert_eq!(served.put(&admin, "config", "config", &config), (409, "exists".to_owned()));
    assert_eq!(served.put(&append, "config", "config", &config), (403, "denied".to_owned()));
    // Nothing was lost, and nothing was kept.
    let local = served.local("main");
    for kind in ["data", "index", "snapshots"] {
        assert_eq!(names(&local.join(kind)), names(&made.join(kind)), "{kind}");
    }
    let reader = served.token(&["--rights", "read"]);
    served.run_plain(&reader, &["restore", "latest", "--target", "out"]).assert_code(0);
    let equal = output(
        tool("rsync")
            .args(["-nacHAX", "--delete", "--itemize-changes", "one/", "out/"])
            .current_dir(served.directory.path()),
    );
    assert_eq!(String::from_utf8(equal).unwrap(), "");
    // An index goes only if another one has all of it.
    let name = blake3::hash(&index).to_hex();
    assert_eq!(served.ask(Some(&append), "DELETE", &format!("/v1/main/index/{name}"), None).0, 403);
    let partial = served.document_of_kind(&document, SnapshotKind::Pending);
    assert_eq!(served.put_named(&append, "snapshots", &partial), created);
    let partial = blake3::hash(&partial).to_hex();
    let delete = |token: &str, kind: &str, name: &str| {
        served.ask(Some(token), "DELETE", &format!("/v1/main/{kind}/{name}"), None).0
    };
    assert_eq!(delete(&append, "snapshots", partial.as_str()), 204);
    assert_eq!(delete(&append, "snapshots", partial.as_str()), 404);
    assert_eq!(delete(&append, "locks", blake3::hash(&lease).to_hex().as_str()), 204);
    let config = format!("{}/v1/main/config/config", served.url);
    for (range, expected) in
        [("0-9", "206"), ("0-99999", "206"), ("99998-99999", "416"), ("9-1", "416"), ("x", "501")]
    {
        let mut curl = tool("curl");
        curl.args([
            "--silent",
            "--http2-prior-knowledge",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        curl.args([
            "--header",
            &format!("range: bytes={range}"),
            "--header",
            &format!("authorization: Bearer {append}"),
        ]);
        assert_eq!(String::from_utf8(output(curl.arg(&config))).unwrap(), expected, "{range}");
    }
}

impl Served {
    fn document_of_kind(&self, document: &SnapshotDocument, kind: SnapshotKind) -> Vec<u8> {
        let document = SnapshotDocument { kind, ..document.clone() };
        document.encode(&DocumentKeys::plain()).unwrap()
    }
}

fn id_of(snapshot: &[u8]) -> RepositoryId {
    diptych_repository::documents::Envelope::decode(snapshot).unwrap().repository
}

/// Many index files become one, also by a client that removes nothing else. Spec: P-5-2.
#[test]
fn a_client_that_appends_keeps_its_indexes_few() {
    let served = Served::plain("server-indexes");
    let (admin, append) = (served.admin(), served.append("main"));
    served.run(&admin, &["init"]).assert_code(0);
    fs::create_dir(served.directory.join("one")).unwrap();
    for n in 0..10 {
        fs::write(served.directory.join("one/file"), n.to_string()).unwrap();
        served.run(&append, &["backup", "one"]).assert_code(0);
    }
    let files = names(&served.local("main").join("index")).len();
    assert!(files < 8, "{files}");
    served.run(&admin, &["check", "--read-data"]).assert_code(0);
}

/// Between a client and a server, a line that breaks again and again. Spec: P-2-5.
#[test]
fn a_connection_that_breaks_is_taken_up_again() {
    let served = Served::plain("server-breaks");
    served.make_trees();
    let admin = served.admin();
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    let breaks = Arc::new(AtomicU64::new(0));
    let proxy = proxy(served.location.split("//").nth(1).unwrap(), &breaks);
    let location = format!("diptych+plain://{proxy}/main");
    let run = |arguments: &[&str]| {
        finish(served.client(&admin, &location, arguments).env_remove("DIPTYCH_PASSWORD"))
    };
    run(&["backup", "one", "two"]).assert_code(0);
    run(&["restore", "latest:one", "--target", "out"]);
    assert!(breaks.load(Ordering::Relaxed) >= 2, "{breaks:?}");
    served.run_plain(&admin, &["check", "--read-data"]).assert_code(0);
    assert_eq!(names(&served.local("main").join("snapshots")).len(), 1);
    assert_eq!(names(&served.local("main").join("locks")), [""; 0]);
}

/// Breaks each of the first connections after it has carried some bytes, and lets the others live.
fn proxy(to: &str, breaks: &Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (to, breaks) = (to.to_owned(), Arc::clone(breaks));
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let client = client.unwrap();
            let server = TcpStream::connect(&to).unwrap();
            let mut left = if number < 3 { 200_000 * (number as u64 + 1) } else { u64::MAX };
            let (mut from, mut onto) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut onto);
                let _ = onto.shutdown(Shutdown::Both);
            });
            let breaks = Arc::clone(&breaks);
            std::thread::spawn(move || {
                let (mut client, mut server) = (client, server);
                let mut buffer = vec![0; 8192];
                while let Ok(count) = client.read(&mut buffer) {
                    if count == 0 || left < count as u64 {
                        breaks.fetch_add(u64::from(count > 0), Ordering::Relaxed);
                        break;
                    }
                    left -= count as u64;
                    if server.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

/// A client that dies leaves what it has sent, and the next goes on from there.
#[test]
fn a_client_that_is_killed_harms_nobody() {
    let served = Served::plain("server-killed");
    served.make_trees();
    let (admin, append) = (served.admin(), served.append("main"));
    served.run(&admin, &["init"]).assert_code(0);
    for milliseconds in [20, 60, 120, 200] {
        let mut client =
            served.client(&append, &served.repository("main"), &["backup", "one", "two"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        client.kill().unwrap();
        client.wait().unwrap();
    }
    served.run(&append, &["backup", "one", "two"]).assert_code(0);
    served.run(&admin, &["check", "--read-data"]).assert_code(0);
}

#[test]
fn quotas_end_a_run_with_a_clear_message() {
    let served = Served::plain("server-quota");
    served.make_trees();
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    let small = served.token(&["--rights", "append", "--namespace", "main", "--quota", "500K"]);
    let said = served.run(&small, &["backup", "one"]).assert_code(1).messages();
    assert!(said.contains("the quota of this token is"), "{said}");
    served.run(&admin, &["check"]).assert_code(0);
}

#[test]
fn a_token_keeps_to_its_rate() {
    let served = Served::plain("server-rate");
    served.make_trees();
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    let slow = served.token(&["--rights", "append,read", "--namespace", "main", "--rate", "600K"]);
    let begun = std::time::Instant::now();
    served.run(&slow, &["backup", "one"]).assert_code(0);
    // Its 1.2 MB take two seconds at least, however slow the machine is.
    assert!(begun.elapsed().as_millis() > 1500, "{:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    served.run(&slow, &["restore", "latest", "--target", "out"]).assert_code(0);
    assert!(begun.elapsed().as_millis() > 1500, "{:?}", begun.elapsed());
}

/// Spec: P-2-1.
#[test]
fn a_server_does_not_start_where_it_should_not() {
    let served = Served::plain("server-start");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["serve", "--log", "none", "--root", "root"]).args(arguments);
        finish(command.current_dir(served.directory.path())).assert_code(1).messages()
    };
    let said = run(&["--listen", "0.0.0.0:0", "--plain", "--state", "other"]);
    assert!(said.contains("loopback"), "{said}");
    let said = run(&["--listen", "127.0.0.1:0", "--state", "state"]);
    assert!(said.contains("another server uses this state"), "{said}");
    fs::write(served.directory.join("bad.pem"), "no certificate").unwrap();
    let said = run(&["--listen", "127.0.0.1:0", "--state", "other", "--cert", "bad.pem", "--key", "bad.pem"]);
    assert!(said.contains("bad.pem"), "{said}");
}

/// Spec: P-7-1.
#[test]
fn a_server_that_is_asked_to_end_does() {
    let mut served = Served::plain("server-end");
    let id = rustix::process::Pid::from_child(&served.child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(served.child.wait().unwrap().success());
    let served = Served::in_directory(
        std::mem::replace(&mut served.directory, TestDir::new("server-end-2")),
        &["--listen", "127.0.0.1:0", "--plain"],
    );
    assert_eq!(served.ask(None, "GET", "/healthz", None).0, 200);
}

/// A server forgets by its own clock, whatever clients say of theirs.
#[test]
fn a_server_does_its_jobs_when_they_are_due() {
    let directory = TestDir::new("server-jobs");
    fs::create_dir(directory.join("root")).unwrap();
    let config = directory.join("serve.toml");
    let job = |run: &str| {
        format!(
            "[[job]]\nnamespace = \"main\"\nat = \"* * * * * *\"\nrun = {run}\npassword-file = \"password\"\n"
        )
    };
    fs::write(directory.join("password"), PASSWORD).unwrap();
    fs::write(&config, job("[\"forget\", \"--keep-last\", \"1\", \"--by-arrival\"]") + &job("[\"check\"]"))
        .unwrap();
    let path = directory.path().to_owned();
    let mut command = Command::new(binary());
    command.current_dir(&path).args(["init", "-r", "root/main", "--password-file", "password"]);
    command.env("XDG_STATE_HOME", "/dev/null");
    finish(&mut command).assert_code(0);
    fs::create_dir(path.join("one")).unwrap();
    let mut ids = Vec::new();
    for n in 0..2 {
        fs::write(path.join("one/file"), n.to_string()).unwrap();
        let mut command = Command::new(binary());
        command.current_dir(&path).args(["backup", "-r", "root/main", "--password-file", "password", "one"]);
        let said = finish(command.env("XDG_STATE_HOME", "/dev/null")).assert_code(0).messages();
        ids.push(said.split("snapshot ").nth(1).unwrap()[..8].to_owned());
    }
    // The one that was made first has arrived last.
    for entry in fs::read_dir(path.join("root/main/snapshots")).unwrap() {
        let entry = entry.unwrap();
        let is_first = entry.file_name().to_string_lossy().starts_with(&ids[0]);
        let back = std::time::Duration::from_secs(if is_first { 60 } else { 3600 });
        let file = fs::File::open(entry.path()).unwrap();
        file.set_modified(std::time::SystemTime::now() - back).unwrap();
    }
    // Passwords are found from where the server runs.
    {
        let mut command = Command::new(binary());
        command.current_dir(&path).args(["serve", "--log", "none", "--root"]).arg(path.join("root"));
        command.args(["--state", "state", "--unix", "socket", "--config", "serve.toml"]);
        let mut server = command.env("XDG_STATE_HOME", "/dev/null").stderr(Stdio::null()).spawn().unwrap();
        let log = path.join("state/jobs.log");
        let mut done = String::new();
        for _ in 0..200 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            done = fs::read_to_string(&log).unwrap_or_default();
            if done.contains("\"forget\"") && done.contains("\"check\"") {
                break;
            }
        }
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(done.lines().all(|line| line.contains("\"code\":0")), "{done}");
        assert!(done.contains("\"check\""), "{done}");
    }
    let mut command = Command::new(binary());
    command.current_dir(&path).args(["snapshots", "-r", "root/main", "--password-file", "password"]);
    let listed = finish(command.env("XDG_STATE_HOME", "/dev/null")).assert_code(0).text();
    assert!(listed.contains(&ids[0]) && !listed.contains(&ids[1]), "{listed}");
}

/// Two machines, as far as networks go: a server in one namespace of the kernel's, clients in another.
struct Machines {
    names: [String; 2],
    address: String,
}

impl Machines {
    fn new() -> Self {
        let id = std::process::id();
        let names = [format!("dptserver{id}"), format!("dptclient{id}")];
        let address = format!("10.{}.{}", id / 256 % 256, id % 256);
        let ip = |words: &str| output(tool("ip").args(words.split(' ')));
        names.iter().for_each(|name| drop(ip(&format!("netns add {name}"))));
        let [server, client] = &names;
        ip(&format!("link add eth0 netns {server} type veth peer name eth0 netns {client}"));
        for (name, host) in names.iter().zip([1, 2]) {
            ip(&format!("-n {name} addr add {address}.{host}/24 dev eth0"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set eth0 up"));
        }
        Self { names, address }
    }

    /// Runs our command on one of them.
    fn on(&self, machine: usize) -> Command {
        let mut command = tool("ip");
        command.args(["netns", "exec", &self.names[machine]]).arg(binary());
        command
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = tool("ip").args(["netns", "delete", name]).status();
        }
    }
}

/// One server, three clients on another machine that are at work at once and share chunks; the server is killed in the
/// middle, and the clients go on when it is back.
#[test]
fn many_clients_work_at_once_and_survive_the_server() {
    let machines = Machines::new();
    let directory = TestDir::new("server-machines");
    fs::create_dir(directory.join("root")).unwrap();
    let listen = format!("{}.1:8040", machines.address);
    let mut served = Served::by(machines.on(0), directory, &["--listen", &listen]);
    served.make_trees();
    let admin = served.admin();
    let run = |served: &Served, token: &str, arguments: &[&str]| {
        let mut command = machines.on(1);
        let like = served.client(token, &served.repository("main"), arguments);
        command.args(arguments).current_dir(served.directory.path());
        for (name, value) in like.get_envs() {
            command.env(name, value.unwrap());
        }
        command
    };
    finish(&mut run(&served, &admin, &["init"])).assert_code(0);
    let token = || served.token(&["--rights", "append", "--namespace", "main", "--domain", "all"]);
    let tokens = [token(), token(), token()];
    let clients: Vec<Child> = tokens
        .iter()
        .zip([&["one"][..], &["two"], &["one", "two"]])
        .map(|(token, trees)| {
            let host = format!("host-{}", trees.join("-"));
            let arguments = [&["backup", "--host", &host, "--limit-upload", "400K"][..], trees].concat();
            run(&served, token, &arguments).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let directory = std::mem::replace(&mut served.directory, TestDir::new("server-machines-2"));
    let served = Served::by(machines.on(0), directory, &["--listen", &listen]);
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let reader = served.token(&["--rights", "read", "--namespace", "main"]);
    let listed = finish(&mut run(&served, &reader, &["snapshots"])).assert_code(0).text();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    // Whoever comes later sends nothing again.
    let late = token_late(&served);
    let said = finish(&mut run(&served, &late, &["backup", "--host", "late", "one", "two"]))
        .assert_code(0)
        .messages();
    assert!(said.contains(" 0 chunks") || said.contains("KiB stored"), "{said}");
    finish(&mut run(&served, &late, &["restore", "latest", "--target", "refused"])).assert_code(1);
    for tree in ["one", "two"] {
        let from = format!("latest:{}", served.directory.join(tree).display());
        let target = format!("out-{tree}");
        finish(&mut run(&served, &reader, &["restore", &from, "--target", &target])).assert_code(0);
        let hashes = [tree, &target].map(|path| {
            let said = finish(&mut run(&served, "", &["hash", path])).assert_code(0).text();
            said[..64].to_owned()
        });
        assert_eq!(hashes[0], hashes[1]);
    }
    finish(&mut run(&served, &admin, &["check", "--read-data"])).assert_code(0);
}

fn token_late(served: &Served) -> String {
    served.token(&["--rights", "append", "--namespace", "main", "--domain", "all"])
}

/// The server does what it says of itself, whatever it is asked. Spec: P-7-3.
#[test]
fn the_description_is_true() {
    let served = Served::plain("server-openapi");
    let (admin, append) = (served.admin(), served.append("main"));
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    let (status, description) = served.ask(None, "GET", "/openapi.json", None);
    assert_eq!(status, 200);
    let description: serde_json::Value = serde_json::from_slice(&description).unwrap();
    // What it names is there, and what it does not name is not.
    for (path, methods) in description["paths"].as_object().unwrap() {
        let asked =
            path.replace("{namespace}", "main").replace("{kind}", "data").replace("{name}", &"0".repeat(64));
        for method in ["get", "head", "put", "post", "delete", "patch"] {
            let is_named = methods.get(method).is_some() || method == "head" && methods.get("get").is_some();
            let (status, body) = served.ask(Some(&admin), &method.to_uppercase(), &asked, None);
            assert_eq!(status != 405, is_named, "{method} {path}: {status}");
            assert!(!body.starts_with(b"there is nothing here"), "{method} {path}");
        }
    }
    for token in [&admin, &append] {
        let mut schemathesis = tool_of_python("schemathesis");
        schemathesis.args(["run", &format!("{}/openapi.json", served.url), "--no-color", "--seed", "1"]);
        schemathesis.args(["--header", &format!("Authorization: Bearer {token}"), "--max-examples", "20"]);
        schemathesis.args(["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"]);
        schemathesis.args([
            "--checks",
            "status_code_conformance,content_type_conformance,response_schema_conformance",
        ]);
        let done = schemathesis.current_dir(served.directory.path()).output().unwrap();
        let said =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
    }
    assert_eq!(served.ask(None, "GET", "/healthz", None).0, 200);
}

/// A program of a Python package that the tests have installed.
fn tool_of_python(name: &str) -> Command {
    let path = diptych_tests::target().join("venv/bin").join(name);
    assert!(path.exists(), "{} is missing: cargo xtask test", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

/// systemd takes the unit, and finds little that it could do besides its work.
#[test]
fn the_unit_is_sound() {
    let directory = TestDir::new("server-unit");
    let unit =
        fs::read_to_string(diptych_tests::root().join("contrib/systemd/diptych-serve.service")).unwrap();
    // It is verified that the program is there.
    let path = directory.join("diptych-serve.service");
    fs::write(&path, unit.replace("/usr/local/bin/diptych", binary().to_str().unwrap())).unwrap();
    let verified = tool("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let of_unit: Vec<&str> = said.lines().filter(|line| line.contains("diptych-serve")).collect();
    assert!(verified.status.success() && of_unit.is_empty(), "{said}");
    output(tool("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&path));
}

/// Two servers with states of their own offer the same repository: each takes what the other has taken.
#[test]
fn two_servers_share_a_repository() {
    let served = Served::plain("server-two");
    served.make_trees();
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    let mut command = Command::new(binary());
    command.args(["serve", "--log", "none", "--plain", "--listen", "127.0.0.1:0", "--root"]);
    command.arg(served.directory.join("root")).arg("--state").arg(served.directory.join("state-2"));
    let mut second = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(second.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let location = format!("{}/main", line.trim().strip_prefix("serving at ").unwrap());
    let mut token = Command::new(binary());
    token
        .args(["token", "create", "x", "--rights", "admin", "--state"])
        .arg(served.directory.join("state-2"));
    let token = finish(&mut token).assert_code(0).text().trim().to_owned();
    let run = |arguments: &[&str]| finish(&mut served.client(&token, &location, arguments)).assert_code(0);
    let mut clients: Vec<Child> = (0..2)
        .map(|n| {
            let host = format!("host-{n}");
            let arguments = ["-q", "backup", "one", "two", "--host", &host];
            let (token, location) =
                if n == 0 { (&admin, served.repository("main")) } else { (&token, location.clone()) };
            served.client(token, &location, &arguments).spawn().unwrap()
        })
        .collect();
    assert!(clients.iter_mut().all(|client| client.wait().unwrap().success()));
    served.run(&admin, &["backup", "one"]).assert_code(0);
    run(&["backup", "two"]);
    assert_eq!(run(&["snapshots"]).text().lines().count(), 4);
    run(&["check", "--read-data"]);
    second.kill().unwrap();
    second.wait().unwrap();
}

/// A certificate that is renewed is used without a new start.
#[test]
fn a_renewed_certificate_is_used() {
    // Two servers make one each.
    let mut made = ["server-cert-1", "server-cert-2"].map(|name| {
        let served = Served::start(name, &["--listen", "127.0.0.1:0"]);
        let read = |file: &str| fs::read(served.directory.join("state").join(file)).unwrap();
        (read("cert.pem"), read("key.pem"), served.fingerprint.clone().unwrap())
    });
    let directory = TestDir::new("server-cert");
    fs::create_dir(directory.join("root")).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.join(name));
    let place = |(certificate, private, _): &(Vec<u8>, Vec<u8>, String)| {
        fs::write(&key, private).unwrap();
        fs::write(&cert, certificate).unwrap();
    };
    place(&made[0]);
    let arguments =
        ["--listen", "127.0.0.1:0", "--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()]
            .map(str::to_owned);
    let mut served = Served::in_directory(directory, &arguments.each_ref().map(String::as_str));
    assert_eq!(served.fingerprint.as_ref(), Some(&made[0].2));
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    place(&made[1]);
    served.fingerprint = Some(std::mem::take(&mut made[1].2));
    let mut is_used = false;
    for _ in 0..60 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        is_used = served.run(&admin, &["snapshots"]).code == Some(0);
        if is_used {
            break;
        }
    }
    assert!(is_used);
}
