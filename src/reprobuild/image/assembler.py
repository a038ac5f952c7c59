"""An image put together from a base that isn't here, wheels and files: nothing is run, and no daemon is needed.

What lies in the base is never looked at, so the image is a function of what is named here by digest. Where Docker would
look (is the destination a folder already, which mode has the folder above it) the names that every Linux has stand in
for it: docs/adr/0012-images-without-their-base.md.
"""

import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.image.base import Base
from reprobuild.image.context import Nodes, Tree, owner_of, place
from reprobuild.image.environment import Environment, InstalledWheel
from reprobuild.image.listing import wheel_key
from reprobuild.image.plan import HEAVY, LARGEST_LAYER, MOST_LAYERS, LayerPlan, plan
from reprobuild.image.stages import BaseImage, Copy, Folder, ImageSpec, StageSpec, Step
from reprobuild.image.target import Target
from reprobuild.oci.layer import Compression
from reprobuild.oci.memo import layer_key
from reprobuild.oci.model import Json, Platform
from reprobuild.oci.tree import WHEEL_TIME, Node, Text

#: Folders that every Linux has, all of them root's with mode 755: what is put into them may say so again.
_STANDARD = frozenset(
    """etc home mnt opt srv usr usr/bin usr/lib usr/libexec usr/local usr/local/bin usr/local/etc usr/local/lib
    usr/local/sbin usr/local/share usr/sbin usr/share usr/src var var/cache var/lib var/log var/opt var/spool""".split()
)
#: Folders that are there too, but with another mode or owner, or whose content belongs to the kernel.
_SPECIAL = frozenset("boot dev media proc root run sys tmp var/mail var/tmp".split())
#: Links to other folders on a merged /usr, and the folders where they aren't.
_LINKS = 40
_AMBIGUOUS = frozenset("bin sbin lib lib32 lib64 libx32 var/run var/lock".split())
#: What the history says of a layer of folders alone.
_FOLDERS = "folders that the steps made or put something into"


@dataclass(frozen=True)
class Part:
    """What becomes one layer.

    Attributes:
        title: for the image's history.
        given: nodes that are at hand; they count where the wheels have other ones for the same paths.
        wheels: the wheels that the others come from.
        key: the digest of all that decides the layer's bytes; None where it would take reading the content.
        root: the folder that all files of the wheels are in.
    """

    title: str
    given: tuple[Node, ...] = field(repr=False)
    wheels: tuple[InstalledWheel, ...] = ()
    key: Digest | None = None
    root: str = ""
    of_wheels: Callable[[], Iterable[Node]] = field(default=tuple, repr=False, compare=False)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All of them. Raises as :attr:`InstalledWheel.nodes`."""
        if not self.wheels:
            return self.given
        return tuple({node.path: node for node in (*self.of_wheels(), *self.given)}.values())

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(wheel.size for wheel in self.wheels) or sum(n.content.size for n in self.given if n.content)


@dataclass(frozen=True, slots=True)
class Assembly:
    """An image before its layers are written.

    Attributes:
        base: None for an image from scratch.
        history: each step's text, and the parts that it added.
        environments: those that were copied into it, directly or through another stage.
    """

    platform: Platform
    epoch: int
    base: Base | None
    settings: Json
    author: str
    history: tuple[tuple[str, tuple[Part, ...]], ...]
    environments: tuple[Environment, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its own layers, lowest first."""
        return tuple(part for _, parts in self.history for part in parts)


@dataclass(frozen=True, slots=True)
class Origins:
    """Where an image's parts come from, each asked for when a step needs it.

    Attributes:
        context: the build context.
        base: an image's manifest and config.
        tree: the files of an image, for ``COPY --from``.
        environment: the locked environment, for a place in the image and the config of the base.
        complete: the same with the project's own wheel, which may have to be waited for; None where there is nothing
            to wait for.
    """

    context: Tree
    base: Callable[[BaseImage], Base]
    tree: Callable[[BaseImage], Tree]
    environment: Callable[[str, Base | None], Environment]
    complete: Callable[[Environment], Environment] | None = None


