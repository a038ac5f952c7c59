"""Bills of materials of locks, files and images, out of what locks, records and metadata say; and beside images.

The components are those that a lock pins or a record names. What depends on what, and under which licence it is, is
read from the wheels themselves, each of which has the digest that the lock or the record has. Nothing else is asked:
an index's own copy of the metadata is nobody's promise. What isn't here, or can't be read, is said to be unknown.
"""

import posixpath
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from reprobuild import attest, bom, graph, lockfile, pep770, process, project, recorded
from reprobuild.archive import open_archive
from reprobuild.attest import ImageRecord, Json
from reprobuild.bom import MEDIA_TYPE, SUFFIX, Document, Part, Purl, purl_of
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, IndexFailed, RecordUnusable, shown
from reprobuild.files import TEXT_LIMIT, read_text, write_atomically
from reprobuild.graph import Node
from reprobuild.image.signed import ImageIn
from reprobuild.image.store import Found, Readable
from reprobuild.image.target import Target
from reprobuild.index import Index, LockedFile
from reprobuild.lock import BUILD_LOCK
from reprobuild.lockfile import Lockfile, Pin
from reprobuild.oci.model import OCI_EMPTY, Descriptor, Manifest
from reprobuild.oci.reference import Reference
from reprobuild.oci.rootfs import open_layer
from reprobuild.progress import SILENT, Observer
from reprobuild.project import Config, Selection
from reprobuild.sdist import SUFFIX as SDIST_SUFFIX
from reprobuild.sdist import read_sdist
from reprobuild.wheelfile import WheelFile, parse_metadata, read_metadata, read_wheel

