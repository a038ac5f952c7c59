"""`reprobuild sdist` and `reprobuild verify-sdist`."""

from pathlib import Path

import click

from reprobuild import rebuild
from reprobuild import wheel as wheels
from reprobuild.cli.attesting import attest_option, voter
from reprobuild.cli.console import FOLDER, PATH, Console, accept_option, output_options, print_json, sandbox_option
from reprobuild.cli.verify_wheel import keep_vote, newest, outcome_json, print_outcome, rebuild_options, tell_vote
from reprobuild.cli.wheel import build_options, built_json, print_built
from reprobuild.difference import Level


@click.command(
    epilog="""\b
Examples:
  reprobuild sdist                     the project in this folder, into dist/
  reprobuild sdist ../other --out-dir /tmp/sdists
  reprobuild sdist --allow-dirty       the working tree as it is; the record says so"""
)
@click.argument("where", metavar="[PROJECT]", type=PATH, default=Path())
@build_options
def sdist(
    where: Path,
    out_dir: Path | None,
    allow_dirty: bool,
    python: str | None,
    sandbox: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Build an sdist from a commit and its lock.

    It is made as `reprobuild wheel` makes a wheel: of a clean export of the commit, with what constraints.txt names and
    no network. Where the backend puts the present time or the builder into the archive, the archive is written anew
    from its members. Beside the sdist goes its record, which names every input by digest, and says whether it was.
    """
    with Console(quiet=quiet or as_json, verbose=verbose) as console:
        built = wheels.build(
            where,
            out_dir=out_dir or where / "dist",
            what="sdist",
            allow_dirty=allow_dirty,
            python=python,
            sandbox=sandbox,
            observer=console,
        )
    if as_json:
        print_json(built_json(built))
    else:
        print_built(built)


@click.command(
    "verify-sdist",
    epilog="""\b
Examples:
  reprobuild verify-sdist                       the newest sdist in dist/
  reprobuild verify-sdist dist/demo-1.0.tar.gz
  reprobuild verify-sdist /tmp/demo-1.0.tar.gz --project ~/src/demo
  reprobuild verify-sdist --accept container    headers of the archive may differ
  reprobuild verify-sdist --attest alice.key    and sign what came out
  reprobuild verify-sdist --vary path,umask     another folder and umask alone""",
)
@click.argument("file", metavar="[SDIST]", type=PATH, required=False)
@click.option("--project", "where", type=FOLDER, default=Path(), help="The checkout it was built from. Default: here.")
@rebuild_options
@accept_option
@attest_option
@sandbox_option
@output_options
def verify_sdist(
    file: Path | None,
    where: Path,
    python: str | None,
    vary: tuple[str, ...],
    explain: bool,
    accept: str,
    attested_by: str | None,
    trust_config: Path | None,
    sandbox: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Make an sdist again from its record and compare the raw bytes.

    The rebuild differs on purpose in all that `reprobuild verify-wheel` varies, with the same levels and exit codes.
    An archive that its record says was written anew is written anew here too.
    """
    signer = voter(attested_by, trust_config)
    found = file or newest(where, "sdist")
    with Console(quiet=quiet or as_json, verbose=verbose) as console:
        outcome = rebuild.verify(
            found, where, python=python, sandbox=sandbox or "auto", vary=vary, explain=explain, observer=console
        )
    kept = keep_vote(outcome, signer) if signer else None
    if as_json:
        print_json({**outcome_json(outcome), "attested": kept})
    else:
        print_outcome(outcome)
        tell_vote(kept)
    if not Level(accept).accepts(outcome.level):
        raise click.exceptions.Exit(outcome.level.exit_code)