def assemble(
    spec: ImageSpec,
    origins: Origins,
    *,
    epoch: int,
    where: str,
    compression: Compression,
    ahead: Callable[[Sequence[Part]], object] = len,
) -> Assembly:
    """What an image consists of; nothing is written.

    Args:
        where: the Dockerfile, for messages.
        ahead: is given parts that the image will have, as far as can be seen, before something is waited for.

    Raises:
        BadInput: a step can't be carried out.
        And what the origins raise.
    """
    stages: list[_Stage] = []
    kept = kept_stages(spec.stages)
    for number, described in enumerate(spec.stages):
        start = stages[described.base] if isinstance(described.base, int) else None
        base = (
            origins.base(described.base) if isinstance(described.base, BaseImage) else (start.base if start else None)
        )
        told = ahead if number in kept else len
        stage = _Stage(described, base, origins, epoch, where, compression, start, told)
        for step in described.steps:
            stage.do(step, stages)
        stages.append(stage)
    done = stages[-1]
    history = done.finished()
    layers = (len(done.base.manifest.layers) if done.base else 0) + sum(len(parts) for _, parts in history)
    if layers > MOST_LAYERS:
        raise BadInput(f"{where}: the image has {layers} layers, more than {MOST_LAYERS}.", "Copy more in one step.")
    target = spec.target
    return Assembly(
        target.platform, epoch, done.base, target.settings, target.author, history, tuple(done.environments)
    )


def kept_stages(stages: Sequence[StageSpec]) -> set[int]:
    """The stages whose layers the image has: the last, and those that it starts from."""
    found, at = set[int](), len(stages) - 1
    while True:
        found.add(at)
        base = stages[at].base
        if not isinstance(base, int):
            return found
        at = base


