//! Documents: each comes back, each change of one is refused, and those of others do not fit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use diptych_format::{Class, Digest, Error, Result};
use diptych_repository::documents::{
    ARCHIVE_KEYS, ArchiveRecord, Body, Clock, Config, DOCUMENTS, Encryption, Envelope, KeyDocument, KeyOwner,
    Lock, LockKind, Report, RepositoryId, SNAPSHOT_KEYS, Snapshot, SnapshotDocument, SnapshotKind,
    StreamRecord, Tombstone, unlock,
};
use diptych_repository::keys::Kdf;
use diptych_repository::{DocumentKeys, MasterKey, Padding};
use proptest::collection::vec;
use proptest::prelude::*;

const REPOSITORY: RepositoryId = RepositoryId([7; 32]);
const OTHER: RepositoryId = RepositoryId([8; 32]);
/// What costs next to nothing; what it costs is not what is tested here.
const KDF: Kdf = Kdf { memory_kib: 8, passes: 1, lanes: 1, salt: [3; 16] };

fn keys(n: u8) -> DocumentKeys {
    DocumentKeys::of(&MasterKey::from_bytes([n; 32]))
}

fn time() -> jiff::Timestamp {
    "2026-11-21T07:00:00.5Z".parse().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn archive(name: &[u8], path: Option<&[u8]>) -> ArchiveRecord {
    let stream = |part: &str| StreamRecord {
        root: digest(&format!("{part} of {}", String::from_utf8_lossy(name))),
        length: 160,
    };
    ArchiveRecord {
        name: name.to_vec(),
        path: path.map(<[u8]>::to_vec),
        tree_id: digest("tree"),
        complete: true,
        entries: u64::MAX,
        content_bytes: 5,
        metadata: stream("metadata"),
        payload: stream("payload"),
        started: Clock { seconds: -1, nanoseconds: 999_999_999 },
        sparse_chunks: vec![digest("sparse")],
        sample: 3,
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        time: time(),
        host: "host-of-secrets".to_owned(),
        user: "DOMAIN\\user".to_owned(),
        tags: vec!["daily".to_owned(), "\"quoted\"".to_owned()],
        tool: "diptych 0.1.0".to_owned(),
        base: Some(digest("base")),
        replaces: Some(digest("before")),
        archives: vec![archive(b"home", Some(b"/home\\\xff")), archive(b"dump", None)],
        report: Some(Report { id: digest("report"), losses: 1, changed: 2 }),
    }
}

fn document(kind: SnapshotKind) -> SnapshotDocument {
    let body = match kind {
        SnapshotKind::Tombstone => {
            Body::Tombstone(Tombstone { snapshot: digest("gone"), time: time(), expires: time() })
        }
        _ => Body::Snapshot(snapshot()),
    };
    SnapshotDocument { repository: REPOSITORY, kind, body }
}

fn lock(kind: LockKind) -> Lock {
    let (host, user) = ("h".to_owned(), "u".to_owned());
    Lock { repository: REPOSITORY, kind, host, user, process: 4711, written: time() }
}

fn locks() -> [Lock; 5] {
    let names = vec![digest("a"), digest("b")];
    [
        LockKind::Lease { sees: names.clone() },
        LockKind::Condemn { packs: names.clone() },
        LockKind::Doom { packs: names.clone() },
        LockKind::Damaged { packs: names.clone(), chunks: Vec::new() },
        LockKind::Damaged { packs: names.clone(), chunks: names },
    ]
    .map(lock)
}

fn config(encryption: Encryption) -> Config {
    Config::new(encryption, Padding::Padme, time()).unwrap()
}

fn key_document(password: &[u8]) -> KeyDocument {
    let (user, host, label) = ("u".to_owned(), "h".to_owned(), "first".to_owned());
    let owner = KeyOwner { created: time(), user, host, label };
    KeyDocument::wrap(&MasterKey::from_bytes([1; 32]), REPOSITORY, password, owner, KDF).unwrap()
}

type Open = Box<dyn Fn(&[u8]) -> Result<()>>;

/// One document of each kind as an encrypted repository has it, and how it is opened.
fn authentic() -> Vec<(Vec<u8>, Open)> {
    let mut all: Vec<(Vec<u8>, Open)> = Vec::new();
    for (kind, _) in SnapshotKind::ALL {
        let open: Open = Box::new(|bytes| SnapshotDocument::decode(bytes, &keys(1), &REPOSITORY).map(drop));
        all.push((document(kind).encode(&keys(1)).unwrap(), open));
    }
    for lock in locks() {
        let open: Open = Box::new(|bytes| Lock::decode(bytes, &keys(1), &REPOSITORY).map(drop));
        all.push((lock.encode(&keys(1)).unwrap(), open));
    }
    let open: Open = Box::new(|bytes| Config::decode(bytes)?.verify(&keys(1)));
    all.push((config(Encryption::Xaes256Gcm).encode(&keys(1)).unwrap(), open));
    all
}

/// Spec: R-9-1, R-9-3
#[test]
fn documents_come_back_with_and_without_keys() {
    for keys in [DocumentKeys::plain(), keys(1)] {
        for (kind, word) in SnapshotKind::ALL {
            let document = document(kind);
            let bytes = document.encode(&keys).unwrap();
            assert_eq!(SnapshotDocument::decode(&bytes, &keys, &REPOSITORY).unwrap(), document);
            let envelope = Envelope::decode(&bytes).unwrap();
            assert_eq!(envelope, document.envelope());
            assert_eq!(envelope.roots.len(), if kind == SnapshotKind::Tombstone { 0 } else { 5 });
            assert!(String::from_utf8(bytes).unwrap().contains(&format!("\"kind\":\"{word}\"")));
        }
        for lock in locks() {
            let bytes = lock.encode(&keys).unwrap();
            assert_eq!(Lock::decode(&bytes, &keys, &REPOSITORY).unwrap(), lock);
        }
    }
    let config = config(Encryption::None);
    let bytes = config.encode(&DocumentKeys::plain()).unwrap();
    let found = Config::decode(&bytes).unwrap();
    assert_eq!(found, config);
    found.verify(&DocumentKeys::plain()).unwrap();
    for (bytes, open) in authentic() {
        open(&bytes).unwrap();
    }
    let key = key_document(b"secret");
    assert_eq!(KeyDocument::decode(&key.encode().unwrap()).unwrap(), key);
}

/// Spec: R-3-3
#[test]
fn documents_are_one_line_with_their_keys_in_order() {
    let plain = DocumentKeys::plain();
    let texts = [
        ("config", config(Encryption::Xaes256Gcm).encode(&keys(1)).unwrap()),
        ("config", config(Encryption::None).encode(&plain).unwrap()),
        ("key", key_document(b"x").encode().unwrap()),
        ("snapshot", document(SnapshotKind::Snapshot).encode(&keys(1)).unwrap()),
        ("snapshot", document(SnapshotKind::Snapshot).encode(&plain).unwrap()),
        ("lock", locks()[0].encode(&keys(1)).unwrap()),
        ("lock", locks()[0].encode(&plain).unwrap()),
    ];
    for (name, bytes) in texts {
        let text = String::from_utf8(bytes).unwrap();
        let (_, format, expected) = DOCUMENTS.iter().find(|(document, ..)| *document == name).unwrap();
        assert!(text.starts_with(&format!("{{\"format\":\"{format}\",\"version\":1,")), "{text}");
        assert!(!text.contains(['\n', ' ']) || text.contains("diptych 0.1.0"), "{text}");
        let found = keys_of(&text);
        let expected: Vec<&str> = ["format", "version"]
            .into_iter()
            .chain(expected.split([',', ' ']).filter(|key| !key.is_empty() && *key != "or"))
            .filter(|key| !["mac", "body", "sealed"].contains(key) || found.iter().any(|found| found == key))
            .collect();
        assert_eq!(found, expected);
    }
    let plain = String::from_utf8(document(SnapshotKind::Snapshot).encode(&plain).unwrap()).unwrap();
    let (_, body) = plain.split_once("\"body\":").unwrap();
    assert_eq!(keys_of(&body[..body.len() - 1]), SNAPSHOT_KEYS);
    let (_, archives) = body.split_once("\"archives\":[").unwrap();
    let (first, _) = archives.split_once(",{\"name\"").unwrap();
    assert_eq!(keys_of(first), ARCHIVE_KEYS);
}

/// The keys of a document in the order in which they stand.
fn keys_of(text: &str) -> Vec<String> {
    let (mut depth, mut in_string, mut escaped, mut word, mut found) =
        (0, false, false, String::new(), Vec::new());
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => {
                in_string = !in_string;
                if in_string {
                    word.clear();
                }
            }
            _ if in_string => word.push(c),
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ':' if depth == 1 => found.push(std::mem::take(&mut word)),
            _ => {}
        }
    }
    found
}

