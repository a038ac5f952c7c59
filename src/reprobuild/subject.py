"""Which published wheel is to be checked, and what it is to be made from: chosen in the index or named, and fetched."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from reprobuild import export, interpreter
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, IndexFailed, NotComparable, shown
from reprobuild.index import Index, LockedFile, ReleasedFile
from reprobuild.interpreter import Interpreter
from reprobuild.lockfile import Pin
from reprobuild.progress import Observer
from reprobuild.source import Source
from reprobuild.wheelfile import WheelFile, read_wheel


@dataclass(frozen=True, slots=True)
class Subject:
    """The wheel to check.

    Attributes:
        name: of the distribution, normalised.
        file: the wheel itself; none means the release's own, as the index has it.
        digests: of the release's files that may be taken; empty for all.
    """

    name: str
    version: str
    file: Path | None = None
    digests: frozenset[Digest] = frozenset()

    @classmethod
    def of(cls, text: str) -> "Subject":
        """What somebody names: a wheel's path, or ``NAME==VERSION``.

        Raises:
            BadInput: it is neither.
        """
        if not text.endswith(".whl"):
            return cls(*parse(text))
        try:
            name, version, *_ = parse_wheel_filename(Path(text).name)
        except InvalidWheelFilename as error:
            raise BadInput(f"{shown(text)} doesn't have the name of a wheel: {shown(error)}.") from error
        return cls(name, str(version), Path(text))


@dataclass(frozen=True, slots=True)
class Origin:
    """What a wheel is made again from.

    Attributes:
        kind: ``sdist``, ``git`` or ``folder``.
        name: a file's name, a folder's path or a repository's URL.
        digests: what identifies its content, as in :class:`reprobuild.source.Source`.
    """

    kind: str
    name: str
    digests: Mapping[str, str]


def parse(text: str) -> tuple[str, str]:
    """The normalised name and the version in ``NAME==VERSION``.

    Raises:
        BadInput: it is anything else.
    """
    name, equals, version = (part.strip() for part in text.partition("=="))
    with suppress(ValueError):  # also of a number with too many digits
        if equals and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
            return canonicalize_name(name), str(Version(version))
    raise BadInput(f"{shown(text)!r} is not NAME==VERSION.", "Write it like requests==2.34.2.")


def select(
    index: Index, name: str, version: str, digests: frozenset[Digest] = frozenset()
) -> tuple[ReleasedFile, ReleasedFile]:
    """The wheel of a release that this interpreter would install, and the sdist beside it.

    Args:
        name: normalised.
        digests: of the files that a lock admits; empty for whatever the index has.

    Raises:
        IndexFailed: the index can't be asked, or lacks the release or a file that the lock names.
        NotComparable: no wheel of it fits this interpreter, or there is no sdist.
    """
    released = index.release(name, version)
    if not released:
        raise IndexFailed(f"The index has no {name} {version}.", "Check the lock, and uv's index settings.")
    own = interpreter.find(None)
    admitted = [each for each in released if not digests or each.file.digest in digests]
    missing = sorted(digests - {each.file.digest for each in released})
    if not missing and not any(_fits(each, own) for each in admitted):
        for_others = any(each.file.is_wheel for each in admitted)
        why = f"no wheel for Python {own.version} on {own.platform}" if for_others else "no wheel"
        raise NotComparable(f"{name} {version} has {why}: there is nothing to compare with.")
    pin = Pin(name, Version(version), None, (*(each.file.digest for each in admitted), *missing))
    (best,) = index.choose([pin], own)
    wheel = next((each for each in admitted if each.file.digest == best.digest), None)
    sdists = [each for each in (*admitted, *released) if each.file.filename.endswith(".tar.gz")]
    if wheel is None or (missing and sdists and sdists[0] not in admitted):
        raise IndexFailed(
            f"The index lists {name} {version} without a file that has {missing[0] if missing else best.digest}, "
            "which is in the lock.",
            "The file was deleted or replaced, or the hash is wrong.",
        )
    if not sdists:
        raise NotComparable(f"{name} {version} has no sdist (.tar.gz): there is nothing to make its wheel from.")
    return wheel, sdists[0]


def _fits(released: ReleasedFile, own: Interpreter) -> bool:
    return released.file.is_wheel and not own.tag_ranks.keys().isdisjoint(
        parse_wheel_filename(released.file.filename)[-1]
    )


@dataclass(frozen=True, slots=True)
class Fetched:
    """A subject, here.

    Attributes:
        listed: as the index lists it; a file's own digest, and no upload time, where the index doesn't know it.
        source: what it is to be made from.
        origin: the same in words.
        notes: what is to be said of the wheel, each a sentence.
    """

    listed: ReleasedFile
    wheel: WheelFile
    source: Source
    origin: Origin
    notes: tuple[str, ...]


def fetch(index: Index, subject: Subject, origin: str | None, scratch: Path, observer: Observer) -> Fetched:
    """The wheel to check and what it is to be made from.

    Args:
        origin: ``git+URL@REF``, a folder or an sdist to make it from; none means the release's own sdist.

    Raises:
        IndexFailed: the index can't be asked, or lacks the release, its wheel or its sdist.
        BadInput: the wheel or the source is malformed.
        SourceUnusable: the source isn't there.
    """
    observer.step(f"looking for {subject.name} {subject.version}")
    listed = _released(index, subject, needed=subject.file is None or origin is None)
    released = tuple(each for each in listed if not subject.digests or each.file.digest in subject.digests)
    wheel, notes = _wheel(released, subject)
    published = read_wheel(_fetched(index, wheel, subject, scratch))
    if origin is None:
        sdist = _sdist_of(released, subject.name, subject.version).file
        index.fetch([sdist], scratch)
        kind, name, opened = "sdist", sdist.filename, export.open_source(scratch / sdist.filename, scratch)
    elif origin.startswith("git+"):
        observer.step(f"cloning {origin}")
        kind, name, opened = "git", origin.removeprefix("git+"), export.clone(origin, scratch)
    else:
        kind = "folder" if Path(origin).is_dir() else "sdist"
        name, opened = origin, export.open_source(Path(origin), scratch)
    return Fetched(wheel, published, opened, Origin(kind, name, opened.digests), notes)


def _released(index: Index, subject: Subject, *, needed: bool) -> tuple[ReleasedFile, ...]:
    """What the index has of a release; where it isn't needed, only for the time of the upload, nothing will do."""
    try:
        return index.release(subject.name, subject.version)
    except IndexFailed:
        if needed:
            raise
        return ()


