"""From a project to its image: the source, lock and base that it is a function of, and the record of them."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from reprobuild import __version__, attest, export, lockfile, process, project, source
from reprobuild.attest import Json
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, LockMissing
from reprobuild.files import read_text, remove_tree, scratch_folder
from reprobuild.image import base as bases
from reprobuild.image import dockerfile as dockerfiles
from reprobuild.image import environment as environments
from reprobuild.image.assembler import Assembly, Origins, Part, assemble, kept_stages
from reprobuild.image.base import Base, Documents
from reprobuild.image.built import Built, Image
from reprobuild.image.context import Context, Tree
from reprobuild.image.environment import Environment
from reprobuild.image.own import OwnWheel
from reprobuild.image.resolve import resolve
from reprobuild.image.stages import BaseImage, ImageSpec
from reprobuild.image.target import Target, platforms_of, target_of
from reprobuild.image.writer import Writer, writing
from reprobuild.index import Index, LockedFile
from reprobuild.lockfile import Lockfile
from reprobuild.oci.layer import Compression
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import Descriptor, ImageConfig, Platform
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
        network: what RUN gets, with the engine that has RUN: ``none``, or ``default`` or ``host``.
    """

    platforms: tuple[Platform, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    compression: Compression = Compression.SPLICE
    network: str = "none"


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
        """What it is built for, each once.

        Raises:
            BadInput: nobody says it, or one is named twice.
        """
        found = self.choices.platforms or platforms_of(self.settings)
        for number, platform in enumerate(found):
            if any(platform.suits(each) for each in found[:number]):
                raise BadInput(f"The platform {platform} is named twice.", "Name it once.")
        return found

    @property
    def where(self) -> str:
        """What messages call the Dockerfile."""
        return self.dockerfile.relative_to(self.folder).as_posix()

    def resolved(
        self, platform: Platform, config_of: Callable[[BaseImage], ImageConfig], *, lenient: bool = False
    ) -> ImageSpec:
        """What the Dockerfile means for a platform.

        Args:
            config_of: asked for the config of each base.
            lenient: whether it is BuildKit's to carry out.

        Raises:
            BadInput, LockStale: it makes no sense, or names an image without a digest.
            NeedsBuildKit: the assembler can't carry it out, and it isn't lenient.
        """
        return resolve(
            dockerfiles.parse(read_text(self.dockerfile), self.where, lenient=lenient),
            config_of,
            platform=platform,
            epoch=self.exported.epoch,
            build_args=self.choices.build_args,
            target=self.choices.target,
        )

    def environment(
        self, prefix: str, base: Base | None, platform: Platform, index: Index, *, remembering: bool = False
    ) -> Environment:
        """The locked environment for a place in an image, without the project's own wheel.

        Args:
            remembering: whether what is known of wheels counts, as for :func:`environments.assemble`.

        Raises:
            BadInput, LockMissing: the image can't have one, or there is no lock.
            IndexFailed, DigestMismatch: a wheel can't be had.
        """
        if self.lock is None:
            raise LockMissing(
                f"The source has no {LOCK.format(name=self.name)}.", "Run `reprobuild lock` and commit it."
            )
        return environments.assemble(self.lock, self.python(prefix, base, platform), index, remembering=remembering)

    def python(self, prefix: str, base: Base | None, platform: Platform) -> Target:
        """The Python that an environment is for.

        Raises:
            BadInput: neither the project nor the base says it.
        """
        if base is None:
            raise BadInput(
                f"{self.where}: an environment needs a base with a Python.", "Begin FROM an image that has one."
            )
        return target_of(self.settings, base.config, platform, prefix)


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
        locked = lockfile.read(lock, f"{LOCK.format(name=name)} of the source") if lock.is_file() else None
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
    locked: Callable[[str, Base | None, Platform], Environment],
    registry_of: Callable[[Reference], Documents],
    tree_of: Callable[[BaseImage], Tree],
    ahead: Callable[[Sequence[Part]], object],
    needed: Callable[[Base], object],
    observer: Observer = SILENT,
) -> Assembly:
    """What the image is for one platform; nothing is written but the cache.

    Args:
        locked: the locked environment, for a place, a base and a platform.

    Raises:
        BadInput, LockStale: the Dockerfile can't be assembled, or names an image without a digest.
        IndexFailed, RegistryFailed, DigestMismatch: a wheel or a base can't be had.
        BuildFailed, …: its own wheel can't be built.
    """
    epoch, own = definition.exported.epoch, definition.own
    base_of = looking_up(registry_of, observer)

    def environment_of(prefix: str, base: Base | None) -> Environment:
        observer.step("fetching and reading the locked wheels")
        return locked(prefix, base, platform)

    def complete(environment: Environment) -> Environment:
        return environments.with_own(environment, own.result()) if own else environment

    spec = definition.resolved(platform, lambda image: base_of(image).config)
    for number in kept_stages(spec.stages):
        first = spec.stages[number].base
        if isinstance(first, BaseImage):
            needed(base_of(first))
    context = Context.open(definition.folder, definition.dockerfile, epoch)
    origins = Origins(context, base_of, tree_of, environment_of, complete if own else None)
    compression = definition.choices.compression
    return assemble(spec, origins, epoch=epoch, where=definition.where, compression=compression, ahead=ahead)


