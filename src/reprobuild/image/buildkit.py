"""An image built by BuildKit, for Dockerfiles that need RUN: driven through buildx, its result checked and recorded.

The definition, the environment and the record are the assembler's. What RUN does is the Dockerfile's own business; it
gets no network unless the user gives it one.
"""

import hashlib
import io
import os
import re
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from reprobuild import attest, process
from reprobuild.archive import decompressed, refusing
from reprobuild.attest import Json
from reprobuild.digest import Digest, canonical_json, chunks_of
from reprobuild.errors import BadInput, BuildFailed, DigestMismatch, LockStale, redacted, shown
from reprobuild.files import read_text, scratch_folder
from reprobuild.image import apt
from reprobuild.image import environment as environments
from reprobuild.image.base import Base, Documents
from reprobuild.image.build import Definition, Sink, described, looking_up, record_of, together
from reprobuild.image.built import Built, Image
from reprobuild.image.dockerfile import frontend_of
from reprobuild.image.engine import Engine, common_arguments, has_symbolic_modes
from reprobuild.image.environment import Environment
from reprobuild.image.stages import ENVIRONMENT, PACKAGES, PINNED, BaseImage, Copy, ImageSpec, Run, StageSpec
from reprobuild.image.store import InLayout, images_of
from reprobuild.index import Index
from reprobuild.oci.layer import Compression, Layer, write_layer
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, Platform
from reprobuild.oci.reference import Reference
from reprobuild.oci.tree import WHEEL_TIME
from reprobuild.progress import SILENT, Observer

NETWORKS = ("none", "default", "host")
_BUILT_IN = "built-in"
_PARALLEL = 4
_SECOND = 10**9
_VERTEX = re.compile(r"#(?P<number>\d+) (?P<title>.*)")
_TAIL = 40  # lines of a build that failed
_Bases = Callable[[BaseImage], Base]
_ANYWHERE = Sink()


def build(
    definition: Definition,
    store: Layout,
    index: Index,
    registry_of: Callable[[Reference], Documents],
    *,
    engine: Engine,
    sink: Sink = _ANYWHERE,
    observer: Observer = SILENT,
) -> Built:
    """Have BuildKit build an image, and put its own layers, configs, manifests and index into a store.

    What it built before is never used again: a step out of its cache keeps the times that it had then, and where these
    are older than the epoch they stay, for BuildKit only ever makes times older.

    Raises:
        BadInput, LockStale: the Dockerfile makes no sense, names an image without a digest, or the epoch is to come.
        BuildFailed: a step failed; with the end of what it said.
        DigestMismatch: what came out isn't what its digests say.
        And what :meth:`Definition.environment` raises.
    """
    if definition.choices.compression is Compression.SPLICE:  # which is the assembler's own
        definition = replace(definition, choices=replace(definition.choices, compression=Compression.GZIP))
    if definition.exported.epoch > time.time():
        raise BadInput(
            "The image's time lies in the future, and BuildKit would give files the time of the build instead.",
            "Set the clock, or SOURCE_DATE_EPOCH to what has passed.",
        )
    _require_harmless(definition)
    frontend = _frontend(definition)
    base_of = looking_up(registry_of, observer)
    images: list[tuple[Image, Json]] = []
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-buildkit-") as scratch:
        settle(definition.folder, definition.exported.epoch)
        for number, platform in enumerate(definition.platforms):
            folder = scratch / str(number)
            folder.mkdir()
            spec = definition.resolved(platform, lambda image: base_of(image).config, lenient=True)
            _require_possible(definition, spec, engine, frontend)
            _warn(definition, spec, base_of, observer)
            found = _environment(definition, spec, platform, base_of, index, observer)
            contexts = {}
            if found:
                contexts[ENVIRONMENT] = environment_image(
                    found, platform, folder / ENVIRONMENT, definition.exported.epoch
                )
            packages: tuple[Json, ...] = ()
            if any(PACKAGES in step.origins for step in _runs(spec)):
                contexts[PACKAGES], packages = _packages(definition, platform, folder / PACKAGES, observer)
            arguments = _arguments(definition, platform, contexts, folder / "image")
            _run(engine, definition, arguments, observer)
            observer.step("taking over what BuildKit built")
            image = _taken(spec, base_of, found, folder / "image", store, keeps_base=sink.keeps_base)
            internal = _internal(engine, definition, frontend)
            others = _others(spec, base_of, image.base)
            images.append((image, record_of(definition, image, internal, [*others, *packages])))
    return together(definition.name, images, store)


# --- before the build ----------------------------------------------------------------------------------