_EMPTY = b"{}"
#: The roles of what an image's record names that becomes a component.
_NAMED = ("base", "image", "wheel", "own-wheel", "apt-package")
_PARALLEL = 4  # wheels that are fetched and read at once
#: The environments of a lock that is for every platform (sys_platform, platform_system, os_name, platform_machine).
_PLATFORMS = (
    ("linux", "Linux", "posix", "x86_64"),
    ("linux", "Linux", "posix", "aarch64"),
    ("darwin", "Darwin", "posix", "arm64"),
    ("darwin", "Darwin", "posix", "x86_64"),
    ("win32", "Windows", "nt", "AMD64"),
)
_MINORS = range(7, 16)
#: What reads the wheels of such a lock: any Linux will do, since wheels of one release seldom say other things.
_READERS = ("x86_64-manylinux_2_39", "aarch64-manylinux_2_39")
_INTERPRETER = "/usr/bin/python3"
#: Of the project's own wheel: in how many layers, from the last one on, and in which, its metadata is looked for.
_LAYERS, _LAYER_LIMIT = 8, 32 << 20


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads wheels' metadata.

    Attributes:
        offline: take what is in the cache, and leave the rest unknown.
    """

    index: Index
    offline: bool = False
    observer: Observer = SILENT

    def metadata(self, file: LockedFile | None) -> Message | None:
        """A wheel's METADATA; None where it can't be had.

        Raises:
            IndexFailed: no place offers it, and it isn't left unknown.
            DigestMismatch: a place sent other bytes.
        """
        if file is None or not file.is_wheel:
            return None
        try:
            return read_metadata(self.index.kept(file))
        except IndexFailed as error:
            if not self.offline:
                raise IndexFailed(
                    error.reason, f"{error.remedy} With --offline what isn't here is left unknown.".strip()
                ) from error
        except BadInput as error:
            self.observer.warn(f"{error.reason} What it depends on is left unknown.")
        return None

    def each(self, files: Sequence[LockedFile | None]) -> list[Message | None]:
        """Of several wheels."""
        with process.workers(_PARALLEL) as pool:
            return list(pool.map(self.metadata, files))

    def chosen(self, pins: Sequence[Pin], targets: Sequence[Target]) -> list[LockedFile | None]:
        """Of each pin the wheel that the first target to take any likes best."""
        with process.workers(_PARALLEL) as pool:
            return list(pool.map(partial(self._chosen, targets=targets), pins))

    def _chosen(self, pin: Pin, targets: Sequence[Target]) -> LockedFile | None:
        try:
            return self.index.wheel_for(pin, targets)
        except IndexFailed:
            if not self.offline:
                raise
        return None


# --- environments ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Environments:
    """What a lock is for.

    Attributes:
        words: for the document.
        one: whether it is one environment, in which a pin either applies or doesn't.
    """

    words: str
    markers: tuple[Mapping[str, str], ...]
    targets: tuple[Target, ...]
    one: bool = False


def _environments(selection: Selection | None, requires_python: str) -> _Environments:
    named = selection and selection.python
    if selection and selection.python and selection.platform:
        try:
            target = Target(selection.python, _INTERPRETER, selection.platform)
        except BadInput:  # a platform that no image has
            pass
        else:
            words = f"Python {selection.python} on {selection.platform}"
            return _Environments(words, (target.markers,), (target,), one=True)
    minors = [f"3.{minor}" for minor in _MINORS]
    if named:
        minors = [named]
    elif requires_python:
        admitted = SpecifierSet(requires_python)
        minors = [each for each in minors if admitted.contains(f"{each}.99") or admitted.contains(each)] or minors
    markers = tuple(_markers(minor, *platform) for minor in minors for platform in _PLATFORMS)
    targets = tuple(Target(minor, _INTERPRETER, platform) for platform in _READERS for minor in minors)
    words = f"every platform, Python {', '.join(minors)}"
    return _Environments(words, markers, targets)


def _markers(python: str, sys_platform: str, system: str, os_name: str, machine: str) -> dict[str, str]:
    full = python if len(Version(python).release) > 2 else f"{python}.0"
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": os_name,
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": system,
        "platform_version": "",
        "python_full_version": full,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": sys_platform,
    }


# --- locks -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pinned:
    """What a lock pins, as components and as nodes of the graph."""

    parts: tuple[Part, ...]
    nodes: tuple[Node, ...]


def _pinned(lock: Lockfile, environments: _Environments, reader: Reader) -> _Pinned:
    pins = [each for each in lock.pins if not environments.one or each.applies(environments.markers[0])]
    pins = list({(each.name, each.version): each for each in reversed(pins)}.values())
    read = reader.each(reader.chosen(pins, environments.targets))
    parts, nodes = [], []
    for pin, said in zip(pins, read, strict=True):
        purl = purl_of(pin.name, str(pin.version))
        ref = bom.text_of(purl)
        markers = {str(each.marker) for each in lock.pins if (each.name, each.version) == (pin.name, pin.version)}
        told = () if environments.one or "None" in markers else tuple(("reprobuild:marker", each) for each in markers)
        single = len(pin.hashes) == 1
        part = Part(
            ref,
            pin.name,
            str(pin.version),
            purl=purl,
            digests=pin.hashes if single else (),
            files=() if single else pin.hashes,
            properties=told,
        )
        parts.append(_with_licences(part, said))
        nodes.append(Node(ref, pin.name, pin.version, _requires(said)))
    return _Pinned(tuple(parts), tuple(nodes))


def _requires(metadata: Message | None) -> tuple[str, ...] | None:
    return None if metadata is None else tuple(str(each) for each in metadata.get_all("Requires-Dist", []))


def _with_licences(part: Part, metadata: Message | None) -> Part:
    return part if metadata is None else replace(part, licences=pep770.licences_in(metadata))


def of_lock(path: Path, root: Path, reader: Reader) -> Document:
    """A lock's document.

    Args:
        path: of the lock.
        root: the folder of the project that it belongs to.

    Raises:
        BadInput: it isn't a lock.
        IndexFailed, DigestMismatch: as :meth:`Reader.metadata`.
    """
    lock = lockfile.read(path)
    config, manifest = _project(root)
    output = path.resolve().relative_to(root.resolve()).as_posix() if _is_below(path, root) else path.name
    selection = next((each for each in config.selections if each.output == output), None) if config else None
    environments = _environments(selection, config.requires_python if config else "")
    pinned = _pinned(lock, environments, reader)
    subject = _project_of(config, manifest, path)
    told = {"reprobuild:lock": output, "reprobuild:lock-digest": str(lock.digest), "reprobuild:for": environments.words}
    subject = replace(subject, properties=tuple(told.items()))
    requires, more = _wanted(config, manifest, selection, output)
    own = Node(subject.ref, subject.name, None, requires)
    found = graph.resolve((own, *pinned.nodes), environments.markers)
    incomplete = found.incomplete | ({subject.ref} if more else frozenset())
    return Document(subject, "pre-build", pinned.parts, found.edges, incomplete)


def _is_below(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _project(root: Path) -> tuple[Config | None, Mapping[str, Any]]:
    manifest = root / "pyproject.toml"
    if not manifest.is_file():
        return None, {}
    return project.load(root), tomllib.loads(read_text(manifest))


def _project_of(config: Config | None, manifest: Mapping[str, Any], path: Path) -> Part:
    """The project that a lock belongs to, or where there is none the lock itself."""
    if config is None or not config.name:
        return Part("lock", path.name, kind="application")
    version = manifest.get("project", {}).get("version", "")
    purl = purl_of(config.name, version) if isinstance(version, str) else purl_of(config.name, "")
    return Part("project", config.name, purl.version, kind="application", purl=purl)


def _wanted(
    config: Config | None, manifest: Mapping[str, Any], selection: Selection | None, output: str
) -> tuple[tuple[str, ...] | None, bool]:
    """What a lock was made for, None where only a backend knows; and whether a backend may have asked for more."""
    if config is None:
        return None, False
    if output == BUILD_LOCK:
        return tuple(map(str, config.build_requires)), True
    if selection is None:
        return None, False
    wanted: list[str] = []
    if selection.project:
        table = manifest.get("project", {})
        dynamic = table.get("dynamic", ())
        if not table or "dependencies" in dynamic or (selection.extras and "optional-dependencies" in dynamic):
            return None, False
        wanted += _texts(table.get("dependencies", []))
        wanted += _of_extras(config.name, _by_name(table.get("optional-dependencies", {})), selection.extras)
    groups = _by_name(manifest.get("dependency-groups", {}))
    for each in selection.groups:
        wanted += _of_group(groups, canonicalize_name(each), ())
    return tuple(wanted), False


def _by_name(table: Mapping[str, Any]) -> dict[str, Any]:
    return {str(canonicalize_name(name)): value for name, value in table.items()}


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _of_extras(own: str, extras: Mapping[str, Any], wanted: Iterable[str]) -> list[str]:
    """The requirements of some extras, and of those that they ask of the project itself."""
    found: list[str] = []
    waiting, seen = [canonicalize_name(each) for each in wanted], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for text in _texts(extras.get(name)):
            requirement = project.requirement_of(text)
            if canonicalize_name(requirement.name) == own:
                waiting += map(canonicalize_name, requirement.extras)
            else:
                found.append(text)
    return found


def _of_group(groups: Mapping[str, Any], name: str, above: tuple[str, ...]) -> Iterator[str]:
    """A dependency group with those that it includes (PEP 735)."""
    listed = groups.get(name)
    if name in above or not isinstance(listed, list):
        raise BadInput(f"The dependency group {shown(name)!r} includes itself, or isn't there.", "Mend pyproject.toml.")
    for each in listed:
        if isinstance(each, dict) and isinstance(included := each.get("include-group"), str):
            yield from _of_group(groups, canonicalize_name(included), (*above, name))
        elif isinstance(each, str):
            yield each


# --- wheels ------------------------------------------------------------------------------------------


def of_file(path: Path, reader: Reader, *, lock: Path | None = None, root: Path, files: bool = False) -> Document:
    """The document of a wheel or an sdist: what it is and bundles, what made it, and what a lock says it runs with.

    Args:
        lock: of its runtime requirements; none for leaving open which versions it gets.
        root: the folder of the project that the lock belongs to.
        files: whether each file in it is listed.

    Raises:
        BadInput: it is neither, or the lock isn't one.
        RecordUnusable: the record beside it is about something else.
        IndexFailed, DigestMismatch: as :meth:`Reader.metadata`.
    """
    subject, metadata, requires = (_of_sdist if path.name.endswith(SDIST_SUFFIX) else _of_wheel)(path, files=files)
    bundled = pep770.bundled(path) if path.name.endswith(".whl") else ()
    requires_python = str(metadata.get("Requires-Python", ""))
    environments, pinned = _environments(None, requires_python), _Pinned((), ())
    told = {"reprobuild:filename": path.name}
    if lock is not None:
        config, _ = _project(root)
        named = next((each for each in config.selections if root / each.output == lock), None) if config else None
        environments = _environments(named, requires_python)
        locked = lockfile.read(lock)
        pinned = _pinned(locked, environments, reader)
        told |= {"reprobuild:lock-digest": str(locked.digest), "reprobuild:for": environments.words}
    own = Node(subject.ref, subject.name, Version(subject.version), requires)
    found = graph.resolve((own, *pinned.nodes), environments.markers)
    edges = dict(found.edges)
    if subject.ref in edges:
        edges[subject.ref] |= {each.ref for each in bundled}
    return Document(
        replace(subject, properties=tuple(told.items())),
        "post-build" if path.name.endswith(".whl") else "pre-build",
        (*bundled, *pinned.parts),
        edges,
        found.incomplete,
        unread=frozenset([subject.ref]),
        makers=_makers(path),
    )


def _of_wheel(path: Path, *, files: bool) -> tuple[Part, Message, tuple[str, ...] | None]:
    wheel, metadata = read_wheel(path), read_metadata(path)
    listed = tuple(_files_of(wheel)) if files else ()
    return pep770.subject_of(metadata, (wheel.digest,), listed), metadata, _requires(metadata)


def _of_sdist(path: Path, *, files: bool) -> tuple[Part, Message, tuple[str, ...] | None]:
    """As of a wheel. What a wheel of it requires is in PKG-INFO, unless that leaves it to the build (PEP 643)."""
    metadata, listed = parse_metadata(read_sdist(path).metadata), list[Part]()
    if files:
        with open_archive(path, kind="tar.gz") as archive:
            content = [each for each in archive.entries if each.kind == "file"]
            listed = [
                Part(f"file:{each.name}", each.name, kind="file", digests=(Digest.of_stream(archive.open(each)),))
                for each in content
            ]
    subject = pep770.subject_of(metadata, (Digest.of_file(path),), tuple(listed))
    said = str(metadata.get("Metadata-Version", "")).strip().split(".")
    new = all(map(str.isdecimal, said)) and tuple(map(int, said)) >= (2, 2)
    dynamic = {str(each).strip().lower() for each in metadata.get_all("Dynamic", [])}
    known = new and "requires-dist" not in dynamic
    subject = replace(subject, ref=subject.ref.replace("wheel:", "sdist:", 1))
    return subject, metadata, _requires(metadata) if known else None


def _files_of(wheel: WheelFile) -> Iterator[Part]:
    for name, said in wheel.record.items():
        algorithm, _, value = said.partition("=")
        yield Part(f"file:{name}", name, kind="file", digests=(pep770.from_record(algorithm, value),))


def _makers(path: Path) -> tuple[Part, ...]:
    """What the record beside a file says that built it."""
    if not recorded.record_path(path).exists():
        return ()
    record = recorded.read_record(path)
    interpreter = record.dependency("interpreter")
    about = interpreter.get("annotations", {})
    name, version = record.text(about, "implementation"), record.text(about, "version")
    python = Part(
        "build:interpreter",
        name,
        version,
        kind="application",
        purl=Purl("generic", name, version),
        digests=(record.sha256(interpreter),),
    )
    files = (recorded.locked_file(record, each) for each in record.dependencies("build-requirement"))
    return (*pep770.makers_of(files), python)


# --- images ------------------------------------------------------------------------------------------


def of_image(artifact: ImageIn, reader: Reader, *, files: bool = False) -> Document:
    """The document of an image for one platform, out of its record.

    Args:
        files: whether each file that came from the project's folder is listed.

    Raises:
        RecordUnusable: there is no record, or several that name other inputs.
        IndexFailed, DigestMismatch: as :meth:`Reader.metadata`.
    """
    image = artifact.image
    record = _record_of(artifact.found, image)
    digest, platform = artifact.digest, image.config.platform
    name = record.subject_name
    context = tuple(_context(record)) if files else ()
    subject = Part(
        f"image:{digest}",
        name,
        str(digest),
        kind="container",
        purl=Purl("oci", name.lower(), str(digest), qualifiers=(("arch", platform.architecture),)),
        digests=(digest,),
        properties=(("reprobuild:platform", str(platform)),),
        parts=context,
    )
    bases = tuple(_image_part(record, each, "base") for each in record.dependencies("base"))
    others = tuple(_image_part(record, each, "build") for each in record.dependencies("image"))
    packages = tuple(_package(record, each) for each in record.dependencies("apt-package"))
    wheels, nodes = _wheels(record, image, reader)
    found = graph.resolve(nodes, _markers_of(record))
    parts = (*bases, *packages, *wheels)
    # It is made of each of them, whichever asked for it.
    edges = {**found.edges, subject.ref: frozenset(each.ref for each in parts)}
    opaque = frozenset([subject.ref, *(each.ref for each in bases)])
    return Document(subject, "post-build", parts, edges, found.incomplete, opaque, makers=others)


def _record_of(found: Found, image: Readable) -> ImageRecord:
    """An image's record; of several, which may be of several commits, any, if they name the same inputs."""
    records = found.records(image)
    named = {attest.encode({role: record.dependencies(role) for role in _NAMED}) for record in records}
    if len(named) > 1:
        raise RecordUnusable(
            f"{image.where} has {len(records)} records, which name other bases, wheels or packages.",
            "Find out which of them holds with `reprobuild verify-image`, and remove the others.",
        )
    return records[0]


