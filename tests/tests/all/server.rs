//! A server, as its clients meet it: what works, who may do what, and what is refused.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_repository::DocumentKeys;
use diptych_repository::documents::{Body, Lock, LockKind, RepositoryId, SnapshotDocument, SnapshotKind};
use diptych_tests::TestDir;
use diptych_tests::command::{binary, finish};
use diptych_tests::tools::{output, tool};

use crate::served::{Served, names, pack_path, payload_packs, tree_id};

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
    assert_eq!(payload_packs(&served.local("main")), 1, "{}", second.messages());
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
    assert_eq!(said.matches("diptych").count(), 2, "where it is stands there once: {said}");
    // Spec: P-7-1 and P-7-2.
    assert_eq!(served.ask(None, "GET", "/healthz", None), (200, b"ok\n".to_vec()));
    let (status, metrics) = served.ask(None, "GET", "/metrics", None);
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(status == 200 && metrics.contains("diptych_requests_total{status=\"4xx\"}"), "{metrics}");
    let audit = fs::read_to_string(served.directory.join("state/audit.log")).unwrap();
    assert!(audit.lines().any(|line| line.contains("\"PUT\"") && line.contains("\"status\":201")), "{audit}");
    // Whoever has no good token changes nothing, and does not fill the disk with lines.
    assert!(!audit.contains("401"), "{audit}");
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
    let packs = || payload_packs(&served.local("main"));
    served.run(&of_domain(), &["backup", "one"]).assert_code(0);
    assert_eq!(packs(), 1);
    // Another machine with the same files sends no contents.
    served.run(&of_domain(), &["backup", "one", "--host", "other"]).assert_code(0);
    assert_eq!(packs(), 1);
    // Whoever is of no domain sends them, one more besides, so that the pack is another one.
    fs::write(served.directory.join("one/0/new"), "new").unwrap();
    served.run(&served.append("main"), &["backup", "one", "--host", "stranger"]).assert_code(0);
    assert_eq!(packs(), 2);
    let length = |name: &String| fs::metadata(pack_path(&served.local("main"), name)).unwrap().len();
    let large =
        names(&served.local("main").join("data")).iter().filter(|name| length(name) > 1_000_000).count();
    assert_eq!(large, 2, "all of it was sent again");
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

fn id_of(snapshot: &[u8]) -> RepositoryId {
    diptych_repository::documents::Envelope::decode(snapshot).unwrap().repository
}

/// Many index files become one, also by a client that removes nothing else. Spec: P-5-2.
#[test]
fn a_client_that_appends_keeps_its_indexes_few() {
    let served = Served::plain("server-indexes");
    let (admin, append) = (served.admin(), served.append("main"));
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    fs::create_dir(served.directory.join("one")).unwrap();
    for n in 0..10 {
        fs::write(served.directory.join("one/file"), n.to_string()).unwrap();
        served.run_plain(&append, &["backup", "one"]).assert_code(0);
    }
    let files = names(&served.local("main").join("index")).len();
    assert!(files < 8, "{files}");
    served.run_plain(&admin, &["check", "--read-data"]).assert_code(0);
}

