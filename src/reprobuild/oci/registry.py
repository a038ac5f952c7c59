"""A registry over the OCI distribution specification 1.1: manifests and blobs, checked and resumed as they pass.

What comes is never trusted: each byte counts towards a digest that somebody named before, and sizes are limits.
"""

import json
import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlsplit

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch, RegistryFailed, redacted, shown
from reprobuild.oci.auth import Login
from reprobuild.oci.model import (
    DOCUMENT_LIMIT,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    Descriptor,
    Index,
    document_of,
    media_type_of,
)
from reprobuild.oci.reference import is_loopback
from reprobuild.oci.transport import Answer, Dropped, Sent, Transport, origin_of, resumed

#: Where a registry's API is, if not where its name says.
_HOSTS = {"docker.io": "registry-1.docker.io"}
_ERROR_LIMIT = 64 << 10
_PAGES = 1000
_LINK_LIMIT = 8 << 10
#: Of a tag that others may write to, such as a list of referrers: seconds until they are done, and how often it is
#: looked at again.
_SETTLED, _TURNS = 0.3, 20
_OCTETS = "application/octet-stream"


class Refused(RegistryFailed):
    """The registry answered, and what it said is no.

    Attributes:
        status: of HTTP.
        codes: of the body, as in the distribution specification, such as MANIFEST_UNKNOWN.
    """

    def __init__(self, where: str, status: int, codes: Sequence[str], words: str, remedy: str) -> None:
        said = ", ".join([str(status), *codes])
        super().__init__(f"{where}: the registry answered {said}{words and f' ({words})'}.", remedy)
        self.status = status
        self.codes = tuple(codes)


