import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from reprobuild import process
from reprobuild.errors import ExitCode, ToolMissing

ENV = {"PATH": os.defpath}


def python(script, *arguments, **options):
    """Run a Python script with an environment that is empty but for PATH."""
    return process.run([sys.executable, "-I", "-S", "-c", script, *arguments], **{"env": ENV, **options})


def shell(script, **options):
    return process.run(["sh", "-c", script], **{"env": ENV, **options})


def is_running(pid):
    """Whether a process exists; one that ended but that nobody has waited for doesn't count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ends_soon(pid, seconds=30.0):
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)


def wait_for(path, seconds=30.0):
    """The number that a program writes into a file."""
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path.name} was never written"
        time.sleep(0.01)
    return int(path.read_text())


# --- what comes out --------------------------------------------------------------------------------


def test_both_streams_are_kept_apart():
    done = shell("echo out; echo err >&2")
    assert (done.stdout, done.log) == (b"out\n", "err")


def test_output_that_is_not_text_arrives_as_it_is():
    done = python(r"import os; os.write(1, b'\xff\0\r\n'); os.write(2, b'\xff\r\n')")
    assert (done.stdout, done.log) == (b"\xff\0\r\n", "\ufffd")


def test_much_output_on_both_streams_does_not_deadlock():
    script = "import os\nfor _ in range(200): os.write(2, b'e' * 9999 + b'\\n'); os.write(1, b'o' * 10000)"
    done = python(script, timeout=30)
    assert len(done.stdout) == 2_000_000
    assert len(done.log) == 200 * 10_000 - 1


def test_only_the_last_lines_of_the_log_are_kept():
    done = shell("i=0; while [ $i -lt 1000 ]; do echo line $i >&2; i=$((i+1)); done")
    lines = done.log.splitlines()
    assert (len(lines), lines[-1]) == (400, "line 999")


def test_a_line_that_never_ends_is_cut(monkeypatch):
    monkeypatch.setattr(process, "_LONGEST_LINE", 1000)
    script = r"import os; os.write(2, b'a' * 5000 + b'\n' + b'b' * 999 + b'\nlast\n' + b'c' * 1000)"
    lines: list[str] = []
    python(script, on_line=lines.append)
    cut = " … (cut after 1,000 bytes)"
    assert lines == ["a" * 1000 + cut, "b" * 999, "last", "c" * 1000 + cut]


def test_who_prints_without_end_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_MOST_OUTPUT", 4 << 20)
    script = (
        "import os, pathlib\npathlib.Path('pid').write_text(f'{os.getpid()}\\n')\nwhile True: os.write(1, bytes(9999))"
    )
    with pytest.raises(process.ToolTooLarge, match=r"printed more than 4 MiB and was ended"):
        python(script, cwd=tmp_path, timeout=60)
    assert ends_soon(wait_for(tmp_path / "pid"))
    assert len(python("import os\nfor _ in range(4): os.write(1, bytes(1 << 20))").stdout) == 4 << 20


def test_lines_come_one_at_a_time_and_from_both_streams():
    lines: list[str] = []
    done = shell("echo out; echo err >&2", on_line=lines.append)
    assert sorted(lines) == ["err", "out"]
    assert sorted(done.log.splitlines()) == ["err", "out"]
    assert done.stdout == b""


def test_lines_come_while_the_program_runs(tmp_path):
    """The program waits for a file that is made when its first line has come."""
    go = tmp_path / "go"
    script = f"echo ready; while [ ! -e {go} ]; do sleep 0.01; done; echo done"
    done = shell(script, on_line=lambda line: go.touch() if line == "ready" else None, timeout=10)
    assert done.log.splitlines() == ["ready", "done"]


def test_output_can_go_to_a_file(tmp_path):
    with (tmp_path / "out").open("wb") as stream:
        done = shell("echo out; echo err >&2", stdout=stream)
    assert (tmp_path / "out").read_bytes() == b"out\n"
    assert (done.stdout, done.log) == (b"", "err")


# --- what goes in ----------------------------------------------------------------------------------


def test_the_environment_is_exactly_what_was_given(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    done = process.run(["/usr/bin/env"], env={"ONLY": "this one"})
    assert done.stdout == b"ONLY=this one\n"


@pytest.mark.parametrize("data", [None, b"", b"x" * 300_000])
def test_standard_input_is_what_was_given_or_empty(data):
    script = "import sys; d = sys.stdin.buffer.read(); print(len(d), set(d) <= {120})"
    assert python(script, stdin=data, timeout=10).stdout == f"{len(data or b'')} True\n".encode()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_the_umask_is_the_programs_alone(umask, tmp_path):
    before = os.umask(0o027)
    try:
        shell("echo > file", cwd=tmp_path, umask=umask)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_arguments_pass_through_no_shell(tmp_path):
    words = ["$HOME", "a b", "; touch pwned", "*", "'\"\\"]
    done = python("import sys; print(sys.argv[1:])", *words, cwd=tmp_path)
    assert done.stdout.decode().strip() == repr(words)
    assert list(tmp_path.iterdir()) == []


# --- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "remedy"), [("bwrap", "bubblewrap"), ("git", "sdist"), ("unshare", "util-linux")])
def test_a_missing_program_is_named_with_what_to_do(monkeypatch, tmp_path, name, remedy):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=f"The program '{name}' is not on this machine's PATH") as caught:
        process.run([name], env={})
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("command", "why"), [("/nowhere/program", "No such file"), ("/etc/passwd", "Permission denied"), ("/", "denied")]
)
def test_a_program_that_does_not_start_is_missing(command, why):
    with pytest.raises(ToolMissing, match=f"{command} can't be started: {command}: .*{why}"):
        process.run([command], env={})


def test_a_missing_folder_is_not_taken_for_a_missing_program(tmp_path):
    with pytest.raises(ToolMissing, match="absent: No such file"):
        shell("true", cwd=tmp_path / "absent")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo to stderr >&2; echo to stdout; exit 3", "sh ended with status 3:\nto stderr"),
        ("echo only stdout; exit 3", "sh ended with status 3:\nonly stdout"),
        ("exit 4", "sh ended with status 4:\n(it printed nothing)"),
        ("kill -KILL $$", "sh ended with signal 9:\n(it printed nothing)"),
    ],
)
def test_a_failing_program_says_how_it_ended_and_what_it_printed(script, says):
    with pytest.raises(process.ToolFailed) as caught:
        shell(script)
    assert caught.value.reason == says
    assert caught.value.exit_code is ExitCode.BUILD_FAILED
    assert caught.value.argv[1:] == ("-c", script)


def test_a_failing_programs_lines_are_in_the_error_when_they_were_also_passed_on():
    with pytest.raises(process.ToolFailed) as caught:
        shell("echo out; echo err >&2; exit 1", on_line=lambda _: None)
    assert sorted(caught.value.output.splitlines()) == ["err", "out"]


# --- the end of a program --------------------------------------------------------------------------

BACKGROUND = "sleep 60 & echo $! > pid; "


def test_a_timeout_ends_the_whole_group(tmp_path):
    with pytest.raises(process.ToolTimeout, match=r"sh ran longer than 0\.8 s and was ended"):
        shell(BACKGROUND + "wait", cwd=tmp_path, timeout=0.8)
    assert ends_soon(wait_for(tmp_path / "pid"))


def test_a_timeout_ends_a_program_that_will_not_go(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_GRACE_SECONDS", 0.2)
    script = "trap '' TERM; echo $$ > own; " + BACKGROUND + "while :; do sleep 1; done"
    with pytest.raises(process.ToolTimeout):
        shell(script, cwd=tmp_path, timeout=0.8)
    assert ends_soon(wait_for(tmp_path / "own"))
    assert ends_soon(wait_for(tmp_path / "pid"))


@pytest.mark.parametrize("redirected", ["", ">/dev/null 2>&1"])
def test_nothing_outlives_a_program_that_ended_well(tmp_path, redirected):
    """A child in the background could still write into a folder that is being removed."""
    started = time.monotonic()
    shell(f"sleep 60 {redirected} & echo $! > pid", cwd=tmp_path)
    assert ends_soon(wait_for(tmp_path / "pid"))
    assert time.monotonic() - started < 10


def test_a_daemon_that_left_the_group_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_GRACE_SECONDS", 0.2)
    started = time.monotonic()
    shell("setsid sh -c 'echo $$ > pid; exec sleep 60' & while [ ! -s pid ]; do sleep 0.01; done", cwd=tmp_path)
    assert time.monotonic() - started < 10
    os.kill(wait_for(tmp_path / "pid"), signal.SIGKILL)


def interrupt_when(path):
    """Press Ctrl-C when a program has written its number into a file."""
    main = threading.get_ident()

    def wait():
        wait_for(path)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def test_an_interruption_ends_the_whole_group(tmp_path):
    interrupt_when(tmp_path / "pid")
    with pytest.raises(KeyboardInterrupt):
        shell("echo $$ > own; " + BACKGROUND + "wait", cwd=tmp_path, timeout=30)
    assert ends_soon(wait_for(tmp_path / "pid"))
    assert ends_soon(wait_for(tmp_path / "own"))


def test_an_interruption_ends_the_programs_of_all_workers(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    interrupt_when(tmp_path / "1" / "pid")
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), process.workers(2) as pool:
        list(pool.map(lambda name: shell(BACKGROUND + "wait", cwd=tmp_path / name, timeout=30), ("0", "1")))
    assert time.monotonic() - started < 15
    assert ends_soon(wait_for(tmp_path / "1" / "pid"))


def test_an_interruption_ends_programs_that_start_after_it_too(tmp_path):
    """A thread may be just about to start one, or go on to the next."""

    def two_programs(_):
        with suppress(process.ToolFailed):
            shell(BACKGROUND + "wait", cwd=tmp_path, timeout=30)
        shell("sleep 60", timeout=30)

    interrupt_when(tmp_path / "pid")
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), process.workers(1) as pool:
        list(pool.map(two_programs, (1,)))
    assert time.monotonic() - started < 15


def test_one_work_that_fails_leaves_the_programs_of_others_alone(tmp_path):
    """Each of two works opens a pool of its own, and one of these pools fails while the other's program runs."""

    def slow(_):
        return shell(f"echo $$ > {tmp_path}/pid; sleep 1; echo done", timeout=30).stdout

    def fail(_):
        wait_for(tmp_path / "pid")
        raise ValueError

    def work(number):
        with suppress(ValueError), process.workers(1) as inner:
            return list(inner.map(fail if number else slow, (1,)))

    with process.workers(2) as pool:
        assert list(pool.map(work, (0, 1))) == [[b"done\n"], None]


