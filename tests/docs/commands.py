#!/usr/bin/env python3
"""Writes docs/commands.md: each command's help, options, examples and exit codes, as Click has them.

A test compares it with the commands. The exit codes are those of :data:`ENDS`, which no parser knows; the fixture
``reprobuild`` of all tests refuses a code that the page doesn't name for its command.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reprobuild.cli.app import cli
from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
#: What every command can end with.
ALWAYS = (0, 1, 2, 13, 130)
_BUILD = (3, 4, 5, 6, 7, 8, 9, 10, 12)
_VERDICT = (20, 21, 22, 23)
#: What else each can end with.
ENDS: dict[str, tuple[int, ...]] = {
    "lock": (3, 4, 6, 7, 8, 9, 10, 12, 14),
    "wheel": _BUILD,
    "sdist": _BUILD,
    "verify-wheel": (*_BUILD, 11, 15, *_VERDICT),
    "verify-sdist": (*_BUILD, 11, 15, *_VERDICT),
    "verify-wheels": (3, 4, 7, 9, 10, 12, *_VERDICT),
    "image": (*_BUILD, 14),
    "verify-image": (*_BUILD, 11, 14, 15, *_VERDICT),
    "lint": (3, 24),
    "audit": (3, 4, 5, 8, 9, 11, 14, 15, 26, 27),
    "sbom": (3, 4, 9, 10, 11, 14, 15),
    "keys new": (3, 15),
    "keys show": (3,),
    "sign": (3, 4, 9, 11, 14, 15),
    "verify": (3, 4, 9, 14, 25),
    "push": (3, 9, 14),
    "pull-evidence": (3, 9, 14),
    "publish": (*_BUILD, 28, 29),
    "diff": (3, 9, 14, *_VERDICT),
    "doctor": (),
}
_INTRODUCTION = """# Commands

All that `reprobuild --help` and `reprobuild COMMAND --help` say. Written by `tests/docs/commands.py`; a test
compares it with the commands. Exit codes that every command has are {always}; [what each means](exit-codes.md).
"""


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Each command that does something, with its name as it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def page() -> str:
    """The page's text."""
    parts = [_INTRODUCTION.format(always=_codes(ALWAYS))]
    found = dict(commands(cli))
    if strange := found.keys() ^ ENDS.keys():
        raise SystemExit(f"ENDS in {__file__} and the commands don't agree on: {', '.join(sorted(strange))}")
    parts += [_section(name, command) for name, command in found.items()]
    return "\n".join(parts)


def _codes(codes: tuple[int, ...]) -> str:
    return ", ".join(f"{code} `{ExitCode(code).name}`" for code in sorted(codes))


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"reprobuild {name}")
    lines = [f"## reprobuild {name}", "", *_paragraphs(command.help or ""), "```text"]
    lines += [f"reprobuild {name} {' '.join(command.collect_usage_pieces(context))}", "```", ""]
    for each in command.get_params(context):
        record = each.get_help_record(context)
        # A command that ran before, in the same process, has kept `-h, --help`.
        if record and record[1] and "--help" not in each.opts:
            lines.append(f"- `{record[0]}`: {' '.join(record[1].split())}")
    for block in re.split(r"\x08\n|\b\n(?=Examples)", command.epilog or ""):
        if block.strip():
            lines += ["", *_epilog(inspect.cleandoc(block))]
    lines += ["", f"Exit codes besides: {_codes(ENDS[name]) or 'none'}.", ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield from ("```text", *paragraph.splitlines()[1:], "```", "")
        else:
            yield from (_escaped(" ".join(paragraph.split())), "")


def _escaped(text: str) -> str:
    """Text in which Markdown sees no emphasis and no tag."""
    return re.sub(r"([*<_])", r"\\\1", text)


def _epilog(block: str) -> list[str]:
    title, _, body = block.partition("\n")
    return [title, "", "```text", inspect.cleandoc(body), "```"] if body else [_escaped(title)]


if __name__ == "__main__":
    PAGE.write_text(page())