/// Spec: R-3-4, R-9-1
#[test]
fn every_flip_is_refused() {
    for (bytes, open) in authentic() {
        // The lowest bit makes another character, the next the other case of a letter, the last no character.
        for (at, flip) in (0..bytes.len()).flat_map(|at| [(at, 1), (at, 0x20), (at, 0x80)]) {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            assert!(open(&changed).is_err(), "byte {at}: {}", String::from_utf8_lossy(&changed));
        }
        for end in 0..bytes.len() {
            assert_eq!(open(&bytes[..end]).unwrap_err().class, Class::Corrupt);
        }
    }
}

/// Spec: R-4-2
#[test]
fn every_flip_of_a_key_file_is_refused_or_changes_words_alone() {
    let key = key_document(b"secret");
    let bytes = key.encode().unwrap();
    assert_eq!(opens(&bytes, &REPOSITORY, b"secret"), Ok(true));
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if opens(&changed, &REPOSITORY, b"secret") == Ok(true) {
            let mut found = KeyDocument::decode(&changed).unwrap();
            assert_ne!(found.owner, key.owner, "bit {bit}");
            found.owner = key.owner.clone();
            assert_eq!(found, key, "bit {bit}");
        }
    }
}

fn opens(bytes: &[u8], repository: &RepositoryId, password: &[u8]) -> Result<bool, Class> {
    // A flip may ask for a cost that is allowed and takes long.
    let class = |error: Error| error.class;
    let document = KeyDocument::decode(bytes).map_err(class)?;
    if (document.kdf.memory_kib, document.kdf.passes, document.kdf.lanes) != (8, 1, 1) {
        return Ok(false);
    }
    document.unwrap(repository, password).map(|master| master.is_some()).map_err(class)
}

