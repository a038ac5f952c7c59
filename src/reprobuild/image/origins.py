"""From which images and stages a Dockerfile takes files: what FROM, COPY --from and RUN --mount name.

Sources: as for :mod:`reprobuild.image.resolve`.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from reprobuild.errors import BadInput, LockStale, shown
from reprobuild.image.dockerfile import Dockerfile, Instruction, Stage, flags_of, mounted_from
from reprobuild.image.stages import NAMED_CONTEXTS, PINNED, BaseImage
from reprobuild.oci.model import Platform

#: How alike a name and a stage's are for a typing mistake: that of the image python is no mistake for python-build.
_ALIKE = 0.7


def global_arguments(
    dockerfile: Dockerfile, platform: Platform, build_args: Mapping[str, str], target: str
) -> dict[str, str]:
    """The variables that FROM can use, and that a stage's ARG without a default takes over.

    What runs nothing has no build platform of its own: BUILDPLATFORM and the like are the target's.
    """
    variant = "" if (platform.architecture, platform.variant) == ("arm64", "v8") else platform.variant
    named = str(Platform(platform.os, platform.architecture, variant))
    parts = {"PLATFORM": named, "OS": platform.os, "ARCH": platform.architecture, "VARIANT": variant}
    found = {f"{kind}{part}": text for kind in ("BUILD", "TARGET") for part, text in parts.items()}
    found["TARGETSTAGE"] = target or dockerfile.stages[-1].name or "default"
    found |= {name: build_args[name] for name in found if name in build_args}
    for each in dockerfile.arguments:
        for name, default in arguments_of(dockerfile, each):
            if name in build_args:
                found[name] = build_args[name]
            elif default is not None:
                found[name] = dockerfile.expand(default, found, each.line)
    return found


def arguments_of(dockerfile: Dockerfile, each: Instruction) -> Iterator[tuple[str, str | None]]:
    """The names that an ARG declares, each with its default, or None."""
    flags_of(dockerfile, each)
    if not each.args:
        dockerfile.fail(each.line, "ARG names nothing.")
    for word in each.args:
        name, equals, default = word.partition("=")
        if not name:
            dockerfile.fail(each.line, "ARG names nothing.")
        yield name, default if equals else None


@dataclass(frozen=True, slots=True)
class Needed:
    """Where a stage that a target needs takes files from. A position is one in the Dockerfile.

    Attributes:
        base: an image, an earlier stage, or None for scratch.
        origins: for each instruction: stages, named contexts and images.
    """

    base: BaseImage | int | None
    platform: Platform
    origins: tuple[tuple[int | str | BaseImage, ...], ...]


def needed(
    dockerfile: Dockerfile, variables: Mapping[str, str], target: str, platform: Platform, contexts: Collection[str]
) -> dict[int, Needed]:
    """The stages that a target needs, by their positions in the Dockerfile and in that order.

    Raises:
        BadInput: there is no such stage, before the one that names it.
        NeedsBuildKit: as :func:`reprobuild.image.dockerfile.flags_of`.
        LockStale: an image has no digest.
    """
    last = len(dockerfile.stages) - 1
    wanted = last if not target else dockerfile.stage_named(target.lower(), last + 1)
    if wanted is None:
        names = ", ".join(each.name for each in dockerfile.stages if each.name) or "no named stage"
        raise BadInput(f"{dockerfile.where} has no stage {shown(target)!r}.", f"It has {names}.")
    found: dict[int, Needed] = {}
    waiting = [wanted]
    while waiting:
        number = waiting.pop()
        if number in found:
            continue
        own, base = _base(dockerfile, number, variables, platform)
        instructions = dockerfile.stages[number].instructions
        origins = tuple(_origins(dockerfile, each, number, platform, contexts) for each in instructions)
        found[number] = Needed(base, own, origins)
        waiting += [each for each in (base, *chain(*origins)) if isinstance(each, int)]
    in_order = dict(sorted(found.items()))
    for number, one in in_order.items():
        if isinstance(one.base, int):
            in_order[number] = replace(one, platform=in_order[one.base].platform)
    return in_order


def _base(
    dockerfile: Dockerfile, number: int, variables: Mapping[str, str], platform: Platform
) -> tuple[Platform, BaseImage | int | None]:
    stage = dockerfile.stages[number]
    if stage.platform:
        text = dockerfile.expand(stage.platform, variables, stage.line)
        try:
            platform = Platform.parse(text)
        except BadInput as error:
            dockerfile.fail(stage.line, error.reason, error.remedy)
    name = _started_from(dockerfile, stage, variables)
    earlier = dockerfile.stage_named(name, number)
    if earlier is not None:
        return platform, earlier
    if name == "scratch":
        return platform, None
    return platform, _image(dockerfile, name, platform, stage.line, "FROM", number)


def _started_from(dockerfile: Dockerfile, stage: Stage, variables: Mapping[str, str]) -> str:
    name = dockerfile.expand(stage.base, variables, stage.line)
    return name or dockerfile.fail(stage.line, f"FROM {stage.base} is empty.", "Give that ARG a default.")


def _image(dockerfile: Dockerfile, name: str, platform: Platform, line: int, what: str, number: int) -> BaseImage:
    """An image that stage ``number`` names."""
    if not PINNED.fullmatch(name):
        check_digest(dockerfile, name, line)
        raise LockStale(
            f"{dockerfile.where}:{line}: {what} {shown(name)} has no digest: what the tag means may change.",
            f"{hint_of(stage_like(dockerfile, name, number))}Run `reprobuild lock`, which adds @sha256:… to it.",
        )
    return BaseImage(name, platform, line)


def check_digest(dockerfile: Dockerfile, name: str, line: int) -> None:
    """Refuse an image whose name has something else than a digest where that belongs.

    Raises:
        BadInput: it has.
    """
    if "@" in name and not PINNED.fullmatch(name):
        dockerfile.fail(
            line,
            f"What is behind the @ of {shown(name)} is no digest: sha256: and 64 hex digits in lower case.",
            "Take it away with its @, and run `reprobuild lock`.",
        )


def stage_like(dockerfile: Dockerfile, name: str, number: int) -> str:
    """The stage before stage ``number`` that an image's name may be a mistyped one of; empty for none."""
    if set(name) & {"/", ":", "@"}:
        return ""
    names = [each.name for each in dockerfile.stages[:number] if each.name]
    return next(iter(difflib.get_close_matches(name.lower(), names, n=1, cutoff=_ALIKE)), "")


