"""The digests in a Dockerfile: put there, and kept up to date, without touching anything else.

A digest of an index covers every platform, so that one is enough whatever ``--platform`` says.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, RegistryFailed, shown
from reprobuild.files import TEXT_LIMIT
from reprobuild.image.dockerfile import Dockerfile, parse
from reprobuild.image.origins import Mention, check_digest, hint_of, mentions
from reprobuild.image.stages import PINNED
from reprobuild.oci.model import INDEXES, Index, Manifest, Platform
from reprobuild.project import Config

#: Asked for the present digest of ``NAME:TAG``.
Resolver = Callable[[str], Digest]
_PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))


@dataclass(frozen=True, slots=True)
class Moved:
    """An image whose tag means something else than the Dockerfile says.

    Attributes:
        name: with its tag, without its digest.
        line: from 1.
        before: the digest that stands there; None for none.
        after: the one that the tag has now.
    """

    name: str
    line: int
    before: Digest | None
    after: Digest


def pin(text: str, resolve_digest: Resolver, where: str = "Dockerfile") -> str:
    """A Dockerfile with the present digest behind the tag of each image; all else stays byte for byte.

    A digest without a tag is left alone: nothing says where it should move to.

    Args:
        where: the file, for messages.

    Raises:
        BadInput: it is no Dockerfile, or an image's name can't be changed in place.
        And what ``resolve_digest`` raises.
    """
    lines = text.split("\n")
    wanted = [(place, _asked(place, resolve_digest, where)) for place in _places(text, where)]
    for (row, start, end), new in sorted({(p.row, p.start, p.end): f"{p.joint}{d}" for p, d in wanted}.items())[::-1]:
        lines[row] = lines[row][:start] + new + lines[row][end:]
    done = "\n".join(lines)
    if [(each.name, each.before) for each in _places(done, where)] != [
        (place.name, digest) for place, digest in wanted
    ]:
        raise BadInput(f"{where} can't be pinned in place.", "Write each digest into its FROM, and not into an ARG.")
    return done


def moved(text: str, resolve_digest: Resolver, where: str = "Dockerfile") -> tuple[Moved, ...]:
    """The images in a Dockerfile whose digest is missing, or isn't any more what their tag has.

    Raises:
        As :func:`pin`.
    """
    found = (
        Moved(each.name, each.line, each.before, _asked(each, resolve_digest, where)) for each in _places(text, where)
    )
    return tuple(each for each in found if each.before != each.after)


def references(text: str, where: str = "Dockerfile") -> tuple[tuple[str, Digest], ...]:
    """Each image that a Dockerfile names with tag and digest: name with tag, and digest.

    Raises:
        BadInput: it is no Dockerfile.
    """
    return tuple(dict.fromkeys((each.name, each.before) for each in _places(text, where) if each.before))


def paths(config: Config) -> list[str]:
    """Where the Dockerfiles of a project's images are, or would be, relative to the project."""
    outputs = (Path(selection.output) for selection in config.selections)
    return [output.with_name("Dockerfile").as_posix() for output in outputs if output.parts[0] == "images"]


def pinned(config: Config, resolve_digest: Resolver) -> dict[str, str]:
    """Each Dockerfile of a project's images that is there, pinned, by its path relative to the project.

    Raises:
        As :func:`pin`.
    """
    found: dict[str, str] = {}
    known: dict[str, Digest] = {}

    def once(name: str) -> Digest:
        if name not in known:
            known[name] = resolve_digest(name)
        return known[name]

    for output in paths(config):
        path = config.root / output
        if path.is_file():
            found[output] = pin(_text_of(path), once, output)
    return found


def digest_by(manifest_of: Callable[[str], tuple[str, bytes]]) -> Resolver:
    """A resolver that fetches manifests.

    Args:
        manifest_of: asked for the manifest or index of ``NAME:TAG``: its media type and its bytes.
    """

    def resolve_digest(name: str) -> Digest:
        media_type, raw = manifest_of(name)
        document = Index.read(raw, name) if media_type in INDEXES else Manifest.read(raw, name)
        return document.descriptor.digest

    return resolve_digest


