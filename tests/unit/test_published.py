"""The parts of checking a published wheel that need no build."""

import calendar
import struct
import zipfile

import pytest

from reprobuild import published
from reprobuild.archive import open_archive
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, IndexFailed
from reprobuild.index import LockedFile, ReleasedFile
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


def test_the_clock_of_a_zip64_wheel_is_replayed(pair, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 2)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    wheel, made = pair({"a": RECORDED, "b": OLD}, {"a": WRITTEN, "b": OLD})
    for path in (wheel.path, made):
        data = bytearray(path.read_bytes())
        assert b"PK\x06\x06" in data
        struct.pack_into("<HHLL", data, len(data) - 14, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        path.write_bytes(data)
    assert published.replay_clock(wheel, made, STARTED) is not None
    assert made.read_bytes() == wheel.path.read_bytes()


def test_the_clock_is_replayed_behind_a_script_that_starts_the_zip(pair):
    """A path in front shifts every offset that the zip itself records."""
    wheel, made = pair({"a": RECORDED, "b": OLD}, {"a": WRITTEN, "b": OLD})
    for path in (wheel.path, made):
        path.write_bytes(b"PK\x03\x04" + b"#" * 99 + path.read_bytes())
    assert published.replay_clock(as_published(wheel.path), made, STARTED) is not None
    assert made.read_bytes() == wheel.path.read_bytes()


def test_a_time_that_no_calendar_has_is_replayed_too(pair):
    wheel, made = pair({"a": RECORDED}, {"a": WRITTEN})
    path, data = wheel.path, wheel.path.read_bytes()
    now = struct.pack("<HH", 17 << 11 | 35 << 5 | 12, 44 << 9 | 12 << 5 | 4)
    assert data.count(now) == 2
    path.write_bytes(data.replace(now, b"\xff\xff\0\0"))
    assert published.replay_clock(as_published(path), made, STARTED) is not None
    assert made.read_bytes() == path.read_bytes()


def test_both_trees_are_kept_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("reprobuild.published.chunks_of", lambda stream: iter(lambda: stream.read(7), b""))
    paths = [tmp_path / name / "demo.whl" for name in ("theirs", "ours")]
    for path in paths:
        path.parent.mkdir()
        write(path, {path.parent.name: OLD})
    checker = published._Checker(tmp_path, None, None, None, tmp_path, "auto", tmp_path / "kept", None)  # type: ignore[arg-type]
    checker._keep(*paths)
    kept = [tmp_path / "kept" / name / "demo.whl" for name in ("published", "rebuilt")]
    assert [path.read_bytes() for path in kept] == [path.read_bytes() for path in paths]


def test_a_replay_hides_no_other_difference(pair):
    wheel, made = pair({"a": RECORDED, "b": OLD}, {"a": WRITTEN})
    assert published.replay_clock(wheel, made, STARTED) is not None
    assert made.read_bytes() != wheel.path.read_bytes()
