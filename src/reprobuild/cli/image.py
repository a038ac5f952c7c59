"""`reprobuild image`."""

from pathlib import Path
from typing import Any

import click

from reprobuild.cli.console import (
    PATH,
    Console,
    builder_options,
    output_options,
    plain,
    print_json,
    sandbox_option,
)
from reprobuild.errors import BadInput
from reprobuild.image.build import Choices
from reprobuild.image.make import Destinations, How, Made, make
from reprobuild.image.outputs import Output
from reprobuild.oci.layer import Compression
from reprobuild.oci.model import Platform
from reprobuild.oci.reference import Reference
from reprobuild.progress import size_text


@click.command(
    epilog="""\b
Examples:
  reprobuild image training                           into dist/training, without the base's layers
  reprobuild image training -o oci:/tmp/image         a whole OCI layout, base included
  reprobuild image inference -o oci-archive:image.tar
  reprobuild image training --push registry.example.org/team/training:1.0
  reprobuild image inference --load inference:dev     into the Docker engine
  reprobuild image training --platform linux/amd64 --platform linux/arm64
  reprobuild image training --engine buildkit --builder remote"""
)
@click.argument("name")
@click.argument("where", metavar="[PROJECT]", type=PATH, default=Path())
@click.option("-o", "--output", "outputs", multiple=True, metavar="KIND:PATH", help="oci:DIR or oci-archive:FILE.")
@click.option("--push", "pushes", multiple=True, metavar="REF", help="Push it under this name; can be repeated.")
@click.option("--load", "loads", metavar="NAME", default="", help="Give it to the Docker engine under this name.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Instead of those in pyproject.toml.")
@click.option(
    "--build-arg",
    "build_args",
    multiple=True,
    metavar="NAME=VALUE",
    help="The value of an ARG. The record names it: no place for secrets.",
)
@click.option("--target", default="", metavar="STAGE", help="Build this stage, not the last.")
@click.option(
    "--compression",
    type=click.Choice([each.value for each in Compression]),
    default=Compression.SPLICE.value,
    show_default=True,
    help="Of the layers: splice recompresses nothing.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "assembler", "buildkit"]),
    default="auto",
    show_default=True,
    help="What builds it: auto takes BuildKit only for RUN, and for what else needs it.",
)
@builder_options
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@click.option("--allow-dirty", is_flag=True, help="Build a git checkout with changes that no commit holds.")
@sandbox_option
@output_options
def image(
    name: str,
    where: Path,
    outputs: tuple[str, ...],
    pushes: tuple[str, ...],
    loads: str,
    platforms: tuple[str, ...],
    build_args: tuple[str, ...],
    target: str,
    compression: str,
    engine: str,
    builder: str,
    network: str,
    plain_http: tuple[str, ...],
    allow_dirty: bool,
    sandbox: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Build the image NAME from images/NAME/Dockerfile, without a daemon unless it has RUN.

    Its environment is made of exactly the wheels that images/NAME/requirements.txt names, and of the project's own.
    Of the base only the manifest and the config are fetched, until an output needs its layers. Nothing is run, unless
    the Dockerfile has RUN: then BuildKit builds it, through `docker buildx`.
    """
    if engine == "assembler" and builder:
        raise BadInput("--builder is BuildKit's, and the assembler has none.", "Leave out one of the two.")
    choices = Choices(
        platforms=tuple(map(Platform.parse, platforms)),
        build_args=dict(_pair(each) for each in build_args),
        target=target,
        compression=Compression(compression),
        network=network,
    )
    to = Destinations(tuple(map(Output.parse, outputs)), tuple(map(Reference.parse, pushes)), loads, plain_http)
    with Console(quiet=quiet or as_json, verbose=verbose) as console:
        made = make(
            where,
            name,
            choices,
            to,
            how=How(engine, builder),
            allow_dirty=allow_dirty,
            sandbox=sandbox,
            observer=console,
        )
    if as_json:
        print_json(_json(made))
        return
    _tell(made)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="'--build-arg'")
    return name, value


def _json(made: Made) -> dict[str, Any]:
    built = made.built
    return {
        "image": built.name,
        "engine": built.engine,
        "digest": str(built.top.digest),
        "mediaType": built.top.media_type,
        "outputs": list(made.places),
        "platforms": [
            {
                "platform": str(each.platform),
                "manifest": str(each.manifest.descriptor.digest),
                "config": str(each.config.digest),
                "base": each.base and str(each.base.reference),
                "layers": [
                    {
                        "digest": str(layer.descriptor.digest),
                        "diffId": str(layer.diff_id),
                        "size": layer.descriptor.size,
                        "title": title,
                    }
                    for title, layer in zip(each.titles, each.layers, strict=True)
                ],
                "remembered": each.remembered,
            }
            for each, _ in built.images
        ],
        "pushed": made.moved and {"sent": made.moved.sent, "mounted": made.moved.mounted, "there": made.moved.there},
    }


def _tell(made: Made) -> None:
    built = made.built
    for each, _ in built.images:
        own = sum(layer.descriptor.size for layer in each.layers)
        base = sum(layer.size for layer in each.base.layers) if each.base else 0
        click.echo(
            f"{each.platform}: {len(each.layers)} own layers, {size_text(own)}, {each.remembered} of them as "
            f"before; the base's {size_text(base)}"
        )
    if made.moved:
        moved = made.moved
        click.echo(
            f"pushed: {size_text(moved.sent)} sent, {size_text(moved.mounted)} mounted, {size_text(moved.there)} there"
        )
    for place in made.places:
        click.echo(f"{built.top.digest}  {plain(place)}")
