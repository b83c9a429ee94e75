"""Exercises diptych_reader.py with archives that a tiny encoder, written from ../archive.md too, builds.

    python -m unittest test_reader
"""

import contextlib
import io
import itertools
import json
import os
import random
import struct
import sys
import tempfile
import threading
import unittest
from unittest import mock

import zstandard

import diptych_reader as r
from diptych_reader import Fault, digest_of, leading, pad8

# --- The tiny encoder -------------------------------------------------------------------------------------

IDS = {tag: {name: (key, kind) for key, (name, kind) in columns.items()} for tag, columns in r.COLUMNS.items()}


def width_of(values, signed):
    for width in (1, 2, 4, 8):
        low, high = (-(1 << 8 * width - 1), (1 << 8 * width - 1) - 1) if signed else (0, (1 << 8 * width) - 1)
        if low <= min(values) and max(values) <= high:
            return width
    raise AssertionError(values)


def section(tag, rows, extra=(), **columns):
    """`columns`: name to list of numbers, bytes, or list of digests. `extra`: (id, width, count, data)."""
    found = []
    for name, values in columns.items():
        key, kind = IDS[tag][name]
        if kind == "bytes" and values:
            found.append((key, 1, len(values), values))
        elif kind == "digest" and values:
            found.append((key, 32, len(values), b"".join(values)))
        elif kind in ("int", "signed", "ends") and any(values):
            width = width_of(values, kind == "signed")
            letter = r.UNSIGNED[width].lower() if kind == "signed" else r.UNSIGNED[width]
            found.append((key, width, len(values), struct.pack(f"<{len(values)}{letter}", *values)))
    found = sorted(found + list(extra))
    heads = b"".join(struct.pack("<HHI", key, width, count) for key, width, count, _ in found)
    data = b"".join(data.ljust(pad8(len(data)), b"\0") for *_, data in found)
    return struct.pack("<4sIIHH", tag.encode(), 16 + len(heads) + len(data), rows, len(found), 0) + heads + data


def ends(strings):
    return list(itertools.accumulate(map(len, strings)))


class Node:
    def __init__(self, kind, mode=0o644, uid=0, gid=0, flags=0, project=0, xattrs=(), mtime=(0, 0), data=b"",
                 holes=(), target=b"", device=(0, 0), children=None, status=0, group=None):
        bits = {word: bits for bits, word in r.KINDS.items()}[kind]
        self.kind, self.set = kind, (bits | mode, uid, gid, flags, project, tuple(xattrs))
        self.mtime, self.data, self.holes, self.target, self.device = mtime, data, holes, target, device
        self.children, self.status, self.group = children or {}, status, group


