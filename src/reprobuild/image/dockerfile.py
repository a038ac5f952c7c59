"""A Dockerfile as frozen values: its instructions, their flags and words, not yet expanded.

Sources: the Dockerfile reference and, where that is silent, BuildKit's frontend (``frontend/dockerfile``).
"""

import csv
import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from e2b_dockerfile_utils import (
    DockerfileInstruction,
    DockerfileSyntaxError,
    ShellLex,
    chomp_heredoc_content,
    parse_dockerfile_ast,
)

from reprobuild.errors import BadInput, shown
from reprobuild.files import read_text

OTHER_ENGINE = "Build it with `--engine buildkit`, or do it in another way."
_LIMIT = 1 << 20  # characters, also of an expanded word
_REPLACED = 16 * _LIMIT  # characters that ${NAME//PATTERN/TEXT} may give before they are counted
_STAGE = re.compile(r"[a-z][a-z0-9-_.]*")
#: The flags of each instruction, and whether the assembler can do what they say.
_FLAGS: Mapping[str, Mapping[str, bool]] = {
    "FROM": {"platform": True},
    "COPY": {"from": True, "chown": True, "chmod": True, "link": True, "parents": False, "exclude": False},
    "ADD": {"chown": True, "chmod": True, "link": True, "exclude": False}
    | dict.fromkeys(("checksum", "keep-git-dir", "unpack"), False),
    "HEALTHCHECK": dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), True),
    "RUN": dict.fromkeys(("mount", "network", "security", "device"), False),
}
_LISTS = ("CMD", "ENTRYPOINT", "SHELL", "VOLUME", "HEALTHCHECK", "COPY", "ADD")
_BOOLEAN = ("link", "parents", "keep-git-dir", "unpack")
_REPEATABLE = ("exclude", "mount", "device")
_DIRECTIVE = re.compile(r"\s*#\s*(?P<name>[A-Za-z][A-Za-z0-9]*)\s*=\s*(?P<value>\S.*?)\s*")


class NeedsBuildKit(BadInput):
    """The assembler can't do what a Dockerfile says, and BuildKit can."""


@dataclass(frozen=True, slots=True)
class Inline:
    """A file whose content stands in the Dockerfile (a here-document).

    Attributes:
        expand: whether variables in it are expanded.
    """

    name: str
    text: str
    expand: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its words not yet expanded.

    Attributes:
        name: in capitals.
        args: its words; of ENV and LABEL names and values in turn.
        json: whether they were a JSON list.
        line, end: the first and the last line, from 1.
        text: all of it on one line.
    """

    name: str
    flags: tuple[str, ...]
    args: tuple[str, ...]
    json: bool
    inline: tuple[Inline, ...]
    line: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows. ``base`` and ``platform`` aren't expanded yet; an empty name is none."""

    name: str
    base: str
    platform: str
    line: int
    end: int
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """What a Dockerfile says.

    Attributes:
        where: what messages call it.
        escape: the escape character, ``\\`` or a backtick.
        arguments: each ARG before the first FROM.
        frontend: the image that ``# syntax=`` names; empty for none.
        lenient: whether it is BuildKit's to carry out, and what the assembler can't do is no error.
    """

    where: str
    escape: str
    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    frontend: str = ""
    lenient: bool = False

    def expand(self, word: str, variables: Mapping[str, str], line: int) -> str:
        """A word without its quotes, each variable replaced; one that isn't set is empty.

        Raises:
            BadInput: a quote or a brace is open, ``${NAME:?message}`` isn't set, or it becomes too long.
        """
        lexer = ShellLex(self.escape, env=_Measured(variables, word), skip_unset_env=False)
        return self._lexed(lambda: [lexer.process_word(word)], line)[0]

    def words(self, word: str, variables: Mapping[str, str], line: int) -> list[str]:
        """As :meth:`expand`, split where a variable's value has spaces."""
        lexer = ShellLex(self.escape, env=_Measured(variables, word), skip_unset_env=False)
        return self._lexed(lambda: lexer.process_words(word), line)

    def expand_inline(self, text: str, variables: Mapping[str, str], line: int) -> str:
        """A here-document with its variables replaced; its quotes stay."""
        lexer = ShellLex("\\", skip_process_quotes=True, env=_Measured(variables, text), skip_unset_env=False)
        return self._lexed(lambda: [lexer.process_word(text)], line)[0]

    def fail(self, line: int, reason: str, remedy: str = "") -> NoReturn:
        """Raise BadInput about a line."""
        raise BadInput(f"{self.where}:{line}: {reason}", remedy)

    def beyond(self, line: int, reason: str) -> None:
        """Something is beyond the assembler: raise NeedsBuildKit unless this is lenient."""
        if not self.lenient:
            raise NeedsBuildKit(f"{self.where}:{line}: {reason}", OTHER_ENGINE)

    def stage_named(self, name: str, before: int) -> int | None:
        """The position of the stage with a name among the first ``before``."""
        return next((n for n, each in enumerate(self.stages[:before]) if each.name and each.name == name), None)

    def _lexed(self, lex: Callable[[], list[str]], line: int) -> list[str]:
        try:
            found = lex()
        except ValueError as error:
            self.fail(line, f"{shown(error)}.")
        except _TooLongError:
            found = None
        if found is None or sum(map(len, found)) > _LIMIT:
            self.fail(line, f"Its variables make it longer than {_LIMIT} characters.", "Shorten it.")
        return found


