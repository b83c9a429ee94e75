#!/usr/bin/env python3
"""A strict reader of Diptych archives, format version 1, written from ../archive.md alone.

The parts below stand in the order of the document's sections; ids like [A-6-1] are those of its
requirements. It favours being plain over being fast: one process, one pass, no cleverness that the
document does not ask for. Where the document leaves a choice, a comment starts with "Assumed:".

    diptych_reader.py list ARCHIVE [--json]
    diptych_reader.py cat ARCHIVE PATH
    diptych_reader.py verify ARCHIVE
    diptych_reader.py verify-stream FILE
    diptych_reader.py segment FILE
    diptych_reader.py pack FILE
"""

import argparse
import bisect
import collections
import collections.abc
import itertools
import json
import os
import struct
import sys
import traceback
import weakref

import blake3
import zstandard

# --- 1. Conventions ---------------------------------------------------------------------------------------

U16, U32, U64 = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


class Fault(Exception):
    """The only error this reader raises: a class of section 1.3, a stream, an offset, and words."""

    def __init__(self, word, stream, offset, what):
        super().__init__(f"{word}: {stream} at {offset}: {what}")
        self.word, self.stream, self.offset, self.what = word, stream, offset, what


class Part:
    """A place in a stream that a fault is reported with."""

    def __init__(self, stream, offset):
        self.stream, self.offset = stream, offset

    def fail(self, word, what):
        raise Fault(word, self.stream, self.offset, what)

    def must(self, condition, what, word="corrupt"):
        if not condition:
            self.fail(word, what)

    def u64(self, number, what):
        """Sums that do not fit u64 are corrupt [A-1.2-1]."""
        self.must(number <= U64, f"{what} does not fit 64 bits [A-1.2-1]")
        return number


def pad8(n):
    """Section 1.2."""
    return (n + 7) & ~7


def leading(digest):
    """Section 1.2: the first 8 bytes of a digest as u64."""
    return int.from_bytes(digest[:8], "little")


def is_zero(data):
    return not any(data)


