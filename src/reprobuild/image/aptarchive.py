"""Debian's archive, asked by apt in folders of its own: nothing of the machine's apt is changed.

Which archive is apt's business here as uv's is for wheels: the machine's own sources, or those in the file that
``REPROBUILD_APT_SOURCES`` names. apt checks the chain from the signature of InRelease over the index of each
suite to the hashes of packages; the keys are the base image's own.
"""

import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reprobuild import process
from reprobuild.errors import BadInput, BuildFailed, DigestMismatch, IndexFailed, ReprobuildError, redacted, shown
from reprobuild.files import read_text
from reprobuild.image.aptlock import PACKAGE_NAME, Package, Step
from reprobuild.process import ToolFailed

SOURCES = "REPROBUILD_APT_SOURCES"
_DATE = "{date}"
_LISTED = re.compile(r"^'(\S+?)/*/dists/(\S+?)/(?:InRelease|(\S+)/binary-[^/]+/Packages[^/']*)'", re.MULTILINE)
_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<address>\S+)\s+(?P<suite>\S+)\s+(?P<components>\S.*)")
_SIMULATED = re.compile(r"^(Inst|Conf) ([^\s:]+)(?::\S+)? (?:\[\S+\] )?\((\S+) .*\)", re.MULTILINE)
_REMOVED = re.compile(r"^Remv (\S+)", re.MULTILINE)
_UNTRUSTED = re.compile(r"NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|Clearsigned|invalid signature|couldn't be verified")
_UNSIGNED = re.compile(r"is not signed|not valid yet|is expired")
_WRONG = re.compile(r"Hash Sum mismatch|unexpected size|Weak hash")
_UNKNOWN = re.compile(r"Unable to locate package (\S+)|Package '?([^\s']+)'? has no installation candidate")
_SECONDS = 900
_WORDS = 1500  # characters of apt's own that a message holds
_NO_ANSWER = f"Check the network and apt's sources; {SOURCES} names a file with others."


@dataclass(frozen=True, slots=True)
class Source:
    """One suite of an archive.

    Attributes:
        options: as in sources.list, without brackets.
    """

    address: str
    suite: str
    components: str = "main"
    options: str = ""


@dataclass(frozen=True, slots=True)
class Installed:
    """What a base image has.

    Attributes:
        distribution, codename: ``ID`` and ``VERSION_CODENAME`` of its os-release.
        status: dpkg's database.
        keyring: the keys that its apt trusts; empty where it has none.
    """

    distribution: str
    codename: str
    status: bytes
    keyring: bytes


@dataclass(frozen=True, slots=True)
class Resolved:
    """Packages, and the order in which dpkg takes them."""

    packages: tuple[Package, ...]
    steps: tuple[Step, ...]
    suites: tuple[str, ...]


def sources(distribution: str, codename: str, snapshot: str = "") -> tuple[Source, ...]:
    """The suites that packages of a release come from.

    With the machine's own sources, the suites of its own release stand for the same ones of another.

    Args:
        snapshot: goes where an address has ``{date}``.

    Raises:
        BadInput: there are none, or none for a snapshot; or the file with them can't be understood.
        ToolMissing: nobody named a file, and there is no apt.
    """
    named = os.environ.get(SOURCES, "")
    found = list(_read(Path(named), codename) if named else _machines(distribution, codename))
    if not found:
        raise BadInput(
            f"This machine's apt has no source for {shown(distribution)} {shown(codename)}.",
            f"Name a file with one in {SOURCES}.",
        )
    dated = any(_DATE in each.address for each in found)
    if dated and not snapshot:
        raise BadInput(
            f"An address in {named} has {_DATE}, and the image names no snapshot.",
            'Add apt-snapshot = "20261101T000000Z", with a date of yours.',
        )
    if snapshot and not dated:
        raise BadInput(
            f"The image names the snapshot {snapshot}, and no address of {named or 'apt on this machine'} has {_DATE}.",
            f"Name a file in {SOURCES} whose addresses have {_DATE} where the date goes.",
        )
    return tuple(_at(each, snapshot) for each in found)


def addresses(snapshot: str) -> tuple[str, ...]:
    """Where files may be that are known by their hashes: each archive of the sources.

    Raises:
        As :func:`sources`.
    """
    if named := os.environ.get(SOURCES, ""):
        found = [each.address for each in _read(Path(named), "any") if snapshot or _DATE not in each.address]
    else:
        found = [address for address, _ in _listed()]
    return tuple(dict.fromkeys(address.replace(_DATE, snapshot).rstrip("/") for address in found))


def _at(source: Source, snapshot: str) -> Source:
    return replace(source, address=source.address.replace(_DATE, snapshot).rstrip("/"))