class _TooLongError(Exception):
    """A word would become longer than anybody means it to."""


class _Measured(Mapping[str, str]):
    """The variables of one word, as long as what it takes from them is no more than an expanded word may have.

    Each line can double what the one before made, so that the length of the result would be known too late.
    """

    def __init__(self, variables: Mapping[str, str], word: str) -> None:
        self._variables = variables
        self._replacing = set(re.findall(r"\$\{(\w+)/", word))
        self._growing = re.search(r"\$\{\w+/[^}]*[$'\"\\]", word)  # what replaces may have variables in it
        self._word = self._length = len(word)
        self._replaced = 0

    def __getitem__(self, name: str) -> str:
        value = self._variables[name]
        if name in self._replacing:  # as often as it has characters, by all of the word so far
            self._replaced += (len(value) + 1) * (self._length if self._growing else self._word)
        self._length += len(value)
        if self._length > 2 * _LIMIT or self._replaced > _REPLACED:
            raise _TooLongError
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def read(path: Path) -> Dockerfile:
    """Read and parse a file.

    Raises:
        BadInput: it can't be read, or is no Dockerfile.
    """
    return parse(read_text(path), str(path))


def parse(text: str, where: str, *, lenient: bool = False) -> Dockerfile:
    """Parse a Dockerfile; ``where`` names it in messages. Of ``lenient`` see :class:`Dockerfile`.

    Raises:
        BadInput: it is none.
    """
    if len(text) > _LIMIT or "\0" in text:
        raise BadInput(f"{where} has a NUL character or more than {_LIMIT} characters: it is no Dockerfile.")
    try:
        tree = parse_dockerfile_ast(text)
    except DockerfileSyntaxError as error:
        reason = re.sub(r"^Dockerfile parse error( on line \d+)?: ", "", str(error))
        raise BadInput(f"{where}:{error.line or 1}: {shown(reason)}.") from error
    except RecursionError as error:
        raise BadInput(f"{where}: a JSON list or a variable is nested too deeply.") from error
    found = Dockerfile(where, tree.escape_token, (), (), frontend_of(text), lenient)
    instructions = [_instruction(found, each) for each in tree.instructions]
    starts = [number for number, each in enumerate(instructions) if each.name == "FROM"]
    if not starts:
        raise BadInput(f"{where} has no FROM.", "An image starts from another one, or from `scratch`.")
    for each in instructions[: starts[0]]:
        if each.name != "ARG":
            found.fail(each.line, f"{each.name} stands before the first FROM.", "Only ARG can.")
    stages: list[Stage] = []
    for start, end in zip(starts, [*starts[1:], len(instructions)], strict=True):
        stage = _stage(found, instructions[start], instructions[start + 1 : end])
        if stage.name and any(stage.name == each.name for each in stages):
            found.fail(stage.line, f"There are two stages {stage.name!r}.", "Rename one.")
        stages.append(stage)
    return replace(found, arguments=tuple(instructions[: starts[0]]), stages=tuple(stages))


