"""Debian packages from a lock, with a little archive on loopback (tests/apt/make.py) and the real apt."""

import dataclasses
import hashlib
import os
import platform
import runpy
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from reprobuild import process, project
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed, DigestMismatch, IndexFailed, LockMissing, LockStale, ToolMissing
from reprobuild.image import apt, dockerfile
from reprobuild.image.aptarchive import SOURCES, addresses, sources
from reprobuild.image.aptlock import AptLock, Closure, Package, Step, Wanted, architecture_of
from reprobuild.image.context import Nodes
from reprobuild.oci.model import Platform
from reprobuild.oci.tree import Node, Text

HERE = Path(__file__).parents[1] / "apt"
ARCHIVE = runpy.run_path(str(HERE / "make.py"))
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
BASE = f"sha256:{'b' * 64}"
FROM = f"FROM example.org/base:1@{BASE}\n"
RUN = "RUN --mount=type=bind,from=apt,target=/apt /apt/install\n"
STATUS = """\
Package: essential-one
Status: install ok installed
Version: 1
Architecture: all
Maintainer: a test
Description: of a test

Package: base-lib
Status: install ok installed
Version: 1.9
Architecture: all
Maintainer: a test
Description: of a test
"""
needs_apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="apt resolves, and this machine has none")


def at(name):
    return "/debian/" + quote(ARCHIVE["path"](name))


def package(name):
    version, architecture, _ = ARCHIVE["PACKAGES"][name]
    data = ARCHIVE["content"](name)
    digest = hashlib.sha256(data).hexdigest()
    return Package(name, version, architecture, len(data), digest, ARCHIVE["path"](name))


@pytest.fixture
def served(served, tmp_path, monkeypatch):
    """The archive, named by the file that the variable names."""
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))  # not the one that tests share
    index, suite = ARCHIVE["index"](), "/debian/dists/hamlet"
    served.files[f"{suite}/InRelease"] = (HERE / "InRelease").read_bytes()
    served.files[f"{suite}/main/binary-amd64/by-hash/SHA256/{hashlib.sha256(index).hexdigest()}"] = index
    served.files |= {at(name): ARCHIVE["content"](name) for name in ARCHIVE["PACKAGES"]}
    listed(tmp_path, monkeypatch, f"deb {served.url}/debian {{codename}} main")
    return served


def listed(folder, monkeypatch, *lines):
    (folder / "sources.list").write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setenv(SOURCES, str(folder / "sources.list"))


def base(keyring="keyring.gpg", status=STATUS, release="ID=debian\nVERSION_CODENAME=hamlet\n"):
    """The files of a base image; its os-release is a link, as in Debian."""
    files = {"usr/lib/os-release": release.encode(), "var/lib/dpkg/status": status.encode()}
    if keyring:
        files["usr/share/keyrings/debian-archive-keyring.gpg"] = (HERE / keyring).read_bytes()
    nodes = {path: Node(path, "file", 0o644, 0, content=Text(data)) for path, data in files.items()}
    nodes["etc/os-release"] = Node("etc/os-release", "symlink", 0o777, 0, target="../usr/lib/os-release")
    return Nodes(nodes)


@pytest.fixture
def wish(tmp_path):
    """Write a project that wants packages; its settings."""

    def write(*names, more="", platforms=("linux/amd64",), text=FROM + RUN):
        root = tmp_path / "project"
        (root / "images" / "tool").mkdir(parents=True, exist_ok=True)
        (root / "images" / "tool" / "Dockerfile").write_text(text)
        table = f"platforms = {list(platforms)}\nmanylinux = '2_28'\napt = {list(names)}\n{more}\n"
        (root / "pyproject.toml").write_text(f"[tool.reprobuild.images.tool]\n{table}")
        return project.load(root)

    return write