def looking_up(
    registry_of: Callable[[Reference], Documents], observer: Observer = SILENT
) -> Callable[[BaseImage], Base]:
    """What tells of an image its manifest and config, and asks once for each."""
    known: dict[tuple[str, Platform], Base] = {}

    def base_of(image: BaseImage) -> Base:
        key = image.reference, image.platform  # stages may be for different platforms
        if key not in known:
            observer.step(f"looking up {image.reference}")
            known[key] = bases.fetch(Reference.parse(image.reference), image.platform, registry_of)
        return known[key]

    return base_of


@dataclass(frozen=True, slots=True)
class Sink:
    """Where an image goes to, as far as it matters while it is built.

    Attributes:
        has: whether a layer is there, and needn't be written.
        needs: is told of an image's base as soon as it is known.
        keeps_base: whether the layers of the base have to be in the store; whoever has them anyway puts them there.
    """

    has: Callable[[Descriptor], bool] = lambda _: False
    needs: Callable[[Base], object] = id
    keeps_base: bool = False


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
        BadInput, …: as :func:`assembled` and :meth:`reprobuild.image.writer.Writer.image`.
    """

    compression = definition.choices.compression
    internal = {"engine": "assembler", "layers": compression.decided_by()}

    def locked(prefix: str, base: Base | None, platform: Platform) -> Environment:
        return definition.environment(prefix, base, platform, index, remembering=remembering)

    def one(writer: Writer, platform: Platform) -> tuple[Image, Json]:
        assembly = assembled(definition, platform, locked, registry_of, tree_of, writer.start, sink.needs, observer)
        image = writer.image(assembly)
        return image, record_of(definition, image, internal, _copied(definition, assembly))

    with writing(
        store, compression=compression, remembering=remembering, is_there=sink.has, observer=observer
    ) as writer:
        return together(definition.name, [one(writer, platform) for platform in definition.platforms], store)


def together(name: str, images: Sequence[tuple[Image, Json]], store: Layout) -> Built:
    """One image of those for each platform; where they are several, their index is written."""
    if len(images) == 1:
        return Built(name, images[0][0].descriptor, tuple(images))
    index = ImageIndex.make([image.descriptor for image, _ in images])
    return Built(name, store.put_document(index.descriptor.media_type, index.raw), tuple(images))


# --- the record ----------------------------------------------------------------------------------------


def record_of(definition: Definition, image: Image, internal: Json, copied: Iterable[Json] = ()) -> Json:
    """The image's provenance: an unsigned Statement v1 that names every input by digest.

    Args:
        internal: the engine, and all of it that decides the image's bytes.
        copied: what came out of the context, where that is known.
    """
    exported, choices = definition.exported, definition.choices
    external: Json = {
        "source": {"kind": exported.kind, "uri": exported.uri, "subdirectory": exported.subdirectory},
        "sourceDateEpoch": exported.epoch,
        "image": definition.name,
        "platform": str(image.platform),
        "target": choices.target,
        "buildArguments": dict(choices.build_args),
        "compression": choices.compression.value,
    }
    targets = [each.target for each in image.environments]
    told = [
        {"python": each.python, "interpreter": each.executable, "platform": each.platform, "prefix": each.prefix}
        for each in targets
    ]
    return attest.provenance(
        attest.descriptor({"sha256": image.manifest.descriptor.digest.hex}, name=definition.name),
        build_type=attest.IMAGE_BUILD_TYPE,
        external=external,
        internal={**internal, "environments": told},
        dependencies=[*_inputs(definition), *_base(image), *_wheels(image), *copied],
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


def _base(image: Image) -> Iterator[Json]:
    if image.base:
        yield described(image.base, "base")


def described(base: Base, role: str) -> Json:
    """An image that something was built from."""
    manifest = base.manifest.descriptor.digest
    return attest.descriptor(
        {manifest.algorithm: manifest.hex},
        name=str(replace(base.reference, digest=None)),
        uri=f"docker://{base.reference}",
        annotations={"role": role, "platform": str(base.config.platform)},
    )


def _wheels(image: Image) -> Iterator[Json]:
    seen: set[LockedFile] = set()
    for each in (each for environment in image.environments for each in environment.wheels):
        if each.file not in seen:
            seen.add(each.file)
            role = "own-wheel" if each.own else "wheel"
            uri = "" if each.own else f"pkg:pypi/{each.file.name}@{each.file.version}"
            digests = {each.file.digest.algorithm: each.file.digest.hex}
            yield attest.descriptor(digests, name=each.file.filename, uri=uri, annotations={"role": role})


def _copied(definition: Definition, assembly: Assembly) -> Iterator[Json]:
    """What was copied out of the context."""
    contents = (node.content for part in assembly.parts for node in part.given)
    paths = {content.path for content in contents if isinstance(content, OnDisk)}
    for path in sorted(paths):
        if path.is_relative_to(definition.folder):
            yield _file(definition, path, "context")


def exported_of(where: Path, scratch: Path, *, allow_dirty: bool) -> Source:
    """The source of a project's images: its commit, as for wheels."""
    return export.open_source(where, scratch, allow_dirty=allow_dirty, epoch=source.epoch_from_environment(os.environ))


def temporary() -> Path:
    """Where scratch folders go."""
    return Path(tempfile.gettempdir())
