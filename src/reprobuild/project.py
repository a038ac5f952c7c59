"""pyproject.toml, read once into frozen values that have already been checked."""

import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from reprobuild.errors import BadInput, shown
from reprobuild.files import read_text
from reprobuild.oci.model import Platform

#: What a project without [build-system] is built with (PEP 517, "fallback").
_LEGACY_REQUIRES = ("setuptools>=40.8.0",)
_LONGEST = 30 * 24 * 3600  # seconds that a build may have
_LEAST_MEMORY, _MOST_MEMORY = 64, 1 << 24  # MiB
_LEGACY_BACKEND = "setuptools.build_meta:__legacy__"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_SETTINGS = ("exclude-newer", "python", "wheel", "environments", "images", "archive", "policy", "audit")
#: Lists of tool.uv that bound what it resolves to.
_BOUNDS = ("constraint-dependencies", "override-dependencies", "build-constraint-dependencies", "dev-dependencies")
_SELECTION = ("project", "extras", "groups", "python", "platform")
_OF_IMAGES = ("interpreter", "platforms", "manylinux", "apt", "apt-snapshot")
#: A package's name, as in Debian Policy 5.6.1: a version, an architecture or an option can't be said.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z")
#: An absolute path that means itself in a shebang and in pyvenv.cfg, whatever reads it.
_INTERPRETER = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._+-]+)+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Variables that reprobuild itself must control.
_RESERVED = frozenset(
    """PATH HOME TMPDIR USER LOGNAME TZ LC_ALL LANG PYTHONHASHSEED SOURCE_DATE_EPOCH VIRTUAL_ENV
    PYTHONPATH PYTHONHOME LD_PRELOAD LD_LIBRARY_PATH""".split()
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runtime requirements a lock holds, and for which Python and platform.

    Attributes:
        name: the image's or environment's name.
        output: the lock's path, relative to the project.
        project: whether the project's own dependencies are among them.
        extras, groups: the project's extras and dependency groups that are added.
        python: a Python version, such as ``3.12``; empty for every one that the project admits.
        platform: a uv platform, such as ``x86_64-manylinux_2_28``; empty for every one.
    """

    name: str
    output: str
    project: bool = True
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    python: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """``[tool.reprobuild.images.<name>]``: an image's lock, and what runs it.

    Attributes:
        interpreter: the absolute path of the base's Python; empty where the base's own config tells.
        platforms: what the image is built for; empty for the one that the lock is for.
        manylinux: the newest manylinux that the base's C library can run, such as ``2_28``, for a lock of every
            platform; empty where ``selection.platform`` says it.
        apt: names of Debian packages that RUN steps install.
        apt_snapshot: the moment of the archive that they are taken from, such as ``20261101T000000Z``; empty for
            when the lock is made.
    """

    selection: Selection
    interpreter: str = ""
    platforms: tuple[Platform, ...] = ()
    manylinux: str = ""
    apt: tuple[str, ...] = ()
    apt_snapshot: str = ""


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """``[tool.reprobuild.wheel]``: what a build gets beyond its locked requirements.

    Attributes:
        environment: variables for the backend and the compilers; they are written into the record.
        config_settings: PEP 517 config settings.
        readable: folders outside the system's own that the sandbox shows, read-only.
        path: folders put before the system's on PATH.
        sandbox: the sandbox kind when the command line names none.
        timeout: seconds after which a step of a build is ended.
        memory: MiB that the programs of one step may hold together, and the files in its /tmp; None for any.
        sbom: whether the wheel gets a bill of materials inside (PEP 770).
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    config_settings: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    readable: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    sandbox: str = "auto"
    timeout: int = 7200
    memory: int | None = None
    sbom: bool = False


@dataclass(frozen=True, slots=True)
class Ignore:
    """``[[tool.reprobuild.audit.ignore]]``: a known vulnerability that somebody has looked at.

    Attributes:
        id: any of its names.
        expires: the last day, in UTC, on which it is ignored.
        package: the only one in which it is ignored, normalised; empty for any.
    """

    id: str
    reason: str
    expires: date
    package: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """One project's intent.

    Attributes:
        root: the project's folder.
        name: the distribution's normalised name; empty when only the backend knows it.
        requires_python: the project's range of Python versions, as written.
        build_requires: ``[build-system].requires``.
        backend: ``[build-system].build-backend``.
        exclude_newer: ``[tool.reprobuild] exclude-newer``: a time, False to have none, or None when not set.
        python: the interpreter to build with, when the command line names none.
        selections: every runtime lock; the first is requirements.txt.
        images: the images, in the order of pyproject.toml; their locks are among the selections.
        archive: where bases are kept that their registries may delete: ``oci:DIR`` or a repository; empty for none.
        ignored: vulnerabilities that `audit` doesn't count for some time.
    """

    root: Path
    name: str
    requires_python: str
    build_requires: tuple[Requirement, ...]
    backend: str
    backend_path: tuple[str, ...]
    has_metadata: bool
    exclude_newer: str | bool | None
    python: str | None
    wheel: BuildSettings
    selections: tuple[Selection, ...]
    images: tuple[ImageSettings, ...] = ()
    archive: str = ""
    ignored: tuple[Ignore, ...] = ()

    @property
    def is_legacy(self) -> bool:
        """Whether it names no backend, and so gets setuptools' fallback for such projects."""
        return self.backend == _LEGACY_BACKEND


def load(root: Path, called: str = "") -> Config:
    """Read ``root/pyproject.toml``.

    Args:
        called: what messages call the folder, where its path would tell the reader nothing.

    Raises:
        BadInput: it is missing, isn't TOML, or says something that has no meaning.
    """
    path = root / "pyproject.toml"
    name = f"pyproject.toml of {called}" if called else str(path)
    if not path.is_file():
        if (root / "setup.py").is_file():
            return _parse({}, root, name)
        raise BadInput(
            f"There is no pyproject.toml in {called or root}.",
            "Run the command in a Python project's folder, or name one.",
        )
    try:
        document = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} is not valid TOML: {error}.", "Mend it at the place that is named.") from error
    return _parse(document, root, name)


