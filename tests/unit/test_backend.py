"""What comes out of a box is as trustworthy as the code that ran in it."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reprobuild import backend
from reprobuild.digest import Digest
from reprobuild.errors import BuildFailed
from reprobuild.index import LockedFile
from reprobuild.project import BuildSettings
from reprobuild.sandbox import KINDS, Surroundings, open_box


@pytest.fixture(params=list(KINDS))
def kind(request, sandbox_kinds):
    """Each kind of sandbox that works on this machine."""
    if why := sandbox_kinds[request.param]:
        pytest.skip(f"{request.param} doesn't work here: {why}")
    return request.param


@pytest.fixture
def around(kind, tmp_path):
    return Surroundings(root=str(tmp_path / "fixed")) if kind == "plain" else Surroundings()


@pytest.fixture
def box(tmp_path):
    with open_box("plain", Surroundings(root=str(tmp_path / "fixed"))) as opened:
        yield opened


@pytest.fixture
def kept(tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


def test_the_one_artifact_is_copied_out(box, kept):
    box.outside("out", "a.whl").write_bytes(b"wheel")
    box.outside("out", "notes.txt").write_bytes(b"")
    taken = backend.take(box, ".whl", kept)
    assert taken == kept / "a.whl"
    assert taken.read_bytes() == b"wheel"


@pytest.mark.parametrize("names", [(), ("a.whl", "b.whl"), ("a.tar.gz",)])
def test_anything_but_one_artifact_is_refused(box, kept, names):
    for name in names:
        box.outside("out", name).touch()
    with pytest.raises(BuildFailed, match=r"left \d files \*\.whl where one was expected"):
        backend.take(box, ".whl", kept)


def _link(path, target):
    path.symlink_to(target)


def _folder(path, _):
    path.mkdir()


def _pipe(path, _):
    os.mkfifo(path)


def _nothing(path, target):
    pass


@pytest.mark.parametrize("make", [_link, _folder, _pipe])
def test_only_a_file_is_taken(box, kept, tmp_path, make):
    (tmp_path / "secret").write_bytes(b"of the machine")
    make(box.outside("out", "a.whl"), tmp_path / "secret")
    with pytest.raises(BuildFailed, match=r"left a 'a\.whl' that is not a file"):
        backend.take(box, ".whl", kept)
    assert list(kept.iterdir()) == []


def test_a_link_in_place_of_the_folder_is_not_followed(box, kept, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.whl").touch()
    box.outside("out").rmdir()
    box.outside("out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildFailed, match="took away the folder"):
        backend.take(box, ".whl", kept)


def test_an_answer_is_read(tmp_path):
    (tmp_path / "output.json").write_text('{"return_val": ["packaging>=24"]}')
    assert backend._read_answer(tmp_path / "output.json") == {"return_val": ["packaging>=24"]}


@pytest.mark.parametrize("make", [_link, _folder, _pipe, _nothing])
def test_an_answer_that_is_not_a_file_is_not_waited_for(tmp_path, make):
    (tmp_path / "other").write_text("{}")
    make(tmp_path / "output.json", tmp_path / "other")
    with pytest.raises(BuildFailed, match="left no answer that can be read"):
        backend._read_answer(tmp_path / "output.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\udcff"])
def test_an_answer_that_is_not_json(tmp_path, text):
    (tmp_path / "output.json").write_text(text, errors="surrogateescape")
    with pytest.raises(BuildFailed, match="left no answer that can be read"):
        backend._read_answer(tmp_path / "output.json")


def test_an_answer_that_says_what_failed_is_the_hooks_callers_to_read(tmp_path):
    said = {"no_backend": True, "traceback": "", "return_val": None}
    (tmp_path / "output.json").write_text(json.dumps(said))
    assert backend._read_answer(tmp_path / "output.json") == said


def test_an_answer_that_is_no_object(tmp_path):
    (tmp_path / "output.json").write_text("[]")
    with pytest.raises(BuildFailed, match="not an object"):
        backend._read_answer(tmp_path / "output.json")


@pytest.mark.parametrize("answer", [[5], "packaging", {"a": 1}, [["packaging"]], [None], None, 7])
def test_an_answer_that_is_no_list_of_requirements(tmp_path, answer):
    (tmp_path / "output.json").write_text(json.dumps({"unsupported": False, "return_val": answer}))
    with pytest.raises(BuildFailed, match="that is not a list of requirements"):
        backend._read_answer(tmp_path / "output.json")


class _Recorder:
    """A box that only notes the commands."""

    def __init__(self, folder):
        self.folder = folder
        self.commands = []
        self.uv_inside = "uv"
        self.root = "/root"
        self.tools = (folder / "tools", "/tools")

    def inside(self, *parts):
        return "/".join(("/root", *parts))

    def outside(self, *parts):
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(exist_ok=True)
        return path

    def run(self, argv, **options):
        self.commands.append((list(argv), options))


def test_every_installation_checks_hashes_and_ends_in_time(tmp_path):
    files = [
        LockedFile(name, "1", f"{name}-1{suffix}", Digest.of_bytes(name.encode()))
        for name, suffix in (("one", "-py3-none-any.whl"), ("two", ".tar.gz"))
    ]
    recorder: Any = _Recorder(tmp_path)
    python: Any = SimpleNamespace(executable=Path("/usr/bin/python3"), prefix=Path("/usr"))
    nothing_fetched: Any = SimpleNamespace(fetch=lambda *_: None)
    config: Any = SimpleNamespace(wheel=BuildSettings(timeout=17))
    backend.prepare(recorder, config, python, files, nothing_fetched)
    (_, wheels, sdists) = recorder.commands
    for argv, options in (wheels, sdists):
        assert {"--no-index", "--no-deps", "--require-hashes"} <= set(argv)
        assert options["timeout"] == 17
    assert "--no-build" in wheels[0]
    assert "--require-build-hashes" in sdists[0]
    assert sdists[0][sdists[0].index("--build-constraints") + 1] == "/root/wheels/all.txt"
    assert (tmp_path / "wheels" / "sdists.txt").read_text() == f"two==1 --hash={files[1].digest}\n"


# --- what only a stranger's build gets ---------------------------------------------------------------


@pytest.fixture
def own_environment(kind, around):
    """A box with a virtual environment of this Python, and the environment's own folder of packages inside."""
    with open_box(kind, around, readable=[Path(sys.base_prefix)]) as opened:
        python = str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
        opened.run([python, "-m", "venv", "--without-pip", opened.inside("env")])
        yield opened, opened.outside("env", "lib", f"python3.{sys.version_info.minor}", "site-packages")


