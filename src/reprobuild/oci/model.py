"""Descriptors, manifests, indexes and configs as values that keep the bytes they came in. No I/O.

Sources: OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md, config.md) and Docker's image
manifest version 2, schema 2, which most registries still hold.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, shown

Json = dict[str, Any]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
#: Bytes of a manifest, index or config that is read; registries refuse larger manifests too.
DOCUMENT_LIMIT = 4 << 20
#: The largest integer that each reader of JSON has exactly, and that canonical JSON can write (RFC 8785).
_LARGEST = 2**53 - 1
_DEEPEST = 100
#: What each setting of a config has to be, where it isn't null (config.md; the rest is Docker's).
_WORDS = ("User", "WorkingDir", "StopSignal")
_LISTS = ("Env", "Entrypoint", "Cmd", "Shell", "OnBuild")
_SETS = ("ExposedPorts", "Volumes")
_HEALTH_NUMBERS = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


@dataclass(frozen=True, order=True, slots=True)
class Platform:
    """What an image runs on, in Go's words: ``linux/amd64``, ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``OS/ARCHITECTURE[/VARIANT]``.

        Raises:
            BadInput: it is something else.
        """
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isalnum() for part in parts):
            raise BadInput(f"{shown(text)!r} is not a platform.", "Write it like linux/amd64 or linux/arm64/v8.")
        return cls(*parts)

    def suits(self, wanted: "Platform") -> bool:
        """Whether it is what was wanted; arm64 without a variant is v8."""
        usual = {("arm64", ""): "v8", ("arm", ""): "v7"}

        def full(one: "Platform") -> tuple[str, str, str]:
            return one.os, one.architecture, usual.get((one.architecture, one.variant), one.variant)

        return full(self) == full(wanted)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What some content is: media type, digest, size in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, media_type: str, data: bytes, **more: Any) -> Self:  # noqa: ANN401 - the other fields
        """The descriptor of some bytes."""
        return cls(media_type, Digest.of_bytes(data), len(data), **more)

    @classmethod
    def read(cls, value: object, where: str) -> Self:
        """A descriptor in somebody's JSON.

        Raises:
            BadInput: it lacks one of the three, or has one of the wrong type.
        """
        table = _table(value, where)
        size = table.get("size")
        if type(size) is not int or not 0 <= size <= _LARGEST:
            raise BadInput(f"{where} has no size.", _BROKEN)
        platform = table.get("platform")
        return cls(
            _text(table, "mediaType", where),
            Digest.parse(_text(table, "digest", where)),
            size,
            platform=None if platform is None else _platform(platform, f"{where}: platform"),
            artifact_type=_word(table, "artifactType", where),
            annotations=_texts(table.get("annotations"), f"{where}: annotations"),
        )

    def json(self) -> Json:
        """As it stands in a manifest or an index."""
        found: Json = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.platform:
            parts = {"os": self.platform.os, "architecture": self.platform.architecture}
            found["platform"] = {**parts, **({"variant": self.platform.variant} if self.platform.variant else {})}
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


_BROKEN = "It was damaged on the way, or is no image: ask whoever serves it."


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image's manifest: its config and its layers, lowest first.

    Attributes:
        raw: the bytes that its digest is of.
    """

    raw: bytes = field(repr=False)
    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    subject: Descriptor | None = None
    artifact_type: str = ""

    @classmethod
    def read(cls, raw: bytes, where: str) -> Self:
        """Raises BadInput unless the bytes are an OCI manifest or Docker's schema 2."""
        document = document_of(raw, where)
        _word(document, "mediaType", where)
        media_type = media_type_of(document)
        if media_type not in MANIFESTS:
            raise BadInput(f"{where} is not an image manifest but {shown(media_type) or 'untyped'}.", _BROKEN)
        layers = document.get("layers")
        if not isinstance(layers, list):
            raise BadInput(f"{where} has no layers.", _BROKEN)
        subject = document.get("subject")
        return cls(
            raw,
            Descriptor.of(media_type, raw),
            Descriptor.read(document.get("config"), f"{where}: config"),
            tuple(Descriptor.read(each, f"{where}: layer {number}") for number, each in enumerate(layers)),
            _texts(document.get("annotations"), f"{where}: annotations"),
            None if subject is None else Descriptor.read(subject, f"{where}: subject"),
            _word(document, "artifactType", where),
        )

    @classmethod
    def make(
        cls,
        config: Descriptor,
        layers: Sequence[Descriptor],
        *,
        annotations: Mapping[str, str] | None = None,
        subject: Descriptor | None = None,
        artifact_type: str = "",
    ) -> Self:
        """A new OCI manifest, in canonical JSON."""
        document: Json = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.json()}
        document["layers"] = [layer.json() for layer in layers]
        if artifact_type:
            document["artifactType"] = artifact_type
        if subject:
            document["subject"] = subject.json()
        if annotations:
            document["annotations"] = dict(annotations)
        return cls.read(canonical_json(document), "the new manifest")


