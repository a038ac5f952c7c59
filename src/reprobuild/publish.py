"""Wheels and sdists to a package index: only what was made again with the outcome that is asked for.

uv uploads; it knows how to log in, and no credential passes through here but to be hidden in what it prints. All files
are checked before the first goes out. What is checked is a copy in a private folder, and that copy is uploaded.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from packaging.utils import NormalizedName, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from reprobuild import places, process, rebuild, recorded, verification
from reprobuild.archive import open_archive
from reprobuild.bundle import of_attestation, strict_json
from reprobuild.difference import Level
from reprobuild.digest import Digest, chunks_of
from reprobuild.errors import (
    BadInput,
    EvidenceRefused,
    IndexFailed,
    NotPublishable,
    PublishFailed,
    RecordUnusable,
    ReprobuildError,
    redacted,
    shown,
)
from reprobuild.files import TEXT_LIMIT, write_atomically
from reprobuild.image.signed import File
from reprobuild.index import Index
from reprobuild.places import Target
from reprobuild.policy import Identity, Policy
from reprobuild.progress import SILENT, Observer
from reprobuild.sdist import SUFFIX, read_sdist
from reprobuild.verification import SigstoreClient
from reprobuild.wheelfile import read_wheel

if TYPE_CHECKING:
    from packaging.metadata import Metadata

_T = TypeVar("_T")
_R = TypeVar("_R")
ATTESTATION_SUFFIX = ".publish.attestation"
#: How the type of the one statement ends that `reprobuild sign` makes for an index (its docs, "Publish attestation").
_ATTESTATION_TYPE = "/attestations/publish/v1"
Status = Literal["uploaded", "already-there", "would-upload"]
#: How it is known that a file can be made again: signed votes, a rebuild just now, or not at all.
Proof = Literal["votes", "made-again", "none"]
#: What a CI job has to show who it is, which uv hands to an index that trusts it.
_CI_VARIABLES = re.compile(r"CI|GITHUB_ACTIONS|ACTIONS_ID_TOKEN_REQUEST_\w+|GITLAB_CI|BUILDKITE\w*|\w+_ID_TOKEN")
_SECRETS = re.compile(r"UV_PUBLISH_(PASSWORD|TOKEN)|UV_INDEX_\w+_PASSWORD|ACTIONS_ID_TOKEN_REQUEST_TOKEN|\w+_ID_TOKEN")
_MASK = "::add-mask::"
_STATUS = re.compile(r"status code:? (\d{3})")
_LOGIN = (
    "Set UV_PUBLISH_TOKEN, or UV_PUBLISH_USERNAME and UV_PUBLISH_PASSWORD; or name a keyring with UV_KEYRING_PROVIDER; "
    "or run in a CI job that the index trusts."
)
_AGAIN = "Run it again: what is there already is passed over."
_LONGEST = 2000  # characters of an answer that are shown


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a file.

    Attributes:
        level: of the comparison with a rebuild, or the one that votes had to say; None where nothing was asked for.
        attestations: how many (PEP 740) go with it.
        attested_by: who signed these.
    """

    path: Path
    digest: Digest
    name: NormalizedName
    version: Version
    status: Status
    proof: Proof
    level: Level | None
    attestations: int
    attested_by: str = ""


@dataclass(frozen=True, slots=True)
class Demand:
    """What has to be known of a file before it is uploaded.

    Attributes:
        level: the worst that a rebuild may come to; None publishes what nobody has verified.
        policy: whose votes count; None has the file made again right now.
        trust: the root of trust of a private instance of Sigstore.
        project: the checkout that files are made again from.
        signers: whose attestations go along; any other's stops all.
    """

    level: Level | None = Level.IDENTICAL
    policy: Policy | None = None
    trust: Path | None = None
    project: Path = Path()
    signers: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class _Copy:
    """A file in the private folder; what was beside the original and goes along is beside it."""

    original: Path
    path: Path
    digest: Digest
    name: NormalizedName
    version: Version
    attestation: Path | None


