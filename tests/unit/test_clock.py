import os
import shutil
import sys

import pytest

from reprobuild import clock, process
from reprobuild.errors import ToolMissing
from reprobuild.files import cache_root

PYTHON = os.path.realpath(sys.executable)
#: Waits in each of the ways that Python has: by the monotonic clock, and until a moment by the time of day.
WAIT = """
import multiprocessing, threading, time
start = time.monotonic()
time.sleep(0.05)
threading.Event().wait(0.05)
lock = multiprocessing.Lock()
lock.acquire()
print(lock.acquire(timeout=0.05), 0.1 < time.monotonic() - start < 30)
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler here")
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    clock.why_not.cache_clear()
    yield
    clock.why_not.cache_clear()


def shown(setting, script, *arguments):
    """What a Python program prints under another clock."""
    environment = {"LD_PRELOAD": str(clock.preload(setting)), "PATH": os.defpath, "TZ": "UTC"}
    argv = [PYTHON, "-I", "-S", "-c", script, *arguments]
    return process.run(argv, env=environment, timeout=60).stdout.decode().split()


@pytest.mark.parametrize("ask", ["time.time()", "time.clock_gettime(time.CLOCK_REALTIME)", "time.time_ns() / 1e9"])
def test_a_shifted_clock_is_more_than_a_year_ahead_and_goes_on(ask):
    import time  # noqa: PLC0415 - named like what the script imports

    before = time.time()
    first, second = map(float, shown("shifted", f"import time; print({ask}); time.sleep(0.01); print({ask})"))
    assert before + 397 * 86_400 < first < second < before + 399 * 86_400


def test_the_date_shifts_in_each_of_its_parts():
    script = "import time; a = time.gmtime(0); b = time.gmtime(int({})); print(*map(int.__ne__, a[:6], b[:6]))"
    seconds = clock._SETTINGS["shifted"].partition("=")[2]
    assert shown("shifted", script.format(seconds)) == ["True"] * 6


@pytest.mark.parametrize("program", ["date +%s%N", "printf '%(%s)T' -1"])
def test_a_stopped_clock_shows_every_program_the_same(program):
    if not shutil.which("bash"):
        pytest.skip("there is no bash here")
    environment = {"LD_PRELOAD": str(clock.preload("stopped")), "PATH": os.defpath}
    said = {
        process.run(["bash", "-c", program], env=environment, timeout=60).stdout.decode().strip()[:10] for _ in "ab"
    }
    assert said == {"2114478245"}


@pytest.mark.parametrize("setting", ["shifted", "stopped"])
def test_no_wait_takes_longer_or_less(setting):
    assert shown(setting, WAIT) == ["False", "True"]


def test_the_times_of_files_stay_real(tmp_path):
    import time  # noqa: PLC0415 - as above

    before = time.time()
    path = tmp_path / "file"
    script = "import os, sys; open(sys.argv[1], 'w').close(); print(os.stat(sys.argv[1]).st_mtime)"
    (said,) = shown("shifted", script, str(path))
    assert before - 2 < float(said) < before + 3600
    assert float(said) == path.stat().st_mtime


def test_the_library_is_compiled_once(monkeypatch):
    made = clock.preload("shifted")
    assert clock.preload("stopped") != made
    monkeypatch.setattr(process, "run", None)
    assert clock.preload("shifted") == made
    assert clock.why_not() == ""


def test_without_a_compiler_the_clock_stays_and_the_reason_is_told(monkeypatch):
    def run(argv, **_):
        raise ToolMissing(f"The program {argv[0]!r} is not on this machine's PATH.")

    monkeypatch.setattr(process, "run", run)
    assert clock.why_not() == ("the library for it can't be compiled: The program 'cc' is not on this machine's PATH.")
    assert not list(cache_root().glob("**/*.so"))


def test_a_compiler_that_fails_leaves_nothing_behind(monkeypatch, tmp_path):
    (tmp_path / "cc").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "cc ended with status 1" in clock.why_not()
    assert not list(cache_root().glob("**/*.so"))
