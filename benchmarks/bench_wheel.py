"""What reprobuild costs on top of the plain tools, side by side in one run.

Two comparisons, each interleaved A B A B, so that a machine that slows down slows both:

* ``reprobuild wheel`` and ``uv build --wheel`` on the same project with warm caches;
* ``reprobuild --help`` and ``python -c pass``, the same interpreter.

It prints medians and ratios and judges nothing: a figure is worth something only beside its pair,
and only on the machine where both were taken.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

BIN = Path(sys.executable).parent
REPROBUILD = str(BIN / "reprobuild")
UV = str(BIN / "uv")

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "small"
version = "1.0"
requires-python = ">=3.11"
"""


@dataclass(frozen=True)
class Timing:
    """One command's wall-clock times, in seconds."""

    command: str
    median_s: float
    fastest_s: float
    slowest_s: float


@dataclass(frozen=True)
class Comparison:
    """A command beside the plain one; ``ratio`` is that of the two medians."""

    name: str
    rounds: int
    ours: Timing
    plain: Timing
    ratio: float


def run(argv: Sequence[str], cwd: Path) -> None:
    """Run a command to its end; show what it printed only when it fails."""
    done = subprocess.run(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}")


def git(cwd: Path, *arguments: str) -> None:
    """Run git with an identity of its own and without anybody's configuration."""
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    run(["env", f"GIT_CONFIG_GLOBAL={os.devnull}", "git", *identity, *arguments], cwd)


def small_project(folder: Path) -> Path:
    """A committed and locked hatchling project of twenty modules."""
    package = folder / "src" / "small"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").write_text('"""A small package."""\n')
    for number in range(20):
        (package / f"part{number:02}.py").write_text(f"NUMBER = {number}\n" * 20)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "Begin")
    run([REPROBUILD, "lock"], folder)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "Lock")
    return folder


def label(argv: Sequence[str]) -> str:
    """A command as the table shows it, without the options that both sides share."""
    shared = argv.index("--python") if "--python" in argv else len(argv)
    return " ".join([Path(argv[0]).name, *argv[1:shared]])


def compare(
    name: str,
    rounds: int,
    ours: Sequence[str],
    plain: Sequence[str],
    cwd: Path,
    check: Callable[[], None],
) -> Comparison:
    """Warm both commands up, time them in turn, and check what they made after each run."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(-1, rounds):
        for argv, measured in zip((ours, plain), times, strict=True):
            start = time.perf_counter()
            run(argv, cwd)
            elapsed = time.perf_counter() - start
            check()
            if number >= 0:
                measured.append(elapsed)
    first, second = (
        Timing(label(argv), statistics.median(each), min(each), max(each))
        for argv, each in zip((ours, plain), times, strict=True)
    )
    return Comparison(name, rounds, first, second, first.median_s / second.median_s)


def compare_builds(project: Path | None, rounds: int, scratch: Path) -> Comparison:
    """Time both builders on a clone of ``project``, or on a small one made for the purpose."""
    source = scratch / "source"
    if project is None:
        source.mkdir()
        small_project(source)
    else:
        git(scratch, "clone", "--quiet", "--no-hardlinks", str(project.resolve()), str(source))
    out = scratch / "out"

    def take_wheel() -> None:
        wheels = list(out.glob("*.whl"))
        if len(wheels) != 1:
            sys.exit(f"Expected one wheel in {out}, found {len(wheels)}")
        for path in out.iterdir():
            path.unlink()

    options = ["--python", sys.executable, "--out-dir", str(out)]
    ours, plain = [REPROBUILD, "wheel", *options], [UV, "build", "--wheel", *options]
    return compare("wheel", rounds, ours, plain, source, take_wheel)


def compare_startup(rounds: int, scratch: Path) -> Comparison:
    """Time the shortest useful run of the tool and the shortest run of its interpreter."""
    ours, plain = [REPROBUILD, "--help"], [sys.executable, "-c", "pass"]
    return compare("start", rounds, ours, plain, scratch, lambda: None)


def machine() -> dict[str, str | int]:
    """What the figures were taken on."""
    uv = subprocess.run([UV, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "platform": platform.platform(),
        "processors": os.cpu_count() or 0,
        "python": platform.python_version(),
        "uv": uv.split()[1],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--project", type=Path, help="a locked git repository (default: a small hatchling project)")
    parser.add_argument("--rounds", type=int, default=10, help="timed runs of each builder (default: 10)")
    parser.add_argument("--starts", type=int, default=30, help="timed starts of each program (default: 30)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if min(options.rounds, options.starts) < 1:
        parser.error("--rounds and --starts must be at least 1")
    with tempfile.TemporaryDirectory(prefix="reprobuild-bench-") as scratch:
        results = [
            compare_builds(options.project, options.rounds, Path(scratch)),
            compare_startup(options.starts, Path(scratch)),
        ]
    if options.json:
        comparisons = [asdict(each) for each in results]
        print(json.dumps({"machine": machine(), "comparisons": comparisons}, indent=2))
        return
    table = Table()
    for heading in ("command", "median", "fastest", "slowest", "ratio"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for each in results:
        for timing, ratio in ((each.ours, f"{each.ratio:.2f}"), (each.plain, "1")):
            seconds = (timing.median_s, timing.fastest_s, timing.slowest_s)
            cells = (timing.command, *(f"{value * 1000:.0f} ms" for value in seconds), ratio)
            table.add_row(*cells, end_section=timing is each.plain)
    console = Console()
    console.print(", ".join(f"{key} {value}" for key, value in machine().items()))
    console.print(table)


if __name__ == "__main__":
    main()
