"""A build backend in a box: its environment from locked files, its hooks, its wheel."""

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from packaging.requirements import Requirement

from reprobuild import process, toolchain
from reprobuild.digest import chunks_of
from reprobuild.errors import BadInput, BuildFailed, DigestMismatch, ReprobuildError, shown
from reprobuild.files import write_atomically
from reprobuild.index import Index, LockedFile
from reprobuild.interpreter import Interpreter
from reprobuild.progress import SILENT, Observer
from reprobuild.project import Config, requirement_of
from reprobuild.sandbox import Box

_WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
#: Calls a backend that is installed, even where the source in the working folder has one of the same name.
_CALL = """
import importlib, sys
sys.path.remove("")
importlib.import_module(sys.argv[1]).build_wheel(sys.argv[2])
"""
#: What a backend builds.
What = Literal["wheel", "sdist"]
ARTICLES = {"wheel": "a wheel", "sdist": "an sdist"}
_LOG_LINES = 40
_WARNINGS = 10
_ANSWER_LIMIT = 1 << 20


def prepare(
    box: Box,
    config: Config,
    interpreter: Interpreter,
    files: Sequence[LockedFile],
    index: Index,
    observer: Observer = SILENT,
) -> None:
    """Make the build environment at the box's fixed path, of exactly these files and without the network.

    docs/adr/0003-build-environment-at-a-fixed-path.md says why `uv build` doesn't make it itself.

    Raises:
        DigestMismatch: a file doesn't have the digest that the lock names.
        BuildFailed: a locked sdist can't be built.
    """
    timeout = config.wheel.timeout
    wheels = [file for file in files if file.is_wheel]
    sdists = [file for file in files if not file.is_wheel]
    # All that is written from outside comes first: any command below may run code of the locked files.
    toolchain.wrap(box, interpreter, config)
    index.fetch(files, box.outside("wheels"))
    for name, listed in (("all", files), ("wheels", wheels), ("sdists", sdists)):
        _write_pins(box.outside("wheels", f"{name}.txt"), listed)
    environment = box.inside("env")
    box.run([box.uv_inside, "venv", "--quiet", "--no-project", "--python", str(interpreter.executable), environment])
    install = [box.uv_inside, "pip", "install", "--quiet", "--python", f"{environment}/bin/python"]
    install += ["--no-index", "--find-links", box.inside("wheels"), "--no-deps", "--require-hashes"]
    if wheels:
        _install(box, [*install, "--no-build", "-r", box.inside("wheels", "wheels.txt")], timeout)
    if sdists:
        observer.step(f"building {', '.join(file.filename for file in sdists)}")
        constraints = ["--build-constraints", box.inside("wheels", "all.txt"), "--require-build-hashes"]
        _install(box, [*install, *constraints, "-r", box.inside("wheels", "sdists.txt")], timeout, observer)


def add_user_settings(box: Box, interpreter: Interpreter, home: Iterable[tuple[str, str]], startup: str) -> None:
    """Give the build what a user's machine would: files in the home folder, code that runs when Python starts.

    They are written from inside: what ran in the box before may have put a link in their way.

    Args:
        home: names of files and what they hold.
        startup: Python code, one line.
    """
    files = {f"{box.home}/{name}": text for name, text in home}
    if startup:
        minor = ".".join(interpreter.version.split(".")[:2])
        files[box.inside("env", "lib", f"python{minor}", "site-packages", "reprobuild.pth")] = f"{startup}\n"
    for path, text in files.items():
        box.run([box.inside("env", "bin", "python"), "-c", _WRITE, path, text])


def _install(box: Box, argv: Sequence[str], timeout: float, observer: Observer = SILENT) -> None:
    try:
        box.run(argv, on_line=observer.line, timeout=timeout)
    except process.ToolFailed as error:
        if "Hash mismatch" in error.output or "no trusted hash" in error.output:
            raise DigestMismatch(f"uv refused a build requirement: {error.output}") from error
        raise BuildFailed(f"The locked build requirements can't be installed:\n{_tail(error.output)}") from error


def _write_pins(path: Path, files: Iterable[LockedFile]) -> None:
    lines = [f"{file.name}=={file.version} --hash={file.digest}\n" for file in files]
    path.write_text("".join(lines), encoding="utf-8")


