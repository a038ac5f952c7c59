import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import stat
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest

from reprobuild.archive import Inflater, archive_kind, extract_tar, open_archive, write_tar, zipped
from reprobuild.errors import BadInput, WriteFailed

MEMBERS = [
    ("pkg/", 0o700, b""),
    ("pkg/a.py", 0o600, b"a = 1\n"),
    ("pkg/run", 0o700, b"#!/bin/sh\n"),
    ("link", 0o777, "pkg/a.py"),
    ("n" * 150, 0o644, b"a long name needs a PAX record"),
]


def zip_of(*members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as target:
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data in members:
            info = zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6))
            info.compress_type = compression
            info.external_attr = 0o100644 << 16
            target.writestr(info, data)
    return buffer.getvalue()


def deflate(data):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def tar_of(*infos):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in infos:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return buffer.getvalue()


def tar_bytes(members=MEMBERS):
    buffer = io.BytesIO()
    write_tar(buffer, members, mtime=1_700_000_000)
    return buffer.getvalue()


def read_all(data, name="x"):
    with open_archive(io.BytesIO(data), name=name) as archive:
        return {entry.name: archive.open(entry).read() for entry in archive.entries if entry.kind == "file"}


def patched(data, signature, offset, layout, value):
    """A copy of a zip with one field behind the last occurrence of a signature replaced."""
    copy = bytearray(data)
    struct.pack_into(layout, copy, data.rindex(signature) + offset, value)
    return bytes(copy)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_reads_what_zipfile_writes(compression):
    big = bytes(range(256)) * 20_000
    data = zip_of(("a", b""), ("d/", b""), ("d/b", big), ("é.txt", b"x"), compression=compression)
    assert read_all(data) == {"a": b"", "d/b": big, "é.txt": b"x"}
    with open_archive(io.BytesIO(data)) as archive:
        entry = archive.entries[2]
        assert (archive.kind, entry.mode, entry.mtime) == ("zip", 0o644, "2024-01-02 03:04:06")
        assert (entry.crc, entry.order, entry.create_system) == (zlib.crc32(big), 2, 3)


def test_reads_zip64(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 2)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    data = zip_of(("a", b"hello"), ("b", b"world"))
    assert b"PK\x06\x06" in data
    assert b"\xff" * 8 in data
    assert read_all(data) == {"a": b"hello", "b": b"world"}
    with pytest.raises(BadInput, match="two zip directories that disagree"):
        read_all(patched(data, b"PK\x05\x06", 10, "<H", 1))


def test_the_kind_comes_from_the_bytes(tmp_path):
    tar = tar_bytes()
    kinds = {
        "zip": zip_of(("a", b"")),
        "tar": tar,
        "tar.gz": gzip.compress(tar),
        "tar.xz": lzma.compress(tar),
        "tar.bz2": bz2.compress(tar),
        "gz": gzip.compress(b"text"),
        None: b"plain",
    }
    for kind, data in kinds.items():
        path = tmp_path / "file"
        path.write_bytes(data)
        assert archive_kind(path) == kind
        if kind and kind.startswith("tar"):
            assert read_all(data)["pkg/a.py"] == b"a = 1\n"
    assert read_all(kinds["gz"]) == {"content": b"text"}


def test_a_gzip_header_is_part_of_the_archive():
    buffer = io.BytesIO()
    with gzip.GzipFile("name.txt", "wb", fileobj=buffer, mtime=1_700_000_000) as file:
        file.write(b"x")
    with open_archive(io.BytesIO(buffer.getvalue())) as archive:
        assert archive.header["gzip time"] == "2023-11-14T22:13:20Z"
        assert archive.header["gzip name"] == "name.txt"


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "a\\b", "C:/x", "a\0b"])
def test_unsafe_names_are_refused(name):
    data = zip_of(("safe" + "x" * (len(name) - 4) if len(name) > 4 else "s" * len(name), b""))
    placeholder = ("safe" + "x" * (len(name) - 4) if len(name) > 4 else "s" * len(name)).encode()
    with pytest.raises(BadInput, match="unsafe member name"):
        read_all(data.replace(placeholder, name.encode()))


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a/b", "a//b")])
def test_one_name_twice_is_refused(names):
    with pytest.raises(BadInput, match="two members"):
        read_all(zip_of(*((name, b"") for name in names)))