def lock(config, scratch, tree=None, **how):
    """The text of images/tool/apt.lock, which is written too."""
    count = sum(1 for _ in scratch.glob("work*"))
    text = apt.locks(config, {}, lambda _: tree or base(), scratch / f"work{count}", **how)["images/tool/apt.lock"]
    (config.root / "images/tool/apt.lock").write_text(text)
    (scratch / f"work{count}").mkdir(exist_ok=True)
    return text


def content_of(folder):
    """Everything that a build sees of a context."""
    return {
        str(each.relative_to(folder)): (each.stat().st_mode, each.stat().st_mtime, each.is_file() and each.read_bytes())
        for each in folder.rglob("*")
    }


# --- the closure and its lock -------------------------------------------------------------------------


@needs_apt
def test_the_closure_is_what_the_base_lacks(served, wish, tmp_path):
    made = AptLock.parse(lock(wish("tool", "early"), tmp_path), "apt.lock")
    (closure,) = made.closures
    # base-lib is there, old but good enough; leaf is only recommended.
    assert {each.name: each for each in closure.packages} == {n: package(n) for n in ("tool", "tool-lib", "early")}
    assert (closure.platform, str(closure.base), closure.suites) == (AMD64, BASE, ("hamlet",))
    assert made.packages == ("early", "tool")
    # What a package pre-depends on is configured before that is unpacked.
    order = [(step.verb, name) for step in closure.steps for name in step.names]
    assert order.index(("configure", "tool-lib")) < order.index(("unpack", "early"))
    assert lock(wish("early", "tool", "tool"), tmp_path, upgrade=True) == made.text("tool")


@needs_apt
def test_a_lock_names_no_host(served, wish, tmp_path):
    text = lock(wish("tool"), tmp_path)
    assert "127.0.0.1" not in text
    assert "://" not in text


@needs_apt
def test_what_the_base_has_already_needs_nothing(served, wish, tmp_path):
    config = wish("essential-one")
    (closure,) = AptLock.parse(lock(config, tmp_path), "apt.lock").closures
    assert (closure.packages, closure.steps) == ((), ())
    folder = apt.context(config.root / "images/tool/apt.lock", tmp_path / "context", AMD64)
    assert (folder / "order").read_bytes() == b""


@needs_apt
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent-one", "no package absent-one"),
        ("lonely", "(?s)don't go together.*lonely : Depends: nowhere"),
        ("rival", "without removing essential-one"),
    ],
)
def test_what_cannot_be_installed_is_an_error_that_names_it(served, wish, tmp_path, name, reason):
    with pytest.raises(BuildFailed, match=reason):
        lock(wish(name), tmp_path)


@needs_apt
def test_an_architecture_that_the_archive_lacks(served, wish, tmp_path):
    with pytest.raises((BuildFailed, IndexFailed), match=r"tool|arm64"):
        lock(wish("tool", platforms=["linux/arm64"]), tmp_path)


@pytest.mark.parametrize("wanted", [Platform("windows", "amd64"), Platform("linux", "mips")])
def test_a_platform_without_packages(wanted):
    with pytest.raises(BadInput, match=str(wanted)):
        architecture_of(wanted)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [(AMD64, "amd64"), (ARM64, "arm64"), (Platform("linux", "arm", "v7"), "armhf"), (Platform("linux", "386"), "i386")],
)
def test_architectures_have_names_of_their_own(wanted, name):
    assert architecture_of(wanted) == name


@needs_apt
def test_a_lock_is_kept_until_somebody_wants_another(served, wish, tmp_path, monkeypatch):
    first = lock(wish("tool"), tmp_path)
    asked = len(served.asked)
    assert lock(wish("tool"), tmp_path) == first
    assert lock(wish("tool"), tmp_path, check=True) == first
    assert len(served.asked) == asked
    lock(wish("tool"), tmp_path, check=True, upgrade=True)
    assert len(served.asked) > asked
    assert "early" in lock(wish("tool", "early"), tmp_path)