class Stream:
    """Builds the metadata stream and the payload stream of a tree."""

    def __init__(self, root, flags=0, owners=None, cut=r.Cuts.begins, spoil=None):
        self.cut, self.spoil = cut, spoil or (lambda *_: None)
        self.out = bytearray(r.STREAM_MAGIC + struct.pack("<HHII12s", 1, 0, 0, 0, b""))
        self.payload, self.slices, self.chunks, self.groups, self.extents = 0, [], {}, {}, []
        top = self.directory(root, b"")
        self.root = self.piece([(b"", root)], {b"": top})
        links = self.links()
        owner = None
        if owners:
            users, groups = owners
            at = len(self.out)
            names = [list(users.values()), list(groups.values())]
            self.add(section("OWNR", 0, UID=list(users), USER_END=ends(names[0]), USERS=b"".join(names[0]),
                             GID=list(groups), GROUP_END=ends(names[1]), GROUPS=b"".join(names[1]),
                             USER_COUNT=[len(users)], GROUP_COUNT=[len(groups)]))
            owner = (at, len(self.out) - at)
        at = len(self.out)
        refs = [x for ref in (self.root[:2], links[:2], owner) for x in ((at - ref[0], ref[1]) if ref else (0, 0))]
        self.tree_id = digest_of(self.root[2] + links[2], r.CONTEXT_TREE)
        self.entries, self.flags = self.root[4], flags
        self.out += struct.pack("<6Q32s3QHH12s8s", *refs, self.tree_id, self.entries, self.payload, at + 128, 1, flags,
                                b"", r.STREAM_END)

    def add(self, data, digest=None):
        at = len(self.out)
        self.out += data
        self.extents.append((len(self.out), len(data), digest))
        return at

    def table(self, tag, rows, body, tail, payload, entries):
        self.spoil(tag, rows, body, tail)
        extra = body.pop("extra", ())
        body = section(tag, rows, extra, **body)
        digest = digest_of(body, r.CONTEXT_BODY)
        data = body + section(tag[:3] + "T", rows, **tail)
        return self.add(data, digest), len(data), digest, payload, entries

    def pieces(self, rows, leaf):
        """`rows`: (name, anything); `leaf` writes a table of some. Section 7.2.

        The shape comes first, from names alone, as an index stands right behind the last table below it.
        """

        def grouped(items, level):  # items: (name, anything)
            groups, held, size = [], [], 0
            for item in items:
                if held and self.cut(len(held), size, item[0], level):
                    groups.append((held[0][0], held))
                    held, size = [], 0
                held.append(item)
                size += len(item[0])
            return groups + [(held[0][0] if held else b"", held)]

        def write(held, level):
            if level == 0:
                return leaf(held)
            return self.index([(name, write(below, level - 1)) for name, below in held], level)

        level, groups = 0, grouped(rows, 0)
        while len(groups) > 1:
            level += 1
            groups = grouped(groups, level)
        return write(groups[0][1], level)

    def index(self, held, level):
        names, refs = [name for name, _ in held], [ref for _, ref in held]
        at = len(self.out)
        body = dict(NAME_END=ends(names), NAMES=b"".join(names), DIGEST=[ref[2] for ref in refs], LEVEL=[level])
        tail = dict(PAYLOAD_LENGTH=[ref[3] for ref in refs], DISTANCE=[at - ref[0] for ref in refs],
                    LENGTH=[ref[1] for ref in refs], ENTRIES=[ref[4] for ref in refs])
        return self.table("IDXB", len(held), body, tail, sum(ref[3] for ref in refs), sum(ref[4] for ref in refs))

    def directory(self, node, path):
        rows = sorted(node.children.items())
        for name, child in rows:
            child.path = path + b"/" + name if path else name
        return self.pieces(rows, lambda rows: self.piece(rows))

    def content(self, node):
        """Stores the payload; returns (size, digest, payload length)."""
        if node.status & r.NOT_READ:
            return len(node.data), r.ZERO_DIGEST, 0
        left, at = [], 0
        for start, length in node.holes:
            assert is_zero_range(node.data, start, length)
            left.append(node.data[at:start])
            at = start + length
        data = b"".join(left) + node.data[at:]
        for low in range(0, len(data), r.PAYLOAD_CHUNK_MAX):
            chunk = data[low:low + r.PAYLOAD_CHUNK_MAX]
            id_ = digest_of(chunk)
            self.chunks[id_] = chunk
            self.slices.append((id_, 0, len(chunk)))
        self.payload += len(data)
        full = FakeContent(node.data)
        return len(node.data), full.digest(), len(data)

    def piece(self, rows, refs=None):
        for name, node in rows:
            if node.group is not None:
                self.groups.setdefault(node.group, []).append(node.path)
        contents = [self.content(node) if node.kind == "file" else (0, r.ZERO_DIGEST, 0) for _, node in rows]
        below = {}
        for i, (name, node) in enumerate(rows):
            if node.kind == "directory":
                below[i] = refs[name] if refs else self.directory(node, getattr(node, "path", b""))
        sets = sorted({node.set for _, node in rows})
        external = [i for i, s in enumerate(sets) if sum(len(n) + len(v) for n, v in s[5]) > r.XATTR_INLINE_MAX]
        values, holes = {}, {}
        for i in external:
            names, data = [n for n, _ in sets[i][5]], [v for _, v in sets[i][5]]
            part = section("VALU", len(names), XATTR_NAME_END=ends(names), XATTR_NAMES=b"".join(names),
                           XATTR_VALUE_END=ends(data), XATTR_VALUES=b"".join(data))
            values[i] = (self.add(part), len(part), digest_of(part, r.CONTEXT_VALUES))
        for i, (_, node) in enumerate(rows):
            if node.holes:
                starts, lengths = [a for a, _ in node.holes], [n for _, n in node.holes]
                part = section("HOLE", len(lengths), START=starts, LENGTH=lengths)
                holes[i] = (self.add(part), len(part))
        at = len(self.out)
        names, nodes = [name for name, _ in rows], [node for _, node in rows]
        links = [i for i, node in enumerate(nodes) if node.kind == "symlink"]
        devices = [i for i, node in enumerate(nodes) if node.kind in r.DEVICES]
        targets = [nodes[i].target for i in links]
        inline = [() if i in external else s[5] for i, s in enumerate(sets)]
        xattrs = [x for s in inline for x in s]
        body = dict(
            NAME_END=ends(names), NAMES=b"".join(names), SET=[sets.index(node.set) for node in nodes],
            MTIME_SECONDS=[node.mtime[0] for node in nodes], MTIME_NANOSECONDS=[node.mtime[1] for node in nodes],
            SIZE=[size for size, _, _ in contents],
            DIGEST=[below[i][2] if i in below else contents[i][1] for i in range(len(rows))],
            TARGET_ROW=links, TARGET_END=ends(targets), TARGETS=b"".join(targets), DEVICE_ROW=devices,
            DEVICE_MAJOR=[nodes[i].device[0] for i in devices], DEVICE_MINOR=[nodes[i].device[1] for i in devices],
            SET_MODE=[s[0] for s in sets], SET_UID=[s[1] for s in sets], SET_GID=[s[2] for s in sets],
            SET_FLAGS=[s[3] for s in sets], SET_PROJECT=[s[4] for s in sets], SET_XATTR_END=ends(inline),
            XATTR_NAME_END=ends([n for n, _ in xattrs]), XATTR_NAMES=b"".join(n for n, _ in xattrs),
            XATTR_VALUE_END=ends([v for _, v in xattrs]), XATTR_VALUES=b"".join(v for _, v in xattrs),
            EXTERNAL_SET=external, EXTERNAL_DIGEST=[values[i][2] for i in external])
        payloads = [below[i][3] if i in below else contents[i][2] for i in range(len(rows))]
        tail = dict(
            PAYLOAD_LENGTH=payloads, DISTANCE=[at - below[i][0] for i in below], LENGTH=[below[i][1] for i in below],
            ENTRIES=[below[i][4] for i in below], HOLE_ROW=list(holes), HOLE_DISTANCE=[at - holes[i][0] for i in holes],
            HOLE_LENGTH=[holes[i][1] for i in holes], EXTERNAL_DISTANCE=[at - values[i][0] for i in values],
            EXTERNAL_LENGTH=[values[i][1] for i in values], STATUS=[node.status for node in nodes])
        return self.table("DIRB", len(rows), body, tail, sum(payloads), len(rows) + sum(below[i][4] for i in below))

    def links(self):
        rows = []
        for paths in self.groups.values():
            paths.sort()
            rows += [(path, (b"" if path == paths[0] else paths[0], len(paths))) for path in paths]

        def leaf(rows):
            paths, firsts = [path for path, _ in rows], [first for _, (first, _) in rows]
            body = dict(NAME_END=ends(paths), NAMES=b"".join(paths), FIRST_END=ends(firsts), FIRSTS=b"".join(firsts),
                        COUNT=[count for _, (_, count) in rows])
            return self.table("LNKB", len(rows), body, {}, 0, len(rows))

        return self.pieces(sorted(rows), leaf)


