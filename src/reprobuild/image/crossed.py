"""Two images of one definition, from two engines: what a container sees of them, file by file, and their settings.

Engines cut the same files into other layers and tell another history, so their digests differ. What is compared is the
root file system that the layers make together, and what the config says a container starts with. Layers that both
images begin with are the same bytes and lie below all else: they are read only where it matters what is in them.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from reprobuild import process
from reprobuild.archive import Archive, Entry
from reprobuild.causes import mode_cause
from reprobuild.compare import Findings, Verdict
from reprobuild.contents import stream_differences
from reprobuild.difference import Difference, Level
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch, shown
from reprobuild.image.compare import value_differences
from reprobuild.image.store import Readable
from reprobuild.oci.model import Descriptor, Json
from reprobuild.oci.rootfs import Found, Laid, laid_over, merged, open_layer
from reprobuild.progress import SILENT, Observer

_PARALLEL = 4
_EXPLAINED = 50  # files of which is said where they differ
_MEMORY = 4 << 20  # bytes of such a file
#: What a config says of the machine, beside its settings; ``created`` and ``history`` are the engine's own.
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant", "author")
#: PAX records of an entry that no container sees.
_UNSEEN = ("atime", "ctime", "comment", "charset", "hdrcharset", "LIBARCHIVE.creationtime")
_SCHILY, _LIBARCHIVE = "SCHILY.xattr.", "LIBARCHIVE.xattr."
#: How a byte that isn't UTF-8 is spelled once it was read; also some names are spelled like that.
_UNDECODED = re.compile(r"\\x[89a-f][0-9a-f]")
_AGAIN = "Build or fetch the image again."
_HIDDEN = "what lies below"


def compare_roots(left: Readable, right: Readable, observer: Observer = SILENT) -> Verdict:
    """Compare what containers of two images begin with: each file, and the settings.

    The digests of the verdict are of a list of all that was compared: they are the same if and only if all of it is.

    Raises:
        BadInput: a layer is missing or damaged, or there is nothing to compare.
        DigestMismatch: a layer isn't what the manifest names.
        RegistryFailed, …: one can't be fetched.
    """
    for image in (left, right):
        if len(image.config.diff_ids) != len(image.manifest.layers):
            counts = f"{len(image.manifest.layers)} layers, and {len(image.config.diff_ids)} in its config"
            raise BadInput(f"{image.where} has {counts}.", _AGAIN)
    shared = _shared(left, right)
    observer.step("reading the layers of both")
    with ExitStack() as stack:
        ours, theirs = (_Side(stack, image, image.manifest.layers[shared:]) for image in (left, right))
        with process.workers(_PARALLEL) as pool:
            for each in [pool.submit(side.read, number) for side in (ours, theirs) for number in range(side.count)]:
                each.result()
        below = _settle(stack, ours, theirs, shared)
        if not (shared or ours.laid.found or theirs.laid.found):
            raise BadInput(f"{left.where} and {right.where} have no files: there is nothing to compare.", _AGAIN)
        observer.step("comparing file by file")
        found = Findings()
        comparison = _Comparison(ours, theirs, below_known=below)
        found.extend(comparison.differences())
        found.extend(value_differences("config", *map(_settings, (left, right))))
    below_digests = [str(layer.digest) for layer in left.manifest.layers[:shared]]
    one, two = (_listed(side, below_digests) for side in (ours, theirs))
    if not found.differences and one != two:  # nothing is identical that isn't listed alike
        found.extend([Difference((), "list of files", str(one), str(two))])
    return Verdict(
        found.level, one, two, ours.size, theirs.size, differences=tuple(found.differences), omitted=found.omitted
    )


def _shared(left: Readable, right: Readable) -> int:
    """How many layers both begin with."""
    pairs = zip(left.manifest.layers, right.manifest.layers, strict=False)
    same = [a.digest == b.digest for a, b in pairs]
    return same.index(False) if False in same else len(same)


def _settings(image: Readable) -> Json:
    document = {key: image.config.document.get(key) for key in _PLATFORM}
    return {key: value for key, value in (document | image.config.settings).items() if value is not None}


def _settle(stack: ExitStack, ours: "_Side", theirs: "_Side", shared: int) -> bool:
    """Lay the layers of both on each other; whether what lies below them is known, or doesn't matter.

    It matters where one names what the other leaves as it was below, or removes something.
    """
    sides = (ours, theirs)
    if shared:
        refused = next((error for side in sides if (error := side.lay_over())), None)
        if not refused and ours.laid.alike(theirs.laid):
            return True
        below = _below(stack, sides, shared)
        if below is None:
            if refused:
                raise refused
            return False
    else:
        below = []
    for side in sides:
        side.lay_upon(below)
    return True


def _below(stack: ExitStack, sides: Sequence["_Side"], shared: int) -> list[Archive] | None:
    """The layers that both begin with, from whichever image has them; None where neither has."""
    for side in sides:
        layers = side.image.manifest.layers[:shared]
        try:
            for each in layers:
                side.image.blob(each)
        except BadInput:  # a layout without its base
            continue
        return [_opened(stack, side.image, each) for each in layers]
    return None


def _opened(stack: ExitStack, image: Readable, layer: Descriptor) -> Archive:
    path = image.blob(layer)
    found = Digest.of_file(path)
    if found != layer.digest:
        raise DigestMismatch(f"{image.where}: the layer {layer.digest} has the digest {found}.", _AGAIN)
    return stack.enter_context(open_layer(path, name=f"{image.where}: {layer.digest}"))


@dataclass(frozen=True, slots=True)
class _Laid:
    """What lies where; see :class:`Laid`."""

    found: Mapping[str, Found]
    hidden: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()

    def alike(self, other: "_Laid") -> bool:
        """Whether both do the same to whatever lies below, but for what the entries say."""
        return (self.found.keys(), self.hidden, self.late) == (other.found.keys(), other.hidden, other.late)


class _Side:
    """One of the two images, with its own layers open."""

    def __init__(self, stack: ExitStack, image: Readable, layers: Sequence[Descriptor]) -> None:
        self.image, self.count = image, len(layers)
        self.laid = _Laid({})
        self.size = 0
        self.hasher = hashlib.sha256()
        self._stack, self._layers = stack, layers
        self._archives: list[Archive | None] = [None] * len(layers)

    def read(self, number: int) -> None:
        self._archives[number] = _opened(self._stack, self.image, self._layers[number])

    @property
    def archives(self) -> list[Archive]:
        return [each for each in self._archives if each]

    def lay_over(self) -> BadInput | None:
        """Lay the own layers on what isn't known; why that can't be done, if it can't."""
        try:
            laid: Laid = laid_over([each.entries for each in self.archives])
        except BadInput as error:
            return error
        self.laid = _Laid(laid.found, laid.hidden, laid.late)
        return None

    def lay_upon(self, below: Sequence[Archive]) -> None:
        """Lay the own layers on these."""
        self._archives = [*below, *self._archives]
        self.laid = _Laid(merged([each.entries for each in self.archives]))

    def content(self, found: Found) -> io.BytesIO:
        return io.BytesIO(b"".join(self.archives[found.layer].chunks(found.entry)))

    def said(self) -> "_Said":
        return _Said(self)