@lru_cache(4096)
def requirement_of(text: str) -> Requirement:
    """A requirement (PEP 508) whose versions can be compared with others; nobody changes what is returned.

    Raises:
        ValueError: it is none.
    """
    try:
        requirement = Requirement(text)
        _check_versions(requirement.specifier)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return requirement


def _check_versions(specifiers: SpecifierSet) -> None:
    for each in specifiers:
        each.contains("1")  # a version is parsed when it is first needed: one of 5000 digits raises a ValueError then


def asked_for(root: Path) -> Iterator[tuple[str, Requirement]]:
    """The requirements that pyproject.toml states, each with the name of its table, as far as they can be read.

    Those of uv's own settings, which bound what it may choose, are among them; what a backend computes isn't.
    """
    try:
        document: object = tomllib.loads(read_text(root / "pyproject.toml"))
    except (BadInput, ValueError, RecursionError):
        return
    tables = ("build-system.requires", "project.dependencies", *(f"tool.uv.{name}" for name in _BOUNDS))
    lists = [(path, functools.reduce(_inner, path.split("."), document)) for path in tables]
    for path in ("project.optional-dependencies", "dependency-groups"):
        named: object = functools.reduce(_inner, path.split("."), document)
        lists += [(f"{path}.{name}", listed) for name, listed in named.items()] if isinstance(named, dict) else []
    for where, listed in lists:
        for text in listed if isinstance(listed, list) else ():
            if isinstance(text, str):  # a group may include another, which is in the list by itself
                with suppress(ValueError):
                    yield where, requirement_of(text)


def _inner(table: object, key: str) -> object:
    return table.get(key) if isinstance(table, dict) else None


