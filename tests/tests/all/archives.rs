//! Archives of real trees, through the command: what goes in comes out, and the same tree gives the same bytes.

use std::path::{Path, PathBuf};

use diptych_tests::command::diptych;
use diptych_tests::dir::TestDir;
use diptych_tests::random::for_each_seed;
use diptych_tests::tools::assert_tools_see_no_difference;
use diptych_tests::tree::Size;
use diptych_tests::{Tree, tree};

fn hash(of: &Path) -> String {
    let text = diptych(["hash".as_ref(), of.as_os_str()]).assert_code(0).text();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn create(archive: &Path, dir: &Path, options: &[&str]) {
    let mut arguments = vec!["create".as_ref(), "--force".as_ref(), archive.as_os_str(), dir.as_os_str()];
    arguments.extend(options.iter().map(std::ffi::OsStr::new));
    diptych(arguments).assert_code(0);
}

fn files_of(archive: &Path) -> [PathBuf; 2] {
    ["meta.dpt", "data.dpt"].map(|end| archive.with_extension(end))
}

fn bytes_of(archive: &Path) -> [Vec<u8>; 2] {
    files_of(archive).map(|file| std::fs::read(file).unwrap())
}

/// Spec: A-3.1-3, A-3.2-2, A-5.3-1, A-9-1, A-14-3.
#[test]
fn what_goes_in_comes_out() {
    let dir = TestDir::new("round-trip");
    for_each_seed(24, |random| {
        let number = random.any();
        let [source, archive, copy] =
            ["source", "archive", "copy"].map(|name| dir.join(format!("{name}-{number}")));
        let tree = Tree::made_up(random, Size::SMALL);
        tree.create(&source);
        create(&archive, &source, &["--no-ignore-files"]);
        diptych(["verify".as_ref(), archive.as_os_str()]).assert_code(0);
        diptych(["extract".as_ref(), archive.as_os_str(), copy.as_os_str()]).assert_code(0);
        Tree::read(&source).assert_same(&Tree::read(&copy));
        assert_tools_see_no_difference(&source, &copy);
        let ids = [&source, &archive, &copy].map(|of| hash(of));
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    });
}

/// Spec: A-10.1-1, A-10.1-2, A-10.1-3, A-10.2-2, A-10.3-4.
#[test]
fn the_same_tree_gives_the_same_bytes_whatever_the_threads() {
    let dir = TestDir::new("same-bytes");
    for_each_seed(6, |random| {
        let number = random.any();
        let source = dir.join(format!("source-{number}"));
        Tree::made_up(random, Size { objects: 400, depth: 6, content: 24 << 20 }).create(&source);
        let archive = dir.join("archive");
        create(&archive, &source, &["--threads", "1"]);
        let first = bytes_of(&archive);
        let id = hash(&archive);
        for options in [&["--threads", "4"][..], &["--threads", "3", "--max-memory", "64M"]] {
            create(&archive, &source, options);
            assert!(bytes_of(&archive) == first, "other bytes with {options:?}");
        }
        create(&archive, &source, &["--compression", "none"]);
        assert_eq!(hash(&archive), id, "another tree id without compression");
        std::fs::remove_dir_all(&source).unwrap();
    });
}

/// Spec: A-8.3-1, A-11-8.
#[test]
fn every_prefix_is_truncated() {
    let dir = TestDir::new("prefixes");
    let source = dir.join("source");
    tree! {
        "a" => Tree::file("some bytes"),
        "d" => tree! { "b" => Tree::file(vec![7; 5000]), "link" => Tree::symlink("b") },
    }
    .create(&source);
    let archive = dir.join("archive");
    create(&archive, &source, &[]);
    for (file, whole) in files_of(&archive).iter().zip(bytes_of(&archive)) {
        for length in 0..whole.len() {
            let prefix: std::sync::Arc<[u8]> = whole[..length].into();
            let error = diptych_repository::pack::PackReader::open(std::sync::Arc::new(prefix.to_vec()))
                .err()
                .unwrap_or_else(|| panic!("{length} bytes of {} open", file.display()));
            assert_eq!(error.class, diptych_format::Class::Truncated, "{length} bytes: {error}");
        }
        std::fs::write(file, &whole[..whole.len() - 1]).unwrap();
        let finished = diptych(["verify".as_ref(), archive.as_os_str()]).assert_code(1);
        assert!(finished.messages().contains("truncated"), "{}", finished.messages());
        std::fs::write(file, &whole).unwrap();
    }
}

#[test]
fn a_hole_costs_no_time_and_no_space() {
    let dir = TestDir::new("holes");
    let source = dir.join("source");
    std::fs::create_dir(&source).unwrap();
    let file = std::fs::File::create(source.join("sparse")).unwrap();
    file.set_len(100 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"in the middle", 50 << 30).unwrap();
    let [archive, copy] = ["archive", "copy"].map(|name| dir.join(name));
    create(&archive, &source, &[]);
    diptych(["extract".as_ref(), archive.as_os_str(), copy.as_os_str()]).assert_code(0);
    let stored: u64 = files_of(&archive).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(stored < 20_000, "{stored} bytes stored");
    let restored = std::fs::metadata(copy.join("sparse")).unwrap();
    assert_eq!(restored.len(), 100 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&restored) < 100, "holes were filled");
    assert_eq!(hash(&source), hash(&copy));
}

#[test]
fn a_damaged_chunk_costs_its_files_which_are_named() {
    let dir = TestDir::new("damage");
    let source = dir.join("source");
    let noise = |seed| diptych_tests::random::Random::new(seed).bytes(900_000);
    tree! { "first" => Tree::file(noise(1)), "second" => Tree::file(noise(2)), "small" => Tree::file("x") }
        .create(&source);
    let [archive, copy] = ["archive", "copy"].map(|name| dir.join(name));
    create(&archive, &source, &[]);
    let [_, data] = files_of(&archive);
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let verified = diptych(["verify".as_ref(), archive.as_os_str()]).assert_code(1);
    assert!(verified.messages().contains("first"), "{}", verified.messages());
    let extracted = diptych(["extract".as_ref(), archive.as_os_str(), copy.as_os_str()]).assert_code(3);
    assert!(extracted.messages().contains("first"), "{}", extracted.messages());
    assert!(!copy.join("first").exists(), "a damaged content was handed out");
    assert_eq!(std::fs::read(copy.join("second")).unwrap(), noise(2));
    assert_eq!(std::fs::read(copy.join("small")).unwrap(), b"x");
}

/// The whole way through pipes: one file with both streams.
#[test]
fn an_archive_goes_through_a_pipe() {
    let dir = TestDir::new("pipe");
    let [source, copy] = ["source", "copy"].map(|name| dir.join(name));
    tree! { "a" => Tree::file(vec![1; 300_000]), "d" => tree! { "b" => Tree::file("b") } }.create(&source);
    let binary = diptych_tests::command::binary();
    let pipe = format!(
        "'{0}' create - '{1}' | '{0}' extract - '{2}'",
        binary.display(),
        source.display(),
        copy.display()
    );
    let status = std::process::Command::new("bash").args(["-o", "pipefail", "-c", &pipe]).status().unwrap();
    assert!(status.success(), "{pipe}");
    Tree::read(&source).assert_same(&Tree::read(&copy));
}
