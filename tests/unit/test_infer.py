"""Guesses from wheels and sdists that are known to the last field."""

import calendar
import time
from dataclasses import replace

import pytest
from packaging.tags import parse_tag
from packaging.version import Version

from reprobuild.archive import Entry
from reprobuild.difference import Difference, Level
from reprobuild.digest import Digest
from reprobuild.guesses import choices_of
from reprobuild.infer import MOST_HOPELESS_TRIES, MOST_TRIES, Aspect, Outcome, Search, outcome_of
from reprobuild.wheelfile import WheelFile

UPLOADED = "2024-12-04T17:35:26Z"
HERE = ("3.9", "3.10", "3.11", "3.12", "3.13")
INFO = "demo-1.0.dist-info"


def at(text):
    """Seconds since 1970 of a time in UTC."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


def packed(name, mtime, mode=0o644, size=10, system=3):
    return Entry(name, "file", size, mode, mtime, 0, create_system=system)


def source(name, mtime, mode=0o644, size=10):
    return Entry(f"demo-1.0/{name}", "file", size, mode, "", 0, seconds=at(mtime))


def wheel(*entries, generator="setuptools (75.6.0)", mode=0o644, built="2024-12-04 17:35:24", **options):
    system, name, tag = options.get("system", 3), options.get("name", "demo"), options.get("tag", "py3-none-any")
    own = [packed(f"{INFO}/{name}", built, mode, system=system) for name in ("METADATA", "WHEEL", "RECORD")]
    return WheelFile(
        path=None,  # type: ignore[arg-type]  # nothing is read
        digest=Digest.of_bytes(b""),
        name=name,
        version=Version("1.0"),
        build=(),
        tags=parse_tag(tag),
        dist_info=INFO,
        generator=generator,
        root_is_purelib=True,
        metadata_name="demo",
        metadata_version="1.0",
        entries=(*entries, *own),
    )


def search(published, sdist=(), uploaded=UPLOADED, requires_python=">=3.9", here=HERE, **options):
    return Search(choices_of(published, sdist, uploaded, requires_python, here, **options))


def one(published, sdist=(), **options):
    """The likeliest hypothesis."""
    return search(published, sdist, **options).next()


def after(looked, *outcomes):
    """The hypotheses that a search gives, one before each of these outcomes and one after all of them."""
    found = [looked.next()]
    for outcome in outcomes:
        looked.learn(outcome)
        found.append(looked.next())
    return found


def differs(*aspects, rank=(2, 9), age="", hopeless=False):
    return Outcome(rank, frozenset(aspects), age, hopeless)


DIFFERING = set(Aspect) - {Aspect.UNRESOLVED, Aspect.UNBUILT}
UNRESOLVED, UNBUILT = differs(Aspect.UNRESOLVED, rank=(5, 0)), differs(Aspect.UNBUILT, rank=(5, 0))


@pytest.mark.parametrize(
    ("generator", "pins"),
    [
        ("setuptools (75.6.0)", ["setuptools==75.6.0"]),
        ("bdist_wheel (0.33.6)", ["wheel==0.33.6"]),
        ("flit 3.12.0", ["flit-core==3.12.0"]),
        ("hatchling 1.29.0", ["hatchling==1.29.0"]),
        ("poetry-core 2.3.1", ["poetry-core==2.3.1"]),
        ("poetry 1.0.3", ["poetry-core==1.0.3"]),
        ("pdm-pep517 1.0.4", ["pdm-pep517==1.0.4"]),
        ("uv 0.9.1", ["uv-build==0.9.1"]),
        ("pdm-backend (2.4.3)", ["pdm-backend==2.4.3"]),
        ("", []),
        ("made by hand", []),
        ("demo 1.0", []),
        ("flit 3.x-not-a-version!", []),
    ],
)
def test_the_backend_is_the_one_that_the_wheel_names(generator, pins):
    found = one(wheel(generator=generator), uploaded="2023-12-04T17:35:26Z")
    assert [str(pin) for pin in found.pins] == pins
    assert f"Generator: {generator or 'nothing'}" in next(g.evidence for g in found.guesses if g.name == "backend")


def backends(generator, outcome=UNRESOLVED, **options):
    """Each backend that is tried before anything else changes: its pins, and the tool that is called."""
    looked = search(wheel(generator=generator, **options), uploaded="2020-10-18T20:41:39Z", here=("3.9",))
    found = after(looked, *[outcome] * 6)
    return [
        ([str(pin) for pin in each.pins], each.tool)
        for each in found
        if each and each.index_time == "2020-10-18T20:41:39Z"
    ]


def test_what_cannot_be_resolved_is_tried_as_the_other_distributions_of_that_name_and_by_itself():
    assert backends("poetry 1.0.5")[:5] == [
        (["poetry-core==1.0.5"], ""),
        (["poetry==1.0.5"], ""),
        (["poetry-core==1.0.5"], "poetry.core.masonry.api"),
        (["poetry==1.0.5"], "poetry.masonry.api"),
        ([], ""),
    ]


def test_the_wrong_generator_is_mended_by_a_tool_that_builds_by_itself():
    found = backends("flit 3.0.0", differs(Aspect.BACKEND))
    assert (["flit-core==3.0.0"], "flit_core.buildapi") in found
    assert (["flit==3.0.0"], "flit.buildapi") in found


def test_a_backend_builds_itself_unless_its_wheel_names_another_version():
    assert backends("demo 1.0", name="demo")[:1] == [([], "")]
    looked = after(search(wheel(generator="poetry 1.0.3", name="poetry-core")), *[differs(Aspect.BACKEND)] * 3)
    assert ["poetry-core==1.0.3"] in [[str(pin) for pin in each.pins] for each in looked if each.tool]
    assert all(each.tool for each in looked if "poetry-core==1.0.3" in map(str, each.pins))


@pytest.mark.parametrize(("uploaded", "pins"), [("2024-12-05T00:00:00Z", 2), ("2024-01-05T00:00:00Z", 1)])
def test_a_bdist_wheel_is_not_from_a_setuptools_that_has_its_own(uploaded, pins):
    found = one(wheel(generator="bdist_wheel (0.45.1)"), uploaded=uploaded)
    assert len(found.pins) == pins
    assert ("setuptools<70.1" in map(str, found.pins)) is (pins == 2)


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


def test_where_times_differ_the_other_clock_is_tried_next_and_nothing_else():
    looked = search(wheel(packed("a.py", "2024-12-04 17:35:24")))
    first, second, third = after(looked, differs(Aspect.CLOCK), differs(Aspect.CLOCK, rank=(1, 1)))
    assert (first.epoch is None, second.epoch is None) == (False, True)
    assert replace(second, epoch=first.epoch, guesses=first.guesses) == first
    assert third is None


def test_a_licence_tells_the_time_zone_where_it_kept_its_time():
    published = wheel(
        packed("a.py", "2022-12-05 13:00:00"),
        packed(f"{INFO}/LICENSE", "2022-04-09 20:45:18"),
        built="2022-12-06 11:11:10",
    )
    sdist = [source("a.py", "2022-12-05 13:00:00"), source("LICENSE", "2022-04-09 19:45:19")]
    assert one(published, sdist).timezone == "Europe/London"
    made_anew = wheel(
        packed("a.py", "2022-12-05 13:00:00"),
        packed("b.py", "2022-04-09 20:45:18"),
        packed(f"{INFO}/LICENSE", "2022-12-06 11:11:10"),
    )
    assert one(made_anew, [*sdist, source("b.py", "2022-04-09 19:45:19")]).timezone == "Europe/London"


@pytest.mark.parametrize("default", ["1980-01-01 00:00:00", "2016-01-01 00:00:00", "2020-02-02 00:00:00"])
def test_a_backends_own_default_is_no_epoch(default):
    assert one(wheel(packed("a.py", default), built=default)).epoch is None


@pytest.mark.parametrize(
    ("mode", "umask"), [(0o644, 0o022), (0o664, 0o002), (0o640, 0o026), (0o600, 0o022), (0, 0o022), (0o444, 0o022)]
)
def test_the_umask_shows_on_what_the_build_wrote(mode, umask):
    """600 is the mode of a temporary file, whatever the umask."""
    assert one(wheel(mode=mode)).umask == umask


def test_where_modes_differ_the_sources_own_and_other_umasks_are_tried():
    published = wheel(packed("a.py", "2024-12-04 17:35:24", 0o644))
    found = after(search(published, [source("a.py", "2024-01-01 00:00:00", 0o600)]), *[differs(Aspect.MODES)] * 4)
    assert [(each.own_modes, each.umask) for each in found] == [
        (False, 0o022),
        (True, 0o022),
        (False, 0o002),
        (False, 0o077),
        (False, 0o027),
    ]


@pytest.mark.parametrize("name", ["a.py", f"{INFO}/LICENSE", f"{INFO}/licenses/LICENSE"])
def test_unusual_modes_are_the_sources_own(name):
    published = wheel(packed(name, "2024-12-04 17:35:24", 0o600))
    assert one(published, [source(name.rpartition("/")[2], "2024-01-01 00:00:00", 0o600)]).own_modes
    assert not one(published).own_modes
    assert not one(published, [source(name.rpartition("/")[2], "2024-01-01 00:00:00", 0o640)]).own_modes


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
    found = after(search(wheel(generator="x"), (), uploaded, requires, here), *[UNBUILT] * 8)
    assert list(dict.fromkeys(each.python for each in found if each)) == expected


def test_without_a_python_there_is_nothing_to_try():
    assert one(wheel(), requires_python="<3") is None


def test_what_does_not_build_is_tried_with_what_the_oldest_python_here_needs():
    looked = search(wheel(generator="x"), (), "2019-05-16T14:37:14Z", "", ("3.9",))
    found = after(looked, UNBUILT, UNBUILT)
    assert [each.index_time for each in found] == ["2019-05-16T14:37:14Z", "2020-10-05T00:00:00Z", ""]


@pytest.mark.parametrize(("legacy", "first"), [(True, "2019-02-06T00:00:00Z"), (False, "2018-09-25T20:57:05Z")])
def test_a_source_without_a_backend_needs_setuptools_fallback(legacy, first):
    assert one(wheel(), uploaded="2018-09-25T20:57:05Z", legacy=legacy).index_time == first


def test_every_guess_has_its_evidence():
    names = [guess.name for guess in one(wheel()).guesses]
    assert names == ["umask", "python", "index time", "backend", "clock"]
    published = wheel(generator="bdist_wheel (0.37.1)", tag="py2.py3-none-any", system=0, mode=0o600)
    looked = search(published, uploaded="2022-12-04T00:00:00Z")
    for each in after(looked, *[differs(*DIFFERING)] * (MOST_TRIES - 1)):
        assert all(guess.name and guess.value and guess.evidence for guess in each.guesses)


# --- what one try says of the next -------------------------------------------------------------------


def test_setuptools_that_came_with_a_python_are_tried_where_metadata_differs():
    looked = search(wheel(generator="bdist_wheel (0.37.0)"), uploaded="2022-05-31T19:44:50Z")
    found = after(looked, *[differs(Aspect.METADATA)] * 3)
    assert [[str(pin) for pin in each.pins] for each in found] == [
        ["wheel==0.37.0"],
        ["wheel==0.37.0", "setuptools==58.1.0"],
        ["wheel==0.37.0", "setuptools==57.4.0"],
        ["wheel==0.37.0", "setuptools==56.0.0"],
    ]


def test_what_metadata_says_of_the_age_of_setuptools_leaves_some_out():
    looked = search(wheel(generator="bdist_wheel (0.37.0)"), uploaded="2022-05-31T19:44:50Z")
    old, new = differs(Aspect.METADATA, age="older"), differs(Aspect.METADATA, age="newer")
    found = after(looked, old, new, old)
    pins = ["".join(map(str, each.pins[-1:])) for each in found]
    assert pins[:2] == ["wheel==0.37.0", "setuptools==58.1.0"]
    assert not any(pin.startswith("setuptools") for pin in pins[2:])  # all others are older still


def test_an_old_setuptools_gets_a_python_that_has_distutils():
    looked = search(wheel(generator="bdist_wheel (0.37.0)"), uploaded="2024-01-31T19:44:50Z")
    first, second = after(looked, differs(Aspect.METADATA))
    assert (first.python, second.python) == ("3.12", "3.11")
    assert [guess.value for guess in second.guesses if guess.name == "python"] == ["3.11"]


def test_another_wheel_is_tried_beside_a_setuptools_that_names_itself():
    first, second = after(search(wheel(generator="setuptools (75.1.0)")), differs(Aspect.METADATA))
    assert [str(pin) for pin in first.pins] == ["setuptools==75.1.0"]
    assert [str(pin) for pin in second.pins] == ["setuptools==75.1.0", "wheel==0.37.1"]


def test_tags_for_both_pythons_that_the_source_does_not_ask_for_were_asked_for_by_hand():
    first, second = after(search(wheel(tag="py2.py3-none-any")), differs(Aspect.TAG))
    assert first.home == ()
    assert second.home == ((".pydistutils.cfg", "[bdist_wheel]\nuniversal = 1\n"),)
    assert after(search(wheel()), differs(Aspect.TAG))[1] is None


def test_entries_made_on_windows_are_made_as_there():
    assert "win32" in one(wheel(packed("a.py", "2024-12-04 17:35:24", system=0), system=0)).startup
    assert one(wheel(packed("a.py", "2024-12-04 17:35:24"), system=0)).startup == ""


def test_the_best_so_far_is_what_is_changed():
    """Two things are wrong at once: mending the first is kept while the second is mended."""
    looked = search(wheel(packed("a.py", "2024-12-04 17:35:24"), tag="py2.py3-none-any"))
    both, universal = after(looked, differs(Aspect.CLOCK, Aspect.TAG, rank=(2, 2)))
    assert (both.home, bool(universal.home)) == ((), True)
    looked.learn(differs(Aspect.CLOCK, rank=(1, 1)))
    mended = looked.next()
    assert mended.home
    assert mended.epoch != both.epoch


def test_there_is_an_end_to_trying():
    looked, count = search(wheel(generator="bdist_wheel (0.37.0)"), uploaded="2022-05-31T19:44:50Z"), 0
    while looked.next():
        looked.learn(differs(*DIFFERING))
        count += 1
    assert count == MOST_TRIES


def test_what_cannot_be_resolved_costs_no_try_but_has_an_end_too():
    looked, count = search(wheel(generator="poetry 1.0.5"), uploaded="2019-10-18T20:41:39Z"), 0
    while looked.next():
        looked.learn(UNRESOLVED)
        count += 1
    assert MOST_TRIES < count <= 3 * MOST_TRIES


def test_what_no_guess_can_mend_ends_the_search():
    looked = search(wheel())
    assert looked.next()
    looked.learn(differs(hopeless=True))
    assert looked.next() is None
    looked, count = search(wheel(generator="bdist_wheel (0.37.0)"), uploaded="2022-05-31T19:44:50Z"), 0
    while looked.next():
        looked.learn(differs(Aspect.METADATA, hopeless=True))
        count += 1
    assert count == MOST_HOPELESS_TRIES


def difference(name, field, left="x", right="y", cause=None, level=Level.METADATA, follows=False):
    return Difference((name,) if name else (), field, left, right, cause, follows, level)


@pytest.mark.parametrize(
    ("found", "aspects"),
    [
        (difference("a.py", "time", level=Level.CONTAINER), {Aspect.CLOCK}),
        (difference("a.py", "mode", level=Level.PAYLOAD), {Aspect.MODES}),
        (difference("a.py", "create system", level=Level.CONTAINER), {Aspect.SYSTEM}),
        (difference("a.py", "compression", level=Level.CONTAINER), {Aspect.FRAMING}),
        (difference("", "order", level=Level.CONTAINER), {Aspect.FRAMING}),
        (difference(f"{INFO}/WHEEL", "line 2", "Generator: a", "Generator: b"), {Aspect.BACKEND}),
        (difference(f"{INFO}/WHEEL", "line 4", "Tag: py2-none-any", "absent"), {Aspect.TAG}),
        (difference(f"{INFO}/METADATA", "line 4"), {Aspect.METADATA}),
        (difference("a.py", "line 4", level=Level.PAYLOAD), {Aspect.CONTENT}),
        (difference(f"{INFO}/RECORD", "line", follows=True), set()),
        (difference("py.typed", "missing", cause="not-in-sdist", level=Level.PAYLOAD), set()),
        (difference("a.py", "line 4", cause="not-as-in-sdist", level=Level.PAYLOAD), {Aspect.CONTENT}),
    ],
)
def test_each_difference_is_an_aspect_of_something(found, aspects):
    outcome = outcome_of((2, 1), [found])
    assert outcome.aspects == aspects
    assert outcome.hopeless is (found.cause is not None)
    assert outcome.is_built


def test_another_file_name_is_another_tag():
    assert outcome_of((2, 1), [], renamed=True).aspects == {Aspect.TAG}


@pytest.mark.parametrize(
    ("left", "right", "age"),
    [
        ("Platform: UNKNOWN", "absent", "older"),
        ("absent", "Platform: UNKNOWN", "newer"),
        ("License-File: LICENSE", "absent", "newer"),
        ("absent", "License-File: LICENSE", "older"),
        ("absent", "Dynamic: author", "older"),
        ("Summary: a", "Summary: b", ""),
    ],
)
def test_metadata_tells_the_age_of_its_writer(left, right, age):
    assert outcome_of((2, 1), [difference(f"{INFO}/METADATA", "line 9", left, right)]).age == age
    assert outcome_of((2, 1), [difference("a.py", "line 9", left, right)]).age == ""


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


# --- what the index doesn't tell, and what tags do ----------------------------------------------------


def test_without_an_upload_time_the_members_tell_when():
    first = one(wheel(packed("demo.py", "2024-12-04 20:00:00")), uploaded="")
    assert (first.index_time, first.python) == ("2024-12-05T20:00:00Z", "3.13")
    assert "newest member" in next(guess.evidence for guess in first.guesses if guess.name == "index time")
    older = one(wheel(built="2021-11-01 00:00:00"), uploaded="")
    assert (older.index_time, older.python) == ("2021-11-02T00:00:00Z", "3.10")


def test_without_any_time_the_index_is_taken_as_it_is():
    assert (
        one(wheel(packed("demo.py", "1980-01-01 00:00:00"), built="2020-02-02 00:00:00"), uploaded="").index_time == ""
    )


@pytest.mark.parametrize(
    ("tag", "python"),
    [("cp311-cp311-linux_x86_64", "3.11"), ("cp39-abi3-linux_x86_64", "3.13"), ("py3-none-any", "3.13")],
)
def test_an_extension_was_built_by_the_python_of_its_tag(tag, python):
    assert one(wheel(tag=tag)).python == python


def test_an_extension_for_a_python_that_is_not_here_gives_no_hypothesis():
    assert one(wheel(tag="cp38-cp38-linux_x86_64")) is None


def test_a_time_that_no_calendar_has_is_no_defect():
    odd = wheel(packed("demo.py", "2026-13-41 25:61:62"), built="1980-00-00 00:00:00")
    assert one(odd, [source("demo.py", "2024-12-04 20:00:00")], uploaded="") is not None


def test_what_was_repaired_elsewhere_is_built_once():
    looked = search(wheel(tag="cp311-cp311-manylinux_2_17_x86_64"))
    assert looked.next() is not None
    said = outcome_of((2, 9), [Difference(("demo/_a.so",), "section", "", "", "repaired")])
    assert said.elsewhere
    looked.learn(said)
    assert looked.next() is None
