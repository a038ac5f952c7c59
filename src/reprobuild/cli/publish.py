"""`reprobuild publish`."""

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import click

from reprobuild import places
from reprobuild.cli.console import FOLDER, PATH, Console, output_options, plain, print_json
from reprobuild.cli.verify import policy_of
from reprobuild.difference import Level
from reprobuild.files import scratch_folder
from reprobuild.places import Target
from reprobuild.policy import Identity, Policy, of_this_job
from reprobuild.publish import Demand, Published, found_in
from reprobuild.publish import publish as upload

#: The name is as ugly as what it does.
_UNSAFE = "unsafe-unverified"
_DEFAULT = "uv's default index"
_LEVELS = [level.value for level in Level if level is not Level.NOT_COMPARABLE]
_WORDS = {"uploaded": "uploaded", "already-there": "already there, same digest", "would-upload": "would upload"}
_PROOFS = {"votes": "by votes under the policy", "made-again": "made again just now", "none": "not verified"}


def _without_login(ctx: click.Context, param: click.Parameter, value: str) -> str:  # noqa: ARG001 - Click's
    """A URL that holds no credentials: what is an argument can be read by anybody on the machine."""
    try:
        host = urlsplit(value).netloc
    except ValueError:  # its message would show the URL
        raise click.UsageError(f"{max(param.opts, key=len)} is no URL.") from None
    if "@" in host:
        raise click.UsageError(f"{max(param.opts, key=len)} holds a credential: set UV_PUBLISH_TOKEN instead.")
    return value


def _both(ctx: click.Context, param: click.Parameter, value: tuple[str, str] | None) -> tuple[str, str] | None:  # noqa: ARG001 - Click's
    """Two texts: an empty one is a variable of a script that isn't set."""
    if value and not all(value):
        raise click.UsageError("--signer takes an identity and who issued it, and one of them is empty.")
    return value


@click.command(
    epilog="""\b
Examples:
  reprobuild publish --index internal          the wheel and the sdist in dist/, to an index of [[tool.uv.index]]
  reprobuild publish dist/demo-1.0.tar.gz --dry-run
  reprobuild publish --policy policy.toml      by others' votes, without making anything again
  reprobuild publish --publish-url https://index.example.org/ --check-url https://index.example.org/simple/"""
)
@click.argument("files", metavar="[FILE]...", type=PATH, nargs=-1)
@click.option("--index", metavar="NAME", default="", help="An index of uv's configuration that has a publish-url.")
@click.option("--publish-url", metavar="URL", default="", callback=_without_login, help="Where to upload, instead.")
@click.option(
    "--check-url", metavar="URL", default="", callback=_without_login, help="Where that index lists what it has."
)
@click.option(
    "--require",
    type=click.Choice([*_LEVELS, _UNSAFE]),
    default=Level.IDENTICAL.value,
    show_default=True,
    help="The worst that making a file again may come to.",
)
@click.option(
    "--policy",
    "policy_file",
    type=PATH,
    metavar="FILE",
    help="Whose votes count. Default: the project's policy, if any.",
)
@click.option(
    "--key", "keys", type=PATH, multiple=True, metavar="FILE", help="Trust votes of this public key, instead."
)
@click.option("--trusted-root", "trust", type=PATH, metavar="FILE", help="Of a private instance of Sigstore.")
@click.option(
    "--signer",
    nargs=2,
    metavar="IDENTITY ISSUER",
    callback=_both,
    help="Whose attestations go along. Default: the policy's identities, else the repository of this CI job.",
)
@click.option(
    "--project", type=FOLDER, default=Path(), help="The checkout that the files were built from. Default: here."
)
@click.option(
    "--trusted-publishing",
    type=click.Choice(["automatic", "always", "never"]),
    help="Whether a CI job logs in as itself. Default: as uv is configured.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, upload nothing.")
@output_options
def publish(
    files: tuple[Path, ...],
    index: str,
    publish_url: str,
    check_url: str,
    require: str,
    policy_file: Path | None,
    keys: tuple[Path, ...],
    trust: Path | None,
    signer: tuple[str, str] | None,
    project: Path,
    trusted_publishing: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Upload wheels and sdists to a package index, once they are verified.

    A file passes if signed votes beside it, of people whom the policy trusts, say that they made it again; where there
    is no policy, it is made again right now. All files are checked before the first is uploaded. What the index has
    already, with the same digest, is passed over, so that a run that was broken off can be run again.

    uv uploads, and logs in: with UV_PUBLISH_TOKEN, or UV_PUBLISH_USERNAME and UV_PUBLISH_PASSWORD, a keyring, or as a
    CI job that the index trusts. No secret is ever an argument. FILE.publish.attestation beside a file goes with it.
    """
    if index and publish_url:
        raise click.UsageError("--index knows where to upload: name it or --publish-url.")
    unsafe = require == _UNSAFE
    if unsafe and (policy_file or keys):
        raise click.UsageError(f"--require {_UNSAFE} asks nobody: leave out --policy and --key.")
    target = places.publishing(project, index, publish_url, check_url)
    policy = None if unsafe else policy_of(policy_file, keys, project)
    demand = Demand(None if unsafe else Level(require), policy, trust, project, _signers(signer, policy))
    with (
        Console(quiet=quiet or as_json, verbose=verbose) as console,
        scratch_folder(Path(tempfile.gettempdir()), "reprobuild-publish-") as scratch,
    ):
        done = upload(
            files or found_in(project / "dist"),
            target,
            demand,
            scratch=scratch,
            trusted_publishing=trusted_publishing or "",
            dry_run=dry_run,
            observer=console,
        )
    if as_json:
        print_json({"index": target.url or None, "dryRun": dry_run, "files": [_json(each) for each in done]})
        return
    for each in done:
        click.echo(_line(each, target))


def _signers(named: tuple[str, str] | None, policy: Policy | None) -> tuple[Identity, ...]:
    if named:
        return (Identity(*named),)
    if policy and policy.identities:
        return policy.identities
    job = of_this_job(os.environ)
    return (job,) if job else ()


def _json(each: Published) -> dict[str, object]:
    return {
        "file": str(each.path),
        "digest": str(each.digest),
        "name": each.name,
        "version": str(each.version),
        "status": each.status,
        "proof": each.proof,
        "level": each.level and str(each.level),
        "attestations": each.attestations,
        "attestedBy": each.attested_by or None,
    }


def _line(each: Published, target: Target) -> str:
    more = []
    if each.status != "already-there":
        more.append(f"{each.level}, {_PROOFS[each.proof]}" if each.level else _PROOFS["none"])
        if each.attestations:
            more.append(f"with an attestation of {each.attested_by}")
    if each.status == "would-upload":
        more.append(f"to {target.url or _DEFAULT}")
    about = f"  ({', '.join(more)})" if more else ""
    return plain(f"{_WORDS[each.status]}  {each.digest}  {each.path}{about}")
