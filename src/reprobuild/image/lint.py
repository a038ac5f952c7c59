"""What in a Dockerfile keeps its image from coming out the same twice, before anything is built.

:mod:`reprobuild.image.rules` says why of each rule; here is how it is seen. Nothing is fetched or run. What a RUN does is
read by :mod:`reprobuild.image.shell`: scripts that are copied into the image, programs and variables without a default
aren't looked into, and ONBUILD isn't either.
"""

import fnmatch
import posixpath
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2b_dockerfile_utils import PatternMatcher

from reprobuild.errors import BadInput, shown
from reprobuild.files import read_text
from reprobuild.image import shell
from reprobuild.image.dockerfile import Dockerfile, Instruction, Stage, parse
from reprobuild.image.rules import RULES, Rule
from reprobuild.image.shell import Command
from reprobuild.image.stages import PINNED, global_arguments
from reprobuild.oci.model import Platform

#: What a Dockerfile may copy from without a digest: contexts that this project makes from locks.
_CONTEXTS = ("environment", "apt")
_PLATFORM = Platform("linux", "amd64")
_EPOCH = "SOURCE_DATE_EPOCH"
_WAIVER = re.compile(r"\s*#\s*reprobuild:\s*allow\b[ \t]*(\S*)[ \t]*(.*)")
_HEX = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_DATED = re.compile(r"/\d{8}T\d{6}Z|snapshot\.(debian|ubuntu)\.|APT::Snapshot|--snapshot|\bfile:/|\bcopy:/")


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


#: A rule's name, a line and what stands there.
_Found = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class _Run:
    """A RUN with what it can see.

    Attributes:
        variables: the values of ENV and ARG here and of assignments in it, unexpanded; empty for an ARG without one.
        mounted: what its mounts, other than of secrets, hide from the image.
        exposed: folders of the stage that get into an image.
        sources: all that the stage said so far, for what it says of apt's archives.
        images: what FROM names, expanded.
    """

    instruction: Instruction
    commands: tuple[Command, ...]
    variables: Mapping[str, str]
    mounts: tuple[Mapping[str, str], ...]
    exposed: frozenset[str]
    sources: str
    base: str
    folders: tuple[Path, ...]

    def on(self, *names: str) -> bool:
        """Whether one of some variables is set and isn't 0 or false."""
        return any(self.variables.get(name, "0").lower() not in ("", "0", "false", "no", "off") for name in names)

    def expand(self, text: str) -> str:
        """A word with the variables replaced that have a value here."""
        return re.sub(r"\$\{?(\w+)(?::-[^}]*)?\}?", lambda match: self.variables.get(match[1]) or match[0], text)

    def keeps(self, path: str, after: int) -> bool:
        """Whether what the command with a number leaves at a path gets into the image."""
        if any(_covers(mount.get("target", ""), path) for mount in self.mounts):
            return False
        if not any(_covers(each, path) or _covers(path, each) for each in self.exposed):
            return False
        return not any(_removes(each, self.expand, path) for each in self.commands[after:])

    def reaches(self, number: int, seen: frozenset[int] = frozenset()) -> bool:
        """Whether the output of a command gets into a file, as far as one can tell."""
        each = self.commands[number]
        if each.writes:
            return not all(_is_removed(self, redirect.target, number) for redirect in each.redirects if redirect.writes)
        return number not in seen and each.feeds is not None and self._takes(each.feeds, seen | {number})

    def _takes(self, number: int, seen: frozenset[int]) -> bool:
        """The same of what a command gets, as its input or among its words."""
        each = self.commands[number]
        if not each.words or each.program in ("export", "local", "declare", "readonly"):
            names = {name for name, _ in each.assignments} | {word.partition("=")[0] for word in each.words[1:]}
            return any(self._uses(later, names, seen) for later in range(number + 1, len(self.commands)))
        if each.program in ("tee", "dd", "sponge") or (
            each.program in ("sed", "perl") and each.has("-i", "--in-place")
        ):
            return True
        return self.reaches(number, seen) if each.program in _PRINTERS else each.program not in _JUDGES

    def _uses(self, number: int, names: set[str], seen: frozenset[int]) -> bool:
        return (
            number not in seen
            and bool(self.commands[number].variables & names)
            and (self.reaches(number, seen) or self._takes(number, seen | {number}))
        )


#: Programs that hand on what they are given, and programs that only judge it or undo it.
_PRINTERS = frozenset("echo printf cat grep egrep sed awk cut tr head tail sort uniq xxd od hexdump base64 rev fold jq "
                      "sha256sum sha1sum md5sum sha512sum basename dirname gzip xz bzip2 zstd wc".split())  # fmt: skip
_JUDGES = frozenset(": true [ [[ test rm rmdir cd kill sleep case trap exit return pushd popd if wait".split())


def rules() -> tuple[Rule, ...]:
    """Every rule, in the order of the documentation."""
    return tuple(RULES.values())


