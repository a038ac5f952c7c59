"""``images/NAME/apt.lock``: Debian packages, exact and hashed, and the order in which dpkg takes them. No I/O.

It is TOML. No host is named in it: a file is found by its place below any mirror's address, and known by its hash.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, shown
from reprobuild.oci.model import Platform

#: What `dpkg` calls the architectures of platforms.
_ARCHITECTURES = {
    ("amd64", ""): "amd64",
    ("arm64", ""): "arm64",
    ("arm64", "v8"): "arm64",
    ("arm", ""): "armhf",
    ("arm", "v7"): "armhf",
    ("386", ""): "i386",
    ("ppc64le", ""): "ppc64el",
    ("riscv64", ""): "riscv64",
    ("s390x", ""): "s390x",
}
# Debian Policy 5.6.1 and 5.6.12; an architecture as in dpkg's own tables.
PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:-]{0,127}")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_PATH = re.compile(r"(?!.*(?:^|/)\.{0,2}/)[A-Za-z0-9._][A-Za-z0-9._+~%/-]{0,499}\.deb")
SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_FORMAT = 1
_AGAIN = "Take it from version control, or run `reprobuild lock --upgrade`."


def architecture_of(platform: Platform) -> str:
    """The name that Debian has for a platform's architecture.

    Raises:
        BadInput: it has none.
    """
    found = _ARCHITECTURES.get((platform.architecture, platform.variant)) if platform.os == "linux" else None
    if found is None:
        raise BadInput(f"Debian has no packages for {platform}.", "Leave out `apt`, or name another platform.")
    return found


@dataclass(frozen=True, slots=True)
class Package:
    """One .deb.

    Attributes:
        size: bytes.
        path: below the archive's address, such as ``pool/main/z/zlib/zlib1g_1.2.13_amd64.deb``.
    """

    name: str
    version: str
    architecture: str
    size: int
    sha256: str
    path: str

    @property
    def digest(self) -> Digest:
        """The file's digest."""
        return Digest("sha256", self.sha256)

    @property
    def filename(self) -> str:
        """What apt calls the file in its own cache."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.architecture})"


@dataclass(frozen=True, slots=True)
class Step:
    """What dpkg does with some packages: ``unpack`` their files, or ``configure`` what is unpacked."""

    verb: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.verb, *self.names))


@dataclass(frozen=True, slots=True)
class Closure:
    """What an image needs for one platform beyond what its base has.

    Attributes:
        base: the digest in the Dockerfile's FROM.
        suites: what the packages were looked for in.
        steps: empty where the base has everything already.
    """

    platform: Platform
    base: Digest
    suites: tuple[str, ...]
    steps: tuple[Step, ...]
    packages: tuple[Package, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a lock is made for; a lock that says the same is kept.

    Attributes:
        packages: as in pyproject.toml.
        snapshot: of the archive, such as ``20261101T000000Z``; empty for whatever there is when the lock is made.
        bases: the digest in FROM, by platform.
    """

    packages: tuple[str, ...]
    snapshot: str
    bases: Mapping[Platform, Digest]


