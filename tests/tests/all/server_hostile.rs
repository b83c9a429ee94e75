//! A server among those who mean no good, or know no better: it says what is wrong, keeps nothing, and lives.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use diptych_format::pack::{
    ChunkHeader, ChunkKind, Codec, InnerHeader, PackHolds, PackTrailer, Seal, TRAILER_LENGTH,
    directory_digest, encode_directory, encode_header,
};
use diptych_format::pack_index::IndexHeader;
use diptych_server::jobs::Jobs;
use diptych_server::{Listen, Namespaces, NewToken, Rights, Server, TokenStore};
use diptych_tests::TestDir;
use diptych_tests::command::binary;
use diptych_tests::tools::tool;

use crate::served::{Served, names};

impl Served {
    fn address(&self) -> &str {
        self.url.split("//").nth(1).unwrap()
    }

    /// A connection without a client of ours.
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What the kernel says of the server.
    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[track_caller]
    fn assert_lives(&self) {
        assert_eq!(self.ask(None, "GET", "/healthz", None), (200, b"ok\n".to_vec()));
        let data = self.local("main");
        if data.exists() {
            let left: Vec<String> =
                names(&data).into_iter().filter(|name| name.starts_with(".new-")).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// The status of an answer in HTTP/1.1, if there is one.
fn status_of(stream: &mut TcpStream) -> Option<u16> {
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while !answer.windows(2).any(|two| two == b"\r\n") {
        match stream.read(&mut part) {
            Ok(count @ 1..) => answer.extend_from_slice(&part[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

#[test]
fn bytes_that_are_no_request_harm_nobody() {
    for arguments in [&["--listen", "127.0.0.1:0"][..], &["--listen", "127.0.0.1:0", "--plain"]] {
        let served = Served::start("hostile-bytes", arguments);
        let mut random = diptych_tests::Random::new(7);
        for length in [1, 100, 10_000, 300_000] {
            let mut stream = served.connect();
            let bytes = random.bytes(length);
            // It may be gone before it has heard everything.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        // The beginning of HTTP/2, and then frames of no meaning.
        let mut stream = served.connect();
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let _ = stream.write_all(&[0xff; 64 << 10]);
        let _ = stream.read_to_end(&mut Vec::new());
        served.assert_lives();
    }
}

#[test]
fn headers_and_bodies_without_end_are_ended() {
    let served = Served::plain("hostile-endless");
    let admin = served.admin();
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    // A header of a megabyte.
    let mut stream = served.connect();
    stream.write_all(b"GET /v1/main HTTP/1.1\r\nhost: x\r\nx: ").unwrap();
    let _ = stream.write_all(&vec![b'x'; 1 << 20]);
    assert_eq!(status_of(&mut stream), Some(431));
    // A document of more than there can be, that does not say how long it is.
    let name = "0".repeat(64);
    let mut stream = served.connect();
    write!(stream, "PUT /v1/main/snapshots/{name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin}\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    let sent = (0..1000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(sent < 1000 || status_of(&mut stream) == Some(413));
    // One that breaks off.
    let mut stream = served.connect();
    write!(stream, "PUT /v1/main/data/{name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin}\r\ncontent-length: 1000\r\n\r\nshort").unwrap();
    drop(stream);
    std::thread::sleep(Duration::from_millis(300));
    served.assert_lives();
}

/// Nobody is held up by a thousand who say nothing.
#[test]
fn a_thousand_idle_connections_cost_little() {
    let served = Served::plain("hostile-idle");
    served.make_trees();
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    let idle: Vec<TcpStream> = (0..1000).map(|_| served.connect()).collect();
    served.run(&admin, &["backup", "one"]).assert_code(0);
    let memory = served.status("VmHWM");
    assert!(memory < 256 << 10, "{memory} KiB");
    served.assert_lives();
    drop(idle);
}

/// A client that begins and says nothing more is not waited for for ever.
#[test]
fn who_falls_silent_is_dropped() {
    let directory = TestDir::new("hostile-silent");
    let (root, state) = (directory.join("root"), directory.join("state"));
    fs::create_dir_all(root.join("main")).unwrap();
    fs::create_dir(&state).unwrap();
    diptych_backend::open(root.join("main").to_str().unwrap()).unwrap().make_layout().unwrap();
    let tokens = TokenStore::open(&state).unwrap();
    let new = NewToken {
        name: "silent".to_owned(),
        namespace: None,
        domain: None,
        rights: Rights::ALL,
        quota: None,
        rate: None,
        expires: None,
    };
    let (_, token) = tokens.create(new).unwrap();
    let namespaces = Namespaces::Root { root: root.clone(), open: Mutex::default() };
    let mut server = Server::open(namespaces, &state).unwrap();
    server.silence_max = Duration::from_millis(300);
    let interrupt = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = mpsc::channel::<SocketAddr>();
    let end = Arc::clone(&interrupt);
    let log = state.join("jobs.log");
    let thread = std::thread::spawn(move || {
        let listen =
            Listen { address: Some("127.0.0.1:0".parse().unwrap()), is_plain: true, ..Listen::default() };
        let server = Arc::new(server);
        let locate = Arc::new(|_: &str| None);
        let jobs =
            Jobs { program: "none".into(), jobs: Vec::new(), locate, log, server: Arc::clone(&server) };
        let told = |listening: &diptych_server::Listening| ready.send(listening.address.unwrap()).unwrap();
        diptych_server::serve(server, &listen, &end, jobs, told).unwrap();
    });
    let mut stream = TcpStream::connect(is_ready.recv().unwrap()).unwrap();
    let name = "0".repeat(64);
    write!(stream, "PUT /v1/main/data/{name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 1000\r\n\r\nshort").unwrap();
    assert_eq!(status_of(&mut stream), Some(500));
    assert!(names(&root.join("main")).is_empty(), "{:?}", names(&root.join("main")));
    drop(stream);
    interrupt.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

/// Whoever says nothing, or nothing that counts, gives their place to others.
#[test]
fn who_never_says_who_they_are_is_sent_away() {
    let served = Served::plain("hostile-silent");
    let address = served.url.strip_prefix("http://").unwrap();
    let mut streams: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    streams[1].write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    streams[2].write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut said = Vec::new();
        // Until it ends.
        stream.read_to_end(&mut said).unwrap();
    }
}

/// One token that sends many files as slowly as can be keeps no other from sending, and its own come to an end.
#[test]
fn one_token_does_not_take_all_places() {
    let served = Served::plain("hostile-places");
    served.make_trees();
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    let (slow, other) = (served.append("main"), served.append("main"));
    let address = served.url.strip_prefix("http://").unwrap();
    let name = "0".repeat(64);
    let streams: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "PUT /v1/main/data/{name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {slow}\r\ncontent-length: 1000\r\n\r\nx").unwrap();
            stream
        })
        .collect();
    // Whoever is told to come again gives up sooner than a place becomes free.
    served.run(&other, &["backup", "--timeout", "10", "one"]).assert_code(0);
    // Those for whom there is no room to wait are told at once.
    let mut refused = 0;
    for mut stream in streams {
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let mut start = [0; 12];
        if stream.read_exact(&mut start).is_ok() {
            assert_eq!(&start, b"HTTP/1.1 429");
            refused += 1;
        }
    }
    assert!((10..=40).contains(&refused), "{refused}");
}

/// A form that anybody may send is short, and does not take long.
#[test]
fn a_form_without_end_is_refused() {
    let served = Served::plain("hostile-form");
    let file = served.directory.join("form");
    fs::write(&file, vec![b'x'; 2000]).unwrap();
    assert_eq!(served.ask(None, "POST", "/ui/-/sign-in", Some(&file)).0, 413);
    // Signing in is in the log like all else.
    let said = served.ask(None, "GET", "/ui/-/sign-in", None);
    assert_eq!(said.0, 200);
}

/// An index makes the server keep what it says in memory: that has to be in proportion. Spec: P-4-5.
#[test]
fn an_index_that_claims_much_for_nothing_is_refused() {
    let served = Served::plain("hostile-index");
    let admin = served.admin();
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    let header = |fan_bits, chunks, packs, replaces| {
        IndexHeader { fan_bits, chunks, packs, replaces }.encode().to_vec()
    };
    for start in [header(24, 0, 0, 0), header(0, 1, 2, 0), header(0, 0, 0, u32::MAX), header(3, 3, 0, 0)] {
        let bytes = [start, vec![0; 1 << 20]].concat();
        assert_eq!(served.put_named(&admin, "index", &bytes), (413, "limit".to_owned()));
    }
    // And it is no longer than it says.
    let bytes = [header(0, 0, 0, 0), vec![0; 100]].concat();
    assert_eq!(served.put_named(&admin, "index", &bytes), (413, "limit".to_owned()));
}

/// A disk that is full ends a run in a clear way, and what was there before is whole.
#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let directory = TestDir::new("hostile-full");
    let root = directory.join("root");
    fs::create_dir(&root).unwrap();
    // In a place of its own: the disk goes with the server.
    let mut command = tool("unshare");
    let script = "mount -t tmpfs -o size=3m none \"$1\" && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&root).arg(binary());
    let served = Served::by(command, directory, &["--listen", "127.0.0.1:0", "--plain"]);
    served.make_trees();
    let admin = served.admin();
    served.run(&admin, &["init"]).assert_code(0);
    served.run(&admin, &["backup", "one"]).assert_code(0);
    let big = served.directory.join("big");
    let mut random = diptych_tests::Random::new(3);
    fs::create_dir(&big).unwrap();
    fs::write(big.join("file"), random.bytes(4 << 20)).unwrap();
    let said = served.run(&admin, &["backup", "big"]).assert_code(1).messages();
    assert!(said.contains("No space left") && said.contains("(full)"), "{said}");
    served.run(&admin, &["check", "--read-data"]).assert_code(0);
    served.run(&admin, &["restore", "latest", "--target", "out"]).assert_code(0);
    served.assert_lives();
}

/// A pack of one chunk, which a few bytes are said to stand for: as many as a `u32` can say, or as few as a chunk may have.
fn bomb(raw_length: u32) -> Vec<u8> {
    let data = diptych_tests::tools::output_of(tool("zstd").args(["-q", "-c"]), &vec![0; 1 << 28]);
    let stored = [&InnerHeader { codec: Codec::Zstd, raw_length }.encode()[..], &data].concat();
    let header = ChunkHeader {
        id: diptych_format::Digest([7; 32]),
        stored_length: stored.len() as u32,
        kind: ChunkKind::Payload,
        seal: Seal::None,
    };
    let directory = encode_directory(&[header], 0).unwrap();
    let start = [&encode_header(PackHolds::Payload)[..], &header.encode(), &stored].concat();
    let trailer = PackTrailer {
        directory_digest: directory_digest(&directory),
        directory_length: directory.len() as u64,
        pack_length: (start.len() + directory.len() + TRAILER_LENGTH) as u64,
    };
    [&start[..], &directory, &trailer.encode()].concat()
}

#[test]
fn a_chunk_that_would_fill_the_memory_is_refused() {
    let served = Served::plain("hostile-bomb");
    let admin = served.admin();
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    for raw_length in [u32::MAX, 16 << 20, 1] {
        let (status, class) = served.put_named(&admin, "data", &bomb(raw_length));
        assert!(
            matches!((status, &*class), (422, "corrupt") | (413, "limit")),
            "{raw_length}: {status} {class}"
        );
    }
    let memory = served.status("VmHWM");
    assert!(memory < 256 << 10, "{memory} KiB");
    served.assert_lives();
}