def _require_harmless(definition: Definition) -> None:
    """No build argument says to BuildKit what the source says to everybody else.

    They come from records, too: a frontend of the record's would make anything of the Dockerfile, twice the same.
    """
    given, epoch = definition.choices.build_args, str(definition.exported.epoch)
    if "BUILDKIT_SYNTAX" in given:
        raise BadInput(
            "The build argument BUILDKIT_SYNTAX would have another program read the Dockerfile.",
            "Name the frontend in the Dockerfile: `# syntax=IMAGE@sha256:…`.",
        )
    if given.get("SOURCE_DATE_EPOCH", epoch) != epoch:
        raise BadInput(
            f"The build argument SOURCE_DATE_EPOCH isn't the image's time, {epoch}.",
            "Set the variable SOURCE_DATE_EPOCH in the environment instead.",
        )


def _frontend(definition: Definition) -> str:
    """The image that reads the Dockerfile; what is in BuildKit where none is named.

    Raises:
        LockStale: it has no digest.
    """
    named = frontend_of(read_text(definition.dockerfile))
    # Words after the first are arguments of the frontend.
    if named and not PINNED.fullmatch(named.partition(" ")[0]):
        raise LockStale(
            f"{definition.where}: the frontend {shown(named)} (`# syntax=`) has no digest: what the tag means may "
            "change.",
            "Write @sha256:… behind it, or take the line away: BuildKit has a frontend of its own.",
        )
    return named or _BUILT_IN


def _require_possible(definition: Definition, spec: ImageSpec, engine: Engine, frontend: str) -> None:
    copies = (step for stage in spec.stages for step in stage.steps if isinstance(step, Copy))
    symbolic = next((step for step in copies if step.symbols), None)
    if symbolic and not has_symbolic_modes(engine, "" if frontend == _BUILT_IN else frontend):
        raise BadInput(
            f"{definition.where}:{symbolic.line}: {engine} ignores --chmod={shown(symbolic.symbols)}.",
            "Write the mode as an octal number, or take BuildKit 0.20 or newer.",
        )
    for stage in spec.stages:
        runs = [step for step in stage.steps if isinstance(step, Run)]
        if runs and not engine.runs(stage.platform):
            has = ", ".join(map(str, engine.platforms)) or "nothing"
            raise BadInput(
                f"{definition.where}:{runs[0].line}: RUN for {stage.platform} can't run: {engine} runs {has}.",
                "Name a builder for that platform with --builder, or install its emulation (binfmt_misc, qemu-user).",
            )


def _warn(definition: Definition, spec: ImageSpec, base_of: _Bases, observer: Observer) -> None:
    for stage in spec.stages:
        late = next((step for step in stage.steps if isinstance(step, Run) and not step.has_epoch), None)
        if late:
            observer.warn(
                f"{definition.where}:{late.line}: RUN doesn't see SOURCE_DATE_EPOCH; what it compiles or packs may "
                "hold the time of the build. Write `ARG SOURCE_DATE_EPOCH` before it, in this stage."
            )
        if isinstance(stage.base, BaseImage) and base_of(stage.base).config.settings.get("OnBuild"):
            observer.warn(
                f"{definition.where}:{stage.base.line}: the base has ONBUILD triggers. BuildKit carries them out; what "
                "they name isn't checked for digests."
            )


def _environment(
    definition: Definition,
    spec: ImageSpec,
    platform: Platform,
    base_of: _Bases,
    index: Index,
    observer: Observer,
) -> Environment | None:
    """The one environment that the Dockerfile copies; None where it copies none.

    Raises:
        BadInput: it copies several, or a part of one.
    """
    uses: dict[tuple[str, str, str], tuple[str, Base | None]] = {}
    for number, stage in enumerate(spec.stages):
        for step in stage.steps:
            where = f"{definition.where}:{step.line}"
            if isinstance(step, Run) and ENVIRONMENT in step.origins:
                raise BadInput(f"{where}: the environment can't be mounted.", "COPY it: its scripts say where it is.")
            if isinstance(step, Copy) and step.origin == ENVIRONMENT:
                if step.sources != ("",) or step.inline:
                    remedy = f"COPY --from={ENVIRONMENT} / {step.destination}"
                    raise BadInput(f"{where}: the environment is copied as a whole.", remedy)
                base, prefix = _base_under(spec, number, base_of), step.destination.rstrip("/")
                python = definition.python(prefix, base, platform)
                uses.setdefault((prefix, python.executable, python.python), (where, base))
    if len(uses) > 1:
        told = ", ".join(f"{prefix} for {python} ({where})" for (prefix, python, _), (where, _) in uses.items())
        raise BadInput(
            f"{definition.where} copies the environment to several places or Pythons: {told}. BuildKit can be given "
            "one, and its scripts say where it is.",
            "Copy it to one place in one stage, and COPY --from that stage.",
        )
    for (prefix, _, _), (_, base) in uses.items():
        observer.step("fetching and reading the locked wheels")
        found = definition.environment(prefix, base, platform, index)
        return environments.with_own(found, definition.own.result()) if definition.own else found
    return None