def _context(record: ImageRecord) -> Iterator[Part]:
    for each in record.dependencies("context"):
        name = record.text(each, "name")
        yield Part(f"file:{name}", name, kind="file", digests=(record.sha256(each),))


def _image_part(record: ImageRecord, described: Json, role: str) -> Part:
    reference, digest = Reference.parse(record.text(described, "name")), record.sha256(described)
    platform = described["annotations"].get("platform")
    repository = f"{reference.registry}/{reference.repository}"
    qualifiers = [("repository_url", repository), *([("tag", reference.tag)] if reference.tag else [])]
    return Part(
        f"{role}:{digest}",
        repository,
        str(digest),
        kind="container",
        purl=Purl("oci", posixpath.basename(repository), str(digest), qualifiers=tuple(qualifiers)),
        digests=(digest,),
        properties=(("reprobuild:platform", platform),) if isinstance(platform, str) else (),
    )


def _package(record: ImageRecord, described: Json) -> Part:
    from packageurl import PackageURL  # noqa: PLC0415 - an extra

    try:
        url = PackageURL.from_string(record.text(described, "uri"))
    except ValueError as error:
        raise RecordUnusable(f"The record's package {shown(described.get('uri'))!r} has no package URL.") from error
    qualifiers = tuple(sorted(dict(url.qualifiers).items()))
    purl = Purl(url.type, url.name, url.version or "", url.namespace or "", qualifiers)
    return Part(bom.text_of(purl), url.name, url.version or "", purl=purl, digests=(record.sha256(described),))


