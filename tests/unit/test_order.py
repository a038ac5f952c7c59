"""The order of the tests where several workers share them, as xdist's own scheduler hands them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import WorkStealingScheduling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Item:
    """Of a test, what its place depends on."""

    path: Path
    name: str
    long: bool = False

    def get_closest_marker(self, name: str) -> object:
        return self.long and name == "long"


@dataclass(eq=False)
class Node:
    """A worker, which remembers what it was given."""

    gateway: Any = field(default_factory=lambda: SimpleNamespace(id="a worker"))
    shutting_down: bool = False
    given: list[int] = field(default_factory=list)

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        self.given += indices


@pytest.fixture
def deal(request: pytest.FixtureRequest) -> Callable[..., list[Item]]:
    """conftest.py's, which pytest has loaded."""
    found: Callable[..., list[Item]] = next(
        each.dealt for each in request.config.pluginmanager.get_plugins() if hasattr(each, "dealt")
    )
    return found


def rows(items: Sequence[Item], workers: int) -> list[list[Item]]:
    """What each worker is given at first."""
    scheduler = WorkStealingScheduling(SimpleNamespace(getvalue=lambda _: ["popen"] * workers))
    nodes: list[Any] = [Node() for _ in range(workers)]
    for node in nodes:
        scheduler.add_node(node)
        scheduler.add_node_collection(node, [f"{each.path}::{each.name}" for each in items])
    scheduler.schedule()
    return [[items[at] for at in node.given] for node in nodes]


def suite(long: int, slow: int, quick: int) -> list[Item]:
    """Long tests at the end of slow files of seven, and quick tests in files of ten."""
    places = [(f"tests/integration/test_{at // 7}.py", at) for at in range(slow)]
    places += [(f"tests/unit/test_{at // 10}.py", at) for at in range(quick)]
    found = [Item(Path(path), f"test_{at}") for path, at in places]
    return [*found, *(Item(Path("tests/integration/test_0.py"), f"test_long_{at}", long=True) for at in range(long))]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("counts", [(5, 35, 600), (2, 7, 101), (1, 0, 20), (0, 21, 0), (3, 0, 0), (9, 40, 11)])
def test_each_test_is_run_once(deal: Callable[..., list[Item]], counts: tuple[int, int, int], workers: int) -> None:
    items = suite(*counts)
    dealt = deal(items, workers)
    assert sorted(dealt, key=repr) == sorted(items, key=repr)


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_each_worker_begins_with_long_ones_and_ends_with_quick_ones(
    deal: Callable[..., list[Item]], workers: int
) -> None:
    given = rows(deal(suite(5, 35, 600), workers), workers)
    kinds = [["long" if each.long else each.path.parts[1] for each in row] for row in given]
    assert {row.count("long") for row in kinds} <= {5 // workers, 5 // workers + 1}
    for row in kinds:
        assert row == sorted(row, key=["long", "integration", "unit"].index)
        assert row[-1] == "unit"


def test_a_file_of_slow_tests_stays_together(deal: Callable[..., list[Item]]) -> None:
    """What its tests share is made once."""
    given = rows(deal(suite(0, 35, 600), 2), 2)
    for number in range(5):
        path = Path(f"tests/integration/test_{number}.py")
        assert sorted(sum(each.path == path for each in row) for row in given) == [0, 7]
