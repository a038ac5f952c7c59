"""The Python interpreter that builds: found, questioned once, described by what can change its output."""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.version import Version

from reprobuild import process
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed, ReprobuildError, ToolMissing
from reprobuild.files import cache_root, read_kept, read_text, write_atomically

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
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,2}((a|b|rc)[0-9]+)?(t|\+freethreaded)?")


class Accepting(Protocol):
    """A Python that files are chosen for: one of this machine, or one in an image."""

    @property
    def version(self) -> str:
        """As ``platform.python_version()`` says it."""

    @property
    def platform(self) -> str:
        """What messages call its platform."""

    @property
    def tag_ranks(self) -> Mapping[Tag, int]:
        """Each accepted wheel tag with its place in the order of preference, 0 for the best."""


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
        return ranked(Tag(*text.split("-", 2)) for text in self.tags)


def ranked(tags: Iterable[Tag]) -> dict[Tag, int]:
    """Each tag with its place; of one that comes twice the first."""
    ranks: dict[Tag, int] = {}
    for rank, tag in enumerate(tags):
        ranks.setdefault(tag, rank)
    return ranks


def find(
    request: str | None, project: Path | None = None, requires_python: str = "", *, configured: str | None = None
) -> Interpreter:
    """The interpreter to build with.

    Args:
        request: the user's own wish, all that uv understands (``3.12``, a path, ``>=3.11``); none means the
            project's; without one the interpreter that runs reprobuild if the project admits it, else
            the best that uv finds.
        project: its ``.python-version`` counts when nothing is configured.
        requires_python: the project's own range.
        configured: what the project's configuration asks for. Like everything in a project's files it may only
            name versions: a path would make a stranger's program run here.

    Raises:
        ToolMissing: there is no such interpreter here.
        BadInput: it is too old to be questioned, or a file of the project asks for something else than a version.
    """
    if request:
        wish = str(_expanded(request).absolute()) if os.sep in request else request
        return describe(_ask_uv(wish))
    if configured:
        return describe(_ask_uv(_checked(configured, "python in [tool.reprobuild]")))
    pinned = project / ".python-version" if project else None
    if pinned is not None and pinned.is_file():
        lines = (line.partition("#")[0].strip() for line in read_text(pinned).splitlines())
        if first := next((line for line in lines if line), None):  # further lines are further versions
            return describe(_ask_uv(_checked(first, ".python-version")))
    own = describe(Path(getattr(sys, "_base_executable", sys.executable)))
    if SpecifierSet(requires_python).contains(own.version, prereleases=True):
        return own
    return describe(_ask_uv(_checked(requires_python, "requires-python")))


def _expanded(path: str) -> Path:
    with suppress(RuntimeError):  # nobody's home
        return Path(path).expanduser()
    return Path(path)


def _checked(request: str, where: str) -> str:
    """A request that can't be taken for a program's name or path, both of which uv would look for and run."""
    asked = re.sub(r"^(cpython|pypy|graalpy|python)@?", "", request)
    with suppress(ValueError):
        operators = {each.operator for each in SpecifierSet(asked)}
        if operators and "===" not in operators:  # which compares with any text, such as a path
            return request
    if _VERSION.fullmatch(asked):
        return request
    raise BadInput(
        f"{where} asks for {request!r}, which is not a version of Python.",
        "Write it like 3.12, >=3.11,<3.14 or pypy@3.10; only --python takes a path.",
    )


def _pyenv(request: str) -> Path | None:
    """The newest of pyenv's interpreters that a request admits: uv sees those alone that pyenv has switched on."""
    asked = re.sub(r"^(cpython|python)@?", "", request)
    try:
        admitted = SpecifierSet(f"=={asked}.*" if asked[:1].isdigit() else asked)
        admitted.contains("3")
    except ValueError:
        return None
    fitting = [(Version(version), path) for version, path in _pyenv_versions() if admitted.contains(version)]
    return max(fitting, default=(None, None))[1]


def _pyenv_versions() -> Iterator[tuple[str, Path]]:
    root = Path(os.environ.get("PYENV_ROOT") or _expanded("~/.pyenv"))
    for path in root.glob("versions/*/bin/python"):
        if path.is_file() and re.fullmatch(r"\d+(\.\d+)*", path.parts[-3]):
            yield path.parts[-3], path


def other_patches(python: Interpreter) -> Iterator[Interpreter]:
    """The interpreters here that differ from one in the patch release of the same version, the newest first.

    Only those that accept the same wheels, and whose files lie in their own prefix: a version manager's shims don't.
    """
    minor = python.version.rpartition(".")[0]
    asked = [
        "uv",
        "python",
        "list",
        "--only-installed",
        "--output-format",
        "json",
        "--",
        f"{python.implementation}@{minor}",
    ]
    environment = process.tool_environment({"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1"})
    paths = set()
    with suppress(ReprobuildError, ValueError, TypeError, KeyError):
        listed = json.loads(process.run(asked, env=environment, cwd=Path("/"), timeout=60).stdout)
        paths = {Path(each["path"]) for each in listed}
    paths.update(path for version, path in _pyenv_versions() if version.startswith(f"{minor}."))
    found: dict[str, Interpreter] = {}
    for path in sorted(paths):
        with suppress(ReprobuildError):
            other = describe(path)
            alike = (other.implementation, other.tags) == (python.implementation, python.tags)
            if alike and other.version != python.version and other.executable.is_relative_to(other.prefix):
                found.setdefault(other.version, other)
    yield from sorted(found.values(), key=lambda each: Version(each.version), reverse=True)


def _ask_uv(request: str) -> Path:
    environment = process.tool_environment({"UV_PYTHON_DOWNLOADS": "never"})
    try:
        found = process.run(
            ["uv", "python", "find", "--system", "--no-project", "--", request], env=environment, cwd=Path("/")
        )
    except process.ToolFailed as error:
        if own := _pyenv(request):
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
        answer = json.loads(read_kept(path) or b"")
    except (ValueError, RecursionError):
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
            f"{executable} can't be questioned: {reason}", "reprobuild builds with Python 3.9 and newer."
        ) from error
    return answer