def test_a_file_as_a_folder_is_refused():
    with pytest.raises(BadInput, match="not a folder"):
        read_all(zip_of(("a", b""), ("a/b", b"")))


CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
HOSTILE_ZIPS = {
    "encrypted": (CENTRAL, 8, "<H", 1),
    "unknown compression method": (CENTRAL, 10, "<H", 99),
    "another CRC": (CENTRAL, 16, "<L", 1),
    "shorter than": (CENTRAL, 24, "<L", 4001),
    "longer than": (CENTRAL, 24, "<L", 3999),
    "claims 4000000 bytes from": (CENTRAL, 24, "<L", 4_000_000),
    "damaged central directory": (CENTRAL, 34, "<H", 1),
    "several parts": (b"PK\x05\x06", 8, "<H", 7),
    "another length": (b"PK\x05\x06", 8, "<HH", (0, 0)),
    "headers of 'a' that disagree": (b"PK\x03\x04", 8, "<H", 0),
}


@pytest.mark.parametrize("complaint", HOSTILE_ZIPS)
def test_a_zip_that_lies_is_refused(complaint):
    signature, offset, layout, value = HOSTILE_ZIPS[complaint]
    data = bytearray(zip_of(("a", b"x" * 4000)))
    values = value if isinstance(value, tuple) else (value,)
    struct.pack_into(layout, data, data.rindex(signature) + offset, *values)
    if signature == CENTRAL and offset in (16, 24):  # the local header tells the same lie
        struct.pack_into(layout, data, data.rindex(LOCAL) + offset - 2, *values)
    with pytest.raises(BadInput, match=complaint) as caught:
        read_all(bytes(data), "evil.whl")
    assert "evil.whl" in caught.value.reason
    assert caught.value.remedy


@pytest.mark.parametrize(("offset", "value"), [(6, 0x800), (14, 1), (18, 5), (22, 3999), (26, 0)])
def test_a_local_header_that_disagrees_is_refused(offset, value):
    """Who reads a zip as a stream sees those headers alone."""
    data = zip_of(("\u00e9", b"x" * 4000))
    assert read_all(data)
    with pytest.raises(BadInput, match="two headers of '\u00e9' that disagree"):
        read_all(patched(data, LOCAL, offset, "<H", value ^ (0x800 if offset == 6 else 0)))


def streamed(*members):
    """A zip that was written to a stream: sizes and CRC follow the content of each member (4.3.9)."""

    class Pipe(io.BytesIO):
        def seek(self, *where):
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return pipe.getvalue()


def test_sizes_that_follow_the_content_may_be_zero_in_front_of_it():
    data = streamed(("a", b"x" * 4000))
    assert data[6] & 8
    assert data[14:26] == bytes(12)
    assert read_all(data) == {"a": b"x" * 4000}
    with pytest.raises(BadInput, match="disagree"):
        read_all(patched(data, LOCAL, 22, "<L", 3999))


def commented(comment):
    data = zip_of(("a", b"1"))
    return data[:-2] + struct.pack("<H", len(comment)) + comment


def test_a_comment_is_no_second_end():
    assert read_all(commented(b"a comment")) == {"a": b"1"}
    other = zip_of(("b", b"2"))
    fake = other[-22:]
    for comment in (other, fake, fake + b"!", fake[:-2] + b"\x05\0" + b"x" * 5, END + b"x" * 30):
        with pytest.raises(BadInput, match="a comment that other readers take for the end"):
            read_all(commented(comment))


