"""Making an image again from what its record names, elsewhere, and comparing the raw bytes."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from reprobuild import process
from reprobuild.attest import ImageRecord, Json
from reprobuild.compare import Level, Verdict
from reprobuild.errors import BadInput, RecordUnusable, ReprobuildError, SourceUnusable, shown
from reprobuild.files import remove_orphans, scratch_folder
from reprobuild.image import buildkit
from reprobuild.image.archive import Registries
from reprobuild.image.base import Base
from reprobuild.image.build import Choices, Definition, build, opened, temporary
from reprobuild.image.built import Built, Image
from reprobuild.image.compare import compare_images, compare_indexes
from reprobuild.image.crossed import compare_roots
from reprobuild.image.engine import find as find_engine
from reprobuild.image.others import Others
from reprobuild.image.own import OwnWheel
from reprobuild.image.store import InLayout, Place, Readable, find, images_of
from reprobuild.index import Index
from reprobuild.oci.layer import Compression
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import INDEXES, Platform
from reprobuild.oci.model import Index as ImageIndex
from reprobuild.progress import SILENT, Observer
from reprobuild.recorded import differing, source_of
from reprobuild.sandbox import USUAL, Surroundings
from reprobuild.variations import USUAL_NAMES, VARIATIONS

_CHANGED = "The record was changed after the build: don't trust it."
_OTHER_UMASK = 0o077
_PARALLEL = 4
_MOST_RECORDS = 8  # each may cost a build


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of making an image for one platform again.

    Attributes:
        notes: what was other than at the first build, and may have mattered.
        varied: what was made different while the project's own wheel was built.
        record: says what the image was built from.
        crossed: how the image's root file system and settings compare with those that the other engine makes; None
            where nobody asked.
    """

    platform: Platform
    verdict: Verdict
    varied: tuple[str, ...]
    notes: tuple[str, ...]
    record: ImageRecord
    crossed: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of making an image again.

    Attributes:
        images: one a platform.
        index: whether an index names these images and nothing else; None where there is no index.
    """

    images: tuple[Checked, ...]
    index: Verdict | None = None

    @property
    def level(self) -> Level:
        """The worst."""
        crossed = [each.crossed.level for each in self.images if each.crossed]
        levels = [each.verdict.level for each in self.images] + crossed + ([self.index.level] if self.index else [])
        return max(levels, key=lambda level: level.rank)


def verify(
    text: str,
    where: Path,
    *,
    plain_http: tuple[str, ...] = (),
    sandbox: str | None = None,
    builder: str = "",
    network: str = "none",
    cross_engine: bool = False,
    observer: Observer = SILENT,
) -> Verified:
    """Make an image again, each platform of it, and compare manifest, config and layers.

    What an index names must be these images, of one build; and what a layout holds of their layers has to be sound.

    Args:
        text: the image, as :func:`reprobuild.image.store.find` has it.
        where: the folder of the project that it was built from.
        plain_http: registries that are spoken with without encryption.
        builder: of buildx, for what BuildKit built; empty for the present one.
        network: what RUN may have; an image that was built with more isn't made again.
        cross_engine: whether the other engine builds it, too.

    Raises:
        RecordUnusable: an image has no record, or one that says something else than the source does.
        SourceUnusable, …: the image can't be made again.
        BadInput, DigestMismatch: a layer is missing or damaged.
    """
    remove_orphans(temporary())
    registries = Registries(plain_http)
    with scratch_folder(temporary(), "reprobuild-verify-") as scratch:
        given = find(text, registries.of, scratch)
        images = given.images
        again = _Again(where, registries, sandbox, builder, network, cross_engine, observer)
        checked = [
            _check_any(given.place, image, given.records(image), scratch / str(number), again)
            for number, image in enumerate(images)
        ]
        _require_one_build(checked)
        if given.top.media_type not in INDEXES:
            return Verified(tuple(checked))
        theirs = ImageIndex.read(given.place.read(given.top), given.where)
        pairs = zip(images, checked, strict=True)
        own = ImageIndex.make([replace(image.manifest.descriptor, platform=each.platform) for image, each in pairs])
        return Verified(tuple(checked), compare_indexes(theirs, own))


def _check_any(
    place: Place, image: Readable, records: Sequence[ImageRecord], scratch: Path, again: "_Again"
) -> Checked:
    """By whichever record gives the image: several commits may give it, and who can push can add records.

    Raises:
        As :func:`_check` for the first record, where none holds.
    """
    if len(records) > _MOST_RECORDS:
        raise RecordUnusable(
            f"{image.where} has {len(records)} records of how it was built, more than {_MOST_RECORDS}.",
            "Copy it and the record that you trust to another place.",
        )
    found: list[Checked] = []
    refused: list[ReprobuildError] = []
    for number, record in enumerate(records):
        folder = scratch / f"record-{number}"
        folder.mkdir(parents=True)
        try:
            found.append(_check(place, image, record, folder, again))
        except (RecordUnusable, SourceUnusable) as error:
            refused.append(error)
            continue
        if found[-1].verdict.level is Level.IDENTICAL:
            break
    if not found:
        raise refused[0]
    best = found[-1] if found[-1].verdict.level is Level.IDENTICAL else found[0]
    return replace(best, notes=(*best.notes, *(f"another record of it doesn't hold: {each}" for each in refused)))


@dataclass(frozen=True, slots=True)
class _Again:
    """How images are made again; see :func:`verify`."""

    where: Path
    registries: Registries
    sandbox: str | None
    builder: str
    network: str
    cross_engine: bool
    observer: Observer

    def build(self, made: Definition, store: Layout, index: Index, scratch: Path, *, with_buildkit: bool) -> Built:
        """Build with nothing that was built before."""
        origin = self.registries.origin
        if with_buildkit:
            engine = find_engine(self.builder, self.observer)
            return buildkit.build(made, store, index, origin, engine=engine, observer=self.observer)
        with Others(origin, scratch, self.observer) as others:
            return build(made, store, index, origin, others.tree, remembering=False, observer=self.observer)


def _check(place: Place, image: Readable, record: ImageRecord, scratch: Path, again: _Again) -> Checked:
    observer = again.observer
    observer.step("exporting the source that the record names")
    exported = source_of(record, again.where, scratch)
    name, choices = _choices(record, again.network)
    index = Index(again.where, observer=observer)
    store = Layout(scratch / "again", create=True)
    around, varied = _surroundings()
    own = OwnWheel(exported, index, scratch, again.sandbox, around, remembering=False, observer=observer)
    with_buildkit = record.internal.get("engine") == "buildkit"
    with _umask(_OTHER_UMASK), opened(own, name, choices) as made:
        again.registries.use_archive(made.config.archive, again.where)
        built = again.build(made, store, index, scratch, with_buildkit=with_buildkit)
        ((mine, statement),) = built.images
        notes = _require_unchanged(record, statement)
        (readable,) = images_of(InLayout(store), mine.descriptor, "the one made again")
        _require_sound(place, image, mine.base)
        verdict = compare_images(image, readable, observer)
        crossed = None
        if again.cross_engine:
            observer.step(f"building it with {'the assembler' if with_buildkit else 'BuildKit'}")
            other = Layout(scratch / "other", create=True)
            top = again.build(made, other, index, scratch, with_buildkit=not with_buildkit).top
            (theirs,) = images_of(InLayout(other), top, "the one of the other engine")
            crossed = compare_roots(image, theirs, observer)
    return Checked(mine.platform, verdict, _varied(made, mine, varied), notes, record, crossed)


def _require_sound(place: Place, image: Readable, base: Base | None) -> None:
    """What the manifest names is there; the base's layers may be elsewhere."""
    elsewhere = {layer.digest for layer in base.layers} if base else set()
    with process.workers(_PARALLEL) as pool:
        there = pool.map(place.holds, image.manifest.layers)
        for layer, held in zip(image.manifest.layers, there, strict=True):
            if not held and layer.digest not in elsewhere:
                raise BadInput(f"{image.where} lacks its layer {layer.digest}.", "Build it again, or copy all of it.")