def _text_of(path: Path) -> str:
    """A file's text with its line ends as they are."""
    try:
        data = path.read_bytes()
        if len(data) > TEXT_LIMIT:
            raise BadInput(f"{path} is too large for a Dockerfile.")
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from error
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.") from error


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image's digest stands, or is to stand: some characters of a row, counted from 0.

    Attributes:
        joint: what goes before the digest.
        near: as of a mention.
    """

    name: str
    line: int
    before: Digest | None
    row: int
    start: int
    end: int
    joint: str
    near: str


def _asked(place: _Place, resolve_digest: Resolver, where: str) -> Digest:
    """The present digest of an image; where there is no such image, the error says which stage may be meant."""
    try:
        return resolve_digest(place.name)
    except (BadInput, RegistryFailed) as error:
        if not place.near:
            raise
        kind = RegistryFailed if isinstance(error, RegistryFailed) else BadInput
        remedy = f"{hint_of(place.near)}{error.remedy}".strip()
        raise kind(f"{where}:{place.line}: {error.reason}", remedy) from error


def _places(text: str, where: str) -> Iterator[_Place]:
    dockerfile, lines = parse(text, where, lenient=True), text.split("\n")
    amd64, arm64 = (list(mentions(dockerfile, platform)) for platform in _PLATFORMS)
    for mention, other in zip(amd64, arm64, strict=False):
        if mention != other:
            dockerfile.fail(
                mention.line,
                f"{shown(mention.word)} is another image on each platform, and one digest can't be of all.",
                "Name an image that has an index, or write a stage for each platform.",
            )
        check_digest(dockerfile, mention.name, mention.line)
        match = PINNED.fullmatch(mention.name)
        name = match["name"] if match else mention.name
        tagged = ":" in name.rpartition("/")[2]
        if not match:
            row, end = _find(dockerfile, lines, mention)
            wanted, joint = (name, "@") if tagged else (f"{name}:latest", ":latest@")
            yield _Place(wanted, mention.line, None, row, end, end, joint, mention.near)
        elif tagged:
            row, end = _find_digest(dockerfile, lines, mention, match["digest"])
            start = end - len(match["digest"])
            yield _Place(name, mention.line, Digest.parse(match["digest"]), row, start, end, "", "")


def _find(dockerfile: Dockerfile, lines: list[str], mention: Mention) -> tuple[int, int]:
    """The row and the column where the word for an image ends."""
    before = {"COPY": r"(?<=--from=)", "RUN": r"(?<=[=,]from=)"}.get(mention.instruction, r"(?<!\S)")
    after = rf"(?=\s|$|{re.escape(dockerfile.escape)}\s*$)" if mention.instruction != "RUN" else r"(?=[\s,]|$)"
    expression = re.compile(before + re.escape(mention.word) + after)
    for row in range(mention.line - 1, mention.end):
        keyword = re.match(r"\ufeff?\s*\S+", lines[row]) if row == mention.line - 1 else None
        found = expression.search(lines[row], keyword.end() if keyword else 0)
        if found and not lines[row].lstrip().startswith("#"):
            return row, found.end()
    where = f"{dockerfile.where}:{mention.line}"
    raise BadInput(f"{where}: {shown(mention.word)} can't be pinned where it stands.", "Write it without quotes.")


def _find_digest(dockerfile: Dockerfile, lines: list[str], mention: Mention, digest: str) -> tuple[int, int]:
    """The row and the column where a digest ends: beside the image's name, or in the ARG that it comes from."""
    for first, last in ((mention.line, mention.end), *((each.line, each.end) for each in dockerfile.arguments)):
        for row in range(first - 1, last):
            if digest in lines[row] and not lines[row].lstrip().startswith("#"):
                return row, lines[row].index(digest) + len(digest)
    where = f"{dockerfile.where}:{mention.line}"
    raise BadInput(f"{where}: The digest of {shown(mention.word)} is nowhere in one piece.", "Write it into FROM.")
