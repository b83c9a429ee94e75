//! Reuse: what has not changed since an earlier archive is neither read nor stored again.
//!
//! The scan is compared with the earlier archive's rows by name ([`base`]); what is equal by its change key ([`key`])
//! takes entry and slices from there. A chunk of which too little would be used any more is not kept alive for it: its
//! files are read again ([`live`]). Below a directory that was moved, files are found by their inodes ([`moved`]). That decision needs to see all files of a chunk, so [`compare`] holds back a window of
//! the scan.
//!
//! Spec: repository.md section 9; reasons in docs/design.

pub(crate) mod base;
pub(crate) mod compare;
pub(crate) mod contents;
pub(crate) mod key;
mod live;
mod moved;

pub use base::{Base, Bases, MIN_LIVE, Sample};
pub use key::{ChangeKey, Counts, Reason};
