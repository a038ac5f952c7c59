"""`reprobuild verify-wheel`."""

from dataclasses import asdict
from pathlib import Path

import click

from reprobuild import rebuild
from reprobuild.causes import CAUSES
from reprobuild.cli.console import PATH, Console, accept_option, output_options, print_json, sandbox_option
from reprobuild.cli.render import verdict_lines
from reprobuild.difference import Level
from reprobuild.errors import BadInput


@click.command(
    "verify-wheel",
    epilog="""\b
Examples:
  reprobuild verify-wheel                       the newest wheel in dist/
  reprobuild verify-wheel dist/demo-1.0-py3-none-any.whl
  reprobuild verify-wheel /tmp/demo-1.0-py3-none-any.whl --project ~/src/demo
  reprobuild verify-wheel --accept container    zip framing may differ""",
)
@click.argument("path", metavar="[WHEEL]", type=PATH, required=False)
@click.option(
    "--project", "where", type=PATH, default=Path(), help="The checkout or sdist it was built from. Default: here."
)
@click.option("--python", metavar="PYTHON", help="The interpreter. Default: the version that the record names.")
@click.option("--explain/--no-explain", default=True, help="When the bytes differ, find the guilty variable.")
@accept_option
@sandbox_option
@output_options
def verify_wheel(
    path: Path | None,
    where: Path,
    python: str | None,
    explain: bool,
    accept: str,
    sandbox: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Make a wheel again from its record and compare the raw bytes.

    The rebuild differs on purpose in path, umask, time zone, locale, hash seed, home, host name, user, job count
    and directory order. When the bytes differ, each of these is tried alone, and the guilty ones are named.
    """
    found = path or _newest_wheel(where)
    with Console(quiet=quiet or as_json, verbose=verbose) as console:
        outcome = rebuild.verify(
            found, where, python=python, sandbox=sandbox or "auto", explain=explain, observer=console
        )
    if as_json:
        print_json(_as_json(outcome))
    else:
        _print(outcome)
    if not Level(accept).accepts(outcome.verdict.level):
        raise click.exceptions.Exit(outcome.verdict.level.exit_code)


_UNVARIED = {
    "unsteady": "Even with nothing varied, it comes out different each time: a clock or a random value is in it.",
    "different": "With nothing varied it comes out the same each time here, but not as it was built.",
}


def _newest_wheel(where: Path) -> Path:
    folder = (where if where.is_dir() else where.parent) / "dist"
    wheels_here = sorted(folder.glob("*.whl"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not wheels_here:
        raise BadInput(
            f"There is no wheel in {folder}.", "Build one with `reprobuild wheel`, or name the wheel to verify."
        )
    return wheels_here[-1]


def _as_json(outcome: rebuild.Rebuilt) -> dict[str, object]:
    return {
        "wheel": str(outcome.wheel),
        **outcome.verdict.to_json(),
        "causes": list(outcome.causes),
        "varied": list(outcome.varied),
        "notVaried": list(outcome.not_varied),
        "held": list(outcome.held),
        "guilty": [
            {"variation": guilt.variation, "cause": guilt.cause, **guilt.verdict.to_json()} for guilt in outcome.guilty
        ],
        "unvaried": outcome.unvaried,
        "sandbox": asdict(outcome.guarantees),
        "notes": list(outcome.notes),
    }


def _print(outcome: rebuild.Rebuilt) -> None:
    for note in outcome.notes:
        click.echo(f"note: {note}")
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
        click.echo(f"{click.style(f'{guilt.variation} changes the wheel', fg='red', bold=True)}: {where}")
        click.echo(f"  {cause.summary} Remedy: {cause.remedy}")
    if outcome.unvaried in _UNVARIED:
        click.echo(_UNVARIED[outcome.unvaried])
    for line in verdict_lines(outcome.verdict, "built", "made again"):
        click.echo(line)
