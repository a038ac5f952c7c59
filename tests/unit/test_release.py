"""The steps of a release, apart from what they call; and what the rehearsal takes for the same."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild.errors import BadInput
from reprobuild.policy import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Git

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0" * 64
TITLE = "The last release can't be made again"


@pytest.fixture(scope="module")
def steps() -> Any:
    """release/steps.py."""
    spec = importlib.util.spec_from_file_location("release_steps", ROOT / "release" / "steps.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its data classes look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with an image, and what was built of it."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "demo"\nversion = "1.2"\n[tool.reprobuild.images.a]\n[tool.reprobuild.images.b]\n'
    )
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## [1.2]\n\n- New.\n\n## [1.1]\n\n- Old.\n")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "demo-1.2-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "dist" / "demo-1.2.tar.gz").write_bytes(b"sdist")
    return tmp_path


@pytest.fixture
def calls(steps: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Record the programs that are called; answers, and what fails, by a word of the command."""

    def record(answers: dict[str, str] | None = None, fails: str = "") -> list[list[str]]:
        seen: list[list[str]] = []

        def call(command: list[str], _folder: Path, *, read: bool = False, text: str | None = None) -> str:
            seen.append([*command[3:]] if command[1:3] == ["-m", "reprobuild"] else [*command])
            if fails and fails in seen[-1]:
                raise steps.Stopped("planted", 25)
            return next((answer for word, answer in (answers or {}).items() if word in seen[-1]), "") if read else ""

        monkeypatch.setattr(steps, "call", call)
        return seen

    return record


def test_two_machines_with_the_same_files_compare_equal(steps: Any, folder: Path, capsys: Any) -> None:
    shutil.copytree(folder / "dist", folder / "other")
    release = steps.Release(folder, {})
    steps.compare(release, str(folder / "dist"), str(folder / "other"))
    assert capsys.readouterr().out.count("identical on both machines") == 2


def test_two_machines_with_other_files_do_not(steps: Any, folder: Path, calls: Any) -> None:
    shutil.copytree(folder / "dist", folder / "other")
    release = steps.Release(folder, {})
    (folder / "other" / "demo-1.2.tar.gz").write_bytes(b"another")
    seen = calls(fails="diff")
    with pytest.raises(steps.Stopped):
        steps.compare(release, str(folder / "dist"), str(folder / "other"))
    assert seen == [["diff", str(folder / "dist/demo-1.2.tar.gz"), str(folder / "other/demo-1.2.tar.gz")]]
    # Even if the comparison itself found no fault in it.
    calls()
    with pytest.raises(steps.Stopped, match="differ"):
        steps.compare(release, str(folder / "dist"), str(folder / "other"))


@pytest.mark.parametrize("missing", ["dist", "other"])
def test_two_machines_without_the_same_names_do_not(steps: Any, folder: Path, missing: str) -> None:
    shutil.copytree(folder / "dist", folder / "other")
    for path in (folder / missing).glob("*.whl"):
        path.unlink()
    with pytest.raises(steps.Stopped, match="holds"):
        steps.compare(steps.Release(folder, {}), str(folder / "dist"), str(folder / "other"))
    for name in ("dist", "other"):
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
    with pytest.raises(steps.Stopped, match="holds"):  # nothing equals nothing
        steps.compare(steps.Release(folder, {}), str(folder / "dist"), str(folder / "other"))


def test_the_policies_are_policies(steps: Any, tmp_path: Path) -> None:
    for strict in (False, True):
        table = tomllib.loads(steps.policy_text("acme/demo", "v1.2", strict=strict))
        policy = read(table, "the policy", tmp_path)
        assert policy.rebuilds == 2
        assert policy.distinct
        assert policy.audit is None or policy.audit.max_age == timedelta(days=2)
        assert (policy.audit is not None, "https://cyclonedx.org/bom" in policy.predicates) == (strict, strict)
        issuer, repository = "https://token.actions.githubusercontent.com", "https://github.com/acme/demo"
        for workflow in ("release.yml", "vote.yml"):
            subject = f"{repository}/.github/workflows/{workflow}@refs/tags/v1.2"
            assert sum(each.admits(subject, issuer, repository) for each in policy.identities) == 1
            assert not any(
                each.admits(subject, issuer, "https://github.com/mallory/demo") for each in policy.identities
            )
            assert not any(each.admits(subject[:-1] + "3", issuer, repository) for each in policy.identities)