/// Whether an index that replaces another one was written with the key, no server knows: whoever has taken a client over
/// would make packs unknown. Spec: P-5-2.
#[test]
fn an_index_of_an_encrypted_repository_is_removed_by_no_token_that_appends() {
    let served = Served::plain("server-indexes-sealed");
    let (admin, append) = (served.admin(), served.append("main"));
    served.run(&admin, &["init"]).assert_code(0);
    fs::create_dir(served.directory.join("one")).unwrap();
    let index = served.local("main").join("index");
    let mut all = std::collections::BTreeSet::new();
    for n in 0..9 {
        fs::write(served.directory.join("one/file"), n.to_string()).unwrap();
        served.run(&append, &["backup", "one"]).assert_code(0);
        all.extend(names(&index));
    }
    // One of them replaces others, and all are there.
    assert_eq!(names(&index).len(), all.len());
    for name in &all {
        let path = format!("/v1/main/index/{name}");
        assert_eq!(served.ask(Some(&append), "DELETE", &path, None).0, 403, "{name}");
    }
    served.run(&admin, &["check", "--read-data"]).assert_code(0);
    // The server's own job, which has the password, and knows who has sent what, does: see the one that forgets.
    let other = served.append("main");
    fs::create_dir(served.directory.join("two")).unwrap();
    fs::write(served.directory.join("two/file"), "two").unwrap();
    served.run(&other, &["backup", "two"]).assert_code(0);
    let owner: Vec<String> = all.iter().map(|name| format!("{name} one\n")).collect();
    fs::write(served.directory.join("senders"), owner.concat()).unwrap();
    let local = served.local("main");
    let senders = served.directory.join("senders");
    let forget = ["forget", "--keep-last", "2", "--senders", senders.to_str().unwrap()];
    finish(&mut served.client("", local.to_str().unwrap(), &forget)).assert_code(0);
    assert!(names(&index).len() < 8, "{:?}", names(&index));
    served.run(&admin, &["check", "--read-data"]).assert_code(0);
    // Each finds its own still: nothing is stored again.
    for (token, tree) in [(&append, "one"), (&other, "two")] {
        let said = served.run(token, &["backup", tree]).assert_code(0).messages();
        assert!(said.contains("0 B stored"), "{said}");
    }
}

/// Whoever sees all joins indexes of many senders, each of whom goes on to see their own.
#[test]
fn indexes_of_many_are_joined_by_nobody_at_their_expense() {
    for is_plain in [true, false] {
        let served = Served::plain(if is_plain { "server-joined" } else { "server-joined-sealed" });
        let admin = served.admin();
        let run = |token: &str, arguments: &[&str]| match is_plain {
            true => served.run_plain(token, arguments).assert_code(0),
            false => served.run(token, arguments).assert_code(0),
        };
        run(&admin, if is_plain { &["init", "--no-encryption"] } else { &["init"] });
        fs::create_dir(served.directory.join("one")).unwrap();
        let mut tokens: Vec<String> = (0..7).map(|_| served.append("main")).collect();
        tokens.push(served.token(&["--rights", "append,read", "--namespace", "main"]));
        tokens.push(admin.clone());
        for (n, token) in tokens.iter().enumerate() {
            fs::write(served.directory.join("one/file"), n.to_string()).unwrap();
            run(token, &["backup", "one"]);
        }
        // The first one's state again.
        fs::write(served.directory.join("one/file"), "0").unwrap();
        let said = run(&tokens[0], &["backup", "one"]).messages();
        assert!(!said.contains("is in no pack"), "{said}");
        run(&admin, &["check", "--read-data"]);
    }
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
    let tree = format!("latest:{}", served.directory.join("one").display());
    run(&["restore", &tree, "--target", "out"]).assert_code(0);
    assert!(breaks.load(Ordering::Relaxed) >= 2, "{breaks:?}");
    served.run_plain(&admin, &["check", "--read-data"]).assert_code(0);
    assert_eq!(names(&served.local("main").join("snapshots")).len(), 1);
    assert_eq!(names(&served.local("main").join("locks")), [""; 0]);
}

/// A line that breaks again and again before a pack is through: what has come of it counts. Spec: P-4-9.
#[test]
fn a_file_goes_on_where_it_broke_off() {
    let served = Served::plain("server-goes-on");
    let admin = served.admin();
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    fs::create_dir(served.directory.join("one")).unwrap();
    let bytes = diptych_tests::Random::new(5).bytes(12 << 20);
    fs::write(served.directory.join("one/file"), &bytes).unwrap();
    let (breaks, carried) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let proxy = breaking(served.location.split("//").nth(1).unwrap(), &breaks, &carried, |_| 3 << 20);
    let location = format!("diptych+plain://{proxy}/main");
    let run = |arguments: &[&str]| {
        finish(served.client(&admin, &location, arguments).env_remove("DIPTYCH_PASSWORD"))
    };
    run(&["backup", "one"]).assert_code(0);
    // No connection has carried a pack, and not much was sent twice.
    assert!(breaks.load(Ordering::Relaxed) >= 4, "{breaks:?}");
    assert!(carried.load(Ordering::Relaxed) < 20 << 20, "{carried:?}");
    served.run_plain(&admin, &["check", "--read-data"]).assert_code(0);
    // And back: no connection carries the file.
    let tree = format!("latest:{}", served.directory.join("one").display());
    run(&["restore", &tree, "--target", "out"]).assert_code(0);
    assert!(fs::read(served.directory.join("out/file")).unwrap() == bytes);
    // Nobody goes on with what another one has begun, or what was never begun.
    let name = blake3::hash(b"x").to_hex();
    let path = format!("/v1/main/arriving/data/{name}");
    assert_eq!(served.ask(Some(&admin), "GET", &path, None), (200, b"0\n".to_vec()));
    let reader = served.token(&["--rights", "read", "--namespace", "main"]);
    assert_eq!(served.ask(Some(&reader), "GET", &path, None).0, 403);
}

