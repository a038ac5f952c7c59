"""What is remembered of a wheel: all that planning an image needs, and under a key of all that decides it."""

import dataclasses
import json

import pytest

from reprobuild import memory
from reprobuild.digest import Digest
from reprobuild.files import cache_root
from reprobuild.image import listing as listings
from reprobuild.image.installed import install, nodes
from reprobuild.image.listing import INSTALL_VERSION, Listing, recall, remember, wheel_key
from reprobuild.image.target import Target
from reprobuild.index import LockedFile
from reprobuild.oci.tree import Text
from reprobuild.wheelfile import read_wheel

TARGET = Target("3.12.7", "/usr/local/bin/python3.12", "x86_64-manylinux_2_28")
OTHERS = (
    dataclasses.replace(TARGET, python="3.12.8"),
    dataclasses.replace(TARGET, python="3.13"),
    dataclasses.replace(TARGET, executable="/usr/bin/python3.12"),
    dataclasses.replace(TARGET, platform="x86_64-manylinux_2_31"),
    dataclasses.replace(TARGET, prefix="/opt/other"),
)
SCRIPTS = "[console_scripts]\nrun = demo:main\nother = demo.é:a.b\n[gui_scripts]\nwin = demo:win\n"
#: What a wheel with one of everything becomes, by version. Another digest calls for another version.
GOLDEN = {1: "sha256:628a416fb3c67e62ca68d1d9c249461fbd173e791eef9d923cafc1f2bf4fcd1f"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def wheel(tmp_path, make_wheel):
    """A wheel with one of everything."""
    members = {
        "demo/__init__.py": b"", "demo/é.py": b"x = 1\n", "demo/__pycache__/x.cpython-312.pyc": b"bytecode",
        "@info/entry_points.txt": SCRIPTS.encode(),
        "@info/licenses/LICENSE": b"free", "@info/INSTALLER": b"pip\n", "@info/direct_url.json": b"{}",
        "@data/scripts/plain": b"#!/bin/sh\n", "@data/scripts/python": b"#!python -E\nimport demo\n",
        "@data/scripts/pythonw": b"#!pythonw\r\nimport demo\n", "@data/headers/demo.h": b"#define X\n",
        "@data/data/share/demo/x.txt": b"x", "@data/data/lib64/y.txt": b"y",
        "@data/purelib/pure.py": b"", "@data/platlib/plat.py": b"",
    }  # fmt: skip
    requires = ("a>1", "b; extra == 'c'", "d; os_name == 'nt'", "e; os_name == 'posix'", "f; nonsense", "g ((")
    metadata = "".join(f"Requires-Dist: {each}\n" for each in requires) + "Requires-Python: >=3.8\n"
    return make_wheel(tmp_path / "wheels", members, name="demo", metadata=metadata)


def file_of(path):
    return LockedFile("demo", "1.0", path.name, Digest.of_file(path))


def listed(path, target=TARGET, *, own=False):
    read = read_wheel(path)
    contents = install(read, target, requested=own)
    found = nodes(contents, target.prefix)
    return Listing.of(read, target, contents, found), found


def test_a_listing_says_what_there_is(wheel):
    listing, found = listed(wheel)
    below = {node.path.removeprefix("opt/venv/"): node for node in found if node.path != "opt/venv"}
    assert listing.folders == {path for path, node in below.items() if node.kind == "directory"}
    assert listing.files.keys() == {path for path, node in below.items() if node.kind == "file"}
    for path, (executable, size, hashed) in listing.files.items():
        assert (executable, size) == (bool(below[path].mode & 1), below[path].content.size)
        assert hashed.startswith("sha256=") != path.endswith("/RECORD")
    assert listing.size == sum(node.content.size for node in found if node.content)
    assert (listing.name, listing.version, listing.requires_python) == ("demo", "1.0", ">=3.8")
    assert listing.requires == ("a>1", "e; os_name == 'posix'", "f; nonsense", "g ((")


def test_what_was_remembered_is_known_again_for_the_same_wheel_and_target(wheel, monkeypatch):
    file, (listing, _) = file_of(wheel), listed(wheel)
    assert recall(file, TARGET) is None
    remember(file, TARGET, listing)
    assert recall(file, TARGET) == listing
    assert all(recall(file, other) is None for other in OTHERS)
    assert recall(dataclasses.replace(file, digest=Digest.of_bytes(b"")), TARGET) is None
    assert recall(dataclasses.replace(file, filename="demo-1.0-1-py3-none-any.whl"), TARGET) is None
    monkeypatch.setattr(listings, "INSTALL_VERSION", INSTALL_VERSION + 1)
    assert recall(file, TARGET) is None
    monkeypatch.undo()
    monkeypatch.setattr(listings, "__version__", "0")
    assert recall(file, TARGET) is None


def test_damage_is_noticed(wheel):
    file = file_of(wheel)
    remember(file, TARGET, listed(wheel)[0])
    (path,) = (cache_root() / "wheels").rglob("*.json")
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert recall(file, TARGET) is None


@pytest.mark.parametrize("known", [None, [], [1], {}, ["a"] * 7, 1])
def test_what_somebody_else_kept_is_not_taken(wheel, known):
    memory.remember("wheels", wheel_key(TARGET, [file_of(wheel)]), known)
    assert recall(file_of(wheel), TARGET) is None


def test_keys_tell_wheels_apart():
    one, two = (LockedFile(name, "1", f"{name}-1-py3-none-any.whl", Digest.of_bytes(name.encode())) for name in "ab")
    keys = [wheel_key(TARGET, files) for files in ([], [one], [two], [one, two], [two, one], [one, one])]
    assert len({*keys}) == len(keys)


def test_another_result_has_another_version(wheel):
    described = [
        (n.path, n.kind, n.mode, n.mtime, n.uid, n.gid, n.target,
         n.content.data.decode() if isinstance(n.content, Text) else n.content and n.content.size)
        for own in (False, True) for n in listed(wheel, own=own)[1]
    ]  # fmt: skip
    assert {INSTALL_VERSION: str(Digest.of_bytes(json.dumps(described).encode()))} == GOLDEN
