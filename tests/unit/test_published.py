"""The parts of checking a published wheel that need no build."""

import calendar
import zipfile
from types import SimpleNamespace

import pytest
from packaging.tags import Tag

from reprobuild import interpreter, published
from reprobuild.archive import open_archive
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, IndexFailed, NotComparable
from reprobuild.index import Index, LockedFile, ReleasedFile
from reprobuild.wheelfile import WheelFile

INFO = "demo-1.0.dist-info"
WRITTEN = (2026, 11, 21, 8, 0, 0)
RECORDED = (2024, 12, 4, 17, 35, 24)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("six==1.17.0", ("six", "1.17.0")), (" Typing_Extensions == 4.16 ", ("typing-extensions", "4.16"))],
)
def test_a_requirement_is_a_name_and_a_version(text, expected):
    assert published.parse(text) == expected


@pytest.mark.parametrize("text", ["six", "six==", "==1", "six==1.*", "six>=1", "../six==1", "six==1;x", "six[a]==1"])
def test_anything_else_is_refused(text):
    with pytest.raises(BadInput, match="is not NAME==VERSION"):
        published.parse(text)


def released(*names):
    return tuple(ReleasedFile(LockedFile("demo", "1.0", name, Digest.of_bytes(name.encode())), "") for name in names)


def test_the_wheel_for_every_platform_is_checked_first():
    files = released("demo-1.0-cp311-cp311-linux_x86_64.whl", "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz")
    assert published._wheel_of(files, "demo", "1.0").file.filename == "demo-1.0-py3-none-any.whl"
    assert published._sdist_of(files, "demo", "1.0").file.filename == "demo-1.0.tar.gz"


def test_a_release_without_a_wheel_or_an_sdist_says_so():
    with pytest.raises(IndexFailed, match=r"no wheel of demo 1\.0"):
        published._wheel_of(released("demo-1.0.tar.gz"), "demo", "1.0")
    with pytest.raises(IndexFailed, match=r"no sdist \(\.tar\.gz\) of demo 1\.0"):
        published._sdist_of(released("demo-1.0-py3-none-any.whl"), "demo", "1.0")


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
        found = published.select(Index(tmp_path), "demo", "1.0", digests)
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


# --- the recorded clock ------------------------------------------------------------------------------


def write(path, times):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, moment in times.items():
            archive.writestr(zipfile.ZipInfo(name, moment), f"the content of {name}")


def as_published(path):
    with open_archive(path) as archive:
        fields = dict.fromkeys(WheelFile.__dataclass_fields__)
        return WheelFile(**{**fields, "path": path, "entries": archive.entries})


@pytest.fixture
def pair(tmp_path):
    """A published wheel and one made again, from the times of their members."""

    def make(theirs, ours):
        paths = (tmp_path / "theirs.whl", tmp_path / "ours.whl")
        for path, times in zip(paths, (theirs, ours), strict=True):
            write(path, times)
        return as_published(paths[0]), paths[1]

    return make


OLD = (2024, 11, 1, 10, 0, 0)
STARTED = calendar.timegm((2026, 11, 21, 7, 59, 59))


def test_the_recorded_clock_is_set_on_what_the_rebuild_wrote_alone(pair):
    theirs = {"a.py": OLD, f"{INFO}/METADATA": RECORDED, f"{INFO}/RECORD": (2024, 12, 4, 17, 35, 26)}
    wheel, made = pair(theirs, {"a.py": OLD, f"{INFO}/METADATA": WRITTEN, f"{INFO}/RECORD": WRITTEN})
    assert made.read_bytes() != wheel.path.read_bytes()
    replay = published.replay_clock(wheel, made, STARTED)
    assert made.read_bytes() == wheel.path.read_bytes()
    assert replay == published.Replay(
        (f"{INFO}/METADATA", f"{INFO}/RECORD"), "2024-12-04 17:35:24", "2024-12-04 17:35:26"
    )


def test_a_time_of_the_sources_is_never_taken_from_the_wheel(pair):
    wheel, made = pair({"a.py": RECORDED, "b": RECORDED}, {"a.py": OLD, "b": WRITTEN})
    assert published.replay_clock(wheel, made, STARTED) is not None
    with open_archive(made) as archive:
        assert {entry.name: entry.mtime for entry in archive.entries} == {
            "a.py": "2024-11-01 10:00:00",
            "b": "2024-12-04 17:35:24",
        }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"a": RECORDED}, {"a": OLD}),
        ({"a": RECORDED, "b": (2024, 12, 4, 18, 35, 30)}, {"a": WRITTEN, "b": WRITTEN}),
        ({"a": RECORDED}, {"a": WRITTEN, "extra": WRITTEN}),
        ({}, {}),
    ],
    ids=["nothing was written", "more than an hour apart", "a member of the rebuild's alone", "nothing at all"],
)
def test_where_there_is_no_one_recorded_clock_nothing_is_replayed(pair, theirs, ours):
    wheel, made = pair(theirs, ours)
    before = made.read_bytes()
    assert published.replay_clock(wheel, made, STARTED) is None
    assert made.read_bytes() == before


def test_a_replay_hides_no_other_difference(pair):
    wheel, made = pair({"a": RECORDED, "b": OLD}, {"a": WRITTEN})
    assert published.replay_clock(wheel, made, STARTED) is not None
    assert made.read_bytes() != wheel.path.read_bytes()
