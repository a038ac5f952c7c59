"""The Python interpreter that builds: found, questioned once, described by what can change its output."""

import json
import os
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.version import Version

from reprobuild import process
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed, ToolMissing
from reprobuild.files import cache_root, read_text, write_atomically

# Run by the interpreter in question, with reprobuild's own `packaging` on its path.
_QUESTIONS = """
import json, platform, sys, sysconfig, zlib
sys.path.insert(0, sys.argv[1])
from packaging.markers import default_environment
from packaging.tags import sys_tags
print(json.dumps({
    "version": platform.python_version(),
    "implementation": sys.implementation.name,
    "platform": sysconfig.get_platform(),
    "prefix": sys.base_prefix,
    "zlib": zlib.ZLIB_RUNTIME_VERSION,
    "compiler": sysconfig.get_config_var("CC") or "",
    "tags": [str(tag) for tag in sys_tags()],
    "markers": default_environment(),
}))
"""
_QUESTIONS_VERSION = 1


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter.

    Attributes:
        executable: absolute path, outside any virtual environment.
        version: as ``platform.python_version()`` says it, such as ``3.11.7``.
        prefix: the installation's own folder.
        zlib: the version of the zlib library that it compresses with.
        tags: the wheel tags that it accepts, best first.
        markers: its environment markers (PEP 508).
    """

    executable: Path
    version: str
    implementation: str
    platform: str
    prefix: Path
    zlib: str
    compiler: str
    tags: tuple[str, ...]
    markers: dict[str, str]

    @cached_property
    def tag_ranks(self) -> dict[Tag, int]:
        """Each accepted wheel tag with its place in the order of preference, 0 for the best."""
        ranks: dict[Tag, int] = {}
        for rank, text in enumerate(self.tags):
            ranks.setdefault(Tag(*text.split("-", 2)), rank)
        return ranks


def find(request: str | None, project: Path | None = None, requires_python: str = "") -> Interpreter:
    """The interpreter to build with.

    Args:
        request: what uv understands (``3.12``, a path, ``>=3.11``); none means the interpreter that
            runs reprobuild if the project admits it, else the best that uv finds.
        project: its ``.python-version`` counts when there is no request.
        requires_python: the project's own range.

    Raises:
        ToolMissing: there is no such interpreter here.
        BadInput: it is too old to be questioned.
    """
    pinned = project / ".python-version" if project else None
    if request is None and pinned is not None and pinned.is_file():
        lines = (line.partition("#")[0].strip() for line in read_text(pinned).splitlines())
        request = next((line for line in lines if line), None)  # further lines are further versions
    if request is None:
        own = describe(Path(getattr(sys, "_base_executable", sys.executable)))
        if SpecifierSet(requires_python).contains(own.version, prereleases=True):
            return own
        request = requires_python
    if os.sep in request:
        request = str(Path(request).expanduser().absolute())
    return describe(_ask_uv(request))


def _pyenv(request: str) -> Path | None:
    """The newest of pyenv's interpreters with a version: uv sees those alone that pyenv has switched on."""
    version = request.rpartition("@")[2]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [path for path in root.glob(f"versions/{version}*/bin/python") if path.is_file()]
    exact = [path for path in found if re.fullmatch(rf"{re.escape(version)}(\.\d+)*", path.parts[-3])]
    return max(exact, key=lambda path: Version(path.parts[-3]), default=None)


def _ask_uv(request: str) -> Path:
    environment = process.tool_environment({"UV_PYTHON_DOWNLOADS": "never"})
    try:
        found = process.run(
            ["uv", "python", "find", "--system", "--no-project", "--", request], env=environment, cwd=Path("/")
        )
    except process.ToolFailed as error:
        if re.fullmatch(r"(cpython@)?\d+(\.\d+)*", request) and (own := _pyenv(request)):
            return own
        raise ToolMissing(
            f"There is no Python {request} on this machine: {error.output.strip()}",
            "Install it (`uv python install` can), or name another with --python.",
        ) from error
    return Path(found.stdout.decode().strip())


def describe(executable: Path) -> Interpreter:
    """Question an interpreter; the answer is remembered until its file changes.

    Raises:
        ToolMissing: it doesn't start.
        BadInput: it can't answer.
    """
    try:
        resolved = executable.resolve(strict=True)
        state = resolved.stat()
    except OSError as error:
        raise ToolMissing(f"{executable} can't be used: {error.strerror}.") from error
    key = f"{_QUESTIONS_VERSION}|{resolved}|{state.st_mtime_ns}|{state.st_size}|{state.st_ino}"
    remembered = cache_root() / "interpreters" / f"{Digest.of_bytes(key.encode()).hex}.json"
    answer = _recall(remembered)
    if answer is None:
        answer = _question(resolved)
        write_atomically(remembered, [json.dumps(answer).encode()])
    return Interpreter(
        executable=resolved,
        version=answer["version"],
        implementation=answer["implementation"],
        platform=answer["platform"],
        prefix=Path(answer["prefix"]),
        zlib=answer["zlib"],
        compiler=answer["compiler"],
        tags=tuple(answer["tags"]),
        markers=answer["markers"],
    )


def _recall(path: Path) -> dict[str, Any] | None:
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wanted = Interpreter.__dataclass_fields__.keys() - {"executable"}
    return answer if isinstance(answer, dict) and wanted <= answer.keys() else None


def _question(executable: Path) -> dict[str, Any]:
    import packaging  # noqa: PLC0415 - only its place on disk is wanted, and only here

    place = Path(packaging.__file__).parent.parent
    argv: list[str | Path] = [executable, "-I", "-S", "-c", _QUESTIONS, place]
    try:
        done = process.run(argv, env={"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}, timeout=60)
        answer: dict[str, Any] = json.loads(done.stdout)
    except (process.ToolFailed, process.ToolTimeout, ValueError) as error:
        reason = error.reason if isinstance(error, BuildFailed) else "it gave no answer"
        raise BadInput(
            f"{executable} can't be questioned: {reason}", "reprobuild builds with Python 3.8 and newer."
        ) from error
    return answer