def test_an_interruption_reaches_the_pools_that_threads_have_opened(tmp_path):
    def work(_):
        with suppress(process.ToolFailed), process.workers(1) as inner:
            list(inner.map(lambda _: shell(BACKGROUND + "wait", cwd=tmp_path, timeout=30), (1,)))

    interrupt_when(tmp_path / "pid")
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), process.workers(1) as pool:
        list(pool.map(work, (1,)))
    assert time.monotonic() - started < 15
    assert ends_soon(wait_for(tmp_path / "pid"))


def test_what_is_not_wanted_any_more_does_not_end_as_a_failure_of_its_own(tmp_path):
    """Or else whoever catches failures would take the interruption for one, and write it down."""
    ends = []

    def work(_):
        try:
            shell(BACKGROUND + "wait", cwd=tmp_path, timeout=30)
        except (process.ToolFailed, process.Stopped) as end:
            ends.append(type(end))
            with pytest.raises(process.Stopped):
                shell("true")

    interrupt_when(tmp_path / "pid")
    with pytest.raises(KeyboardInterrupt), process.workers(1) as pool:
        list(pool.map(work, (1,)))
    assert ends == [process.Stopped]


def test_uv_is_looked_for_by_one_thread_at_a_time():
    """sysconfig, which tells where uv is, answers others with None while it makes its answers up."""
    script = """
import sys, sysconfig, threading
sys.path += sys.argv[1:]
init = sysconfig._init_posix
def slow(answers):
    import time
    time.sleep(0.3)
    init(answers)
sysconfig._init_posix = slow
from reprobuild import process
failures = []
threading.excepthook = lambda failure: failures.append(failure.exc_type)
threads = [threading.Thread(target=process.find, args=("uv",)) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(failures)
"""
    assert python(script, *sys.path).stdout == b"[]\n"


