"""Signed statements beside the artifacts that they are about: files beside a file, referrers beside an image."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Protocol

from reprobuild import attest, bom, process, verification
from reprobuild.attest import Json
from reprobuild.bundle import BUNDLE_LIMIT, BUNDLE_MEDIA_TYPE, Bundle, strict_json
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch, RecordUnusable, ReprobuildError, shown
from reprobuild.files import write_atomically
from reprobuild.image.archive import Registries
from reprobuild.image.store import Found, Readable, find, images_of
from reprobuild.oci.model import OCI_EMPTY, Descriptor, Manifest
from reprobuild.oci.reference import Reference
from reprobuild.policy import Policy
from reprobuild.sign import Signer
from reprobuild.verification import Verification

SUFFIX = ".sigstore.json"
_EMPTY = b"{}"
#: What cosign and others look for on the manifest (Sigstore bundle specification, "Storing attestations in OCI").
_CONTENT, BUNDLE_PREDICATE = "dev.sigstore.bundle.content", "dev.sigstore.bundle.predicateType"
_MOST_BUNDLES = 1000
_RECORD = ".intoto.json"
#: In the names of files; other types get some digits.
_KINDS = {
    attest.PROVENANCE_TYPE: "provenance",
    attest.REBUILD_TYPE: "rebuild",
    attest.AUDIT_TYPE: "audit",
    bom.PREDICATE_TYPE: "sbom",
}


class Artifact(Protocol):
    """What statements are about."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def digest(self) -> Digest:
        """Of its bytes, as they are here: a file's, or an image's manifest."""

    def evidence(self) -> Iterator[tuple[str, bytes]]:
        """The bundles beside it, each with what messages call it; nothing of them is trusted."""

    def statements(self) -> tuple[Json, ...]:
        """The unsigned records beside it that are about it. Raises RecordUnusable where there is none."""

    def keep(self, raw: bytes, predicate_type: str, signer: str) -> str:
        """Put a bundle beside it; where it is now."""

    def check(self) -> None:
        """Raise unless what its digest vouches for is what lies here."""


@dataclass(frozen=True, slots=True)
class File:
    """A wheel, or any other file; what is about it lies beside it."""

    path: Path
    digest: Digest

    @property
    def name(self) -> str:
        return str(self.path)

    def evidence(self) -> Iterator[tuple[str, bytes]]:
        return _files_beside(self.path)

    def statements(self) -> tuple[Json, ...]:
        path = self.path.with_name(self.path.name + _RECORD)
        if not path.is_file():
            raise RecordUnusable(
                f"There is no record {path} to be signed.",
                "`reprobuild wheel` writes one beside a wheel; for anything else name a statement with --statement.",
            )
        return (read_statement(path, self.digest),)

    def keep(self, raw: bytes, predicate_type: str, signer: str) -> str:
        return _keep_beside(self.path, raw, predicate_type, signer)

    def check(self) -> None:
        """Its digest was just taken of the file itself."""


@dataclass(frozen=True, slots=True)
class ImageIn:
    """An image for one platform, in a layout, an archive or a registry."""

    found: Found
    image: Readable

    @property
    def name(self) -> str:
        return f"{self.found.where} ({self.image.config.platform})"

    @property
    def digest(self) -> Digest:
        return self.image.manifest.descriptor.digest

    def evidence(self) -> Iterator[tuple[str, bytes]]:
        if self.found.beside:
            yield from _files_beside(self.found.beside)
            return
        damaged: list[str] = []
        try:
            found = self.found.place.referrers(self.image.manifest.descriptor, BUNDLE_MEDIA_TYPE, damaged)
        except (BadInput, DigestMismatch) as error:  # whoever may write to the tag that lists them can break it
            found = ()
            damaged.append(f"what lists the referrers ({shown(error.reason)})")
        yield from ((where, b"") for where in damaged[:_MOST_BUNDLES])
        if len(found) > _MOST_BUNDLES:
            yield f"each referrer after the first {_MOST_BUNDLES}, of {len(found)},", b""
        for each in found[:_MOST_BUNDLES]:
            where = f"the referrer {each.descriptor.digest}"
            if len(each.layers) == 1 and each.layers[0].size <= BUNDLE_LIMIT:
                try:
                    yield where, self.found.place.read(each.layers[0])
                except ReprobuildError as error:
                    yield f"{where} ({shown(error.reason)})", b""

    def statements(self) -> tuple[Json, ...]:
        return tuple(each.statement for each in self.found.records(self.image))

    def keep(self, raw: bytes, predicate_type: str, signer: str) -> str:
        if self.found.beside:
            return _keep_beside(self.found.beside, raw, predicate_type, f"{self.digest.hex[:12]}.{signer}")
        manifest, blobs = referrer_of(raw, predicate_type, self.image.manifest.descriptor)
        described = replace(
            manifest.descriptor, artifact_type=BUNDLE_MEDIA_TYPE, annotations=dict(manifest.annotations)
        )
        return self.found.place.keep(described, (*blobs, (manifest.descriptor, manifest.raw)))

    def check(self) -> None:
        with process.workers(os.cpu_count() or 1) as pool:
            list(pool.map(self.found.place.holds, self.image.manifest.layers))


