"""What each instruction of a Dockerfile does to the image, every variable expanded.

Sources: the Dockerfile reference and, where that is silent, BuildKit's frontend (``frontend/dockerfile``).
"""

import difflib
import posixpath
import re
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from e2b_dockerfile_utils import parse_heredoc

from reprobuild.errors import BadInput, shown
from reprobuild.image.dockerfile import Dockerfile, Inline, Instruction, Stage, flags_of
from reprobuild.image.origins import arguments_of, global_arguments, needed
from reprobuild.image.stages import NAMED_CONTEXTS, PACKAGES, BaseImage, Copy, Folder, ImageSpec, Run, StageSpec, Step
from reprobuild.oci.model import ImageConfig, Json, Platform

#: PATH in an image from scratch, as BuildKit sets it.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL = ("/bin/sh", "-c")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION_LIMIT = 100  # characters
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_NANOSECONDS["h"] = 3600 * 10**9
_SIGNALS = {each.name.removeprefix("SIG") for each in signal.Signals} | {f"RTMIN+{n}" for n in range(1, 16)}
_SIGNALS |= {f"RTMAX-{n}" for n in range(1, 15)}
#: Build arguments that need no ARG: each of BuildKit's own that a build without RUN has no use for.
_CHANGE = r"[ugoa]*(?:[-+=](?:[ugo]|[rwxXst]*))+"
#: What chmod(1) takes, and Dockerfiles since 1.14 do.
_SYMBOLIC = re.compile(f"{_CHANGE}(?:,{_CHANGE})*")
_UNDECLARED = re.compile(r"SOURCE_DATE_EPOCH|BUILDKIT_\w+|(?i:(?:http|https|ftp|no|all)_proxy)")


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
    stages = needed(dockerfile, variables, target, platform, contexts)
    places = {number: place for place, number in enumerate(stages)}
    done: list[StageSpec] = []
    makings: list[_Making] = []
    for number, of_stage in stages.items():
        stage, base = dockerfile.stages[number], of_stage.base
        making = _Making(dockerfile, variables, given)
        if isinstance(base, int):
            base = places[base]
            making.go_on(makings[base])
        else:
            making.begin(stage, config_of(base) if base else None)
        makings.append(making)
        for each, origins in zip(stage.instructions, of_stage.origins, strict=True):
            making.do(each, [places[origin] if isinstance(origin, int) else origin for origin in origins])
        settings, author = making.settings, making.author
        done.append(StageSpec(stage.name, base, of_stage.platform, tuple(making.steps), settings, author))
    return ImageSpec(tuple(done))


def _check_build_args(dockerfile: Dockerfile, build_args: Mapping[str, str], predefined: Iterable[str]) -> None:
    instructions = [*dockerfile.arguments, *(each for stage in dockerfile.stages for each in stage.instructions)]
    declared = {word.partition("=")[0] for each in instructions if each.name == "ARG" for word in each.args}
    declared |= set(predefined)
    for name in build_args:
        if name not in declared and not _UNDECLARED.fullmatch(name):
            near = difflib.get_close_matches(name, declared, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]}?" if near else "Declare it there, or leave it out."
            raise BadInput(f"{dockerfile.where} has no ARG {shown(name)}.", hint)


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
        for name, default in arguments_of(self._dockerfile, each):
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
        if not re.fullmatch(r"0*[0-9]{1,10}", retries) or int(retries[-10:]) >= 1 << 31:
            self._dockerfile.fail(each.line, f"--retries={shown(retries)} is no number.")
        if times := int(retries[-10:]):
            found["Retries"] = times
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
        mode = self._mode(self._expanded(flags.get("chmod", ""), each.line), each.line)
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
                mode if isinstance(mode, int) else None,
                tuple(texts),
                unpacks=each.name == "ADD",
                symbols=mode if isinstance(mode, str) else "",
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

    def _mode(self, text: str, line: int) -> int | str | None:
        """Permission bits, or changes of them."""
        if not text:
            return None
        if re.fullmatch(r"0*[0-7]{1,4}", text):
            return int(text[-4:], 8)
        if not _SYMBOLIC.fullmatch(text):
            self._dockerfile.fail(
                line, f"--chmod={shown(text)} is no octal number up to 7777, and no change like u=rw,go=r."
            )
        self._dockerfile.beyond(line, f"--chmod={shown(text)} is no octal number, and can't be assembled.")
        return text

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
        found = _DURATION.findall(text[:_DURATION_LIMIT])
        length = sum(float(number) * _NANOSECONDS[unit] for number, unit in found)
        if len(text) > _DURATION_LIMIT or _DURATION.sub("", text) or (length and not 10**6 <= length < 1 << 63):
            self._dockerfile.fail(line, f"--{flag}={shown(text)} is no duration of a millisecond or more.")
        return round(length)


def _copied(settings: Json) -> Json:
    return {key: list(each) if isinstance(each, list) else each for key, each in settings.items()}
