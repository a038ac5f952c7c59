"""What an image costs with `reprobuild image` and with BuildKit, beside one SHA-256 pass over its bytes.

Wheels from the index that uv is set up with and a small app become an image, on a base of 1 MB in a registry on
loopback. BuildKit gets the same tree unpacked in a folder, as the build context `environment`; that both images hold
the same is checked. The app's own wheel is remembered, as BuildKit gets its files ready to copy, but where the app
changes. All sides run in turn on files that lie in the system's cache, with memory that the machine has at hand: a
virtual one may have given it back to its host. The engine and the registry are those of the tests. It prints medians
and ratios; it judges nothing.
"""

import argparse
import gzip
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from isal import igzip
from rich.console import Console
from rich.table import Table

from reprobuild.oci.layout import Layout
from reprobuild.oci.model import Descriptor, Manifest

ENGINE = Path(__file__).parents[1] / "tests" / "engine" / "engine.py"
WHEELS = ("numpy", "nvidia-cuda-nvrtc-cu12", "nvidia-curand-cu12")
PASS = "sha256 of the tars / processors"
PASS_USED = "sha256 of the tars / cores that this used"
FLOOR = "inflating the layers alone, in threads"
COLD, KNOWN = "assembled", "assembled, diff IDs known"
BUILT, CACHED = "BuildKit", "BuildKit, all steps cached"
CHANGED = "the app changes: assembled, pushed"
BUILT_CHANGED = "the app changes: BuildKit, pushed"
BUILT_APART = "the same, the app in a COPY of its own"
PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "app"
version = "1.0"
requires-python = ">=3.11"
dependencies = {wheels}

[project.scripts]
app = "app:main"

[tool.hatch.build.targets.wheel]
packages = ["src/app"]

[tool.reprobuild.images.app]
python = "3.11.2"
interpreter = "/usr/bin/python3.11"
platform = "x86_64-manylinux_2_28"
"""
DOCKERFILE = """\
ARG SOURCE_DATE_EPOCH
FROM {base}
COPY --from=environment / /opt/venv/
{more}ENTRYPOINT ["/opt/venv/bin/app"]
"""
APP = "lib/python3.11/site-packages/app"
EPOCH = "1700000000"


@dataclass
class Measured:
    """Seconds and peak memory of each run of each side.

    Attributes:
        memory: bytes: VmHWM of the process that was started, not of what it starts.
        cores: those that were busy with it, on average: seconds of a processor in each second.
        load: of the machine, over the last minute, before each run.
        room: bytes that a side may write, at most.
        scratch: a folder on the file system that they write to.
    """

    room: int
    scratch: Path
    times: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, list[int]] = field(default_factory=dict)
    cores: dict[str, list[float]] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)

    def measure(self, side: str, action: Callable[[], int], inputs: Iterable[Path] = ()) -> None:
        """Run a side once, with its inputs in the system's cache; it gives its peak memory, or 0."""
        for path in inputs:
            with path.open("rb", buffering=0) as stream:
                while stream.read(1 << 20):
                    pass
        os.sync()  # or else one side's files are written while the next is measured
        _take_memory(self.room, self.scratch)
        self.load.append(os.getloadavg()[0])
        start, busy = time.perf_counter(), _busy()
        memory = action()
        self.times.setdefault(side, []).append(time.perf_counter() - start)
        self.cores.setdefault(side, []).append((_busy() - busy) / self.times[side][-1])
        self.memory.setdefault(side, []).append(memory)
        print(f"{side}: {self.times[side][-1]:.2f} s, {memory >> 20} MiB, load {self.load[-1]:.1f}", file=sys.stderr)

    @property
    def aims(self) -> list[tuple[str, str, str]]:
        """The ratios of what was measured."""
        return [each for each in AIMS if {*each[:2]} - {PASS_USED} <= self.times.keys()]

    def ratio(self, slow: str, fast: str) -> float:
        """Of the medians of two sides."""
        if fast == PASS_USED:
            return self.ratio(slow, PASS) * statistics.median(self.cores[slow]) / (os.cpu_count() or 1)
        return self.median(slow) / self.median(fast)

    def median(self, side: str) -> float:
        """Of the seconds of a side."""
        return statistics.median(self.times[side])


def _busy() -> float:
    """Seconds of a processor that this process and those that it waited for have taken."""
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


