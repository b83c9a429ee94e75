//! The specification and the code are one thing: tables are read and compared, and every requirement is shown
//! by a vector or a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use diptych_backend::FileKind;
use diptych_format::entry::Kind;
use diptych_format::error::Class;
use diptych_format::{Status, digest, limits, manifest, pack, pack_index, section, stream};
use diptych_repository::documents;
use diptych_server::Rights;
use diptych_server::problem::ProblemClass;

use crate::tidy;

/// Whether a requirement that nothing shows fails the tests. Off while vectors are being written.
const EVERY_REQUIREMENT_MUST_BE_SHOWN: bool = true;

/// Requirements of repositories whose code is not there yet: whoever writes it takes them out.
const PENDING: &[&str] = &[];

/// The documents that state requirements, and the letter of each one's ids.
const DOCUMENTS: [(&str, char); 3] =
    [("spec/archive.md", 'A'), ("spec/repository.md", 'R'), ("spec/protocol.md", 'P')];

/// Tables whose counterpart in the code the tests here compare.
const TABLES: &[&str] = &[
    "chunk-header",
    "columns",
    "contexts",
    "error-classes",
    "index-header",
    "index-row",
    "kinds",
    "limits",
    "manifest",
    "pack-header",
    "pack-trailer",
    "problems",
    "repository-contexts",
    "repository-documents",
    "repository-files",
    "repository-limits",
    "rights",
    "section-header",
    "sections",
    "snapshot-archive",
    "snapshot-body",
    "snapshot-kinds",
    "status",
    "stream-header",
    "stream-trailer",
];

/// What one document says.
fn text(path: &str) -> String {
    fs::read_to_string(diptych_tests::root().join(path)).unwrap()
}

/// What all of them say.
fn spec() -> String {
    DOCUMENTS.map(|(path, _)| text(path)).join("\n")
}

/// The tables that are marked `<!-- table: NAME -->`: their rows without the head, cells trimmed.
fn tables(text: &str) -> BTreeMap<String, Vec<Vec<String>>> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(name) = line.trim().strip_prefix("<!-- table: ").and_then(|rest| rest.strip_suffix(" -->"))
        else {
            continue;
        };
        while lines.next_if(|line| line.is_empty()).is_some() {}
        let rows = std::iter::from_fn(|| lines.next_if(|line| line.starts_with('|')));
        let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let rows: Vec<Vec<String>> = rows.skip(2).map(cells).collect();
        assert!(!rows.is_empty(), "table {name} has no rows");
        assert!(found.insert(name.to_owned(), rows).is_none(), "table {name} stands twice");
    }
    found
}

/// The first cells of each row of a table.
fn rows<const N: usize>(name: &str) -> Vec<[String; N]> {
    let tables = tables(&spec());
    let table = tables.get(name).unwrap_or_else(|| panic!("there is no table {name}"));
    table.iter().map(|row| std::array::from_fn(|index| row.get(index).cloned().unwrap_or_default())).collect()
}

/// A table's rows, each turned into something to compare.
fn mapped<const N: usize, T>(name: &str, map: impl Fn([String; N]) -> T) -> Vec<T> {
    rows(name).into_iter().map(map).collect()
}

fn number(text: &str) -> u64 {
    let parsed = match text.get(..2) {
        Some("0x") => u64::from_str_radix(&text[2..], 16),
        Some("0o") => u64::from_str_radix(&text[2..], 8),
        _ => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{text:?} is no number"))
}

#[test]
fn every_table_is_known_here() {
    let found = tables(&spec());
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), TABLES);
}

#[test]
fn error_classes() {
    let words = mapped("error-classes", |[word]| word);
    assert_eq!(words, Class::ALL.map(|(_, word)| word));
    for (class, word) in Class::ALL {
        assert_eq!(class.word(), word);
    }
}

#[test]
fn problems() {
    let found = mapped("problems", |[class, status]| (class, number(&status)));
    let code = ProblemClass::ALL.map(|(_, word, status)| (word.to_owned(), u64::from(status)));
    assert_eq!(found, code);
}

#[test]
fn rights() {
    let words = mapped("rights", |[word]| word);
    assert_eq!(words, Rights::ALL.words());
}

#[test]
fn contexts() {
    let found = mapped("contexts", |[name, context]| (name, context));
    let code = digest::CONTEXTS.map(|(name, context)| (name.to_owned(), context.to_owned()));
    assert_eq!(found, code);
}

#[test]
fn contexts_of_repositories() {
    let found = mapped("repository-contexts", |[name, context]| (name, context));
    let code = digest::REPOSITORY_CONTEXTS.map(|(name, context)| (name.to_owned(), context.to_owned()));
    assert_eq!(found, code);
}

