"""A verdict for people: the level, where the two differ, and what to do about it."""

from collections import Counter
from collections.abc import Iterator

import click

from reprobuild.cli.console import plain
from reprobuild.compare import CAUSES, Difference, Level, Verdict

_SHOWN = 50  # differences; --json has all that were kept
COLOURS = {
    Level.IDENTICAL: "green",
    Level.CONTAINER: "yellow",
    Level.METADATA: "yellow",
    Level.PAYLOAD: "red",
    Level.NOT_COMPARABLE: "red",
}
_MEANINGS = {
    Level.IDENTICAL: "the two have the same bytes",
    Level.CONTAINER: "every member has the same bytes and mode; only the framing differs",
    Level.METADATA: "only members of .dist-info differ",
    Level.PAYLOAD: "what gets installed differs",
}
#: The same of what isn't a wheel.
_OTHER_MEANINGS = {
    Level.METADATA: "only what describes the contents differs",
    Level.PAYLOAD: "the contents differ",
}


def echo_verdict(verdict: Verdict, left_name: str, right_name: str) -> None:
    """Print a verdict; without colours where standard output isn't a terminal."""
    for line in verdict_lines(verdict, left_name, right_name):
        click.echo(line)


def verdict_lines(verdict: Verdict, left_name: str, right_name: str) -> list[str]:
    """The verdict as styled lines: digests, level, differences by member, causes with remedies."""
    width = max(len(left_name), len(right_name))
    level = click.style(str(verdict.level), fg=COLOURS[verdict.level], bold=True)
    meaning = _MEANINGS.get(verdict.level, "no reason known")
    if not verdict.wheels:
        meaning = _OTHER_MEANINGS.get(verdict.level, meaning)
    return [
        f"{plain(left_name):<{width}}  {verdict.left}  {verdict.left_size:,} bytes",
        f"{plain(right_name):<{width}}  {verdict.right}  {verdict.right_size:,} bytes",
        f"{level}: {plain(verdict.reason) or meaning}",
        *_difference_lines(verdict),
        *_cause_lines(verdict),
    ]


def _difference_lines(verdict: Verdict) -> Iterator[str]:
    own = [difference for difference in verdict.differences if not difference.follows]
    # The deepest differences decide the level, so they come first.
    own.sort(key=lambda difference: -difference.level.rank)
    above: tuple[str, ...] = ()
    for difference in own[:_SHOWN]:
        yield from _headings(above, difference.path)
        above = difference.path or ("",)
        indent = "  " * (len(difference.path) + 1)
        cause = click.style(f" [{difference.cause}]", fg="cyan") if difference.cause else ""
        sides = f"{plain(difference.left)} → {plain(difference.right)}"
        yield f"{indent}{plain(difference.field)}: {sides}{cause}"
    follows = Counter(difference.path[-1:] for difference in verdict.differences if difference.follows)
    if follows:
        parts = (f"{plain(path[0]) if path else 'the file'} ({n})" for path, n in follows.items())
        yield click.style(f"  follows from these: {', '.join(parts)}", dim=True)
    more = Counter(dict(verdict.omitted))
    more.update(_kind(difference) for difference in own[_SHOWN:])
    if more:
        counts = ", ".join(f"{count:,} {plain(field)}" for field, count in more.items())
        yield click.style(f"  not shown: {counts}", dim=True)


def _kind(difference: Difference) -> str:
    return difference.field.rstrip("0123456789 ") or difference.field


def _headings(above: tuple[str, ...], path: tuple[str, ...]) -> Iterator[str]:
    shared = 0
    while shared < min(len(above), len(path)) and above[shared] == path[shared]:
        shared += 1
    for depth in range(shared, len(path)):
        yield "  " * (depth + 1) + click.style(plain(path[depth]), bold=True)


def _cause_lines(verdict: Verdict) -> Iterator[str]:
    for name in verdict.causes:
        cause = CAUSES[name]
        yield f"{click.style(name, fg='cyan', bold=True)}: {cause.summary}"
        yield f"  {cause.remedy}"
