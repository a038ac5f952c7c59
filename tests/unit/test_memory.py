import pytest

from reprobuild import memory
from reprobuild.digest import Digest
from reprobuild.errors import WriteFailed

KEY, OTHER = Digest.of_bytes(b"key"), Digest.of_bytes(b"other")
KNOWN = {"é\udce9\n": [1, None, "x" * 100]}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))


def test_what_was_remembered_is_known_again():
    assert memory.recall("things", KEY) is None
    memory.remember("things", KEY, "before")
    memory.remember("things", KEY, KNOWN)
    assert memory.recall("things", KEY) == KNOWN
    assert memory.recall("things", OTHER) is None
    assert memory.recall("others", KEY) is None


def test_every_damage_is_noticed():
    memory.remember("things", KEY, KNOWN)
    path = memory.place("things", KEY, "json")
    whole = path.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            assert memory.recall("things", KEY) is None, damaged


def test_what_was_remembered_of_something_else_is_not_taken():
    memory.remember("things", KEY, KNOWN)
    place = memory.place("things", OTHER, "json")
    place.parent.mkdir()
    memory.place("things", KEY, "json").rename(place)
    assert memory.recall("things", OTHER) is None


def test_a_folder_in_its_place_is_nothing_remembered():
    memory.place("things", KEY, "json").mkdir(parents=True)
    assert memory.recall("things", KEY) is None
    with pytest.raises(WriteFailed) as refused:
        memory.remember("things", KEY, KNOWN)
    assert refused.value.remedy == "Remove that folder: a file is kept there."


@pytest.mark.parametrize("raw", [b"[" * 200_000, b"{"])
def test_what_others_remembered_may_not_be_json(raw):
    memory.remember("things", KEY, KNOWN)
    memory.place("things", KEY, "json").write_bytes(memory._check(KEY, raw) + b"\n" + raw)
    assert memory.recall("things", KEY) is None
