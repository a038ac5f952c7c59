"""What a Dockerfile means for one target and platform: its stages, each step expanded, and their settings.

Sources: the Dockerfile reference and, where that is silent, BuildKit's frontend (``frontend/dockerfile``).
"""

import difflib
import posixpath
import re
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from e2b_dockerfile_utils import parse_heredoc

from reprobuild.errors import BadInput, LockStale, shown
from reprobuild.image.dockerfile import Dockerfile, Inline, Instruction, Stage, flags_of, mounted_from
from reprobuild.oci.model import ImageConfig, Json, Platform

#: What stands for the locked Python environment in COPY --from, and for locked Debian packages in RUN --mount from.
ENVIRONMENT, PACKAGES = "environment", "apt"
NAMED_CONTEXTS = (ENVIRONMENT, PACKAGES)
#: PATH in an image from scratch, as BuildKit sets it.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PINNED = re.compile(r"(?P<name>[^@\s]+)@(?P<digest>sha256:[0-9a-f]{64})")
_SHELL = ("/bin/sh", "-c")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_NANOSECONDS["h"] = 3600 * 10**9
_SIGNALS = {each.name.removeprefix("SIG") for each in signal.Signals} | {f"RTMIN+{n}" for n in range(1, 16)}
_SIGNALS |= {f"RTMAX-{n}" for n in range(1, 15)}
#: Build arguments that need no ARG: each of BuildKit's own that a build without RUN has no use for.
_UNDECLARED = re.compile(r"SOURCE_DATE_EPOCH|BUILDKIT_\w+|(?i:(?:http|https|ftp|no|all)_proxy)")


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


# --- from which images ---------------------------------------------------------------------------------


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
        for name, default in _arguments(dockerfile, each):
            if name in build_args:
                found[name] = build_args[name]
            elif default is not None:
                found[name] = dockerfile.expand(default, found, each.line)
    return found


def _arguments(dockerfile: Dockerfile, each: Instruction) -> Iterator[tuple[str, str | None]]:
    flags_of(dockerfile, each)
    if not each.args:
        dockerfile.fail(each.line, "ARG names nothing.")
    for word in each.args:
        name, equals, default = word.partition("=")
        if not name:
            dockerfile.fail(each.line, "ARG names nothing.")
        yield name, default if equals else None


