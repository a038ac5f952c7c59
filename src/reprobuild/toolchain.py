"""Compilers as a build finds them: wrapped, so that neither the folder nor chance gets into what they write.

docs/adr/0008-compiler-wrappers.md says why there are wrappers, and what each of them adds.
"""

import functools
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reprobuild import process
from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.interpreter import Interpreter
from reprobuild.project import Config
from reprobuild.sandbox import SYSTEM_PATH, Box

#: How a line of a wrapper's own begins.
SAYING = "reprobuild: "
#: Where compilers say that files lie, whatever the real path was.
_MAPPED = "/reprobuild"
_COMPILER = re.compile(r"([a-z0-9_]+-[a-z0-9_-]+-)?(cc|gcc|c\+\+|g\+\+|clang|clang\+\+|gfortran)(-[0-9.]+)?")
_ARCHIVER = re.compile(r"([a-z0-9_]+-[a-z0-9_-]+-)?((gcc|llvm)-)?(ar|ranlib)(-[0-9.]+)?")
_WRAPPED = re.compile(f"{_COMPILER.pattern}|{_ARCHIVER.pattern}")
_INSIDE = Path(__file__).parent / "inside"
#: Where a CUDA toolkit is installed by those who don't say otherwise.
TOOLKITS = ("/usr/local/cuda", "/opt/cuda", "/usr/lib/nvidia-cuda-toolkit")
_TOOLKIT_PROGRAMS = ("nvcc", "ptxas")


@dataclass(frozen=True, slots=True)
class Toolkit:
    """An installed CUDA toolkit.

    Attributes:
        home: its folder, with ``bin/nvcc`` and ``include`` in it.
        chosen: whether the project named it, rather than this machine having it at its usual place.
    """

    home: Path
    chosen: bool

    def program(self, name: str) -> Path:
        """One of its programs."""
        return self.home / "bin" / name


