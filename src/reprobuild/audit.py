"""Known vulnerabilities of what locks pin and of what artifacts were made from, and which of them count.

Every pin is asked about, whatever its marker says: this machine's environment must not hide one. Nothing is
installed.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from packaging.utils import parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from reprobuild import __version__, attest, lockfile
from reprobuild.advisories import SCANNER, Advisory, Package, Service, Severity, ask, scanner_version
from reprobuild.attest import ImageRecord, Json, Record, SdistRecord, WheelRecord
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, LockMissing, NotAudited, RecordUnusable, SourceUnusable, shown
from reprobuild.files import read_text
from reprobuild.gitcmd import run_git
from reprobuild.lock import BUILD_LOCK
from reprobuild.process import ToolFailed
from reprobuild.progress import SILENT, Observer
from reprobuild.project import Config, Ignore
from reprobuild.sdist import SUFFIX

RUNTIME_LOCK = "requirements.txt"
#: Who ignores something for longer has forgotten it.
LONGEST_IGNORED = timedelta(days=366)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PURL = re.compile(r"pkg:pypi/([^@?#/]+)@([^@?#]+)")
_A_LOCK = (
    "A lock has exact versions and hashes, as `reprobuild lock`, `uv export` and `pip-compile --generate-hashes` write."
)
_ROLES = ("wheel", "own-wheel", "build-requirement")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A package where it is named.

    Attributes:
        line: of the file, from 1; 0 where it isn't one of lines.
    """

    package: Package
    line: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Something that names packages: a lock, or the record of an artifact.

    Attributes:
        name: what messages call it; of a lock its path, as it was given or from the project's folder.
        digest: of its bytes.
        is_file: whether the name is a file's, in which lines can be shown.
    """

    name: str
    digest: Digest
    pins: tuple[Pinned, ...]
    is_file: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A vulnerability, and where the package that has it is named.

    Attributes:
        where: each source with the line in it.
        ignored: why it doesn't count.
        expired: why it didn't, until some day.
    """

    advisory: Advisory
    where: tuple[tuple[Source, int], ...]
    ignored: Ignore | None = None
    expired: Ignore | None = None

    def counts(self, least: Severity) -> bool:
        """Whether it is at least so severe, and not ignored."""
        return self.ignored is None and self.advisory.severity.rank >= least.rank


@dataclass(frozen=True)
class Report:
    """What an audit came to.

    Attributes:
        unused: what was to be ignored, and isn't there.
        started, finished: when the service was asked, in UTC.
    """

    sources: tuple[Source, ...]
    findings: tuple[Finding, ...]
    unused: tuple[Ignore, ...]
    service: Service
    scanner: str
    started: datetime
    finished: datetime

    @cached_property
    def packages(self) -> frozenset[Package]:
        """All that was asked about."""
        return frozenset(pin.package for source in self.sources for pin in source.pins)

    def counting(self, least: Severity = Severity.LOW) -> tuple[Finding, ...]:
        """The findings that make an audit fail."""
        return tuple(each for each in self.findings if each.counts(least))

    def of(self, sources: Sequence[Source]) -> "Report":
        """The part of it that is about some of its sources."""
        kept = (
            replace(each, where=tuple((source, line) for source, line in each.where if source in sources))
            for each in self.findings
        )
        return replace(self, sources=tuple(sources), findings=tuple(each for each in kept if each.where))

    def statement(self, subject: Json) -> Json:
        """It as an in-toto statement about an artifact; ``subject`` is its descriptor."""
        return attest.audit(
            subject,
            scanner={
                "uri": SCANNER,
                "version": self.scanner,
                # A service is asked as it is at that moment: no older state of its database has a name.
                "db": {"uri": self.service.database, "lastUpdate": _rfc3339(self.started)},
            },
            results=[_result(each) for each in self.findings],
            coverage={
                "packages": len(self.packages),
                "sources": [
                    {**attest.descriptor({s.digest.algorithm: s.digest.hex}, name=s.name), "packages": len(s.pins)}
                    for s in self.sources
                ],
                "auditor": {"reprobuild": __version__},
            },
            started=_rfc3339(self.started),
            finished=_rfc3339(self.finished),
        )


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _result(finding: Finding) -> Json:
    advisory = finding.advisory
    annotations = {
        "package": advisory.package.name,
        "version": str(advisory.package.version),
        "aliases": list(advisory.aliases),
        "fixed": [str(each) for each in advisory.fixed],
    }
    if finding.ignored:
        annotations |= {"ignored": finding.ignored.reason, "expires": finding.ignored.expires.isoformat()}
    scores = [{"method": each.method, "score": each.score} for each in advisory.scores]
    return {
        "id": advisory.id,
        "severity": [{"method": attest.AUDIT_SEVERITY, "score": str(advisory.severity)}, *scores],
        "annotations": [annotations],
    }


