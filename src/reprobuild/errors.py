"""Everything that can go wrong, with the exit code of each kind.

A function of this library either returns or raises a :class:`ReprobuildError`. The command line turns
one into its message and its exit code, and nothing else does.
"""

import re
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command. docs/exit-codes.md is this table; a test compares the two."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    BAD_INPUT = 3
    TOOL_MISSING = 4
    LOCK_MISSING = 5
    LOCK_STALE = 6
    BUILD_FAILED = 7
    SOURCE_UNUSABLE = 8
    DIGEST_MISMATCH = 9
    INDEX_FAILED = 10
    RECORD_UNUSABLE = 11
    SANDBOX_UNAVAILABLE = 12
    WRITE_FAILED = 13
    REGISTRY_FAILED = 14
    SIGNING_FAILED = 15
    DIFFERS_CONTAINER = 20
    DIFFERS_METADATA = 21
    DIFFERS_PAYLOAD = 22
    NOT_COMPARABLE = 23
    LINT_FOUND = 24
    NOT_VERIFIED = 25
    VULNERABLE = 26
    NOT_AUDITED = 27
    NOT_PUBLISHABLE = 28
    PUBLISH_FAILED = 29
    INTERRUPTED = 130


#: What each code means, in one line, for documentation and `--help`.
EXIT_CODE_MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done; for a comparison: identical, or the level named with --accept",
    ExitCode.INTERNAL: "a defect in reprobuild itself",
    ExitCode.USAGE: "the command line can't be understood",
    ExitCode.BAD_INPUT: "an input file is missing, malformed or unsafe",
    ExitCode.TOOL_MISSING: "a program or interpreter that the command needs is not on this machine",
    ExitCode.LOCK_MISSING: "constraints.txt is missing from the source",
    ExitCode.LOCK_STALE: "a lock no longer satisfies pyproject.toml, or `lock --check` found drift",
    ExitCode.BUILD_FAILED: "the build backend, or the resolver, failed",
    ExitCode.SOURCE_UNUSABLE: "the source can't be exported: dirty tree, missing submodule or LFS object",
    ExitCode.DIGEST_MISMATCH: "bytes don't have the digest that the lock or the record names",
    ExitCode.INDEX_FAILED: "the package index can't be reached, or lacks a locked file",
    ExitCode.RECORD_UNUSABLE: "the build record is missing, malformed or about another wheel",
    ExitCode.SANDBOX_UNAVAILABLE: "the sandbox kind that was asked for doesn't work on this machine",
    ExitCode.WRITE_FAILED: "a result can't be written: disk full, no permission",
    ExitCode.REGISTRY_FAILED: "an image registry can't be reached, refuses, or lacks what was asked for",
    ExitCode.SIGNING_FAILED: "nothing was signed: no key or identity, a wrong passphrase, or a service refused",
    ExitCode.DIFFERS_CONTAINER: "differs: same members and modes, another zip, tar or gzip framing",
    ExitCode.DIFFERS_METADATA: "differs: only in metadata (dist-info)",
    ExitCode.DIFFERS_PAYLOAD: "differs: in what gets installed",
    ExitCode.NOT_COMPARABLE: "the two could not be compared",
    ExitCode.LINT_FOUND: "`lint` found an error, or with --strict a warning",
    ExitCode.NOT_VERIFIED: "evidence is missing or refused, or isn't enough for the policy",
    ExitCode.VULNERABLE: "`audit` found a known vulnerability that counts",
    ExitCode.NOT_AUDITED: "`audit` couldn't ask about every package, so that nothing is known: never clean",
    ExitCode.NOT_PUBLISHABLE: "`publish` uploaded nothing: a file isn't verified, or no index would take it",
    ExitCode.PUBLISH_FAILED: "the index refuses an upload, has another file of that name, or can't be reached",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C, SIGTERM or SIGHUP)",
}


def shown(text: object, limit: int = 200) -> str:
    """A text from a file that nobody vouches for, cut to as many characters as a message can hold."""
    words = str(text)
    return words if len(words) <= limit else f"{words[:limit]}…"


