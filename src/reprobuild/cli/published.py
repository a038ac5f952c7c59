"""A published wheel's check, told to people and to machines."""

from dataclasses import asdict
from typing import Any

import click

from reprobuild.cli.console import block, plain
from reprobuild.cli.render import verdict_lines
from reprobuild.compare import CAUSES, causes_json
from reprobuild.published import CONFINED, Checked, Confinement, Try
from reprobuild.replay import Replay


def confinement(sandbox: str | None, timeout: int | None, memory: int | None, jobs: int = 1) -> Confinement:
    """What the options of a command say of so many builds at once, with the usual for what they don't say."""
    usual, least = CONFINED, 1024  # MiB
    return Confinement(sandbox or usual.sandbox, timeout or usual.timeout, memory or max(least, usual.memory // jobs))


def as_json(checked: Checked) -> dict[str, Any]:
    """What came of checking one published wheel, as plain JSON values."""
    best = checked.best
    said = best.verdict.to_json() if best.verdict else {}
    return {
        **said,
        "level": str(checked.level),
        "causes": causes_json(checked.causes),
        "generator": checked.generator,
        "wheel": checked.wheel.file.filename,
        "source": asdict(checked.origin),
        "notes": list(checked.notes),
        "uploaded": checked.wheel.uploaded,
        "guesses": _guesses(best),
        "clock": _clock(best.replay),
        "failure": best.failure,
        "sandbox": checked.sandbox,
        "buildRequirements": [{"name": each.filename, "digest": str(each.digest)} for each in best.requirements],
        "unkept": checked.unkept.reason if checked.unkept else "",
        "tries": [
            {"level": str(each.level), "failure": each.failure, "guesses": _guesses(each), "clock": _clock(each.replay)}
            for each in checked.tries
        ],
    }


def echo(checked: Checked) -> None:
    """Print the verdict, the guesses that won with their evidence, and what was replayed."""
    best = checked.best
    for note in checked.notes:
        click.echo(f"note: {plain(note)}")
    digests = ", ".join(f"{name} {value}" for name, value in sorted(checked.origin.digests.items()))
    click.echo(f"{plain(checked.wheel.file.filename)}, made again from {plain(checked.origin.name)} ({plain(digests)})")
    click.echo(f"guesses of try {checked.tries.index(best) + 1} of {len(checked.tries)}:")
    width = max(len(guess.name) for guess in best.hypothesis.guesses)
    for guess in best.hypothesis.guesses:
        click.echo(f"  {guess.name:<{width}}  {plain(guess.value)}  ({plain(guess.evidence)})")
    if best.requirements:
        click.echo(f"built with {', '.join(each.filename for each in best.requirements)}")
    if best.replay:
        replay = best.replay
        click.echo(
            f"clock: replayed on {len(replay.members)} members that the build itself wrote, "
            f"as recorded: {replay.first} to {replay.last}"
        )
    for name in checked.causes:
        if not best.verdict or name not in best.verdict.causes:
            click.echo(f"{name}: {CAUSES[name].summary} Remedy: {CAUSES[name].remedy}")
    if best.verdict is None:
        click.echo(f"not-comparable: no try could be built; the likeliest: {block(best.failure)}")
        return
    for line in verdict_lines(best.verdict, "published", "made again"):
        click.echo(line)


def _guesses(tried: Try) -> list[dict[str, str]]:
    return [
        {"name": guess.name, "value": guess.value, "evidence": guess.evidence} for guess in tried.hypothesis.guesses
    ]


def _clock(replay: Replay | None) -> dict[str, Any] | None:
    if replay is None:
        return None
    return {"replayed": list(replay.members), "first": replay.first, "last": replay.last}
