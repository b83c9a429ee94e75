//! The server's pages, as a browser and as `curl` see them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use diptych_tests::tools::{output, python, rsync_differences, tool};

use crate::served::Served;

/// Names that a careless page would trip over.
const ODD: [&[u8]; 6] =
    [b"<script>alert(1)<x>", b"a\"b'c", b"new\nline", b"\xff\xfe", "\u{e9} \u{fc}".as_bytes(), b"a&b?c#d%2f"];

/// A repository that is not encrypted with a snapshot, and one that is.
fn served(name: &str) -> (Served, [String; 2]) {
    let served = Served::plain(name);
    let (admin, append) = (served.admin(), served.append("main"));
    let tree = served.directory.join("tree");
    fs::create_dir_all(tree.join("odd")).unwrap();
    for name in ODD {
        fs::write(tree.join("odd").join(OsStr::from_bytes(name)), [b"content of ", name].concat()).unwrap();
    }
    symlink("odd", tree.join("link")).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    fs::write(tree.join("page.html"), "<script>document.title = 'taken over'</script>").unwrap();
    served.run_plain(&admin, &["init", "--no-encryption"]).assert_code(0);
    served.run_plain(&append, &["backup", "tree", "--tag", "nightly", "--host", "<b>host"]).assert_code(0);
    (served, [admin, append])
}

/// What somebody who is signed in with a token gets: status, headers, body.
fn get(served: &Served, token: &str, path: &str) -> (u16, String, Vec<u8>) {
    let headers = served.directory.join("headers");
    let mut curl = tool("curl");
    curl.args(["--silent", "--path-as-is", "--cookie", &format!("diptych={token}"), "--dump-header"]);
    let body = output(curl.arg(&headers).arg(format!("{}{path}", served.url)));
    let headers = fs::read_to_string(headers).unwrap();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    (status, headers.to_lowercase(), body)
}

/// Where a page leads: the addresses of its links that `take` takes.
fn links(page: &[u8], take: impl Fn(&str) -> bool) -> Vec<String> {
    let text = String::from_utf8(page.to_vec()).unwrap();
    let links =
        text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&"));
    links.filter(|link| take(link)).collect()
}

#[test]
fn files_and_directories_can_be_looked_at_and_taken_away() {
    let (served, [admin, append]) = served("pages-files");
    let (status, headers, overview) = get(&served, &admin, "/ui/main");
    assert_eq!(status, 200);
    assert!(headers.contains("content-security-policy: default-src 'none'"), "{headers}");
    let text = String::from_utf8(overview.clone()).unwrap();
    assert!(text.contains("nightly") && text.contains("&#60;b&#62;host"), "{text}");
    let [root] = &links(&overview, |link| link.matches('/').count() == 4)[..] else { panic!("{text}") };
    let (_, _, directory) = get(&served, &admin, root);
    let [odd] = &links(&directory, |link| link.ends_with("/odd"))[..] else { panic!() };
    let (_, _, page) = get(&served, &admin, odd);
    let files = links(&page, |link| link.starts_with(&format!("{odd}/")));
    assert_eq!(files.len(), ODD.len());
    let mut found = Vec::new();
    for file in &files {
        let (status, headers, body) = get(&served, &admin, file);
        assert_eq!(status, 200, "{file}");
        assert!(
            headers.contains("content-disposition: attachment") && headers.contains("nosniff"),
            "{headers}"
        );
        assert!(headers.contains("content-type: application/octet-stream"), "{headers}");
        found.push(body);
    }
    let mut expected = ODD.map(|name| [b"content of ", name].concat());
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(!String::from_utf8_lossy(&page).contains("<script"));
    let (_, _, sparse) = get(&served, &admin, &format!("{root}/sparse"));
    assert!(sparse.len() == 3 << 20 && sparse.iter().all(|byte| *byte == 0));
    // All of it, as tar.
    let (_, headers, tar) = get(&served, &admin, &format!("{root}?download=tar"));
    assert!(headers.contains("filename*=utf-8''tree.tar"), "{headers}");
    let archive = served.directory.join("tree.tar");
    fs::write(&archive, tar).unwrap();
    let copy = served.directory.join("copy");
    fs::create_dir(&copy).unwrap();
    output(tool("tar").arg("xf").arg(&archive).arg("-C").arg(&copy));
    let compare = |from: &Path, to: &Path| {
        let (from, to) = (format!("{}/", from.display()), format!("{}/", to.display()));
        String::from_utf8(output(tool("rsync").args(["-rlpc", "--delete", "--itemize-changes", &from, &to])))
            .unwrap()
    };
    assert_eq!(compare(&served.directory.join("tree"), &copy.join("tree")), "");
    // And as zip, by somebody else's eyes.
    let (_, headers, zip) = get(&served, &admin, &format!("{root}?download=zip"));
    assert!(headers.contains("filename*=utf-8''tree.zip"), "{headers}");
    let archive = served.directory.join("tree.zip");
    fs::write(&archive, zip).unwrap();
    let script = "import sys, zipfile\nzip = zipfile.ZipFile(sys.argv[1])\nassert zip.testzip() is None\n\
        print(len(zip.namelist()), zip.getinfo('tree/sparse').file_size, zip.read('tree/page.html').decode())";
    let said = output(python().args(["-c", script]).arg(&archive));
    let expected = format!("{} {} <script>document.title = 'taken over'</script>\n", ODD.len() + 5, 3 << 20);
    assert_eq!(String::from_utf8(said).unwrap(), expected);
    assert_eq!(get(&served, &admin, &format!("{root}?download=rar")).0, 404);
    // Nobody else looks into anything.
    assert_eq!(get(&served, &append, "/ui/main").0, 200);
    for path in [root, odd, &files[0]] {
        assert_eq!(get(&served, &append, path).0, 403, "{path}");
        assert_eq!(get(&served, "dpt_wrong", path).0, 303, "{path}");
    }
    for path in [
        "/ui/nowhere",
        "/ui/main/x/0",
        &format!("{root}/../../.."),
        &format!("{root}/odd/%00"),
        "/ui/..%2f/x/0",
    ] {
        assert_eq!(get(&served, &admin, path).0, 404, "{path}");
    }
}

