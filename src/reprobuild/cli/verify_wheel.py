"""`reprobuild verify-wheel`."""

import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from reprobuild import rebuild
from reprobuild.causes import CAUSES
from reprobuild.cli.console import (
    FOLDER,
    PATH,
    Console,
    accept_option,
    limit_options,
    output_options,
    print_json,
    sandbox_option,
)
from reprobuild.cli.render import plain, verdict_lines
from reprobuild.compare import Verdict, causes_json
from reprobuild.difference import Level
from reprobuild.errors import BadInput, IndexFailed


@click.command(
    "verify-wheel",
    epilog="""\b
Examples:
  reprobuild verify-wheel                       the newest wheel in dist/
  reprobuild verify-wheel dist/demo-1.0-py3-none-any.whl
  reprobuild verify-wheel /tmp/demo-1.0-py3-none-any.whl --project ~/src/demo
  reprobuild verify-wheel --accept container    zip framing may differ
  reprobuild verify-wheel requests==2.34.2      a published wheel, from its sdist
  reprobuild verify-wheel ~/Downloads/six-1.17.0-py2.py3-none-any.whl
  reprobuild verify-wheel rich==15.0.0 --source git+https://example.org/rich.git@v15.0.0
  reprobuild verify-wheel tqdm==4.60.0 --constraints build.txt --keep /tmp/tqdm""",
)
@click.argument("what", metavar="[WHEEL|NAME==VERSION]", required=False)
@click.option(
    "--project", "where", type=PATH, default=Path(), help="The checkout or sdist it was built from. Default: here."
)
@click.option("--python", metavar="PYTHON", help="The interpreter. Default: the version that the record names.")
@click.option(
    "--source",
    "origin",
    metavar="SOURCE",
    help="Make a published wheel from git+URL@REF, a folder or an sdist instead.",
)
@click.option(
    "--constraints", type=PATH, help="Versions of build requirements, in place of guesses: pins, or a hashed lock."
)
@click.option("--keep", type=FOLDER, help="A new folder for a published wheel and the one made again, and their trees.")
@limit_options
@click.option("--explain/--no-explain", default=True, help="When the bytes differ, find the guilty variable.")
@accept_option
@sandbox_option
@output_options
def verify_wheel(
    what: str | None,
    where: Path,
    python: str | None,
    explain: bool,
    accept: str,
    sandbox: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,  # noqa: ANN401 - the values of PUBLISHED_OPTIONS
) -> None:
    """Make a wheel again from its record and compare the raw bytes.

    The rebuild differs on purpose in path, umask, time zone, locale, hash seed, home, host name, user, job count
    and directory order. When the bytes differ, each of these is tried alone, and the guilty ones are named. A umask
    that decides nothing but the modes of members is held at 022, as in every build, and the report says so.

    NAME==VERSION, or a wheel without a record beside it, is one that somebody published: what is missing is fetched
    from the index, the environment that made the wheel is guessed, and the wheel is made again from the sdist, in one
    guess after the other until the bytes are identical. Where a wheel holds the time of its build, that clock is
    replayed, and the report says so.
    """
    console = Console(quiet=quiet or as_json, verbose=verbose)
    if what and _is_published(what, options):
        _verify_published(what, accept, sandbox, console, as_json=as_json, **options)
        return
    if given := [name for name in PUBLISHED_OPTIONS if options[name] is not None]:
        raise click.UsageError(f"{PUBLISHED_OPTIONS[given[0]]} is for published wheels: name one, as NAME==VERSION.")
    found = Path(what) if what else _newest_wheel(where)
    with console:
        outcome = rebuild.verify(
            found, where, python=python, sandbox=sandbox or "auto", explain=explain, observer=console
        )
    if as_json:
        print_json(_as_json(outcome))
    else:
        _print(outcome)
    if not Level(accept).accepts(outcome.level):
        raise click.exceptions.Exit(outcome.level.exit_code)


#: What only the check of a published wheel takes.
PUBLISHED_OPTIONS = {
    "origin": "--source",
    "constraints": "--constraints",
    "keep": "--keep",
    "timeout": "--timeout",
    "memory": "--memory",
}


def _is_published(what: str, options: Mapping[str, Any]) -> bool:
    """Whether a release is named, or a wheel that comes without its record, or more than a record would need."""
    path = Path(what)
    if not path.is_file():
        return "==" in what
    if not path.name.endswith(".whl"):
        return False
    return not rebuild.record_path(path).exists() or options["origin"] is not None