def is_zero_range(data, start, length):
    return data[start:start + length] == bytes(length)


class FakeContent(r.Content):
    """A content in memory, without holes."""

    def __init__(self, data):
        super().__init__(len(data), [], self, 0)
        self.data = data

    def pieces(self, at, length):
        yield self.data[at:at + length]


def segments(slices, chunks):
    """[A-10.3-1] to [A-10.3-5]: adds the segments to `chunks`, returns the root's id."""
    merged = []
    for id_, start, length in slices:
        if merged and merged[-1][0] == id_ and merged[-1][1] + merged[-1][2] == start:
            merged[-1] = (id_, merged[-1][1], merged[-1][2] + length, 0)
        else:
            merged.append((id_, start, length, 0))
    level = 0
    while True:
        made, held = [], []
        for i, one in enumerate(merged):
            held.append(one)
            full = len(held) >= r.SEGMENT_ROWS_MAX or (len(held) >= r.SEGMENT_ROWS_MIN and leading(one[0]) % 1024 == 0)
            if full or i == len(merged) - 1:
                made.append(held)
                held = []
        above = []
        for held in made or [[]]:
            ids = list(dict.fromkeys(one[0] for one in held))
            place = {id_: i for i, id_ in enumerate(ids)}
            data = section("SEGC", len(ids), CHUNK_ID=ids) + section(
                "SEGS", len(held), CHUNK=[place[one[0]] for one in held], START=[one[1] for one in held],
                LENGTH=[one[2] for one in held], SLICES=[one[3] for one in held], LEVEL=[level])
            id_ = digest_of(data, r.CONTEXT_SEGMENT)
            chunks[id_] = (r.SEGMENT, data)
            above.append((id_, 0, sum(one[2] for one in held), sum(one[3] for one in held) if level else len(held)))
        if len(above) == 1:
            return above[0][0]
        merged, level = above, level + 1


def pack(holds, chunks, codec=1):
    """`chunks`: {id: (kind, raw bytes)}."""
    out, lengths = bytearray(r.PACK_MAGIC + struct.pack("<HB5s", 1, holds, b"")), []
    for id_, (kind, data) in chunks.items():
        stored = zstandard.ZstdCompressor().compress(data) if codec else data
        body = struct.pack("<B3sI", codec, b"", len(data)) + stored
        out += struct.pack("<32sIBBH", id_, len(body), kind, 0, 0) + body
        lengths.append(len(body))
    kinds = [kind for kind, _ in chunks.values()]
    directory = section("PDIR", len(chunks), CHUNK_ID=list(chunks), KIND=kinds, STORED_LENGTH=lengths)
    out += directory
    length = len(out) + 64
    digest = digest_of(directory, r.CONTEXT_PACK_DIRECTORY)
    return bytes(out) + struct.pack("<32sQQH6s8s", digest, len(directory), length, 1, b"", r.PACK_END)


def metadata_chunks(stream):
    """Section 10.2."""
    begin = 0
    for end, length, digest in stream.extents + [(len(stream.out), 0, None)]:
        small = digest is not None and leading(digest) < (1 << 47) * length
        if small or end - begin >= 1 << 20 or end == len(stream.out):
            yield bytes(stream.out[begin:end])
            begin = end


def build(stream, single=False, change=None, codec=1):
    """The files of an archive: {suffix: bytes}."""
    payload, above, slices = {id_: (r.PAYLOAD, data) for id_, data in stream.chunks.items()}, {}, []
    for data in metadata_chunks(stream):
        id_ = digest_of(data, r.CONTEXT_METADATA_CHUNK)
        above[id_] = (r.METADATA, data)
        slices.append((id_, 0, len(data)))
    root, payload_root = segments(slices, above), segments(stream.slices, above)
    manifest = {
        "format": "diptych-archive", "version": 1, "tree_id": stream.tree_id.hex(), "complete": stream.flags == 0,
        "entries": stream.entries, "metadata": {"root": root.hex(), "length": len(stream.out)},
        "payload": {"root": payload_root.hex(), "length": stream.payload}, "tool": "test 1", "more": [None],
    }
    if change:
        change(manifest)
    data = json.dumps(manifest).encode()
    above[digest_of(data, r.CONTEXT_MANIFEST)] = (r.MANIFEST, data)
    if single:
        return {".dpt": pack(3, payload | above, codec)}
    return {".meta.dpt": pack(2, above, codec), ".data.dpt": pack(1, payload, codec)}