/// A tar has what a directory has: names of one inode, extended attributes, times to the nanosecond and before 1970.
#[test]
fn a_tar_is_the_directory() {
    let (served, [admin, append]) = served("pages-tar");
    let source = served.directory.join("source");
    let deep = "a directory with a long name ".repeat(5);
    fs::create_dir_all(source.join("d").join(&deep)).unwrap();
    fs::write(source.join("z"), "hard").unwrap();
    for name in ["d/a", "d/b"] {
        fs::hard_link(source.join("z"), source.join(name)).unwrap();
    }
    fs::write(source.join("d").join(&deep).join("x"), "x").unwrap();
    output(tool("setfattr").args(["-n", "user.key", "-v", "a=b"]).arg(source.join("z")));
    fs::write(source.join("old"), "old").unwrap();
    output(tool("touch").args(["-d", "1969-12-31T23:00:00.25Z"]).arg(source.join("old")));
    output(tool("touch").args(["-h", "-d", "2020-01-01T00:00:00.123456789Z"]).arg(source.join("z")));
    served.run_plain(&append, &["backup", "source", "--host", "tar"]).assert_code(0);
    let listed = served.run_plain(&admin, &["snapshots", "--json", "--host", "tar"]).assert_code(0).text();
    let listed: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let root = format!("/ui/main/{}/0", listed["id"].as_str().unwrap());
    let taken = |address: &str, into: &str| {
        let archive = served.directory.join("taken.tar");
        fs::write(&archive, get(&served, &admin, &format!("{address}?download=tar")).2).unwrap();
        let copy = served.directory.join(into);
        fs::create_dir(&copy).unwrap();
        output(tool("tar").args(["--xattrs", "-xf"]).arg(&archive).arg("-C").arg(&copy));
        copy
    };
    assert_eq!(rsync_differences(&source, &taken(&root, "all").join("source")), "");
    // Of names that have their first one elsewhere, too.
    let part = taken(&format!("{root}/d"), "part").join("d");
    assert_eq!(fs::metadata(part.join("a")).unwrap().nlink(), 2);
    assert_eq!(fs::read(part.join("b")).unwrap(), b"hard");
}

/// Whoever is led to another site is not signed in or out by it.
#[test]
fn forms_of_other_sites_are_refused() {
    let (served, [admin, _]) = served("pages-forms");
    for (site, expected) in [("cross-site", "403"), ("same-site", "403"), ("same-origin", "303")] {
        for path in ["/ui/-/sign-in", "/ui/-/sign-out"] {
            let mut curl = tool("curl");
            curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
            curl.args(["--header", &format!("sec-fetch-site: {site}"), "--data", &format!("token={admin}")]);
            let status = output(curl.arg(format!("{}{path}", served.url)));
            assert_eq!(String::from_utf8(status).unwrap(), expected, "{site} {path}");
        }
    }
}

/// In a real browser, with the keyboard alone: everything comes from the server, and nothing complains.
#[test]
fn a_browser_is_content() {
    let (served, [admin, append]) = served("pages-browser");
    let mut secret = served.client(&admin, &served.repository("secret"), &["init"]);
    diptych_tests::command::finish(&mut secret).assert_code(0);
    let script = diptych_tests::root().join("tests/tests/all/pages.py");
    let said =
        output(python().arg(script).arg(&served.url).arg(&admin).arg(&append).arg(served.directory.path()));
    assert_eq!(String::from_utf8(said).unwrap().trim(), "content");
}