def _runs(spec: ImageSpec) -> Iterator[Run]:
    return (step for stage in spec.stages for step in stage.steps if isinstance(step, Run))


def _packages(
    definition: Definition, platform: Platform, folder: Path, observer: Observer
) -> tuple[str, tuple[Json, ...]]:
    """A folder with the locked Debian packages, and each of them for the record.

    Raises:
        LockMissing, LockStale, IndexFailed, DigestMismatch: as :func:`reprobuild.image.apt.context`.
    """
    lock = definition.folder / apt.LOCK.format(name=definition.name)
    apt.context(lock, folder, platform, settings=definition.settings, observer=observer)
    settle(folder, WHEEL_TIME)
    told = [attest.descriptor({"sha256": Digest.of_file(lock).hex}, name=lock.name, annotations={"role": "apt-lock"})]
    for each in apt.read(lock).closure(platform, str(lock)).packages:
        uri = f"pkg:deb/debian/{each.name}@{quote(each.version)}?arch={each.architecture}"
        role = {"role": "apt-package"}
        told.append(attest.descriptor({"sha256": each.digest.hex}, name=each.filename, uri=uri, annotations=role))
    return str(folder), tuple(told)


def _base_under(spec: ImageSpec, number: int, base_of: _Bases) -> Base | None:
    base = spec.stages[number].base
    while isinstance(base, int):
        base = spec.stages[base].base
    return base_of(base) if base else None


def settle(folder: Path, epoch: int) -> None:
    """Give all files of a build context the modes 755 and 644, and times that follow from the epoch and the content.

    Modes would be those of this machine's umask. Of times the seconds are the epoch. The nanoseconds, which no layer
    keeps, come from the content: BuildKit takes a file of the same name, size and time for the one that it got in an
    earlier build, even without a cache, and another one's content would be in the image.
    """
    for parent, folders, names in os.walk(folder):
        _set(Path(parent), 0o755, epoch, b"")
        for path in (Path(parent, name) for name in (*folders, *names)):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode):
                mode = 0o755 if state.st_mode & stat.S_IXUSR else 0o644
                _set(path, mode, epoch, bytes.fromhex(Digest.of_file(path).hex))
            elif stat.S_ISLNK(state.st_mode):
                os.utime(path, (epoch, epoch), follow_symlinks=False)


def _set(path: Path, mode: int, seconds: int, seed: bytes) -> None:
    path.chmod(mode)
    when = seconds * _SECOND + int.from_bytes(seed[:8], "big") % _SECOND
    os.utime(path, ns=(when, when))


def environment_image(environment: Environment, platform: Platform, folder: Path, epoch: int) -> str:
    """An environment as an image whose root is what BuildKit shall copy; what the named context is called.

    As a folder it wouldn't come out the same: BuildKit updates the folder that it was sent for an earlier build, cache
    or none, and what is new in one of its folders changes that folder's time.

    No layer can say which time the root has: it has that of its unpacking, and BuildKit keeps what it unpacked. Where
    that was for an earlier commit, it is older than the epoch, and would stay. So there is a layer of no files on top,
    another one for each epoch.

    Raises:
        BadInput: a wheel isn't what it declares.
        WriteFailed: there is no room.
    """
    root = environment.target.prefix.strip("/")
    nodes = {
        node.path: replace(node, path=node.path.removeprefix(root).lstrip("/"))
        for group in (environment.skeleton, *(wheel.nodes for wheel in environment.wheels))
        for node in group
        if node.path != root
    }
    layout = Layout(folder, create=True)
    with layout.new_blob() as (stream, put):
        layer = write_layer(nodes.values(), stream, Compression.SPLICE)
        put(layer.descriptor.digest)
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": str(epoch)}):
        pass
    top = layout.put_document(OCI_LAYER, empty.getvalue())
    described = {"architecture": platform.architecture, "os": platform.os}
    rootfs = {"type": "layers", "diff_ids": [str(layer.diff_id), str(top.digest)]}
    config = layout.put_document(OCI_CONFIG, canonical_json({**described, "config": {}, "rootfs": rootfs}))
    manifest = Manifest.make(config, [layer.descriptor, top])
    layout.put_document(manifest.descriptor.media_type, manifest.raw)
    layout.add(manifest.descriptor)
    return f"oci-layout://{folder}@{manifest.descriptor.digest}"


def _arguments(definition: Definition, platform: Platform, contexts: dict[str, str], out: Path) -> list[str | Path]:
    choices = definition.choices
    return [
        *common_arguments(definition.exported.epoch, out, choices.compression.value),
        f"--network={choices.network}",
        f"--platform={platform}",
        f"--file={definition.dockerfile}",
        *(f"--build-arg={name}={value}" for name, value in choices.build_args.items()),
        *(f"--build-context={name}={place}" for name, place in contexts.items()),
        *([f"--target={choices.target}"] if choices.target else []),
        "--no-cache",
        definition.folder,
    ]