@needs_apt
def test_check_tells_what_a_lock_is_not_for_and_asks_nobody(served, wish, tmp_path):
    before = lock(wish("tool"), tmp_path)
    asked = len(served.asked)
    for names, change, said in (
        (["leaf"], {}, 'packages = ["leaf"]'),
        (["tool"], {"more": 'apt-snapshot = "20260101T000000Z"'}, 'snapshot = "20260101T000000Z"'),
        (["tool"], {"text": FROM.replace("b", "c")}, f'base = "{BASE.replace("b", "c")}"'),
        (["tool"], {"platforms": ["linux/amd64", "linux/arm64"]}, 'platform = "linux/arm64"'),
    ):
        text = apt.locks(wish(*names, **change), {}, lambda _: base(), tmp_path, check=True)["images/tool/apt.lock"]
        assert set(text.splitlines()) - set(before.splitlines()) >= {said}
    assert len(served.asked) == asked


@needs_apt
def test_a_dockerfile_that_is_about_to_be_written_counts(served, wish, tmp_path):
    text = FROM.replace("b", "c")
    made = apt.locks(wish("leaf"), {"images/tool/Dockerfile": text}, lambda _: base(), tmp_path / "x")
    assert "c" * 64 in made["images/tool/apt.lock"]


# --- the chain from the signature to the files ----------------------------------------------------------


@needs_apt
@pytest.mark.parametrize("keyring", ["another.gpg"])
def test_a_signature_of_somebody_else(served, wish, tmp_path, keyring):
    with pytest.raises(DigestMismatch, match="can't be trusted"):
        lock(wish("tool"), tmp_path, base(keyring))


@needs_apt
@pytest.mark.parametrize("without", [b"Hash: SHA256", b"-----BEGIN PGP SIGNATURE-----"])
def test_an_index_that_was_changed_after_it_was_signed(served, wish, tmp_path, without):
    path = "/debian/dists/hamlet/InRelease"
    served.files[path] = served.files[path].replace(b"Label: Test", b"Label: Tost")
    if without != b"Hash: SHA256":
        served.files[path] = served.files[path].partition(without)[0]
    with pytest.raises((DigestMismatch, IndexFailed), match=r"sign|clearsigned"):
        lock(wish("tool"), tmp_path)


@needs_apt
def test_an_unsigned_archive_needs_a_word_of_the_user(served, wish, tmp_path, monkeypatch):
    release = (HERE / "InRelease").read_bytes().partition(b"\n\n")[2].partition(b"-----BEGIN")[0]
    del served.files["/debian/dists/hamlet/InRelease"]
    served.files["/debian/dists/hamlet/Release"] = release
    with pytest.raises((DigestMismatch, IndexFailed), match="sign"):
        lock(wish("tool"), tmp_path)
    listed(tmp_path, monkeypatch, f"deb [trusted=yes] {served.url}/debian hamlet main")
    assert "tool-lib" in lock(wish("tool"), tmp_path)


@needs_apt
def test_a_list_of_packages_with_another_hash(served, wish, tmp_path):
    (path,) = (each for each in served.files if "by-hash" in each)
    served.files[path] = served.files[path].replace(b"pool", b"loop")
    with pytest.raises(DigestMismatch, match="hash"):
        lock(wish("tool"), tmp_path)


@needs_apt
def test_a_base_without_keys_is_refused_where_the_machine_has_none(served, wish, tmp_path):
    tree = base("", release="ID=elsinore\nVERSION_CODENAME=hamlet\n")
    with pytest.raises(BadInput, match="keys of elsinore"):
        lock(wish("tool"), tmp_path, tree)


@needs_apt
def test_an_archive_that_does_not_answer(served, wish, tmp_path):
    served.answer("GET", "InRelease|Release", 503, times=20)
    with pytest.raises(IndexFailed, match="can't use an archive"):
        lock(wish("tool"), tmp_path)


@pytest.mark.parametrize("path", ["etc", "x"])
def test_a_base_that_is_no_debian(wish, tmp_path, path):
    with pytest.raises(BadInput, match="os-release"):
        lock(wish("tool"), tmp_path, Nodes({path: Node(path, "directory", 0o755, 0)}))


