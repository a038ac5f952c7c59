"""`reprobuild wheel`."""

from dataclasses import asdict
from pathlib import Path

import click

from reprobuild import wheel as wheels
from reprobuild.cli.console import FOLDER, PATH, Command, Console, output_options, plain, print_json, sandbox_option


def build_options(command: Command) -> Command:
    """The options of what builds from the project."""
    for option in (
        output_options,
        sandbox_option,
        click.option("--python", metavar="PYTHON", help="The interpreter to build with: a version or a path."),
        click.option("--allow-dirty", is_flag=True, help="Build a git checkout with changes that no commit holds."),
        click.option("--out-dir", "-o", type=FOLDER, help="Where it goes. Default: dist in the project."),
    ):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples:
  reprobuild wheel                     the project in this folder, into dist/
  reprobuild wheel ../other --out-dir /tmp/wheels
  reprobuild wheel demo-1.0.tar.gz     an sdist that holds its own constraints.txt
  reprobuild wheel --allow-dirty       the working tree as it is; the record says so"""
)
@click.argument("where", metavar="[PROJECT]", type=PATH, default=Path())
@build_options
def wheel(
    where: Path,
    out_dir: Path | None,
    allow_dirty: bool,
    python: str | None,
    sandbox: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Build a wheel from a commit and its lock.

    The source is a clean export of the git commit (or the sdist's own contents), the build requirements are
    exactly what constraints.txt names, and the build sees a fixed path, user, host name, locale and clock, and
    no network. Beside the wheel goes its record, which names every input by digest.
    """
    target = out_dir or (where if where.is_dir() else where.parent) / "dist"
    with Console(quiet=quiet or as_json, verbose=verbose) as console:
        built = wheels.build(
            where, out_dir=target, allow_dirty=allow_dirty, python=python, sandbox=sandbox, observer=console
        )
    if as_json:
        print_json(built_json(built))
    else:
        print_built(built)


def built_json(built: wheels.Built) -> dict[str, object]:
    """What was built, for machines."""
    return {
        built.inputs.what: str(built.path),
        "digest": str(built.digest),
        "record": str(built.record),
        "source": {"kind": built.inputs.source.kind, **built.inputs.source.digests},
        "sandbox": asdict(built.guarantees),
    }


def print_built(built: wheels.Built) -> None:
    """The same for people, as sha256sum has it."""
    click.echo(f"{built.digest}  {plain(str(built.path))}")
