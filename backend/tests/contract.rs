//! What every backend does alike: one suite that is run on each kind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use std::fmt::Debug;
use std::io::Write;
use std::thread;

use diptych_backend::memory::Memory;
use diptych_backend::{Backend, Class, FileKind, FileName, Listed, Result, open};

/// Runs a test on a new place of each kind, with no layout yet.
fn on_each_bare(test: impl Fn(&dyn Backend)) {
    test(&Memory::new());
    let directory = tempfile::tempdir().unwrap();
    test(&*open(directory.path().join("repository").to_str().unwrap()).unwrap());
}

/// Runs a test on a new place of each kind.
fn on_each(test: impl Fn(&dyn Backend)) {
    on_each_bare(|backend| {
        backend.make_layout().unwrap();
        test(backend);
    });
}

fn name(kind: FileKind, number: u8) -> FileName {
    FileName::new(kind, [number; 32])
}

fn write(backend: &dyn Backend, name: &FileName, bytes: &[u8]) -> Result<()> {
    let mut file = backend.create(name.kind())?;
    file.write_all(bytes).unwrap();
    file.keep(name)
}

fn read(backend: &dyn Backend, name: &FileName) -> Result<Vec<u8>> {
    let mut bytes = vec![0; backend.length(name)? as usize];
    backend.read_at(name, &mut bytes, 0).map(|()| bytes)
}

#[track_caller]
fn class<T: Debug>(result: Result<T>) -> Class {
    result.unwrap_err().class
}

#[test]
fn what_is_kept_is_read_listed_and_deleted() {
    on_each(|backend| {
        for kind in FileKind::ALL {
            let name = name(kind, 0xa5);
            assert_eq!(backend.list(kind).unwrap(), []);
            write(backend, &name, b"some bytes").unwrap();
            assert_eq!(backend.length(&name).unwrap(), 10);
            assert_eq!(read(backend, &name).unwrap(), b"some bytes");
            assert_eq!(backend.list(kind).unwrap(), [Listed { name, length: 10 }]);
            assert_eq!(backend.strangers(kind).unwrap(), [""; 0]);
        }
        for kind in FileKind::ALL {
            let name = name(kind, 0xa5);
            backend.delete(&name).unwrap();
            assert_eq!(backend.list(kind).unwrap(), []);
            assert_eq!(class(read(backend, &name)), Class::Missing);
            assert_eq!(class(backend.read_at(&name, &mut [0], 0)), Class::Missing);
            assert_eq!(class(backend.delete(&name)), Class::Missing);
        }
    });
}

#[test]
fn ranges_are_read_whole_or_not_at_all() {
    on_each(|backend| {
        let name = name(FileKind::Data, 1);
        write(backend, &name, b"0123456789").unwrap();
        let read = |length: usize, offset: u64| {
            let mut bytes = vec![0; length];
            backend.read_at(&name, &mut bytes, offset).map(|()| bytes)
        };
        assert_eq!(read(10, 0).unwrap(), b"0123456789");
        assert_eq!(read(3, 4).unwrap(), b"456");
        assert_eq!(read(1, 9).unwrap(), b"9");
        assert_eq!(read(0, 11).unwrap(), b"");
        let beyond = [
            (1, 10),
            (2, 9),
            (11, 0),
            (1, 11),
            (1, i64::MAX as u64),
            (2, i64::MAX as u64 + 1),
            (2, u64::MAX),
        ];
        for (length, offset) in beyond {
            let error = read(length, offset).unwrap_err();
            assert_eq!(error.class, Class::Truncated, "{length} at {offset}: {error}");
            assert!(
                error
                    .to_string()
                    .contains(&format!("{length} bytes at {offset} are wanted, and it ends at 10"))
            );
        }
    });
}

#[test]
fn a_list_is_sorted_and_holds_one_kind() {
    on_each(|backend| {
        for number in [0xff, 0x0a, 0x9f, 0xa0, 0x00] {
            write(backend, &name(FileKind::Data, number), &[number; 3]).unwrap();
            write(backend, &name(FileKind::Index, number / 2), &[]).unwrap();
        }
        let names =
            |kind| backend.list(kind).unwrap().into_iter().map(|listed| listed.name).collect::<Vec<_>>();
        assert_eq!(
            names(FileKind::Data),
            [0x00, 0x0a, 0x9f, 0xa0, 0xff].map(|number| name(FileKind::Data, number))
        );
        assert_eq!(
            names(FileKind::Index),
            [0x00, 0x05, 0x4f, 0x50, 0x7f].map(|number| name(FileKind::Index, number))
        );
        assert_eq!(names(FileKind::Snapshot), []);
    });
}

