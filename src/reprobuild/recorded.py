"""The record beside a wheel or an sdist, held against its source, and the inputs of the build that it names."""

import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from reprobuild import export, interpreter, lockfile, sdist, source
from reprobuild.attest import Record, SdistRecord, WheelRecord
from reprobuild.bom import cyclonedx_version
from reprobuild.digest import Digest
from reprobuild.errors import DigestMismatch, LockMissing, RecordUnusable, SourceUnusable, ToolMissing
from reprobuild.index import LockedFile
from reprobuild.interpreter import Interpreter
from reprobuild.sandbox import USUAL, Surroundings
from reprobuild.toolchain import compilers, toolkit_of
from reprobuild.wheel import RECORD_SUFFIX, Inputs, read_export, statement_of

_CHANGED = "The record was changed after the build: don't trust it."


def record_path(path: Path) -> Path:
    """Where the record of a wheel or an sdist is to be: beside it."""
    return path.with_name(f"{path.name}{RECORD_SUFFIX}")


def read_record(path: Path) -> WheelRecord | SdistRecord:
    """The record beside a wheel or an sdist.

    Raises:
        BadInput: there is no such file.
        RecordUnusable: no record, a malformed one, or one about other bytes.
    """
    digest = Digest.of_file(path)
    beside = record_path(path)
    kind = SdistRecord if path.name.endswith(sdist.SUFFIX) else WheelRecord
    if not beside.is_file():
        raise RecordUnusable(
            f"{path} has no record: {beside.name} is not beside it.",
            f"`reprobuild {'sdist' if kind is SdistRecord else 'wheel'}` writes both; keep them together.",
        )
    record = kind(beside.read_bytes(), str(beside))
    if record.subject != digest or record.subject_name != path.name:
        raise RecordUnusable(
            f"{beside} is about {record.subject_name!r} with {record.subject}, but {path.name} has {digest}.",
            f"The {record.what} or its record was changed after the build: trust neither.",
        )
    return record


def source_of(record: Record, where: Path, scratch: Path) -> source.Source:
    """The source that a record names, exported again.

    Raises:
        RecordUnusable: it doesn't say which.
        SourceUnusable: another source is at ``where``.
    """
    described = record.dependency("source")
    digests = record.digests(described)
    parameters = record.external.get("source")
    kind = parameters.get("kind") if isinstance(parameters, dict) else None
    epoch = record.external.get("sourceDateEpoch")
    if type(epoch) is not int or source.clamped(epoch) != epoch or kind not in ("git", "dirty", "sdist", "folder"):
        raise RecordUnusable("The record doesn't say what kind of source and which epoch were built with.")
    commit = digests.get("gitCommit", "") if kind == "git" else "HEAD"
    if kind == "git" and not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        raise RecordUnusable("The record doesn't name the commit that was built.")
    found = export.open_source(where, scratch, allow_dirty=kind == "dirty", commit=commit, epoch=epoch)
    if dict(found.digests) != digests:
        remedy = {
            "git": "Name the right checkout with --project.",
            "dirty": "It was built from a working tree with changes, which has changed since: build from a commit.",
        }.get(kind, "Name the source that was built with --project.")
        raise SourceUnusable(
            f"{where} is not the source that was built: the record names {_shown(digests)}, "
            f"but this is {_shown(found.digests)}.",
            remedy,
        )
    return found


def _shown(digests: Any) -> str:  # noqa: ANN401 - a mapping of texts
    return ", ".join(f"{name} {value}" for name, value in sorted(digests.items()))


