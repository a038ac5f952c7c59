"""A wheel as a file, read and checked against the binary distribution format.

The rules are those of https://packaging.python.org/specifications/binary-distribution-format/ and,
for RECORD, https://packaging.python.org/specifications/recording-installed-packages/. A wheel that
breaks one is refused: what reads it next could see something else than was compared or signed.
"""

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesHeaderParser, HeaderParser
from math import prod
from pathlib import Path

from packaging.tags import Tag, parse_tag
from packaging.utils import (
    BuildTag,
    InvalidWheelFilename,
    NormalizedName,
    canonicalize_name,
    parse_wheel_filename,
)
from packaging.version import Version

from reprobuild.archive import Archive, Entry, open_archive
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, shown
from reprobuild.files import TEXT_LIMIT

_RECORD_LINE = 8192  # bytes of RECORD for each member, at most
_TAG_LIMIT = 10_000
_HASHES = ("sha256", "sha384", "sha512")
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_REBUILD = "Build the wheel again with its build backend; don't repair it by hand."


@dataclass(frozen=True)
class WheelFile:
    """A wheel whose file name, metadata, tags and RECORD agree with one another and its content.

    Attributes:
        digest: SHA-256 of the file.
        name, version, build, tags: from the file name, normalised.
        dist_info: name of the ``.dist-info`` folder.
        generator: what WHEEL says made it, such as ``hatchling 1.27.0``; empty when it doesn't say.
        metadata_name, metadata_version: Name and Version as METADATA spells them.
        record: what RECORD says of each file, as in ``sha256=…``.
        requires: the Requires-Dist of METADATA, as written.
        requires_python: its Requires-Python; empty for none.
    """

    path: Path
    digest: Digest
    name: NormalizedName
    version: Version
    build: BuildTag
    tags: frozenset[Tag]
    dist_info: str
    generator: str
    root_is_purelib: bool
    metadata_name: str
    metadata_version: str
    entries: tuple[Entry, ...]
    record: Mapping[str, str] = field(default_factory=dict, repr=False)
    requires: tuple[str, ...] = ()
    requires_python: str = ""


def read_wheel(path: Path, *, seen: Digest | None = None) -> WheelFile:
    """Read a wheel and check all that the format promises, hashing every member once.

    Args:
        seen: the file's digest, where it is known, and what is in it was or will be checked: then nothing in it is
            hashed, but what RECORD lists must be there all the same.

    Raises:
        BadInput: the file isn't a wheel, or is one that contradicts itself; the message says where.
    """
    try:
        name, version, build, tags = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise BadInput(
            f"{path} doesn't have the name of a wheel: {error}.",
            "A wheel is called NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl.",
        ) from error
    with ThreadPoolExecutor(1) as pool, open_archive(path) as archive:
        digest = pool.submit(lambda: seen or Digest.of_file(path))
        dist_info = _dist_info(archive)
        _check_dist_info(path, dist_info, name, version)
        metadata = _headers(archive, f"{dist_info}/METADATA")
        own_name, own_version = _one(path, metadata, "Name"), _one(path, metadata, "Version")
        if canonicalize_name(own_name) != name or _version(path, own_version) != version:
            raise _bad(path, f"METADATA says {own_name} {own_version}, the file name {name} {version}")
        wheel = _headers(archive, f"{dist_info}/WHEEL")
        _check_format(path, _one(path, wheel, "Wheel-Version"))
        _check_tags(path, wheel, tags)
        record = _check_record(archive, dist_info, hashed=not seen)
        return WheelFile(
            path=path,
            digest=digest.result(),
            name=name,
            version=version,
            build=build,
            tags=tags,
            dist_info=dist_info,
            generator=str(wheel.get("Generator", "")).strip(),
            root_is_purelib=_one(path, wheel, "Root-Is-Purelib").lower() == "true",
            metadata_name=own_name,
            metadata_version=own_version,
            entries=archive.entries,
            record=record,
            requires=tuple(str(each).strip() for each in metadata.get_all("Requires-Dist", [])),
            requires_python=str(metadata.get("Requires-Python", "")).strip(),
        )


def read_metadata(path: Path) -> Message:
    """A wheel's METADATA alone; nothing else in it is looked at.

    Raises:
        BadInput: the file isn't a wheel.
    """
    with open_archive(path) as archive:
        entry = _member(archive, f"{_dist_info(archive)}/METADATA")
        if entry.size > TEXT_LIMIT:
            raise _bad(archive.name, f"{entry.name} has {entry.size} bytes, which no metadata needs")
        return parse_metadata(archive.open(entry).read())


def parse_metadata(data: bytes) -> Message:
    """Core metadata, which is UTF-8: the parser of bytes would take it for ASCII."""
    return HeaderParser().parsestr(data.decode(errors="replace"))


def _bad(path: Path | str, what: str) -> BadInput:
    return BadInput(f"{path} is not a valid wheel: {shown(what, 1000)}.", _REBUILD)


def _dist_info(archive: Archive) -> str:
    tops = {entry.name.split("/")[0] for entry in archive.entries}
    found = sorted(top for top in tops if top.endswith(".dist-info"))
    if len(found) != 1:
        has = f"it has {len(found)}: {', '.join(found)}" if found else "it has none"
        raise _bad(archive.name, f"it needs one .dist-info folder, and {has}")
    return found[0]


