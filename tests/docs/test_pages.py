"""Every command of the documentation runs, and prints what its page shows.

A page is one session of a shell in a folder of its own. Comments of HTML, which no reader sees, say what isn't plain:

- ``hidden``, commands on the lines that follow: run, but not shown;
- ``file: NAME`` or ``append: NAME``: the next block is (added to) that file;
- ``needs: COMMAND``: the page is skipped where that fails, as for a CUDA toolkit;
- ``not run: REASON``: the next block isn't run. Each has to be in :data:`NOT_RUN` as well.

``sh`` blocks have to succeed. In ``console`` blocks each line after ``$ `` is a command, and what follows it is what it
prints, with ``…`` for anything within a line, and for any lines if it is alone. A command may fail only if ``echo $?``
is the next one. ``diff`` blocks are applied. Progress, which a terminal wipes out again, isn't compared.

:data:`REGISTRY` and :data:`INDEX` stand for servers on loopback; ``reprobuild audit`` asks one with the advisories of
``tests/osv``.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from jsonschema import Draft202012Validator, validators

from reprobuild.cli.app import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.index.server import Index
    from tests.osv.server import Osv

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: A date of TOML is a text to JSON's schemas.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine(
    "string", lambda _, value: isinstance(value, str) or type(value) is date
)
SETTINGS = validators.extend(Draft202012Validator, type_checker=_TYPES)(
    json.loads((DOCS / "schemas" / "tool-reprobuild.schema.json").read_text())
)
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", *sorted(DOCS.glob("**/*.md")), *sorted(ROOT.glob("examples/*/README.md")))
}
#: Blocks that are not run, as page → how many; the page says why beside each. Keep it short.
NOT_RUN = {
    "README.md": 3,
    "docs/apt.md": 1,
    "docs/compiled-wheels.md": 1,
    "docs/evidence.md": 1,
    "docs/images.md": 1,
    "docs/published-wheels.md": 1,
    "docs/release.md": 1,
    "examples/digits/README.md": 2,
}
LONGEST = 900  # seconds that a page may take, so that a hanging one ends
REGISTRY = "registry.example.org"
INDEX = "https://index.example.org/"
PYTHON_BASE = f"{REGISTRY}/base/python:3.11"
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)\s*$")
_COMMENT = re.compile(r"^ *<!-- (?P<text>(?:hidden|needs:|file:|append:|not run:).*?)-->\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block, or the commands of a hidden comment.

    Attributes:
        note: the comment before it, of those that this module knows; empty for none.
    """

    language: str
    text: str
    line: int
    note: str = ""

    @property
    def runs(self) -> bool:
        return self.language in {"sh", "console"} and not self.note


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of a page, in its order."""
    lines = page.read_text().splitlines()
    note, number = "", 0
    while number < len(lines):
        if lines[number].lstrip().startswith("<!-- "):
            end = next(at for at in range(number, len(lines)) if "-->" in lines[at])
            found = _COMMENT.match("\n".join(lines[number : end + 1]))
            text = found["text"].strip() if found else ""
            if text.startswith("hidden"):
                yield Block("sh", text.removeprefix("hidden").strip() + "\n", number + 1)
            elif text.startswith("needs: "):
                yield Block("needs", text.removeprefix("needs: "), number + 1)
            elif text:
                note = text
            number = end
        elif fence := _FENCE.match(lines[number]):
            end = next(at for at in range(number + 1, len(lines)) if lines[at].strip() == fence["fence"])
            body = [line.removeprefix(fence["indent"]) for line in lines[number + 1 : end]]
            yield Block(fence["language"], "\n".join(body) + "\n", number + 1, note)
            note, number = "", end
        number += 1


def steps_of(block: Block) -> Iterator[tuple[str, str | None]]:
    """Each command of a block with what it has to print; None for anything."""
    if block.language == "sh":
        yield block.text, None
        return
    command, shown = "", list[str]()
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, "\n".join(shown)
            command, shown = line.removeprefix("$ "), []
        elif line.startswith("> "):
            command += "\n" + line.removeprefix("> ")
        else:
            shown.append(line)
    yield command, "\n".join(shown)


def shown_by(stdout: str, stderr: str) -> str:
    """What is left to see: results, then notes and errors; a terminal shows progress in one line, and wipes it out."""
    kept = [line for line in stderr.splitlines() if not line.startswith("  ") or line.startswith("  |")]
    return "\n".join(line.rstrip() for line in [*stdout.splitlines(), *kept]).strip("\n")


def fits(expected: str, printed: str) -> bool:
    """Whether a text is the expected one, where ``…`` stands for anything."""
    pattern = ""
    for line in expected.strip("\n").splitlines():
        words = ".*".join(map(re.escape, line.rstrip().split("…")))
        pattern += r"(?:.*\n)*?" if line.strip() == "…" else words + r"\n"
    return re.fullmatch(pattern, printed + "\n" if printed else "") is not None


class Session:
    """A page's shell, as one script that keeps what each command printed and how it ended."""

    def __init__(self, folder: Path, replaced: dict[str, str], variables: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._variables = variables or {}
        self._kept = folder / ".kept"
        self._kept.mkdir()
        self._replaced = replaced
        self._lines: list[str] = []
        self._steps: list[tuple[Block, str, str | None]] = []

    def add(self, block: Block) -> None:
        """Do what a block says."""
        kind, _, name = block.note.partition(": ")
        if kind in {"file", "append"}:
            target = shlex.quote(name)
            body = self._real(block.text)
            self._lines.append(
                f"mkdir -p \"$(dirname {target})\"\ncat {'>' * (1 + (kind == 'append'))}{target} <<'E O F'"
            )
            self._lines.append(f"{body}E O F")
        elif block.language == "diff":
            self._lines.append(f"git apply -p0 - <<'E O F' || exit 1\n{block.text}E O F")
        elif block.runs:
            for command, expected in steps_of(block):
                at = self._kept / str(len(self._steps))
                whole = f"set -e\n{command}\nset +e" if block.language == "sh" else command
                self._lines.append(
                    f"{{ {self._real(whole)}\n}} >{at}.out 2>{at}.err\ncode=$?; echo $code >{at}.code; (exit $code)"
                )
                self._steps.append((block, command, expected))

    def _real(self, text: str) -> str:
        for said, real in self._replaced.items():
            text = text.replace(said, real)
        return text

    def _said(self, text: str) -> str:
        for said, real in self._replaced.items():
            text = text.replace(real, said)
        return text.replace(str(self._folder), "/home/you").replace(os.environ["HOME"], "/home/you")

    def run(self) -> list[str]:
        """Run all of it; what isn't as the page says."""
        script = self._kept / "script"
        script.write_text("\n".join(self._lines) + "\n")
        environment = {
            **os.environ,
            **self._variables,
            "PATH": f"{_tools(self._kept)}:{os.environ['PATH']}",
            "PROJECTS": str(ROOT / "tests" / "projects"),
            "REPOSITORY": str(ROOT),
        }
        subprocess.run(
            ["bash", str(script)],
            cwd=self._folder,
            env=environment,
            timeout=LONGEST,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return list(self._wrong())

    def _wrong(self) -> Iterator[str]:
        for number, (block, command, expected) in enumerate(self._steps):
            at = self._kept / str(number)
            where = f"line {block.line}: $ {command.strip()}"
            code = at.with_suffix(".code")
            printed = shown_by(*(self._said(at.with_suffix(each).read_text()) for each in (".out", ".err")))
            if not code.exists():
                yield f"{where}\nended the page\n{printed}"
                return
            forgiven = number + 1 < len(self._steps) and self._steps[number + 1][1].strip() == "echo $?"
            if code.read_text() != "0\n" and not forgiven:
                yield f"{where}\nended with {code.read_text()}{printed}"
            elif expected is not None and not fits(expected, printed):
                yield f"{where}\nprints\n{printed}\nand the page says\n{expected}"


def _tools(folder: Path) -> Path:
    """A folder with the commands that a reader has installed: these very sources."""
    tools = folder / "bin"
    tools.mkdir()
    program = tools / "reprobuild"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m reprobuild "$@"\n')
    program.chmod(0o755)
    return tools


def _needs(page: Path) -> str:
    return "".join(each.text for each in blocks_of(page) if each.runs or each.note.startswith(("file", "append")))


RUN = [name for name, page in PAGES.items() if any(each.runs for each in blocks_of(page))]


@pytest.mark.network
@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_page_print_what_it_shows(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, bubblewrap: None, compiler: str
) -> None:
    page = PAGES[name]
    replaced: dict[str, str] = {}
    variables: dict[str, str] = {}
    needs = _needs(page)
    if PYTHON_BASE in needs:
        base: Callable[[str], str] = request.getfixturevalue("base_image")
        replaced[PYTHON_BASE] = base("debian").partition("@")[0] + ":latest"
    if REGISTRY in needs:
        replaced[REGISTRY] = f"{request.getfixturevalue('registry')}/test/{uuid.uuid4().hex[:12]}"
    if INDEX in needs:
        index: Index = request.getfixturevalue("index")
        replaced[INDEX] = index.url
        variables |= index.environment
    if "reprobuild audit" in needs:
        osv: Osv = request.getfixturevalue("osv")
        variables["PIP_AUDIT_OSV_URL"] = osv.query_url
    for block in blocks_of(page):
        if block.language == "needs" and subprocess.run(["bash", "-c", block.text], check=False).returncode:
            pytest.skip(f"the page needs a machine where this holds: {block.text}")
    if not compiler:
        pytest.skip("there is no C compiler here, which shows builds another clock")
    session = Session(tmp_path, replaced, variables)
    for block in blocks_of(page):
        session.add(block)
    wrong = session.run()
    assert not wrong, "\n\n".join(wrong)


def test_what_is_not_run_is_a_short_list() -> None:
    found = Counter(
        name for name, page in PAGES.items() for block in blocks_of(page) if block.note.startswith("not run: ")
    )
    assert dict(found) == NOT_RUN
    assert sum(NOT_RUN.values()) < 20
    reasons = [block.note for page in PAGES.values() for block in blocks_of(page) if block.note.startswith("not run")]
    assert all(len(reason.partition(": ")[2]) > 15 for reason in reasons)


# --- what can be read without being run ----------------------------------------------------------------


def options_of(command: click.Command) -> set[str]:
    return {
        name for each in command.params if isinstance(each, click.Option) for name in (*each.opts, *each.secondary_opts)
    }


def misread(words: list[str]) -> str:
    """What is wrong with the arguments of reprobuild; empty for nothing."""
    group: click.Command = cli
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        found = group.get_command(click.Context(group), words[0])
        if found is None:
            return "" if re.fullmatch(r"[A-Z…].*", words[0]) else f"there is no command {words[0]}"
        group, words = found, words[1:]
    known = options_of(group) | {"--help", "-h"}
    unknown = [word for word in words if re.match(r"--?[a-zA-Z]", word) and word.partition("=")[0] not in known]
    return f"{group.name} has no option {unknown[0]}" if unknown else ""


def said_commands(text: str) -> Iterator[list[str]]:
    """The arguments of each ``reprobuild`` in the lines of a shell."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;()<>")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # a quote that goes on in the next line
            words = line.split()
        for at, word in enumerate(words):
            if word.rpartition("/")[2] == "reprobuild" and (
                at == 0 or words[at - 1] in {"&&", "||", ";", "|"} or "=" in words[at - 1]
            ):
                rest = words[at + 1 :]
                stop = next((n for n, each in enumerate(rest) if each[0] in "|&;<>#$"), len(rest))
                yield rest[:stop]


@pytest.mark.parametrize("name", PAGES)
def test_each_command_and_option_exists(name: str) -> None:
    page = PAGES[name]
    wrong = []
    for block in blocks_of(page):
        if block.language in {"sh", "console", "text"}:
            typed = "\n".join(command for command, _ in steps_of(block)) if block.language == "console" else block.text
            wrong += [why for words in said_commands(typed) if (why := misread(words))]
    inline = re.findall(
        r"`reprobuild ([^`]+)`", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    )
    wrong += [why for each in inline if (why := misread(re.split(r"[\s\[\]|=,]+", each.strip("[]"))))]
    assert wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_what_a_block_holds_is_what_it_says(name: str) -> None:
    for block in blocks_of(PAGES[name]):
        where = f"{name}:{block.line}"
        match block.language:
            case "toml":
                _check_toml(tomllib.loads(block.text.replace("=sha256:…", "")), where)
            case "json":
                json.loads(block.text)
            case "python":
                ast.parse(block.text, where)
            case "needs" | "sh" | "console" | "diff" | "dockerfile" | "text" | "yaml" | "":
                pass
            case other:
                pytest.fail(f"{where}: nobody reads a block of {other!r}")


def _check_toml(document: dict[str, Any], where: str) -> None:
    if document.keys() & {"tool", "project", "build-system"}:
        document = document.get("tool", {}).get("reprobuild", {})
    else:  # a policy in a file of its own
        document = {"policy": document}
    errors = SETTINGS.iter_errors(document)
    assert [f"{where}: {error.json_path}: {error.message}" for error in errors] == []


# --- the runner itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```console\n$ echo a b c\na … c\n```\n", ""),
        ("```console\n$ echo a b c\na b d\n```\n", "and the page says"),
        ("```console\n$ printf 'a\\nb\\nc\\n'\na\n…\nc\n```\n", ""),
        ("```console\n$ printf 'a\\nb\\nc\\n'\na\n```\n", "and the page says"),
        ("```console\n$ false\n```\n", "ended with 1"),
        ("```console\n$ false\n$ echo $?\n1\n```\n", ""),
        ("```sh\nfalse\ntrue\n```\n", "ended the page"),
        ("<!-- hidden\nfalse\n-->\n", "ended the page"),
        ("<!-- file: a/b -->\n```text\nwords\n```\n```console\n$ cat a/b\nwords\n```\n", ""),
        ("```sh\ncd /\n```\n```console\n$ pwd\n/\n```\n", ""),
    ],
)
def test_a_page_that_says_something_else_is_found_out(tmp_path: Path, text: str, wrong: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    session = Session(tmp_path, {})
    for block in blocks_of(page):
        session.add(block)
    found = session.run()
    assert bool(found) == bool(wrong)
    assert wrong in "".join(found)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("$ reprobuild wheel --out-dir x", ""),
        ("$ cd x && reprobuild wheel --outdir x", "wheel has no option --outdir"),
        ("$ A=b reprobuild whell", "there is no command whell"),
        ("$ reprobuild keys new --passphrase k", ""),
    ],
)
def test_a_command_that_is_none_is_found_out(line: str, wrong: str) -> None:
    assert [misread(words) for words in said_commands(line)] == [wrong]
