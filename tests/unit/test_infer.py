"""Guesses from wheels and sdists that are known to the last field."""

import calendar
import time

import pytest
from packaging.tags import parse_tag
from packaging.version import Version

from reprobuild.archive import Entry
from reprobuild.digest import Digest
from reprobuild.infer import MOST_TRIES, hypotheses
from reprobuild.wheelfile import WheelFile

UPLOADED = "2024-12-04T17:35:26Z"
HERE = ("3.9", "3.10", "3.11", "3.12", "3.13")
INFO = "demo-1.0.dist-info"


def at(text):
    """Seconds since 1970 of a time in UTC."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


def packed(name, mtime, mode=0o644, size=10):
    return Entry(name, "file", size, mode, mtime, 0)


def source(name, mtime, mode=0o644, size=10):
    return Entry(f"demo-1.0/{name}", "file", size, mode, "", 0, seconds=at(mtime))


def wheel(*entries, generator="setuptools (75.6.0)", metadata_mode=0o644, built="2024-12-04 17:35:24"):
    own = [packed(f"{INFO}/{name}", built, metadata_mode) for name in ("METADATA", "WHEEL", "RECORD")]
    return WheelFile(
        path=None,  # type: ignore[arg-type]  # nothing is read
        digest=Digest.of_bytes(b""),
        name="demo",  # type: ignore[arg-type]
        version=Version("1.0"),
        build=(),
        tags=parse_tag("py3-none-any"),
        dist_info=INFO,
        generator=generator,
        root_is_purelib=True,
        metadata_name="demo",
        metadata_version="1.0",
        entries=(*entries, *own),
    )


def guessed(published, sdist, uploaded=UPLOADED, requires_python=">=3.9", here=HERE, **options):
    return list(hypotheses(published, sdist, uploaded, requires_python, here, **options))


def one(published, sdist=(), **options):
    return guessed(published, sdist, **options)[0]


@pytest.mark.parametrize(
    ("generator", "pins"),
    [
        ("setuptools (75.6.0)", ["setuptools==75.6.0"]),
        ("bdist_wheel (0.33.6)", ["wheel==0.33.6"]),
        ("flit 3.12.0", ["flit-core==3.12.0"]),
        ("hatchling 1.29.0", ["hatchling==1.29.0"]),
        ("poetry-core 2.3.1", ["poetry-core==2.3.1"]),
        ("poetry 1.0.3", ["poetry-core==1.0.3"]),
        ("uv 0.9.1", ["uv-build==0.9.1"]),
        ("pdm-backend (2.4.3)", ["pdm-backend==2.4.3"]),
        ("", []),
        ("made by hand", []),
        ("demo 1.0", []),
        ("flit 3.x-not-a-version!", []),
    ],
)
def test_the_backend_is_the_one_that_the_wheel_names(generator, pins):
    found = one(wheel(generator=generator))
    assert [str(pin) for pin in found.pins] == pins
    assert f"Generator: {generator or 'nothing'}" in next(g.evidence for g in found.guesses if g.name == "backend")


def test_without_the_named_backend_the_newest_of_its_time_is_tried():
    assert [len(each.pins) for each in guessed(wheel(), [])[:4]] == [1, 1, 0, 0]


def test_members_with_the_sources_own_times_had_no_epoch():
    sdist = [source("src/a.py", "2024-12-04 17:35:07"), source("src/b.py", "2024-11-01 10:00:00")]
    found = one(wheel(packed("a.py", "2024-12-04 17:35:06"), packed("b.py", "2024-11-01 10:00:00")), sdist)
    assert (found.epoch, found.timezone) == (None, "UTC")
    assert "the times of the sdist's files" in next(guess.evidence for guess in found.guesses if guess.name == "clock")


@pytest.mark.parametrize(
    ("shown", "timezone"),
    [
        ("2024-11-01 12:00:00", "<+0200>-02:00"),
        ("2024-11-01 04:30:00", "<-0530>+05:30"),
        ("2024-11-01 15:45:00", "<+0545>-05:45"),
    ],
)
def test_members_a_whole_number_of_quarters_apart_show_the_time_zone(shown, timezone):
    found = one(wheel(packed("a.py", shown)), [source("a.py", "2024-11-01 10:00:01")])
    assert (found.epoch, found.timezone) == (None, timezone)


@pytest.mark.parametrize("shown", ["2024-11-01 12:03:00", "2024-11-03 10:00:00"])
def test_members_that_are_apart_by_anything_else_show_none(shown):
    found = one(wheel(packed("a.py", shown)), [source("a.py", "2024-11-01 10:00:01")])
    assert found.timezone == "UTC"


def test_one_time_for_all_is_an_epoch_to_the_second_of_the_sdist():
    """A zip's times are even; the sdist that was made under the same epoch has the odd second."""
    published = wheel(packed("a.py", "2024-12-04 17:35:24"))
    assert one(published, [source("a.py", "2024-12-04 17:35:25")]).epoch == at("2024-12-04 17:35:25")
    assert one(published, [source("a.py", "2024-01-01 00:00:00")]).epoch == at("2024-12-04 17:35:24")


