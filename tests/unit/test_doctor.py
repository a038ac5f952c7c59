import platform

import pytest

from reprobuild import doctor, process, sandbox, toolchain
from reprobuild.doctor import examine
from reprobuild.errors import BuildFailed, ToolMissing
from reprobuild.sandbox import KINDS


@pytest.fixture
def machine(monkeypatch):
    """A machine with some programs, each with what it prints, and some kinds of sandbox that don't work."""

    def have(programs, broken=()):
        def run(argv, **_):
            said = programs.get(argv[0])
            if said is None:
                raise ToolMissing("not here")
            if isinstance(said, Exception):
                raise said
            return process.Completed(said.encode(), "")

        monkeypatch.setattr(process, "run", run)
        for name in KINDS:
            monkeypatch.setattr(KINDS[name], "why_not", lambda name=name: "no right" if name in broken else "")
        return {finding.name: finding for finding in examine()}

    return have


def test_what_is_here_is_said_with_its_version(machine):
    found = machine({"git": "git version 2.50.1\n", "uv": "uv 0.9.1 (abc)\n"})
    assert found["python"].found.startswith(platform.python_version())
    assert (found["git"].found, found["uv"].found) == ("git version 2.50.1", "uv 0.9.1 (abc)")


def test_what_is_missing_is_said_with_its_cost(machine):
    found = machine({})
    assert [name for name, finding in found.items() if finding.required and not finding.found] == ["uv"]
    assert found["git"].found == ""
    assert all(finding.cost for finding in found.values() if not finding.found)


def test_the_line_with_the_version_is_the_one_that_is_shown(machine):
    found = machine(
        {
            "nvcc": "nvcc: NVIDIA compiler 4 ever\nCopyright 2005\nBuild 12.4\n",
            "rustc": "a line without\nrustc 1.80\n",
            "cosign": "no version at all\n",
        }
    )
    assert (found["nvcc"].found, found["rustc"].found, found["cosign"].found) == ("Build 12.4", "rustc 1.80", "here")


@pytest.mark.parametrize("error", [process.ToolFailed(["git"], 1, "broken"), BuildFailed("too slow")])
def test_a_program_that_does_not_run_is_not_here(machine, error):
    assert machine({"git": error})["git"].found == ""


@pytest.mark.parametrize(
    ("broken", "best"), [((), "bubblewrap"), (("bubblewrap",), "unshare"), (("bubblewrap", "unshare"), "plain")]
)
def test_the_sandbox_in_use_is_the_one_that_auto_takes(machine, broken, best):
    found = machine({}, broken)
    assert found["sandbox in use"].found == best == sandbox.choose("auto").name
    for name in ("bubblewrap", "unshare"):
        finding = found[f"sandbox {name}"]
        assert finding.found == ("" if name in broken else "works")
        assert ("no right" in finding.cost) is (name in broken)


@pytest.mark.parametrize("name", ["cc", "c++", "rustc", "nvcc"])
def test_a_compiler_that_builds_do_not_see_is_noted(machine, monkeypatch, tmp_path, name):
    compiler = tmp_path / "own" / name
    compiler.parent.mkdir()
    compiler.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(compiler.parent))
    monkeypatch.setattr(doctor, "_BUILD_PATH", (str(tmp_path / "bin"),))
    note = machine({name: f"{name} 1.0"})[name].note
    assert note.startswith(f"Builds don't see {compiler.parent}: set [tool.reprobuild.wheel] path to it")
    assert machine({"git": "git 2"})["git"].note == machine({})[name].note == ""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).symlink_to(compiler)  # a link that sandboxes show, to what they don't
    assert machine({name: f"{name} 1.0"})[name].note == note
    (tmp_path / "bin" / name).unlink()
    (tmp_path / "bin" / name).symlink_to("/usr/bin/env")
    assert machine({name: f"{name} 1.0"})[name].note == ""


def test_a_program_that_is_no_compiler_may_lie_anywhere(machine, monkeypatch):
    monkeypatch.setattr(doctor, "_BUILD_PATH", ())
    assert machine({"git": "git 2", "docker": "3"})["docker"].note == ""


def test_modules_are_looked_for():
    assert doctor._module("pytest", "x").found == "here"
    assert doctor._module("no_such_module", "x").found == ""


def test_this_machine_can_be_examined():
    found = {finding.name: finding for finding in examine()}
    assert found["uv"].found.startswith("uv ")
    assert next(iter(found)) == "python"


def test_a_toolkit_at_its_usual_place_is_seen(machine, monkeypatch, tmp_path):
    program = tmp_path / "cuda" / "bin" / "nvcc"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(doctor, "_BUILD_PATH", ())
    assert machine({"nvcc": "nvcc 1.0"})["nvcc"].note
    monkeypatch.setattr(toolchain, "TOOLKITS", (str(tmp_path / "cuda"),))
    assert machine({"nvcc": "nvcc 1.0"})["nvcc"].note == ""