def artifacts(text: str, registries: Registries, scratch: Path, *, every: bool = False) -> tuple[Artifact, ...]:
    """A file, or an image's manifests: one a platform.

    Args:
        text: a file's path, or an image as :func:`reprobuild.image.store.find` has it.
        every: as :func:`reprobuild.image.store.images_of`.

    Raises:
        BadInput, RegistryFailed: there is none.
    """
    if os.path.isfile(text) and not text.endswith(".tar"):  # noqa: PTH113 - a name too long for a file is none
        return (File(Path(text), Digest.of_file(Path(text))),)
    if text.endswith((".whl", ".tar.gz")):
        raise BadInput(f"There is no file {text}.", "Name the artifact, or the folder or registry of an image.")
    found = find(text, registries.of, scratch)
    return tuple(ImageIn(found, image) for image in images_of(found.place, found.top, found.where, every=every))


def _files_beside(path: Path) -> Iterator[tuple[str, bytes]]:
    names = sorted(each for each in path.parent.iterdir() if each.name.startswith(f"{path.name}."))
    found = [each for each in names if each.name.endswith(SUFFIX) and each.is_file()]
    if len(found) > _MOST_BUNDLES:
        yield f"each bundle after the first {_MOST_BUNDLES}, of {len(found)},", b""
    for each in found[:_MOST_BUNDLES]:
        try:
            with each.open("rb") as stream:
                raw = stream.read(BUNDLE_LIMIT + 1)
        except OSError as error:  # anybody may have put it there
            yield f"{each} ({error.strerror})", b""
        else:
            yield str(each), raw


def _keep_beside(path: Path, raw: bytes, predicate_type: str, signer: str) -> str:
    """The build's own record gets the name that other tools look for, unless somebody else's bundle has it."""
    kind = _KINDS.get(predicate_type) or attest.short_name(predicate_type)
    target = path.with_name(f"{path.name}{SUFFIX}")
    if predicate_type != attest.PROVENANCE_TYPE or _is_other(target, raw):
        target = path.with_name(f"{path.name}.{kind}.{signer}{SUFFIX}")
    write_atomically(target, [raw])
    return str(target)


def type_in(raw: bytes, where: str) -> str | None:
    """The type of the statement that a bundle claims to hold, nothing of which is verified; None where it has none."""
    try:
        statement = strict_json(Bundle.read(raw, where).payload)
    except (ReprobuildError, ValueError, RecursionError):
        return None
    found = statement.get("predicateType") if isinstance(statement, dict) else None
    return found if isinstance(found, str) else None


def _is_other(path: Path, raw: bytes) -> bool:
    """Whether something else than a bundle has its name."""
    if not path.is_file():
        return path.exists()
    try:
        with path.open("rb") as stream:
            return stream.read(len(raw) + 1) != raw
    except OSError:
        return True