class _Said:
    """What is to be said of each path of one image; what is asked for goes into the list that its digest is of."""

    def __init__(self, side: _Side) -> None:
        self._side = side
        first: dict[int, str] = {}
        several: set[int] = set()
        for path, found in sorted(side.laid.found.items()):
            if first.setdefault(id(found), path) != path:
                several.add(id(found))
        self._links = {each: path for each, path in first.items() if each in several}

    def of(self, path: str) -> dict[str, str]:
        """Field by field; empty where nothing is."""
        found = self._side.laid.found.get(path)
        if found is None:
            return {}
        said = _said(found.entry)
        if name := self._links.get(id(found)):
            said["hard link"] = f"/{name}"
        _require_clear([path, *said, *said.values()], self._side.image)
        self._side.size += found.entry.size
        self._side.hasher.update(json.dumps([path, sorted(said.items())]).encode() + b"\n")
        return said


def _said(entry: Entry) -> dict[str, str]:
    said = {
        "kind": entry.kind,
        "mode": f"{entry.mode:o}",
        "owner": entry.owner.partition(" ")[0],
        "time": _time(entry),
    }
    if entry.kind == "file":
        said["content"] = f"{entry.digest}, {entry.size:,} bytes"
    elif entry.target:
        said["device" if entry.kind.endswith("device") else "target"] = entry.target
    attributes = _attributes(entry)
    said |= {f"attribute {name}": value for name, value in attributes.items()}
    records = (line.partition("=") for line in entry.extra.decode(errors="backslashreplace").splitlines())
    return said | {f"record {key}": value for key, _, value in records if key not in _UNSEEN}


