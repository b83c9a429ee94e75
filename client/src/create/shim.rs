//! Stands in for keys until the repository has them.
use diptych_format::map::{BuiltSegment, SegmentRef, Slice};
use diptych_format::pack::{ChunkKind, chunk_id};
use diptych_format::{Digest, Result};
pub(crate) use diptych_repository::chunk::Compression;
#[derive(Clone)]
pub(crate) struct ChunkKeys;
impl ChunkKeys {
    pub(crate) fn plain() -> Self { Self }
    pub(crate) fn chunk_id(&self, kind: ChunkKind, raw: &[u8]) -> Digest { chunk_id(kind, raw) }
}
#[derive(Clone, Copy)]
pub(crate) enum Padding { None }
pub(crate) struct Compressor(diptych_repository::chunk::Compressor);
impl Compressor {
    pub(crate) fn new(c: Compression, _: ChunkKeys, _: Padding) -> Self { Self(diptych_repository::chunk::Compressor::new(c)) }
    pub(crate) fn store(&mut self, kind: ChunkKind, id: Digest, raw: &[u8], out: &mut Vec<u8>) -> Result<()> { self.0.store(kind, id, raw, out) }
}
pub(crate) struct MapBuilder(diptych_format::map::MapBuilder);
impl MapBuilder {
    pub(crate) fn new(_: impl Fn(&[u8]) -> Digest) -> Self { Self(diptych_format::map::MapBuilder::default()) }
    pub(crate) fn push_of(&mut self, slice: Slice, _: Option<u32>) -> Result<()> { self.0.push(slice) }
    pub(crate) fn take_built(&mut self) -> Vec<BuiltSegment> { self.0.take_built() }
    pub(crate) fn finish(self) -> Result<(SegmentRef, Vec<BuiltSegment>)> { self.0.finish() }
}
