"""The environment of an image, beside what uv, pip and pypa's installer make of the same wheels in a real one."""

import csv
import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from reprobuild import lockfile
from reprobuild.image.environment import assemble
from reprobuild.image.plan import plan
from reprobuild.image.target import Target
from reprobuild.index import Index

pytestmark = pytest.mark.network

#: Wheels with scripts, console scripts, data files, headers, compiled modules, a path file, namespace packages.
KINDS = """
    black docutils google-api-core googleapis-common-protos greenlet ipykernel jupyterlab-pygments
    jupyterlab-widgets markupsafe msgpack ninja pyzmq setuptools tqdm zope-interface
    """.split()
#: What to install with all that it requires.
CLOSED = ["black", "docutils", "greenlet", "jinja2", "msgpack", "ninja", "tqdm", "zope-interface"]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MACHINE = platform.machine()
BASE = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
SITE = f"lib/python{PYTHON}/site-packages"


def run(*argv, **settings):
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=300, check=False, **settings)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def locked(names, folder, *options):
    """A lock of the newest releases, for the target's Python and platform alone."""
    (folder / "in.txt").write_text("\n".join(names))
    where = [
        "--python-version",
        PYTHON,
        "--python-platform",
        f"{MACHINE}-manylinux_2_28",
        "--no-header",
        "--no-annotate",
    ]
    run("uv", "pip", "compile", "--quiet", "--generate-hashes", "--only-binary", ":all:", *where, *options,
        folder / "in.txt", "--output-file", folder / "out.txt")  # fmt: skip
    return lockfile.read(folder / "out.txt")


def target_in(folder):
    return Target(platform.python_version(), str(BASE), f"{MACHINE}-manylinux_2_28", str(folder / "venv"))


def materialise(nodes):
    """Make nodes under the root of this machine."""
    for node in nodes:
        path = Path("/", node.path)
        if node.kind == "directory":
            path.mkdir(exist_ok=True)
            path.chmod(node.mode)
        elif node.kind == "symlink":
            path.symlink_to(node.target)
        else:
            path.write_bytes(b"".join(node.content.chunks()))
            path.chmod(node.mode)


def every_node(environment):
    return {node.path: node for layer in plan(environment) for node in layer.nodes}.values()


def files_in(folder):
    """Each file below a folder with its mode and content; links to folders aren't followed."""
    found = {}
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            if path.is_file() and not path.is_symlink() and path.suffix != ".pyc":
                found[path.relative_to(folder).as_posix()] = (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
    return found


def reference(tool, wheels, folder):
    """What a tool installs into a fresh environment: that environment, and its new files."""
    venv, where, names = folder / tool, folder / "wheels", [f"{each.file.name}=={each.file.version}" for each in wheels]
    run("uv", "venv", "--quiet", "--python", BASE, venv)
    run("uv", "venv", "--quiet", "--python", BASE, folder / "tools")
    run("uv", "pip", "install", "--quiet", "--python", folder / "tools/bin/python", "installer==1.1.0", "pip")
    python, with_tools = venv / "bin/python", os.environ | {"PYTHONPATH": str(folder / "tools" / SITE)}
    before = files_in(venv)
    if tool == "uv":
        run("uv", "pip", "install", "--quiet", "--python", python, "--no-deps", "--no-index", "--link-mode=copy",
            "--find-links", where, *names, env=os.environ | {"UV_NO_INSTALLER_METADATA": "1"})  # fmt: skip
    elif tool == "pip":
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--no-index", "--find-links", where,
            "--ignore-installed", *names, env=with_tools)  # fmt: skip
    else:
        for wheel in wheels:
            run(python, "-m", "installer", "--no-compile-bytecode", where / wheel.file.filename, env=with_tools)
    return venv, {path: file for path, file in files_in(venv).items() if before.get(path) != file}


def usual(path):
    """A path with headers where pip and uv put them."""
    return path.replace(f"include/python{PYTHON}/", f"include/site/python{PYTHON}/")


