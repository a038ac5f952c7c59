"""Layers as bytes: golden digests, hostile wheels, and what real tools say of them."""

import base64
import gzip
import hashlib
import io
import random
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from reprobuild.archive import open_archive
from reprobuild.archive import zstd as zstd_library
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, WriteFailed
from reprobuild.oci.delta import Recorder
from reprobuild.oci.layer import GZIP_LEVEL, Compression, tar_header, write_again, write_layer
from reprobuild.oci.tree import WHEEL_TIME, Deflated, Node, OnDisk, Text, wheel_content

zstd = zstd_library()
each_compression = pytest.mark.parametrize("compression", Compression, ids=lambda each: each.value)
#: A deflate stream that doesn't depend on the compressor of this machine, and what it holds.
HELLO = bytes.fromhex("cb48cdc9c9d751c849ac4c2d2ae6caa0330f00")
SENTENCE = b"hello, layers\n" * 9


@dataclass(frozen=True)
class Member:
    """A member of a zip with every field in our hands."""

    name: str
    content: bytes
    raw: bytes | None = None
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    mode: int = 0o100644
    zip64: bool = False


def deflate(data, level=6):
    deflater = zlib.compressobj(level, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


def wheel(path, *members):
    """Write a zip as APPNOTE.TXT has it; with flag 8 sizes and check sum follow the content."""
    out, directory = bytearray(), bytearray()
    for each in members:
        raw = each.content if each.raw is None else each.raw
        crc = zlib.crc32(each.content) if each.crc is None else each.crc
        size = len(each.content) if each.size is None else each.size
        name, offset = each.name.encode(), len(out)
        known = (0, 0, 0) if each.flags & 8 else (crc, len(raw), size)
        extra = b""
        if each.zip64:
            extra = struct.pack("<HHQQ", 1, 16, size, len(raw))
            known = (crc, 0xFFFFFFFF, 0xFFFFFFFF)
        start = (45, each.flags | 0x800, each.method, 0, 0x21)
        out += struct.pack("<4s5H3L2H", b"PK\3\4", *start, *known, len(name), len(extra)) + name + extra + raw
        if each.flags & 8:
            out += struct.pack("<4s3L", b"PK\7\10", crc, len(raw), size)
        sizes = (0xFFFFFFFF, 0xFFFFFFFF) if each.zip64 else (len(raw), size)
        directory += (
            struct.pack("<4s2B", b"PK\1\2", 45, 3) + struct.pack("<5H", *start) + struct.pack("<3L", crc, *sizes)
        )
        directory += struct.pack("<5H2L", len(name), len(extra), 0, 0, 0, each.mode << 16, offset) + name + extra
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(members), len(members), len(directory), len(out), 0)
    path.write_bytes(out + directory + end)
    return path


def nodes_of(path, prefix="opt/venv/", record=""):
    with open_archive(path) as archive:
        files = [entry for entry in archive.entries if entry.kind == "file"]
    return [
        Node(prefix + entry.name, "file", entry.mode & 0o777, WHEEL_TIME, content=wheel_content(path, entry, record))
        for entry in files
    ]


def written(nodes, compression=Compression.SPLICE, **more):
    out = io.BytesIO()
    layer = write_layer(nodes, out, compression, **more)
    assert layer.descriptor.digest == Digest.of_bytes(out.getvalue())
    assert layer.descriptor.size == len(out.getvalue())
    return layer, out.getvalue()


def unpacked(data, compression):
    return zstd.decompress(data) if compression is Compression.ZSTD else gzip.decompress(data)


def held(tar, name):
    """The content of a file in a tar."""
    return tar.extractfile(name).read()