def lint(path: Path, contexts: tuple[Path, ...] = ()) -> Report:
    """Look through a Dockerfile.

    Args:
        contexts: folders that may be its build context, besides its own: where .dockerignore and requirements are sought.

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
        *_frontend(lines),
        *_Stages(dockerfile, lines, folders, name).findings(),
    ):
        found.setdefault((rule, line), shown(" ".join(what.split()), 120))
    return _waived(dockerfile, lines, where, found)


# --- waivers -----------------------------------------------------------------------------------------------------------


def _waived(dockerfile: Dockerfile, lines: list[str], where: str, found: Mapping[tuple[str, int], str]) -> Report:
    spans = _spans(dockerfile)
    waivers, bad = _waivers(lines, spans)
    left: dict[tuple[str, int], str] = dict(bad)
    used: set[tuple[str, int]] = set()
    for (rule, line), what in found.items():
        key = (rule, bisect_right(spans, line - 1))
        if key in waivers:
            used.add(key)
        else:
            left[rule, line] = what
    left |= {("unused-waiver", line): f"allow {key[0]}" for key, line in waivers.items() if key not in used}
    findings = tuple(Finding(RULES[rule], where, line, what) for (rule, line), what in left.items())
    order = list(RULES)
    return Report(
        tuple(sorted(findings, key=lambda each: (each.line, order.index(each.rule.name)))),
        len(found) - (len(left) - len([1 for rule, _ in left if rule in ("bad-waiver", "unused-waiver")])),
    )


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


# --- stages ------------------------------------------------------------------------------------------------------------


def _frontend(lines: list[str]) -> Iterator[_Found]:
    """Parser directives stand above everything else."""
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"#\s*([A-Za-z]\w*)\s*=\s*(\S+)\s*", line)
        if not match or match[1].lower() not in ("syntax", "escape", "check"):
            return
        if match[1].lower() == "syntax" and not PINNED.fullmatch(match[2]):
            yield "unpinned-frontend", number, line


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
        self._exposed = self._exposure()
        self._states: list[_State] = []
        self._missing: set[int] = set()

    def findings(self) -> Iterator[_Found]:
        """All that is found, stage by stage."""
        for number, stage in enumerate(self._file.stages):
            parent = self._stage(self._base(stage), number)
            begun = self._states[parent] if parent is not None else _State()
            state = _State(dict(begun.variables), begun.sources, begun.shell)
            self._states.append(state)
            if parent is None:
                yield from _image(self._base(stage), stage.line)
            for each in stage.instructions:
                yield from self._instruction(number, each, state)

    def _instruction(self, number: int, each: Instruction, state: _State) -> Iterator[_Found]:
        if each.name == "ENV":
            pairs = zip(each.args[::2], each.args[1::2], strict=False)
            state.variables |= {name: value.strip("\"'") for name, value in pairs}
        elif each.name == "ARG":
            for word in each.args:
                name, equals, value = word.partition("=")
                known = value.strip("\"'") if equals else self._global.get(name, "")
                state.variables[name] = known or ("1" if name == _EPOCH else "")
        elif each.name == "SHELL":
            state.shell = bool(each.args) and posixpath.basename(each.args[0]) in shell.SHELLS
        elif each.name in ("COPY", "ADD"):
            yield from self._copy(number, each, state)
        elif each.name == "RUN" and state.shell:
            yield from self._run(number, each, state)

    def _copy(self, number: int, each: Instruction, state: _State) -> Iterator[_Found]:
        flags = _flags(each)
        state.sources += "".join(f"\n{one.text}" for one in each.inline)
        origin = flags.get("from", [""])[-1]
        if origin:
            if self._stage(origin, number) is None:
                yield from _image(self._expand(origin), each.line)
            return
        *sources, target = each.args or ("",)
        for source in sources:
            if each.name == "ADD" and (found := _fetched(source, flags)):
                yield found, each.line, f"ADD {source}"
            elif _is_git(source) or (source.strip("./*") == "" and not each.inline and not self._ignores_git()):
                yield "copy-git", each.line, each.text
            elif "/apt" in target or "sources" in target:
                state.sources += self._near(source)

    def _run(self, number: int, each: Instruction, state: _State) -> Iterator[_Found]:
        mounts = tuple(_pairs(mount) for mount in _flags(each).get("mount", []))
        for mount in mounts:
            if mount.get("from") and self._stage(mount["from"], number) is None:
                yield from _image(self._expand(mount["from"]), each.line)
        commands = _commands(each, self._lines, self._file.escape)
        state.sources += f"\n{each.text}" + "".join(f"\n{one.text}" for one in each.inline)
        variables = {**state.variables, **dict(pair for command in commands for pair in _assigned(command))}
        if not state.variables.get(_EPOCH) and number not in self._missing and self._root(number) not in self._missing:
            self._missing |= {number, self._root(number)}
            yield "missing-epoch", each.line, each.text
        run = _Run(
            each, commands, variables,
            tuple(mount for mount in mounts if mount.get("type", "bind") in ("cache", "tmpfs", "bind")),
            self._exposed[number], state.sources, self._base(self._file.stages[self._root(number)]), self._folders,
        )  # fmt: skip
        for check in _CHECKS:
            yield from check(run)

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
        while (parent := self._stage_of_base(number)) is not None:
            number = parent
        return number

    def _stage_of_base(self, number: int) -> int | None:
        base = self._base(self._file.stages[number])
        return None if base.isdecimal() else self._file.stage_named(base.lower(), number)

    def _exposure(self) -> list[frozenset[str]]:
        """What of each stage gets into an image: all of those that no other stage uses, and what is copied from others."""
        stages = self._file.stages
        exposed: list[set[str] | None] = [None] * len(stages)
        for number in reversed(range(len(stages))):
            mine = exposed[number]
            if mine is None:
                mine = exposed[number] = {"/"}
            parent = self._stage_of_base(number)
            if parent is not None:
                exposed[parent] = (exposed[parent] or set()) | mine
            for each in stages[number].instructions:
                for other, paths in self._taken(each, number):
                    exposed[other] = (exposed[other] or set()) | paths
        return [frozenset(each or ()) for each in exposed]

    def _taken(self, each: Instruction, number: int) -> Iterator[tuple[int, set[str]]]:
        flags = _flags(each)
        if each.name == "COPY" and (other := self._stage(flags.get("from", [""])[-1], number)) is not None:
            yield other, {posixpath.normpath("/" + source) for source in each.args[:-1] if "$" not in source}
        for mount in flags.get("mount", []) if each.name == "RUN" else ():
            if (other := self._stage(_pairs(mount).get("from", ""), number)) is not None:
                yield other, set()

    def _ignores_git(self) -> bool:
        for folder in self._folders:
            for path in (folder / f"{self._name}.dockerignore", folder / ".dockerignore"):
                if path.is_file() and _matches_git(path):
                    return True
        return False

    def _near(self, name: str) -> str:
        """A small text file of the build context; without one, a date that gives it the benefit of the doubt."""
        return _context_text(self._folders, name) or "/00000000T000000Z"


def _matches_git(path: Path) -> bool:
    try:
        matcher = PatternMatcher(read_text(path).removeprefix("\ufeff").splitlines())
        return bool(matcher.matches(".git") or matcher.matches(".git/index"))
    except (ValueError, BadInput, re.error):
        return False


def _context_text(folders: tuple[Path, ...], name: str) -> str:
    for folder in folders:
        for relative in dict.fromkeys((posixpath.normpath("/" + name).lstrip("/"), posixpath.basename(name))):
            path = folder / (relative or ".")
            try:
                if relative and path.is_file() and path.stat().st_size < 1 << 22:
                    return read_text(path)
            except (OSError, ValueError, BadInput):
                continue
    return ""


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


def _image(name: str, line: int) -> Iterator[_Found]:
    """An image without a digest. A name that only --build-arg knows says nothing."""
    if not name or name.lower() in ("scratch", *_CONTEXTS) or PINNED.fullmatch(name):
        return
    if "@" not in name and name.rpartition("/")[2].partition(":")[2] in ("", "latest"):
        yield "latest-tag", line, name
    else:
        yield "unpinned-image", line, name


def _fetched(source: str, flags: Mapping[str, list[str]]) -> str:
    """The rule that a source of ADD breaks; empty for none."""
    if re.match(r"git@|git://|ssh://", source) or re.match(r"https?://[^#?]+\.git(#|$)", source):
        commit = source.partition("#")[2].partition(":")[0]
        return "" if _HEX.fullmatch(commit) or commit.startswith("$") or flags.get("checksum") else "git-moving"
    return "add-unverified" if re.match(r"https?://|ftp://", source) and not flags.get("checksum") else ""


def _is_git(source: str) -> bool:
    return source.rstrip("/").rpartition("/")[2] == ".git" or "/.git/" in f"/{source}"


# --- what a RUN says ---------------------------------------------------------------------------------------------------


def _commands(each: Instruction, lines: list[str], escape: str) -> tuple[Command, ...]:
    if each.json:
        return shell.read_words(each.args, each.line) if each.args else ()
    text, starts, numbers = _script(each, lines, escape)
    return shell.read(text, lambda offset: numbers[max(bisect_right(starts, offset) - 1, 0)])


def _script(each: Instruction, lines: list[str], escape: str) -> tuple[str, list[int], list[int]]:
    """A RUN's text as the shell gets it, where each of its pieces starts, and on which line that piece stands."""
    documents = sum(one.text.count("\n") + 1 for one in each.inline)
    header_end = each.end - documents
    pieces: list[tuple[str, int]] = []
    continued = re.compile(rf"(^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
    for number in range(each.line, header_end + 1):
        raw = lines[number - 1].rstrip("\r")
        if raw.lstrip().startswith("#") or not raw.strip():
            continue
        if number == each.line:
            raw = _without_flags(raw, each)
        pieces.append((continued.sub(r"\1", raw), number))
    if documents:
        pieces.append(("\n", header_end))
        pieces += [(lines[number - 1] + "\n", number) for number in range(header_end + 1, each.end + 1)]
    starts, numbers, at = [], [], 0
    for piece, number in pieces:
        starts.append(at)
        numbers.append(number)
        at += len(piece)
    return "".join(piece for piece, _ in pieces), starts or [0], numbers or [each.line]


def _without_flags(raw: str, each: Instruction) -> str:
    """The first line without RUN and without its flags; flags on further lines are words that no rule knows."""
    rest = re.sub(r"^\ufeff?\s*\S+\s*", "", raw, count=1)
    for _ in each.flags:
        rest = re.sub(r"^--[a-z]+(=\S*)?\s*", "", rest, count=1)
    return rest


def _assigned(command: Command) -> Iterator[tuple[str, str]]:
    yield from command.assignments
    if command.program in ("export", "declare", "typeset", "readonly"):
        yield from (word.partition("=")[::2] for word in command.words[1:] if "=" in word)


def _covers(outer: str, inner: str) -> bool:
    """Whether a path, or a pattern, is another one or a folder above it."""
    outer = re.sub(r"(/\.?\*+)+$", "", outer.rstrip("/")) or ("/" if outer.startswith("/") else outer)
    if not outer:
        return False
    if outer == "/" or inner == outer or inner.startswith(f"{outer}/"):
        return True
    parts = inner.split("/")
    return any(fnmatch.fnmatchcase("/".join(parts[:n]), outer) for n in range(2, len(parts) + 1))


def _braces(word: str, depth: int = 3) -> list[str]:
    match = re.search(r"\{([^{}]*,[^{}]*)\}", word)
    if not match or depth == 0 or len(word) > 400:
        return [word]
    return [
        each
        for part in match[1].split(",")
        for each in _braces(word[: match.start()] + part + word[match.end() :], depth - 1)
    ]


def _removes(command: Command, expand: Callable[[str], str], path: str) -> bool:
    """Whether a command takes away, or empties, what is at a path."""
    home = re.compile(r"^(~|\$\{?HOME\}?)(?=/|$)")
    if command.program in ("rm", "shred", "unlink", "truncate"):
        words = command.words[1:]
    elif command.program == "find" and (command.has("-delete") or "rm" in command.words):
        words = tuple(word for word in command.words[1:3] if not word.startswith("-"))
    else:
        emptied = command.program in ("", ":", "true", "echo", "cat", "printf")
        words = tuple(each.target for each in command.redirects if emptied and each.operator in (">", ">|"))
        tools = _CLEANERS.get(command.program)
        if tools and any(word in tools[0] for word in command.words[1:]):
            words = tools[1]
    return any(_covers(home.sub("/root", one), path) for word in words for one in _braces(expand(word)))


#: What empties caches by itself: the words that say so, and what is gone then.
_CLEANERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "apt-get": (("distclean",), ("/var/lib/apt/lists", "/var/cache/apt")),
    "uv": (("clean",), ("/root/.cache/uv",)),
    "pip": (("purge",), ("/root/.cache/pip",)),
    "pip3": (("purge",), ("/root/.cache/pip",)),
}


