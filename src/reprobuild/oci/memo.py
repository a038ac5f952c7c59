"""What is remembered of layers that were made before: their diff IDs, digests and sizes, and what isn't in wheels."""

import json
from collections.abc import Iterable

from reprobuild import files
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput
from reprobuild.oci.delta import Delta
from reprobuild.oci.layer import Compression, Layer
from reprobuild.oci.model import Descriptor, Json, document_of


def layer_key(compression: Compression, parts: Iterable[str]) -> Digest:
    """The key of a layer.

    Args:
        compression: with its library and level, and the version of the layout.
        parts: what decides the nodes, in the order of the caller: a wheel's digest, where it is installed, and so on.

    Raises:
        ToolMissing: there is no library for the compression.
    """
    return Digest.of_bytes(canonical_json({"decided by": compression.decided_by(), "parts": list(parts)}))


def remember(key: Digest, layer: Layer) -> None:
    """Keep what was found out about a layer; of several processes the last one wins, and all say the same.

    Raises:
        WriteFailed: the cache can't be written to.
    """
    known = {"layer": layer.descriptor.json(), "diffId": str(layer.diff_id), "tarSize": layer.tar_size}
    path = files.cache_root().joinpath(*_place(key))
    files.write_atomically(path, [canonical_json({**known, "check": _check(key, known)})])


def remember_delta(key: Digest, delta: Delta) -> None:
    """Keep how a layer can be put together again.

    Raises:
        WriteFailed: the cache can't be written to.
    """
    files.write_atomically(files.cache_root().joinpath(*_place(key, "delta")), delta.encoded())


def recall_delta(key: Digest) -> Delta | None:
    """What was kept; None for nothing. Only the layer's digest shows whether it is right.

    Raises:
        BadInput: this account has no place for a cache.
    """
    return Delta.read(files.cache_root().joinpath(*_place(key, "delta")))


def recall(key: Digest) -> Layer | None:
    """What was remembered; None when nothing was, or it is damaged.

    Raises:
        BadInput: this account has no place for a cache.
    """
    path = files.cache_root().joinpath(*_place(key))
    try:
        known = document_of(path.read_bytes(), str(path))
        if known.pop("check", None) != _check(key, known):
            return None
        return Layer(
            Descriptor.read(known["layer"], str(path)), Digest.parse(str(known["diffId"])), int(known["tarSize"])
        )
    except (OSError, BadInput, KeyError, TypeError, ValueError):
        return None


def _place(key: Digest, kind: str = "json") -> tuple[str, ...]:
    return "layers", key.hex[:2], f"{key.hex}.{kind}"


def _check(key: Digest, known: Json) -> str:
    """What a damaged entry, or one of another layer, doesn't have."""
    return str(Digest.of_bytes(f"{key} {json.dumps(known, sort_keys=True)}".encode()))
