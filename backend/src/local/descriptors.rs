//! Open files that are read in many ranges: a bounded number, of which the one that was not used for longest goes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::name::FileName;

/// How many are kept open: few beside the 1024 that a process often may have.
const MOST: usize = 64;

/// The files, the one that was used last at the end. So few are found fastest by looking at each.
#[derive(Default)]
pub(super) struct Descriptors(Mutex<VecDeque<(FileName, Arc<OwnedFd>)>>);

impl Descriptors {
    pub fn get(&self, name: &FileName) -> Option<Arc<OwnedFd>> {
        let mut files = self.lock();
        let index = files.iter().position(|(found, _)| found == name)?;
        let file = files.remove(index)?;
        let fd = file.1.clone();
        files.push_back(file);
        Some(fd)
    }

    pub fn put(&self, name: FileName, fd: Arc<OwnedFd>) {
        let mut files = self.lock();
        // Two threads may have opened the same file.
        files.retain(|(found, _)| *found != name);
        if files.len() == MOST {
            files.pop_front();
        }
        files.push_back((name, fd));
    }

    pub fn forget(&self, name: &FileName) {
        self.lock().retain(|(found, _)| found != name);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(FileName, Arc<OwnedFd>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::FileKind;

    #[test]
    fn the_one_that_was_not_used_for_longest_goes() {
        let file = || Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let name = |number: usize| FileName::new(FileKind::Data, [number as u8; 32]);
        let descriptors = Descriptors::default();
        (0..MOST).for_each(|number| descriptors.put(name(number), file()));
        assert!(descriptors.get(&name(0)).is_some());
        descriptors.put(name(MOST), file());
        descriptors.put(name(MOST), file());
        let there: Vec<bool> = (0..=MOST).map(|number| descriptors.get(&name(number)).is_some()).collect();
        let gone: Vec<usize> = (0..=MOST).filter(|number| !there[*number]).collect();
        assert_eq!(gone, [1]);
        descriptors.forget(&name(2));
        assert!(descriptors.get(&name(2)).is_none());
    }
}
