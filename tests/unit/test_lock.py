import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from packaging.requirements import Requirement

from reprobuild import lock, lockfile, process
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed
from reprobuild.index import Index, LockedFile
from reprobuild.interpreter import Interpreter
from reprobuild.lock import Upgrade
from reprobuild.progress import SILENT
from reprobuild.project import load
from reprobuild.source import Source

HASH = "sha256:" + "a" * 64


@pytest.fixture
def config(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = ["zeta", "alpha"]\n[project]\nname = "demo"\n')
    return load(tmp_path)


@pytest.fixture
def resolver(config, tmp_path):
    own = Interpreter(Path("/python"), "3.12.1", "cpython", "linux-x86_64", Path("/usr"), "1.3", "cc", (), {})
    index = cast("Index", SimpleNamespace(choose=lambda *_: ()))
    return lock._Resolver(config, own, "", Upgrade(), tmp_path, tmp_path, SILENT, tmp_path, index)


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://user:pass@own.example/x.whl", True),
        ("https://t0ken@own.example/x.whl", True),
        ("https://own.example/x@1.0.whl", False),
    ],
)
def test_a_pylock_holds_no_credential(resolver, monkeypatch, url, refused):
    text = f'wheels = [{{ url = "{url}" }}]\n'
    monkeypatch.setattr(lock._Resolver, "_compile", lambda *_, **__: text)
    if not refused:
        assert resolver.pylock(resolver.config.selections[0], "") == text
        return
    with pytest.raises(BadInput, match="credential"):
        resolver.pylock(resolver.config.selections[0], "")


def test_a_url_is_refused_before_uv_could_run_what_is_there(resolver, monkeypatch):
    asked = []
    monkeypatch.setattr(lock._Resolver, "_compile", lambda *arguments, **_: asked.append(arguments))
    with pytest.raises(BadInput, match="is a URL"):
        resolver.build([Requirement("evil @ file:///tmp/evil-1.0.tar.gz")])
    assert asked == []


@pytest.mark.parametrize("trusted", [True, False])
def test_uv_builds_nothing_to_resolve_what_a_stranger_requires(resolver, monkeypatch, tmp_path, trusted):
    seen = []

    def run(_self, argv, folder, _stdin):
        seen.append(argv)
        (folder / lock.BUILD_LOCK).touch()

    monkeypatch.setattr(lock._Resolver, "_run_uv", run)
    stand_ins = None if trusted else lock._StandIns(resolver.index, resolver.interpreter, tmp_path, lock.Known())
    replace(resolver, stand_ins=stand_ins).build([Requirement("alpha")])
    assert ("--no-build" in seen[0]) is not trusted


@pytest.mark.parametrize("body", ["demo @ https://user:s3cret@own.example/x.whl", "# via https://own.example"])
def test_a_lock_holds_no_url(resolver, monkeypatch, body):
    monkeypatch.setattr(lock._Resolver, "_compile", lambda *_, **__: f"{body}\n")
    for make in (lambda: resolver.build([]), lambda: resolver.runtime(resolver.config.selections[0])):
        with pytest.raises(BadInput, match="is a URL") as caught:
            make()
        assert "s3cret" not in caught.value.reason


def test_what_backends_ask_for_is_resolved_in_one_order(resolver, monkeypatch, tmp_path):
    """uv decides first what it reads first: the order may change what it finds."""
    asked = []

    def compile_(self, inputs, options, output, *, stdin=""):
        asked.append(stdin.split())
        return f"alpha==1 --hash={HASH}\n"

    monkeypatch.setattr(lock._Resolver, "_compile", compile_)
    monkeypatch.setattr(lock, "_sdists_require", lambda *_: [Requirement(name) for name in ("z", "y", "x", "alpha")])
    monkeypatch.setattr(lock, "_project_requires", lambda *_: ())
    lock._build_lock(resolver, Source("folder", tmp_path, 0, {}), tmp_path)
    assert asked == [["zeta", "alpha"], ["zeta", "alpha", "x", "y", "z"]]


def test_a_backend_that_always_wants_more_is_told_so(resolver, monkeypatch, tmp_path):
    numbers = iter(range(100))
    monkeypatch.setattr(lock._Resolver, "_compile", lambda *_, **__: "")
    monkeypatch.setattr(lock, "_sdists_require", lambda *_: [Requirement(f"more{next(numbers)}")])
    with pytest.raises(BuildFailed, match=r"don't come to an end: .* asks for more7"):
        lock._build_lock(resolver, Source("folder", tmp_path, 0, {}), tmp_path)


# --- releases without a wheel ------------------------------------------------------------------------