def sample(folder):
    """Nodes of every kind, and a wheel whose bytes are the same everywhere."""
    path = wheel(
        folder / "sample-1.0-py3-none-any.whl",
        Member("sample/hello.txt", SENTENCE, HELLO, 8),
        Member("sample/empty.py", b""),
        Member("sample/stored.bin", bytes(range(256)) * 3),
        Member("sample/run", b"#!/bin/sh\n", b"\x01\x0a\x00\xf5\xff#!/bin/sh\n", 8, mode=0o100755),
        Member("sample/described", SENTENCE, HELLO, 8, flags=8),
        Member("sample/wide", SENTENCE, HELLO, 8, zip64=True),
    )
    return [
        *nodes_of(path),
        Node("opt", "directory", 0o755, WHEEL_TIME),
        Node("opt/venv", "directory", 0o755, WHEEL_TIME),
        Node("opt/venv/bin/python", "symlink", 0o777, WHEEL_TIME, target="/usr/bin/python3"),
        Node("opt/venv/pyvenv.cfg", "file", 0o644, 1_700_000_000, 1000, 100, content=Text(b"home = /usr/bin\n")),
        Node("srv/" + "long/" * 40 + "name", "file", 0o600, 0, content=Text(b"needs no PAX record: x")),
        Node("srv/" + "n" * 120, "file", 0o4755, -1, 1 << 22, content=Text(b"\0" * 70_000)),
        Node("srv/é", "symlink", 0o777, 0, target="ü" * 60),
    ]


def test_a_recorded_layer_is_written_again_without_its_nodes(tmp_path):
    noise = random.Random(1).randbytes(3 << 20)  # more than a buffer, and than a batch
    other = wheel(tmp_path / "other-1.0-py3-none-any.whl", Member("other/large", noise, deflate(noise), 8))
    nodes = [*sample(tmp_path), *nodes_of(other)]
    wheels = [other, *tmp_path.glob("sample*.whl")]
    assert len(wheels) == 2
    recorder = Recorder(wheels)
    layer, data = written(nodes, recorder=recorder)
    assert recorder.delta
    assert len(bytes(recorder.delta.own)) < 80_000 < len(noise)
    again = io.BytesIO()
    assert write_again(recorder.delta, wheels, again, layer.descriptor.size) == layer.descriptor.digest
    assert again.getvalue() == data
    changed = bytearray(other.read_bytes())
    changed[1000] ^= 1
    other.write_bytes(changed)
    assert write_again(recorder.delta, wheels, io.BytesIO(), layer.descriptor.size) != layer.descriptor.digest


@pytest.mark.parametrize("compression", Compression)
def test_thousands_of_small_files_take_little_memory(tmp_path, compression):
    """Each stream that is inflated has a window of its own; not all of those that wait for their turn."""
    content = b"x = 1\n"
    members = [Member(f"a/{number}.py", content, deflate(content), 8) for number in range(5000)]
    nodes = nodes_of(wheel(tmp_path / "small-1.0-py3-none-any.whl", *members))
    tracemalloc.start()
    try:
        write_layer(nodes, io.BytesIO(), compression)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20


GOLDEN_TAR = "sha256:7cf14fc89e938a57369563143ab41281a47b5b77c4e53fbce4972a08a697abd4"
GOLDEN_SPLICE = "sha256:7db1ecd566bc4ec2f5b71b928937e66bffd27f41864f84cf47541d09e3b3fcea"
#: By the version of libzstd: a new one needs a look at what it changes for those who rebuild.
GOLDEN_ZSTD = {"1.5.7": "sha256:359d3b2f70d641d7d753b1e7a6ddb9d580a0ba7a7616f829abf30738a9d0a7a4"}


def test_the_same_nodes_give_the_same_bytes_everywhere(tmp_path):
    layer, _ = written(sample(tmp_path))
    assert str(layer.diff_id) == GOLDEN_TAR
    assert str(layer.descriptor.digest) == GOLDEN_SPLICE
    assert layer.descriptor.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"


def test_zstd_gives_the_bytes_of_its_version(tmp_path):
    layer, data = written(sample(tmp_path), Compression.ZSTD)
    assert str(layer.descriptor.digest) == GOLDEN_ZSTD[zstd.zstd_version]
    assert layer.descriptor.media_type == "application/vnd.oci.image.layer.v1.tar+zstd"
    assert str(Digest.of_bytes(zstd.decompress(data))) == GOLDEN_TAR
    assert Compression.ZSTD.decided_by()["zstd"] == zstd.zstd_version