@pytest.mark.parametrize("repository", ["", "demo", 'a/b"\nrebuilds = 0 #', "*/demo", "a/b/c"])
def test_a_repository_is_a_name(steps: Any, folder: Path, repository: str) -> None:
    with pytest.raises(steps.Stopped):
        steps.policy(steps.Release(folder, {"RELEASE_REPOSITORY": repository}))
    assert not list((folder / "dist").glob("*.toml"))


def test_a_list_of_workflows_is_not_empty() -> None:
    with pytest.raises(BadInput, match="github is empty"):
        read({"github": []}, "the policy", ROOT)


def test_a_release_starts_with_fresh_locks_and_an_audit(steps: Any, folder: Path, calls: Any) -> None:
    seen = calls()
    steps.check(steps.Release(folder, {"RELEASE_TAG": "v1.2", "RELEASE_OSV": "http://127.0.0.1/v1/query"}))
    assert [each[:2] for each in seen] == [["lock", "--check"], ["audit", "--vulnerability-service"]]
    for fails in ("lock", "audit"):
        calls(fails=fails)
        with pytest.raises(steps.Stopped, match="planted"):
            steps.check(steps.Release(folder, {}))


def test_all_is_made_twice(steps: Any, folder: Path, calls: Any) -> None:
    seen = calls()
    release = steps.Release(folder, {})
    for step in (steps.wheel, steps.sdist, steps.images):
        step(release)
    assert [each[0] for each in seen] == [
        *("wheel", "verify-wheel", "sdist", "verify-sdist", "image", "verify-image", "image", "verify-image")
    ]
    assert [each[-1] for each in seen if each[0] == "verify-image"] == ["--cross-engine"] * 2
    seen.clear()
    steps.images(steps.Release(folder, {"RELEASE_ENGINES": "one"}))
    assert not [each for each in seen if "--cross-engine" in each]


def test_nothing_is_released_without_an_audit(steps: Any, verified: Any, calls: Any) -> None:
    seen = calls(answers())
    steps.publish(verified)
    asked = [each for each in seen if each[0] in ("verify", "publish")]
    assert len(asked) == 9
    assert {Path(each[each.index("--policy") + 1]) for each in asked} == {verified.out / "policy-release.toml"}


def test_everything_is_signed_with_its_bill_and_its_audit(steps: Any, verified: Any, calls: Any) -> None:
    seen = calls()
    steps.sign(verified)
    about = [str(each) for each in (*verified.files(), *verified.layouts())]
    assert [each[:2] for each in seen] == [[word, one] for one in about for word in ("sign", "sbom", "audit")]


def test_a_tag_is_the_version(steps: Any, folder: Path, calls: Any) -> None:
    seen = calls()
    with pytest.raises(steps.Stopped, match=r"v1\.3"):
        steps.check(steps.Release(folder, {"RELEASE_TAG": "v1.3"}))
    (folder / "CHANGELOG.md").write_text("# Changes\n")
    with pytest.raises(steps.Stopped, match="no section"):
        steps.check(steps.Release(folder, {"RELEASE_TAG": "v1.2"}))
    assert seen == []


@pytest.fixture
def verified(steps: Any, folder: Path) -> Any:
    """A release that was pushed."""
    pushed = {name: f"registry.example.org/demo/{name}@{DIGEST}" for name in ("a", "b")}
    (folder / "dist" / "images.json").write_text(json.dumps(pushed))
    return steps.Release(folder, {})


def answers(digest: str = DIGEST) -> dict[str, str]:
    """What `verify` and `push --dry-run` say."""
    accepted = [
        {"signer": signer, "predicateType": "https://reprobuild.dev/predicates/rebuild/v1"} for signer in ("x", "y")
    ]
    verify = {"artifacts": [{"digest": DIGEST, "accepted": accepted}]}
    return {"verify": json.dumps(verify), "push": json.dumps({"digest": digest})}


