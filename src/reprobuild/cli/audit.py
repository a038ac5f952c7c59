"""`reprobuild audit`."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from packaging.utils import canonicalize_name

from reprobuild import attest, project
from reprobuild import audit as audits
from reprobuild.advisories import OSV_URL, Advisory, Service, Severity, scanner_version
from reprobuild.attest import Json
from reprobuild.audit import Finding, Report, Source
from reprobuild.cli.attesting import attest_option, voter
from reprobuild.cli.console import FOLDER, PATH, Console, output_options, plain, print_json
from reprobuild.errors import BadInput, ExitCode, shown
from reprobuild.files import scratch_folder, write_atomically
from reprobuild.project import Config, Ignore

_COLOURS = {Severity.LOW: "green", Severity.MEDIUM: "yellow"}


@click.command(
    epilog="""\b
Examples:
  reprobuild audit                                    every lock of the project
  reprobuild audit requirements.txt --fail-on high
  reprobuild audit dist/demo-1.0-py3-none-any.whl     what built it, and the lock in its commit
  reprobuild audit registry.example.org/team/training:1.0
  reprobuild audit dist/training --attest release.key --sarif audit.sarif

\b
A vulnerability that does no harm here is ignored for some time in pyproject.toml:
  [[tool.reprobuild.audit.ignore]]
  id = "CVE-2025-27516"
  reason = "no template comes from outside"
  expires = 2026-12-31"""
)
@click.argument("what", metavar="[LOCK | WHEEL | SDIST | IMAGE]...", nargs=-1)
@click.option("--project", "where", type=FOLDER, default=Path(), help="The project's folder. Default: here.")
@click.option(
    "--fail-on",
    type=click.Choice([each.value for each in Severity if each is not Severity.UNKNOWN]),
    default="low",
    show_default=True,
    help="The least severity that counts. What nobody has weighed always does.",
)
@click.option(
    "--vulnerability-service",
    "kind",
    type=click.Choice(["osv", "pypi", "esms"]),
    default="osv",
    show_default=True,
    envvar="PIP_AUDIT_VULNERABILITY_SERVICE",
    help="Who is asked.",
)
@click.option(
    "--osv-url",
    metavar="URL",
    default=OSV_URL,
    show_default=True,
    envvar="PIP_AUDIT_OSV_URL",
    help="Where an OSV server takes questions.",
)
@click.option(
    "--timeout",
    type=click.IntRange(1, 600),
    default=15,
    show_default=True,
    metavar="SECONDS",
    help="For each answer of the service.",
)
@click.option("--sarif", type=PATH, metavar="FILE", help="Write the findings as SARIF 2.1.0, too.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@attest_option
@output_options
def audit(
    what: tuple[str, ...],
    where: Path,
    fail_on: str,
    kind: str,
    osv_url: str,
    timeout: int,
    sarif: Path | None,
    plain_http: tuple[str, ...],
    attested_by: str | None,
    trust_config: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Ask which known vulnerabilities the locks have, or what an artifact was made from; nothing is installed.

    Without an argument it takes every lock of the project. Of a wheel or an sdist it takes what its record names, and
    requirements.txt in the commit that it was built from; of an image every wheel that its record names, and not its
    base. Every pin is asked about, whatever its marker says.

    It ends with 26 where a vulnerability counts, and with 27 where the service didn't answer for every package: what
    nobody answered for is never clean. --attest signs what came out, clean or not, and puts it beside the
    artifact.
    """
    if attested_by and (len(what) != 1 or _is_lock(what[0])):
        raise click.UsageError("--attest is for one wheel, sdist or image: name it, and nothing else.")
    scanner_version()
    signer = voter(attested_by, trust_config)
    service = Service(kind, osv_url, timeout)
    least = Severity(fail_on)
    config = project.load(where) if not what or (where / "pyproject.toml").is_file() else None
    ignores = config.ignored if config else ()
    with (
        Console(quiet=quiet or as_json, verbose=verbose) as console,
        scratch_folder(Path(tempfile.gettempdir()), "reprobuild-audit-") as scratch,
    ):
        (scratch / "answers").mkdir()
        subjects = _Subjects(where, plain_http, scratch)
        sources = [source for each in what for source in subjects.sources(each)]
        if config is not None and not what:
            sources += audits.locks_of(config)
        report = audits.audit(sources, service, ignores, scratch / "answers", observer=console)
        if sarif:
            from reprobuild.sarif import log_of  # noqa: PLC0415 - only with the option

            write_atomically(sarif, [json.dumps(log_of(report), indent=2).encode(), b"\n"])
        kept = subjects.keep(report, signer) if signer else ()
    counting = report.counting(least)
    unused = () if what else report.unused
    if as_json:
        print_json({**_json(report, least), "unused": [_ignore(each) for each in unused], "attested": list(kept)})
    else:
        _tell(report, counting, unused, config)
        for place in kept:
            click.echo(f"attested: {plain(place)}")
    if counting:
        raise click.exceptions.Exit(ExitCode.VULNERABLE)


