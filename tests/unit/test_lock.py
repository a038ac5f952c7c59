from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from reprobuild import lock
from reprobuild.errors import BadInput, BuildFailed
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
    return lock._Resolver(config, own, "", Upgrade(), tmp_path, tmp_path, SILENT, tmp_path)


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
def test_uv_builds_nothing_to_resolve_what_a_stranger_requires(resolver, monkeypatch, trusted):
    seen = []

    def run(_self, argv, folder, _stdin):
        seen.append(argv)
        (folder / lock.BUILD_LOCK).touch()

    monkeypatch.setattr(lock._Resolver, "_run_uv", run)
    replace(resolver, trusted=trusted).build([Requirement("alpha")])
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

    class Index:
        def __init__(self, project, observer):
            pass

        def choose(self, pins, interpreter):
            return ()

    monkeypatch.setattr(lock._Resolver, "_compile", compile_)
    monkeypatch.setattr(lock, "Index", Index)
    monkeypatch.setattr(lock, "_sdists_require", lambda *_: [Requirement(name) for name in ("z", "y", "x", "alpha")])
    monkeypatch.setattr(lock, "_project_requires", lambda *_: ())
    lock._build_lock(resolver, Source("folder", tmp_path, 0, {}), tmp_path)
    assert asked == [["zeta", "alpha"], ["zeta", "alpha", "x", "y", "z"]]


def test_a_backend_that_always_wants_more_is_told_so(resolver, monkeypatch, tmp_path):
    numbers = iter(range(100))
    monkeypatch.setattr(lock._Resolver, "_compile", lambda *_, **__: "")
    monkeypatch.setattr(lock, "Index", lambda *_, **__: SimpleNamespace(choose=lambda *_: ()))
    monkeypatch.setattr(lock, "_sdists_require", lambda *_: [Requirement(f"more{next(numbers)}")])
    with pytest.raises(BuildFailed, match=r"don't come to an end: .* asks for more7"):
        lock._build_lock(resolver, Source("folder", tmp_path, 0, {}), tmp_path)
