"""The command line. Its help is the only thing here that loads no library at all."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and leave with its exit code.

    The top-level help is kept as text (a test holds it equal to what Click would say), because importing
    Click alone takes several times as long as starting Python.
    """
    if sys.argv[1:] in (["--help"], ["-h"]) and _is_wide() and "_REPROBUILD_COMPLETE" not in os.environ:
        with open(os.path.join(os.path.dirname(__file__), "help.txt"), encoding="utf-8") as text:  # noqa: PTH118, PTH120, PTH123
            _write(text.read())
        sys.exit(0)
    try:
        from reprobuild.cli.app import run  # noqa: PLC0415 - the reason for this module
    except KeyboardInterrupt:  # before there was anybody to take it
        sys.stderr.write("error: interrupted; nothing was left half-written\n")
        sys.exit(130)
    run()


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_wide() -> bool:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns >= 80
    except (OSError, ValueError):
        return "COLUMNS" not in os.environ