def toolkit(config: Config) -> Toolkit | None:
    """The CUDA toolkit that a build uses: the one that the project names, else the machine's; None without any."""
    own = [config.wheel.environment.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    own += [os.path.dirname(place.rstrip("/")) for place in config.wheel.path]  # noqa: PTH120 - as below
    for home in (*own, *TOOLKITS):
        # As texts: this runs for each build, and nearly none has to do with CUDA. A profile lies beside the real nvcc
        # only, not beside scripts that call it.
        real = home.startswith("/") and os.access(f"{home}/bin/nvcc", os.X_OK)
        if real and os.path.isfile(f"{home}/bin/nvcc.profile"):  # noqa: PTH113
            return Toolkit(Path(os.path.realpath(home)), home in own)
    return None


def shown(config: Config) -> list[Path]:
    """The folders that a build sees besides the system's: what its project asks for, and the CUDA toolkit."""
    asked = [Path(folder) for folder in (*config.wheel.readable, *config.wheel.path)]
    found = toolkit(config)
    return [*asked, found.home] if found and not found.chosen else asked


def wrap(box: Box, interpreter: Interpreter, config: Config) -> None:
    """Put a wrapper before each compiler, archiver and nvcc on the build's PATH.

    Not flags in CFLAGS: setuptools takes those in place of the flags that Python itself was compiled with, -O3 and
    -DNDEBUG among them, and so do some build systems with their own defaults.
    """
    folder = box.tools[0] / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    found = toolkit(config)
    maps = prefix_maps(box, interpreter, found)
    compiler = (_INSIDE / "cc.sh").read_text(encoding="utf-8")
    flags = " ".join(shlex.quote(f"-ffile-prefix-map={real}={mapped}") for real, mapped in maps)
    compiler = compiler.replace("PREFIX_MAPS", flags)
    markers = [_marker(real, mapped) for real, mapped in reversed(maps)]
    markers.insert(0, _marker(box.inside("tmp"), _MAPPED + "/tmp", "/[^/]*"))  # noqa: S108 - the name of no folder here
    archiver = (_INSIDE / "ar.sh").read_text(encoding="utf-8")
    for real, name in _programs(config.wheel.path):
        settings = {"real": real}
        text = archiver
        if _COMPILER.fullmatch(name):
            text = compiler
            settings |= {"root": box.root, "markers": ";".join(markers)}
        _write(folder / name, text, settings)
    if found:
        _mirror(box, interpreter, found)


def _programs(more: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each compiler and archiver on the build's PATH: the first of its name, and the name."""
    seen = set()
    # As texts, and each folder once: a Path for each of a few thousand programs would take longer than all else here.
    for place in dict.fromkeys(os.path.realpath(each) for each in (*more, *SYSTEM_PATH.split(":"))):
        for name in os.listdir(place) if os.path.isdir(place) else ():  # noqa: PTH112, PTH208
            if name not in seen and _WRAPPED.fullmatch(name) and os.access(f"{place}/{name}", os.X_OK):
                seen.add(name)
                yield f"{place}/{name}", name


def _write(path: Path, text: str, settings: Mapping[str, str]) -> None:
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
    content = "#!/bin/sh\n" + "".join(lines) + text
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(os.fsencode(content))
        os.fchmod(descriptor, 0o755)  # whatever the umask of this process is


def _marker(real: str, mapped: str, more: str = "") -> str:
    """A command for sed that maps a prefix, and what matches ``more`` after it, in a preprocessor's line markers."""
    pattern = re.sub(r"([\\|.*$^\[\]])", r"\\\1", real)
    return rf's|^\(# [0-9]* "\){pattern}{more}/|\1{mapped}/|'


def prefix_maps(box: Box, interpreter: Interpreter, found: Toolkit | None) -> list[tuple[str, str]]:
    """Each folder that may have another path in another build, and what stands for it; the more general first."""
    own = str(interpreter.prefix)
    maps = [
        # The system's own folders are the same in every build, and more than Python's lies there.
        *([] if own in ("/", "/usr", "/usr/local") else [(own, f"{_MAPPED}/python")]),
        (box.tools[1], f"{_MAPPED}/tools"),
        (box.root, _MAPPED),
    ]
    if found:
        maps.append((str(found.home), f"{_MAPPED}/cuda"))
    return sorted(maps, key=lambda pair: len(pair[0]))


def variables(box: Box, config: Config) -> dict[str, str]:
    """What has to be in a build's environment for CMake, setuptools and others to find the wrapper of nvcc.

    What the project sets itself stays as it is, unless it names a part of the toolkit whose nvcc is wrapped.
    """
    found = toolkit(config)
    if found is None:
        return {}
    home = f"{box.tools[1]}/cuda"
    ours = {**dict.fromkeys(("CUDA_HOME", "CUDA_PATH", "CUDAToolkit_ROOT"), home), "CUDACXX": f"{home}/bin/nvcc"}
    given = config.wheel.environment
    return {
        name: value
        for name, value in ours.items()
        if name not in given or Path(given[name]).resolve().is_relative_to(found.home)
    }


def _mirror(box: Box, interpreter: Interpreter, found: Toolkit) -> None:
    """A toolkit of links to the real one, but for nvcc: some builds call ``$CUDA_HOME/bin/nvcc``, past PATH."""
    folder, seen_as = box.tools
    (folder / "cuda" / "bin").mkdir(parents=True, exist_ok=True)
    for target, into in ((found.home, folder / "cuda"), (found.home / "bin", folder / "cuda" / "bin")):
        for path in target.iterdir():
            if path.name not in ("bin", "nvcc") or (path.name == "bin" and target != found.home):
                (into / path.name).symlink_to(path)
    script = folder / "nvcc.py"
    script.write_bytes((_INSIDE / "nvcc.py").read_bytes())
    command = [str(interpreter.executable), "-I", "-S", f"{seen_as}/nvcc.py"]
    command += [str(found.program("nvcc")), box.root, seen_as]
    for place in (folder / "bin", folder / "cuda" / "bin"):
        _write(place / "nvcc", f'exec {shlex.join(command)} "$@"\n', {})


# --- for the record ----------------------------------------------------------------------------------


@functools.cache
def compilers() -> dict[str, str]:
    """The first line that each compiler on the build's PATH says of itself."""
    found = {}
    for name in ("cc", "c++"):
        with suppress(process.ToolFailed, BadInput, OSError):
            path = next(p for p in ("/usr/local/bin", "/usr/bin", "/bin") if Path(p, name).exists())
            found[name] = _version(f"{path}/{name}").splitlines()[0]
    return found


def _version(program: str) -> str:
    done = process.run([program, "--version"], env={"PATH": SYSTEM_PATH, "LC_ALL": "C"}, timeout=10)
    return done.stdout.decode(errors="replace")


def toolkit_of(config: Config) -> dict[str, dict[str, str]]:
    """The programs of the build's CUDA toolkit, each by digest and version.

    A program that the project names isn't run here, outside of any sandbox: its digest has to do.
    """
    described: dict[str, dict[str, str]] = {}
    if (found := toolkit(config)) is None:
        return described
    for name in _TOOLKIT_PROGRAMS:
        with suppress(OSError, process.ToolFailed, process.ToolTimeout, BadInput):
            described[name] = {"sha256": Digest.of_file(found.program(name)).hex}
            if not found.chosen and (version := re.search(r"V([0-9.]+)", _version(str(found.program(name))))):
                described[name]["version"] = version.group(1)
    return described