def inputs_of(
    record: WheelRecord | SdistRecord, exported: source.Source, scratch: Path, asked: str | None
) -> tuple[Inputs, lockfile.Lockfile]:
    """The inputs of the recorded build, and the lock that they are from.

    Args:
        exported: what :func:`source_of` gives.
        asked: another interpreter than the one that the record names.

    Raises:
        LockMissing, DigestMismatch: the lock isn't what the record names.
        RecordUnusable: it says of anything else than the source and its lock do.
    """
    config, lock_path = read_export(exported, scratch)
    if not lock_path.is_file():
        raise LockMissing(f"The source that the record names has no {lock_path.name}.")
    locked, recorded = Digest.of_file(lock_path), record.sha256(record.dependency("lock"))
    if locked != recorded:
        raise DigestMismatch(f"{lock_path.name} in the source has {locked}, but the record names {recorded}.")
    python = interpreter.find(asked) if asked else _interpreter_of(record)
    files = tuple(sorted(locked_file(record, part) for part in record.dependencies("build-requirement")))
    lock = lockfile.read(lock_path, f"{lock_path.name} of the source")
    _require_locked(files, lock, python, _remedy(record, python))
    inputs = Inputs(config, exported, files, locked, python)
    if isinstance(record, SdistRecord):
        inputs = replace(inputs, what="sdist")
    _require_unchanged(record, inputs)
    return inputs, lock


def another_patch(inputs: Inputs, lock: lockfile.Lockfile) -> Interpreter | None:
    """Another patch release of the interpreter for which the lock selects the very same files."""
    for other in interpreter.other_patches(inputs.interpreter):
        with suppress(RecordUnusable):
            _require_locked(inputs.files, lock, other, "")
            return other
    return None


def _require_locked(files: Iterable[LockedFile], lock: lockfile.Lockfile, python: Interpreter, remedy: str) -> None:
    """A record names one file of each requirement that the lock of the same commit selects, and no other file."""
    selected = {(pin.name, str(pin.version)): pin for pin in lock.selected(python.markers).values()}
    for file in files:
        pin = selected.pop((file.name, file.version), None)
        if pin is None or file.digest not in pin.hashes:
            what = f"{file.filename} with {file.digest}, which the lock doesn't hold"
            raise RecordUnusable(f"The record names {what} for Python {python.version}.", remedy)
    for name, version in selected:
        what = f"{name} {version}, which the lock holds"
        raise RecordUnusable(f"The record leaves out {what} for Python {python.version}.", remedy)


def _remedy(record: WheelRecord | SdistRecord, python: Interpreter) -> str:
    said = record.dependency("interpreter").get("annotations", {})
    if (said.get("implementation"), said.get("version")) != (python.implementation, python.version):
        return "Use the Python that the record names: which requirements apply may depend on it."
    return _CHANGED


def _require_unchanged(record: WheelRecord | SdistRecord, inputs: Inputs) -> None:
    """A record says of its inputs what `reprobuild wheel` or `reprobuild sdist` would, to the last key.

    What no commit tells is free: where the source can be had, the interpreter, the machine, the builder's version.
    """
    said = record.external.get("source")
    uri = said.get("uri") if isinstance(said, dict) else None
    if not isinstance(uri, str):
        raise RecordUnusable("The record doesn't say where its source can be had.", _CHANGED)
    wanted = statement_of(
        replace(inputs, source=replace(inputs.source, uri=uri)),
        record.subject_name,
        record.subject,
        record.internal,
        record.builder_version,
    )
    listed = wanted["predicate"]["buildDefinition"]["resolvedDependencies"]
    own = record.dependency("interpreter")
    listed[:] = [own if each["annotations"]["role"] == "interpreter" else each for each in listed]
    try:
        where = differing(record.statement, wanted)
    except RecursionError as error:
        raise RecordUnusable("The record is nested too deeply.", _CHANGED) from error
    if where:
        raise RecordUnusable(f"The record says of {where!r} something else than the source and its lock do.", _CHANGED)


def differing(said: Any, wanted: Any, where: str = "") -> str:  # noqa: ANN401 - JSON
    """Where two JSON values first differ; empty for nowhere."""
    if isinstance(said, dict) and isinstance(wanted, dict):
        inner = ((key, said.get(key, ...), wanted.get(key, ...)) for key in sorted(said.keys() | wanted.keys()))
    elif isinstance(said, list) and isinstance(wanted, list):
        inner = ((str(at), *pair) for at, pair in enumerate(zip_longest(said, wanted, fillvalue=...)))
    else:
        return "" if said == wanted else where
    return next((found for key, a, b in inner if (found := differing(a, b, f"{where}.{key}".lstrip(".")))), "")