def _is_removed(run: _Run, target: str, after: int) -> bool:
    return target.startswith("/") and not run.keeps(run.expand(target), after)


def _operands(command: Command, valued: str = "", skip: int = 2) -> list[str]:
    """The words that are no options, nor the values of those named."""
    found, words = [], iter(command.words[skip:])
    for word in words:
        if not word.startswith("-"):
            found.append(word)
        elif word in valued.split():
            next(words, None)
    return found


def _text(command: Command) -> str:
    return " ".join(command.words)


# --- packages ----------------------------------------------------------------------------------------------------------

_INSTALLING: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("apt-get", "apt", "aptitude"),
        ("install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "satisfy", "reinstall"),
    ),
    "apk": ("add", "upgrade"),
    **dict.fromkeys(
        ("yum", "dnf", "microdnf", "tdnf"), ("install", "update", "upgrade", "groupinstall", "builddep", "localinstall")
    ),
    "zypper": ("install", "in", "update", "up", "dup"),
}
_APT = ("apt-get", "apt", "aptitude")
_APT_VALUED = "-t --target-release -o --option -c --config-file"
_LOCAL = re.compile(r"\.{0,2}/|file:|copy:")


def _does(command: Command, programs: tuple[str, ...], verbs: tuple[str, ...]) -> bool:
    return command.program in programs and any(word in verbs for word in command.words[1:])


