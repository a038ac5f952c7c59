"""What in a Dockerfile keeps its image from coming out the same twice, before anything is built.

:mod:`reprobuild.image.lint.rules` says why of each rule; here is how it is seen. Nothing is fetched or run. What a RUN
does is read by :mod:`reprobuild.image.lint.shell`: scripts that are copied into the image, programs and variables
without a default aren't looked into, and ONBUILD isn't either.
"""

import posixpath
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2b_dockerfile_utils import PatternMatcher

from reprobuild.errors import BadInput, shown
from reprobuild.files import read_text
from reprobuild.image.dockerfile import Dockerfile, Instruction, Stage, directives, parse
from reprobuild.image.lint import shell
from reprobuild.image.lint.checks import CHECKS
from reprobuild.image.lint.rules import RULES, Rule
from reprobuild.image.lint.run import COMMIT, EPOCH, Found, Run, assigned, commands_of, context_text
from reprobuild.image.origins import global_arguments, stage_like
from reprobuild.image.stages import NAMED_CONTEXTS, PINNED
from reprobuild.oci.model import Platform

#: What a Dockerfile may copy from without a digest: contexts that this project makes from locks.

_PLATFORM = Platform("linux", "amd64")
#: Rules whose remedy is for a whole RUN: the first command of each that breaks one is enough.
_ONCE = frozenset(
    "moving-archive apt-lists apt-cache apt-logs ldconfig-cache shadow-date bytecode download-cache".split()
)
#: Programs to which SOURCE_DATE_EPOCH makes no difference.
_PLAIN = frozenset(
    ": [ addgroup apk cat cd chmod chown cp echo exit export find grep groupadd ln ls mkdir mv printf rm rmdir sed set "
    "test touch true unlink".split()
)
_WAIVER = re.compile(r"\s*#\s*reprobuild:\s*allow\b[ \t]*(\S*)[ \t]*(.*)")


