"""Wheels beyond what a zip could hold before Zip64, and wheels of very many members: exact, and in little memory.

The large ones are sparse: the zeros of a stored member are a hole, so they cost no room and are quick to make.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
#: What a comparison may need, in MiB; the interpreter and its modules alone have some 40.
MEMORY = 300
INFO = "huge-1.0.dist-info"
#: The process tells its own high-water mark: the one that wait4 gives counts what its parent had at the fork.
RUN = """
import sys
import time
from pathlib import Path
from reprobuild.__main__ import main
try:
    main()
finally:
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    print("peak", int(peak) // 1024, time.process_time(), file=sys.stderr)
"""


@dataclass
class Ran:
    """How a command ended: its exit code, JSON, messages, the most memory that it had (MiB), its seconds of CPU."""

    code: int
    json: Any
    stderr: str
    peak: int
    cpu: float


def run(*arguments: str | Path) -> Ran:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    said, told, measured = done.stderr.rpartition("peak ")
    assert told, done.stderr
    peak, cpu = measured.split()
    return Ran(done.returncode, json.loads(done.stdout) if done.stdout else None, said, int(peak), float(cpu))


# --- a writer of sparse Zip64 files ------------------------------------------------------------------


def crc_of_zeros(count: int, before: int = 0) -> int:
    """The CRC after ``count`` more zero bytes: one is a linear map of 32 bits, raised by squaring."""
    step = [zlib.crc32(b"\0", 1 << bit ^ 0xFFFFFFFF) ^ 0xFFFFFFFF for bit in range(32)]

    def times(matrix: list[int], vector: int) -> int:
        result = 0
        for bit in range(32):
            if vector >> bit & 1:
                result ^= matrix[bit]
        return result

    assert count >= 0
    state = before ^ 0xFFFFFFFF
    while count:
        if count & 1:
            state = times(step, state)
        step = [times(step, column) for column in step]
        count >>= 1
    return state ^ 0xFFFFFFFF


@dataclass
class Sparse:
    """One member: bytes at some places, zeros everywhere else. Stored."""

    name: str
    size: int
    data: dict[int, bytes] = field(default_factory=dict)

    @property
    def crc(self) -> int:
        crc = at = 0
        for start, data in sorted(self.data.items()):
            crc = zlib.crc32(data, crc_of_zeros(start - at, crc))
            at = start + len(data)
        return crc_of_zeros(self.size - at, crc)


def write_zip64(path: Path, members: list[Sparse], *, descriptors: bool = False, time: int = 0) -> None:
    """A zip whose members all have Zip64 extra fields, small ones too; optionally with 8-byte data descriptors."""
    flags, high = (8 if descriptors else 0), 0xFFFFFFFF
    directory = b""
    with path.open("wb") as file:
        for member in members:
            name, crc, size, offset = member.name.encode(), member.crc, member.size, file.tell()
            fixed = struct.pack("<HHHH", flags, 0, time, 0x21)
            local_crc, local_size = (0, 0) if descriptors else (crc, size)
            file.write(b"PK\x03\x04" + struct.pack("<H", 45) + fixed)
            file.write(struct.pack("<LLLHH", local_crc, high, high, len(name), 20) + name)
            file.write(struct.pack("<HHQQ", 1, 16, local_size, local_size))
            start = file.tell()
            for at, data in member.data.items():
                file.seek(start + at)
                file.write(data)
            file.seek(start + size)
            if descriptors:
                file.write(struct.pack("<4sLQQ", b"PK\x07\x08", crc, size, size))
            directory += b"PK\x01\x02" + struct.pack("<BBH", 45, 3, 45) + fixed
            directory += struct.pack("<LLLHHHHHLL", crc, high, high, len(name), 28, 0, 0, 0, 0o100644 << 16, high)
            directory += name + struct.pack("<HHQQQ", 1, 24, size, size, offset)
        start, count = file.tell(), len(members)
        file.write(directory)
        end = file.tell()
        file.write(struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start))
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1))
        file.write(struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, high, high, 0))


def test_the_sparse_writer_writes_what_zipfile_reads(tmp_path):
    members = [Sparse("a", 70_000, {5: b"x", 66_000: b"yz"}), Sparse("b", 0), Sparse("c", 3, {0: b"end"})]
    for descriptors in (False, True):
        write_zip64(tmp_path / "small.zip", members, descriptors=descriptors)
        with zipfile.ZipFile(tmp_path / "small.zip") as archive:
            assert archive.testzip() is None
            assert archive.read("a") == bytes(5) + b"x" + bytes(65_994) + b"yz" + bytes(3_998)
            assert archive.read("c") == b"end"


# --- more than 4 GiB -----------------------------------------------------------------------------------

#: Where the two large members differ in one byte.
DEEP = 4 * GIB + 12_345


def large(changed: dict[str, dict[int, bytes]]) -> list[Sparse]:
    """Members of which the first has over 4 GiB, and the others come after it; some with other bytes."""
    members = [
        Sparse("huge/weights.bin", 4 * GIB + 200_000, {0: b"magic", DEEP - 40: b"not a text"}),
        *(Sparse(f"huge/part{number}.py", 9, {0: b"x = 10000"}) for number in range(50)),
        Sparse(f"{INFO}/WHEEL", 19, {0: b"Wheel-Version: 1.0\n"}),
    ]
    for member in members:
        member.data = member.data | changed.get(member.name, {})
    return members


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder where reading a hole costs no memory for caching it, if there is one."""
    shared = "/dev/shm"
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def pair(roomy: Path):
    """Two large wheels, the second with other bytes in some members."""

    def make(changed: dict[str, dict[int, bytes]], **options: bool) -> tuple[Path, Path]:
        paths = (roomy / "left.whl", roomy / "right.whl")
        write_zip64(paths[0], large({}))
        write_zip64(paths[1], large(changed), **options)
        for path in paths:
            require_holes(path)
        return paths

    return make


def require_holes(path: Path) -> None:
    assert path.stat().st_size > 4 * GIB
    assert path.stat().st_blocks * 512 < 1 << 20, "this file system knows no holes"


def test_equal_wheels_of_more_than_4_gib_are_identical(pair):
    ran = run("diff", *pair({}), "--json")
    assert (ran.code, ran.json["level"], ran.json["differences"]) == (0, "identical", [])
    assert ran.json["left"]["size"] > 4 * GIB
    assert ran.peak < MEMORY


def test_a_byte_deep_inside_and_a_member_behind_it_are_named(pair):
    """The second has data descriptors of 8-byte sizes too, so its members lie at other offsets."""
    changed = {"huge/weights.bin": {DEEP: b"\1"}, "huge/part49.py": {0: b"x = 20000"}}
    ran = run("diff", *pair(changed, descriptors=True), "--json")
    deepest = [each for each in ran.json["differences"] if each["level"] == "payload"]
    framing = {(each["field"], each["left"], each["right"]) for each in ran.json["differences"] if each not in deepest}
    assert [(each["path"], each["field"]) for each in deepest] == [
        (["huge/weights.bin"], f"bytes at {DEEP:#x}"),
        (["huge/part49.py"], "line 1"),
    ]
    assert (deepest[0]["left"][:2], deepest[0]["right"][:2]) == ("00", "01")
    assert (deepest[1]["left"], deepest[1]["right"]) == ("x = 10000", "x = 20000")
    assert (framing, ran.json["omitted"]) == ({("flags", "0", "8")}, {"flags": 47})
    assert (ran.code, ran.json["level"]) == (22, "payload")
    assert ran.peak < MEMORY
    said = ran.stderr.splitlines()
    assert said[:2] == ["  hashing 8.0 GiB", "  comparing member 1 of 52: huge/weights.bin (4.0 GiB)"]


def recorded() -> list[Sparse]:
    """The members of a sound wheel, whose RECORD has the digest of each."""
    hasher, size = hashlib.sha256(b"magic"), 4 * GIB + 5
    zeros = bytes(1 << 24)
    for _ in range(256):
        hasher.update(zeros)
    texts = {
        f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: huge\nVersion: 1.0\n",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [("huge/weights.bin", hasher.digest(), size)]
    rows += [(name, hashlib.sha256(text.encode()).digest(), len(text)) for name, text in texts.items()]
    texts[f"{INFO}/RECORD"] = f"{INFO}/RECORD,,\n"
    for name, digest, length in rows:
        texts[f"{INFO}/RECORD"] += f"{name},sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')},{length}\n"
    return [
        Sparse("huge/weights.bin", size, {0: b"magic"}),
        *(Sparse(name, len(text), {0: text.encode()}) for name, text in texts.items()),
    ]


#: What checking a published wheel does with the two files, but for their comparison.
CHECK = """
import sys
from dataclasses import replace
from pathlib import Path
from reprobuild.archive import open_archive
from reprobuild.replay import set_clock
from reprobuild.wheelfile import read_wheel
theirs, ours = map(Path, sys.argv[1:])
made = read_wheel(ours)
with open_archive(theirs) as archive:
    replayed = set_clock(replace(made, entries=archive.entries), ours, 0)
print(made.digest, len(replayed.members), replayed.first)
status = Path("/proc/self/status").read_text().splitlines()
(peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
print(int(peak) // 1024)
"""


def test_a_published_wheel_of_more_than_4_gib_is_read_and_replayed_in_little_memory(roomy):
    """Where a wheel has no epoch, the recorded clock goes into the rebuilt one at eight places, four beyond 4 GiB."""
    paths, members = [], recorded()
    for number in (1, 2):
        paths.append(roomy / str(number) / "huge-1.0-py3-none-any.whl")
        paths[-1].parent.mkdir()
        write_zip64(paths[-1], members, time=0x6000 + number)
        require_holes(paths[-1])
    done = subprocess.run([sys.executable, "-c", CHECK, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, replayed, first, clock, peak = done.stdout.split()
    assert (replayed, first, clock) == ("4", "1980-01-01", "12:00:02")
    assert int(peak) < MEMORY
    for start in (0, 4 * GIB):
        with paths[0].open("rb") as left, paths[1].open("rb") as right:
            left.seek(start)
            right.seek(start)
            assert left.read(10_000) == right.read(10_000)


# --- very many members -----------------------------------------------------------------------------------


def many(path: Path, count: int, changed: int = -1) -> Path:
    """A wheel of very many small modules, one of which may be another one, and a RECORD of them all."""
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            name, data = f"many/p{number // 100:03}/m{number:05}.py", f"x = {number + (number == changed)}\n".encode()
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
            lines.append(f"{name},sha256={hashlib.sha256(data).hexdigest()},{len(data)}\n")
        archive.writestr(zipfile.ZipInfo("many-1.0.dist-info/WHEEL"), "Wheel-Version: 1.0\n")
        archive.writestr(zipfile.ZipInfo("many-1.0.dist-info/RECORD"), "".join(lines), zipfile.ZIP_DEFLATED)
    return path


def test_one_of_very_many_members_is_named(tmp_path):
    """66,000 are more than the 16 bits of a zip without Zip64 can count; the time grows with their number alone."""
    ran = {}
    for count in (11_000, 66_000):
        changed = count - 7
        paths = [many(tmp_path / "left.whl", count), many(tmp_path / "right.whl", count, changed)]
        ran[count] = run("diff", *paths, "--json")
        assert [(each["path"], each["field"], each["follows"]) for each in ran[count].json["differences"]] == [
            ([f"many/p{changed // 100:03}/m{changed:05}.py"], "line 1", False),
            (["many-1.0.dist-info/RECORD"], "line", True),
        ]
    assert ran[66_000].peak < MEMORY
    assert ran[66_000].cpu < 12 * ran[11_000].cpu  # 36 times as much were it to grow with the square
