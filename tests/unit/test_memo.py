import json
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from reprobuild import files, memory
from reprobuild.digest import Digest
from reprobuild.errors import WriteFailed
from reprobuild.oci import layer, memo
from reprobuild.oci.layer import Compression, Layer
from reprobuild.oci.model import Descriptor

LAYER = Layer(Descriptor(Compression.SPLICE.media_type, Digest.of_bytes(b"gz"), 7), Digest.of_bytes(b"tar"), 1024)
DESCRIBED = {"layer": LAYER.descriptor.json(), "diffId": str(LAYER.diff_id), "tarSize": 1024}
KEY = memo.layer_key(Compression.SPLICE, ["sha256:1", "/opt/venv"])


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path))


def only_file():
    (path,) = [path for path in (files.cache_root() / "layers").rglob("*") if path.is_file()]
    return path


def test_what_was_remembered_is_known_again():
    assert memo.recall(KEY) is None
    memo.remember(KEY, LAYER)
    memo.remember(KEY, LAYER)
    assert memo.recall(KEY) == LAYER
    assert memo.recall(memo.layer_key(Compression.GZIP, ["sha256:1", "/opt/venv"])) is None


def test_the_key_is_of_all_that_decides_the_bytes(monkeypatch):
    def keys():
        parts = ("a b", "b a", "ab", "a", "")
        return [memo.layer_key(compression, each.split()) for compression in Compression for each in parts]

    first = keys()
    assert len({*first}) == len(first)
    assert keys() == first
    monkeypatch.setattr(layer, "LAYOUT_VERSION", layer.LAYOUT_VERSION + 1)
    assert not {*keys()} & {*first}
    monkeypatch.undo()
    monkeypatch.setattr(zlib, "ZLIB_RUNTIME_VERSION", "9")
    changed = [before != after for before, after in zip(first, keys(), strict=True)]
    assert changed == [False] * 5 + [True] * 5 + [False] * 5  # only gzip asks zlib


def test_every_damage_is_noticed():
    memo.remember(KEY, LAYER)
    path = only_file()
    whole = path.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            assert memo.recall(KEY) is None, damaged
    for other in (b"", b"[]", b"null", b"{}", b"\xff", json.dumps({"check": 1, "layer": []}).encode()):
        path.write_bytes(other)
        assert memo.recall(KEY) is None
    memo.remember(KEY, LAYER)
    assert memo.recall(KEY) == LAYER


def test_the_entry_of_another_layer_is_not_believed():
    other = memo.layer_key(Compression.SPLICE, ["sha256:2"])
    memo.remember(KEY, LAYER)
    path = only_file()
    to = path.parent.parent / other.hex[:2] / f"{other.hex}.json"
    to.parent.mkdir(exist_ok=True)
    path.rename(to)
    assert memo.recall(other) is None


def _both(number):
    memo.remember(KEY, LAYER)
    return memo.recall(KEY) == LAYER


def test_several_processes_share_it():
    with ProcessPoolExecutor(4) as pool:
        assert all(pool.map(_both, range(200)))
    assert memo.recall(KEY) == LAYER
    assert only_file().suffix == ".json"


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "layers").write_bytes(b"in the way")
    assert memo.recall(KEY) is None
    with pytest.raises(WriteFailed, match="layers"):
        memo.remember(KEY, LAYER)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["layers"]


@pytest.mark.parametrize(
    "known", [[], 5, {"layer": {}}, {**DESCRIBED, "tarSize": float("inf")}, {**DESCRIBED, "diffId": 5}]
)
def test_what_is_no_layer_is_nothing_remembered(known):
    memory.remember("layers", KEY, known)
    assert memo.recall(KEY) is None
