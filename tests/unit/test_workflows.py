"""The workflows: linted as strictly as the linters can, and made of recipes that work by hand."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTION = ROOT / "action.yml"
TOOLS = Path(sys.executable).parent
PINNED = re.compile(r"uses: (?P<action>[\w-]+/[\w-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)$")
#: What each job may write; nothing else is written anywhere.
MAY_WRITE = {
    "release/sign": {"id-token"},
    "release/push": {"packages"},
    "release/vote": {"id-token", "packages"},
    "release/vote-elsewhere": {"id-token", "packages"},
    "vote/vote": {"id-token", "packages"},
    "release/publish": {"id-token", "packages"},
    "release/announce": {"contents"},
    "nightly/alarm": {"issues"},
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@functools.cache
def jobs() -> dict[str, Any]:
    """Every job, by workflow and name."""
    return {f"{path.stem}/{name}": job for path in WORKFLOWS for name, job in read(path)["jobs"].items()}


def steps() -> list[Any]:
    """Every step of every job, and of the action."""
    return [step for job in (*jobs().values(), read(ACTION)["runs"]) for step in job.get("steps", [])]


def recipes() -> set[str]:
    """The names of the justfile's recipes."""
    return set(re.findall(r"^([a-z][a-z-]*)(?: [^:\n]*)?:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE))


def targets() -> set[str]:
    """The targets of Makefile.ci that a person calls, those of releases by their recipes."""
    text = (ROOT / "Makefile.ci").read_text()
    assert re.search(r"^release-%: .*\n\t@just \$@ \$\(ARGS\)$", text, re.MULTILINE)
    plain = set(re.findall(r"^([a-z][a-z-]*):(?!=)", text, re.MULTILINE))
    return plain | {name for name in recipes() if name.startswith("release-")}


@pytest.fixture
def lint(tmp_path: Path) -> Any:
    """Lint a copy of the workflows and the action, after something was changed: what the linters say, or nothing."""
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / ".github", repository / ".github")
    shutil.copy(ACTION, repository)
    (repository / ".git").mkdir()  # where actionlint looks for the root

    def run(name: str = "", old: str = "", new: str = "") -> str:
        if name:
            path = repository / name
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new, 1))
        # The linters' own programs, with shellcheck beside them; without a token zizmor asks nobody.
        env = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        said = []
        for command in (
            ["actionlint", "-no-color", "-shellcheck", TOOLS / "shellcheck"],
            ["zizmor", "--offline", "--no-progress", "--persona=auditor", "."],
        ):
            program = TOOLS / str(command[0])
            done = subprocess.run(
                [program, *command[1:]], cwd=repository, env=env, capture_output=True, text=True, check=False
            )
            said += [done.stdout + done.stderr] if done.returncode else []
        return "\n".join(said)

    return run


def test_the_linters_find_nothing(lint: Any) -> None:
    assert lint() == ""


CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
RELEASE = ".github/workflows/release.yml"


@pytest.mark.parametrize(
    ("name", "old", "new", "finding"),
    [
        (RELEASE, CHECKOUT, "actions/checkout@v7", "unpinned-uses"),
        (RELEASE, "          persist-credentials: false\n", "          fetch-tags: true\n", "artipacked"),
        (RELEASE, "permissions: {}\n", "permissions: write-all\n", "excessive-permissions"),
        (RELEASE, "run: make -f Makefile.ci release-check", "run: echo ${{ github.head_ref }}", "template-injection"),
        (RELEASE, "run: make -f Makefile.ci release-check", "run: echo $GITHUB_REF", "SC2086"),
        (RELEASE, "needs: check", "needs: chekc", "chekc"),
        (RELEASE, "${{ github.ref_name }}", "${{ github.refname }}", "refname"),
        (RELEASE, "cancel-in-progress: false", "cancel: false", "cancel"),
        (".github/workflows/check.yml", "  pull_request:\n", "  pull_request_target:\n", "dangerous-triggers"),
        ("action.yml", "run: make", "run: echo ${{ inputs.wheel }} && make", "template-injection"),
    ],
)
def test_a_fault_is_found(lint: Any, name: str, old: str, new: str, finding: str) -> None:
    assert finding in lint(name, old, new)


def test_each_step_is_a_recipe_that_exists_and_no_text_from_outside() -> None:
    commands = [step["run"] for step in steps() if "run" in step]
    assert len(commands) > 20
    called = set()
    for command in commands:
        found = re.fullmatch(
            r'make (?:--no-print-directory -C "\$GITHUB_ACTION_PATH" )?-f Makefile\.ci ([a-z-]+)(?: ARGS="[a-z ]+")?',
            command,
        )
        assert found, command
        called.add(found[1])
    assert called <= targets()
    # Nothing of the release is left to people but what is for people.
    by_hand = {"release-dry-run", "release-notes", "release-again"}
    assert {name for name in recipes() if name.startswith("release-")} - called == by_hand


def test_each_action_is_pinned_to_one_commit_whose_version_stands_beside_it() -> None:
    used: dict[str, set[tuple[str, str]]] = {}
    for path in (*WORKFLOWS, ACTION):
        for line in path.read_text().splitlines():
            if "uses:" in line and "uses: $/" not in line:
                found = PINNED.search(line)
                assert found, line
                used.setdefault(found["action"], set()).add((found["commit"], found["version"]))
    assert set(used) <= {
        f"actions/{name}" for name in ("checkout", "setup-python", "upload-artifact", "download-artifact")
    }
    assert all(len(pins) == 1 for pins in used.values()), used


def test_each_job_may_do_what_it_has_to_and_no_more() -> None:
    for path in WORKFLOWS:
        workflow = read(path)
        assert workflow["permissions"] == {}, path.name
        assert "concurrency" in workflow or path.name == "vote.yml"  # which others call
    for name, job in jobs().items():
        assert {key for key, value in job["permissions"].items() if value == "write"} == MAY_WRITE.get(name, set()), (
            name
        )
        assert "uses" in job or 0 < job["timeout-minutes"] <= 90, name
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name
            assert "secrets" not in str(step), name


def before(name: str) -> set[str]:
    """The jobs of a release that have to be through before one begins."""
    needs = jobs()[f"release/{name}"].get("needs", [])
    direct = {needs} if isinstance(needs, str) else set(needs)
    return direct.union(*map(before, direct))


def test_nothing_is_published_before_everything_is_verified() -> None:
    assert before("verify") == {"check", "build", "compare", "images", "sign", "push", "vote", "vote-elsewhere"}
    assert before("publish") == before("verify") | {"verify"}
    assert before("announce") == before("publish") | {"publish", "try"}
    runs = {name: [step.get("run", "") for step in job.get("steps", [])] for name, job in jobs().items()}
    publishing = [name for name, commands in runs.items() if any("release-publish" in each for each in commands)]
    assert publishing == ["release/publish"]


def test_who_votes_is_another_workflow_on_another_machine() -> None:
    assert jobs()["release/vote-elsewhere"]["uses"] == "$/.github/workflows/vote.yml"
    builders = jobs()["release/build"]["strategy"]["matrix"]["runner"]
    assert len(set(builders)) == 2
    assert {jobs()["release/vote"]["runs-on"], jobs()["vote/vote"]["runs-on"]} == set(builders)