def found_in(dist: Path) -> tuple[Path, ...]:
    """The wheels and sdists of the one version that a folder holds.

    Raises:
        BadInput: there are none, or of several versions.
    """
    files = tuple(path for path in sorted(dist.glob("*")) if path.name.endswith((".whl", SUFFIX)) and path.is_file())
    if not files:
        raise BadInput(
            f"There is no wheel or sdist in {dist}.",
            "Build them: `reprobuild wheel`, `reprobuild sdist`; or name files.",
        )
    releases = sorted({_release(path) for path in files})
    if len(releases) > 1:
        listed = ", ".join(f"{name} {version}" for name, version in releases)
        raise BadInput(f"{dist} holds several releases: {listed}.", "Name the files of one, or empty the folder.")
    return files


def _release(path: Path) -> tuple[NormalizedName, Version]:
    try:
        return parse_sdist_filename(path.name) if path.name.endswith(SUFFIX) else parse_wheel_filename(path.name)[:2]
    except ValueError as error:
        raise BadInput(f"{path} has not the name of a wheel or an sdist.", "Name the files to publish.") from error


def publish(
    files: Sequence[Path],
    target: Target,
    demand: Demand,
    *,
    scratch: Path,
    trusted_publishing: str = "",
    dry_run: bool = False,
    observer: Observer = SILENT,
) -> tuple[Published, ...]:
    """Check files, all of them, and then upload those that the index doesn't have.

    Args:
        scratch: a folder of this user's alone.
        trusted_publishing: ``automatic``, ``always`` or ``never``, for uv; empty for what it is configured to do.
        dry_run: check everything, and upload nothing.

    Raises:
        NotPublishable: a file wasn't made again with the outcome that is asked for, its attestation is of somebody
            else, or no index would take it. Nothing was uploaded.
        PublishFailed: the index can't be reached or refuses a file, or has another one of that name. What it had taken
            in before stays there.
        BuildFailed, SourceUnusable, …: a file can't be made again; nothing was uploaded.
    """
    for path in files:
        is_file = os.path.isfile(path)  # noqa: PTH113 - a name too long is no file
        if not path.name.endswith((".whl", SUFFIX)) or not is_file:
            raise BadInput(f"{shown(path)} is not a file that ends in .whl or {SUFFIX}.", "Name a wheel or an sdist.")
    if len({path.name for path in files}) < len(files):
        raise BadInput("Two of the files have the same name.", "An index holds one file of a name: name each once.")
    observer.step("checking what the files say of themselves")
    copies = _all_of(files, lambda path: _copied(path, scratch))
    there = _already_there(copies, target, observer)
    new = [copy for copy in copies if copy.path.name not in there]
    client = SigstoreClient(demand.trust)
    signers = dict(zip(new, _all_of(new, lambda copy: _attested(copy, demand.signers, client)), strict=True))
    levels = dict(zip(new, _all_of(new, lambda copy: _proved(copy, demand, observer)), strict=True))
    proof: Proof = "none" if demand.level is None else "votes" if demand.policy else "made-again"
    skipped: frozenset[str] = frozenset()
    if new and not dry_run:
        skipped = _upload(new, target, demand.project, trusted_publishing, observer)
        _tell_of_attestations([copy for copy in new if copy.attestation], target, observer)

    def outcome(copy: _Copy) -> Published:
        status: Status = "would-upload" if dry_run else "uploaded"
        if copy.path.name in there or copy.path.name in skipped:
            status = "already-there"
        known = copy in levels
        return Published(
            copy.original,
            copy.digest,
            copy.name,
            copy.version,
            status,
            proof if known else "none",
            levels[copy] if known else None,
            int(copy.attestation is not None),
            signers.get(copy, ""),
        )

    return tuple(outcome(copy) for copy in copies)


def _all_of(items: Sequence[_T], check: Callable[[_T], _R]) -> list[_R]:
    """The result for each; where some aren't publishable, one error that names them all."""
    done: list[_R] = []
    refused: list[NotPublishable] = []
    for item in items:
        try:
            done.append(check(item))
        except NotPublishable as error:
            refused.append(error)
    if refused:
        raise NotPublishable("\n".join(each.reason for each in refused), refused[0].remedy)
    return done


