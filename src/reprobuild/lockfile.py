"""A lock as a file: pinned names with hashes, in pip's requirements format; read, and asked questions."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.markers import Marker, UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, shown
from reprobuild.files import read_text
from reprobuild.project import requirement_of

_HASH = re.compile(r"\s--hash=(\S+)")
_EXCLUDE_NEWER = re.compile(r"^# exclude-newer: (\S+)\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pin:
    """One locked distribution: a normalised name, one version, and the digests of its files."""

    name: str
    version: Version
    marker: Marker | None
    hashes: tuple[Digest, ...]

    def applies(self, markers: Mapping[str, str]) -> bool:
        """Whether it is wanted in an environment with these markers (PEP 508)."""
        return self.marker is None or holds(self.marker, markers)


@dataclass(frozen=True, slots=True)
class Lockfile:
    """What a lock says.

    Attributes:
        digest: of the file's own bytes.
        exclude_newer: the time in the header; empty when it was made without one.
    """

    digest: Digest
    pins: tuple[Pin, ...]
    exclude_newer: str

    def selected(self, markers: Mapping[str, str]) -> dict[str, Pin]:
        """The pins that apply in an environment, by name.

        Raises:
            BadInput: two pins of one name apply, and differ.
        """
        found: dict[str, Pin] = {}
        for pin in self.pins:
            if pin.applies(markers):
                other = found.setdefault(pin.name, pin)
                if (other.version, other.hashes) != (pin.version, pin.hashes):
                    raise BadInput(
                        f"A lock pins {pin.name} twice for this Python: {other.version} and {pin.version}.",
                        "Write it anew with `reprobuild lock`.",
                    )
        return found

    def unsatisfied(self, requirements: Iterable[Requirement], markers: Mapping[str, str]) -> list[str]:
        """What the lock lacks of some requirements in an environment, each in a few words; [] for nothing."""
        return list(
            unsatisfied(requirements, {name: pin.version for name, pin in self.selected(markers).items()}, markers)
        )


def unsatisfied(
    requirements: Iterable[Requirement], versions: Mapping[str, Version], markers: Mapping[str, str]
) -> Iterator[str]:
    """What some locked versions, by name, lack of some requirements in an environment, each in a few words."""
    for requirement in requirements:
        if requirement.marker and not holds(requirement.marker, markers):
            continue
        version = versions.get(canonicalize_name(requirement.name))
        if version is None:
            yield f"{requirement} is not in it"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement} is wanted, but {version} is locked"


def holds(marker: Marker, markers: Mapping[str, str]) -> bool:
    """Whether a marker is true in an environment.

    Raises:
        BadInput: it compares what can't be compared, or asks for what no environment has.
    """
    try:
        return marker.evaluate(dict(markers))
    except (ValueError, UndefinedEnvironmentName) as error:
        what = f"The marker {shown(marker)!r} has no meaning: {shown(error)}."
        raise BadInput(what, "Mend the requirement.") from error
    except RecursionError as error:
        raise BadInput("A marker is nested too deeply.", "Mend the requirement.") from error


def read(path: Path, where: str = "") -> Lockfile:
    """Read a lock.

    Args:
        where: what messages call it, where its path would tell the reader nothing.

    Raises:
        BadInput: a line isn't an exact, hashed pin.
    """
    # Whoever hashes the file sees its bytes: line endings are not translated.
    return replace(parse(read_text(path, where), where or str(path)), digest=Digest.of_file(path))


def parse(text: str, where: str) -> Lockfile:
    """Read a lock's text; ``where`` names it in messages.

    Raises:
        BadInput: a line isn't an exact, hashed pin.
    """
    found = _EXCLUDE_NEWER.search(text)
    pins = tuple(_pin(content, f"{where}, line {number}") for number, content in logical_lines(text))
    return Lockfile(Digest.of_bytes(text.encode()), pins, found.group(1) if found else "")


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a requirements file as pip joins them, without comments: what is not empty, and where it starts.

    A comment ends with its line, also where that ends with a backslash.
    """
    parts: list[str] = []
    started = 1
    for number, line in enumerate(text.splitlines(), 1):
        content = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        goes_on = content.endswith("\\")
        started = started if parts else number
        parts.append(content.removesuffix("\\").strip() if goes_on else content.strip())
        if not goes_on:
            if joined := " ".join(filter(None, parts)):
                yield started, joined
            parts = []
    if joined := " ".join(filter(None, parts)):
        yield started, joined


def _pin(content: str, where: str) -> Pin:
    remedy = "Write it anew with `reprobuild lock`."
    hashes = _HASH.findall(content)
    declared = _HASH.sub("", content).strip()
    if declared.startswith("-"):
        raise BadInput(f"{where}: {declared!r} is an option; a lock holds pins alone.", remedy)
    try:
        requirement = requirement_of(declared)
    except ValueError as error:
        raise BadInput(f"{where}: {shown(declared)!r} is not a requirement: {shown(error)}.", remedy) from error
    versions = [spec.version for spec in requirement.specifier if spec.operator in ("==", "===")]
    if requirement.url or len(versions) != 1 or len(requirement.specifier) != 1 or versions[0].endswith(".*"):
        raise BadInput(f"{where}: {declared!r} is not pinned to one version with ==.", remedy)
    if not hashes:
        raise BadInput(f"{where}: {declared!r} has no hash.", remedy)
    try:
        version, digests = Version(versions[0]), sorted(Digest.parse(each) for each in hashes)
    except (ValueError, BadInput) as error:
        raise BadInput(f"{where}: {shown(declared)!r}: {shown(error)}", remedy) from error
    return Pin(canonicalize_name(requirement.name), version, requirement.marker, tuple(digests))
