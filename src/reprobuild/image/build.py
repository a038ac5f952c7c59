"""From a project to its image: the source, lock and base that it is a function of, and the record of them."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from reprobuild import __version__, attest, lockfile, process, project, source
from reprobuild.attest import Json
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, LockMissing
from reprobuild.files import read_text, remove_tree, scratch_folder
from reprobuild.image import base as bases
from reprobuild.image import dockerfile as dockerfiles
from reprobuild.image import environment as environments
from reprobuild.image.assembler import Assembly, Image, Origins, Part, assemble, kept_stages, writing
from reprobuild.image.base import Base, Documents
from reprobuild.image.context import Context, Tree
from reprobuild.image.environment import Environment
from reprobuild.image.own import OwnWheel
from reprobuild.image.stages import BaseImage, resolve
from reprobuild.image.target import platforms_of, target_of
from reprobuild.index import Index, LockedFile
from reprobuild.lockfile import Lockfile
from reprobuild.oci.layer import Compression
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import Descriptor, Platform
from reprobuild.oci.model import Index as ImageIndex
from reprobuild.oci.reference import Reference
from reprobuild.oci.tree import OnDisk
from reprobuild.progress import SILENT, Observer
from reprobuild.project import Config, ImageSettings
from reprobuild.source import Source

DOCKERFILE = "images/{name}/Dockerfile"
LOCK = "images/{name}/requirements.txt"


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user chooses for one build, beside what the project says.

    Attributes:
        platforms: empty for those that the project names.
        target: a stage of the Dockerfile; empty for the last.
    """

    platforms: tuple[Platform, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    compression: Compression = Compression.SPLICE


@dataclass(frozen=True, slots=True)
class Definition:
    """Everything that an image is a function of, but its base and its wheels, which are named by digest in here.

    Attributes:
        folder: the project in the export.
        own: the project's own wheel, where the image has it; it is built meanwhile.
    """

    name: str
    exported: Source
    folder: Path
    config: Config
    settings: ImageSettings
    dockerfile: Path
    lock: Lockfile | None
    own: Future[Path] | None
    choices: Choices

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """What it is built for."""
        return self.choices.platforms or platforms_of(self.settings)


@contextmanager
def opened(own: OwnWheel, name: str, choices: Choices) -> Iterator[Definition]:
    """Unpack an export, read what it says of an image, and begin to build the wheel that may go into it.

    Raises:
        BadInput: the project has no such image.
        LockMissing: the image has no lock.
        BuildFailed, …: its own wheel can't be built.
    """
    exported = own.source
    with scratch_folder(own.scratch, "context-") as context:
        source.place(exported, context, "sorted")
        remove_tree(context / ".git")  # it was put there for backends that ask git for a version
        folder = context / exported.subdirectory
        config = project.load(folder, "the source")
        settings = _settings(config, name)
        dockerfile, lock = folder / DOCKERFILE.format(name=name), folder / LOCK.format(name=name)
        if not dockerfile.is_file():
            raise BadInput(
                f"The source has no {DOCKERFILE.format(name=name)}.",
                "Write it and commit it; every FROM gets a digest.",
            )
        locked = lockfile.read(lock) if lock.is_file() else None
        with process.workers(1) as pool:
            made = pool.submit(own.get) if settings.selection.project else None
            yield Definition(name, exported, folder, config, settings, dockerfile, locked, made, choices)


def _settings(config: Config, name: str) -> ImageSettings:
    for each in config.images:
        if each.selection.name == name:
            return each
    names = ", ".join(each.selection.name for each in config.images)
    raise BadInput(
        f"The project has no image {name!r}.",
        f"It has {names}." if names else f"Add [tool.reprobuild.images.{name}] to pyproject.toml.",
    )


def assembled(
    definition: Definition,
    platform: Platform,
    index: Index,
    registry_of: Callable[[Reference], Documents],
    tree_of: Callable[[BaseImage], Tree],
    ahead: Callable[[Sequence[Part]], object],
    needed: Callable[[Base], object],
    observer: Observer = SILENT,
) -> Assembly:
    """What the image is for one platform; nothing is written but the cache.

    Raises:
        BadInput, LockStale: the Dockerfile can't be assembled, or names an image without a digest.
        IndexFailed, RegistryFailed, DigestMismatch: a wheel or a base can't be had.
        BuildFailed, …: its own wheel can't be built.
    """
    epoch, where = definition.exported.epoch, str(definition.dockerfile.relative_to(definition.folder))
    known: dict[tuple[str, Platform], Base] = {}
    own = definition.own

    def base_of(image: BaseImage) -> Base:
        key = image.reference, image.platform  # stages may be for different platforms
        if key not in known:
            observer.step(f"looking up {image.reference}")
            known[key] = bases.fetch(Reference.parse(image.reference), image.platform, registry_of)
        return known[key]

    def environment_of(prefix: str, base: Base | None) -> Environment:
        if base is None:
            raise BadInput(f"{where}: an environment needs a base with a Python.", "Begin FROM an image that has one.")
        if definition.lock is None:
            raise LockMissing(
                f"The source has no {LOCK.format(name=definition.name)}.", "Run `reprobuild lock` and commit it."
            )
        observer.step("fetching and reading the locked wheels")
        target = target_of(definition.settings, base.config, platform, prefix)
        return environments.assemble(definition.lock, target, index)

    def complete(environment: Environment) -> Environment:
        return environments.with_own(environment, own.result()) if own else environment

    spec = resolve(
        dockerfiles.parse(read_text(definition.dockerfile), where),
        lambda image: base_of(image).config,
        platform=platform,
        epoch=epoch,
        build_args=definition.choices.build_args,
        target=definition.choices.target,
    )
    for number in kept_stages(spec.stages):
        first = spec.stages[number].base
        if isinstance(first, BaseImage):
            needed(base_of(first))
    context = Context.open(definition.folder, definition.dockerfile, epoch)
    origins = Origins(context, base_of, tree_of, environment_of, complete if own else None)
    compression = definition.choices.compression
    return assemble(spec, origins, epoch=epoch, where=where, compression=compression, ahead=ahead)


@dataclass(frozen=True, slots=True)
class Built:
    """An image that was built, for one platform or several.

    Attributes:
        top: of the one manifest, or of the index of all.
        images: one a platform, each with its record.
    """

    name: str
    top: Descriptor
    images: tuple[tuple[Image, Json], ...]


@dataclass(frozen=True, slots=True)
class Sink:
    """Where an image goes to, as far as it matters while it is built.

    Attributes:
        has: whether a layer is there, and needn't be written.
        needs: is told of an image's base as soon as it is known.
    """

    has: Callable[[Descriptor], bool] = lambda _: False
    needs: Callable[[Base], object] = id


def build(
    definition: Definition,
    store: Layout,
    index: Index,
    registry_of: Callable[[Reference], Documents],
    tree_of: Callable[[BaseImage], Tree],
    *,
    remembering: bool = True,
    sink: Sink = Sink(),
    observer: Observer = SILENT,
) -> Built:
    """Write an image's own layers, configs, manifests and, for several platforms, their index into a store.

    Args:
        remembering: whether layers that were made before needn't be made again.

    Raises:
        BadInput, …: as :func:`assembled` and :meth:`assembler.Writer.image`.
    """
    images: list[tuple[Image, Json]] = []
    compression = definition.choices.compression
    with writing(
        store, compression=compression, remembering=remembering, is_there=sink.has, observer=observer
    ) as writer:
        for platform in definition.platforms:
            if any(platform.suits(image.assembly.platform) for image, _ in images):
                raise BadInput(f"The platform {platform} is named twice.", "Name it once.")
            image = writer.image(
                assembled(definition, platform, index, registry_of, tree_of, writer.start, sink.needs, observer)
            )
            images.append((image, record_of(definition, image)))
    if len(images) == 1:
        top = images[0][0].descriptor
    else:
        together = ImageIndex.make([image.descriptor for image, _ in images])
        top = store.put_document(together.descriptor.media_type, together.raw)
    return Built(definition.name, top, tuple(images))


# --- the record ----------------------------------------------------------------------------------------


def record_of(definition: Definition, image: Image) -> Json:
    """The image's provenance: an unsigned Statement v1 that names every input by digest."""
    exported, choices = definition.exported, definition.choices
    external: Json = {
        "source": {"kind": exported.kind, "uri": exported.uri, "subdirectory": exported.subdirectory},
        "sourceDateEpoch": exported.epoch,
        "image": definition.name,
        "platform": str(image.assembly.platform),
        "target": choices.target,
        "buildArguments": dict(choices.build_args),
        "compression": choices.compression.value,
    }
    targets = [each.target for each in image.assembly.environments]
    internal: Json = {
        "engine": "assembler",
        "layers": choices.compression.decided_by(),
        "environments": [
            {"python": each.python, "interpreter": each.executable, "platform": each.platform, "prefix": each.prefix}
            for each in targets
        ],
    }
    return attest.provenance(
        attest.descriptor({"sha256": image.manifest.descriptor.digest.hex}, name=definition.name),
        build_type=attest.IMAGE_BUILD_TYPE,
        external=external,
        internal=internal,
        dependencies=[*_inputs(definition), *_base(image.assembly), *_files(definition, image.assembly)],
        builder_version={"reprobuild": __version__},
    )


def _inputs(definition: Definition) -> Iterator[Json]:
    exported = definition.exported
    yield attest.descriptor(exported.digests, name="source", uri=exported.uri, annotations={"role": "source"})
    yield _file(definition, definition.dockerfile, "dockerfile")
    for path in (
        definition.dockerfile.with_name(f"{definition.dockerfile.name}.dockerignore"),
        definition.folder / ".dockerignore",
    ):
        if path.is_file():
            yield _file(definition, path, "dockerignore")
            break
    if definition.lock:
        yield _file(definition, definition.folder / LOCK.format(name=definition.name), "lock")


def _file(definition: Definition, path: Path, role: str) -> Json:
    digest, name = Digest.of_file(path), path.relative_to(definition.folder).as_posix()
    return attest.descriptor({"sha256": digest.hex}, name=name, annotations={"role": role})


def _base(assembly: Assembly) -> Iterator[Json]:
    if assembly.base:
        reference, manifest = assembly.base.reference, assembly.base.manifest.descriptor.digest
        yield attest.descriptor(
            {manifest.algorithm: manifest.hex},
            name=str(replace(reference, digest=None)),
            uri=f"docker://{reference}",
            annotations={"role": "base", "platform": str(assembly.base.config.platform)},
        )


def _files(definition: Definition, assembly: Assembly) -> Iterator[Json]:
    """The wheels, and what was copied out of the context."""
    seen: set[LockedFile] = set()
    for each in (each for environment in assembly.environments for each in environment.wheels):
        if each.file not in seen:
            seen.add(each.file)
            role = "own-wheel" if each.own else "wheel"
            uri = "" if each.own else f"pkg:pypi/{each.file.name}@{each.file.version}"
            digests = {each.file.digest.algorithm: each.file.digest.hex}
            yield attest.descriptor(digests, name=each.file.filename, uri=uri, annotations={"role": role})
    contents = (node.content for part in assembly.parts for node in part.nodes)
    paths = {content.path for content in contents if isinstance(content, OnDisk)}
    for path in sorted(paths):
        if path.is_relative_to(definition.folder):
            yield _file(definition, path, "context")


def exported_of(where: Path, scratch: Path, *, allow_dirty: bool) -> Source:
    """The source of a project's images: its commit, as for wheels."""
    return source.open_source(where, scratch, allow_dirty=allow_dirty, epoch=source.epoch_from_environment(os.environ))


def temporary() -> Path:
    """Where scratch folders go."""
    return Path(tempfile.gettempdir())