class _Stage:
    """One stage while its steps are carried out."""

    def __init__(
        self,
        described: StageSpec,
        base: Base | None,
        origins: Origins,
        epoch: int,
        where: str,
        compression: Compression,
        start: "_Stage | None",
        ahead: Callable[[Sequence[Part]], object],
    ) -> None:
        self.base = base
        self.history: list[tuple[str, tuple[Part, ...]]] = list(start.history) if start else []
        self.environments: list[Environment] = list(start.environments) if start else []
        self.tree: _Files = _Files(start.tree if start else None)
        self._dated: set[str] = set(start._dated) if start else set()
        self._described = described
        self._origins, self._epoch, self._where, self._compression = origins, epoch, where, compression
        self._ahead = ahead

    def do(self, step: Step, stages: Sequence["_Stage"]) -> None:
        """Carry out one step."""
        if isinstance(step, Folder):
            self._date(self._made(step))
            self.history.append((step.text, ()))
        elif isinstance(step, Copy) and isinstance(step.origin, str):
            self._add_environment(step)
        elif isinstance(step, Copy):
            tree = self._tree_of(step, stages)
            placed = place(step, tree, epoch=self._epoch, where=self._where, follow=self._follow, read=self._read)
            parents = self._above(placed.parents, changed=bool(placed.nodes))
            nodes = [*map(self._real, placed.nodes)]
            if isinstance(step.origin, BaseImage):  # or else each commit would make another layer
                self._add(step, self._undated(placed.parents, parents, nodes), nodes)
            else:
                self.tree.add(parents)
                others = stages[step.origin].environments if isinstance(step.origin, int) else ()
                self.environments += [each for each in others if each not in self.environments]
                self._add(step, parents, nodes)
        else:
            self.history.append((step.text, ()))

    def _tree_of(self, step: Copy, stages: Sequence["_Stage"]) -> Tree:
        if isinstance(step.origin, int):
            stage = stages[step.origin]
            return _Known(stage.tree.all(), stage.base is not None, f"{self._where}:{step.line}")
        if isinstance(step.origin, BaseImage):
            return self._origins.tree(step.origin)
        return self._origins.context

    def _add(self, step: Step, above: Sequence[Node], nodes: Sequence[Node]) -> None:
        self.tree.add(nodes)
        there = (*above, *nodes)
        self.history.append((step.text, (Part(step.text, there),) if there else ()))

    def _undated(self, way: Sequence[Node], above: Sequence[Node], nodes: Sequence[Node]) -> list[Node]:
        """The folders on a way for a layer that is to be the same for each commit.

        Those with the image's time are named once more here: where the base has a link in their place, it has to make
        room before something is put behind it.
        """
        self.tree.add(above)
        self._date(node for node in above if node.mtime == self._epoch)
        paths = dict.fromkeys(self._follow(folder.path)[0] for folder in way)
        named = self._in_tree(path for path in paths if path in self._dated) if nodes else []
        return [
            *(replace(node, mtime=WHEEL_TIME) for node in named),
            *(node for node in above if node.path not in self._dated),
        ]

    def _date(self, folders: Iterable[Node]) -> None:
        """Folders with the image's time: they go into a layer that changes with each commit anyway."""
        for each in folders:
            self.tree.add([each])
            self._dated.add(each.path)

    def _in_tree(self, paths: Iterable[str]) -> list[Node]:
        return [node for path in paths if (node := self.tree.get(path))]

    def finished(self) -> tuple[tuple[str, tuple[Part, ...]], ...]:
        """Each step's text and layers; dated folders are in the last layer that may have them, or in one of their own.

        None of them may be named, or implied, by a layer above: some runtimes take over what the highest one says.
        """
        history, folders, above = list(self.history), self._in_tree(sorted(self._dated)), set[str]()
        for number in range(len(history) - 1, -1, -1):
            text, parts = history[number]
            for at in range(len(parts) - 1, -1, -1):
                if self._changes(parts[at]):
                    hosted = [node for node in folders if node.path not in above]
                    folders = [node for node in folders if node.path in above]
                    history[number] = text, (*parts[:at], self._with(parts[at], hosted), *parts[at + 1 :])
                    return (*history, *self._alone(folders))
                above |= _with_parents(_named(parts[at], folders))
        return (*history, *self._alone(folders))

    def _changes(self, part: Part) -> bool:
        """Whether a layer isn't the same for another commit; a heavy wheel isn't sent again for some folders' sake."""
        if part.wheels:
            return part.wheels[-1].own and part.size < HEAVY
        return any(node.mtime == self._epoch for node in part.nodes)

    def _with(self, part: Part, folders: Sequence[Node]) -> Part:
        given = tuple({node.path: node for node in (*part.given, *folders)}.values())
        return replace(part, given=given, key=part.key and self._key(given, (part.key,)))

    def _alone(self, folders: Sequence[Node]) -> list[tuple[str, tuple[Part, ...]]]:
        return [(_FOLDERS, (Part(_FOLDERS, tuple(folders)),))] if folders else []

    def _add_environment(self, step: Copy) -> None:
        where = f"{self._where}:{step.line}"
        if step.sources != ("",) or step.inline:
            raise BadInput(
                f"{where}: the environment is copied as a whole.", f"COPY --from={step.origin} / {step.destination}"
            )
        prefix = step.destination.rstrip("/")
        owner = owner_of(step.owner, self._read, where) or (0, 0)
        path = prefix.strip("/")
        there = [replace(known, mtime=self._epoch)] if (known := self.tree.get(path)) else []
        folders = [*there, *self._above(_way_to(path, self._epoch, owner))]
        environment = self._origins.environment(prefix, self.base)
        above = self._undated(_way_to(path, self._epoch, owner), folders, environment.skeleton)
        started: list[Part] = []
        if self._origins.complete:
            started = self._parts(step, environment, owner, above, waiting=1)
            self._ahead(started)
            environment = self._origins.complete(environment)
        parts = self._parts(step, environment, owner, above, known=started)
        for part in parts:
            self.tree.add_later(path, partial(getattr, part, "nodes"))
        self._date(folders)
        self.environments.append(environment)
        self.history.append((step.text, tuple(parts)))

    def _parts(
        self,
        step: Copy,
        environment: Environment,
        owner: tuple[int, int],
        above: Sequence[Node],
        *,
        waiting: int = 0,
        known: Sequence[Part] = (),
    ) -> list[Part]:
        """The layers of an environment, with room for others that are waited for, and for one of folders.

        Args:
            known: parts of an environment with fewer wheels, most of which are the same again.
        """
        root = environment.target.prefix.strip("/")
        others = (len(self.base.manifest.layers) if self.base else 0) + len(self.history) + waiting + 1
        parts = []
        for number, each in enumerate(plan(environment, others=others, largest=LARGEST_LAYER)):
            cut = _belonging(each.cut or (), owner, step.mode)
            given = cut if number else tuple(({node.path: node for node in (*cut, *above)}).values())
            which = () if each.cut else (_key_of(each, environment.target), owner, step.mode)
            key = self._key(given, (*which, *(str(wheel.file.digest) for wheel in each.wheels)))
            names = ", ".join(f"{wheel.file.name} {wheel.file.version}" for wheel in each.wheels)
            part = Part(
                f"{step.text} # {names or 'pyvenv.cfg'}",
                given,
                each.wheels,
                key,
                root,
                tuple if each.cut else partial(_belonging_to, each, owner, step.mode),
            )
            parts.append(next((one for one in known if one == part), part))
        return parts

    def _key(self, given: Iterable[Node], decided: Iterable[object]) -> Digest:
        """Of a layer of wheels.

        Args:
            given: nodes; what is in a wheel's file follows from the wheel and the path.
            decided: what decides the other nodes, and which wheels these are.
        """
        described = [(n.path, n.kind, n.mode, n.mtime, n.uid, n.gid, n.target, _of_content(n)) for n in given]
        return layer_key(self._compression, [json.dumps(described), *map(str, decided)])

    def _made(self, step: Folder) -> list[Node]:
        path = self._follow(step.path)[0]
        owner = owner_of(step.owner, self._read, f"{self._where}:{step.line}") or (0, 0)
        return [] if not path or self._is_there(path) else self._above(_way_to(path, self._epoch, owner), changed=False)

    def _above(self, way: Sequence[Node], *, changed: bool = True) -> list[Node]:
        """Of the folders on the way to a place those that have to be made, those that get something new, and own ones.

        What is there keeps its mode and its owner; where it is the base's, these have to be known. Whatever a layer has
        a path through without a name gets the time at which it is unpacked, so what is known of that is said again.

        Args:
            way: each in the one before it.
            changed: whether something is put into the last.
        """
        found: dict[str, Node] = {}
        for folder in reversed(way):
            path = self._follow(folder.path)[0]
            known = self.tree.get(path)
            if known is None and self.base and path in _AMBIGUOUS:
                raise BadInput(
                    f"{self._where}: /{path} is a link to another folder in most images.",
                    f"Copy to where it leads, such as /usr/{posixpath.basename(path)}.",
                )
            if known and known.kind != "directory":
                raise BadInput(
                    f"{self._where}: /{path} is a file, and would become a folder.", "Copy to another place."
                )
            is_new = bool(path) and not self._is_there(path)
            if known is None and not is_new:
                node = None if path in _SPECIAL or not path else Node(path, "directory", 0o755, folder.mtime)
            else:
                node = replace(known or folder, path=path, mtime=folder.mtime)
            if node and (is_new or changed):
                found.setdefault(path, node)
            elif known:
                found.setdefault(path, known)
            changed = is_new
        return [*reversed(found.values())]

    def _real(self, node: Node) -> Node:
        """A node where it will be: links of this image that its path goes through lead there."""
        folder, _, name = node.path.rpartition("/")
        path = f"{self._follow(folder)[0]}/{name}".lstrip("/")
        known = self.tree.get(path)
        if known and (known.kind == "directory") != (node.kind == "directory"):
            raise BadInput(
                f"{self._where}: /{path} is a {known.kind} already, and would become a {node.kind}.",
                "Copy one of the two to another place.",
            )
        return replace(node, path=path)

    def _is_there(self, path: str) -> bool:
        return self.tree.get(path) is not None or (self.base is not None and path in _STANDARD | _SPECIAL | _AMBIGUOUS)

    def _follow(self, path: str) -> tuple[str, bool]:
        """Where a path leads through links that this image has, and whether a folder is there."""
        waiting, found, links = [each for each in path.split("/") if each], "", 0
        while waiting:
            part = waiting.pop(0)
            here = posixpath.join(found, part)
            known = self.tree.get(here)
            if part == "..":
                found = posixpath.dirname(found)
            elif known and known.kind == "symlink":
                links += 1
                if links > _LINKS:
                    raise BadInput(f"{self._where}: /{path} is a link to itself.")
                waiting = [each for each in known.target.split("/") if each not in ("", ".")] + waiting
                found = "" if known.target.startswith("/") else found
            else:
                found = here
        known = self.tree.get(found)
        return found, known.kind == "directory" if known else not found or self._is_there(found)

    def _read(self, path: str) -> bytes | None:
        known = self.tree.get(path)
        return b"".join(known.content.chunks()) if known and known.content else None


