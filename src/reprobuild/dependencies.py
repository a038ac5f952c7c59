"""What a project's lock pins, read from any of the three formats that such locks come in.

requirements.txt as pip reads it, pylock.toml (PEP 751), and uv.lock. These locks are somebody's own and hold what
:mod:`reprobuild.lockfile` refuses: pins without hashes, checkouts, folders, URLs. What isn't a release on an index
is kept too, with the reason why it can't be checked: what is dropped in silence looks like what was checked.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from packaging.utils import canonicalize_name, is_normalized_name
from packaging.version import Version

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, redacted, shown
from reprobuild.files import read_text
from reprobuild.lockfile import logical_lines
from reprobuild.project import requirement_of

_T = TypeVar("_T")
_REMEDY = "Write the lock anew with the tool that made it."
_FOREIGN = "Export it: `uv export`, `pip freeze` and most others can write requirements.txt or pylock.toml."
#: The options that a requirements file may hold beside requirements (pip's reference, "Requirements File Format").
_OPTION = re.compile(r"(--[a-z][a-z-]*|-[a-z])(?:[ =]\s*)?(.*)")
_ABOUT_PLACES = frozenset("-i --index-url --extra-index-url -f --find-links --no-index --trusted-host".split())
_IGNORED = frozenset("--pre --prefer-binary --require-hashes --no-binary --only-binary --use-feature".split())
_HASH = re.compile(r"--hash[ =]\s*(\S+)")
_LOCAL = re.compile(r"\.{0,2}/|\.{1,2}$|~|[\w.-]+/|[^\s@]*\.(whl|zip|tar\.\w+|tgz)$")
#: How a lock names the folder that it lies in.
_HERE = frozenset((".", "./", "file:."))
#: uv's words for where a package comes from, other than an index.
_NOT_RELEASED = {
    "git": "a git checkout",
    "url": "a URL",
    "path": "a file",
    "directory": "a folder",
    "editable": "an editable folder",
    "virtual": "a folder that isn't installed",
}


@dataclass(frozen=True, slots=True)
class Dependency:
    """One thing that a lock pins.

    Attributes:
        name: normalised; what the lock says where it names no package.
        version: normalised; empty where it isn't pinned to one.
        digests: SHA-256 of each file of the release that the lock admits; empty where it names none.
        marker: when it is wanted, as the lock says it; empty for always.
        where: its place in the lock.
        why_not: why it can't be checked; empty when it can.
    """

    name: str
    version: str
    digests: frozenset[Digest] = frozenset()
    marker: str = ""
    where: str = ""
    why_not: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a lock says.

    Attributes:
        format: ``requirements.txt``, ``pylock.toml`` or ``uv.lock``.
        pinned: in the lock's order, each name and version once.
        own: the lock's own projects, which are none of their dependencies.
        notes: what in it doesn't count here, each a sentence.
    """

    format: str
    pinned: tuple[Dependency, ...]
    own: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(path: Path) -> Dependencies:
    """Read a lock; which format it has is seen from what is in it.

    Raises:
        BadInput: it can't be read, is malformed, or is another tool's lock. The message says where.
    """
    if path.suffix not in (".toml", ".lock"):
        return _Requirements().read(path)
    table = _toml(path)
    if "lock-version" in table:
        return _pylock(table, path)
    if type(table.get("version")) is int and "requires-python" in table:
        return _uv_lock(_Table(table, path.name))
    raise BadInput(f"{path} is neither a pylock.toml nor a uv.lock.", _FOREIGN)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}.", _REMEDY) from error


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise BadInput(f"{path} is not a file.")  # to open a pipe is to wait for whoever may write to it
    return read_text(path).removeprefix("\ufeff")


def _merged(found: Iterable[Dependency]) -> tuple[Dependency, ...]:
    """Each release once: a lock may name one several times, for several environments."""
    merged: dict[tuple[str, ...], Dependency] = {}
    for each in found:
        key = (each.name, each.version, each.why_not)
        other = merged.setdefault(key, each)
        if other is not each:
            markers = dict.fromkeys((other.marker, each.marker))
            marker = "" if "" in markers else " or ".join(markers)
            merged[key] = replace(other, digests=other.digests | each.digests, marker=marker)
    return tuple(merged.values())


