//! The rules of a directory table that its columns alone do not keep.

use crate::digest::Digest;
use crate::entry::{Kind, Status, validate_name, validate_target};
use crate::error::{Error, Result};
use crate::limits;

use super::DirectoryTable;

impl DirectoryTable<'_> {
    /// Checks each row, and that the columns hold nothing for rows that are not there.
    pub(super) fn validate(&mut self) -> Result<()> {
        self.sets.validate()?;
        let kinds = (0..self.sets.count)
            .map(|set| Kind::from_mode(u32::try_from(self.sets.mode.get(set)).unwrap_or(0)))
            .collect::<Result<Vec<Kind>>>()?;
        let mut used = vec![false; self.sets.count];
        let mut sums = Sums::default();
        for row in 0..self.rows {
            let set = usize::try_from(self.set.get(row)).unwrap_or(usize::MAX);
            let (Some(kind), Some(used)) = (kinds.get(set), used.get_mut(set)) else {
                return Err(Error::corrupt("a row has an attribute set that is not there"));
            };
            *used = true;
            self.validate_name(row)?;
            self.validate_row(row, *kind, &mut sums)?;
        }
        if used.contains(&false) {
            return Err(Error::corrupt("an attribute set is not used"));
        }
        self.validate_counts(&sums)?;
        self.payload_total = sums.payload;
        self.entries_total = sums.entries;
        Ok(())
    }

    /// Names ascend and are valid; the root's, alone in its table, is empty.
    fn validate_name(&self, row: usize) -> Result<()> {
        let name = self.name(row);
        if name.is_empty() && self.rows == 1 {
            return Ok(());
        }
        validate_name(name)?;
        if row > 0 && self.name(row - 1) >= name {
            return Err(Error::corrupt("names of a directory do not ascend"));
        }
        Ok(())
    }

    fn validate_row(&self, row: usize, kind: Kind, sums: &mut Sums) -> Result<()> {
        if self.nanoseconds.get(row) >= 1_000_000_000 || self.ctime_nanoseconds.get(row) >= 1_000_000_000 {
            return Err(Error::corrupt("a time has 1,000,000,000 nanoseconds or more"));
        }
        if self.status.get(row) > 0xf {
            return Err(Error::corrupt("a status has bits that are not known"));
        }
        let (size, payload) = (self.size.get(row), self.payload_length.get(row));
        match kind {
            Kind::File => {
                if size > limits::SIZE_MAX {
                    return Err(Error::limit("content size", size, limits::SIZE_MAX));
                }
                let is_sparse =
                    self.hole_row.get(sums.sparse) == row as u64 && sums.sparse < self.hole_row.len();
                sums.sparse += usize::from(is_sparse);
                let is_unread = self.status(row).has(Status::NOT_READ);
                let fits = match (is_unread, is_sparse) {
                    (true, _) => payload == 0 && !is_sparse && self.digest.get(row) == Digest::NONE,
                    (false, true) => payload < size,
                    (false, false) => payload == size,
                };
                if !fits {
                    return Err(Error::corrupt(
                        "a content's size, payload length, holes and status disagree",
                    ));
                }
            }
            Kind::Directory => {
                let entries = self.directory_entries.get(sums.directories);
                sums.entries = sums.entries.checked_add(entries).ok_or_else(too_large)?;
                sums.directories += 1;
            }
            Kind::Symlink => {
                if self.target_row.get(sums.symlinks) != row as u64 {
                    return Err(Error::corrupt("a symbolic link has no target"));
                }
                validate_target(self.targets.get(sums.symlinks))?;
                sums.symlinks += 1;
            }
            Kind::BlockDevice | Kind::CharDevice => {
                let (major, minor) =
                    (self.device_major.get(sums.devices), self.device_minor.get(sums.devices));
                if self.device_row.get(sums.devices) != row as u64 || (major | minor) > u64::from(u32::MAX) {
                    return Err(Error::corrupt("a device has no number, or one above 32 bits"));
                }
                sums.devices += 1;
            }
            Kind::Fifo | Kind::Socket => {}
        }
        if kind != Kind::File && size != 0 {
            return Err(Error::corrupt("an entry without a content has a size"));
        }
        if !matches!(kind, Kind::File | Kind::Directory)
            && (payload != 0 || self.digest.get(row) != Digest::NONE)
        {
            return Err(Error::corrupt("an entry that holds no bytes has a payload or a digest"));
        }
        sums.payload = sums.payload.checked_add(payload).ok_or_else(too_large)?;
        sums.entries = sums.entries.checked_add(1).ok_or_else(too_large)?;
        Ok(())
    }

    /// The columns for rows of one kind are as long as there are such rows. Spec: A-6-4, A-7.1-5, A-7.1-9.
    fn validate_counts(&self, sums: &Sums) -> Result<()> {
        // A row column of zeros only is absent (the one row is row 0), so that its own count says nothing.
        if self.target_row.len() != sums.symlinks {
            return Err(Error::corrupt("there are targets for rows that are no symbolic links"));
        }
        if self.device_row.len() > sums.devices {
            return Err(Error::corrupt("there are numbers for rows that are no devices"));
        }
        if self.directories.len() != sums.directories {
            return Err(Error::corrupt("there are not as many references as directories"));
        }
        if self.hole_row.len() != sums.sparse {
            return Err(Error::corrupt("there are hole tables for rows that have no content"));
        }
        Ok(())
    }
}

/// What is counted while the rows of a table are checked.
#[derive(Default)]
struct Sums {
    payload: u64,
    entries: u64,
    directories: usize,
    symlinks: usize,
    devices: usize,
    sparse: usize,
}

fn too_large() -> Error {
    Error::corrupt("the sums of a table do not fit 64 bits")
}
