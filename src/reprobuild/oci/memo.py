"""What is remembered of layers that were made before: their diff IDs, digests and sizes, and what isn't in wheels."""

from collections.abc import Iterable

from reprobuild import files, memory
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput
from reprobuild.oci.delta import Delta
from reprobuild.oci.layer import Compression, Layer
from reprobuild.oci.model import Descriptor

_KIND = "layers"


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
    """Keep what was found out about a layer.

    Raises:
        WriteFailed: the cache can't be written to.
    """
    known = {"layer": layer.descriptor.json(), "diffId": str(layer.diff_id), "tarSize": layer.tar_size}
    memory.remember(_KIND, key, known)


def remember_delta(key: Digest, delta: Delta) -> None:
    """Keep how a layer can be put together again.

    Raises:
        WriteFailed: the cache can't be written to.
    """
    files.write_atomically(memory.place(_KIND, key, "delta"), delta.encoded())


def recall_delta(key: Digest) -> Delta | None:
    """What was kept; None for nothing. Only the layer's digest shows whether it is right.

    Raises:
        BadInput: this account has no place for a cache.
    """
    return Delta.read(memory.place(_KIND, key, "delta"))


def recall(key: Digest) -> Layer | None:
    """What was remembered; None when nothing was, or it is damaged.

    Raises:
        BadInput: this account has no place for a cache.
    """
    known = memory.recall(_KIND, key)
    if known is None:
        return None
    try:
        return Layer(Descriptor.read(known["layer"], str(key)), Digest.parse(known["diffId"]), int(known["tarSize"]))
    except (BadInput, KeyError, TypeError, ValueError, AttributeError, OverflowError):  # another version wrote it
        return None
