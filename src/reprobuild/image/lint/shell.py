"""Shell scripts read far enough to tell which commands they run, on which lines, and where their output goes.

It is a reading, not an interpreter: no variable is replaced, no condition decided, and both branches count. Sources:
POSIX's Shell Command Language (2.3 to 2.10), and Bash's manual for ``<(…)``, ``&>`` and ``$'…'``. Functions, aliases
and programs whose names are in variables aren't followed.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_DEPTH = 12  # of scripts within scripts
_GROUPS = 50  # within each other; of one deeper down neither redirects nor pipes are followed
_OPERATOR = re.compile(r"&&|\|\||;;&?|;&|&>>|&>|\|&|<<<|<<-|<<|<>|>>|>\||<&|>&|[;&|()<>\n]")
_REDIRECTING = frozenset({"<", ">", ">>", ">|", "<>", "<&", ">&", "&>", "&>>", "<<<", "<<", "<<-"})
_OPENING = frozenset({"{", "if", "while", "until", "for", "case", "select"})
_WORDY = frozenset({"for", "case", "select"})  # what follows them is words, kept as those of a command
_CLOSING = frozenset({"}", "fi", "done", "esac"})
_SKIPPED = frozenset({"then", "do", "else", "elif", "!", "time", *_OPENING, *_CLOSING})
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)\+?=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{?[#!]?([A-Za-z_]\w*)")
#: Programs that run the command which follows them, and those of their options that take a value.
_PREFIXES = {
    "sudo": "ugpC", "env": "uC", "exec": "a", "command": "", "builtin": "", "nohup": "", "nice": "n", "eatmydata": "",
    "xargs": "IndPLsE", "timeout": "ks", "su-exec": "", "gosu": "",
}  # fmt: skip
_OPERANDS = {"timeout": 1, "su-exec": 1, "gosu": 1}


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a command reads from or writes to: the operator, and the word behind it."""

    operator: str
    target: str

    @property
    def writes(self) -> bool:
        """Whether something is kept in a file."""
        file = not self.target.startswith("/dev/") and not self.target.isdecimal() and self.target != "-"
        return self.operator in (">", ">>", ">|", "&>", "&>>", ">&", "<>") and file


@dataclass(frozen=True, slots=True)
class Command:
    """A simple command.

    Attributes:
        words: without quotes; what a variable or a ``$(…)`` stands for isn't known, and they stay as they are written.
        assignments: names and values that stand before it, or alone.
        variables: names of those that it uses, in the words, the assignments and the here-document.
        feeds: the position of the command that takes its output, by ``|``, ``$(…)`` or ``<(…)``; None for none.
        line: from 1, where it starts.
    """

    words: tuple[str, ...]
    assignments: tuple[tuple[str, str], ...] = ()
    redirects: tuple[Redirect, ...] = ()
    variables: frozenset[str] = frozenset()
    feeds: int | None = None
    line: int = 1

    @property
    def program(self) -> str:
        """The last part of the first word's path; empty for assignments alone."""
        return self.words[0].rpartition("/")[2] if self.words else ""

    @property
    def writes(self) -> bool:
        """Whether its output goes to a file."""
        return any(each.writes for each in self.redirects)

    def has(self, *options: str) -> bool:
        """Whether one of some options is there: ``--name``, ``--name=…``, or ``-x``, also as in ``-yx``."""
        return any(_is_option(word, option) for word in self.words[1:] for option in options)


def _is_option(word: str, option: str) -> bool:
    if option.startswith("--") or len(option) > 2:
        return word == option or word.startswith(f"{option}=")
    return word.startswith("-") and not word.startswith("--") and option[1] in word[1:].partition("=")[0]


def read(text: str, line_of: Callable[[int], int]) -> tuple[Command, ...]:
    """The commands of a script, in order, with those in its substitutions and in scripts that it gives to a shell.

    Args:
        line_of: the line where a position of the text stands.
    """
    return tuple(_Reader(line_of, 0).read(text))


def read_words(words: Sequence[str], line: int) -> tuple[Command, ...]:
    """The same of a command whose words are given one by one (exec form)."""
    reader = _Reader(lambda _: line, 0)
    reader.add(Command(tuple(words), line=line))
    return tuple(reader.commands)