def test_gzip_gives_the_bytes_of_its_zlib(tmp_path):
    layer, data = written(sample(tmp_path), Compression.GZIP)
    tar = gzip.decompress(data)
    deflater = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    assert data == deflater.compress(tar) + deflater.flush()
    assert data[4:8] == bytes(4)  # no time
    assert str(Digest.of_bytes(tar)) == str(layer.diff_id) == GOLDEN_TAR
    assert Compression.GZIP.decided_by() == {
        "compression": "gzip",
        "layout": 1,
        "level": 6,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


@each_compression
def test_a_known_diff_id_changes_no_byte(tmp_path, compression):
    first = written(sample(tmp_path), compression)
    assert written(sample(tmp_path), compression, diff_id=first[0].diff_id) == first
    assert first[0].tar_size == len(unpacked(first[1], compression))


def test_deflate_streams_are_taken_as_they_are(tmp_path):
    noise = hashlib.sha512(b"noise").digest() * 400
    streams = [deflate(noise, level) for level in (1, 6, 9)]
    members = [Member(f"pkg/{number}", noise, raw, 8) for number, raw in enumerate(streams)]
    _, data = written(nodes_of(wheel(tmp_path / "a.zip", *members)))
    assert all(raw in data for raw in streams)
    assert len(data) < sum(map(len, streams)) + 150 * (len(streams) + 1)


def test_what_deflates_very_well_comes_back_whole(tmp_path):
    large = bytes(5_000_000)
    layer, data = written(nodes_of(wheel(tmp_path / "a.zip", Member("a", large, deflate(large), 8)), ""))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert held(tar, "a") == large
    assert layer.diff_id == Digest.of_bytes(gzip.decompress(data))


def test_headers_cost_little():
    nodes = [Node(f"pkg/module{number}.py", "file", 0o644, WHEEL_TIME, content=Text(b"x")) for number in range(2000)]
    layer, _ = written(nodes)
    assert layer.tar_size > 2000 * 1024
    assert layer.descriptor.size < 2000 * 110


def test_many_headers_in_a_row_are_cut_into_members():
    nodes = [Node(f"folder{number}", "directory", 0o755, 0) for number in range(1000)]
    _, data = written([*nodes, Node("folder999/file", "file", 0o644, 0, content=Text(b"x" * 200_000))])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len(tar.getmembers()) == 1001
        assert held(tar, "folder999/file") == b"x" * 200_000
    assert data.count(b"\x1f\x8b\x08\0\0\0\0\0\0\xff") == 8  # one for each 64 KiB of headers, rounded up


@pytest.mark.parametrize("diff_id", [None, Digest.of_bytes(b"known")], ids=["checked", "known"])
def test_content_that_is_not_deflated_is_stored(tmp_path, diff_id):
    import bz2  # noqa: PLC0415 - here alone

    data = bytes(range(256)) * 700
    path = wheel(tmp_path / "a.zip", Member("a", data, bz2.compress(data), 12), Member("b", data))
    (tmp_path / "file").write_bytes(data)
    nodes = [*nodes_of(path, ""), Node("c", "file", 0o644, 0, content=OnDisk(tmp_path / "file", len(data)))]
    _, out = written(nodes, diff_id=diff_id)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert [held(tar, name) == data for name in "abc"] == [True] * 3


HOSTILE = {
    "another check sum": Member("m", SENTENCE, HELLO, 8, crc=1),
    "longer than it says": Member("m", SENTENCE, HELLO, 8, size=125),
    "shorter than it says": Member("m", SENTENCE, HELLO, 8, size=127),
    "bytes behind its end": Member("m", SENTENCE, HELLO + b"\0", 8),
    "another member behind its end": Member("m", SENTENCE, HELLO + HELLO, 8),
    "cut": Member("m", SENTENCE, HELLO[:-2], 8),
    "no end": Member("m", b"x", b"\x00\x01\x00\xfe\xffx", 8),
    "no deflate stream": Member("m", SENTENCE, b"\x07" * 20, 8),
    "an empty file of some bytes": Member("m", b"", HELLO, 8, crc=0),
    "stored, with another check sum": Member("m", SENTENCE, crc=1),
    "large, and wrong at its end": Member("m", b"\0" * 5_000_000, deflate(b"\0" * 4_999_999 + b"\1"), 8),
}


@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "recorded", [False, True], ids=["without a hash", "with a hash"]
)  # what inflates depends on it
@each_compression
def test_refuses_a_wheel_with(tmp_path, member, compression, recorded):
    path = wheel(tmp_path / "a.zip", Member("a", SENTENCE, HELLO, 8), member, Member("z", SENTENCE, HELLO, 8))
    sound = {
        name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        for name, data in (("a", SENTENCE), ("m", member.content), ("z", SENTENCE))
    }
    nodes = [
        node for name in sound for node in nodes_of(path, "", f"sha256={sound[name]}" * recorded) if node.path == name
    ]
    with pytest.raises(BadInput, match="'m'"):
        written(nodes, compression)


