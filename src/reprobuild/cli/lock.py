"""`reprobuild lock`."""

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from reprobuild import interpreter, project
from reprobuild import lock as locks
from reprobuild.cli.console import FOLDER, Console, output_options, plain, print_json
from reprobuild.errors import BadInput, ExitCode
from reprobuild.files import read_text, scratch_folder
from reprobuild.image import pins
from reprobuild.progress import Observer
from reprobuild.project import Config

#: Platforms of uv's that name no manylinux: no environment can be made for one, but a Dockerfile may do without.
_WITHOUT_MANYLINUX = re.compile(r"linux|\w+-unknown-linux-(gnu|musl)")


@click.command(
    epilog="""\b
Examples:
  reprobuild lock                         write what is missing or has changed
  reprobuild lock --check                 say what has drifted, write nothing
  reprobuild lock --upgrade               the newest of everything, as of now
  reprobuild lock --upgrade numpy scipy   the newest of two, as of now
  reprobuild lock --archive oci:bases     keep the bases of the images, too"""
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--project", "where", type=FOLDER, default=Path(), help="The project's folder. Default: here.")
@click.option("--check", is_flag=True, help="Write nothing; end with 6 and a diff if a lock would change.")
@click.option("--upgrade", "-U", is_flag=True, help="Let the named packages move, or all of them, up to now.")
@click.option("--exclude-newer", metavar="TIME", help="Only files uploaded before this time (RFC 3339, or a date).")
@click.option("--pylock", is_flag=True, help="Write PEP 751 files too. That format holds URLs.")
@click.option("--images/--no-images", default=True, help="Whether to ask registries for the images' digests.")
@click.option("--archive", metavar="PLACE", help="Copy each pinned image to oci:DIR or to a repository.")
@click.option("--python", metavar="PYTHON", help="The interpreter to ask the backend with: a version or a path.")
@output_options
def lock(
    names: tuple[str, ...],
    where: Path,
    check: bool,
    upgrade: bool,
    exclude_newer: str | None,
    pylock: bool,
    images: bool,
    archive: str | None,
    python: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write constraints.txt, requirements.txt, each environment's lock, and the digests in images/*/Dockerfile.

    constraints.txt holds the build requirements: [build-system].requires, what the backend asks for
    besides, and what sdists among these need. The others hold runtime requirements. All are exact and
    hashed, and name no index. The same lock comes out again until you upgrade: its header says as of when.
    A Dockerfile gets the digest that each tag of a FROM or COPY --from has now; nothing else in it changes.
    apt.lock holds the Debian packages of an image's `apt` and all they need beyond its base, with their hashes.
    An archive keeps these images for when their registry has deleted them: name it as archive in [tool.reprobuild].
    """
    if names and not upgrade:
        raise click.UsageError(f"{names[0]!r}: names go with --upgrade; a project's folder with --project.")
    config = project.load(where.resolve())
    _check_platforms(config)
    when = project.check_time(exclude_newer, "--exclude-newer") if exclude_newer else None
    with Console(quiet=quiet or as_json, verbose=verbose) as console:
        python_found = interpreter.find(python, config.root, config.requires_python, configured=config.python)
        made = locks.make(
            config,
            python_found,
            exclude_newer=when,
            upgrade=locks.Upgrade(upgrade and not names, names),
            pylock=pylock,
            observer=console,
        )
        if images and any((config.root / path).is_file() for path in pins.paths(config)):
            console.step("asking registries for the images' digests")
            made |= pins.pinned(config, pins.digest_by(_manifest_of()))
        if (images or check) and any(each.apt for each in config.images):
            made |= _apt(config, made, console, upgrade=upgrade and not names, check=check)
        if archive and not check:
            _archive(config, made, archive, console)
    for name, near in locks.unknown(config.root, made, names).items():
        hint = f" Did you mean {near!r}?" if near else ""
        raise click.UsageError(f"No lock holds {name!r}, and no requirement names it.{hint}")
    drift = locks.drift(config.root, made) if check else ""
    written = [] if check else locks.write(config.root, made)
    if as_json:
        print_json({"checked": check, "drift": drift, "locks": sorted(made), "written": written})
    elif check:
        click.echo("\n".join(map(plain, drift.split("\n"))) or "every lock is up to date", nl=not drift)
    else:
        for name in made:
            click.echo(f"{'wrote' if name in written else 'unchanged'} {plain(name)}")
    if drift:
        raise click.exceptions.Exit(ExitCode.LOCK_STALE)


def _check_platforms(config: Config) -> None:
    """Refuse a platform that neither uv knows nor `reprobuild image`, before uv tells all that it does know.

    Raises:
        BadInput: an image has one.
    """
    from reprobuild.image.target import Target  # noqa: PLC0415 - slow to import, and rarely needed

    for image in config.images:
        named = image.selection.platform
        if named and not _WITHOUT_MANYLINUX.fullmatch(named):
            try:
                Target("3.12", "/usr/bin/python3.12", named)  # any interpreter: the platform is what is read
            except BadInput as error:
                where = f"tool.reprobuild.images.{image.selection.name}"
                raise BadInput(f"{where}: {error.reason}", error.remedy) from error


def _apt(config: Config, made: Mapping[str, str], observer: Observer, *, upgrade: bool, check: bool) -> dict[str, str]:
    from reprobuild.image import apt  # noqa: PLC0415 - the client is slow to import, and rarely needed
    from reprobuild.image.archive import Registries  # noqa: PLC0415 - the same
    from reprobuild.image.others import Others  # noqa: PLC0415 - the same

    registries = Registries()
    registries.use_archive(config.archive, config.root)
    with (
        scratch_folder(Path(tempfile.gettempdir()), "reprobuild-apt-") as scratch,
        Others(registries.origin, scratch, observer) as others,
    ):
        return apt.locks(config, made, others.tree, scratch, upgrade=upgrade, check=check, observer=observer)


def _archive(config: Config, made: Mapping[str, str], to: str, observer: Observer) -> None:
    from reprobuild.image.archive import Archive, Registries  # noqa: PLC0415 - the client is slow to import
    from reprobuild.oci.reference import Reference  # noqa: PLC0415 - the same
    from reprobuild.oci.transfer import Remote  # noqa: PLC0415 - the same

    registries = Registries()
    kept = Archive.open(to, Path(), registries, create=True)
    for path in pins.paths(config):
        text = made.get(path) or (read_text(config.root / path) if (config.root / path).is_file() else "")
        for name, digest in pins.references(text, path) if text else ():
            reference = Reference.parse(name)
            kept.keep(name, digest, Remote(registries.of(reference), reference.repository), observer)


def _manifest_of() -> Callable[[str], tuple[str, bytes]]:
    """What a registry has under a name; each registry is logged in to once."""
    from reprobuild.oci.reference import Reference  # noqa: PLC0415 - the client is slow to import, and rarely needed
    from reprobuild.oci.registry import Registry  # noqa: PLC0415 - the same

    known: dict[str, Registry] = {}

    def manifest_of(name: str) -> tuple[str, bytes]:
        reference = Reference.parse(name)
        if reference.registry not in known:
            known[reference.registry] = Registry(reference.registry)
        return known[reference.registry].manifest(reference.repository, reference.target)

    return manifest_of