class Zeros(collections.abc.Sequence):
    """An absent int column [A-6-7]; takes no memory however many rows a hostile header names."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return 0


class Recent:
    """A small cache by least recent use, bounded by the bytes that it holds."""

    def __init__(self, capacity):
        self.capacity, self.held, self.items = capacity, 0, collections.OrderedDict()

    def get(self, key):
        if key not in self.items:
            return None
        self.items.move_to_end(key)
        return self.items[key][0]

    def put(self, key, value, weight):
        self.items[key] = (value, weight)
        self.held += weight
        while self.held > self.capacity and len(self.items) > 1:
            self.held -= self.items.popitem(last=False)[1][1]
        return value


# --- 13. Limits (before all that uses them) ---------------------------------------------------------------

NAME_LENGTH_MAX = 1024
DEPTH_MAX = 2048
PATH_LENGTH_MAX = 65536
TARGET_LENGTH_MAX = 4096
XATTR_NAME_MAX = 255
XATTR_VALUE_MAX = 65536
XATTR_TOTAL_MAX = 16777216
XATTR_INLINE_MAX = 2048
SIZE_MAX = 9223372036854775807
HOLES_MAX = 524288
PIECE_ROWS_MIN = 512
PIECE_ROWS_MAX = 4096
PIECE_NAMES_MAX = 1048576
INDEX_LEVEL_MAX = 5
TABLE_LENGTH_MAX = 33554432
OWNERS_MAX = 65536
PAYLOAD_CHUNK_MAX = 4194304
METADATA_CHUNK_MAX = 37748736
MANIFEST_MAX = 1048576
SEGMENT_ROWS_MIN = 256
SEGMENT_ROWS_MAX = 4096
SEGMENT_LEVEL_MAX = 6
PACK_CHUNKS_MAX = 67108864
FLAGS_MASK = 1652802815

# --- 3. Digests -------------------------------------------------------------------------------------------

CONTEXT_BODY = "diptych archive v1 table body"
CONTEXT_VALUES = "diptych archive v1 attribute values"
CONTEXT_TREE = "diptych archive v1 tree id"
CONTEXT_NODE = "diptych archive v1 content node"
CONTEXT_LONG = "diptych archive v1 long content"
CONTEXT_METADATA_CHUNK = "diptych archive v1 metadata chunk"
CONTEXT_SEGMENT = "diptych archive v1 segment"
CONTEXT_MANIFEST = "diptych archive v1 manifest"
CONTEXT_PACK_DIRECTORY = "diptych archive v1 pack directory"

ZERO_DIGEST = bytes(32)
LEAF = 16777216
ZERO_BLOCK = bytes(1 << 20)


def digest_of(data, context=None):
    """BLAKE3, or its derive-key mode with the context and the bytes as key material."""
    if context is None:
        return blake3.blake3(data).digest()
    return blake3.blake3(data, derive_key_context=context).digest()


class Content:
    """Section 3.1 and 5.6: a content of `size` bytes, its holes, and its payload at `start`."""

    zero_values = []  # of 1, 2, 4, ... leaves of zeros: so that huge holes cost nothing

    def __init__(self, size, holes, payload, start):
        self.size, self.payload, self.start = size, payload, start
        self.starts = [s for s, _ in holes]
        self.ends = [s + n for s, n in holes]
        self.before = [0]
        for _, n in holes:
            self.before.append(self.before[-1] + n)

    def runs(self, low, high):
        """(length, payload offset or None for a hole) of the bytes [low, high), in order."""
        i = bisect.bisect_right(self.ends, low)  # the first hole that ends beyond low
        while low < high:
            if i < len(self.starts) and self.starts[i] <= low:
                end = min(self.ends[i], high)
                yield end - low, None
                i += 1
            else:
                end = min(self.starts[i] if i < len(self.starts) else high, high)
                yield end - low, self.start + low - self.before[i]
            low = end

    def blocks(self, low, high):
        """The bytes [low, high), in blocks; holes as zeros [A-3.1-3]."""
        for length, at in self.runs(low, high):
            if at is not None:
                yield from self.payload.pieces(at, length)
                continue
            while length:
                n = min(length, len(ZERO_BLOCK))
                yield ZERO_BLOCK[:n]
                length -= n

    def _hash(self, low, high):
        hasher = blake3.blake3()
        for block in self.blocks(low, high):
            hasher.update(block)
        return hasher.digest()

    def _value(self, first, count):
        """The value of `count` neighbouring leaves from leaf `first` [A-3.1-2]."""
        low, high = first * LEAF, min(self.size, (first + count) * LEAF)
        if count & (count - 1) == 0 and high - low == count * LEAF:
            i = bisect.bisect_right(self.starts, low) - 1
            if i >= 0 and self.ends[i] >= high:
                return self._zero_value(count.bit_length() - 1)
        if count == 1:
            return self._hash(low, high)
        left = 1 << ((count - 1).bit_length() - 1)  # the largest power of two below count
        a = self._value(first, left)
        return digest_of(a + self._value(first + left, count - left), CONTEXT_NODE)

    @classmethod
    def _zero_value(cls, level):
        while len(cls.zero_values) <= level:
            if not cls.zero_values:
                cls.zero_values.append(digest_of(bytes(LEAF)))
            else:
                cls.zero_values.append(digest_of(cls.zero_values[-1] * 2, CONTEXT_NODE))
        return cls.zero_values[level]

    def digest(self):
        """[A-3.1-1] [A-3.1-2]."""
        if self.size <= LEAF:
            return self._hash(0, self.size)
        value = self._value(0, (self.size + LEAF - 1) // LEAF)
        return digest_of(struct.pack("<Q", self.size) + value, CONTEXT_LONG)


# --- 4. Names and paths -----------------------------------------------------------------------------------


def check_name(part, name):
    """[A-4-1]."""
    part.must(len(name) <= NAME_LENGTH_MAX, "a name is too long [A-4-1]", "limit")
    part.must(name and b"/" not in name and b"\0" not in name and name not in (b".", b".."),
              f"no name: {name!r} [A-4-1]")


def check_ascending(part, items, what):
    """[A-4-3] and the like."""
    for a, b in itertools.pairwise(items):
        part.must(a < b, f"{what} do not ascend")


def check_path(part, path):
    """[A-4-4]."""
    part.must(len(path) <= PATH_LENGTH_MAX, "a path is too long [A-4-4]", "limit")
    names = path.split(b"/")
    part.must(len(names) <= DEPTH_MAX, "a path is too deep [A-4-4]", "limit")
    for name in names:
        check_name(part, name)


def joined(part, path, name, depth):
    """The path of an entry `depth` names deep [A-4-4]."""
    part.must(depth <= DEPTH_MAX, "a path is too deep [A-4-4]", "limit")
    path = path + b"/" + name if path else name
    part.must(len(path) <= PATH_LENGTH_MAX, "a path is too long [A-4-4]", "limit")
    return path


# --- 5. Entries -------------------------------------------------------------------------------------------

KINDS = {
    0o010000: "fifo", 0o020000: "char-device", 0o040000: "directory", 0o060000: "block-device",
    0o100000: "file", 0o120000: "symlink", 0o140000: "socket",
}
DEVICES = ("char-device", "block-device")
STATUS = ((1, "changed-while-read"), (2, "partly-unreadable"), (4, "not-read"), (8, "attributes-incomplete"))
NOT_READ = 4


def kind_of(part, mode):
    """[A-5.1-1] [A-5.1-2]."""
    part.must(mode <= U16, f"mode {mode:o} has bits beyond 0o177777 [A-5.1-2]")
    part.must(mode & 0o170000 in KINDS, f"mode {mode:o} is of no kind [A-5.1-1]")
    return KINDS[mode & 0o170000]


def check_nanoseconds(part, values):
    """[A-5.2-1]."""
    part.must(all(n < 1000000000 for n in values), "nanoseconds of a second or more [A-5.2-1]")


def check_xattrs(part, xattrs):
    """[A-5.3-2] [A-5.3-3]; returns the bytes of names and values."""
    for name, value in xattrs:
        part.must(name and b"\0" not in name, "no name of an attribute [A-5.3-2]")
        part.must(len(name) <= XATTR_NAME_MAX, "name of an attribute too long [A-5.3-2]", "limit")
        part.must(len(value) <= XATTR_VALUE_MAX, "value of an attribute too long [A-5.3-3]", "limit")
    check_ascending(part, [name for name, _ in xattrs], "names of attributes [A-5.3-2]")
    total = sum(len(name) + len(value) for name, value in xattrs)
    part.must(total <= XATTR_TOTAL_MAX, "attributes too long together [A-5.3-3]", "limit")
    return total


# --- 6. Sections ------------------------------------------------------------------------------------------

COLUMNS = {
    "DIRB": {
        0x01: ("NAME_END", "ends"), 0x02: ("NAMES", "bytes"), 0x03: ("SET", "int"),
        0x04: ("MTIME_SECONDS", "signed"), 0x05: ("MTIME_NANOSECONDS", "int"), 0x06: ("SIZE", "int"),
        0x07: ("DIGEST", "digest"), 0x08: ("TARGET_ROW", "int"), 0x09: ("TARGET_END", "ends"),
        0x0A: ("TARGETS", "bytes"), 0x0B: ("DEVICE_ROW", "int"), 0x0C: ("DEVICE_MAJOR", "int"),
        0x0D: ("DEVICE_MINOR", "int"), 0x10: ("SET_MODE", "int"), 0x11: ("SET_UID", "int"),
        0x12: ("SET_GID", "int"), 0x13: ("SET_FLAGS", "int"), 0x14: ("SET_PROJECT", "int"),
        0x15: ("SET_XATTR_END", "ends"), 0x16: ("XATTR_NAME_END", "ends"), 0x17: ("XATTR_NAMES", "bytes"),
        0x18: ("XATTR_VALUE_END", "ends"), 0x19: ("XATTR_VALUES", "bytes"), 0x1A: ("EXTERNAL_SET", "int"),
        0x1B: ("EXTERNAL_DIGEST", "digest"),
    },
    "DIRT": {
        0x01: ("PAYLOAD_LENGTH", "int"), 0x02: ("DISTANCE", "int"), 0x03: ("LENGTH", "int"),
        0x04: ("ENTRIES", "int"), 0x05: ("HOLE_ROW", "int"), 0x06: ("HOLE_DISTANCE", "int"),
        0x07: ("HOLE_LENGTH", "int"), 0x08: ("EXTERNAL_DISTANCE", "int"), 0x09: ("EXTERNAL_LENGTH", "int"),
        0x0A: ("STATUS", "int"), 0x8001: ("CTIME_SECONDS", "signed"), 0x8002: ("CTIME_NANOSECONDS", "int"),
        0x8003: ("INODE", "int"),
    },
    "IDXB": {
        0x01: ("NAME_END", "ends"), 0x02: ("NAMES", "bytes"), 0x07: ("DIGEST", "digest"), 0x0E: ("LEVEL", "int"),
    },
    "IDXT": {
        0x01: ("PAYLOAD_LENGTH", "int"), 0x02: ("DISTANCE", "int"), 0x03: ("LENGTH", "int"), 0x04: ("ENTRIES", "int"),
    },
    "LNKB": {
        0x01: ("NAME_END", "ends"), 0x02: ("NAMES", "bytes"), 0x03: ("FIRST_END", "ends"), 0x04: ("FIRSTS", "bytes"),
        0x05: ("COUNT", "int"),
    },
    "LNKT": {},
    "HOLE": {0x01: ("START", "int"), 0x02: ("LENGTH", "int")},
    "VALU": {
        0x16: ("XATTR_NAME_END", "ends"), 0x17: ("XATTR_NAMES", "bytes"), 0x18: ("XATTR_VALUE_END", "ends"),
        0x19: ("XATTR_VALUES", "bytes"),
    },
    "OWNR": {
        0x01: ("UID", "int"), 0x02: ("USER_END", "ends"), 0x03: ("USERS", "bytes"), 0x04: ("GID", "int"),
        0x05: ("GROUP_END", "ends"), 0x06: ("GROUPS", "bytes"), 0x07: ("USER_COUNT", "int"),
        0x08: ("GROUP_COUNT", "int"),
    },
    "SEGC": {0x01: ("CHUNK_ID", "digest")},
    "SEGS": {
        0x01: ("CHUNK", "int"), 0x02: ("START", "int"), 0x03: ("LENGTH", "int"), 0x04: ("SLICES", "int"),
        0x05: ("LEVEL", "int"),
    },
    "PDIR": {0x01: ("CHUNK_ID", "digest"), 0x02: ("KIND", "int"), 0x03: ("STORED_LENGTH", "int")},
}
BODIES = ("DIRB", "IDXB", "LNKB")
UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Section(Part):
    """One section at `at` in `data`, which stands at `offset` of `stream`.

    The columns are handed out once each by int, signed, ends, blob and digests, which check them
    against the count that the caller works out from the table of columns.
    """

    def __init__(self, stream, offset, data, at, tag):
        super().__init__(stream, offset)  # of the part that the section belongs to
        self.tag = tag
        self.must(len(data) - at >= 16, f"no room for the header of a section {tag} [A-6-11]", "truncated")
        found, self.length, self.rows, columns, reserved = struct.unpack_from("<4sIIHH", data, at)
        self.must(found == tag.encode(), f"section {found!r} where {tag} is expected [A-6-12]")
        self.must(self.length <= len(data) - at, "the section ends beyond what holds it [A-6-11]", "truncated")
        self.must(reserved == 0, "reserved field [A-1.2-2]")
        self.must(self.length % 8 == 0 and self.length >= 16 + 8 * columns, "length of the section [A-6-1]")
        self.bytes = bytes(data[at:at + self.length])
        self.columns, last, position = {}, -1, 16 + 8 * columns
        for i in range(columns):
            key, width, count = struct.unpack_from("<HHI", self.bytes, 16 + 8 * i)
            self.must(key > last, "ids of columns do not ascend [A-6-2]")
            self.must(count > 0, f"column {key:#x} of count 0 [A-6-3]")
            size = width * count
            self.must(position + pad8(size) <= self.length, "columns longer than the section [A-6-1]")
            self.must(is_zero(self.bytes[position + size:position + pad8(size)]), "padding [A-1.2-2]")
            if key in COLUMNS[tag]:
                name, kind = COLUMNS[tag][key]
                widths = {"bytes": (1,), "digest": (32,)}.get(kind, (1, 2, 4, 8))
                self.must(width in widths, f"width {width} of column {name} [A-6-5]")
                self.columns[name] = (width, count, position)
            elif key < 0x8000:
                self.fail("unsupported", f"column {key:#x} of {tag} [A-6-9]")
            else:
                self.must(tag not in BODIES, f"column {key:#x} in a body [A-6-10]")
            last, position = key, position + pad8(size)
        self.must(position == self.length, "the section is longer than its columns [A-6-1]")
        self.column_count = columns

    def count(self, name):
        """The count a column has itself, for those that others are counted by; 0 when absent."""
        return self.columns[name][1] if name in self.columns else 0

    def _values(self, name, count, signed):
        if name not in self.columns:
            return Zeros(count)
        width, found, position = self.columns.pop(name)
        self.must(found == count, f"column {name} has {found} elements instead of {count} [A-6-4]")
        letter = UNSIGNED[width].lower() if signed else UNSIGNED[width]
        values = struct.unpack_from(f"<{count}{letter}", self.bytes, position)
        low, high = min(values), max(values)
        self.must(low or high, f"column {name} of zeros [A-6-7]")
        half = 4 * width  # the bits of the next smaller width
        if width > 1:
            fits = -(1 << half - 1) <= low and high < 1 << half - 1 if signed else high < 1 << half
            self.must(not fits, f"column {name} is wider than it need be [A-6-6]")
        return values

    def int(self, name, count, high=U64):
        values = self._values(name, count, False)
        if high < U64 and not isinstance(values, Zeros):
            self.must(max(values) <= high, f"a value in column {name} is above {high}")
        return values

    def signed(self, name, count):
        return self._values(name, count, True)

    def ends(self, name, count):
        """[A-6-8]; returns (ends, the last one)."""
        values = self._values(name, count, False)
        if isinstance(values, Zeros):
            return values, 0
        self.must(all(a <= b for a, b in itertools.pairwise(values)), f"column {name} descends [A-6-8]")
        return values, values[-1]

    def blob(self, name, count):
        if name not in self.columns:
            self.must(count == 0, f"column {name} lacks [A-6-4]")
            return b""
        _, found, position = self.columns.pop(name)
        self.must(found == count, f"column {name} has {found} bytes instead of {count} [A-6-4]")
        return self.bytes[position:position + count]

    def digests(self, name, count):
        """Assumed: a digest column is there even if it is all zeros; only int columns go absent."""
        if name not in self.columns:
            self.must(count == 0, f"column {name} lacks [A-6-4]")
            return []
        _, found, position = self.columns.pop(name)
        self.must(found == count, f"column {name} has {found} digests instead of {count} [A-6-4]")
        return [self.bytes[position + 32 * i:position + 32 * i + 32] for i in range(count)]

    def strings(self, ends_name, bytes_name, count, empty=False):
        """A column of bytes divided by one of ends. `empty` says whether an element may be empty."""
        ends, total = self.ends(ends_name, count)
        data = self.blob(bytes_name, total)
        if total == 0 and count and not empty:
            self.fail("corrupt", f"column {ends_name} lacks")
        if isinstance(ends, Zeros):
            return [b""] * count
        return [data[a:b] for a, b in zip((0,) + ends[:-1], ends)]

    def done(self):
        assert not self.columns, f"columns of {self.tag} left unread: {self.columns}"


class Stretch(Part):
    """A single section that makes up the whole of `data`: hole, value and owner tables, and others."""

    @staticmethod
    def of(stream, offset, data, tag):
        section = Section(stream, offset, data, 0, tag)
        section.must(section.length == len(data), "the section is shorter than its reference says [A-7-3]")
        return section


# --- 7. Tables --------------------------------------------------------------------------------------------

Ref = collections.namedtuple("Ref", "start length digest payload entries")


class Table(Section):
    """What directory, index and link tables share: a body and a tail."""

    def __init__(self, stream, ref, data, tag, tail_tag):
        super().__init__(stream, ref.start, data, 0, tag)
        self.start, self.end = ref.start, ref.start + ref.length
        self.must(self.rows <= PIECE_ROWS_MAX, "too many rows [A-7.2-1]", "limit")
        self.tail = Section(stream, ref.start, data, self.length, tail_tag)
        self.must(self.tail.length == ref.length - self.length, "body and tail are not what the reference says [A-7-3]")
        self.must(self.tail.rows == self.rows, "body and tail differ in rows [A-7-2]")
        self.digest = digest_of(self.bytes, CONTEXT_BODY)
        if self.rows == 0:
            self.must(not self.column_count and not self.tail.column_count, "columns without rows [A-7.1-12]")

    def read_names(self):
        self.names = self.strings("NAME_END", "NAMES", self.rows, empty=True)
        self.must(sum(map(len, self.names)) <= PIECE_NAMES_MAX, "too long names [A-7.2-1]", "limit")
        check_ascending(self, self.names, "names [A-4-3]")
        self.is_root = self.names == [b""]  # and only the root table may be; its referrers see to that
        for name in () if self.is_root else self.names:
            self.check_row_name(name)

    def check_row_name(self, name):
        check_name(self, name)

    def place(self, distance, length):
        """The start of what a reference leads to [A-7-4]."""
        self.must(length <= TABLE_LENGTH_MAX, "a table is too long [A-7-1]", "limit")
        self.must(length % 8 == 0 and length > 0, "length of a reference [A-7-1]")
        self.must(length <= distance <= self.start - STREAM_HEADER, "distance of a reference [A-7-4]")
        return self.start - distance

    def finish(self, payloads, entries):
        self.total_payload = self.u64(sum(payloads), "payload")
        self.total_entries = self.u64(self.rows + sum(entries), "entries")
        self.bytes = self.tail.bytes = None
        self.done()
        self.tail.done()


class DirectoryTable(Table):
    """Section 7.1."""

    level = 0

    def __init__(self, stream, ref, data, read):
        super().__init__(stream, ref, data, "DIRB", "DIRT")
        self.read = read  # of the metadata stream, for hole and value tables
        self.read_names()
        self._read_sets()
        self._read_rows()
        self._read_tail()
        self.finish(self.payloads, [self.subs[i].entries for i in self.subs])

    def _read_sets(self):
        """Section 5.3, [A-7.1-1] [A-7.1-2]; what is external is checked with the tail."""
        count = self.count("SET_MODE")
        self.must((count > 0) == (self.rows > 0), "column SET_MODE lacks")
        self.must(count <= self.rows, "more sets than rows [A-7.1-2]")
        modes = self.int("SET_MODE", count)
        self.set_kinds = [kind_of(self, mode) for mode in modes]
        uids, gids = self.int("SET_UID", count, U32), self.int("SET_GID", count, U32)
        flags, projects = self.int("SET_FLAGS", count, U32), self.int("SET_PROJECT", count, U32)
        self.must(all(f & ~FLAGS_MASK == 0 for f in flags), "flags beyond the mask [A-5.3-1]")
        self.sets = list(zip(modes, uids, gids, flags, projects))
        ends, total = self.ends("SET_XATTR_END", count)
        names = self.strings("XATTR_NAME_END", "XATTR_NAMES", total)
        values = self.strings("XATTR_VALUE_END", "XATTR_VALUES", total, empty=True)
        pairs, at, self.inline = list(zip(names, values)), 0, []
        for end in ends:
            self.inline.append(pairs[at:end])
            at = end
            self.must(check_xattrs(self, self.inline[-1]) <= XATTR_INLINE_MAX, "long attributes in the body [A-7.1-6]")
        # Assumed: EXTERNAL_DIGEST, which never goes absent, says how many externals there are.
        externals = self.count("EXTERNAL_DIGEST")
        self.must(externals <= count, "more externals than sets [A-7.1-6]")
        rows = self.int("EXTERNAL_SET", externals)
        check_ascending(self, rows, "externals [A-7.1-6]")
        self.must(all(i < count for i in rows), "an external beyond the sets [A-7.1-6]")
        self.must(all(not self.inline[i] for i in rows), "an external with attributes in the body [A-7.1-6]")
        self.external = dict(zip(rows, self.digests("EXTERNAL_DIGEST", externals)))
        self.set_of = self.int("SET", self.rows)
        self.must(all(i < count for i in self.set_of), "a set beyond the sets [A-7.1-1]")
        self.must(len(set(self.set_of)) == count, "a set that no row uses [A-7.1-2]")
        self.kinds = [self.set_kinds[i] for i in self.set_of]

    def _read_rows(self):
        rows = self.rows
        self.seconds = self.signed("MTIME_SECONDS", rows)
        self.nanoseconds = self.int("MTIME_NANOSECONDS", rows)
        check_nanoseconds(self, self.nanoseconds)
        self.sizes, self.contents = self.int("SIZE", rows), self.digests("DIGEST", rows)
        for kind, size, digest in zip(self.kinds, self.sizes, self.contents):
            self.must(size <= SIZE_MAX, "too large [A-7.1-3]", "limit")
            self.must(kind == "file" or size == 0, f"a {kind} with a size [A-7.1-3]")
            self.must(kind in ("file", "directory") or digest == ZERO_DIGEST, f"a {kind} with a digest [A-7.1-4]")
        links = [i for i, kind in enumerate(self.kinds) if kind == "symlink"]
        self.must(list(self.int("TARGET_ROW", len(links))) == links, "the list of symbolic links [A-7.1-5]")
        self.targets = dict(zip(links, self.strings("TARGET_END", "TARGETS", len(links), empty=True)))
        for target in self.targets.values():
            self.must(len(target) <= TARGET_LENGTH_MAX, "a target is too long [A-5.5-1]", "limit")
            self.must(target and b"\0" not in target, "no target of a symbolic link [A-5.5-1]")
        rows = [i for i, kind in enumerate(self.kinds) if kind in DEVICES]
        self.must(list(self.int("DEVICE_ROW", len(rows))) == rows, "the list of devices [A-7.1-5]")
        # Assumed: numbers of devices are u32, like everything the kernel hands out for them.
        majors, minors = self.int("DEVICE_MAJOR", len(rows), U32), self.int("DEVICE_MINOR", len(rows), U32)
        self.devices = dict(zip(rows, zip(majors, minors)))

    def _read_tail(self):
        tail, rows = self.tail, self.rows
        self.payloads = tail.int("PAYLOAD_LENGTH", rows)
        below = [i for i, kind in enumerate(self.kinds) if kind == "directory"]
        distances, lengths = tail.int("DISTANCE", len(below)), tail.int("LENGTH", len(below))
        entries, self.subs = tail.int("ENTRIES", len(below)), {}
        for i, distance, length, count in zip(below, distances, lengths, entries):
            self.subs[i] = Ref(self.place(distance, length), length, self.contents[i], self.payloads[i], count)
        self.status = tail.int("STATUS", rows)
        self.must(all(s <= 15 for s in self.status), "unknown status [A-5.4-2]")
        tail.signed("CTIME_SECONDS", rows)
        check_nanoseconds(tail, tail.int("CTIME_NANOSECONDS", rows))
        tail.int("INODE", rows)
        self._read_externals()
        self._read_holes()
        self._check_aside()

    def _read_externals(self):
        """[A-7.1-6] [A-7.1-7], and the order of sets [A-7.1-2]."""
        count = len(self.external)
        distances = self.tail.int("EXTERNAL_DISTANCE", count)
        lengths, self.values = self.tail.int("EXTERNAL_LENGTH", count), {}
        for i, distance, length in zip(self.external, distances, lengths):
            self.values[i] = (self.place(distance, length), length)
        before = None
        for i, head in enumerate(self.sets):
            now = head + (self.xattrs(i),)
            self.must(before is None or before < now, "sets do not ascend [A-7.1-2]")
            before = now

    def xattrs(self, i):
        """The attributes of set i, as a list of (name, value)."""
        if i not in self.external:
            return self.inline[i]
        start, length = self.values[i]
        data = self.read(start, length)
        section = Stretch.of(self.stream, start, data, "VALU")
        section.must(digest_of(data, CONTEXT_VALUES) == self.external[i], "digest of attributes [A-7.1-7]")
        section.must(section.rows <= XATTR_TOTAL_MAX, "too many attributes [A-5.3-3]", "limit")
        names = section.strings("XATTR_NAME_END", "XATTR_NAMES", section.rows)
        values = section.strings("XATTR_VALUE_END", "XATTR_VALUES", section.rows, empty=True)
        section.done()
        xattrs = list(zip(names, values))
        section.must(check_xattrs(section, xattrs) > XATTR_INLINE_MAX, "short attributes outside the body [A-7.1-6]")
        return xattrs

    def _read_holes(self):
        """[A-7.1-8] [A-7.1-10] [A-7.1-11]."""
        tail = self.tail
        # Assumed: HOLE_DISTANCE, which never goes absent, says how many contents are sparse.
        count = tail.count("HOLE_DISTANCE")
        tail.must(count <= self.rows, "more contents with holes than rows [A-7.1-10]")
        rows = tail.int("HOLE_ROW", count)
        distances, lengths = tail.int("HOLE_DISTANCE", count), tail.int("HOLE_LENGTH", count)
        check_ascending(tail, rows, "rows with holes [A-7.1-10]")
        self.sparse = {}
        for i, distance, length in zip(rows, distances, lengths):
            tail.must(i < self.rows and self.kinds[i] == "file", "holes where there is no content [A-7.1-10]")
            self.sparse[i] = (self.place(distance, length), length)
        for i, kind in enumerate(self.kinds):
            payload, size = self.payloads[i], self.sizes[i]
            if kind == "file" and self.status[i] & NOT_READ:
                self.must(self.contents[i] == ZERO_DIGEST, "a content not read has a digest [A-5.4-1]")
                self.must(payload == 0, "a content not read has a payload [A-5.4-1]")
                # Assumed: nor has it holes.
                self.must(i not in self.sparse, "a content not read has holes [A-5.4-1]")
            elif kind == "file":
                holes = self.holes(i)
                absent = sum(length for _, length in holes)
                self.must(not holes or payload < size, "holes, and all of the size is payload [A-7.1-11]")
                part = Part(self.stream, self.sparse[i][0]) if holes else self
                part.must(not holes or holes[-1][0] + holes[-1][1] <= size, "a hole beyond the content [A-7.1-11]")
                part.must(payload == size - absent, "the payload is not the size less the holes [A-7.1-11]")
            elif kind != "directory":
                self.must(payload == 0, f"a {kind} with a payload [A-7.1-8]")

    def holes(self, i):
        """The holes of row i, as a list of (start, length) (section 5.6)."""
        if i not in self.sparse:
            return []
        start, length = self.sparse[i]
        section = Stretch.of(self.stream, start, self.read(start, length), "HOLE")
        section.must(section.rows > 0, "a table without holes [A-7.1-10]")
        section.must(section.rows <= HOLES_MAX, "too many holes [A-5.6-2]", "limit")
        holes = list(zip(section.int("START", section.rows), section.int("LENGTH", section.rows)))
        section.done()
        end = -1
        for at, n in holes:
            section.must(n > 0, "an empty hole [A-5.6-1]")
            section.must(at > end, "holes descend or touch [A-5.6-1]")
            end = section.u64(at + n, "end of a hole")
        return holes

    def _check_aside(self):
        """Section 8.2: hole and value tables come right before the table that refers to them.

        Assumed: they may stand in any order, and rows of one table may share one.
        """
        aside = sorted(set(self.sparse.values()) | set(self.values.values()))
        self.aside, at = aside, self.start
        for start, length in reversed(aside):
            self.must(start + length == at, "hole and value tables are not right before their table (8.2)")
            at = start
        self.first = at

    def not_read(self, i):
        return bool(self.status[i] & NOT_READ)


class IndexTable(Table):
    """Section 7.2."""

    def __init__(self, stream, ref, data):
        super().__init__(stream, ref, data, "IDXB", "IDXT")
        self.must(self.rows >= 1, "an index of no table [A-7.2-2]")
        self.level = self.int("LEVEL", 1)[0]
        self.must(self.level >= 1, "an index without a level [A-7.2-2]")
        self.must(self.level <= INDEX_LEVEL_MAX, "level of an index [A-7.2-3]", "limit")
        self.read_names()
        self.must(not self.is_root, "an empty name [A-4-2]")
        digests, tail = self.digests("DIGEST", self.rows), self.tail
        payloads, distances = tail.int("PAYLOAD_LENGTH", self.rows), tail.int("DISTANCE", self.rows)
        lengths, entries = tail.int("LENGTH", self.rows), tail.int("ENTRIES", self.rows)
        self.subs = [Ref(self.place(d, n), n, digest, p, e)
                     for d, n, digest, p, e in zip(distances, lengths, digests, payloads, entries)]
        self.finish(payloads, entries)
        self.total_entries -= self.rows  # rows of an index are no entries
        self.first, self.aside = self.start, []

    def check_row_name(self, name):
        check_path(self, name)  # names or paths; the tables below are checked for which


class LinkTable(Table):
    """Section 7.3; its tail has no columns."""

    level = 0

    def __init__(self, stream, ref, data):
        super().__init__(stream, ref, data, "LNKB", "LNKT")
        self.read_names()
        self.must(not self.is_root, "an empty path [A-4-2]")
        self.firsts = self.strings("FIRST_END", "FIRSTS", self.rows, empty=True)
        self.counts = self.int("COUNT", self.rows)
        self.must(all(n >= 2 for n in self.counts), "a group of less than two paths [A-7.3-1]")
        self.must(all(a < b for a, b in zip(self.firsts, self.names)), "the first path of a group is not its least [A-7.3-1]")
        self.finish([], [])
        self.first, self.aside = self.start, []

    def check_row_name(self, name):
        check_path(self, name)


class Cuts:
    """The rule that cuts names into pieces [A-7.2-1] [A-7.2-3], followed through one directory."""

    def __init__(self):
        self.last = {}  # level: (rows, bytes of names) of the table before

    @staticmethod
    def begins(rows, size, name, level, weight=None):
        weight = len(name) if weight is None else weight
        if rows >= PIECE_ROWS_MAX or size + weight > PIECE_NAMES_MAX:
            return True
        return rows >= PIECE_ROWS_MIN and leading(digest_of(name)) >> 10 * level & 1023 == 0

    def see(self, table):
        firsts = getattr(table, "firsts", [b""] * len(table.names))
        weights = [len(name) + len(first) for name, first in zip(table.names, firsts)]
        if table.level in self.last and table.rows:
            table.must(self.begins(*self.last[table.level], table.names[0], table.level, weights[0]),
                       "a piece begins where none may [A-7.2-1]")
        size = 0
        for i, name in enumerate(table.names):
            table.must(i == 0 or not self.begins(i, size, name, table.level, weights[i]),
                       f"no piece begins before {name!r} [A-7.2-1]")
            size += weights[i]
        self.last[table.level] = (table.rows, size)


class Entry:
    """One entry as list and verify see it."""

    def __init__(self, table, row, path, payload_start):
        self.table, self.row, self.path, self.payload_start = table, row, path, payload_start
        self.kind, self.size = table.kinds[row], table.sizes[row]
        self.digest, self.status = table.contents[row], table.status[row]

    def content(self, payload):
        return Content(self.size, self.table.holes(self.row), payload, self.payload_start)


# --- 8. The metadata stream -------------------------------------------------------------------------------

STREAM_MAGIC = bytes.fromhex("894450544d0d0a1a")
STREAM_END = bytes.fromhex("4450544d454e440a")
STREAM_HEADER, STREAM_TRAILER = 32, 128
PARTIAL, INCOMPLETE = 1, 2


class Metadata(Part):
    """A metadata stream over a source with `length` and `read(offset, length)`."""

    def __init__(self, source):
        super().__init__("metadata", 0)
        self.source, self.recent = source, Recent(64 << 20)
        self._read_header()
        self._read_trailer()
        self.extents = None  # filled with (end, length, body digest or None) when verify asks for it

    def _read_header(self):
        """Section 8.1."""
        self.must(self.source.length >= STREAM_HEADER + STREAM_TRAILER,
                  "shorter than header and trailer [A-8.3-1]", "truncated")
        magic, version, r1, required, _, r2 = struct.unpack("<8sHHII12s", self.source.read(0, STREAM_HEADER))
        self.must(magic == STREAM_MAGIC, "magic [A-8.1-1]")
        self.must(version == 1, f"version {version} [A-8.1-2]", "unsupported")
        self.must(required == 0, f"required features {required:#x} [A-8.1-3]", "unsupported")
        self.must(r1 == 0 and is_zero(r2), "reserved fields [A-1.2-2]")

    def _read_trailer(self):
        """Section 8.3."""
        self.at = at = self.source.length - STREAM_TRAILER
        part = self.trailer = Part("metadata", at)
        data = self.source.read(at, STREAM_TRAILER)
        (root_distance, root_length, link_distance, link_length, owner_distance, owner_length, self.tree_id,
         self.entries, self.payload_length, length, version, self.flags, reserved, magic) = struct.unpack(
            "<6Q32s3QHH12s8s", data)
        part.must(magic == STREAM_END, "no magic at the end [A-8.3-1]", "truncated")
        part.must(length == self.source.length, "another stream_length [A-8.3-1]", "truncated")
        part.must(version == 1, f"version {version} [A-8.1-2]", "unsupported")
        part.must(self.flags & ~(PARTIAL | INCOMPLETE) == 0, "unknown flags [A-8.3-5]", "unsupported")
        part.must(is_zero(reserved), "reserved fields [A-1.2-2]")
        self.root_ref = self._reference(root_distance, root_length)
        self.link_ref = self._reference(link_distance, link_length)
        self.owner_ref = None
        if owner_distance or owner_length:
            self.owner_ref = self._reference(owner_distance, owner_length)
        # Section 8.2: root table, link table, owner table, trailer, one right behind the other.
        links_end = self.owner_ref.start if self.owner_ref else at
        part.must(self.link_ref.start + self.link_ref.length == links_end, "the link table is not in its place (8.2)")
        part.must(self.root_ref.start + self.root_ref.length <= self.link_ref.start,
                  "the root table is not in its place (8.2)")
        if self.owner_ref:
            part.must(self.owner_ref.start + self.owner_ref.length == at, "the owner table is not in its place (8.2)")
        self._read_top()

    def _reference(self, distance, length):
        self.trailer.must(length <= TABLE_LENGTH_MAX, "a table is too long [A-7-1]", "limit")
        self.trailer.must(length % 8 == 0 and length > 0, "length of a reference [A-7-1]")
        self.trailer.must(length <= distance <= self.at - STREAM_HEADER, "distance of a reference [A-7-4]")
        return Ref(self.at - distance, length, None, None, None)

    def _read_top(self):
        root = self.root = self.load(self.root_ref)
        root.must(isinstance(root, DirectoryTable), "the root table is no directory table [A-8.2-1]")
        root.must(root.names == [b""] and root.kinds == ["directory"], "the root table [A-8.2-1]")
        self.trailer.must(self.entries == root.total_entries, "entries [A-8.3-2]")
        self.trailer.must(self.payload_length == root.payloads[0], "payload_length [A-8.3-3]")
        self.links = self.load(self.link_ref)
        self.links.must(not isinstance(self.links, DirectoryTable), "no link table where it is expected [A-6-12]")
        self.trailer.must(digest_of(root.digest + self.links.digest, CONTEXT_TREE) == self.tree_id, "tree id [A-3.2-2]")

    def load(self, ref):
        """The table at a reference, checked whole and against the digest in the row that led to it [A-14-1]."""
        table = self.recent.get(ref[:2])
        if table is None:
            part = Part("metadata", ref.start)
            data = self.source.read(ref.start, ref.length)
            tag = data[:4]
            if tag == b"DIRB":
                table = DirectoryTable("metadata", ref, data, self.source.read)
            elif tag == b"IDXB":
                table = IndexTable("metadata", ref, data)
            elif tag == b"LNKB":
                table = LinkTable("metadata", ref, data)
            else:
                part.fail("corrupt", f"section {tag!r} where a table is expected [A-6-12]")
            self.recent.put(ref[:2], table, ref.length)
        if ref.digest is not None:
            table.must(table.digest == ref.digest, "digest of the body [A-14-1]")
        if ref.entries is not None:
            table.must(table.total_entries == ref.entries, "entries [A-7.1-9]")
            table.must(table.total_payload == ref.payload, "payload below [A-7.1-8]")
        return table

    def leaves(self, ref, floor, kind):
        """Walks the pieces below a top table, in order: (reference, payload before it, floor) of each.

        A reader in order of the stream knows where each table must stand. `floor` is where the first
        byte of all that is below must be; a directory of subdirectories hands it on. So nothing is
        read twice, and what a hostile stream costs is bounded by its length.
        """
        cuts, todo = Cuts(), [(ref, None, None, None, 0)]
        while todo:
            ref, first, below, level, payload = todo.pop()
            if first is False:  # an index, all tables of which have been walked
                self._see(ref, self.load(ref), floor)
                floor = ref.start + ref.length
                continue
            table = self.load(ref)
            table.must(table.first >= floor, "a table before what precedes it (8.2)")
            table.must(level is None or table.level == level, "level of a table [A-7.2-4]")
            if first is not None:
                table.must(table.names and table.names[0] == first, "first name of a table [A-7.2-6]")
            table.must(below is None or table.names[-1] < below, "last name of a table [A-7.2-5]")
            if not self.flags & INCOMPLETE:  # names that were gone may have counted [A-7.2-7]
                cuts.see(table)
            if isinstance(table, IndexTable):
                # Only the last index of a level may have one row, and that one stands under another.
                table.must(level is not None or table.rows >= 2, "an index of one table at the top [A-7.2-2]")
                todo.append((ref, False, None, None, 0))
                rows = []
                for sub, name, bound in zip(table.subs, table.names, table.names[1:] + [below]):
                    rows.append((sub, name, bound, table.level - 1, payload))
                    payload += sub.payload
                todo.extend(reversed(rows))
            else:
                table.must(isinstance(table, kind), f"no {kind.__name__} where one is expected [A-6-12]")
                yield ref, payload, floor
                floor = ref.start + ref.length

    def _see(self, ref, table, floor):
        """All that is below a table has been walked to `floor`: there it must begin (section 8.2)."""
        Part("metadata", floor).must(table.first == floor, f"the table, or what is its own, does not begin at {floor} (8.2)")
        if self.extents is not None:
            self.extents.extend((start + length, length, None) for start, length in table.aside)
            self.extents.append((ref.start + ref.length, ref.length, table.digest))

    def walk(self):
        """All entries in the order of section 9, each with the start of its payload."""
        root = self.root
        yield Entry(root, 0, b"", 0)
        stack = [self._walk_directory(root.subs[0], b"", 0, 0, STREAM_HEADER)]
        while stack:  # of generators: depth is no matter of Python's stack
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
            elif isinstance(found, Entry):
                yield found
            else:
                stack.append(found)
        self._see(self.root_ref, root, root.subs[0].start + root.subs[0].length)

    def _walk_directory(self, ref, path, depth, payload_start, floor):
        """Sections 7.2 and 9: piece by piece, first what is no directory, then the directories."""
        for ref, before, floor in self.leaves(ref, floor, DirectoryTable):
            table, payload = self.load(ref), payload_start + before
            table.must(not table.is_root, "an empty name [A-4-2]")
            for i, name in enumerate(table.names):
                if i not in table.subs:
                    yield Entry(table, i, joined(table, path, name, depth + 1), payload)
                    payload += table.payloads[i]
            for i in list(table.subs):
                table = self.load(ref)  # again, so that deep trees do not hold every table of a path
                entry = Entry(table, i, joined(table, path, table.names[i], depth + 1), payload)
                sub = table.subs[i]
                payload += sub.payload
                yield entry
                yield self._walk_directory(sub, entry.path, depth + 1, entry.payload_start, floor)
                floor = sub.start + sub.length
            self._see(ref, self.load(ref), floor)

    def link_rows(self):
        """Section 7.3: {path: (first, count)}; checks the groups."""
        found, sizes, floor = {}, collections.Counter(), self.root_ref.start + self.root_ref.length
        for ref, _, floor in self.leaves(self.link_ref, floor, LinkTable):
            table = self.load(ref)
            self._see(ref, table, floor)
            for path, first, count in zip(table.names, table.firsts, table.counts):
                if first:
                    table.must(first in found and found[first][0] == b"",
                               f"{first!r} is not the first of its group [A-7.3-1]")
                    table.must(found[first][1] == count, f"paths of a group differ in COUNT at {path!r} [A-7.3-1]")
                found[path] = (first, count)
                sizes[first or path] += 1
        for path, (first, count) in found.items():
            self.links.must(sizes[first or path] == count, f"the group of {path!r} is not complete [A-7.3-1]")
        return found

    def owners(self):
        """Section 7.4: ({uid: name}, {gid: name}). Assumed: the header's row count says nothing."""
        if self.owner_ref is None:
            return {}, {}
        start, length = self.owner_ref[:2]
        section = Stretch.of("metadata", start, self.source.read(start, length), "OWNR")
        lists = []
        for count, ids, ends, names in (("USER_COUNT", "UID", "USER_END", "USERS"),
                                        ("GROUP_COUNT", "GID", "GROUP_END", "GROUPS")):
            n = section.int(count, 1)[0]
            section.must(n <= OWNERS_MAX, "too many owners", "limit")
            numbers, words = section.int(ids, n, U32), section.strings(ends, names, n)
            check_ascending(section, numbers, "ids of owners [A-7.4-1]")
            section.must(all(word and b"\0" not in word for word in words), "no name of an owner [A-7.4-1]")
            lists.append(dict(zip(numbers, words)))
        section.done()
        if self.extents is not None:
            self.extents.append((start + length, length, None))
        return lists[0], lists[1]

    def find(self, path):
        """The entry at a path, reading only the tables on the way (section 14, at random)."""
        entry = Entry(self.root, 0, b"", 0)
        for name in path.split(b"/") if path else []:
            self.must(entry.kind == "directory", f"{path!r} is not there", "missing")
            ref, payload = entry.table.subs[entry.row], entry.payload_start
            table, level = self.load(ref), None
            while isinstance(table, IndexTable):
                i = bisect.bisect_right(table.names, name) - 1  # the last row not above the name [A-7.2-6]
                self.must(i >= 0, f"{path!r} is not there", "missing")
                payload += sum(sub.payload for sub in table.subs[:i])
                first, level, table = table.names[i], table.level - 1, self.load(table.subs[i])
                table.must(table.names and table.names[0] == first, "first name of a table [A-7.2-6]")
                table.must(table.level == level, "level of a table [A-7.2-4]")
            table.must(isinstance(table, DirectoryTable), "no directory table where one is expected [A-6-12]")
            table.must(not table.is_root, "an empty name [A-4-2]")
            i = bisect.bisect_left(table.names, name)
            self.must(i < table.rows and table.names[i] == name, f"{path!r} is not there", "missing")
            place = [(kind == "directory", j) for j, kind in enumerate(table.kinds)]  # directories last [A-9-2]
            payload += sum(table.payloads[j] for j in range(table.rows) if place[j] < place[i])
            entry = Entry(table, i, path, payload)
        return entry

    def check_all(self, payload=None):
        """Every table, every rule; contents too if there is a payload. Returns the tree id."""
        links, linked, any_status = self.link_rows(), {}, self.root.status[0]
        for entry in self.walk():
            any_status |= entry.status
            if entry.path in links:
                linked[entry.path] = (entry.kind, entry.size, entry.digest)
            if payload and entry.kind == "file" and not entry.status & NOT_READ:
                if entry.content(payload).digest() != entry.digest:
                    raise Fault("corrupt", "payload", entry.payload_start, f"digest of {entry.path!r} [A-14-3]")
        for path, (first, _) in links.items():
            self.links.must(path in linked, f"{path!r} of the link table is not there [A-7.3-1]")
            self.links.must(linked[path] == linked.get(first or path), f"{path!r} differs from its first [A-7.3-3]")
            self.links.must(linked[path][0] != "directory", f"{path!r} is a directory [A-7.3-3]")
        self.trailer.must(bool(any_status) == bool(self.flags & INCOMPLETE), "INCOMPLETE and statuses disagree [A-8.3-4]")
        self.owners()
        return self.tree_id