@dataclass(slots=True)
class _Word:
    """A word while it is read; ``inner`` are the scripts in it, with their positions."""

    text: str
    raw: str
    at: int
    variables: set[str]
    inner: list[tuple[str, int]]


class _Reader:
    def __init__(self, line_of: Callable[[int], int], depth: int) -> None:
        self.commands: list[Command] = []
        self._line_of = line_of
        self._depth = depth
        self._groups: list[int] = []  # where each open group begins
        self._element: list[int] = []  # what the next | would pipe
        self._piped: list[int] = []  # what the next command gets
        self._words: list[_Word] = []  # of the command that is being read
        self._redirects: list[tuple[str, _Word]] = []
        self._documents: list[int] = []  # redirects whose here-documents begin on the next line
        self._bodies_end: dict[int, int] = {}  # by where a line begins: where those that were read there end

    def read(self, text: str) -> list[Command]:
        at = 0
        while at < len(text):
            if text.startswith("\\\n", at):
                at += 2
            elif text[at] in " \t\r":
                at += 1
            elif text[at] == "#":
                at = _find(text, "\n", at)
            elif (operator := _OPERATOR.match(text, at)) and not _is_process(text, at):
                at = self._operator(text, operator[0], operator.end())
            else:
                word, at = _word(text, at)
                self._words.append(word)
        self._end("\n")
        return self.commands

    def _operator(self, text: str, operator: str, at: int) -> int:
        """Read what an operator that ends at a position brings with it; where that ends."""
        if operator in _REDIRECTING:
            self._take_number(at - len(operator))
            while text[at : at + 1] in (" ", "\t"):
                at += 1
            word, at = _word(text, at)
            self._redirects.append((operator, word))
            if operator in ("<<", "<<-"):
                self._documents.append(len(self._redirects) - 1)
            return at
        if operator == "\n":
            at = self._bodies(text, self._bodies_end.pop(at, at))
        elif self._documents:  # their command ends before the line does
            line = min(_find(text, "\n", at) + 1, len(text))
            self._bodies_end[line] = self._bodies(text, self._bodies_end.get(line, line))
        self._end(operator)
        return at

    def _bodies(self, text: str, at: int) -> int:
        """Read the here-documents of this command, which begin at a position; where they end."""
        for which in self._documents:
            at = self._document(text, at, which)
        self._documents = []
        return at

    def _take_number(self, at: int) -> None:
        """Drop the file descriptor that stands right before a redirect."""
        if self._words and self._words[-1].text.isdecimal() and self._words[-1].at + len(self._words[-1].raw) == at:
            self._words.pop()

    def _document(self, text: str, at: int, which: int) -> int:
        """Read a here-document: the word that named its end holds it from now on. Where it ends."""
        operator, word = self._redirects[which]
        start, tabs = at, operator == "<<-"
        while at < len(text):
            stop = _find(text, "\n", at)
            line = text[at:stop]
            if (line.lstrip("\t") if tabs else line).rstrip("\r") == word.text:
                break
            at = min(stop + 1, len(text))
        body = text[start:at]
        held = _Word(body, body, start, set(), [])
        if word.raw == word.text:  # no part of its end is quoted
            _expand(body, start, held)
        self._redirects[which] = (operator, held)
        return min(_find(text, "\n", at) + 1, len(text))

    def _end(self, operator: str) -> None:
        """End a command, and say to whom its output goes."""
        words, redirects = self._words, self._redirects
        self._words, self._redirects = [], []
        closing = self._open_and_close(words)
        if operator == "(":
            self._groups.append(len(self.commands))
        if words or (redirects and closing is None):
            self._command(words, redirects)
        elif closing is not None:
            self._closed(closing, redirects)
        if operator == ")":
            self._closed(self._groups.pop() if self._groups else len(self.commands), [])
        elif operator in ("|", "|&"):
            self._piped, self._element = self._element, []
        elif operator not in ("(", "\n") or not self._piped:
            self._piped = []

    def _open_and_close(self, words: list[_Word]) -> int | None:
        """Take the shell's own words from the start of a command; where the group begins that they close."""
        closing = None
        while words and words[0].raw in _SKIPPED:
            word = words[0].raw
            if word in _OPENING:
                self._groups.append(len(self.commands))
            elif word in _CLOSING and self._groups:
                closing = self._groups.pop()
            if word in _WORDY:
                break
            words.pop(0)
        return closing

    def _closed(self, start: int, redirects: list[tuple[str, _Word]]) -> None:
        """A group's redirects are those of each command in it."""
        if len(self._groups) >= _GROUPS:
            self._element = []
            return
        held = tuple(Redirect(operator, word.text) for operator, word in redirects)
        for number in range(start, len(self.commands)):
            each = self.commands[number]
            self.commands[number] = replace(each, redirects=each.redirects + held)
        self._element = [n for n in range(start, len(self.commands)) if self.commands[n].feeds is None]

    def _command(self, words: list[_Word], redirects: list[tuple[str, _Word]]) -> None:
        assignments: list[tuple[str, str]] = []
        texts = [word.text for word in words]
        while texts and (match := _ASSIGNMENT.fullmatch(texts[0])):
            assignments.append((match[1], match[2]))
            texts.pop(0)
        every = [*words, *(word for _, word in redirects)]
        found = Command(
            tuple(texts),
            tuple(assignments),
            tuple(Redirect(operator, word.text) for operator, word in redirects),
            frozenset().union(*(word.variables for word in every)),
            line=self._line_of(every[0].at),
        )
        self.add(found)
        position = len(self.commands) - 1
        for one in self._piped:
            self.commands[one] = replace(self.commands[one], feeds=position)
        self._piped, self._element = [], [position]
        for word in every:
            for script, at in word.inner:
                self._within(script, at, position)
        self._scripts(found, redirects, position)

    def add(self, found: Command) -> None:
        """Note a command, without the programs that only run it; a script that it gives to a shell comes first."""
        bare = _bare(found)
        script = _shell_script(bare)
        if script is not None:
            self._nested(script, lambda _: bare.line)
        self.commands.append(bare)

    def _scripts(self, found: Command, redirects: list[tuple[str, _Word]], position: int) -> None:
        """A here-document that a shell reads, or that stands alone (RUN <<EOF)."""
        program = self.commands[position].program
        for operator, word in redirects:
            if operator not in ("<<", "<<-") or not (program in SHELLS or not found.words):
                continue
            first = word.text.partition("\n")[0]
            interpreter = re.split(r"[\s/]+", first.strip())[-1] if first.startswith("#!") else "sh"
            if interpreter.lstrip("-") in SHELLS or not first.startswith("#!"):
                self._nested(word.text, partial(self._line_within, word.at))

    def _within(self, script: str, at: int, position: int) -> None:
        """The commands of a substitution, which feed the command that it stands in."""
        start = len(self.commands)
        self._nested(script, partial(self._line_within, at))
        for number in range(start, len(self.commands)):
            if self.commands[number].feeds is None:
                self.commands[number] = replace(self.commands[number], feeds=position)

    def _line_within(self, start: int, offset: int) -> int:
        return self._line_of(start + offset)

    def _nested(self, script: str, line_of: Callable[[int], int]) -> None:
        if self._depth >= _DEPTH:
            return
        start = len(self.commands)
        for each in _Reader(line_of, self._depth + 1).read(script):
            self.commands.append(each if each.feeds is None else replace(each, feeds=each.feeds + start))


