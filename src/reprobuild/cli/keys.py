"""`reprobuild keys`."""

from pathlib import Path

import click

from reprobuild.cli.console import PATH, plain, print_json
from reprobuild.cli.secrets import new_passphrase
from reprobuild.keys import Kind, PrivateKey, PublicKey, public_path


@click.group(
    epilog="""\b
Examples:
  reprobuild keys new ~/.config/reprobuild/signing.key
  reprobuild keys new release.key --type p256 --passphrase
  reprobuild keys show release.pub"""
)
def keys() -> None:
    """Make local signing keys, and look at them."""


@keys.command()
@click.argument("path", metavar="FILE", type=PATH)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["ed25519", "p256"]),
    default="ed25519",
    show_default=True,
    help="p256 is for tools that know no Ed25519.",
)
@click.option("--passphrase", "protected", is_flag=True, help="Ask for a passphrase that the file is encrypted with.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new(path: Path, kind: Kind, *, protected: bool, as_json: bool) -> None:
    """Make a key: the private half in FILE, for you alone, the public half beside it: demo.pub for demo.key.

    With a passphrase the file is encrypted. It is taken from REPROBUILD_KEY_PASSPHRASE if that is set, and asked for
    on the terminal with --passphrase; no option takes it.
    """
    key = PrivateKey.generate(kind)
    passphrase = new_passphrase(wanted=protected)
    key.save(path, passphrase)
    if as_json:
        names = {"private": str(path), "public": str(public_path(path))}
        print_json({**names, "id": key.public.id, "encrypted": bool(passphrase)})
        return
    click.echo(f"{key.public.id}  {plain(str(public_path(path)))}")


@keys.command()
@click.argument("path", metavar="FILE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(path: Path, *, as_json: bool) -> None:
    """Show what a public key is called, and the key in PEM."""
    key = PublicKey.load(path)
    if as_json:
        print_json({"public": str(path), "id": key.id, "pem": key.pem.decode()})
        return
    click.echo(key.id)
    click.echo(key.pem.decode(), nl=False)