class FileSource:
    """Bytes of a file as a source; also what packs are read with."""

    def __init__(self, path, stream):
        self.stream, self.path = stream, path
        try:
            self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self.file)
            self.length = os.fstat(self.file).st_size
        except OSError as error:
            raise Fault("io", stream, 0, f"{path}: {error.strerror}") from None

    def read(self, offset, length):
        if offset < 0 or length > self.length - offset:
            raise Fault("truncated", self.stream, max(offset, 0), "the bytes end")
        try:
            data = os.pread(self.file, length, offset)
            while 0 < len(data) < length:
                more = os.pread(self.file, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise Fault("io", self.stream, offset, f"{self.path}: {error.strerror}") from None
        if len(data) != length:
            raise Fault("truncated", self.stream, offset, "the bytes end")
        return data


# --- 10. Chunks and stream maps ---------------------------------------------------------------------------

Slice = collections.namedtuple("Slice", "chunk start length slices")


class Segment(Part):
    """Section 10.3."""

    def __init__(self, data, stream="segment"):
        super().__init__(stream, 0)
        ids = Section(stream, 0, data, 0, "SEGC")
        map_ = Section(stream, 0, data, ids.length, "SEGS")
        self.must(ids.length + map_.length == len(data), "bytes behind the segment")
        self.must(map_.rows <= SEGMENT_ROWS_MAX, "too many slices [A-10.3-4]", "limit")
        self.must(ids.rows <= map_.rows, "more chunks than slices [A-10.3-1]")
        self.ids = ids.digests("CHUNK_ID", ids.rows)
        ids.must(len(set(self.ids)) == len(self.ids), "a chunk id stands twice [A-10.3-1]")
        rows = map_.rows
        chunks, starts = map_.int("CHUNK", rows), map_.int("START", rows)
        lengths, counts = map_.int("LENGTH", rows), map_.int("SLICES", rows)
        # Assumed: a segment without rows has no LEVEL either, as the column counts 1 and is absent for 0.
        self.level = map_.int("LEVEL", 1)[0]
        map_.must(self.level <= SEGMENT_LEVEL_MAX, "level of a segment [A-10.3-5]", "limit")
        ids.done()
        map_.done()
        used = 0
        for chunk in chunks:
            map_.must(chunk <= used < len(self.ids) or chunk < used,
                      "chunk ids are not in order of first use [A-10.3-1]")
            used += chunk == used
        map_.must(used == len(self.ids), "a chunk id that no slice uses [A-10.3-1]")
        map_.must(all(lengths), "an empty slice [A-10.3-2]")
        self.slices = [Slice(self.ids[c], s, n, k) for c, s, n, k in zip(chunks, starts, lengths, counts)]
        if self.level == 0:
            map_.must(not any(counts), "SLICES in a segment of level 0 [A-10.3-5]")
            self.slice_count = rows
        else:
            map_.must(not any(starts), "START in a segment of segments [A-10.3-5]")
            map_.must(all(counts), "a segment without slices in a segment of segments [A-10.3-5]")
            map_.must(rows >= 1, "a segment of no segment [A-10.3-5]")
            # Assumed: SLICES counts slices of level 0 at every level.
            self.slice_count = self.u64(sum(counts), "slices")
        self.starts, at = [], 0
        for one in self.slices:
            map_.u64(one.start + one.length, "end of a slice")
            self.starts.append(at)
            at += one.length
        self.length = map_.u64(at, "length of the stream")
        for a, b in itertools.pairwise(self.slices):
            map_.must(not self.continues(a, b), "two slices that are one [A-10.3-3]")
        for i in range(1, rows):
            map_.must(not self.ends(i), f"the segment goes on behind slice {i} [A-10.3-4]")

    def continues(self, a, b):
        """[A-10.3-3]."""
        return self.level == 0 and a.chunk == b.chunk and a.start + a.length == b.start

    def ends(self, count):
        """Whether a segment ends when it has its first `count` slices [A-10.3-4]."""
        return count >= SEGMENT_ROWS_MAX or (
            count >= SEGMENT_ROWS_MIN and leading(self.slices[count - 1].chunk) % 1024 == 0)


class MapSource:
    """A stream as its map gives it: reads chunks as it needs them."""

    def __init__(self, stream, store, root, length, kind):
        self.stream, self.store, self.root, self.length, self.kind = stream, store, root, length, kind
        self.recent = Recent(64 << 20)
        segment = self._segment(root)
        segment.must(segment.level == 0 or len(segment.slices) >= 2, "a root of one segment [A-10.3-5]")
        Part(stream, 0).must(segment.length == length, "the map is not as long as the stream [A-10.3-6]")

    def _segment(self, id_, level=None, slice_=None):
        segment = self.recent.get(id_)
        if segment is None:
            data = self.store.chunk(id_, SEGMENT)
            segment = self.recent.put(id_, Segment(data, f"segment {id_.hex()}"), 16 * len(data))
        segment.must(level is None or segment.level == level, "level of a segment [A-10.3-5]")
        if slice_ is not None:
            segment.must(segment.length == slice_.length, "LENGTH of a segment [A-10.3-5]")
            segment.must(segment.slice_count == slice_.slices, "SLICES of a segment [A-10.3-5]")
        return segment

    def _slice(self, offset):
        """The slice that holds an offset, and where in the stream it starts."""
        segment, base = self._segment(self.root), 0
        while True:
            i = bisect.bisect_right(segment.starts, offset - base) - 1
            one = segment.slices[i]
            base += segment.starts[i]
            if segment.level == 0:
                return one, base
            segment = self._segment(one.chunk, segment.level - 1, one)

    def pieces(self, offset, length):
        """The bytes [offset, offset + length), chunk by chunk."""
        if offset < 0 or length > self.length - offset:
            raise Fault("truncated", self.stream, max(offset, 0), "the stream ends")
        while length:
            one, base = self._slice(offset)
            data = self.store.chunk(one.chunk, self.kind)
            if one.start + one.length > len(data):
                raise Fault("corrupt", self.stream, base, "a slice beyond its chunk")
            at, n = one.start + offset - base, min(length, base + one.length - offset)
            yield data[at:at + n]
            offset, length = offset + n, length - n

    def read(self, offset, length):
        return b"".join(self.pieces(offset, length))

    def boundaries(self):
        """The ends of all slices."""
        at = 0
        while at < self.length:
            one, base = self._slice(at)
            at = base + one.length
            yield at

    def check(self):
        """The whole map, each segment once for each role that it has."""
        seen = {}
        self._check(self.root, None, None, True, seen)

    def _check(self, id_, level, slice_, last, seen):
        """Returns the first and the last slice below; [A-10.3-3] to [A-10.3-5] across segments."""
        segment = self._segment(id_, level, slice_)
        if (id_, last) in seen:
            return seen[id_, last]
        if not last:
            segment.must(segment.ends(len(segment.slices)), "the segment ends too early [A-10.3-4]")
        if segment.level == 0:
            ends = (segment.slices[0], segment.slices[-1]) if segment.slices else None
            for one in segment.slices:
                self.store.find(one.chunk, self.kind)
        else:
            first = before = None
            for i, one in enumerate(segment.slices):
                is_last = last and i == len(segment.slices) - 1
                a, b = self._check(one.chunk, segment.level - 1, one, is_last, seen)
                joined_ = before and before.chunk == a.chunk and before.start + before.length == a.start
                segment.must(not joined_, "two slices that are one, in two segments [A-10.3-3]")
                first, before = first or a, b
            ends = (first, before)
        seen[id_, last] = ends
        return ends


# --- 11. Packs --------------------------------------------------------------------------------------------

PACK_MAGIC = bytes.fromhex("89445054500d0a1a")
PACK_END = bytes.fromhex("44505450454e440a")
PACK_HEADER, CHUNK_HEADER, PACK_TRAILER = 16, 40, 64
PAYLOAD, METADATA, SEGMENT, MANIFEST = 1, 2, 3, 4
KIND_CONTEXT = {PAYLOAD: None, METADATA: CONTEXT_METADATA_CHUNK, SEGMENT: CONTEXT_SEGMENT, MANIFEST: CONTEXT_MANIFEST}
# Assumed: METADATA_CHUNK_MAX is that of segments too. The manifest's is in section 12.
KIND_MAX = {
    PAYLOAD: PAYLOAD_CHUNK_MAX, METADATA: METADATA_CHUNK_MAX, SEGMENT: METADATA_CHUNK_MAX, MANIFEST: MANIFEST_MAX,
}
HOLDS = {1: {PAYLOAD}, 2: {METADATA, SEGMENT, MANIFEST}, 3: {PAYLOAD, METADATA, SEGMENT, MANIFEST}}
# Assumed: what takes more than this beyond what it decodes to is refused before it is read.
STORED_SLACK = 65536
# Assumed: no frame needs a window beyond what METADATA_CHUNK_MAX would.
WINDOW_MAX = 1 << 27


class Pack(Part):
    """Section 11."""

    def __init__(self, path, stream):
        super().__init__(stream, 0)
        source = self.source = FileSource(path, stream)
        self.must(source.length >= PACK_HEADER + PACK_TRAILER, "shorter than header and trailer [A-11-8]", "truncated")
        magic, version, self.holds, reserved = struct.unpack("<8sHB5s", source.read(0, PACK_HEADER))
        self.must(magic == PACK_MAGIC, "magic of a pack")
        self.must(version == 1, f"version {version} of a pack", "unsupported")
        self.must(is_zero(reserved), "reserved fields [A-1.2-2]")
        self.must(self.holds in HOLDS, f"a pack that holds {self.holds}")
        self._read_directory()

    def _read_directory(self):
        source = self.source
        at = source.length - PACK_TRAILER
        part = Part(self.stream, at)
        digest, length, pack_length, version, reserved, magic = struct.unpack(
            "<32sQQH6s8s", source.read(at, PACK_TRAILER))
        part.must(magic == PACK_END, "no magic at the end [A-11-8]", "truncated")
        part.must(pack_length == source.length, "another pack_length [A-11-8]", "truncated")
        part.must(version == 1, f"version {version} of a pack", "unsupported")
        part.must(is_zero(reserved), "reserved fields [A-1.2-2]")
        part.must(length <= min(U32, at - PACK_HEADER), "directory_length")
        part = Part(self.stream, at - length)
        data = source.read(at - length, length)
        part.must(digest_of(data, CONTEXT_PACK_DIRECTORY) == digest, "digest of the directory [A-11-9]")
        section = Stretch.of(self.stream, at - length, data, "PDIR")
        section.must(section.rows <= PACK_CHUNKS_MAX, "too many chunks", "limit")
        ids = section.digests("CHUNK_ID", section.rows)
        kinds, lengths = section.int("KIND", section.rows), section.int("STORED_LENGTH", section.rows, U32)
        section.done()
        self.chunks, position = {}, PACK_HEADER
        for id_, kind, stored in zip(ids, kinds, lengths):
            section.must(kind in KIND_CONTEXT, f"kind {kind} of a chunk [A-11-4]", "unsupported")
            section.must(kind in HOLDS[self.holds], f"a chunk of kind {kind} in a pack that holds {self.holds}")
            section.must(id_ not in self.chunks, "a chunk stands twice [A-11-6]")
            self.chunks[id_] = (position, kind, stored)
            position += CHUNK_HEADER + stored
        section.must(position == at - length, "the chunks do not end where the directory begins [A-11-10]")

    def read_chunk(self, id_):
        """The raw bytes of a chunk, after their digest is verified [A-11-5] [A-14-2]."""
        position, kind, stored = self.chunks[id_]
        part = Part(self.stream, position)
        header = self.source.read(position, CHUNK_HEADER)
        found, length, found_kind, seal, reserved = struct.unpack("<32sIBBH", header)
        part.must(found_kind in KIND_CONTEXT, f"kind {found_kind} of a chunk [A-11-4]", "unsupported")
        part.must(seal == 0, f"seal {seal} [A-11-4]", "unsupported")
        part.must(reserved == 0, "reserved field [A-1.2-2]")
        part.must((found, length, found_kind) == (id_, stored, kind), "header of a chunk and directory differ [A-11-7]")
        part.must(stored >= 8, "a chunk without room for its codec", "truncated")
        codec, reserved, raw_length = struct.unpack("<B3sI", self.source.read(position + CHUNK_HEADER, 8))
        part.must(is_zero(reserved), "reserved bytes [A-1.2-2]")
        part.must(codec in (0, 1), f"codec {codec} [A-11-4]", "unsupported")
        part.must(raw_length <= KIND_MAX[kind], "raw_length [A-11-1]", "limit")
        part.must(stored - 8 <= KIND_MAX[kind] + STORED_SLACK, "stored_length", "limit")
        data = self.source.read(position + CHUNK_HEADER + 8, stored - 8)
        if codec == 1:
            data = self._decode(part, data, raw_length)
        part.must(len(data) == raw_length, "another raw_length [A-11-2]")
        part.must(digest_of(data, KIND_CONTEXT[kind]) == id_, "digest of a chunk [A-11-5]")
        return data

    @staticmethod
    def _decode(part, data, raw_length):
        """One zstd frame of raw_length bytes, nothing after it [A-11-2] [A-11-3]."""
        part.must(data[:4] == b"\x28\xb5\x2f\xfd", "no zstd frame [A-11-3]")
        try:
            size = zstandard.get_frame_parameters(data).content_size
            part.must(size in (raw_length, zstandard.CONTENTSIZE_UNKNOWN), "the frame is not of raw_length [A-11-2]")
            if raw_length:
                decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
                return decoder.decompress(data, max_output_size=raw_length, allow_extra_data=False)
            decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX).decompressobj()
            for at in range(0, len(data), 16):  # little by little: what should be nothing may be much
                part.must(not decoder.eof and not decoder.decompress(data[at:at + 16]),
                          "the frame is not of raw_length [A-11-2]")
            part.must(decoder.eof and not decoder.unused_data, "bytes behind the frame [A-11-3]")
            return b""
        except zstandard.ZstdError as error:
            part.fail("corrupt", f"zstd: {error} [A-11-3]")

    def check(self):
        """Every chunk; segments and the manifest also for what they say. Returns their number."""
        last = None
        for id_, (position, kind, _) in self.chunks.items():
            data, part = self.read_chunk(id_), Part(self.stream, position)
            if kind == SEGMENT:
                Segment(data, f"segment {id_.hex()}")
            elif kind == MANIFEST:
                parse_manifest(part, data)
            part.must(last != MANIFEST, "a chunk behind the manifest [A-12-1]")
            last = kind
        return len(self.chunks)


