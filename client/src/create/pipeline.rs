//! The stages on their threads: a scan goes in, stored chunks come out in order.

use std::io::Read;
use std::sync::Arc;

use crossbeam_channel::bounded;
use diptych_encoder::payload::Stream;
use diptych_format::map::{BuiltSegment, MapBuilder, SegmentRef, Slice};
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Error, Monitor, Result};
use diptych_localfs::scan::Scan;
use diptych_repository::ChunkKeys;
use diptych_repository::chunk::Compressor;

use super::assemble::{Assembled, Assembly, assemble};
use super::buffers::Buffers;
use super::store::{ChunkWriter, Known, StoreSink, Storing, WrittenChunks, compress_jobs, write_all};
use super::stream::{StreamFile, assemble_stream};

/// Runs a tree through all stages into `writer`.
pub(crate) fn run(
    scan: Scan,
    assembly: &Assembly,
    storing: &Storing<'_>,
    monitor: &Arc<dyn Monitor>,
    writer: &mut (dyn ChunkWriter + Send),
) -> Result<(Assembled, WrittenChunks)> {
    run_stages(assembly.threads, storing, writer, |buffers, sink| {
        assemble(scan, assembly, &storing.cuts(), buffers, monitor, sink)
    })
}

/// Runs a stream of bytes through all stages into `writer`.
pub(crate) fn run_stream(
    file: &StreamFile,
    source: &mut dyn Read,
    assembly: &Assembly,
    storing: &Storing<'_>,
    monitor: &dyn Monitor,
    writer: &mut (dyn ChunkWriter + Send),
) -> Result<(Assembled, WrittenChunks)> {
    run_stages(assembly.threads, storing, writer, |buffers, sink| {
        assemble_stream(file, source, assembly, &storing.cuts(), buffers, monitor, sink)
    })
}

/// Compresses on several threads and writes on another what `assemble` gives to its sink.
fn run_stages(
    threads: usize,
    storing: &Storing<'_>,
    writer: &mut (dyn ChunkWriter + Send),
    assemble: impl FnOnce(&Buffers, &mut StoreSink) -> Result<Assembled>,
) -> Result<(Assembled, WrittenChunks)> {
    let buffers = Buffers::default();
    let known = Known::default();
    let (job_sender, jobs) = bounded(threads);
    let (done_sender, done) = bounded(2 * threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (jobs, done) = (jobs.clone(), done_sender.clone());
            let (known, buffers) = (&known, &buffers);
            scope.spawn(move || compress_jobs(&jobs, &done, known, buffers, storing));
        }
        drop((jobs, done_sender));
        let writer = scope.spawn(|| {
            // Moved in, so that when writing fails the stages before find their channel closed.
            let done = done;
            write_all(writer, &done, &buffers)
        });
        let mut sink = StoreSink::new(job_sender);
        let assembled = assemble(&buffers, &mut sink);
        drop(sink);
        let written = writer.join().map_err(|_| Error::corrupt("the writer stopped"))?;
        // What the writer says is the cause of what the assembler says.
        written.and_then(|written| assembled.map(|assembled| (assembled, written)))
    })
}

/// The roots of an archive's two maps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maps {
    /// The metadata stream's.
    pub metadata: SegmentRef,
    /// The payload stream's.
    pub payload: SegmentRef,
    /// Bytes stored for both.
    pub stored: u64,
}

/// Writes the maps of both streams; `metadata` are the chunks of the metadata stream. With `has_chunk_lengths` they tell
/// the raw lengths of chunks.
pub(crate) fn write_maps(
    payload: &Stream,
    written: &WrittenChunks,
    metadata: &[(Digest, u32)],
    storing: &Storing<'_>,
    has_chunk_lengths: bool,
    writer: &mut dyn ChunkWriter,
) -> Result<Maps> {
    let told = |length: Option<u32>| length.filter(|_| has_chunk_lengths);
    let (payload, payload_segments) = build_map(
        payload
            .with_ids(|number| written.payload(number))
            .map(|slice| slice.map(|(slice, length)| (slice, told(length)))),
        &storing.keys,
    )?;
    let (metadata, metadata_segments) = build_map(
        metadata.iter().map(|(chunk, length)| {
            Ok((Slice { chunk: *chunk, start: 0, length: *length }, told(Some(*length))))
        }),
        &storing.keys,
    )?;
    let mut compressor = storing.metadata_compressor();
    let mut present = std::collections::HashSet::new();
    let mut stored = 0;
    for segment in payload_segments.iter().chain(&metadata_segments) {
        if present.insert(segment.id) {
            stored += write_segment(segment, storing, &mut compressor, writer)?;
        }
    }
    Ok(Maps { metadata, payload, stored })
}

/// Writes one map; gives its root.
pub(crate) fn write_map(
    slices: impl Iterator<Item = Result<(Slice, Option<u32>)>>,
    storing: &Storing<'_>,
    writer: &mut dyn ChunkWriter,
) -> Result<SegmentRef> {
    let (root, segments) = build_map(slices, &storing.keys)?;
    let mut compressor = storing.metadata_compressor();
    let mut present = std::collections::HashSet::new();
    for segment in segments.iter().filter(|segment| present.insert(segment.id)) {
        write_segment(segment, storing, &mut compressor, writer)?;
    }
    Ok(root)
}

fn write_segment(
    segment: &BuiltSegment,
    storing: &Storing<'_>,
    compressor: &mut Compressor,
    writer: &mut dyn ChunkWriter,
) -> Result<u64> {
    if (storing.is_stored)(ChunkKind::Segment, &segment.id)? {
        return Ok(0);
    }
    let mut out = Vec::new();
    compressor.store(ChunkKind::Segment, segment.id, &segment.bytes, &mut out)?;
    writer.append(ChunkKind::Segment, segment.id, &out)?;
    Ok(out.len() as u64)
}

fn build_map(
    slices: impl Iterator<Item = Result<(Slice, Option<u32>)>>,
    keys: &ChunkKeys,
) -> Result<(SegmentRef, Vec<BuiltSegment>)> {
    let ids = keys.clone();
    let mut map = MapBuilder::with_ids(move |segment| ids.chunk_id(ChunkKind::Segment, segment));
    let mut segments = Vec::new();
    for slice in slices {
        let (slice, chunk_length) = slice?;
        match chunk_length {
            Some(chunk_length) => map.push_of(slice, chunk_length.into())?,
            None => map.push(slice)?,
        }
        segments.append(&mut map.take_built());
    }
    let (root, rest) = map.finish()?;
    segments.extend(rest);
    Ok((root, segments))
}