def _bare(found: Command) -> Command:
    """A command without sudo, env and the like before it."""
    words, assignments = list(found.words), list(found.assignments)
    while words and words[0].rpartition("/")[2] in _PREFIXES:
        name = words.pop(0).rpartition("/")[2]
        while words and words[0].startswith("-") and len(words[0]) > 1:
            option = words.pop(0)
            if len(option) == 2 and option[1] in _PREFIXES[name] and words:
                words.pop(0)
        del words[: _OPERANDS.get(name, 0)]
        while words and (match := _ASSIGNMENT.fullmatch(words[0])):
            assignments.append((match[1], match[2]))
            words.pop(0)
    return replace(found, words=tuple(words) or found.words[:1], assignments=tuple(assignments))


def _shell_script(found: Command) -> str | None:
    """The script in ``sh -c SCRIPT``, ``su -c SCRIPT`` and ``eval SCRIPT``; None for none."""
    if found.program == "eval":
        return " ".join(found.words[1:])
    if found.program in SHELLS or found.program in ("su", "runuser"):
        for number, word in enumerate(found.words[1:], 1):
            if re.fullmatch(r"-[a-z]*c|--command", word):
                return found.words[number + 1] if number + 1 < len(found.words) else None
    return None


def _is_process(text: str, at: int) -> bool:
    return text.startswith(("<(", ">("), at)


