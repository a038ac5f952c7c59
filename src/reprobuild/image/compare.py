"""Two images: which layer differs, and in it which wheel, file and field; without unpacking either."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from reprobuild.compare import Findings, Verdict
from reprobuild.contents import archive_differences
from reprobuild.difference import Difference, Level, quoted_pair
from reprobuild.image.store import NamedLayer, Readable
from reprobuild.oci.model import Index, Json, document_of
from reprobuild.oci.rootfs import open_layer
from reprobuild.progress import SILENT, Observer

_QUOTED, _DEPTH = 96, 16
#: What the config says again of the layers, which are compared themselves.
_OF_LAYERS = ("rootfs", "history")


def compare_images(left: Readable, right: Readable, observer: Observer = SILENT) -> Verdict:
    """Compare two images: the manifests' raw bytes are the verdict, all else says why they aren't the same.

    Raises:
        BadInput: a layer is damaged.
        RegistryFailed, …: one that differs can't be fetched.
    """
    one, two = left.manifest.descriptor.digest, right.manifest.descriptor.digest
    verdict = Verdict(Level.IDENTICAL, one, two, left.size, right.size)
    if one == two:
        return verdict
    found = Findings()
    for pair in _aligned(left.layers, right.layers):
        found.extend(_layer_differences(left, right, *pair, observer))
    ours, theirs = (
        {key: value for key, value in each.config.document.items() if key not in _OF_LAYERS} for each in (left, right)
    )
    found.extend(value_differences("config", ours, theirs))
    found.extend(value_differences("manifest", left.manifest.annotations, right.manifest.annotations))
    if not found.differences:
        found.extend(_history_differences(left.config.document, right.config.document))
    if not found.differences:
        found.extend([Difference(("manifest",), "bytes", str(one), str(two), level=Level.CONTAINER)])
    return replace(verdict, level=found.level, differences=tuple(found.differences), omitted=found.omitted)


def compare_indexes(left: Index, right: Index) -> Verdict:
    """Compare what two indexes say of the same images. One that names anything else differs in its payload."""
    one, two = left.descriptor, right.descriptor
    verdict = Verdict(Level.IDENTICAL, one.digest, two.digest, one.size, two.size)
    if one.digest == two.digest:
        return verdict
    found = Findings()
    for each in value_differences("index", _by_number(left), _by_number(right)):
        deep = each.field.startswith("manifests")
        found.extend([replace(each, level=Level.PAYLOAD) if deep else each])
    if not found.differences:
        found.extend([Difference(("index",), "bytes", str(one.digest), str(two.digest), level=Level.CONTAINER)])
    return replace(verdict, level=found.level, differences=tuple(found.differences), omitted=found.omitted)


def _by_number(index: Index) -> Json:
    document = document_of(index.raw, "the index")
    return {**document, "manifests": {str(at): each for at, each in enumerate(document["manifests"])}}


def _aligned(
    left: Sequence[NamedLayer], right: Sequence[NamedLayer]
) -> Iterator[tuple[NamedLayer | None, NamedLayer | None]]:
    """Layers that are each other's counterpart; None for one that has none."""
    matcher = SequenceMatcher(None, [each.diff_id for each in left], [each.diff_id for each in right], autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind == "equal":
            yield from zip(left[i1:i2], right[j1:j2], strict=True)
            continue
        inner = SequenceMatcher(
            None, [each.subject for each in left[i1:i2]], [each.subject for each in right[j1:j2]], autojunk=False
        )
        for what, a1, a2, b1, b2 in inner.get_opcodes():
            ours, theirs = left[i1 + a1 : i1 + a2], right[j1 + b1 : j1 + b2]
            together = zip_longest(ours, theirs) if what in ("equal", "replace") else ()
            yield from together
            if not together:
                yield from ((each, None) for each in ours)
                yield from ((None, each) for each in theirs)


def _layer_differences(
    left: Readable, right: Readable, ours: NamedLayer | None, theirs: NamedLayer | None, observer: Observer
) -> Iterator[Difference]:
    if ours is None or theirs is None:
        there = ours or theirs
        if there is not None:
            sides = ("present", "absent") if ours else ("absent", "present")
            yield Difference((there.title,), "missing", *sides)
        return
    if ours.descriptor.digest == theirs.descriptor.digest:
        if ours.descriptor.media_type != theirs.descriptor.media_type:
            types = ours.descriptor.media_type, theirs.descriptor.media_type
            yield Difference((ours.title,), "media type", *types, level=Level.CONTAINER)
        return
    # Diff IDs are what a config claims: equal ones don't make the content equal.
    observer.step(f"comparing {ours.title}")
    with (
        open_layer(left.blob(ours.descriptor), name=f"{left.where}: {ours.title}") as a,
        open_layer(right.blob(theirs.descriptor), name=f"{right.where}: {theirs.title}") as b,
    ):
        deepest = Level.IDENTICAL
        for each in archive_differences(a, b, (), observer=observer):
            deepest = max(deepest, each.level, key=lambda level: level.rank)
            yield replace(_of_image(each, left, right), path=(ours.title, *each.path))
        cause = "compression" if a.kind == b.kind else None  # another zlib doesn't make it zstd
    if ours.diff_id == theirs.diff_id and deepest.rank <= Level.CONTAINER.rank:
        a_type, b_type = (f"{each.descriptor.media_type}, {each.descriptor.size:,} bytes" for each in (ours, theirs))
        yield Difference((ours.title,), "compression", a_type, b_type, cause, level=Level.CONTAINER)
    elif deepest is Level.IDENTICAL:
        yield Difference((ours.title,), "tar", ours.diff_id, theirs.diff_id, level=Level.CONTAINER)


def _of_image(each: Difference, left: Readable, right: Readable) -> Difference:
    """A difference between two files without what holds for wheels alone: an image's times follow from its epoch."""
    if each.field != "time" or each.cause != "clock":
        return each
    other = left.config.document.get("created") != right.config.document.get("created")
    return replace(each, cause=None, follows=other)


def value_differences(where: str, left: Any, right: Any) -> Iterator[Difference]:  # noqa: ANN401 - JSON
    """Each value that differs, by its place; what lies too deep as a whole."""
    if isinstance(left, Mapping) and isinstance(right, Mapping) and where.count(".") < _DEPTH:
        for key in sorted({*left, *right}):
            yield from value_differences(f"{where}.{key}", left.get(key), right.get(key))
    elif _are_lists(left, right) and len(left) == len(right):
        for number, (one, two) in enumerate(zip(left, right, strict=True)):
            yield from value_differences(f"{where}.{number}", one, two)
    elif left != right:
        top, _, rest = where.partition(".")
        yield Difference((top,), rest, *_quoted(left, right), level=Level.METADATA)


def _are_lists(*values: object) -> bool:
    return all(isinstance(each, list) for each in values)


def _history_differences(left: Json, right: Json) -> Iterator[Difference]:
    for key in _OF_LAYERS:
        if left.get(key) != right.get(key):
            yield Difference(("config",), key, *_quoted(left.get(key), right.get(key)), level=Level.METADATA)


def _quoted(left: object, right: object) -> tuple[str, str]:
    one, two = ("absent" if each is None else str(each) for each in (left, right))
    return quoted_pair(one, two)