def read_statement(path: Path, subject: Digest) -> Json:
    """A statement in a file, about something.

    Raises:
        BadInput: it can't be read.
        RecordUnusable: it isn't a statement about that.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(BUNDLE_LIMIT + 1)
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.") from error
    statement = attest.read_statement(raw, str(path))
    try:  # what is signed is written anew, and has to be what stands here
        strict_json(raw)
        attest.encode(statement)
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordUnusable(
            f"{path} can't be signed: {shown(error)}.", "Correct it, and keep large numbers as texts."
        ) from error
    if not any(each["digest"].get(subject.algorithm) == subject.hex for each in statement["subject"]):
        raise RecordUnusable(f"{path} is about something else: none of its subjects has {subject}.", "Name its own.")
    return statement


def referrer_of(
    raw: bytes, predicate_type: str, subject: Descriptor
) -> tuple[Manifest, tuple[tuple[Descriptor, bytes], ...]]:
    """A bundle as an artifact about an image, as cosign has it, and the blobs that it consists of."""
    layer, config = Descriptor.of(BUNDLE_MEDIA_TYPE, raw), Descriptor.of(OCI_EMPTY, _EMPTY)
    manifest = Manifest.make(
        config,
        [layer],
        annotations={_CONTENT: "dsse-envelope", BUNDLE_PREDICATE: predicate_type},
        subject=replace(subject, platform=None),
        artifact_type=BUNDLE_MEDIA_TYPE,
    )
    return manifest, ((config, _EMPTY), (layer, raw))


def sign(
    text: str, signer: Signer, registries: Registries, scratch: Path, statement: Path | None = None
) -> tuple[str, ...]:
    """Sign the records beside an artifact, or another statement about it; where the bundles are now.

    Raises:
        RecordUnusable: there is no record, or it is about something else.
        SigningFailed: as :meth:`Signer.sign`.
    """
    done = []
    for artifact in artifacts(text, registries, scratch):
        wanted = (read_statement(statement, artifact.digest),) if statement else artifact.statements()
        done += [keep_signed(artifact, each, signer) for each in wanted]
        if isinstance(artifact, File) and artifact.path.name.endswith((".whl", ".tar.gz")):
            done += _attested(artifact.path, signer)
    return tuple(done)


def keep_signed(artifact: Artifact, statement: Json, signer: Signer) -> str:
    """Sign a statement and put it beside what it is about; where it is now.

    Raises:
        BadInput: nobody would read it, so large is it.
        SigningFailed: as :meth:`Signer.sign`.
    """
    return artifact.keep(_bundle(statement, signer), statement["predicateType"], signer.name)


def _bundle(statement: Json, signer: Signer) -> bytes:
    raw = signer.sign(statement)
    if len(raw) > BUNDLE_LIMIT:
        raise BadInput(
            f"The statement of the type {shown(statement['predicateType'])} gives a bundle of {len(raw)} bytes, which "
            "nobody would read.",
            f"It may have {BUNDLE_LIMIT >> 20} MiB: leave out what can be had by its digest.",
        )
    return raw


def _attested(path: Path, signer: Signer) -> Iterator[str]:
    """The attestation that whoever publishes it hands to the index: one subject, named as `twine` looks for it."""
    attestation = signer.attestation(path)
    if attestation:
        target = path.with_name(f"{path.name}.publish.attestation")
        write_atomically(target, [attestation])
        yield str(target)


def verify(
    text: str,
    policy: Policy,
    registries: Registries,
    scratch: Path,
    *,
    more: Sequence[Path] = (),
    trust: Path | None = None,
) -> tuple[tuple[Artifact, Verification], ...]:
    """Hold what lies beside an artifact against a policy, one result a platform.

    Args:
        more: further bundles, in files.
        trust: as :func:`reprobuild.verification.verify`.

    Raises:
        BadInput, DigestMismatch: the artifact isn't there, or a layer of an image here is damaged.
    """
    named = [(str(path), _named(path)) for path in more]
    done = []
    for artifact in artifacts(text, registries, scratch, every=True):
        artifact.check()
        if isinstance(artifact, File) and artifact.path.name.endswith((".whl", ".tar.gz")):
            policy = replace(policy, bases=())  # a project has one policy, and its wheel or sdist starts from no image
        found = chain(named, artifact.evidence())  # one bundle after the other: together they may be large
        done.append((artifact, verification.verify(artifact.digest, found, policy, trust=trust)))
    return tuple(done)


def _named(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(BUNDLE_LIMIT + 1)
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.", "Name a bundle, a file .sigstore.json.") from error


def reference_of(text: str) -> Reference:
    """Where an image is pushed to.

    Raises:
        BadInput: it names a digest.
    """
    reference = Reference.parse(text.removeprefix("docker://"))
    if reference.digest:
        raise BadInput(f"{text} can't be pushed to: it names a digest.", "Leave the digest out.")
    return reference
