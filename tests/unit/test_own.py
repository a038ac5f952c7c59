"""The project's own wheel in an image: what it is remembered by, and when it isn't."""

import hashlib
from dataclasses import replace

import pytest

from reprobuild import wheel
from reprobuild.digest import Digest
from reprobuild.errors import BuildFailed
from reprobuild.image import own
from reprobuild.image.own import OwnWheel
from reprobuild.index import Index, LockedFile
from reprobuild.interpreter import Interpreter
from reprobuild.project import load
from reprobuild.sandbox import USUAL, Guarantees
from reprobuild.source import Source
from reprobuild.wheel import Inputs

WHOLE = Guarantees("bubblewrap", True, True, True, True, True, True)
NAME = "demo-1.0-py3-none-any.whl"
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "demo"
version = "1.0"
"""


def digest(text):
    return Digest.of_bytes(text.encode())


class Builds:
    """Stands for the build, which the integration tests do: each wheel is another one."""

    def __init__(self, inputs):
        self.inputs, self.name, self.guarantees, self.count = inputs, NAME, WHOLE, 0

    def resolve(self, *_args, **_settings):
        return self.inputs

    def make(self, _inputs, _index, out_dir, **_settings):
        self.count += 1
        out_dir.mkdir(exist_ok=True)
        (out_dir / self.name).write_bytes(b"wheel %d" % self.count)
        return out_dir / self.name, self.guarantees, USUAL


@pytest.fixture
def inputs(tmp_path):
    for name in ("source.tar", "module.tar", "python"):
        (tmp_path / name).write_bytes(name.encode())
    git = tmp_path / "git"
    git.mkdir()
    for name in ("HEAD", "config", "packed-refs"):
        (git / name).write_text(name)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PYPROJECT)
    source = Source(
        "git",
        tmp_path / "source.tar",
        1,
        {"gitCommit": "0" * 40},
        git=git,
        submodules=(("sub", tmp_path / "module.tar"),),
    )
    python = Interpreter(
        tmp_path / "python",
        "3.11.7",
        "cpython",
        "linux",
        tmp_path,
        "1.2.13",
        "gcc",
        ("py3-none-any",),
        {"os_name": "posix"},
    )
    files = (LockedFile("hatchling", "1.27", "hatchling-1.27-py3-none-any.whl", digest("hatchling")),)
    return Inputs(load(folder, "the source"), source, files, digest("lock"), python)


@pytest.fixture
def builds(inputs, monkeypatch, tmp_path):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    found = Builds(inputs)
    monkeypatch.setattr(wheel, "resolve", found.resolve)
    monkeypatch.setattr(wheel, "make", found.make)
    return found


def got(builds, tmp_path, **settings):
    """The wheel's bytes, as an image gets it."""
    scratch = tmp_path / f"scratch-{builds.count}"
    scratch.mkdir(exist_ok=True)
    path = OwnWheel(builds.inputs.source, Index(tmp_path), scratch, **settings).get()
    assert path.name == builds.name
    return path.read_bytes()


def test_the_same_inputs_are_built_once(builds, tmp_path):
    assert [got(builds, tmp_path), got(builds, tmp_path)] == [b"wheel 1", b"wheel 1"]


def test_who_verifies_builds(builds, tmp_path):
    got(builds, tmp_path)
    assert got(builds, tmp_path, remembering=False) == b"wheel 2"
    assert got(builds, tmp_path) == b"wheel 1"


def changed_file(name):
    def change(inputs, tmp_path):
        (tmp_path / name).write_bytes(b"other")
        return inputs

    return change


def changed_source(**settings):
    return lambda inputs, _: replace(inputs, source=replace(inputs.source, **settings))


def changed_python(**settings):
    return lambda inputs, _: replace(inputs, interpreter=replace(inputs.interpreter, **settings))