def _require_one_build(checked: Sequence[Checked]) -> None:
    """The images of an index are one image for several platforms."""

    def same(each: Checked) -> Json:
        external = {**each.record.external, "platform": "", "source": {**each.record.external["source"], "uri": ""}}
        return {**external, "digests": each.record.digests(each.record.dependency("source"))}

    platforms = Counter(each.platform for each in checked)
    if any(same(each) != same(checked[0]) for each in checked) or len(platforms) != len(checked):
        raise RecordUnusable(
            "The images of this index are not one image for several platforms: their records name different inputs.",
            "Verify each by its own digest.",
        )


def _choices(record: ImageRecord, network: str) -> tuple[str, Choices]:
    """The image's name and what its user chose, from a record.

    Args:
        network: what may be had.

    Raises:
        BadInput: RUN had another network.
        RecordUnusable: it doesn't say.
    """
    external = record.external
    arguments = external.get("buildArguments")
    if not isinstance(arguments, dict) or not all(isinstance(each, str) for each in arguments.values()):
        raise RecordUnusable("The record doesn't say which build arguments the image was built with.", _CHANGED)
    had = record.internal.get("network", "none")
    if had not in ("none", network):
        raise BadInput(
            f"The record says that RUN had the network {shown(had)!r}, which nobody has allowed here.",
            f"Look at the Dockerfile; if you trust it, add --network {shown(had)}.",
        )
    try:
        return record.text(external, "image"), Choices(
            network=had,
            platforms=(Platform.parse(record.text(external, "platform")),),
            build_args=arguments,
            target=record.text(external, "target"),
            compression=Compression(record.text(external, "compression")),
        )
    except (BadInput, ValueError) as error:
        raise RecordUnusable(f"The record names a choice that isn't known: {error}.", _CHANGED) from error


