"""What an sdist proves about a published wheel that differs from the one made of it."""

import configparser
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reprobuild.archive import Archive, Entry, open_archive
from reprobuild.compare import Verdict
from reprobuild.difference import Difference
from reprobuild.digest import Digest
from reprobuild.wheelfile import WheelFile

_LICENCE = re.compile(r"(licen[cs]e|copying|notice|authors)", re.IGNORECASE)
_METADATA_LIMIT = 16 << 20  # bytes


def explained(
    verdict: Verdict, published: WheelFile, made: Path, sdist: Sequence[Entry], setup_cfg: str = ""
) -> Verdict:
    """The verdict with the causes that only the sdist can prove.

    - ``not-in-sdist``: the published wheel (left) has a file, or METADATA the text of one, that the sdist lacks.
    - ``not-as-in-sdist``: the file made here is one of the sdist's, unchanged, and the published one is none of them.
    - ``repaired``: the published wheel has tags that a build never gives, and this is what comes with them.

    Args:
        made: the wheel made again.
        sdist: the sdist's members, with their digests.
        setup_cfg: the text of its setup.cfg.
    """
    names = _Names(sdist)
    repaired = any(tag.platform.startswith(("manylinux", "musllinux")) for tag in published.tags)
    repaired = repaired and "linux_" in made.name and "manylinux" not in made.name and "musllinux" not in made.name
    with open_archive(published.path) as theirs, open_archive(made) as ours:
        heads = _head_lines(theirs, published) if _absent_description(setup_cfg, names) else 0

        def cause(each: Difference) -> str | None:
            if each.follows or not each.path:
                return each.cause
            name = each.path[0]
            if repaired and _is_of_repair(name, each, published):
                return "repaired"
            if each.field == "missing":
                lacks = each.right == "absent" and _is_copied(name, published) and not names.like(_source_of(name))
                return "not-in-sdist" if lacks else each.cause
            if name == f"{published.dist_info}/METADATA":
                line = re.fullmatch(r"line (\d+)", each.field)
                is_text = line is not None and int(line.group(1)) > heads
                return "not-in-sdist" if heads and (is_text or each.field == "more lines") else each.cause
            if each.cause is None and not name.startswith(published.dist_info):
                return "not-as-in-sdist" if _is_replaced(name, theirs, ours, names) else None
            return each.cause

        differences = tuple(replace(each, cause=cause(each)) for each in verdict.differences)
    return replace(verdict, differences=differences)


def _is_of_repair(name: str, difference: Difference, published: WheelFile) -> bool:
    """Whether a difference is of a kind that compiling elsewhere and repairing makes."""
    if name == f"{published.dist_info}/WHEEL":
        return "Tag:" in difference.left + difference.right
    compiled = name.endswith(".so") or ".so." in name.rpartition("/")[2]
    folder = difference.field == "missing" and (name.endswith("/") or "." not in name.rpartition("/")[2])
    return compiled or folder or name.partition("/")[0].endswith(".libs")


class _Names:
    """The files of an sdist, to be found by the ends of their paths."""

    def __init__(self, sdist: Iterable[Entry]) -> None:
        self._by_name: dict[str, list[Entry]] = {}
        self.top: set[str] = set()
        for entry in sdist:
            if entry.kind != "directory":
                inner = entry.name.partition("/")[2]
                self._by_name.setdefault(inner.rpartition("/")[2], []).append(entry)
                self.top.add(inner)

    def like(self, name: str) -> list[Entry]:
        """The files whose path ends with this one."""
        found = self._by_name.get(name.rpartition("/")[2], [])
        return [entry for entry in found if f"/{entry.name}".endswith(f"/{name}")]


def _is_copied(name: str, published: WheelFile) -> bool:
    """Whether a member is a copy of some file, as far as its name tells."""
    last = name.rpartition("/")[2]
    return not name.startswith(published.dist_info) or _LICENCE.match(last) is not None


def _source_of(name: str) -> str:
    """The part of a member's path that it may have in the source; of one in dist-info or in data the last part."""
    top = name.partition("/")[0]
    return name.rpartition("/")[2] if top.endswith((".dist-info", ".data")) else name


def _absent_description(setup_cfg: str, names: _Names) -> bool:
    """Whether setup.cfg takes the description from files that aren't all there."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(setup_cfg)
        value = parser.get("metadata", "long_description", fallback="") or parser.get(
            "metadata", "long-description", fallback=""
        )
    except configparser.Error:
        return False
    kind, colon, listed = value.strip().partition(":")
    files = [each.strip() for each in listed.split(",")] if colon and kind == "file" else []
    return any(each not in names.top for each in files)


def _head_lines(archive: Archive, published: WheelFile) -> int:
    """How many lines the header of METADATA has, before the description."""
    entry = next(each for each in archive.entries if each.name == f"{published.dist_info}/METADATA")
    if entry.size > _METADATA_LIMIT:
        return 0
    head, blank, _ = archive.open(entry).read().replace(b"\r\n", b"\n").partition(b"\n\n")
    return head.count(b"\n") + 1 if blank else 0


def _is_replaced(name: str, theirs: Archive, ours: Archive, names: _Names) -> bool:
    digests = {entry.digest for entry in names.like(name)} - {None}
    return bool(digests) and _digest(ours, name) in digests and _digest(theirs, name) not in digests


def _digest(archive: Archive, name: str) -> Digest | None:
    entry = next((each for each in archive.entries if each.name == name and each.kind == "file"), None)
    return Digest.of_stream(archive.open(entry)) if entry else None
