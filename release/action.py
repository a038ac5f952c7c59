#!/usr/bin/env python3
"""What action.yml runs: `reprobuild verify-wheel` in the workspace; its verdict becomes outputs and the job's summary.

Ends with the exit code of that command. Inputs come as VERIFY_ variables, never as text of a script.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]
LEVELS = ("identical", "container", "metadata", "payload", "not-comparable")


def main(settings: Mapping[str, str]) -> int:
    """Run it; its exit code."""
    workspace = settings.get("GITHUB_WORKSPACE") or "."
    done = subprocess.run(command(settings), cwd=workspace, stdout=subprocess.PIPE, text=True, check=False)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = {}  # it failed before there was a verdict, and has said why on standard error
    found = verdict(said)
    append(settings.get("GITHUB_OUTPUT"), "".join(f"{name}={value}\n" for name, value in found.items()))
    report = "".join(f"- {name}: `{value}`\n" for name, value in found.items())
    append(settings.get("GITHUB_STEP_SUMMARY"), f"### reprobuild verify-wheel\n\n{report}")
    sys.stdout.write(f"{done.stdout}{report}")
    return done.returncode


def command(settings: Mapping[str, str]) -> list[str]:
    """The command line; an input is a value of an option or a plain argument, whatever it starts with."""
    values = {name: settings.get(f"VERIFY_{name.upper()}") for name in ("source", "vary", "accept")}
    options = [f"--{name}={value}" for name, value in values.items() if value]
    wheel = settings.get("VERIFY_WHEEL")
    return [sys.executable, "-m", "reprobuild", "verify-wheel", "--json", *options, *(["--", wheel] if wheel else [])]


def verdict(said: Any) -> dict[str, str]:  # noqa: ANN401 - JSON
    """The level and the wheel's digest; nothing but these forms, as what is written to GITHUB_OUTPUT sets outputs."""
    table = said if isinstance(said, dict) else {}
    left = table.get("left")
    level = str(table.get("level", "not-comparable"))
    digest = str(left.get("digest", "")) if isinstance(left, dict) else ""
    return {
        "level": level if level in LEVELS else "not-comparable",
        "digest": digest if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) else "",
    }


def append(path: str | None, text: str) -> None:
    """Add to a file that the runner reads, where there is one."""
    if path:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(text)


if __name__ == "__main__":
    sys.exit(main(os.environ))
