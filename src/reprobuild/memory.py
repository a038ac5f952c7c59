"""What is remembered from run to run in the cache: what can always be found out again, as JSON under a key."""

import hashlib
import json
from pathlib import Path
from typing import Any

from reprobuild import files
from reprobuild.digest import Digest


def remember(kind: str, key: Digest, known: object) -> None:
    """Keep something; of several processes the last one wins, and all say the same.

    Args:
        kind: the folder that all of a kind are in.
        key: the digest of everything that ``known`` is a function of, the version of that function included.
        known: what JSON can say.

    Raises:
        WriteFailed: the cache can't be written to.
    """
    raw = json.dumps(known, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    files.write_atomically(place(kind, key, "json"), [_check(key, raw), b"\n", raw])


def recall(kind: str, key: Digest) -> Any:  # noqa: ANN401 - whoever remembered it knows
    """What was kept; None where nothing was, or it is damaged.

    Raises:
        BadInput: this account has no place for a cache.
    """
    check, _, raw = (files.read_kept(place(kind, key, "json")) or b"").partition(b"\n")
    try:
        return json.loads(raw.decode("utf-8", "surrogatepass")) if check == _check(key, raw) else None
    except (ValueError, RecursionError):  # by other hands than ours
        return None


def place(kind: str, key: Digest, suffix: str) -> Path:
    """Where something of a kind is kept.

    Raises:
        BadInput: this account has no place for a cache.
    """
    return files.cache_root() / kind / key.hex[:2] / f"{key.hex}.{suffix}"


def _check(key: Digest, raw: bytes) -> bytes:
    """What a damaged entry, or one of another key, doesn't have."""
    return hashlib.sha256(key.hex.encode() + raw).hexdigest().encode()