def audit(
    sources: Sequence[Source],
    service: Service,
    ignores: Sequence[Ignore],
    scratch: Path,
    *,
    observer: Observer = SILENT,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Report:
    """Ask which vulnerabilities are known of all that some sources name.

    Args:
        scratch: an empty folder.
        clock: gives the time in UTC; its date says which ignores are still good.

    Raises:
        ToolMissing: pip-audit isn't installed.
        BadInput: an ignore is good for longer than anybody remembers.
        NotAudited: the sources name nothing, or the service didn't answer for each package.
    """
    started = clock()
    _require_short(ignores, started.date())
    packages = {pin.package for source in sources for pin in source.pins}
    if not packages:
        names = ", ".join(each.name for each in sources) or "no source"
        raise NotAudited(
            f"There is nothing to ask about: {names} names no package.",
            "Is it the lock that was meant? `reprobuild lock` writes locks.",
        )
    found = ask(packages, service, scratch, observer)
    findings = tuple(_judged(each, sources, ignores, started.date()) for each in found)
    unused = tuple(each for each in ignores if not any(_means(each, one) for one in found))
    return Report(tuple(sources), findings, unused, service, scanner_version(), started, clock())


def _require_short(ignores: Iterable[Ignore], today: date) -> None:
    for each in ignores:
        if each.expires - today > LONGEST_IGNORED:
            raise BadInput(
                f"tool.reprobuild.audit.ignore of {shown(each.id)} expires on {each.expires}, in more than a year.",
                "Choose a day within a year, and look at it again then.",
            )


def _means(ignore: Ignore, advisory: Advisory) -> bool:
    return ignore.id in advisory.names and ignore.package in ("", advisory.package.name)


def _judged(advisory: Advisory, sources: Sequence[Source], ignores: Iterable[Ignore], today: date) -> Finding:
    """Of several ignores the one that is good for longest counts."""
    where = tuple((each, pin.line) for each in sources for pin in each.pins if pin.package == advisory.package)
    best = max((each for each in ignores if _means(each, advisory)), key=lambda each: each.expires, default=None)
    good = best is not None and today <= best.expires
    return Finding(advisory, where, ignored=best if good else None, expired=None if good else best)


# --- where packages are named ---------------------------------------------------------------------------


def locks_of(config: Config) -> tuple[Source, ...]:
    """Every lock of a project.

    Raises:
        LockMissing: one isn't there.
        BadInput: one can't be read.
    """
    names = [BUILD_LOCK, *(each.output for each in config.selections)]
    missing = [name for name in names if not (config.root / name).is_file()]
    if missing:
        raise LockMissing(f"{config.root / missing[0]} isn't there to be audited.", "Run `reprobuild lock`.")
    return tuple(lock_at(config.root / name, name) for name in names)


def lock_at(path: Path, name: str = "") -> Source:
    """A lock in a file.

    Raises:
        BadInput: it can't be read, or isn't a lock.
    """
    return _lock(read_text(path), name or str(path), Digest.of_file(path))


def _lock(text: str, name: str, digest: Digest, *, is_file: bool = True) -> Source:
    try:
        pins, lines = lockfile.parse(text, name).pins, (line for line, _ in lockfile.logical_lines(text))
    except BadInput as error:
        raise BadInput(error.reason, _A_LOCK) from error
    named = (Pinned(Package.of(pin.name, pin.version), line) for pin, line in zip(pins, lines, strict=True))
    return Source(name, digest, tuple(named), is_file)


def sources_of(statement: Json, name: str, project: Path) -> tuple[Source, ...]:
    """What the record of an artifact names: the wheels in an image; of others what built them, and what runs with them.

    The record of a wheel or an sdist doesn't hold what runs beside it. That is the project's lock in the commit that
    the record names.

    Args:
        statement: the record.
        name: what messages call the artifact.
        project: the project's folder, in a checkout that has the commit.

    Raises:
        RecordUnusable: it is no record of reprobuild's, or names a file that is no package.
        SourceUnusable, BadInput: the commit, or a lock in it, isn't there.
    """
    definition = statement["predicate"].get("buildDefinition")
    build_type = definition.get("buildType") if isinstance(definition, dict) else None
    raw, where = attest.encode(statement), f"the record of {name}"
    if build_type == attest.IMAGE_BUILD_TYPE:
        return (_named_in(ImageRecord(raw, where), where, raw),)
    record = (SdistRecord if build_type == attest.SDIST_BUILD_TYPE else WheelRecord)(raw, where)
    own = Pinned(_in_file(record.subject_name, where))
    built = _named_in(record, where, raw)
    return (replace(built, pins=(own, *built.pins)), _runtime_lock(record, name, project))


def _named_in(record: Record, where: str, raw: bytes) -> Source:
    listed = [each for role in _ROLES for each in record.dependencies(role)]
    packages = (_package(each, record.text(each, "name"), where) for each in listed)
    pins = tuple(Pinned(each) for each in dict.fromkeys(packages))
    return Source(where, Digest.of_bytes(raw), pins, is_file=False)


def _package(descriptor: Json, filename: str, where: str) -> Package:
    found = _PURL.fullmatch(str(descriptor.get("uri", "")))
    if not found:
        return _in_file(filename, where)
    try:
        named = Package.of(unquote(found[1]), Version(unquote(found[2])))
    except InvalidVersion as error:
        raise RecordUnusable(f"{where} names {shown(descriptor.get('uri'))!r}, which has no version.") from error
    if filename.endswith(".whl") and _in_file(filename, where) != named:
        raise RecordUnusable(
            f"{where} names {shown(filename)!r} as {shown(found[0])!r}, which is something else.", "Don't trust it."
        )
    return named


def _in_file(filename: str, where: str) -> Package:
    parse = parse_sdist_filename if filename.endswith(SUFFIX) else parse_wheel_filename
    try:
        name, version, *_ = parse(filename)
    except ValueError as error:
        text = f"{where} names {shown(filename)!r}, which is neither a wheel nor an sdist."
        raise RecordUnusable(text, "Audit its lock.") from error
    return Package.of(name, version)


def _runtime_lock(record: Record, name: str, project: Path) -> Source:
    source, remedy = record.dependency("source"), "Audit the lock itself: reprobuild audit requirements.txt."
    said = record.external.get("source")
    kind = said.get("kind") if isinstance(said, dict) else None
    commit = str(record.digests(source).get("gitCommit", ""))
    if kind != "git" or not isinstance(said, dict) or not _COMMIT.fullmatch(commit):
        raise SourceUnusable(f"{name} wasn't built from a commit alone, and its record holds no runtime lock.", remedy)
    path = "/".join(filter(None, (str(said.get("subdirectory", "")).strip("/"), RUNTIME_LOCK)))
    if not project.is_dir():
        raise BadInput(f"{project} is not a folder.", "Name the project's checkout with --project.")
    try:
        text = run_git(["cat-file", "blob", f"{commit}:{path}"], project)
    except ToolFailed as error:
        raise SourceUnusable(
            f"{project.resolve()} has no {path} in the commit {commit[:12]}, from which {name} was built.",
            f"Name a checkout that has it with --project, or fetch it: git fetch --tags. {remedy}",
        ) from error
    digest = Digest.of_bytes(text.encode(errors="surrogateescape"))
    return _lock(text, f"{path} of the commit {commit[:12]}", digest, is_file=False)


def summary_of(findings: Iterable[Finding]) -> Iterator[tuple[str, str]]:
    """Each package that has to move, with a version that has none of what was found; empty for none known.

    It is the lowest of which that is known: a version that mends one may be of a branch (its first two numbers) in
    which another is mended only later.
    """
    worst: dict[str, list[Advisory]] = {}
    for each in findings:
        worst.setdefault(each.advisory.package.name, []).append(each.advisory)
    for name, advisories in sorted(worst.items()):
        known = [each.fixed for each in advisories if each.fixed]  # sorted, and later than what is pinned
        sure = (v for v in sorted(set().union(*known)) if all(_is_mended(v, fixed) for fixed in known))
        yield name, str(next(sure)) if len(known) == len(advisories) else ""


def _is_mended(version: Version, fixed: Sequence[Version]) -> bool:
    """Whether a version is one of those that mend a vulnerability, later than all, or later in the branch of one."""
    return version >= fixed[-1] or any(
        each <= version and (each.major, each.minor) == (version.major, version.minor) for each in fixed
    )
