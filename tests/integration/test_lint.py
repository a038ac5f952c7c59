"""What the linter says is so: each defect makes two builds of a real BuildKit differ, its remedy makes them equal."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LAB = Path(__file__).parents[1] / "dockerfiles" / "lab.py"


def load() -> Any:
    """The module beside the fixtures, which is no package."""
    specification = importlib.util.spec_from_file_location("dockerfiles_lab", _LAB)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # its dataclasses look themselves up there
    specification.loader.exec_module(module)
    return module


pytestmark = pytest.mark.network  # pip for the base
lab = load()
SHOWN = [case for case in lab.cases() if not case.unshown]


@pytest.fixture(scope="module")
def laboratory(
    docker: dict[str, str], base_image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The engine, the servers and the bases, made once."""
    bases = {name: base_image(name) for name in ("busybox", "debian")}
    library = None if clock.why_not() else clock.preload("shifted")
    with lab.Lab(docker, bases, tmp_path_factory.mktemp("lab"), library).open() as opened:
        yield opened


@pytest.mark.parametrize("case", SHOWN, ids=lambda case: case.rule)
def test_the_defect_differs_and_the_remedy_does_not(case: Any, laboratory: Any, reprobuild: Any) -> None:
    if case.rule == "shadow-date" and (why := clock.why_not()):
        pytest.skip(f"no other day can be shown to a build: {why}")
    if case.needs and not shutil.which(case.needs):
        pytest.skip(f"there is no {case.needs} here to put into the base")
    made = laboratory.twice(case)
    good, good_again = made["good"]
    assert good.layers == good_again.layers
    if good.base == good_again.base:
        assert good.digest == good_again.digest
    bad, bad_again = made["bad"]
    assert bad.layers != bad_again.layers
    told = reprobuild("diff", bad.reference, bad_again.reference, code=None).stdout
    assert case.differs in told


def test_a_checksum_refuses_what_has_changed(laboratory: Any) -> None:
    """The other half of that remedy: what moved ends the build, and doesn't get into an image."""
    case = next(each for each in SHOWN if each.rule == "add-unverified")
    laboratory.serve(2)
    # BuildKit keeps what once had a hash: it has to be one that nothing here ever had.
    other = hashlib.sha256(b"the tool, release 3\n").hexdigest()
    with pytest.raises(RuntimeError, match="digest mismatch"):
        laboratory.build(case, "good", 2, lambda text: re.sub("[0-9a-f]{64} ", f"{other} ", text))


def test_what_no_build_shows_says_why() -> None:
    assert all(case.unshown or case.differs for case in lab.cases())
    assert {case.rule for case in lab.cases() if case.unshown} == {
        "cargo-unlocked", "conda-unlocked", "gem-unlocked", "go-moving", "npm-unlocked", "unpinned-frontend",
    }  # fmt: skip