def _take_memory(size: int, folder: Path) -> None:
    """Fill as much of the system's cache and let it go, so that no side pays for what a virtual machine's host does.

    What is freed last is taken first; what was free for some seconds may have gone back to the host.
    """
    with tempfile.TemporaryFile(dir=folder) as scratch:
        for _ in range(-(-size >> 20)):
            scratch.write(bytes(1 << 20))


def run(command: Sequence[str | Path], where: Path, environment: Mapping[str, str]) -> int:
    """Run a program to its end; its peak memory in bytes."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*map(str, command)], cwd=where, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        peak = 0
        while True:
            peak = max(peak, _high_water(process.pid))
            try:
                process.wait(0.02)
                break
            except subprocess.TimeoutExpired:
                continue
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(map(str, command))}: {said.read().decode(errors='replace')[-4000:]}")
    return peak


def _high_water(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0)


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """A registry and a Docker engine, and the variables by which they are reached."""
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp") as folder:  # a socket's path can't be long
        environment = {**os.environ, "REPROBUILD_ENGINE_STATE": folder}
        try:
            command: list[str | Path] = [sys.executable, ENGINE, "up", "--only", "registry", "--only", "docker"]
            command += ["--json", "--owner", str(os.getpid())]
            found = json.loads(_said(command, environment))
            yield environment | found | {"PATH": f"{found['PATH']}:{os.environ['PATH']}"}
        finally:
            subprocess.run([sys.executable, ENGINE, "down"], env=environment, check=False)


def _said(command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    return subprocess.run([*map(str, command)], env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


class Bench:
    """A project with an image, made anew, and what BuildKit needs for the same."""

    def __init__(self, scratch: Path, wheels: Sequence[str], around: Mapping[str, str]) -> None:
        self.environment = {**around, "REPROBUILD_CACHE_DIR": str(scratch / "cache"), "GIT_CONFIG_GLOBAL": os.devnull}
        self.environment |= {"PYTHONPYCACHEPREFIX": str(scratch / "bytecode")}  # compiled once, as when installed
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.registry = around["REGISTRY"]
        self.scratch, self.project = scratch, scratch / "project"
        self.tree, self.app = scratch / "tree", scratch / "app"
        self.changes = self.runs = 0
        base = _said([sys.executable, ENGINE, "base", "busybox"], around).strip()
        for folder in ("images/app", "src/app"):
            (self.project / folder).mkdir(parents=True)
        (self.project / "pyproject.toml").write_text(PYPROJECT.format(wheels=json.dumps([*wheels])))
        (self.project / "images/app/Dockerfile").write_text(DOCKERFILE.format(base=base, more=""))
        (self.scratch / "Dockerfile.apart").write_text(
            DOCKERFILE.format(base=base, more=f"COPY --from=app / /opt/venv/{APP}/\n")
        )
        run([*self.reprobuild, "lock"], self.project, self.environment)
        run(["git", "init", "--quiet"], self.project, self.environment)
        self.change()
        self.layout = self.assemble()[1]
        self.tars = list(self._tars())
        for tar in self.tars:
            with tarfile.open(tar) as archive:
                archive.extractall(self.tree, filter="tar")
        self.tree /= "opt/venv"
        shutil.copytree(self.tree / APP, self.app)

    @property
    def reprobuild(self) -> list[str]:
        """The command, from this environment."""
        return [sys.executable, "-m", "reprobuild"]

    def change(self) -> None:
        """Another app, in a commit; and in the folders that BuildKit copies."""
        self.changes += 1
        text = f'"""An app."""\n\n\ndef main() -> None:\n    """Run it."""\n    print({self.changes})\n'
        for folder in (self.project / "src/app", self.tree / APP, self.app):
            if folder.is_dir():
                (folder / "__init__.py").write_text(text)
        who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        run(["git", "add", "--all"], self.project, self.environment)
        run(["git", *who, "commit", "--quiet", "--message", "a state"], self.project, self.environment)

    @property
    def size(self) -> int:
        """Bytes of all tars."""
        return sum(tar.stat().st_size for tar in self.tars)

    @property
    def wheels(self) -> list[Path]:
        """The locked wheels, which are in the cache already."""
        return [*(self.scratch / "cache").rglob("*.whl")]

    def _manifest(self) -> tuple[Layout, Manifest]:
        layout = Layout(self.layout)
        return layout, Manifest.read(layout.read(layout.find()), str(self.layout))

    def _own_layers(self) -> Iterator[tuple[Layout, Descriptor]]:
        layout, manifest = self._manifest()
        yield from ((layout, layer) for layer in manifest.layers[1:])  # the first is the base's

    def _tars(self) -> Iterator[Path]:
        for number, (layout, layer) in enumerate(self._own_layers()):
            path = self.scratch / f"{number}.tar"
            with gzip.open(layout.path_of(layer.digest)) as stream, path.open("wb") as tar:
                shutil.copyfileobj(stream, tar, 1 << 20)
            yield path

    def hash(self) -> int:
        """One pass over all tars, in one thread."""
        for path in self.tars:
            hasher = hashlib.sha256()
            with path.open("rb", buffering=0) as tar:
                while data := tar.read(1 << 20):
                    hasher.update(data)
        return 0

    def inflate(self) -> int:
        """What an image costs at least while no diff ID is known: its layers inflated, and nothing done with it."""

        def one(layer: Descriptor) -> None:
            with igzip.open(layout.path_of(layer.digest)) as stream:  # type: ignore[no-untyped-call]
                while stream.read(1 << 20):
                    pass

        layout, manifest = self._manifest()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, sorted(manifest.layers[1:], key=lambda each: -each.size)))
        return 0

    def assemble(self, *, known: bool = True) -> tuple[int, Path]:
        """`reprobuild image` into a new layout; of layers and wheels nothing is known, or everything."""
        if not known:
            for kind in ("layers", "wheels"):
                shutil.rmtree(self.scratch / "cache" / kind, ignore_errors=True)
        self.runs += 1
        target = self.scratch / f"layout-{self.runs}"
        return run([*self.reprobuild, "image", "app", "-o", f"oci:{target}"], self.project, self.environment), target

    def assemble_once(self, *, known: bool) -> int:
        """The same, and away with it."""
        memory, target = self.assemble(known=known)
        shutil.rmtree(target)
        return memory

    def push(self) -> int:
        """`reprobuild image`, pushed."""
        name = f"{self.registry}/bench/assembled:latest"
        return run([*self.reprobuild, "image", "app", "--push", name], self.project, self.environment)

    def build(self, *more: str, output: str, apart: bool = False) -> int:
        """BuildKit; what is measured of its memory is the client's, which says nothing."""
        dockerfile = self.scratch / "Dockerfile.apart" if apart else self.project / "images/app/Dockerfile"
        command = ["docker", "buildx", "build", "--network=none", "--provenance=false", *more]
        command += ["--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}", "--build-context", f"environment={self.tree}"]
        command += ["--build-context", f"app={self.app}"] if apart else []
        run([*command, "--file", dockerfile, "--output", output, "."], self.project, self.environment)
        return 0

    def export(self, *more: str) -> int:
        """BuildKit, into an archive."""
        return self.build(*more, output=f"type=oci,dest={self.scratch / 'built.tar'},rewrite-timestamp=true")

    def build_and_push(self, *, apart: bool = False) -> int:
        """BuildKit, pushed; without new timestamps, which this exporter can't write."""
        name = f"{self.registry}/bench/built{'-apart' * apart}:latest"
        return self.build(output=f"type=image,name={name},push=true,unpack=false", apart=apart)

    def check_content(self) -> int:
        """How many files both images have; ends the program where they aren't the same."""
        ours: dict[str, tuple[object, ...]] = {}
        for tar in self.tars:
            with tarfile.open(tar) as archive:
                ours |= _described(archive)
        built = self.scratch / "built"
        with tarfile.open(self.scratch / "built.tar") as archive:
            archive.extractall(built, filter="data")
        layout = Layout(built)
        manifest = Manifest.read(layout.read(layout.find()), str(built))
        with gzip.open(layout.path_of(manifest.layers[-1].digest)) as stream, tarfile.open(fileobj=stream) as archive:
            theirs = _described(archive)
        shutil.rmtree(built)
        if ours != theirs:
            sys.exit(f"not the same content: {sorted(ours.items() ^ theirs.items())[:10]}")
        return len(ours)

    def measure_alone(self, rounds: int) -> Measured:
        """The sides that need no BuildKit, in turn."""
        found = Measured(self.size, self.scratch)
        for _ in range(rounds):
            self._measure_ours(found)
        return found

    def _measure_ours(self, found: Measured) -> None:
        found.measure(PASS, self.hash, self.tars)
        found.times[PASS][-1] /= os.cpu_count() or 1
        found.measure(FLOOR, self.inflate, (self.layout / "blobs").rglob("sha256/*"))
        found.measure(COLD, lambda: self.assemble_once(known=False), self.wheels)
        found.measure(KNOWN, lambda: self.assemble_once(known=True), self.wheels)

    def measure(self, rounds: int) -> Measured:
        """All sides in turn."""
        found = Measured(self.size, self.scratch)
        self.export("--no-cache")
        self.check_content()
        self.push()
        for apart in (False, True):
            self.build_and_push(apart=apart)
        for _ in range(rounds):
            self._measure_ours(found)
            found.measure(BUILT, lambda: self.export("--no-cache"))
            found.measure(CACHED, self.export)
            self.change()
            found.measure(CHANGED, self.push)
            found.measure(BUILT_CHANGED, self.build_and_push)
            found.measure(BUILT_APART, lambda: self.build_and_push(apart=True))
        return found