#[test]
fn documents_of_repositories() {
    let found = mapped("repository-documents", |[name, format, keys]| (name, format, keys));
    let code = documents::DOCUMENTS.map(|(name, format, keys)| (name.into(), format.into(), keys.into()));
    assert_eq!(found, code);
    assert_eq!(mapped("snapshot-kinds", |[kind]| kind), documents::SnapshotKind::ALL.map(|(_, word)| word));
    assert_eq!(mapped("snapshot-body", |[key]| key), documents::SNAPSHOT_KEYS);
    assert_eq!(mapped("snapshot-archive", |[key]| key), documents::ARCHIVE_KEYS);
}

#[test]
fn files_of_repositories() {
    let directory = |path: &str| path.split_once('/').map_or(path, |(directory, _)| directory).to_owned();
    let found = mapped("repository-files", |[_, path]| directory(&path));
    let code = FileKind::ALL.map(|kind| if kind == FileKind::Config { "config" } else { kind.directory() });
    assert_eq!(found, code);
}

#[test]
fn kinds() {
    let found = mapped("kinds", |[word, bits]| (word, number(&bits)));
    assert_eq!(found, Kind::ALL.map(|(_, bits, word)| (word.to_owned(), u64::from(bits))));
    for (kind, bits, word) in Kind::ALL {
        assert_eq!((kind.mode_bits(), kind.word()), (bits, word));
        assert_eq!(Kind::from_mode(bits | 0o7777).unwrap(), kind);
    }
}

#[test]
fn status() {
    let found = mapped("status", |[bit, word]| (number(&bit), word));
    assert_eq!(found, Status::ALL.map(|(bit, word)| (u64::from(bit.0), word.to_owned())));
}