/// Spec: R-4-3, R-4-4
#[test]
fn a_password_opens_one_of_the_key_files_or_none() {
    let files = || {
        [
            Err(Error::missing("not there")),
            Ok(b"{".to_vec()),
            Ok(key_document(b"first").encode().unwrap()),
            Ok(key_document(b"second").encode().unwrap()),
        ]
    };
    let try_password = |password: &[u8], repository: &RepositoryId| {
        let mut reported = Vec::new();
        let found = unlock(files(), repository, password, |place, error| reported.push((place, error.class)));
        (found.map(|(place, _)| place), reported)
    };
    let damaged = vec![(0, Class::Missing), (1, Class::Corrupt)];
    assert_eq!(try_password(b"first", &REPOSITORY), (Some(2), damaged.clone()));
    assert_eq!(try_password(b"second", &REPOSITORY), (Some(3), damaged.clone()));
    assert_eq!(try_password(b"third", &REPOSITORY), (None, damaged));
    // Key files of another repository open nothing here, whatever the password.
    assert_eq!(try_password(b"first", &OTHER).0, None);
    let (_, master) = unlock(files(), &REPOSITORY, b"second", |_, _| {}).unwrap();
    let same = document(SnapshotKind::Snapshot).encode(&DocumentKeys::of(&master)).unwrap();
    SnapshotDocument::decode(&same, &keys(1), &REPOSITORY).unwrap();
}

#[test]
fn a_key_file_with_another_repository_written_into_it_does_not_open() {
    let text = String::from_utf8(key_document(b"x").encode().unwrap()).unwrap();
    let moved = text.replace(&REPOSITORY.to_string(), &OTHER.to_string());
    assert_eq!(opens(moved.as_bytes(), &OTHER, b"x"), Ok(false));
    assert_eq!(opens(text.as_bytes(), &OTHER, b"x"), Err(Class::Corrupt));
}

/// Spec: R-4-1
#[test]
fn a_key_file_that_asks_for_too_much_is_refused_before_it_is_tried() {
    let text = String::from_utf8(key_document(b"x").encode().unwrap()).unwrap();
    let class = |from: &str, to: &str| {
        assert!(text.contains(from));
        KeyDocument::decode(text.replace(from, to).as_bytes()).unwrap_err().class
    };
    assert_eq!(class("\"memory_kib\":8", "\"memory_kib\":4194305"), Class::Limit);
    assert_eq!(class("\"memory_kib\":8", "\"memory_kib\":18446744073709551615"), Class::Limit);
    assert_eq!(class("\"passes\":1", "\"passes\":65"), Class::Limit);
    assert_eq!(class("\"lanes\":1", "\"lanes\":65"), Class::Limit);
    assert_eq!(class("\"passes\":1", "\"passes\":0"), Class::Corrupt);
    assert_eq!(class("argon2id", "argon2i"), Class::Unsupported);
}

