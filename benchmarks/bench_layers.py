"""What it costs to make layers of wheels: spliced, or compressed again, beside one SHA-256 pass over the same tar.

For each wheel in a folder, and then for all of them at once in as many threads as there are processors, all sides run
in turn (A B C A B C) on files that lie in the system's cache. It prints medians and their ratios; it judges nothing.
"""

import argparse
import gzip
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reprobuild.archive import open_archive
from reprobuild.oci.layer import Compression, Layer, write_layer
from reprobuild.oci.tree import WHEEL_TIME, Node, wheel_content

PREFIX = "opt/venv/lib/python3.12/site-packages/"
PASS = "sha256 of the tar"


@dataclass
class Case:
    """One wheel, or several: seconds of each side, and bytes.

    Attributes:
        ratio: of each side's median to that of the SHA-256 pass.
        layers: bytes of the layer, by compression.
    """

    name: str
    files: int
    wheel: int
    tar: int
    layers: dict[str, int]
    times: dict[str, list[float]] = field(default_factory=dict)
    ratio: dict[str, float] = field(default_factory=dict)

    def measure(self, side: str, action: Callable[[], object]) -> None:
        """Run a side once."""
        start = time.perf_counter()
        action()
        self.times.setdefault(side, []).append(time.perf_counter() - start)
        print(f"{self.name[:40]}: {side}: {self.times[side][-1]:.3f} s", file=sys.stderr)

    def finish(self) -> None:
        """Work out the ratios."""
        base = statistics.median(self.times[PASS])
        self.ratio = {side: statistics.median(times) / base for side, times in self.times.items()}


def nodes_of(wheel: Path) -> list[Node]:
    """The files of a wheel as they would be installed, without what an installer writes."""
    with open_archive(wheel) as archive:
        entries = [entry for entry in archive.entries if entry.kind == "file"]
    return [
        Node(
            PREFIX + entry.name,
            "file",
            0o755 if entry.mode & 0o100 else 0o644,
            WHEEL_TIME,
            content=wheel_content(wheel, entry),
        )
        for entry in entries
    ]


class Bench:
    """The wheels, and their tars in a scratch folder."""

    def __init__(self, wheels: Sequence[Path], scratch: Path, compressions: Sequence[Compression]) -> None:
        self.compressions = compressions
        self.scratch = scratch
        self.nodes = {wheel: nodes_of(wheel) for wheel in wheels}
        self.layers: dict[Path, dict[str, Layer]] = {}
        for wheel in wheels:
            made = {each.value: self.write(wheel, each) for each in compressions}
            self.layers[wheel] = made
            with gzip.open(self.out(wheel, Compression.SPLICE)) as layer, self.tar(wheel).open("wb") as tar:
                shutil.copyfileobj(layer, tar, 1 << 20)

    def out(self, wheel: Path, compression: Compression) -> Path:
        """Where a layer is written to."""
        return self.scratch / f"{wheel.name}.{compression.value}"

    def tar(self, wheel: Path) -> Path:
        """The same layer, not compressed."""
        return self.scratch / f"{wheel.name}.tar"

    def write(self, wheel: Path, compression: Compression, *, known: bool = False) -> Layer:
        """Write one layer, to a file."""
        diff_id = self.layers[wheel][compression.value].diff_id if known else None
        with self.out(wheel, compression).open("wb") as stream:
            return write_layer(self.nodes[wheel], stream, compression, diff_id=diff_id)

    def hash(self, wheel: Path) -> str:
        """One pass over the tar."""
        with self.tar(wheel).open("rb", buffering=0) as tar:
            hasher = hashlib.sha256()
            while data := tar.read(1 << 20):
                hasher.update(data)
        return f"sha256:{hasher.hexdigest()}"

    def case(self, name: str, wheels: Sequence[Path], rounds: int) -> Case:
        """Measure all sides on some wheels, in parallel."""
        layers = [self.layers[wheel] for wheel in wheels]
        case = Case(
            name,
            sum(len(self.nodes[wheel]) for wheel in wheels),
            sum(wheel.stat().st_size for wheel in wheels),
            sum(each["splice"].tar_size for each in layers),
            {key: sum(each[key].descriptor.size for each in layers) for key in layers[0]},
        )
        with ThreadPoolExecutor(os.cpu_count()) as pool:

            def every(action: Callable[[Path], object]) -> Callable[[], object]:
                return lambda: list(pool.map(action, wheels))

            for _ in range(rounds):
                case.measure(PASS, every(self.hash))
                case.measure(
                    "splice, diff ID known", every(lambda wheel: self.write(wheel, Compression.SPLICE, known=True))
                )
                for each in self.compressions:
                    case.measure(each.value, every(lambda wheel, each=each: self.write(wheel, each)))  # type: ignore[misc]
        case.finish()
        return case


def show(cases: Sequence[Case], around: dict[str, str | int]) -> None:
    """Print a table."""
    console = Console(width=120)
    console.print(", ".join(f"{key} {value}" for key, value in around.items()))
    table = Table()
    for heading in ("wheels", "side", "median", "fastest", "slowest", "times the pass", "layer, of the wheel"):
        table.add_column(heading, justify="left" if heading in ("wheels", "side") else "right")
    for case in cases:
        name = f"{case.name[:36]}, {case.files} files, {case.wheel / 1e6:.0f} MB, tar {case.tar / 1e6:.0f} MB"
        for side, times in case.times.items():
            size = case.layers.get(side.partition(",")[0])
            seconds = (f"{value:.3f} s" for value in (statistics.median(times), min(times), max(times)))
            share = f"{size / case.wheel:.2%}" if size else ""
            table.add_row(name if side == PASS else "", side, *seconds, f"{case.ratio[side]:.2f}", share)
        table.add_section()
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the wheels are")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each side (default: 5)")
    parser.add_argument("--only", choices=[each.value for each in Compression], action="append", help="compressions")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    wheels = sorted(options.folder.glob("*.whl"))
    if not wheels:
        parser.error(f"there is no wheel in {options.folder}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    chosen = [each for each in Compression if each.value in {"splice", *(options.only or ["gzip", "zstd"])}]
    with tempfile.TemporaryDirectory(prefix="reprobuild-bench-") as folder:
        bench = Bench(wheels, Path(folder), chosen)
        cases = [bench.case(wheel.name, [wheel], options.rounds) for wheel in wheels]
        if len(wheels) > 1:
            cases.append(bench.case(f"all {len(wheels)} in parallel", wheels, options.rounds))
    around: dict[str, str | int] = {
        "platform": platform.platform(),
        "processors": os.cpu_count() or 0,
        "python": platform.python_version(),
        "peak memory in MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if options.json:
        print(json.dumps({"machine": around, "cases": [asdict(case) for case in cases]}, indent=2))
    else:
        show(cases, around)


if __name__ == "__main__":
    main()
