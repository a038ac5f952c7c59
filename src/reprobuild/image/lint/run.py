"""A RUN as the linter sees it: its commands, what they can see, and what of their work gets into an image."""

import fnmatch
import posixpath
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
        return number not in seen and each.feeds is not None and self.takes(each.feeds, seen | {number})

    def takes(self, number: int, seen: frozenset[int]) -> bool:
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
            and (self.reaches(number, seen) or self.takes(number, seen | {number}))
        )


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
