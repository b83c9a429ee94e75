//! Hole, value and owner tables: one section each, beside the tables of names.
//!
//! Spec: archive.md section 7.4.

use crate::entry::{Attributes, Hole, Xattr, validate_holes};
use crate::error::{Error, Result};
use crate::limits;
use crate::section::{self, Section, SectionBuilder};

/// Appends the hole table of one content.
pub fn encode_holes(holes: &[Hole], out: &mut Vec<u8>) -> Result<usize> {
    let starts: Vec<u64> = holes.iter().map(|hole| hole.start).collect();
    let lengths: Vec<u64> = holes.iter().map(|hole| hole.length).collect();
    SectionBuilder::new(section::HOLES, holes.len())
        .ints(section::HOLE_START, &starts)
        .ints(section::HOLE_LENGTH, &lengths)
        .finish(out)
}

/// Reads the hole table of a content of `size` bytes. Spec: A-5.6-1, A-5.6-2.
pub fn decode_holes(bytes: &[u8], size: u64) -> Result<Vec<Hole>> {
    let section = whole(bytes, section::HOLES)?;
    let rows = section.rows();
    if rows == 0 {
        return Err(Error::corrupt("a hole table has no holes"));
    }
    if rows > limits::HOLES_MAX {
        return Err(Error::limit("holes of a content", rows as u64, limits::HOLES_MAX as u64));
    }
    let starts = section.ints(section::HOLE_START, rows)?;
    let lengths = section.ints(section::HOLE_LENGTH, rows)?;
    let holes: Vec<Hole> =
        starts.iter().zip(lengths.iter()).map(|(start, length)| Hole { start, length }).collect();
    validate_holes(&holes, size)?;
    Ok(holes)
}

/// Appends a value table: the extended attributes of one attribute set.
pub fn encode_values(xattrs: &[Xattr], out: &mut Vec<u8>) -> Result<usize> {
    let names = xattrs.iter().map(|xattr| &xattr.name[..]);
    let values = xattrs.iter().map(|xattr| &xattr.value[..]);
    SectionBuilder::new(section::VALUES, xattrs.len())
        .divided(section::VALUE_XATTR_NAME_END, section::VALUE_XATTR_NAMES, names)
        .divided(section::VALUE_XATTR_VALUE_END, section::VALUE_XATTR_VALUES, values)
        .finish(out)
}

/// Reads a value table. Spec: A-5.3-2, A-5.3-3, A-7.1-6.
pub fn decode_values(bytes: &[u8]) -> Result<Vec<Xattr>> {
    let section = whole(bytes, section::VALUES)?;
    let rows = section.rows();
    let name_bytes = section.count(section::VALUE_XATTR_NAMES);
    if rows > name_bytes {
        return Err(Error::corrupt("an extended attribute's name is empty"));
    }
    let total = (name_bytes + section.count(section::VALUE_XATTR_VALUES)) as u64;
    if total > limits::XATTR_TOTAL_MAX {
        return Err(Error::limit("extended attribute bytes", total, limits::XATTR_TOTAL_MAX));
    }
    let names = section.divided(section::VALUE_XATTR_NAME_END, section::VALUE_XATTR_NAMES, rows)?;
    let values = section.divided(section::VALUE_XATTR_VALUE_END, section::VALUE_XATTR_VALUES, rows)?;
    let xattr = |row| Xattr { name: names.get(row).into(), value: values.get(row).into() };
    let xattrs = (0..rows).map(xattr).collect();
    // The mode is of no concern here: any valid one lets the attributes' own rules be checked.
    let attributes = Attributes { mode: 0o100000, xattrs, ..Attributes::default() };
    attributes.validate()?;
    if attributes.xattr_bytes() <= limits::XATTR_INLINE_MAX {
        return Err(Error::corrupt("a value table holds what should stand in the body"));
    }
    Ok(attributes.xattrs)
}

/// Names of users and groups, each list ascending by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// User ids with their names.
    pub users: Vec<(u32, Vec<u8>)>,
    /// Group ids with their names.
    pub groups: Vec<(u32, Vec<u8>)>,
}

