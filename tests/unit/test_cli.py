import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from reprobuild import __version__, doctor, published, rebuild
from reprobuild import cli as entry
from reprobuild.causes import CAUSES
from reprobuild.cli import app, console
from reprobuild.cli.doctor import doctor as doctor_command
from reprobuild.compare import Difference, Level, Verdict
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, ExitCode, LockStale, ReprobuildError, WriteFailed
from reprobuild.sandbox import Guarantees
from reprobuild.subject import Origin
from reprobuild.variations import USUAL_NAMES

PROGRAM = [sys.executable, "-m", "reprobuild"]


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line within this process: its exit code, its output, its errors."""

    def run_it(*arguments):
        monkeypatch.setattr(sys, "argv", ["reprobuild", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            app.run()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run_it


@pytest.fixture
def broken(monkeypatch):
    """Let `reprobuild doctor` end with some exception."""

    def end_with(error):
        def examine():
            raise error

        monkeypatch.setattr(doctor, "examine", examine)

    return end_with


@pytest.fixture
def wheels(tmp_path):
    """Two zips: the same members, times apart."""
    paths = (tmp_path / "a.zip", tmp_path / "b.zip")
    for path, year in zip(paths, (2001, 2002), strict=True):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo("demo.py", (year, 1, 1, 0, 0, 0)), "x = 1\n")
    return paths


# --- usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["whel"], "There is no command 'whel'. Did you mean 'wheel'?"),
        (["verify-wheell"], "Did you mean 'verify-wheel'?"),
        (["--hlp"], "Did you mean '--help'?"),
        (["wheel", "--allow-dirt"], "'--allow-dirty'"),
        (["wheel", "--sandbox", "docker"], "'docker' is not one of 'auto', 'bubblewrap', 'unshare', 'plain'"),
        (["diff", "one"], "Missing argument 'B'"),
        (["diff", "a", "b", "--accept", "everything"], "'everything' is not one of 'identical', 'container'"),
        (["lock", "numpy"], "'numpy': names go with --upgrade"),
        (["doctor", "extra"], "unexpected extra argument"),
        (["image", "app", "--build-arg", "VERSION"], "'VERSION' is not NAME=VALUE"),
    ],
)
def test_a_mistake_on_the_command_line_ends_with_2_and_a_hint(run, arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err.replace("\n", " ")
    assert "Usage: " in err


def test_something_quite_different_gets_no_suggestion(run):
    code, _, err = run("zzzz")
    assert code == 2
    assert "There is no command 'zzzz'." in err
    assert "Did you mean" not in err


def test_no_command_shows_the_help(run):
    code, out, err = run()
    assert code == 2
    assert "Commands:" in out + err


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told(run, option):
    code, out, _ = run(option)
    assert (code, out) == (0, f"reprobuild {__version__}\n")


def test_the_stored_help_is_what_click_would_say():
    path = Path(entry.__file__).with_name("help.txt")
    shown = CliRunner().invoke(app.cli, ["--help"], prog_name="reprobuild", terminal_width=80).stdout
    assert path.read_text(encoding="utf-8") == shown


@pytest.mark.parametrize("name", list(app._COMMANDS))
def test_a_commands_line_in_the_help_is_about_what_its_own_help_says(name):
    """Every command has a docstring, and each of its options says what it does."""
    command = app.cli.get_command(click.Context(app.cli), name)
    assert command is not None
    assert command.name == name
    assert command.help
    assert [each.name for each in command.params if isinstance(each, click.Option) and not each.help] == []


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ReprobuildError, *ReprobuildError.__subclasses__()])
def test_an_error_becomes_its_code_its_reason_and_its_remedy(run, broken, kind):
    broken(kind("It broke.", "Mend it."))
    code, out, err = run("doctor")
    assert (code, out) == (kind.exit_code, "")
    assert err == "error: It broke.\nremedy: Mend it.\n"


def test_an_error_without_a_remedy_shows_none(run, broken):
    broken(LockStale("It is stale."))
    assert run("doctor")[2] == "error: It is stale.\n"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "error: interrupted"),
        (OSError(28, "No space left on device", "/dist/x"), ExitCode.WRITE_FAILED, "/dist/x: No space left on device"),
        (PermissionError(13, "Permission denied"), ExitCode.WRITE_FAILED, "A file: Permission denied"),
        (ZeroDivisionError("by zero"), ExitCode.INTERNAL, "a defect in reprobuild: ZeroDivisionError: by zero"),
    ],
)
def test_other_failures_end_in_words_too(run, broken, error, code, says):
    broken(error)
    found, _, err = run("doctor")
    assert found == code
    assert says in err
    assert "Traceback" not in err


def test_an_error_is_json_where_json_was_asked_for(run, broken):
    broken(BadInput("It is broken.", "Mend it."))
    code, out, err = run("doctor", "--json")
    assert code == ExitCode.BAD_INPUT
    said = {"error": "BAD_INPUT", "exitCode": 3, "reason": "It is broken.", "remedy": "Mend it."}
    assert json.loads(out) == said
    assert "It is broken." in err
    assert run("doctor")[1] == ""


def test_a_defect_shows_its_traceback_when_asked_to(monkeypatch, broken):
    monkeypatch.setenv("REPROBUILD_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["reprobuild", "doctor"])
    broken(ZeroDivisionError("by zero"))
    with pytest.raises(ZeroDivisionError):
        app.run()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_130(monkeypatch, run, number):
    monkeypatch.setattr(doctor, "examine", lambda: signal.raise_signal(number))
    code, _, err = run("doctor")
    assert code == 130
    assert "interrupted" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_does_not_break_off_the_cleaning_up(monkeypatch, run, number):
    cleaned = []

    def examine():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(number)
            cleaned.append(True)

    monkeypatch.setattr(doctor, "examine", examine)
    assert run("doctor")[0] == 130
    assert cleaned


def test_a_signal_while_the_command_line_is_imported_ends_it_without_a_traceback(monkeypatch, capsys):
    class Interrupts:
        def find_spec(self, name, *_):
            if name == "reprobuild.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "reprobuild.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupts()])
    monkeypatch.setattr(sys, "argv", ["reprobuild", "doctor"])
    with pytest.raises(SystemExit) as left:
        entry.main()
    assert left.value.code == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.startswith("error: interrupted")


def test_a_signal_that_arrives_in_a_callback_of_pythons_own_counts():
    ended = run_alone("""
