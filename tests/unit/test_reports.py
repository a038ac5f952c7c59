"""What is told of a whole lock: lines, JSON, JUnit and Markdown."""

import json
import re
from xml.etree import ElementTree as ET

import pytest

from reprobuild import __version__
from reprobuild.batch import File, Finding, Kind, Outcome, Summary
from reprobuild.cli import reports
from reprobuild.dependencies import Dependency
from reprobuild.difference import Level
from reprobuild.digest import Digest
from reprobuild.errors import ExitCode
from reprobuild.guesses import Guess

UPLOADED = "2026-10-01T12:00:00Z"
HOSTILE = "a\x1b[31m\x00 b]]> | `c` <script> & ![x](y)\ud800\ufffe\u202e"


def outcome(name, kind, level=None, *, reason="", error=None, resumed=False, replayed=(), causes=(), text="demo 1"):
    files = [File(f"{name}{end}", str(Digest.of_bytes(b"")), end == ".whl", UPLOADED) for end in (".whl", ".tar.gz")]
    guesses = (Guess("backend", text, "WHEEL says so"), Guess("clock", "none", "nothing else"))
    finding = Finding(level, text, guesses, 2, 3, replayed, causes, reason, 4.5) if level else None
    wheel, sdist = files if level else (None, None)
    pin = Dependency(name, "1.0", marker="os_name == 'nt'", where="lock, line 1")
    return Outcome(pin, kind, finding, wheel, sdist, reason, error, 1.25, resumed)


SAME = outcome("same", Kind.COMPARED, Level.IDENTICAL, replayed=("x.dist-info/RECORD",))
RESUMED = outcome("resumed", Kind.COMPARED, Level.IDENTICAL, resumed=True)
FRAMED = outcome("framed", Kind.COMPARED, Level.CONTAINER, causes=("clock", "umask"))
DEEP = outcome("deep", Kind.COMPARED, Level.PAYLOAD, causes=("file-order",))
UNBUILT = outcome("unbuilt", Kind.NOT_COMPARABLE, Level.NOT_COMPARABLE, reason="It failed:\nsome\noutput\nno compiler")
LACKING = outcome("lacking", Kind.NOT_COMPARABLE, reason="lacking 1.0 has no sdist")
FOLDER = outcome("folder", Kind.NOT_CHECKED, reason="a folder")
SKIPPED = outcome("skipped", Kind.SKIPPED, reason="skipped, as asked")
LOST = outcome("lost", Kind.FAILED, reason="The index is away.", error=ExitCode.INDEX_FAILED)
EVERY = (SAME, RESUMED, FRAMED, DEEP, UNBUILT, LACKING, FOLDER, SKIPPED, LOST)


# --- lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (SAME, "identical       same 1.0         1.2 s  try 2 of 3; clock replayed"),
        (RESUMED, "identical       resumed 1.0      1.2 s  resumed; try 2 of 3"),
        (FRAMED, "container       framed 1.0       1.2 s  try 2 of 3; clock, umask"),
        (UNBUILT, "not-comparable  unbuilt 1.0      1.2 s  It failed: … no compiler"),
        (FOLDER, "not-checked     folder 1.0       1.2 s  a folder"),
        (SKIPPED, "skipped         skipped 1.0      1.2 s  skipped, as asked"),
        (LOST, "failed          lost 1.0         1.2 s  INDEX_FAILED; The index is away."),
    ],
)
def test_a_line_has_level_time_and_cause(each, expected):
    assert re.sub(r"\x1b\[\d*m", "", reports.line(each, 11)) == expected


def test_totals_have_denominators():
    assert list(reports.summary_lines(Summary.of(EVERY), ["demo"])) == [
        "9 pinned: 4 compared, 2 not comparable, 1 not checked, 1 skipped, 1 failed",
        "identical: 2 of 4 (50.0%) compared, 2 of 9 (22.2%) pinned; 1 of the 2 with a replayed clock",
        "differing: container 1, metadata 0, payload 1",
        "resumed: 1 of 9 are what earlier runs found; nothing was built for them",
        "the lock's own projects, which are none of their dependencies: demo",
    ]


def test_an_empty_lock_divides_by_nothing():
    assert list(reports.summary_lines(Summary.of([]), ()))[1] == (
        "identical: 0 of 0 compared, 0 of 0 pinned; 0 of the 0 with a replayed clock"
    )


