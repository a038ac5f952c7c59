"""Assemblies written into a layout: their layers, configs and manifests."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from reprobuild import process
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput
from reprobuild.image.assembler import Assembly, Part
from reprobuild.image.built import Image
from reprobuild.oci.delta import Recorder
from reprobuild.oci.layer import Compression, Layer, write_again, write_layer
from reprobuild.oci.layout import Layout
from reprobuild.oci.memo import recall, recall_delta, remember, remember_delta
from reprobuild.oci.model import OCI_CONFIG, Descriptor, Json, Manifest
from reprobuild.progress import SILENT, Observer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@contextmanager
def writing(
    store: Layout,
    *,
    compression: Compression,
    remembering: bool = True,
    is_there: Callable[[Descriptor], bool] = lambda _: False,
    observer: Observer = SILENT,
) -> Iterator["Writer"]:
    """What writes images into a store, in as many threads as there are processors.

    Args:
        remembering: whether what is known of layers that were made before counts.
        is_there: whether a layer is where the image goes to, and so needn't be in the store.
    """
    with process.workers(os.cpu_count() or 1) as pool:
        layers = _Layers(store, compression, is_there, observer)
        yield Writer(store, layers, pool, remembering=remembering)


class _Layers:
    """Makes layers, or has them as they were."""

    def __init__(
        self,
        store: Layout,
        compression: Compression,
        is_there: Callable[[Descriptor], bool],
        observer: Observer,
    ) -> None:
        self._store, self._compression = store, compression
        self._is_there, self._observer = is_there, observer

    def again(self, part: Part) -> Layer | None:
        """A layer as it was; None where there was none, or something is damaged: its wheels, or the memory."""
        known = recall(part.key) if part.key else None
        if part.key is None or known is None or self._has(known):
            return known
        self._observer.step(f"writing the layer {part.title}")
        if delta := recall_delta(part.key):
            size = known.descriptor.size
            same = self._is(known, lambda stream: write_again(delta, _wheels(part), stream, size))
            return known if same else None
        recorder = self._recorder(part)

        def write(stream: BinaryIO) -> Digest | None:
            made = write_layer(part.nodes, stream, self._compression, diff_id=known.diff_id, recorder=recorder)
            return made.descriptor.digest if made.descriptor.size == known.descriptor.size else None

        if not self._is(known, write):
            return None
        _remember_delta(part, recorder)
        return known

    def make(self, part: Part) -> Layer:
        """A layer from its nodes."""
        self._observer.step(f"writing the layer {part.title}")
        recorder = self._recorder(part)
        with self._store.new_blob() as (stream, put):
            layer = write_layer(part.nodes, _leaving(stream), self._compression, recorder=recorder)
            put(layer.descriptor.digest)
        if part.key:
            remember(part.key, layer)
        _remember_delta(part, recorder)
        return layer

    def _recorder(self, part: Part) -> Recorder | None:
        return Recorder(_wheels(part)) if part.key and self._compression is Compression.SPLICE else None

    def _has(self, known: Layer) -> bool:
        return self._store.is_sound(known.descriptor) or self._is_there(known.descriptor)

    def _is(self, known: Layer, write: Callable[[BinaryIO], Digest | None]) -> bool:
        """Write a layer, and keep it if it is the one that is known."""
        with suppress(BadInput), self._store.new_blob(known.descriptor.size) as (stream, put):
            if write(_leaving(stream)) == known.descriptor.digest:
                put(known.descriptor.digest)
                return True
        return False


def _remember_delta(part: Part, recorder: Recorder | None) -> None:
    if part.key and recorder and (delta := recorder.delta):
        remember_delta(part.key, delta)


def _wheels(part: Part) -> list[Path]:
    return [wheel.path for wheel in part.wheels]


def _leaving(stream: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", _Leaving(stream))


class _Leaving(io.RawIOBase):
    """A stream that ends the work of a thread that nobody waits for any more."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: "ReadableBuffer", /) -> int:
        process.go_on()
        return self._stream.write(data)