def _wheel(released: tuple[ReleasedFile, ...], subject: Subject) -> tuple[ReleasedFile, tuple[str, ...]]:
    """The wheel to check, and what to say of it."""
    if subject.file is None:
        return _wheel_of(released, subject.name, subject.version), ()
    filename, digest = subject.file.name, Digest.of_file(subject.file)
    found = next((each for each in released if each.file.filename == filename), None)
    if found is not None and found.file.digest == digest:
        return found, ()
    note = f"The index offers no {filename}: when it was uploaded isn't known."
    if found is not None:
        note = f"The index offers another file of the name {filename}, with {found.file.digest}; this one has {digest}."
    return ReleasedFile(LockedFile(subject.name, subject.version, filename, digest), ""), (note,)


def _fetched(index: Index, wheel: ReleasedFile, subject: Subject, scratch: Path) -> Path:
    if subject.file is not None:
        return subject.file
    folder = scratch / "published"
    folder.mkdir()
    index.fetch([wheel.file], folder)
    return folder / wheel.file.filename


def _wheel_of(released: tuple[ReleasedFile, ...], name: str, version: str) -> ReleasedFile:
    """The wheel to check: the one that this interpreter would install, else one for every platform, else any."""
    own = interpreter.find(None)
    ranked = []
    for each in released:
        if each.file.is_wheel:
            *_, tags = parse_wheel_filename(each.file.filename)
            ranks = [own.tag_ranks[tag] for tag in tags if tag in own.tag_ranks]
            pure = each.file.filename.endswith("-none-any.whl")
            ranked.append((min(ranks, default=len(own.tags)), not pure, each))
    if not ranked:
        raise IndexFailed(f"The index has no wheel of {name} {version}.", "Look which files the release has.")
    return min(ranked)[-1]


def _sdist_of(released: tuple[ReleasedFile, ...], name: str, version: str) -> ReleasedFile:
    for each in released:
        if each.file.filename.endswith(".tar.gz"):
            return each
    raise IndexFailed(
        f"The index has no sdist (.tar.gz) of {name} {version}: there is nothing to make its wheel from.",
        "Name the source with --source.",
    )