def test_publishing_verifies_then_uploads_then_tags(steps: Any, verified: Any, calls: Any) -> None:
    seen = calls(answers())
    steps.publish(verified)
    order = [each[0] for each in seen if "--json" not in each]
    assert order == ["verify"] * 4 + ["publish"] + ["push"] * 2
    assert [each[2] for each in seen[-2:]] == [f"registry.example.org/demo/{name}:1.2" for name in ("a", "b")]
    kept = json.loads((verified.out / "release.json").read_text())["artifacts"]
    assert [(each["votes"], each["verdict"]) for each in kept] == [(["x", "y"], "verified")] * 4


@pytest.mark.parametrize("fails", ["verify", "publish"])
def test_nothing_is_tagged_after_a_failure(steps: Any, verified: Any, calls: Any, fails: str) -> None:
    seen = calls(answers(), fails=fails)
    with pytest.raises(steps.Stopped) as why:
        steps.publish(verified)
    assert why.value.code == 25
    assert not [each for each in seen if each[0] == "push" and "--dry-run" not in each]
    assert fails == "publish" or not [each for each in seen if each[0] == "publish"]


def test_what_is_tagged_is_what_was_verified(steps: Any, verified: Any, calls: Any) -> None:
    seen = calls(answers(digest="sha256:" + "1" * 64))
    with pytest.raises(steps.Stopped, match="was verified"):
        steps.publish(verified)
    assert not [each for each in seen if each[0] == "publish"]


def test_images_that_were_not_pushed_are_not_left_out(steps: Any, verified: Any, calls: Any) -> None:
    calls(answers())
    path = verified.out / "images.json"
    path.write_text(json.dumps({"a": f"registry.example.org/demo/a@{DIGEST}"}))
    for step in (steps.vote, steps.verify, steps.publish):
        with pytest.raises(steps.Stopped, match="push them first"):
            step(verified)


@pytest.mark.parametrize("simple", ["", "https://index.example.org/simple/"])
def test_what_is_tried_is_the_wheel_that_was_released(
    steps: Any, verified: Any, monkeypatch: pytest.MonkeyPatch, simple: str
) -> None:
    """By its hash: what an index has under that name may be something else."""
    installed: list[tuple[list[str], str]] = []

    def call(command: list[str], _folder: Path, *, read: bool = False) -> str:
        if "install" in command:
            wanted = [Path(command[at + 1]).read_text() for at, word in enumerate(command) if word == "-r"]
            installed.append((command, wanted[-1]))
        return "reprobuild 1.2\n" if read else ""

    monkeypatch.setattr(steps, "call", call)
    (verified.folder / "requirements.txt").write_text("click==8.2.0 --hash=sha256:00\n")
    verified.settings["RELEASE_SIMPLE"] = simple
    steps.try_out(verified)
    assert len(installed) == 2
    for command, own in installed:
        assert own == f"reprobuild==1.2 --hash=sha256:{hashlib.sha256(b'wheel').hexdigest()}\n"
        assert "--require-hashes" in command
        assert (simple in command) == bool(simple)
        assert str(verified.folder / "requirements.txt") in command
    monkeypatch.setattr(steps, "call", lambda *_, read=False, **__: "reprobuild 1.1\n" if read else "")
    with pytest.raises(steps.Stopped, match=r"said 'reprobuild 1\.1', and not 'reprobuild 1\.2'"):
        steps.try_out(verified)


def test_the_notes_have_digests_and_commands(steps: Any, verified: Any, calls: Any, capsys: Any) -> None:
    steps.notes(verified)
    assert capsys.readouterr().out == "## [1.2]\n\n- New.\n"
    calls(answers())
    steps.verify(verified)
    steps.notes(verified)
    notes = capsys.readouterr().out
    assert notes.count(f"`{DIGEST}`") == 4
    assert f"reprobuild verify registry.example.org/demo/b@{DIGEST} --policy policy.toml\n" in notes
    assert "reprobuild verify-wheel demo-1.2-py3-none-any.whl" in notes
    assert "Old" not in notes