def _wheels(record: ImageRecord, image: Readable, reader: Reader) -> tuple[tuple[Part, ...], tuple[Node, ...]]:
    locked = {_wheel_of(record, each): each for each in record.dependencies("wheel")}
    own = {_wheel_of(record, each): each for each in record.dependencies("own-wheel")}
    read = dict(zip(locked, reader.each(list(locked)), strict=True))
    read |= {each: _own_metadata(each, image) for each in own}
    parts, nodes = [], []
    releases = [(each.name, each.version) for each in read]
    for file, said in read.items():
        purl = purl_of(file.name, file.version)
        ref = bom.text_of(purl)
        if releases.count((file.name, file.version)) > 1:  # of one release, for several interpreters
            ref = f"{ref}#{file.filename}"
        part = Part(
            ref,
            file.name,
            file.version,
            kind="application" if file in own else "library",
            purl=purl,
            digests=(file.digest,),
            properties=(("reprobuild:filename", file.filename),),
        )
        parts.append(_with_licences(part, said))
        nodes.append(Node(ref, file.name, Version(file.version), _requires(said)))
    return tuple(parts), tuple(nodes)


def _wheel_of(record: ImageRecord, described: Json) -> LockedFile:
    filename = record.text(described, "name")
    try:
        name, version, *_ = parse_wheel_filename(filename)
    except (InvalidWheelFilename, ValueError) as error:
        raise RecordUnusable(f"The record names {shown(filename)!r}, which is no wheel.") from error
    return LockedFile(name, str(version), filename, record.digest(described))


