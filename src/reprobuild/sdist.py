"""A source distribution as a build backend left it: whether it is sound, and whether it comes out the same twice.

Some backends write the present time, or who built, into an sdist, whatever SOURCE_DATE_EPOCH says, and no environment
keeps them from it: the kernel gives files their times. Such an archive is written anew; any other stays as it is.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import BinaryIO

from packaging.utils import InvalidSdistFilename, NormalizedName, canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from reprobuild.archive import Archive, Entry, open_archive
from reprobuild.digest import chunks_of
from reprobuild.errors import BadInput, shown
from reprobuild.files import TEXT_LIMIT, write_atomically

SUFFIX = ".tar.gz"
_OWNERS = ("0:0 :", "0:0 root:root")
_TYPES = {"directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE}
_BUILD = "Build the sdist again with its build backend; don't repair it by hand."


@dataclass(frozen=True)
class SdistFile:
    """A source distribution whose file name and PKG-INFO agree.

    Attributes:
        name, version: from the file name, normalised.
        metadata: the bytes of PKG-INFO.
    """

    path: Path
    name: NormalizedName
    version: Version
    metadata: bytes


def read_sdist(path: Path) -> SdistFile:
    """Read an sdist and check what the format promises of it (source distribution format, packaging.python.org).

    Raises:
        BadInput: it isn't a .tar.gz with one folder NAME-VERSION and the PKG-INFO of that release in it, or holds
            something that isn't safe to unpack.
    """
    try:
        name, version = parse_sdist_filename(path.name)
    except (InvalidSdistFilename, InvalidVersion) as error:
        raise _bad(path, "its name is not that of an sdist, NAME-VERSION.tar.gz") from error
    with open_archive(path, kind="tar.gz") as archive:
        tops = {entry.name.partition("/")[0] for entry in archive.entries}
        if len(tops) != 1:
            raise _bad(path, f"it has {len(tops)} folders at its top, not one")
        (top,) = tops
        metadata = _metadata(archive, f"{top}/PKG-INFO")
    headers = BytesHeaderParser().parsebytes(metadata)
    said = str(headers.get("Name", "")), str(headers.get("Version", ""))
    if canonicalize_name(said[0]) != name or not _is_version(said[1], version):
        about = f"{shown(said[0])!r} {shown(said[1])!r}"
        raise _bad(path, f"PKG-INFO is about {about}, the file's name about {name} {version}")
    return SdistFile(path, name, version, metadata)


def is_settled(path: Path, epoch: int) -> bool:
    """Whether an archive has no other time than the epoch (or none) in its headers, and no owner.

    Args:
        epoch: SOURCE_DATE_EPOCH of the build.
    """
    with path.open("rb") as stream:
        head = stream.read(8)
    if int.from_bytes(head[4:8], "little") not in (0, epoch):
        return False
    with open_archive(path, kind="tar.gz") as archive:
        return all(_is_settled(entry, epoch) for entry in archive.entries)


def _is_settled(entry: Entry, epoch: int) -> bool:
    whole = "." not in entry.mtime or not entry.mtime.partition(".")[2].strip("0Z")
    return entry.seconds in (0, epoch) and whole and entry.owner in _OWNERS


def rewrite(path: Path, target: Path, epoch: int) -> None:
    """Write an sdist anew: the same members with the same content, sorted by name, all of the epoch, of nobody.

    Of a mode only the owner's right to execute stays. The bytes are a function of the members, the epoch, and the zlib
    of this interpreter.

    Raises:
        BadInput: it holds something else than files, folders and links.
        WriteFailed: it can't be written.
    """
    scratch = target.with_name(f"{target.name}.rewritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open_archive(path, kind="tar.gz") as archive, scratch.open("wb") as stream:
            _write(archive, stream, epoch)
        with scratch.open("rb") as stream:
            write_atomically(target, chunks_of(stream))
    finally:
        scratch.unlink(missing_ok=True)


def _write(archive: Archive, stream: BinaryIO, epoch: int) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=stream, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in _sorted(archive):
            info = tarfile.TarInfo(entry.name)
            info.mtime, info.mode = epoch, 0o755 if entry.mode & 0o100 or entry.kind == "directory" else 0o644
            info.type = _TYPES.get(entry.kind, tarfile.REGTYPE)
            info.linkname = entry.target
            if entry.kind == "symlink":
                info.mode = 0o777
            info.size = entry.size
            tar.addfile(info, archive.open(entry) if entry.kind == "file" else None)
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header


def _sorted(archive: Archive) -> Iterator[Entry]:
    """By name, but each hard link after all files."""
    for entry in sorted(archive.entries, key=lambda entry: (entry.kind == "hardlink", entry.name)):
        if entry.kind != "file" and entry.kind not in _TYPES:
            raise BadInput(f"{archive.name} holds {shown(entry.name)!r}, a {entry.kind}.", _BUILD)
        yield entry


def framing(*, rewritten: bool) -> dict[str, object]:
    """What a record says of an archive's headers: the backend's own, or written anew, compressed by which zlib."""
    return {"rewritten": True, "zlib": zlib.ZLIB_RUNTIME_VERSION} if rewritten else {"rewritten": False}


def _metadata(archive: Archive, name: str) -> bytes:
    entry = next((each for each in archive.entries if each.name == name and each.kind == "file"), None)
    if entry is None:
        raise _bad(Path(archive.name), f"{name} is missing")
    if entry.size > TEXT_LIMIT:
        raise _bad(Path(archive.name), f"{name} has {entry.size} bytes, which no metadata needs")
    return archive.open(entry).read()


def _is_version(text: str, version: Version) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:
        return False


def _bad(path: Path, why: str) -> BadInput:
    return BadInput(f"{path.name} is not a sound sdist: {why}.", _BUILD)
