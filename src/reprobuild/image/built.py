"""An image that was built, whichever engine built it."""

from dataclasses import dataclass, replace

from reprobuild.attest import Json
from reprobuild.image.base import Base
from reprobuild.image.environment import Environment
from reprobuild.oci.layer import Layer
from reprobuild.oci.model import Descriptor, Manifest, Platform


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform whose own layers, config and manifest have been written.

    Attributes:
        base: None for an image from scratch.
        layers: those that aren't the base's, lowest first; ``titles`` says of each what it is.
        remembered: how many of them were the same as before.
        environments: those that were copied into it.
    """

    platform: Platform
    base: Base | None
    manifest: Manifest
    config: Descriptor
    layers: tuple[Layer, ...]
    titles: tuple[str, ...]
    remembered: int
    environments: tuple[Environment, ...]

    @property
    def descriptor(self) -> Descriptor:
        """The manifest's, with the platform."""
        return replace(self.manifest.descriptor, platform=self.platform)


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

    @property
    def engine(self) -> str:
        """What built it, in the words of its record."""
        return str(self.images[0][1]["predicate"]["buildDefinition"]["internalParameters"]["engine"])