def _time(entry: Entry) -> str:
    """To the fraction of a second, without zeros that say nothing."""
    whole, dot, fraction = entry.mtime.removesuffix("Z").partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}{dot if fraction else ''}{fraction}Z"


def _attributes(entry: Entry) -> dict[str, str]:
    """Extended attributes by name; libarchive says each in two ways (its archive_write_set_format_pax.c)."""
    found: dict[str, str] = {}
    for key, value in entry.attributes:
        if key.startswith(_LIBARCHIVE):
            name, text = unquote(key.removeprefix(_LIBARCHIVE)), value
            try:
                text = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode(
                    errors="backslashreplace"
                )
            except ValueError:
                name = f"{name} (malformed)"
            found.setdefault(name, text)
    found |= {key.removeprefix(_SCHILY): value for key, value in entry.attributes if key.startswith(_SCHILY)}
    return found


def _require_clear(texts: Sequence[str], image: Readable) -> None:
    for text in texts:
        if _UNDECODED.search(text):
            raise BadInput(
                f"{image.where}: {shown(text)!r} can't be compared: a byte that isn't UTF-8 and the text that "
                "stands for one look the same.",
                "Give the file another name, or leave it out.",
            )


@dataclass(slots=True)
class _Comparison:
    """Two sides while they are compared.

    Attributes:
        below_known: False where one side may leave as it was below what the other names.
    """

    ours: _Side
    theirs: _Side
    below_known: bool
    explained: int = field(default=0)

    def differences(self) -> Iterator[Difference]:
        left, right = self.ours.said(), self.theirs.said()
        for path in sorted({*self.ours.laid.found, *self.theirs.laid.found}):
            process.go_on()
            yield from self._of_path(path, left.of(path), right.of(path))
        for field_name in ("hidden", "late"):
            a, b = (getattr(side.laid, field_name) for side in (self.ours, self.theirs))
            what = _HIDDEN if field_name == "hidden" else "named behind what is in it"
            for path in sorted(a ^ b):
                said = ("hidden", "as it is") if field_name == "hidden" else ("yes", "no")
                one, two = said if path in a else said[::-1]
                yield Difference((f"/{path}",), what, one, two)

    def _of_path(self, path: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Difference]:
        where = (f"/{path}",)
        if not ours or not theirs:
            gone = "absent" if self.below_known else "as in the base, which isn't here"
            yield Difference(where, "missing", _summary(ours) or gone, _summary(theirs) or gone)
            return
        other_kind = ours["kind"] != theirs["kind"]
        for name in dict.fromkeys((*ours, *theirs)):
            a, b = ours.get(name, "absent"), theirs.get(name, "absent")
            if a == b or (other_kind and name in ("content", "target", "device")):
                continue
            if name == "content":
                yield from self._of_content(path, a, b)
                continue
            cause = mode_cause(int(a, 8), int(b, 8)) if name == "mode" else None
            yield Difference(where, name, a, b, cause, level=Level.CONTAINER if name == "time" else Level.PAYLOAD)

    def _of_content(self, path: str, ours: str, theirs: str) -> Iterator[Difference]:
        where = (f"/{path}",)
        found = [side.laid.found[path] for side in (self.ours, self.theirs)]
        if self.explained >= _EXPLAINED or max(each.entry.size for each in found) > _MEMORY:
            yield Difference(where, "content", ours, theirs)
            return
        self.explained += 1
        streams = [side.content(each) for side, each in zip((self.ours, self.theirs), found, strict=True)]
        for each in stream_differences(streams[0], streams[1], path, ()):
            yield replace(each, path=(*where, *each.path), level=Level.PAYLOAD)


def _summary(said: Mapping[str, str]) -> str:
    return ", ".join(
        said[key] for key in ("kind", "mode", "owner", "time", "target", "device", "content") if key in said
    )


def _listed(side: _Side, below: Sequence[str]) -> Digest:
    """The digest of all that was compared of one image."""
    rest = [below, sorted(side.laid.hidden), sorted(side.laid.late), _settings(side.image)]
    side.hasher.update(json.dumps(rest, sort_keys=True).encode())
    return Digest("sha256", side.hasher.hexdigest())