def build_requires(document: Mapping[str, Any], where: str, default: Sequence[str]) -> tuple[Requirement, ...]:
    """``[build-system].requires`` of a parsed pyproject.toml; ``where`` names the file in messages.

    Raises:
        BadInput: it isn't a list of requirements.
    """
    reader = _Reader(where)
    system = reader.table(document, "build-system", {})
    texts = reader.strings(system, "requires", "build-system", tuple(default))
    return tuple(reader.requirement(text, "build-system.requires") for text in texts)


def _with_nul(document: Mapping[str, Any]) -> str:
    """The key of a text with a NUL character; empty for none."""
    waiting: list[tuple[str, object]] = [("", document)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            return key.replace("\0", "\\0")
        if isinstance(value, dict):
            # A name is a text too: that of a variable, or of an option of the backend.
            waiting += [(f"{key}.{name}".lstrip("."), text) for name, inner in value.items() for text in (name, inner)]
        elif isinstance(value, list):
            waiting += [(key, inner) for inner in value]
    return ""


def _parse(document: Mapping[str, Any], root: Path, path: str) -> Config:
    reader = _Reader(path)
    if key := _with_nul(document):
        raise BadInput(f"{path}: {key} has a NUL character in it.", "No name, path or option can hold one.")
    system = reader.table(document, "build-system", {})
    project = reader.table(document, "project", {})
    tool = reader.table(reader.table(document, "tool", {}), "reprobuild", {}, "tool.")
    reader.known(tool, "tool.reprobuild", _SETTINGS)
    requires_python = str(project.get("requires-python", ""))
    try:
        _check_versions(SpecifierSet(requires_python))
    except ValueError as error:
        raise BadInput(f"{path}: project.requires-python: {shown(error)}.") from error
    name = project.get("name", "")
    known = _Known.of(document, project)
    images = tuple(_image(reader, *each, known) for each in _tables(reader, tool, "images"))
    environments = (_selection(reader, "environments", *each, known) for each in _tables(reader, tool, "environments"))
    own = Selection(name="", output="requirements.txt")
    return Config(
        root=root,
        name=canonicalize_name(name) if isinstance(name, str) else "",
        requires_python=requires_python,
        build_requires=build_requires(document, path, _LEGACY_REQUIRES),
        backend=reader.string(system, "build-backend", "build-system", _LEGACY_BACKEND),
        backend_path=reader.strings(system, "backend-path", "build-system", ()),
        has_metadata=bool(project),
        exclude_newer=_exclude_newer(tool, path),
        python=reader.string(tool, "python", "tool.reprobuild", "") or None,
        wheel=_build_settings(reader, reader.table(tool, "wheel", {}, "tool.reprobuild.")),
        selections=(own, *environments, *(image.selection for image in images)),
        images=images,
        archive=reader.string(tool, "archive", "tool.reprobuild", ""),
        ignored=_ignored(reader, reader.table(tool, "audit", {}, "tool.reprobuild.")),
    )


def _ignored(reader: "_Reader", table: Mapping[str, Any]) -> tuple[Ignore, ...]:
    where = "tool.reprobuild.audit"
    reader.known(table, where, ("ignore",))
    listed = table.get("ignore", [])
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise BadInput(f"{reader.path}: {where}.ignore is not a list of tables.", f"Write [[{where}.ignore]].")
    found = tuple(_ignore(reader, each, f"{where}.ignore") for each in listed)
    keys = [(each.id, each.package) for each in found]
    if twice := next((each for each in keys if keys.count(each) > 1), None):
        raise BadInput(f"{reader.path}: {where}.ignore names {shown(twice[0])} twice.", "Keep the one that is true.")
    return found


def _ignore(reader: "_Reader", table: Mapping[str, Any], where: str) -> Ignore:
    reader.known(table, where, ("id", "reason", "expires", "package"))
    name, reason = (reader.string(table, key, where, "").strip() for key in ("id", "reason"))
    if not name:
        raise BadInput(f"{reader.path}: {where} has no id.", 'Such as id = "CVE-2025-27516"; any of its names will do.')
    called = f"{where} of {shown(name)}"
    if not reason:
        raise BadInput(f"{reader.path}: {called} has no reason.", "Say why it does no harm here: others will ask.")
    expires = table.get("expires")
    if not isinstance(expires, date) or isinstance(expires, datetime):
        raise BadInput(
            f"{reader.path}: {called} has no date in expires.",
            "Write expires = 2026-12-31, without quotes: on the day after, it counts again.",
        )
    package = reader.string(table, "package", where, "")
    return Ignore(name, reason, expires, canonicalize_name(package))


def _exclude_newer(tool: Mapping[str, Any], path: str) -> str | bool | None:
    value = tool.get("exclude-newer")
    if value is None or value is False:
        return value
    if isinstance(value, date):  # which a datetime is too
        value = value.isoformat()
    if not isinstance(value, str):
        raise BadInput(f"{path}: tool.reprobuild.exclude-newer is neither a time nor false.")
    return check_time(value, f"{path}: tool.reprobuild.exclude-newer")


def check_time(text: str, where: str) -> str:
    """A time in RFC 3339 with its zone, normalised to UTC, or a date (its first moment in UTC).

    Raises:
        BadInput: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
        in_utc = moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError) as error:
        raise BadInput(
            f"{where}: {text!r} is not a time.", "Write it like 2026-05-01T00:00:00Z or 2026-05-01."
        ) from error
    if moment.tzinfo is None and len(text) > len("2026-05-01"):
        raise BadInput(f"{where}: {text!r} has no time zone.", "Add Z for UTC.")
    return in_utc.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _build_settings(reader: "_Reader", table: Mapping[str, Any]) -> BuildSettings:
    where = "tool.reprobuild.wheel"
    keys = ("environment", "config-settings", "readable", "path", "sandbox", "timeout", "memory", "sbom")
    reader.known(table, where, keys)
    environment = _build_environment(reader, table, where)
    settings: dict[str, str | tuple[str, ...]] = {}
    for name, value in reader.table(table, "config-settings", {}, f"{where}.").items():
        if isinstance(value, str):
            settings[name] = value
        else:
            settings[name] = reader.strings({name: value}, name, f"{where}.config-settings", ())
    sandbox = reader.string(table, "sandbox", where, "auto")
    kinds = ("auto", "bubblewrap", "unshare", "plain")
    if sandbox not in kinds:
        raise BadInput(f"{reader.path}: {where}.sandbox is {sandbox!r}, not one of {', '.join(kinds)}.")
    timeout = table.get("timeout", BuildSettings().timeout)
    if type(timeout) is not int or not 0 < timeout <= _LONGEST:
        raise BadInput(f"{reader.path}: {where}.timeout is not a number of seconds, at most {_LONGEST}.")
    memory = table.get("memory")
    if memory is not None and (type(memory) is not int or not _LEAST_MEMORY <= memory <= _MOST_MEMORY):
        raise BadInput(
            f"{reader.path}: {where}.memory is not a number of MiB between {_LEAST_MEMORY} and {_MOST_MEMORY}."
        )
    folders: dict[str, tuple[str, ...]] = {}
    for key in ("readable", "path"):
        folders[key] = reader.strings(table, key, where, ())
        for folder in folders[key]:
            if not folder.startswith("/"):
                raise BadInput(f"{reader.path}: {where}.{key}: {folder!r} is not an absolute path.")
    return BuildSettings(
        environment=dict(environment),
        config_settings=settings,
        readable=folders["readable"],
        path=folders["path"],
        sandbox=sandbox,
        timeout=timeout,
        memory=memory,
        sbom=reader.flag(table, "sbom", where, default=False),
    )


def _build_environment(reader: "_Reader", table: Mapping[str, Any], where: str) -> Mapping[str, str]:
    environment = reader.table(table, "environment", {}, f"{where}.")
    for name, value in environment.items():
        if not isinstance(value, str) or not _VARIABLE.fullmatch(name):
            raise BadInput(f"{reader.path}: {where}.environment.{name} is not a variable with a string value.")
        if name in _RESERVED or name.startswith("UV_"):
            raise BadInput(
                f"{reader.path}: {where}.environment.{name} can't be set here.",
                "reprobuild holds it fixed; that is what makes a build come out the same.",
            )
    return environment


@dataclass(frozen=True, slots=True)
class _Known:
    """The extras and groups that pyproject.toml declares; None where only the backend knows."""

    extras: frozenset[str] | None
    groups: frozenset[str] | None

    @classmethod
    def of(cls, document: Mapping[str, Any], project: Mapping[str, Any]) -> Self:
        extras, groups = project.get("optional-dependencies", {}), document.get("dependency-groups", {})
        said = project and "optional-dependencies" not in project.get("dynamic", ())
        return cls(
            frozenset(map(canonicalize_name, extras)) if said and isinstance(extras, dict) else None,
            frozenset(map(canonicalize_name, groups)) if isinstance(groups, dict) else None,
        )

    def check(self, selection: Selection, where: str, path: str) -> None:
        """Raise BadInput unless everything that a selection names is declared."""
        for key, names, declared, table in (
            ("extras", selection.extras, self.extras, "[project.optional-dependencies]"),
            ("groups", selection.groups, self.groups, "[dependency-groups]"),
        ):
            absent = [] if declared is None else [each for each in names if canonicalize_name(each) not in declared]
            if absent:
                near = difflib.get_close_matches(canonicalize_name(absent[0]), declared or (), n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else f"Declare it in {table}."
                raise BadInput(f"{path}: {where}.{key} names {absent[0]!r}, which {table} doesn't hold.", hint)


def _tables(reader: "_Reader", tool: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The named tables of one kind."""
    for name, table in reader.table(tool, kind, {}, "tool.reprobuild.").items():
        where = f"tool.reprobuild.{kind}.{name}"
        if not _NAME.fullmatch(name):
            raise BadInput(f"{reader.path}: {where}: {name!r} can't be a folder's name.")
        if not isinstance(table, dict):
            raise BadInput(f"{reader.path}: {where} is not a table.")
        yield name, table


def _selection(
    reader: "_Reader", kind: str, name: str, table: Mapping[str, Any], known: _Known, more: tuple[str, ...] = ()
) -> Selection:
    where = f"tool.reprobuild.{kind}.{name}"
    reader.known(table, where, (*_SELECTION, *more))
    selection = Selection(
        name=name,
        output=f"{kind}/{name}/requirements.txt",
        project=reader.flag(table, "project", where, default=True),
        extras=reader.strings(table, "extras", where, ()),
        groups=reader.strings(table, "groups", where, ()),
        python=reader.string(table, "python", where, ""),
        platform=reader.string(table, "platform", where, ""),
    )
    if selection.extras and not selection.project:
        raise BadInput(
            f"{reader.path}: {where} names extras but has project = false.",
            "Extras belong to the project: drop one of the two.",
        )
    known.check(selection, where, reader.path)
    return selection


def _image(reader: "_Reader", name: str, table: Mapping[str, Any], known: _Known) -> ImageSettings:
    where = f"tool.reprobuild.images.{name}"
    selection = _selection(reader, "images", name, table, known, _OF_IMAGES)
    interpreter = reader.string(table, "interpreter", where, "")
    if interpreter and not _INTERPRETER.fullmatch(interpreter):
        raise BadInput(
            f"{reader.path}: {where}.interpreter: {interpreter!r} is not an absolute path in plain letters.",
            "Write it like /usr/bin/python3.12, as it is in the base image.",
        )
    manylinux = reader.string(table, "manylinux", where, "")
    if manylinux and not re.fullmatch(r"2_[0-9]{1,3}", manylinux):
        raise BadInput(
            f"{reader.path}: {where}.manylinux: {manylinux!r} is not a version of glibc.", "Write it like 2_28."
        )
    if manylinux and selection.platform:
        raise BadInput(
            f"{reader.path}: {where} has a platform, which names its manylinux already.", "Drop one of the two."
        )
    platforms: list[Platform] = []
    for text in reader.strings(table, "platforms", where, ()):
        try:
            platforms.append(Platform.parse(text))
        except BadInput as error:
            raise BadInput(f"{reader.path}: {where}.platforms: {error.reason}", error.remedy) from error
    if len(set(platforms)) != len(platforms):
        raise BadInput(f"{reader.path}: {where}.platforms names one twice.", "Name each once.")
    packages, snapshot = _packages(reader, table, where)
    return ImageSettings(selection, interpreter, tuple(platforms), manylinux, packages, snapshot)


def _packages(reader: "_Reader", table: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], str]:
    packages = reader.strings(table, "apt", where, ())
    for each in packages:
        if not _PACKAGE.fullmatch(each):
            raise BadInput(
                f"{reader.path}: {where}.apt: {shown(each)!r} is not the name of a Debian package.",
                "Write names alone; `reprobuild lock` adds versions.",
            )
    snapshot = reader.string(table, "apt-snapshot", where, "")
    if snapshot and not _SNAPSHOT.fullmatch(snapshot):
        raise BadInput(
            f"{reader.path}: {where}.apt-snapshot: {shown(snapshot)!r} is not a snapshot.",
            "Write it like 20261101T000000Z, in UTC.",
        )
    if snapshot and not packages:
        raise BadInput(f"{reader.path}: {where} has an apt-snapshot and no apt.", "Name packages in apt, or drop it.")
    return packages, snapshot