# --- the file ----------------------------------------------------------------------------------------


def _copied(path: Path, scratch: Path) -> _Copy:
    """A copy that nobody else can change, once it is known to be what its name says.

    Raises:
        BadInput: there is no such file.
        NotPublishable: no index would take it.
    """
    folder = scratch / path.name
    folder.mkdir()
    copy = folder / path.name
    try:
        with path.open("rb") as stream:
            write_atomically(copy, chunks_of(stream))
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.", "Name a wheel or an sdist.") from error
    digest = Digest.of_file(copy)
    try:
        name, version, metadata = _metadata(copy)
    except BadInput as error:
        raise NotPublishable(error.reason, error.remedy) from error
    _check_metadata(metadata, path.name)
    beside = recorded.record_path(path)
    if beside.is_file():
        with beside.open("rb") as stream:
            write_atomically(recorded.record_path(copy), chunks_of(stream))
    return _Copy(path, copy, digest, name, version, _attestation(path, copy, digest))


def _metadata(path: Path) -> tuple[NormalizedName, Version, bytes]:
    if path.name.endswith(SUFFIX):
        sdist = read_sdist(path)
        return sdist.name, sdist.version, sdist.metadata
    wheel = read_wheel(path)
    with open_archive(path) as archive:
        entry = next(each for each in archive.entries if each.name == f"{wheel.dist_info}/METADATA")
        return wheel.name, wheel.version, archive.open(entry).read(TEXT_LIMIT)


def _check_metadata(raw: bytes, where: str) -> "Metadata":
    """What indexes check before they take a file: the core metadata specifications.

    Raises:
        NotPublishable: it breaks them.
    """
    from packaging.metadata import Metadata  # noqa: PLC0415 - slow to import

    try:
        return Metadata.from_email(raw, validate=True)
    except ExceptionGroup as group:
        reasons = "; ".join(shown(each) for each in group.exceptions)
        raise NotPublishable(
            f"{where}: an index would refuse its metadata: {reasons}.", "Correct pyproject.toml, and build it again."
        ) from group


def _attestation(original: Path, copy: Path, digest: Digest) -> Path | None:
    """A copy of the attestation beside a file, if there is one; who signed it isn't looked at yet.

    Raises:
        NotPublishable: it is about something else.
    """
    beside = original.with_name(f"{original.name}{ATTESTATION_SUFFIX}")
    if not beside.is_file():
        return None
    with beside.open("rb") as stream:
        raw = stream.read(TEXT_LIMIT)
    remedy = "Sign the file again: `reprobuild sign` without --key writes one."
    try:
        statement = strict_json(of_attestation(raw, beside.name).payload)
        ((name, sha256),) = [(each["name"], each["digest"]["sha256"]) for each in statement["subject"]]
        kind = statement["predicateType"]
    except EvidenceRefused as error:
        raise NotPublishable(error.reason, remedy) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotPublishable(f"{beside.name} is no attestation of PEP 740.", remedy) from error
    if (name, sha256) != (original.name, digest.hex):
        raise NotPublishable(
            f"{beside.name} is about {shown(name)} with sha256:{shown(sha256)}, but the file has {digest}.", remedy
        )
    if not str(kind).endswith(_ATTESTATION_TYPE):
        raise NotPublishable(f"{beside.name} says something else than that the file is published.", remedy)
    kept = copy.with_name(beside.name)
    write_atomically(kept, [raw])
    return kept


def _attested(copy: _Copy, signers: Sequence[Identity], client: SigstoreClient) -> str:
    """Who signed the attestation that goes along; empty without one.

    Raises:
        NotPublishable: it is of nobody who is to sign here, or doesn't verify.
        ToolMissing, BadInput: as :func:`reprobuild.verification.accept`.
    """
    if copy.attestation is None:
        return ""
    name = copy.attestation.name
    without = "To publish without an attestation, take the file away."
    if not signers:
        raise NotPublishable(
            f"{name} is signed by an identity, and nothing says by whose it should be.",
            f"Name it with --signer IDENTITY ISSUER, or in the policy's `identities` or `github`. {without}",
        )
    try:
        return verification.by_certificate(of_attestation(copy.attestation.read_bytes(), name), signers, client)[0]
    except EvidenceRefused as error:
        wanted = " or ".join(each.repository if each.subject == "**" else str(each) for each in signers)
        whose = "If that is who should sign, name it with --signer IDENTITY ISSUER."  # the policy needn't be asked here
        remedy = whose if error.remedy == verification.ADD else error.remedy
        raise NotPublishable(f"{error.reason} It should be of {wanted}.", f"{remedy} {without}") from error


