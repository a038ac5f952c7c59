"""What came of checking a whole lock: lines for people, and JSON, JUnit and Markdown for others."""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import click

from reprobuild import __version__
from reprobuild.batch import File, Kind, Outcome, Summary
from reprobuild.cli.console import plain
from reprobuild.cli.render import COLOURS
from reprobuild.compare import causes_json
from reprobuild.difference import Level
from reprobuild.errors import ExitCode

_COLUMNS = tuple("package,version,uploaded,generator,level,clock,winning guesses,tries,cause,seconds".split(","))
_SHOWN = 160  # characters of a line of a reason


def line(outcome: Outcome, width: int) -> str:
    """One outcome in a line; ``width`` is that of the longest package."""
    word = click.style(f"{_word(outcome):<14}", fg=COLOURS[outcome.level], bold=True)
    package = plain(str(outcome.dependency))
    details = "; ".join(_details(outcome))
    return f"{word}  {package:<{width}}  {outcome.seconds:>7.1f} s  {details}".rstrip()


def summary_lines(summary: Summary, own: Sequence[str]) -> Iterator[str]:
    """How many of how many, for people."""
    counted = ", ".join(f"{summary.kinds[kind]} {_WORDS[kind]}" for kind in Kind)
    yield f"{summary.pinned} pinned: {counted}"
    compared, same = summary.kinds[Kind.COMPARED], summary.levels[Level.IDENTICAL]
    yield (
        f"identical: {_rate(same, compared)} compared, {_rate(same, summary.pinned)} pinned; "
        f"{summary.replayed} of the {same} with a replayed clock"
    )
    differing = [f"{level} {count}" for level, count in summary.levels.items() if level is not Level.IDENTICAL]
    yield f"differing: {', '.join(differing)}"
    if summary.resumed:
        yield f"resumed: {summary.resumed} of {summary.pinned} are what earlier runs found; nothing was built for them"
    if own:
        yield f"the lock's own projects, which are none of their dependencies: {', '.join(plain(each) for each in own)}"


def as_json(
    lock: str, form: str, outcomes: Sequence[Outcome], own: Sequence[str], notes: Sequence[str], code: ExitCode
) -> dict[str, Any]:
    """Everything, as docs/verify-wheels.md describes it."""
    summary = Summary.of(outcomes)
    return {
        "lock": lock,
        "format": form,
        "reprobuild": __version__,
        "packages": [_package_json(each) for each in outcomes],
        "own": list(own),
        "notes": list(notes),
        "summary": {
            "pinned": summary.pinned,
            **{str(kind): count for kind, count in summary.kinds.items()},
            "levels": {str(level): count for level, count in summary.levels.items()},
            "replayed": summary.replayed,
            "resumed": summary.resumed,
        },
        "exitCode": int(code),
    }


