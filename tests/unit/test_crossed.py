"""Two images of two engines: nothing that a container sees may differ unnoticed, and nothing else counts."""

import base64
import gzip
import io
import json
import tarfile
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch
from reprobuild.image.crossed import compare_roots
from reprobuild.image.store import InLayout, Readable, images_of
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest

TIME = 1_700_000_000


@dataclass(frozen=True)
class Member:
    """What stands in a tar."""

    name: str
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = TIME
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] = field(default_factory=dict)


def folder(name, **more):
    return Member(name, tarfile.DIRTYPE, mode=more.pop("mode", 0o755), **more)


def layer(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for each in members:
            info = tarfile.TarInfo(each.name)
            info.type, info.linkname, info.mode, info.mtime = each.kind, each.target, each.mode, each.mtime
            info.uid, info.gid, info.size, info.pax_headers = each.uid, each.gid, len(each.content), dict(each.pax)
            info.devmajor, info.devminor = each.device
            tar.addfile(info, io.BytesIO(each.content))
    return out.getvalue()


class Making:
    def __init__(self, where):
        self.where, self.count = where, 0

    def image(self, *layers, settings=None, without=(), **document) -> Readable:
        """An image of some layers, in a layout that lacks those with the numbers in ``without``."""
        self.count += 1
        store = Layout(self.where / str(self.count), create=True)
        described, diff_ids = [], []
        for number, data in enumerate(layers):
            packed = gzip.compress(data, mtime=0)
            descriptor = Descriptor.of(f"{OCI_LAYER}+gzip", packed)
            described.append(descriptor)
            diff_ids.append(str(Digest.of_bytes(data)))
            if number not in without:
                store.put(descriptor.digest, [packed])
        config = {"os": "linux", "architecture": "amd64", "config": settings or {}, **document}
        config = {"rootfs": {"type": "layers", "diff_ids": diff_ids}, **config}
        manifest = Manifest.make(store.put_document(OCI_CONFIG, json.dumps(config).encode()), described)
        store.put_document(manifest.descriptor.media_type, manifest.raw)
        (found,) = images_of(InLayout(store), manifest.descriptor, f"image {self.count}")
        return found


@pytest.fixture
def making(tmp_path):
    return Making(tmp_path)


def told(verdict):
    """Each difference: its place and its field."""
    return [("/".join(each.path), each.field) for each in verdict.differences]


BASE = layer(folder("usr", mtime=5), Member("usr/old", content=b"old"), folder("gone"), Member("gone/x"))
TREE = (
    folder("opt"),
    folder("opt/app", uid=7, gid=8),
    Member("opt/app/main.py", content=b"print(1)\n", mode=0o755),
    Member("opt/app/link", tarfile.SYMTYPE, target="main.py", mode=0o777),
    Member("opt/app/hard", tarfile.LNKTYPE, target="opt/app/main.py"),
    Member("opt/null", tarfile.CHRTYPE, device=(1, 3)),
    Member("opt/capable", content=b"c", pax={"SCHILY.xattr.security.capability": "\x01\x02"}),
)


def test_the_same_files_in_other_layers_are_identical(making):
    one = making.image(BASE, layer(*TREE), history=[{"created_by": "a"}], created="2020-01-01T00:00:00Z")
    two = making.image(BASE, layer(*TREE[:2]), layer(*TREE[2:]), history=[{"created_by": "b"}])
    assert one.manifest.raw != two.manifest.raw
    verdict = compare_roots(one, two)
    assert (verdict.level, verdict.differences, verdict.left) == ("identical", (), verdict.right)
    assert verdict.left_size == verdict.right_size == len(b"print(1)\n") * 2 + 1


CHANGES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "mode": ("opt/app/main.py", "mode", {"mode": 0o700}, "payload"),
    "mode of a folder": ("opt/app", "mode", {"mode": 0o750}, "payload"),
    "user": ("opt/app", "owner", {"uid": 9}, "payload"),
    "group": ("opt/app/main.py", "owner", {"gid": 9}, "payload"),
    "time": ("opt/app/link", "time", {"mtime": TIME + 1}, "container"),
    "time of a folder": ("opt", "time", {"mtime": TIME + 1}, "container"),
    "part of a second": ("opt/null", "time", {"mtime": TIME + 0.5}, "container"),
    "target": ("opt/app/link", "target", {"target": "/main.py"}, "payload"),
    "device": ("opt/null", "device", {"device": (1, 5)}, "payload"),
    "kind of device": ("opt/null", "kind", {"kind": tarfile.BLKTYPE}, "payload"),
    "kind": ("opt/app/link", "kind", {"kind": tarfile.REGTYPE, "target": ""}, "payload"),
    "attribute": (
        "opt/capable",
        "attribute security.capability",
        {"pax": {"SCHILY.xattr.security.capability": "\x01\x03"}},
        "payload",
    ),
    "no attribute": ("opt/capable", "attribute security.capability", {"pax": {}}, "payload"),
    "another attribute": ("opt", "attribute user.x", {"pax": {"SCHILY.xattr.user.x": ""}}, "payload"),
    "access list": ("opt", "record SCHILY.acl.access", {"pax": {"SCHILY.acl.access": "user::rwx"}}, "payload"),
    "content": ("opt/app/main.py/line 1", "", {"content": b"print(2)\n"}, "payload"),
    "more content": ("opt/capable", "", {"content": b"cc"}, "payload"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("base", [(), (BASE,)])
def test_each_field_that_differs_is_named(making, name, base):
    path, what, change, level = CHANGES[name]
    parts = path.removesuffix("/line 1")
    changed = [replace(each, **change) if each.name == parts else each for each in TREE]
    assert changed != [*TREE]
    verdict = compare_roots(making.image(*base, layer(*TREE)), making.image(*base, layer(*changed)))
    assert str(verdict.level) == level
    assert verdict.left != verdict.right
    places = {(each.path[0], each.field) for each in verdict.differences}
    linked = {"/opt/app/main.py", "/opt/app/hard"} if parts == "opt/app/main.py" else {f"/{parts}"}
    assert {place for place, _ in places} == linked
    assert what in {field for _, field in places} or not what


@pytest.mark.parametrize("number", range(len(TREE)))
def test_a_file_that_only_one_has_is_named(making, number):
    left = [each for each in TREE if each is not TREE[number] and each.name != "opt/app/hard"]
    right = [each for each in TREE if each.name != "opt/app/hard"]
    if number == 4:
        left, right = [*TREE[:4]], [*TREE[:5]]
    missing = TREE[number].name
    for base in ((), (BASE,)):
        one, two = making.image(*base, layer(*left)), making.image(*base, layer(*right))
        for a, b in ((one, two), (two, one)):
            verdict = compare_roots(a, b)
            assert (f"/{missing}", "missing") in told(verdict)
            assert verdict.level == "payload"


def test_two_names_of_one_file_are_not_two_files(making):
    copied = [*TREE[:4], replace(TREE[2], name="opt/app/hard"), *TREE[5:]]
    verdict = compare_roots(making.image(layer(*TREE)), making.image(layer(*copied)))
    assert told(verdict) == [("/opt/app/hard", "hard link"), ("/opt/app/main.py", "hard link")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Env", ["A=b"]),
        ("Cmd", ["x"]),
        ("Entrypoint", ["x"]),
        ("User", "7"),
        ("WorkingDir", "/w"),
        ("Labels", {"a": "b"}),
        ("ExposedPorts", {"80/tcp": {}}),
        ("Volumes", {"/v": {}}),
        ("StopSignal", "SIGINT"),
        ("Shell", ["/bin/bash"]),
        ("Healthcheck", {"Test": ["NONE"]}),
        ("Unheard", 1),
    ],
)
def test_each_setting_counts(making, key, value):
    one, two = making.image(layer(*TREE), settings={key: value}), making.image(layer(*TREE), settings={})
    verdict = compare_roots(one, two)
    assert verdict.level == "metadata"
    assert all(each.path == ("config",) and each.field.startswith(key) for each in verdict.differences)
    assert len(verdict.differences) == 1
    assert verdict.left != verdict.right
    assert compare_roots(one, making.image(layer(*TREE), settings={key: value, "Null": None})).level == "identical"


def test_the_platform_and_the_author_count(making):
    one = making.image(layer(*TREE))
    for document in (
        {"architecture": "arm64"}, {"variant": "v8"}, {"author": "me"}, {"os.version": "1"}, {"os.features": ["x"]},
    ):  # fmt: skip
        assert compare_roots(one, making.image(layer(*TREE), **document)).level == "metadata"


# --- what lies below -----------------------------------------------------------------------------------


def test_a_base_that_is_not_here_is_not_needed_where_both_say_the_same(making):
    one = making.image(BASE, layer(*TREE), without=(0,))
    two = making.image(BASE, layer(*TREE[:3]), layer(*TREE[3:]), without=(0,))
    assert compare_roots(one, two).level == "identical"


@pytest.mark.parametrize(
    ("more", "level"),
    [
        (folder("usr", mtime=5), "identical"),  # as BuildKit names the folders above what it puts somewhere
        (folder("usr", mtime=6), "container"),
        (folder("usr", mtime=5, mode=0o700), "payload"),
        (Member("usr/old", content=b"old"), "identical"),
        (Member("usr/old", content=b"new"), "payload"),
        (Member(".wh.gone"), "payload"),
        (Member("gone/.wh.x"), "payload"),
        (Member("gone/.wh..wh..opq"), "payload"),
        (Member(".wh.never-there"), "identical"),
    ],
)
def test_what_only_one_names_is_compared_with_the_base(making, more, level):
    whole = making.image(BASE, layer(*TREE, more))
    for without in ((), (0,)):
        other = making.image(BASE, layer(*TREE), without=without)  # the base is in one of the two
        for a, b in ((whole, other), (other, whole)):
            assert str(compare_roots(a, b).level) == level, told(compare_roots(a, b))


@pytest.mark.parametrize(
    ("more", "place"),
    [
        (folder("usr", mtime=5), ("/usr", "missing")),
        (Member(".wh.gone"), ("/gone", "what lies below")),
        (Member("gone/.wh..wh..opq"), ("/gone", "what lies below")),
    ],
)
def test_without_the_base_what_only_one_names_is_a_difference(making, more, place):
    one = making.image(BASE, layer(*TREE, more), without=(0,))
    two = making.image(BASE, layer(*TREE), without=(0,))
    for a, b in ((one, two), (two, one)):
        verdict = compare_roots(a, b)
        assert verdict.level == "payload"
        assert told(verdict) == [place]


@pytest.mark.parametrize("without", [(), (0,)])
def test_the_same_removals_in_other_layers_are_identical(making, without):
    one = making.image(BASE, layer(Member(".wh.gone")), layer(folder("gone")), without=without)
    two = making.image(BASE, layer(Member("gone/.wh..wh..opq"), folder("gone")), without=without)
    verdict = compare_roots(one, two)
    assert (told(verdict), verdict.level) == ([], "identical")


@pytest.mark.parametrize("without", [(), (0,)])
def test_a_folder_that_takes_the_place_of_a_file_hides_what_was_below(making, without):
    one = making.image(BASE, layer(Member("gone")), layer(folder("gone")), without=without)
    two = making.image(BASE, layer(folder("gone")), without=without)
    assert told(compare_roots(one, two)) == [("/gone", "what lies below") if without else ("/gone/x", "missing")]


@pytest.mark.parametrize("without", [(), (0,)])
def test_a_folder_that_was_removed_and_is_implied_later_hides_what_was_below(making, without):
    one = making.image(BASE, layer(Member(".wh.gone")), layer(Member("gone/new")), without=without)
    two = making.image(BASE, layer(Member("gone/new")), without=without)
    known = [("/gone", "missing"), ("/gone/x", "missing")]
    assert told(compare_roots(one, two)) == ([("/gone", "what lies below")] if without else known)


def test_a_folder_that_is_named_too_late_may_lie_elsewhere(making):
    """If the base has a link there, a file goes to where it leads, and then a folder takes the link's place."""
    base = layer(folder("real"), Member("way", tarfile.SYMTYPE, target="real"))
    late, early = (layer(Member("way/x")), layer(folder("way"))), (layer(folder("way"), Member("way/x")),)
    verdict = compare_roots(making.image(base, *late), making.image(base, *early))
    assert told(verdict) == [("/real/x", "missing"), ("/way/x", "missing")]
    absent = compare_roots(making.image(base, *late, without=(0,)), making.image(base, *early, without=(0,)))
    assert told(absent) == [("/way", "named behind what is in it")]


def test_a_hard_link_to_a_file_of_the_base(making):
    link = layer(Member("usr/new", tarfile.LNKTYPE, target="usr/old"))
    copy = layer(Member("usr/new", content=b"old"))
    verdict = compare_roots(making.image(BASE, link), making.image(BASE, copy))
    assert {field for _, field in told(verdict)} == {"hard link"}
    with pytest.raises(BadInput, match="which is no file"):
        compare_roots(making.image(BASE, link, without=(0,)), making.image(BASE, copy, without=(0,)))


# --- what can't be compared ----------------------------------------------------------------------------


def test_nothing_is_not_the_same_as_nothing(making):
    for layers in ((), (layer(),)):
        with pytest.raises(BadInput, match="there is nothing to compare"):
            compare_roots(making.image(*layers), making.image(settings={"User": "7"}))
    assert compare_roots(making.image(), making.image(layer(*TREE))).level == "payload"
    assert compare_roots(making.image(BASE), making.image(BASE)).level == "identical"


def test_layers_that_the_manifest_lacks_are_an_error(making):
    whole = making.image(BASE, layer(*TREE))
    cut = replace(whole, manifest=replace(whole.manifest, layers=whole.manifest.layers[:1]))
    with pytest.raises(BadInput, match="1 layers, and 2 in its config"):
        compare_roots(whole, cut)


def test_a_layer_that_is_missing_or_damaged_is_an_error(making):
    whole = making.image(BASE, layer(*TREE))
    with pytest.raises(BadInput, match="lacks the layer"):
        compare_roots(whole, making.image(BASE, layer(*TREE), layer(folder("z")), without=(1, 2)))
    other = making.image(BASE, layer(*TREE), layer(folder("z")))
    path = Path(other.blob(other.manifest.layers[2]))
    path.chmod(0o644)
    path.write_bytes(gzip.compress(layer()))  # a sound layer, but not the one that the manifest names
    with pytest.raises(DigestMismatch):
        compare_roots(whole, other)
    broken = making.image(BASE, layer(*TREE)[:700])
    with pytest.raises(BadInput, match="damaged"):
        compare_roots(whole, broken)


def test_bytes_that_are_no_text_are_not_taken_for_their_spelling(making):
    raw = layer(Member("opt/x")).replace(b"opt/x\0\0\0\0", b"opt/\xff\0\0\0\0")
    header = bytearray(raw[:512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    raw = bytes(header) + raw[512:]
    with pytest.raises(BadInput, match="isn't UTF-8"):
        compare_roots(making.image(raw), making.image(layer(Member("opt/\\xff"))))


def test_an_attribute_has_one_value_however_it_is_written(making):
    name, value = "user.x", "value\n1"
    encoded = base64.b64encode(value.encode()).decode().rstrip("=")
    ways = [
        {f"SCHILY.xattr.{name}": value},
        {f"LIBARCHIVE.xattr.{name}": encoded},
        {f"LIBARCHIVE.xattr.{name.replace('u', '%75')}": encoded},
        {f"SCHILY.xattr.{name}": value, f"LIBARCHIVE.xattr.{name}": encoded, "comment": "none", "atime": "5"},
    ]
    images = [making.image(layer(Member("x", pax=way))) for way in ways]
    for each in images[1:]:
        assert told(compare_roots(images[0], each)) == []
    bad = making.image(layer(Member("x", pax={f"LIBARCHIVE.xattr.{name}": "?"})))
    assert compare_roots(images[0], bad).level == "payload"


def test_many_differences_are_counted_and_few_are_explained(making):
    one = making.image(layer(*(Member(f"f{number}", content=b"a\n") for number in range(300))))
    two = making.image(layer(*(Member(f"f{number}", content=b"b\n") for number in range(300))))
    verdict = compare_roots(one, two)
    lines = [each for each in verdict.differences if each.field.startswith("line")]
    contents = [each for each in verdict.differences if each.field == "content"]
    assert (len(lines), len(contents), dict(verdict.omitted)) == (50, 200, {"content": 50})


# --- whatever the files are -----------------------------------------------------------------------------

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


@settings(deadline=None)
@given(_FILES, st.data())
def test_the_cut_does_not_matter(files, data):
    members = members_of(files)
    folders = [each for each in members if each.name not in files]
    numbers = data.draw(st.lists(st.integers(0, 2), min_size=len(members), max_size=len(members)))
    there = [*zip(members, numbers, strict=True)]
    # Each folder is in every layer that has something, as engines write them; the order within a layer is free.
    cut = [
        layer(*folders, *(each for each, at in there if at == number and each.name in files))
        for number in sorted(set(numbers))
    ]
    below = data.draw(st.sampled_from([(), (BASE,)]))
    verdict = compared((*below, layer(*members)), (*below, *cut))
    assert (verdict.level, verdict.differences, verdict.left) == ("identical", (), verdict.right)


@settings(deadline=None)
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
