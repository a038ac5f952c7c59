"""`reprobuild verify-image`."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from reprobuild import attest
from reprobuild.cli.attesting import attest_option, vote_of, voter
from reprobuild.cli.console import (
    PATH,
    Console,
    accept_option,
    builder_options,
    output_options,
    plain,
    print_json,
    sandbox_option,
)
from reprobuild.cli.render import verdict_lines
from reprobuild.compare import Level
from reprobuild.digest import Digest
from reprobuild.errors import DigestMismatch
from reprobuild.files import scratch_folder
from reprobuild.image.archive import Registries
from reprobuild.image.verify import Checked, Verified, verify


@click.command(
    name="verify-image",
    epilog="""\b
Examples:
  reprobuild verify-image dist/training
  reprobuild verify-image oci:/tmp/layout:1.0 --project ~/src/training
  reprobuild verify-image oci-archive:image.tar
  reprobuild verify-image registry.example.org/team/training@sha256:…
  reprobuild verify-image registry.example.org/team/training:1.0 --attest alice.key""",
)
@click.argument("image")
@click.option("--project", type=PATH, default=Path(), help="The project that it was built from. Default: this folder.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@click.option("--cross-engine", is_flag=True, help="Build it with the other engine, too, and compare all files.")
@builder_options
@accept_option
@attest_option
@sandbox_option
@output_options
def verify_image(
    image: str,
    project: Path,
    plain_http: tuple[str, ...],
    cross_engine: bool,
    builder: str,
    network: str,
    accept: str,
    attested_by: str | None,
    trust_config: Path | None,
    sandbox: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Make an image again from what the record beside it names, and compare manifest, config and layers.

    The source is exported anew, the project's own wheel is built in surroundings that differ, and no layer that was
    made before is used again; what BuildKit built, it builds again without a cache. Of the base, manifest and config
    are compared by their digests. The layers in a layout are hashed, an index may name nothing but the images that
    were made again, and these must be of one build.

    With --cross-engine the other engine builds the definition, too, whose layers are others: the files that they make
    together are compared with the image's, one by one, and so are the settings.
    """
    signer = voter(attested_by, trust_config)
    with Console(quiet=quiet or as_json, verbose=verbose) as console:
        verified = verify(
            image,
            project,
            plain_http=plain_http,
            sandbox=sandbox,
            builder=builder,
            network=network,
            cross_engine=cross_engine,
            observer=console,
        )
        kept = _keep_votes(image, verified, signer, plain_http) if signer else ()
    index = verified.index
    if as_json:
        said = {"image": image, "level": str(verified.level), "platforms": [_json(each) for each in verified.images]}
        print_json({**said, "index": index and index.to_json(), "attested": list(kept)})
    else:
        for each in verified.images:
            _tell(each)
        if index:
            click.echo("the index")
            for line in verdict_lines(index, "built", "of these images"):
                click.echo(line)
        for place in kept:
            click.echo(f"attested: {plain(place)}")
    if not Level(accept).accepts(verified.level):
        raise click.exceptions.Exit(verified.level.exit_code)


def _keep_votes(image: str, verified: Verified, signer: Any, plain_http: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ANN401 - as voter gives it
    """One statement a platform, put where the image is, if that is still the one that was verified."""
    from reprobuild.image import signed  # noqa: PLC0415 - only with --attest

    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-attest-") as scratch:
        there = {each.digest: each for each in signed.artifacts(image, Registries(plain_http), scratch)}
        kept = []
        for each in verified.images:
            record = {"sha256": Digest.of_bytes(attest.encode(each.record.statement)).hex}
            sandbox = str(each.record.internal.get("engine", ""))
            statement = vote_of(image, each.verdict, each.verdict.level, record, each.varied, sandbox)
            if each.verdict.left not in there:
                raise DigestMismatch(f"{image} isn't any more what was verified.", "Verify it by its digest.")
            place = there[each.verdict.left]
            kept.append(place.keep(signer.sign(statement), statement["predicateType"], signer.name))
    return tuple(kept)


def _json(checked: Checked) -> dict[str, object]:
    return {
        "platform": str(checked.platform),
        "from": _inputs(checked),
        "varied": list(checked.varied),
        "notes": list(checked.notes),
        **checked.verdict.to_json(),
        "crossEngine": checked.crossed and checked.crossed.to_json(),
    }


def _inputs(checked: Checked) -> dict[str, object]:
    """What the record says that the image was built from, which the source alone doesn't tell."""
    record = checked.record
    return {
        "image": record.external["image"],
        "source": {"kind": record.external["source"]["kind"], **record.digests(record.dependency("source"))},
        **{key: record.external[key] for key in ("sourceDateEpoch", "target", "buildArguments")},
    }


def _varied(names: Sequence[str], engine: str) -> Iterator[str]:
    """What was made different for all that is done here, and what around the project's own wheel alone."""
    wheel = [name for name in names if name not in ("path", "umask")]
    text = f"varied: {', '.join(name for name in names if name not in wheel)}"
    yield f"{text}; for the project's wheel also {', '.join(wheel)}" if wheel else text
    if engine == "buildkit":
        yield "RUN had nothing varied but the time that passed"


def _tell(checked: Checked) -> None:
    inputs = _inputs(checked)
    told = (f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in inputs.items() if value)
    click.echo(plain(f"from {', '.join(told)}"))
    first, *more = _varied(checked.varied, str(checked.record.internal.get("engine")))
    click.echo(f"{checked.platform}, {first}")
    for line in more:
        click.echo(line)
    for note in checked.notes:
        click.echo(f"note: {plain(note)}")
    for line in verdict_lines(checked.verdict, "built", "made again"):
        click.echo(line)
    if checked.crossed:
        click.echo("files and settings, listed and hashed")
        for line in verdict_lines(checked.crossed, "built", "by the other engine"):
            click.echo(line)