class _Files:
    """The files of a stage by their paths; those of an environment are read when one of them is asked for."""

    def __init__(self, start: "_Files | None" = None) -> None:
        self._nodes: dict[str, Node] = dict(start._nodes) if start else {}
        self._unread: list[tuple[str, Callable[[], Iterable[Node]]]] = list(start._unread) if start else []

    def add(self, nodes: Iterable[Node]) -> None:
        """Put some in place of what was there."""
        self._nodes |= {node.path: node for node in nodes}

    def add_later(self, root: str, read: Callable[[], Iterable[Node]]) -> None:
        """The same with what is in a folder, without reading it where that can be."""
        if any(path.startswith(f"{root}/") for path in self._nodes):
            self.add(node for node in read() if f"{node.path}/".startswith(f"{root}/"))  # others are here already
        else:
            self._unread.append((root, read))

    def get(self, path: str) -> Node | None:
        """What is at a place, if anything."""
        if path not in self._nodes and any(f"{path}/".startswith(f"{root}/") for root, _ in self._unread):
            self._read()
        return self._nodes.get(path)

    def all(self) -> Mapping[str, Node]:
        """All of them."""
        self._read()
        return self._nodes

    def _read(self) -> None:
        for _, read in reversed(self._unread):  # what was added last counts
            self._nodes = {node.path: node for node in read()} | self._nodes
        self._unread.clear()