@needs_apt
def test_what_could_not_be_read_again_is_not_written(served, wish, tmp_path, monkeypatch):
    (path,) = (each for each in served.files if "by-hash" in each)
    index = served.files[path].replace(b"pool/main/t/tool/", b"pool/main/../../")
    served.files[path] = index
    listed(tmp_path, monkeypatch, f"deb [trusted=yes] {served.url}/debian hamlet main")
    release = (HERE / "InRelease").read_text().partition("\n\n")[2].partition("SHA256:")[0]
    digest = hashlib.sha256(index).hexdigest()
    served.files["/debian/dists/hamlet/Release"] = (
        f"{release}SHA256:\n {digest} {len(index)} main/binary-amd64/Packages\n".encode()
    )
    served.files[f"/debian/dists/hamlet/main/binary-amd64/by-hash/SHA256/{digest}"] = index
    del served.files["/debian/dists/hamlet/InRelease"]
    with pytest.raises(BadInput, match="What the archive offers"):
        lock(wish("tool"), tmp_path)


@needs_apt
@pytest.mark.parametrize("status", ["\n", "nonsense\n\n\0"])
def test_a_base_whose_database_is_damaged(served, wish, tmp_path, status):
    with pytest.raises(BadInput, match="dpkg/status"):
        lock(wish("tool"), tmp_path, base(status=status))


# --- fetching ---------------------------------------------------------------------------------------------


def closure_of(*names):
    packages = tuple(map(package, names))
    return Closure(AMD64, Digest.parse(BASE), ("hamlet",), (Step("unpack", names),), packages)


def test_files_come_once_and_are_checked_each_time(served):
    first = apt.fetch(closure_of("tool", "leaf"))
    assert {each.name: path.read_bytes() for each, path in first.items()} == {
        name: ARCHIVE["content"](name) for name in ("tool", "leaf")
    }
    served.files.clear()
    assert apt.fetch(closure_of("tool")) == {package("tool"): first[package("tool")]}
    first[package("leaf")].write_bytes(b"x" * package("leaf").size)
    with pytest.raises(IndexFailed, match="leaf"):
        apt.fetch(closure_of("leaf"))


def test_a_plus_sign_is_written_so_that_no_server_reads_a_space(served):
    apt.fetch(closure_of("tool"))
    assert served.asked_for("GET", r"tool_1\.0%2Bb1_amd64\.deb$")


@pytest.mark.parametrize("alter", [lambda data: data[:-1] + b"?", lambda data: data + b"?"])
def test_a_file_with_another_hash_is_not_taken(served, alter):
    served.fail("GET", "tool", alter=alter, times=9)
    with pytest.raises(DigestMismatch, match=r"tool_1%3a1\.0\+b1_amd64\.deb"):
        apt.fetch(closure_of("tool"))
    assert list(Path(os.environ["REPROBUILD_CACHE_DIR"]).rglob("tool_*")) == []


def test_a_broken_download_goes_on_where_it_broke(served):
    served.fail("GET", "tool", cut_after=100)
    (path,) = apt.fetch(closure_of("tool")).values()
    assert path.read_bytes() == ARCHIVE["content"]("tool")
    assert [each.headers.get("Range") for each in served.asked_for("GET", "tool")] == [None, "bytes=100-"]


def test_a_file_that_is_gone_is_named_with_what_can_be_done(served):
    del served.files[at("tool")]
    with pytest.raises(IndexFailed, match=r"tool 1:1\.0\+b1 \(amd64\)") as raised:
        apt.fetch(closure_of("tool"))
    assert "lock --upgrade" in raised.value.remedy
    assert "snapshot" in raised.value.remedy


