"""action.yml and the job of docs/release.md for GitLab, step by step as a runner runs them, on another project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import Cli, Git, Projects

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a runner has of this repository: its files, without anything that was built."""
    folder = tmp_path_factory.mktemp("action") / "reprobuild"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


class Runner:
    """A runner of composite actions: inputs by name, expressions in `env` and `outputs` alone, one bash a step."""

    def __init__(self, action: Path, workspace: Path) -> None:
        self.action, self.workspace = action, workspace
        self.description = yaml.safe_load((action / "action.yml").read_text())

    def __call__(self, **inputs: str) -> tuple[int, dict[str, str], str]:
        """The exit code, the outputs, and what was printed."""
        assert set(inputs) <= set(self.description["inputs"])
        values = {name: inputs.get(name, each["default"]) for name, each in self.description["inputs"].items()}
        known = {f"inputs.{name}": value for name, value in values.items()}
        code, said = 0, ""
        for step in self.description["runs"]["steps"]:
            assert "${{" not in step["run"]
            found, code, printed = self.step(step, known)
            known |= {f"steps.{step['id']}.outputs.{name}": value for name, value in found.items()}
            said += printed
            if code:
                break
        outputs = {name: expanded(each["value"], known) for name, each in self.description["outputs"].items()}
        return code, outputs, said

    def step(self, step: Mapping[str, Any], known: Mapping[str, str]) -> tuple[dict[str, str], int, str]:
        """One step: its outputs, its exit code, what it printed."""
        assert step["shell"] == "bash"
        out, summary = self.workspace.parent / "output", self.workspace.parent / "summary"
        out.write_text("")
        env = {
            **os.environ,
            **{name: expanded(text, known) for name, text in step.get("env", {}).items()},
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_OUTPUT": str(out),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(bash, cwd=self.workspace, env=env, capture_output=True, text=True, check=False)
        found = dict(line.partition("=")[::2] for line in out.read_text().splitlines())
        return found, done.returncode, done.stdout + done.stderr


def expanded(text: str, known: Mapping[str, str]) -> str:
    """A text with its expressions replaced, which have to be known."""
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: known.get(found[1], ""), text)


@pytest.fixture
def locked(project: Projects) -> Path:
    """A project with a lock and a commit."""
    return project("with-hatchling")


def test_the_action_makes_a_wheel_again_and_says_what_came_out(
    clone: Path, locked: Path, reprobuild: Cli, tmp_path: Path
) -> None:
    reprobuild("wheel", locked)
    (wheel,) = (locked / "dist").glob("*.whl")
    runner = Runner(clone, locked)
    code, outputs, said = runner()
    assert (code, outputs["level"]) == (0, "identical"), said
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", outputs["digest"])
    assert outputs["digest"] in (locked.parent / "summary").read_text()
    code, again, said = runner(wheel=f"dist/{wheel.name}", vary="path,umask")
    assert (code, again) == (0, outputs), said
    # What comes as an input stays one argument.
    planted = tmp_path / "planted"
    for hostile in (f"$(touch {planted})", f"; touch {planted}", "--version", "dist/*.whl\nlevel=identical"):
        code, outputs, said = runner(wheel=hostile)
        assert code, said
        assert outputs == {"level": "not-comparable", "digest": ""}
    assert not planted.exists()
    assert runner(vary="nothing-known")[0] != 0
    # Another file of the same name, and the level that is good enough.
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("extra.py", "")
    code, outputs, said = runner()
    assert code, said
    assert outputs["level"] != "identical"


def test_a_job_of_gitlab_does_the_same(clone: Path, locked: Path, git: Git, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "release.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page.split("## On GitLab")[1], re.MULTILINE | re.DOTALL)
    job = yaml.safe_load(block)["verify-wheel"]
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "Start")
    git(clone, "tag", job["variables"]["REPROBUILD_VERSION"])
    env = {
        **os.environ,
        **job["variables"],
        "REPROBUILD_URL": f"file://{clone}",
        "REPROBUILD_FOLDER": str(tmp_path / "there"),
    }
    script = "\n".join(job["script"])
    bash = ["bash", "-eo", "pipefail", "-c", script]
    done = subprocess.run(bash, cwd=locked, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical: the two have the same bytes" in done.stdout
    kept = [each for pattern in job["artifacts"]["paths"] for each in locked.glob(pattern)]
    assert {each.suffix for each in kept} == {".whl", ".json"}