def test_workers_give_results_in_order():
    with process.workers(2) as pool:
        assert list(pool.map(lambda n: shell(f"echo {n}").stdout, (1, 2, 3))) == [b"1\n", b"2\n", b"3\n"]


def test_no_file_and_no_timer_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads = threading.active_count()
    files = len(list(Path("/proc/self/fd").iterdir()))
    shell("cat", stdin=b"x", timeout=60)
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads


# --- programs and environments that work for the user ----------------------------------------------


def test_uv_is_the_one_that_is_installed_beside(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert process.find("uv").name == "uv"


def test_a_program_on_the_path_is_found():
    assert process.find("sh").is_absolute()


@pytest.mark.parametrize(
    "name",
    """PATH HOME HTTPS_PROXY no_proxy SSL_CERT_FILE NETRC XDG_CONFIG_HOME UV_DEFAULT_INDEX UV_INDEX_OWN_PASSWORD
    UV_CACHE_DIR PYTHON_KEYRING_BACKEND""".split(),
)
def test_tools_get_what_they_need_to_reach_the_network(monkeypatch, name):
    monkeypatch.setenv(name, "value")
    assert process.tool_environment()[name] == "value"


@pytest.mark.parametrize(
    "name",
    """UV_EXCLUDE_NEWER UV_REQUIRE_HASHES UV_CONSTRAINT UV_OVERRIDE UV_PRERELEASE UV_RESOLUTION UV_PYTHON
    UV_NO_BINARY UV_NO_VERIFY_HASHES AWS_SECRET_ACCESS_KEY GITHUB_TOKEN PYTHONPATH PYTHONHOME LD_PRELOAD GIT_DIR
    GIT_CONFIG_COUNT SOURCE_DATE_EPOCH PIP_INDEX_URL TZ LANG""".split(),
)
def test_tools_do_not_get_what_changes_a_result_or_is_a_secret(monkeypatch, name):
    monkeypatch.setenv(name, "value")
    assert name not in process.tool_environment()


def test_tools_speak_plainly(monkeypatch):
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    environment = process.tool_environment({"EXTRA": "1", "NO_COLOR": "0"})
    assert environment["LC_ALL"] == "C.UTF-8"
    assert (environment["EXTRA"], environment["NO_COLOR"]) == ("1", "0")


# --- memory ------------------------------------------------------------------------------------------

GREEDY = {
    "a process": "x = bytearray(600 << 20); import time; time.sleep(20)",
    "memory that is shared": (
        "import mmap, time\nheld = mmap.mmap(-1, 600 << 20)\n"
        "while held.tell() < len(held): held.write(bytes(1 << 20))\ntime.sleep(20)"
    ),
    "many processes": (
        "import os, time\nfor _ in range(8):\n    if not os.fork(): x = bytearray(80 << 20); break\ntime.sleep(20)"
    ),
}


@pytest.mark.parametrize("script", GREEDY.values(), ids=GREEDY)
def test_programs_that_take_too_much_memory_are_ended(script):
    # A process by itself is refused the memory, or was faster than that and is ended.
    with pytest.raises((process.ToolTooLarge, process.ToolFailed), match=r"more than 256 MiB of memory|MemoryError"):
        python(script, memory=256 << 20, timeout=15)


def test_programs_that_stay_below_are_not_ended():
    assert python("x = bytearray(100 << 20); print('done')", memory=256 << 20, timeout=30).stdout == b"done\n"


def test_a_full_file_system_ends_programs_whose_memory_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_ROOM_LEFT", 1 << 62)
    with pytest.raises(process.ToolTooLarge, match="left less than"):
        shell("sleep 20", memory=256 << 20, room=tmp_path, timeout=15)
