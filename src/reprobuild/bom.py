"""Bills of materials as values, and their one spelling in CycloneDX 1.6 JSON. No I/O, no clock, no chance.

The library of CycloneDX writes what it knows; what its model lacks in 1.6 (compositions, formulation) is added, and the
time, which it always writes, is taken out. Source: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/.
"""

import json
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reprobuild import __version__
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, ToolMissing, shown

if TYPE_CHECKING:
    from cyclonedx.model import HashType
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License
    from packageurl import PackageURL

Json = dict[str, Any]

#: Of a document as a file, as a layer and as an artifact in a registry.
MEDIA_TYPE = "application/vnd.cyclonedx+json"
#: What a signed statement says it holds (in-toto attestation framework, "CycloneDX Predicate").
PREDICATE_TYPE = "https://cyclonedx.org/bom"
SUFFIX = ".cdx.json"
_LIBRARY = "cyclonedx-python-lib"
#: What the serial numbers of our documents are derived from, beside what they say.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://reprobuild.dev/sbom/v1")
_NO_LIBRARY = "Install reprobuild[sbom] instead of reprobuild."
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Purl:
    """A package URL in its parts (purl specification, "types")."""

    type: str
    name: str
    version: str = ""
    namespace: str = ""
    qualifiers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Licences:
    """What metadata says of a licence, unread.

    Attributes:
        expression: License-Expression (PEP 639); it rules out the others.
        text: License: a name, an SPDX identifier, or a whole text.
        classifiers: those that begin with ``License ::``.
    """

    expression: str = ""
    text: str = ""
    classifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One component.

    Attributes:
        ref: by which others of the same document name it.
        kind: ``library``, ``application``, ``container`` or ``file``.
        purl: None where nothing would find it by one.
        digests: of the one file that it is.
        files: where it may be any of several files, the digest of each.
        properties: names and values beyond the format.
        parts: what it holds.
    """

    ref: str
    name: str
    version: str = ""
    kind: str = "library"
    purl: Purl | None = None
    digests: tuple[Digest, ...] = ()
    files: tuple[Digest, ...] = ()
    licences: Licences = Licences()
    properties: tuple[tuple[str, str], ...] = ()
    parts: tuple["Part", ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A bill of materials.

    Attributes:
        subject: what it is of.
        phase: of the life of the subject that it comes from: ``pre-build``, ``build`` or ``post-build``.
        parts: all components but the subject; the order says nothing.
        edges: what is known of dependencies, by ref. A ref with no target depends on nothing; one that isn't there
            isn't known.
        incomplete: refs whose dependencies are more than the edges say.
        opaque: refs of which it is certain that they hold more than is listed.
        unread: refs of which nobody knows whether they hold more than is listed.
        makers: what the subject was made with, and isn't in it.
        named: whether the version of this program is told. A document inside an artifact doesn't, or the artifact
            would follow it.
    """

    subject: Part
    phase: str
    parts: tuple[Part, ...] = ()
    edges: Mapping[str, frozenset[str]] = field(default_factory=dict)
    incomplete: frozenset[str] = frozenset()
    opaque: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    makers: tuple[Part, ...] = ()
    named: bool = True

    @property
    def unknown(self) -> frozenset[str]:
        """The refs of whose dependencies nothing is known."""
        return frozenset(each.ref for each in (self.subject, *self.parts)) - frozenset(self.edges)


def purl_of(name: str, version: str) -> Purl:
    """Of a release on a package index."""
    return Purl("pypi", name, version)


def cyclonedx_version() -> str:
    """The version of the library that spells documents.

    Raises:
        ToolMissing: it isn't installed.
    """
    from importlib.metadata import version  # noqa: PLC0415 - slow, and only for documents

    require_library()
    return version(_LIBRARY)


def require_library() -> None:
    """Raise ToolMissing unless documents can be written here."""
    try:
        import cyclonedx.output  # noqa: F401, PLC0415 - an extra, and slow
    except ImportError as error:
        raise ToolMissing("There is nothing here that writes CycloneDX documents.", _NO_LIBRARY) from error


def encode(document: Document) -> bytes:
    """A document's bytes: canonical JSON (RFC 8785) and one newline. What it says decides them, no order or clock.

    Raises:
        BadInput: a ref stands for two things: who made the document's source wants to be read in two ways.
        ToolMissing: the library isn't installed.
    """
    require_library()
    _require_unique(document)
    found = _written((document.subject,), document)
    found["metadata"].pop("timestamp")
    found["components"] = _written(document.parts)["components"]
    found["dependencies"] = [
        {"ref": ref, **({"dependsOn": sorted(targets)} if targets else {})} for ref, targets in document.edges.items()
    ]
    found["compositions"] = list(_compositions(document))
    if document.makers:
        found["formulation"] = [{"bom-ref": "build", "components": _written(document.makers)["components"]}]
    sound = _sorted({key: value for key, value in found.items() if key != "serialNumber"})
    # Over the spelling itself: one serial number never stands for two documents.
    serial = uuid.uuid5(_NAMESPACE, str(Digest.of_bytes(canonical_json(sound))))
    return canonical_json({**sound, "serialNumber": serial.urn}) + b"\n"


