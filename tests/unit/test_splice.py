"""Our own gzip members, as zlib reads them."""

import gzip
import random
import zlib

import pytest

from reprobuild.oci.splice import Splicer


def member(*texts):
    out = bytearray()
    splicer = Splicer(out.extend)
    for text in texts:
        splicer.text(text)
    splicer.end()
    return bytes(out)


@pytest.mark.parametrize("byte", [b"\0", b"0", b"7"], ids=["NUL", "0", "7"])
def test_runs_of_every_length_come_back(byte):
    for length in range(1600):
        text = b"a" + byte * length + b"\xe9"
        assert gzip.decompress(member(text)) == text, length


def test_runs_take_little_room():
    assert len(member(bytes(512))) < 30
    assert len(member(bytes(60_000))) < 450


def test_text_of_any_kind_comes_back():
    source = random.Random(1)
    pieces = [b"\0" * 700, b"0" * 9, b"000", b"usr/share/\xc3\xa9", bytes(range(256)), b"\xff" * 40]
    for _ in range(300):
        text = b"".join(source.choices(pieces, k=source.randrange(40)))
        assert gzip.decompress(member(text, text[:100])) == text + text[:100]


def test_text_and_content_of_both_kinds_in_turn():
    data = random.Random(2).randbytes(200_000)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = deflater.compress(data) + deflater.flush()
    out = bytearray()
    splicer = Splicer(out.extend)
    for number in range(4):
        splicer.text(b"header %d" % number)
        splicer.stored([data[: number * 65_535 + 1]])
        splicer.text(b"\0" * 99)
        splicer.stored([b"", data[:1], b"", data[1:70_000]])
        splicer.text(b"deflated follows")
        splicer.deflated([raw[:9], raw[9:]], zlib.crc32(data), len(data))
    splicer.text(b"end")
    splicer.end()
    parts = (
        b"header %d" % number + data[: number * 65_535 + 1] + b"\0" * 99 + data[:70_000] + b"deflated follows" + data
        for number in range(4)
    )
    assert gzip.decompress(out) == b"".join(parts) + b"end"
    assert out.count(raw) == 4