# --- 12. Archive files ------------------------------------------------------------------------------------


def parse_manifest(part, data):
    """[A-12-2] [A-12-3]. Assumed: keys that stand twice make it corrupt; hexadecimal of either case will do."""

    def pairs(items):
        part.must(len({key for key, _ in items}) == len(items), "a key stands twice [A-12-2]")
        return dict(items)

    def number(value):
        return type(value) is int and 0 <= value <= U64

    def no_constant(word):
        raise ValueError(word)  # NaN and the like, which Python takes and JSON does not have

    def digest(value):
        hexadecimal = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdefABCDEF")
        part.must(hexadecimal, "no 64 hexadecimal digits [A-12-2]")
        return bytes.fromhex(value)

    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=no_constant)
    except (ValueError, RecursionError):
        part.fail("corrupt", "the manifest is no JSON [A-12-2]")
    part.must(isinstance(found, dict) and found.get("format") == "diptych-archive",
              "the manifest is of no archive [A-12-2]")
    part.must(number(found.get("version")), "no version [A-12-2]")
    part.must(found["version"] == 1, f"version {found['version']} of the manifest [A-12-2]", "unsupported")
    part.must(isinstance(found.get("complete"), bool), "complete [A-12-2]")
    part.must(number(found.get("entries")), "entries [A-12-2]")
    part.must(isinstance(found.get("tool"), str), "tool [A-12-2]")
    found["tree_id"] = digest(found.get("tree_id"))
    for key in ("metadata", "payload"):
        one = found.get(key)
        part.must(isinstance(one, dict) and number(one.get("length")), f"{key} [A-12-2]")
        found[key] = (digest(one.get("root")), one["length"])
    return found


