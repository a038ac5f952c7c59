"""What a source distribution says that it needs, read without running any of it."""

import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PathDistribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from reprobuild.archive import Archive, Entry, open_archive
from reprobuild.errors import BadInput
from reprobuild.files import TEXT_LIMIT, scratch_folder
from reprobuild.project import build_requires, requirement_of

#: Beyond this many characters reading requirements would take minutes.
_REQUIRES_LIMIT = 1 << 19
_NAME_LIMIT = 255


def requires_to_build(path: Path) -> tuple[Requirement, ...]:
    """``[build-system].requires`` of an sdist (PEP 518), or where it has none what uv builds such an sdist with.

    Raises:
        BadInput: it can't be read.
    """
    with open_archive(path, names="posix") as archive:
        text = next((_text(archive, entry) for entry in _at_the_top(archive) if _last(entry) == "pyproject.toml"), "")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path.name} has a pyproject.toml that can't be read: {error}.") from error
    return build_requires(document, f"pyproject.toml of {path.name}", ("setuptools>=40.8.0", "wheel"))


def requires_to_run(path: Path, scratch: Path) -> tuple[Requirement, ...]:
    """What an sdist's PKG-INFO, else the requires.txt that setuptools puts beside it, says that it needs.

    A setup.py that asks for something else on some machines isn't run, so what it adds there is missing. What can't
    be read is left out, and so is what is asked for by URL.

    Raises:
        BadInput: it is not an archive, or requires more than any project does.
    """
    with scratch_folder(scratch, "sdist-") as folder, open_archive(path, names="posix") as archive:
        told = folder / "of.egg-info"
        told.mkdir()
        for entry in sorted(archive.entries, key=_depth):  # an sdist's tests may hold another sdist's egg-info
            top = entry.name.count("/") == 1 and _last(entry) == "PKG-INFO"
            beside = entry.name.endswith(".egg-info/requires.txt")
            if (top or beside) and entry.kind == "file" and not (told / _last(entry)).exists():
                (told / _last(entry)).write_text(_text(archive, entry), encoding="utf-8")
        texts = PathDistribution(told).requires or []
    if sum(map(len, texts)) > _REQUIRES_LIMIT:
        raise BadInput(f"{path.name} has more than {_REQUIRES_LIMIT} characters of requirements.")
    return tuple(_readable(texts))


def stand_in(folder: Path, name: str, version: str) -> Path:
    """Where :func:`write_stand_in` writes."""
    return folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"


def fits(name: str, version: str) -> bool:
    """Whether a file can have the name that a stand-in would have, which is longer than the sdist's."""
    return len(stand_in(Path(), name, version).name) <= _NAME_LIMIT


def write_stand_in(
    folder: Path, name: str, version: str, requires_python: str = "", requires: Iterable[Requirement] = ()
) -> None:
    """A wheel with metadata alone, for a resolver that must not build the sdist to learn what it requires.

    Nobody installs it: its digest is never in a lock.

    Args:
        name, version: of the release; both normalised.
    """
    path = stand_in(folder, name, version)
    about = path.name.replace("-py3-none-any.whl", ".dist-info")
    head = [("Metadata-Version", "2.1"), ("Name", name), ("Version", version)]
    with suppress(InvalidSpecifier):
        head.append(("Requires-Python", str(SpecifierSet(requires_python))))
    head += [("Requires-Dist", str(each)) for each in requires]
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{about}/METADATA", "".join(f"{field}: {value}\n" for field, value in head if value))
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def _at_the_top(archive: Archive) -> Iterator[Entry]:
    return (entry for entry in archive.entries if entry.name.count("/") == 1 and entry.kind == "file")


def _depth(entry: Entry) -> int:
    return entry.name.count("/")


def _last(entry: Entry) -> str:
    return entry.name.rpartition("/")[2]


def _text(archive: Archive, entry: Entry) -> str:
    if entry.size > TEXT_LIMIT:
        raise BadInput(f"{Path(archive.name).name} has a {_last(entry)} of {entry.size} bytes.")
    return b"".join(archive.chunks(entry)).decode(errors="replace")


def _readable(texts: Iterable[str]) -> Iterator[Requirement]:
    for text in texts:
        try:
            requirement = requirement_of(text)
        except ValueError:
            continue
        if not requirement.url:
            yield requirement