#[test]
fn limits_have_their_values() {
    let found = mapped("limits", |[name, value]| (name, number(&value)));
    assert_eq!(found, limits::ALL.map(|(name, value)| (name.to_owned(), value)));
    let found = mapped("repository-limits", |[name, value]| (name, number(&value)));
    assert_eq!(found, limits::REPOSITORY.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn sections() {
    let found = mapped("sections", |[tag]| tag);
    assert_eq!(found, section::TAGS.map(|tag| String::from_utf8_lossy(&tag.0).into_owned()));
}

#[test]
fn columns() {
    let found = mapped("columns", |[tag, id, name, kind]| (tag, number(&id), name, kind));
    let code = section::COLUMNS.iter().map(|column| {
        let tag = String::from_utf8_lossy(&column.tag.0).into_owned();
        (tag, u64::from(column.id), column.name.to_owned(), column.kind.word().to_owned())
    });
    assert_eq!(found, code.collect::<Vec<_>>());
}

#[test]
fn columns_count_what_there_is_to_count() {
    let words =
        ["rows", "symlinks", "devices", "sets", "xattrs", "externals", "directories", "sparse", "users"];
    let columns: Vec<[String; 5]> = rows("columns");
    for [tag, _, name, kind, count] in &columns {
        let divider = columns.iter().find(|[other, _, column, ..]| other == tag && column == count);
        let is_known = words.contains(&count.as_str()) || count == "groups" || count == "1";
        assert!(is_known || divider.is_some(), "{tag} {name} counts {count:?}");
        assert_eq!(
            divider.is_some(),
            kind == "bytes",
            "{tag} {name}: bytes are divided by ends, and nothing else is"
        );
        assert!(
            divider.is_none_or(|[_, _, _, kind, _]| kind == "ends"),
            "{tag} {name} is not divided by ends"
        );
    }
}

/// The fields of a table of offsets: offset, size, name. Each begins where the one before ends.
fn fields(table: &str) -> Vec<(u64, u64, String)> {
    let fields = mapped(table, |[offset, size, name]| (number(&offset), number(&size), name));
    fields.iter().fold(0, |end, (offset, size, name)| {
        assert_eq!(*offset, end, "{table}: {name} does not begin where the field before it ends");
        end + size
    });
    fields
}

#[track_caller]
fn assert_fields(table: &str, length: usize, code: &[(u64, u64, &str)]) {
    let found = fields(table);
    let (offset, size, _) = found.last().unwrap();
    assert_eq!(offset + size, length as u64, "{table}");
    let code: Vec<_> = code.iter().map(|(offset, size, name)| (*offset, *size, (*name).to_owned())).collect();
    assert_eq!(found, code, "{table}");
}

#[test]
fn headers_and_trailers_have_their_fields() {
    assert_fields("stream-header", stream::HEADER_LENGTH, &stream::HEADER_FIELDS);
    assert_fields("stream-trailer", stream::TRAILER_LENGTH, &stream::TRAILER_FIELDS);
    assert_fields("pack-header", pack::HEADER_LENGTH, pack::HEADER_FIELDS);
    assert_fields("chunk-header", pack::CHUNK_HEADER_LENGTH, pack::CHUNK_FIELDS);
    assert_fields("pack-trailer", pack::TRAILER_LENGTH, pack::TRAILER_FIELDS);
    assert_fields("index-header", pack_index::INDEX_HEADER_LENGTH, pack_index::INDEX_HEADER_FIELDS);
    assert_fields("index-row", pack_index::INDEX_ROW_LENGTH, pack_index::INDEX_ROW_FIELDS);
}

/// The header of an empty section shows each of its fields.
#[test]
fn the_section_header_has_its_fields() {
    let expected = [("tag", 0, 4), ("length", 4, 4), ("rows", 8, 4), ("columns", 12, 2), ("reserved", 14, 2)];
    let expected = expected.map(|(name, offset, size)| (offset, size, name.to_owned()));
    assert_eq!(fields("section-header"), expected);
    let mut bytes = Vec::new();
    let length = section::SectionBuilder::new(section::HOLES, 0x0102_0304).finish(&mut bytes).unwrap();
    assert_eq!(length, 16);
    assert_eq!(bytes, *b"HOLE\x10\0\0\0\x04\x03\x02\x01\0\0\0\0");
}

/// What a table of offsets gives as the value of a field.
fn value(table: &str, field: &str) -> String {
    let rows: Vec<[String; 4]> = rows(table);
    rows.into_iter().find(|[_, _, name, _]| name == field).map(|[.., value]| value).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    text.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn magics_and_versions() {
    assert_eq!(bytes(&value("stream-header", "magic")), stream::MAGIC);
    assert_eq!(bytes(&value("stream-trailer", "magic")), stream::END_MAGIC);
    assert_eq!(bytes(&value("pack-header", "magic")), pack::MAGIC);
    assert_eq!(bytes(&value("pack-trailer", "magic")), pack::END_MAGIC);
    assert_eq!(bytes(&value("index-header", "magic")), pack_index::MAGIC);
    assert_eq!(number(&value("index-header", "version")), u64::from(pack_index::VERSION));
    for table in ["stream-header", "stream-trailer"] {
        assert_eq!(number(&value(table, "version")), u64::from(stream::VERSION));
    }
    for table in ["pack-header", "pack-trailer"] {
        assert_eq!(number(&value(table, "version")), u64::from(pack::VERSION));
    }
}

/// A list such as `1 payload, 2 metadata` in a cell.
fn numbered(cell: &str) -> Vec<(u64, String)> {
    let pair = |part: &str| part.split_once(' ').map(|(n, word)| (number(n), word.to_owned())).unwrap();
    cell.split(", ").map(pair).collect()
}

#[test]
fn what_packs_and_chunks_hold() {
    let kinds = pack::ChunkKind::ALL.map(|(_, number, word)| (u64::from(number), word.to_owned()));
    assert_eq!(numbered(&value("chunk-header", "kind")), kinds);
    let seals = pack::Seal::ALL.map(|(_, number, word)| (u64::from(number), word.to_owned()));
    assert_eq!(numbered(&value("chunk-header", "seal")), seals);
    let holds = pack::PackHolds::ALL.map(|(_, number, word)| (u64::from(number), word.to_owned()));
    assert_eq!(numbered(&value("pack-header", "holds")), holds);
}

#[test]
fn manifest() {
    let found = mapped("manifest", |[key, value]| (key, value));
    assert_eq!(found.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), manifest::KEYS);
    assert_eq!(found[0].1, format!("{:?}", manifest::FORMAT));
    assert_eq!(number(&found[1].1), manifest::VERSION);
}

/// The requirement ids in `text`: the letter of a document, a number with dots, perhaps more after hyphens.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices('-').filter_map(|(hyphen, _)| {
        let start = hyphen.checked_sub(1)?;
        DOCUMENTS.iter().any(|(_, letter)| text.as_bytes()[start] == *letter as u8).then_some(start)
    });
    let is_start = |start: &usize| !text[..*start].ends_with(|c: char| c.is_alphanumeric() || c == '-');
    starts.filter(is_start).filter_map(|start| {
        let rest = &text[start..];
        let end = rest[2..]
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')
            .map_or(rest.len(), |e| e + 2);
        let id = rest[..end].trim_end_matches(['.', '-']);
        (id.len() > 2).then_some(id)
    })
}

/// The ids that the documents define, in square brackets: each its own.
fn defined() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, letter) in DOCUMENTS {
        let text = text(path);
        for (start, _) in text.match_indices(&format!("[{letter}-")) {
            let Some((inside, _)) = text[start + 1..].split_once(']') else { continue };
            for id in ids(inside) {
                assert!(found.insert(id.to_owned()), "requirement {id} is stated twice");
            }
        }
    }
    found
}