def _own_metadata(file: LockedFile, image: Readable) -> Message | None:
    """What the project's own wheel says, out of the image: nobody else has it."""
    folder = "-".join(file.filename.split("-")[:2])
    wanted = f"/{folder}.dist-info/METADATA"
    for layer in image.manifest.layers[: -_LAYERS - 1 : -1]:
        if layer.size > _LAYER_LIMIT:
            continue
        try:
            with open_layer(image.blob(layer), name=str(layer.digest)) as archive:
                for entry in archive.entries:
                    if entry.name.endswith(wanted) and entry.kind == "file" and entry.size <= TEXT_LIMIT:
                        return parse_metadata(archive.open(entry).read())
        except BadInput:  # the base's, which needn't be here
            continue
    return None


def _markers_of(record: ImageRecord) -> tuple[Mapping[str, str], ...]:
    """The environments that the record says are in the image."""
    told = record.internal.get("environments")
    if not isinstance(told, list):
        raise RecordUnusable("The record doesn't say which Python the image has.")
    return tuple(
        Target(record.text(each, "python"), record.text(each, "interpreter"), record.text(each, "platform")).markers
        for each in told
        if isinstance(each, dict)
    )


# --- where they go -----------------------------------------------------------------------------------


def keep_beside_image(artifact: ImageIn, raw: bytes) -> str:
    """Put a document beside an image, as its referrer or beside its archive; where it is now. Twice is once."""
    if artifact.found.beside:
        target = artifact.found.beside
        target = target.with_name(f"{target.name}.{artifact.digest.hex[:12]}{SUFFIX}")
        write_atomically(target, [raw])
        return str(target)
    layer, config = Descriptor.of(MEDIA_TYPE, raw), Descriptor.of(OCI_EMPTY, _EMPTY)
    subject = replace(artifact.image.manifest.descriptor, platform=None)
    manifest = Manifest.make(config, [layer], subject=subject, artifact_type=MEDIA_TYPE)
    described = replace(manifest.descriptor, artifact_type=MEDIA_TYPE)
    blobs = ((config, _EMPTY), (layer, raw), (manifest.descriptor, manifest.raw))
    return artifact.found.place.keep(described, blobs)


def statement_of(raw: bytes, name: str, digest: Digest) -> Json:
    """A document as a statement about what it is of (in-toto attestation framework, "CycloneDX Predicate")."""
    return {
        "_type": attest.STATEMENT_TYPE,
        "subject": [attest.descriptor({digest.algorithm: digest.hex}, name=name)],
        "predicateType": bom.PREDICATE_TYPE,
        "predicate": bom.read(raw),
    }
