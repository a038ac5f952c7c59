"""Which known vulnerabilities packages have: asked of a service by pip-audit, weighed by the advisories themselves.

pip-audit says which advisories are about which version, and what mends them. What it leaves out without saying so is
found by asking for the same list once more; how severe one is stands only in the advisory. Nothing is installed.

Sources: OSV API v1; OSV schema, "severity" and "affected[].ranges"; pip-audit's JSON format.
"""

import importlib.util
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from reprobuild import process
from reprobuild.errors import BadInput, NotAudited, ToolMissing, redacted, shown
from reprobuild.progress import SILENT, Observer

Json = dict[str, Any]
#: What is asked where nobody names another: it tells of versions without knowing who publishes them.
OSV_URL = "https://api.osv.dev/v1/query"
SCANNER = "https://github.com/pypa/pip-audit"

#: Packages that one pip-audit asks for: it asks for one after the other.
_AT_ONCE = 64
_PROGRAMS, _CONNECTIONS = 4, 8
#: Seconds that all the questions of one pip-audit may take, and those of our own; and bytes that it may hold.
_LONGEST: float = 1800
_MEMORY = 2 << 30
#: Bytes of one answer, and of all that a server of advisories gives to one audit.
_ANSWER_LIMIT, _ANSWERS_LIMIT = 64 << 20, 128 << 20
_BATCH = 1000  # questions in one (OSV API, "querybatch")
_MOST_PAGES = 100
#: Names of advisories, with all that they are called; an audit of many packages, years old, has some hundred.
_MOST_NAMES = 10_000
_SUMMARY = 300  # characters that are kept
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,99}")
#: How a traceback ends: the name of an exception, with or without what it says.
_WORDLESS = re.compile(r"[A-Za-z_][\w.]*")
_WORDED = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Timeout): ")
_WORDS = {"LOW": "low", "MODERATE": "medium", "MEDIUM": "medium", "HIGH": "high", "CRITICAL": "critical"}
_CVSS = {"CVSS_V2": "CVSS2", "CVSS_V3": "CVSS3", "CVSS_V4": "CVSS4"}


class Severity(StrEnum):
    """How bad a vulnerability is, from the least on. One that nobody has weighed counts as the worst."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    @property
    def rank(self) -> int:
        """Its place in that order."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """What is asked about.

    Attributes:
        name: normalised.
        version: without a local part (PEP 440): advisories speak of what is published.
    """

    name: str
    version: Version

    @classmethod
    def of(cls, name: str, version: Version) -> "Package":
        """The question about a pin."""
        return cls(canonicalize_name(name), Version(version.public))

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Score:
    """What one vector came to.

    Attributes:
        method: the schema's name, such as ``CVSS_V3``.
    """

    method: str
    score: str
    vector: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class Advisory:
    """One vulnerability of one version of a package, under all its names.

    Attributes:
        aliases: its other names, sorted.
        fixed: later versions that don't have it.
        summary: one line; nobody vouches for it.
    """

    package: Package
    id: str
    aliases: tuple[str, ...]
    fixed: tuple[Version, ...]
    summary: str
    severity: Severity = Severity.UNKNOWN
    scores: tuple[Score, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All that it is called."""
        return frozenset((self.id, *self.aliases))


@dataclass(frozen=True, slots=True)
class Service:
    """Who is asked.

    Attributes:
        kind: ``osv``, ``pypi`` or ``esms``, as pip-audit has them.
        osv_url: what questions are posted to; severities are asked for beside it, whatever the kind.
        timeout: seconds that an answer may take.
    """

    kind: str = "osv"
    osv_url: str = OSV_URL
    timeout: int = 15

    @property
    def base(self) -> str:
        """The start of the server's other addresses.

        Raises:
            BadInput: the URL isn't that of a server's ``query``.
        """
        try:
            parts = urlsplit(self.osv_url)
        except ValueError:  # its message would show the URL
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.endswith("/query"):
            raise BadInput(
                f"{redacted(self.osv_url)!r} isn't where an OSV server takes questions.",
                f"It ends with /query, as {OSV_URL} does: the others are found beside it.",
            )
        return self.osv_url.removesuffix("/query")

    @property
    def database(self) -> str:
        """What statements call the one that is asked."""
        return redacted(self.base) if self.kind == "osv" else f"pip-audit:{self.kind}"


