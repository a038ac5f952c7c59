import gzip
import io
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

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


def read_all(data):
    with open_archive(io.BytesIO(data)) as archive:
        return {entry.name: archive.open(entry).read() for entry in archive.entries if entry.kind == "file"}


TREE = {"a": b"hello" * 40, "b/c": b"world", "b/" + "d" * 120: b""}
SEEDS = [zip_of(TREE), tar_of(TREE), gzip.compress(tar_of(TREE), mtime=0), gzip.compress(b"text", mtime=0)]
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.one_of(st.binary(max_size=8), st.just(b"\xff" * 4))),
    min_size=1,
    max_size=4,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SEEDS), EDITS)
def test_hostile_bytes_are_read_or_refused(seed, edits):
    data = bytearray(seed)
    for where, cut, new in edits:
        at = int(where * len(data))
        data[at : at + cut] = new
    with suppress(BadInput):
        read_all(bytes(data))


@given(TREES)
def test_a_zip_reads_back(tree):
    assert read_all(zip_of(tree)) == tree


@settings(deadline=None)
@given(TREES, st.sampled_from(["sorted", "reversed"]))
def test_a_tar_unpacks_to_what_was_written(tree, order):
    with tempfile.TemporaryDirectory() as folder:
        extract_tar(io.BytesIO(tar_of(tree)), Path(folder), order=order)
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
        }
    assert found == tree
