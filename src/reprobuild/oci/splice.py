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
_RUNS = re.compile(rb"(.)\1{3,}", re.DOTALL)
_END_OF_BLOCK = "0000000"


def _literal(value: int) -> str:
    return f"{0x30 + value:08b}" if value < 144 else f"{0x190 + value - 144:09b}"


_LITERALS = tuple(map(_literal, range(256)))
#: For each length code from 257 on the shortest length, and its extra bits (RFC 1951, section 3.2.5).
_LENGTHS = (
    *((length, 0) for length in range(3, 11)),
    *((base + (step << bits), bits) for bits, base in enumerate((11, 19, 35, 67, 131), 1) for step in range(4)),
)


@lru_cache(1024)
def _repeated(count: int) -> str:
    """The last byte ``count`` times again, as bits."""
    bits = ""
    while count >= 3:
        length = min(count, 258)
        if length == 258:
            code, extra = 285, ""
        else:
            index = max(index for index, (shortest, _) in enumerate(_LENGTHS) if shortest <= length)
            shortest, width = _LENGTHS[index]
            code = 257 + index
            extra = f"{length - shortest:0{width}b}"[::-1] if width else ""
        symbol = f"{code - 256:07b}" if code < 280 else f"{0xC0 + code - 280:08b}"
        bits += f"{symbol}{extra}00000"  # distance 1
        count -= length
    return bits


def _huffman(text: bytes) -> str:
    """A block in the fixed Huffman code, without the three bits in front, as bits in the order of the stream."""
    parts: list[str] = []
    at = 0
    for run in _RUNS.finditer(text):
        again = run.end() - run.start() - 1
        alone = again % 258 if again % 258 < 3 else 0  # too short for a match
        parts += map(_LITERALS.__getitem__, text[at : run.start() + 1])
        parts.append(_repeated(again - alone))
        at = run.end() - alone
    parts += map(_LITERALS.__getitem__, text[at:])
    return "".join((*parts, _END_OF_BLOCK))


def _bytes(bits: str) -> bytes:
    return int(bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")


def gzip_trailer(crc: int, size: int) -> bytes:
    """The end of a member; the size is kept modulo 2**32."""
    return struct.pack("<LL", crc, size & 0xFFFFFFFF)


class Splicer:
    """Writes such a file; its bytes don't depend on how the pieces are cut.

    Each content must come behind some text, and text must come last.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
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
        self._write_text("0", then="000")
        self._write_block(first)
        for block in blocks:
            self._write(b"\0")
            self._write_block(block)

    def deflated(self, stream: Iterable[bytes], crc: int, size: int) -> None:
        """Content as a deflate stream, whose check sum and size it has."""
        self.end()
        self._write(GZIP_HEADER)
        for piece in stream:
            self._write(piece)
        self._write(gzip_trailer(crc, size))

    def end(self) -> None:
        """Finish the member of our own."""
        self._write_text("1")
        self._write(gzip_trailer(self._crc, self._size))
        self._crc = self._size = 0
        self._inside = False

    def _write_text(self, final: str, then: str = "") -> None:
        bits = _bytes(f"{final}10{_huffman(self._text)}{then}")
        self._write(bits if self._inside else GZIP_HEADER + bits)
        self._inside = True
        self._count(self._text)
        self._text = bytearray()

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
