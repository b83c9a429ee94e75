//! The paths whose groups of links differ.
//!
//! Spec: archive.md section 7.3.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use diptych_format::error::Result;
use diptych_format::table::LinkTable;

use crate::archive::Archive;
use crate::pieces::Floor;

use super::cursor::{Cursor, Leaf, Names, fill, order};

/// Paths that one link table alone has, or that the two tell differently of. Reads nothing where they are equal.
pub(super) fn changed(a: &Archive, b: &Archive) -> Result<BTreeSet<Box<[u8]>>> {
    let mut changed = BTreeSet::new();
    let mut sides = [a, b].map(|archive| Cursor::new(archive, Some(archive.links_top().1.clone())));
    let mut floors = [Floor::default(); 2];
    loop {
        fill(&mut sides, &mut floors, Names::Links)?;
        let [a, b] = &mut sides;
        if a.leaf.is_none() && b.leaf.is_none() {
            return Ok(changed);
        }
        rows(a.leaf.as_mut(), b.leaf.as_mut(), &mut changed)?;
    }
}

/// Compares rows until one of the two pieces is done.
fn rows(a: Option<&mut Leaf>, b: Option<&mut Leaf>, changed: &mut BTreeSet<Box<[u8]>>) -> Result<()> {
    let (mut unused_a, mut unused_b) = (0, 0);
    let (table_a, row_a) = open(a, &mut unused_a)?;
    let (table_b, row_b) = open(b, &mut unused_b)?;
    loop {
        let path_a = table_a.as_ref().map(|table| (*row_a < table.rows()).then(|| table.path(*row_a)));
        let path_b = table_b.as_ref().map(|table| (*row_b < table.rows()).then(|| table.path(*row_b)));
        let Some(order) = order(path_a, path_b) else { return Ok(()) };
        let one = table_a.as_ref().filter(|_| order != Ordering::Greater).map(|table| (table, *row_a));
        let other = table_b.as_ref().filter(|_| order != Ordering::Less).map(|table| (table, *row_b));
        let is_same = match (one, other) {
            (Some((a, row_a)), Some((b, row_b))) => {
                a.first(row_a) == b.first(row_b) && a.count(row_a) == b.count(row_b)
            }
            _ => false,
        };
        if !is_same && let Some((table, row)) = one.or(other) {
            changed.insert(table.path(row).into());
        }
        *row_a += usize::from(one.is_some());
        *row_b += usize::from(other.is_some());
    }
}

fn open<'l>(
    leaf: Option<&'l mut Leaf>,
    unused: &'l mut usize,
) -> Result<(Option<LinkTable<'l>>, &'l mut usize)> {
    match leaf {
        Some(leaf) => Ok((Some(LinkTable::view(&leaf.bytes)?), &mut leaf.row)),
        None => Ok((None, unused)),
    }
}