def test_an_alarm_is_one_issue(steps: Any, folder: Path, calls: Any) -> None:
    run = {"GITHUB_SERVER_URL": "https://host", "GITHUB_REPOSITORY": "acme/demo", "GITHUB_RUN_ID": "7"}
    seen = calls({"list": "[]"})
    steps.alarm(steps.Release(folder, run))
    assert seen[-1][:3] == ["gh", "issue", "create"]
    assert seen[-1][-1].startswith("https://host/acme/demo/actions/runs/7 ")
    other, own = ({"number": number, "title": title} for number, title in ((2, f"{TITLE}?"), (3, TITLE)))
    seen = calls({"list": json.dumps([other, own])})
    steps.alarm(steps.Release(folder, run))
    assert seen[-1][:4] == ["gh", "issue", "comment", "3"]


def test_a_night_without_a_release_is_quiet(steps: Any, folder: Path, capsys: Any) -> None:
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    steps.nightly(steps.Release(folder, {}))
    assert "nothing was released yet" in capsys.readouterr().out


def test_a_release_page_is_made_or_brought_up_to_date(steps: Any, verified: Any, calls: Any) -> None:
    seen = calls({"list": '[{"tagName": "v1.1"}]'})
    steps.announce(verified)
    assert seen[-1][:4] == ["gh", "release", "create", "v1.2"]
    assert str(verified.out / "demo-1.2.tar.gz") in seen[-1]
    seen = calls({"list": '[{"tagName": "v1.2"}]'})
    steps.announce(verified)
    assert [each[2] for each in seen] == ["list", "edit", "upload"]


def test_the_page_of_a_tag_that_begins_the_same_is_another(steps: Any, verified: Any, calls: Any) -> None:
    seen = calls({"list": '[{"tagName": "v1.2rc1"}, {"tagName": "v1.2.1"}]'})
    steps.announce(verified)
    assert seen[-1][:4] == ["gh", "release", "create", "v1.2"]
    assert int(seen[0][seen[0].index("--limit") + 1]) >= 1000  # of which gh tells 30 by itself


