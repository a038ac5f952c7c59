"""What `reprobuild diff` costs beside diffoscope, on two wheels of 300 MB that differ in one member.

Both run in turn (A B A B) on the same files, which lie in the system's cache. It prints medians, their
ratio, and what each of the two said of the cause; it judges nothing. diffoscope comes from the index that
uv is configured with, into an environment that goes away again, unless one is named.
"""

import argparse
import base64
import hashlib
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

BIN = Path(sys.executable).parent
UV = str(BIN / "uv")
INFO = "bench-1.0.dist-info"
MODULES = 2000
LIBRARIES = 5
#: Bytes of data in each library; a wheel has about two thirds of all that.
LIBRARY = 90_000_000
#: Lines of each program's output that are shown.
SHOWN = 30

SOURCE = """\
__asm__(".section .rodata\\n.incbin \\"data.bin\\"\\n");
static const char kind[] = "a library of the benchmark";
struct state { int count; const char *kind; };
int advance(struct state *state) { state->kind = kind; return ++state->count; }
"""
BUILT = ("2026-05-01T10:00:00Z in /home/one/build/bench", "2026-05-02T11:30:00Z in /var/tmp/two/bench")


@dataclass(frozen=True)
class Side:
    """One program's wall-clock times in seconds, and what it said."""

    command: str
    median_s: float
    fastest_s: float
    slowest_s: float
    exit_code: int
    output: str


@dataclass(frozen=True)
class Comparison:
    """Both programs on one pair of wheels; ``ratio`` is how many times as long diffoscope took."""

    name: str
    sizes: tuple[int, int]
    rounds: int
    ours: Side
    diffoscope: Side
    ratio: float