def test_both_clocks_are_tried():
    found = guessed(wheel(packed("a.py", "2024-12-04 17:35:24")), [])
    assert [each.epoch is None for each in found[:2]] == [False, True]


@pytest.mark.parametrize("default", ["1980-01-01 00:00:00", "2016-01-01 00:00:00", "2020-02-02 00:00:00"])
def test_a_backends_own_default_is_no_epoch(default):
    assert one(wheel(packed("a.py", default), built=default)).epoch is None


@pytest.mark.parametrize(
    ("mode", "umask"), [(0o644, 0o022), (0o664, 0o002), (0o600, 0o066), (0, 0o022), (0o444, 0o022)]
)
def test_the_umask_shows_on_what_the_build_wrote(mode, umask):
    assert one(wheel(metadata_mode=mode)).umask == umask


def test_unusual_modes_are_the_sources_own():
    published = wheel(packed("a.py", "2024-12-04 17:35:24", 0o664))
    assert one(published, [source("a.py", "2024-01-01 00:00:00", 0o664)]).own_modes
    assert not one(published).own_modes


def test_a_member_is_matched_with_the_nearest_source_of_its_size():
    sdist = [
        source("tests/data/pkg/a.py", "2020-01-01 00:00:00"),
        source("pkg/a.py", "2024-11-01 10:00:00"),
        source("other/a.py", "2019-01-01 00:00:00"),
    ]
    found = one(wheel(packed("pkg/a.py", "2024-11-01 10:00:00")), sdist)
    assert (found.epoch, found.timezone) == (None, "UTC")


@pytest.mark.parametrize(
    ("uploaded", "requires", "here", "expected"),
    [
        ("2022-12-04T00:00:00Z", ">=3.9", HERE, ["3.11", "3.10", "3.9", "3.12", "3.13"]),
        ("2022-12-04T00:00:00Z", ">=3.10,<3.13", HERE, ["3.11", "3.10", "3.12"]),
        ("2019-01-01T00:00:00Z", "", ("3.10", "3.9"), ["3.9", "3.10"]),
        ("", "", ("3.10", "3.12"), ["3.12", "3.10"]),
        ("2022-12-04T00:00:00Z", ">=3.11.4", HERE, ["3.11", "3.12", "3.13"]),
    ],
)
def test_the_newest_python_of_its_time_comes_first(uploaded, requires, here, expected):
    found = guessed(wheel(generator="x"), [], uploaded, requires, here)
    assert list(dict.fromkeys(each.python for each in found)) == expected


def test_there_is_an_end_to_trying():
    assert len(guessed(wheel(), [])) == MOST_TRIES
    assert guessed(wheel(), [], requires_python="<3") == []


def test_the_index_is_as_it_was_at_the_upload_else_as_the_oldest_python_here_needs():
    found = guessed(wheel(generator="x"), [], "2019-05-16T14:37:14Z", "", ("3.9",))
    assert list(dict.fromkeys(each.index_time for each in found)) == ["2019-05-16T14:37:14Z", "2020-10-05T00:00:00Z"]
    assert {each.index_time for each in guessed(wheel(generator="x"), [], "", "", ("3.9",))} == {""}


@pytest.mark.parametrize(("legacy", "first"), [(True, "2019-02-06T00:00:00Z"), (False, "2018-09-25T20:57:05Z")])
def test_a_source_without_a_backend_needs_setuptools_fallback(legacy, first):
    assert one(wheel(), uploaded="2018-09-25T20:57:05Z", legacy=legacy).index_time == first


def test_every_guess_has_its_evidence():
    names = [guess.name for guess in one(wheel()).guesses]
    assert names == ["umask", "python", "index time", "backend", "clock"]
    assert all(guess.value and guess.evidence for guess in one(wheel()).guesses)


@pytest.mark.parametrize(
    ("summer", "winter", "zone"),
    [
        ("2022-04-09 20:45:18", "2022-12-05 13:00:00", "Europe/London"),
        ("2022-04-09 15:45:18", "2022-12-05 08:00:00", "America/New_York"),
        ("2022-04-09 20:45:18", "2022-12-05 15:00:00", "<+0100>-01:00"),
    ],
)
def test_times_an_hour_apart_in_summer_show_a_time_zone_with_a_summer_time(summer, winter, zone):
    sdist = [source("a.py", "2022-04-09 19:45:19"), source("b.py", "2022-12-05 13:00:00")]
    found = one(wheel(packed("a.py", summer), packed("b.py", winter)), sdist)
    assert (found.epoch, found.timezone) == (None, zone)