def test_a_secret_goes_through_standard_input(steps: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = []
    monkeypatch.setattr(steps, "call", lambda command, _folder, **how: got.append((command, how)))
    settings = {"RELEASE_REGISTRY": "registry.example.org/demo", "GITHUB_ACTOR": "me", "REGISTRY_TOKEN": "s3cret"}
    steps.login(steps.Release(folder, settings))
    ((command, how),) = got
    assert "s3cret" not in " ".join(command)
    assert how["text"] == "s3cret"


def test_a_step_ends_with_the_code_of_what_stopped_it(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "release" / "steps.py")]
    ended = subprocess.run([*command, "wheel"], cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode not in {0, 1}
    assert "release-wheel: stopped: `reprobuild wheel` ended with" in ended.stderr
    assert subprocess.run([*command, "nonsense"], capture_output=True, check=False).returncode == 2


GH = """#!/bin/sh
[ "$1 $2 $3 $4" = "release download v0.10.0 --dir" ] || exit 9
mkdir -p "$5" && echo wheel > "$5/demo.whl"
"""
AGAIN = "release-again:\n\t@grep -q wheel dist/demo.whl && exit $$(cat code)\n"


@pytest.mark.parametrize("code", [0, 22])
def test_a_night_makes_the_newest_release_again(
    steps: Any, folder: Path, git: Git, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (folder / "Makefile.ci").write_text(AGAIN)
    (folder / "code").write_text(str(code))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A release")
    for tag in ("v0.9.0", "v0.10.0", "v0.10.0rc1", "v0.11-draft", "other"):
        git(folder, "tag", tag)
    (folder / "code").write_text("1")  # what came later isn't what was released
    git(folder, "commit", "--quiet", "--all", "--message", "Later")
    (folder / "bin").mkdir()
    (folder / "bin" / "gh").write_text(GH)
    (folder / "bin" / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    release = steps.Release(folder, {})
    if not code:
        steps.nightly(release)
        return
    with pytest.raises(steps.Stopped):
        steps.nightly(release)


# --- what action.yml runs -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def action() -> Any:
    """release/action.py."""
    spec = importlib.util.spec_from_file_location("release_action", ROOT / "release" / "action.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_input_is_a_value_whatever_it_starts_with(action: Any) -> None:
    odd = "--help\nlevel=identical"
    names = ("WHEEL", "SOURCE", "VARY", "ACCEPT")
    command = action.command({f"VERIFY_{name}": odd for name in names})
    assert command[3:] == ["verify-wheel", "--json", *(f"--{n}={odd}" for n in ("source", "vary", "accept")), "--", odd]
    assert action.command({"VERIFY_WHEEL": ""})[3:] == ["verify-wheel", "--json"]


@pytest.mark.parametrize(
    ("said", "level", "digest"),
    [
        ({"level": "identical", "left": {"digest": DIGEST}}, "identical", DIGEST),
        ({}, "not-comparable", ""),
        ({"level": "identical\ndigest=x", "left": {"digest": f"{DIGEST}\nlevel=identical"}}, "not-comparable", ""),
        ({"level": "identical\n", "left": {"digest": f"{DIGEST}\n"}}, "not-comparable", ""),
        ({"level": None, "left": None}, "not-comparable", ""),
        ([], "not-comparable", ""),
    ],
)
def test_outputs_have_one_form(action: Any, said: Any, level: str, digest: str) -> None:
    assert action.verdict(said) == {"level": level, "digest": digest}


@pytest.mark.parametrize("code", [0, 22, 3])
def test_the_action_ends_as_the_command_did(
    action: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    ended = subprocess.CompletedProcess([], code, stdout=json.dumps({"level": "payload"}) if code != 3 else "no JSON")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert action.main({"GITHUB_OUTPUT": str(tmp_path / "out")}) == code
    level = "payload" if code != 3 else "not-comparable"
    assert (tmp_path / "out").read_text() == f"level={level}\ndigest=\n"


@pytest.fixture
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """release/rehearsal.py."""
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    spec = importlib.util.spec_from_file_location("release_rehearsal", ROOT / "release" / "rehearsal.py")
    assert spec
    assert spec.loader
    rehearsal = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, rehearsal)
    spec.loader.exec_module(rehearsal)
    return rehearsal


def test_a_line_of_the_rehearsal_is_written_in_one_piece(rehearsal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines work at a time: their lines got into each other."""
    written: list[str] = []

    class Stream:
        write = staticmethod(written.append)
        flush = staticmethod(lambda: None)

    monkeypatch.setattr(sys, "stderr", Stream())
    rehearsal.say("done       a step")
    assert written == ["done       a step\n"]


def test_who_signs_a_release_is_nothing_to_who_votes(rehearsal: Any, tmp_path: Path) -> None:
    """Else the votes, which take longest, would be made again when a release is signed again."""
    root = tmp_path / "trusted_root.json"
    root.write_text("{}")
    services = SimpleNamespace(
        advisories=tmp_path, sigstore=SimpleNamespace(trusted_root=root), instance="one", has_docker=False
    )
    steps = [step for phase in rehearsal.phases() for step in phase]

    def keys(**changed: Any) -> dict[str, str]:
        tried = rehearsal.Rehearsal(tmp_path, tmp_path, SimpleNamespace(**{**vars(services), **changed.pop("at", {})}))
        tried.signer = changed.pop("signer", tried.signer)
        return {step.name: tried.key(step, "a commit", {}) for step in steps}

    def affected(**changed: Any) -> set[str]:
        return {name for name, key in keys(**changed).items() if key != keys()[name]}

    assert affected(signer="mallory") == {"sbom sign (signer)"}
    votes = {"vote (voter)", "vote (rebuilder)"}
    assert affected(at={"instance": "two"}) == {"push (signer)"} | votes
    root.with_name("other").write_text("{ }")
    other = SimpleNamespace(trusted_root=root.with_name("other"))
    assert affected(at={"sigstore": other}) == {"sbom sign (signer)"} | votes
