//! Attribute sets of a directory table: what rows have in common stands once. Written from rows, and read where they
//! lie.

use crate::digest::Digest;
use crate::entry::{Attributes, Xattr};
use crate::error::{Error, Result};
use crate::limits;
use crate::section::{self, Digests, Divided, Ends, Ints, Section, SectionBuilder};
use crate::table::{Reference, References};

use super::encode::Written;

/// The distinct attributes of some rows, sorted, and which row has which.
pub(super) struct SetRows<'r> {
    sets: Vec<&'r Attributes>,
    pub(super) of_row: Vec<u64>,
}

impl<'r> SetRows<'r> {
    /// Of rows with these attributes.
    pub(super) fn of(rows: impl ExactSizeIterator<Item = &'r Attributes>) -> Self {
        let mut sets: Vec<&Attributes> = Vec::new();
        let mut first_seen = Vec::with_capacity(rows.len());
        let mut by_set = std::collections::HashMap::new();
        // A row is most often like the one before, and comparing two is cheaper than asking the map.
        let mut previous: Option<(&Attributes, usize)> = None;
        for attributes in rows {
            let index = match previous {
                Some((same, index)) if same == attributes => index,
                _ => *by_set.entry(attributes).or_insert_with(|| {
                    sets.push(attributes);
                    sets.len() - 1
                }),
            };
            previous = Some((attributes, index));
            first_seen.push(index);
        }
        let mut order: Vec<usize> = (0..sets.len()).collect();
        order.sort_by_key(|index| sets.get(*index));
        let mut rank = vec![0u64; sets.len()];
        for (place, index) in order.iter().enumerate() {
            if let Some(slot) = rank.get_mut(*index) {
                *slot = place as u64;
            }
        }
        sets.sort();
        let of_row = first_seen.into_iter().map(|index| rank.get(index).copied().unwrap_or(0)).collect();
        Self { sets, of_row }
    }

    /// Sets whose extended attributes are too large for the body.
    pub(super) fn externals(&self) -> impl Iterator<Item = (usize, &'r Attributes)> + '_ {
        self.sets.iter().enumerate().filter(|(_, set)| is_external(set)).map(|(index, set)| (index, *set))
    }

    /// Adds the columns of the sets to a body; `externals` are those whose value tables were written.
    pub(super) fn write(&self, externals: &[Written], digests: &[Digest], body: &mut SectionBuilder) {
        let column = |value: fn(&Attributes) -> u32| -> Vec<u64> {
            self.sets.iter().map(|set| value(set).into()).collect()
        };
        let (mut set_ends, mut inline): (Vec<u64>, Vec<&Xattr>) = (Vec::new(), Vec::new());
        for set in &self.sets {
            if !is_external(set) {
                inline.extend(&set.xattrs);
            }
            set_ends.push(inline.len() as u64);
        }
        let names = inline.iter().map(|xattr| &xattr.name[..]);
        let values = inline.iter().map(|xattr| &xattr.value[..]);
        let external_sets: Vec<u64> = externals.iter().map(|external| external.index as u64).collect();
        body.ints(section::BODY_SET_MODE, &column(|set| set.mode))
            .ints(section::BODY_SET_UID, &column(|set| set.uid))
            .ints(section::BODY_SET_GID, &column(|set| set.gid))
            .ints(section::BODY_SET_FLAGS, &column(|set| set.flags))
            .ints(section::BODY_SET_PROJECT, &column(|set| set.project))
            .ints(section::BODY_SET_XATTR_END, &set_ends)
            .divided(section::BODY_XATTR_NAME_END, section::BODY_XATTR_NAMES, names)
            .divided(section::BODY_XATTR_VALUE_END, section::BODY_XATTR_VALUES, values)
            .ints(section::BODY_EXTERNAL_SET, &external_sets)
            .digests(section::BODY_EXTERNAL_DIGEST, digests);
    }
}

fn is_external(attributes: &Attributes) -> bool {
    attributes.xattr_bytes() > limits::XATTR_INLINE_MAX
}

/// Attribute sets where they lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetColumns<'a> {
    pub(super) count: usize,
    pub(super) mode: Ints<'a>,
    pub(super) uid: Ints<'a>,
    pub(super) gid: Ints<'a>,
    flags: Ints<'a>,
    project: Ints<'a>,
    xattr_end: Ends<'a>,
    xattr_names: Divided<'a>,
    xattr_values: Divided<'a>,
    external_set: Ints<'a>,
    external_digest: Digests<'a>,
    external: References<'a>,
}

