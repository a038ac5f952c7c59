from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.tags import Tag

from reprobuild import export, interpreter, subject
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, IndexFailed, NotComparable
from reprobuild.index import Index, LockedFile, ReleasedFile
from reprobuild.progress import SILENT
from reprobuild.subject import Subject


@pytest.mark.parametrize(
    ("text", "expected"),
    [("six==1.17.0", ("six", "1.17.0")), (" Typing_Extensions == 4.16 ", ("typing-extensions", "4.16"))],
)
def test_a_requirement_is_a_name_and_a_version(text, expected):
    assert subject.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["six", "six==", "==1", "six==1.*", "six>=1", "../six==1", "six==1;x", "six[a]==1", "six==" + "9" * 5000]
)
def test_anything_else_is_refused(text):
    with pytest.raises(BadInput, match="is not NAME==VERSION"):
        subject.parse(text)


def released(*names):
    return tuple(ReleasedFile(LockedFile("demo", "1.0", name, Digest.of_bytes(name.encode())), "") for name in names)


def test_the_wheel_that_would_be_installed_here_is_checked(monkeypatch):
    ranks = {Tag("cp311", "cp311", "linux_x86_64"): 0, Tag("py3", "none", "any"): 1}
    monkeypatch.setattr(interpreter, "find", lambda _: SimpleNamespace(tag_ranks=ranks, tags=tuple(ranks)))
    own, pure, other = (
        f"demo-1.0-{tag}.whl" for tag in ("cp311-cp311-linux_x86_64", "py3-none-any", "cp39-cp39-win32")
    )
    files = released(other, pure, own, "demo-1.0.tar.gz")
    assert subject._wheel_of(files, "demo", "1.0").file.filename == own
    assert subject._wheel_of(released(other, pure), "demo", "1.0").file.filename == pure
    assert subject._wheel_of(released(other), "demo", "1.0").file.filename == other
    assert subject._sdist_of(files, "demo", "1.0").file.filename == "demo-1.0.tar.gz"


def test_a_release_without_a_wheel_or_an_sdist_says_so():
    with pytest.raises(IndexFailed, match=r"no wheel of demo 1\.0"):
        subject._wheel_of(released("demo-1.0.tar.gz"), "demo", "1.0")
    with pytest.raises(IndexFailed, match=r"no sdist \(\.tar\.gz\) of demo 1\.0"):
        subject._sdist_of(released("demo-1.0-py3-none-any.whl"), "demo", "1.0")


def test_a_wheel_is_named_by_its_path_or_its_release():
    assert Subject.of("six==1.17") == Subject("six", "1.17")
    path = "/tmp/Typing_Extensions-4.16.0-py3-none-any.whl"
    assert Subject.of(path) == Subject("typing-extensions", "4.16.0", Path(path))
    with pytest.raises(BadInput, match="doesn't have the name of a wheel"):
        Subject.of("demo.whl")


def test_a_file_is_what_the_index_has_or_the_report_says_that_it_is_not(tmp_path):
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.write_bytes(path.name.encode())
    asked = Subject("demo", "1.0", path)
    files = tuple(replace(each, uploaded="2026-01-01T00:00:00Z") for each in released(path.name))
    assert subject._wheel(files, asked) == (files[0], ())
    path.write_bytes(b"other")
    wheel, notes = subject._wheel(files, asked)
    assert (wheel.uploaded, wheel.file.digest) == ("", Digest.of_bytes(b"other"))
    assert "The index offers another file of the name" in notes[0]
    assert "The index offers no demo-1.0" in subject._wheel((), asked)[1][0]


# --- which files of a release ------------------------------------------------------------------------

LINUX = "demo-1.0-cp311-cp311-linux_x86_64.whl"
PURE = "demo-1.0-py3-none-any.whl"
WINDOWS = "demo-1.0-cp311-cp311-win_amd64.whl"
SDIST = "demo-1.0.tar.gz"


