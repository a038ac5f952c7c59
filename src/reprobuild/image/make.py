"""One run of `reprobuild image`: from a project to wherever its image is to be."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reprobuild import process, project
from reprobuild.errors import BadInput, LockStale
from reprobuild.files import remove_orphans, scratch_folder, write_atomically
from reprobuild.image import outputs as places
from reprobuild.image.archive import Registries
from reprobuild.image.base import Base, Documents
from reprobuild.image.build import Choices, Definition, Sink, build, exported_of, looking_up, opened, temporary
from reprobuild.image.built import Built
from reprobuild.image.context import Tree
from reprobuild.image.dockerfile import NeedsBuildKit
from reprobuild.image.others import Others
from reprobuild.image.outputs import DEFAULT_NAME, Moved, Output
from reprobuild.image.own import OwnWheel
from reprobuild.image.stages import BaseImage
from reprobuild.index import Index
from reprobuild.oci.layout import Layout, reachable
from reprobuild.oci.model import Descriptor
from reprobuild.oci.reference import Reference
from reprobuild.progress import SILENT, Observer

if TYPE_CHECKING:
    from concurrent.futures import Future


@dataclass(frozen=True, slots=True)
class Made:
    """What a run made.

    Attributes:
        places: where the image is now, in the words of the command line.
        moved: what was pushed, if anything.
    """

    built: Built
    places: tuple[str, ...]
    moved: Moved | None


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where an image is to be; nothing at all means ``dist/NAME``, without the base's layers.

    Attributes:
        pushes: names in one repository.
        load: the name for the Docker engine; empty to leave that alone.
        plain_http: registries that are spoken with without encryption.
    """

    outputs: tuple[Output, ...] = ()
    pushes: tuple[Reference, ...] = ()
    load: str = ""
    plain_http: tuple[str, ...] = ()

    @property
    def need_base(self) -> bool:
        """Whether the base's layers have to be here."""
        return bool(self.outputs or self.load)


@dataclass(frozen=True, slots=True)
class How:
    """What builds an image.

    Attributes:
        engine: ``assembler``, ``buildkit``, or ``auto`` for the assembler wherever it can.
        builder: of buildx; empty for the present one.
    """

    engine: str = "auto"
    builder: str = ""


def make(
    where: Path,
    name: str,
    choices: Choices,
    to: Destinations,
    *,
    how: How = How(),
    allow_dirty: bool = False,
    sandbox: str | None = None,
    observer: Observer = SILENT,
) -> Made:
    """Build an image and bring it to where it is to be.

    Args:
        where: the project's folder.
        how: which engine builds it.
        sandbox: the kind that the project's own wheel is built in.

    Raises:
        LockStale: the lock lacks what the project requires.
        BadInput, …: as :func:`reprobuild.image.build.build` and the functions of ``outputs``. Nothing is tagged then.
    """
    _require_possible(to)
    remove_orphans(temporary())
    registries = Registries(to.plain_http)

    def is_there(layer: Descriptor) -> bool:
        wanted = to.pushes if not to.need_base else ()
        return bool(wanted) and all(registries.of(each).has_blob(each.repository, layer) for each in wanted)

    with (
        scratch_folder(temporary(), "reprobuild-image-") as scratch,
        Others(registries.origin, scratch, observer) as others,
        process.workers(1) as pool,
    ):
        fetching: list[Future[None]] = []

        def needed(base: Base) -> None:
            if to.need_base:
                fetching.append(pool.submit(places.fetch_base, base, store, registries, observer))

        observer.step("exporting the source")
        exported = exported_of(where, scratch, allow_dirty=allow_dirty)
        if note := exported.left_out("image"):
            observer.warn(note)
        index = Index(where, observer=observer)
        own = OwnWheel(exported, index, scratch, sandbox, observer=observer)
        with opened(own, name, choices) as definition:
            store, named = _store(where, name, scratch, to)  # now it is certain that there is such an image
            registries.use_archive(definition.config.archive, where)
            sink = Sink(is_there, needed, to.need_base)
            asked = registries.origin, others.tree
            built = _built(definition, store, index, *asked, how=how, sink=sink, observer=observer)
            _require_satisfied(built, definition, observer)
            for each in fetching:
                each.result()
            done, moved = _bring(built, store, named, to, registries, observer)
    return Made(built, done, moved)


