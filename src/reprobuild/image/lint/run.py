"""A RUN as the linter sees it: its commands, what they can see, and what of their work gets into an image."""

import fnmatch
import posixpath
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reprobuild.errors import BadInput
from reprobuild.files import read_text
from reprobuild.image.dockerfile import Instruction
from reprobuild.image.lint import shell
from reprobuild.image.lint.shell import Command

#: What BuildKit sets to the time that everything in an image is to have.
EPOCH = "SOURCE_DATE_EPOCH"
#: A whole commit of git's.
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
#: A rule's name, a line and what stands there.
Found = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Run:
    """A RUN with what it can see.

    Attributes:
        variables: the values of ENV and ARG here and of assignments in it, unexpanded; empty for an ARG without one.
        mounted: what its mounts, other than of secrets, hide from the image.
        exposed: folders of the stage that get into an image.
        sources: all that the stage said so far, for what it says of apt's archives.
        base: what the FROM names that it all goes back to, expanded.
        folders: where files of the build context may lie.
        users: the positions of the commands that use a variable.
        removals: paths and patterns that commands take away, with the commands' positions.
    """

    instruction: Instruction
    commands: tuple[Command, ...]
    variables: Mapping[str, str]
    mounts: tuple[Mapping[str, str], ...]
    exposed: frozenset[str]
    sources: str
    base: str
    folders: tuple[Path, ...]
    users: Mapping[str, list[int]] = field(init=False)
    removals: tuple[tuple[int, str], ...] = field(init=False)
    _gone: dict[str, int] = field(
        init=False, default_factory=dict, compare=False
    )  # by path the last that takes it away
    _lost: set[tuple[int, bool]] = field(init=False, default_factory=set, compare=False)  # what ends in no file

    def __post_init__(self) -> None:
        users: dict[str, list[int]] = {}
        for number, each in enumerate(self.commands):
            for name in each.variables:
                users.setdefault(name, []).append(number)
        removals = ((n, word) for n, each in enumerate(self.commands) for word in _removed(each, self.expand))
        object.__setattr__(self, "users", users)
        object.__setattr__(self, "removals", tuple(removals))

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
        if path not in self._gone:
            self._gone[path] = max((number for number, word in self.removals if _covers(word, path)), default=-1)
        return self._gone[path] < after

    def reaches(self, number: int, *, given: bool = False) -> bool:
        """Whether the output of a command gets into a file, as far as one can tell; or what it is given, if asked."""
        todo, seen = [(number, False), (number, True)][: 1 + given], set[tuple[int, bool]]()
        while todo:
            if (step := todo.pop()) in seen or step in self._lost:
                continue
            seen.add(step)
            onward = self._received(step[0]) if step[1] else self._put_out(step[0])
            if onward is None:
                return True
            todo += onward
        self._lost.update(seen)  # else a long chain would be followed to its end from each of its steps
        return False

    def _put_out(self, number: int) -> list[tuple[int, bool]] | None:
        """Where a command's output goes on; None for a file that stays."""
        each = self.commands[number]
        if each.writes:
            kept = any(not _is_removed(self, to.target, number) for to in each.redirects if to.writes)
            return None if kept else []
        return [] if each.feeds is None else [(each.feeds, True)]

    def _received(self, number: int) -> list[tuple[int, bool]] | None:
        """Where what a command gets, as its input or among its words, goes on; None for a file."""
        each = self.commands[number]
        if not each.words or each.program in ("export", "local", "declare", "readonly"):
            names = {name for name, _ in each.assignments} | {word.partition("=")[0] for word in each.words[1:]}
            users = {user for name in names for user in self.users.get(name, ()) if user > number}
            return [(user, given) for user in sorted(users) for given in (False, True)]
        if each.program in ("tee", "dd", "sponge") or (
            each.program in ("sed", "perl") and each.has("-i", "--in-place")
        ):
            return None
        if each.program in _PRINTERS:
            return [(number, False)]
        return [] if each.program in _JUDGES else None


#: Programs that hand on what they are given, and programs that only judge it or undo it.
_PRINTERS = frozenset("echo printf cat grep egrep sed awk cut tr head tail sort uniq xxd od hexdump base64 rev fold jq "
                      "sha256sum sha1sum md5sum sha512sum basename dirname gzip xz bzip2 zstd wc".split())  # fmt: skip
_JUDGES = frozenset(": true [ [[ test rm rmdir cd kill sleep case trap exit return pushd popd if wait".split())


# --- what a RUN says -------------------------------------------------------------------------------------------------


def commands_of(each: Instruction, lines: list[str], escape: str) -> tuple[Command, ...]:
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


def assigned(command: Command) -> Iterator[tuple[str, str]]:
    yield from command.assignments
    if command.program in ("export", "declare", "typeset", "readonly"):
        yield from (word.partition("=")[::2] for word in command.words[1:] if "=" in word)


def _covers(outer: str, inner: str) -> bool:
    """Whether a path, or a pattern, is another one or a folder above it."""
    outer = re.sub(r"(/\.?\*+)+$", "", outer.rstrip("/")) or ("/" if outer.startswith("/") else outer)
    if not outer:
        return False
    if outer in ("/", inner) or inner.startswith(f"{outer}/"):
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


def _removed(command: Command, expand: Callable[[str], str]) -> Iterator[str]:
    """The paths and patterns that a command takes away, or empties."""
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
    yield from (home.sub("/root", one) for word in words for one in _braces(expand(word)))


#: What empties caches by itself: the words that say so, and what is gone then.
_CLEANERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "apt-get": (("clean", "distclean"), ("/var/cache/apt",)),
    "apt": (("clean", "distclean"), ("/var/cache/apt",)),
    "uv": (("clean",), ("/root/.cache/uv",)),
    "pip": (("purge",), ("/root/.cache/pip",)),
    "pip3": (("purge",), ("/root/.cache/pip",)),
}


def _is_removed(run: Run, target: str, after: int) -> bool:
    return target.startswith("/") and not run.keeps(run.expand(target), after + 1)


def operands(command: Command, valued: str = "", skip: int = 2) -> list[str]:
    """The words that are no options, nor the values of those named."""
    found, words = [], iter(command.words[skip:])
    for word in words:
        if not word.startswith("-"):
            found.append(word)
        elif word in valued.split():
            next(words, None)
    return found


def text_of(command: Command) -> str:
    return " ".join(command.words)


def context_text(folders: tuple[Path, ...], name: str) -> str:
    for folder in folders:
        for relative in dict.fromkeys((posixpath.normpath("/" + name).lstrip("/"), posixpath.basename(name))):
            path = folder / (relative or ".")
            try:
                if relative and path.is_file() and path.stat().st_size < 1 << 22:
                    return read_text(path)
            except (OSError, ValueError, BadInput):
                continue
    return ""
