"""The command line: each command parses, calls one function of the library, and renders.

This is the only place where an error becomes an exit code.
"""

import io
import os
import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO

import click

from reprobuild import __version__
from reprobuild.cli.console import colour, print_error
from reprobuild.errors import ExitCode, ReprobuildError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Command name → (module below reprobuild.cli, attribute, one line of help). Modules load when they are used.
_COMMANDS = {
    "lock": ("lock", "lock", "Write the locks: exact, hashed, without URLs."),
    "wheel": ("wheel", "wheel", "Build the project's wheel from its commit and its lock."),
    "verify-wheel": ("verify_wheel", "verify_wheel", "Make a wheel again elsewhere and compare the raw bytes."),
    "verify-wheels": ("verify_wheels", "verify_wheels", "Make every wheel that a lock pins again, and compare."),
    "sdist": ("sdist", "sdist", "Build the project's sdist from its commit and its lock."),
    "verify-sdist": ("sdist", "verify_sdist", "Make an sdist again elsewhere and compare the raw bytes."),
    "publish": ("publish", "publish", "Upload wheels and sdists that are verified to a package index."),
    "image": ("image", "image", "Build an image from its Dockerfile and its lock."),
    "verify-image": ("verify_image", "verify_image", "Make an image again elsewhere and compare the raw bytes."),
    "lint": ("lint", "lint", "Look in Dockerfiles for what makes images differ from build to build."),
    "audit": ("audit", "audit", "Ask for known vulnerabilities of locks or artifacts."),
    "keys": ("keys", "keys", "Make local signing keys, and look at them."),
    "sbom": ("sbom", "sbom", "Write the bill of materials of a lock or an artifact."),
    "sign": ("sign", "sign", "Sign the record of a wheel, another file or an image."),
    "verify": ("verify", "verify", "Check the signed statements about an artifact against a policy."),
    "push": ("push", "push", "Push an image that was built before, with all that lies beside it."),
    "pull-evidence": ("push", "pull_evidence", "List and fetch the signed statements beside an image."),
    "diff": ("diff", "diff", "Compare two wheels, archives or files, and name what differs."),
    "doctor": ("doctor", "doctor", "Say what this machine has, and what each missing thing costs."),
}

_EPILOG = """\b
Examples:
  reprobuild lock                 write constraints.txt and requirements.txt
  reprobuild wheel                build dist/*.whl and its record
  reprobuild verify-wheel         make it again elsewhere, compare raw bytes
  reprobuild image training       build images/training/Dockerfile
  reprobuild diff old.whl new.whl

Exit codes are listed in docs/exit-codes.md. Shell completion: put
`eval "$(_REPROBUILD_COMPLETE=bash_source reprobuild)"` into ~/.bashrc (zsh_source, fish_source likewise)."""


_INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds for cleaning up, after which one more of them ends the program.
_PATIENCE = 10


class _Lazy(click.Group):
    """A group whose commands are imported when one is called, so that --help stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        from importlib import import_module  # noqa: PLC0415 - part of the laziness

        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"reprobuild.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 - only after a typing mistake

            near = get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.group(cls=_Lazy, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="reprobuild %(version)s")
def cli() -> None:
    """Make wheels and images twice and compare the raw bytes.

    An artifact is a function of its locked inputs: one command makes it and writes down every input by
    digest, another makes it again somewhere else and compares.
    """


def run() -> NoReturn:
    """Run the command line and leave with its exit code."""
    _Interruptions().take()
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    streams = sys.stdout, sys.stderr
    try:
        code = cli.main(standalone_mode=False, color=colour())
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except SystemExit as stop:
        code = stop.code
        if sys.stdout is not streams[0]:  # Click takes any broken pipe for that of a reader who went away
            sys.stdout, sys.stderr = streams
            print_error("A pipe or a connection broke off.", "Try again.")
            code = ExitCode.WRITE_FAILED
    except (KeyboardInterrupt, click.Abort):
        _Interruptions.end()
        print_error("interrupted; nothing was left half-written")
        code = ExitCode.INTERRUPTED
    except ReprobuildError as error:
        print_error(error.reason, error.remedy)
        _tell_machines(error)
        code = error.exit_code
    except OSError as error:
        print_error(
            f"{error.filename or 'A file'}: {error.strerror or error}.", "Free space or permissions may be missing."
        )
        code = ExitCode.WRITE_FAILED
    except Exception as error:
        if os.environ.get("REPROBUILD_TRACEBACK"):
            raise
        print_error(
            f"a defect in reprobuild: {type(error).__name__}: {error}",
            "Please report it, with what REPROBUILD_TRACEBACK=1 shows.",
        )
        code = ExitCode.INTERNAL
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


class _Lasting(io.FileIO):
    """A standard stream that drops what nobody reads any more: the work, its files and its exit code go on without.

    Any other failure, such as a full disk, is raised; once, so that leaving can't fail on it again.
    """

    _lost = False

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return memoryview(data).nbytes if self._lost else super().write(data)
        except OSError as error:
            self._lost = True
            if isinstance(error, BrokenPipeError):
                return memoryview(data).nbytes
            raise


def _lasting(stream: TextIO) -> TextIO:
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # it was closed before we started, or is no file at all
        return stream
    stream.flush()
    lines = stream.isatty() or stream is sys.stderr
    raw = io.BufferedWriter(_Lasting(number, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=stream.errors, line_buffering=lines)


class _Interruptions:
    """What Ctrl-C and its like do: the first begins the cleaning up, which those that follow soon don't break off.

    The first may arrive in a callback of Python's own, which drops every exception: it is raised again then. Should the
    cleaning up itself never end, a later one ends the program at once.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._unraisable = sys.unraisablehook

    def take(self) -> None:
        """Be what is asked when a signal arrives."""
        for number in _INTERRUPTING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and shells for what runs in their background
                signal.signal(number, self._arrive)
        sys.unraisablehook = self._dropped

    @staticmethod
    def end() -> None:
        """Let nothing break off what is left to do: Python's own leaving."""
        for number in _INTERRUPTING:
            signal.signal(number, signal.SIG_IGN)

    def _arrive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        if not self._since:
            self._since = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self._since > _PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _dropped(self, what: "sys.UnraisableHookArgs") -> None:
        if self._since and issubclass(what.exc_type, KeyboardInterrupt):
            self._since = 0.0
            signal.signal(signal.SIGALRM, self._arrive)
            signal.setitimer(signal.ITIMER_REAL, 0.01)  # not here: what is raised here would be dropped, too
        else:
            self._unraisable(what)


def _tell_machines(error: ReprobuildError) -> None:
    """Where JSON was asked for, an error is JSON too, beside the words on standard error."""
    if "--json" in sys.argv:
        from reprobuild.cli.console import print_json  # noqa: PLC0415 - only after an error

        name = error.exit_code.name
        print_json({"error": name, "exitCode": error.exit_code, "reason": error.reason, "remedy": error.remedy})