# --- JSON ------------------------------------------------------------------------------------------


def test_json_has_everything_in_the_locks_order():
    said = reports.as_json("uv.lock", "uv.lock", EVERY, ["demo"], ["a note"], ExitCode.DIFFERS_PAYLOAD)
    said = json.loads(json.dumps(said))
    assert sorted(said) == ["exitCode", "format", "lock", "notes", "own", "packages", "reprobuild", "summary"]
    assert (said["exitCode"], said["own"], said["reprobuild"]) == (22, ["demo"], __version__)
    assert [each["name"] for each in said["packages"]] == [each.dependency.name for each in EVERY]
    assert [each["result"] for each in said["packages"]] == [str(each.kind) for each in EVERY]
    assert said["summary"] == {
        "pinned": 9,
        "compared": 4,
        "not-comparable": 2,
        "not-checked": 1,
        "skipped": 1,
        "failed": 1,
        "levels": {"identical": 2, "container": 1, "metadata": 0, "payload": 1},
        "replayed": 1,
        "resumed": 1,
    }


def test_json_of_one_package():
    said = reports.as_json("x", "uv.lock", [FRAMED, RESUMED, LOST], [], [], ExitCode.OK)["packages"]
    digest = str(Digest.of_bytes(b""))
    assert {key: value for key, value in said[0].items() if key not in ("guesses", "causes")} == {
        "name": "framed",
        "version": "1.0",
        "marker": "os_name == 'nt'",
        "where": "lock, line 1",
        "result": "compared",
        "level": "container",
        "wheel": {"name": "framed.whl", "digest": digest, "locked": True, "uploaded": UPLOADED},
        "sdist": {"name": "framed.tar.gz", "digest": digest, "locked": False, "uploaded": UPLOADED},
        "generator": "demo 1",
        "won": 2,
        "tries": 3,
        "replayed": [],
        "reason": "",
        "error": None,
        "seconds": 1.25,
        "resumed": False,
        "secondsThen": None,
    }
    assert [each["name"] for each in said[0]["causes"]] == ["clock", "umask"]
    assert said[0]["guesses"][0] == {"name": "backend", "value": "demo 1", "evidence": "WHEEL says so"}
    assert (said[1]["resumed"], said[1]["secondsThen"]) == (True, 4.5)
    assert (said[2]["error"], said[2]["wheel"], said[2]["level"]) == ("INDEX_FAILED", None, "not-comparable")
    assert {frozenset(each) for each in said} == {frozenset(said[0])}


# --- JUnit -----------------------------------------------------------------------------------------


def suite(outcomes, accepted=Level.IDENTICAL, *, allow_unchecked=False):
    """The suite of a report, after a look at all that its consumers rely on."""
    data = reports.junit("uv.lock", outcomes, accepted, allow_unchecked=allow_unchecked)
    root = ET.fromstring(data)
    assert root.tag == "testsuites"
    (found,) = root
    assert found.tag == "testsuite"
    assert [each.tag for each in found] == ["properties"] + ["testcase"] * len(outcomes)
    assert all(each.keys() == ["name", "value"] for each in found[0])
    for element in (root, found):
        for word in ("failure", "error"):
            assert int(element.get(f"{word}s", "")) == len(found.findall(f"testcase/{word}"))
        assert int(element.get("tests", "")) == len(outcomes)
        assert float(element.get("time", "")) == pytest.approx(sum(each.seconds for each in outcomes), abs=0.1)
    assert int(found.get("skipped", "")) == len(found.findall("testcase/skipped"))
    for case in found.iter("testcase"):
        assert case.keys() == ["classname", "name", "time"]
        tags = [each.tag for each in case]
        assert tags in (["failure"], ["error"], ["skipped", "system-out"], ["system-out"])
        assert all(each.get("message") for each in case if each.tag != "system-out")
        assert all(each.get("type") for each in case if each.tag in ("failure", "error"))
    return found


def results(found):
    return {case.get("name", "").split()[0]: case[0].tag for case in found.iter("testcase")}


