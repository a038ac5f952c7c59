"""What commands share: progress on standard error, and options that several of them take."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import click

from reprobuild.difference import Level

#: What an option is added to.
Command = TypeVar("Command", bound=Callable[..., Any])


def colour() -> bool | None:
    """False where nobody wants escape codes (NO_COLOR, TERM=dumb), else None: it depends on there being a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def plain(text: str) -> str:
    """Text that nobody vouches for in one line, unable to move the cursor or change colours."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def block(text: str) -> str:
    """The same of several lines. All but the first are set off: none can look like a line of this program's own."""
    first, *others = (plain(each.expandtabs()) for each in text.split("\n"))
    return "\n".join([first, *(f"  | {each}".rstrip() for each in others)])


def print_error(reason: str, remedy: str = "") -> None:
    """What went wrong and what to do about it, on standard error."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {block(reason)}", err=True, color=colour())
    if remedy:
        click.echo(f"{click.style('remedy:', bold=True)} {block(remedy)}", err=True, color=colour())


class Console:
    """An observer that tells a person on standard error what is going on.

    On a terminal that takes escape codes the present step is one line that the next step replaces; elsewhere each
    is a line.

    Args:
        quiet: say warnings alone.
        verbose: also show what the programs that run print.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._moving = sys.stderr.isatty() and colour() is None and not quiet and not verbose
        self._status: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._status:
            self._status.stop()

    def step(self, message: str) -> None:
        """See :class:`reprobuild.progress.Observer`."""
        if self._moving:
            from rich.text import Text  # noqa: PLC0415 - slow, and for what takes long alone

            self._show(Text(plain(message)))  # rich would take brackets in a mere str for markup
        elif not self._quiet:
            self._echo(f"  {plain(message)}")

    def _show(self, text: Any) -> None:  # noqa: ANN401 - rich's
        if self._status:
            self._status.update(text)
            return
        from rich.console import Console as Terminal  # noqa: PLC0415 - slow, too

        self._status = Terminal(stderr=True).status(text)
        self._status.start()

    def result(self, text: str, *, err: bool = False) -> None:
        """A line of the result, as soon as it is known: on standard output, or beside the progress."""
        if self._status:
            self._status.stop()  # while it is shown, what is printed goes through it, to standard error
        click.echo(text, err=err, color=colour())
        if self._status:
            self._status.start()

    def line(self, text: str) -> None:
        """See :class:`reprobuild.progress.Observer`."""
        if self._verbose:
            self._echo(f"  | {plain(text.expandtabs())}")

    def warn(self, message: str) -> None:
        """See :class:`reprobuild.progress.Observer`."""
        self._echo(f"{click.style('note:', fg='yellow')} {block(message)}")

    @staticmethod
    def _echo(text: str) -> None:
        click.echo(text, err=True, color=colour())  # in another thread Click knows of no context


def print_json(value: object) -> None:
    """One JSON document on standard output, for machines."""
    click.echo(json.dumps(value, indent=2, sort_keys=True))


def output_options(command: Command) -> Command:
    """--json, --quiet and --verbose."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Show what the build backend and uv print."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, only results and notes."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    ):
        command = option(command)
    return command


def sandbox_option(command: Command) -> Command:
    """--sandbox."""
    return click.option(
        "--sandbox",
        type=click.Choice(["auto", "bubblewrap", "unshare", "plain"]),
        default=None,
        help="How the build is shut in. Default: the project's own setting, else the best that works here.",
    )(command)


def builder_options(command: Command) -> Command:
    """--builder and --network."""
    for option in (
        click.option(
            "--network",
            type=click.Choice(["none", "default", "host"]),
            default="none",
            show_default=True,
            help="What RUN may reach. The record names it.",
        ),
        click.option("--builder", metavar="NAME", default="", help="A builder of buildx. Default: its present one."),
    ):
        command = option(command)
    return command


def limit_options(command: Command) -> Command:
    """--timeout and --memory, for what builds a stranger's code."""
    for option in (
        click.option(
            "--memory",
            type=click.IntRange(64),
            metavar="MIB",
            help="Memory for each build. Default: 3/4 of the machine's, shared by those at once.",
        ),
        click.option(
            "--timeout", type=click.IntRange(1), metavar="SECONDS", help="For each step of a build. Default: 1800."
        ),
    ):
        command = option(command)
    return command


def accept_option(command: Command) -> Command:
    """--accept."""
    return click.option(
        "--accept",
        type=click.Choice([level.value for level in Level if level is not Level.NOT_COMPARABLE]),
        default=Level.IDENTICAL.value,
        show_default=True,
        help="Exit with 0 for this level too.",
    )(command)


FOLDER = click.Path(path_type=Path, file_okay=False)
PATH = click.Path(path_type=Path)