def rows_of(record):
    """RECORD as path → hash and size, with each path made plain; without what installers write in ways of their own."""
    rows = {usual(os.path.normpath(path)): row for path, *row in csv.reader(record.decode().splitlines())}
    return {
        path: row for path, row in rows.items() if not path.endswith((".dist-info/INSTALLER", "/REQUESTED", ".pyc"))
    }


def essence_of(script):
    """What a script that an installer wrote does: its first line, what it imports, what it calls."""
    lines = [line.strip() for line in script.decode().splitlines()]
    calls = [line for line in lines if line.startswith("sys.exit(")]
    return [lines[0], *(line for line in lines if line.startswith("from ")), *calls]


@pytest.mark.parametrize("tool", ["uv", "pip", "installer"])
def test_installs_what_other_installers_install(tool, tmp_path):
    index = Index(tmp_path)
    environment = assemble(locked(KINDS, tmp_path, "--no-deps"), target_in(tmp_path), index)
    assert [wheel.file.name for wheel in environment.wheels] == KINDS
    index.fetch([wheel.file for wheel in environment.wheels], tmp_path / "wheels")
    venv, theirs = reference(tool, environment.wheels, tmp_path)
    materialise(every_node(environment))
    skeleton = {Path("/", node.path).relative_to(tmp_path / "venv").as_posix() for node in environment.skeleton}
    ours = {path: file for path, file in files_in(tmp_path / "venv").items() if path not in skeleton}

    def installers_own(path):
        return path.endswith((".dist-info/INSTALLER", ".dist-info/REQUESTED", ".dist-info/direct_url.json", ".lock"))

    theirs = {usual(path): file for path, file in theirs.items() if not installers_own(path)}
    ours = {path: file for path, file in ours.items() if not installers_own(path)}
    assert sorted(ours) == sorted(theirs)
    assert len(ours) > 1000
    written = set()
    for path, (mode, content) in ours.items():
        assert mode == theirs[path][0], path
        other = theirs[path][1].replace(str(venv).encode(), str(tmp_path / "venv").encode())
        if path.startswith("bin/") and content != other:
            assert essence_of(content) == essence_of(other)
            written.add(path)
        elif not path.endswith(".dist-info/RECORD"):
            assert content == other, path
    assert {"bin/black", "bin/tqdm", "bin/docutils"} <= written
    for path in ours:
        if path.endswith(".dist-info/RECORD"):
            mine, others = (rows_of(files[path][1]) for files in (ours, theirs))
            scripts = {row for row in mine if row.startswith("../../../bin/")}  # of them the paths alone are equal
            assert sorted(mine) == sorted(others)
            assert {row: mine[row] for row in mine if row not in scripts} == {
                row: others[row] for row in others if row not in scripts
            }


@pytest.mark.parametrize(("machine", "version"), [("aarch64", "3.13"), ("x86_64", "3.12"), ("aarch64", "3.11")])
def test_chooses_for_another_machine_what_uv_chooses(machine, version, tmp_path):
    """The lock names the files of every platform; uv is told to install for that one."""
    names = ["greenlet", "markupsafe", "msgpack", "ninja", "pyzmq", "tqdm"]
    (tmp_path / "in.txt").write_text("\n".join(names))
    run("uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-deps", "--python-version", version, "--universal",
        tmp_path / "in.txt", "--output-file", tmp_path / "lock.txt")  # fmt: skip
    target = Target(version, "/usr/bin/python3", f"{machine}-manylinux_2_28", str(tmp_path / "venv"))
    environment = assemble(lockfile.read(tmp_path / "lock.txt"), target, Index(tmp_path))
    run("uv", "pip", "install", "--quiet", "--python-version", version, "--python-platform", target.platform,
        "--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", tmp_path / "uv",
        "-r", tmp_path / "lock.txt")  # fmt: skip
    root = f"{target.prefix}/lib/python{version}/site-packages".lstrip("/")
    ours = {
        node.path.removeprefix(f"{root}/"): b"".join(node.content.chunks())
        for wheel in environment.wheels
        for node in wheel.nodes
        if node.content and node.path.startswith(root)
    }
    compiled = {path for path in ours if path.endswith((".so", ".dist-info/WHEEL"))}
    assert len(compiled) > 10
    for path in compiled:
        assert ours[path] == (tmp_path / "uv" / path).read_bytes(), path
    assert [wheel.file.name for wheel in environment.wheels] == names