def frontend_of(text: str) -> str:
    """The image that ``# syntax=`` names among the directives at the top; empty for none."""
    return next((value for _, name, value in directives(text) if name == "syntax"), "")


def directives(text: str) -> Iterator[tuple[int, str, str]]:
    """The directives at the top of a Dockerfile: line, name in small letters, and value."""
    # Lines are BuildKit's: splitlines() would also end them at form feeds and the like, and miss what follows.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if number == 1 and line.startswith("#!"):
            continue
        directive = _DIRECTIVE.fullmatch(line)
        if directive is None:
            return
        yield number, directive["name"].lower(), directive["value"]


def _instruction(dockerfile: Dockerfile, each: DockerfileInstruction) -> Instruction:
    args = tuple(each.args)
    if each.name in ("ENV", "LABEL"):
        args = tuple(word for number, word in enumerate(args) if number % 3 < 2)
    if any("\0" in word or not _is_text(word) for word in args):
        dockerfile.fail(each.start_line, "It has a NUL character or half a surrogate pair in it.")
    if each.name in ("COPY", "ADD") and not each.json and any(re.search(r"\s", word) for word in args):
        dockerfile.fail(each.start_line, "A name with a space is two names here.", f'Write {each.name} ["…", "…"].')
    words = args[1:] if each.name == "HEALTHCHECK" else args
    if each.name in _LISTS and not each.json and words and _begins_with_list(" ".join(words)):
        dockerfile.fail(each.start_line, "Something stands after the JSON list.", "Take it away.")
    inline = tuple(
        Inline(one.name, chomp_heredoc_content(one.content) if one.chomp else one.content, one.expand)
        for one in each.heredocs
    )
    return Instruction(
        each.name, tuple(each.flags), args, each.json, inline, each.start_line, each.end_line, each.original.strip()
    )


def _begins_with_list(text: str) -> bool:
    """Whether some BuildKits would take the list at the beginning and leave the rest."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return False
    return isinstance(value, list)


def _is_text(word: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in word)


def _stage(dockerfile: Dockerfile, opening: Instruction, rest: Sequence[Instruction]) -> Stage:
    flags = flags_of(dockerfile, opening)
    name = ""
    match opening.args:
        case (base,):
            pass
        case (base, word, named) if word.lower() == "as":
            name = named.lower()
            if not _STAGE.fullmatch(name):
                dockerfile.fail(opening.line, f"{named!r} can't be a stage's name.", "Begin it with a letter.")
        case _:
            dockerfile.fail(opening.line, "FROM takes one image, and `AS NAME` at most.")
    return Stage(name, base, flags.get("platform", ""), opening.line, opening.end, tuple(rest))


def flags_of(dockerfile: Dockerfile, each: Instruction) -> dict[str, str]:
    """An instruction's flags by name; of one that is repeated, the last.

    Raises:
        BadInput: it has no such flag.
        NeedsBuildKit: only BuildKit has it.
    """
    known, found = _FLAGS.get(each.name, {}), dict[str, str]()
    for flag in each.flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean --{near[0]}?" if near else f"It has {', '.join(known) or 'none'}."
            dockerfile.fail(each.line, f"{each.name} has no flag --{shown(name)}.", hint)
        if not known[name]:
            dockerfile.beyond(each.line, f"{each.name} --{name} can't be assembled.")
        if name in found and name not in _REPEATABLE:
            dockerfile.fail(each.line, f"--{name} is there twice.")
        if name in _BOOLEAN:
            value = value.lower() if equals else "true"
            if value not in ("true", "false"):
                dockerfile.fail(each.line, f"--{name} is neither true nor false.")
        elif not equals:
            dockerfile.fail(each.line, f"--{name} has no value.")
        found[name] = value
    return found


def mounted_from(each: Instruction) -> Iterator[str]:
    """The stages, images and named contexts that the mounts of a RUN come from."""
    for flag in each.flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name == "mount":
            for field in next(csv.reader([value]), []):
                key, _, source = field.partition("=")
                if key.strip().lower() == "from" and source:
                    yield source