def locked_file(record: WheelRecord | SdistRecord, part: dict[str, Any]) -> LockedFile:
    """A build requirement that a record names.

    Raises:
        RecordUnusable: it is malformed.
    """
    filename, uri = record.text(part, "name"), record.text(part, "uri")
    name, _, version = uri.removeprefix("pkg:pypi/").partition("@")
    if not name or not version or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", filename):
        raise RecordUnusable(f"The record's build requirement {filename!r} is malformed.")
    return LockedFile(name, version, filename, record.digest(part))


def _interpreter_of(record: WheelRecord | SdistRecord) -> Interpreter:
    """The interpreter that the record names, else another patch release of it."""
    part = record.dependency("interpreter")
    said = part.get("annotations", {})
    version, implementation = record.text(said, "version"), record.text(said, "implementation")
    # uv takes a path for a request too, and would run what lies there.
    if not re.fullmatch(r"[a-z]+", implementation) or not re.fullmatch(r"[0-9]+\.[0-9]+[0-9a-z.+]*", version):
        raise RecordUnusable(f"The record's interpreter {implementation!r} {version!r} is malformed.")
    own = interpreter.describe(Path(sys.executable))
    if (own.version, own.implementation) == (version, implementation):
        return own
    try:
        return interpreter.find(f"{implementation}@{version}")
    except ToolMissing:
        return interpreter.find(f"{implementation}@{version.rpartition('.')[0]}")


def then_and_now(record: WheelRecord | SdistRecord, inputs: Inputs) -> tuple[str, ...]:
    """What this machine has in another version than the one that built the wheel."""
    part, python = record.dependency("interpreter"), inputs.interpreter
    said = part.get("annotations", {})
    then = {"Python": said.get("version"), "zlib": record.internal.get("zlib")}
    now = {"Python": python.version, "zlib": python.zlib}
    if then["Python"] == now["Python"] and record.sha256(part) != Digest.of_file(python.executable):
        then["Python"], now["Python"] = f"one build of {python.version}", "another"
    then["source"], now["source"] = record.external["source"]["uri"], inputs.source.uri
    if is_rewritten(record):
        then["zlib of reprobuild"] = record.internal["archive"].get("zlib")
        now["zlib of reprobuild"] = str(sdist.framing(rewritten=True)["zlib"])
    recorded = record.internal.get("compilers")
    for name, version in compilers().items():
        then[name], now[name] = recorded.get(name) if isinstance(recorded, dict) else None, version
    if isinstance(sbom := record.internal.get("sbom"), dict):
        name = "cyclonedx-python-lib"
        then[name], now[name] = sbom.get(name), cyclonedx_version()
    if isinstance(cuda := record.internal.get("cuda"), dict):
        for name, here in toolkit_of(inputs.config).items():
            said = cuda.get(name)
            then[name] = said.get("version") or said.get("sha256") if isinstance(said, dict) else None
            now[name] = here.get("version") or here["sha256"]
    return tuple(
        f"{name}: {then[name] or 'unknown'} then, {now[name] or 'unknown'} now"
        for name in now
        if then[name] != now[name]
    )


def is_rewritten(record: Record) -> bool:
    """Whether an sdist's archive was written anew after its build."""
    archive = record.internal.get("archive")
    return isinstance(record, SdistRecord) and isinstance(archive, dict) and archive.get("rewritten") is True


def surroundings_of(record: WheelRecord | SdistRecord) -> Surroundings:
    """The surroundings of the first build, as far as the record tells them."""
    recorded = record.internal.get("surroundings")
    known = {each.name: type(getattr(USUAL, each.name)) for each in fields(Surroundings)}
    if not isinstance(recorded, dict):
        return USUAL
    said = {key: value for key, value in recorded.items() if key in known and type(value) is known[key]}
    return Surroundings(**said)