@pytest.mark.parametrize(
    "member",
    [
        Member("m", SENTENCE, HELLO, 9),
        Member("m", SENTENCE, HELLO, 14),
        Member("m", SENTENCE, HELLO, 8, flags=1),
        Member("../m", SENTENCE, HELLO, 8),
        Member("m", SENTENCE, HELLO, 8, size=1 << 31),
    ],
    ids=["deflate64", "lzma", "encrypted", "outside", "a bomb"],
)
def test_such_a_wheel_is_not_even_opened(tmp_path, member):
    with pytest.raises(BadInput):
        nodes_of(wheel(tmp_path / "a.zip", member))


def test_a_wheel_that_was_replaced_is_refused(tmp_path):
    nodes = nodes_of(wheel(tmp_path / "a.zip", Member("m", SENTENCE, HELLO, 8)))
    wheel(tmp_path / "a.zip", Member("n", SENTENCE, HELLO, 8))
    with pytest.raises(BadInput, match="disagree"):
        written(nodes)
    (tmp_path / "a.zip").unlink()
    with pytest.raises(BadInput, match=r"a\.zip"):
        written(nodes)


class _Lying:
    size = 3

    def __init__(self, *pieces, deflated=None):
        self._pieces, self._deflated = pieces, deflated

    def chunks(self):
        return iter(self._pieces)

    def deflated(self):
        return self._deflated


@pytest.mark.parametrize(
    "content",
    [
        _Lying(b"ab"),
        _Lying(b"ab", b"cd"),
        _Lying(),
        _Lying(b"abc", deflated=Deflated(zlib.crc32(b"abcd"), 4, len(deflate(b"abcd")), [deflate(b"abcd")])),
        _Lying(b"abc", deflated=Deflated(zlib.crc32(b"abc"), 3, 9, [deflate(b"abc")])),
    ],
    ids=["short", "long", "empty", "another size", "another size of the stream"],
)
def test_refuses_content_of_another_size(content):
    with pytest.raises(BadInput, match="'m'"):
        written([Node("m", "file", 0o644, 0, content=content)])


def test_a_stream_without_an_end_is_left_early():
    taken = 0

    def raw():
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"\0\xff\xff\0\0" + bytes(0xFFFF)  # a stored block, and more to come

    content = _Lying(b"abc", deflated=Deflated(0, 3, 9, raw()))
    with pytest.raises(BadInput, match="'m'"):
        written([Node("m", "file", 0o644, 0, content=content)])
    assert taken < 200


def test_a_compressor_gets_even_pieces(monkeypatch):
    class Recorder:
        def __init__(self):
            self.sizes = []

        def compress(self, data):
            self.sizes.append(len(data))
            return data

        def flush(self):
            return b""

    recorder = Recorder()
    monkeypatch.setattr("reprobuild.oci.layer._compressor", lambda _: recorder)
    nodes = [Node(name, "file", 0o644, 0, content=Text(b"x" * 70_001)) for name in "abc"]
    layer, tar = written(nodes, Compression.GZIP)
    assert layer.diff_id == Digest.of_bytes(tar)
    assert recorder.sizes == [1 << 16] * 3 + [layer.tar_size - (3 << 16)]


