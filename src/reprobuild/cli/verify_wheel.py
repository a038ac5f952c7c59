"""`reprobuild verify-wheel`."""

import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from reprobuild import rebuild, recorded, variations
from reprobuild.backend import What
from reprobuild.causes import CAUSES
from reprobuild.cli.attesting import attest_option, vote_of, voter
from reprobuild.cli.console import (
    FOLDER,
    PATH,
    Command,
    Console,
    accept_option,
    limit_options,
    output_options,
    plain,
    print_error,
    print_json,
    sandbox_option,
)
from reprobuild.cli.render import verdict_lines
from reprobuild.compare import Verdict, causes_json
from reprobuild.difference import Level
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, IndexFailed, shown
from reprobuild.sdist import SUFFIX
from reprobuild.variations import USUAL_NAMES
from reprobuild.wheel import SUFFIXES


class Variations(click.ParamType[tuple[str, ...]]):
    """Names of variations with commas between them."""

    name = "NAME,NAME…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:  # noqa: ANN401 - Click's
        """The names, in their usual order."""
        try:
            return variations.choose(value)
        except BadInput as error:
            self.fail(f"{error.reason} {error.remedy}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """What may come after the last comma."""
        before, comma, started = incomplete.rpartition(",")
        given = before.split(",")
        offered = [name for name in variations.VARIATIONS if name not in given]
        words = offered if comma else ["all", "none", *offered]
        return [CompletionItem(f"{before}{comma}{word}") for word in words if word.startswith(started)]


def rebuild_options(command: Command) -> Command:
    """The options of what is made again from its record: --python, --vary and --explain."""
    for option in (
        click.option("--explain/--no-explain", default=True, help="When the bytes differ, find the guilty variables."),
        click.option(
            "--vary",
            type=Variations(),
            default=",".join(USUAL_NAMES),
            show_default="all but python",
            help="What shall differ: names with commas between them, all, or none.",
        ),
        click.option("--python", metavar="PYTHON", help="The interpreter. Default: the version that the record names."),
    ):
        command = option(command)
    return command


@click.command(
    "verify-wheel",
    epilog="""\b
Examples:
  reprobuild verify-wheel                       the newest wheel in dist/
  reprobuild verify-wheel dist/demo-1.0-py3-none-any.whl
  reprobuild verify-wheel /tmp/demo-1.0-py3-none-any.whl --project ~/src/demo
  reprobuild verify-wheel --accept container    zip framing may differ
  reprobuild verify-wheel --attest alice.key    and sign what came out
  reprobuild verify-wheel --vary path,umask     another folder and umask alone
  reprobuild verify-wheel requests==2.34.2      a published wheel, from its sdist
  reprobuild verify-wheel ~/Downloads/six-1.17.0-py2.py3-none-any.whl
  reprobuild verify-wheel rich==15.0.0 --source git+https://example.org/rich.git@v15.0.0
  reprobuild verify-wheel tqdm==4.60.0 --constraints build.txt --keep /tmp/tqdm""",
)
@click.argument("what", metavar="[WHEEL|NAME==VERSION]", required=False)
@click.option(
    "--project", "where", type=PATH, default=Path(), help="The checkout or sdist it was built from. Default: here."
)
@rebuild_options
@click.option(
    "--source",
    "origin",
    metavar="SOURCE",
    help="Make a published wheel from git+URL@REF, a folder or an sdist instead.",
)
@click.option(
    "--constraints", type=PATH, help="Versions of build requirements, in place of guesses: pins, or a hashed lock."
)
@click.option("--keep", type=FOLDER, help="A new folder for a published wheel and the one made again, and their trees.")
@limit_options
@accept_option
@attest_option
@sandbox_option
@output_options
def verify_wheel(
    what: str | None,
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
    **options: Any,  # noqa: ANN401 - the values of PUBLISHED_OPTIONS
) -> None:
    """Make a wheel again from its record and compare the raw bytes.

    The rebuild differs on purpose in path, umask, time zone, locale, hash seed, home, host name, user, number of
    processors, directory order, clock and further variables of the environment; with --vary all also in Python's patch
    release. When the bytes differ, more rebuilds find which of these are guilty. A umask that decides nothing but the
    modes of members is held at 022, as in every build, and the report says so; named in --vary, it is never held.

    NAME==VERSION, or a wheel without a record beside it, is one that somebody published: what is missing is fetched
    from the index, the environment that made the wheel is guessed, and the wheel is made again from the sdist, in one
    guess after the other until the bytes are identical. Where a wheel holds the time of its build, that clock is
    replayed, and the report says so.
    """
    signer = voter(attested_by, trust_config)
    console = Console(quiet=quiet or as_json, verbose=verbose)
    if what and _is_published(what, options):
        _refuse_given(RECORDED_OPTIONS, "is for wheels with a record beside them: without one, all is guessed")
        _verify_published(what, accept, sandbox, signer, console, as_json=as_json, **options)
        return
    _refuse_given(PUBLISHED_OPTIONS, "is for published wheels: name one, as NAME==VERSION")
    found = Path(what) if what else newest(where, "wheel")
    with console:
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


#: What only the check of a published wheel takes.
PUBLISHED_OPTIONS = {
    "origin": "--source",
    "constraints": "--constraints",
    "keep": "--keep",
    "timeout": "--timeout",
    "memory": "--memory",
}
#: What only the check against a record takes.
RECORDED_OPTIONS = {
    "where": "--project",
    "python": "--python",
    "vary": "--vary",
    "explain": "--explain/--no-explain",
}


def _refuse_given(options: Mapping[str, str], why: str) -> None:
    context = click.get_current_context()
    for name, option in options.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} {why}.")


def _is_published(what: str, options: Mapping[str, Any]) -> bool:
    """Whether a release is named, or a wheel that comes without its record, or more than a record would need."""
    path = Path(what)
    try:
        exists = path.exists()
    except OSError as error:  # what it would be the name of
        raise BadInput(f"{shown(what)} can't be looked for: {error.strerror}.") from error
    if not exists and "==" not in what and not what.endswith(".whl"):
        raise BadInput(
            f"{what!r} is neither a wheel nor a release.", "Name a file .whl, or a release like requests==2.34.2."
        )
    if not path.is_file():
        return "==" in what
    if not path.name.endswith(".whl"):
        return False
    return not recorded.record_path(path).exists() or options["origin"] is not None


def _verify_published(
    what: str,
    accept: str,
    sandbox: str | None,
    signer: Any,  # noqa: ANN401 - as voter gives it
    console: Console,
    *,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - the values of PUBLISHED_OPTIONS
) -> None:
    from reprobuild import published  # noqa: PLC0415 - only this way of asking needs it
    from reprobuild.cli import published as told  # noqa: PLC0415 - the same
    from reprobuild.subject import Subject  # noqa: PLC0415 - the same

    subject = Subject.of(what)
    confinement = told.confinement(sandbox, options.pop("timeout"), options.pop("memory"))
    try:
        with console:
            checked = published.check(
                subject, settings=Path.cwd(), confinement=confinement, observer=console, **options
            )
    except IndexFailed as error:
        if subject.file is None or options["origin"]:
            raise
        remedy = "It has no record beside it, so its source was looked for there: name the source with --source."
        raise IndexFailed(error.reason, remedy) from error
    kept = _keep_published_vote(checked, subject.file, signer) if signer else None
    if as_json:
        print_json({**told.as_json(checked), "attested": kept})
    else:
        told.echo(checked)
        tell_vote(kept)
    if checked.unkept:
        print_error(checked.unkept.reason, checked.unkept.remedy)
        raise click.exceptions.Exit(checked.unkept.exit_code)
    if not Level(accept).accepts(checked.level):
        raise click.exceptions.Exit(checked.level.exit_code)


def keep_vote(outcome: rebuild.Rebuilt, signer: Any) -> str:  # noqa: ANN401 - as voter gives it
    """Sign what came out, and put it beside the file; where it is."""
    from reprobuild.image.signed import File  # noqa: PLC0415 - only with --attest

    record = Digest.of_file(recorded.record_path(outcome.path))
    statement = vote_of(
        outcome.path.name,
        outcome.verdict,
        outcome.level,
        {"sha256": record.hex},
        outcome.varied,
        outcome.guarantees.kind,
    )
    beside = File(outcome.path, outcome.verdict.left)
    return beside.keep(signer.sign(statement), statement["predicateType"], signer.name)


def _keep_published_vote(checked: Any, file: Path | None, signer: Any) -> str | None:  # noqa: ANN401 - lazily imported types
    """Beside the file that was named, else here."""
    from reprobuild.image.signed import File  # noqa: PLC0415 - only with --attest

    if checked.best.verdict is None:
        return None
    name = checked.wheel.file.filename
    statement = vote_of(name, checked.best.verdict, checked.level, dict(checked.origin.digests), (), checked.sandbox)
    beside = File(file or Path(name), checked.wheel.file.digest)
    return beside.keep(signer.sign(statement), statement["predicateType"], signer.name)


def tell_vote(kept: str | None) -> None:
    """Where a vote is, if there is one."""
    if kept:
        click.echo(f"attested: {plain(kept)}")


_PLACES = 5  # shown of one guilty variable; --json has all that were kept
_STOPPED = "Even with nothing varied, it comes out different each time; with the clock stopped it doesn't."
_UNVARIED = {
    "unsteady": "Even with nothing varied, it comes out different each time: a clock or a random value is in it.",
    "different": "With nothing varied it comes out the same each time here, but not as it was built.",
}


def newest(where: Path, what: What) -> Path:
    """The wheel or sdist in a project's dist that was written last.

    Raises:
        BadInput: there is none.
    """
    folder = (where if where.is_dir() else where.parent) / "dist"
    last = max(_with_times(folder, SUFFIXES[what]), default=None)
    if last is None:
        raise BadInput(
            f"There is no {what} in {folder}.", f"Build one with `reprobuild {what}`, or name the {what} to verify."
        )
    return folder / last[1]


def _with_times(folder: Path, suffix: str) -> Iterator[tuple[int, str]]:
    for path in folder.glob(f"*{suffix}"):
        with suppress(OSError):  # a link that leads nowhere, or a wheel that has just been replaced
            state = path.stat()
            if stat.S_ISREG(state.st_mode):
                yield state.st_mtime_ns, path.name


def _what(outcome: rebuild.Rebuilt) -> str:
    return "sdist" if outcome.path.name.endswith(SUFFIX) else "wheel"


def outcome_json(outcome: rebuild.Rebuilt) -> dict[str, object]:
    """What came of making a file again, for machines."""
    return {
        _what(outcome): str(outcome.path),
        **outcome.verdict.to_json(),
        "level": str(outcome.level),
        "causes": causes_json(outcome.causes),
        "varied": list(outcome.varied),
        "notVaried": dict(outcome.not_varied),
        "held": list(outcome.held),
        "guilty": [
            {
                **guilt.verdict.to_json(),
                "variations": list(guilt.variations),
                "where": list(guilt.where),
                "causes": causes_json(guilt.causes),
            }
            for guilt in outcome.guilty
        ],
        "rebuilds": outcome.rebuilds,
        "unvaried": outcome.unvaried,
        "unvariedVerdict": outcome.unvaried_verdict.to_json() if outcome.unvaried_verdict else None,
        "sandbox": asdict(outcome.guarantees),
        "notes": list(outcome.notes),
    }


def print_outcome(outcome: rebuild.Rebuilt) -> None:
    """The same for people."""
    for note in outcome.notes:
        click.echo(f"note: {plain(note)}")
    click.echo(f"varied: {', '.join(outcome.varied) or 'nothing'}")
    for why, names in groupby(sorted(outcome.not_varied, key=outcome.not_varied.__getitem__), outcome.not_varied.get):
        click.echo(f"not varied ({plain(str(why))}): {', '.join(names)}")
    if outcome.held:
        click.echo(f"held: umask (the modes in this {_what(outcome)} follow it, so every build here has umask 022)")
    for guilt in outcome.guilty:
        _print_guilt(guilt)
    if outcome.rebuilds > 1:
        click.echo(f"made again {outcome.rebuilds} times")
    for line in verdict_lines(outcome.verdict, "built", "made again"):
        click.echo(line)
    if outcome.unvaried_verdict:
        stopped = any(guilt.variations == ("clock",) for guilt in outcome.guilty) and outcome.unvaried == "unsteady"
        _print_unvaried(_STOPPED if stopped else _UNVARIED[outcome.unvaried], outcome.verdict, outcome.unvaried_verdict)


def _print_guilt(guilt: rebuild.Guilt) -> None:
    """One line: variable → what of which member; remedy. Then what it means."""
    who = " + ".join(guilt.variations)
    if len(guilt.variations) > 1:
        who = f"only together: {who}"
    more = f" and {len(guilt.where) - _PLACES} more" if len(guilt.where) > _PLACES else ""
    where = ", ".join(guilt.where[:_PLACES])
    causes = [CAUSES[name] for name in guilt.causes]
    remedies = " ".join(cause.remedy for cause in causes)
    click.echo(f"{click.style(who, fg='red', bold=True)} → {plain(where)}{more}; remedy: {remedies}")
    for cause in causes:
        click.echo(f"  {guilt.verdict.level}, {click.style(cause.name, fg='cyan')}: {cause.summary}")


def _print_unvaried(how: str, varied: Verdict, unvaried: Verdict) -> None:
    click.echo(how)
    click.echo(f"  {unvaried.right}  {unvaried.level}: {', '.join(unvaried.causes) or 'no cause known'}")
    if more := [name for name in varied.causes if name not in unvaried.causes]:
        click.echo(f"  seen only when varied: {', '.join(more)}")