def _built(
    definition: Definition,
    store: Layout,
    index: Index,
    registry_of: Callable[[Reference], Documents],
    tree_of: Callable[[BaseImage], Tree],
    *,
    how: How,
    sink: Sink,
    observer: Observer,
) -> Built:
    """Build with the engine that is asked for, or that is needed."""
    why = "it was asked for" if how.engine == "buildkit" else ""
    if how.engine == "auto":
        why = _why_not_assembled(definition, registry_of)
    if how.engine == "assembler" or not why:
        if how.engine == "auto":
            observer.step("building with the assembler: nothing has to be run")
        try:
            return build(definition, store, index, registry_of, tree_of, sink=sink, observer=observer)
        except NeedsBuildKit as error:  # what only a look at the files tells
            if how.engine == "assembler":
                raise
            why = error.reason
    observer.step(f"building with BuildKit: {why}")
    from reprobuild.image import buildkit, engine  # noqa: PLC0415 - most images need neither, and they import a lot

    return buildkit.build(
        definition, store, index, registry_of, engine=engine.find(how.builder, observer), sink=sink, observer=observer
    )


def _why_not_assembled(definition: Definition, registry_of: Callable[[Reference], Documents]) -> str:
    """What in the Dockerfile is beyond the assembler; empty for nothing."""
    base_of = looking_up(registry_of)
    try:
        for platform in definition.platforms:
            definition.resolved(platform, lambda image: base_of(image).config)
    except NeedsBuildKit as error:
        return error.reason
    return ""


def _require_satisfied(built: Built, definition: Definition, observer: Observer) -> None:
    """The locked wheels are what the project's own requires; where uv was told to override that, it is only told."""
    overridden = any(where == "tool.uv.override-dependencies" for where, _ in project.asked_for(definition.folder))
    for environment in (each for image, _ in built.images for each in image.environments):
        own = next((f"{each.listing.name} {each.listing.version}:" for each in environment.wheels if each.own), None)
        for problem in environment.unmet:
            if own and problem.startswith(own) and not overridden:
                raise LockStale(
                    f"The lock of image {definition.name} isn't what the project requires. {problem}.",
                    "Run `reprobuild lock`, and commit what it writes.",
                )
            observer.warn(f"`pip check` would complain in image {definition.name}. {problem}")


def _require_possible(to: Destinations) -> None:
    """What can't come to a good end isn't begun."""
    if to.load:
        places.require_engine()
    for output in to.outputs:
        if output.archived and output.path.is_dir():
            raise BadInput(f"{output.path} is a folder, where an archive is to be.", "Name a file.")
    for reference in to.pushes:
        if reference.digest:
            raise BadInput(f"{reference} can't be pushed to: it names a digest.", "Leave the digest out.")
    if len({(each.registry, each.repository) for each in to.pushes}) > 1:
        raise BadInput("The names to push to aren't of one repository.", "Push to one after the other.")


def _bring(
    built: Built, store: Layout, named: str, to: Destinations, registries: Registries, observer: Observer
) -> tuple[tuple[str, ...], Moved | None]:
    done = []
    if named:
        places.name_in_layout(built, store, named)
        done.append(f"oci:{store.folder}:{named}")
    for output in to.outputs:
        done += _put(built, store, named, output)
    if to.load:
        places.load(built, store, to.load, observer)
        done.append(f"docker:{to.load}")
    moved = places.push(built, store, to.pushes, registries, observer) if to.pushes else None
    return (*done, *(moved.tags if moved else ())), moved


def _store(where: Path, name: str, scratch: Path, to: Destinations) -> tuple[Layout, str]:
    """Where layers are written, and the image's name there: the layout that is asked for, else one that goes away."""
    if to == replace(Destinations(), plain_http=to.plain_http):
        dist = where / "dist"
        if not dist.exists():  # or else the next build would find the tree changed
            write_atomically(dist / ".gitignore", [b"*"])
        return Layout(dist / name, create=True), DEFAULT_NAME
    first = next((each for each in to.outputs if not each.archived), None)
    if first:
        return Layout(first.path, create=True), first.name
    return Layout(scratch / "layout", create=True), ""


def _put(built: Built, store: Layout, named: str, output: Output) -> list[str]:
    if output.archived:
        places.archive(built, store, output)
        return [f"oci-archive:{output.path}:{output.name}"]
    if output.path.absolute() != store.folder.absolute():
        target = Layout(output.path, create=True)
        for descriptor in reachable(store, built.top):
            if not target.is_sound(descriptor):
                target.put(descriptor.digest, store.chunks(descriptor))
        places.name_in_layout(built, target, output.name)
        return [f"oci:{output.path}:{output.name}"]
    if output.name != named:
        places.name_in_layout(built, store, output.name)
        return [f"oci:{output.path}:{output.name}"]
    return []
