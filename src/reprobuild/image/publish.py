"""Images that were built before to a registry, and all that lies beside them; tags last, so that nobody finds half."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reprobuild.bundle import BUNDLE_MEDIA_TYPE, Bundle
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, EvidenceRefused
from reprobuild.image.archive import Registries
from reprobuild.image.signed import BUNDLE_PREDICATE
from reprobuild.image.store import Found, InLayout, find, records_of
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import OCI_CONFIG, Descriptor, Manifest
from reprobuild.oci.reference import Reference
from reprobuild.oci.transfer import Local, Remote, Source, copy_image
from reprobuild.progress import SILENT, Observer

#: Of an envelope as a layer, and the annotation that cosign wants on it, though the signature is in the envelope.
_ENVELOPE, _SIGNATURE = "application/vnd.dsse.envelope.v1+json", "dev.cosignproject.cosign/signature"
_NOWHERE = (
    "Build it with -o oci:DIR, which has all layers, or push it from the project: `reprobuild image NAME --push`."
)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What went to a registry, or would.

    Attributes:
        evidence: the referrers: records, bundles and whatever else is about the images.
        there, mounted, sent: bytes of blobs, by the way that they went.
    """

    top: Descriptor
    evidence: tuple[Descriptor, ...]
    tags: tuple[str, ...]
    there: int = 0
    mounted: int = 0
    sent: int = 0


def push(
    text: str,
    targets: Sequence[Reference],
    registries: Registries,
    scratch: Path,
    *,
    dry_run: bool = False,
    attachments: bool = False,
    observer: Observer = SILENT,
) -> Pushed:
    """Copy an image, every platform of it, and what refers to it; then tag it.

    A second run sends nothing that is there.

    Args:
        text: an image in a layout or an archive (:func:`reprobuild.image.store.find`).
        targets: names in one repository.
        dry_run: say what would go, and ask the registry nothing.
        attachments: also write the envelopes where cosign before version 3 looks for them.

    Raises:
        BadInput: there is no such image, or a layer is nowhere to be had.
        RegistryFailed: the registry refuses.
    """
    if len({(each.registry, each.repository) for each in targets}) != 1:
        raise BadInput("The names to push to aren't of one repository.", "Push to one after the other.")
    found = find(text, registries.of, scratch)
    if not isinstance(found.place, InLayout):
        raise BadInput(f"{text} is in a registry already.", "Push from a layout or an archive.")
    layout = found.place.layout
    evidence = tuple(_evidence(found, layout))
    names = tuple(str(each) for each in targets if each.tag)
    if dry_run:
        return Pushed(found.top, evidence, names)
    first = targets[0]
    target = Remote(registries.of(first), first.repository)
    observer.step(f"pushing to {first.registry}/{first.repository}")
    elsewhere = _elsewhere(found, layout, registries)
    copied = copy_image(Local(layout), target, found.top, elsewhere=elsewhere, observer=observer)
    sent = copied.bytes_of("sent")
    for each in evidence:
        sent += copy_image(Local(layout), target, each).bytes_of("sent")
    for image in found.images if attachments else ():
        _attach(image.manifest.descriptor, found, target)
    raw = layout.read(found.top)
    for tag in (each.tag for each in targets if each.tag):
        target.put_document(found.top, raw, tag)
    return Pushed(found.top, evidence, names, copied.bytes_of("there"), copied.bytes_of("mounted"), sent)


def _evidence(found: Found, layout: Layout) -> Iterator[Descriptor]:
    """The referrers of the top and of each image, and theirs."""
    waiting = [found.top.digest, *(image.manifest.descriptor.digest for image in found.images)]
    seen: set[Digest] = set(waiting)
    about: dict[Digest, list[Manifest]] = {}
    for each in layout.artifacts():  # each is read once, however many there are
        if each.subject:
            about.setdefault(each.subject.digest, []).append(each)
    while waiting:
        for manifest in about.get(waiting.pop(0), ()):
            digest = manifest.descriptor.digest
            if digest not in seen:
                seen.add(digest)
                waiting.append(digest)
                yield replace(manifest.descriptor, artifact_type=manifest.artifact_type)


def _attach(subject: Descriptor, found: Found, target: Remote) -> None:
    """Envelopes as the layers of a manifest under a tag that is named after the image (cosign, SIGNATURE_SPEC.md).

    What others have put there stays.
    """
    blobs: dict[Digest, tuple[Descriptor, bytes]] = {}
    for manifest in found.place.referrers(subject, BUNDLE_MEDIA_TYPE):
        try:
            (layer,) = manifest.layers
            bundle = Bundle.read(found.place.read(layer), f"the referrer {manifest.descriptor.digest}")
        except (ValueError, EvidenceRefused):  # no bundle: it goes along as a referrer, and is no envelope
            continue
        raw = canonical_json(bundle.document["dsseEnvelope"])
        annotations = {_SIGNATURE: "", "predicateType": manifest.annotations.get(BUNDLE_PREDICATE, "")}
        described = replace(Descriptor.of(_ENVELOPE, raw), annotations=annotations)
        blobs[described.digest] = described, raw
    if not blobs:
        return
    tag = f"{subject.digest.algorithm}-{subject.digest.hex}.att"
    for each, raw in blobs.values():
        _put(target, each, raw)

    def add() -> None:
        layers = {each.digest: each for each in _attached(target, tag)} | {
            key: each for key, (each, _) in blobs.items()
        }
        diff_ids = [str(each) for each in layers]
        config = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        raw = canonical_json(config)
        described = Descriptor.of(OCI_CONFIG, raw)
        _put(target, described, raw)
        made = Manifest.make(described, list(layers.values()))
        target.put_document(made.descriptor, made.raw, tag)

    target.registry.add_until_it_stays(
        f"{target.registry.host}/{target.repository}",
        tag,
        lambda: blobs.keys() <= {each.digest for each in _attached(target, tag)},
        add,
    )


def _put(target: Remote, described: Descriptor, raw: bytes) -> None:
    target.registry.put_blob(target.repository, described, lambda offset: iter([raw[offset:]]))


def _attached(target: Remote, tag: str) -> tuple[Descriptor, ...]:
    if target.registry.resolve(target.repository, tag) is None:
        return ()
    _, raw = target.registry.manifest(target.repository, tag)
    return Manifest.read(raw, tag).layers


def _elsewhere(found: Found, layout: Layout, registries: Registries) -> dict[Digest, Source]:
    """Where the layers are that the layout hasn't: the base's, as the record names it."""
    sources: dict[Digest, Source] = {}
    for image in found.images:
        missing = [each for each in image.manifest.layers if not layout.holds(each)]
        if not missing:
            continue
        bases = [
            base["uri"].removeprefix("docker://")
            for record in records_of(found.place, image)
            for base in record.dependencies("base")
            if isinstance(base.get("uri"), str)
        ]
        if not bases:
            raise BadInput(
                f"{image.where} lacks its layer {missing[0].digest}, and nothing says where it is.", _NOWHERE
            )
        reference = Reference.parse(bases[0])
        origin = registries.origin(reference)
        sources |= {each.digest: origin.holder(each) for each in missing}
    return sources
