"""What an sdist says that it needs."""

import io
import tarfile
import zipfile
from importlib.metadata import PathDistribution

import pytest
from packaging.requirements import Requirement

from reprobuild import sdistfile
from reprobuild.errors import BadInput

REQUIRES_TXT = "six\n\n[:python_version < '3']\nenum34>=1\n\n[fast]\nmsgpack\n"


@pytest.mark.parametrize(
    ("pyproject", "expected"),
    [
        (None, ["setuptools>=40.8.0", "wheel"]),
        ("[project]\nname = 'demo'\n", ["setuptools>=40.8.0", "wheel"]),
        ("[build-system]\nrequires = ['flit_core<4']\n", ["flit_core<4"]),
    ],
)
def test_an_sdist_needs_what_uv_will_build_it_with(tmp_path, pyproject, expected):
    sdist = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        for name, text in (("setup.py", ""), ("nested/pyproject.toml", "[build-system]\nrequires = ['no']\n")):
            add(tar, name, text)
        if pyproject is not None:
            add(tar, "pyproject.toml", pyproject)
    assert sorted(map(str, sdistfile.requires_to_build(sdist))) == expected


def add(tar, name, text):
    member = tarfile.TarInfo(f"demo-1.0/{name}")
    member.size = len(text)
    tar.addfile(member, io.BytesIO(text.encode()))


@pytest.mark.parametrize(
    ("pyproject", "complaint"),
    [
        ("build-system = 3\n", "build-system is not a table"),
        ("[build-system]\nrequires = 'hatchling'\n", r"build-system\.requires is not a list"),
        ("[build-system]\nrequires = ['a==1.%s']\n" % ("9" * 5000), "is not a requirement"),
        ("#" * ((16 << 20) + 1), r"has a pyproject\.toml of 16777217 bytes"),
    ],
    ids=["no table", "no list", "no requirement", "too large"],
)
def test_an_sdist_that_needs_nonsense_is_bad_input(tmp_path, pyproject, complaint):
    sdist = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        add(tar, "pyproject.toml", pyproject)
    with pytest.raises(BadInput, match=complaint):
        sdistfile.requires_to_build(sdist)


def test_a_zip_is_an_sdist_too(tmp_path):
    sdist = tmp_path / "demo-1.0.zip"
    with zipfile.ZipFile(sdist, "w") as archive:
        archive.writestr("demo-1.0/pyproject.toml", "[build-system]\nrequires = ['flit_core<4']\n")
    assert [str(each) for each in sdistfile.requires_to_build(sdist)] == ["flit_core<4"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"PKG-INFO": "Metadata-Version: 2.1\nRequires-Dist: six>=1\nRequires-Dist: attrs\n"}, ["attrs", "six>=1"]),
        (
            {"PKG-INFO": "Metadata-Version: 1.1\n", "src/demo.egg-info/requires.txt": REQUIRES_TXT},
            ['enum34>=1; python_version < "3"', 'msgpack; extra == "fast"', "six"],
        ),
        ({"tests/PKG-INFO": "Requires-Dist: six\n", "setup.py": "raise SystemExit\n"}, []),
        ({"PKG-INFO": "Requires-Dist: a @ file:///etc\nRequires-Dist: ()\nRequires-Dist: six\n"}, ["six"]),
        ({"tests/data/a.egg-info/requires.txt": "no\n", "src/b.egg-info/requires.txt": "six\n"}, ["six"]),
    ],
    ids=[
        "PKG-INFO",
        "requires.txt",
        "neither",
        "a URL and nonsense",
        "another sdist in its tests",
    ],
)
def test_what_an_sdist_requires_is_read_and_not_run(tmp_path, files, expected):
    sdist = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        for name, text in files.items():
            add(tar, name, text)
    assert sorted(map(str, sdistfile.requires_to_run(sdist, tmp_path))) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["demo-1.0.tar.gz"]


def test_what_is_no_file_or_no_text_is_no_error(tmp_path):
    sdist = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        link = tarfile.TarInfo("demo-1.0/PKG-INFO")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        tar.addfile(link)
        member = tarfile.TarInfo("demo-1.0/demo.egg-info/requires.txt")
        member.size = 7
        tar.addfile(member, io.BytesIO(b"\xff\xfe\nsix"[-7:].rjust(7, b"\n")))
    assert [str(each) for each in sdistfile.requires_to_run(sdist, tmp_path)] == ["six"]


def test_an_sdist_that_requires_without_end_is_bad_input(tmp_path):
    sdist = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        add(tar, "demo.egg-info/requires.txt", "a>1\n" * 300_000)
    with pytest.raises(BadInput, match=r"demo-1\.0\.tar\.gz has more than 524288 characters of requirements"):
        sdistfile.requires_to_run(sdist, tmp_path)


def test_a_stand_in_says_what_was_read(tmp_path):
    sdistfile.write_stand_in(tmp_path, "a-b", "1.0", ">=3.8", [Requirement("six>1; extra == 'x'")])
    path = sdistfile.stand_in(tmp_path, "a-b", "1.0")
    assert path.name == "a_b-1.0-py3-none-any.whl"
    told = PathDistribution(zipfile.Path(path, "a_b-1.0.dist-info/"))
    assert (told.metadata["Name"], told.version, told.metadata["Requires-Python"]) == ("a-b", "1.0", ">=3.8")
    assert told.requires == ['six>1; extra == "x"']


def test_a_stand_in_has_no_field_that_an_index_smuggled_in(tmp_path):
    sdistfile.write_stand_in(tmp_path, "a", "1.0", ">=3\nRequires-Dist: evil", [])
    told = PathDistribution(zipfile.Path(sdistfile.stand_in(tmp_path, "a", "1.0"), "a-1.0.dist-info/"))
    assert told.requires is None
    assert told.metadata["Requires-Python"] is None