def _find(text: str, what: str, at: int) -> int:
    found = text.find(what, at)
    return len(text) if found < 0 else found


def _word(text: str, at: int) -> tuple[_Word, int]:
    """Read one word, quotes and all; the word and where it ends."""
    start, found = at, _Word("", "", at, set(), [])
    parts: list[str] = []
    while at < len(text):
        character = text[at]
        if text.startswith("\\\n", at):
            at += 2
        elif character == "\\":
            parts.append(text[at + 1 : at + 2])
            at += 2
        elif character == "'":
            stop = _find(text, "'", at + 1)
            parts.append(text[at + 1 : stop])
            at = stop + 1
        elif character == '"':
            stop = _closed(text, at + 1, '"') - 1
            _expand(text[at + 1 : stop], at + 1, found)
            parts.append(re.sub(r'\\(["\\$`])', r"\1", text[at + 1 : stop].replace("\\\n", "")))
            at = stop + 1
        elif character in "$`" or _is_process(text, at):
            stop = _expansion(text, at)
            _expand(text[at:stop], at, found)
            parts.append(text[at:stop])
            at = stop
        elif character in " \t\r" or _OPERATOR.match(text, at):
            break
        else:
            parts.append(character)
            at += 1
    at = max(min(at, len(text)), start)
    found.text, found.raw = "".join(parts), text[start:at]
    return found, at


def _expansion(text: str, at: int) -> int:
    """Where the ``$…``, the backticks or the ``<(…)`` that begin somewhere end."""
    if text[at] == "`":
        return min(_find(text, "`", at + 1) + 1, len(text))
    following = text[at + 1 : at + 2]
    if following == "(" or text[at] in "<>":
        return min(_closed(text, at + 2, ")"), len(text))
    if following == "{":
        return min(_closed(text, at + 2, "}"), len(text))
    if following == "'":
        return min(_quote_end(text, at + 2) + 1, len(text))
    match = _VARIABLE.match(text, at)
    return match.end() if match else min(at + (2 if following and following in "$?#@*!-0123456789" else 1), len(text))


def _quote_end(text: str, at: int) -> int:
    match = re.compile(r"(?:[^'\\]|\\.)*", re.DOTALL).match(text, at)
    return match.end() if match else len(text)


def _closed(text: str, at: int, closing: str) -> int:
    """Behind the end of what a bracket or a double quote has opened; one more than the text has where it stays open."""
    stack = [closing]
    while at < len(text) and stack:
        character = text[at]
        if character == "\\":
            at += 1
        elif character == stack[-1]:
            stack.pop()
        elif character == "$" and text[at + 1 : at + 2] in ("(", "{"):
            stack.append(")" if text[at + 1] == "(" else "}")
            at += 1
        elif character == "`":
            at = _find(text, "`", at + 1)
        elif stack[-1] != '"':
            if character == "'":
                at = _find(text, "'", at + 1)
            elif character == '"':
                stack.append('"')
            elif character == "(" and stack[-1] == ")":
                stack.append(")")
        at += 1
    return min(at, len(text)) if not stack else len(text) + 1


def _expand(text: str, at: int, into: _Word) -> None:
    """Note the variables and the substitutions in a piece of a word."""
    for start, stop in _substitutions(text):
        skip = 1 if text[start] == "`" else 2
        into.inner.append((text[start + skip : max(stop - 1, start + skip)], at + start + skip))
    into.variables.update(_VARIABLE.findall(text))


def _substitutions(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == "`" or text.startswith("$(", at) or _is_process(text, at):
            stop = _expansion(text, at)
            yield at, stop
            at = max(stop, at + 1)
        else:
            at += 1