def test_a_zip64_directory_is_where_its_locator_says(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    data = zip_of(("a", b"hello"), ("b", b"world"))
    assert read_all(b"PK\x03\x04 in front of it" + data) == {"a": b"hello", "b": b"world"}
    for offset in (7, 10**6):
        with pytest.raises(BadInput, match="two zip directories that disagree"):
            read_all(patched(data, b"PK\x06\x07", 8, "<Q", offset))


def with_extra(extra, name="a"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.extra = extra
        archive.writestr(info, b"x")
    return buffer.getvalue()


def test_a_member_has_one_name():
    field = b"\1" + struct.pack("<L", zlib.crc32(b"a"))
    for name, readable in ((b"a", True), (b"b", False), (b"", False)):
        data = with_extra(struct.pack("<HH", 0x7075, 5 + len(name)) + field + name)
        if readable:
            assert read_all(data) == {"a": b"x"}
        else:
            with pytest.raises(BadInput, match="two names for the member 'a'"):
                read_all(data)


def test_a_member_has_one_zip64_field():
    field = struct.pack("<HHQ", 1, 8, 7)
    assert read_all(with_extra(field)) == {"a": b"x"}  # it says nothing that isn't said already
    with pytest.raises(BadInput, match="two sizes of one member"):
        read_all(with_extra(field + field))


def test_a_name_that_no_system_takes_is_refused():
    for name in ("a/" * 2047 + "b", "\u00e9" * 4095):
        assert list(read_all(zip_of((name, b"")))) == [name]
    with pytest.raises(BadInput, match="a member name of 4096 characters"):
        read_all(zip_of(("a" * 4096, b"")))


@pytest.mark.parametrize("names", [("a", "a-", "a/b"), ("a/b", "a/b.c", "a/b/c/d"), ("a/b/c", "a", "a b")])
def test_a_file_is_no_folder_whatever_lies_between(names):
    for order in (names, names[::-1]):
        with pytest.raises(BadInput, match="not a folder"):
            read_all(zip_of(*((name, b"") for name in order)))
    assert len(read_all(zip_of(("a", b""), ("a-/b", b""), ("a.b", b""), ("ab/c", b"")))) == 4


def test_very_many_implied_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("reprobuild.archive.tarred.ENTRY_LIMIT", 20)
    data = tar_bytes([(f"{number}/b/c/d/e/f/g", 0o644, b"") for number in range(3)])
    with pytest.raises(BadInput, match="needs 21 files and folders"):
        extract_tar(io.BytesIO(data), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_in_place_is_a_stream_like_any_other(kind):
    """Whatever else moves the archive's own position meanwhile."""
    data = bytes(range(256)) * 9000
    files = {"a": b"before", "b": data, "c": b"behind"}
    packed = (
        zip_of(*files.items(), compression=zipfile.ZIP_STORED)
        if kind == "zip"
        else tar_bytes([(name, 0o644, content) for name, content in files.items()])
    )
    with open_archive(io.BytesIO(packed)) as archive:
        first, entry, _ = archive.entries
        place, like = archive.in_place(entry), io.BytesIO(data)
        assert place is not None
        for offset, whence, size in [(5, 0, 9), (7, 1, 70_000), (-9, 2, 99), (-3, 1, 2), (0, 0, -1), (9, 2, 5)]:
            assert place.seek(offset, whence) == like.seek(offset, whence)
            assert archive.open(first).read() == b"before"
            assert place.read(size) == like.read(size)
            assert place.tell() == like.tell()
        assert place.raw.seek(3) == 3  # type: ignore[attr-defined]
        assert place.raw.seek(4, io.SEEK_CUR) == 7  # type: ignore[attr-defined]
        assert place.raw.read(2) == data[7:9]  # type: ignore[attr-defined]


def test_what_is_compressed_is_in_no_place():
    for data in (zip_of(("a", b"x" * 99)), gzip.compress(tar_bytes()), gzip.compress(b"text")):
        with open_archive(io.BytesIO(data)) as archive:
            assert {archive.in_place(entry) for entry in archive.entries if entry.kind == "file"} == {None}


@pytest.mark.parametrize("more", [b"!", bytes(3 << 20)], ids=["a byte", "more than is read at once"])
def test_compressed_bytes_that_go_on_after_their_end_are_refused(more):
    """Such a member can carry what no reader unpacks."""
    content = b"x" * 4000
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(content) + packer.flush() + more
    data = bytearray(zip_of(("a", packed), compression=zipfile.ZIP_STORED))
    for signature, method, sizes in ((LOCAL, 8, 14), (CENTRAL, 10, 16)):
        at = data.rindex(signature)
        struct.pack_into("<H", data, at + method, 8)
        struct.pack_into("<LLL", data, at + sizes, zlib.crc32(content), len(packed), len(content))
    with pytest.raises(BadInput, match=r"after its end|no proper end"):
        read_all(bytes(data))


def test_what_unpacks_to_more_than_it_declares_is_not_unpacked_to_its_end():
    data = zip_of(("a", bytes(50 << 20)))
    for signature, offset in ((LOCAL, 22), (CENTRAL, 24)):
        data = patched(data, signature, offset, "<L", 100_000)
    read = 0
    with open_archive(io.BytesIO(data)) as archive, pytest.raises(BadInput, match="longer than the 100000 bytes"):  # noqa: PT012
        for chunk in archive.chunks(archive.entries[0]):
            read += len(chunk)
    assert read <= 100_000


def test_overlapping_members_are_refused():
    data = zip_of(("a", b"x" * 100), ("b", b"y" * 100), compression=zipfile.ZIP_STORED)
    with pytest.raises(BadInput, match="overlap"):
        read_all(patched(data, CENTRAL, 42, "<L", 0))


def test_a_zip_that_goes_on_after_its_end_is_not_called_truncated():
    with pytest.raises(BadInput, match="goes on after its end"):
        read_all(zip_of(("a", b"x" * 4000)) + b"more")


def test_truncated_archives_are_refused():
    zipped, tar = zip_of(("a", b"x" * 4000)), tar_bytes()
    for data in (zipped[:-10], zipped[:50], tar[:1000], tar[:2048], gzip.compress(tar)[:-9]):
        with pytest.raises(BadInput):
            read_all(data)


def test_a_plain_file_named_as_a_wheel_is_refused(tmp_path):
    path = tmp_path / "x.whl"
    path.write_bytes(b"not a zip")
    with pytest.raises(BadInput, match="not a zip file, though"), open_archive(path):
        pass
    with pytest.raises(BadInput, match="can't be read"), open_archive(tmp_path / "none.whl"):
        pass


def test_too_much_declared_content_is_refused():
    for data in (zip_of(("a", b"x" * 4000)), tar_bytes(), gzip.compress(b"x" * 4000)):
        with pytest.raises(BadInput), open_archive(io.BytesIO(data), size_limit=20):
            pass


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", ""])
def test_a_link_that_leads_outside_is_refused(target):
    data = tar_of(("link", tarfile.SYMTYPE, target))
    with pytest.raises(BadInput, match="leads outside"):
        read_all(data)


def test_a_root_file_system_may_hold_what_a_wheel_may_not():
    data = tar_of(("sh", tarfile.SYMTYPE, "/usr/bin/dash"), ("system-a\\x2db.slice", tarfile.REGTYPE, ""))
    with open_archive(io.BytesIO(data), names="posix") as archive:
        assert [entry.target for entry in archive.entries] == ["/usr/bin/dash", ""]


def test_bytes_after_the_end_of_a_tar_are_refused():
    with pytest.raises(BadInput, match="more bytes after the end"):
        read_all(tar_bytes() + b"hidden".ljust(512, b"\0"))


def test_a_damaged_header_in_the_middle_of_a_tar_is_refused():
    data = bytearray(tar_bytes())
    data[512 + 148 : 512 + 156] = b"garbage!"  # tarfile would take this for the end of the archive
    with pytest.raises(BadInput, match="damaged"):
        read_all(bytes(data))


def test_the_written_tar_never_changes():
    digest = hashlib.sha256(tar_bytes()).hexdigest()
    assert digest == "e2d22ce1672c632326caf7d6c2c1537fad635cc529f77d874871fd89c669f071"


def test_the_writer_refuses_what_the_reader_would():
    for members in ([("../a", 0, b"")], [("a", 0, b""), ("./a", 0, b"")]):
        with pytest.raises(BadInput):
            tar_bytes(members)


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_unpacking_sets_modes_and_times_exactly(tmp_path, umask, order):
    before = os.umask(umask)
    try:
        extract_tar(io.BytesIO(tar_bytes()), tmp_path, order=order)
    finally:
        os.umask(before)
    found = {
        path.relative_to(tmp_path).as_posix(): (stat.S_IMODE(path.lstat().st_mode), path.lstat().st_mtime)
        for path in tmp_path.rglob("*")
        if not path.is_symlink()
    }
    time = 1_700_000_000
    modes = {"pkg": 0o755, "pkg/a.py": 0o644, "pkg/run": 0o755, "n" * 150: 0o644}
    assert found == {name: (mode, time) for name, mode in modes.items()}
    assert (tmp_path / "link").readlink() == Path("pkg/a.py")
    assert (tmp_path / "link").read_bytes() == b"a = 1\n"
    assert (tmp_path.stat().st_mtime, (tmp_path / "link").lstat().st_mtime) == (time, time)


@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_names_are_created_in_the_given_order(tmp_path, monkeypatch, order):
    created: list[Path] = []

    def recording(original):
        def record(self, *args, **options):
            created.append(self)
            return original(self, *args, **options)

        return record

    for maker in ("mkdir", "touch", "symlink_to"):
        monkeypatch.setattr(Path, maker, recording(getattr(Path, maker)))
    names = ["b/2", "a", "b/1", "c", "b/3"]
    extract_tar(io.BytesIO(tar_bytes([(name, 0o644, b"") for name in names])), tmp_path, order=order)
    for folder in (tmp_path, tmp_path / "b"):
        inside = [path.name for path in created if path.parent == folder]
        assert inside == sorted(inside, reverse=order == "reversed")
        assert len(inside) == 3


@pytest.mark.parametrize(
    "infos",
    [
        [("null", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("hard", tarfile.LNKTYPE, "../outside")],
        [("hard", tarfile.LNKTYPE, "missing")],
        [("out", tarfile.SYMTYPE, ".."), ("out/file", tarfile.REGTYPE, "")],
        [("in", tarfile.SYMTYPE, "d"), ("d", tarfile.DIRTYPE, ""), ("in/file", tarfile.REGTYPE, "")],
    ],
)
def test_unpacking_refuses_escapes(tmp_path, infos):
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(BadInput):
        extract_tar(io.BytesIO(tar_of(*infos)), inside)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_hard_link_becomes_a_copy(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("z")
        info.size, info.mode = 2, 0o755
        archive.addfile(info, io.BytesIO(b"hi"))
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.LNKTYPE, "z"
        archive.addfile(link)
    extract_tar(buffer, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"hi"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


def test_unpacking_needs_an_empty_folder(tmp_path):
    (tmp_path / "here").touch()
    with pytest.raises(WriteFailed, match="not empty"):
        extract_tar(io.BytesIO(tar_bytes()), tmp_path)


@pytest.fixture(params=["isal", "zlib in its place", "zlib"])
def inflater(request, monkeypatch):
    """Makes what inflates: by ISA-L, by what is there where ISA-L isn't, and by zlib."""
    zipped._fast_library.cache_clear()
    if request.param == "zlib in its place":
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    yield lambda: Inflater(fast=request.param != "zlib")
    zipped._fast_library.cache_clear()


def inflated(inflater, raw, step=1000):
    one = inflater()
    pieces = [piece for at in range(0, len(raw), step) for piece in one.feed(raw[at : at + step])]
    return [*pieces, *one.end()]


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_inflates_in_pieces(inflater, level):
    data = random.Random(level).randbytes(3000) + bytes(3 << 20) + b"end"
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    pieces = inflated(inflater, compressor.compress(data) + compressor.flush())
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize(
    "raw",
    [
        deflate(b"content" * 99)[:-3],
        deflate(b"content" * 99) + b"more",
        b"",
        b"\xff" * 40,
        b"\x05" + deflate(b"content"),
        deflate(b"a") + deflate(b"b"),
    ],
    ids=["cut", "followed", "empty", "no such block", "far back", "two"],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_a_stream_that_is_not_sound_is_refused(inflater, raw, step):
    with pytest.raises((ValueError, zlib.error)):
        inflated(inflater, raw, step)


def test_isal_is_what_inflates_where_it_is_there():
    zipped._fast_library.cache_clear()
    assert zipped._fast_library().__name__ == "isal.isal_zlib"
