import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest

from reprobuild import process, variations
from reprobuild.causes import CAUSES
from reprobuild.errors import BadInput, ToolMissing
from reprobuild.sandbox import USUAL, Guarantees, Surroundings
from reprobuild.variations import USUAL_NAMES, VARIATIONS, choose, impossible, suspects

EVERYTHING = Guarantees("bubblewrap", *[True] * 6)

# --- the variations --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIATIONS)
def test_each_variation_changes_just_what_it_is_named_for(name):
    changed = VARIATIONS[name].change(USUAL)
    different = {
        field.name for field in fields(Surroundings) if getattr(changed, field.name) != getattr(USUAL, field.name)
    }
    expected = {
        "path": {"root"},
        "hash-seed": {"hash_seed"},
        "user": {"user", "uid"},
        "directory-order": {"directory_order"},
        "python": set(),  # an interpreter is no part of the surroundings
    }
    assert different == expected.get(name, {name})


def test_every_field_is_varied_by_one_variation():
    """``uid`` goes with the user."""
    touched = [
        field.name
        for each in VARIATIONS.values()
        for field in fields(Surroundings)
        if getattr(each.change(USUAL), field.name) != getattr(USUAL, field.name)
    ]
    assert sorted(touched) == sorted(field.name for field in fields(Surroundings))


def test_variations_can_be_combined():
    around = USUAL
    for each in VARIATIONS.values():
        around = each.change(around)
    for each in VARIATIONS.values():
        assert each.change(around) == around or each.name == "jobs"


@pytest.mark.parametrize("name", VARIATIONS)
def test_each_variation_has_a_cause_and_a_guarantee_that_exist(name):
    each = VARIATIONS[name]
    assert each.name == name
    assert each.cause in CAUSES
    assert not each.held_by or each.held_by in {field.name for field in fields(Guarantees)}


@pytest.mark.parametrize("name", [name for name in VARIATIONS if VARIATIONS[name].value(USUAL)])
def test_what_a_build_can_see_of_a_variation_differs(name):
    each = VARIATIONS[name]
    assert each.value(each.change(USUAL)) != each.value(USUAL)


def test_the_other_time_zone_is_one():
    """A zone that the C library can't read is UTC, and would vary nothing."""
    varied = VARIATIONS["timezone"].change(USUAL)
    said = subprocess.run(["date", "+%z"], env={"TZ": varied.timezone}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "-1130"


def test_the_other_locale_is_known_here_or_plain_c():
    varied = VARIATIONS["locale"].change(USUAL)
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout
    assert varied.locale.lower().replace("utf-8", "utf8") in known.lower().split()


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("C\nC.utf8\nPOSIX\nde_DE.utf8\nen_US.utf8\n", "de_DE.UTF-8"),
        ("C\nfr_FR.UTF-8\ntr_TR.utf8\n", "tr_TR.UTF-8"),
        ("C\nC.utf8\nde_DE@euro\nde_DE.iso88591\n", "C"),
        ("\xff\n", "C"),
        (ToolMissing("no locale"), "C"),
        (process.ToolFailed(["locale"], 1, ""), "C"),
    ],
)
def test_the_other_locale_is_one_that_locale_lists(monkeypatch, listed, expected):
    """Wherever the system keeps them: in folders, or in one archive."""

    def run(argv, **_):
        if isinstance(listed, Exception):
            raise listed
        assert argv == ["locale", "-a"]
        return process.Completed(listed.encode("latin-1"), "")

    monkeypatch.setattr(process, "run", run)
    variations._locales.cache_clear()
    assert VARIATIONS["locale"].change(USUAL).locale == expected
    variations._locales.cache_clear()


def test_the_other_path_lies_where_nobody_else_can_swap_it():
    """Only directly in /tmp does the sticky bit keep other users from renaming what we make."""
    assert Path(VARIATIONS["path"].change(USUAL).root).parent == Path("/tmp")
    assert Path(USUAL.root).parent == Path("/tmp")


@pytest.mark.parametrize(("jobs", "other"), [(1, 2), (2, 1), (8, 1)])
def test_the_other_number_of_jobs_is_another(jobs, other):
    assert VARIATIONS["jobs"].change(Surroundings(jobs=jobs)).job_count == other


# --- the choice among them -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", tuple(VARIATIONS)),
        ("none", ()),
        ("umask", ("umask",)),
        ("umask,path", ("path", "umask")),
        (" hash-seed , umask,umask", ("umask", "hash-seed")),
        (",".join(reversed(VARIATIONS)), tuple(VARIATIONS)),
    ],
)
def test_what_is_asked_for_comes_in_the_usual_order(text, expected):
    assert choose(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("umaks", r"'umaks' is no variation\. Did you mean 'umask'\?"),
        ("path,hash_seed", "Did you mean 'hash-seed'"),
        ("HOME", "Did you mean 'home'"),
        ("weather", r"'weather' is no variation\.$"),
        ("", "'' is no variation"),
        ("path,", "'' is no variation"),
        ("path,all", "'all' is no variation. 'all' stands alone"),
    ],
)
def test_what_is_no_variation_is_refused_with_what_was_meant(text, says):
    with pytest.raises(BadInput, match=says) as caught:
        choose(text)
    assert all(name in caught.value.remedy for name in VARIATIONS)


def test_python_is_varied_only_when_it_is_asked_for():
    """It is an input, and the record names it by its digest."""
    assert set(VARIATIONS) - set(USUAL_NAMES) == {"python"}


def test_what_cannot_be_varied_has_a_reason(monkeypatch):
    assert impossible(("path", "hostname", "umask"), EVERYTHING) == {}
    plain = replace(EVERYTHING, kind="plain", fixed_hostname=False)
    monkeypatch.setitem(VARIATIONS, "clock", replace(VARIATIONS["clock"], why_not=lambda: "it is broken"))
    assert impossible(VARIATIONS, plain) == {"hostname": "the sandbox kind plain can't", "clock": "it is broken"}
    assert impossible(("path",), plain) == {}


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        ((), ()),
        (("random-id",), ()),
        (("build-path",), ("path",)),
        (("home", "build-path"), ("path", "home")),
        (("set-order",), ("hash-seed", "directory-order")),
        (("clock",), ("timezone", "clock")),
        (("compression",), ("python",)),
        (("environment", "python-version"), ("noise", "python")),
    ],
)
def test_named_causes_make_suspects(causes, expected):
    assert suspects(causes) == expected


def test_only_causes_that_exist_make_suspects():
    assert variations._SUSPECTS.keys() <= CAUSES.keys()
    assert {name for names in variations._SUSPECTS.values() for name in names} <= VARIATIONS.keys()
