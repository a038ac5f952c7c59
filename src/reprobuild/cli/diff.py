"""`reprobuild diff`."""

from pathlib import Path

import click

from reprobuild.cli.console import Console, accept_option, print_json
from reprobuild.cli.render import verdict_lines
from reprobuild.compare import Level, compare
from reprobuild.errors import BadInput

#: How names of files end that are no image's.
_SUFFIXES = (".whl", ".zip", ".tar", ".gz", ".xz", ".bz2", ".so", ".json", ".txt")


@click.command(
    epilog="""\b
Examples:
  reprobuild diff dist/demo-1.0-py3-none-any.whl /tmp/demo-1.0-py3-none-any.whl
  reprobuild diff old.tar.gz new.tar.gz --json | jq .level
  reprobuild diff a.whl b.whl --accept container
  reprobuild diff oci:dist/training registry.example.org/team/training:1.0"""
)
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@click.option("--platform", metavar="OS/ARCH", default="", help="Which image of an index is compared.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@accept_option
@click.option("-q", "--quiet", is_flag=True, help="No progress, only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def diff(
    left: str, right: str, platform: str, plain_http: tuple[str, ...], accept: str, quiet: bool, as_json: bool
) -> None:
    """Compare two wheels, zips, tars, files or images: raw bytes first, then part by part down to the cause.

    An image is oci:DIR[:NAME], oci-archive:FILE, a layout's folder, or a name in a registry. Nothing is unpacked.
    """
    with Console(quiet=quiet) as console:
        files = _is_file(left), _is_file(right)
        if any(files) and not all(files):
            _check_kinds(*((left, right) if files[0] else (right, left)))
        if all(files):
            verdict = compare(Path(left), Path(right), observer=console)
        else:
            from reprobuild.image.verify import compare_named  # noqa: PLC0415 - slow to import

            verdict = compare_named(left, right, platform, plain_http, console)
    if as_json:
        said = verdict.to_json()
        for side, path in (("left", left), ("right", right)):
            said[side]["path"] = path
        print_json(said)
    else:
        for line in verdict_lines(verdict, left, right):
            click.echo(line)
    if not Level(accept).accepts(verdict.level):
        raise click.exceptions.Exit(verdict.level.exit_code)


def _check_kinds(file: str, image: str) -> None:
    """Refuse a file beside what would be an image, unless the file may hold one.

    Raises:
        BadInput: one of them isn't there, or they are of two kinds.
    """
    if file.endswith(".tar"):
        return
    if not Path(file).exists():
        raise BadInput(f"There is no file {file}.", "Check the path.")
    if ":" not in image and not Path(image).is_dir():
        raise BadInput(
            f"There is no file {image}, and as the name of an image it can't be compared with the file {file}.",
            "Check the path, and name two of a kind.",
        )
    raise BadInput(f"{file} is a file, and the other is an image.", "Name two of a kind.")


def _is_file(text: str) -> bool:
    """Whether a name is that of a file, which may be missing, as against that of an image."""
    path = Path(text)
    if text.startswith(("oci:", "oci-archive:", "docker://")):
        return False
    return path.is_file() or (not path.is_dir() and (text.startswith((".", "/", "~")) or text.endswith(_SUFFIXES)))
