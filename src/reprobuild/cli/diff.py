"""`reprobuild diff`."""

from pathlib import Path

import click

from reprobuild.cli.console import PATH, Console, accept_option, print_json
from reprobuild.cli.render import verdict_lines
from reprobuild.compare import Level, compare


@click.command(
    epilog="""\b
Examples:
  reprobuild diff dist/demo-1.0-py3-none-any.whl /tmp/demo-1.0-py3-none-any.whl
  reprobuild diff old.tar.gz new.tar.gz --json | jq .level
  reprobuild diff a.whl b.whl --accept container"""
)
@click.argument("left", metavar="A", type=PATH)
@click.argument("right", metavar="B", type=PATH)
@accept_option
@click.option("-q", "--quiet", is_flag=True, help="No progress, only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def diff(left: Path, right: Path, accept: str, quiet: bool, as_json: bool) -> None:
    """Compare two wheels, zips, tars or files: raw bytes first, then member by member down to the cause."""
    with Console(quiet=quiet) as console:
        verdict = compare(left, right, observer=console)
    if as_json:
        said = verdict.to_json()
        for side, path in (("left", left), ("right", right)):
            said[side]["path"] = str(path)
        print_json(said)
    else:
        for line in verdict_lines(verdict, str(left), str(right)):
            click.echo(line)
    if not Level(accept).accepts(verdict.level):
        raise click.exceptions.Exit(verdict.level.exit_code)
