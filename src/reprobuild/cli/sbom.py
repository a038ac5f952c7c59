"""`reprobuild sbom`."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from reprobuild import bom, project
from reprobuild import sbom as sboms
from reprobuild.cli.attesting import attest_option, voter
from reprobuild.cli.console import PATH, Console, output_options, plain, print_json
from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.files import scratch_folder, write_atomically
from reprobuild.image.archive import Registries
from reprobuild.image.signed import Artifact, File, ImageIn, artifacts, keep_signed
from reprobuild.index import Index
from reprobuild.oci.model import Platform

_STANDARD_OUTPUT = "-"


@dataclass(frozen=True, slots=True)
class _Made:
    """A document and where it is."""

    artifact: Artifact
    raw: bytes
    document: bom.Document
    place: str
    attested: str | None


@click.command(
    epilog="""\b
Examples:
  reprobuild sbom                              requirements.txt of this project
  reprobuild sbom --lock training              the lock of an image or environment
  reprobuild sbom --lock constraints.txt       what builds it
  reprobuild sbom dist/demo-1.0-py3-none-any.whl
  reprobuild sbom dist/training                an image: it becomes a referrer
  reprobuild sbom registry.example.org/team/training:1.0 --attest release.key
  reprobuild sbom dist/training -o - | jq .components"""
)
@click.argument("what", metavar="[WHEEL|SDIST|IMAGE|LOCK]", required=False)
@click.option("--project", "where", type=PATH, default=Path(), help="The project's folder. Default: here.")
@click.option(
    "--lock",
    metavar="NAME|FILE",
    help="Which lock; of a wheel or an sdist: what it runs with. Default: requirements.txt.",
)
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Write it there; - for standard output.")
@click.option("--platform", metavar="OS/ARCH", help="Of an image for several platforms, this one alone.")
@click.option(
    "--files", is_flag=True, help="List every file of a wheel or sdist; of an image those of the project's folder."
)
@click.option("--offline", is_flag=True, help="Fetch no wheel: what isn't in the cache is said to be unknown.")
@click.option("--plain-http", multiple=True, metavar="HOST", help="Speak http with this registry.")
@attest_option
@output_options
def sbom(
    what: str | None,
    where: Path,
    lock: str | None,
    output: Path | None,
    platform: str | None,
    files: bool,
    offline: bool,
    plain_http: tuple[str, ...],
    attested_by: str | None,
    trust_config: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write a bill of materials: CycloneDX 1.6 JSON, the same bytes each time.

    Of a lock what it pins; of a wheel what it bundles, what the record beside it says that it was built with, and what
    a lock of the project says that it runs with; of an sdist the same without bundles; of an image what its record says
    is in it. Without an argument, of the project's requirements.txt.

    It goes beside a lock, wheel or sdist, as FILE.cdx.json, and beside an image as a referrer, which `push` takes
    along.
    """
    signer = voter(attested_by, trust_config)
    to_standard_output = str(output) == _STANDARD_OUTPUT
    if to_standard_output and as_json:
        raise click.UsageError("-o - writes the document itself: leave out --json.")
    bom.require_library()
    console = Console(quiet=quiet or as_json, verbose=verbose)
    with console, scratch_folder(Path(tempfile.gettempdir()), "reprobuild-sbom-") as scratch:
        reader = sboms.Reader(Index(where, offline=offline, observer=console), offline, console)
        request = _Request(where, lock, platform, files, reader)
        found = list(request.documents(what, Registries(plain_http), scratch))
        if output and len(found) > 1:
            raise BadInput(f"{what} is an image for {len(found)} platforms.", "Name one with --platform.")
        made = [_keep(*each, output, signer) for each in found]
    if to_standard_output:
        click.echo(made[0].raw.decode(), nl=False)
    elif as_json:
        print_json({"sboms": list(map(_as_json, made))})
    else:
        _tell(made)