# --- the build -----------------------------------------------------------------------------------------


def _run(engine: Engine, definition: Definition, arguments: list[str | Path], observer: Observer) -> None:
    seen: set[str] = set()

    def on_line(text: str) -> None:
        observer.line(text)
        match = _VERTEX.fullmatch(text)
        if match and match["number"] not in seen:
            seen.add(match["number"])
            if not match["title"].startswith(("[internal]", "building with")):
                observer.step(match["title"])

    try:
        engine.buildx(*arguments, on_line=on_line)
    except process.ToolFailed as error:
        lines = error.output.splitlines()
        end = next((number for number, line in enumerate(lines) if line.startswith("------")), -_TAIL)
        tail = [line for line in lines[end:] if line.strip("- ")][-_TAIL:]
        raise BuildFailed(
            redacted("\n".join([f"BuildKit couldn't build {definition.where}:", *tail])),
            "Free some space where the builder or TMPDIR is."
            if "no space left on device" in error.output
            else "Mend the step that failed. RUN has no network unless --network says so.",
        ) from error


# --- after the build -----------------------------------------------------------------------------------


def _taken(
    spec: ImageSpec,
    base_of: _Bases,
    environment: Environment | None,
    out: Path,
    store: Layout,
    *,
    keeps_base: bool,
) -> Image:
    """Put what BuildKit wrote into a store, each blob checked."""
    layout, platform = Layout(out), spec.target.platform
    built = images_of(InLayout(layout), layout.find(), "what BuildKit built")
    if len(built) != 1 or not built[0].config.platform.suits(platform):
        has = ", ".join(str(each.config.platform) for each in built)
        raise BuildFailed(f"BuildKit built {has} and not one image for {platform}.", "Name a builder that can.")
    image, base = built[0], _base_under(spec, len(spec.stages) - 1, base_of)
    below = {layer.digest for layer in base.layers} if base else set()
    for each in image.manifest.layers:
        if each.digest not in below or (keeps_base and not store.is_sound(each)):
            store.put(each.digest, layout.chunks(each))
    if len(image.config.diff_ids) != len(image.manifest.layers):
        raise BuildFailed("BuildKit's config tells of other layers than its manifest.", "Name another builder.")
    own = [each for each in image.layers if each.descriptor.digest not in below]
    with process.workers(_PARALLEL) as pool:
        layers = tuple(pool.map(lambda each: _layer(store, each.descriptor, each.diff_id), own))
    store.put_document(image.manifest.config.media_type, image.config.raw)
    store.put_document(image.manifest.descriptor.media_type, image.manifest.raw)
    copied = (environment,) if environment else ()
    titles = tuple(each.text or each.title for each in own)
    return Image(platform, base, image.manifest, image.manifest.config, layers, titles, 0, copied)


def _layer(store: Layout, descriptor: Descriptor, diff_id: str) -> Layer:
    """A layer of a store, its content having the diff ID that the config names."""
    kind = {"gzip": "tar.gz", "zstd": "tar.zst"}.get(descriptor.media_type.rpartition("+")[2], "tar")
    size, hasher = 0, hashlib.sha256()
    path = store.path_of(descriptor.digest)
    with refusing(str(path)), path.open("rb") as stream:
        for chunk in chunks_of(decompressed(stream, kind)):
            process.go_on()
            size += len(chunk)
            hasher.update(chunk)
    found = Digest.parse(f"sha256:{hasher.hexdigest()}")
    if str(found) != diff_id:
        raise DigestMismatch(f"The layer {descriptor.digest} holds {found}, and its config says {diff_id}.")
    return Layer(descriptor, found, size)


def _others(spec: ImageSpec, base_of: _Bases, base: Base | None) -> Iterator[Json]:
    """The images beside the base that stages start from, copy from or mount; each once."""
    named = [image for stage in spec.stages for image in _images_in(stage)]
    known = {base.manifest.descriptor.digest} if base else set()
    for image in named:
        other = base_of(image)
        if other.manifest.descriptor.digest not in known:
            known.add(other.manifest.descriptor.digest)
            yield described(other, "image")


def _images_in(stage: StageSpec) -> Iterator[BaseImage]:
    found: list[object] = [stage.base]
    for step in stage.steps:
        found += step.origins if isinstance(step, Run) else [step.origin] if isinstance(step, Copy) else []
    return (each for each in found if isinstance(each, BaseImage))


def _internal(engine: Engine, definition: Definition, frontend: str) -> Json:
    return {
        "engine": "buildkit",
        "versions": dict(engine.versions),
        "builder": {"name": engine.name, "driver": engine.driver, "endpoint": engine.endpoint},
        "network": definition.choices.network,
        "frontend": frontend,
    }
