"""Which wheels share a layer: a function of each wheel alone as far as the limits allow.

A layer that stays the same is neither built, pushed nor pulled again, so a change should touch few. A heavy wheel has
a layer to itself. A small one goes to one of a fixed number of shared layers, which its name alone decides: a wheel
that is added, changed or dropped touches only the layer that it is in. The project's own wheel, which changes with each
commit, is last.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reprobuild.errors import BadInput, shown
from reprobuild.image.environment import Environment, InstalledWheel
from reprobuild.index import LockedFile
from reprobuild.oci.layer import packed_size
from reprobuild.oci.tree import Node

#: Layers of an image, those of the base included; storage drivers stop at about 127.
MOST_LAYERS = 100
#: Bytes of a layer, uncompressed; some registries refuse larger ones than 8 GB, and what fails is sent anew as a whole.
LARGEST_LAYER = 4 << 30
#: Bytes of a wheel's files from which on it has a layer to itself.
HEAVY = 16 << 20
_SHARED = 8


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What goes into one layer.

    Attributes:
        wheels: whose files they are; none in the skeleton's layer. A wheel that is too large for one layer is in
            several, each with a part of its files.
        cut: what is in it, where that isn't all of the wheels.
    """

    wheels: tuple[InstalledWheel, ...]
    cut: tuple[Node, ...] | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Sorted by path. Raises as :attr:`InstalledWheel.nodes`."""
        if self.cut is not None:
            return self.cut
        found: dict[str, Node] = {}
        for wheel in self.wheels:
            for node in wheel.nodes:
                found.setdefault(node.path, node)  # two wheels may have the same file
        return tuple(found[path] for path in sorted(found))


def plan(
    environment: Environment,
    *,
    others: int = 0,
    most: int = MOST_LAYERS,
    largest: int = LARGEST_LAYER,
    heavy: int = HEAVY,
) -> tuple[LayerPlan, ...]:
    """The layers of an environment, lowest first: the skeleton, heavy wheels, shared ones, the project's own.

    Args:
        others: layers that the image has besides: those of the base, and what else the Dockerfile adds.
        most: layers that the image may have.
        largest: bytes that one layer may have, uncompressed.
        heavy: bytes of a wheel that has a layer to itself.

    Raises:
        BadInput: it doesn't fit.
    """
    own = [wheel for wheel in environment.wheels if wheel.own]
    locked = sorted((wheel for wheel in environment.wheels if not wheel.own), key=lambda each: each.file)
    room = most - others - 1 - len(own)
    if room < bool(locked):
        raise BadInput(
            f"An image of {most} layers has no room for an environment beside {others} others.",
            "Take a base with fewer layers.",
        )
    alone = _alone(locked, room, heavy)
    groups = [[wheel] for wheel in locked if wheel.file in alone]
    shared = _shared([wheel for wheel in locked if wheel.file not in alone], min(_SHARED, room - len(groups)))
    layers = [LayerPlan((), environment.skeleton)]
    for group in (*groups, *shared, *([wheel] for wheel in own)):
        layers += _cut(group, largest)
    if len(layers) + others > most:
        raise BadInput(
            f"The image would have {len(layers) + others} layers, more than {most}.",
            "Take a base with fewer layers, or allow larger ones.",
        )
    return tuple(layers)


def _alone(wheels: Sequence[InstalledWheel], room: int, heavy: int) -> set[LockedFile]:
    """The wheels that have a layer to themselves; where there isn't room for all heavy ones, the heaviest."""
    ranked = [wheel.file for wheel in sorted(wheels, key=lambda each: (-each.size, each.file)) if wheel.size >= heavy]
    kept_free = _SHARED if len(ranked) < len(wheels) else 0
    return set(ranked if len(ranked) + kept_free <= room else ranked[: max(0, room - _SHARED)])


def _shared(wheels: Iterable[InstalledWheel], count: int) -> list[list[InstalledWheel]]:
    """Wheels in up to ``count`` groups, each in the one that its name says."""
    groups: dict[int, list[InstalledWheel]] = {}
    for wheel in wheels:
        number = int.from_bytes(hashlib.sha256(wheel.file.name.encode()).digest()[:8], "big") % count
        groups.setdefault(number, []).append(wheel)
    return [groups[number] for number in sorted(groups)]


def _cut(group: Sequence[InstalledWheel], largest: int) -> Iterator[LayerPlan]:
    """One layer of some wheels, or as many as it takes."""
    whole = LayerPlan(tuple(group))
    if sum(wheel.listing.packed for wheel in group) <= largest or packed_size(whole.nodes) <= largest:
        yield whole
    else:
        yield from _cut_up(group, largest)


def _cut_up(group: Sequence[InstalledWheel], largest: int) -> Iterator[LayerPlan]:
    """Several layers of some wheels: each with some of the files, and the folders above them."""
    folders = {node.path: node for wheel in group for node in wheel.nodes if node.kind == "directory"}
    wheels: list[InstalledWheel] = []
    nodes: dict[str, Node] = {}
    size = 0
    for wheel in group:
        for node in wheel.nodes:
            if node.kind == "directory":
                continue
            needed = [node, *_above(node.path, folders)]
            if size + packed_size(each for each in needed if each.path not in nodes) > largest and nodes:
                yield LayerPlan(tuple(wheels), tuple(nodes[path] for path in sorted(nodes)))
                wheels, nodes, size = [], {}, 0
            new = [each for each in needed if each.path not in nodes]
            size += packed_size(new)
            if size > largest:
                raise BadInput(
                    f"{shown(node.path)} from {wheel.file.filename} is larger than a layer may be ({largest} bytes).",
                    "Allow larger layers.",
                )
            nodes.update((each.path, each) for each in new)
            if wheel not in wheels[-1:]:
                wheels.append(wheel)
    if nodes:
        yield LayerPlan(tuple(wheels), tuple(nodes[path] for path in sorted(nodes)))


def _above(path: str, folders: Mapping[str, Node]) -> Iterator[Node]:
    while (path := path.rpartition("/")[0]) in folders:
        yield folders[path]
