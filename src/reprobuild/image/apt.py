"""Debian packages for RUN steps: locked against what the base has, fetched by hash, and handed to a build as a folder.

A Dockerfile uses them so, without a network::

    RUN --mount=type=bind,from=apt,target=/apt /apt/install
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from reprobuild import process
from reprobuild.digest import Digest, chunks_of
from reprobuild.errors import BadInput, DigestMismatch, IndexFailed, LockMissing, LockStale, RegistryFailed, shown
from reprobuild.files import cache_root, read_text, write_atomically
from reprobuild.image import dockerfile as dockerfiles
from reprobuild.image.aptarchive import SOURCES, Apt, Installed, addresses, sources
from reprobuild.image.aptlock import AptLock, Closure, Package, Wanted, architecture_of
from reprobuild.image.context import Tree
from reprobuild.image.dockerfile import Dockerfile
from reprobuild.image.origins import global_arguments
from reprobuild.image.stages import PINNED, BaseImage
from reprobuild.image.target import platforms_of
from reprobuild.oci.model import Platform
from reprobuild.oci.transport import Answer, Transport, resumed
from reprobuild.oci.tree import WHEEL_TIME
from reprobuild.progress import SILENT, Observer
from reprobuild.project import Config, ImageSettings

LOCK = "images/{name}/apt.lock"
_DOCKERFILE = "images/{name}/Dockerfile"
_SCRIPT = Path(__file__).parents[1] / "inside" / "apt.sh"
_MOUNTED = re.compile(r"--mount=(?:\S*,)?from=apt(?:,\S*)?")
_STATUS = "var/lib/dpkg/status"
_LIMIT = 64 << 20  # bytes of dpkg's database, or of a keyring
_LINKS = 10
_PARALLEL = 4


# --- locking -------------------------------------------------------------------------------------------


def locks(
    config: Config,
    texts: Mapping[str, str],
    tree_of: Callable[[BaseImage], Tree],
    scratch: Path,
    *,
    upgrade: bool = False,
    check: bool = False,
    observer: Observer = SILENT,
) -> dict[str, str]:
    """The apt.lock of each image that wants packages, as text by path relative to the project. Nothing is written.

    A lock that was made for the same packages, snapshot and bases stays as it is.

    Args:
        texts: files that are about to be written, by the same paths: of Dockerfiles these count.
        tree_of: opens the files of a base.
        upgrade: ask the archive again, whatever there is.
        check: ask nobody: where a lock has to be made again, its text only says what it would be made for.

    Raises:
        BadInput, LockStale: a Dockerfile is missing, has no digest, or its base is of no use.
        BuildFailed, IndexFailed, DigestMismatch, ToolMissing: the packages can't be resolved.
    """
    found: dict[str, str] = {}
    for settings in config.images:
        if not settings.apt:
            continue
        name = settings.selection.name
        output = LOCK.format(name=name)
        bases = _bases(config.root, settings, texts)
        wanted = _wanted(settings, bases)
        path = config.root / output
        present = read(path) if path.is_file() else None
        if present and present.fulfils(wanted) and not upgrade:
            found[output] = read_text(path)
        elif check and not upgrade:
            found[output] = (present or AptLock((), "", ())).saying(wanted).text(name)
        else:
            observer.step(f"resolving {output}")
            closures = tuple(
                _closure(settings, base, tree_of(base), scratch / f"{name}-{number}", observer)
                for number, base in enumerate(bases.values())
            )
            found[output] = AptLock(wanted.packages, wanted.snapshot, closures).text(name)
            AptLock.parse(found[output], f"What the archive offers for {output}")
    return found


def read(path: Path) -> AptLock:
    """A lock from its file.

    Raises:
        BadInput: it can't be read or is none.
    """
    return AptLock.parse(read_text(path), str(path))


def _wanted(settings: ImageSettings, bases: Mapping[Platform, BaseImage]) -> Wanted:
    digests = {platform: _digest_of(base) for platform, base in bases.items()}
    return Wanted(tuple(sorted(set(settings.apt))), settings.apt_snapshot, digests)


def _digest_of(base: BaseImage) -> Digest:
    return Digest.parse(base.reference.rpartition("@")[2])


def _bases(root: Path, settings: ImageSettings, texts: Mapping[str, str]) -> dict[Platform, BaseImage]:
    """For each platform the image that packages are installed on."""
    where = _DOCKERFILE.format(name=settings.selection.name)
    if where in texts:
        dockerfile = dockerfiles.parse(texts[where], where)
    elif (root / where).is_file():
        dockerfile = dockerfiles.parse(read_text(root / where), where)
    else:
        raise BadInput(f"There is no {where}, on whose base packages are installed.", "Write it, or leave out `apt`.")
    return {platform: base_of(dockerfile, platform) for platform in platforms_of(settings)}


def base_of(dockerfile: Dockerfile, platform: Platform) -> BaseImage:
    """The image on which the stage starts that installs packages, or the last stage if none does.

    Raises:
        BadInput: there is none, or there are several.
        LockStale: it has no digest.
    """
    stages = dockerfile.stages
    users = [
        n for n, stage in enumerate(stages) if any(_MOUNTED.fullmatch(f) for i in stage.instructions for f in i.flags)
    ]
    variables = global_arguments(dockerfile, platform, {}, "")
    found: dict[str, int] = {}
    for user in users or [len(stages) - 1]:
        number = user
        while True:
            name = dockerfile.expand(stages[number].base, variables, stages[number].line)
            earlier = dockerfile.stage_named(name, number)
            if earlier is None:
                break
            number = earlier
        found[name] = stages[number].line
    (name, line), *others = found.items()
    if others:
        dockerfile.fail(others[0][1], "Packages are locked for one base, and here is a second.", "Use one base.")
    if name == "scratch":
        dockerfile.fail(line, "Packages can't be installed from scratch.", "Start from an image with dpkg.")
    if not PINNED.fullmatch(name):
        raise LockStale(f"{dockerfile.where}:{line}: {shown(name)} has no digest.", "Run `reprobuild lock`.")
    return BaseImage(name, platform, line)


def _closure(settings: ImageSettings, base: BaseImage, tree: Tree, folder: Path, observer: Observer) -> Closure:
    installed = _installed(tree, base)
    architecture = architecture_of(base.platform)
    suites = sources(installed.distribution, installed.codename, settings.apt_snapshot)
    apt = Apt(folder, installed, architecture, suites, dated=bool(settings.apt_snapshot))
    observer.step(f"asking the archive of {installed.distribution} {installed.codename} for {architecture}")
    apt.update()
    found = apt.resolve(sorted(set(settings.apt)))
    return Closure(base.platform, _digest_of(base), found.suites, found.steps, found.packages)


def _installed(tree: Tree, base: BaseImage) -> Installed:
    release = _content(tree, "etc/os-release") or _content(tree, "usr/lib/os-release") or b""
    said = dict(re.findall(r'^([A-Z_]+)="?([a-z0-9.-]*)"?$', release.decode(errors="replace"), re.MULTILINE))
    distribution, codename = said.get("ID", ""), said.get("VERSION_CODENAME", "")
    status = _content(tree, _STATUS)
    if not status or not distribution or not codename:
        raise BadInput(
            f"{base.reference} has no /{_STATUS}, or no os-release that names its release.",
            "`apt` is for images that are made on Debian or what comes from it.",
        )
    keyring = _content(tree, f"usr/share/keyrings/{distribution}-archive-keyring.gpg") or b""
    return Installed(distribution, codename, status, keyring)


def _content(tree: Tree, path: str) -> bytes | None:
    """The content of a file, through links; None where there is none."""
    for _ in range(_LINKS):
        node = tree.find(path)
        if node is None or node.kind == "directory":
            return None
        if node.kind == "file" and node.content is not None:
            if node.content.size > _LIMIT:
                raise BadInput(f"/{path} of the base is larger than {_LIMIT >> 20} MiB.")
            return b"".join(node.content.chunks())
        joined = node.target if node.target.startswith("/") else f"/{os.path.dirname(path)}/{node.target}"  # noqa: PTH120
        path = os.path.normpath(joined).lstrip("/")
    return None


# --- fetching ------------------------------------------------------------------------------------------


def fetch(closure: Closure, snapshot: str = "", observer: Observer = SILENT) -> dict[Package, Path]:
    """The files of some packages, from the cache or else from the archive, each with the locked hash.

    Raises:
        IndexFailed: one can't be had.
        DigestMismatch: one has another hash wherever it is.
        BadInput, ToolMissing: nothing says where the archive is.
    """
    places = {package: _place(package) for package in closure.packages}
    absent = [package for package, kept in places.items() if not _is_sound(kept, package)]
    if absent:
        observer.step(f"fetching {len(absent)} packages, {sum(each.size for each in absent) >> 10} KiB")
        archives = addresses(snapshot)
        transport = Transport(plain=True)  # what comes is checked by a hash
        with process.workers(_PARALLEL) as pool:
            list(pool.map(lambda package: _download(transport, archives, package, places[package]), absent))
    return places


def _place(package: Package) -> Path:
    return cache_root() / "files" / "sha256" / package.sha256 / package.filename


def _is_sound(kept: Path, package: Package) -> bool:
    with suppress(OSError, DigestMismatch):
        for _ in _checked(kept, package):
            pass
        return True
    return False


def _checked(kept: Path, package: Package) -> Iterator[bytes]:
    with kept.open("rb") as stream:
        yield from package.digest.check(chunks_of(stream), f"{package.filename} in the cache")


def _download(transport: Transport, archives: Iterable[str], package: Package, kept: Path) -> None:
    failure: IndexFailed | DigestMismatch = IndexFailed(
        f"No archive has {package} any more, at {package.path}.",
        "Mirrors keep only the newest: run `reprobuild lock --upgrade`; or have a snapshot's address in the file that "
        f"{SOURCES} names.",
    )
    for archive in archives:
        try:
            write_atomically(kept, package.digest.check(_pieces(transport, archive, package), package.filename))
        except _Absent:
            continue
        except DigestMismatch as error:
            failure = error
        except RegistryFailed as error:
            reason = f"{package.filename} could not be fetched: {error.reason}"
            failure = IndexFailed(reason, "Check the network; what was fetched before is kept.")
        else:
            return
    raise failure


class _Absent(Exception):
    """An archive doesn't have a file."""


