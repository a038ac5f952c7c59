"""`reprobuild verify`."""

import tempfile
import tomllib
from pathlib import Path
from typing import Any

import click

from reprobuild import policy as policies
from reprobuild.cli.console import PATH, Console, output_options, plain, print_json
from reprobuild.errors import BadInput, ExitCode
from reprobuild.files import read_text, scratch_folder
from reprobuild.image import signed
from reprobuild.image.archive import Registries
from reprobuild.image.signed import Artifact
from reprobuild.policy import Policy
from reprobuild.verification import Verification


@click.command(
    epilog="""\b
Examples:
  reprobuild verify demo-1.0-py3-none-any.whl                     by [tool.reprobuild.policy] of this project
  reprobuild verify demo.whl --policy policy.toml --bundle demo.whl.rebuild.sigstore.json
  reprobuild verify registry.example.org/team/training:1.0 --policy policy.toml
  reprobuild verify dist/training --key release.pub                nothing but a signature of this key"""
)
@click.argument("artifact")
@click.option("--policy", "policy_file", type=PATH, metavar="FILE", help="A policy. Default: the project's.")
@click.option(
    "--key", "keys", type=PATH, multiple=True, metavar="FILE", help="Trust this public key, instead of a policy."
)
@click.option("--project", type=PATH, default=Path(), help="Whose policy counts. Default: this folder.")
@click.option("--bundle", "bundles", type=PATH, multiple=True, metavar="FILE", help="A further bundle about it.")
@click.option("--trusted-root", "trust", type=PATH, metavar="FILE", help="Of a private instance of Sigstore.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@output_options
def verify(
    artifact: str,
    policy_file: Path | None,
    keys: tuple[Path, ...],
    project: Path,
    bundles: tuple[Path, ...],
    trust: Path | None,
    plain_http: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Check the signed statements about an artifact against a policy; nothing is built.

    The artifact is a wheel or another file, or an image; bundles are looked for beside it. Only what is signed by
    somebody whom the policy trusts counts, and only when it is about these very bytes. Ends with 0 when all that the
    policy asks for is there.
    """
    wanted = policy_of(policy_file, keys, project)
    if wanted is None:
        raise BadInput(
            f"{project / 'pyproject.toml'} has no [tool.reprobuild.policy].",
            "Write one, or name --policy FILE or --key FILE.",
        )
    with (
        Console(quiet=quiet or as_json, verbose=verbose),
        scratch_folder(Path(tempfile.gettempdir()), "reprobuild-verify-") as scratch,
    ):
        done = signed.verify(artifact, wanted, Registries(plain_http), scratch, more=bundles, trust=trust)
    if as_json:
        print_json({"passed": all(each.passed for _, each in done), "artifacts": [_json(*each) for each in done]})
    else:
        for one, verification in done:
            _tell(one, verification)
    if not all(each.passed for _, each in done):
        raise click.exceptions.Exit(ExitCode.NOT_VERIFIED)


def policy_of(path: Path | None, keys: tuple[Path, ...], project: Path) -> Policy | None:
    """The policy in a file, or that trusts some keys alone, else the project's own; None where that has none."""
    if keys and path:
        raise click.UsageError("--key is instead of a policy: name one of the two.")
    if keys:
        return policies.read({"keys": [str(each.absolute()) for each in keys]}, "--key", Path())
    where = path or project / "pyproject.toml"
    if path is None and not where.exists():
        return None
    try:
        document = tomllib.loads(read_text(where))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not TOML: {error}.", "Correct it there.") from error
    table: Any = document
    if path is None:
        for name in ("tool", "reprobuild", "policy"):
            table = table.get(name) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            return None
    elif "tool" in document and "keys" not in document:
        raise BadInput(
            f"{where} is a pyproject.toml: the settings of a policy's file are at its top.",
            "For the project's own, leave out --policy and name its folder with --project.",
        )
    return policies.read(table, str(where), where.parent)


def _json(artifact: Artifact, found: Verification) -> dict[str, object]:
    return {
        "artifact": artifact.name,
        "digest": str(artifact.digest),
        "passed": found.passed,
        "checks": [{"name": c.name, "passed": c.passed, "text": c.text, "remedy": c.remedy} for c in found.checks],
        "accepted": [
            {
                "bundle": each.where,
                "signer": each.signer,
                "time": each.time and each.time.isoformat(),
                "predicateType": each.predicate_type,
            }
            for each in found.accepted
        ],
        "refused": list(found.refused),
        "notes": list(found.notes),
    }


def _tell(artifact: Artifact, found: Verification) -> None:
    click.echo(plain(f"{artifact.name}  {artifact.digest}"))
    for check in found.checks:
        mark = click.style("pass", fg="green") if check.passed else click.style("fail", fg="red", bold=True)
        click.echo(f"  {mark}  {plain(check.name)}: {plain(check.text)}")
        if check.remedy:
            click.echo(f"        remedy: {plain(check.remedy)}")
    for note in found.notes:
        click.echo(f"  note: {plain(note)}")
    for each in found.refused:
        click.echo(f"  doesn't count: {plain(each)}")