def _archives(run: _Run) -> Iterator[_Found]:
    for each in run.commands:
        verbs = _INSTALLING.get(each.program, ())
        pacman = each.program == "pacman" and any(re.match(r"-S[a-z]*", word) for word in each.words[1:])
        if not (pacman or any(word in verbs for word in each.words[1:])):
            continue
        wanted = [word for word in _operands(each, _APT_VALUED, 1) if word not in verbs]
        local = bool(wanted) and all(_LOCAL.match(run.expand(word)) or "*" in word for word in wanted)
        from_lock = any(mount.get("from") == "apt" for mount in run.mounts) or each.has("--no-download")
        if not (local or from_lock or _DATED.search(run.expand(run.sources))):
            yield "moving-archive", each.line, _text(each)


def _pip(command: Command) -> tuple[str, ...]:
    """The arguments of pip in ``pip …`` and ``python -m pip …``; empty for another program."""
    if re.fullmatch(r"pip[\d.]*", command.program):
        return command.words[1:]
    if re.fullmatch(r"(python|pypy)[\d.]*", command.program) and "pip" in command.words[1:]:
        at = command.words.index("pip")
        return command.words[at + 1 :] if command.words[at - 1] == "-m" else ()
    return ()


_PIP_VALUED = (
    "-r --requirement -c --constraint -i --index-url --extra-index-url -f --find-links -t --target --prefix --root "
    "--trusted-host --timeout --retries --progress-bar --platform --python-version --cache-dir -p --python --default-timeout "
    "--config-settings -C --global-option --upgrade-strategy --no-binary --only-binary --index --torch-backend --abi --proxy"
)