def test_a_second_archive_may_have_what_the_first_lacks(served, tmp_path, monkeypatch):
    lines = [f"deb {served.url}/{name} {{codename}} main" for name in ("security", "broken", "debian")]
    listed(tmp_path, monkeypatch, *lines)
    served.files["/broken/" + quote(ARCHIVE["path"]("tool"))] = b"x" * package("tool").size
    (path,) = apt.fetch(closure_of("tool")).values()
    assert path.read_bytes() == ARCHIVE["content"]("tool")


def test_a_server_that_forbids_is_no_archive_that_lacks(served):
    served.answer("GET", "tool", 403)
    with pytest.raises(IndexFailed, match="answered 403"):
        apt.fetch(closure_of("tool"))


# --- where the archive is ---------------------------------------------------------------------------------


@needs_apt
def test_a_snapshot_goes_where_the_address_has_a_date(served, wish, tmp_path, monkeypatch):
    listed(tmp_path, monkeypatch, f"deb {served.url}/{{date}}/debian {{codename}} main", "# a comment", "")
    served.files |= {f"/20260101T000000Z{path}": data for path, data in served.files.items()}
    config = wish("tool", more='apt-snapshot = "20260101T000000Z"')
    assert 'snapshot = "20260101T000000Z"' in lock(config, tmp_path)
    apt.context(config.root / "images/tool/apt.lock", tmp_path / "context", AMD64, settings=config.images[0])
    assert all(each.path.startswith("/20260101T000000Z/") for each in served.asked)


def test_a_date_needs_a_snapshot_and_a_snapshot_a_date(tmp_path, monkeypatch):
    listed(tmp_path, monkeypatch, "deb http://example.org/{date} hamlet main")
    with pytest.raises(BadInput, match="names no snapshot"):
        sources("debian", "hamlet")
    assert sources("debian", "hamlet", "20260101T000000Z")[0].address == "http://example.org/20260101T000000Z"
    assert addresses("") == ()
    listed(tmp_path, monkeypatch, "deb http://example.org/ hamlet main")
    with pytest.raises(BadInput, match="20260101T000000Z"):
        sources("debian", "hamlet", "20260101T000000Z")
    assert addresses("20260101T000000Z") == ("http://example.org",)


@pytest.mark.parametrize(
    "line", ["deb", "deb file:/srv hamlet main", "http://example.org hamlet main", "deb http://x y"]
)
def test_a_line_that_is_no_source(tmp_path, monkeypatch, line):
    listed(tmp_path, monkeypatch, "deb-src http://example.org hamlet main", line)
    with pytest.raises(BadInput, match=r"sources\.list:2"):
        sources("debian", "hamlet")


def test_without_a_file_and_without_apt(monkeypatch):
    monkeypatch.delenv(SOURCES, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissing, match="apt-get"):
        addresses("")


@needs_apt
def test_the_machines_suites_stand_for_those_of_another_release(monkeypatch):
    monkeypatch.delenv(SOURCES, raising=False)
    release = {"ID": "debian", "VERSION_CODENAME": "old"}
    said = """\
'http://one.example/debian/dists/old/InRelease' x 0
'http://one.example/debian/dists/old-updates/InRelease' x 0
'http://two.example/sec/dists/old-security/InRelease' x 0
'http://other.example/dists/old/InRelease' x 0
'http://one.example/debian/dists/old/main/binary-amd64/Packages.xz' x 0
'http://one.example/debian/dists/old/contrib/binary-amd64/Packages.xz' x 0
'http://other.example/dists/old/stable/binary-amd64/Packages.xz' x 0
"""
    monkeypatch.setattr(process, "run", lambda *_, **__: process.Completed(said.encode(), ""))
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    found = [(each.address, each.suite, each.components) for each in sources("debian", "new")]
    assert found == [
        ("http://one.example/debian", "new", "main contrib"),
        ("http://one.example/debian", "new-updates", "main"),
        ("http://two.example/sec", "new-security", "main"),
    ]
    with pytest.raises(BadInput, match="ubuntu noble"):
        sources("ubuntu", "noble")


