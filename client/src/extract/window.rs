//! Batches in the order in which their chunks lie in packs.
//!
//! In a repository of many generations, neighbours in a tree lie far from each other. So batches wait until there are
//! many, and go out sorted: then a chunk that several of them need is read once, and together with its neighbours.

use diptych_repository::ChunkPlace;

use crate::batch::Batch;

/// Most entries that wait.
const ITEMS_MAX: usize = 32 << 10;
/// Most bytes of contents that wait.
const BYTES_MAX: u64 = 512 << 20;
/// Most entries of a run, which is one thread's work.
const RUN_ITEMS: usize = 2048;

/// Batches that wait.
pub struct Window<T> {
    placed: Vec<(ChunkPlace, Batch<T>)>,
    items: usize,
    bytes: u64,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { placed: Vec::new(), items: 0, bytes: 0 }
    }
}

impl<T> Window<T> {
    /// Takes a batch whose chunk lies there; gives what goes out now, as runs whose chunks are read together.
    pub fn push(&mut self, place: Option<ChunkPlace>, batch: Batch<T>) -> Vec<Vec<Batch<T>>> {
        let Some(place) = place else { return vec![vec![batch]] };
        self.items += batch.items.len();
        self.bytes += batch.bytes;
        self.placed.push((place, batch));
        if self.items >= ITEMS_MAX || self.bytes >= BYTES_MAX { self.flush() } else { Vec::new() }
    }

    /// Gives all that wait.
    pub fn flush(&mut self) -> Vec<Vec<Batch<T>>> {
        let mut placed = std::mem::take(self).placed;
        placed.sort_by_key(|(place, _)| *place);
        let mut runs: Vec<Vec<Batch<T>>> = Vec::new();
        // Of the last run: where it starts, its last chunk, and its entries.
        let mut open: Option<(u64, ChunkPlace, usize)> = None;
        for (place, batch) in placed {
            let count = batch.items.len();
            let joins = |(start, last, items): &(u64, ChunkPlace, usize)| {
                *last == place || last.runs_into(&place, *start) && items + count <= RUN_ITEMS
            };
            match (open.filter(joins), runs.last_mut()) {
                (Some((start, _, items)), Some(run)) => {
                    run.push(batch);
                    open = Some((start, place, items + count));
                }
                _ => {
                    runs.push(vec![batch]);
                    open = Some((place.start, place, count));
                }
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use diptych_format::Digest;

    use super::*;

    #[test]
    fn what_lies_together_goes_out_together_and_in_order() {
        let mut window = Window::default();
        let mut push = |pack: u8, start: u64, name: char| {
            let place = ChunkPlace { pack: Digest([pack; 32]), start, end: start + 1000 };
            let batch = Batch { chunk: Some(Digest([9; 32])), items: vec![(name, None)], bytes: 10 };
            assert!(window.push(Some(place), batch).is_empty());
        };
        // Two packs, a chunk that is needed twice, and one that lies far behind.
        push(2, 1000, 'a');
        push(1, 5000, 'b');
        push(2, 0, 'c');
        push(2, 1000, 'd');
        push(2, 9 << 20, 'e');
        push(1, 0, 'f');
        let runs = window.flush();
        let names: Vec<String> = runs
            .iter()
            .map(|run| run.iter().flat_map(|batch| &batch.items).map(|(name, _)| *name).collect())
            .collect();
        assert_eq!(names, ["fb", "cad", "e"]);
        assert!(window.flush().is_empty());
        let batch = Batch { chunk: None, items: vec![('g', None)], bytes: 0 };
        assert_eq!(window.push(None, batch).len(), 1);
    }
}