#[test]
fn without_a_layout_all_is_missing() {
    on_each_bare(|backend| {
        for kind in FileKind::ALL {
            let name = name(kind, 1);
            assert_eq!(class(backend.list(kind)), Class::Missing);
            assert_eq!(class(backend.strangers(kind)), Class::Missing);
            assert_eq!(class(backend.create(kind).map(drop)), Class::Missing);
            assert_eq!(class(backend.read_at(&name, &mut [0], 0)), Class::Missing);
            assert_eq!(class(backend.length(&name)), Class::Missing);
            assert_eq!(class(backend.delete(&name)), Class::Missing);
        }
        assert_eq!(class(backend.remove_leftovers()), Class::Missing);
        backend.make_layout().unwrap();
        assert_eq!(backend.list(FileKind::Snapshot).unwrap(), []);
    });
}

#[test]
fn a_layout_is_made_only_where_nothing_is() {
    for kind in FileKind::ALL {
        on_each(|backend| {
            // One who makes it may have been ended, or be another at the same time.
            backend.make_layout().unwrap();
            write(backend, &name(kind, 0xee), b"x").unwrap();
            assert_eq!(class(backend.make_layout()), Class::Exists, "{kind:?}");
            assert_eq!(read(backend, &name(kind, 0xee)).unwrap(), b"x");
        });
    }
}

#[test]
fn a_file_that_is_being_written_is_not_seen() {
    on_each(|backend| {
        for kind in FileKind::ALL {
            let mut file = backend.create(kind).unwrap();
            file.write_all(b"half").unwrap();
            assert_eq!(backend.list(kind).unwrap(), []);
            assert_eq!(backend.strangers(kind).unwrap(), [""; 0]);
            assert_eq!(backend.remove_leftovers().unwrap(), 0);
            file.write_all(b" and half").unwrap();
            file.keep(&name(kind, 1)).unwrap();
            assert_eq!(read(backend, &name(kind, 1)).unwrap(), b"half and half");
            // Nobody knows what a file was to be that is dropped.
            backend.create(kind).unwrap().write_all(b"half").unwrap();
            assert_eq!(backend.list(kind).unwrap().len(), 1);
        }
    });
}

#[test]
fn a_second_file_of_a_name_takes_the_place_of_the_first_which_may_be_damaged() {
    on_each(|backend| {
        for kind in FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Config) {
            write(backend, &name(kind, 1), b"first").unwrap();
            assert_eq!(read(backend, &name(kind, 1)).unwrap(), b"first");
            write(backend, &name(kind, 1), b"second").unwrap();
            assert_eq!(read(backend, &name(kind, 1)).unwrap(), b"second");
            assert_eq!(backend.list(kind).unwrap().len(), 1);
        }
    });
}

#[test]
fn a_configuration_is_never_replaced() {
    on_each(|backend| {
        write(backend, &FileName::CONFIG, b"first").unwrap();
        let error = write(backend, &FileName::CONFIG, b"second").unwrap_err();
        assert_eq!(error.class, Class::Exists);
        assert!(error.to_string().contains("there is a repository here already"), "{error}");
        assert_eq!(read(backend, &FileName::CONFIG).unwrap(), b"first");
    });
}

#[test]
fn a_file_stays_of_the_kind_that_it_was_begun_as() {
    on_each(|backend| {
        let file = backend.create(FileKind::Key).unwrap();
        assert_eq!(class(file.keep(&name(FileKind::Data, 1))), Class::Unsupported);
        assert_eq!(backend.list(FileKind::Data).unwrap(), []);
    });
}

#[test]
fn many_threads_write_and_read_at_once() {
    on_each(|backend| {
        // Each file is written by two of them.
        thread::scope(|scope| {
            for start in 0..4 {
                scope.spawn(move || {
                    for number in (0..40).filter(|number| number % 2 == start % 2) {
                        let name = name(FileKind::Data, number);
                        write(backend, &name, &[number; 100]).unwrap();
                        assert_eq!(read(backend, &name).unwrap(), [number; 100]);
                    }
                });
            }
        });
        assert_eq!(backend.list(FileKind::Data).unwrap().len(), 40);
    });
}

#[test]
fn of_two_who_make_a_configuration_one_is_told() {
    on_each_bare(|backend| {
        // Whoever comes late enough is told when making the layout.
        let make = &|bytes: [u8; 1]| {
            backend.make_layout()?;
            write(backend, &FileName::CONFIG, &bytes).map(|()| bytes)
        };
        let made = thread::scope(|scope| {
            let others = [1, 2].map(|number| scope.spawn(move || make([number])));
            others.map(|other| other.join().unwrap())
        });
        let (won, lost): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
        assert_eq!(lost.into_iter().map(class).collect::<Vec<_>>(), [Class::Exists]);
        assert_eq!(read(backend, &FileName::CONFIG).ok(), won.into_iter().flatten().next().map(Vec::from));
    });
}