def scanner_version() -> str:
    """The version of pip-audit that is here.

    Raises:
        ToolMissing: it isn't, or what reads severities isn't.
    """
    for module in ("pip_audit", "cvss"):
        if importlib.util.find_spec(module) is None:
            raise ToolMissing(
                f"{module.replace('_', '-')} isn't installed beside reprobuild ({sys.executable}).",
                "Install reprobuild[audit] instead of reprobuild.",
            )
    from importlib.metadata import version  # noqa: PLC0415 - slow, and only for audits

    return version("pip-audit")


def ask(
    packages: Iterable[Package], service: Service, scratch: Path, observer: Observer = SILENT
) -> tuple[Advisory, ...]:
    """The vulnerabilities that are known of some packages, sorted; those that were withdrawn are none.

    Args:
        scratch: an empty folder for files that pip-audit reads and writes.

    Raises:
        ToolMissing: pip-audit isn't installed.
        NotAudited: the service can't be asked, or didn't answer for each of them: then nothing is known.
    """
    wanted = sorted(set(packages))
    scanner_version()
    client = _Client(service)
    observer.step(f"asking {service.database} about {len(wanted)} package{'s' if len(wanted) != 1 else ''}")
    rounds = [chunk[at : at + _AT_ONCE] for chunk in _rounds(wanted) for at in range(0, len(chunk), _AT_ONCE)]
    with process.workers(_PROGRAMS) as pool:
        answers = list(pool.map(lambda each: _run(each[0], each[1], service, scratch), enumerate(rounds)))
    found = [advisory for answer in answers for advisory in answer]
    if len(found) > _MOST_NAMES:
        raise client.wrong(f"more than {_MOST_NAMES} advisories")
    listed = client.listed(wanted) if service.kind == "osv" else {}
    if found:
        observer.step(f"asking how severe {f'{len(found)} advisories are' if len(found) > 1 else '1 advisory is'}")
    known = client.records({name for each in found for name in each.names}.union(*listed.values()))
    merged = _merged([replace(each, aliases=_aliases(each, known)) for each in found])
    for package, ids in listed.items():
        _require_told(package, ids, [each for each in merged if each.package == package], known)
    return tuple(sorted((_weighed(each, known) for each in merged), key=lambda each: (each.package, each.id)))


def _rounds(packages: Sequence[Package]) -> Iterator[list[Package]]:
    """Packages such that none is there in two versions: pip-audit refuses a file with these."""
    turns: dict[int, list[Package]] = {}
    seen: Counter[str] = Counter()
    for each in packages:
        turns.setdefault(seen[each.name], []).append(each)
        seen[each.name] += 1
    yield from turns.values()


# --- pip-audit ------------------------------------------------------------------------------------------


def _run(number: int, packages: Sequence[Package], service: Service, scratch: Path) -> list[Advisory]:
    asked, answer = scratch / f"{number}.txt", scratch / f"{number}.json"
    asked.write_text("".join(f"{each.name}=={each.version}\n" for each in packages), encoding="utf-8")
    argv: list[str | Path] = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "-r", asked]
    argv += ["--format", "json", "--output", answer, "--progress-spinner", "off", "--cache-dir", scratch / "cache"]
    argv += ["--vulnerability-service", service.kind, "--timeout", str(service.timeout)]
    said = ""
    try:
        # Not an argument: the URL may hold a password, and arguments are for all to see.
        env = process.tool_environment({"PIP_AUDIT_OSV_URL": service.osv_url})
        # In an own folder: Python takes files of the present one for modules.
        process.run(argv, env=env, cwd=scratch, timeout=_LONGEST, memory=_MEMORY)
    except process.ToolFailed as error:
        said = error.output
        if error.returncode != 1:  # which it ends with when it found something, too
            raise _failed(service, said) from error
    except (process.ToolTimeout, process.ToolTooLarge) as error:
        raise _failed(service, error.reason) from error
    if not answer.is_file():
        raise _failed(service, said)
    if answer.stat().st_size > _ANSWER_LIMIT:
        raise _failed(service, "its answer is larger than anything that it should say")
    return read_answer(answer.read_bytes(), packages)


