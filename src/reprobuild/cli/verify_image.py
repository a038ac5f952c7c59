"""`reprobuild verify-image`."""

from pathlib import Path

import click

from reprobuild.cli.console import PATH, Console, accept_option, output_options, plain, print_json, sandbox_option
from reprobuild.cli.render import verdict_lines
from reprobuild.compare import Level
from reprobuild.image.verify import Checked, verify


@click.command(
    name="verify-image",
    epilog="""\b
Examples:
  reprobuild verify-image dist/training
  reprobuild verify-image oci:/tmp/layout:1.0 --project ~/src/training
  reprobuild verify-image oci-archive:image.tar
  reprobuild verify-image registry.example.org/team/training@sha256:…""",
)
@click.argument("image")
@click.option("--project", type=PATH, default=Path(), help="The project that it was built from. Default: this folder.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@accept_option
@sandbox_option
@output_options
def verify_image(
    image: str,
    project: Path,
    plain_http: tuple[str, ...],
    accept: str,
    sandbox: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Make an image again from what the record beside it names, and compare manifest, config and layers.

    The source is exported anew, the project's own wheel is built in surroundings that differ, and no layer that was
    made before is used again. Of the base, manifest and config are compared by their digests.
    """
    with Console(quiet=quiet or as_json, verbose=verbose) as console:
        checked = verify(image, project, plain_http=plain_http, sandbox=sandbox, observer=console)
    worst = max((each.verdict.level for each in checked), key=lambda level: level.rank)
    if as_json:
        print_json({"image": image, "level": str(worst), "platforms": [_json(each) for each in checked]})
    else:
        for each in checked:
            _tell(each)
    if not Level(accept).accepts(worst):
        raise click.exceptions.Exit(worst.exit_code)


def _json(checked: Checked) -> dict[str, object]:
    return {
        "platform": str(checked.platform),
        "varied": list(checked.varied),
        "notes": list(checked.notes),
        **checked.verdict.to_json(),
    }


def _tell(checked: Checked) -> None:
    click.echo(f"{checked.platform}, varied: {', '.join(checked.varied)}")
    for note in checked.notes:
        click.echo(f"note: {plain(note)}")
    for line in verdict_lines(checked.verdict, "built", "made again"):
        click.echo(line)