#[test]
fn documents_of_others_do_not_fit() {
    let snapshot = document(SnapshotKind::Snapshot).encode(&keys(1)).unwrap();
    let open = |bytes: &[u8], keys: &DocumentKeys, repository| {
        SnapshotDocument::decode(bytes, keys, repository).map_err(|error| error.class).map(drop)
    };
    assert_eq!(open(&snapshot, &keys(2), &REPOSITORY), Err(Class::Corrupt));
    assert_eq!(open(&snapshot, &keys(1), &OTHER), Err(Class::Corrupt));
    let moved =
        String::from_utf8(snapshot.clone()).unwrap().replace(&REPOSITORY.to_string(), &OTHER.to_string());
    assert_eq!(open(moved.as_bytes(), &keys(1), &OTHER), Err(Class::Corrupt));
    // A run that was never committed is no snapshot, whoever says so.
    let pending = document(SnapshotKind::Pending).encode(&keys(1)).unwrap();
    let committed = String::from_utf8(pending).unwrap().replace("pending", "snapshot");
    assert_eq!(open(committed.as_bytes(), &keys(1), &REPOSITORY), Err(Class::Corrupt));
    // Neither what is plain in an encrypted repository nor what is sealed in a plain one.
    let plain = document(SnapshotKind::Snapshot).encode(&DocumentKeys::plain()).unwrap();
    assert_eq!(open(&plain, &keys(1), &REPOSITORY), Err(Class::Corrupt));
    assert_eq!(open(&snapshot, &DocumentKeys::plain(), &REPOSITORY), Err(Class::Corrupt));
    for lock in locks() {
        let decode = |bytes: &[u8], keys: &DocumentKeys, repository| {
            Lock::decode(bytes, keys, repository).map_err(|error| error.class).map(drop)
        };
        let bytes = lock.encode(&keys(1)).unwrap();
        assert_eq!(decode(&bytes, &keys(2), &REPOSITORY), Err(Class::Corrupt));
        assert_eq!(decode(&bytes, &keys(1), &OTHER), Err(Class::Corrupt));
        assert_eq!(decode(&bytes, &DocumentKeys::plain(), &REPOSITORY), Err(Class::Corrupt));
        let plain = lock.encode(&DocumentKeys::plain()).unwrap();
        assert_eq!(decode(&plain, &keys(1), &REPOSITORY), Err(Class::Corrupt));
    }
}

/// Spec: R-3-5
#[test]
fn a_config_that_says_what_is_not_known_is_unsupported() {
    let text = String::from_utf8(config(Encryption::None).encode(&DocumentKeys::plain()).unwrap()).unwrap();
    let class = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        Config::decode(text.replace(from, to).as_bytes()).map_err(|error| error.class).map(drop)
    };
    assert_eq!(class("\"blake3\"", "\"sha256\""), Err(Class::Unsupported));
    assert_eq!(class("\"none\"", "\"rot13\""), Err(Class::Unsupported));
    assert_eq!(class("\"padme\"", "\"some\""), Err(Class::Unsupported));
    assert_eq!(class("\"pack_size\":33554432", "\"pack_size\":1048575"), Err(Class::Unsupported));
    assert_eq!(class("\"pack_size\":33554432", "\"pack_size\":1073741825"), Err(Class::Unsupported));
    assert_eq!(class("\"pack_size\":33554432", "\"pack_size\":1073741824"), Ok(()));
    let mut small = config(Encryption::None);
    small.pack_size = 1;
    assert_eq!(small.encode(&DocumentKeys::plain()).unwrap_err().class, Class::Unsupported);
    // Neither side may be without the keys that the other has.
    assert!(config(Encryption::None).encode(&keys(1)).is_err());
    assert!(config(Encryption::Xaes256Gcm).verify(&DocumentKeys::plain()).is_err());
    let mut stripped = config(Encryption::Xaes256Gcm);
    stripped.encryption = Encryption::None;
    assert_eq!(stripped.verify(&keys(1)).unwrap_err().class, Class::Corrupt);
}