# --- Trees ------------------------------------------------------------------------------------------------


def directory(**named):
    return Node("directory", 0o755, children={name.encode(): node for name, node in named.items()})


def rich_tree():
    big = b"\1" * 100 + bytes(40 << 20) + b"\2" * 100
    long_xattrs = ((b"user.a", b"x" * 3000), (b"user.b", b""))
    hard = dict(data=b"twice", group=1, mtime=(5, 6))
    root = directory(
        empty=directory(),
        sub=directory(
            one=Node("file", **hard), socket=Node("socket"),
            deep=directory(two=Node("file", **hard), fifo=Node("fifo", 0o600))),
        plain=Node("file", data=b"hello", uid=1000, gid=70000, flags=0x10, project=7, mtime=(-5, 500000000)),
        nothing=Node("file"),
        sparse=Node("file", data=big, holes=[(100, 40 << 20)]),
        hole=Node("file", data=bytes(10000), holes=[(0, 10000)]),
        link=Node("symlink", 0o777, target=b"sub/one"),
        tty=Node("char-device", 0o620, device=(4, 0)),
        disk=Node("block-device", 0o660, device=(259, 300000)),
        acl=Node("file", data=b"a", xattrs=[(b"user.x", b"\0\1"), (b"user.y", b"")]),
        far=Node("file", data=b"b", xattrs=long_xattrs),
        farther=Node("file", data=b"b", uid=5, xattrs=long_xattrs),
    )
    root.children[b"bad\xff"] = Node("file", data=b"not utf-8")
    return root


