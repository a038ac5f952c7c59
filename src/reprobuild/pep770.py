"""A bill of materials inside a wheel (PEP 770): what the wheel bundles, and what it was made with.

It is a function of the wheel's own bytes and of the locked files that built it, and is put in without touching any
other member: their headers and compressed bytes are taken over. docs/adr/0018-sbom.md says what belongs in it.
"""

import base64
import csv
import hashlib
import io
import posixpath
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from reprobuild import bom
from reprobuild.archive import Archive, Entry, NewMember, open_archive, replaced_zip
from reprobuild.bom import Document, Licences, Part
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed
from reprobuild.files import TEXT_LIMIT, write_atomically
from reprobuild.index import LockedFile
from reprobuild.wheelfile import parse_metadata, read_metadata

_MOST_BUNDLED = 1000
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


def licences_in(metadata: Message) -> Licences:
    """What METADATA says of the licence."""
    classifiers = (str(each).strip() for each in metadata.get_all("Classifier", []))
    return Licences(
        str(metadata.get("License-Expression", "")).strip(),
        str(metadata.get("License", "")).strip(),
        tuple(each for each in classifiers if each.startswith("License ::")),
    )


def subject_of(metadata: Message, digests: tuple[Digest, ...] = (), parts: tuple[Part, ...] = ()) -> Part:
    """A wheel as the component that a document is of."""
    name, version = canonicalize_name(str(metadata["Name"]).strip()), str(Version(str(metadata["Version"]).strip()))
    purl = bom.purl_of(name, version)
    return Part(
        f"wheel:{bom.text_of(purl)}",
        name,
        version,
        purl=purl,
        digests=digests,
        licences=licences_in(metadata),
        parts=parts,
    )


def makers_of(files: Iterable[LockedFile]) -> tuple[Part, ...]:
    """Build requirements."""
    return tuple(
        Part(
            f"build:{each.filename}",
            each.name,
            each.version,
            purl=bom.purl_of(each.name, each.version),
            digests=(each.digest,),
        )
        for each in files
    )


def document_of(path: Path, files: Iterable[LockedFile]) -> Document:
    """The document that goes into a wheel, of the wheel without it.

    Args:
        files: what built it.

    Raises:
        BadInput: it isn't a wheel.
    """
    subject, parts = subject_of(read_metadata(path)), bundled(path)
    return Document(
        subject,
        "build",
        parts,
        edges={subject.ref: frozenset(each.ref for each in parts)},
        incomplete=frozenset([subject.ref]),  # what it needs to run is in METADATA, and isn't part of it
        unread=frozenset([subject.ref]),
        makers=makers_of(files),
        named=False,
    )


# --- what a wheel bundles ----------------------------------------------------------------------------


def bundled(path: Path) -> tuple[Part, ...]:
    """Distributions that were copied into a wheel with their dist-info, and shared libraries that a repair put there.

    What left no such trace can't be seen.

    Raises:
        BadInput: it isn't an archive, or holds more than any wheel bundles.
    """
    with open_archive(path) as archive:
        files = {each.name: each for each in archive.entries if each.kind == "file"}
        nested = [name for name in files if name.endswith(".dist-info/METADATA") and name.count("/") > 1]
        libraries = [name for name in files if name.partition("/")[0].endswith(".libs") and ".so" in name]
        if len(nested) + len(libraries) > _MOST_BUNDLED:
            raise BadInput(f"{path} bundles more than {_MOST_BUNDLED} distributions and libraries.", "Is it a wheel?")
        found = [part for name in sorted(nested) for part in _distribution(archive, files, name)]
        found += [
            Part(
                f"file:{name}", name, kind="file", digests=(Digest.of_stream(archive.open(files[name])),)
            )  # of which library nobody says
            for name in sorted(libraries)
        ]
    return tuple(found)


def _distribution(archive: Archive, files: dict[str, Entry], name: str) -> Iterator[Part]:
    """One, if some of what its RECORD lists is there: test data may look like a dist-info."""
    folder = posixpath.dirname(name)
    parent = posixpath.dirname(folder)
    record = files.get(f"{folder}/RECORD")
    if record is None or max(record.size, files[name].size) > TEXT_LIMIT:
        return
    rows = csv.reader(io.StringIO(archive.open(record).read().decode(errors="replace")))
    try:
        listed = {posixpath.normpath(f"{parent}/{row[0]}") for row in rows if row}
    except csv.Error:
        return
    metadata = parse_metadata(archive.open(files[name]).read())
    called, version = str(metadata.get("Name", "")).strip(), str(metadata.get("Version", "")).strip()
    try:
        normal, _ = canonicalize_name(called, validate=True), Version(version)
    except ValueError:
        return
    if any(each in files and not each.startswith(f"{folder}/") for each in listed):
        yield Part(
            f"bundled:{folder}",
            normal,
            version,
            purl=bom.purl_of(normal, version),
            licences=licences_in(metadata),
            properties=(("reprobuild:path", folder),),
        )


def from_record(algorithm: str, value: str) -> Digest:
    """A hash as RECORD has it."""
    return Digest(algorithm, base64.urlsafe_b64decode(f"{value}==").hex())


# --- into the wheel ----------------------------------------------------------------------------------


def embed(path: Path, files: Iterable[LockedFile], epoch: int) -> None:
    """Put a wheel's bill of materials into it, and its RECORD.

    Args:
        path: the wheel; its place is taken by the new one.
        files: what built it.
        epoch: time of the new member, in seconds since 1970.

    Raises:
        BuildFailed: the backend wrote a file of that name, or signed RECORD.
        BadInput: it isn't a wheel.
        ToolMissing: nothing here writes such documents.
    """
    raw = bom.encode(document_of(path, files))
    with open_archive(path) as archive:
        folder = next(
            each.name.partition("/")[0]
            for each in archive.entries
            if each.name.endswith(".dist-info/METADATA") and each.name.count("/") == 1
        )
        name = f"{folder}/sboms/{folder.partition('-')[0]}{bom.SUFFIX}"
        names = {each.name for each in archive.entries}
        if name in names:
            raise BuildFailed(
                f"The backend put {name} into the wheel itself.",
                "Set sbom = false in [tool.reprobuild.wheel], or have the backend call its file otherwise.",
            )
        if signatures := [each for each in _SIGNATURES if f"{folder}/{each}" in names]:
            raise BuildFailed(
                f"The backend put {signatures[0]} into the wheel, which signs RECORD without the bill of materials.",
                "Set sbom = false in [tool.reprobuild.wheel], or sign the wheel afterwards.",
            )
        (entry,) = (each for each in archive.entries if each.name == f"{folder}/RECORD")
        old = archive.open(entry).read()
    time = datetime.fromtimestamp(epoch, UTC)
    member = NewMember(name, raw, 0o100644, (time.year, time.month, time.day, time.hour, time.minute, time.second))
    with path.open("rb") as stream:
        chunks = replaced_zip(stream, str(path), {entry.name: _with_row(old, name, raw)}, before=entry.name, new=member)
        write_atomically(path, chunks)


def _with_row(record: bytes, name: str, content: bytes) -> bytes:
    """RECORD with one more row, before the last one, which is its own by custom; in its own line endings."""
    ending = b"\r\n" if b"\r\n" in record else b"\n"
    head, newline, own = record.rstrip(b"\r\n").rpartition(b"\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    row = io.StringIO(newline="")
    csv.writer(row, lineterminator=ending.decode()).writerow([name, f"sha256={digest}", len(content)])
    return head + newline + row.getvalue().encode() + own + ending