def _is_hashed(run: _Run, command: Command) -> bool:
    """Whether an install of pip's, or of uv's `pip` commands, takes only what has a hash, or what is at hand."""
    words = command.words
    if command.has("--require-hashes", "--no-index", "--dry-run") or run.on(
        "PIP_REQUIRE_HASHES", "UV_REQUIRE_HASHES", "PIP_NO_INDEX"
    ):
        return True
    wanted = _operands(command, f"{_PIP_VALUED} -e --editable", words.index("install") + 1 if "install" in words else 3)
    editable = [after for word, after in zip(words, words[1:], strict=False) if word in ("-e", "--editable")]
    files = [after for word, after in zip(words, words[1:], strict=False) if word in ("-r", "--requirement")]
    if "sync" in words:
        files, wanted = wanted, []
    if any("--hash=" in _context_text(run.folders, run.expand(file)) for file in files):
        return not wanted and not editable  # pip then wants one for everything (its manual: hash-checking mode)
    if files or not (wanted or editable):
        return False
    local = all(_is_local(run.expand(word)) for word in (*wanted, *editable))
    return (local and command.has("--no-deps")) or all("#sha256=" in word for word in wanted)


def _is_local(word: str) -> bool:
    return word.startswith((".", "/", "file:")) or word.endswith((".whl", ".tar.gz"))


def _python(run: _Run) -> Iterator[_Found]:
    for each in run.commands:
        words = each.words
        pip = _pip(each)
        if pip[:1] and "install" in pip and not _is_hashed(run, each):
            yield "pip-unhashed", each.line, _text(each)
        elif each.program == "pipx" and "install" in words:
            yield "pip-unhashed", each.line, _text(each)
        elif each.program == "uv" and _uv(run, each):
            yield "uv-unlocked", each.line, _text(each)


def _uv(run: _Run, each: Command) -> bool:
    verb = _operands(each, "--directory --project", 1)[:2]
    if verb in (["pip", "install"], ["pip", "sync"]):
        return not _is_hashed(run, each)
    locked = each.has("--locked", "--frozen") or run.on("UV_LOCKED", "UV_FROZEN")
    return (verb[:1] in (["sync"], ["run"]) and not locked and not each.has("--no-project", "--no-sync")) or (
        verb == ["tool", "install"] or verb[:1] == ["add"]
    )


def _conda(run: _Run) -> Iterator[_Found]:
    for each in run.commands:
        if not _does(each, ("conda", "mamba", "micromamba"), ("install", "create", "update", "env")):
            continue
        solves = any(word in ("install", "update", "create") for word in each.words[1:])
        files = [word for word in each.words if re.search(r"lock|explicit", word)]
        if solves and not files and not each.has("--offline", "--clone"):
            yield "conda-unlocked", each.line, _text(each)


def _node(run: _Run) -> Iterator[_Found]:
    for each in run.commands:
        verbs = [word for word in each.words[1:] if not word.startswith("-")][:2]
        frozen = each.has("--frozen-lockfile", "--immutable", "--offline")
        if each.program == "npm":
            loose = verbs[:1] in (["install"], ["i"], ["add"], ["update"]) and not each.has("--dry-run")
        elif each.program == "yarn":
            loose = (verbs[:1] in ([], ["install"]) and not frozen and not each.has("--version")) or (
                verbs[:1] == ["add"] or verbs == ["global", "add"]
            )
        else:
            loose = each.program == "pnpm" and (
                (verbs[:1] in (["install"], ["i"]) and not frozen) or verbs[:1] == ["add"]
            )
        if loose:
            yield "npm-unlocked", each.line, _text(each)