def _described(archive: tarfile.TarFile) -> dict[str, tuple[object, ...]]:
    """What is in the environment: kind, size, mode, target and content of each path."""
    found: dict[str, tuple[object, ...]] = {}
    for each in archive:
        hasher = hashlib.sha256()
        content = archive.extractfile(each) if each.isfile() else None
        while content and (data := content.read(1 << 20)):
            hasher.update(data)
        if each.name.startswith("opt/venv/"):
            found[each.name] = (each.type, each.size, each.mode, each.linkname, hasher.digest())
    return found


#: Which side is how many times as fast as which, and what the aim is.
AIMS = (
    (BUILT, COLD, "at least 20"),
    (BUILT, KNOWN, "at least 50"),
    (CACHED, KNOWN, ""),
    (BUILT_CHANGED, CHANGED, "at least 20"),
    (BUILT_APART, CHANGED, ""),
    (KNOWN, PASS, "at most 1.5"),
    (KNOWN, PASS_USED, "at most 1.5"),
    (COLD, PASS, "at most 1.5"),
    (COLD, PASS_USED, "at most 1.5"),
    (FLOOR, PASS, ""),
)


def show(found: Measured, around: Mapping[str, str | int | float]) -> None:
    """Print two tables."""
    console = Console(width=120)
    console.print(", ".join(f"{key} {value}" for key, value in around.items()))
    sides, ratios = Table(), Table()
    for heading in ("side", "median", "fastest", "slowest", "cores", "peak memory"):
        sides.add_column(heading, justify="left" if heading == "side" else "right")
    for side, times in found.times.items():
        seconds = (f"{value:.2f} s" for value in (statistics.median(times), min(times), max(times)))
        memory = max(found.memory[side])
        sides.add_row(
            side, *seconds, f"{statistics.median(found.cores[side]):.1f}", f"{memory / 1e6:.0f} MB" if memory else ""
        )
    for heading in ("of", "by", "ratio of the medians", "aim"):
        ratios.add_column(heading, justify="left" if heading in ("of", "by") else "right")
    for slow, fast, aim in found.aims:
        ratios.add_row(slow, fast, f"{found.ratio(slow, fast):.1f}", aim)
    console.print(sides)
    console.print(ratios)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheels", nargs="*", default=WHEELS, help=f"requirements (default: {' '.join(WHEELS)})")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each side (default: 3)")
    parser.add_argument("--alone", action="store_true", help="without BuildKit")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    with engine() as variables, tempfile.TemporaryDirectory(prefix="reprobuild-bench-") as folder:
        bench = Bench(Path(folder), options.wheels, variables)
        size = bench.size
        found = bench.measure_alone(options.rounds) if options.alone else bench.measure(options.rounds)
    around: dict[str, str | int | float] = {
        "platform": platform.platform(),
        "processors": os.cpu_count() or 0,
        "python": platform.python_version(),
        "MB of tars": size // 1_000_000,
        "rounds": options.rounds,
        "least load": min(found.load),
        "greatest load": max(found.load),
    }
    if options.json:
        ratios = {f"{slow} / {fast}": found.ratio(slow, fast) for slow, fast, _ in found.aims}
        told = {"times": found.times, "cores": found.cores, "memory": found.memory, "ratios": ratios}
        print(json.dumps({"machine": around, **told}, indent=2))
    else:
        show(found, around)


if __name__ == "__main__":
    main()