def words_of(error: BaseException, otherwise: str = "") -> str:
    """What the system said when a connection failed.

    Args:
        otherwise: what to say if it said nothing; empty for the name of the library's error, whose text has the URL.
    """
    inner: BaseException | None = error
    while inner is not None:
        said = getattr(inner, "verify_message", "") or getattr(inner, "strerror", None)
        if said:
            return str(said)
        if isinstance(inner, TimeoutError):
            return "timed out"
        inner = inner.__cause__ or inner.__context__
    return otherwise or type(error).__name__


def redacted(text: str, hidden: Iterable[str] = ()) -> str:
    """A text of a tool's or a server's without the user information and the query of URLs, and without secrets."""
    text = re.sub(r"(\w://)[^\s/'\"`]*@", r"\1…@", text)
    text = re.sub(r"(\w://[^\s?'\"`]+)\?[^\s'\"`)]+", r"\1?…", text)
    for secret in filter(None, hidden):
        text = text.replace(secret, "…")
    return text


class ReprobuildError(Exception):
    """The one root of this project's errors.

    Attributes:
        reason: what happened and where, one or more sentences.
        remedy: what the user can do about it; empty when there is nothing to do.
        exit_code: the code a command ends with.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class BadInput(ReprobuildError):
    """A file that the user named is missing, malformed or unsafe."""

    exit_code = ExitCode.BAD_INPUT


class ToolMissing(ReprobuildError):
    """A program or an interpreter that is needed here isn't on this machine."""

    exit_code = ExitCode.TOOL_MISSING


class LockMissing(ReprobuildError):
    """The source has no constraints.txt."""

    exit_code = ExitCode.LOCK_MISSING


class LockStale(ReprobuildError):
    """A lock doesn't satisfy what pyproject.toml or the backend asks for."""

    exit_code = ExitCode.LOCK_STALE


class BuildFailed(ReprobuildError):
    """A backend, a resolver or another program ended with an error."""

    exit_code = ExitCode.BUILD_FAILED


class SourceUnusable(ReprobuildError):
    """The source tree can't be exported as a function of a commit."""

    exit_code = ExitCode.SOURCE_UNUSABLE


class DigestMismatch(ReprobuildError):
    """Bytes don't have the digest that was promised for them."""

    exit_code = ExitCode.DIGEST_MISMATCH


class IndexFailed(ReprobuildError):
    """The package index can't be reached or doesn't offer a locked file."""

    exit_code = ExitCode.INDEX_FAILED


class RecordUnusable(ReprobuildError):
    """A build record is missing, malformed, or speaks of other bytes."""

    exit_code = ExitCode.RECORD_UNUSABLE


class SandboxUnavailable(ReprobuildError):
    """The sandbox kind that was asked for can't work on this machine."""

    exit_code = ExitCode.SANDBOX_UNAVAILABLE


class NotComparable(ReprobuildError):
    """A release lacks what a comparison needs: a wheel that fits this machine, or an sdist."""

    exit_code = ExitCode.NOT_COMPARABLE


class WriteFailed(ReprobuildError):
    """A result can't be written."""

    exit_code = ExitCode.WRITE_FAILED


class RegistryFailed(ReprobuildError):
    """An image registry can't be reached, refuses, or lacks what was asked for."""

    exit_code = ExitCode.REGISTRY_FAILED


class SigningFailed(ReprobuildError):
    """Nothing could be signed."""

    exit_code = ExitCode.SIGNING_FAILED


class EvidenceRefused(ReprobuildError):
    """A signed statement is malformed, was changed, or is about something else."""

    exit_code = ExitCode.NOT_VERIFIED


class NotAudited(ReprobuildError):
    """Nobody could say of every package which vulnerabilities are known."""

    exit_code = ExitCode.NOT_AUDITED


class NotPublishable(ReprobuildError):
    """A file wasn't made again with the outcome that is asked for, or no index would take it."""

    exit_code = ExitCode.NOT_PUBLISHABLE


class PublishFailed(ReprobuildError):
    """The index refuses an upload, has another file of the same name, or can't be reached."""

    exit_code = ExitCode.PUBLISH_FAILED