# --- whether it was verified -------------------------------------------------------------------------


def _proved(copy: _Copy, demand: Demand, observer: Observer) -> Level | None:
    """How well a file could be made again.

    Raises:
        NotPublishable: not as well as is asked for, or nobody who is trusted says so.
    """
    if demand.level is None:
        return None
    if demand.policy:
        return _voted(copy, demand.level, demand.policy, demand.trust)
    observer.step(f"{copy.path.name}: making it again in other surroundings")
    try:
        outcome = rebuild.verify(copy.path, demand.project, explain=False, observer=observer)
    except RecordUnusable as error:
        raise NotPublishable(
            f"{copy.path.name} was not verified: {error.reason.replace(str(copy.path), str(copy.original))}",
            "Build it with `reprobuild wheel` or `reprobuild sdist`, and keep its record beside it.",
        ) from error
    if not demand.level.accepts(outcome.level):
        causes = f" ({', '.join(outcome.causes)})" if outcome.causes else ""
        what = "sdist" if copy.path.name.endswith(SUFFIX) else "wheel"
        raise NotPublishable(
            f"{copy.path.name} was made again and came out {outcome.level}{causes}; {demand.level} is asked for.",
            f"`reprobuild verify-{what}` says what differs and why.",
        )
    return outcome.level


def _voted(copy: _Copy, level: Level, policy: Policy, trust: Path | None) -> Level:
    """The level that votes beside a file had to have, under a policy that asks for one of them at the least."""
    strictest = min(level, policy.level, key=lambda each: each.rank) if policy.rebuilds else level
    wanted = replace(policy, rebuilds=max(policy.rebuilds, 1), level=strictest, bases=())
    evidence = File(copy.original, copy.digest).evidence()
    found = verification.verify(copy.digest, evidence, wanted, trust=trust)
    if not found.passed:
        failed = [check for check in found.checks if not check.passed]
        reasons = "; ".join(f"{check.name}: {check.text.rstrip('.')}" for check in failed) or "nothing was checked"
        untold = [shown(why).rstrip(".") for why in found.refused]
        untold = [why for why in untold if why not in reasons]
        more = f" ({'; '.join(untold)})" if untold else ""
        what = "sdist" if copy.path.name.endswith(SUFFIX) else "wheel"
        remedies = dict.fromkeys(check.remedy.replace("verify-…", f"verify-{what}") for check in failed if check.remedy)
        remedy = " ".join(remedies)
        raise NotPublishable(f"{copy.path.name} is not verified under the policy: {reasons}{more}.", remedy)
    return strictest


# --- the index ---------------------------------------------------------------------------------------


def _already_there(copies: Sequence[_Copy], target: Target, observer: Observer) -> frozenset[str]:
    """The names of those that the index has, with the same bytes.

    Raises:
        PublishFailed: it has another file of that name, or can't be asked.
    """
    if target.listing is None:
        observer.warn("Nothing says where the index lists its files: name --check-url, so that it can be run again.")
        return frozenset()
    observer.step("asking the index what it has")
    index = Index(Path.cwd(), places=(target.listing,))
    there: set[str] = set()
    for name in sorted({copy.name for copy in copies}):
        own = {copy.path.name: copy.digest for copy in copies if copy.name == name}
        try:
            listed = index.digests(name, own)
        except IndexFailed as error:
            raise PublishFailed(
                f"Nothing was uploaded. {error.reason}", "Check --check-url, and the network."
            ) from error
        for filename, digest in listed.items():
            if digest != own[filename]:
                raise PublishFailed(
                    f"Nothing was uploaded: {filename} is on the index with {digest}, and here with {own[filename]}.",
                    "What an index has doesn't change: build and publish a new version.",
                )
            there.add(filename)
    return frozenset(there)