@dataclass(frozen=True, slots=True)
class Finding:
    """A place in a Dockerfile that a rule speaks of.

    Attributes:
        where: the file, as it was named.
        line: from 1.
        what: what stands there.
    """

    rule: Rule
    where: str
    line: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a file, and how many findings its waivers took away."""

    findings: tuple[Finding, ...]
    waived: int


def rules() -> tuple[Rule, ...]:
    """Every rule, in the order of the documentation."""
    return tuple(RULES.values())


def lint(path: Path, contexts: tuple[Path, ...] = ()) -> Report:
    """Look through a Dockerfile.

    Args:
        contexts: folders that may be its build context, besides its own, for .dockerignore and requirements.

    Raises:
        BadInput: it can't be read, or is no Dockerfile.
    """
    return lint_text(read_text(path), str(path), (path.parent, *contexts), path.name)


def lint_text(text: str, where: str, folders: tuple[Path, ...] = (), name: str = "Dockerfile") -> Report:
    """The same for a text; ``where`` names it in messages, ``name`` is the file's.

    Raises:
        BadInput: it is no Dockerfile.
    """
    dockerfile = parse(text, where)
    lines = text.removeprefix("\ufeff").split("\n")
    found: dict[tuple[str, int], str] = {}
    for rule, line, what in (
        *_frontend(text),
        *_Stages(dockerfile, lines, folders, name).findings(),
    ):
        found.setdefault((rule, line), shown(" ".join(what.split()), 120))
    return _waived(dockerfile, lines, where, found)


# --- waivers ---------------------------------------------------------------------------------------------------------


def _waived(dockerfile: Dockerfile, lines: list[str], where: str, found: Mapping[tuple[str, int], str]) -> Report:
    spans = _spans(dockerfile)
    waivers, left = _waivers(lines, spans)
    used: set[tuple[str, int]] = set()
    waived = 0
    for (rule, line), what in found.items():
        key = (rule, bisect_right(spans, line - 1))
        if key in waivers:
            used.add(key)
            waived += 1
        else:
            left[rule, line] = what
    left |= {("unused-waiver", line): f"allow {key[0]}" for key, line in waivers.items() if key not in used}
    order = list(RULES)
    findings = (Finding(RULES[rule], where, line, what) for (rule, line), what in left.items())
    return Report(tuple(sorted(findings, key=lambda each: (each.line, order.index(each.rule.name)))), waived)


def _spans(dockerfile: Dockerfile) -> list[int]:
    """The last line of each instruction: what is below one belongs to the next, comments too."""
    ends = [each.end for each in dockerfile.arguments]
    for stage in dockerfile.stages:
        ends += [stage.end, *(each.end for each in stage.instructions)]
    return ends


def _waivers(lines: list[str], spans: list[int]) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], str]]:
    """Rule and instruction that each waiver names, with its line; and those that name none."""
    waivers: dict[tuple[str, int], int] = {}
    bad: dict[tuple[str, int], str] = {}
    for line, text in enumerate(lines, 1):
        if match := _WAIVER.fullmatch(text.rstrip("\r")):
            rule, reason = match[1], match[2].strip()
            if rule not in RULES:
                bad["bad-waiver", line] = f"there is no rule {shown(rule)!r}" if rule else "it names no rule"
            elif not reason:
                bad["bad-waiver", line] = f"allow {rule} has no reason"
            else:
                waivers[rule, bisect_right(spans, line - 1)] = line
    return waivers, bad


# --- stages ----------------------------------------------------------------------------------------------------------


def _frontend(text: str) -> Iterator[Found]:
    for number, name, value in directives(text):
        if name == "syntax" and not PINNED.fullmatch(value.partition(" ")[0]):
            yield "unpinned-frontend", number, value


@dataclass(slots=True)
class _State:
    """What a stage has set so far; a stage that starts from it goes on with it."""

    variables: dict[str, str] = field(default_factory=dict)
    sources: str = ""
    shell: bool = True


class _Stages:
    """The walk through a Dockerfile's stages."""

    def __init__(self, dockerfile: Dockerfile, lines: list[str], folders: tuple[Path, ...], name: str) -> None:
        self._file, self._lines, self._folders, self._name = dockerfile, lines, folders, name
        self._global = self._arguments()
        self._parents = [self._stage_of_base(number) for number in range(len(dockerfile.stages))]
        self._exposed = self._exposure()
        self._states: list[_State] = []
        self._missing: set[int] = set()

    def findings(self) -> Iterator[Found]:
        """All that is found, stage by stage."""
        for number, stage in enumerate(self._file.stages):
            parent = self._stage(self._base(stage), number)
            begun = self._states[parent] if parent is not None else _State()
            state = _State(dict(begun.variables), begun.sources, begun.shell)
            self._states.append(state)
            if parent is None:
                yield from self._image(self._base(stage), stage.line, number)
            for each in stage.instructions:
                yield from self._instruction(number, each, state)

    def _instruction(self, number: int, each: Instruction, state: _State) -> Iterator[Found]:
        if each.name == "ENV":
            pairs = zip(each.args[::2], each.args[1::2], strict=False)
            state.variables |= {name: value.strip("\"'") for name, value in pairs}
        elif each.name == "ARG":
            for word in each.args:
                name, equals, value = word.partition("=")
                known = value.strip("\"'") if equals else self._global.get(name, "")
                state.variables[name] = known or ("1" if name == EPOCH else "")
        elif each.name == "SHELL":
            state.shell = bool(each.args) and posixpath.basename(each.args[0]) in shell.SHELLS
        elif each.name in ("COPY", "ADD"):
            yield from self._copy(number, each, state)
        elif each.name == "RUN" and state.shell:
            yield from self._run(number, each, state)

    def _copy(self, number: int, each: Instruction, state: _State) -> Iterator[Found]:
        flags = _flags(each)
        state.sources += "".join(f"\n{one.text}" for one in each.inline)
        origin = flags.get("from", [""])[-1]
        if origin:
            if self._stage(origin, number) is None:
                yield from self._image(self._expand(origin), each.line, number)
            return
        *sources, target = each.args or ("",)
        for source in sources:
            if each.name == "ADD" and (found := _fetched(_replaced(source, state.variables), flags)):
                yield found, each.line, each.text
            elif _is_git(source) or (source.strip("./*") == "" and not each.inline and self._has_git()):
                yield "copy-git", each.line, each.text
            elif "/apt" in target or "sources" in target:
                state.sources += self._near(source)

    def _run(self, number: int, each: Instruction, state: _State) -> Iterator[Found]:
        mounts = tuple(_pairs(mount) for mount in _flags(each).get("mount", []))
        for mount in mounts:
            if mount.get("from") and self._stage(mount["from"], number) is None:
                yield from self._image(self._expand(mount["from"]), each.line, number)
        commands = commands_of(each, self._lines, self._file.escape)
        state.sources += f"\n{each.text}" + "".join(f"\n{one.text}" for one in each.inline)
        variables = {**state.variables, **dict(pair for command in commands for pair in assigned(command))}
        plain = all(command.program in _PLAIN for command in commands if command.words)
        if (
            not plain
            and not state.variables.get(EPOCH)
            and number not in self._missing
            and self._root(number) not in self._missing
        ):
            self._missing |= {number, self._root(number)}
            yield "missing-epoch", each.line, each.text
        run = Run(
            each, commands, variables,
            tuple(mount for mount in mounts if mount.get("type", "bind") in ("cache", "tmpfs", "bind")),
            self._exposed[number], state.sources, self._base(self._file.stages[self._root(number)]), self._folders,
        )  # fmt: skip
        told: set[str] = set()
        for check in CHECKS:
            for found in check(run):
                if found[0] not in told or found[0] not in _ONCE:
                    yield found
                told.add(found[0])

    def _image(self, name: str, line: int, number: int) -> Iterator[Found]:
        """An image without a digest. A name that only --build-arg knows says nothing."""
        if not name or name.lower() in ("scratch", *NAMED_CONTEXTS) or PINNED.fullmatch(name):
            return
        if "@" in name:
            yield "unpinned-image", line, f"{name} (no digest: sha256: and 64 hex digits)"
            return
        near = stage_like(self._file, name, number)
        latest = name.rpartition("/")[2].partition(":")[2] in ("", "latest")
        hint = f" (did you mean the stage {near}?)" if near else ""
        yield "latest-tag" if latest else "unpinned-image", line, f"{name}{hint}"

    # What these share.

    def _arguments(self) -> Mapping[str, str]:
        try:
            return global_arguments(self._file, _PLATFORM, {}, "")
        except BadInput:  # a variable that only --build-arg sets
            return {}

    def _expand(self, word: str) -> str:
        try:
            return self._file.expand(word, self._global, 1)
        except BadInput:
            return ""

    def _base(self, stage: Stage) -> str:
        return self._expand(stage.base)

    def _stage(self, name: str, before: int) -> int | None:
        if name.isdecimal() and len(name) < 5:
            return int(name) if int(name) < before else None
        return self._file.stage_named(name.lower(), before)

    def _root(self, number: int) -> int:
        """The first of the stages that one goes back to."""
        while (parent := self._parents[number]) is not None:
            number = parent
        return number

    def _stage_of_base(self, number: int) -> int | None:
        base = self._base(self._file.stages[number])
        return None if base.isdecimal() else self._file.stage_named(base.lower(), number)

    def _exposure(self) -> list[frozenset[str]]:
        """What of each stage gets into an image: all where no other stage uses it, else what is copied from it."""
        stages = self._file.stages
        exposed: list[set[str] | None] = [None] * len(stages)
        for number in reversed(range(len(stages))):
            mine = exposed[number]
            if mine is None:
                mine = exposed[number] = {"/"}
            parent = self._parents[number]
            if parent is not None:
                exposed[parent] = (exposed[parent] or set()) | mine
            for each in stages[number].instructions:
                for other, paths in self._taken(each, number):
                    exposed[other] = (exposed[other] or set()) | paths
        return [frozenset(each or ()) for each in exposed]

    def _taken(self, each: Instruction, number: int) -> Iterator[tuple[int, set[str]]]:
        flags = _flags(each)
        if each.name == "COPY" and (other := self._stage(flags.get("from", [""])[-1], number)) is not None:
            yield (
                other,
                {posixpath.normpath("/" + source.lstrip("/")) for source in each.args[:-1] if "$" not in source},
            )
        for mount in flags.get("mount", []) if each.name == "RUN" else ():
            if (other := self._stage(_pairs(mount).get("from", ""), number)) is not None:
                yield other, set()

    def _has_git(self) -> bool:
        """Whether the build context has a .git that nothing ignores, as far as one can tell."""
        if not self._folders:
            return True
        context = self._context()
        ignoring = (self._folders[0] / f"{self._name}.dockerignore", context / ".dockerignore")
        return (context / ".git").exists() and not any(path.is_file() and _matches_git(path) for path in ignoring)

    def _context(self) -> Path:
        """The folder in which most of what is copied lies; the first of those."""
        sources = {
            posixpath.normpath("/" + source).lstrip("/")
            for stage in self._file.stages
            for each in stage.instructions
            if each.name in ("COPY", "ADD") and "from" not in _flags(each)
            for source in each.args[:-1]
            if "$" not in source and "\0" not in source
        }
        return max(self._folders, key=lambda folder: sum(_exists(folder / source) for source in sources if source))

    def _near(self, name: str) -> str:
        """A small text file of the build context; without one, a date that gives it the benefit of the doubt."""
        return context_text(self._folders, name) or "/00000000T000000Z"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no path at all
        return False