/// Where ids are cited: in the `covers:` line of vectors, and behind `Spec:` in comments of Rust files.
fn cited() -> BTreeMap<String, BTreeSet<PathBuf>> {
    let mut found: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for path in tidy::files() {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let mark = match extension {
            Some("vec") => "covers:",
            Some("rs") => "Spec: ",
            _ => continue,
        };
        let bytes = fs::read(diptych_tests::root().join(&path)).unwrap();
        let header = bytes.windows(2).position(|pair| pair == b"\n\n").filter(|_| mark == "covers:");
        let text = String::from_utf8_lossy(&bytes[..header.unwrap_or(bytes.len())]).into_owned();
        for line in text.lines() {
            let comment = line.trim_start();
            let is_citation = if mark == "covers:" { line.starts_with(mark) } else { comment.contains("//") };
            let Some((_, citation)) = line.split_once(mark).filter(|_| is_citation) else { continue };
            for id in with_ranges(citation) {
                found.entry(id).or_default().insert(path.clone());
            }
        }
    }
    found
}

/// The ids in a citation; `A-6-1 to A-6-4` stands for all four.
fn with_ranges(citation: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = citation;
    for id in ids(citation) {
        let (before, after) = rest.split_once(id).unwrap();
        let range = found.last().filter(|_| before == " to ").and_then(|first| {
            let ((section, first), (of, last)) = (first.rsplit_once('-')?, id.rsplit_once('-')?);
            (section == of).then_some((section, first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
        });
        let between =
            range.map(|(section, first, last)| (first + 1..last).map(move |n| format!("{section}-{n}")));
        let between: Vec<String> = between.into_iter().flatten().collect();
        found.extend(between);
        found.push(id.to_owned());
        rest = after;
    }
    found
}

#[test]
fn ids_are_found_in_text() {
    let found: Vec<_> = ids("A-5.1-2, A-6-1 to A-6-12. (A-7.2) R-4. AA-1 A-x -1 é-1").collect();
    assert_eq!(found, ["A-5.1-2", "A-6-1", "A-6-12", "A-7.2", "R-4"]);
    assert_eq!(with_ranges("A-6-9 to A-6-12, A-7-1."), ["A-6-9", "A-6-10", "A-6-11", "A-6-12", "A-7-1"]);
    assert_eq!(with_ranges("A-4 to A-6"), ["A-4", "A-5", "A-6"]);
}

#[test]
fn every_cited_requirement_exists() {
    let defined = defined();
    // A citation may name a section as well: then it shows none of the section's requirements in particular.
    let sections = |(path, letter): (&str, char)| -> Vec<String> {
        text(path).lines().filter_map(|line| section_of_heading(letter, line)).collect()
    };
    let sections: BTreeSet<String> = DOCUMENTS.into_iter().flat_map(sections).collect();
    let is_known = |id: &str| defined.contains(id) || sections.contains(id);
    let unknown: Vec<_> = cited().into_iter().filter(|(id, _)| !is_known(id)).collect();
    assert!(unknown.is_empty(), "unknown requirements are cited: {unknown:#?}");
}

/// for the heading of section 7.2 of the document whose letter is A.
fn section_of_heading(letter: char, line: &str) -> Option<String> {
    let heading = line.strip_prefix("## ").or_else(|| line.strip_prefix("### "))?;
    let number = heading.split(' ').next()?.trim_end_matches('.');
    Some(format!("{letter}-{number}"))
}

#[test]
fn every_requirement_is_shown() {
    let cited = cited();
    let is_pending = |id: &String| PENDING.contains(&&**id);
    let missing: Vec<_> =
        defined().into_iter().filter(|id| !cited.contains_key(id) && !is_pending(id)).collect();
    if EVERY_REQUIREMENT_MUST_BE_SHOWN {
        assert!(missing.is_empty(), "no vector and no test shows {missing:?}");
    } else if !missing.is_empty() {
        println!("{} requirements that no vector and no test shows: {}", missing.len(), missing.join(" "));
    }
}

/// What is shown is pending no longer, and what nobody states never was.
#[test]
fn pending_requirements_are_stated_and_not_shown() {
    let (defined, cited) = (defined(), cited());
    for id in PENDING {
        assert!(defined.contains(*id), "{id} is not stated");
        assert!(!cited.contains_key(*id), "{id} is shown: it is not pending");
    }
}

#[test]
fn requirement_ids_fit_their_section() {
    for (path, letter) in DOCUMENTS {
        let mut section = String::new();
        for line in text(path).lines() {
            section = section_of_heading(letter, line).unwrap_or(section);
            for (start, _) in line.match_indices(&format!("[{letter}-")) {
                let id = ids(&line[start + 1..]).next().unwrap();
                let (of, _) = id.rsplit_once('-').unwrap();
                assert_eq!(of, section, "{id} stands in another section");
            }
        }
    }
}
