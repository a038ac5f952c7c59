import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from reprobuild.compare import Level, compare
from reprobuild.errors import BadInput

NAMES = st.sampled_from(["a.py", "b/c.txt", "b/d.so", "x-1.dist-info/WHEEL", "x-1.dist-info/RECORD", "data.gz"])
CONTENT = st.one_of(st.binary(max_size=200), st.text("ab1/\n ,{}'", max_size=60).map(str.encode))
TREES = st.dictionaries(NAMES, CONTENT, min_size=1, max_size=6)


def zip_of(tree, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in tree.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def verdict(left, right):
    with tempfile.TemporaryDirectory() as folder:
        paths = (Path(folder, "left.whl"), Path(folder, "right.whl"))
        for path, data in zip(paths, (left, right), strict=True):
            path.write_bytes(data)
        return compare(*paths)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_a_file_is_identical_to_itself(data):
    assert verdict(data, data).level is Level.IDENTICAL


@settings(deadline=None)
@given(TREES, TREES)
def test_the_level_is_symmetric_and_true(left, right):
    one, two = verdict(zip_of(left), zip_of(right)), verdict(zip_of(right), zip_of(left))
    assert one.level is two.level
    assert (one.level is Level.IDENTICAL) == (list(left.items()) == list(right.items()))
    assert (one.level.rank <= Level.CONTAINER.rank) == (left == right)
    assert bool(one.differences) == (one.level is not Level.IDENTICAL)
    assert len(one.differences) == len(two.differences)


@settings(deadline=None)
@given(TREES, st.randoms())
def test_the_order_of_entries_is_framing(tree, random):
    names = list(tree)
    random.shuffle(names)
    shuffled = {name: tree[name] for name in names}
    found = verdict(zip_of(tree), zip_of(shuffled))
    same = names == list(tree)
    assert found.level is (Level.IDENTICAL if same else Level.CONTAINER)
    assert found.causes == (() if same else ("file-order",))


SMALL: dict[str, Any] = {"_MEMORY": 40, "_LARGE": 40, "_HELD_LIMIT": 90, "_SLOW": 40}


@settings(max_examples=200, deadline=None)
@given(TREES, TREES, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_large_members_are_compared_as_small_ones_are(left, right, method):
    """At the same places: only what is said of members that are too large to be held is shorter."""
    pair = zip_of(left, method), zip_of(right, method)
    usual = verdict(*pair)
    with mock.patch.multiple("reprobuild.contents", **SMALL):
        found = verdict(*pair)
    assert found.level is usual.level
    assert {each.path[:1] for each in found.differences} == {each.path[:1] for each in usual.differences}
    if method == zipfile.ZIP_STORED:
        assert found == usual


@settings(max_examples=300, deadline=None)
@given(TREES, st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_flipped_byte_is_never_identical(tree, where, flip):
    data = bytearray(zip_of(tree))
    data[int(where * len(data))] ^= flip
    try:
        found = verdict(zip_of(tree), bytes(data))
    except BadInput:
        return
    assert found.level is not Level.IDENTICAL
    assert found.differences