def _failed(service: Service, said: str) -> NotAudited:
    lines = [line for line in reversed(said.splitlines()) if line.strip()]
    last = lines[0] if lines else "it didn't say why"
    if _WORDLESS.fullmatch(last):  # an exception around another, which is told before it
        last = next((line for line in lines if _WORDED.match(line)), last)
    return NotAudited(
        f"pip-audit couldn't ask {service.database}: {shown(redacted(last.strip()), 300)}",
        "Nothing is known about these packages, which isn't the same as nothing wrong. Try again, or ask another "
        "service with --vulnerability-service or --osv-url.",
    )


def read_answer(raw: bytes, packages: Sequence[Package]) -> list[Advisory]:
    """What pip-audit says in its JSON, which has to be about the very packages that it was asked about.

    Raises:
        NotAudited: it is about others, or skipped one.
    """
    try:
        listed = json.loads(raw)["dependencies"]
        skipped = [each for each in listed if "skip_reason" in each or "vulns" not in each]
        if skipped:
            raise NotAudited(
                f"{shown(skipped[0].get('name'))} wasn't audited: {shown(skipped[0].get('skip_reason', 'skipped'))}",
                "The service knows nothing about it: ask another one with --vulnerability-service.",
            )
        answers = [(Package(canonicalize_name(each["name"]), Version(each["version"])), each) for each in listed]
        found = [_read_advisory(package, one) for package, each in answers for one in each["vulns"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotAudited(
            f"pip-audit's answer can't be read: {type(error).__name__}: {shown(error)}", "Is it a version from 2.10 on?"
        ) from error
    answered = Counter(package for package, _ in answers)
    if missing := sorted(set(packages) - set(answered)):
        raise NotAudited(
            f"pip-audit didn't answer about {len(missing)} of {len(packages)} packages: {missing[0]} is one.",
            "Nothing is known about them. Try again, or ask another service.",
        )
    if more := sorted(set(answered) - set(packages)):
        raise NotAudited(f"pip-audit answered about {shown(more[0])}, which nobody asked about.", "Try again.")
    return found


def _read_advisory(package: Package, said: Json) -> Advisory:
    name, aliases, summary = said["id"], said.get("aliases", []), said.get("description") or ""
    if not all(isinstance(each, str) for each in (name, *aliases, summary)):
        raise TypeError("an advisory's names aren't texts")
    fixed = tuple(sorted({Version(each) for each in said["fix_versions"]}))
    return Advisory(package, name, tuple(sorted(set(aliases) - {name})), fixed, _line(summary))


def _line(text: str) -> str:
    return shown(" ".join(text.split()), _SUMMARY)


# --- an OSV server --------------------------------------------------------------------------------------


class _Client:
    """Asks an OSV server for lists of advisories, and for single ones: so many, in so many bytes and so long a time."""

    def __init__(self, service: Service) -> None:
        import requests  # noqa: PLC0415 - slow, and only for audits
        import urllib3  # noqa: PLC0415 - the same

        self._service, self._base = service, service.base
        self._session = requests.Session()
        self._errors = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
        self._until, self._left, self._lock = time.monotonic() + _LONGEST, _ANSWERS_LIMIT, threading.Lock()

    def records(self, names: set[str]) -> dict[str, Json]:
        """The advisories of these names that the server has, and of those that they tell of, by name.

        Raises:
            NotAudited: the server doesn't say.
        """
        found: dict[str, Json] = {}
        asked: set[str] = set()
        with process.workers(_CONNECTIONS) as pool:
            while names:
                asked |= names
                if len(asked) > _MOST_NAMES:
                    raise self.wrong(f"more than {_MOST_NAMES} names of advisories")
                ordered = sorted(names)
                answered = zip(ordered, pool.map(self._record, ordered), strict=True)
                new = {name: record for name, record in answered if record is not None}
                found |= new
                names = {name for record in new.values() for name in _names_in(record)} - asked
        return found

    def _record(self, name: str) -> Json | None:
        if not _ID.fullmatch(name):
            return None
        answer = self._asked("GET", f"/vulns/{quote(name, safe='')}")
        if answer is not None and not isinstance(answer.get("id"), str):
            raise self.wrong(f"no advisory where {name} was asked for")
        return answer

    def listed(self, packages: Sequence[Package]) -> dict[Package, set[str]]:
        """The names of the advisories about each package.

        Raises:
            NotAudited: the server doesn't say.
        """
        found: dict[Package, set[str]] = {each: set() for each in packages}
        waiting, count = [(each, "") for each in packages], 0
        for _ in range(_MOST_PAGES):
            if not waiting:
                return found
            following: list[tuple[Package, str]] = []
            for at in range(0, len(waiting), _BATCH):
                part = waiting[at : at + _BATCH]
                for (package, _), (ids, token) in zip(part, self._batch(part), strict=True):
                    found[package] |= ids
                    count += len(ids)
                    if count > _MOST_NAMES:
                        raise self.wrong(f"more than {_MOST_NAMES} advisories")
                    if token:
                        following.append((package, token))
            waiting = following
        raise self.wrong(f"more than {_MOST_PAGES} pages of advisories about {waiting[0][0]}")

    def _batch(self, part: Sequence[tuple[Package, str]]) -> list[tuple[set[str], str]]:
        queries = [
            {"package": {"name": each.name, "ecosystem": "PyPI"}, "version": str(each.version)}
            | ({"page_token": token} if token else {})
            for each, token in part
        ]
        answer = self._asked("POST", "/querybatch", {"queries": queries})
        try:
            results = [] if answer is None else answer["results"]
            said = [({str(v["id"]) for v in r.get("vulns") or ()}, r.get("next_page_token") or "") for r in results]
        except (KeyError, TypeError, AttributeError) as error:
            raise self.wrong("something else than a list of advisories") from error
        if len(said) != len(part):
            raise self.wrong(f"{len(said)} answers to {len(part)} questions")
        return said

    def _asked(self, method: str, path: str, body: Json | None = None) -> Json | None:
        """The JSON of an answer; None where there is nothing (404)."""
        where = f"{redacted(self._base)}{path}"
        self._go_on(0, where)
        try:
            with self._session.request(
                method, self._base + path, json=body, timeout=self._service.timeout, stream=True
            ) as response:
                raw = bytearray()
                while piece := response.raw.read1(1 << 16, decode_content=True):  # what came, however little
                    raw += piece
                    self._go_on(len(piece), where)
                    if len(raw) > _ANSWER_LIMIT:
                        raise self.wrong(f"more than {_ANSWER_LIMIT >> 20} MiB at {where}")
            if response.status_code == 404 and method == "GET":
                return None
            if response.status_code != 200:
                raise self.wrong(f"status {response.status_code} at {where}")
            found = json.loads(raw)
        except self._errors as error:
            why = type(error).__name__ if not isinstance(error, ValueError) else "it is no JSON"
            raise self.wrong(f"nothing that can be read at {where} ({why})") from error
        except RecursionError as error:
            raise self.wrong(f"JSON that is nested too deeply at {where}") from error
        if not isinstance(found, dict):
            raise self.wrong(f"no JSON object at {where}")
        return found

    def _go_on(self, size: int, where: str) -> None:
        """Raise if something has stopped this work, or if the server has had its share of time or of bytes."""
        process.go_on()
        with self._lock:
            self._left -= size
            left = self._left
        if left < 0:
            raise self.wrong(f"more than {_ANSWERS_LIMIT >> 20} MiB in all, the last at {where}")
        if time.monotonic() > self._until:
            raise self.wrong(f"not all of its answers within {_LONGEST:g} seconds, the last at {where}")

    def wrong(self, what: str) -> NotAudited:
        """The error that it answers like this."""
        return NotAudited(
            f"The server of advisories gave {what}.",
            "Nothing is known about these packages, which isn't the same as nothing wrong. Try again, or name another "
            "server with --osv-url.",
        )


# --- what the advisories say ----------------------------------------------------------------------------


def _aliases(advisory: Advisory, records: Mapping[str, Json]) -> tuple[str, ...]:
    """All its other names, with those that its records tell."""
    names, waiting = set(advisory.names), list(advisory.names)
    while waiting:
        more = _names_in(records.get(waiting.pop(), {})) - names
        names |= more
        waiting += more
    return tuple(sorted(names - {advisory.id}))


def _names_in(record: Json) -> set[str]:
    aliases = record.get("aliases")
    listed = [record.get("id"), *(aliases if isinstance(aliases, list) else ())]
    return {each for each in listed if isinstance(each, str)}


def _merged(found: Sequence[Advisory]) -> list[Advisory]:
    """One where several share a name: pip-audit gives the same one more than once."""
    merged: list[Advisory] = []
    for each in found:
        same = [other for other in merged if other.package == each.package and other.names & each.names]
        names = each.names.union(*(other.names for other in same))
        first = same[0] if same else each
        fixed = {version for other in (*same, each) for version in other.fixed}
        summary = max((other.summary for other in (*same, each)), key=lambda text: (text != "N/A", -len(text)))
        one = replace(first, aliases=tuple(sorted(names - {first.id})), fixed=tuple(sorted(fixed)), summary=summary)
        merged = [other for other in merged if other not in same] + [one]
    return merged


def _require_told(package: Package, ids: set[str], told: Sequence[Advisory], records: Mapping[str, Json]) -> None:
    """Raise unless pip-audit told of each advisory that the server lists, under some name: it leaves some out."""
    names = {name for each in told for name in each.names}
    for each in sorted(ids - names):
        record = records.get(each, {})
        if not record.get("withdrawn") and not _names_in(record) & names:
            raise NotAudited(
                f"The server lists {shown(each)} about {package}, and pip-audit leaves it out.",
                "It may be of a kind that pip-audit doesn't know. Look at it yourself, or try a newer pip-audit.",
            )


def _weighed(advisory: Advisory, records: Mapping[str, Json]) -> Advisory:
    """The same with what its records say of severity and of fixed versions."""
    own = [record for name in sorted(advisory.names) if (record := records.get(name)) and not record.get("withdrawn")]
    fixed = {*advisory.fixed, *(version for record in own for version in _fixed(record, advisory.package.name))}
    later = tuple(sorted(version for version in fixed if version > advisory.package.version))
    scores = tuple(score for record in own for score in _scores(record))
    summaries = [_line(text) for record in own if isinstance(text := record.get("summary"), str) and text.strip()]
    return replace(
        advisory,
        fixed=later,
        severity=severity_of(own),
        scores=tuple(dict.fromkeys(scores)),
        summary=summaries[0] if summaries else advisory.summary,
    )


def severity_of(records: Iterable[Json]) -> Severity:
    """The worst that the records of one vulnerability say: by their vectors, or by a word where there is none."""
    found = [severity for record in records for severity in _severities(record)]
    return max(found, key=lambda each: each.rank, default=Severity.UNKNOWN)


def _severities(record: Json) -> list[Severity]:
    if scores := _scores(record):
        return [each.severity for each in scores]
    tables = [record, *_tables(record.get("affected"))]
    words = [
        str(table[key].get("severity")).upper()
        for table in tables
        for key in ("database_specific", "ecosystem_specific")
        if isinstance(table.get(key), dict)
    ]
    return [Severity(_WORDS[word]) for word in words if word in _WORDS]


def _scores(record: Json) -> list[Score]:
    listed = [*_tables(record.get("severity"))]
    for affected in _tables(record.get("affected")):
        listed += _tables(affected.get("severity"))
    return [score for each in listed if (score := _score(each.get("type"), each.get("score")))]


def _score(method: object, vector: object) -> Score | None:
    """What a vector comes to (CVSS v2, v3 and v4 base scores); None of one that is none."""
    import cvss  # noqa: PLC0415 - an extra

    if not isinstance(vector, str) or not isinstance(method, str) or method not in _CVSS or len(vector) > 500:
        return None
    try:
        made = getattr(cvss, _CVSS[method])(vector)
        word, score = str(made.severities()[0]).upper(), str(made.scores()[0])
    except (cvss.CVSSError, KeyError, ValueError, ArithmeticError):
        return None
    # 0.0 is "None" to CVSS; whoever published an advisory thought that it is something.
    return Score(method, score, vector, Severity(_WORDS.get(word, "low")))


def _fixed(record: Json, name: str) -> Iterator[Version]:
    for affected in _tables(record.get("affected")):
        package = affected.get("package")
        if isinstance(package, dict) and canonicalize_name(str(package.get("name"))) == name:
            ranges = (each for each in _tables(affected.get("ranges")) if each.get("type") == "ECOSYSTEM")
            for each in ranges:  # those of git have commits in them
                for event in _tables(each.get("events")):
                    try:
                        yield Version(str(event["fixed"]))
                    except (KeyError, InvalidVersion):
                        continue


def _tables(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