def requires_to_build(
    box: Box,
    config: Config,
    where: str,
    environment: Mapping[str, str],
    *,
    what: What = "wheel",
    observer: Observer = SILENT,
) -> tuple[Requirement, ...]:
    """What the backend's ``get_requires_for_build_wheel`` (or ``_sdist``) answers (PEP 517), asked in the box.

    Args:
        where: the project's folder as seen inside; the hook may write into it.

    Raises:
        BuildFailed: the hook fails.
    """
    from build import BuildBackendException, BuildException, ProjectBuilder  # noqa: PLC0415 - slow to import
    from pyproject_hooks import HookMissing  # noqa: PLC0415 - the same

    def runner(cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:  # noqa: ARG001
        """Run pyproject_hooks' script in the box: copy in what it reads, copy out what it writes."""
        python, script, hook, folder = cmd
        with box.exchange() as (here, there):
            shutil.copyfile(script, here / "in_process.py")
            shutil.copyfile(Path(folder, "input.json"), here / "input.json")
            # The backend-path of a project that holds its own backend is a path outside, in JSON.
            outside = json.dumps(str(config.root)).strip('"')
            moved = {name: value.replace(outside, where) for name, value in (extra_environ or {}).items()}
            variables = {**environment, **moved}
            argv = [python, f"{there}/in_process.py", hook, there]
            box.run(argv, env=variables, cwd=where, exchange=here, timeout=config.wheel.timeout)
            answer = _read_answer(here / "output.json")
        for warning in answer.pop("warnings", ()):  # they would otherwise become warnings of this process
            observer.line(str(warning))
        Path(folder, "output.json").write_text(json.dumps(answer), encoding="utf-8")

    python = box.inside("env", "bin", "python")
    try:
        builder = ProjectBuilder(config.root, python_executable=python, runner=runner)
        answers = builder.get_requires_for_build(what, _settings(config.wheel.config_settings))
    except BuildBackendException as error:
        inner = error.exception  # ProjectBuilder wraps whatever its runner raises
        if isinstance(inner, process.ToolFailed):
            raise BuildFailed(
                f"The backend failed when it was asked what it needs to build {ARTICLES[what]}:\n{_tail(inner.output)}",
                "A build runs without the network and with the locked build requirements alone.",
            ) from error
        if isinstance(inner, (ReprobuildError, OSError)):
            raise inner from None
        raise BuildFailed(f"The backend can't be asked what it needs: {error}") from error
    except ValueError as error:  # pyproject_hooks says so of a backend-path that leaves the project
        raise BadInput(
            f"pyproject.toml's [build-system] backend-path: {error}.",
            "Name folders inside the project, relative to it.",
        ) from error
    except (BuildException, HookMissing) as error:
        raise BuildFailed(f"The backend can't be asked what it needs: {error}") from error
    own = {str(Requirement(text)) for text in builder.build_system_requires}
    return tuple(sorted((each for each in _parsed(answers) if str(each) not in own), key=str))


def _read_answer(path: Path) -> dict[str, Any]:
    """What a hook wrote, which is as trustworthy as the code that ran it."""
    try:
        with _open_regular(path) as stream:
            answer = json.loads(stream.read(_ANSWER_LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise BuildFailed(f"The backend's hook left no answer that can be read: {error}.") from error
    if not isinstance(answer, dict):
        raise BuildFailed("The backend's hook left an answer that is not an object.")
    asked = answer.get("return_val")
    failed = any(said for key, said in answer.items() if key not in ("return_val", "warnings"))
    if not failed and not (isinstance(asked, list) and all(isinstance(each, str) for each in asked)):
        raise BuildFailed(
            f"The backend answered {asked!r:.200} when it was asked what it needs: that is not a list of requirements.",
            "This is a defect of the build backend.",
        )
    return answer


def _open_regular(path: str | Path, folder: int | None = None) -> BinaryIO:
    """Open a file that code in the box could have replaced by a link, a pipe or a device.

    Args:
        folder: the descriptor of the folder that it lies in.

    Raises:
        OSError: it isn't a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def _parsed(answers: Iterable[str]) -> Iterable[Requirement]:
    for text in answers:
        try:
            yield requirement_of(text)
        except ValueError as error:
            raise BuildFailed(f"The backend asks for {shown(text)!r}, which is not a requirement.") from error


def build(
    box: Box,
    config: Config,
    project: str,
    environment: Mapping[str, str],
    *,
    what: What = "wheel",
    tool: str = "",
    observer: Observer = SILENT,
) -> None:
    """Have the backend build a wheel (or an sdist) in the box, into its ``out`` folder.

    ``--force-pep517`` keeps uv from building uv_build projects by itself, past the locked requirements.

    Args:
        tool: a backend to call in place of the one that the source names, as tools such as `flit build` and
            `poetry build` call their own; for a wheel only.

    Raises:
        BuildFailed: the backend fails or runs too long.
    """
    argv = [box.uv_inside, "build", f"--{what}", "--force-pep517", "--no-build-isolation", "--no-create-gitignore"]
    argv += ["--python", box.inside("env", "bin", "python"), "--out-dir", box.inside("out")]
    settings = dict(config.wheel.config_settings)
    if config.backend.partition(":")[0] == "mesonpy" and not settings.keys() & {"build-dir", "builddir"}:
        settings["build-dir"] = box.inside("tmp", "meson")  # its own choice is a random name
    for name, value in settings.items():
        for each in (value,) if isinstance(value, str) else value:
            argv += ["--config-setting", f"{name}={each}"]
    folder = inside(box, "src", project)
    argv.append(folder)
    if tool:
        argv = [box.inside("env", "bin", "python"), "-c", _CALL, tool, box.inside("out")]
    timeout = config.wheel.timeout
    try:
        box.run(argv, env=environment, cwd=folder, on_line=_heeding(observer), timeout=timeout)
    except process.ToolFailed as error:
        raise BuildFailed(
            f"The build failed:\n{_tail(error.output)}",
            "A build has no network and sees only the system's folders, the locked build requirements and the exported "
            "source; [tool.reprobuild.wheel] readable and path show it more.",
        ) from error


def _heeding(observer: Observer) -> Callable[[str], None]:
    """Pass a build's lines on, and warn of what the wrappers of its compilers say, once of each thing."""
    said: set[str] = set()

    def heed(line: str) -> None:
        observer.line(line)
        if line.startswith(toolchain.SAYING) and line not in said and len(said) < _WARNINGS:
            said.add(line)
            observer.warn(f"The build {line.removeprefix(toolchain.SAYING)}.")

    return heed


def take(box: Box, suffix: str, destination: Path) -> Path:
    """Copy the one artifact out of the box's ``out`` folder, once everything that ran in the box has ended.

    Whatever ran there could have put a link, a pipe or a device in the artifact's place, to have this process read
    something of the machine's: only a regular file that lies there itself is taken.

    Args:
        suffix: how the artifact's name ends.
        destination: a folder that the build couldn't reach.

    Raises:
        BuildFailed: there is anything but one such file.
    """
    wrong = "This is a defect of the build backend."
    try:
        folder = os.open(box.outside("out"), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise BuildFailed(f"The build took away the folder for its result: {error.strerror}.", wrong) from error
    try:
        found = [name for name in os.listdir(folder) if name.endswith(suffix)]  # noqa: PTH208 - a descriptor
        if len(found) != 1:
            raise BuildFailed(f"The backend left {len(found)} files *{suffix} where one was expected.", wrong)
        try:
            stream = _open_regular(found[0], folder)
        except OSError as error:
            raise BuildFailed(f"The backend left a {found[0]!r} that is not a file.", wrong) from error
        with stream:
            write_atomically(destination / found[0], chunks_of(stream))
    finally:
        os.close(folder)
    return destination / found[0]


def environment_of(box: Box, config: Config, interpreter: Interpreter, epoch: int | None) -> dict[str, str]:
    """The variables that a build gets beyond the box's own: the epoch if any, prefix maps, the project's settings."""
    maps = toolchain.prefix_maps(box, interpreter, toolchain.toolkit(config))
    rust_flags = " ".join(f"--remap-path-prefix={real}={mapped}" for real, mapped in maps)
    variables = {"PATH": box.path(config.wheel.path), "RUSTFLAGS": rust_flags}
    if epoch is not None:
        variables["SOURCE_DATE_EPOCH"] = str(epoch)
    for name, value in config.wheel.environment.items():
        variables[name] = f"{rust_flags} {value}" if name == "RUSTFLAGS" else value
    return {**variables, **toolchain.variables(box, config)}


def inside(box: Box, folder: str, project: str) -> str:
    """A project's folder as seen in the box; ``project`` is empty where it is the whole source."""
    return box.inside(folder, *([project] if project else []))


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _tail(output: str) -> str:
    lines = output.strip().splitlines()
    kept = lines[-_LOG_LINES:]
    cut = [f"… {len(lines) - len(kept)} lines before"] if len(kept) < len(lines) else []
    return "\n".join(cut + kept)