def _is_lock(text: str) -> bool:
    """Whether an argument is a file that is neither a wheel, an sdist nor an image's archive."""
    return os.path.isfile(text) and not text.endswith((".whl", ".tar", ".tar.gz"))  # noqa: PTH113 - a name too long is no file


class _Subjects:
    """What the arguments mean; artifacts are remembered, so that statements can be put beside them."""

    def __init__(self, where: Path, plain_http: tuple[str, ...], scratch: Path) -> None:
        self._where, self._plain_http, self._scratch = where, plain_http, scratch
        self._artifacts: list[tuple[Any, tuple[Source, ...]]] = []

    def sources(self, text: str) -> Iterator[Source]:
        if _is_lock(text):
            yield audits.lock_at(Path(text))
            return
        if text.endswith((".txt", ".lock")):
            raise BadInput(
                f"There is no lock {text}.", "Name a lock that `reprobuild lock` wrote, a wheel, an sdist or an image."
            )
        from reprobuild.image import signed  # noqa: PLC0415 - the registry's client is slow to import
        from reprobuild.image.archive import Registries  # noqa: PLC0415 - the same

        for artifact in signed.artifacts(text, Registries(self._plain_http), self._scratch):
            listed = artifact.statements()
            found = tuple(s for each in listed for s in audits.sources_of(each, artifact.name, self._where))
            self._artifacts.append((artifact, found))
            yield from found

    def keep(self, report: Report, signer: Any) -> tuple[str, ...]:  # noqa: ANN401 - as voter gives it
        """A signed statement beside each artifact, about what was asked for it."""
        kept = []
        for artifact, sources in self._artifacts:
            digest = artifact.digest
            subject = attest.descriptor({digest.algorithm: digest.hex}, name=artifact.name)
            statement = report.of(sources).statement(subject)
            kept.append(artifact.keep(signer.sign(statement), attest.AUDIT_TYPE, signer.name))
        return tuple(kept)


def _json(report: Report, least: Severity) -> Json:
    return {
        "vulnerable": bool(report.counting(least)),
        "failOn": str(least),
        "service": {"kind": report.service.kind, "database": report.service.database, "scanner": report.scanner},
        "started": report.started.isoformat(),
        "finished": report.finished.isoformat(),
        "packages": len(report.packages),
        "sources": [{"name": s.name, "digest": str(s.digest), "packages": len(s.pins)} for s in report.sources],
        "findings": [_finding(each, least) for each in report.findings],
    }


def _finding(finding: Finding, least: Severity) -> Json:
    advisory = finding.advisory
    return {
        "package": advisory.package.name,
        "version": str(advisory.package.version),
        "id": advisory.id,
        "aliases": list(advisory.aliases),
        "severity": str(advisory.severity),
        "scores": [{"method": each.method, "score": each.score, "vector": each.vector} for each in advisory.scores],
        "fixed": [str(each) for each in advisory.fixed],
        "summary": advisory.summary,
        "where": [{"source": source.name, "line": line or None} for source, line in finding.where],
        "counts": finding.counts(least),
        "ignored": finding.ignored and _ignore(finding.ignored),
        "expired": finding.expired and _ignore(finding.expired),
    }