@dataclass(frozen=True, slots=True)
class _Request:
    where: Path
    lock: str | None
    platform: str | None
    files: bool
    reader: sboms.Reader

    def documents(
        self, what: str | None, registries: Registries, scratch: Path
    ) -> Iterator[tuple[Artifact, bom.Document]]:
        """What was asked for, with its document: one a platform."""
        if what is None or (what.endswith(".txt") and Path(what).is_file()):
            if what and self.lock:
                raise click.UsageError(f"{what} is a lock: leave out --lock.")
            path = Path(what) if what else self._lock(self.lock or "requirements.txt")
            self._refuse({"--platform": self.platform, "--files": self.files}, "is not for locks")
            document = sboms.of_lock(path, self.where, self.reader)
            yield File(path, Digest.of_file(path)), document
            return
        for artifact in self._chosen(artifacts(what, registries, scratch)):
            if isinstance(artifact, File):
                self._refuse({"--platform": self.platform}, "is for images")
                lock = self._lock(self.lock) if self.lock else self._own_lock(artifact.path)
                self.reader.observer.step(f"reading {lock}" if lock else "without a lock: versions are left open")
                document = sboms.of_file(artifact.path, self.reader, lock=lock, root=self.where, files=self.files)
            else:
                self._refuse({"--lock": self.lock}, "is for other things: the record of an image names its own")
                assert isinstance(artifact, ImageIn)  # noqa: S101 - there are two kinds
                document = sboms.of_image(artifact, self.reader, files=self.files)
            yield artifact, document

    @staticmethod
    def _refuse(options: dict[str, object], why: str) -> None:
        for name, value in options.items():
            if value:
                raise click.UsageError(f"{name} {why}.")

    def _chosen(self, found: Sequence[Artifact]) -> list[Artifact]:
        if self.platform is None or not all(isinstance(each, ImageIn) for each in found):
            return list(found)
        wanted = Platform.parse(self.platform)
        images = [each for each in found if isinstance(each, ImageIn)]
        chosen: list[Artifact] = [each for each in images if each.image.config.platform.suits(wanted)]
        if not chosen:
            there = ", ".join(str(each.image.config.platform) for each in images)
            raise BadInput(f"There is no image for {wanted}; there is one for {there}.", "Name another platform.")
        return chosen

    def _lock(self, name: str) -> Path:
        """The lock that a user means: its path, or the name of an image or an environment."""
        if (self.where / name).is_file() or not (self.where / "pyproject.toml").is_file():
            return self.where / name
        selections = project.load(self.where).selections
        for each in selections:
            if name in (each.name, each.output):
                return self.where / each.output
        names = ", ".join(each.name or each.output for each in selections)
        raise BadInput(f"The project has no lock {name!r}.", f"It has constraints.txt, {names}.")

    def _own_lock(self, path: Path) -> Path | None:
        """requirements.txt of the project, if the wheel or sdist is the project's own."""
        lock = self.where / "requirements.txt"
        if not lock.is_file() or not (self.where / "pyproject.toml").is_file():
            return None
        name = project.load(self.where).name
        return lock if name and path.name.startswith(f"{name.replace('-', '_')}-") else None


def _keep(artifact: Artifact, document: bom.Document, output: Path | None, signer: Any) -> _Made:  # noqa: ANN401 - as voter gives it
    raw = bom.encode(document)
    attested = None
    if signer:  # first: what can't be signed leaves nothing behind
        name = artifact.path.name if isinstance(artifact, File) else document.subject.name
        attested = keep_signed(artifact, sboms.statement_of(raw, name, artifact.digest), signer)
    if output is not None:
        if str(output) != _STANDARD_OUTPUT:
            write_atomically(output, [raw])
        place = str(output)
    elif isinstance(artifact, File):
        target = artifact.path.with_name(f"{artifact.path.name}{bom.SUFFIX}")
        write_atomically(target, [raw])
        place = str(target)
    else:
        assert isinstance(artifact, ImageIn)  # noqa: S101 - there are two kinds
        place = sboms.keep_beside_image(artifact, raw)
    return _Made(artifact, raw, document, place, attested)


def _as_json(made: _Made) -> dict[str, Any]:
    document = made.document
    return {
        "of": made.artifact.name,
        "subject": str(made.artifact.digest),
        "sbom": made.place,
        "digest": str(Digest.of_bytes(made.raw)),
        "serialNumber": bom.read(made.raw)["serialNumber"],
        "components": len(document.parts),
        "dependencies": sum(map(len, document.edges.values())),
        "unknown": len(document.unknown),
        "incomplete": len(document.incomplete),
        "attested": made.attested,
    }


def _tell(made: Sequence[_Made]) -> None:
    for each in made:
        unknown = len(each.document.unknown)
        rest = f"; what {unknown} of them {'need' if unknown > 1 else 'needs'} isn't known" if unknown else ""
        components = f"{len(each.document.parts)} component{'s' if len(each.document.parts) != 1 else ''}"
        click.echo(f"{plain(each.artifact.name)}: {components}{rest}")
        click.echo(f"{Digest.of_bytes(each.raw)}  {plain(each.place)}")
        if each.attested:
            click.echo(f"attested: {plain(each.attested)}")
