"""Runs the independent reader over vectors or archives: one process for all of them.

    vectors.py READER_FOLDER < LIST

Each line of LIST is INPUT, a tab, a path. For each, one line of JSON comes out: what the reader says of it, and what
it handed out before. What stands before the first empty line of a .vec file is not part of the bytes.
"""

import json
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import diptych_reader as reader  # noqa: E402

STREAMS = {"metadata": "metadata stream", "payload": "payload stream", "pack": "pack", "archive file": "pack"}


class Bytes:
    """Stands in for the reader's files: a vector's bytes are only a part of one."""

    def __init__(self, path, stream):
        with open(path, "rb") as file:
            data = file.read()
        self.data = data.split(b"\n\n", 1)[1] if path.endswith(".vec") else data
        self.stream, self.length = stream, len(self.data)

    def read(self, offset, length):
        if offset < 0 or length > self.length - offset:
            raise reader.Fault("truncated", self.stream, max(offset, 0), "the bytes end")
        return self.data[offset:offset + length]


reader.FileSource = Bytes


def walked(tree, found):
    """What a walk hands out, as the lines that vectors digest."""
    lines = []
    found["lines"] = lines
    for entry in tree.walk():
        line = entry.path + f"\0{entry.kind}\0{entry.size}\0{entry.digest.hex()}\n".encode()
        lines.append(line.hex())


def stream(path, found):
    tree = reader.Metadata(Bytes(path, "metadata"))
    tree_walk(tree, found)
    found["tree"] = tree.check_all().hex()


def verified(path, found):
    """The stream as it is verified, without what a walk hands out: for large ones."""
    found["tree"] = reader.Metadata(Bytes(path, "metadata")).check_all().hex()


def tree_walk(tree, found):
    try:
        walked(tree, found)
        found["walk"] = "ok"
    except reader.Fault as fault:
        found["walk"] = told(fault)


def archive(path, found):
    opened = reader.Archive(path)
    tree_walk(opened.tree, found)
    found["tree"] = opened.verify().hex()


def listed(path, found):
    """The objects that `list --json` prints."""
    opened = reader.Archive(path)
    firsts = {path: first for path, (first, _) in opened.tree.link_rows().items() if first}
    found["list"] = [reader.describe(entry, firsts) for entry in opened.tree.walk()]
    opened.verify()


def segment(path, found):
    source = Bytes(path, "segment")
    reader.Segment(source.read(0, source.length))


def manifest(path, found):
    source = Bytes(path, "manifest")
    part = reader.Part("manifest", 0)
    part.must(source.length <= reader.MANIFEST_MAX, "a manifest is too long", "limit")
    reader.parse_manifest(part, source.read(0, source.length))


def told(fault):
    name = fault.stream
    if name.startswith("segment"):
        name = "map segment"
    return {"class": fault.word, "stream": STREAMS.get(name, name), "at": fault.offset, "what": fault.what}


RUNS = {
    "metadata-stream": stream,
    "verified-stream": verified,
    "pack": lambda path, found: reader.Pack(path, "pack").check(),
    "segment": segment,
    "manifest": manifest,
    "archive": archive,
    "list": listed,
}

for line in sys.stdin:
    kind, path = line.rstrip("\n").split("\t")
    found = {}
    try:
        RUNS[kind](path, found)
        found["verify"] = "ok"
    except reader.Fault as fault:
        found["verify"] = told(fault)
    except Exception as error:  # a bug of the reader: nothing but Fault may come from what it reads
        found["verify"] = {"class": "bug", "stream": "", "at": 0, "what": repr(error)}
    print(json.dumps(found))