def _others(run: _Run) -> Iterator[_Found]:
    for each in run.commands:
        words = each.words
        if each.program == "go" and words[1:2] in (("install",), ("get",)):
            modules = [word for word in _operands(each) if not word.startswith(".") and "." in word.partition("/")[0]]
            if any(not re.search(r"@(v\d|[0-9a-f]{12,}|\$)", word) for word in modules):
                yield "go-moving", each.line, _text(each)
        elif each.program == "cargo" and "install" in words:
            exact = each.has("--version", "--vers", "--path", "--rev") or any(
                re.search(r"\w@\d", word) for word in words
            )
            if not (each.has("--locked", "--frozen") and exact):
                yield "cargo-unlocked", each.line, _text(each)
        elif each.program == "gem" and words[1:2] in (("install",), ("update",)) and not each.has("--local", "-l"):
            yield "gem-unlocked", each.line, _text(each)


# --- what is left behind -----------------------------------------------------------------------------------------------

_OFFICIAL = re.compile(r"(docker\.io/)?(library/)?[a-z0-9_.-]+([:@].*)?")


def _apt_leavings(run: _Run) -> Iterator[_Found]:
    for number, each in enumerate(run.commands):
        installs = _does(each, _APT, (*_INSTALLING["apt-get"], "remove", "purge", "autoremove"))
        updates = _does(each, _APT, ("update",))
        unpacks = each.program == "dpkg" and each.has("-i", "--install", "--configure", "-P", "--purge", "-r")
        left = [
            (updates, "apt-lists", ("/var/lib/apt/lists/x",)),
            (installs, "apt-logs", ("/var/log/apt/history.log", "/var/log/dpkg.log")),
            (unpacks, "apt-logs", ("/var/log/dpkg.log",)),
            (installs or unpacks or each.program == "ldconfig", "ldconfig-cache", ("/var/cache/ldconfig/aux-cache",)),
            (
                (updates or installs) and not _OFFICIAL.fullmatch(run.base),
                "apt-cache",
                ("/var/cache/apt/pkgcache.bin",),
            ),
        ]
        for does, rule, paths in left:
            if does and any(run.keeps(path, number + 1) for path in paths):
                yield rule, each.line, _text(each)


def _accounts(run: _Run) -> Iterator[_Found]:
    aged = any(each.program == "chage" for each in run.commands)
    for number, each in enumerate(run.commands):
        if each.program not in ("useradd", "adduser", "chpasswd", "passwd", "newusers"):
            continue
        if not run.keeps("/etc/shadow", number + 1):
            continue
        busybox = each.program == "adduser" and each.has("-D", "-S", "-H") and "--" not in _text(each)
        if each.program in ("chpasswd", "newusers") or (
            each.program == "passwd" and not each.has("-l", "-d", "-u", "-S", "--lock", "--delete")
        ):
            yield "password-salt", each.line, _text(each)
        elif not aged and (busybox or not run.variables.get(_EPOCH)):
            yield "shadow-date", each.line, _text(each)


_IDENTIFIED = ("systemd", "systemd-sysv", "dbus", "dbus-x11", "dbus-user-session", "libpam-systemd", "init")


def _identity(run: _Run) -> Iterator[_Found]:
    for number, each in enumerate(run.commands):
        installs = _does(each, (*_APT, "yum", "dnf", "apk"), ("install", "add"))
        made = each.program in ("systemd-machine-id-setup", "dbus-uuidgen") and not each.has("--get", "--print")
        if made or (installs and any(_named(word) in _IDENTIFIED for word in each.words)):
            paths = ("/etc/machine-id", "/var/lib/dbus/machine-id")
            gone = [not run.keeps(path, number + 1) for path in paths]
            if not any(gone):
                yield "machine-id", each.line, _text(each)


def _named(word: str) -> str:
    return re.split(r"[=_:]", word.rpartition("/")[2])[0]


def _bytecode(run: _Run) -> Iterator[_Found]:
    if run.variables.get(_EPOCH):
        return
    for each in run.commands:
        compiles = "compileall" in each.words or "py_compile" in each.words
        pip = "install" in _pip(each) and not each.has("--no-compile", "--dry-run") and not run.on("PIP_NO_COMPILE")
        uv = each.program == "uv" and (
            each.has("--compile-bytecode") or (run.on("UV_COMPILE_BYTECODE") and _uv_installs(each))
        )
        if (
            (compiles and "unchecked-hash" not in _text(each) and "checked-hash" not in _text(each))
            or (pip and "--no-compile" not in run.variables.get("PIP_OPTIONS", ""))
            or uv
        ):
            yield "bytecode", each.line, _text(each)


def _uv_installs(each: Command) -> bool:
    return each.program == "uv" and any(word in ("install", "sync") for word in each.words[1:3])


