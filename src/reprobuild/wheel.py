"""Building a wheel or an sdist from a source and a lock, and the record of everything that went into it."""

import functools
import os
import platform
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from packaging.version import Version

from reprobuild import (
    __version__,
    attest,
    backend,
    bom,
    export,
    fatbin,
    interpreter,
    lockfile,
    pep770,
    process,
    project,
    sdist,
    source,
    toolchain,
)
from reprobuild.attest import Json
from reprobuild.digest import Digest, chunks_of
from reprobuild.errors import BadInput, BuildFailed, LockMissing, WriteFailed
from reprobuild.files import remove_tree, scratch_folder, write_atomically, write_together
from reprobuild.index import Index, LockedFile
from reprobuild.interpreter import Interpreter
from reprobuild.lock import BUILD_LOCK, require_satisfied
from reprobuild.progress import SILENT, Observer
from reprobuild.project import Config
from reprobuild.sandbox import USUAL, Box, Guarantees, Surroundings, choose, observed, open_box
from reprobuild.source import Source
from reprobuild.wheelfile import read_wheel

RECORD_SUFFIX = ".intoto.json"
_LONGEST_NAME = 255
#: How the names of what is built end.
SUFFIXES: dict[backend.What, str] = {"wheel": ".whl", "sdist": sdist.SUFFIX}
_BUILD_TYPES: dict[backend.What, str] = {"wheel": attest.WHEEL_BUILD_TYPE, "sdist": attest.SDIST_BUILD_TYPE}
_LOCK_REMEDIES = {
    "git": f"Run `reprobuild lock`, then commit it: git add {BUILD_LOCK}.",
    "sdist": "Unpack it, run `reprobuild lock` in its folder, and build that folder.",
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a wheel or an sdist is a function of.

    Attributes:
        config: the intent, as the exported source has it.
        files: the build requirements, each one file.
        lock: the digest of constraints.txt.
        tool: a backend that is called in place of the one that the source names; empty for none.
        home: files in the home folder of the build, by name, and what they hold.
        startup: Python code that runs whenever an interpreter of the build environment starts.
        what: what is built of it.
    """

    config: Config
    source: Source
    files: tuple[LockedFile, ...]
    lock: Digest
    interpreter: Interpreter
    tool: str = ""
    home: tuple[tuple[str, str], ...] = ()
    startup: str = ""
    what: backend.What = "wheel"


@dataclass(frozen=True, slots=True)
class Built:
    """A wheel or an sdist on disk, and its record beside it."""

    path: Path
    digest: Digest
    record: Path
    inputs: Inputs
    guarantees: Guarantees


def build(
    where: Path,
    *,
    out_dir: Path,
    what: backend.What = "wheel",
    allow_dirty: bool = False,
    python: str | None = None,
    sandbox: str | None = None,
    observer: Observer = SILENT,
) -> Built:
    """Build a project's wheel or sdist from its commit and its lock, and write it with its record into ``out_dir``.

    Args:
        where: the project's folder, or an sdist to build a wheel of.
        what: to build.
        python: the interpreter to build with (see :func:`reprobuild.interpreter.find`).
        sandbox: a sandbox kind; none means the project's own choice.

    Raises:
        SourceUnusable, LockMissing, LockStale, BuildFailed, IndexFailed, DigestMismatch, SandboxUnavailable,
        BadInput, ToolMissing, WriteFailed: as their docstrings say. Nothing is written then.
    """
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-") as scratch, process.workers(1) as pool:
        pool.submit(choose, "auto")  # it tries the sandbox out, which git needn't wait for
        observer.step("exporting the source")
        exported = export.open_source(
            where, scratch, allow_dirty=allow_dirty, epoch=source.epoch_from_environment(os.environ)
        )
        if what == "sdist" and exported.kind == "sdist":
            raise BadInput(f"{where} is an sdist already.", "Name the folder of the project that it is to be made of.")
        _warn_of_source(exported, what, observer)
        index = Index(where if where.is_dir() else Path.cwd(), observer=observer)
        inputs = replace(resolve(exported, scratch, index, python=python, observer=observer), what=what)
        for ask in (uv_version, toolchain.compilers):  # for the record, whose other parts are known
            pool.submit(ask)
        made, guarantees, around = make(
            inputs, index, scratch / "made", kind=sandbox or inputs.config.wheel.sandbox, observer=observer
        )
        more: Json = {}
        if what == "sdist":
            made, more["archive"] = _settled(made, exported.epoch, observer)
        elif architectures := fatbin.architectures(made):
            more["cuda"] = {"architectures": list(architectures), **toolchain.toolkit_of(inputs.config)}
        digest = Digest.of_file(made)
        record = record_of(inputs, made.name, digest, guarantees, around, more)
        target, beside = out_dir / made.name, out_dir / f"{made.name}{RECORD_SUFFIX}"
        if len(os.fsencode(beside.name)) > _LONGEST_NAME:
            raise WriteFailed(f"The name {beside.name} is too long for a file.", "Shorten the project's name.")
        if not out_dir.exists():  # as uv does: or else the next --allow-dirty would build it in
            write_atomically(out_dir / ".gitignore", [b"*"])
        with made.open("rb") as stream:
            content = digest.check(chunks_of(stream), made.name)
            write_together([(target, content), (beside, [attest.encode(record)])])
    if guarantees.missing:
        observer.warn(f"The sandbox kind {guarantees.kind} doesn't give: {', '.join(guarantees.missing)}.")
    return Built(target, digest, beside, inputs, guarantees)


def _settled(made: Path, epoch: int, observer: Observer) -> tuple[Path, Json]:
    """An sdist that comes out the same again, and what the record says of how it became so."""
    if sdist.is_settled(made, epoch):
        return made, sdist.framing(rewritten=False)
    observer.step("writing the archive anew: the backend put the present time or the builder into it")
    target = made.parent / "settled" / made.name
    sdist.rewrite(made, target, epoch)
    return target, sdist.framing(rewritten=True)


def _warn_of_source(exported: Source, what: backend.What, observer: Observer) -> None:
    if note := exported.left_out(what):
        observer.warn(note)
    if exported.git is not None and (exported.git / "shallow").is_file():
        observer.warn(
            "The clone is shallow: a version that the backend takes from tags may be another one than in a full "
            "clone (git fetch --unshallow)."
        )


def resolve(
    exported: Source, scratch: Path, index: Index, *, python: str | None, observer: Observer = SILENT
) -> Inputs:
    """Read the exported source's intent and lock, and say which file each locked requirement is.

    Raises:
        LockMissing, LockStale: as their docstrings say.
    """
    config, lock_path = read_export(exported, scratch)
    if not lock_path.is_file():
        raise LockMissing(
            f"The source has no {BUILD_LOCK} beside its pyproject.toml.",
            _LOCK_REMEDIES.get(exported.kind, "Run `reprobuild lock` in the project's folder."),
        )
    python_found = interpreter.find(python, config.root, config.requires_python, configured=config.python)
    locked = lockfile.read(lock_path, f"{lock_path.name} of the source")
    require_satisfied(locked, config.build_requires, python_found, "pyproject.toml's [build-system]")
    observer.step("choosing the locked files")
    files = index.choose(locked.selected(python_found.markers).values(), python_found)
    return Inputs(config, exported, files, locked.digest, python_found)


def read_export(exported: Source, scratch: Path) -> tuple[Config, Path]:
    """The intent in an exported source, and where its lock would lie."""
    folder = scratch / "export"
    folder.mkdir()
    source.peek(exported, ("pyproject.toml", "setup.py", ".python-version", BUILD_LOCK), folder)
    config = project.load(folder, "the source")
    for path in config.backend_path:  # whoever asks the backend looks whether the folder of its code is there
        within = (folder / path).resolve()
        if within.is_relative_to(folder.resolve()):
            within.mkdir(parents=True, exist_ok=True)
    return config, folder / BUILD_LOCK


def make(
    inputs: Inputs,
    index: Index,
    out_dir: Path,
    *,
    kind: str,
    surroundings: Surroundings = USUAL,
    observer: Observer = SILENT,
) -> tuple[Path, Guarantees, Surroundings]:
    """Build once, in a fresh sandbox with some surroundings.

    Returns:
        The path of what was built in ``out_dir``, what the sandbox held fixed, and the surroundings that the build saw.

    Raises:
        LockStale: the backend asks for something that isn't locked.
        BuildFailed, BadInput: the build fails, or what it made isn't sound.
    """
    config, exported = inputs.config, inputs.source
    if _has_sbom(inputs):
        bom.require_library()
    readable = [inputs.interpreter.prefix, *exported.objects, *toolchain.shown(config)]
    size = index.kept_size(inputs.files)
    if shown := (*config.wheel.readable, *config.wheel.path):
        observer.step(f"showing the build {', '.join(shown)}, as the project asks")
    with open_box(
        kind,
        surroundings,
        readable=readable,
        source_size=exported.size,
        environment_size=size,
        memory=config.wheel.memory,
        timeout=config.wheel.timeout,
    ) as box:
        _place(box, exported)
        observer.step("making the build environment")
        backend.prepare(box, config, inputs.interpreter, inputs.files, index, observer)
        epoch = None if exported.own_times else exported.epoch
        variables = backend.environment_of(box, config, inputs.interpreter, epoch)
        backend.add_user_settings(box, inputs.interpreter, inputs.home, inputs.startup)
        if inputs.what == "wheel" and exported.kind == "folder" and not (box.outside("src") / "PKG-INFO").is_file():
            observer.step("building the sdist that the wheel is made from")
            exported = _replace_by_sdist(box, config, variables, exported, observer)
        observer.step(f"building the {inputs.what} ({box.guarantees.kind})")
        with process.workers(1) as pool:
            asked = pool.submit(_check_requirements, box, replace(inputs, source=exported), variables)
            try:
                backend.build(
                    box,
                    config,
                    exported.subdirectory,
                    variables,
                    what=inputs.what,
                    tool=inputs.tool,
                    observer=observer,
                )
            except BuildFailed:
                asked.result()  # a lock that lacks something is the better explanation
                raise
            asked.result()
        kept = backend.take(box, SUFFIXES[inputs.what], out_dir)
        observer.step(f"checking the {inputs.what} against what it says of itself")
        _check(kept, inputs.what)
        if _has_sbom(inputs):
            observer.step("putting the bill of materials into the wheel")
            pep770.embed(kept, inputs.files, exported.epoch)
            _check(kept, inputs.what)
        return kept, box.guarantees, observed(box)


def _place(box: Box, exported: Source) -> None:
    """The source twice, before any of its code runs: to be built, and to be asked what it needs meanwhile."""
    for name in ("src", "asked"):
        folder = box.outside(name)
        for path in list(folder.iterdir()):
            remove_tree(path)
        source.place(exported, folder, box.surroundings.directory_order)


def _replace_by_sdist(
    box: Box, config: Config, variables: Mapping[str, str], exported: Source, observer: Observer
) -> Source:
    """Without git a wheel is made from the sdist's own contents, as `uv build` does it."""
    backend.build(box, config, "", variables, what="sdist", observer=observer)
    unpacked = replace(exported, kind="sdist", tar=backend.take(box, ".tar.gz", box.private))
    _place(box, unpacked)
    return unpacked


def _check_requirements(box: Box, inputs: Inputs, variables: Mapping[str, str]) -> None:
    """Ask the backend what it needs, while the build runs in the other copy of the source.

    Raises:
        LockStale: it asks for something that isn't locked.
        BuildFailed: it can't be asked.
    """
    where = backend.inside(box, "asked", inputs.source.subdirectory)
    asked = backend.requires_to_build(box, inputs.config, where, variables, what=inputs.what)
    pins = tuple(lockfile.Pin(file.name, Version(file.version), None, (file.digest,)) for file in inputs.files)
    locked = lockfile.Lockfile(inputs.lock, pins, "")
    require_satisfied(locked, asked, inputs.interpreter, f"the backend {inputs.config.backend}")


def _has_sbom(inputs: Inputs) -> bool:
    """Whether a bill of materials goes into what is built: into wheels alone (PEP 770)."""
    return inputs.config.wheel.sbom and inputs.what == "wheel"


def _check(built: Path, what: backend.What) -> None:
    try:
        if what == "sdist":
            sdist.read_sdist(built)
        else:
            read_wheel(built)
    except BadInput as error:
        raise BuildFailed(
            f"The backend made {backend.ARTICLES[what]} that is not sound, and it was not kept: {error.reason}",
            "This is a defect of the build backend.",
        ) from error


# --- the record ------------------------------------------------------------------------------------


def record_of(
    inputs: Inputs,
    filename: str,
    digest: Digest,
    guarantees: Guarantees,
    around: Surroundings,
    more: Mapping[str, Any],
) -> Json:
    """The provenance of a wheel or an sdist: an unsigned Statement v1 that names every input by digest.

    Args:
        more: internal parameters: ``cuda``, where the wheel has device code; ``archive`` of an sdist.
    """
    internal: Json = {
        "sandbox": asdict(guarantees),
        "surroundings": {**asdict(around), "jobs": around.job_count},
        "platform": {
            "tag": inputs.interpreter.platform,
            "kernel": platform.release(),
            "libc": " ".join(platform.libc_ver()),
        },
        "zlib": inputs.interpreter.zlib,
        "compilers": toolchain.compilers(),
        **more,
    }
    if _has_sbom(inputs):
        internal["sbom"] = {"cyclonedx-python-lib": bom.cyclonedx_version()}
    return statement_of(inputs, filename, digest, internal, {"reprobuild": __version__, "uv": uv_version()})


def statement_of(
    inputs: Inputs, filename: str, digest: Digest, internal: Json, builder_version: Mapping[str, str]
) -> Json:
    """The provenance of what is made of some inputs, whoever made it, and where."""
    config, exported = inputs.config, inputs.source
    external: Json = {
        "source": {"kind": exported.kind, "uri": exported.uri, "subdirectory": exported.subdirectory},
        "sourceDateEpoch": exported.epoch,
        "backend": config.backend,
        "configSettings": {
            name: value if isinstance(value, str) else list(value)
            for name, value in config.wheel.config_settings.items()
        },
        "environment": dict(config.wheel.environment),
    }
    if _has_sbom(inputs):
        external["sbom"] = True
    return attest.provenance(
        attest.descriptor({"sha256": digest.hex}, name=filename),
        build_type=_BUILD_TYPES[inputs.what],
        external=external,
        internal=internal,
        dependencies=_dependencies(inputs),
        builder_version=builder_version,
    )


def _dependencies(inputs: Inputs) -> list[Json]:
    exported, python = inputs.source, inputs.interpreter
    listed = [
        attest.descriptor(exported.digests, name="source", uri=exported.uri, annotations={"role": "source"}),
        attest.descriptor({"sha256": inputs.lock.hex}, name=BUILD_LOCK, annotations={"role": "lock"}),
        attest.descriptor(
            {"sha256": Digest.of_file(python.executable).hex},
            name=python.executable.name,
            uri=f"pkg:generic/{python.implementation}@{python.version}",
            annotations={
                "role": "interpreter",
                "implementation": python.implementation,
                "version": python.version,
                "prefix": str(python.prefix),
                "compiler": python.compiler,
            },
        ),
    ]
    listed += [
        attest.descriptor(
            {file.digest.algorithm: file.digest.hex},
            name=file.filename,
            uri=f"pkg:pypi/{file.name}@{file.version}",
            annotations={"role": "build-requirement"},
        )
        for file in inputs.files
    ]
    return listed


@functools.cache
def uv_version() -> str:
    """What uv calls itself, such as ``0.9.5``."""
    done = process.run(["uv", "--version"], env=process.tool_environment())
    found = re.search(r"\d[\w.+]*", done.stdout.decode())
    return found.group() if found else "unknown"