class Writer:
    """Writes images; what has been started ahead isn't written again."""

    def __init__(self, store: Layout, layers: _Layers, pool: Executor, *, remembering: bool) -> None:
        self._store, self._layers, self._pool, self._remembering = store, layers, pool, remembering
        self._started: dict[Digest, Future[tuple[Layer, bool]]] = {}

    def start(self, parts: Sequence[Part]) -> list[Future[tuple[Layer, bool]]]:
        """Begin to write the layers of some parts, the largest first, and come back at once; in the parts' order."""
        running: dict[int, Future[tuple[Layer, bool]]] = {}
        for number in sorted(range(len(parts)), key=lambda number: -parts[number].size):
            part = parts[number]
            known = self._started.get(part.key) if part.key else None
            running[number] = known or self._pool.submit(self._made, part)
            if part.key:
                self._started[part.key] = running[number]
        return [running[number] for number in range(len(parts))]

    def _made(self, part: Part) -> tuple[Layer, bool]:
        """A layer, and whether it was known."""
        known = self._layers.again(part) if self._remembering else None
        return (known, True) if known else (self._layers.make(part), False)

    def image(self, assembly: Assembly) -> Image:
        """Write an image's own layers, its config and its manifest; not the base's layers.

        Raises:
            BadInput: a wheel isn't what it declares.
            WriteFailed: there is no room.
        """
        done = [each.result() for each in self.start(assembly.parts)]
        layers = tuple(layer for layer, _ in done)
        config = self._store.put_document(OCI_CONFIG, canonical_json(_config(assembly, layers)))
        below = assembly.base.layers if assembly.base else ()
        manifest = Manifest.make(
            config, [*below, *(layer.descriptor for layer in layers)], annotations=_annotations(assembly)
        )
        self._store.put_document(manifest.descriptor.media_type, manifest.raw)
        return Image(
            assembly.platform,
            assembly.base,
            manifest,
            config,
            layers,
            tuple(part.title for part in assembly.parts),
            sum(known for _, known in done),
            assembly.environments,
        )


def _config(assembly: Assembly, layers: Sequence[Layer]) -> Json:
    """The image's config (OCI config.md), as BuildKit would write it."""
    base = assembly.base.config.document if assembly.base else {}
    created = _rfc3339(assembly.epoch)
    below = assembly.base.config.diff_ids if assembly.base else ()
    history: list[Json] = _history_of(base, len(below))
    for text, parts in assembly.history:
        entry: Json = {"created": created, "created_by": text, "comment": "reprobuild"}
        if not parts:
            history.append({**entry, "empty_layer": True})
        history += [{**entry, "created_by": part.title} for part in parts]
    platform = assembly.platform
    document: Json = {"architecture": platform.architecture, "os": platform.os}
    document |= {key: base[key] for key in ("os.version", "os.features") if key in base}
    if variant := platform.variant or base.get("variant"):
        document["variant"] = variant
    if assembly.author:
        document["author"] = assembly.author
    diff_ids = [str(each) for each in below] + [str(layer.diff_id) for layer in layers]
    return document | {
        "created": created,
        "config": assembly.settings,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    }


def _history_of(base: Json, layers: int) -> list[Json]:
    """The base's history, as long as it tells of each of its layers."""
    found = base.get("history")
    known = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    told = sum(not each.get("empty_layer") for each in known)
    return known if told == layers else [{"created_by": "a layer of the base"}] * layers


def _annotations(assembly: Assembly) -> dict[str, str]:
    """What the manifest says of the image: labels of the OCI that the Dockerfile sets, the base, the time."""
    prefix = "org.opencontainers.image."
    labels = assembly.settings.get("Labels") or {}
    inherited = (assembly.base.config.settings.get("Labels") or {}) if assembly.base else {}
    found = {key: value for key, value in labels.items() if key.startswith(prefix) and inherited.get(key) != value}
    found[f"{prefix}created"] = _rfc3339(assembly.epoch)
    if assembly.base:
        reference = assembly.base.reference
        found[f"{prefix}base.name"] = str(replace(reference, digest=None))
        found[f"{prefix}base.digest"] = str(reference.digest)
    return found


def _rfc3339(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