def asked(box, code):
    return box.run([box.inside("env", "bin", "python"), "-c", code], cwd=box.inside("src")).stdout.decode().split()


def test_a_build_gets_a_users_settings_and_code_that_runs_at_the_start(own_environment):
    box, _ = own_environment
    interpreter: Any = SimpleNamespace(version=sys.version.split()[0])
    backend.add_user_settings(box, interpreter, [(".pydistutils.cfg", "[a]")], "import sys; sys.told = 'yes'")
    code = "import os, sys; print(open(os.path.expanduser('~/.pydistutils.cfg')).read(), sys.told)"
    assert asked(box, code) == ["[a]", "yes"]


def test_a_build_gets_none_of_that_unasked(own_environment):
    box, packages = own_environment
    backend.add_user_settings(box, SimpleNamespace(version=sys.version.split()[0]), (), "")  # type: ignore[arg-type]
    assert list(packages.glob("*.pth")) == []
    assert asked(box, "import os; print(*os.listdir(os.path.expanduser('~')))") == []


TOOL = "import pathlib, sys\ndef build_wheel(folder):\n    pathlib.Path(folder, 'demo.whl').write_text(__file__)\n"


def test_a_tool_builds_by_itself_whatever_the_source_has_of_its_name(own_environment, kept):
    box, packages = own_environment
    (packages / "a_tool.py").write_text(TOOL)
    box.outside("src", "a_tool.py").write_text("raise SystemExit('the one of the source')")
    config: Any = SimpleNamespace(wheel=BuildSettings(), backend="a_tool")
    backend.build(box, config, "", {}, tool="a_tool")
    assert "/site-packages/" in backend.take(box, ".whl", kept).read_text()