def _pieces(transport: Transport, archive: str, package: Package) -> Iterator[bytes]:
    # As apt writes it: a plus sign is a space to some servers.
    url = f"{archive}/{quote(package.path, safe='/~%')}"

    def ask(headers: Mapping[str, str]) -> AbstractContextManager[Answer]:
        return _asked(transport, url, package.filename, headers)

    return resumed(ask, package.size, package.filename, transport.tries())


@contextmanager
def _asked(transport: Transport, url: str, where: str, headers: Mapping[str, str]) -> Iterator[Answer]:
    with transport.ask("GET", url, where, headers=headers) as answer:
        if answer.status in (404, 410):
            raise _Absent
        if answer.status not in (200, 206, 416):
            raise RegistryFailed(f"{where}: the server answered {answer.status}.")
        yield answer


# --- the named context ---------------------------------------------------------------------------------


def context(
    lock_path: Path,
    folder: Path,
    platform: Platform,
    *,
    settings: ImageSettings | None = None,
    observer: Observer = SILENT,
) -> Path:
    """Fill a folder with an image's packages and the script that installs them: the named context ``apt``.

    Its content is a function of the lock alone: names, bytes, modes and times.

    Args:
        lock_path: an apt.lock, with its Dockerfile beside it.
        folder: a new one.
        settings: of the image; with them a lock that was made for something else is refused.

    Returns:
        ``folder``.

    Raises:
        LockMissing, LockStale: there is no lock, or pyproject.toml or the Dockerfile say something else now.
        BadInput: it can't be read, or has nothing for the platform.
        IndexFailed, DigestMismatch, ToolMissing: a package can't be had.
    """
    if not lock_path.is_file():
        raise LockMissing(f"There is no {lock_path}.", "Run `reprobuild lock` and commit what it writes.")
    lock = read(lock_path)
    if settings is not None and not lock.fulfils(_wanted(settings, _bases_beside(lock_path, settings))):
        raise LockStale(
            f"{lock_path} was made for other packages, another snapshot, or another base.", "Run `reprobuild lock`."
        )
    closure = lock.closure(platform, str(lock_path))
    files = fetch(closure, lock.snapshot, observer)
    names = {package.name: package.filename for package in closure.packages}
    order = "".join(
        " ".join((each.verb, *(names[name] if each.verb == "unpack" else name for name in each.names))) + "\n"
        for each in closure.steps
    )
    (folder / "debs").mkdir(parents=True)
    for package, kept in files.items():
        _put(folder / "debs" / package.filename, _checked(kept, package))
    _put(folder / "order", [order.encode()])
    _put(folder / "architecture", [f"{architecture_of(platform)}\n".encode()])
    _put(folder / "install", [_SCRIPT.read_bytes()], 0o755)
    for each in (folder / "debs", folder):
        each.chmod(0o755)
        os.utime(each, (WHEEL_TIME, WHEEL_TIME))
    return folder


def _bases_beside(lock_path: Path, settings: ImageSettings) -> dict[Platform, BaseImage]:
    dockerfile = dockerfiles.read(lock_path.with_name("Dockerfile"))
    return {platform: base_of(dockerfile, platform) for platform in platforms_of(settings)}


def _put(path: Path, chunks: Iterable[bytes], mode: int = 0o644) -> None:
    write_atomically(path, chunks)
    path.chmod(mode)
    os.utime(path, (WHEEL_TIME, WHEEL_TIME))