def hint_of(stage: str) -> str:
    """What a remedy begins with where a stage may have been meant."""
    return f"Did you mean the stage {stage}? " if stage else ""


def _named_in(dockerfile: Dockerfile, each: Instruction) -> list[str]:
    """What an instruction takes files from, in its own words."""
    if each.name == "RUN":
        return list(mounted_from(each)) if dockerfile.lenient else []
    source = flags_of(dockerfile, each).get("from", "") if each.name == "COPY" else ""
    return [source] if source else []


def _origins(
    dockerfile: Dockerfile, each: Instruction, number: int, platform: Platform, contexts: Collection[str]
) -> tuple[int | str | BaseImage, ...]:
    """Where a COPY or a RUN of stage ``number`` takes files from."""
    named = _named_in(dockerfile, each)
    return tuple(_origin(dockerfile, each, name, number, platform, contexts) for name in named)


def _origin(
    dockerfile: Dockerfile, each: Instruction, name: str, number: int, platform: Platform, contexts: Collection[str]
) -> int | str | BaseImage:
    if dockerfile.expand(name, {}, each.line) != name:
        dockerfile.fail(each.line, "--from can't have variables.", "Name a stage instead: FROM … AS …")
    if name in contexts:
        return name
    if name.isascii() and name.isdecimal():
        if len(name) > 9 or int(name) >= number:
            dockerfile.fail(each.line, f"There is no stage {shown(name)} before this one.")
        return int(name)
    found = dockerfile.stage_named(name.lower(), len(dockerfile.stages))
    if found is None:
        what = "COPY --from" if each.name == "COPY" else "RUN --mount from"
        return _image(dockerfile, name, platform, each.line, what, number)
    if found >= number:
        dockerfile.fail(each.line, f"The stage {name!r} comes later, or is this one.", "Move it up.")
    return found


@dataclass(frozen=True, slots=True)
class Mention:
    """An image where a Dockerfile names it.

    Attributes:
        instruction: FROM, COPY or RUN.
        word: as written.
        name: with its variables replaced by the defaults of ARG.
        line, end: the instruction's first and last line, from 1.
        near: an earlier stage of which it may be the mistyped name; empty for none.
    """

    instruction: str
    word: str
    name: str
    line: int
    end: int
    near: str


def mentions(
    dockerfile: Dockerfile, platform: Platform, contexts: Collection[str] = NAMED_CONTEXTS
) -> Iterator[Mention]:
    """Every image that any stage starts or copies from, in the order of the lines.

    Raises:
        BadInput: a FROM is empty without ``--build-arg``.
    """
    variables = global_arguments(dockerfile, platform, {}, "")
    stages = {each.name for each in dockerfile.stages if each.name}
    for number, stage in enumerate(dockerfile.stages):
        name = _started_from(dockerfile, stage, variables)
        if name != "scratch" and dockerfile.stage_named(name, number) is None:
            yield Mention("FROM", stage.base, name, stage.line, stage.end, stage_like(dockerfile, name, number))
        for each in stage.instructions:
            for source in _named_in(dockerfile, each):
                if source not in contexts and not source.isdecimal() and source.lower() not in stages:
                    near = stage_like(dockerfile, source, number)
                    yield Mention(each.name, source, source, each.line, each.end, near)