def file(path, **more):
    return Node(path, "file", 0o644, 0, content=Text(b""), **more)


@pytest.mark.parametrize(
    "nodes",
    [
        [file("a"), file("a")],
        [file("a"), Node("a", "directory", 0o755, 0)],
        [file("/a")],
        [file("a/../b")],
        [file("..")],
        [file("./a")],
        [file("a//b")],
        [file("a/")],
        [file("")],
        [file("a\0b")],
        [file("a/.wh.b")],
        [file(".wh..wh..opq")],
        [file("a/\udcff")],
        [file("a"), file("a-b"), file("a/b")],
        [Node("a", "symlink", 0o777, 0, target="/tmp"), file("a/b")],
        [Node("a", "symlink", 0o777, 0)],
        [Node("a", "symlink", 0o777, 0, target="b\0c")],
        [Node("a", "file", 0o644, 0)],
        [Node("a", "directory", 0o755, 0, content=Text(b""))],
        [file("a", target="b")],
    ],
    ids=repr,
)
@each_compression
def test_refuses_nodes_that_no_layer_may_have(nodes, compression):
    out = io.BytesIO()
    with pytest.raises(BadInput):
        write_layer(nodes, out, compression)
    assert out.getvalue() == b""


def test_parents_come_first_whatever_sorts_before_them():
    folders = [Node(path, "directory", 0o755, 0) for path in ("a/b", "a-b", "a", "a.c", "a/b/c")]
    _, data = written([file("a/b/c/d"), *folders])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["a", "a/b", "a/b/c", "a/b/c/d", "a-b", "a.c"]


def test_pax_records_are_there_only_where_ustar_ends():
    def has_pax(**more):
        header = tar_header(Node(**{"path": "a", "kind": "file", "mode": 0, "mtime": 0, **more}))
        tarfile.TarInfo.frombuf(header[-512:], "ascii", "strict")  # it has a right check sum
        return len(header) > 512

    assert not has_pax(path="d" * 155 + "/" + "n" * 100, uid=0o7777777, mtime=0o77777777777)
    assert not has_pax(kind="directory", path="n" * 99)
    assert not has_pax(kind="symlink", target="t" * 100)
    assert not has_pax(content=OnDisk(Path("x"), (8 << 30) - 1))
    assert has_pax(path="d" * 156 + "/" + "n" * 99)
    assert has_pax(path="n" * 101)
    assert has_pax(kind="directory", path="n" * 100)
    assert has_pax(kind="symlink", target="t" * 101)
    assert has_pax(content=OnDisk(Path("x"), 8 << 30))
    assert has_pax(path="é")
    assert has_pax(uid=0o10000000)
    assert has_pax(mtime=-1)
    info = tarfile.TarInfo.frombuf(tar_header(file("d" * 155 + "/" + "n" * 100)), "ascii", "strict")
    assert info.name == "d" * 155 + "/" + "n" * 100


@each_compression
def test_a_full_disk_is_an_error_of_its_own(tmp_path, compression):
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(WriteFailed, match="No space"):
        write_layer(sample(tmp_path), cast("BinaryIO", full), compression)


def test_a_full_disk_is_the_same_error_for_a_known_layer():
    recorder = Recorder([])
    recorder.wrote(b"a layer")
    assert recorder.delta
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(WriteFailed, match="No space"):
        write_again(recorder.delta, [], cast("BinaryIO", full), 7)


@pytest.mark.parametrize("size", [6, 8])
def test_a_known_layer_of_another_size_is_not_begun(size):
    recorder = Recorder([])
    recorder.wrote(b"a layer")
    stream = io.BytesIO()
    assert recorder.delta
    with pytest.raises(BadInput, match="gives 7 bytes"):
        write_again(recorder.delta, [], stream, size)
    assert not stream.getvalue()


