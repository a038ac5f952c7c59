"""Causes that need the sdist, from pairs of wheels and sdists that are made for each."""

import base64
import hashlib
import io
import tarfile
import zipfile

import pytest

from reprobuild.archive import open_archive
from reprobuild.compare import Level, compare
from reprobuild.evidence import explained
from reprobuild.wheelfile import read_wheel

NAME, INFO = "demo-1.0-py3-none-any.whl", "demo-1.0.dist-info"
WHEEL = "Wheel-Version: 1.0\nGenerator: by-hand (1.0)\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
METADATA = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\n"
FILES = {"demo/__init__.py": "a = 1\n", f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": WHEEL}
SETUP_CFG = "[metadata]\nlong_description = file: {}\n"


def write_wheel(path, files):
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text)}\n")
            archive.writestr(zipfile.ZipInfo(name), text)
        archive.writestr(zipfile.ZipInfo(f"{INFO}/RECORD"), "".join([*lines, f"{INFO}/RECORD,,\n"]))
    return path


@pytest.fixture
def causes(tmp_path):
    """The cause of each difference that isn't a consequence, by member, of two wheels and an sdist."""

    def found(published, made, sdist, setup_cfg="", names=(NAME, NAME)):
        for name in ("published", "made"):
            (tmp_path / name).mkdir()
        left = read_wheel(write_wheel(tmp_path / "published" / names[0], FILES | published))
        right = write_wheel(tmp_path / "made" / names[1], FILES | made)
        with tarfile.open(tmp_path / "demo.tar.gz", "w:gz") as archive:
            for name, text in sdist.items():
                info = tarfile.TarInfo(f"demo-1.0/{name}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        with open_archive(tmp_path / "demo.tar.gz") as archive:
            verdict = explained(compare(left.path, right), left, right, archive.entries, setup_cfg)
        assert verdict.level is not Level.IDENTICAL
        return {each.path[0]: each.cause for each in verdict.differences if each.path and not each.follows}

    return found


TYPED = {"demo/py.typed": ""}
LICENCE = {f"{INFO}/licenses/LICENSE": "as you like"}


@pytest.mark.parametrize(
    ("published", "sdist", "cause"),
    [
        (TYPED, {}, "not-in-sdist"),
        (TYPED, {"other/py.typed": ""}, "not-in-sdist"),
        (TYPED, {"src/demo/py.typed": ""}, "missing-file"),
        (LICENCE, {"README": ""}, "not-in-sdist"),
        (LICENCE, {"LICENSE": ""}, "missing-file"),
        ({f"{INFO}/entry_points.txt": ""}, {}, "missing-file"),
        ({"demo-1.0.data/scripts/demo": ""}, {"bin/demo": ""}, "missing-file"),
        ({"demo-1.0.data/scripts/demo": ""}, {"bin/other": ""}, "not-in-sdist"),
    ],
)
def test_a_file_that_the_sdist_lacks(causes, published, sdist, cause):
    assert causes(published, {}, sdist) == dict.fromkeys(published, cause)


def test_a_file_that_only_the_rebuild_has_is_never_one_that_the_sdist_lacks(causes):
    assert causes({}, TYPED, {}) == {"demo/py.typed": "missing-file"}


@pytest.mark.parametrize(
    ("sdist", "cause"),
    [
        ({"src/demo/a.py": "a = 1\n"}, "not-as-in-sdist"),
        ({"src/demo/a.py": "a = 3\n"}, None),
        ({"src/demo/a.py": "a = 1\n", "other/demo/a.py": "a = 2\n"}, None),
        ({}, None),
    ],
    ids=["the rebuilt one is the sdist's", "neither is", "both are", "the sdist has none"],
)
def test_a_file_that_is_not_the_one_of_the_sdist(causes, sdist, cause):
    assert causes({"demo/a.py": "a = 2\n"}, {"demo/a.py": "a = 1\n"}, sdist) == {"demo/a.py": cause}


@pytest.mark.parametrize(
    ("setup_cfg", "cause"),
    [
        (SETUP_CFG.format("README.rst, HISTORY.rst"), "not-in-sdist"),
        (SETUP_CFG.replace("_", "-").format("HISTORY.rst"), "not-in-sdist"),
        (SETUP_CFG.format("README.rst"), None),
        ("[metadata]\nlong_description = file it is\n", None),
        ("", None),
        ("[metadata\n", None),
    ],
)
def test_a_description_from_a_file_that_the_sdist_lacks(causes, setup_cfg, cause):
    name = f"{INFO}/METADATA"
    found = causes({name: METADATA + "The text.\n"}, {name: METADATA + "UNKNOWN\n"}, {"README.rst": ""}, setup_cfg)
    assert found == {name: cause}


def test_a_lacking_description_explains_nothing_above_it(causes):
    name = f"{INFO}/METADATA"
    changed = METADATA.replace("\n\n", "\nLicense: x\n\n"), METADATA.replace("\n\n", "\nLicense: y\n\n")
    found = causes({name: changed[0]}, {name: changed[1]}, {}, SETUP_CFG.format("HISTORY.rst"))
    assert found == {name: None}


TAGS = [WHEEL.replace("py3-none-any", tag) for tag in ("cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-linux_x86_64")]


def test_what_comes_with_a_repair_is_told_from_what_the_source_makes(causes):
    published = {"demo/_a.so": "gcc 10", "demo.libs/b.so.1": "b", f"{INFO}/WHEEL": TAGS[0], "demo/b.py": "b = 1\n"}
    made = {"demo/_a.so": "gcc 12", f"{INFO}/WHEEL": TAGS[1], "demo/b.py": "b = 2\n"}
    names = tuple(f"demo-1.0-cp311-cp311-{each}_x86_64.whl" for each in ("manylinux_2_17", "linux"))
    found = causes(published, made, {"demo/b.py": "b = 2\n"}, names=names)
    repaired = {"demo/_a.so", "demo.libs/b.so.1", f"{INFO}/WHEEL"}
    assert {name for name, cause in found.items() if cause == "repaired"} == repaired
    assert found["demo/b.py"] == "not-as-in-sdist"
