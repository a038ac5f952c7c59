"""Layers that others made: what is read, what is refused, and what lies on top of what."""

import bz2
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile

import pytest

from reprobuild.archive import zstd as zstd_library
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, ToolMissing
from reprobuild.oci import rootfs
from reprobuild.oci.rootfs import laid_over, merged, open_layer

zstd = zstd_library()


def tar_of(*members, **more):
    """A tar; a member is a name and bytes, ``-> target``, ``=> hard link`` or None for a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            for key, value in more.items():
                setattr(info, key, value)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
                info.linkname = content[3:]
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return out.getvalue()


def entries_of(data, name="the layer"):
    with open_layer(io.BytesIO(data), name=name) as layer:
        return layer.entries


def root_of(*layers):
    return merged([entries_of(tar_of(*members)) for members in layers])


def view(*layers):
    return {path: found.layer for path, found in root_of(*layers).items()}


TAR = tar_of(("./", None), ("./etc", None), ("./etc/a", b"a" * 100_000), ("./b", "-> /etc/a"), ("./c", "=> ./etc/a"))


def members_of(tar, compress, *cuts):
    parts = zip((0, *cuts), (*cuts, len(tar)), strict=True)
    return b"".join(compress(tar[start:end]) for start, end in parts)


@pytest.mark.parametrize(
    "data",
    [
        TAR,
        gzip.compress(TAR),
        members_of(TAR, gzip.compress, 1, 2, 512, 513, 2000, 60_000),
        zstd.compress(TAR),
        members_of(TAR, zstd.compress, 10, 512, 60_000),
        zstd.compress(TAR, 3) + b"\x50\x2a\x4d\x18\4\0\0\0skip",
    ],
    ids=["plain", "gzip", "members of gzip", "zstd", "frames of zstd", "a frame to skip"],
)
def test_reads_a_layer_however_it_is_compressed(tmp_path, data):
    path = tmp_path / "blob"
    path.write_bytes(data)
    for source in (path, io.BytesIO(data)):
        with open_layer(source, name="the layer") as layer:
            assert [(each.name, each.kind, each.target) for each in layer.entries] == [
                ("", "directory", ""),
                ("etc", "directory", ""),
                ("etc/a", "file", ""),
                ("b", "symlink", "/etc/a"),
                ("c", "hardlink", "./etc/a"),
            ]
            assert layer.entries[2].digest == Digest.of_bytes(b"a" * 100_000)
            assert layer.open(layer.entries[2]).read() == b"a" * 100_000


def test_owners_times_and_attributes_are_read():
    more = {"uid": 1000, "gid": 5, "uname": "me", "gname": "us", "mtime": 77, "mode": 0o4711}
    pax = {"SCHILY.xattr.security.capability": "\1\0\0\2"}
    (entry,) = entries_of(tar_of(("a", b"x"), pax_headers=pax, **more))
    assert (entry.owner, entry.seconds, entry.mode) == ("1000:5 me:us", 77, 0o4711)
    assert entry.attributes == (("SCHILY.xattr.security.capability", "\1\0\0\2"),)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_an_empty_layer_has_no_entries(compress):
    assert entries_of(compress(bytes(1024))) == ()


HOSTILE = {
    "nothing": b"",
    "noise": hashlib.sha512(b"noise").digest() * 99,
    "a text": b"hello\n" * 500,
    "a zip": b"PK\3\4" + bytes(2000),
    "bzip2": bz2.compress(TAR),
    "a cut tar": TAR[:50_000],
    "a cut gzip": gzip.compress(TAR)[:-9],
    "a damaged gzip": gzip.compress(TAR)[:-8] + bytes(8),
    "bytes behind a gzip": gzip.compress(TAR) + b"and more",
    "a cut zstd": zstd.compress(TAR)[:-9],
    "a damaged zstd": zstd.compress(TAR)[:20] + b"\xff" * 20 + zstd.compress(TAR)[40:],
    "bytes behind a zstd": zstd.compress(TAR) + b"and more",
    "a gzip of noise": gzip.compress(b"\x07" * 2000),
    "two tars": TAR + TAR,
    "outside": tar_of(("a/../../b", b"")),
    "absolute": tar_of(("/etc/passwd", b"")),
    "one name twice": tar_of(("a", b"1"), ("a", b"2")),
    "through its own link": tar_of(("a", "-> /etc"), ("a/b", b"")),
    "a hard link outside": tar_of(("a", "=> ../../etc/shadow")),
    "a whiteout of nothing": tar_of(("a/.wh.", b"")),
    "a whiteout of the folder": tar_of(("a/.wh..", b"")),
    "a whiteout of what is above": tar_of(("a/.wh...", b"")),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_refuses(data):
    with pytest.raises(BadInput, match=r"[Tt]he layer"):
        merged([entries_of(data)])


def test_a_layer_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="the base"), open_layer(tmp_path / "none", name="the base"):
        pass


def test_a_stream_is_read_from_its_start():
    stream = io.BytesIO(gzip.compress(TAR))
    stream.seek(100)
    with open_layer(stream, name="the layer") as layer:
        assert layer.entries == entries_of(TAR)


def test_without_a_library_zstd_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(ToolMissing, match="zstd"):
        entries_of(zstd.compress(TAR))
    assert entries_of(gzip.compress(TAR))


def test_a_later_layer_replaces_files_and_keeps_folders():
    lower = [("etc", None), ("etc/a", b"1"), ("etc/b", b"1"), ("x", b"1")]
    upper = [("etc", None), ("etc/a", b"2"), ("x", None), ("x/y", b"2")]
    assert view(lower, upper) == {"etc": 1, "etc/a": 1, "etc/b": 0, "x": 1, "x/y": 1}


def test_what_replaces_a_folder_takes_its_content_away():
    lower = [("d", None), ("d/e", None), ("d/e/f", b"")]
    assert view(lower, [("d", b"a file")]) == {"d": 1}
    assert view(lower, [("d", "-> etc")]) == {"d": 1}


def test_whiteouts_remove_what_lower_layers_have():
    lower = [("d", None), ("d/a", b""), ("d/b", None), ("d/b/c", b""), ("ab", b"")]
    assert view(lower, [("d/.wh.a", b"")]) == {"ab": 0, "d": 0, "d/b": 0, "d/b/c": 0}
    assert view(lower, [("d/.wh.b", b"")]) == {"ab": 0, "d": 0, "d/a": 0}
    assert view(lower, [(".wh.d", b"")]) == {"ab": 0}
    assert view(lower, [(".wh.none", b""), ("none/.wh.a", b""), ("ab/.wh.a", b"")]) == view(lower)


def test_whiteouts_leave_what_their_own_layer_has():
    lower = [("d", None), ("d/a", b""), ("d/b", b"")]
    assert view(lower, [("d/a", b"new"), ("d/.wh.a", b"")]) == {"d": 0, "d/a": 1, "d/b": 0}
    assert view(lower, [("d/a", b"new"), ("d/.wh..wh..opq", b"")]) == {"d": 0, "d/a": 1}
    assert view(lower, [("d/.wh..wh..opq", b""), ("d/n", b"")], [("d/b", b"")]) == {"d": 0, "d/b": 2, "d/n": 1}


def test_housekeeping_of_aufs_means_nothing():
    assert view([("a", b""), (".wh.x", b"")], [(".wh..wh.plnk", None), (".wh..wh.aufs", b"")]) == {"a": 0}


def test_paths_go_through_links_of_lower_layers_and_stay_inside():
    lower = [("usr", None), ("usr/lib", None), ("usr/lib/a", b""), ("lib", "-> usr/lib"), ("out", "-> ../../../usr")]
    assert view(lower, [("lib/b", b""), ("out/c", b"")]) == {
        "lib": 0,
        "out": 0,
        "usr": 0,
        "usr/c": 1,
        "usr/lib": 0,
        "usr/lib/a": 0,
        "usr/lib/b": 1,
    }
    assert "usr/lib/a" not in view(lower, [("lib/.wh.a", b"")])
    assert view(lower, [(".wh.lib", b""), ("lib", None), ("lib/b", b"")])["lib/b"] == 1
    assert view([("d", None), ("d/l", "-> /usr")], [("d/l/a", b"")]) == {"d": 0, "d/l": 0, "usr/a": 1}
    assert view([("l", "-> /no/such")], [("l/a", b"")]) == {"l": 0, "no/such/a": 1}


def test_the_root_itself_may_be_an_entry():
    assert view([("./", None), ("a", b"")], [("./", None)]) == {"": 1, "a": 0}


def test_names_come_in_the_order_of_a_walk():
    found = root_of([("b", b""), ("a", None), ("a/c", b""), ("a/b", b"")], [("a.x", b"")])
    assert list(found) == ["a", "a/b", "a/c", "a.x", "b"]


def test_as_many_links_are_followed_as_by_linux():
    chain = [("d", None), *((f"l{number}", f"-> {f'l{number - 1}' if number else 'd'}") for number in range(41))]
    assert "d/a" in view(chain, [("l39/a", b"")])
    with pytest.raises(BadInput, match="circle"):
        root_of(chain, [("l40/a", b"")])


def test_a_folder_has_no_hard_links():
    with pytest.raises(BadInput, match="which is no file"):
        root_of([("d", None), ("h", "=> d")])


def laid(*layers):
    return laid_over([entries_of(tar_of(*members)) for members in layers])


def test_what_lies_below_is_hidden_where_a_folder_begins_anew():
    assert laid([("d", None), ("d/.wh..wh..opq", b""), ("d/a", b"")]).hidden == {"d"}
    assert laid([("d/.wh.a", b""), ("d/a", b"")]).hidden == set()
    assert laid([("d", b"")], [("d", None), ("d/a", b"")]).hidden == {"d"}
    assert laid([(".wh.d", b"")], [("d/a", b"")]).hidden == {"d"}
    assert laid([(".wh.d", b"")], [("d", None), ("d/a", b"")]).hidden == {"d"}


def test_a_folder_that_is_named_behind_what_is_in_it_is_late():
    assert laid([("d/a", b""), ("d", None)]).late == {"d"}
    assert laid([("d", None), ("d/a", b"")]).late == set()
    assert laid([("d/.wh..wh..opq", b""), ("d", None)]).late == set()


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ([("a", b"")], [("a/b", b"")]),
        ([("a", "-> b"), ("b", "-> a")], [("a/c", b"")]),
        ([("a", "-> a")], [("a/c", b"")]),
        ([("a", "-> file"), ("file", b"")], [("a/c", b"")]),
    ],
    ids=["under a file", "in a circle", "to itself", "a link to a file"],
)
def test_refuses_paths_that_lead_nowhere(lower, upper):
    with pytest.raises(BadInput, match=r"a/c|a/b|'a'"):
        root_of(lower, upper)


def test_effort_is_bounded(monkeypatch):
    monkeypatch.setattr(rootfs, "_STEPS", 1000)
    with pytest.raises(BadInput, match="too many"):
        root_of([("a", "-> " + "./" * 1200 + "b"), ("b", None)], [("a/c", b"")])
    long = "/." * 600
    with pytest.raises(BadInput, match="too many"):
        root_of([("a", f"-> b{long}"), ("b", f"-> none{long}")], [("a/.wh.x", b"")])
    monkeypatch.undo()
    monkeypatch.setattr(rootfs, "ENTRY_LIMIT", 100)
    with pytest.raises(BadInput, match="100 folders"):
        root_of([("d/" * 150 + "f", b"")])


MEASURED = """
import sys
from pathlib import Path
from reprobuild.oci.rootfs import open_layer
def peak():  # ru_maxrss would count the process that started this one
    return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])
before = peak()
with open_layer(Path(sys.argv[1]), name="x") as layer:
    assert layer.entries[0].size == 300_000_000
    assert sum(map(len, layer.chunks(layer.entries[0]))) == 300_000_000
print(peak() - before)
"""


@pytest.mark.parametrize("library", [gzip, zstd], ids=["gzip", "zstd"])
def test_memory_stays_small_whatever_the_size_of_a_file(tmp_path, library):
    path = tmp_path / "layer"
    with library.open(path, "wb") as out:
        info = tarfile.TarInfo("large")
        info.size = 300_000_000
        out.write(info.tobuf())
        for _ in range(300):
            out.write(bytes(1_000_000))
        out.write(bytes(-info.size % 512 + 1024))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) < 40_000  # KiB
