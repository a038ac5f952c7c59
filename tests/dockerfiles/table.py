#!/usr/bin/env python3
"""Writes the generated part of docs/dockerfile-causes.md: each cause, and what finds it.

    table.py                    write it; a test compares it with the rules and with what the assembler does
    table.py corpus FOLDER...   lint up to eight Dockerfiles of each folder, and count

What a comparison names is what tests/integration/test_lint.py holds against real builds.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprobuild.errors import BadInput, LockStale
from reprobuild.image import dockerfile
from reprobuild.image.lint import lint
from reprobuild.image.lint.rules import RULES, Rule
from reprobuild.image.resolve import resolve
from reprobuild.oci.model import ImageConfig, Platform

if TYPE_CHECKING:
    from reprobuild.image.stages import BaseImage

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "dockerfile-causes.md"
MARKS = "<!-- written by tests/dockerfiles/table.py -->\n", "<!-- as far as here -->\n"
_BASE = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'
_SAMPLE = 8


def main() -> int:
    """Do what the command line says."""
    if sys.argv[1:2] == ["corpus"]:
        sys.stdout.write(counted([Path(each) for each in sys.argv[2:]]))
        return 0
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(placed(text), encoding="utf-8")
    return 0


def placed(text: str) -> str:
    """The page with its generated part written anew."""
    before, _, rest = text.partition(MARKS[0])
    return before + MARKS[0] + generated() + MARKS[1] + rest.partition(MARKS[1])[2]


def generated() -> str:
    """The table, and a section for each rule."""
    lab = load_lab()
    rows = ["", "| cause | assembler | linter | what two images differ in |", "|---|---|---|---|"]
    sections = []
    for case in sorted(lab.cases(), key=lambda case: list(RULES).index(case.rule)):
        rule = RULES[case.rule]
        differs = f"`{case.differs}`" if case.differs else "not shown"
        rows.append(f"| [`{case.rule}`](#{case.rule}) | {assembled(case.folder)} | {linted(case)} | {differs} |")
        sections.append(section(rule, case))
    return "\n".join([*rows, "", *sections]) + "\n"


def section(rule: Rule, case: Any) -> str:
    """What is known of a rule."""
    lines = [f"### {rule.name}", "", f"{rule.why} {rule.remedy}", ""]
    lines += [f"*No build shows it:* {case.unshown}", ""] if case.unshown else []
    lines += [f"*A stand-in:* {case.note}", ""] if case.note else []
    return "\n".join(lines)


def assembled(folder: Path) -> str:
    """What `reprobuild image` makes of the defect, without building: a refusal, or nothing to refuse."""
    try:
        resolve(dockerfile.read(folder / "bad" / "Dockerfile"), _config, platform=Platform("linux", "amd64"), epoch=0)
    except LockStale:
        return "refuses: no digest"
    except BadInput as error:
        return "refuses: " + ("RUN" if ": RUN " in error.reason else "ADD of an address")
    return "immune"


def _config(_: BaseImage) -> ImageConfig:
    return ImageConfig.read(_BASE, "the base")


def linted(case: Any) -> str:
    """Whether the linter finds the defect, and nothing where the remedy is."""
    with tempfile.TemporaryDirectory() as scratch:
        found = {}
        for kind in ("bad", "good"):
            folder = Path(scratch, kind)
            shutil.copytree(case.folder / kind, folder)
            if case.rule == "copy-git":  # it is about a clone
                subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
            found[kind] = {each.rule.name for each in lint(folder / "Dockerfile").findings}
    return "finds it" if case.rule in found["bad"] and not found["good"] else "misses it"


def counted(folders: list[Path]) -> str:
    """What the linter says of other people's Dockerfiles: how many findings of each rule, and in how many files."""
    rules: Counter[str] = Counter()
    files = refused = clean = 0
    for folder in folders:
        for path in sample(folder):
            files += 1
            try:
                found = lint(path).findings
            except BadInput:
                refused += 1
                continue
            clean += not found
            rules.update(each.rule.name for each in found)
    lines = [f"{files} files, {refused} refused, {clean} without a finding, {rules.total()} findings"]
    return "\n".join([*lines, *(f"{count:5} {name}" for name, count in rules.most_common())]) + "\n"


def sample(folder: Path) -> list[Path]:
    """Up to eight Dockerfiles, evenly spread over the sorted paths; templates and links left out."""
    named = re.compile(r"Dockerfile.*|.*\.dockerfile", re.IGNORECASE)
    found = sorted(
        path
        for path in folder.rglob("*")
        if named.fullmatch(path.name)
        and not re.search(r"template|dockerignore", path.name)
        and path.is_file()
        and not path.is_symlink()
    )
    return found[:: max(1, -(-len(found) // _SAMPLE))][:_SAMPLE]


def load_lab() -> Any:
    """The module beside this one, which is in no package."""
    specification = importlib.util.spec_from_file_location("dockerfiles_lab", HERE / "lab.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # its dataclasses look themselves up there
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