def _check_build_args(dockerfile: Dockerfile, build_args: Mapping[str, str], predefined: Iterable[str]) -> None:
    instructions = [*dockerfile.arguments, *(each for stage in dockerfile.stages for each in stage.instructions)]
    declared = {word.partition("=")[0] for each in instructions if each.name == "ARG" for word in each.args}
    declared |= set(predefined)
    for name in build_args:
        if name not in declared and not _UNDECLARED.fullmatch(name):
            near = difflib.get_close_matches(name, declared, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]}?" if near else "Declare it there, or leave it out."
            raise BadInput(f"{dockerfile.where} has no ARG {shown(name)}.", hint)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which stages a target needs, by their positions in the Dockerfile, and where each of them starts."""

    order: tuple[int, ...]
    bases: Mapping[int, BaseImage | int | None]
    platforms: Mapping[int, Platform]


def _plan(
    dockerfile: Dockerfile, variables: Mapping[str, str], target: str, platform: Platform, contexts: Collection[str]
) -> _Plan:
    last = len(dockerfile.stages) - 1
    wanted = last if not target else dockerfile.stage_named(target.lower(), last + 1)
    if wanted is None:
        names = ", ".join(each.name for each in dockerfile.stages if each.name) or "no named stage"
        raise BadInput(f"{dockerfile.where} has no stage {shown(target)!r}.", f"It has {names}.")
    bases: dict[int, BaseImage | int | None] = {}
    platforms: dict[int, Platform] = {}
    waiting = [wanted]
    while waiting:
        number = waiting.pop()
        if number in bases:
            continue
        stage = dockerfile.stages[number]
        platforms[number], bases[number] = _base(dockerfile, number, variables, platform)
        base = bases[number]
        waiting += [base] if isinstance(base, int) else []
        for each in stage.instructions:
            origins = _origins(dockerfile, each, number, platform, contexts)
            waiting += [origin for origin in origins if isinstance(origin, int)]
    for number in sorted(bases):
        base = bases[number]
        if isinstance(base, int):
            platforms[number] = platforms[base]
    return _Plan(tuple(sorted(bases)), bases, platforms)


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
    name = dockerfile.expand(stage.base, variables, stage.line)
    if not name:
        dockerfile.fail(stage.line, f"FROM {stage.base} is empty.", "Give that ARG a default.")
    earlier = dockerfile.stage_named(name, number)
    if earlier is not None:
        return platform, earlier
    if name == "scratch":
        return platform, None
    return platform, _image(dockerfile, name, platform, stage.line, "FROM")


def _image(dockerfile: Dockerfile, name: str, platform: Platform, line: int, what: str) -> BaseImage:
    if not PINNED.fullmatch(name):
        raise LockStale(
            f"{dockerfile.where}:{line}: {what} {shown(name)} has no digest: what the tag means may change.",
            "Run `reprobuild lock`, which adds @sha256:… to it.",
        )
    return BaseImage(name, platform, line)


def _named_in(dockerfile: Dockerfile, each: Instruction) -> list[str]:
    """What an instruction takes files from, in its own words."""
    if each.name == "RUN":
        return list(mounted_from(each)) if dockerfile.lenient else []
    source = flags_of(dockerfile, each).get("from", "") if each.name == "COPY" else ""
    return [source] if source else []


def _origins(
    dockerfile: Dockerfile, each: Instruction, number: int, platform: Platform, contexts: Collection[str]
) -> list[int | str | BaseImage]:
    """Where a COPY or a RUN of stage ``number`` takes files from; a position is one in the Dockerfile."""
    named = _named_in(dockerfile, each)
    return [_origin(dockerfile, each, name, number, platform, contexts) for name in named]


def _origin(
    dockerfile: Dockerfile, each: Instruction, name: str, number: int, platform: Platform, contexts: Collection[str]
) -> int | str | BaseImage:
    if dockerfile.expand(name, {}, each.line) != name:
        dockerfile.fail(each.line, "--from can't have variables.", "Name a stage instead: FROM … AS …")
    if name in contexts:
        return name
    if name.isascii() and name.isdecimal():
        found = int(name) if int(name) < number else None
        if found is None:
            dockerfile.fail(each.line, f"There is no stage {name} before this one.")
        return found
    found = dockerfile.stage_named(name.lower(), len(dockerfile.stages))
    if found is None:
        what = "COPY --from" if each.name == "COPY" else "RUN --mount from"
        return _image(dockerfile, name, platform, each.line, what)
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
    """

    instruction: str
    word: str
    name: str
    line: int
    end: int


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
        name = dockerfile.expand(stage.base, variables, stage.line)
        if not name:
            dockerfile.fail(stage.line, f"FROM {stage.base} is empty.", "Give that ARG a default.")
        if name != "scratch" and dockerfile.stage_named(name, number) is None:
            yield Mention("FROM", stage.base, name, stage.line, stage.end)
        for each in stage.instructions:
            for source in _named_in(dockerfile, each):
                if source not in contexts and not source.isdecimal() and source.lower() not in stages:
                    yield Mention(each.name, source, source, each.line, each.end)


# --- what each stage does ------------------------------------------------------------------------------


def resolve(
    dockerfile: Dockerfile,
    config_of: Callable[[BaseImage], ImageConfig],
    *,
    platform: Platform,
    epoch: int,
    build_args: Mapping[str, str] | None = None,
    target: str = "",
    contexts: Collection[str] = NAMED_CONTEXTS,
) -> ImageSpec:
    """What a target of a Dockerfile is, with every variable expanded.

    Args:
        config_of: asked for the config of each base: its variables can be used, and its settings are kept.
        epoch: seconds since 1970, for ``ARG SOURCE_DATE_EPOCH``.
        target: the stage to build; empty for the last.
        contexts: names that ``COPY --from`` can use besides stages and images.

    Raises:
        BadInput: it says something that has no meaning.
        NeedsBuildKit: it can't be done without running or fetching something, and the Dockerfile isn't lenient.
        LockStale: an image has no digest.
    """
    given = {"SOURCE_DATE_EPOCH": str(epoch), **(build_args or {})}
    variables = global_arguments(dockerfile, platform, given, target)
    _check_build_args(dockerfile, build_args or {}, variables)
    plan = _plan(dockerfile, variables, target, platform, contexts)
    places = {number: place for place, number in enumerate(plan.order)}
    done: list[StageSpec] = []
    makings: list[_Making] = []
    for number in plan.order:
        stage, base = dockerfile.stages[number], plan.bases[number]
        making = _Making(dockerfile, variables, given)
        if isinstance(base, int):
            making.go_on(makings[places[base]])
        else:
            making.begin(stage, config_of(base) if base else None)
        makings.append(making)
        for each in stage.instructions:
            origins = _origins(dockerfile, each, number, platform, contexts)
            making.do(each, [places[origin] if isinstance(origin, int) else origin for origin in origins])
        done.append(
            StageSpec(
                stage.name,
                places[base] if isinstance(base, int) else base,
                plan.platforms[number],
                tuple(making.steps),
                making.settings,
                making.author,
            )
        )
    return ImageSpec(tuple(done))


