"""Zip and tar files as named entries: read without trusting them, written deterministically.

Nothing here holds a whole archive or a whole member in memory. Whatever the bytes are, reading them
ends with entries or with :class:`~reprobuild.errors.BadInput`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from reprobuild.archive.model import (
    ENTRY_LIMIT,
    HOSTILE,
    SIZE_LIMIT,
    Archive,
    Entry,
    Kind,
    Names,
    as_stream,
    bad,
    check_claims,
    clean_name,
    refusing,
)
from reprobuild.archive.tarred import Member, decompressed, extract_tar, open_tar, stream_kind, unpack, write_tar, zstd
from reprobuild.archive.zipped import (
    DEFLATED,
    RATIO_LIMIT,
    ZIP64,
    Inflater,
    NewMember,
    crc32,
    extra_fields,
    open_zip,
    replaced_zip,
    zip_content,
    zip_raw,
    zip_start,
)
from reprobuild.errors import BadInput

__all__ = [
    "DEFLATED",
    "ENTRY_LIMIT",
    "HOSTILE",
    "RATIO_LIMIT",
    "SIZE_LIMIT",
    "ZIP64",
    "Archive",
    "Entry",
    "Inflater",
    "Kind",
    "Member",
    "Names",
    "NewMember",
    "archive_kind",
    "as_stream",
    "clean_name",
    "crc32",
    "decompressed",
    "extra_fields",
    "extract_tar",
    "open_archive",
    "refusing",
    "replaced_zip",
    "stream_kind",
    "unpack",
    "write_tar",
    "zip_content",
    "zip_raw",
    "zip_start",
    "zstd",
]


def archive_kind(path: Path) -> str | None:
    """What kind of archive a file is, from its bytes; None for any other file.

    Raises:
        BadInput: there is no such file, or it can't be read.
    """
    with _opened(path) as stream:
        return stream_kind(stream)


@contextmanager
def open_archive(
    source: Path | BinaryIO,
    *,
    name: str = "the archive",
    names: Names = "portable",
    size_limit: int = SIZE_LIMIT,
    kind: str | None = None,
) -> Iterator[Archive]:
    """Open a zip or tar file, or a seekable stream of one, and check everything that it declares.

    Args:
        source: a path, or a stream; ``name`` is then what messages call it.
        names: which member names and link targets are refused.
        size_limit: bytes that all members may claim together.
        kind: what it has to be, such as ``tar.gz`` or ``tar.zst``; otherwise its bytes tell, and zstd isn't known.

    Raises:
        BadInput: it isn't an archive, is damaged, or holds a member that no honest archive has.
    """
    if isinstance(source, Path):
        with (
            _opened(source) as stream,
            open_archive(stream, name=str(source), names=names, size_limit=size_limit, kind=kind) as archive,
        ):
            yield archive
        return
    source.seek(0)
    kind = kind or stream_kind(source)
    if kind != "zip" and name.endswith((".whl", ".zip")):
        raise bad(name, f"is not a zip file, though its name ends in {Path(name).suffix}")
    if kind is None:
        raise bad(name, "is not a zip or tar file", "Name an archive.")
    with refusing(name):
        archive = open_zip(source, name) if kind == "zip" else open_tar(source, name, kind, size_limit)
        check_claims(archive, names, size_limit)
    yield archive


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.") from error
    with stream:
        yield stream