class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def examine():
    Dying()
    time.sleep(30)
    print("nobody noticed")
""")
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr.strip().startswith("error: interrupted")


def test_other_errors_in_callbacks_are_told_as_ever(monkeypatch, run):
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Dying:
        def __del__(self):
            raise ZeroDivisionError

    monkeypatch.setattr(doctor, "examine", lambda: [Dying()][1:])
    assert run("doctor")[0] == 0
    assert [each.exc_type for each in told] == [ZeroDivisionError]


def test_a_signal_long_after_the_first_ends_a_cleaning_up_that_does_not_end():
    ended = run_alone("""
def examine():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGTERM)
        print("not yet", flush=True)
        app._PATIENCE = 0
        time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
        print("still here", flush=True)
""")
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "not yet\n")


def run_alone(examine):
    """`reprobuild doctor` as a process, which examines in some way."""
    before = "import signal, sys, time\nfrom reprobuild import doctor\nfrom reprobuild.cli import app\n"
    after = "doctor.examine = examine\nsys.argv = ['reprobuild', 'doctor']\napp.run()\n"
    return subprocess.run(
        [sys.executable, "-c", before + examine + after], capture_output=True, text=True, timeout=60, check=False
    )


def test_what_was_started_under_nohup_goes_on(monkeypatch, run):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    received = []

    def examine():
        signal.raise_signal(signal.SIGHUP)
        received.append(True)
        return []

    monkeypatch.setattr(doctor, "examine", examine)
    assert run("doctor")[0] == 0
    assert received


# --- output ----------------------------------------------------------------------------------------


def test_doctor_speaks_json(run):
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"name", "found", "cost", "required", "note"} == set(found[0])
    assert found[0]["name"] == "python"


def test_doctor_ends_with_4_when_something_essential_is_missing(run, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("uv", "", "Nothing can be built.", required=True)])
    code, out, _ = run("doctor")
    assert code == ExitCode.TOOL_MISSING
    assert "Nothing can be built." in out
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("git", "", "No checkouts.")])
    assert run("doctor")[0] == 0


def test_doctor_says_what_else_there_is_to_know(run, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("rustc", "1.80", "No Rust.", note="It is hidden.")])
    assert run("doctor")[1] == "yes  rustc                1.80\n     It is hidden.\n"


@pytest.mark.parametrize(
    ("options", "expected"), [([], 20), (["--accept", "container"], 0), (["--accept", "payload"], 0)]
)
def test_diff_speaks_json_and_ends_with_its_verdict(run, wheels, options, expected):
    code, out, _ = run("diff", *wheels, "--json", *options)
    said = json.loads(out)
    assert code == expected
    assert said["level"] == "container"
    assert [said[side]["path"] for side in ("left", "right")] == [str(path) for path in wheels]
    assert said["left"]["digest"] == str(Digest.of_file(wheels[0]))


def test_diff_of_the_same_is_0(run, wheels):
    code, out, _ = run("diff", wheels[0], wheels[0], "--json")
    assert (code, json.loads(out)["level"]) == (0, "identical")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.json", "nope"), "There is no file nope, and as the name of an image"),
        (("nope", "a.json"), "There is no file nope, and as the name of an image"),
        (("gone.json", "nope"), "There is no file gone.json."),
        (("a.json", "registry.example/app:1"), "a.json is a file, and the other is an image."),
        (("a.json", "folder"), "a.json is a file, and the other is an image."),
    ],
)
def test_diff_of_a_file_and_something_else_says_what_is_missing(run, tmp_path, monkeypatch, names, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    code, _, err = run("diff", *names)
    assert code == ExitCode.BAD_INPUT
    assert words in err.replace("\n", " ")


def test_json_is_alone_on_standard_output(run, tmp_path):
    """Progress and words go to standard error, so that even a failing command leaves one document."""
    code, out, err = run("wheel", tmp_path / "absent", "--json")
    assert (code, json.loads(out)["error"]) == (ExitCode.BAD_INPUT, "BAD_INPUT")
    assert err.startswith("error: ")


def test_verify_wheel_without_a_wheel_says_what_to_do(run, tmp_path):
    code, _, err = run("verify-wheel", "--project", tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert "There is no wheel in" in err
    assert "reprobuild wheel" in err


def test_the_newest_wheel_is_verified(monkeypatch, tmp_path):
    from reprobuild.cli import verify_wheel  # noqa: PLC0415 - it is loaded when it is called

    (tmp_path / "dist").mkdir()
    for name, time in (("b-1-py3-none-any.whl", 2), ("a-2-py3-none-any.whl", 3), ("c-0-py3-none-any.whl", 1)):
        (tmp_path / "dist" / name).write_bytes(b"")
        os.utime(tmp_path / "dist" / name, (time, time))
    assert verify_wheel.newest(tmp_path, "wheel").name == "a-2-py3-none-any.whl"


def test_what_only_looks_like_a_wheel_is_passed_over(run, tmp_path):
    from reprobuild.cli import verify_wheel  # noqa: PLC0415 - it is loaded when it is called

    dist = tmp_path / "dist"
    (dist / "folder.whl").mkdir(parents=True)
    (dist / "link.whl").symlink_to("nowhere")
    (dist / "loop.whl").symlink_to("loop.whl")
    code, _, err = run("verify-wheel", "--project", tmp_path)
    assert (code, "There is no wheel in" in err) == (ExitCode.BAD_INPUT, True)
    (tmp_path / "a.whl").write_bytes(b"")
    (dist / "a.whl").symlink_to("../a.whl")
    assert verify_wheel.newest(tmp_path, "wheel") == dist / "a.whl"


# --- what verify-wheel says ------------------------------------------------------------------------


@pytest.fixture
def verified(run, monkeypatch):
    """`reprobuild verify-wheel`, whose rebuilds have had some outcome."""

    def verify(*options, **outcome):
        guarantees = Guarantees("bubblewrap", *[True] * 6)
        usual: dict[str, Any] = {"varied": ("path",), "not_varied": {}, "held": (), "guarantees": guarantees}
        ended = rebuild.Rebuilt(Path("a.whl"), **usual | outcome)

        def make_again(*arguments, observer, **given):
            observer.step("making it again")
            asked.update(given, arguments=arguments)
            return ended

        monkeypatch.setattr(rebuild, "verify", make_again)
        return run("verify-wheel", *options or ["a.whl"])

    asked: dict[str, Any] = {}
    return SimpleNamespace(run=verify, asked=asked)


def verdict(level, cause=None):
    ours, theirs = Digest.of_bytes(b"1"), Digest.of_bytes(level.encode())
    return Verdict(
        level, ours, theirs, 1, 2, (Difference(("a",), "line 1", "1", "2", cause, level=level),), wheels=True
    )


def unsteady(varied, unvaried):
    return {"verdict": varied, "unvaried": "unsteady", "unvaried_verdict": unvaried}


@pytest.mark.parametrize(("varied", "unvaried"), [(Level.PAYLOAD, Level.CONTAINER), (Level.CONTAINER, Level.PAYLOAD)])
@pytest.mark.parametrize(
    ("options", "expected"), [([], 22), (["--accept", "metadata"], 22), (["--accept", "payload"], 0)]
)
def test_the_deepest_rebuild_decides_what_is_accepted(verified, varied, unvaried, options, expected):
    outcome = unsteady(verdict(varied), verdict(unvaried))
    assert verified.run("a.whl", *options, **outcome)[0] == expected
    code, out, err = verified.run("a.whl", "--json", *options, **outcome)
    assert err == ""
    said = json.loads(out)
    assert (code, said["level"], said["unvariedVerdict"]["level"]) == (expected, "payload", unvaried)


def test_what_is_asked_for_is_what_is_done(verified, tmp_path):
    same = verdict(Level.IDENTICAL)
    verified.run(verdict=same)
    usual = {"python": None, "sandbox": "auto", "vary": USUAL_NAMES, "explain": True}
    assert verified.asked == {"arguments": (Path("a.whl"), Path()), **usual}
    options = ["--python", "3.12", "--sandbox", "plain", "--vary", "umask,path", "--no-explain"]
    verified.run("b.whl", "--project", "p", *options, verdict=same)
    other = {"python": "3.12", "sandbox": "plain", "vary": ("path", "umask"), "explain": False}
    assert verified.asked == {"arguments": (Path("b.whl"), Path("p")), **other}
    sdist, wheel = tmp_path / "a-1.tar.gz", tmp_path / "dist" / "a.whl"
    wheel.parent.mkdir()
    sdist.touch()
    wheel.touch()
    verified.run("--project", sdist, verdict=same)
    assert verified.asked["arguments"] == (wheel, sdist)


def test_the_report_says_what_was_varied_and_what_was_not(verified):
    not_varied = {"timezone": "not asked for", "hostname": "can't\x1b[1m", "clock": "not asked for"}
    kept = {"varied": ("path", "home"), "not_varied": not_varied, "held": ("umask",)}
    code, out, _ = verified.run(verdict=verdict(Level.IDENTICAL), **kept)
    assert code == 0
    assert out.splitlines()[:4] == [
        "varied: path, home",
        "not varied (can't\\x1b[1m): hostname",
        "not varied (not asked for): timezone, clock",
        "held: umask (the modes in this wheel follow it, so every build here has umask 022)",
    ]
    assert (
        json.loads(verified.run("a.whl", "--json", verdict=verdict(Level.IDENTICAL), **kept)[1])["notVaried"]
        == not_varied
    )
    out = verified.run(verdict=verdict(Level.IDENTICAL))[1]
    assert "not varied" not in out
    assert "held" not in out
    assert "times" not in out


@pytest.mark.parametrize(
    ("vary", "says"),
    [("umaks", "'umaks' is no variation. Did you mean 'umask'?"), ("path,weather", "There are: path, umask, timezone")],
)
def test_an_unknown_variation_is_a_usage_error(verified, vary, says):
    code, _, err = verified.run("a.whl", "--vary", vary, verdict=verdict(Level.IDENTICAL))
    assert code == ExitCode.USAGE
    assert says in " ".join(err.split())
    assert verified.asked == {}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("u", ["umask", "user"]),
        ("a", ["all"]),
        ("n", ["none", "noise"]),
        ("path,u", ["path,umask", "path,user"]),
        ("umask,u", ["umask,user"]),
        ("path,a", []),
    ],
)
def test_the_shell_completes_variations_after_each_comma(typed, offered):
    from click.shell_completion import ShellComplete  # noqa: PLC0415 - only here

    complete = ShellComplete(app.cli, {}, "reprobuild", "_REPROBUILD_COMPLETE")
    found = complete.get_completions(["verify-wheel", "--vary"], typed)
    assert [each.value for each in found] == offered


@pytest.mark.parametrize(
    "given", [["--project", "."], ["--python", "3.12"], ["--vary", "none"], ["--no-explain"], ["--explain"]]
)
def test_what_a_record_alone_needs_is_refused_for_a_published_wheel(run, monkeypatch, given):
    monkeypatch.setattr(published, "check", lambda *_, **__: pytest.fail("it was checked"))
    code, _, err = run("verify-wheel", "demo==1.0", *given)
    assert code == ExitCode.USAGE
    assert f"{given[0].replace('no-explain', 'explain/')}" in err.replace("--explain/--no-explain", "--explain/")
    assert "is for wheels with a record" in err


@pytest.mark.parametrize("what", ["six==1.{}", "six=={}", "six-1.{}-py3-none-any.whl", "{}", "six==1.{}!1"])
@pytest.mark.parametrize("digits", [400, 5000])
def test_a_version_of_endless_digits_is_bad_input(run, what, digits):
    code, _, err = run("verify-wheel", what.format("9" * digits))
    assert code == ExitCode.BAD_INPUT
    assert len(err) < 1000


def test_a_guilty_variation_that_does_worst_decides(verified):
    guilty = (rebuild.Guilt(("path",), ("build-path",), verdict(Level.PAYLOAD)),)
    outcome = {"verdict": verdict(Level.CONTAINER, "clock"), "unvaried": "identical", "guilty": guilty, "rebuilds": 5}
    code, out, _ = verified.run("a.whl", "--accept", "container", **outcome)
    assert code == 22
    cause = CAUSES["build-path"]
    lines = out.splitlines()
    assert lines[1:4] == [
        f"path → line 1 of a; remedy: {cause.remedy}",
        f"  payload, build-path: {cause.summary}",
        "made again 5 times",
    ]


def test_what_matters_only_together_is_told_so(verified):
    worst = verdict(Level.PAYLOAD)
    many = tuple(replace(worst.differences[0], field=f"line {number}\x1b") for number in range(8))
    guilty = (rebuild.Guilt(("umask", "home"), ("umask", "home"), replace(worst, differences=many)),)
    outcome = {"verdict": worst, "unvaried": "identical", "guilty": guilty}
    out = verified.run(**outcome)[1]
    start = "only together: umask + home → line 0\\x1b of a, "
    (line,) = [line for line in out.splitlines() if line.startswith(start)]
    assert " and 3 more; remedy: " in line
    assert CAUSES["umask"].remedy in line
    assert CAUSES["home"].remedy in line
    (said,) = json.loads(verified.run("a.whl", "--json", **outcome)[1])["guilty"]
    assert said["variations"] == ["umask", "home"]
    assert len(said["where"]) == 8
    assert said["causes"] == [
        {"name": name, "summary": CAUSES[name].summary, "remedy": CAUSES[name].remedy} for name in ("umask", "home")
    ]
    assert said["level"] == "payload"


def test_the_unvaried_rebuild_stands_beside_the_varied_one(verified):
    worse, less = verdict(Level.PAYLOAD, "build-path"), verdict(Level.METADATA, "clock")
    lines = verified.run(**unsteady(worse, less))[1].splitlines()
    assert lines[3] == "payload: what gets installed differs"
    assert lines[-3:] == [
        "Even with nothing varied, it comes out different each time: a clock or a random value is in it.",
        f"  {less.right}  metadata: clock",
        "  seen only when varied: build-path",
    ]


def test_a_clock_that_could_be_stopped_is_said_to_be_the_reason(verified):
    guilty = (rebuild.Guilt(("clock",), ("clock",), verdict(Level.PAYLOAD)),)
    out = verified.run(**unsteady(verdict(Level.PAYLOAD), verdict(Level.PAYLOAD)), guilty=guilty)[1]
    assert "it comes out different each time; with the clock stopped it doesn't." in out
    assert "random value" not in out


def test_causes_are_objects_as_in_diff(verified):
    said = json.loads(
        verified.run("a.whl", "--json", **unsteady(verdict(Level.PAYLOAD, "user"), verdict(Level.PAYLOAD, "clock")))[1]
    )
    assert said["causes"] == [
        {"name": name, "summary": CAUSES[name].summary, "remedy": CAUSES[name].remedy} for name in ("user", "clock")
    ]
    assert said["unvariedVerdict"]["causes"] == said["causes"][1:]


def test_what_a_record_and_a_wheel_say_cannot_reach_the_terminal(verified):
    hostile = Difference(("\x1b[2J",), "line 1", "1", "2")
    guilty = (rebuild.Guilt(("path",), ("build-path",), replace(verdict(Level.PAYLOAD), differences=(hostile,))),)
    notes = ("zlib: \x1b[2J then, 1.3 now",)
    _, out, _ = verified.run(verdict=verdict(Level.PAYLOAD), guilty=guilty, unvaried="identical", notes=notes)
    assert "\x1b[2J" not in out
    assert out.count("\\x1b[2J") == 2


FORGED = "it failed\nidentical: the two have\x1b[2J\tthe same bytes\r\n\nend"
SET_OFF = "it failed\n  | identical: the two have\\x1b[2J     the same bytes\\r\n  |\n  | end\n"


def test_lines_of_strangers_look_like_none_of_our_own(run, broken, capsys):
    with console.Console() as shown:
        shown.warn(FORGED)
        shown.step(FORGED)
    with console.Console(verbose=True) as shown:
        shown.line("a\x1b\tb")
    err = capsys.readouterr().err
    note, rest = err.split("  it failed", 1)
    assert note == f"note: {SET_OFF}"
    assert "\n" not in rest.partition("\n  | a")[0]
    assert rest.endswith("  | a\\x1b      b\n")
    broken(BadInput(FORGED, FORGED))
    assert run("doctor")[2] == f"error: {SET_OFF}remedy: {SET_OFF}"


def unbuilt(**values):
    """A published wheel, of which no try could be built."""
    guesses = [SimpleNamespace(name="python", value="3.9", evidence="")]
    best: Any = published.Try(SimpleNamespace(guesses=guesses), None, failure=FORGED)  # type: ignore[arg-type]
    file: Any = SimpleNamespace(file=SimpleNamespace(filename="a.whl"), uploaded="")
    origin = Origin("sdist", "a.tar.gz", {"tree": "\x1b[2J"})
    return published.Checked(file, origin, (best,), **values)


def test_what_a_published_builds_failure_says_is_set_off(run, monkeypatch):
    monkeypatch.setattr(published.Checked, "causes", ())
    monkeypatch.setattr(published, "check", lambda *_, **__: unbuilt())
    code, out, _ = run("verify-wheel", "demo==1.0")
    assert code == ExitCode.NOT_COMPARABLE
    assert out.endswith(f"not-comparable: no try could be built; the likeliest: {SET_OFF}")
    assert "\x1b" not in out


def test_what_could_not_be_kept_is_told_after_the_verdict(run, monkeypatch):
    monkeypatch.setattr(published.Checked, "causes", ())
    failed = WriteFailed("Nothing was kept.", "Name another folder.")
    monkeypatch.setattr(published, "check", lambda *_, **__: unbuilt(unkept=failed))
    code, out, err = run("verify-wheel", "demo==1.0", "--keep", "kept")
    assert (code, err) == (ExitCode.WRITE_FAILED, "error: Nothing was kept.\nremedy: Name another folder.\n")
    assert "not-comparable: " in out
    code, out, _ = run("verify-wheel", "demo==1.0", "--keep", "kept", "--json")
    said = json.loads(out)
    assert (code, said["level"], said["unkept"]) == (ExitCode.WRITE_FAILED, "not-comparable", "Nothing was kept.")


# --- terminals and pipes ---------------------------------------------------------------------------


def on_a_terminal(arguments, **environment):
    """What a command prints when its standard streams are a terminal."""
    child, terminal = pty.fork()
    if not child:
        os.environ.pop("NO_COLOR", None)
        os.environ.update({"TERM": "xterm", "COLUMNS": "100", **environment})
        os.execv(PROGRAM[0], [*PROGRAM, *map(str, arguments)])
    printed = b""
    try:
        while piece := os.read(terminal, 4096):
            printed += piece
    except OSError:  # Linux says it like this when the other end is closed
        pass
    os.close(terminal)
    os.waitpid(child, 0)
    return printed


def test_colours_are_for_terminals(wheels):
    arguments = ["diff", *map(str, wheels)]
    piped = subprocess.run([*PROGRAM, *arguments], capture_output=True, check=False, timeout=60)
    assert b"container" in piped.stdout
    assert b"\x1b" not in piped.stdout + piped.stderr
    assert b"\x1b[" in on_a_terminal(arguments)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_nothing_is_coloured_for_who_wants_no_colours(wheels, tmp_path, environment):
    (tmp_path / "setup.py").touch()
    for arguments, says in (
        (["diff", *wheels], "container"),
        (["doctor"], "sandbox in use"),
        (["wheel", tmp_path], "error: "),
        (["verify-wheel", tmp_path / "absent.whl"], "error: "),
        (["whel"], "Did you mean"),
    ):
        printed = on_a_terminal(arguments, **environment)
        assert says.encode() in printed, arguments
        assert b"\x1b" not in printed, arguments
    assert b"  exporting the source" in on_a_terminal(["wheel", tmp_path], **environment)


def test_an_empty_variable_asks_for_nothing(wheels):
    assert b"\x1b[" in on_a_terminal(["diff", *wheels], NO_COLOR="")


def shown_on(terminal, last, count=1):
    """What a terminal got, up to some text for the last time: it may come in several pieces."""
    printed = b""
    while printed.count(last) < count and select.select([terminal], [], [], 20)[0]:
        printed += os.read(terminal, 4096)
    os.close(terminal)
    return printed


def test_progress_in_a_thread_has_no_colours_either(monkeypatch):
    """Click keeps what it knows of a command in the thread that runs it."""
    monkeypatch.setenv("NO_COLOR", "1")
    read, write = pty.openpty()
    with os.fdopen(write, "w") as terminal, console.Console(verbose=True) as shown:
        monkeypatch.setattr(sys, "stderr", terminal)
        for say in (shown.warn, shown.line, shown.step):
            thread = threading.Thread(target=say, args=("\x1b[31mred",))
            thread.start()
            thread.join()
        terminal.flush()
        printed = shown_on(read, b"red", 3)
    assert printed.count(b"red") == 3
    assert b"\x1b" not in printed


def test_a_result_goes_to_standard_output_also_while_a_line_of_progress_moves(monkeypatch, capfd):
    """rich, while it shows something, sends all that is printed to the terminal, where no script reads it."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    read, write = pty.openpty()
    with os.fdopen(write, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with console.Console() as shown:
            shown.step("a step")
            shown.result("the result")
            shown.step("another step")
        terminal.flush()
        printed = shown_on(read, b"another step")
    assert capfd.readouterr().out == "the result\n"
    assert b"a step" in printed
    assert b"the result" not in printed


def test_the_moving_line_starts_with_the_first_step(monkeypatch):
    """What ends before it had anything to say pays for no moving line, and shows none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    read, write = pty.openpty()
    with os.fdopen(write, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with console.Console():
            pass
        assert not select.select([read], [], [], 0)[0]
        with console.Console() as shown:
            shown.step("hashing 8.0 GiB")
        printed = b""
        while b"hashing 8.0 GiB" not in printed and select.select([read], [], [], 10)[0]:
            printed += os.read(read, 4096)
    os.close(read)
    assert b"hashing 8.0 GiB" in printed
    assert b"\x1b[" in printed


def test_brackets_in_a_step_are_no_markup(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    read, write = pty.openpty()
    with os.fdopen(write, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with console.Console() as shown:
            shown.step("cloning file:///x[/y]")
            shown.step("cloning file:///x[bold]")
        terminal.flush()
        printed = shown_on(read, b"file:///x[bold]")
    assert b"x[bold]" in printed


@pytest.mark.parametrize("arguments", [["--help"], ["wheel", "--help"], ["doctor", "--json"]])
def test_a_reader_that_went_away_is_no_error(arguments):
    """As in `reprobuild doctor | head -1`."""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [*PROGRAM, *arguments], stdout=write, stderr=subprocess.PIPE, env=environment, check=False, timeout=60
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_went_away_does_not_change_the_verdict(wheels, both):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "diff", *map(str, wheels)], stdout=write, stderr=write if both else None, check=False, timeout=60
    )
    os.close(write)
    assert done.returncode == ExitCode.DIFFERS_CONTAINER


def test_an_error_that_nobody_reads_keeps_its_code(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [*PROGRAM, "diff", tmp_path / "a", tmp_path / "b", "--json"]
    done = subprocess.run(command, stdout=write, stderr=write, check=False, timeout=60)
    os.close(write)
    assert done.returncode == ExitCode.BAD_INPUT


def test_a_full_disk_is_an_error_also_on_standard_output(wheels):
    with Path("/dev/full").open("w") as full:
        command = [*PROGRAM, "diff", *map(str, wheels)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, b"No space left" in done.stderr) == (ExitCode.WRITE_FAILED, True)


def test_a_pipe_that_breaks_elsewhere_is_no_success(run, broken):
    broken(BrokenPipeError(32, "Broken pipe"))
    code, _, err = run("doctor")
    assert (code, "error: " in err) == (ExitCode.WRITE_FAILED, True)


def test_the_module_and_the_script_are_the_same():
    script = Path(sys.executable).with_name("reprobuild")
    said = [subprocess.run([*each, "-V"], capture_output=True, check=True).stdout for each in ([script], PROGRAM)]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "  a step\nnote: a note\n"),
        ({"quiet": True}, "note: a note\n"),
        ({"verbose": True}, "  a step\n  | a line\nnote: a note\n"),
    ],
)
def test_progress_goes_to_standard_error(capsys, options, expected):
    with console.Console(**options) as shown:
        shown.step("a step")
        shown.line("a line")
        shown.warn("a note")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", expected)


def test_a_command_can_be_called_without_its_group():
    assert CliRunner().invoke(doctor_command, ["--help"]).exit_code == 0