class _Making:
    """One stage while its instructions are carried out."""

    def __init__(self, dockerfile: Dockerfile, arguments: Mapping[str, str], build_args: Mapping[str, str]) -> None:
        self.settings: Json = {}
        self.steps: list[Step] = []
        self.author = ""
        self._dockerfile = dockerfile
        self._global = arguments
        self._given = build_args
        self._variables: dict[str, str] = {}  # of ARG and ENV: the later one counts
        self._has_cmd = False

    def begin(self, stage: Stage, config: ImageConfig | None) -> None:
        """Take over the settings of an image, or those of scratch."""
        if config:
            self.settings = _copied(config.settings)
            self.author = str(config.document.get("author") or "")
        else:
            self.settings = {"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"}
        self._variables = config.environment if config else {"PATH": DEFAULT_PATH}
        if self.settings.pop("OnBuild", None):
            self._dockerfile.beyond(stage.line, "The base has ONBUILD triggers.")

    def go_on(self, earlier: "_Making") -> None:
        """Take over the settings and the arguments of another stage."""
        self.settings, self.author = _copied(earlier.settings), earlier.author
        self._variables = dict(earlier._variables)

    def do(self, each: Instruction, origins: Sequence[int | str | BaseImage]) -> None:
        """Carry out one instruction."""
        if each.name in ("COPY", "ADD"):
            self._copy(each, origins[0] if origins else None)
            return
        if each.name in ("RUN", "ONBUILD"):
            what = "RUN needs a machine to run on" if each.name == "RUN" else "ONBUILD is for builds from this image"
            self._dockerfile.beyond(each.line, f"{what}: it can't be assembled.")
            run = Run(each.text, each.line, tuple(origins), "SOURCE_DATE_EPOCH" in self._variables)
            self.steps.append(run if each.name == "RUN" else Step(each.text, each.line))
            return
        if each.name == "HEALTHCHECK":
            self.settings["Healthcheck"] = self._healthcheck(each)
        else:
            flags_of(self._dockerfile, each)
            getattr(self, f"_{each.name.lower()}")(each)
        if each.name != "WORKDIR":
            self.steps.append(Step(each.text, each.line))

    # Each is named for its instruction.

    def _arg(self, each: Instruction) -> None:
        for name, default in _arguments(self._dockerfile, each):
            value = self._given.get(name)
            if value is None:
                value = self._global.get(name) if default is None else self._expanded(default, each.line)
            if value is not None:
                self._variables[name] = value

    def _env(self, each: Instruction) -> None:
        lines: list[str] = self.settings.get("Env") or []
        for name, value in self._pairs(each):
            self._variables[name] = value
            new = f"{name}={value}"
            at = [n for n, line in enumerate(lines) if line.partition("=")[0] == name]
            lines = [*lines[: at[0]], new, *lines[at[0] + 1 :]] if at else [*lines, new]
        self.settings["Env"] = lines

    def _label(self, each: Instruction) -> None:
        self.settings["Labels"] = {**(self.settings.get("Labels") or {}), **dict(self._pairs(each))}

    def _workdir(self, each: Instruction) -> None:
        word = self._only(each)
        path = self._absolute(word, keep_slash=False)
        self.settings["WorkingDir"] = word if word.startswith("/") else path
        if path == "/":
            self.steps.append(Step(each.text, each.line))
        else:
            self.steps.append(Folder(each.text, each.line, path, str(self.settings.get("User") or "")))

    def _user(self, each: Instruction) -> None:
        self.settings["User"] = self._only(each)

    def _expose(self, each: Instruction) -> None:
        words = [word for arg in each.args for word in self._dockerfile.words(arg, self._variables, each.line)]
        if not words:
            self._dockerfile.fail(each.line, "EXPOSE names no port.")
        ports: Json = {port: {} for word in words for port in self._ports(word, each.line)}
        self.settings["ExposedPorts"] = {**(self.settings.get("ExposedPorts") or {}), **ports}

    def _volume(self, each: Instruction) -> None:
        paths = [self._expanded(word.strip(), each.line) for word in each.args]
        if not paths or not all(paths):
            self._dockerfile.fail(each.line, "VOLUME names no path.")
        self.settings["Volumes"] = {**(self.settings.get("Volumes") or {}), **{path: {} for path in paths}}

    def _stopsignal(self, each: Instruction) -> None:
        name = self._only(each)
        numbered = re.fullmatch(r"0*[1-9][0-9]{0,5}", name)
        if not numbered and name.upper().removeprefix("SIG") not in _SIGNALS:
            self._dockerfile.fail(each.line, f"{shown(name)!r} is no signal.", "Write it like SIGTERM.")
        self.settings["StopSignal"] = name

    def _shell(self, each: Instruction) -> None:
        if not each.json or not each.args:
            self._dockerfile.fail(each.line, "SHELL takes a JSON list.", 'Write it like SHELL ["/bin/sh", "-c"].')
        self.settings["Shell"] = list(each.args)

    def _cmd(self, each: Instruction) -> None:
        self._set_command("Cmd", each)
        self.settings["ArgsEscaped"] = True
        self._has_cmd = True

    def _entrypoint(self, each: Instruction) -> None:
        self._set_command("Entrypoint", each)
        if not self._has_cmd:
            self.settings.pop("Cmd", None)

    def _maintainer(self, each: Instruction) -> None:
        if not each.args:
            self._dockerfile.fail(each.line, "MAINTAINER names nobody.")
        self.author = each.args[0]

    def _healthcheck(self, each: Instruction) -> Json:
        flags = flags_of(self._dockerfile, each)
        kind = each.args[0].upper() if each.args else ""
        if kind == "NONE" and len(each.args) == 1:
            return {"Test": ["NONE"]}
        if kind != "CMD" or len(each.args) < 2:
            self._dockerfile.fail(each.line, "HEALTHCHECK takes CMD and a command, or NONE alone.")
        found: Json = {"Test": ["CMD" if each.json else "CMD-SHELL", *each.args[1:]]}
        for flag, key in (
            ("interval", "Interval"),
            ("timeout", "Timeout"),
            ("start-period", "StartPeriod"),
            ("start-interval", "StartInterval"),
        ):
            if length := self._duration(flags.get(flag, ""), flag, each.line):
                found[key] = length
        retries = flags.get("retries", "0")
        if not (retries.isascii() and retries.isdecimal() and int(retries) < 1 << 31):
            self._dockerfile.fail(each.line, f"--retries={shown(retries)} is no number.")
        if int(retries):
            found["Retries"] = int(retries)
        return found

    def _copy(self, each: Instruction, origin: int | str | BaseImage | None) -> None:
        if origin == PACKAGES:
            remedy = f"RUN --mount=type=bind,from={PACKAGES},target=/{PACKAGES} /{PACKAGES}/install"
            self._dockerfile.fail(each.line, "Packages are installed, not copied.", remedy)
        flags = flags_of(self._dockerfile, each)
        *words, last = each.args or ("",)
        if not words:
            self._dockerfile.fail(each.line, f"{each.name} needs a source and a destination.")
        inline = {one.name: one for one in each.inline}
        sources: list[str] = []
        texts: list[tuple[str, bytes]] = []
        for word in words:
            document = None if each.json else parse_heredoc(word)
            if document and document.name in inline:
                texts.append((self._inline_name(document.name, each.line), self._inline(inline[document.name], each)))
            else:
                sources.append(self._source(self._expanded(word, each.line), each))
        destination = self._expanded(last, each.line)
        if not each.json and parse_heredoc(last):
            self._dockerfile.fail(each.line, "A here-document can't be the destination.")
        self.steps.append(
            Copy(
                each.text,
                each.line,
                tuple(sources),
                self._absolute(destination or ".", keep_slash=True),
                origin,
                self._expanded(flags.get("chown", ""), each.line),
                self._mode(self._expanded(flags.get("chmod", ""), each.line), each.line),
                tuple(texts),
                unpacks=each.name == "ADD",
            )
        )

    # What these share.

    def _expanded(self, word: str, line: int) -> str:
        return self._dockerfile.expand(word, self._variables, line)

    def _only(self, each: Instruction) -> str:
        value = self._expanded(each.args[0], each.line) if each.args else ""
        if not value and each.name != "WORKDIR":
            self._dockerfile.fail(each.line, f"{each.name} is empty.")
        return value

    def _pairs(self, each: Instruction) -> list[tuple[str, str]]:
        if not each.args:
            self._dockerfile.fail(each.line, f"{each.name} names nothing.")
        words = [self._expanded(word, each.line) for word in each.args]
        pairs = list(zip(words[::2], words[1::2], strict=True))
        if not all(name for name, _ in pairs):
            self._dockerfile.fail(each.line, f"A name in {each.name} is empty.")
        return pairs

    def _set_command(self, key: str, each: Instruction) -> None:
        shell = [] if each.json else self.settings.get("Shell") or _SHELL
        if not each.json and not each.args:
            self._dockerfile.fail(each.line, f"{each.name} names nothing to run.", f"Write {each.name} [] for none.")
        command = [*shell, *each.args]
        if command:
            self.settings[key] = command
        else:
            self.settings.pop(key, None)

    def _absolute(self, path: str, *, keep_slash: bool) -> str:
        """A path from the working directory on; it keeps its last slash where that says it is a folder."""
        joined = posixpath.join("/", str(self.settings.get("WorkingDir") or "/"), path)
        clean = "/" + posixpath.normpath(joined).lstrip("/")
        folder = path.endswith(("/", "/.")) or path == "."
        return clean + "/" if keep_slash and folder and clean != "/" else clean

    def _source(self, path: str, each: Instruction) -> str:
        if each.name == "ADD" and re.match(r"https?://|git://|git@|ssh://|github\.com/|.*\.git(#|$)", path):
            self._dockerfile.beyond(each.line, f"ADD {shown(path)} would fetch it.")
            return path
        return posixpath.normpath("/" + path).lstrip("/")

    def _inline_name(self, name: str, line: int) -> str:
        if "/" in name or name in (".", ".."):
            self._dockerfile.fail(line, f"The here-document {shown(name)!r} has a path for a name.")
        return name

    def _inline(self, one: Inline, each: Instruction) -> bytes:
        text = self._dockerfile.expand_inline(one.text, self._variables, each.line) if one.expand else one.text
        return text.encode()

    def _mode(self, text: str, line: int) -> int | None:
        if not text:
            return None
        if not re.fullmatch(r"0*[0-7]{1,4}", text):
            self._dockerfile.beyond(line, f"--chmod={shown(text)} is no octal number up to 7777.")
            return None
        return int(text, 8)

    def _ports(self, word: str, line: int) -> Iterator[str]:
        numbers, _, protocol = word.rpartition(":")[2].partition("/")
        first, _, last = numbers.partition("-")
        last = last or first
        protocol = protocol.lower() or "tcp"
        fine = all(re.fullmatch(r"[0-9]{1,5}", each) and int(each) < 1 << 16 for each in (first, last))
        if not fine or int(first) > int(last) or protocol not in ("tcp", "udp", "sctp"):
            self._dockerfile.fail(line, f"{shown(word)!r} is no port.", "Write it like 8000, 53/udp or 8000-8010.")
        return (f"{port}/{protocol}" for port in range(int(first), int(last) + 1))

    def _duration(self, text: str, flag: str, line: int) -> int:
        """Nanoseconds (Go's time.ParseDuration)."""
        text = text.removeprefix("+")
        if text in ("", "0"):
            return 0
        length = sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION.findall(text))
        if _DURATION.sub("", text) or (length and not 10**6 <= length < 1 << 63):
            self._dockerfile.fail(line, f"--{flag}={shown(text)} is no duration of a millisecond or more.")
        return round(length)


def _copied(settings: Json) -> Json:
    return {key: list(each) if isinstance(each, list) else each for key, each in settings.items()}