class Registry:
    """One registry, for any number of threads.

    Args:
        host: its name in references, with a port where it has one: ``docker.io``, ``127.0.0.1:5000``.
        plain_http: whether to speak http; by default only with this machine.
        silence: seconds that it may be silent before a connection counts as dropped.
        clock: seconds that pass, for the life of tokens.
        sleep: waits between tries.
    """

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool | None = None,
        silence: float = 60,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.host = host
        scheme = "http" if plain_http or (plain_http is None and is_loopback(host)) else "https"
        self._base = f"{scheme}://{_HOSTS.get(host, host)}/v2"
        self._transport = Transport(plain=bool(plain_http), silence=silence, clock=clock, sleep=sleep)
        self._login = Login(host, self._transport)

    # --- reading -----------------------------------------------------------------------------------

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """The media type and the bytes of a manifest or an index.

        Args:
            reference: a tag or a digest.

        Raises:
            DigestMismatch: it has another digest than the one that was asked for, or that came with it.
            BadInput: it is no manifest of a known kind.
            RegistryFailed: it isn't there, or can't be had.
        """
        where = self._where(repository, f"fetching the manifest {reference}")

        def attempt() -> tuple[Answer, bytes]:
            with self._ask("GET", f"/{repository}/manifests/{reference}", where, repository, headers=_ACCEPT) as answer:
                return answer, answer.start(DOCUMENT_LIMIT)

        answer, raw = self._transport.persist(attempt)
        if len(raw) > DOCUMENT_LIMIT:
            raise RegistryFailed(f"{where}: it has more than {DOCUMENT_LIMIT} bytes.", "It is no image's manifest.")
        promised = reference if ":" in reference else answer.headers.get("Docker-Content-Digest", "")
        if promised:
            list(Digest.parse(promised).check([raw], f"{self.host}/{repository}: the manifest {reference}"))
        document = document_of(raw, f"{self.host}/{repository}: the manifest {reference}")
        media_type = media_type_of(document)
        if media_type not in (*MANIFESTS, *INDEXES):
            named = media_type or answer.headers.get("Content-Type", "")
            raise BadInput(
                f"{where}: it is of the kind {shown(named)!r}.", "Only OCI's and Docker's schema 2 are read."
            )
        if {"layers", "manifests"} <= document.keys():  # one digest that is two things to two readers
            raise BadInput(f"{where}: it is both a manifest and an index.", "Don't use it; tell whoever serves it.")
        return media_type, raw

    def resolve(self, repository: str, reference: str) -> Digest | None:
        """What a tag or a digest stands for now, as the registry says without being checked; None if for nothing."""
        where = self._where(repository, f"looking for the manifest {reference}")

        def attempt() -> tuple[int, str]:
            path = f"/{repository}/manifests/{reference}"
            with self._ask("HEAD", path, where, repository, headers=_ACCEPT, fine=(200, 404)) as answer:
                return answer.status, answer.headers.get("Docker-Content-Digest", "")

        status, digest = self._transport.persist(attempt)
        if status == 404:
            return None
        return Digest.parse(digest) if digest else Digest.of_bytes(self.manifest(repository, reference)[1])

    def blob(self, repository: str, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a blob, or the rest of them, as they come; a dropped connection is taken up where it broke.

        Args:
            offset: how many bytes are there already. Then whoever has those must check the digest.

        Raises:
            DigestMismatch: other bytes came, or more.
            RegistryFailed: it isn't there, or can't be had.
        """
        what = f"{self.host}/{repository}: the blob {descriptor.digest}"
        pieces = self._pieces(repository, descriptor, offset)
        yield from pieces if offset else descriptor.digest.check(pieces, what)

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        """Whether a blob is in a repository."""
        where = self._where(repository, f"looking for the blob {descriptor.digest}")

        def attempt() -> bool:
            path = f"/{repository}/blobs/{descriptor.digest}"
            with self._ask("HEAD", path, where, repository, fine=(200, 404)) as answer:
                return answer.status == 200

        return self._transport.persist(attempt)

    def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of a repository, in the registry's order."""
        where = self._where(repository, "listing the tags")
        pages = self._listed(f"/{repository}/tags/list", where, repository)
        return tuple(str(tag) for page in pages for tag in _list(page, "tags", where))

    def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """What refers to a manifest, such as signatures: by the API, else by the tag that stands in for it."""
        where = self._where(repository, f"listing what refers to {digest}")
        try:
            pages = list(self._listed(f"/{repository}/referrers/{digest}", where, repository))
        except Refused as error:
            if error.status not in {404, 405}:
                raise
            return self._listed_by_tag(repository, digest)
        each = [entry for page in pages for entry in _list(page, "manifests", where)]
        return tuple(Descriptor.read(entry, f"{where}: entry {number}") for number, entry in enumerate(each))

    # --- writing -----------------------------------------------------------------------------------

    def put_blob(self, repository: str, descriptor: Descriptor, chunks_from: Callable[[int], Iterator[bytes]]) -> bool:
        """Upload a blob unless it is there; a dropped connection is taken up where the registry says that it broke.

        Args:
            chunks_from: its bytes from an offset on.

        Returns:
            whether it had to be uploaded.

        Raises:
            DigestMismatch: the bytes are not what the descriptor says.
            RegistryFailed: the registry refuses, or can't be reached.
        """
        if self.has_blob(repository, descriptor):
            return False
        upload = _Upload(self, repository, descriptor, chunks_from)
        tries, there = self._transport.tries(), 0
        while True:
            try:
                upload.go_on()
            except Dropped as drop:
                tries.progress(max(0, upload.offset - there))
                there = upload.offset
                tries.failed(drop)
                if self.has_blob(repository, descriptor):  # only the answer was lost, or somebody else was quicker
                    return True
            else:
                return True

    def mount(self, repository: str, descriptor: Descriptor, from_repository: str) -> bool:
        """Whether the registry took a blob over from another of its repositories; if it is not willing, it isn't."""
        where = self._where(repository, f"mounting the blob {descriptor.digest} from {from_repository}")
        path = f"/{repository}/blobs/uploads/?mount={quote(str(descriptor.digest))}&from={quote(from_repository)}"
        scope = f"{_scope(repository, 'pull,push')} {_scope(from_repository, 'pull')}"

        def attempt() -> tuple[int, str]:
            unwilling = (201, 202, 400, 401, 403, 404, 405)
            with self._ask("POST", path, where, repository, scope=scope, fine=unwilling) as answer:
                return answer.status, answer.location

        status, upload = self._transport.persist(attempt)
        if status == 202 and upload:  # it began an upload instead, which nobody will go on with
            with suppress(RegistryFailed), self._ask("DELETE", upload, where, repository, push=True):
                pass
        return status == 201

    def put_manifest(self, repository: str, reference: str, media_type: str, raw: bytes) -> Digest:
        """Put a manifest or an index, all of whose parts are there, under a tag or its digest.

        Where the registry has no referrers API, one with a subject is listed under the tag that stands in for it.

        Raises:
            RegistryFailed: the registry refuses, or can't be reached.
        """
        where = self._where(repository, f"putting the manifest {reference}")
        path, headers = f"/{repository}/manifests/{reference}", {"Content-Type": media_type}

        def attempt() -> Mapping[str, str]:
            with self._ask(
                "PUT", path, where, repository, push=True, headers=headers, body=raw, fine=(200, 201, 202)
            ) as answer:
                return answer.headers

        said = self._transport.persist(attempt)
        digest = Digest.of_bytes(raw)
        if promised := said.get("Docker-Content-Digest", ""):
            list(Digest.parse(promised).check([raw], f"{self.host}/{repository}: the manifest as it was sent"))
        document = document_of(raw, where)
        if document.get("subject") and "OCI-Subject" not in said:
            self._list_by_tag(repository, document, Descriptor.of(media_type, raw))
        return digest

    def _list_by_tag(self, repository: str, document: Mapping[str, Any], referrer: Descriptor) -> None:
        where = f"{self.host}/{repository}: subject"
        subject = Descriptor.read(document["subject"], where).digest
        config = document.get("config")
        kind = document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else "") or ""
        own = Descriptor(
            referrer.media_type,
            referrer.digest,
            referrer.size,
            artifact_type=str(kind),
            annotations=document.get("annotations") or {},
        )

        def others() -> list[Descriptor]:
            return [each for each in self._listed_by_tag(repository, subject) if each.digest != own.digest]

        def add() -> None:
            self.put_manifest(repository, tag, OCI_INDEX, Index.make([*others(), own]).raw)

        tag = _tag_of(subject)
        self.add_until_it_stays(
            where, tag, lambda: own.digest in {each.digest for each in self._listed_by_tag(repository, subject)}, add
        )

    def add_until_it_stays(self, where: str, tag: str, is_there: Callable[[], bool], add: Callable[[], None]) -> None:
        """Add to what a tag stands for, while others may do the same.

        No registry takes a condition with what it is sent, and whoever read before us overwrites it: look again later.

        Args:
            is_there: whether it is in what the tag stands for now.
            add: reads what the tag stands for, and puts it there again with more in it.

        Raises:
            RegistryFailed: others write there all the time.
        """
        for turn in range(_TURNS):
            if is_there():
                return
            if turn:
                self._transport.wait(random.uniform(0, _SETTLED * turn))  # noqa: S311 - so that two don't go on in step
            add()
            self._transport.wait(_SETTLED)
        raise RegistryFailed(
            f"{where}: others write to the tag {tag} all the time, and drop what is put there.",
            "Try again when they are done.",
        )

    def _listed_by_tag(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        try:
            _, raw = self.manifest(repository, _tag_of(digest))
        except Refused as error:
            if error.status != 404:
                raise
            return ()
        return Index.read(raw, f"{self.host}/{repository}:{_tag_of(digest)}").manifests

    # --- asking ------------------------------------------------------------------------------------

    def _pieces(self, repository: str, descriptor: Descriptor, offset: int) -> Iterator[bytes]:
        where = self._where(repository, f"fetching the blob {descriptor.digest}")
        path, fine = f"/{repository}/blobs/{descriptor.digest}", (200, 206, 416)

        def ask(headers: Mapping[str, str]) -> AbstractContextManager[Answer]:
            return self._ask("GET", path, where, repository, headers=headers, fine=fine)

        return resumed(ask, descriptor.size, where, self._transport.tries(), offset)

    def _listed(self, path: str, where: str, repository: str) -> Iterator[dict[str, Any]]:
        """The pages of a list, each a JSON object."""
        for _ in range(_PAGES):

            def attempt(page: str = path) -> tuple[Answer, bytes]:
                with self._ask("GET", page, where, repository, headers=_ACCEPT_LIST) as answer:
                    return answer, answer.start(DOCUMENT_LIMIT)

            answer, raw = self._transport.persist(attempt)
            yield document_of(raw, where)
            link = answer.headers.get("Link", "")
            if len(link) > _LINK_LIMIT:  # to look through it could take as long as one likes
                raise RegistryFailed(f"{where}: the answer has a Link header of {len(link)} characters.")
            following = re.search(r'<([^<>]*)>\s*;[^,]*\brel="?next\b', link)
            if not following:
                return
            path = answer.pointed(following[1])
            if origin_of(path) != origin_of(self._base):
                raise RegistryFailed(f"{where}: the next page is at {redacted(path)}, which is another server.")
        raise RegistryFailed(f"{where}: there are more than {_PAGES} pages.")

    @contextmanager
    def _ask(  # noqa: PLR0913 - each is one part of a request
        self,
        method: str,
        place: str,
        where: str,
        repository: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Sent | None = None,
        push: bool = False,
        scope: str = "",
        fine: Collection[int] = (200, 202, 204),
        slow: bool = False,
    ) -> Iterator[Answer]:
        """One try at a request, and one more if the registry wants to know who asks.

        Args:
            place: a path below the API's root, or a URL that the registry gave us.
            fine: statuses that are no error.

        Raises:
            Dropped: it may go well the next time.
            Refused: any other status.
        """
        url = f"{self._base}{place}" if place.startswith("/") else place
        scope = scope or _scope(repository, "pull,push" if push else "pull")
        at_home = origin_of(url) == origin_of(self._base)
        used = self._login.header(scope) if at_home else ""
        for attempt in (1, 2):
            with self._transport.ask(
                method, url, where, headers=headers or {}, authorization=used, body=body, slow=slow
            ) as answer:
                if answer.status == 401 and attempt == 1 and origin_of(answer.url) == origin_of(self._base):
                    fresh = self._login.renew(answer, repository, scope, used)
                    if fresh:
                        used = fresh
                        continue
                if answer.status not in fine:
                    raise self._refused(answer, where)
                yield answer
                return

    def _refused(self, answer: Answer, where: str) -> Refused:
        raw = answer.start(_ERROR_LIMIT)
        codes: list[str] = []
        words: list[str] = []
        with suppress(ValueError, RecursionError, AttributeError, TypeError, KeyError):
            for each in json.loads(raw).get("errors", [])[:3]:
                codes.append(shown(str(each.get("code", "")), 60))
                words.append(shown(redacted(str(each.get("message") or "")), 200))
        remedies = {
            401: f"Run `docker login {self.host}`, or check the name: registries say so too of what isn't there.",
            403: "This login isn't allowed to do that.",
            404: "Check the name, the tag and the digest.",
            413: "The registry, or a proxy before it, limits the size of uploads.",
        }
        return Refused(where, answer.status, codes, "; ".join(filter(None, words)), remedies.get(answer.status, ""))

    def _where(self, repository: str, doing: str) -> str:
        return f"{self.host}/{repository}: {doing}"


class _Upload:
    """One blob on its way up: where it goes on, and after how many bytes."""

    def __init__(
        self,
        registry: Registry,
        repository: str,
        descriptor: Descriptor,
        chunks_from: Callable[[int], Iterator[bytes]],
    ) -> None:
        self.offset = 0
        self._ask = registry._ask
        self._repository = repository
        self._descriptor = descriptor
        self._chunks_from = chunks_from
        self._what = f"{registry.host}/{repository}: the blob {descriptor.digest}"
        self._where = f"{registry.host}/{repository}: uploading the blob {descriptor.digest}"
        self._location = ""

    def go_on(self) -> None:
        """One try at whatever is left to do."""
        self._find_place()
        if self.offset < self._descriptor.size:
            self._send_rest()
        self._finish()

    def _find_place(self) -> None:
        """Ask how far an upload has come that was dropped; begin another if the registry doesn't know."""
        if self._location and self._ask_place():
            return
        self.offset, self._location = 0, ""
        with self._request("POST", f"/{self._repository}/blobs/uploads/", body=b"", fine=(202,)) as answer:
            self._take(answer)
        if not self._location:
            raise RegistryFailed(f"{self._where}: the registry doesn't say where to.")

    def _ask_place(self) -> bool:
        with suppress(Refused), self._request("GET", fine=(204, 202, 200)) as answer:
            self._take(answer)
            self.offset = _received(answer)
            return 0 < self.offset <= self._descriptor.size
        return False

    def _send_rest(self) -> None:
        size = self._descriptor.size
        rest = Sent(lambda: self._chunks_from(self.offset), size - self.offset, self._what)
        headers = {"Content-Type": _OCTETS}
        if self.offset:  # the first of it is everywhere understood without
            headers["Content-Range"] = f"{self.offset}-{size - 1}"
        with self._request("PATCH", headers=headers, body=rest, fine=(202, 201, 204, 416)) as answer:
            if answer.status == 416:
                raise Dropped(f"{self._where}: the registry has another part of it than it said.")
            self._take(answer)
            there = _received(answer) or size
        if there != size:
            raise Dropped(f"{self._where}: {there} of {size} bytes arrived.")
        self.offset = size

    def _finish(self) -> None:
        glue = "&" if urlsplit(self._location).query else "?"
        place = f"{self._location}{glue}digest={quote(str(self._descriptor.digest))}"
        try:
            with self._request("PUT", place, body=b"", fine=(201, 204), slow=True):
                pass
        except Refused as refused:
            if "DIGEST_INVALID" not in refused.codes:
                raise
            raise DigestMismatch(
                f"{self._what}: the bytes that were read don't have this digest, says the registry.",
                "What holds the blob is damaged: fetch it again.",
            ) from refused

    @contextmanager
    def _request(self, method: str, place: str = "", **more: Any) -> Iterator[Answer]:  # noqa: ANN401 - as Registry._ask
        with self._ask(method, place or self._location, self._where, self._repository, push=True, **more) as answer:
            yield answer

    def _take(self, answer: Answer) -> None:
        self._location = answer.location or self._location


_ACCEPT = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}
_ACCEPT_LIST = {"Accept": f"{OCI_INDEX}, application/json"}


def _scope(repository: str, actions: str) -> str:
    return f"repository:{repository}:{actions}"


def _tag_of(digest: Digest) -> str:
    """The tag that lists what refers to a manifest where a registry has no API for it (distribution specification)."""
    return f"{digest.algorithm}-{digest.hex}"


def _list(document: Mapping[str, Any], key: str, where: str) -> Iterable[object]:
    found = document.get(key)
    if not isinstance(found, list | None):
        raise BadInput(f"{where}: {key} is not a list.")
    return found or []


def _received(answer: Answer) -> int:
    """How many bytes of an upload a registry has; 0 if that isn't clear, as with ``0-0``, which is one byte or none."""
    found = re.fullmatch(r"(?:bytes=)?0-(\d{1,19})", answer.headers.get("Range", ""))
    last = int(found[1]) if found else 0
    return last + 1 if last else 0
