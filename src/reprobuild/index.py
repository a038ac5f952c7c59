"""Locked files: which file of a release is meant, and its bytes.

A pin names several digests, one for each file of the release. Which of them a build uses depends on the
interpreter's tags alone, never on what was uploaded since, nor on what this machine happened to see. So a
digest that nobody offers is an error where an index lists the release: the lock is wrong there, or the file is
gone, and it may have been the better one. A folder or page of links holds what somebody put there, often
the wheels of one platform: the best wheel in it is taken. Every file is kept under its digest, and the
digest is checked each time before the bytes are used.
"""

import hashlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from reprobuild import memory, process
from reprobuild.digest import Digest, chunks_of
from reprobuild.errors import BadInput, DigestMismatch, IndexFailed, words_of
from reprobuild.files import cache_root, write_atomically
from reprobuild.interpreter import Accepting
from reprobuild.lockfile import Pin
from reprobuild.places import Place, configured
from reprobuild.progress import SILENT, Observer

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

_PARALLEL = 8
_NAME_LIMIT = 255
_AFTER_ALL = sys.maxsize  # the rank of an sdist
_TIMEOUT = (10, 60)  # seconds to connect, and between two packets
_NO_NETWORK = "Check the network and uv's index settings; locked files that were fetched before are kept."

_TRUST = "Name the authority's certificates in SSL_CERT_FILE, and check that the file is there."


@dataclass(frozen=True, order=True, slots=True)
class LockedFile:
    """One file of a release, known by its digest."""

    name: str
    version: str
    filename: str
    digest: Digest

    @property
    def is_wheel(self) -> bool:
        """Whether it can be installed without being built."""
        return self.filename.endswith(".whl")


@dataclass(frozen=True, order=True, slots=True)
class ReleasedFile:
    """A file of a release, as the index lists it now.

    Attributes:
        uploaded: when, as RFC 3339 in UTC; empty where the index doesn't tell.
    """

    file: LockedFile
    uploaded: str


@dataclass(frozen=True, slots=True)
class _Offer:
    """A file that a place offers; its digest and its upload time are unknown where the place doesn't tell."""

    filename: str
    digest: Digest | None
    place: Place
    package: "DistributionPackage | None" = None
    local: Path | None = None
    uploaded: str = ""


def release_key(name: str, version: str) -> Digest:
    """Under which the names of a release's files are remembered, by digest."""
    return Digest.of_bytes(f"{name}=={version}".encode())