def _verify_published(
    what: str,
    accept: str,
    sandbox: str | None,
    console: Console,
    *,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - the values of PUBLISHED_OPTIONS
) -> None:
    from reprobuild import published  # noqa: PLC0415 - only this way of asking needs it
    from reprobuild.cli import published as told  # noqa: PLC0415 - the same

    subject = published.Subject.of(what)
    confinement = told.confinement(sandbox, options.pop("timeout"), options.pop("memory"))
    try:
        with console:
            checked = published.check(
                subject, settings=Path.cwd(), confinement=confinement, observer=console, **options
            )
    except IndexFailed as error:
        if subject.file is None or options["origin"]:
            raise
        remedy = "It has no record beside it, so its source was looked for there: name the source with --source."
        raise IndexFailed(error.reason, remedy) from error
    if as_json:
        print_json(told.as_json(checked))
    else:
        told.echo(checked)
    if not Level(accept).accepts(checked.level):
        raise click.exceptions.Exit(checked.level.exit_code)


_UNVARIED = {
    "unsteady": "Even with nothing varied, it comes out different each time: a clock or a random value is in it.",
    "different": "With nothing varied it comes out the same each time here, but not as it was built.",
}


def _newest_wheel(where: Path) -> Path:
    folder = (where if where.is_dir() else where.parent) / "dist"
    newest = max(_with_times(folder), default=None)
    if newest is None:
        raise BadInput(
            f"There is no wheel in {folder}.", "Build one with `reprobuild wheel`, or name the wheel to verify."
        )
    return folder / newest[1]


def _with_times(folder: Path) -> Iterator[tuple[int, str]]:
    for path in folder.glob("*.whl"):
        with suppress(OSError):  # a link that leads nowhere, or a wheel that has just been replaced
            state = path.stat()
            if stat.S_ISREG(state.st_mode):
                yield state.st_mtime_ns, path.name


def _as_json(outcome: rebuild.Rebuilt) -> dict[str, object]:
    return {
        "wheel": str(outcome.wheel),
        **outcome.verdict.to_json(),
        "level": str(outcome.level),
        "causes": causes_json(outcome.causes),
        "varied": list(outcome.varied),
        "notVaried": list(outcome.not_varied),
        "held": list(outcome.held),
        "guilty": [
            {"variation": guilt.variation, "cause": guilt.cause, **guilt.verdict.to_json()} for guilt in outcome.guilty
        ],
        "unvaried": outcome.unvaried,
        "unvariedVerdict": outcome.unvaried_verdict.to_json() if outcome.unvaried_verdict else None,
        "sandbox": asdict(outcome.guarantees),
        "notes": list(outcome.notes),
    }


def _print(outcome: rebuild.Rebuilt) -> None:
    for note in outcome.notes:
        click.echo(f"note: {plain(note)}")
    click.echo(f"varied: {', '.join(outcome.varied)}")
    if outcome.not_varied:
        click.echo(f"not varied (the sandbox kind {outcome.guarantees.kind} can't): {', '.join(outcome.not_varied)}")
    if outcome.held:
        click.echo("held: umask (the modes in this wheel follow it, so every build here has umask 022)")
    for guilt in outcome.guilty:
        where = "; ".join(
            dict.fromkeys(" > ".join(each.path) or each.field for each in guilt.verdict.differences if not each.follows)
        )
        cause = CAUSES[guilt.cause]
        heading = click.style(f"{guilt.variation} changes the wheel ({guilt.verdict.level})", fg="red", bold=True)
        click.echo(f"{heading}: {plain(where)}")
        click.echo(f"  {cause.summary} Remedy: {cause.remedy}")
    for line in verdict_lines(outcome.verdict, "built", "made again"):
        click.echo(line)
    if outcome.unvaried_verdict:
        _print_unvaried(outcome.unvaried, outcome.verdict, outcome.unvaried_verdict)


def _print_unvaried(how: str, varied: Verdict, unvaried: Verdict) -> None:
    click.echo(_UNVARIED[how])
    click.echo(f"  {unvaried.right}  {unvaried.level}: {', '.join(unvaried.causes) or 'no cause known'}")
    if more := [name for name in varied.causes if name not in unvaried.causes]:
        click.echo(f"  seen only when varied: {', '.join(more)}")