class Releases:
    """An index of releases that are sdists alone, with what their requires.txt says, newest last."""

    def __init__(self, releases):
        self.releases = releases
        self.read = []
        self.limits = {}
        self.pythons = {}
        self.runs = 0

    def without_wheel(self, name, interpreter, before):
        self.limits[name] = before
        return {version: self.pythons.get(version, "") for version in self.releases.get(name, ())}

    def sdist_of(self, name, version):
        self.read.append(f"{name}=={version}")
        return LockedFile(name, version, f"{name}-{version}.tar.gz", Digest.of_bytes(name.encode()))

    def fetch(self, files, folder):
        for file in files:
            text = self.releases[file.name][file.version].encode()
            member = tarfile.TarInfo("demo/demo.egg-info/requires.txt")
            member.size = len(text)
            with tarfile.open(folder / file.filename, "w:gz") as tar:
                tar.addfile(member, io.BytesIO(text))


def settled(resolver, tmp_path, releases, wants, constraints="", pythons=()):
    """What the real uv makes of some requirements, without the network."""
    index = Releases(releases)
    index.pythons.update(pythons)
    known = lock.Known((), "2020-01-01T00:00:00Z", constraints)
    stand_ins = lock._StandIns(cast("Index", index), resolver.interpreter, tmp_path, known)
    target = tmp_path / "locked.txt"
    argv = ["uv", "pip", "compile", "-", "--no-build", "--no-index", "--generate-hashes", "--quiet", "--no-header"]
    argv += ["--python", sys.executable, "--output-file", str(target), "--find-links", str(stand_ins.folder)]
    argv += ["--annotation-style", "split", "--no-annotate"]

    def run():
        index.runs += 1
        # Without an index uv knows of no sdist, and so it doesn't say that it would have to build one.
        try:
            process.run(argv, cwd=tmp_path, env=process.tool_environment({}), stdin="\n".join(wants).encode())
        except process.ToolFailed as error:
            hints = "".join(f"Wheels are required for `{name}`\n" for name in releases if name in error.output)
            raise BuildFailed(f"{lock.UNRESOLVED}:\n{error.output}\n{hints}") from None
        return target.read_text()

    return stand_ins.settle(run, target), index


def test_what_a_release_without_a_wheel_requires_is_learnt_from_its_sdist(resolver, tmp_path):
    releases = {"demo": {"1.0": "", "2.0": "other\n", "3.0a1": ""}, "other": {"5": ""}}
    text, index = settled(resolver, tmp_path, releases, ["demo"])
    assert index.read == ["demo==2.0", "other==5"]
    assert lockfile.parse(text, "x").selected({}).keys() == {"demo", "other"}
    assert [str(each) for pin in lockfile.parse(text, "x").pins for each in pin.hashes] == [
        str(Digest.of_bytes(b"demo")),
        str(Digest.of_bytes(b"other")),
    ]
    assert index.limits == {"demo": "2020-01-01T00:00:00Z", "other": "2020-01-01T00:00:00Z"}


def test_only_releases_that_are_chosen_are_read(resolver, tmp_path):
    """A resolver that is offered releases which seem to need nothing would go back through all of them."""
    releases = {"demo": {f"{minor}.0": "other>1\n" for minor in range(20)}, "other": {"1": "", "5": ""}}
    text, index = settled(resolver, tmp_path, releases, ["demo"])
    assert index.read == ["demo==19.0", "other==5"]
    assert "demo==19.0" in text


def test_older_releases_are_offered_when_the_newest_do_not_do(resolver, tmp_path):
    releases = {"demo": {f"{minor}.0": "" for minor in range(20)}}
    text, index = settled(resolver, tmp_path, releases, ["demo<3"])
    assert "demo==2.0" in text
    assert index.read == ["demo==2.0"]


def test_an_old_release_is_reached_in_few_runs(resolver, tmp_path):
    _, index = settled(resolver, tmp_path, {"demo": {f"{minor}.0": "" for minor in range(60)}}, ["demo<1"])
    assert index.runs <= 10


def test_a_release_for_another_python_is_passed_over(resolver, tmp_path):
    pythons = {"2.0": ">=99"}
    text, index = settled(resolver, tmp_path, {"demo": {"1.0": "", "2.0": ""}}, ["demo"], pythons=pythons)
    assert "demo==1.0" in text
    assert index.read == ["demo==1.0"]


def test_requirements_without_end_are_given_up(resolver, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_RESOLUTIONS", 3)
    with pytest.raises(BuildFailed, match="too many releases without a wheel"):
        settled(resolver, tmp_path, {"a": {"1": "b\n"}, "b": {"1": "c\n"}, "c": {"1": ""}}, ["a"])


def test_a_release_that_nobody_has_ends_in_a_complaint(resolver, tmp_path):
    with pytest.raises(BuildFailed, match="can't resolve"):
        settled(resolver, tmp_path, {"demo": {"1.0": ""}}, ["demo>1"])


def test_a_release_whose_name_gets_too_long_is_passed_over(resolver, tmp_path):
    text, _ = settled(resolver, tmp_path, {"demo": {"1.0": "", f"2{'.0' * 118}": ""}}, ["demo"])
    assert "demo==1.0" in text


def test_what_is_named_is_not_limited_in_time(resolver, tmp_path):
    _, index = settled(resolver, tmp_path, {"demo": {"1.0": ""}}, ["demo"], constraints="Demo==1.0\n")
    assert index.limits == {"demo": ""}