# --- requirements.txt --------------------------------------------------------------------------------


class _Requirements:
    """A requirements file and those that it includes, as pip reads them."""

    def __init__(self) -> None:
        self._own: list[str] = []
        self._notes: list[str] = []
        self._open: list[Path] = []

    def read(self, path: Path) -> Dependencies:
        pinned = _merged(self._file(path, path.name))
        return Dependencies("requirements.txt", pinned, tuple(self._own), tuple(dict.fromkeys(self._notes)))

    def _file(self, path: Path, shown: str) -> Iterator[Dependency]:
        resolved = path.resolve()
        if resolved in self._open:
            raise BadInput(f"{shown} includes itself.", "Take that -r out.")
        self._open.append(resolved)
        for number, content in logical_lines(_text(path)):
            where = f"{shown}, line {number}"
            if content.startswith("-"):
                yield from self._option(content, where, path.parent)
            elif content.partition("[")[0].strip() in _HERE:
                self._own.append(content)
            else:
                yield _requirement(content, where)
        self._open.pop()

    def _option(self, content: str, where: str, folder: Path) -> Iterator[Dependency]:
        found = _OPTION.fullmatch(content)
        name, value = (found.group(1), found.group(2).strip()) if found else (content, "")
        if name in ("-r", "--requirement") and value:
            if "://" in value:
                raise BadInput(f"{where}: it includes a URL.", "Fetch that file, and include it by its path.")
            yield from self._file(folder / value, value)
        elif name in ("-e", "--editable") and value:
            if value.partition("[")[0].strip() in _HERE:
                self._own.append(value)
            else:
                yield Dependency(redacted(value), "", where=where, why_not=_NOT_RELEASED["editable"])
        elif name in ("-c", "--constraint") and value:
            self._notes.append("Constraints (-c) are not read: what they alone pin is not pinned here.")
        elif name in _ABOUT_PLACES:
            self._notes.append("The lock names indexes of its own; those that uv is configured with are asked.")
        elif name not in _IGNORED:
            raise BadInput(f"{where}: {redacted(content)!r} is no option of a requirements file.", _REMEDY)


def _requirement(content: str, where: str) -> Dependency:
    declared, *rest = re.split(r"\s(?=--?[a-z])", content, maxsplit=1)
    declared = declared.strip()
    hashes = frozenset(_digest(each, where) for each in _HASH.findall(rest[0] if rest else ""))
    elsewhere = Dependency(redacted(declared), "", where=where, why_not="a URL or a path")
    if _LOCAL.match(declared):  # such a name may look like a package's
        return elsewhere
    try:
        requirement = requirement_of(declared)
    except ValueError as error:
        if "://" in declared:
            return elsewhere
        raise BadInput(f"{where}: {shown(declared)!r} is not a requirement: {shown(error)}.", _REMEDY) from error
    name, marker = canonicalize_name(requirement.name), str(requirement.marker or "")
    if requirement.url:
        return Dependency(name, "", hashes, marker, where, "a URL or a path")
    pinned = [spec.version for spec in requirement.specifier if spec.operator in ("==", "===")]
    if len(requirement.specifier) == 1 and pinned:
        with suppress(ValueError):
            return _release(name, pinned[0], hashes, marker, where)
    return Dependency(name, "", hashes, marker, where, f"not pinned to one version ({requirement.specifier or 'any'})")


def _digest(text: str, where: str) -> Digest:
    try:
        return Digest.parse(text)
    except BadInput as error:
        raise BadInput(f"{where}: {error.reason}", error.remedy) from error


def _release(name: str, version: str, hashes: frozenset[Digest], marker: str, where: str) -> Dependency:
    """A release on an index. Files there are known by their SHA-256: another hash can't be looked for."""
    known = frozenset(each for each in hashes if each.algorithm == "sha256")
    why_not = "the lock has no SHA-256 of its files" if hashes and not known else ""
    return Dependency(name, str(Version(version)), known, marker, where, why_not)


# --- pylock.toml -------------------------------------------------------------------------------------