def _replaced(word: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1]) or match[0], word)


def _matches_git(path: Path) -> bool:
    try:
        matcher = PatternMatcher(read_text(path).removeprefix("\ufeff").splitlines())
        return bool(matcher.matches(".git") or matcher.matches(".git/index"))
    except (ValueError, BadInput, re.error):
        return False


def _flags(each: Instruction) -> dict[str, list[str]]:
    """An instruction's flags by name; unlike the assembler, the linter takes any."""
    found: dict[str, list[str]] = {}
    for flag in each.flags:
        name, _, value = flag.removeprefix("--").partition("=")
        found.setdefault(name, []).append(value)
    return found


def _pairs(mount: str) -> dict[str, str]:
    pairs = dict(part.partition("=")[::2] for part in mount.split(","))
    target = pairs.get("target") or pairs.get("dst") or pairs.get("destination") or ""
    return {**pairs, "target": target.replace("~", "/root").replace("$HOME", "/root")}


def _fetched(source: str, flags: Mapping[str, list[str]]) -> str:
    """The rule that a source of ADD breaks; empty for none."""
    if re.match(r"git@|git://|ssh://", source) or re.match(r"https?://[^#?]+\.git(#|$)", source):
        commit = source.partition("#")[2].partition(":")[0]
        return "" if COMMIT.fullmatch(commit) or commit.startswith("$") or flags.get("checksum") else "git-moving"
    return "add-unverified" if re.match(r"https?://|ftp://", source) and not flags.get("checksum") else ""


def _is_git(source: str) -> bool:
    return source.rstrip("/").rpartition("/")[2] == ".git" or "/.git/" in f"/{source}"