class Index:
    """The places that uv knows, and the files that came from them.

    Args:
        project: the folder whose uv configuration counts.
        offline: never ask the network.
        places: where to look, instead of where that configuration says.
    """

    def __init__(
        self,
        project: Path,
        *,
        offline: bool = False,
        places: tuple[Place, ...] | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self._project = project
        self._offline = offline
        self._observer = observer
        self._cache = cache_root()
        self._offers: dict[str, list[_Offer]] = {}
        self._digests: dict[str, Digest] = {}
        self._places = places
        self._sound: set[Path] = set()
        self._lock = threading.Lock()

    def choose(self, pins: Iterable[Pin], interpreter: Accepting) -> tuple[LockedFile, ...]:
        """For each pin the file that the interpreter likes best: a wheel by tag order, else the sdist.

        Raises:
            IndexFailed: no place offers a pin's files, or one that might be better than those that are offered.
        """
        with process.workers(_PARALLEL) as pool:
            return tuple(sorted(pool.map(lambda pin: self._choose(pin, interpreter), pins)))

    def wheel_for(self, pin: Pin, interpreters: Iterable[Accepting]) -> LockedFile | None:
        """The wheel among a pin's files that the first interpreter to take any likes best; None where none does.

        Raises:
            IndexFailed: no place could be asked.
        """
        wheels = {digest: name for digest, name in self._names(pin).items() if name.endswith(".whl")}
        for each in interpreters:
            best = _best(wheels, each)
            if best is not None:
                return LockedFile(pin.name, str(pin.version), wheels[best], best)
        return None

    def release(self, name: str, version: str) -> tuple[ReleasedFile, ...]:
        """Every wheel and sdist of a release, by file name; of two places the first counts.

        Args:
            name: normalised.

        Raises:
            IndexFailed: no place could be asked.
        """
        found: dict[str, ReleasedFile] = {}
        for offer in self._offered(name, version):
            if offer.filename not in found:
                file = LockedFile(name, version, offer.filename, self._digest_of(offer))
                found[offer.filename] = ReleasedFile(file, offer.uploaded)
        return tuple(found[filename] for filename in sorted(found))

    def digests(self, name: str, filenames: Collection[str]) -> dict[str, Digest]:
        """Those of some files of a project that the index has now, each with its SHA-256.

        Args:
            name: normalised.

        Raises:
            IndexFailed: it can't be asked.
        """
        found = (offer for offer in self._offered(name) if offer.filename in filenames)
        return {offer.filename: self._digest_of(offer) for offer in found}

    def with_provenance(self, name: str) -> frozenset[str]:
        """The files of a project for which the index lists attestations (PEP 740).

        Raises:
            IndexFailed: it can't be asked.
        """
        found = (offer for offer in self._offered(name) if offer.package and offer.package.provenance_url)
        return frozenset(offer.filename for offer in found)

    def sdist_of(self, name: str, version: str) -> LockedFile:
        """The one sdist of a release.

        Raises:
            IndexFailed: there is none.
        """
        for released in self.release(name, version):
            if not released.file.is_wheel:
                return released.file
        raise IndexFailed(f"No index offers an sdist of {name} {version}.")

    def without_wheel(self, name: str, interpreter: Accepting, before: str = "") -> dict[str, str]:
        """The releases with an sdist, and no wheel that an interpreter can use: what Python each requires, by version.

        Args:
            name: normalised.
            before: only files that were uploaded before this time (RFC 3339) count; empty for all.
        """
        found: dict[Version, str] = {}
        usable: set[Version] = set()
        limit = datetime.fromisoformat(before) if before else None
        for offer in self._offered(name):
            if limit and not (offer.place.flat or _is_older(offer.uploaded, limit)):
                continue
            if offer.filename.endswith(".whl"):
                _, version, _, tags = parse_wheel_filename(offer.filename)
                if not tags.isdisjoint(interpreter.tag_ranks):
                    usable.add(version)
            elif not (offer.package and offer.package.is_yanked):
                version = parse_sdist_filename(offer.filename)[1]
                found[version] = (offer.package and offer.package.requires_python) or ""
        return {str(version): found[version] for version in found if version not in usable}

    def fetch(self, files: Sequence[LockedFile], destination: Path) -> None:
        """Put files into a folder, each checked against its digest on the way.

        Raises:
            IndexFailed: no place offers one of them.
            DigestMismatch: a place sent other bytes than the lock names.
        """
        with process.workers(_PARALLEL) as pool:
            list(pool.map(lambda file: self._put(file, destination / file.filename), files))

    def kept(self, file: LockedFile) -> Path:
        """A file's place in the cache, where it lies whole: fetched if need be, its digest checked once a process.

        Raises:
            IndexFailed: no place offers it.
            DigestMismatch: a place sent other bytes than the lock names.
        """
        path = self._kept(file)
        if path not in self._sound:
            self._use(file, lambda chunks: deque(chunks, maxlen=0))
            self._sound.add(path)
        return path

    def placed(self, file: LockedFile) -> Path:
        """A file's place in the cache; what lies there already is only checked by :meth:`kept`.

        Raises:
            IndexFailed, DigestMismatch: it has to be fetched, and can't be.
        """
        path = self._kept(file)
        if not path.is_file():
            self._download(file, path)
            self._sound.add(path)
        return path

    def kept_size(self, files: Iterable[LockedFile]) -> int | None:
        """How many bytes some files have together; None unless all of them have been fetched before."""
        try:
            return sum(self._kept(file).stat().st_size for file in files)
        except OSError:
            return None

    def _choose(self, pin: Pin, interpreter: Accepting) -> LockedFile:
        names = self._names(pin)
        best = _best(names, interpreter)
        unknown = [digest for digest, name in names.items() if not name]
        # An sdist doesn't stand in for a wheel that the lock names and nobody offers: its hash may be wrong.
        if best is None or (unknown and not names[best].endswith(".whl")):
            raise IndexFailed(
                f"No suitable file of {pin.name} {pin.version} whose hash is in the lock is offered for "
                f"Python {interpreter.version} on {interpreter.platform}.",
                "Run `reprobuild lock --upgrade` if the release was replaced or the lock changed by hand; "
                "check uv's index settings if it is private.",
            )
        if gone := self._gone(pin, unknown):
            raise IndexFailed(
                f"The index lists {pin.name} {pin.version} without a file that has {gone[0]}, which is in the lock "
                f"and might suit better than {names[best]}.",
                "The file was deleted, or the hash is wrong: run `reprobuild lock --upgrade`.",
            )
        return LockedFile(pin.name, str(pin.version), names[best], best)

    def _names(self, pin: Pin) -> Mapping[Digest, str]:
        """The file name of each locked digest; empty for one that no place offers now."""
        key = release_key(pin.name, str(pin.version))
        known: dict[str, str] = {}
        with suppress(AttributeError):  # somebody kept something else there
            remembered = memory.recall("releases", key) or {}
            known = {
                digest: str(name)
                for digest, name in remembered.items()
                if _is_of(str(name), pin.name, str(pin.version))
            }
        if not all(str(digest) in known for digest in pin.hashes):
            for offer in self._offered(pin.name, str(pin.version)):
                known[str(self._digest_of(offer))] = offer.filename
            memory.remember("releases", key, known)
        return {digest: known.get(str(digest), "") for digest in pin.hashes}

    def _gone(self, pin: Pin, unknown: Sequence[Digest]) -> list[Digest]:
        """Those of a pin's digests that are missing where an index, which is to list whole releases, offers others."""
        if not unknown:
            return []
        offers = self._offered(pin.name, str(pin.version))
        whole = (offer for offer in offers if not offer.place.flat and offer.place.folder is None)
        if not any(self._digest_of(offer) in pin.hashes for offer in whole):
            return []
        # A file of a kind that is never used, such as .tar.bz2, is there all the same.
        there = {offer.digest for offer in self._offers[pin.name]}
        return [digest for digest in unknown if digest not in there]

    def _put(self, file: LockedFile, destination: Path) -> None:
        self._use(file, lambda chunks: write_atomically(destination, chunks))

    def _use(self, file: LockedFile, use: Callable[[Iterable[bytes]], object]) -> None:
        """Give a file's content, checked on the way, to somebody; a damaged copy in the cache is replaced first."""
        kept = self._kept(file)
        if kept.is_file():
            try:
                use(_checked(kept, file))
            except DigestMismatch:  # it stays until it is replaced: others may be about to do the same
                with self._lock:
                    self._observer.warn(f"{file.filename} was damaged in the cache and is fetched again.")
            else:
                return
        self._download(file, kept)
        use(_checked(kept, file))

    def _kept(self, file: LockedFile) -> Path:
        return self._cache / "files" / file.digest.algorithm / file.digest.hex / file.filename

    def _download(self, file: LockedFile, kept: Path) -> None:
        offers = [each for each in self._offered(file.name, file.version) if each.filename == file.filename]
        right = [each for each in offers if each.digest in (None, file.digest)]
        if not right:
            others = f" (it offers {offers[0].digest} under that name)" if offers else ""
            raise IndexFailed(
                f"No index offers {file.filename} with {file.digest}{others}.",
                "It may have been deleted or replaced since the lock was made.",
            )
        with self._lock:
            self._observer.step(f"fetching {file.filename}")
        for number, offer in enumerate(right, 1):
            try:
                write_atomically(kept, file.digest.check(self._bytes_of(offer), file.filename))
            except DigestMismatch:
                if number == len(right):
                    raise
            else:
                return

    def _offered(self, name: str, version: str = "") -> list[_Offer]:
        """What all places offer of a release, or where none is named of all releases."""
        with self._lock:
            if self._places is None:
                self._places = configured(self._project)
            known = self._offers.get(name)
        if known is None:
            known = [offer for place in self._places for offer in self._ask(place, name)]
            with self._lock:
                self._offers[name] = known
        return [offer for offer in known if _is_of(offer.filename, name, version)]

    def _ask(self, place: Place, name: str) -> list[_Offer]:
        folder = place.folder
        if folder is not None:
            return _ask_folder(place, folder if place.flat else folder / name, name)
        if self._offline:
            raise IndexFailed(f"The files of {name} are not on this machine, and it is to stay offline.", _NO_NETWORK)
        return _ask_network(place, name)

    def _digest_of(self, offer: _Offer) -> Digest:
        if offer.digest is not None:
            return offer.digest
        where = str(offer.local or (offer.package and offer.package.url))
        if where not in self._digests:
            hasher = hashlib.sha256()
            for chunk in self._bytes_of(offer):
                hasher.update(chunk)
            self._digests[where] = Digest("sha256", hasher.hexdigest())
        return self._digests[where]

    def _bytes_of(self, offer: _Offer) -> Iterable[bytes]:
        if offer.local is not None:
            with offer.local.open("rb") as stream:
                yield from chunks_of(stream)
            return
        assert offer.package is not None  # noqa: S101 - an offer is either local or a package
        try:
            with _session(offer.place, offer.package.url) as session:
                answer = session.get(offer.package.url, stream=True, timeout=_TIMEOUT, verify=_verify())
                answer.raise_for_status()
                for chunk in answer.iter_content(1 << 18):
                    process.go_on()
                    yield chunk
        except OSError as error:  # which all of requests' are, and what it raises where SSL_CERT_FILE names nothing
            raise _failed(f"{offer.filename} could not be fetched", error) from error


def _best(names: Mapping[Digest, str], interpreter: Accepting) -> Digest | None:
    """The best file for an interpreter; ties are broken by build number, then by name."""
    ranked: list[tuple[int, Any, str, Digest]] = []
    for digest, filename in names.items():
        if filename.endswith(".whl"):
            _, _, build, tags = parse_wheel_filename(filename)
            ranks = [interpreter.tag_ranks[tag] for tag in tags if tag in interpreter.tag_ranks]
            if ranks:
                number, text = build or (0, "")
                ranked.append((min(ranks), (-number, text), filename, digest))
        elif filename:
            ranked.append((_AFTER_ALL, (0, ""), filename, digest))
    return min(ranked)[-1] if ranked else None


def _is_older(uploaded: str, limit: datetime) -> bool:
    """Whether a file was uploaded before a moment, as uv sees it: one without a time was not."""
    with suppress(ValueError, TypeError):  # of a page that tells anything, or a time without its zone
        return datetime.fromisoformat(uploaded) < limit
    return False


def _is_of(filename: str, name: str, version: str = "") -> bool:
    if {"/", "\\", "\0"} & set(filename) or len(filename) > _NAME_LIMIT:
        return False  # it becomes a name in the cache; and a wheel's stands for every combination of its tags
    with suppress(ValueError):  # which InvalidVersion is too, and what a version of 5000 digits raises
        if filename.endswith(".whl"):
            found: tuple[str, Version] = parse_wheel_filename(filename)[:2]
        elif filename.endswith((".tar.gz", ".zip")):
            found = parse_sdist_filename(filename)
        else:
            return False
        return canonicalize_name(found[0]) == name and (not version or found[1] == Version(version))
    return False


def _ask_folder(place: Place, folder: Path, name: str) -> list[_Offer]:
    """The files in a local folder: a flat one, or one project's folder of a local index."""
    page = folder / "index.html"
    if not place.flat and page.is_file():
        from pypi_simple import ProjectPage  # noqa: PLC0415 - slow to import, and rarely reached

        html = page.read_text(encoding="utf-8")
        packages = ProjectPage.from_html(name, html, base_url=f"{folder.as_uri()}/").packages
        return [_offer(place, package) for package in packages]
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInput(f"{folder} can't be read: {error.strerror}.", "It is one of uv's find-links.") from error
    return [_Offer(path.name, None, place, local=path) for path in files if _matches(path.name, name)]


def _matches(filename: str, name: str) -> bool:
    return canonicalize_name(filename).startswith(f"{name}-")


def _ask_network(place: Place, name: str) -> list[_Offer]:
    import requests  # noqa: PLC0415 - slow to import, and not needed when everything is cached
    from pypi_simple import ACCEPT_ANY, PyPISimple  # noqa: PLC0415 - the same
    from pypi_simple.errors import UnsupportedContentTypeError, UnsupportedRepoVersionError  # noqa: PLC0415

    try:
        with _session(place, place.url) as session:
            url = place.url if place.flat else PyPISimple(place.url, session=session).get_project_url(name)
            answer = session.get(url, timeout=_TIMEOUT, headers={"Accept": ACCEPT_ANY}, verify=_verify())
            if answer.status_code == requests.codes.not_found and not place.flat:
                return []
            answer.raise_for_status()
            return list(_listed(place, name, answer))
    except (OSError, ValueError, UnsupportedContentTypeError, UnsupportedRepoVersionError) as error:
        raise _failed(f"The index could not be asked about {name}", error) from error


def _listed(place: Place, name: str, answer: Any) -> Iterator[_Offer]:  # noqa: ANN401 - requests is imported lazily
    """The files on a project's page, be it JSON (PEP 691) or HTML (PEP 503)."""
    from pypi_simple import DistributionPackage, ProjectPage, RepositoryPage  # noqa: PLC0415 - as above

    content_type = answer.headers.get("content-type", "text/html")
    if "html" not in content_type:
        for package in ProjectPage.from_response(answer, name).packages:
            uploaded = package.upload_time.astimezone(UTC).isoformat() if package.upload_time else ""
            yield _offer(place, package, uploaded)
        return
    # pypi-simple doesn't know an attribute in which some HTML pages tell the upload time, as uv reads it.
    encoding = answer.encoding if "charset" in content_type else None  # else requests guesses Latin 1
    for link in RepositoryPage.from_html(answer.content, answer.url, encoding).links:
        uploaded = link.get_str_attrib("data-upload-time") or ""
        yield _offer(place, DistributionPackage.from_link(link, name), uploaded)


def _offer(place: Place, package: "DistributionPackage", uploaded: str = "") -> _Offer:
    digest = package.digests.get("sha256")
    # Only a page on this machine may speak of files on this machine.
    local = Place(package.url.partition("#")[0], flat=True).folder if place.folder is not None else None
    return _Offer(package.filename, Digest("sha256", digest) if digest else None, place, package, local, uploaded)


def _session(place: Place, url: str) -> Any:  # noqa: ANN401 - requests is imported lazily
    """A session for one URL; a place's credentials go to that place's own host alone."""
    import requests  # noqa: PLC0415 - as above

    session = requests.Session()
    if urlsplit(url)[:2] == urlsplit(place.url)[:2]:  # the scheme too: https credentials don't go over http
        session.auth = place.credentials
    return session


def _verify() -> str | bool:
    """The certificates that uv trusts, for each request: a session's own would give way to CURL_CA_BUNDLE."""
    return os.environ.get("SSL_CERT_FILE") or True


def _failed(what: str, error: Exception) -> IndexFailed:
    """What became of a request, in a few words, without the URL, which may hold a credential."""
    import requests  # noqa: PLC0415 - as above

    response = getattr(error, "response", None)
    if response is not None:
        return IndexFailed(f"{what}: the server answered {response.status_code}.", _NO_NETWORK)
    request = getattr(error, "request", None)
    if request is None:  # it came to none, because of the URL or of SSL_CERT_FILE
        return IndexFailed(f"{what}: {type(error).__name__}.", _TRUST if type(error) is OSError else _NO_NETWORK)
    host = urlsplit(request.url).hostname
    why = words_of(error)
    if not isinstance(error, requests.exceptions.SSLError):
        return IndexFailed(f"{what}: {host}: {why}.", _NO_NETWORK)
    trust = f"the certificate of {host} is not trusted, or it doesn't speak TLS"
    return IndexFailed(f"{what}: {trust}: {why}.", _TRUST)


def _checked(kept: Path, file: LockedFile) -> Iterable[bytes]:
    try:
        opened = kept.open("rb")
    except OSError as error:
        raise BadInput(f"{kept} can't be read: {error.strerror}.", "Remove it: it is fetched again.") from error
    with opened as stream:
        yield from file.digest.check(chunks_of(stream), f"{file.filename} in the cache")