def test_junit_says_what_passed_and_what_did_not():
    assert results(suite(EVERY)) == {
        "same": "system-out",
        "resumed": "system-out",
        "framed": "failure",
        "deep": "failure",
        "unbuilt": "failure",
        "lacking": "failure",
        "folder": "failure",
        "skipped": "skipped",
        "lost": "error",
    }


def test_junit_follows_the_options_of_the_exit_code():
    found = results(suite(EVERY, Level.CONTAINER, allow_unchecked=True))
    assert [name for name, tag in found.items() if tag in ("failure", "error")] == ["deep", "lost"]
    assert [name for name, tag in found.items() if tag == "skipped"] == ["unbuilt", "lacking", "folder", "skipped"]


def test_junit_tells_the_evidence():
    found = suite(EVERY)
    assert found.find("properties/property[@name='level.identical']").get("value") == "2"
    text = found.find("testcase[@name='same 1.0']/system-out").text
    assert "clock replayed: x.dist-info/RECORD" in text
    assert "sdist: same.tar.gz sha256:" in text
    assert "(not in the lock)" in text
    assert "resumed" not in text
    assert "resumed: this is a finding of an earlier run" in found.find("testcase[@name='resumed 1.0']/system-out").text
    failure = found.find("testcase[@name='unbuilt 1.0']/failure")
    assert failure.get("type") == "not-comparable"
    assert failure.text.endswith("some\noutput\nno compiler")
    assert found.find("testcase[@name='lost 1.0']/error").get("type") == "INDEX_FAILED"


def test_junit_is_xml_whatever_is_in_it():
    hostile = [
        outcome(HOSTILE, Kind.COMPARED, Level.PAYLOAD, causes=("clock",), text=HOSTILE),
        outcome("x", Kind.FAILED, reason=f"{HOSTILE}\n{HOSTILE}", error=ExitCode.BUILD_FAILED),
        outcome(HOSTILE, Kind.NOT_CHECKED, reason=HOSTILE),
    ]
    found = suite(hostile, allow_unchecked=True)
    assert "\\x1b[31m\\x00" in found.find("testcase").get("name")
    assert "<script>" in found.find("testcase/error").text


# --- Markdown --------------------------------------------------------------------------------------


def cells(text):
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_markdown_is_a_table_in_the_locks_order_and_totals():
    text = reports.markdown("uv.lock", EVERY, ["demo"])
    heading, rule, *rows = cells(text)
    assert "|".join(heading) == "package|version|uploaded|generator|level|clock|winning guesses|tries|cause|seconds"
    assert rule == ["---"] * 10
    assert [row[0] for row in rows] == [each.dependency.name for each in EVERY]
    guesses = "backend demo 1; clock none"
    assert rows[0] == ["same", "1.0", "2026-10-01", "demo 1", "identical", "replayed", guesses, "2 of 3", "", "4.5"]
    assert rows[1][4] == "identical (resumed)"
    assert rows[2][8] == "clock, umask"
    assert rows[4][4:] == ["not-comparable", "", guesses, "2 of 3", "It failed: … no compiler", "4.5"]
    assert rows[8] == ["lost", "1.0", "", "", "failed", "", "", "", "The index is away.", "1.2"]
    assert "- 9 pinned: 4 compared, 2 not comparable, 1 not checked, 1 skipped, 1 failed\n" in text
    assert "2 of 4 (50.0%) compared, 2 of 9 (22.2%) pinned" in text
    assert text.endswith("demo\n")


def test_markdown_shows_what_strangers_wrote_as_it_is():
    text = reports.markdown("x", [outcome(HOSTILE, Kind.NOT_COMPARABLE, Level.NOT_COMPARABLE, reason=HOSTILE)], ())
    (row,) = cells(text)[2:]
    assert len(row) == 10
    assert "\\<script\\>" in row[0]
    assert "\\!\\[x\\](y)" in row[8]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\ud800-\udfff\u202e]", text)
    text.encode()


def test_what_could_not_be_built_has_its_cause_beside_the_reason():
    gone = outcome(
        "gone", Kind.NOT_COMPARABLE, Level.NOT_COMPARABLE, reason="no such version", causes=("requirement-gone",)
    )
    assert reports.line(gone, 10).endswith("requirement-gone; no such version")
    assert "| requirement-gone; no such version |" in reports.markdown("lock", [gone], ())