class Archive:
    """An archive of one file or of a pair."""

    def __init__(self, name):
        paths = self._paths(name)
        self.packs = [Pack(paths[0], "metadata file" if len(paths) > 1 else "archive file")]
        first = self.packs[0]
        if len(paths) > 1:
            first.must(first.holds in (2, 3), "a metadata file that holds no metadata (12)")
            if first.holds == 2 and os.path.lexists(paths[1]):  # what lacks is told when it is needed [A-12-5]
                self.packs.append(Pack(paths[1], "data file"))
                self.packs[1].must(self.packs[1].holds == 1, "a data file that does not hold payload (12)")
        else:
            first.must(first.holds == 3, "no archive of one file (12)")
        self.recent = Recent(64 << 20)
        chunks = list(first.chunks.items())
        manifests = [position for _, (position, kind, _) in chunks if kind == MANIFEST]
        part = Part(first.stream, manifests[0] if manifests else 0)
        part.must(len(manifests) == 1, "not one manifest [A-12-1]")
        part.must(chunks[-1][1][1] == MANIFEST, "the manifest is not the last chunk [A-12-1]")
        manifest = self.manifest = parse_manifest(part, first.read_chunk(chunks[-1][0]))
        self.map = MapSource("metadata", self, *manifest["metadata"], METADATA)
        self.payload = MapSource("payload", self, *manifest["payload"], PAYLOAD)
        tree = self.tree = Metadata(self.map)
        agree = (tree.tree_id, not tree.flags, tree.entries, tree.payload_length)
        told = (manifest["tree_id"], manifest["complete"], manifest["entries"], manifest["payload"][1])
        part.must(agree == told, "manifest and trailer differ [A-12-4]")

    @staticmethod
    def _paths(name):
        for suffix in (".meta.dpt", ".data.dpt"):
            if name.endswith(suffix):
                name = name[:-len(suffix)]
                return [name + ".meta.dpt", name + ".data.dpt"]
        if os.path.lexists(name) and not os.path.isdir(name):
            return [name]
        return [name + ".meta.dpt", name + ".data.dpt"]

    def find(self, id_, kind):
        for pack in self.packs:
            if id_ in pack.chunks:
                position, found, _ = pack.chunks[id_]
                Part(pack.stream, position).must(found == kind, f"a chunk of kind {found} where {kind} is expected")
                return pack
        raise Fault("missing", "archive", 0, f"chunk {id_.hex()} [A-12-5]")

    def chunk(self, id_, kind):
        data = self.recent.get(id_)
        pack = self.find(id_, kind)
        if data is None:
            data = pack.read_chunk(id_)
            self.recent.put(id_, data, len(data))
        return data

    def verify(self):
        for pack in self.packs:
            pack.check()
        self.map.check()
        self.payload.check()
        self.tree.extents = []
        tree_id = self.tree.check_all(self.payload)
        self._check_metadata_cuts()
        return tree_id

    def _check_metadata_cuts(self):
        """Section 10.2. Assumed: it binds writers, and a strict reader may ask for it."""
        expected, begin, tree = [], 0, self.tree
        for end, length, digest in sorted(tree.extents, key=lambda extent: extent[0]):
            by_digest = digest is not None and leading(digest) < (2**64 // 2**17) * length
            if by_digest or end - begin >= 1 << 20:
                expected.append(end)
                begin = end
        expected.append(self.map.length)
        ends = {extent[0] for extent in tree.extents} | {self.map.length}
        for found, wanted in zip(self.map.boundaries(), expected):
            if found not in ends:
                raise Fault("corrupt", "metadata", found, "a chunk ends inside a table [A-10.2-1]")
            if found != wanted:
                raise Fault("corrupt", "metadata", found, f"a chunk ends here instead of at {wanted} [A-10.2-2]")


# --- The commands -----------------------------------------------------------------------------------------


def put_text(found, key, data):
    """Bytes as text; what is not UTF-8 as lossy text, with the bytes in hexadecimal beside it."""
    try:
        found[key] = data.decode("utf-8")
    except UnicodeDecodeError:
        found[key] = data.decode("utf-8", "replace")
        found[key + "_hex"] = data.hex()


def describe(entry, firsts):
    """The object that `list --json` prints for an entry."""
    table, i = entry.table, entry.row
    mode, uid, gid, flags, project = table.sets[table.set_of[i]]
    found = {}
    put_text(found, "path", entry.path)
    found.update(kind=entry.kind, mode=f"{mode & 0o7777:04o}", uid=uid, gid=gid)
    if entry.kind == "file":
        found["size"] = entry.size
    found["mtime"] = f"{table.seconds[i]}.{table.nanoseconds[i]:09}"
    if entry.kind == "file" and not table.not_read(i):
        found["digest"] = entry.digest.hex()
    if entry.kind == "symlink":
        put_text(found, "target", table.targets[i])
    if entry.kind in DEVICES:
        found["major"], found["minor"] = table.devices[i]
    found.update({key: value for key, value in (("flags", flags), ("project", project)) if value})
    xattrs = table.xattrs(table.set_of[i])
    if xattrs:
        found["xattrs"] = {name.decode("utf-8", "replace"): value.hex() for name, value in xattrs}
    holes = table.holes(i)
    if holes:
        found["holes"] = [list(hole) for hole in holes]
    if entry.status:
        found["status"] = [word for bit, word in STATUS if entry.status & bit]
    if entry.path in firsts:
        put_text(found, "link_first", firsts[entry.path])
    return found


def plain(text):
    """Text for a line of a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def command_list(arguments, out):
    archive = Archive(arguments.archive)
    firsts = {path: first for path, (first, _) in archive.tree.link_rows().items() if first}
    for entry in archive.tree.walk():
        found = describe(entry, firsts)
        if arguments.json:
            out.write(json.dumps(found).encode() + b"\n")
        else:
            what = found.get("size", "{major},{minor}".format(**found) if "major" in found else "-")
            arrow = " -> " + found["target"] if "target" in found else ""
            head = f"{found['kind']:12} {found['mode']} {found['uid']}:{found['gid']} {what:>12} {found['mtime']}"
            line = f"{head} /{found['path']}{arrow}"
            out.write(plain(line).encode("utf-8", "replace") + b"\n")


def command_cat(arguments, out):
    archive = Archive(arguments.archive)
    entry = archive.tree.find(os.fsencode(arguments.path).strip(b"/"))
    part = Part("metadata", entry.table.start)
    part.must(entry.kind == "file" and not entry.table.not_read(entry.row), "no content to read", "missing")
    content = entry.content(archive.payload)
    if content.digest() != entry.digest:
        raise Fault("corrupt", "payload", entry.payload_start, f"digest of {entry.path!r} [A-14-3]")
    for block in content.blocks(0, content.size):
        out.write(block)


def told(tree):
    """[A-3.2-3]."""
    return f"ok {tree.tree_id.hex()}{' incomplete' if tree.flags else ''}\n".encode()


def command_verify(arguments, out):
    archive = Archive(arguments.archive)
    archive.verify()
    out.write(told(archive.tree))


def command_verify_stream(arguments, out):
    tree = Metadata(FileSource(arguments.file, "metadata"))
    tree.check_all()
    out.write(told(tree))


def command_segment(arguments, out):
    source = FileSource(arguments.file, "segment")
    if source.length > METADATA_CHUNK_MAX:
        raise Fault("limit", "segment", 0, "too long [A-11-1]")
    segment = Segment(source.read(0, source.length))
    out.write(f"ok level {segment.level} slices {len(segment.slices)} length {segment.length}\n".encode())


def command_pack(arguments, out):
    out.write(f"ok {Pack(arguments.file, 'pack').check()} chunks\n".encode())


def main(argv=None):
    parser = argparse.ArgumentParser(description="A strict reader of Diptych archives.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, words in (("list", command_list, ["archive"]), ("cat", command_cat, ["archive", "path"]),
                             ("verify", command_verify, ["archive"]),
                             ("verify-stream", command_verify_stream, ["file"]), ("segment", command_segment, ["file"]),
                             ("pack", command_pack, ["file"])):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        for word in words:
            command.add_argument(word)
        if name == "list":
            command.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args(argv)
    out = sys.stdout.buffer
    try:
        arguments.run(arguments, out)
        out.flush()
    except Fault as fault:
        out.flush()
        print(plain(str(fault)), file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"io: output at 0: {error.strerror}", file=sys.stderr)
        return 1
    except Exception as error:  # a bug of this reader: nothing but Fault may come from what it reads
        traceback.print_exc()
        print(f"bug: {error!r}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
