"""What a Dockerfile means for one target and platform: its stages, each step expanded, and their settings."""

import re
from dataclasses import dataclass, field

from reprobuild.oci.model import Json, Platform

#: What stands for the locked Python environment in COPY --from, and for locked Debian packages in RUN --mount from.
ENVIRONMENT, PACKAGES = "environment", "apt"
NAMED_CONTEXTS = (ENVIRONMENT, PACKAGES)
PINNED = re.compile(r"(?P<name>[^@\s]+)@(?P<digest>sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image that is fetched.

    Attributes:
        reference: ``NAME[:TAG]@sha256:…``.
    """

    reference: str
    platform: Platform
    line: int


@dataclass(frozen=True, slots=True)
class Step:
    """What an instruction does to an image. A plain Step only changes its settings.

    Attributes:
        text: the instruction.
    """

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Folder(Step):
    """A folder that is there from now on, with its parents (WORKDIR); one that is there already stays as it is.

    Attributes:
        path: absolute.
        owner: ``USER[:GROUP]``; empty for root.
    """

    path: str
    owner: str


@dataclass(frozen=True, slots=True)
class Copy(Step):
    """COPY or ADD.

    Attributes:
        sources: paths and patterns, relative to the root of where they are.
        destination: absolute; it ends with ``/`` where the Dockerfile's does.
        origin: None for the build context, a position in :attr:`ImageSpec.stages`, a named context or an image.
        owner: ``USER[:GROUP]``; empty for root.
        mode: permission bits for all that is copied; None to keep them.
        symbols: changes of these bits, as chmod(1) takes them, which are BuildKit's to carry out.
        inline: files that stand in the Dockerfile, by name.
        unpacks: whether a tar among the sources would be unpacked (ADD).
    """

    sources: tuple[str, ...]
    destination: str
    origin: int | str | BaseImage | None
    owner: str
    mode: int | None
    inline: tuple[tuple[str, bytes], ...]
    unpacks: bool
    symbols: str = ""


@dataclass(frozen=True, slots=True)
class Run(Step):
    """RUN, of which only BuildKit knows what it does.

    Attributes:
        origins: what its mounts come from, as for :class:`Copy`.
        has_epoch: whether SOURCE_DATE_EPOCH is in its environment.
    """

    origins: tuple[int | str | BaseImage, ...]
    has_epoch: bool


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage with everything expanded.

    Attributes:
        base: an image, the position of an earlier stage in :attr:`ImageSpec.stages`, or None for scratch.
        settings: the ``config`` of the image's config, that of the base with what the steps change.
        author: of the image's config; empty for none.
    """

    name: str
    base: BaseImage | int | None
    platform: Platform
    steps: tuple[Step, ...]
    settings: Json = field(hash=False)
    author: str


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What is to be built: the stages that the target needs, each after those that it needs; the target is last."""

    stages: tuple[StageSpec, ...]

    @property
    def target(self) -> StageSpec:
        """The stage that becomes the image."""
        return self.stages[-1]