@pytest.fixture
def environment_at(tmp_path):
    """A working environment of wheels with all that they require, and what it was made of."""
    environment = assemble(locked(CLOSED, tmp_path), target_in(tmp_path), Index(tmp_path))
    materialise(every_node(environment))
    return tmp_path / "venv", environment


def test_works_like_any_other_environment(environment_at, tmp_path):
    venv, environment = environment_at
    python = venv / "bin/python"
    assert environment.unmet == ()
    # Modules of each kind: compiled, pure, in a namespace, found through a path file.
    code = "import black, docutils, greenlet, jinja2, msgpack, ninja, tqdm, zope.interface; print(black.__file__)"
    assert run(python, "-c", code).startswith(f"{venv}/{SITE}/black/")
    code = "import sys; print(sys.prefix, sys.base_prefix, sys.version.split()[0])"
    assert run(python, "-I", "-c", code).split() == [str(venv), str(BASE.parent.parent), environment.target.version]
    names = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"
    there = {
        each.lower().replace("_", "-").replace(".", "-").partition("==")[0]
        for each in run(python, "-I", "-c", names).split()
    }
    assert there == {wheel.file.name for wheel in environment.wheels}
    for name in ("python", "python3", f"python{PYTHON}"):
        assert run(venv / "bin" / name, "-c", "import sys; print(sys.prefix)").strip() == str(venv)
    for command in (["black", "--version"], ["docutils", "--version"], ["ninja", "--version"], ["tqdm", "--version"]):
        assert run(venv / "bin" / command[0], *command[1:])
    run("uv", "pip", "check", "--python", python)
    run("uv", "venv", "--quiet", "--python", BASE, tmp_path / "tools")
    run("uv", "pip", "install", "--quiet", "--python", tmp_path / "tools/bin/python", "pip")
    assert "No broken requirements" in run(tmp_path / "tools/bin/python", "-m", "pip", "--python", python, "check")


def test_every_record_tells_the_truth_about_every_file(environment_at):
    venv, environment = environment_at
    code = r"""
import base64, hashlib, importlib.metadata as metadata, sys
for dist in metadata.distributions():
    for file in dist.files:
        data = file.locate().read_bytes()
        if file.name == "RECORD" and file.hash is None:
            continue
        digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, data).digest()).rstrip(b"=").decode()
        assert (digest, len(data)) == (file.hash.value, file.size), file
        print(file.locate().resolve())
    assert dist.read_text("INSTALLER") == "reprobuild\n" and dist.read_text("direct_url.json") is None
    assert dist.read_text("REQUESTED") is None
"""
    recorded = set(run(venv / "bin/python", "-I", "-B", "-c", code).splitlines())
    skeleton = {f"/{node.path}" for node in environment.skeleton}
    there = {str(path) for path in venv.rglob("*") if path.is_file() and not path.is_symlink()} - skeleton
    assert {path for path in there - recorded if not path.endswith("/RECORD")} == set()
    assert recorded <= there


def test_is_the_same_every_time(tmp_path):
    lock = locked(KINDS[:4], tmp_path, "--no-deps")

    def made():
        nodes = every_node(assemble(lock, target_in(tmp_path), Index(tmp_path)))
        return [
            (node.path, node.kind, node.mode, node.mtime, node.target, node.content and b"".join(node.content.chunks()))
            for node in nodes
        ]

    first = made()
    assert made() == first
    assert {(node[1], node[3]) for node in first} == {
        ("file", 315_532_800),
        ("directory", 315_532_800),
        ("symlink", 315_532_800),
    }
