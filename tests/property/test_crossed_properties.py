"""However two engines cut the same files into layers, they are identical; and no change of one file stays unseen."""

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_crossed import BASE, Making, Member, folder, layer

from reprobuild.image.crossed import compare_roots

_NAMES = st.sampled_from(["a", "b", "c", "d"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_FILES = st.dictionaries(
    _PATHS,
    st.tuples(st.binary(max_size=3), st.sampled_from([0o644, 0o755]), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=6,
)


def members_of(files):
    """Files, those under another file left out, and every folder above them."""
    kept = {path: said for path, said in files.items() if not any(path.startswith(f"{other}/") for other in files)}
    folders = {path[:at] for path in kept for at, letter in enumerate(path) if letter == "/"}
    return [
        *(folder(path) for path in sorted(folders)),
        *(Member(path, content=said[0], mode=said[1], uid=said[2], mtime=said[3]) for path, said in kept.items()),
    ]


def compared(left, right):
    with tempfile.TemporaryDirectory() as scratch:
        making = Making(Path(scratch))
        return compare_roots(making.image(*left), making.image(*right))


@given(_FILES, st.data())
def test_the_cut_does_not_matter(files, data):
    members = members_of(files)
    folders = [each for each in members if each.name not in files]
    numbers = data.draw(st.lists(st.integers(0, 2), min_size=len(members), max_size=len(members)))
    there = [*zip(members, numbers, strict=True)]
    # Each folder is in every layer that has something, as engines write them; the order within a layer is free.
    cut = [
        layer(
            *folders, *(each for each, at in zip(members, numbers, strict=True) if at == number and each.name in files)
        )
        for number in sorted(set(numbers))
    ]
    below = data.draw(st.sampled_from([(), (BASE,)]))
    verdict = compared((*below, layer(*members)), (*below, *cut))
    assert (verdict.level, verdict.differences, verdict.left) == ("identical", (), verdict.right)


@given(_FILES, st.data())
def test_a_changed_file_is_named(files, data):
    members = members_of(files)
    number = data.draw(st.integers(0, len(members) - 1))
    one = members[number]
    change = data.draw(st.sampled_from(["mode", "uid", "gid", "mtime", "content", "gone"]))
    if change == "content" and one.name not in files:
        change = "mode"
    changed = {"mode": one.mode ^ 0o7000, "uid": one.uid + 1, "gid": one.gid + 1, "mtime": one.mtime + 1}
    changed["content"] = one.content + b"!"
    others = [each for at, each in enumerate(members) if at != number]
    # A folder that is gone is still there if something is in it, and nobody names it.
    right = others if change == "gone" else [*others, replace(one, **{change: changed[change]})]
    below = data.draw(st.sampled_from([(), (BASE,)]))
    if not below and not right:
        return
    verdict = compared((*below, layer(*members)), (*below, layer(*sorted(right, key=lambda each: each.name))))
    assert verdict.level != "identical"
    assert verdict.left != verdict.right
    assert {each.path[0] for each in verdict.differences} == {f"/{one.name}"}
