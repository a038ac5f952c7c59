"""`reprobuild sign`."""

import tempfile
from pathlib import Path
from typing import Any

import click

from reprobuild.cli.console import PATH, Command, Console, output_options, plain, print_json
from reprobuild.cli.secrets import signer_of
from reprobuild.files import scratch_folder
from reprobuild.image import signed
from reprobuild.image.archive import Registries


def signer_options(command: Command) -> Command:
    """Who signs."""
    for option in (
        click.option(
            "--rekor-version",
            "rekor",
            type=click.Choice(["1", "2"]),
            default="1",
            show_default=True,
            help="Of Sigstore's log; without --key. Few other tools read 2 yet.",
        ),
        click.option(
            "--trust-config", type=PATH, metavar="FILE", help="A private instance of Sigstore: its ClientTrustConfig."
        ),
        click.option(
            "--identity-token",
            "token",
            type=PATH,
            metavar="FILE",
            help="A file with an OpenID Connect token. Default: $REPROBUILD_IDENTITY_TOKEN, else the CI's.",
        ),
        click.option("--key", type=PATH, metavar="FILE", help="Sign with this key (`reprobuild keys new`)."),
    ):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples:
  reprobuild sign dist/demo-1.0-py3-none-any.whl --key release.key
  reprobuild sign dist/training --key release.key            an image in a layout
  reprobuild sign registry.example.org/team/training:1.0     keyless, in CI or with a browser
  reprobuild sign demo.whl --statement sbom.intoto.json --key release.key"""
)
@click.argument("artifact")
@click.option("--statement", type=PATH, metavar="FILE", help="Sign this statement about it, not the build's record.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@signer_options
@output_options
def sign(
    artifact: str,
    statement: Path | None,
    plain_http: tuple[str, ...],
    key: Path | None,
    token: Path | None,
    trust_config: Path | None,
    rekor: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Sign the record of an artifact: a wheel or another file, or an image.

    What comes out is a Sigstore bundle: FILE.….sigstore.json beside a file, a referrer beside an image. With --key the
    same record gives the same bytes. Without a key Sigstore certifies who you are; that becomes public in its log.
    """
    with Console(quiet=quiet or as_json, verbose=verbose), _scratch() as scratch:
        signer = signer_of(key, token, trust_config, int(rekor))
        places = signed.sign(artifact, signer, Registries(plain_http), scratch, statement)
    if as_json:
        print_json({"artifact": artifact, "signer": signer.name, "bundles": list(places)})
        return
    for place in places:
        click.echo(plain(place))


def _scratch() -> Any:  # noqa: ANN401 - a context manager of a path
    return scratch_folder(Path(tempfile.gettempdir()), "reprobuild-sign-")
