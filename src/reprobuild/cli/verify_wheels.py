"""`reprobuild verify-wheels`."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import click
from packaging.utils import canonicalize_name

from reprobuild import batch, dependencies
from reprobuild.cli import reports
from reprobuild.cli.console import (
    PATH,
    Console,
    accept_option,
    limit_options,
    output_options,
    print_json,
    sandbox_option,
)
from reprobuild.cli.published import confinement
from reprobuild.dependencies import Dependencies
from reprobuild.difference import Level
from reprobuild.errors import BadInput
from reprobuild.files import write_atomically


@click.command(
    "verify-wheels",
    epilog="""\b
Examples:
  reprobuild verify-wheels --from requirements.txt
  reprobuild verify-wheels --from uv.lock --jobs 4 --junit report.xml
  reprobuild verify-wheels --from pylock.toml --resume --json
  reprobuild verify-wheels --from uv.lock --skip torch --allow-unchecked""",
)
@click.option(
    "--from", "lock", type=PATH, required=True, metavar="FILE", help="A requirements.txt, pylock.toml or uv.lock."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many packages at once. Default: half of the processors, as each build uses several.",
)
@click.option("--only", multiple=True, metavar="NAME", help="Check this package alone. May be given several times.")
@click.option("--skip", multiple=True, metavar="NAME", help="Leave this package out. May be given several times.")
@click.option("--resume", is_flag=True, help="Take what earlier runs found out of the same files; don't build again.")
@click.option("--allow-unchecked", is_flag=True, help="Exit with 0 also where packages couldn't be compared.")
@click.option("--junit", "junit_file", type=PATH, metavar="FILE", help="Write a JUnit report.")
@click.option("--markdown", "markdown_file", type=PATH, metavar="FILE", help="Write a table in Markdown.")
@accept_option
@limit_options
@sandbox_option
@output_options
def verify_wheels(
    lock: Path,
    jobs: int | None,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    resume: bool,
    allow_unchecked: bool,
    junit_file: Path | None,
    markdown_file: Path | None,
    accept: str,
    sandbox: str | None,
    timeout: int | None,
    memory: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Make every wheel that a lock pins again from its sdist, and compare the raw bytes.

    Each package is checked as `reprobuild verify-wheel NAME==VERSION` does it. Where the lock has hashes, the wheel and
    the sdist are those of the lock; of several wheels it is the one that this machine's Python would install. All that
    is pinned is checked, whatever its markers say; what can't be (a git checkout, a folder, no sdist) is named and
    counted.

    The exit code is that of the worst finding: docs/exit-codes.md. An interrupted run goes on with --resume.
    """
    accepted = Level(accept)
    found = dependencies.read(lock)
    width = max((len(str(each)) for each in found.pinned), default=0)
    left_out = _left_out(found, only, skip)
    done = 0
    at_once = jobs or max(1, len(os.sched_getaffinity(0)) // 2)
    with Console(quiet=quiet, verbose=verbose) as console:
        for note in found.notes:
            console.warn(note)

        def finished(outcome: batch.Outcome) -> None:
            nonlocal done
            done += 1
            if not (as_json and quiet):
                console.result(reports.line(outcome, width), err=as_json)

        try:
            outcomes = batch.verify(
                found.pinned,
                finished,
                settings=Path.cwd(),
                jobs=at_once,
                confinement=confinement(sandbox, timeout, memory, at_once),
                skipped=left_out,
                resume=resume,
                observer=console,
            )
        except KeyboardInterrupt:
            console.warn(f"{done} of {len(found.pinned)} are done; --resume takes what was found out.")
            raise
    code = batch.exit_code(outcomes, accepted, allow_unchecked=allow_unchecked)
    if junit_file:
        report = reports.junit(lock.name, outcomes, accepted, allow_unchecked=allow_unchecked)
        write_atomically(junit_file, [report])
    if markdown_file:
        write_atomically(markdown_file, [reports.markdown(lock.name, outcomes, found.own).encode()])
    if as_json:
        print_json(reports.as_json(lock.name, found.format, outcomes, found.own, found.notes, code))
    else:
        for line in reports.summary_lines(batch.Summary.of(outcomes), found.own):
            click.echo(line)
    if code:
        raise click.exceptions.Exit(code)


def _left_out(found: Dependencies, only: Sequence[str], skip: Sequence[str]) -> frozenset[str]:
    """The names that aren't to be checked."""
    names = {each.name for each in found.pinned}
    kept = _known(only, names) or names
    return frozenset((names - kept) | _known(skip, names))


def _known(asked: Iterable[str], names: set[str]) -> set[str]:
    normalised: set[str] = {canonicalize_name(each) for each in asked}
    for name in sorted(normalised - names):
        near = get_close_matches(name, names, n=1)
        raise BadInput(f"The lock has no {name!r}.", f"Did you mean {near[0]!r}?" if near else "Look into the lock.")
    return normalised
