"""Digests, and the canonical JSON that digests and signatures are made over."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from reprobuild.errors import BadInput, DigestMismatch

_CHUNK = 1 << 20
_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, order=True, slots=True)
class Digest:
    """A digest in the notation of the OCI image spec: ``algorithm:hex``."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``sha256:<64 lower-case hex digits>`` (sha384 and sha512 too).

        Raises:
            BadInput: anything else.
        """
        algorithm, colon, value = text.partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if not colon or length is None or len(value) != length or not re.fullmatch("[0-9a-f]+", value):
            raise BadInput(
                f"{text!r} is not a digest.",
                "A digest looks like sha256:<64 lower-case hex digits>.",
            )
        return cls(algorithm, value)

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        """The SHA-256 of some bytes."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    @classmethod
    def of_stream(cls, stream: BinaryIO) -> Self:
        """The SHA-256 of the rest of a binary stream, read in 1 MiB pieces."""
        hasher = hashlib.sha256()
        for chunk in chunks_of(stream):
            hasher.update(chunk)
        return cls("sha256", hasher.hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The SHA-256 of a file.

        Raises:
            BadInput: there is no such file, or it can't be read.
        """
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is not a file.")  # to open a pipe is to wait for whoever may write to it
        try:
            with path.open("rb") as stream:
                return cls.of_stream(stream)
        except OSError as error:
            raise BadInput(f"{path} can't be read: {error.strerror}.") from error

    def check(self, chunks: Iterable[bytes], what: str) -> Iterable[bytes]:
        """Pass chunks on and raise at the end unless together they have this digest.

        Raises:
            DigestMismatch: the bytes have another digest; ``what`` names them in the message.
        """
        hasher = hashlib.new(self.algorithm)
        for chunk in chunks:
            hasher.update(chunk)
            yield chunk
        if hasher.hexdigest() != self.hex:
            raise DigestMismatch(
                f"{what} has {self.algorithm}:{hasher.hexdigest()}, but {self} was promised.",
                "Somebody changed the file or the lock; find out who before you use either.",
            )

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def chunks_of(stream: BinaryIO, size: int = _CHUNK) -> Iterable[bytes]:
    """The rest of a binary stream, piece by piece."""
    while chunk := stream.read(size):
        yield chunk


def canonical_json(value: object) -> bytes:
    """JSON by the rules of RFC 8785 (JCS): one spelling for one value, no newline at the end.

    Raises:
        TypeError: the value holds something that JSON has no word for.
    """
    import rfc8785  # noqa: PLC0415 - only commands that write records pay for it

    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise TypeError(str(error)) from error