class _Known:
    """The files that a stage added; what its base has isn't known."""

    def __init__(self, nodes: Mapping[str, Node], has_base: bool, where: str) -> None:
        self._nodes = Nodes(nodes)
        self._has_base, self._where = has_base, where

    def find(self, path: str) -> Node | None:
        found = self._nodes.find(path)
        if found is None and self._has_base:
            raise BadInput(
                f"{self._where}: /{path} may come from that stage's base, which isn't looked into.",
                "Copy it from the image itself: COPY --from=IMAGE@sha256:…",
            )
        return found

    def names(self, path: str) -> Sequence[str]:
        return self._nodes.names(path)


def _named(part: Part, folders: Iterable[Node]) -> Iterator[str]:
    """The paths in a layer; those in wheels only where one of some folders may be among them."""
    yield from (node.path for node in part.given)
    if part.wheels:
        yield part.root
        if any(folder.path.startswith(f"{part.root}/") for folder in folders):
            yield from (node.path for node in part.nodes)


def _belonging(nodes: Iterable[Node], owner: tuple[int, int], mode: int | None) -> tuple[Node, ...]:
    """Nodes of an environment, for an owner and with a mode, if there is one."""
    uid, gid = owner
    found = tuple(replace(node, uid=uid, gid=gid) if uid or gid else node for node in nodes)
    if mode is None:
        return found
    return tuple(node if node.kind == "symlink" else replace(node, mode=mode) for node in found)


def _belonging_to(planned: LayerPlan, owner: tuple[int, int], mode: int | None) -> tuple[Node, ...]:
    return _belonging(planned.nodes, owner, mode)


def _key_of(planned: LayerPlan, target: Target) -> str:
    """What a layer of whole wheels is a function of, but for their owner and mode."""
    own = [wheel.file for wheel in planned.wheels if wheel.own]
    return f"{wheel_key(target, [wheel.file for wheel in planned.wheels])} {len(own)}"


def _of_content(node: Node) -> str | int:
    if isinstance(node.content, Text):
        return str(Digest.of_bytes(node.content.data))
    return node.content.size if node.content else ""


def _way_to(path: str, mtime: int, owner: tuple[int, int]) -> list[Node]:
    """A folder, and before it those that it is in."""
    parts = path.split("/")
    return [Node("/".join(parts[:n]), "directory", 0o755, mtime, *owner) for n in range(1, len(parts) + 1)]


def _with_parents(paths: Iterable[str]) -> set[str]:
    found = set[str]()
    for each in paths:
        path = each
        while path and path not in found:
            found.add(path)
            path = posixpath.dirname(path)
    return found
