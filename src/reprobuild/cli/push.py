"""`reprobuild push` and `reprobuild pull-evidence`."""

import tempfile
from pathlib import Path

import click

from reprobuild.cli.console import PATH, Console, output_options, plain, print_json
from reprobuild.files import scratch_folder, write_atomically
from reprobuild.image import publish, signed
from reprobuild.image.archive import Registries
from reprobuild.progress import size_text


@click.command(
    epilog="""\b
Examples:
  reprobuild push dist/training registry.example.org/team/training:1.0
  reprobuild push oci-archive:image.tar registry.example.org/team/training:1.0 --tag latest
  reprobuild push dist/training registry.example.org/team/training:1.0 --dry-run"""
)
@click.argument("image")
@click.argument("reference", metavar="REF")
@click.option("--tag", "tags", multiple=True, help="A further tag in the same repository; can be repeated.")
@click.option(
    "--cosign-att", "attachments", is_flag=True, help="Also for cosign before version 3: the tag sha256-….att."
)
@click.option("--dry-run", is_flag=True, help="Say what would be pushed, and ask nobody.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@output_options
def push(
    image: str,
    reference: str,
    tags: tuple[str, ...],
    *,
    attachments: bool,
    dry_run: bool,
    plain_http: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Push an image that was built before, with its records, signatures and whatever else lies beside it.

    All that refers to the image becomes a referrer there; tags are set when everything is there. What the registry has
    is not sent again.
    """
    first = signed.reference_of(reference)
    targets = [first, *(signed.reference_of(f"{first.registry}/{first.repository}:{tag}") for tag in tags)]
    with (
        Console(quiet=quiet or as_json, verbose=verbose) as console,
        scratch_folder(Path(tempfile.gettempdir()), "reprobuild-push-") as scratch,
    ):
        done = publish.push(
            image, targets, Registries(plain_http), scratch, dry_run=dry_run, attachments=attachments, observer=console
        )
    if as_json:
        sizes = {"there": done.there, "mounted": done.mounted, "sent": done.sent}
        evidence = [{"digest": str(each.digest), "artifactType": each.artifact_type} for each in done.evidence]
        said = {"digest": str(done.top.digest), "tags": list(done.tags), "evidence": evidence, "dryRun": dry_run}
        print_json(said if dry_run else {**said, **sizes})
        return
    would = "would push" if dry_run else "pushed"
    click.echo(f"{would} {done.top.digest} and {len(done.evidence)} statements about it")
    if not dry_run:
        click.echo(f"{size_text(done.sent)} sent, {size_text(done.mounted)} mounted, {size_text(done.there)} there")
    for name in done.tags:
        click.echo(plain(name))


@click.command(
    "pull-evidence",
    epilog="""\b
Examples:
  reprobuild pull-evidence registry.example.org/team/training:1.0           list it
  reprobuild pull-evidence registry.example.org/team/training:1.0 -o evidence""",
)
@click.argument("image")
@click.option("-o", "--output", type=PATH, metavar="FOLDER", help="Write each bundle there.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@output_options
def pull_evidence(
    image: str, output: Path | None, plain_http: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool
) -> None:
    """List the signed statements beside an image, and fetch them; nothing of them is verified."""
    listed = []
    with (
        Console(quiet=quiet or as_json, verbose=verbose),
        scratch_folder(Path(tempfile.gettempdir()), "reprobuild-pull-") as scratch,
    ):
        for artifact in signed.artifacts(image, Registries(plain_http), scratch):
            for number, (where, raw) in enumerate(artifact.evidence()):
                path = output / f"{artifact.digest.hex[:12]}.{number}{signed.SUFFIX}" if output and raw else None
                if path:
                    write_atomically(path, [raw])
                listed.append(
                    {
                        "about": str(artifact.digest),
                        "bundle": where,
                        "predicateType": signed.type_in(raw, where),
                        "size": len(raw),
                        "file": path and str(path),
                    }
                )
    if as_json:
        print_json({"image": image, "evidence": listed})
        return
    for each in listed:
        words = (each["bundle"], each["predicateType"] or "no statement", f"{each['size']} bytes", each["file"])
        click.echo(plain("  ".join(str(word) for word in words if word)))
    if not listed:
        click.echo("There is none.")
