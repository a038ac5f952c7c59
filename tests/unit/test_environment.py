import base64
import hashlib
import io

import pytest
from packaging.version import Version

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch, IndexFailed
from reprobuild.files import cache_root
from reprobuild.image.environment import assemble
from reprobuild.image.target import Target
from reprobuild.index import Index
from reprobuild.lockfile import Lockfile, Pin
from reprobuild.oci.layer import Compression, write_layer
from reprobuild.oci.tree import WHEEL_TIME

TARGET = Target("3.12.7", "/usr/local/bin/python3.12", "x86_64-manylinux_2_28")
LINUX, ARM = "cp312-cp312-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_28_aarch64"
SITE = "opt/venv/lib/python3.12/site-packages"
SCRIPT = {"@info/entry_points.txt": b"[console_scripts]\nrun=a:b"}


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A folder of files that uv is configured with, and nothing else."""
    folder = tmp_path / "offered"
    folder.mkdir()
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def offer(offered, make_wheel):
    """Put wheels there; the lock that pins all of them."""

    def run(*wheels):
        return lock_of([make_wheel(offered, **wheel) for wheel in wheels])

    return run


def lock_of(paths):
    hashes: dict[tuple[str, str], list[Digest]] = {}
    for path in paths:
        name, version = path.name.removesuffix(".tar.gz").split("-")[:2]
        hashes.setdefault((name, version), []).append(Digest.of_file(path))
    pins = [Pin(name, Version(version), None, tuple(sorted(found))) for (name, version), found in hashes.items()]
    return Lockfile(Digest.of_bytes(b""), tuple(pins), "")


def made(lock, tmp_path, own=None, target=TARGET):
    return assemble(lock, target, Index(tmp_path), own)


def refusal(lock, tmp_path, own=None, kind=BadInput):
    with pytest.raises(kind) as caught:
        made(lock, tmp_path, own)
    assert caught.value.remedy
    return caught.value.reason


def paths(nodes, kind="file"):
    return [node.path for node in nodes if node.kind == kind]


def test_the_skeleton_is_a_virtual_environment(offer, tmp_path):
    environment = made(offer(), tmp_path)
    assert environment.wheels == ()
    assert paths(environment.skeleton) == ["opt/venv/pyvenv.cfg"]
    assert paths(environment.skeleton, "directory") == [
        "opt/venv", "opt/venv/bin", "opt/venv/lib", "opt/venv/lib/python3.12", SITE
    ]  # fmt: skip
    links = {node.path: node.target for node in environment.skeleton if node.kind == "symlink"}
    assert links == {
        "opt/venv/bin/python": "/usr/local/bin/python3.12",
        "opt/venv/bin/python3": "python",
        "opt/venv/bin/python3.12": "python",
        "opt/venv/lib64": "lib",
    }
    (settings,) = (node for node in environment.skeleton if node.kind == "file")
    assert b"".join(settings.content.chunks()).decode().splitlines() == [
        "home = /usr/local/bin",
        "include-system-site-packages = false",
        "version = 3.12.7",
        "executable = /usr/local/bin/python3.12",
    ]
    assert {node.mtime for node in environment.skeleton} == {WHEEL_TIME}
    assert [node.path for node in environment.skeleton] == sorted(node.path for node in environment.skeleton)


def test_the_best_wheel_of_each_pin_is_installed(offer, tmp_path):
    lock = offer({"name": "b"}, {"name": "a", "tag": LINUX}, {"name": "a"}, {"name": "a", "tag": ARM})
    environment = made(lock, tmp_path)
    assert [wheel.file.filename for wheel in environment.wheels] == [f"a-1.0-{LINUX}.whl", "b-1.0-py3-none-any.whl"]
    first = environment.wheels[0]
    assert f"{SITE}/a.py" in paths(first.nodes)
    assert first.size == sum(node.content.size for node in first.nodes if node.kind == "file")
    arm = made(lock, tmp_path, target=Target("3.12", "/usr/bin/python3.12", "aarch64-manylinux_2_28"))
    assert arm.wheels[0].file.filename == f"a-1.0-{ARM}.whl"


def test_the_projects_own_wheel_comes_last_and_was_requested(offer, tmp_path, make_wheel):
    own = make_wheel(tmp_path / "dist", name="app")
    environment = made(offer({"name": "b"}, {"name": "zzz"}), tmp_path, own)
    assert [(wheel.file.name, wheel.own) for wheel in environment.wheels] == [
        ("b", False),
        ("zzz", False),
        ("app", True),
    ]
    assert environment.wheels[-1].file.digest == Digest.of_file(own)
    requested = [path for wheel in environment.wheels for path in paths(wheel.nodes) if path.endswith("/REQUESTED")]
    assert requested == [f"{SITE}/app-1.0.dist-info/REQUESTED"]


def test_the_projects_own_wheel_must_suit(offer, tmp_path, make_wheel):
    lock = offer({"name": "app"})
    assert "The lock pins app too" in refusal(lock, tmp_path, make_wheel(tmp_path / "dist", name="app"))
    other = make_wheel(tmp_path / "dist", name="own", tag=ARM)
    assert "doesn't run on Python 3.12 on x86_64-manylinux_2_28" in refusal(lock, tmp_path, other)


# --- what can't be installed -----------------------------------------------------------------------


def test_an_sdist_is_no_wheel(offered, tmp_path):
    (offered / "demo-1.0.tar.gz").write_bytes(b"an sdist")
    reason = refusal(lock_of([offered / "demo-1.0.tar.gz"]), tmp_path)
    assert reason.startswith("demo 1.0 has no wheel for Python 3.12 on x86_64-manylinux_2_28 in the lock")


def test_a_wheel_for_another_platform_does_not_do(offer, tmp_path):
    assert "No suitable file of a 1.0" in refusal(offer({"name": "a", "tag": ARM}), tmp_path, kind=IndexFailed)


def test_a_file_with_another_hash_is_not_taken(offer, offered, tmp_path, make_wheel):
    lock = offer({"name": "a"})
    make_wheel(offered, {"a.py": b"evil"}, name="a")
    assert "a 1.0" in refusal(lock, tmp_path, kind=IndexFailed)
    assert not list(cache_root().glob("files/**/*.whl"))


def test_a_file_that_changes_on_the_way_is_not_taken(offer, tmp_path, monkeypatch):
    lock = offer({"name": "a"})
    monkeypatch.setattr(Index, "_bytes_of", lambda *_: [b"something else"])
    monkeypatch.setattr(Index, "_digest_of", lambda *_: lock.pins[0].hashes[0])
    refusal(lock, tmp_path, kind=DigestMismatch)
    assert not list(cache_root().glob("files/**/*.whl"))


def test_two_wheels_may_install_the_same_and_nothing_else_at_one_place(offer, tmp_path):
    same = {"nvidia/__init__.py": b"", "nvidia/x.txt": b"same"}
    environment = made(offer({"name": "a", "members": same}, {"name": "b", "members": same}), tmp_path)
    assert all(f"{SITE}/nvidia/x.txt" in paths(wheel.nodes) for wheel in environment.wheels)


@pytest.mark.parametrize("content", [b"1", b"2"], ids=["the same", "another"])
def test_what_two_wheels_hash_differently_is_compared_by_its_bytes(offer, tmp_path, content):
    hashed = base64.urlsafe_b64encode(hashlib.sha512(content).digest()).rstrip(b"=").decode()
    rows = [f"x.py,sha512={hashed},1"]
    said = {
        "METADATA": b"Metadata-Version: 2.4\nName: b\nVersion: 1.0\n",
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    for name, text in said.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
        rows.append(f"b-1.0.dist-info/{name},sha256={digest},{len(text)}")
    record = "\n".join([*rows, "b-1.0.dist-info/RECORD,,\n"]).encode()
    second = {"name": "b", "members": {"x.py": content}, "changed": {"@info/RECORD": record}}
    lock = offer({"name": "a", "members": {"x.py": b"1"}}, second)
    if content == b"1":
        made(lock, tmp_path)
    else:
        assert "both install" in refusal(lock, tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "path"),
    [
        ({"x.py": b"1"}, {"x.py": b"2"}, "x.py"),
        ({"x.py": b"1"}, {"x.py": (b"1", 0o100755)}, "x.py"),
        ({"x": b"1"}, {"x/y.py": b"1"}, "x'"),
        ({"x/y.py": b"1"}, {"x": b"1"}, "x'"),
        ({"x/y/z": b"1"}, {"x/y": b"1"}, "x/y'"),
        ({"@data/scripts/x": b"1"}, {"@data/data/bin/x": (b"2", 0o100755)}, "bin/x"),
        (SCRIPT | {"x.py": b""}, {"@data/scripts/run": b"#!python\n"}, "bin/run"),
    ],
)  # fmt: skip
def test_two_wheels_at_war_are_both_named(offer, tmp_path, first, second, path):
    reason = refusal(offer({"name": "a", "members": first}, {"name": "b", "members": second}), tmp_path)
    assert reason.startswith("a-1.0-py3-none-any.whl and b-1.0-py3-none-any.whl both install ")
    assert path in reason


@pytest.mark.parametrize(
    "name",
    ["@data/scripts/python", "@data/scripts/python3.12", "@data/data/pyvenv.cfg", "@data/data/lib64", "@data/data/bin",
     "@data/data/bin/python/x", "@data/data/lib/python3.12/site-packages"],
)  # fmt: skip
def test_no_wheel_replaces_a_part_of_the_environment(offer, tmp_path, name):
    lock = offer({"name": "a", "members": {name: b""}})
    assert refusal(lock, tmp_path).startswith("the environment itself and a-1.0-py3-none-any.whl both install ")


def test_a_wheel_at_war_with_itself_is_refused(offer, tmp_path):
    members = {"foo/x.py": b"", "@data/data/lib/python3.12/site-packages/foo": b""}
    assert "both install 'lib/python3.12/site-packages/foo'" in refusal(
        offer({"name": "a", "members": members}), tmp_path
    )


def test_what_pip_check_would_say_is_said(offer, tmp_path):
    metadata = (
        "Requires-Python: <3.12\nRequires-Dist: b>=2\nRequires-Dist: c\nRequires-Dist: d; extra == 'x'\n"
        'Requires-Dist: e; python_version < "3.12"\nRequires-Dist: b>0.9\n'
    )
    environment = made(offer({"name": "a", "metadata": metadata}, {"name": "b"}), tmp_path)
    assert environment.unmet == (
        "a 1.0: it is for Python <3.12",
        "a 1.0: b>=2 is wanted, but 1.0 is locked",
        "a 1.0: c is not in it",
    )
    environment = made(offer({"name": "x", "metadata": "Requires-Dist: b ((\n"}), tmp_path)
    assert [each.partition("(")[0] for each in environment.unmet] == ["x 1.0: its requirements can't be read "]


# --- what is remembered ----------------------------------------------------------------------------


@pytest.mark.parametrize("compression", Compression)
def test_a_wheel_that_lies_becomes_no_layer(offered, tmp_path, make_wheel, compression):
    lock = lock_of([make_wheel(offered, name="a", changed={"a.py": b"x = 2\n"})])
    (wheel,) = made(lock, tmp_path).wheels
    with pytest.raises(BadInput, match=r"a\.py' has another sha256 than RECORD says"):
        write_layer(wheel.nodes, io.BytesIO(), compression)


@pytest.mark.parametrize("name", ["@info/entry_points.txt", "@data/scripts/tool"])
def test_what_is_read_to_write_scripts_may_not_lie_either(offered, tmp_path, make_wheel, name):
    members = {"@info/entry_points.txt": b"[console_scripts]\nrun=a:b", "@data/scripts/tool": b"#!python\n1"}
    lie = members[name][:-1] + b"2"
    lock = lock_of([make_wheel(offered, members, name="a", changed={name: lie})])
    assert "another sha256 than RECORD says" in refusal(lock, tmp_path)


def test_a_damaged_copy_in_the_cache_is_fetched_again(offer, tmp_path):
    lock = offer({"name": "a"})
    first = made(lock, tmp_path)
    (copy,) = cache_root().glob("files/**/*.whl")
    sound = copy.read_bytes()
    copy.write_bytes(sound[:-1] + b"\xff")
    again = made(lock, tmp_path)
    assert again == first
    assert copy.read_bytes() == sound