impl Owners {
    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// The name of a user.
    pub fn user(&self, uid: u32) -> Option<&[u8]> {
        name_of(&self.users, uid)
    }

    /// The name of a group.
    pub fn group(&self, gid: u32) -> Option<&[u8]> {
        name_of(&self.groups, gid)
    }

    fn validate(&self) -> Result<()> {
        for list in [&self.users, &self.groups] {
            if list.len() > limits::OWNERS_MAX {
                return Err(Error::limit("names of owners", list.len() as u64, limits::OWNERS_MAX as u64));
            }
            if !list.is_sorted_by(|a, b| a.0 < b.0) {
                return Err(Error::corrupt("ids of owners do not ascend"));
            }
            if list.iter().any(|(_, name)| name.is_empty() || name.contains(&0)) {
                return Err(Error::corrupt("an owner's name is empty or holds NUL"));
            }
        }
        Ok(())
    }
}

fn name_of(list: &[(u32, Vec<u8>)], id: u32) -> Option<&[u8]> {
    let found = list.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    list.get(found).map(|(_, name)| &name[..])
}

/// Appends the owner table.
pub fn encode_owners(owners: &Owners, out: &mut Vec<u8>) -> Result<usize> {
    owners.validate()?;
    let ids = |list: &[(u32, Vec<u8>)]| list.iter().map(|(id, _)| u64::from(*id)).collect::<Vec<u64>>();
    let users = owners.users.iter().map(|(_, name)| &name[..]);
    let groups = owners.groups.iter().map(|(_, name)| &name[..]);
    SectionBuilder::new(section::OWNERS, owners.users.len() + owners.groups.len())
        .ints(section::OWNER_UID, &ids(&owners.users))
        .divided(section::OWNER_USER_END, section::OWNER_USERS, users)
        .ints(section::OWNER_GID, &ids(&owners.groups))
        .divided(section::OWNER_GROUP_END, section::OWNER_GROUPS, groups)
        .ints(section::OWNER_USER_COUNT, &[owners.users.len() as u64])
        .ints(section::OWNER_GROUP_COUNT, &[owners.groups.len() as u64])
        .finish(out)
}

/// Reads the owner table. Spec: A-7.4-1.
pub fn decode_owners(bytes: &[u8]) -> Result<Owners> {
    let section = whole(bytes, section::OWNERS)?;
    let count = |column| -> Result<usize> {
        let count = section.ints(column, 1)?.get(0);
        if count > limits::OWNERS_MAX as u64 {
            return Err(Error::limit("names of owners", count, limits::OWNERS_MAX as u64));
        }
        Ok(usize::try_from(count).unwrap_or(0))
    };
    let (user_count, group_count) = (count(section::OWNER_USER_COUNT)?, count(section::OWNER_GROUP_COUNT)?);
    if user_count + group_count != section.rows() {
        return Err(Error::corrupt("an owner table has other rows than names"));
    }
    let list = |ids, ends, names, count| -> Result<Vec<(u32, Vec<u8>)>> {
        let (ids, names) = (section.ints(ids, count)?, section.divided(ends, names, count)?);
        (0..count)
            .map(|row| {
                let id = u32::try_from(ids.get(row))
                    .map_err(|_| Error::corrupt("an owner's id is above 32 bits"))?;
                Ok((id, names.get(row).to_vec()))
            })
            .collect()
    };
    let owners = Owners {
        users: list(section::OWNER_UID, section::OWNER_USER_END, section::OWNER_USERS, user_count)?,
        groups: list(section::OWNER_GID, section::OWNER_GROUP_END, section::OWNER_GROUPS, group_count)?,
    };
    owners.validate()?;
    Ok(owners)
}

/// A section that fills `bytes`.
fn whole(bytes: &[u8], tag: section::Tag) -> Result<Section<'_>> {
    let section = Section::parse(bytes, tag)?;
    if section.length() != bytes.len() {
        return Err(Error::corrupt("a table is shorter than the reference to it says"));
    }
    Ok(section)
}