def _read(path: Path, codename: str) -> Iterator[Source]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text = line.partition("#")[0].strip().replace("{codename}", codename)
        match = _LINE.fullmatch(text)
        if match and re.match(r"https?://\S+$", match["address"]):
            yield Source(match["address"], match["suite"], match["components"], match["options"] or "")
        elif text and not text.startswith("deb-src"):
            raise BadInput(f"{path}:{number}: This is no source.", "Write `deb http://ADDRESS SUITE COMPONENT…`.")


def _machines(distribution: str, codename: str) -> Iterator[Source]:
    """The suites of the machine's own release, or of the base's where it has those, under the base's codename."""
    own = _machines_release()
    if own.get("ID") != distribution:
        return
    for (address, suite), components in _listed().items():
        stem, dash, rest = suite.partition("-")
        if stem in (own.get("VERSION_CODENAME"), codename):
            yield Source(address, f"{codename}{dash}{rest}", " ".join(components))


def _listed() -> Mapping[tuple[str, str], Sequence[str]]:
    """Address and suite of the machine's sources that have a component ``main``, as distributions have, by order."""
    # Not `indextargets`, which knows nothing until somebody has run `apt-get update` on the machine.
    listed = process.run(
        ["apt-get", "update", "--print-uris", "--option=Debug::NoLocking=true"],
        env=process.tool_environment(),
        timeout=_SECONDS,
    ).stdout.decode(errors="replace")
    found: dict[tuple[str, str], list[str]] = {}
    for address, suite, component in _LISTED.findall(listed):
        known = found.setdefault((address, suite), [])
        if component and component not in known:
            known.append(component)
    return {each: names or ["main"] for each, names in found.items() if not names or "main" in names}


def _machines_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


class Apt:
    """apt with lists, settings and a status of its own; of the machine it has the way to the network.

    Args:
        folder: an empty one.
        architecture: as dpkg calls it.
        dated: whether the sources are of a day that has passed, when what they say of their end doesn't matter.
    """

    def __init__(
        self, folder: Path, base: Installed, architecture: str, found: Sequence[Source], *, dated: bool
    ) -> None:
        for name in (
            "lists/partial",
            "cache/archives/partial",
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
        ):
            (folder / name).mkdir(parents=True)
        (folder / "status").write_bytes(base.status)
        keys = _keyring(base, folder)
        lines = []
        for each in found:
            given = {word.partition("=")[0] for word in each.options.split()}
            options = f"arch={architecture} {each.options}"
            options += "" if given & {"signed-by", "trusted"} else f" signed-by={keys}"
            lines.append(f"deb [{options}] {each.address} {each.suite} {each.components}\n")
        (folder / "sources.list").write_text("".join(lines), encoding="utf-8")
        settings = _way_to_network() + "".join(
            f'{name} "{value}";\n' for name, value in _settings(folder, architecture, dated=dated).items()
        )
        (folder / "apt.conf").write_text(settings, encoding="utf-8")
        self._env = process.tool_environment({"APT_CONFIG": str(folder / "apt.conf")})
        self._suites = tuple(dict.fromkeys(each.suite for each in found))

    def update(self) -> None:
        """Fetch the indexes.

        Raises:
            DigestMismatch: a signature or a hash in the chain is wrong.
            IndexFailed: an archive doesn't answer, or has no such suite.
        """
        self._run("apt-get", "--quiet", "update")

    def resolve(self, names: Sequence[str]) -> Resolved:
        """What has to be installed so that some packages are there, without what they only recommend.

        Raises:
            BuildFailed: a package isn't there, or they don't go together.
        BadInput: the base's database is malformed.
        """
        said = self._run("apt-get", "--quiet", "--simulate", "install", "--", *names)
        if removed := _REMOVED.findall(said):
            raise BuildFailed(f"The packages can't be installed without removing {', '.join(removed)}.")
        done = _SIMULATED.findall(said)
        versions = {name: version for verb, name, version in done if verb == "Inst"}
        packages = tuple(self._packages(versions)) if versions else ()
        return Resolved(packages, tuple(_steps((verb, name) for verb, name, _ in done)), self._suites)

    def _packages(self, versions: Mapping[str, str]) -> Iterator[Package]:
        """The files of some versions, as the signed indexes name them."""
        wanted = [f"{name}={version}" for name, version in versions.items()]
        said = self._run("apt-cache", "show", "--no-all-versions", "--", *wanted)
        found: dict[str, Package] = {}
        for stanza in said.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
            name, version = fields.get("Package", ""), fields.get("Version", "")
            # The one in dpkg's own database has no file.
            size = re.fullmatch("[0-9]{1,15}", fields.get("Size", ""))
            if size and versions.get(name) == version and {"Filename", "SHA256", "Architecture"} <= fields.keys():
                path = fields["Filename"].removeprefix("./")
                found.setdefault(
                    name, Package(name, version, fields["Architecture"], int(size[0]), fields["SHA256"], path)
                )
        if absent := versions.keys() - found.keys():
            raise IndexFailed(f"The archive's index has no SHA-256 for {', '.join(sorted(absent))}.")
        yield from found.values()

    def _run(self, *command: str) -> str:
        lines: list[str] = []  # of both streams: why packages don't go together isn't said as an error
        try:
            process.run(command, env=self._env, on_line=lines.append, timeout=_SECONDS)
        except ToolFailed as error:
            raise _explained("\n".join(lines)) from error
        return "\n".join(lines)


