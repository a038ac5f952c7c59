import gzip
import io
import re
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from reprobuild.archive import extract_tar, open_archive, write_tar
from reprobuild.errors import BadInput

NAMES = st.text("abcdé-_.", min_size=1, max_size=12).filter(lambda name: name.strip("."))
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=2000), max_size=8
).filter(lambda tree: not any(a != b and b.startswith(a + "/") for a in tree for b in tree))


def tar_of(tree):
    buffer = io.BytesIO()
    write_tar(buffer, [(name, 0o644, data) for name, data in tree.items()], mtime=1)
    return buffer.getvalue()


def zip_of(tree):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in tree.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def zip64_of(tree):
    """As if each member and the whole were beyond what a zip without Zip64 can hold."""
    buffer = io.BytesIO()
    with (
        mock.patch.multiple(zipfile, ZIP64_LIMIT=2, ZIP_FILECOUNT_LIMIT=1),
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in tree.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(data)
    return buffer.getvalue()


class Pipe(io.BytesIO):
    """A stream that can't go back, behind whose members their sizes follow."""

    def seek(self, *where):
        raise OSError


def streamed_zip_of(tree):
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for name, data in tree.items():
            archive.writestr(name, data)
        archive.comment = b"a comment"
    return pipe.getvalue()


def read_all(data):
    """Every file's content; where it is in place, that too, which is no more and no less."""
    found = {}
    with open_archive(io.BytesIO(data)) as archive:
        for entry in archive.entries:
            if entry.kind == "file":
                found[entry.name] = archive.open(entry).read()
                place = archive.in_place(entry)
                assert place is None or place.read() == found[entry.name]
    return found


TREE = {"a": b"hello" * 40, "b/c": b"world", "b/" + "d" * 120: b""}
SEEDS = [
    zip_of(TREE),
    zip64_of(TREE),
    streamed_zip_of(TREE),
    tar_of(TREE),
    gzip.compress(tar_of(TREE), mtime=0),
    gzip.compress(b"text", mtime=0),
]
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.one_of(st.binary(max_size=8), st.just(b"\xff" * 4))),
    min_size=1,
    max_size=4,
)


@settings(max_examples=800, deadline=None)
@given(st.sampled_from(SEEDS), EDITS)
def test_hostile_bytes_are_read_or_refused(seed, edits):
    data = bytearray(seed)
    for where, cut, new in edits:
        at = int(where * len(data))
        data[at : at + cut] = new
    with suppress(BadInput):
        read_all(bytes(data))


@given(TREES, st.sampled_from([zip_of, zip64_of, streamed_zip_of]), st.binary(max_size=9))
def test_a_zip_reads_back(tree, write, before):
    assert read_all(b"PK\3\4" + before + write(tree)) == tree


#: Where the numbers of a zip's records lie: (signature, bytes from its start, how many bytes).
NUMBERS = st.sampled_from(
    [
        *(
            (b"PK\1\2", *field)
            for field in ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (38, 4), (42, 4))
        ),
        *((b"PK\3\4", *field) for field in ((6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
        *((b"PK\5\6", *field) for field in ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
        *((b"PK\6\6", *field) for field in ((4, 8), (24, 8), (32, 8), (40, 8), (48, 8))),
        *((b"PK\6\7", *field) for field in ((4, 4), (8, 8), (16, 4))),
    ]
)
VALUES = st.one_of(st.integers(0, 99), st.integers(0, 2**64 - 1), st.sampled_from([2**16 - 1, 2**32 - 1, 2**63]))


@settings(max_examples=800, deadline=None)
@given(st.sampled_from(SEEDS[:3]), st.lists(st.tuples(NUMBERS, st.integers(0, 3), VALUES), min_size=1, max_size=3))
def test_a_zip_whose_numbers_lie_holds_what_it_did_or_is_refused(seed, edits):
    data = bytearray(seed)
    for (signature, offset, width), which, value in edits:
        starts = [match.start() for match in re.finditer(re.escape(signature), seed)]
        if starts:
            at = starts[which % len(starts)] + offset
            data[at : at + width] = (value % 256**width).to_bytes(width, "little")
    with suppress(BadInput):
        read = read_all(bytes(data))
        assert read.items() <= TREE.items()


@settings(deadline=None)
@given(TREES, st.sampled_from(["sorted", "reversed"]))
def test_a_tar_unpacks_to_what_was_written(tree, order):
    with tempfile.TemporaryDirectory() as folder:
        extract_tar(io.BytesIO(tar_of(tree)), Path(folder), order=order)
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
        }
    assert found == tree