CHANGES = {
    "source": changed_file("source.tar"),
    "submodule": changed_file("module.tar"),
    "tags": changed_file("git/packed-refs"),
    "commit": changed_file("git/HEAD"),
    "git config": changed_file("git/config"),
    "shallow": changed_file("git/shallow"),
    "interpreter": changed_file("python"),
    "epoch": changed_source(epoch=2),
    "kind": changed_source(kind="dirty"),
    "subdirectory": changed_source(subdirectory="deeper"),
    "times": changed_source(own_times=True),
    "modes": changed_source(own_modes=True),
    "submodule's place": lambda inputs, _: replace(
        inputs, source=replace(inputs.source, submodules=(("other", inputs.source.submodules[0][1]),))
    ),
    "lock": lambda inputs, _: replace(inputs, lock=digest("another")),
    "requirement": lambda inputs, _: replace(inputs, files=(replace(inputs.files[0], digest=digest("another")),)),
    "version": changed_python(version="3.11.8"),
    "platform": changed_python(platform="linux2"),
    "zlib": changed_python(zlib="1.3"),
    "markers": changed_python(markers={"os_name": "other"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_inputs_are_another_wheel(builds, tmp_path, change):
    got(builds, tmp_path)
    builds.inputs = change(builds.inputs, tmp_path)
    assert got(builds, tmp_path) == b"wheel 2"


@pytest.mark.parametrize(
    "settings", [{"sandbox": "unshare"}, {"surroundings": replace(USUAL, umask=0o077)}], ids=["sandbox", "umask"]
)
def test_another_sandbox_is_another_wheel(builds, tmp_path, settings):
    got(builds, tmp_path)
    assert got(builds, tmp_path, **settings) == b"wheel 2"


def test_another_reprobuild_is_another_wheel(builds, tmp_path, monkeypatch):
    got(builds, tmp_path)
    monkeypatch.setattr(own, "__version__", "0")
    assert got(builds, tmp_path) == b"wheel 2"


def test_another_uv_is_another_wheel(builds, tmp_path, monkeypatch):
    got(builds, tmp_path)
    monkeypatch.setattr(wheel, "uv_version", lambda: "0")
    assert got(builds, tmp_path) == b"wheel 2"


@pytest.mark.parametrize("name", ["demo-1.0-cp311-cp311-linux_x86_64.whl", "demo-1.0-py3-none-linux_x86_64.whl"])
def test_what_the_machine_compiled_is_built_again(builds, tmp_path, name):
    builds.name = name
    assert [got(builds, tmp_path), got(builds, tmp_path)] == [b"wheel 1", b"wheel 2"]


def test_what_a_sandbox_did_not_hold_is_built_again(builds, tmp_path):
    builds.guarantees = replace(WHOLE, network_off=False)
    assert [got(builds, tmp_path), got(builds, tmp_path)] == [b"wheel 1", b"wheel 2"]


@pytest.mark.parametrize("setting", ["readable", "path"])
def test_a_build_that_is_shown_the_machine_is_done_again(builds, tmp_path, setting):
    config = builds.inputs.config
    shown = replace(config, wheel=replace(config.wheel, **{setting: ("/opt/sdk",)}))
    builds.inputs = replace(builds.inputs, config=shown)
    assert [got(builds, tmp_path), got(builds, tmp_path)] == [b"wheel 1", b"wheel 2"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / NAME).write_bytes(b"other"),
        lambda place: (place / NAME).unlink(),
        lambda place: (place / "wheel.json").write_text("{"),
        lambda place: (place / "wheel.json").write_text("[]"),
        lambda place: (place / "wheel.json").write_text('{"name": "x.whl"}'),
        lambda place: (place / "wheel.json").write_text('{"name": "x.whl", "digest": "md5:0"}'),
    ],
    ids=["content", "gone", "cut", "list", "no digest", "weak digest"],
)
def test_a_damaged_memory_is_none(builds, tmp_path, damage):
    got(builds, tmp_path)
    (place,) = (tmp_path / "cache" / "own").iterdir()
    damage(place)
    assert got(builds, tmp_path) == b"wheel 2"
    assert got(builds, tmp_path) == b"wheel 2"  # and is right again


def test_a_name_in_the_memory_leads_nowhere_else(builds, tmp_path):
    got(builds, tmp_path)
    (place,) = (tmp_path / "cache" / "own").iterdir()
    (tmp_path / "cache" / NAME).write_bytes(b"planted")
    planted = hashlib.sha256(b"planted").hexdigest()
    (place / "wheel.json").write_text(f'{{"name": "../../{NAME}", "digest": "sha256:{planted}"}}')
    assert got(builds, tmp_path) == b"wheel 2"


def test_a_failed_build_is_not_remembered(builds, tmp_path, monkeypatch):
    def fail(*_args, **_settings):
        raise BuildFailed("no")

    with monkeypatch.context() as patched:
        patched.setattr(wheel, "make", fail)
        with pytest.raises(BuildFailed):
            got(builds, tmp_path)
    assert got(builds, tmp_path) == b"wheel 1"