# --- the context ------------------------------------------------------------------------------------------


@pytest.fixture
def locked(served, wish):
    """A lock without apt: its path, and the project."""
    config = wish("tool")
    steps = (Step("unpack", ("tool-lib", "tool")), Step("configure", ("tool-lib", "tool")))
    closure = Closure(AMD64, Digest.parse(BASE), ("hamlet",), steps, (package("tool"), package("tool-lib")))
    path = config.root / "images/tool/apt.lock"
    path.write_text(AptLock(("tool",), "", (closure,)).text("tool"))
    return path, config


def test_a_context_is_a_function_of_its_lock(locked, tmp_path):
    path, config = locked
    before = os.umask(0o077)
    try:
        one = apt.context(path, tmp_path / "one", AMD64, settings=config.images[0])
    finally:
        os.umask(before)
    two = apt.context(path, tmp_path / "two", AMD64)
    assert content_of(one) == content_of(two)
    assert sorted(content_of(one)) == [
        "architecture",
        "debs",
        "debs/tool-lib_1.5_all.deb",
        "debs/tool_1%3a1.0+b1_amd64.deb",
        "install",
        "order",
    ]
    assert (one / "order").read_text() == (
        "unpack tool-lib_1.5_all.deb tool_1%3a1.0+b1_amd64.deb\nconfigure tool-lib tool\n"
    )
    assert {each.stat().st_mtime for each in one.rglob("*")} == {315_532_800}
    assert (one / "install").stat().st_mode & 0o777 == 0o755


def test_a_context_wants_a_lock_that_is_for_it(locked, wish, tmp_path):
    path, _ = locked
    with pytest.raises(LockStale, match=r"apt\.lock"):
        apt.context(path, tmp_path / "one", AMD64, settings=wish("tool", "leaf").images[0])
    with pytest.raises(LockStale, match=r"apt\.lock"):
        apt.context(path, tmp_path / "one", AMD64, settings=wish("tool", text=FROM.replace("b", "c")).images[0])
    with pytest.raises(BadInput, match="linux/arm64"):
        apt.context(path, tmp_path / "one", ARM64)
    path.unlink()
    with pytest.raises(LockMissing, match=r"apt\.lock"):
        apt.context(path, tmp_path / "one", AMD64)
    assert not (tmp_path / "one").exists()


# --- the lock as a file -------------------------------------------------------------------------------------


def test_a_lock_says_what_was_written(locked):
    path, _ = locked
    text = path.read_text()
    assert AptLock.parse(text, "apt.lock").text("tool") == text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1\n", "version = 2\n"),
        ("version = 1\n", "version = 1\nversion"),
        ('packages = ["tool"]', 'packages = ["-o=x"]'),
        ('packages = ["tool"]', 'packages = "tool"'),
        ('packages = ["tool"]', 'packages = ["tool"]\nsnapshot = "yesterday"'),
        ('path = "pool/', 'path = "../'),
        ('path = "pool/', 'path = "pool/../../'),
        ('path = "pool/', 'path = "/pool/'),
        ('path = "pool/', 'path = "http://example.org/'),
        ('name = "tool-lib"', 'name = "tool"'),
        ('name = "tool-lib"', 'name = "../tool"'),
        ('version = "1.5"', 'version = "1.5/x"'),
        ('architecture = "all"', 'architecture = "a b"'),
        ("size = 850", "size = -1"),
        ("size = 850", 'size = "850"'),
        ('sha256 = "', 'sha256 = "x'),
        ('"unpack tool-lib tool"', '"unpack tool-lib"'),
        ('"unpack tool-lib tool"', '"unpack tool-lib tool other"'),
        ('"configure tool-lib tool"', '"remove tool-lib tool"'),
        ('"configure tool-lib tool"', '"configure $(reboot)"'),
        ('platform = "linux/amd64"', 'platform = "linux"'),
        (BASE, "sha256:0"),
        ("[[images]]", "[images]"),
    ],
)
def test_a_lock_that_could_mean_something_else_is_refused(locked, old, new):
    text = locked[0].read_text()
    assert old in text
    with pytest.raises(BadInput):
        AptLock.parse(text.replace(old, new), "apt.lock")