def _caches(run: _Run) -> Iterator[_Found]:
    for number, each in enumerate(run.commands):
        pip = bool({"install", "download", "wheel"} & {*_pip(each)})
        if _uv_installs(each) and not run.on("UV_NO_INSTALLER_METADATA"):
            yield "uv-installer-metadata", each.line, _text(each)
        off = each.has("--no-cache-dir", "--no-cache", "--no-index") or (each.program == "uv" and each.has("-n"))
        kept = ""
        if pip and not off and not run.on("PIP_NO_CACHE_DIR"):
            kept = run.variables.get("PIP_CACHE_DIR") or "/root/.cache/pip"
        elif _uv_installs(each) and not off and not run.on("UV_NO_CACHE"):
            kept = run.variables.get("UV_CACHE_DIR") or "/root/.cache/uv"
        elif each.program == "npm" and any(word in ("ci", "install", "i") for word in each.words[1:]):
            kept = run.variables.get("npm_config_cache") or run.variables.get("NPM_CONFIG_CACHE") or "/root/.npm"
        elsewhere = any(re.search(r"/\.(cache|npm)\b", mount.get("target", "")) for mount in run.mounts)
        if kept and not elsewhere and run.keeps(kept, number + 1):
            yield "download-cache", each.line, _text(each)


# --- what comes from elsewhere, or from chance -------------------------------------------------------------------------

_INTERPRETERS = re.compile(r"(ba|da|a|z|k)?sh|python[\d.]*|perl|ruby|node|php")
_UNPACKERS = ("tar", "bsdtar", "unzip", "cpio", "gpg", "apt-key", "dpkg")
_CHECKS_A_HASH = re.compile(r"(sha(1|224|256|384|512)|md5|b2)sum|shasum|cosign|minisign|gpgv|rhash|b3sum")


def _downloads(run: _Run) -> Iterator[_Found]:
    verified = any(
        _CHECKS_A_HASH.fullmatch(each.program)
        or (each.program in ("gpg", "gpg2") and each.has("--verify"))
        or (each.program == "openssl" and "dgst" in each.words)
        for each in run.commands
    )
    for number, each in enumerate(run.commands):
        if each.program not in ("curl", "wget", "aria2c") or each.has("--version", "--help"):
            continue
        fed = run.commands[each.feeds] if each.feeds is not None else None
        if fed and (_INTERPRETERS.fullmatch(fed.program) or fed.program in ("eval", "source", ".")):
            yield "curl-pipe-shell", each.line, f"{_text(each)} | {fed.program}"
        elif fed and not fed.words and _is_evaluated(run, each.feeds or 0):
            yield "curl-pipe-shell", each.line, _text(each)
        elif not verified and _saves(run, number, each, fed):
            yield "download-unverified", each.line, _text(each)


def _is_evaluated(run: _Run, number: int) -> bool:
    """Whether the output of a command is itself run: `$(curl …)` as the first word."""
    return bool(run.commands[number].words[:1]) and run.commands[number].words[0].startswith("$(")


def _saves(run: _Run, number: int, each: Command, fed: Command | None) -> bool:
    if each.program == "curl":
        to_file = (
            each.has("-o", "-O", "--output", "--remote-name", "--remote-name-all") and "/dev/null" not in each.words
        )
        quiet = each.has("-I", "--head")
    else:
        to_file = not (
            each.has("--spider")
            or {"-O-", "-qO-", "-", "/dev/null"} & {*each.words}
            or any(re.fullmatch(r"-[a-zA-Z]*O-", word) for word in each.words)
        )
        quiet = each.has("--spider")
    if quiet:
        return False
    return to_file or run.reaches(number) or bool(fed and fed.program in _UNPACKERS)


def _clones(run: _Run) -> Iterator[_Found]:
    pinned = False
    for each in run.commands:
        if each.program == "git" and {"checkout", "reset", "fetch", "switch", "--revision"} & {*each.words}:
            pinned |= any(_is_commit(run, word) for word in each.words[1:])
    for each in run.commands:
        if (
            each.program == "git"
            and "clone" in each.words[1:]
            and not (pinned or any(word.startswith("--revision=") for word in each.words))
        ):
            yield "git-moving", each.line, _text(each)


def _is_commit(run: _Run, word: str) -> bool:
    """A whole commit; or a variable of which only `--build-arg` says what it is."""
    value = run.expand(word).strip("\"'")
    return bool(_HEX.fullmatch(value)) or (value.startswith("$") and not value.startswith("$("))


_CLOCKS = frozenset({"EPOCHSECONDS", "EPOCHREALTIME"})
_CHANCE = frozenset({"RANDOM", "SRANDOM"})
_MACHINE = frozenset({"HOSTNAME", "HOSTTYPE"})


def _values(run: _Run) -> Iterator[_Found]:
    for number, each in enumerate(run.commands):
        rule = _made_up(each)
        if rule and run.reaches(number):
            yield rule, each.line, _text(each)
        for names, by in ((_CLOCKS, "clock-in-file"), (_CHANCE, "random-in-file"), (_MACHINE, "machine-in-file")):
            if each.variables & names and _EPOCH not in each.variables and (each.writes or _spreads(run, number)):
                yield by, each.line, _text(each) or " ".join("=".join(pair) for pair in each.assignments)


def _spreads(run: _Run, number: int) -> bool:
    """Whether a command that uses such a variable hands it on: to a pipe, to another variable or to a program."""
    each = run.commands[number]
    return run.reaches(number) or run._takes(number, frozenset({number}))  # noqa: SLF001 - both are this module's


