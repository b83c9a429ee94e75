//! A server from its start to its end: where it listens, what it does by itself, several of them, many clients.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use diptych_tests::TestDir;
use diptych_tests::command::{binary, finish};
use diptych_tests::tools::{output, tool};

use crate::served::{PASSWORD, Served, payload_packs};

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

/// One server with two namespaces, three clients on another machine that are at work at once and share chunks; the server is
/// killed in the middle, and the clients go on when it is back. The pages show it all.
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
    let late = served.token(&["--rights", "append", "--namespace", "main", "--domain", "all"]);
    let before = payload_packs(&served.local("main"));
    finish(&mut run(&served, &late, &["backup", "--host", "late", "one", "two"])).assert_code(0);
    assert_eq!(payload_packs(&served.local("main")), before);
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
    // Another namespace has nothing to do with that.
    let other = served.repository("other");
    let own = served.token(&["--rights", "append", "--namespace", "other"]);
    for (token, arguments, code) in [
        (&admin, &["init", "--repo", &*other][..], 0),
        (&own, &["backup", "--repo", &other, "--host", "elsewhere", "one"], 0),
        (&tokens[0], &["snapshots", "--repo", &other], 1),
        (&own, &["snapshots"], 1),
    ] {
        finish(&mut run(&served, token, arguments)).assert_code(code);
    }
    assert!(payload_packs(&served.local("other")) > 0);
    let page = |namespace: &str| {
        let mut curl = tool("ip");
        curl.args(["netns", "exec", &machines.names[1], "curl", "--silent", "--insecure"]);
        curl.args(["--cookie", &format!("diptych={admin}"), &format!("{}/ui/{namespace}", served.url)]);
        String::from_utf8(output(&mut curl)).unwrap()
    };
    // Encrypted: tokens are what the server knows, and of four snapshots when they came.
    let (main, other) = (page("main"), page("other"));
    assert_eq!(
        [main.matches("<code title=").count(), other.matches("<code title=").count()],
        [4, 1],
        "{main}"
    );
    assert!(main.contains("what has arrived") && main.contains("encrypted"), "{main}");
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