@dataclass(frozen=True, slots=True)
class _Reader:
    """Typed look-ups that name the file and the key when a value is of the wrong type."""

    path: str

    def _typed(self, value: object, accept: Callable[[object], bool], where: str, what: str) -> None:
        if not accept(value):
            raise BadInput(f"{self.path}: {where} is not {what}.")

    def table(
        self, parent: Mapping[str, Any], key: str, default: Mapping[str, Any], prefix: str = ""
    ) -> Mapping[str, Any]:
        value = parent.get(key, default)
        self._typed(value, lambda each: isinstance(each, dict), f"{prefix}{key}", "a table")
        return value  # type: ignore[no-any-return]

    def string(self, table: Mapping[str, Any], key: str, where: str, default: str) -> str:
        value = table.get(key, default)
        self._typed(value, lambda each: isinstance(each, str), f"{where}.{key}", "a string")
        return str(value)

    def flag(self, table: Mapping[str, Any], key: str, where: str, *, default: bool) -> bool:
        value = table.get(key, default)
        self._typed(value, lambda each: isinstance(each, bool), f"{where}.{key}", "true or false")
        return bool(value)

    def strings(self, table: Mapping[str, Any], key: str, where: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = table.get(key, list(default))
        self._typed(
            value,
            lambda each: isinstance(each, list) and all(isinstance(item, str) for item in each),
            f"{where}.{key}",
            "a list of strings",
        )
        return tuple(value)

    def requirement(self, text: str, where: str) -> Requirement:
        try:
            return requirement_of(text)
        except ValueError as error:
            raise BadInput(f"{self.path}: {where}: {shown(text)!r} is not a requirement: {shown(error)}.") from error

    def known(self, table: Mapping[str, Any], where: str, keys: tuple[str, ...]) -> None:
        for key in table:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else f"It can hold: {', '.join(keys)}."
                raise BadInput(f"{self.path}: [{where}] has no key {key!r}.", hint)