def wide_tree(count):
    many = {b"%08d" % i: Node("file", data=b"%d" % (i % 7)) for i in range(count)}
    for i in range(0, count, 997):
        many[b"%08d" % i] = directory(inner=Node("file", data=b"%d" % i))
    for i in range(3, count, 5):
        many[b"%08d" % i] = Node("file", data=b"l", group=i // 10)
    groups = {}
    for node in many.values():
        if node.group is not None:
            groups[node.group] = groups.get(node.group, 0) + 1
    for node in many.values():
        if node.group is not None and groups[node.group] < 2:
            node.group = None
    return Node("directory", children={b"many": Node("directory", children=many), b"z": Node("file", data=b"z")})


class Bytes:
    """A source in memory."""

    def __init__(self, data):
        self.data, self.length = bytes(data), len(data)

    def read(self, offset, length):
        if not 0 <= offset <= offset + length <= self.length:
            raise Fault("truncated", "test", offset, "the bytes end")
        return self.data[offset:offset + length]


def check_stream(data):
    return r.Metadata(Bytes(data)).check_all()


# --- Tests ------------------------------------------------------------------------------------------------


class Case(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.base = os.path.join(held.name, "home")

    def write(self, files):
        for suffix, data in files.items():
            with open(self.base + suffix, "wb") as file:
                file.write(data)

    def run_it(self, *arguments):
        out, err = io.BytesIO(), io.StringIO()
        with mock.patch("sys.stdout", io.TextIOWrapper(out)) as stdout, contextlib.redirect_stderr(err):
            code = r.main(list(arguments))
            stdout.flush()
        return code, out.getvalue(), err.getvalue()

    def fails(self, word, what, *arguments):
        code, _, err = self.run_it(*arguments)
        self.assertEqual(code, 1, err)
        self.assertTrue(err.startswith(word + ": "), err)
        self.assertIn(what, err)

    def stream_fails(self, word, what, data):
        with self.assertRaises(Fault) as caught:
            check_stream(data)
        self.assertEqual(caught.exception.word, word, str(caught.exception))
        self.assertIn(what, str(caught.exception))


class Good(Case):
    def test_pair_and_single(self):
        stream = Stream(rich_tree(), owners=({0: b"root", 1000: b"me"}, {0: b"root"}))
        wanted = f"ok {stream.tree_id.hex()}\n".encode()
        for single, codec in itertools.product((False, True), (0, 1)):
            self.write(build(stream, single, codec=codec))
            names = [self.base + ".dpt"] if single else [self.base, self.base + ".meta.dpt", self.base + ".data.dpt"]
            for name in names:
                self.assertEqual(self.run_it("verify", name), (0, wanted, ""))
            for name in names[-2:]:
                self.assertEqual(self.run_it("list", name)[0], 0)
                if name != self.base:
                    self.assertEqual(self.run_it("pack", name)[0], 0)

    def test_list(self):
        self.write(build(Stream(rich_tree())))
        code, out, err = self.run_it("list", self.base, "--json")
        self.assertEqual((code, err), (0, ""))
        found = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([one["path"] for one in found], [
            "", "acl", "bad\ufffd", "disk", "far", "farther", "hole", "link", "nothing", "plain", "sparse",
            "tty", "empty",
            "sub", "sub/one", "sub/socket", "sub/deep", "sub/deep/fifo", "sub/deep/two"])
        by = {one["path"]: one for one in found}
        self.assertEqual(by["plain"], {
            "path": "plain", "kind": "file", "mode": "0644", "uid": 1000, "gid": 70000, "size": 5,
            "mtime": "-5.500000000", "digest": digest_of(b"hello").hex(), "flags": 16, "project": 7})
        self.assertEqual(by["bad\ufffd"]["path_hex"], b"bad\xff".hex())
        self.assertEqual(by["disk"]["major"], 259)
        self.assertEqual(by["disk"]["minor"], 300000)
        self.assertEqual(by["link"]["target"], "sub/one")
        self.assertEqual(by["hole"]["holes"], [[0, 10000]])
        self.assertEqual(by["acl"]["xattrs"], {"user.x": "0001", "user.y": ""})
        self.assertEqual(by["far"]["xattrs"], {"user.a": "78" * 3000, "user.b": ""})
        self.assertEqual(by["sub/one"]["link_first"], "sub/deep/two")
        self.assertNotIn("link_first", by["sub/deep/two"])

    def test_cat(self):
        self.write(build(Stream(rich_tree())))
        self.assertEqual(self.run_it("cat", self.base, "plain")[1], b"hello")
        self.assertEqual(self.run_it("cat", self.base, "sub/deep/two")[1], b"twice")
        self.assertEqual(self.run_it("cat", self.base, "sub/one")[1], b"twice")
        self.assertEqual(self.run_it("cat", self.base, "hole")[1], bytes(10000))
        sparse = self.run_it("cat", self.base, "sparse")[1]
        self.assertEqual(sparse, b"\1" * 100 + bytes(40 << 20) + b"\2" * 100)
        self.fails("missing", "is not there", "cat", self.base, "plain/x")
        self.fails("missing", "is not there", "cat", self.base, "nowhere")
        self.fails("missing", "no content", "cat", self.base, "sub")

    def test_pieces(self):
        with mock.patch.multiple(r, PIECE_ROWS_MIN=4, PIECE_ROWS_MAX=8):
            stream = Stream(wide_tree(3000))
            self.write(build(stream))
            code, out, err = self.run_it("verify", self.base)
            self.assertEqual((code, err), (0, ""))
            tags = {bytes(stream.out[end - length:end - length + 4]) for end, length, _ in stream.extents}
            self.assertEqual(tags, {b"DIRB", b"IDXB", b"LNKB"})
            for i in (0, 1, 997, 998, 2999):
                path = f"many/{i:08}" + ("/inner" if i % 997 == 0 else "")
                code, out, err = self.run_it("cat", self.base, path)
                self.assertEqual((code, err), (0, ""))
            self.assertEqual(self.run_it("cat", self.base, "many/00000997/inner")[1], b"997")
            self.assertEqual(self.run_it("cat", self.base, "z")[1], b"z")
        stream = Stream(wide_tree(9000))
        self.assertEqual(check_stream(stream.out), stream.tree_id)

    def test_wrong_pieces(self):
        def other(rows, size, name, level):
            return rows >= 600

        self.stream_fails("corrupt", "A-7.2-1", Stream(wide_tree(2000), cut=other).out)
        self.stream_fails("corrupt", "A-7.2-1", Stream(wide_tree(3000), cut=lambda *_: False).out)

    def test_segments(self):
        rng = random.Random(1)
        slices = [(rng.randbytes(32), 0, 5) for _ in range(9000)] * 2
        with mock.patch.multiple(r, SEGMENT_ROWS_MIN=2, SEGMENT_ROWS_MAX=16):
            held = {}
            root = segments(slices, held)

            class Store:
                def chunk(self, id_, kind):
                    return held[id_][1]

                def find(self, id_, kind):
                    pass

            source = r.MapSource("payload", Store(), root, 90000, r.PAYLOAD)
            source.check()
            self.assertEqual(list(source.boundaries()), list(range(5, 90001, 5)))
            with self.assertRaises(Fault):
                r.MapSource("payload", Store(), root, 90001, r.PAYLOAD)
        held = {}
        id_ = segments(slices[:3000], held)
        path = self.base + ".segment"
        for id_, (_, data) in held.items():
            with open(path, "wb") as file:
                file.write(data)
            code, out, _ = self.run_it("segment", path)
            self.assertEqual((code, out[:9]), (0, b"ok level "))

    def test_huge_holes_are_cheap(self):
        size = r.SIZE_MAX
        content = r.Content(size, [(0, size)], None, 0)
        self.assertEqual(len(content.digest()), 32)
        data = bytes(16777216 * 5 + 3)
        plain = FakeContent(data).digest()
        self.assertEqual(r.Content(len(data), [(0, len(data))], None, 0).digest(), plain)
        leaf = digest_of(bytes(16777216))
        two = digest_of(leaf * 2, r.CONTEXT_NODE)
        four, rest = digest_of(two * 2, r.CONTEXT_NODE), digest_of(leaf + digest_of(bytes(3)), r.CONTEXT_NODE)
        value = digest_of(four + rest, r.CONTEXT_NODE)
        self.assertEqual(plain, digest_of(struct.pack("<Q", len(data)) + value, r.CONTEXT_LONG))

    def test_status(self):
        tree = directory(a=Node("file", data=b"abc", status=4), b=Node("file", data=b"abc", status=1))
        stream = Stream(tree, flags=2)
        self.write(build(stream))
        self.assertEqual(self.run_it("verify", self.base)[1], f"ok {stream.tree_id.hex()} incomplete\n".encode())
        found = [json.loads(line) for line in self.run_it("list", self.base, "--json")[1].splitlines()]
        self.assertEqual((found[1]["status"], found[1]["size"], "digest" in found[1]), (["not-read"], 3, False))
        self.stream_fails("corrupt", "A-8.3-4", Stream(tree).out)

    def test_deep(self):
        node = Node("file", data=b"bottom")
        for _ in range(r.DEPTH_MAX - 1):
            node = directory(d=node)
        good = on_a_deep_stack(lambda: Stream(node))
        deeper = on_a_deep_stack(lambda: Stream(directory(d=directory(d=node))))
        self.assertEqual(check_stream(good.out), good.tree_id)
        self.stream_fails("limit", "A-4-4", deeper.out)


def on_a_deep_stack(build_it):
    """The encoder recurses by depth; the reader does not."""
    made, limit = [], sys.getrecursionlimit()
    size = threading.stack_size(512 << 20)
    try:
        sys.setrecursionlimit(100000)
        thread = threading.Thread(target=lambda: made.append(build_it()))
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(size)
    return made[0]


def spoiler(tag, change):
    """Changes the columns of the tables with a tag and more than one row, before they are written."""

    def spoil(found, rows, body, tail):
        if found == tag and rows > 1:
            change(body, tail)

    return spoil


class Bad(Case):
    def spoilt(self, word, what, change, tag="DIRB"):
        self.stream_fails(word, what, Stream(rich_tree(), spoil=spoiler(tag, change)).out)

    def test_tables(self):
        def at(column, i, value, where=0):
            def change(*sections):
                if column in sections[where] and len(sections[where][column]) > i:
                    sections[where][column][i] = value
            return change

        self.spoilt("corrupt", "A-5.1-1", at("SET_MODE", 0, 0o030000))
        self.spoilt("corrupt", "A-5.1-2", at("SET_MODE", 0, 0o1100000))
        self.spoilt("corrupt", "A-7.1-1", at("SET", 0, 99))
        self.spoilt("corrupt", "A-5.2-1", at("MTIME_NANOSECONDS", 0, 10**9))
        self.spoilt("corrupt", "A-5.3-1", at("SET_FLAGS", 0, 1 << 31))
        self.spoilt("corrupt", "above 4294967295", at("SET_UID", 0, 1 << 32))
        self.spoilt("corrupt", "A-7.1-11", at("PAYLOAD_LENGTH", 0, 77, 1))
        self.spoilt("corrupt", "A-5.4-2", at("STATUS", 0, 16, 1))
        self.spoilt("corrupt", "A-7-4", at("DISTANCE", 0, 8, 1))
        self.spoilt("corrupt", "A-7-4", at("DISTANCE", 0, 1 << 63, 1))
        self.spoilt("limit", "A-7-1", at("LENGTH", 0, 1 << 40, 1))
        self.spoilt("corrupt", "A-7-1", at("LENGTH", 0, 33, 1))
        self.spoilt("corrupt", "A-7.1-9", at("ENTRIES", 0, 33, 1))
        self.spoilt("corrupt", "A-7.1-5", at("TARGET_ROW", 0, 0))
        self.spoilt("corrupt", "A-7.1-5", at("DEVICE_ROW", 0, 0))
        self.spoilt("corrupt", "A-7.1-7", at("EXTERNAL_DIGEST", 0, b"x" * 32))
        for uids in ([2, 1], [1, 1]):
            tree = directory(a=Node("fifo", uid=1), b=Node("fifo", uid=2))
            spoil = spoiler("DIRB", lambda body, tail: body.update(SET_UID=uids))
            self.stream_fails("corrupt", "A-7.1-2", Stream(tree, spoil=spoil).out)

    def test_columns(self):
        self.spoilt("corrupt", "A-6-10", lambda body, tail: body.update(extra=[(0x8005, 1, 1, b"x")]))
        self.spoilt("unsupported", "A-6-9", lambda body, tail: body.update(extra=[(0x7000, 1, 1, b"x")]))
        self.spoilt("corrupt", "A-6-2", lambda body, tail: body.update(extra=[(0x01, 1, 1, b"x")]))
        self.spoilt("corrupt", "A-6-3", lambda body, tail: body.update(extra=[(0x7000, 1, 0, b"")]))
        self.spoilt("corrupt", "A-6-4", lambda body, tail: body["SET"].append(0))
        self.spoilt("corrupt", "A-6-8", lambda body, tail: body["NAME_END"].reverse())
        self.spoilt("corrupt", "A-4-3", lambda body, tail: body.update(NAMES=body["NAMES"][::-1]))
        wide = [struct.pack("<2H", 1, 2), bytes(2)]
        data = section("DIRT", 2, [(0x0A, 2, 2, wide[0])])
        with self.assertRaisesRegex(Fault, "A-6-6"):
            r.Section("t", 0, data, 0, "DIRT").int("STATUS", 2)
        data = section("DIRT", 2, [(0x0A, 1, 2, wide[1])])
        with self.assertRaisesRegex(Fault, "A-6-7"):
            r.Section("t", 0, data, 0, "DIRT").int("STATUS", 2)
        data = bytearray(section("DIRT", 2, STATUS=[1, 2]))
        data[-1] = 1
        with self.assertRaisesRegex(Fault, "A-1.2-2"):
            r.Section("t", 0, data, 0, "DIRT")
        ignored = section("DIRT", 2, [(0x9000, 3, 5, bytes(15))], STATUS=[1, 2])
        self.assertEqual(r.Section("t", 0, ignored, 0, "DIRT").int("STATUS", 2), (1, 2))

    def test_links(self):
        self.spoilt("corrupt", "A-7.3-1", lambda body, tail: body.update(COUNT=[3, 3]), "LNKB")
        self.spoilt("corrupt", "A-7.3-1", lambda body, tail: body.update(COUNT=[1, 1]), "LNKB")
        self.spoilt("corrupt", "A-7.3-1", lambda body, tail: body.update(FIRSTS=body["FIRSTS"][::-1]), "LNKB")
        self.spoilt("corrupt", "A-4-1", lambda body, tail: body.update(NAMES=b"/" + body["NAMES"][1:]), "LNKB")
        tree = directory(a=Node("file", data=b"1", group=1), b=Node("file", data=b"2", group=1))
        self.stream_fails("corrupt", "A-7.3-3", Stream(tree).out)

    def test_names_and_holes(self):
        for name, word in ((b"", "corrupt"), (b".", "corrupt"), (b"..", "corrupt"),
                           (b"a/b", "corrupt"), (b"a\0", "corrupt"), (b"x" * 1025, "limit")):
            self.stream_fails(word, "A-4-", Stream(Node("directory", children={name: Node("fifo")})).out)
        for holes in ([(0, 10), (10, 5)], [(5, 5), (0, 2)]):
            self.stream_fails("corrupt", "A-5.6-1", Stream(directory(f=Node("file", data=bytes(99), holes=holes))).out)
        self.stream_fails("corrupt", "A-5.5-1", Stream(directory(f=Node("symlink"))).out)

    def test_trailer_and_header(self):
        data = bytes(Stream(rich_tree()).out)

        def poke(at, value):
            at %= len(data)
            return data[:at] + value + data[at + len(value):]

        self.stream_fails("truncated", "A-8.3-1", data[:100])
        self.stream_fails("truncated", "A-8.3-1", data[:-8])
        self.stream_fails("truncated", "A-8.3-1", data[:32] + data[40:])
        self.stream_fails("corrupt", "A-8.1-1", poke(0, b"x"))
        self.stream_fails("unsupported", "A-8.1-2", poke(8, b"\2"))
        self.stream_fails("unsupported", "A-8.1-3", poke(12, b"\1"))
        self.assertTrue(check_stream(poke(16, b"\1")))
        self.stream_fails("corrupt", "A-1.2-2", poke(20, b"\1"))
        self.stream_fails("corrupt", "A-3.2-2", poke(-128 + 48, b"\1\2\3\4"))
        self.stream_fails("corrupt", "A-8.3-2", poke(-128 + 80, b"\xff"))
        self.stream_fails("unsupported", "A-8.3-5", poke(-128 + 106, b"\4"))

    def test_sharing_is_no_bomb(self):
        """A table that two rows refer to stands in the wrong place for one of them."""
        out = bytearray(Stream(directory()).out[:32])

        def table(below):
            names = [b"a", b"b"]
            body = section("DIRB", 2, NAME_END=[1, 2], NAMES=b"ab", DIGEST=[below[2]] * 2, SET_MODE=[0o40755])
            at = len(out)
            tail = section("DIRT", 2, DISTANCE=[at - below[0]] * 2, LENGTH=[below[1]] * 2, ENTRIES=[below[3]] * 2)
            body_and_tail = body + tail
            out.extend(body_and_tail)
            return at, len(body_and_tail), digest_of(body, r.CONTEXT_BODY), 2 + 2 * below[3]

        empty = section("DIRB", 0)
        below = (32, 32, digest_of(empty, r.CONTEXT_BODY), 0)
        out += empty + section("DIRT", 0)
        for _ in range(60):
            below = table(below)
        at = len(out)
        body = section("DIRB", 1, DIGEST=[below[2]], SET_MODE=[0o40755])
        root = body + section("DIRT", 1, DISTANCE=[at - below[0]], LENGTH=[below[1]], ENTRIES=[below[3]])
        link = section("LNKB", 0) + section("LNKT", 0)
        out += root + link
        bodies = [digest_of(one, r.CONTEXT_BODY) for one in (body, section("LNKB", 0))]
        tree = digest_of(b"".join(bodies), r.CONTEXT_TREE)
        out += struct.pack("<6Q32s3QHH12s8s", len(root + link), len(root), len(link), len(link), 0, 0, tree,
                           below[3] + 1, 0, len(out) + 128, 1, 0, b"", r.STREAM_END)
        self.stream_fails("corrupt", "8.2", out)

    def test_packs(self):
        stream = Stream(rich_tree())
        files = build(stream)
        self.write(files)
        os.remove(self.base + ".data.dpt")
        self.fails("missing", "A-12-5", "verify", self.base)
        self.assertEqual(self.run_it("list", self.base)[0], 0)
        data = files[".data.dpt"]
        for spoilt, word, what in (
                (data[:-1], "truncated", "A-11-8"), (data[:20], "truncated", "A-11-8"),
                (data[:16] + b"xx" + data[18:], "corrupt", "A-11-7"),
                (data[:16 + 37] + b"\1" + data[54:], "unsupported", "A-11-4"),
                (data[:16 + 40] + b"\7" + data[57:], "unsupported", "A-11-4"),
                (data[:16 + 44] + b"\xff\xff\xff\xff" + data[64:], "limit", "A-11-1"),
                (data[:-32 - 64] + b"\xee" + data[-32 - 63:], "corrupt", "A-11-9"),
                (data[:10] + b"\2" + data[11:], "corrupt", "holds 2")):
            self.write({".data.dpt": spoilt})
            self.fails(word, what, "verify", self.base)
            self.fails(word, what, "pack", self.base + ".data.dpt")
        twice = {digest_of(b"x"): (1, b"y")}
        self.write({".p": pack(1, twice)})
        self.fails("corrupt", "A-11-5", "pack", self.base + ".p")
        self.write({".p": pack(1, {digest_of(b""): (1, b"")})})
        self.assertEqual(self.run_it("pack", self.base + ".p")[0], 0)

    def test_manifests(self):
        stream = Stream(rich_tree())

        def key(name, value):
            return lambda manifest: manifest.update({name: value})

        for change, word, what in (
                (key("version", 2), "unsupported", "A-12-2"), (key("version", True), "corrupt", "A-12-2"),
                (key("format", "x"), "corrupt", "A-12-2"), (key("entries", 3), "corrupt", "A-12-4"),
                (key("complete", False), "corrupt", "A-12-4"), (key("tree_id", "00" * 32), "corrupt", "A-12-4"),
                (key("metadata", {"root": "00" * 32, "length": 5}), "missing", "A-12-5"),
                (key("payload", 7), "corrupt", "A-12-2"), (key("tree_id", "é" * 64), "corrupt", "A-12-2"),
                (lambda m: m["payload"].update(length=5), "corrupt", "A-10.3-6"),
                (lambda m: m.pop("tool"), "corrupt", "A-12-2")):
            self.write(build(stream, change=change))
            self.fails(word, what, "verify", self.base)
        part = r.Part("t", 0)
        for data in (b"", b"[" * 900000, b"\xff", b"1" * 9999, b'{"a":1,"a":2}', b'{"a":NaN}',
                     b"\xef\xbb\xbf{}", b'"\\ud800"'):
            with self.assertRaises(Fault):
                r.parse_manifest(part, data)

    def test_payload_damage_behind_good_chunks(self):
        tree = directory(a=Node("file", data=b"aaaa"), b=Node("file", data=b"bbbb"))
        stream = Stream(tree)
        stream.slices.reverse()
        self.write(build(stream))
        self.fails("corrupt", "A-14-3", "verify", self.base)
        self.fails("corrupt", "A-14-3", "cat", self.base, "a")

    def test_io(self):
        self.fails("io", "No such file", "verify", self.base)
        self.fails("io", "No such file", "segment", self.base)


class Hostile(Case):
    """Whatever the bytes, nothing but Fault comes out."""

    def poke(self, rng, data):
        data = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            at, how = rng.randrange(len(data)), rng.randrange(5)
            if how == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif how == 1:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif how == 2:
                n = rng.choice((2, 4, 8))
                data[at & -n:(at & -n) + n] = rng.choice((b"\xff", b"\0", b"\x80")) * n
            elif how == 3:
                data[at & -8:(at & -8) + 8] = rng.randbytes(8)
            else:
                a, b = rng.randrange(len(data)) & -8, rng.randrange(len(data)) & -8
                data[a:a + 8] = data[b:b + 8]
        return data

    def small(self):
        tree = rich_tree()
        tree.children[b"sparse"] = Node("file", data=bytes(5000) + b"x", holes=[(0, 100), (200, 4000)])
        return Stream(tree, owners=({0: b"root"}, {5: b"five"}))

    def test_stream(self):
        rng, data, seen = random.Random(2), bytes(self.small().out), {}
        for blind in (False, True):
            # Blind to digests, so that what is behind them is reached as well.
            with mock.patch.object(r, "digest_of", (lambda *_: Same()) if blind else r.digest_of):
                for _ in range(3000 if blind else 500):
                    try:
                        check_stream(self.poke(rng, data))
                    except Fault as fault:
                        seen[fault.word] = seen.get(fault.word, 0) + 1
        self.assertGreaterEqual(set(seen), {"corrupt", "truncated", "limit", "unsupported"})

    def test_files(self):
        rng, stream = random.Random(3), self.small()
        files = build(stream, single=True)[".dpt"]
        for _ in range(300):
            self.write({".dpt": self.poke(rng, files)})
            code, _, err = self.run_it("verify", self.base + ".dpt")
            self.assertIn(code, (0, 1), err)

    def test_segments(self):
        rng, held = random.Random(4), {}
        ids = [rng.randbytes(32) for _ in range(20)]
        segments([(rng.choice(ids), rng.randrange(9), rng.randrange(1, 500)) for _ in range(100)], held)
        for data in [data for _, data in held.values()]:
            for _ in range(1000):
                with contextlib.suppress(Fault):
                    r.Segment(bytes(self.poke(rng, data)))

    def test_prefixes(self):
        data = bytes(self.small().out)
        for n in range(0, len(data), 7):
            with self.assertRaises(Fault):
                check_stream(data[:n])


class Same(bytes):
    """A digest that equals every other."""

    def __new__(cls):
        return bytes.__new__(cls, 32)

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = bytes.__hash__


if __name__ == "__main__":
    unittest.main()
