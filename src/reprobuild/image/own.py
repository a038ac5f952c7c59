"""The project's own wheel, as it goes into an image: built, or remembered by everything that it is a function of."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from reprobuild import __version__, wheel
from reprobuild.digest import Digest, canonical_json, chunks_of
from reprobuild.errors import BadInput, DigestMismatch, WriteFailed
from reprobuild.files import cache_root, read_kept, scratch_folder, write_atomically
from reprobuild.index import Index
from reprobuild.progress import SILENT, Observer
from reprobuild.sandbox import USUAL, Surroundings
from reprobuild.source import Source
from reprobuild.wheel import Inputs


@dataclass(frozen=True, slots=True)
class OwnWheel:
    """How to come by the wheel of an exported source.

    Attributes:
        scratch: a folder for it, which lives as long as it is needed.
        sandbox: the kind that it is built in; none means the project's choice.
        remembering: whether one that was built before may stand in for a build.
    """

    source: Source
    index: Index
    scratch: Path
    sandbox: str | None = None
    surroundings: Surroundings = USUAL
    remembering: bool = True
    observer: Observer = SILENT

    def get(self) -> Path:
        """The wheel's path.

        Raises:
            LockMissing, LockStale, BuildFailed, …: as :func:`reprobuild.wheel.resolve` and
                :func:`reprobuild.wheel.make`.
        """
        with scratch_folder(self.scratch, "own-") as folder:
            inputs = wheel.resolve(self.source, folder, self.index, python=None, observer=self.observer)
            kind = self.sandbox or inputs.config.wheel.sandbox
            # What is shown to a build of the machine's own folders has no digest.
            remembering = self.remembering and not (inputs.config.wheel.readable or inputs.config.wheel.path)
            place = cache_root() / "own" / _key(inputs, kind, self.surroundings).hex if remembering else None
            if place and (known := _recall(place)):
                return known
            made, guarantees, _ = wheel.make(
                inputs,
                self.index,
                self.scratch / "own",
                kind=kind,
                surroundings=self.surroundings,
                observer=self.observer,
            )
        # A compiled wheel is also a function of the machine's headers and libraries, which nobody listed.
        if place and made.name.endswith("-none-any.whl") and not guarantees.missing:
            with suppress(WriteFailed):
                _remember(place, made)
        return made


def _key(inputs: Inputs, kind: str, surroundings: Surroundings) -> Digest:
    python = inputs.interpreter
    known = {
        "reprobuild": __version__,
        "uv": wheel.uv_version(),
        "source": list(_of_source(inputs.source)),
        "lock": str(inputs.lock),
        "files": [[each.filename, str(each.digest)] for each in inputs.files],
        "python": [str(Digest.of_file(python.executable)), python.version, python.platform, python.zlib],
        "markers": python.markers,
        "sandbox": [kind, {**asdict(surroundings), "jobs": surroundings.job_count}],
    }
    return Digest.of_bytes(canonical_json(known))


def _of_source(source: Source) -> Iterator[object]:
    """All that a build is shown of a source; of its git objects those that its tags and its commit lead to."""
    yield [source.kind, source.subdirectory, source.epoch, source.own_times, source.own_modes]
    yield str(Digest.of_file(source.tar))
    yield [[path, str(Digest.of_file(tar))] for path, tar in source.submodules]
    if source.git:
        names = ("HEAD", "config", "packed-refs", "shallow")
        yield [[name, str(Digest.of_file(source.git / name))] for name in names if (source.git / name).is_file()]


def _recall(place: Path) -> Path | None:
    """The wheel that is kept at a place; None where there is none, or it is damaged."""
    try:
        known = json.loads(read_kept(place / "wheel.json") or b"")
        name, digest = str(known["name"]), Digest.parse(known["digest"])
        if name != Path(name).name or not (place / name).is_file():
            return None
        with (place / name).open("rb") as stream:
            for _ in digest.check(chunks_of(stream), name):
                pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BadInput, DigestMismatch):
        return None
    return place / name


def _remember(place: Path, made: Path) -> None:
    digest = Digest.of_file(made)
    with made.open("rb") as stream:
        write_atomically(place / made.name, digest.check(chunks_of(stream), made.name))
    write_atomically(place / "wheel.json", [canonical_json({"name": made.name, "digest": str(digest)})])