/// Spec: R-3-1
#[test]
fn other_documents_are_refused_in_their_class() {
    let text =
        String::from_utf8(document(SnapshotKind::Snapshot).encode(&DocumentKeys::plain()).unwrap()).unwrap();
    let open = |text: &str| SnapshotDocument::decode(text.as_bytes(), &DocumentKeys::plain(), &REPOSITORY);
    let class = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        open(&text.replacen(from, to, 1)).map(drop).unwrap_err().class
    };
    assert_eq!(
        open(&text.replacen("{\"format", "{ \"new\":[[{}]],\"format", 1)).unwrap(),
        document(SnapshotKind::Snapshot)
    );
    assert_eq!(
        open(&text.replacen("{\"seconds", "{\"new\":null,\"seconds", 1)).unwrap(),
        document(SnapshotKind::Snapshot)
    );
    assert_eq!(class("\"version\":1", "\"version\":2"), Class::Unsupported);
    for (from, to) in [
        ("diptych-snapshot", "diptych-archive"),
        ("\"version\":1", "\"version\":\"1\""),
        ("\"kind\":\"snapshot\"", "\"kind\":\"other\""),
        ("\"kind\":\"snapshot\"", "\"kind\":\"tombstone\""),
        ("\"kind\":\"snapshot\"", "\"kind\":{\"snapshot\":null}"),
        ("\"roots\":[", "\"roots\":[],\"other\":["),
        ("\"tags\":[\"daily\"", "\"tags\":[7"),
        ("{\"seconds\":-1,\"nanoseconds\":999999999}", "[-1,999999999]"),
        ("\"path\":\"/home", "\"path\":\"\\\\n"),
        ("\"name\":\"dump\"", "\"name\":\"home\""),
        ("\"time\":\"2026-11-21T07:00:00.5Z\"", "\"time\":\"2026-11-21\""),
        ("\"base\":\"", "\"base\":null,\"other\":\""),
        ("\"entries\":18446744073709551615", "\"entries\":18446744073709551616"),
        ("\"complete\":true", "\"complete\":true,\"complete\":true"),
    ] {
        assert_eq!(class(from, to), Class::Corrupt, "{to}");
    }
    for text in ["", "[]", "null", "{}", "[\"diptych-snapshot\",1]", "\u{feff}{}"] {
        assert_eq!(open(text).unwrap_err().class, Class::Corrupt);
    }
    let long = " ".repeat((16 << 20) + 1);
    assert_eq!(open(&long).unwrap_err().class, Class::Limit);
    let mut large = snapshot();
    large.host = long;
    let large = SnapshotDocument { body: Body::Snapshot(large), ..document(SnapshotKind::Snapshot) };
    assert_eq!(large.encode(&DocumentKeys::plain()).unwrap_err().class, Class::Limit);
}

/// A copy that says the same in other bytes would be another snapshot. Spec: R-9-7.
#[test]
fn a_sealed_snapshot_cannot_be_multiplied() {
    let bytes = document(SnapshotKind::Snapshot).encode(&keys(1)).unwrap();
    let decode = |bytes: &[u8]| SnapshotDocument::decode(bytes, &keys(1), &REPOSITORY);
    assert!(decode(&bytes).is_ok());
    let with_more = [&bytes[..bytes.len() - 1], b",\"x\":1}"].concat();
    for copy in [[&bytes[..], b" "].concat(), [b"\n", &bytes[..]].concat(), with_more] {
        assert_eq!(decode(&copy).unwrap_err().class, Class::Corrupt);
    }
}

#[test]
fn nothing_is_written_that_would_be_refused() {
    let class = |kind, body| {
        let document = SnapshotDocument { repository: REPOSITORY, kind, body };
        document.encode(&keys(1)).unwrap_err().class
    };
    let Body::Tombstone(tombstone) = document(SnapshotKind::Tombstone).body else { panic!("another body") };
    assert_eq!(class(SnapshotKind::Snapshot, Body::Tombstone(tombstone)), Class::Corrupt);
    assert_eq!(class(SnapshotKind::Tombstone, Body::Snapshot(snapshot())), Class::Corrupt);
    let without = Snapshot { archives: Vec::new(), ..snapshot() };
    assert_eq!(class(SnapshotKind::Snapshot, Body::Snapshot(without)), Class::Corrupt);
    let twice = Snapshot { archives: vec![archive(b"a", None), archive(b"a", None)], ..snapshot() };
    assert_eq!(class(SnapshotKind::Snapshot, Body::Snapshot(twice)), Class::Corrupt);
    // A restore makes directories of these. Spec: R-9-6.
    let paths: [&[u8]; 6] = [b"/../x", b"/x/..", b"/a/./b", b"home", b"", b"/a\0b"];
    let named: [&[u8]; 4] = [b"..", b"a/../../b", b"", b"a\0"];
    let astray =
        paths.map(|path| archive(b"a", Some(path))).into_iter().chain(named.map(|name| archive(name, None)));
    for archive in astray {
        let body = Body::Snapshot(Snapshot { archives: vec![archive], ..snapshot() });
        assert_eq!(class(SnapshotKind::Snapshot, body), Class::Corrupt);
    }
}