def _steps(done: Iterable[tuple[str, str]]) -> Iterator[Step]:
    """apt's order, with what goes in one call of dpkg together."""
    verb, names = "", list[str]()
    for each, name in done:
        if each != verb and names:
            yield Step("unpack" if verb == "Inst" else "configure", tuple(names))
            names = []
        verb = each
        names.append(name)
    if names:
        yield Step("unpack" if verb == "Inst" else "configure", tuple(names))


def _settings(folder: Path, architecture: str, *, dated: bool) -> dict[str, str]:
    return {
        "Dir": str(folder),
        "Dir::State": str(folder),
        "Dir::State::lists": "lists",
        "Dir::State::status": str(folder / "status"),
        "Dir::Cache": str(folder / "cache"),
        "Dir::Etc": str(folder / "etc"),
        "Dir::Etc::sourcelist": str(folder / "sources.list"),
        "Dir::Etc::main": "/dev/null",  # this and the folders beside it would have hooks of the machine's
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Install-Recommends": "false",
        "APT::Update::Error-Mode": "any",
        "APT::Sandbox::User": "root",  # its own user couldn't read the folder
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowDowngradeToInsecureRepositories": "false",
        "Acquire::Check-Valid-Until": "false" if dated else "true",
        "Debug::NoLocking": "true",
    }


def _way_to_network() -> str:
    """The machine's settings for proxies, certificates and time limits, as lines of a configuration file."""
    said = process.run(["apt-config", "dump", "Acquire"], env=process.tool_environment(), timeout=_SECONDS)
    lines = said.stdout.decode(errors="replace").splitlines(keepends=True)
    return "".join(line for line in lines if re.match(r"Acquire::(https?|ftp|Retries)\b", line))


def _keyring(base: Installed, folder: Path) -> Path:
    """The keys that sign the archive: the base's, which a digest names, else the machine's for that distribution."""
    machines = Path(f"/usr/share/keyrings/{base.distribution}-archive-keyring.gpg")
    if base.keyring:
        (folder / "keyring.gpg").write_bytes(base.keyring)
        return folder / "keyring.gpg"
    if re.fullmatch("[a-z]+", base.distribution) and machines.is_file():
        return machines
    raise BadInput(
        f"Neither the base nor this machine has the keys of {shown(base.distribution)}'s archive ({machines}).",
        f"Install the package {shown(base.distribution)}-archive-keyring, or say signed-by=FILE in {SOURCES}.",
    )


def _explained(output: str) -> ReprobuildError:
    """apt's errors by what can be done about them."""
    lines = [line for line in redacted(output).splitlines() if line.startswith(("E: ", "W: "))]
    said = shown("\n".join(lines) or redacted(output).strip(), _WORDS)
    if unknown := [name for found in _UNKNOWN.findall(said) for name in found if PACKAGE_NAME.fullmatch(name)]:
        return BuildFailed(
            f"The archive has no package {', '.join(unknown)}.", "Check the name, and the components of the sources."
        )
    if re.search("status file could not be parsed|Unable to parse package file", said):
        return BadInput(f"The base's /var/lib/dpkg/status, or an archive's index, can't be read:\n{said}")
    if _UNTRUSTED.search(said) or (_UNSIGNED.search(said) and "Failed to fetch" not in said):
        return DigestMismatch(
            f"An archive's index can't be trusted; the keys are those of the base image:\n{said}",
            f"Find out who serves it. signed-by=FILE in a line of {SOURCES} names other keys.",
        )
    if _WRONG.search(said):
        return DigestMismatch(f"An archive's index doesn't have the signed hash:\n{said}", "Try again, or elsewhere.")
    if "unmet dependencies" in output:
        why = output.partition("unmet dependencies")[2].partition("\n")[2]
        return BuildFailed(f"The packages don't go together with what the base has:\n{shown(why, _WORDS)}")
    return IndexFailed(f"apt can't use an archive:\n{said}", _NO_ANSWER)