def _check_dist_info(path: Path, dist_info: str, name: str, version: Version) -> None:
    folder_name, _, folder_version = dist_info.removesuffix(".dist-info").partition("-")
    if canonicalize_name(folder_name) != name or _version(path, folder_version.replace("_", "-")) != version:
        raise _bad(path, f"{dist_info} disagrees with the file name, which says {name} {version}")


def _version(path: Path, text: str) -> Version:
    try:
        return Version(text)
    except ValueError as error:
        raise _bad(path, f"{text[:80]!r} is not a version") from error


def _member(archive: Archive, name: str) -> Entry:
    for entry in archive.entries:
        if entry.name == name and entry.kind == "file":
            return entry
    raise _bad(archive.name, f"{name} is missing")


def _headers(archive: Archive, name: str) -> Message:
    entry = _member(archive, name)
    if entry.size > TEXT_LIMIT:
        raise _bad(archive.name, f"{name} has {entry.size} bytes, which no metadata needs")
    data = archive.open(entry).read()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise _bad(archive.name, f"{name} is not UTF-8 text") from error
    return BytesHeaderParser().parsebytes(data)


def _one(path: Path, headers: Message, field: str) -> str:
    values = headers.get_all(field, [])
    if len(values) != 1:
        raise _bad(path, f"the field {field} is there {len(values)} times, not once")
    return str(values[0]).strip()


def _check_format(path: Path, wheel_version: str) -> None:
    if wheel_version.partition(".")[0] != "1":
        raise _bad(path, f"it says Wheel-Version {wheel_version!r}, and only 1.x is known")


def _check_tags(path: Path, wheel: Message, tags: frozenset[Tag]) -> None:
    # A line stands for every combination of its parts: a short one can mean millions of tags.
    lines = [str(line).strip() for line in wheel.get_all("Tag", [])]
    if sum(prod(len(part.split(".")) for part in line.split("-")) for line in lines) > _TAG_LIMIT:
        raise _bad(path, f"WHEEL names more than {_TAG_LIMIT} tags")
    try:
        said = frozenset(tag for line in lines for tag in parse_tag(line))
    except ValueError as error:
        raise _bad(path, "WHEEL has a Tag that is no tag") from error
    if said != tags:
        inside, outside = (" ".join(sorted(map(str, some))) for some in (said - tags, tags - said))
        raise _bad(
            path,
            "the tags of WHEEL and of the file name disagree: "
            f"only in WHEEL: {inside or 'none'}; only in the name: {outside or 'none'}",
        )


@dataclass(frozen=True)
class _Row:
    algorithm: str
    digest: str
    size: str


def _check_record(archive: Archive, dist_info: str, *, hashed: bool) -> dict[str, str]:
    """What RECORD says of each file, checked; the content too if it is to be hashed."""
    record = _member(archive, f"{dist_info}/RECORD")
    unrecorded = {f"{dist_info}/{name}" for name in _UNRECORDED}
    if record.size > _RECORD_LINE * (len(archive.entries) + len(unrecorded)):
        raise _bad(archive.name, f"RECORD has {record.size} bytes, which its members don't need")
    rows: dict[str, _Row] = {}
    files = {entry.name: entry for entry in archive.entries if entry.kind != "directory"}
    for name, row in _rows(archive, record):
        if name in rows:
            raise _bad(archive.name, f"RECORD lists {name!r} twice")
        if name not in files and name not in unrecorded:
            raise _bad(archive.name, f"RECORD lists {name!r}, which isn't there")
        rows[name] = row
    for name, entry in files.items():
        if name in unrecorded:
            continue
        if name not in rows:
            raise _bad(archive.name, f"RECORD omits {name!r}")
        _check_row(archive, entry, rows[name], hashed=hashed)
    return {name: f"{row.algorithm}={row.digest}" for name, row in rows.items() if name not in unrecorded}


def _rows(archive: Archive, record: Entry) -> Iterator[tuple[str, _Row]]:
    try:
        with io.TextIOWrapper(archive.open(record), "utf-8", newline="") as text:
            for fields in csv.reader(text, strict=True):
                if len(fields) != 3 or not fields[0]:
                    raise _bad(archive.name, f"RECORD has a malformed line: {','.join(fields)[:80]!r}")
                algorithm, _, digest = fields[1].partition("=")
                yield fields[0], _Row(algorithm, digest, fields[2])
    except (csv.Error, UnicodeDecodeError) as error:
        raise _bad(archive.name, f"RECORD is malformed ({error})") from error


def _check_row(archive: Archive, entry: Entry, row: _Row, *, hashed: bool) -> None:
    if row.algorithm not in _HASHES:
        word = f"only a {row.algorithm} hash" if row.algorithm else "no hash"
        raise _bad(archive.name, f"RECORD has {word} for {entry.name!r}; sha256 is the least")
    if row.size and row.size != str(entry.size):
        has = f"{entry.size} bytes, and RECORD says {row.size}"
        raise _bad(archive.name, f"{entry.name!r} has {has}")
    if hashed and _hash(archive.chunks(entry), row.algorithm) != row.digest:
        raise _bad(archive.name, f"{entry.name!r} has another {row.algorithm} than RECORD says")


def _hash(chunks: Iterable[bytes], algorithm: str) -> str:
    hasher = hashlib.new(algorithm)
    for chunk in chunks:
        hasher.update(chunk)
    return base64.urlsafe_b64encode(hasher.digest()).rstrip(b"=").decode()