def _pylock(table: Mapping[str, Any], path: Path) -> Dependencies:
    from packaging.pylock import Pylock, PylockValidationError  # noqa: PLC0415 - for this format alone

    try:
        lock = Pylock.from_dict(table)
    except PylockValidationError as error:
        raise BadInput(f"{path} is not a valid pylock.toml: {error}.", _REMEDY) from error
    found: list[Dependency] = []
    own = []
    for number, package in enumerate(lock.packages):
        where, marker = f"{path.name}, packages[{number}]", str(package.marker or "")
        version = str(package.version or "")
        if package.directory and package.directory.path in _HERE:
            own.append(package.name)
        elif package.vcs or package.directory or package.archive or not version:
            kinds = (
                (package.vcs, "a version control checkout"),
                (package.directory, "a folder"),
                (package.archive, "a file or a URL"),
            )
            why_not = next((kind for value, kind in kinds if value), "without a version")
            found.append(Dependency(package.name, version, frozenset(), marker, where, why_not))
        else:
            files = [*(package.wheels or ()), *([package.sdist] if package.sdist else ())]
            # A file may have hashes of several kinds, and of kinds that nobody should use any more.
            hashes = [f"{kind}:{text}" for each in files for kind, text in each.hashes.items()]
            known = frozenset(_digest(each, where) for each in hashes if each.startswith("sha256:"))
            why_not = "" if known else "the lock has no SHA-256 of its files"
            found.append(Dependency(package.name, version, known, marker, where, why_not))
    return Dependencies("pylock.toml", _merged(found), tuple(own))


# --- uv.lock -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a TOML file, and its place in it for messages."""

    table: Mapping[str, Any]
    where: str

    def get(self, key: str, kind: type[_T], default: _T) -> _T:
        value = self.table.get(key, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadInput(f"{self.where}: {key} is not a {_KINDS[kind]}.", _REMEDY)
        return value

    def part(self, key: str) -> "_Table":
        return _Table(self.get(key, dict, {}), f"{self.where}, {key}")

    def parts(self, key: str) -> "list[_Table]":
        values = self.get(key, list, [])
        if not all(isinstance(each, dict) for each in values):
            raise BadInput(f"{self.where}: {key} holds something else than tables.", _REMEDY)
        return [_Table(each, f"{self.where}, {key}[{number}]") for number, each in enumerate(values)]

    def texts(self, key: str) -> list[str]:
        values = self.get(key, list, [])
        if not all(isinstance(each, str) for each in values):
            raise BadInput(f"{self.where}: {key} holds something else than texts.", _REMEDY)
        return values


_KINDS: dict[type, str] = {str: "text", int: "whole number", list: "list", dict: "table"}


def _uv_lock(lock: _Table) -> Dependencies:
    if lock.get("version", int, 0) != 1:
        raise BadInput(f"{lock.where}: its format version is not 1, the one that is known.", "Update reprobuild.")
    members = frozenset(lock.part("manifest").texts("members"))
    found, own = [], []
    for package in lock.parts("package"):
        name, source = package.get("name", str, ""), package.part("source")
        if not is_normalized_name(name):
            raise BadInput(f"{package.where}: {name!r} is not the name of a package.", _REMEDY)
        kind = next((key for key in _NOT_RELEASED if key in source.table), "")
        if kind in ("editable", "virtual") and (name in members or source.get(kind, str, "") in _HERE):
            own.append(name)
        else:
            found.append(_uv_package(package, name, _NOT_RELEASED.get(kind, "")))
    return Dependencies("uv.lock", _merged(found), tuple(own))


def _uv_package(package: _Table, name: str, why_not: str) -> Dependency:
    text, marker = package.get("version", str, ""), " or ".join(package.texts("resolution-markers"))
    if why_not:
        return Dependency(name, text, frozenset(), marker, package.where, why_not)
    if not package.part("source").get("registry", str, ""):
        raise BadInput(f"{package.where}: {name} comes from nowhere that is known.", _REMEDY)
    files = [*package.parts("wheels"), *([package.part("sdist")] if "sdist" in package.table else [])]
    hashes = frozenset(_digest(each.get("hash", str, ""), each.where) for each in files if "hash" in each.table)
    try:
        return _release(name, text, hashes, marker, package.where)
    except ValueError as error:
        raise BadInput(f"{package.where}: {shown(text)!r} is not a version.", _REMEDY) from error