def test_no_thread_is_left_behind(tmp_path):
    before = threading.active_count()
    path = wheel(tmp_path / "a.zip", HOSTILE["large, and wrong at its end"])
    with pytest.raises(BadInput):
        written(nodes_of(path))
    assert threading.active_count() == before


def test_several_threads_may_read_one_wheel(tmp_path):
    contents = [hashlib.sha256(bytes([number])).digest() * 9000 for number in range(8)]
    members = [Member(f"m{number}", data, deflate(data), 8) for number, data in enumerate(contents)]
    nodes = nodes_of(wheel(tmp_path / "a.zip", *members), "")
    expected = written(nodes)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: written(nodes), range(12))) == [expected] * 12


MEASURED = """
import sys
from pathlib import Path
from typing import BinaryIO, cast
from reprobuild.archive import open_archive
from reprobuild.archive import zstd as zstd_library
from reprobuild.oci.layer import Compression, write_layer
from reprobuild.oci.tree import Node, wheel_content
path = Path(sys.argv[1])
with open_archive(path) as archive:
    nodes = [Node(e.name, "file", 0o644, 0, content=wheel_content(path, e)) for e in archive.entries]
def peak():  # ru_maxrss would count the process that started this one
    return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])
before = peak()
with open("/dev/null", "wb") as out:
    layer = write_layer(nodes, out, Compression(sys.argv[2]))
assert layer.tar_size > 200_000_000
print(peak() - before)
"""


def repeated(data, times, strategy):
    """A member that holds the same again and again: a deflate stream of blocks that need nothing before them."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, -15, 9, strategy)
    unit, crc = deflater.compress(data) + deflater.flush(zlib.Z_FULL_FLUSH), 0
    for _ in range(times):
        crc = zlib.crc32(data, crc)
    return Member("large", b"", unit * times + b"\3\0", 8, crc=crc, size=times * len(data))


def growth(path, compression):
    """KiB of memory that writing a layer of a wheel takes."""
    command = [sys.executable, "-c", MEASURED, str(path), compression.value]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


@each_compression
def test_memory_stays_small_whatever_the_size_of_a_member(tmp_path, compression):
    large = repeated(bytes(1_000_000), 150, zlib.Z_DEFAULT_STRATEGY)
    path = wheel(tmp_path / "a.zip", large, Member("stored", bytes(110_000_000)))
    assert growth(path, compression) < 40_000


def test_memory_stays_small_where_reading_is_faster_than_inflating(tmp_path):
    noise = bytes(value & 63 for value in random.Random(1).randbytes(1_000_000))
    path = wheel(tmp_path / "a.zip", repeated(noise, 250, zlib.Z_HUFFMAN_ONLY))
    assert path.stat().st_size > 150_000_000
    assert growth(path, Compression.SPLICE) < 40_000


@pytest.mark.parametrize("compression", [Compression.SPLICE, Compression.GZIP])
def test_other_tools_read_it(tmp_path, compression):
    _, data = written(sample(tmp_path), compression)
    path = tmp_path / "layer.tar.gz"
    path.write_bytes(data)
    subprocess.run(["gzip", "-t", str(path)], check=True)
    listed = subprocess.run(
        ["tar", "-tzf", str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    names = {node.path + "/" * (node.kind == "directory") for node in sample(tmp_path)}
    assert listed.stderr == ""
    assert len(listed.stdout.splitlines()) == len(names)
    assert {name for name in names if name.isascii()} <= set(listed.stdout.splitlines())
    to = tmp_path / "out"
    to.mkdir()
    subprocess.run(["tar", "-xzf", str(path), "-C", str(to), "--no-same-owner"], check=True)
    assert (to / "opt/venv/sample/wide").read_bytes() == SENTENCE
    assert (to / "opt/venv/sample/run").stat().st_mode & 0o777 == 0o755
    assert (to / "srv" / ("n" * 120)).read_bytes() == b"\0" * 70_000
    assert (to / "srv/é").readlink() == Path("ü" * 60)
