"""What the documentation says is compared with what it speaks of."""

import importlib.util
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from reprobuild.causes import CAUSES
from reprobuild.cli.app import cli
from reprobuild.errors import EXIT_CODE_MEANINGS, ExitCode
from reprobuild.variations import USUAL_NAMES, VARIATIONS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/README.md"),
        ROOT / "benchmarks" / "README.md",
    ]
)
SETUP_COMMANDS = ["make -f Makefile.ci package", "make -f Makefile.ci test"]


def table_rows(page: Path) -> list[list[str]]:
    """The cells of every table row of a page, headings and rules left out."""
    tables = re.findall(r"^\|.*\n\|[-:|]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    rows = [row.strip("|").split("|") for table in tables for row in table.splitlines()]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_first_page_names_every_page_of_the_navigation() -> None:
    """Readers of the repository's host see README.md, which has no navigation; folders have pages that list them."""
    folder = ROOT / "docs"
    listed = re.findall(r"^   ([\w-]+)$", (folder / "index.rst").read_text(), re.MULTILINE)
    assert "tutorial" in listed
    said = (folder / "README.md").read_text()
    assert [name for name in listed if f"({name}.md)" not in said] == []


def test_exit_codes_page_is_the_table_in_the_code() -> None:
    assert table_rows(ROOT / "docs" / "exit-codes.md") == [
        [str(int(code)), f"`{code.name}`", meaning] for code, meaning in EXIT_CODE_MEANINGS.items()
    ]


def test_causes_page_is_the_table_in_the_code() -> None:
    assert table_rows(ROOT / "docs" / "causes.md") == [
        [f"[`{cause.name}`](how-to/causes/{cause.name}.md)", cause.summary, cause.remedy] for cause in CAUSES.values()
    ]


def test_every_cause_has_a_page_of_its_own() -> None:
    """How to recognise it, in the words of the program; why it happens; how to mend it, and how to check that."""
    folder = ROOT / "docs" / "how-to" / "causes"
    assert {path.stem for path in folder.glob("*.md")} == set(CAUSES)
    for cause in CAUSES.values():
        parts = re.split(r"^## (.*)\n", (folder / f"{cause.name}.md").read_text(), flags=re.MULTILINE)
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        assert list(sections) == ["Recognise it", "Why it happens", "Mend it", "Check"], cause.name
        assert parts[0].startswith(f"# `{cause.name}`: "), cause.name
        assert cause.summary in parts[0], cause.name
        assert re.search(rf"\b{cause.name}: |\[{cause.name}\]", sections["Recognise it"], re.MULTILINE), cause.name
        assert cause.remedy in sections["Mend it"], cause.name
        assert "$ reprobuild " in sections["Check"], cause.name


def test_commands_page_is_what_click_says() -> None:
    spec = importlib.util.spec_from_file_location("docs_commands", ROOT / "tests" / "docs" / "commands.py")
    assert spec
    assert spec.loader
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    CliRunner().invoke(cli, ["sbom", "--lock", "x", "--project", "/nowhere"])  # whatever ran before changes nothing
    assert generator.page() == (ROOT / "docs" / "commands.md").read_text(), "run tests/docs/commands.py"


def test_top_level_help_is_what_click_says() -> None:
    kept = (ROOT / "src" / "reprobuild" / "cli" / "help.txt").read_text()
    assert CliRunner().invoke(cli, ["--help"], prog_name="reprobuild").output == kept


def test_every_exit_code_has_a_meaning() -> None:
    assert list(EXIT_CODE_MEANINGS) == list(ExitCode)


def test_readme_gives_each_verdict_its_exit_code() -> None:
    rows = [row for row in table_rows(ROOT / "README.md") if len(row) == 3]
    assert [(row[0].strip("`"), int(row[2])) for row in rows] == [
        ("identical", ExitCode.OK),
        ("container", ExitCode.DIFFERS_CONTAINER),
        ("metadata", ExitCode.DIFFERS_METADATA),
        ("payload", ExitCode.DIFFERS_PAYLOAD),
        ("not-comparable", ExitCode.NOT_COMPARABLE),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    relative = [target.partition("#")[0] for target in targets if "://" not in target]
    missing = [target for target in relative if target and not (page.parent / target).exists()]
    assert missing == []


def anchors_of(page: Path) -> set[str]:
    """What the headings of a page can be linked by: lower case, without punctuation, spaces as hyphens."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", each) for each in headings)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_are_headings(page: Path) -> None:
    """Of the pages outside of docs/ too, which Sphinx never sees."""
    links = re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", page.read_text())
    targets = [((page.parent / path) if path else page, anchor) for path, anchor in links if "://" not in path]
    assert [(str(to), anchor) for to, anchor in targets if anchor not in anchors_of(to)] == []


def test_the_pages_are_found_and_linked() -> None:
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
        if "://" not in target
    }
    names = ("CONTRIBUTING.md", "SECURITY.md", "docs/exit-codes.md")
    assert linked >= {ROOT / name for name in names}


def test_readme_has_exactly_the_two_setup_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    setup = [block.splitlines() for block in blocks if "Makefile.ci" in block]
    assert setup == [SETUP_COMMANDS]


def test_setup_commands_are_targets_and_ci_runs_one() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile.ci").read_text(), re.MULTILINE))
    assert {command.split()[-1] for command in SETUP_COMMANDS} <= targets
    script = ROOT / ".ci" / "run"
    assert SETUP_COMMANDS[1] in script.read_text()
    assert os.access(script, os.X_OK)


def test_variations_page_is_the_table_in_the_code() -> None:
    rows = table_rows(ROOT / "docs" / "variations.md")
    assert [(row[0], row[3]) for row in rows] == [(f"`{name}`", f"`{each.cause}`") for name, each in VARIATIONS.items()]


def test_readme_shows_what_is_varied() -> None:
    assert f"\nvaried: {', '.join(USUAL_NAMES)}\n" in (ROOT / "README.md").read_text()
