"""The command `reprobuild verify-wheels`, with findings from a table."""

import json
import os
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from reprobuild import batch, published
from reprobuild.batch import Finding, Kind, Outcome
from reprobuild.cli import app
from reprobuild.difference import Level
from reprobuild.errors import ExitCode

LOCK = "same==1.0\nframed==1.0\nfolder @ file:///folder\n"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The command line within this process: its exit code, its output, its errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text(LOCK)

    def run_it(*arguments):
        monkeypatch.setattr(sys, "argv", ["reprobuild", "verify-wheels", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            app.run()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run_it


@pytest.fixture
def asked(monkeypatch):
    """What the library is asked; each package is as its name says."""
    found: dict[str, Any] = {}
    levels = {"same": Level.IDENTICAL, "framed": Level.CONTAINER}

    def verify(dependencies, finished, **options):
        found.update(options, names=[each.name for each in dependencies])
        outcomes = []
        for each in dependencies:
            if each.name in options["skipped"]:
                outcome = Outcome(each, Kind.SKIPPED, reason="skipped, as asked")
            elif each.why_not:
                outcome = Outcome(each, Kind.NOT_CHECKED, reason=each.why_not)
            else:
                outcome = Outcome(each, Kind.COMPARED, Finding(levels[each.name], "", (), 1, 1, (), (), "", 1.0))
            finished(outcome)
            outcomes.append(outcome)
        return tuple(outcomes)

    monkeypatch.setattr(batch, "verify", verify)
    return found


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), ExitCode.DIFFERS_CONTAINER),
        (("--accept", "container"), ExitCode.NOT_COMPARABLE),
        (("--accept", "container", "--allow-unchecked"), ExitCode.OK),
        (("--accept", "container", "--skip", "folder"), ExitCode.OK),
        (
            (
                "--only",
                "Same",
            ),
            ExitCode.OK,
        ),
        (("--only", "same", "--only", "framed"), ExitCode.DIFFERS_CONTAINER),
        (("--only", "same", "--only", "framed", "--skip", "framed"), ExitCode.OK),
    ],
)
def test_the_exit_code(run, asked, options, code):
    assert run("--from", "requirements.txt", *options)[0] == code


def test_people_get_a_line_each_and_totals(run, asked):
    _, out, _ = run("--from", "requirements.txt", "-q")
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [
        ["identical", "same"],
        ["container", "framed"],
        ["not-checked", "folder"],
    ]
    assert "3 pinned: 2 compared, 0 not comparable, 1 not checked, 0 skipped, 0 failed" in out
    assert asked["names"] == ["same", "framed", "folder"]
    assert (asked["settings"], asked["confinement"], asked["resume"]) == (Path.cwd(), published.CONFINED, False)


def test_machines_get_one_document_and_people_the_lines_beside_it(run, asked):
    code, out, err = run("--from", "requirements.txt", "--json")
    assert json.loads(out)["exitCode"] == code == ExitCode.DIFFERS_CONTAINER
    assert "identical       same 1.0" in err
    code, out, err = run("--from", "requirements.txt", "--json", "--quiet")
    assert json.loads(out)["summary"]["pinned"] == 3
    assert err == ""


def test_reports_are_written_also_where_something_differs(run, asked, tmp_path):
    code, *_ = run("--from", "requirements.txt", "--junit", "new/report.xml", "--markdown", "report.md")
    assert code == ExitCode.DIFFERS_CONTAINER
    assert len(ET.parse(tmp_path / "new" / "report.xml").getroot().findall("testsuite/testcase")) == 3
    assert "| framed | 1.0 |" in (tmp_path / "report.md").read_text()


def test_the_options_reach_the_library(run, asked):
    run("--from", "requirements.txt", "--jobs", "7", "--resume", "--sandbox", "plain")
    assert (asked["jobs"], asked["resume"], asked["confinement"].sandbox) == (7, True, "plain")


@pytest.mark.parametrize(("processors", "jobs"), [(1, 1), (2, 1), (5, 2), (64, 32)])
def test_half_of_the_processors_are_used(run, asked, monkeypatch, processors, jobs):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    run("--from", "requirements.txt")
    assert asked["jobs"] == jobs


def test_notes_on_the_lock_are_told(run, asked, tmp_path):
    (tmp_path / "requirements.txt").write_text("-i https://index.example.org/simple\nsame==1.0\n-e .\n")
    code, out, err = run("--from", "requirements.txt")
    assert code == ExitCode.OK
    assert "note: The lock names indexes of its own" in err
    assert "the lock's own projects, which are none of their dependencies: ." in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), ExitCode.USAGE, "Missing option '--from'"),
        (("--from", "requirements.txt", "--jobs", "0"), ExitCode.USAGE, "'--jobs': 0 is not in the range"),
        (("--from", "missing.txt"), ExitCode.BAD_INPUT, "missing.txt can't be read"),
        (("--from", "requirements.txt", "--only", "sane"), ExitCode.BAD_INPUT, "Did you mean 'same'?"),
        (("--from", "requirements.txt", "--skip", "zzz"), ExitCode.BAD_INPUT, "The lock has no 'zzz'."),
    ],
)
def test_mistakes_end_before_anything_is_built(run, asked, arguments, code, says):
    ended, out, err = run(*arguments)
    assert (ended, out) == (code, "")
    assert says in err
    assert asked == {}


def test_an_interruption_says_how_to_go_on_and_writes_no_report(run, monkeypatch, tmp_path):
    def verify(dependencies, finished, **options):
        finished(Outcome(dependencies[0], Kind.NOT_CHECKED))
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "verify", verify)
    code, _, err = run("--from", "requirements.txt", "--junit", "report.xml")
    assert code == ExitCode.INTERRUPTED
    assert "note: 1 of 3 are done; --resume takes what was found out." in err
    assert not (tmp_path / "report.xml").exists()


def test_packages_that_are_checked_at_once_share_the_memory(run, asked):
    run("--from", "requirements.txt", "--jobs", "4", "--timeout", "60")
    shared = asked["confinement"]
    assert (shared.memory, shared.timeout) == (max(1024, published.CONFINED.memory // 4), 60)
    run("--from", "requirements.txt", "--jobs", "4", "--memory", "512")
    assert asked["confinement"].memory == 512


def test_reports_are_written_when_nobody_reads_the_lines(run, asked, monkeypatch, tmp_path):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as unread, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", unread)
        code, _, _ = run("--from", "requirements.txt", "--junit", "report.xml", "--markdown", "report.md")
    assert code == ExitCode.DIFFERS_CONTAINER
    assert len(ET.parse(tmp_path / "report.xml").getroot().findall(".//testcase")) == 3
    assert "framed" in (tmp_path / "report.md").read_text()