@pytest.fixture
def select(monkeypatch, tmp_path):
    """What is selected of a folder of links with some files, for an interpreter of Linux."""
    own = SimpleNamespace(
        version="3.11.7",
        platform="linux-x86_64",
        tags=("cp311-cp311-linux_x86_64", "py3-none-any"),
        tag_ranks={Tag("cp311", "cp311", "linux_x86_64"): 0, Tag("py3", "none", "any"): 1},
    )
    monkeypatch.setattr(interpreter, "find", lambda _: own)
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))

    def of(names, locked=()):
        links = tmp_path / "links"
        links.mkdir(exist_ok=True)
        for name in names:
            (links / name).write_bytes(name.encode())
        (tmp_path / "uv.toml").write_text('no-index = true\nfind-links = ["links"]\n')
        monkeypatch.delenv("UV_FIND_LINKS", raising=False)
        digests = frozenset(Digest.of_bytes(name.encode()) for name in locked)
        found = subject.select(Index(tmp_path), "demo", "1.0", digests)
        return tuple(each.file.filename for each in found)

    return of


@pytest.mark.parametrize(
    ("locked", "expected"),
    [
        ((), (LINUX, SDIST)),
        ((LINUX, PURE, WINDOWS, SDIST), (LINUX, SDIST)),
        ((PURE, SDIST), (PURE, SDIST)),
        ((PURE,), (PURE, SDIST)),
        ((PURE, SDIST, "demo-1.0-cp312-cp312-linux_x86_64.whl"), (PURE, SDIST)),
    ],
    ids=["no hash", "all", "the pure one and the sdist", "the pure one", "and one that a folder need not have"],
)
def test_the_wheel_is_the_one_that_the_lock_admits_and_this_interpreter_likes_best(select, locked, expected):
    assert select((LINUX, PURE, WINDOWS, SDIST), locked) == expected


@pytest.mark.parametrize(
    ("there", "locked", "says"),
    [
        ((WINDOWS, SDIST), (), r"no wheel for Python 3\.11\.7 on linux-x86_64"),
        ((SDIST,), (SDIST,), "has no wheel"),
        ((LINUX, SDIST), (SDIST,), "has no wheel"),
        ((PURE,), (), r"has no sdist \(\.tar\.gz\)"),
        ((PURE, "demo-1.0.zip"), (PURE,), r"has no sdist \(\.tar\.gz\)"),
    ],
)
def test_what_a_release_lacks_makes_it_not_comparable(select, there, locked, says):
    with pytest.raises(NotComparable, match=says):
        select(there, locked)


@pytest.mark.parametrize(
    ("there", "locked"),
    [((), ()), ((), (PURE,)), ((PURE, SDIST), ("another",)), ((PURE, SDIST), (PURE, "another sdist"))],
    ids=["no release", "no release for a hash", "another wheel", "another sdist"],
)
def test_a_release_without_what_the_lock_names_is_an_error(select, there, locked):
    with pytest.raises(IndexFailed):
        select(there, locked)


def test_only_files_that_a_lock_admits_are_taken(tmp_path, monkeypatch):
    listed = released("demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz")
    monkeypatch.setattr(Index, "release", lambda *_: listed)
    other = frozenset((Digest.of_bytes(b"another"), listed[1].file.digest))
    with pytest.raises(IndexFailed, match="no wheel of demo"):
        subject.fetch(Index(tmp_path), Subject("demo", "1.0", digests=other), None, tmp_path, SILENT)


def test_what_it_was_made_from_is_said_in_words(tmp_path, monkeypatch):
    wheel = tmp_path / "demo-1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    monkeypatch.setattr(Index, "release", lambda *_: ())
    monkeypatch.setattr(subject, "read_wheel", lambda path: path)
    for name in ("open_source", "clone"):
        monkeypatch.setattr(export, name, lambda *_: SimpleNamespace(digests={}))
    found = [
        subject.fetch(Index(tmp_path), Subject("demo", "1.0", wheel), origin, tmp_path, SILENT).origin
        for origin in (str(tmp_path), "demo-1.0.tar.gz", "git+https://example.org/demo.git@v1")
    ]
    assert [(each.kind, each.name) for each in found] == [
        ("folder", str(tmp_path)),
        ("sdist", "demo-1.0.tar.gz"),
        ("git", "https://example.org/demo.git@v1"),
    ]