@dataclass(frozen=True, slots=True)
class Index:
    """An image index: one manifest a platform, or whatever else a layout holds."""

    raw: bytes = field(repr=False)
    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @classmethod
    def read(cls, raw: bytes, where: str) -> Self:
        """Raises BadInput unless the bytes are an OCI index or Docker's manifest list."""
        document = document_of(raw, where)
        _word(document, "mediaType", where)
        media_type = media_type_of(document) or OCI_INDEX  # of index.json in a layout it is optional
        manifests = document.get("manifests")
        if media_type not in INDEXES or not isinstance(manifests, list):
            raise BadInput(f"{where} is not an image index.", _BROKEN)
        return cls(
            raw,
            Descriptor.of(media_type, raw),
            tuple(Descriptor.read(each, f"{where}: manifest {number}") for number, each in enumerate(manifests)),
            _texts(document.get("annotations"), f"{where}: annotations"),
        )

    @classmethod
    def make(cls, manifests: Sequence[Descriptor], *, annotations: Mapping[str, str] | None = None) -> Self:
        """A new OCI index, in canonical JSON."""
        document: Json = {"schemaVersion": 2, "mediaType": OCI_INDEX}
        document["manifests"] = [each.json() for each in manifests]
        if annotations:
            document["annotations"] = dict(annotations)
        return cls.read(canonical_json(document), "the new index")

    def choose(self, wanted: Platform, where: str) -> Descriptor:
        """The image manifest for a platform; of several the first, as container runtimes do.

        Raises:
            BadInput: there is none.
        """
        images = [each for each in self.manifests if each.media_type in (*MANIFESTS, *INDEXES) and each.platform]
        for each in images:
            if each.platform and each.platform.suits(wanted):
                return each
        there = {str(each.platform) for each in images} - {"unknown/unknown"}  # what BuildKit calls its attestations
        has = ", ".join(sorted(there)) or "none at all"
        raise BadInput(f"{where} has no image for {wanted}; it has {shown(has, 1000)}.", "Name another platform.")


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image's config: how to run it, and the diff IDs of its layers.

    Attributes:
        document: all of it, also what isn't known here.
    """

    raw: bytes = field(repr=False)
    document: Json
    platform: Platform
    diff_ids: tuple[Digest, ...]

    @classmethod
    def read(cls, raw: bytes, where: str) -> Self:
        """Raises BadInput unless the bytes are an image config (OCI config.md)."""
        document = document_of(raw, where)
        rootfs = _table(document.get("rootfs"), f"{where}: rootfs")
        diff_ids = rootfs.get("diff_ids")
        if not isinstance(diff_ids, list) or not all(isinstance(each, str) for each in diff_ids):
            raise BadInput(f"{where} has no diff IDs.", _BROKEN)
        for key in ("author", "created", "os.version"):
            _word(document, key, where)
        _check_list(document, "os.features", where)
        if (settings := document.get("config")) is not None:
            _check_settings(_table(settings, f"{where}: config"), f"{where}: config")
        for key in ("config", "history"):
            _check_depth(document.get(key), f"{where}: {key}")
        return cls(raw, document, _platform(document, where), tuple(map(Digest.parse, diff_ids)))

    @property
    def settings(self) -> Json:
        """What a container starts with: Env, Entrypoint, Cmd, WorkingDir, User, Labels and so on."""
        return self.document.get("config") or {}

    @property
    def environment(self) -> dict[str, str]:
        """Env, by name."""
        return dict(line.split("=", 1) for line in self.settings.get("Env") or [] if "=" in line)


def document_of(raw: bytes, where: str) -> Json:
    """JSON that is an object, and says each thing once: of what it says twice readers take the first, the last or both.

    It can also be written again as canonical JSON, as parts of it are when an image is built from it.

    Raises:
        BadInput: it isn't, or doesn't, or can't.
    """
    if len(raw) > DOCUMENT_LIMIT:
        raise BadInput(f"{where} has {len(raw)} bytes, more than {DOCUMENT_LIMIT}.", _BROKEN)
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_once, parse_int=_integer, parse_float=_number, parse_constant=_number
        )
        if re.search(rb"\\u[dD][89a-fA-F]", raw):  # then half a surrogate pair may stand alone
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: {shown(str(error))}.", _BROKEN) from error
    return _table(value, where)


def _once(pairs: list[tuple[str, Any]]) -> Json:
    table: Json = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"it says {key!r} twice")
        table[key] = value
    return table


def _integer(text: str) -> int:
    if len(text) > 17 or abs(number := int(text)) > _LARGEST:
        raise ValueError("an integer in it is beyond 2**53 - 1")
    return number


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number in it is not finite")
    return number


def _check_depth(value: object, where: str) -> None:
    """Refuse what can be read, but not written again, as each level of that is a call."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [each for one in level for each in _inside(one)]
    if level:
        raise BadInput(f"{where} is nested too deeply.", _BROKEN)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def media_type_of(document: Json) -> str:
    """What a document calls itself; of an OCI one without the field what its parts say."""
    named = document.get("mediaType", "")
    if isinstance(named, str) and named:
        return named
    if "layers" in document and "config" in document:
        return OCI_MANIFEST
    return OCI_INDEX if "manifests" in document else ""