def _ignore(ignore: Ignore) -> Json:
    return {
        "id": ignore.id,
        "reason": ignore.reason,
        "expires": ignore.expires.isoformat(),
        "package": ignore.package or None,
    }


def _tell(report: Report, counting: Sequence[Finding], unused: Sequence[Ignore], config: Config | None) -> None:
    for line in _table([each for each in report.findings if each.ignored is None]):
        click.echo(line)
    for each in report.findings:
        name = f"{each.advisory.package}: {each.advisory.id} ({each.advisory.severity})"
        if each.advisory.aliases:  # an ignore of one name covers all of them
            name += f", also {_also(each.advisory)}"
        if each.ignored:
            click.echo(plain(f"ignored until {each.ignored.expires}: {name}: {each.ignored.reason}"))
        if each.expired:
            click.echo(plain(f"counts again, ignored until {each.expired.expires}: {name}: {each.expired.reason}"))
    for one in unused:
        click.echo(plain(f"note: {one.id} is to be ignored until {one.expires}, and nothing has it"))
    empty = [source.name for source in report.sources if not source.pins]
    for name in empty:
        click.echo(plain(f"note: {name} names no package"))
    asked = f"{len(report.packages)} package{'s' if len(report.packages) != 1 else ''}"
    said = f"{asked} in {', '.join(source.name for source in report.sources)}"
    ignored = sum(each.ignored is not None for each in report.findings)
    below = len(report.findings) - ignored - len(counting)
    more = "".join(f", {number} {word}" for number, word in ((below, "not so severe"), (ignored, "ignored")) if number)
    if not counting:
        word = "nothing that counts" if below else "clean"
        click.echo(f"{click.style(word, fg='green', bold=True)}: {plain(said)}{more}")
        return
    count = f"{len(counting)} known {'vulnerability' if len(counting) == 1 else 'vulnerabilities'}"
    click.echo(f"{click.style('vulnerable', fg='red', bold=True)}: {count}{more}; {plain(said)}")
    for line in _remedies(counting, config):
        click.echo(plain(line))


def _remedies(counting: Sequence[Finding], config: Config | None) -> Iterator[str]:
    moves = list(audits.summary_of(counting))
    for name, version in moves:
        yield f"remedy: {name} {version} or later" if version else f"remedy: none known for all of {name}: replace it"
    if config is None:
        return
    for table, requirement in project.asked_for(config.root):
        name = canonicalize_name(requirement.name)
        wanted = dict(moves).get(name)
        if wanted and not requirement.specifier.contains(wanted, prereleases=True):
            yield f"  first change {requirement} in {table} of pyproject.toml: it keeps {name} from {wanted}"
    if any(version for _, version in moves):
        yield f"  reprobuild lock --upgrade {' '.join(name for name, version in moves if version)}"


def _table(findings: Sequence[Finding]) -> Iterator[str]:
    """A line a finding, worst first."""
    if not findings:
        return
    ordered = sorted(findings, key=lambda each: (-each.advisory.severity.rank, each.advisory.package, each.advisory.id))
    rows = [("package", "version", "id", "severity", "fixed in", "in", "also", "summary"), *map(_row, ordered)]
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    for number, row in enumerate(rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        if number:
            severity = ordered[number - 1].advisory.severity
            cells[3] = click.style(cells[3], fg=_COLOURS.get(severity, "red"), bold=True)
        yield f"{'  '.join(cells)}  {row[7]}".rstrip()


def _also(advisory: Advisory) -> str:
    """The other names of a vulnerability: people know it by one of them."""
    return shown(", ".join(advisory.aliases))


def _row(finding: Finding) -> tuple[str, ...]:
    advisory = finding.advisory
    places = (f"{source.name}:{line}" if source.is_file else source.name for source, line in finding.where)
    fixed = ", ".join(map(str, advisory.fixed)) or "no version"
    return tuple(
        map(
            plain,
            (
                advisory.package.name,
                str(advisory.package.version),
                advisory.id,
                str(advisory.severity),
                fixed,
                ", ".join(places),
                _also(advisory),
                advisory.summary,
            ),
        )
    )