def junit(lock: str, outcomes: Sequence[Outcome], accepted: Level, *, allow_unchecked: bool) -> bytes:
    """A JUnit report: one test case a package, in the lock's order.

    It keeps to what the oldest schemas in use admit: properties belong to the suite alone.
    """
    cases = [_case(lock, each, accepted, allow_unchecked=allow_unchecked) for each in outcomes]
    summary = Summary.of(outcomes)
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "time": f"{sum(each.seconds for each in outcomes):.1f}",
    }
    skipped = str(sum(case.find("skipped") is not None for case in cases))
    root = ET.Element("testsuites", {"name": "reprobuild verify-wheels", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": plain(lock), **counts, "skipped": skipped})
    properties = ET.SubElement(suite, "properties")
    values = {
        "reprobuild": __version__,
        "pinned": summary.pinned,
        **{str(kind): count for kind, count in summary.kinds.items()},
        **{f"level.{level}": count for level, count in summary.levels.items()},
        "clock.replayed": summary.replayed,
        "resumed": summary.resumed,
    }
    for name, value in values.items():
        ET.SubElement(properties, "property", {"name": name, "value": str(value)})
    suite.extend(cases)
    ET.indent(root)
    said: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return said + b"\n"


def markdown(lock: str, outcomes: Sequence[Outcome], own: Sequence[str]) -> str:
    """A table with a row for each package, and the totals below it."""
    rows = [_COLUMNS, *(_row(each) for each in outcomes)]
    lines = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(_COLUMNS))
    totals = "".join(f"- {_cell(each)}\n" for each in summary_lines(Summary.of(outcomes), own))
    made = f"Made by reprobuild {__version__} with `reprobuild verify-wheels --from {plain(lock)} --markdown FILE`."
    return "\n".join(["# Published wheels, made again", "", made, "", *lines, "", totals])


_WORDS = {
    Kind.COMPARED: "compared",
    Kind.NOT_COMPARABLE: "not comparable",
    Kind.NOT_CHECKED: "not checked",
    Kind.SKIPPED: "skipped",
    Kind.FAILED: "failed",
}


def _word(outcome: Outcome) -> str:
    return str(outcome.level if outcome.kind is Kind.COMPARED else outcome.kind)


def _rate(some: int, every: int) -> str:
    return f"{some} of {every}{f' ({some / every:.1%})' if every else ''}"


def _details(outcome: Outcome) -> Iterator[str]:
    if outcome.resumed:
        yield "resumed"
    finding = outcome.finding
    if finding and not outcome.reason:
        yield f"try {finding.won} of {finding.tries}"
        if finding.replayed:
            yield "clock replayed"
    if finding and finding.causes:
        yield ", ".join(finding.causes)
    if outcome.error is not None:
        yield outcome.error.name
    if outcome.reason:
        yield _brief(outcome.reason)


def _brief(text: str) -> str:
    """A text in one line: of several its first and its last, where programs say what went wrong, but for hints."""
    lines = [plain(" ".join(each.split())) for each in text.splitlines() if each.strip()]
    lines = lines[:1] + [each for each in lines[1:] if not each.startswith("hint:")]
    ends = lines if len(lines) < 2 else (lines[0], lines[-1])
    return " … ".join(each if len(each) <= _SHOWN else f"{each[:_SHOWN]}…" for each in ends)


def _package_json(outcome: Outcome) -> dict[str, Any]:
    dependency, finding = outcome.dependency, outcome.finding
    return {
        "name": dependency.name,
        "version": dependency.version,
        "marker": dependency.marker,
        "where": dependency.where,
        "result": str(outcome.kind),
        "level": str(outcome.level),
        "wheel": _file_json(outcome.wheel),
        "sdist": _file_json(outcome.sdist),
        "generator": finding.generator if finding else "",
        "guesses": [{"name": each.name, "value": each.value, "evidence": each.evidence} for each in finding.guesses]
        if finding
        else [],
        "won": finding.won if finding else 0,
        "tries": finding.tries if finding else 0,
        "replayed": list(finding.replayed) if finding else [],
        "causes": causes_json(finding.causes) if finding else [],
        "reason": outcome.reason,
        "error": outcome.error.name if outcome.error is not None else None,
        "seconds": outcome.seconds,
        "resumed": outcome.resumed,
        "secondsThen": finding.seconds if finding and outcome.resumed else None,
    }


def _file_json(file: File | None) -> dict[str, Any] | None:
    if file is None:
        return None
    return {"name": file.name, "digest": file.digest, "locked": file.locked, "uploaded": file.uploaded}


def _case(lock: str, outcome: Outcome, accepted: Level, *, allow_unchecked: bool) -> ET.Element:
    name = plain(str(outcome.dependency))
    case = ET.Element("testcase", {"classname": plain(lock), "name": name, "time": f"{outcome.seconds:.1f}"})
    said = plain("; ".join(_details(outcome)))
    text = "\n".join(plain(each) for each in _text(outcome))
    if outcome.kind is Kind.FAILED:
        tag, sort = "error", outcome.error.name if outcome.error is not None else "INTERNAL"
    elif outcome.kind is Kind.COMPARED:
        tag, sort = "" if accepted.accepts(outcome.level) else "failure", str(outcome.level)
    else:
        tag, sort = "skipped" if allow_unchecked or outcome.kind is Kind.SKIPPED else "failure", str(outcome.kind)
    if tag in ("error", "failure"):
        ET.SubElement(case, tag, {"message": said, "type": sort}).text = text
        return case
    if tag:
        ET.SubElement(case, tag, {"message": said})
    ET.SubElement(case, "system-out").text = text
    return case


def _text(outcome: Outcome) -> Iterator[str]:
    yield f"result: {_word(outcome)}"
    yield f"place: {outcome.dependency.where}"
    for what, file in (("wheel", outcome.wheel), ("sdist", outcome.sdist)):
        if file:
            yield f"{what}: {file.name} {file.digest}{'' if file.locked else ' (not in the lock)'}"
    if outcome.finding:
        yield from (f"guess: {each.name} {each.value} ({each.evidence})" for each in outcome.finding.guesses)
        yield from (f"clock replayed: {each}" for each in outcome.finding.replayed)
        yield from (f"cause: {each}" for each in outcome.finding.causes)
    if outcome.resumed:
        yield "resumed: this is a finding of an earlier run"
    yield from outcome.reason.splitlines()


def _row(outcome: Outcome) -> tuple[str, ...]:
    finding = outcome.finding
    if finding is None:
        said = (_word(outcome), "", "", "", _brief(outcome.reason), f"{outcome.seconds:.1f}")
        return (outcome.dependency.name, outcome.dependency.version, "", "", *said)
    return (
        outcome.dependency.name,
        outcome.dependency.version,
        outcome.wheel.uploaded[:10] if outcome.wheel else "",
        finding.generator,
        f"{_word(outcome)} (resumed)" if outcome.resumed else _word(outcome),
        "replayed" if finding.replayed else "",
        "; ".join(f"{each.name} {each.value}" for each in finding.guesses),
        f"{finding.won} of {finding.tries}",
        "; ".join(filter(None, (", ".join(finding.causes), _brief(outcome.reason)))),
        f"{finding.seconds:.1f}",
    )


def _cell(text: str) -> str:
    """A text that Markdown shows as it is, whoever wrote it: no link, no image, no tag, no other cell."""
    return re.sub(r"([\\`*_{}\[\]<>|~#!&])", r"\\\1", plain(text))
