"""``--attest``: a rebuilder's vote, the signed statement of what came out."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from reprobuild import __version__, attest
from reprobuild.attest import Json
from reprobuild.cli.console import PATH, Command
from reprobuild.compare import Verdict
from reprobuild.difference import Level
from reprobuild.digest import Digest


def attest_option(command: Command) -> Command:
    """Who signs the rebuild, if anybody."""
    command = click.option(
        "--trust-config", type=PATH, metavar="FILE", help="For --attest keyless: a private instance of Sigstore."
    )(command)
    return click.option(
        "--attest",
        "attested_by",
        metavar="KEY|keyless",
        help="Sign what came out, with a key's file or as the identity that is there, and put it beside the artifact.",
    )(command)


def voter(attested_by: str | None, trust_config: Path | None) -> Any:  # noqa: ANN401 - a Signer, whose module is slow to import
    """Who signs; asked before anything is built, so that a wrong passphrase shows at once."""
    if trust_config and attested_by != "keyless":
        raise click.UsageError("--trust-config is for --attest keyless.")
    if attested_by is None:
        return None
    from reprobuild.cli.secrets import signer_of  # noqa: PLC0415 - only with the option

    key = None if attested_by == "keyless" else Path(attested_by)
    return signer_of(key, None, trust_config, 1)


def vote_of(
    name: str, verdict: Verdict, level: Level, record: Mapping[str, str], varied: Sequence[str], sandbox: str
) -> Json:
    """A rebuild as a statement.

    Args:
        name: the artifact's.
        level: the deepest of all rebuilds.
        record: digests of what said how to make it.
    """
    return attest.rebuild(
        attest.descriptor(_digests(verdict.left), name=name),
        record=attest.descriptor(record),
        rebuilt=attest.descriptor(_digests(verdict.right), name=name),
        level=str(level),
        varied=varied,
        environment={
            "platform": f"{platform.system().lower()}/{platform.machine()}",
            "python": platform.python_version(),
            "sandbox": sandbox,
        },
        builder_version={"reprobuild": __version__},
    )


def _digests(digest: Digest) -> dict[str, str]:
    return {digest.algorithm: digest.hex}