impl<'a> SetColumns<'a> {
    pub(super) fn read(body: &Section<'a>, tail: &Section<'a>) -> Result<Self> {
        let count = body.count(section::BODY_SET_MODE);
        let xattrs = body.count(section::BODY_XATTR_NAME_END);
        let externals = body.count(section::BODY_EXTERNAL_DIGEST);
        Ok(Self {
            count,
            mode: body.ints(section::BODY_SET_MODE, count)?,
            uid: body.ints(section::BODY_SET_UID, count)?,
            gid: body.ints(section::BODY_SET_GID, count)?,
            flags: body.ints(section::BODY_SET_FLAGS, count)?,
            project: body.ints(section::BODY_SET_PROJECT, count)?,
            xattr_end: body.ends(section::BODY_SET_XATTR_END, count, xattrs)?,
            xattr_names: body.divided(section::BODY_XATTR_NAME_END, section::BODY_XATTR_NAMES, xattrs)?,
            xattr_values: body.divided(section::BODY_XATTR_VALUE_END, section::BODY_XATTR_VALUES, xattrs)?,
            external_set: body.ints(section::BODY_EXTERNAL_SET, externals)?,
            external_digest: body.digests(section::BODY_EXTERNAL_DIGEST, externals)?,
            external: References::read(
                tail,
                section::TAIL_EXTERNAL_DISTANCE,
                section::TAIL_EXTERNAL_LENGTH,
                externals,
            )?,
        })
    }

    /// A set's attributes as they stand in the body: without those in a value table.
    pub(super) fn get(&self, index: usize) -> Result<Attributes> {
        // Spec: A-5.3-4.
        let narrow =
            |value: u64| u32::try_from(value).map_err(|_| Error::corrupt("an attribute is above 32 bits"));
        let xattrs = self.xattr_end.range(index).map(|xattr| Xattr {
            name: self.xattr_names.get(xattr).into(),
            value: self.xattr_values.get(xattr).into(),
        });
        Ok(Attributes {
            mode: narrow(self.mode.get(index))?,
            uid: narrow(self.uid.get(index))?,
            gid: narrow(self.gid.get(index))?,
            flags: narrow(self.flags.get(index))?,
            project: narrow(self.project.get(index))?,
            xattrs: xattrs.collect(),
        })
    }

    /// Whether a set has extended attributes in the body.
    pub(super) fn has_inline_xattrs(&self, index: usize) -> bool {
        !self.xattr_end.range(index).is_empty()
    }

    /// Where the value table of a set stands, if it has one, and its digest.
    pub(super) fn external(&self, index: usize) -> Option<(Reference, Digest)> {
        let external = self.external_set.search(index as u64)?;
        Some((self.external.get(external), self.external_digest.get(external)))
    }

    /// Spec: A-7.1-2, A-7.1-6, A-7.1-7.
    pub(super) fn validate(&self) -> Result<()> {
        let mut previous: Option<(Attributes, bool)> = None;
        for index in 0..self.count {
            let set = self.get(index)?;
            set.validate()?;
            let is_external = self.external_set.search(index as u64).is_some();
            if is_external && !set.xattrs.is_empty() || set.xattr_bytes() > limits::XATTR_INLINE_MAX {
                return Err(Error::corrupt(
                    "extended attributes stand in the body that belong in a value table",
                ));
            }
            if let Some((before, was_external)) = &previous {
                // Two sets that differ in nothing but extended attributes sort by those, which a value table hides.
                let same_but_hidden = (is_external || *was_external) && {
                    let bare = |set: &Attributes| Attributes { xattrs: Vec::new(), ..set.clone() };
                    bare(before) == bare(&set)
                };
                if !same_but_hidden && *before >= set {
                    return Err(Error::corrupt("attribute sets do not ascend"));
                }
            }
            previous = Some((set, is_external));
        }
        let mut last = None;
        for index in self.external_set.iter() {
            if index >= self.count as u64 || last.is_some_and(|last| last >= index) {
                return Err(Error::corrupt("sets with a value table do not ascend or are none"));
            }
            last = Some(index);
        }
        Ok(())
    }
}