def _made_up(each: Command) -> str:
    """The rule about what a program prints; empty for a steady one."""
    words = each.words
    if each.program == "date":
        steady = each.has("-d", "--date", "-r", "--reference", "-s") or _EPOCH in each.variables
        return "" if steady or each.has("--version") else "clock-in-file"
    if each.program in ("uuidgen", "uuid", "pwgen", "mkpasswd", "mcookie", "shuf", "makepasswd") or (
        each.program == "openssl" and "rand" in words
    ):
        return "random-in-file"
    if any(re.fullmatch(r"(if=)?/dev/u?random|/proc/sys/kernel/random/.*", word) for word in words) or any(
        re.match(r"/dev/u?random", one.target) for one in each.redirects
    ):
        return "random-in-file"
    if (
        each.program == "hostname"
        or each.program in ("nproc", "lscpu")
        or (each.program == "uname" and each.has("-a", "-n", "-r", "-v", "--all", "--nodename", "--kernel-release"))
    ):
        return "machine-in-file" if each.program != "nproc" else ""
    return ""


def _temporary(run: _Run) -> Iterator[_Found]:
    """Files of mktemp that are still there at the end, under a name made by chance."""
    removed = {
        name for each in run.commands if each.program in ("rm", "trap", "mv", "rmdir") for name in each.variables
    }
    removed |= {
        name
        for each in run.commands
        if each.program == "trap"
        for word in each.words
        for name in re.findall(r"\$\{?(\w+)", word)
    }
    for number, each in enumerate(run.commands):
        if each.program != "mktemp" or each.has("-u", "--dry-run"):
            continue
        holder = run.commands[each.feeds] if each.feeds is not None else None
        names = {name for name, _ in _assigned(holder)} if holder else set()
        if not names & removed and run.keeps("/tmp/x", number + 1):
            yield "random-in-file", each.line, _text(each)


def _made_archives(run: _Run) -> Iterator[_Found]:
    touched = any(each.program == "touch" and each.has("-d", "--date", "-t", "-r") for each in run.commands) or any(
        each.program == "find" and "touch" in each.words for each in run.commands
    )
    cleaned = any(each.program in ("strip-nondeterminism", "add-determinism") for each in run.commands)
    for each in run.commands:
        if cleaned:
            return
        fed = run.commands[each.feeds].program if each.feeds is not None else ""
        if each.program in ("tar", "bsdtar", "gtar") and _creates(each) and fed not in ("tar", "bsdtar", "ssh"):
            steady = each.has("--mtime") and each.has("--sort")
        elif each.program in ("zip", "jar") and len(each.words) > 2:
            steady = each.program == "zip" and (touched and (each.has("-X", "--no-extra") or each.has("-d")))
            steady |= each.program == "jar" and (each.has("--date") or not re.search("c", each.words[1]))
        elif each.program in ("gzip", "pigz"):
            files = [word for word in each.words[1:] if not word.startswith("-")]
            steady = not files or each.has("-n", "--no-name", "-d", "--decompress", "-t", "-l", "--test")
        else:
            continue
        if not steady:
            yield "archive-times", each.line, _text(each)


def _creates(each: Command) -> bool:
    first = each.words[1] if len(each.words) > 1 else ""
    bundled = bool(re.fullmatch(r"-?[a-zA-Z]*c[a-zA-Z]*", first)) and not re.search(r"[xtd]", first.lstrip("-"))
    return bundled or "--create" in each.words or each.has("-c")


def _keys(run: _Run) -> Iterator[_Found]:
    for number, each in enumerate(run.commands):
        words = {*each.words}
        if each.program == "ssh-keygen":
            makes, path = not each.has("-R", "-F", "-l", "-y", "-H"), "/etc/ssh/ssh_host_rsa_key"
        elif each.program == "openssl":
            makes = bool(words & {"genrsa", "genpkey", "gendsa", "dhparam", "-newkey", "-genkey", "-x509"})
            path = ""
        elif each.program in ("gpg", "gpg2"):
            makes, path = (
                bool(words & {"--gen-key", "--full-generate-key", "--generate-key", "--quick-generate-key"}),
                "",
            )
        elif each.program == "keytool":
            makes, path = bool(words & {"-genkey", "-genkeypair", "-genseckey"}), ""
        elif _does(each, _APT, ("install",)):
            makes, path = (
                bool({_named(word) for word in words} & {"openssh-server", "ssh", "ssl-cert"}),
                "/etc/ssh/ssh_host_rsa_key",
            )
        else:
            makes = each.program in ("make-ssl-cert", "wg") and bool(
                words & {"genkey", "genpsk", "generate-default-snakeoil"}
            )
            path = ""
        if makes and (not path or run.keeps(path, number + 1)):
            yield "generated-key", each.line, _text(each)


_CHECKS: tuple[Callable[[_Run], Iterator[_Found]], ...] = (
    _archives, _python, _conda, _node, _others, _apt_leavings, _accounts, _identity, _bytecode, _caches, _downloads,
    _clones, _values, _temporary, _made_archives, _keys,
)  # fmt: skip