def blob(size: int, seed: int) -> bytes:
    """Bytes that deflate to about two thirds, as libraries with device code do: noise between runs of few values."""
    source = random.Random(seed)
    pieces = []
    for _ in range(size // 3072):
        pieces += [source.randbytes(2048), source.randbytes(16) * 64]
    return b"".join(pieces)


def library(folder: Path, data: bytes) -> bytes:
    """A shared library with debug information, compiled in a folder, around some data; without a compiler the data."""
    cc = shutil.which("cc")
    if cc is None:
        return data
    folder.mkdir(parents=True)
    (folder / "data.bin").write_bytes(data)
    (folder / "library.c").write_text(SOURCE)
    command = [cc, "-g", "-fPIC", "-shared", "-nostdlib", "-o", "library.so", str(folder / "library.c")]
    subprocess.run(command, cwd=folder, check=True)
    made = (folder / "library.so").read_bytes()
    shutil.rmtree(folder)
    return made


def members(number: int, variant: str, scratch: Path) -> dict[str, bytes]:
    """The members of the first or the second wheel, without RECORD."""
    found = {}
    for each in range(LIBRARIES):
        # One folder for both wheels, but for the library whose path is to differ.
        where = f"build-{number}" if variant == "elf" and each == 2 else "build"
        found[f"bench/lib/libpart{each}.so"] = library(scratch / where, blob(LIBRARY, each))
    source = random.Random("modules")
    for each in range(MODULES):
        lines = [f"VALUE_{n} = {source.randrange(10**9)}" for n in range(60)]
        if variant == "text" and each == MODULES // 2:
            lines[30] = f'BUILT = "{BUILT[number]}"'
        found[f"bench/part{each // 50:02}/module{each:04}.py"] = ("\n".join(lines) + "\n").encode()
    found[f"{INFO}/METADATA"] = b"Metadata-Version: 2.3\nName: bench\nVersion: 1.0\n"
    found[f"{INFO}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: bench 1\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
    return found


def wheel(path: Path, number: int, variant: str, scratch: Path) -> Path:
    """Write one of two wheels."""
    files = members(number, variant, scratch)
    rows = []
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(data)}\n")
            write(archive, name, data, level=1 if variant == "compression" and number else 6)
        write(archive, f"{INFO}/RECORD", "".join([*rows, f"{INFO}/RECORD,,\n"]).encode())
    return path


def write(archive: zipfile.ZipFile, name: str, data: bytes, level: int = 6) -> None:
    """One member with nothing in it that depends on when or where it was written."""
    info = zipfile.ZipInfo(name, (2026, 5, 1, 0, 0, 0))
    info.external_attr = 0o100644 << 16
    archive.writestr(info, data, zipfile.ZIP_DEFLATED, level)


def install_diffoscope(scratch: Path) -> str:
    """diffoscope from the index, in an environment of its own."""
    environment = scratch / "diffoscope"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    install = [UV, "pip", "install", "--quiet", "--python", str(environment / "bin" / "python")]
    subprocess.run([*install, "diffoscope", "libarchive-c", "python-magic"], check=True)
    return str(environment / "bin" / "diffoscope")


def version_of(diffoscope: str) -> str:
    """Its version; ends the program where it doesn't run."""
    done = subprocess.run([diffoscope, "--version"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{diffoscope} doesn't run:\n{done.stderr}\n"
            "It needs the libraries of libmagic1 and libarchive13. Or install Debian's diffoscope-minimal and name it: "
            "--diffoscope /usr/bin/diffoscope."
        )
    return done.stdout.split()[1]


def compare(name: str, wheels: tuple[Path, Path], diffoscope: str, rounds: int) -> Comparison:
    """Time both programs in turn; each must find that the wheels differ."""
    commands = ([str(BIN / "reprobuild"), "diff", "--quiet"], [diffoscope, "--no-progress"])
    times: tuple[list[float], list[float]] = ([], [])
    ended: list[subprocess.CompletedProcess[str]] = []
    for path in wheels:
        path.read_bytes()  # so that both find it in the system's cache
    for number in range(1, rounds + 1):
        ended = []
        for command, measured in zip(commands, times, strict=True):
            start = time.perf_counter()
            done = subprocess.run([*command, *map(str, wheels)], capture_output=True, text=True, check=False)
            elapsed = time.perf_counter() - start
            if done.returncode not in (1, 20, 21, 22) or not done.stdout:
                sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
            ended.append(done)
            measured.append(elapsed)
            print(f"{name}, round {number}: {Path(command[0]).name} {elapsed:.2f} s", file=sys.stderr)
    ours, theirs = (
        Side(Path(command[0]).name, statistics.median(each), min(each), max(each), done.returncode, done.stdout)
        for command, each, done in zip(commands, times, ended, strict=True)
    )
    sizes = (wheels[0].stat().st_size, wheels[1].stat().st_size)
    return Comparison(name, sizes, rounds, ours, theirs, theirs.median_s / ours.median_s)


def machine(diffoscope: str) -> dict[str, str | int]:
    """What the figures were taken on."""
    return {
        "platform": platform.platform(),
        "processors": os.cpu_count() or 0,
        "python": platform.python_version(),
        "diffoscope": version_of(diffoscope),
    }


def excerpt(output: str) -> str:
    """The first lines of an output, without colours and without long ones."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()
    shown = [line[:160] for line in lines[:SHOWN]]
    return "\n".join([*shown, f"... {len(lines) - SHOWN} more lines"] if len(lines) > SHOWN else shown)


def show(results: Sequence[Comparison], around: dict[str, str | int]) -> None:
    """Print a table, and below it what was said."""
    console = Console(width=120)
    console.print(", ".join(f"{key} {value}" for key, value in around.items()))
    table = Table()
    for heading in ("wheels", "program", "median", "fastest", "slowest", "times as long"):
        table.add_column(heading, justify="left" if heading in ("wheels", "program") else "right")
    for each in results:
        name = f"{each.name}, {each.sizes[0] / 1e6:.0f} MB"
        for side, ratio in ((each.ours, "1"), (each.diffoscope, f"{each.ratio:.1f}")):
            seconds = (f"{value:.2f} s" for value in (side.median_s, side.fastest_s, side.slowest_s))
            table.add_row(name, side.command, *seconds, ratio, end_section=side is each.diffoscope)
    console.print(table)
    for each in results:
        for side in (each.ours, each.diffoscope):
            print(f"\n--- {side.command} of {each.name} ---\n{excerpt(side.output)}")


def main() -> None:
    """Measure and print."""
    variants = ("text", "elf", "compression")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each program (default: 3)")
    parser.add_argument("--variant", choices=variants, action="append", help="what differs (default: each)")
    parser.add_argument("--diffoscope", help="an installed diffoscope (default: the index's newest)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    with tempfile.TemporaryDirectory(prefix="reprobuild-bench-") as folder:
        scratch = Path(folder)
        diffoscope = options.diffoscope or install_diffoscope(scratch)
        around = machine(diffoscope)
        results = []
        for variant in options.variant or variants:
            if variant == "elf" and shutil.which("cc") is None:
                print("elf: skipped, there is no C compiler here", file=sys.stderr)
                continue
            wheels = [scratch / str(number) / "bench-1.0-py3-none-any.whl" for number in (0, 1)]
            for number, path in enumerate(wheels):
                path.parent.mkdir(exist_ok=True)
                wheel(path, number, variant, scratch)
            results.append(compare(variant, (wheels[0], wheels[1]), diffoscope, options.rounds))
    if options.json:
        print(json.dumps({"machine": around, "comparisons": [asdict(each) for each in results]}, indent=2))
    else:
        show(results, around)


if __name__ == "__main__":
    main()