def _require_unique(document: Document) -> None:
    seen: set[str] = set()
    waiting = [document.subject, *document.parts, *document.makers]
    while waiting:
        part = waiting.pop()
        if part.ref in seen:
            raise BadInput(f"{shown(part.ref)} is named twice, for several things.", "Don't trust what names it.")
        seen.add(part.ref)
        waiting += part.parts


def read(raw: bytes) -> Json:
    """A document of ours from its bytes."""
    found: Json = json.loads(raw)
    return found


def _sorted(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same with every list in one order: none of them means a sequence here."""
    if isinstance(value, dict):
        return {key: _sorted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted((_sorted(each) for each in value), key=canonical_json)
    return value


def _compositions(document: Document) -> Iterable[Json]:
    known = frozenset(document.edges)
    for aggregate, dependencies, assemblies in (
        ("complete", known - document.incomplete, frozenset()),
        ("incomplete", document.incomplete, document.opaque),
        ("unknown", document.unknown, document.unread),
    ):
        lists = {"dependencies": sorted(dependencies), "assemblies": sorted(assemblies)}
        if any(lists.values()):
            yield {"aggregate": aggregate, **{key: refs for key, refs in lists.items() if refs}}


def _written(parts: Iterable[Part], document: Document | None = None) -> Json:
    """What the library writes: some components, or of a whole document the frame."""
    from cyclonedx.model.bom import Bom, BomMetaData  # noqa: PLC0415 - an extra, and slow
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle  # noqa: PLC0415
    from cyclonedx.output import make_outputter  # noqa: PLC0415
    from cyclonedx.schema import OutputFormat, SchemaVersion  # noqa: PLC0415

    if document is None:
        bom = Bom(components=map(_component, parts))
    else:
        tool = Component(
            name="reprobuild",
            version=__version__ if document.named else None,
            type=ComponentType.APPLICATION,
            bom_ref="tool:reprobuild",
        )
        about = BomMetaData(
            component=_component(document.subject),
            lifecycles=[PredefinedLifecycle(LifecyclePhase(document.phase))],
        )
        about.tools.components.add(tool)
        bom = Bom(metadata=about)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the graph is added later
        written = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    return {"components": [], **json.loads(written)}


def _component(part: Part) -> "Component":
    from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415

    purl = _package_url(part.purl) if part.purl else None
    files = []
    for each in part.files:
        # No URL, as in the lock: which file of the release it may be, wherever it is had from.
        place = _package_url(part.purl or Purl("generic", part.name, part.version), checksum=str(each))
        files.append(
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION, url=XsUri(place.to_string()), hashes=[_hash(each)]
            )
        )
    return Component(
        name=part.name,
        version=part.version or None,
        type=ComponentType(part.kind),
        bom_ref=part.ref,
        purl=purl,
        hashes=map(_hash, part.digests),
        licenses=_licences(part.licences),
        external_references=files,
        properties=[Property(name=name, value=value) for name, value in part.properties],
        components=map(_component, part.parts),
    )


def _hash(digest: Digest) -> "HashType":
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415 - as above

    return HashType(alg=HashAlgorithm(f"SHA-{digest.algorithm.removeprefix('sha')}"), content=digest.hex)


def _package_url(purl: Purl, **more: str) -> "PackageURL":
    from packageurl import PackageURL  # noqa: PLC0415 - comes with the library

    qualifiers = {**dict(purl.qualifiers), **more}
    return PackageURL(purl.type, purl.namespace or None, purl.name, purl.version or None, qualifiers)


def text_of(purl: Purl) -> str:
    """A package URL as it is written."""
    return _package_url(purl).to_string()


def _licences(said: Licences) -> "Iterable[License]":
    """Licences with SPDX identifiers where these are meant beyond doubt, else as they are called.

    The License field comes before the classifiers where it is SPDX's own spelling, and after them otherwise: there are
    classifiers that say less than it, and fields that hold a whole text.
    """
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression  # noqa: PLC0415 - an extra, and slow
    from cyclonedx.model.license import LicenseAcknowledgement as Acknowledgement  # noqa: PLC0415
    from cyclonedx.spdx import fixup_id, is_expression  # noqa: PLC0415

    declared = Acknowledgement.DECLARED

    def known(text: str) -> "License | None":
        if identifier := fixup_id(text):
            return DisjunctiveLicense(id=identifier, acknowledgement=declared)
        return LicenseExpression(text, acknowledgement=declared) if is_expression(text) else None

    def named(text: str) -> "License":
        return DisjunctiveLicense(name=text, acknowledgement=declared)

    if said.expression:
        return [known(said.expression) or named(said.expression)]
    text = said.text.strip()
    is_name = 0 < len(text) <= _LONGEST_NAME and text.isprintable()  # which a text of several lines isn't
    if is_name and (found := known(text)):
        return [found]
    names = {each.rpartition("::")[2].strip() for each in said.classifiers} - {"", "OSI Approved", "License"}
    return [named(each) for each in sorted(names or ({text} if is_name else ()))]