def _surroundings() -> tuple[Surroundings, tuple[str, ...]]:
    """Those of the project's own wheel: everything differs but the umask, which is held (docs/adr/0005)."""
    names = tuple(name for name in USUAL_NAMES if name != "umask" and not VARIATIONS[name].why_not())
    around = USUAL
    for name in names:
        around = VARIATIONS[name].change(around)
    return around, names


def _varied(made: Definition, again: Image, varied: tuple[str, ...]) -> tuple[str, ...]:
    own = made.own is not None and any(environment.wheels for environment in again.environments)
    return ("path", "umask", *(name for name in varied if name != "path" and own))


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _require_unchanged(record: ImageRecord, statement: Json) -> tuple[str, ...]:
    """A record names the inputs that the source, its lock and its base have, to the last key.

    Free is what no source tells: where it can be had, the version of the builder, and the libraries that it used. The
    project's own wheel is compared as part of its layer.

    Returns:
        notes on what of the free things is different.
    """
    said = record.statement
    predicate, given = statement["predicate"], said["predicate"]
    notes = []
    if predicate["runDetails"] != given.get("runDetails"):
        notes.append("builder: another one than at the first build")
    notes += _engine_notes(predicate["buildDefinition"]["internalParameters"], record.internal)
    predicate["runDetails"] = given.get("runDetails")
    predicate["buildDefinition"]["internalParameters"] = record.internal
    statement["subject"][0]["digest"] = {"sha256": record.subject.hex}
    source = record.external.get("source")
    uri = source.get("uri") if isinstance(source, dict) else None
    predicate["buildDefinition"]["externalParameters"]["source"]["uri"] = uri
    listed = predicate["buildDefinition"]["resolvedDependencies"]
    own = {each.get("name"): each for each in record.dependencies("own-wheel")}
    for number, each in enumerate(listed):
        if each["annotations"]["role"] == "own-wheel":
            theirs = record.digest(own[each["name"]]) if each["name"] in own else None
            mine = record.digest(each)
            if theirs and theirs != mine:
                notes.append(f"own wheel: the record names {theirs}, made again it is {mine}")
                listed[number] = {**each, "digest": {theirs.algorithm: theirs.hex}}
        if each["annotations"]["role"] == "source":
            said_uri = record.dependency("source").get("uri")
            listed[number] = {key: value for key, value in {**each, "uri": said_uri}.items() if value is not None}
    if where := differing(said, statement):
        raise RecordUnusable(f"The record says of {where!r} something else than the source does.", _CHANGED)
    return tuple(notes)


def _engine_notes(mine: Json, theirs: Json) -> Iterator[str]:
    """What of the engine is different, and may have mattered; where its builder is doesn't."""
    differing_keys = [key for key in sorted({*mine, *theirs} - {"builder"}) if mine.get(key) != theirs.get(key)]
    ours, said = mine.get("versions"), theirs.get("versions")
    if differing_keys == ["versions"] and isinstance(ours, dict) and isinstance(said, dict):
        for name in sorted({*ours, *said}):
            if ours.get(name) != said.get(name):
                yield f"{name}: {shown(said.get(name))} at the first build, {shown(ours.get(name))} now"
    elif differing_keys:
        yield "libraries: another one than at the first build"


def compare_named(
    left: str, right: str, platform: str, plain_http: tuple[str, ...], observer: Observer = SILENT
) -> Verdict:
    """Compare two images by what a user calls them.

    Args:
        platform: which image of an index is meant; may be empty where there is only one.

    Raises:
        BadInput: there is no such image, or which platform is meant isn't clear.
        DigestMismatch: a layer of one that seems to be the same as the other is damaged.
    """
    registries = Registries(plain_http)
    with scratch_folder(temporary(), "reprobuild-diff-") as scratch:
        for side in ("left", "right"):
            (scratch / side).mkdir()
        one, two = (find(text, registries.of, scratch / side) for text, side in ((left, "left"), (right, "right")))
        ours, theirs = _one(one.images, platform, left), _one(two.images, platform, right)
        if ours.manifest.raw == theirs.manifest.raw:  # a layer may be damaged in a layout all the same
            for found, image in ((one, ours), (two, theirs)):
                observer.step(f"checking the layers of {found.where}")
                for layer in image.manifest.layers:
                    found.place.holds(layer)
        return compare_images(ours, theirs, observer)


def _one(images: tuple[Readable, ...], platform: str, text: str) -> Readable:
    wanted = Platform.parse(platform) if platform else None
    found = [each for each in images if wanted is None or each.config.platform.suits(wanted)]
    if len(found) != 1:
        has = ", ".join(str(each.config.platform) for each in images)
        number = f"{len(found)} images" if found else "no image"
        raise BadInput(
            f"{text} has {number}{f' for {platform}' if platform else ''}; it has {has}.",
            "Name one with --platform.",
        )
    return found[0]