def test_a_lock_with_two_of_one_name_is_refused(locked):
    text = locked[0].read_text().replace("tool-lib", "tool")
    with pytest.raises(BadInput, match="twice"):
        AptLock.parse(text, "apt.lock")


def test_platforms_may_change_places(locked):
    (one,) = AptLock.parse(locked[0].read_text(), "apt.lock").closures
    two = dataclasses.replace(one, platform=Platform("linux", "arm64", "v8"))
    text = AptLock(("tool",), "", (one, two)).text("tool")
    assert AptLock(("tool",), "", (two, one)).text("tool") == text
    lock = AptLock.parse(text, "apt.lock")
    assert lock.fulfils(Wanted(("tool",), "", {two.platform: two.base, AMD64: one.base}))
    assert lock.closure(ARM64, "apt.lock") == lock.closures[1]


def test_a_lock_fulfils_its_own_wish_and_no_other(locked):
    lock = AptLock.parse(locked[0].read_text(), "apt.lock")
    wanted = Wanted(("tool",), "", {AMD64: Digest.parse(BASE)})
    assert lock.fulfils(wanted)
    other = Digest.parse(BASE.replace("b", "c"))
    changes: tuple[dict[str, Any], ...] = (
        {"packages": ("leaf",)},
        {"snapshot": "20260101T000000Z"},
        {"bases": {AMD64: other}},
        {"bases": {AMD64: Digest.parse(BASE), ARM64: other}},
        {"bases": {}},
    )
    for change in changes:
        assert not lock.fulfils(dataclasses.replace(wanted, **change))


# --- the Dockerfile and pyproject.toml ------------------------------------------------------------------------


def base_in(text):
    return apt.base_of(dockerfile.parse(text, "Dockerfile"), AMD64).reference


def test_the_base_is_that_of_the_stage_that_installs():
    other = FROM.replace("b", "d").replace("base:1", "run:1")
    assert base_in(FROM) == f"example.org/base:1@{BASE}"
    assert base_in(FROM.replace("\n", " AS one\n") + RUN + other) == f"example.org/base:1@{BASE}"
    assert (
        base_in(FROM.replace("\n", " AS one\n") + "FROM one AS two\nFROM two\n" + RUN) == f"example.org/base:1@{BASE}"
    )
    assert base_in(f"ARG B=example.org/base:1@{BASE}\nFROM $B\n{RUN}") == f"example.org/base:1@{BASE}"


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("FROM scratch\n" + RUN, BadInput, "scratch"),
        ("FROM example.org/base:1\n" + RUN, LockStale, "no digest"),
        (FROM + RUN + FROM.replace("b", "c") + RUN, BadInput, "one base"),
    ],
)
def test_a_dockerfile_whose_base_is_of_no_use(text, kind, reason):
    with pytest.raises(kind, match=reason):
        base_in(text)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ('apt = "git"', "list of strings"),
        ('apt = ["git=1.0"]', "not the name"),
        ('apt = ["--reinstall"]', "not the name"),
        ('apt = ["git"]\napt-snapshot = "2026-11-01"', "not a snapshot"),
        ('apt-snapshot = "20261101T000000Z"', "no apt"),
        ('atp = ["git"]', "no key 'atp'"),
        ('apt = ["git"]\napt-snapshots = "20261101T000000Z"', "no key 'apt-snapshots'"),
    ],
)
def test_a_table_that_has_no_meaning(tmp_path, table, reason):
    (tmp_path / "pyproject.toml").write_text(f"[tool.reprobuild.images.tool]\n{table}\n")
    with pytest.raises(BadInput, match=reason) as raised:
        project.load(tmp_path)
    assert raised.value.remedy or "list of strings" in reason
