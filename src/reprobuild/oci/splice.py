"""A gzip file of many members (RFC 1952, section 2.2), made without a compressor.

What is deflated already becomes a member as it is. What lies between (tar headers, padding, content that isn't
deflated) goes into members of our own, of two kinds of blocks (RFC 1951): runs of equal bytes in the fixed Huffman code
for headers, which are mostly zeros, and stored blocks for content. No library has a say in the bytes.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

#: No name, no time, no claim about the system (RFC 1952, section 2.3).
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
#: Bytes of one stored block, at most (RFC 1951, section 3.2.4).
_STORED = 0xFFFF
#: Bytes of headers that are gathered before they are written.
_TEXT_LIMIT = 1 << 16
#: What is long and repeats itself in tar headers.
_RUNS = re.compile(rb"\0{4,}|0{4,}")
#: Bits of a block that are gathered before they become bytes.
_GATHERED = 1 << 13
#: For each length code from 257 on the shortest length, and its extra bits (RFC 1951, section 3.2.5).
_LENGTHS = (
    *((length, 0) for length in range(3, 11)),
    *((base + (step << bits), bits) for bits, base in enumerate((11, 19, 35, 67, 131), 1) for step in range(4)),
)

# Bits are kept as a number, the first as the lowest, and how many there are.


def _bits(text: str) -> tuple[int, int]:
    return int(text[::-1], 2), len(text)


def _literal(value: int) -> str:
    return f"{0x30 + value:08b}" if value < 144 else f"{0x190 + value - 144:09b}"


_LITERALS = tuple(map(_literal, range(256)))
#: Of ASCII each code is one byte, though seldom at the start of one.
_ASCII = bytes(_bits(_literal(value))[0] if value < 128 else 0 for value in range(256))


def _literals(text: bytes) -> tuple[int, int]:
    if text.isascii():
        return int.from_bytes(text.translate(_ASCII), "little"), 8 * len(text)
    return _bits("".join(map(_LITERALS.__getitem__, text)))


@lru_cache(4096)
def _repeated(count: int) -> tuple[int, int]:
    """The last byte ``count`` times again; never with 1 or 2 left over, for which there is no code."""
    bits = ""
    while count:
        length = min(count, 258)
        index = max(index for index, (shortest, _) in enumerate(_LENGTHS) if shortest <= length)
        shortest, width = _LENGTHS[index]
        extra = f"{length - shortest:0{width}b}"[::-1] if width else ""
        code = 257 + index
        symbol = f"{code - 256:07b}" if code < 280 else f"{0xC0 + code - 280:08b}"
        bits += f"{symbol}{extra}00000" if length < 258 else "1100010100000"  # at distance 1; 258 is a code of its own
        count -= length
    return _bits(bits)


def _block(text: bytes, *, final: bool) -> bytes:
    """A block in the fixed Huffman code; unless it is final, with the head of a stored block behind it."""
    done = bytearray()
    bits, count = 2 + final, 3
    at = 0
    for run in _RUNS.finditer(text):
        again = run.end() - run.start() - 1
        alone = again % 258 if again % 258 < 3 else 0
        for more, width in (_literals(text[at : run.start() + 1]), _repeated(again - alone)):
            bits |= more << count
            count += width
        at = run.end() - alone
        if count >= _GATHERED:
            done += (bits & (1 << _GATHERED) - 1).to_bytes(_GATHERED // 8, "little")
            bits >>= _GATHERED
            count -= _GATHERED
    more, width = _literals(text[at:])
    bits |= more << count
    count += width + (7 if final else 10)  # the end of the block, and the head of the next, are zeros
    return bytes(done + bits.to_bytes((count + 7) // 8, "little"))


def gzip_trailer(crc: int, size: int) -> bytes:
    """The end of a member; the size is kept modulo 2**32."""
    return struct.pack("<LL", crc, size & 0xFFFFFFFF)


class Splicer:
    """Writes such a file; its bytes don't depend on how the pieces are cut.

    Each content must come behind some text, and text must come last.

    Args:
        write: where it goes.
        copy: where what is deflated already goes, at the same place.
    """

    def __init__(self, write: Callable[[bytes], object], copy: Callable[[bytes], object] | None = None) -> None:
        self._write, self._copy = write, copy or write
        self._text = bytearray()
        self._crc = self._size = 0
        self._inside = False  # of a member of our own

    def text(self, text: bytes) -> None:
        """Headers or padding."""
        if len(self._text) >= _TEXT_LIMIT:
            self.end()
        self._text += text

    def stored(self, pieces: Iterable[bytes]) -> None:
        """Content that is not compressed, one byte at least."""
        blocks = even(pieces, _STORED)
        first = next(blocks)
        self._write_text(final=False)
        self._write_block(first)
        for block in blocks:
            self._write(b"\0")
            self._write_block(block)

    def deflated(self, stream: Iterable[bytes], crc: int, size: int) -> None:
        """Content as a deflate stream, whose check sum and size it has."""
        self.end()
        self._write(GZIP_HEADER)
        for piece in stream:
            self._copy(piece)
        self._write(gzip_trailer(crc, size))

    def end(self) -> None:
        """Finish the member of our own."""
        self._write_text(final=True)
        self._write(gzip_trailer(self._crc, self._size))
        self._crc = self._size = 0
        self._inside = False

    def _write_text(self, *, final: bool) -> None:
        text = bytes(self._text)
        block = _block(text, final=final)
        self._write(block if self._inside else GZIP_HEADER + block)
        self._inside = True
        self._count(text)
        self._text.clear()

    def _write_block(self, block: bytes) -> None:
        self._write(struct.pack("<HH", len(block), len(block) ^ 0xFFFF))
        self._write(block)
        self._count(block)

    def _count(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)


def even(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of one size, but the last."""
    rest = b""
    for piece in pieces:
        at = 0
        if rest:
            at = size - len(rest)
            rest += piece[:at]
            if len(rest) < size:
                continue
            yield rest
        while at + size <= len(piece):
            yield piece[at : at + size]
            at += size
        rest = piece[at:]
    if rest:
        yield rest
