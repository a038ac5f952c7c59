"""Which of some locked distributions depends on which, by their own metadata. No I/O.

An edge is there where a requirement (PEP 508) asks for it in at least one of the environments that are meant. What
the metadata doesn't tell isn't guessed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from reprobuild.errors import BadInput
from reprobuild.lockfile import holds
from reprobuild.project import requirement_of

#: Beyond this many characters reading requirements would take minutes.
_LIMIT = 1 << 19


@dataclass(frozen=True)
class Node:
    """A distribution.

    Attributes:
        ref: unlike that of any other.
        name: normalised.
        requires: its requirements; None where they aren't known.
        extras: of its own that are wanted, beyond what the others ask of it.
    """

    ref: str
    name: str
    version: Version | None
    requires: tuple[str, ...] | None
    extras: frozenset[str] = frozenset()

    @cached_property
    def requirements(self) -> tuple[Requirement, ...] | None:
        """The requirements as values; None where one of them can't be read."""
        if self.requires is None or sum(map(len, self.requires)) > _LIMIT:
            return None
        try:
            return tuple(map(requirement_of, self.requires))
        except ValueError:
            return None

    def suits(self, requirement: Requirement) -> bool:
        """Whether it is what a requirement for its name means."""
        return self.version is None or requirement.specifier.contains(self.version, prereleases=True)


@dataclass(frozen=True, slots=True)
class Graph:
    """What depends on what.

    Attributes:
        edges: a ref that isn't there is of a node whose requirements aren't known.
        incomplete: refs of nodes that ask for more than there is.
    """

    edges: Mapping[str, frozenset[str]]
    incomplete: frozenset[str]


def resolve(nodes: Iterable[Node], environments: Sequence[Mapping[str, str]]) -> Graph:
    """The graph of some nodes, whatever order they come in.

    Args:
        environments: the markers of each environment that is meant (PEP 508).
    """
    return _Resolver(tuple(nodes), environments).run()


class _Resolver:
    def __init__(self, nodes: tuple[Node, ...], environments: Sequence[Mapping[str, str]]) -> None:
        self._nodes = nodes
        self._environments = environments
        self._extras = {each.ref: {"", *map(canonicalize_name, each.extras)} for each in nodes}
        self._by_name: dict[str, list[Node]] = {}
        for each in nodes:
            self._by_name.setdefault(each.name, []).append(each)
        self._held: dict[tuple[str, str], bool] = {}

    def run(self) -> Graph:
        edges: dict[str, set[str]] = {}
        incomplete: set[str] = set()
        waiting = {each.ref: each for each in self._nodes if each.requirements is not None}
        while waiting:  # an extra that somebody asks for later has the one who has it looked at again
            _, node = waiting.popitem()
            found = edges.setdefault(node.ref, set())
            for requirement in node.requirements or ():
                if not self._applies(requirement, self._extras[node.ref]):
                    continue
                targets = self._targets(node, requirement)
                if not targets:
                    incomplete.add(node.ref)
                found.update(each.ref for each in targets if each is not node)
                for each in targets:
                    if self._add_extras(each, requirement) and each.requirements is not None:
                        waiting[each.ref] = each
        return Graph({ref: frozenset(targets) for ref, targets in edges.items()}, frozenset(incomplete))

    def _targets(self, node: Node, requirement: Requirement) -> list[Node]:
        name = canonicalize_name(requirement.name)
        if name == node.name:  # some of its own extras
            return [node]
        return [each for each in self._by_name.get(name, ()) if each.suits(requirement)]

    def _add_extras(self, node: Node, requirement: Requirement) -> bool:
        known = self._extras[node.ref]
        before = len(known)
        known.update(map(canonicalize_name, requirement.extras))
        return len(known) > before

    def _applies(self, requirement: Requirement, extras: Iterable[str]) -> bool:
        return requirement.marker is None or any(self._holds(requirement, extra) for extra in extras)

    def _holds(self, requirement: Requirement, extra: str) -> bool:
        marker = requirement.marker
        assert marker is not None  # noqa: S101 - the only caller has asked
        key = str(marker), extra
        if key not in self._held:
            self._held[key] = any(self._true(requirement, {**each, "extra": extra}) for each in self._environments)
        return self._held[key]

    @staticmethod
    def _true(requirement: Requirement, markers: Mapping[str, str]) -> bool:
        try:
            return requirement.marker is None or holds(requirement.marker, markers)
        except BadInput:  # a marker that has no meaning asks for nothing
            return False