/// Spec: R-9-2
#[test]
fn roots_that_are_not_those_of_the_body_are_found() {
    let text =
        String::from_utf8(document(SnapshotKind::Snapshot).encode(&DocumentKeys::plain()).unwrap()).unwrap();
    let root = digest("payload of home").to_string();
    let (envelope, body) = text.split_once("\"body\"").unwrap();
    for envelope in
        [envelope.replace(&format!("\"{root}\","), ""), envelope.replace(&root, &digest("x").to_string())]
    {
        let changed = format!("{envelope}\"body\"{body}");
        let error =
            SnapshotDocument::decode(changed.as_bytes(), &DocumentKeys::plain(), &REPOSITORY).unwrap_err();
        assert_eq!(error.class, Class::Corrupt);
    }
}

#[test]
fn a_sealed_snapshot_tells_roots_and_nothing_else() {
    let bytes = document(SnapshotKind::Snapshot).encode(&keys(1)).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for secret in ["host-of-secrets", "DOMAIN", "home", "daily", "2026-", &digest("tree").to_string()] {
        assert!(!text.contains(secret), "{secret}");
    }
    for root in document(SnapshotKind::Snapshot).envelope().roots {
        assert!(text.contains(&root.to_string()));
    }
    let [first, again] = [(); 2].map(|()| document(SnapshotKind::Snapshot).encode(&keys(1)).unwrap());
    assert_ne!(first, again, "the same document sealed twice is not the same bytes");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_and_paths_of_any_bytes_come_back(name in vec(1..=u8::MAX, 0..30), path in vec(1..=u8::MAX, 0..30)) {
        // Parts that are dots alone are refused, which another test shows.
        let plain = |path: Vec<u8>| [b"/-", &path.into_iter().map(|b| if b == b'.' { b',' } else { b }).collect::<Vec<_>>()[..]].concat();
        let (name, path) = (plain(name), plain(path));
        let snapshot = Snapshot { archives: vec![archive(&name, Some(&path))], ..snapshot() };
        let document = SnapshotDocument { body: Body::Snapshot(snapshot), ..document(SnapshotKind::Partial) };
        for keys in [DocumentKeys::plain(), keys(1)] {
            let bytes = document.encode(&keys).unwrap();
            prop_assert_eq!(&SnapshotDocument::decode(&bytes, &keys, &REPOSITORY).unwrap(), &document);
        }
    }

    #[test]
    fn hostile_documents_are_refused_or_read_as_they_are(
        at in any::<prop::sample::Index>(),
        with in vec(any::<u8>(), 0..6),
        cut in 0..8_usize,
        which in 0..6_usize,
    ) {
        let plain = DocumentKeys::plain();
        let mut bytes = match which {
            0 => document(SnapshotKind::Snapshot).encode(&plain).unwrap(),
            1 => document(SnapshotKind::Tombstone).encode(&plain).unwrap(),
            2 => locks()[0].encode(&plain).unwrap(),
            3 => locks()[1].encode(&plain).unwrap(),
            4 => config(Encryption::None).encode(&plain).unwrap(),
            _ => key_document(b"x").encode().unwrap(),
        };
        let at = at.index(bytes.len());
        bytes.splice(at..(at + cut).min(bytes.len()), with);
        if let Ok(found) = SnapshotDocument::decode(&bytes, &plain, &REPOSITORY) {
            let again = found.encode(&plain).unwrap();
            prop_assert_eq!(SnapshotDocument::decode(&again, &plain, &REPOSITORY).unwrap(), found);
        }
        if let Ok(found) = Lock::decode(&bytes, &plain, &REPOSITORY) {
            let again = found.encode(&plain).unwrap();
            prop_assert_eq!(Lock::decode(&again, &plain, &REPOSITORY).unwrap(), found);
        }
        if let Ok(found) = Config::decode(&bytes) && found.verify(&plain).is_ok() {
            prop_assert_eq!(Config::decode(&found.encode(&plain).unwrap()).unwrap(), found);
        }
        if let Ok(found) = KeyDocument::decode(&bytes) {
            prop_assert_eq!(KeyDocument::decode(&found.encode().unwrap()).unwrap(), found);
        }
    }
}