@dataclass(frozen=True, slots=True)
class AptLock:
    """The whole lock of an image."""

    packages: tuple[str, ...]
    snapshot: str
    closures: tuple[Closure, ...]

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Read a lock.

        Args:
            where: names the file in messages.

        Raises:
            BadInput: it is none, or holds what a file's name, a shell or dpkg could take for something else.
        """
        reader = _Reader(where)
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where} is not valid TOML: {shown(error)}.", _AGAIN) from error
        if document.get("version") != _FORMAT:
            raise BadInput(f"{where} has the version {shown(document.get('version'))!r}, not {_FORMAT}.", _AGAIN)
        closures = tuple(reader.closure(each) for each in reader.tables(document, "images"))
        snapshot = reader.text(document, "snapshot", SNAPSHOT) if "snapshot" in document else ""
        return cls(reader.texts(document, "packages", PACKAGE_NAME), snapshot, closures)

    def text(self, name: str) -> str:
        """The file of the image with a name: one value has one spelling."""
        lines = [
            f"# Debian packages of the image {name}, exact and hashed.",
            "# Written by `reprobuild lock`; change pyproject.toml and run it again instead.",
            f"version = {_FORMAT}",
            f"packages = {_list(self.packages)}",
            *([f'snapshot = "{self.snapshot}"'] if self.snapshot else []),
        ]
        for each in sorted(self.closures, key=lambda one: str(one.platform)):
            lines += ["", "[[images]]", f'platform = "{each.platform}"', f'base = "{each.base}"']
            lines += [f"suites = {_list(each.suites)}", "steps = ["]
            lines += [f'    "{step}",' for step in each.steps]
            lines += ["]", "files = ["]
            lines += [f"    {_line(one)}," for one in sorted(each.packages, key=lambda one: one.name)]
            lines += ["]"]
        return "\n".join(lines) + "\n"

    def fulfils(self, wanted: Wanted) -> bool:
        """Whether it was made for this."""
        bases = {each.platform: each.base for each in self.closures}
        return (self.packages, self.snapshot, bases) == (wanted.packages, wanted.snapshot, wanted.bases)

    def saying(self, wanted: Wanted) -> Self:
        """The same packages under the words of another wish: what of a lock can be told without asking the archive."""
        empty = {platform: Closure(platform, base, (), (), ()) for platform, base in wanted.bases.items()}
        known = {
            each.platform: Closure(each.platform, wanted.bases[each.platform], each.suites, each.steps, each.packages)
            for each in self.closures
            if each.platform in wanted.bases
        }
        return type(self)(wanted.packages, wanted.snapshot, tuple({**empty, **known}.values()))

    def closure(self, platform: Platform, where: str) -> Closure:
        """What is locked for a platform.

        Raises:
            BadInput: nothing is.
        """
        for each in self.closures:
            if each.platform.suits(platform):
                return each
        names = ", ".join(str(each.platform) for each in self.closures)
        raise BadInput(f"{where} has no packages for {platform}, only for {names or 'none'}.", "Add it to `platforms`.")


def _list(words: Iterable[str]) -> str:
    return json.dumps(list(words))  # TOML spells a list of plain texts the same way


def _line(package: Package) -> str:
    fields = {name: getattr(package, name) for name in ("name", "version", "architecture", "size", "sha256", "path")}
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in fields.items()) + " }"


@dataclass(frozen=True, slots=True)
class _Reader:
    where: str

    def closure(self, table: Mapping[str, Any]) -> Closure:
        packages = tuple(self.package(each) for each in self.tables(table, "files"))
        names = [each.name for each in packages]
        if len(set(names)) != len(names):
            self.fail("names a package twice")
        steps = tuple(self.step(each, names) for each in self.texts(table, "steps", None))
        if sorted(name for each in steps if each.verb == "unpack" for name in each.names) != sorted(names):
            self.fail("doesn't unpack each package once")
        return Closure(
            Platform.parse(self.text(table, "platform", None)),
            Digest.parse(self.text(table, "base", None)),
            self.texts(table, "suites", _SUITE),
            steps,
            packages,
        )

    def package(self, table: Mapping[str, Any]) -> Package:
        size = table.get("size")
        if type(size) is not int or size <= 0:
            self.fail(f"has the size {shown(size)!r}")
        digest = Digest.parse("sha256:" + self.text(table, "sha256", None))
        return Package(
            self.text(table, "name", PACKAGE_NAME),
            self.text(table, "version", _VERSION),
            self.text(table, "architecture", _ARCHITECTURE),
            size,
            digest.hex,
            self.text(table, "path", _PATH),
        )

    def step(self, text: str, names: list[str]) -> Step:
        verb, *rest = text.split(" ")
        if verb not in ("unpack", "configure") or not rest or not set(rest) <= set(names):
            self.fail(f"has the step {shown(text)!r}")
        return Step(verb, tuple(rest))

    def tables(self, table: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        return self.many(table, key, lambda each: isinstance(each, dict))

    def texts(self, table: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None) -> tuple[str, ...]:
        return tuple(
            self.many(table, key, lambda each: isinstance(each, str) and (not pattern or pattern.fullmatch(each)))
        )

    def many(self, table: Mapping[str, Any], key: str, fits: Callable[[Any], object]) -> list[Any]:
        found = table.get(key)
        if not isinstance(found, list) or not all(fits(each) for each in found):
            self.fail(f"has no proper {key}")
        return list(found)

    def text(self, table: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None) -> str:
        found = table.get(key)
        if not isinstance(found, str) or (pattern and not pattern.fullmatch(found)):
            self.fail(f"has the {key} {shown(found)!r}")
        return found

    def fail(self, what: str) -> NoReturn:
        raise BadInput(f"{self.where} {what}.", _AGAIN)
