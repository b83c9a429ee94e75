//! In what two rows of one name differ.

use diptych_format::Kind;
use diptych_format::error::Result;
use diptych_format::table::DirectoryTable;

use super::Aspect;

const PERMISSIONS: u32 = 0o7777;

/// What differs between a row of one table and a row of another; allocates where something does.
pub(super) fn aspects(
    (a, row_a): (&DirectoryTable<'_>, usize),
    (b, row_b): (&DirectoryTable<'_>, usize),
) -> Result<Vec<Aspect>> {
    let mut what = Vec::new();
    let mut note = |differs: bool, aspect: Aspect| {
        if differs {
            what.push(aspect);
        }
    };
    let (kind, kind_b) = (a.kind(row_a)?, b.kind(row_b)?);
    note(kind != kind_b, Aspect::Kind);
    if kind == kind_b {
        match kind {
            Kind::File => {
                let differs = a.size(row_a) != b.size(row_b) || a.digest(row_a) != b.digest(row_b);
                note(differs, Aspect::Content);
            }
            Kind::Symlink => note(a.target(row_a) != b.target(row_b), Aspect::Target),
            Kind::BlockDevice | Kind::CharDevice => note(a.device(row_a) != b.device(row_b), Aspect::Device),
            Kind::Directory | Kind::Fifo | Kind::Socket => {}
        }
    }
    // What stands in a body needs no more memory than the extended attributes there.
    let (set_a, set_b) = (a.attributes(row_a)?, b.attributes(row_b)?);
    note((set_a.mode ^ set_b.mode) & PERMISSIONS != 0, Aspect::Mode);
    note((set_a.uid, set_a.gid) != (set_b.uid, set_b.gid), Aspect::Owner);
    note(a.mtime(row_a) != b.mtime(row_b), Aspect::Times);
    let external = |table: &DirectoryTable<'_>, row| table.external(row).map(|(_, digest)| digest);
    let differ = set_a.xattrs != set_b.xattrs || external(a, row_a) != external(b, row_b);
    note(differ, Aspect::Xattrs);
    note(set_a.flags != set_b.flags, Aspect::Flags);
    note(set_a.project != set_b.project, Aspect::Project);
    Ok(what)
}