def _table(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise BadInput(f"{where} is not an object.", _BROKEN)
    return value


def _text(table: Json, key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{where} has no {key}.", _BROKEN)
    return value


def _texts(value: object, where: str) -> dict[str, str]:
    if value is None:
        return {}
    table = _table(value, where)
    if not all(isinstance(each, str) for each in table.values()):
        raise BadInput(f"{where} are not all texts.", _BROKEN)
    return table


def _word(table: Json, key: str, where: str) -> str:
    """A text that may be missing."""
    value = table.get(key)
    if not isinstance(value, str | None):
        raise BadInput(f"{where}: {key} is not a text.", _BROKEN)
    return value or ""


def _check_list(table: Json, key: str, where: str) -> None:
    value = table.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise BadInput(f"{where}: {key} is not a list of texts.", _BROKEN)


def _check_settings(settings: Json, where: str) -> None:
    """Refuse what container runtimes couldn't read, before it gets into another image."""
    for key in _WORDS:
        _word(settings, key, where)
    for key in _LISTS:
        _check_list(settings, key, where)
    for key in _SETS:
        names = settings.get(key)
        if names is not None and not all(
            isinstance(each, dict | None) for each in _table(names, f"{where}: {key}").values()
        ):
            raise BadInput(f"{where}: {key} are not all objects.", _BROKEN)
    _texts(settings.get("Labels"), f"{where}: Labels")
    _check_healthcheck(settings.get("Healthcheck"), f"{where}: Healthcheck")
    if not isinstance(settings.get("ArgsEscaped"), bool | None):
        raise BadInput(f"{where}: ArgsEscaped is neither true nor false.", _BROKEN)


def _check_healthcheck(value: object, where: str) -> None:
    if value is not None:
        table = _table(value, where)
        _check_list(table, "Test", where)
        numbers = (table.get(key) for key in _HEALTH_NUMBERS)
        if not all(each is None or type(each) is int for each in numbers):
            raise BadInput(f"{where}: its times are not all integers.", _BROKEN)


def _platform(value: object, where: str) -> Platform:
    table = _table(value, where)
    return Platform(*(_word(table, key, where) for key in ("os", "architecture", "variant")))