def _upload(
    copies: Sequence[_Copy], target: Target, project: Path, trusted_publishing: str, observer: Observer
) -> frozenset[str]:
    """Have uv upload them, in this order; the names of those that somebody else had uploaded meanwhile."""
    files = [path for copy in copies for path in (copy.path, copy.attestation) if path]
    options = ["--trusted-publishing", trusted_publishing] if trusted_publishing else []
    hidden = _hidden(target, project)
    skipped: set[str] = set()

    def heed(line: str) -> None:
        if line.startswith(_MASK):  # uv tells GitHub's runner which token of the index it is to hide
            hidden.insert(0, line.removeprefix(_MASK).strip())
            return
        text = redacted(line, hidden)
        observer.line(text)
        if found := re.match(r"(Uploading|File) (\S+)", text):
            if found[1] == "Uploading":
                observer.step(f"uploading {found[2]}")
            elif "already exists" in text:
                skipped.add(found[2])

    try:
        process.run(["uv", "publish", *options, *files], env=_environment(target), cwd=project, on_line=heed)
    except process.ToolFailed as error:
        raise _refused(error.output, hidden, target) from None  # its own message would show what has to be hidden
    return frozenset(skipped)


def _environment(target: Target) -> dict[str, str]:
    shown_to_uv = {name: value for name, value in os.environ.items() if _CI_VARIABLES.fullmatch(name)}
    env = process.tool_environment(shown_to_uv)
    for name in ("UV_PUBLISH_INDEX", "UV_PUBLISH_URL", "UV_PUBLISH_CHECK_URL", "UV_PUBLISH_NO_ATTESTATIONS"):
        env.pop(name, None)
    return {**env, **target.variables}


def _hidden(target: Target, project: Path) -> list[str]:
    own = [value for name, value in os.environ.items() if _SECRETS.fullmatch(name) and len(value) > 3]
    found = {*own, *target.hidden, *places.secrets(project)}
    return sorted(found, key=len, reverse=True)


def _refused(output: str, hidden: Sequence[str], target: Target) -> PublishFailed:
    """What uv and the index say, in words."""
    said = redacted(_words(output[max(output.find("error:"), 0) :].removeprefix("error:")), hidden)
    status = _STATUS.search(said)
    code = int(status[1]) if status else 0
    where = target.url or "the index"
    if code in (401, 403) or "credentials" in said or "trusted publishing" in said:
        remedy = _LOGIN
    elif code in (400, 409):
        remedy = "If it has the file already, --check-url lets a second run pass over what is the same."
    else:
        remedy = _AGAIN if target.listing else f"{_AGAIN} That needs --check-url."
    return PublishFailed(f"{where} didn't take all files: {shown(said, _LONGEST)}", remedy)


class _Text(HTMLParser):
    """What a page says, without its looks."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._passing = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the base class's
        self._passing += tag in ("style", "script", "title")

    def handle_endtag(self, tag: str) -> None:
        self._passing -= tag in ("style", "script", "title") and self._passing > 0

    def handle_data(self, data: str) -> None:
        if not self._passing:
            self.words += data.split()


def _words(text: str) -> str:
    """A program's lines, which may quote a page of HTML, as one paragraph."""
    if re.search(r"<html", text, re.IGNORECASE):
        page = _Text()
        page.feed(text)
        return " ".join(page.words)
    return " ".join(text.split())


def _tell_of_attestations(copies: Sequence[_Copy], target: Target, observer: Observer) -> None:
    """An index that knows none ignores them without a word; one that does lists them at once."""
    if not copies or target.listing is None:
        return
    try:
        index = Index(Path.cwd(), places=(target.listing,))
        proved = {name for each in {copy.name for copy in copies} for name in index.with_provenance(each)}
    except ReprobuildError:
        return  # all is uploaded
    for copy in copies:
        if copy.path.name not in proved:
            observer.warn(
                f"The index took {copy.path.name}, but lists no attestation of it: it may not take any (PEP 740)."
            )
