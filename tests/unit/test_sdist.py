"""Sdists as files: which are sound, which are settled, and what writing one anew keeps."""

import gzip
import io
import tarfile

import pytest

from reprobuild import sdist
from reprobuild.errors import BadInput
from reprobuild.sdist import framing, is_settled, read_sdist, rewrite

EPOCH = 1_790_856_000
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
NAME = "demo-1.0.tar.gz"


def member(name, content=b"", **changes):
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(content), EPOCH
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


USUAL = (member("demo-1.0/PKG-INFO", METADATA), member("demo-1.0/demo.py", b"x = 1\n"))


@pytest.fixture
def write(tmp_path):
    """Write an sdist of some members, in their order."""

    def run(*members, name=NAME, clock=EPOCH, folder="built"):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        with (
            path.open("wb") as stream,
            gzip.GzipFile("", "wb", fileobj=stream, mtime=clock) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for info, content in members:
                tar.addfile(info, io.BytesIO(content))
        return path

    return run


def test_a_sound_sdist_is_read(write):
    found = read_sdist(write(*USUAL))
    assert (found.name, str(found.version), found.metadata) == ("demo", "1.0", METADATA)


@pytest.mark.parametrize(
    ("members", "name", "says"),
    [
        (USUAL[1:], NAME, "PKG-INFO is missing"),
        ((*USUAL, member("other/file")), NAME, "2 folders at its top"),
        (USUAL, "other-1.0.tar.gz", "the file's name about other 1.0"),
        (USUAL, "demo-2.0.tar.gz", "the file's name about demo 2.0"),
        (USUAL, "demo.tar.gz", "its name is not that of an sdist"),
        ((member("demo-1.0/PKG-INFO", METADATA.replace(b"1.0", b"one")),), NAME, "'one'"),
        ((*USUAL, member("demo-1.0/../../x")), NAME, "unsafe"),
    ],
)
def test_an_unsound_one_is_not(write, members, name, says):
    with pytest.raises(BadInput, match=says):
        read_sdist(write(*members, name=name))


@pytest.mark.parametrize("time", [0, EPOCH])
def test_an_archive_of_the_epoch_is_settled(write, time):
    assert is_settled(write(*USUAL, member("demo-1.0/x", mtime=time), clock=time), EPOCH)


@pytest.mark.parametrize(
    "changes",
    [
        {"mtime": EPOCH + 1},
        {"mtime": EPOCH - 1},
        {"mtime": EPOCH + 0.5},
        {"uid": 1000},
        {"gid": 5},
        {"uname": "builder"},
        {"gname": "users"},
    ],
    ids=str,
)
def test_another_time_or_an_owner_in_one_member_is_not(write, changes):
    assert not is_settled(write(*USUAL, member("demo-1.0/x", **changes)), EPOCH)


def test_nor_is_a_clock_before_it(write):
    assert not is_settled(write(*USUAL, clock=EPOCH + 1), EPOCH)


def test_written_anew_it_depends_on_the_members_alone(write, tmp_path):
    link = {"type": tarfile.SYMTYPE, "linkname": "demo.py"}
    extra = member("demo-1.0/run", b"#!/bin/sh\n", mode=0o700), member("demo-1.0/link", **link)
    hard = member("demo-1.0/again", type=tarfile.LNKTYPE, linkname="demo-1.0/demo.py")
    folder = member("demo-1.0/data", type=tarfile.DIRTYPE, mode=0o700)
    first = write(*USUAL, *extra, folder, hard, folder="one")
    others = [
        member(
            info.name,
            content,
            mtime=5,
            uid=7,
            uname="me",
            mode=info.mode & 0o700 | 0o066,
            type=info.type,
            linkname=info.linkname,
        )
        for info, content in (*USUAL, *extra, folder)
    ]
    second = write(*reversed(others), hard, clock=1, folder="two")
    targets = [tmp_path / "a" / NAME, tmp_path / "b" / NAME]
    for path, target in zip((first, second), targets, strict=True):
        rewrite(path, target, EPOCH)
        assert [each.name for each in target.parent.iterdir()] == [NAME]
    assert targets[0].read_bytes() == targets[1].read_bytes()
    assert is_settled(targets[0], EPOCH)
    with tarfile.open(targets[0]) as tar:
        found = {each.name.removeprefix("demo-1.0/"): each for each in tar.getmembers()}
        modes = {name: oct(each.mode) for name, each in found.items()}
        assert modes == {
            "PKG-INFO": "0o644",
            "data": "0o755",
            "demo.py": "0o644",
            "link": "0o777",
            "run": "0o755",
            "again": "0o644",
        }
        assert (found["link"].linkname, found["again"].linkname) == ("demo.py", "demo-1.0/demo.py")
        told = tar.extractfile("demo-1.0/run")
        assert told
        assert told.read() == b"#!/bin/sh\n"


def test_a_hard_link_comes_after_what_it_means(write, tmp_path):
    """Whoever unpacks the archive as it comes has the file already."""
    hard = member("demo-1.0/again", type=tarfile.LNKTYPE, linkname="demo-1.0/demo.py")
    rewrite(write(*reversed(USUAL), hard), tmp_path / NAME, EPOCH)
    with tarfile.open(tmp_path / NAME, "r|gz") as tar:
        tar.extractall(tmp_path / "unpacked")  # of our own; Debian's Python 3.11.2 knows no filter
    with tarfile.open(tmp_path / NAME) as tar:
        kinds = [(each.name.removeprefix("demo-1.0/"), each.islnk()) for each in tar.getmembers()]
    assert kinds == [("PKG-INFO", False), ("demo.py", False), ("again", True)]
    unpacked = tmp_path / "unpacked" / "demo-1.0"
    assert (unpacked / "again").samefile(unpacked / "demo.py")


def test_metadata_has_a_size(write, monkeypatch):
    path = write(*USUAL)
    monkeypatch.setattr(sdist, "TEXT_LIMIT", len(METADATA))
    assert read_sdist(path).metadata == METADATA
    monkeypatch.setattr(sdist, "TEXT_LIMIT", len(METADATA) - 1)
    with pytest.raises(BadInput, match=f"PKG-INFO has {len(METADATA)} bytes, which no metadata needs"):
        read_sdist(path)


def test_what_is_neither_file_nor_folder_nor_link_is_refused(write, tmp_path):
    with pytest.raises(BadInput, match="a character-device"):
        rewrite(write(*USUAL, member("demo-1.0/tty", type=tarfile.CHRTYPE)), tmp_path / NAME, EPOCH)
    assert [each.name for each in tmp_path.iterdir()] == ["built"]


def test_a_long_name_is_kept(write, tmp_path):
    long = f"demo-1.0/{'d' * 120}/{'é' * 90}"
    rewrite(write(*USUAL, member(long, b"1")), tmp_path / NAME, EPOCH)
    with tarfile.open(tmp_path / NAME) as tar:
        assert long in tar.getnames()


def test_the_record_says_which():
    assert framing(rewritten=False) == {"rewritten": False}
    assert set(framing(rewritten=True)) == {"rewritten", "zlib"}