/// Breaks each of the first connections after it has carried some bytes, and lets the others live.
fn proxy(to: &str, breaks: &Arc<AtomicU64>) -> String {
    let lives = |number| if number < 3 { 200_000 * (number + 1) } else { u64::MAX };
    breaking(to, breaks, &Arc::default(), lives)
}

/// Breaks each connection after it has carried so many bytes, by its number.
fn breaking(
    to: &str,
    breaks: &Arc<AtomicU64>,
    carried: &Arc<AtomicU64>,
    lives: impl Fn(u64) -> u64 + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (to, breaks, carried) = (to.to_owned(), Arc::clone(breaks), Arc::clone(carried));
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let client = client.unwrap();
            let server = TcpStream::connect(&to).unwrap();
            let mut left = lives(number as u64);
            let (mut from, mut onto) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut onto);
                let _ = onto.shutdown(Shutdown::Both);
            });
            let (breaks, carried) = (Arc::clone(&breaks), Arc::clone(&carried));
            std::thread::spawn(move || {
                let (mut client, mut server) = (client, server);
                let mut buffer = vec![0; 8192];
                while let Ok(count) = client.read(&mut buffer) {
                    if count == 0 || left < count as u64 {
                        breaks.fetch_add(u64::from(count > 0), Ordering::Relaxed);
                        break;
                    }
                    left -= count as u64;
                    carried.fetch_add(count as u64, Ordering::Relaxed);
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
    assert!(said.contains("the quota of this token is used up"), "{said}");
    served.run(&admin, &["check"]).assert_code(0);
    // However many arrive at once.
    let kept = names(&served.local("main").join("data"));
    let bytes = kept.iter().map(|name| fs::metadata(pack_path(&served.local("main"), name)).unwrap().len());
    assert!(bytes.sum::<u64>() <= 500 << 10);
    for (option, value) in [("--quota", "0"), ("--rate", "0")] {
        let mut create = Command::new(binary());
        create.args(["token", "create", "x", "--rights", "append", option, value]);
        finish(&mut create).assert_code(2);
    }
}

/// A token that is renewed is the same: whoever has it finds what it has sent.
#[test]
fn a_token_is_renewed() {
    let served = Served::plain("server-renew");
    served.make_trees();
    served.run(&served.admin(), &["init"]).assert_code(0);
    let token = served.token(&["--rights", "append", "--namespace", "main", "--expires", "1h"]);
    served.run(&token, &["backup", "one"]).assert_code(0);
    let state = served.directory.join("state");
    let tokens = |words: &[&str]| {
        let mut command = Command::new(binary());
        finish(command.arg("token").args(words).arg("--state").arg(&state))
    };
    let id = token.split('_').nth(1).unwrap();
    tokens(&["renew", id, "--expires", "0h"]).assert_code(0);
    served.run(&token, &["backup", "one"]).assert_code(1);
    tokens(&["renew", id, "--expires", "90d"]).assert_code(0);
    let said = served.run(&token, &["backup", "one"]).assert_code(0).messages();
    // There is something to compare with.
    assert!(said.contains("because of: young"), "{said}");
    tokens(&["revoke", id]).assert_code(0);
    tokens(&["renew", id]).assert_code(1);
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
