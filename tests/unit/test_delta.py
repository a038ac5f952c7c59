"""Layers put together from what was recorded of them."""

import random
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprobuild.errors import BadInput
from reprobuild.oci import delta as deltas
from reprobuild.oci.delta import Delta, Recorder

SOURCES = (random.Random(1).randbytes(10_000), random.Random(2).randbytes(39_000))


@pytest.fixture
def sources(tmp_path):
    paths = [tmp_path / str(number) for number in range(len(SOURCES))]
    for path, content in zip(paths, SOURCES, strict=True):
        path.write_bytes(content)
    return paths


@st.composite
def ranges(draw):
    number = draw(st.integers(0, len(SOURCES) - 1))
    start = draw(st.integers(0, len(SOURCES[number]) - 1))
    return number, start, draw(st.integers(0, len(SOURCES[number]) - start))


def recorded(steps, sources):
    """A recorder that was told of some bytes and ranges, and what the layer is."""
    recorder, layer = Recorder(sources), bytearray()
    for step in steps:
        if isinstance(step, bytes):
            recorder.wrote(step)
            layer += step
        else:
            number, start, size = step
            recorder.copied(sources[number], start, size)
            layer += SOURCES[number][start : start + size]
    return recorder, bytes(layer)


def joined(delta, sources):
    return b"".join(bytes(piece) for piece in delta.pieces(sources))


def kept(delta, path):
    path.write_bytes(b"".join(delta.encoded()))
    return Delta.read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(st.one_of(st.binary(max_size=40), ranges()), max_size=30), small=st.booleans())
def test_what_was_recorded_comes_back(sources, tmp_path, steps, small):
    with pytest.MonkeyPatch.context() as patch:
        if small:  # ranges that are larger than the buffer
            patch.setattr(deltas, "_BUFFER", 7)
        recorder, layer = recorded(steps, sources)
        assert joined(recorder.delta, sources) == layer
        assert joined(kept(recorder.delta, tmp_path / "delta"), sources) == layer


@pytest.mark.parametrize("buffer", [deltas._BUFFER, 7])
def test_a_damaged_file_is_nothing(sources, tmp_path, monkeypatch, buffer):
    monkeypatch.setattr(deltas, "_BUFFER", buffer)
    recorder, layer = recorded([b"head", (0, 5, 100), b"middle", (1, 0, 9), b"end"], sources)
    path = tmp_path / "delta"
    assert Delta.read(path) is None
    assert joined(kept(recorder.delta, path), sources) == layer
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        assert Delta.read(path) is None, at
    path.write_bytes(whole + b"x")
    assert Delta.read(path) is None
    for at in range(len(whole)):
        for change in (1, 0x80, 0xFF):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
            try:
                found = Delta.read(path)
                assert found is None or joined(found, sources) != layer, at
            except BadInput:
                pass


def test_a_file_has_its_numbers_in_one_order_on_every_machine(sources, monkeypatch):
    delta = recorded([b"head", (1, 5, 256)], sources)[0].delta
    raw = b"reprobuild delta 1\n" + struct.pack("<6Q", 1, 4, 4, 1, 5, 256) + b"head"
    assert b"".join(delta.encoded()) == raw
    with monkeypatch.context() as patch:
        patch.setattr(sys, "byteorder", "little" if sys.byteorder == "big" else "big")
        assert b"".join(delta.encoded()) != raw
    assert b"".join(delta.encoded()) == raw  # what is kept is not turned round


def test_what_is_no_file_is_nothing(tmp_path):
    assert Delta.read(tmp_path) is None
    (tmp_path / "file").write_bytes(b"")
    assert Delta.read(tmp_path / "file" / "delta") is None
    (tmp_path / "loop").symlink_to("loop")
    assert Delta.read(tmp_path / "loop") is None


def test_all_pieces_but_the_last_have_one_size(sources, monkeypatch):
    monkeypatch.setattr(deltas, "_BUFFER", 50)
    recorder, layer = recorded([*[b"12", (0, 3, 7)] * 100, (1, 0, 130), b"end"], sources)
    sizes = [len(piece) for piece in recorder.delta.pieces(sources)]
    assert sizes == [*[50] * (len(layer) // 50), len(layer) % 50]


def test_what_lies_in_no_wheel_is_kept_up_to_a_limit(sources, monkeypatch):
    monkeypatch.setattr(deltas, "LIMIT", 10)
    assert recorded([b"x" * 10, (0, 0, 5)], sources)[0].delta
    assert recorded([b"x" * 10, (0, 0, 5), b"y"], sources)[0].delta is None


def test_what_is_too_much_is_not_gathered(sources, monkeypatch):
    monkeypatch.setattr(deltas, "LIMIT", 10)
    recorder, _ = recorded([b"x" * 10] * 100, sources)
    assert len(recorder._own) <= 20


def test_other_wheels_than_before(sources):
    recorder, layer = recorded([(1, 10, 30_000), b"between", (0, 0, 10)], sources)
    delta = recorder.delta
    with pytest.raises(BadInput, match="doesn't fit"):
        joined(delta, sources[:1])
    for number, content in ((0, b""), (1, b"short"), (1, SOURCES[1][:30_009])):
        before = sources[number].read_bytes()
        sources[number].write_bytes(content)
        with pytest.raises(BadInput, match="doesn't fit"):
            joined(delta, sources)
        sources[number].write_bytes(before)
    assert joined(delta, sources) == layer
    sources[1].unlink()
    with pytest.raises(BadInput, match="can't be read"):
        joined(delta, sources)


@pytest.mark.parametrize("kind", ["a folder", "a link to itself", "below a file"])
def test_a_wheel_that_is_no_file(sources, tmp_path, kind):
    delta = recorded([(0, 5, 100)], sources)[0].delta
    path = sources[0]
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    else:
        path = sources[1] / "wheel"
    with pytest.raises(BadInput, match="can't be read"):
        joined(delta, [path, sources[1]])


def test_no_file_is_left_open(sources, monkeypatch):
    def opened():
        return sum(path.resolve() in sources for path in Path("/proc/self/fd").iterdir())

    monkeypatch.setattr(deltas, "_BUFFER", 50)
    delta = recorded([(0, 5, 100), (1, 0, 200)], sources)[0].delta
    joined(delta, sources)
    assert opened() == 0
    pieces = delta.pieces(sources)
    next(pieces)
    assert opened() == len(sources)
    pieces.close()
    assert opened() == 0
    sources[1].write_bytes(b"")
    with pytest.raises(BadInput):
        joined(delta, sources)
    assert opened() == 0
