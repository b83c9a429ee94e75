//! What `backup` stores in an encrypted repository is cut as that repository's key says.

use std::fs;
use std::process::Stdio;

use diptych_encoder::Cuts;
use diptych_encoder::cut::LARGE_MIN;
use diptych_format::Digest;
use diptych_format::limits::PAYLOAD_CHUNK_MAX;
use diptych_format::pack::ChunkKind;
use diptych_repository::Repository;
use diptych_tests::command::{command, finish};
use diptych_tests::{Random, TestDir};

const PASSWORD: &str = "a password";

/// Contents in the order of a stream as the chunks that they become.
fn chunks(cuts: &Cuts, contents: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut chunks, mut group) = (Vec::new(), Vec::new());
    for content in contents {
        let mut rest = &content[..];
        if (rest.len() as u64) < LARGE_MIN {
            group.extend_from_slice(rest);
            if cuts.ends_group(&Digest::of(rest), rest.len() as u64) {
                chunks.push(std::mem::take(&mut group));
            }
            continue;
        }
        chunks.extend(Some(std::mem::take(&mut group)).filter(|group| !group.is_empty()));
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(cuts.large_cut(&rest[..rest.len().min(PAYLOAD_CHUNK_MAX)]));
            chunks.push(chunk.to_vec());
            rest = behind;
        }
    }
    chunks
}

/// Spec: R-6-1 to R-6-3.
#[test]
fn what_is_backed_up_is_cut_as_the_repositorys_key_says() {
    let dir = TestDir::new("keyed_cuts");
    let (source, repository, password) = (dir.join("source"), dir.join("repository"), dir.join("password"));
    fs::write(&password, PASSWORD).unwrap();
    fs::create_dir(&source).unwrap();
    let mut random = Random::new(31);
    // Below the largest chunk together, so that only their digests end a group.
    let mut contents: Vec<Vec<u8>> = (0..20).map(|_| random.bytes(200_000)).collect();
    contents.push(random.bytes(5 << 20));
    for (number, content) in contents.iter().enumerate() {
        fs::write(source.join(format!("{number:02}")), content).unwrap();
    }
    let stream = random.bytes(5 << 20);
    fs::write(dir.join("stream"), &stream).unwrap();

    let run = |arguments: &[&str], input: Stdio| {
        let mut command = command(arguments);
        command.env("DIPTYCH_REPO", &repository).env("DIPTYCH_PASSWORD_FILE", &password).stdin(input);
        finish(&mut command).assert_code(0);
    };
    run(&["init"], Stdio::null());
    run(&["backup", source.to_str().unwrap()], Stdio::null());
    run(&["backup", "--stdin", "stream"], fs::File::open(dir.join("stream")).unwrap().into());

    let backend = diptych_backend::open(repository.to_str().unwrap()).unwrap();
    let repository = Repository::open(backend, true, || Ok(PASSWORD.into()), |_| ()).unwrap();
    let keys = repository.chunk_keys();
    let cuts = Cuts::keyed(keys.cut_key().unwrap());
    let expected = [chunks(&cuts, &contents), chunks(&cuts, &[stream])].concat();
    for chunk in expected {
        let id = keys.chunk_id(ChunkKind::Payload, &chunk);
        assert!(repository.index().contains(&id).unwrap(), "a chunk of {} bytes is missing", chunk.len());
    }
}
