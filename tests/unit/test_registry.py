import json
import random
import socket
import ssl
import subprocess
import threading
import time

import pytest

from reprobuild import process
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch, ExitCode, RegistryFailed
from reprobuild.oci.model import (
    DOCKER_MANIFEST,
    DOCUMENT_LIMIT,
    INDEXES,
    MANIFESTS,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
)
from reprobuild.oci.registry import Refused, Registry
from reprobuild.oci.transport import Dropped

DATA = random.Random(0).randbytes(3_000_000)
BLOB = Descriptor.of(OCI_LAYER, DATA)
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
MANIFEST = Manifest.make(Descriptor.of(OCI_CONFIG, CONFIG), [BLOB])
ALL = 10**6


@pytest.fixture
def naps():
    return []


@pytest.fixture
def registry(served, naps):
    return Registry(served.host, sleep=naps.append)


@pytest.fixture
def full(served):
    """One that holds an image."""
    served.hold("team/app", DATA)
    served.hold("team/app", CONFIG)
    served.hold_manifest("team/app", OCI_MANIFEST, MANIFEST.raw, "v1")
    return served


def chunks_from(offset):
    return (DATA[at : at + 100_000] for at in range(offset, len(DATA), 100_000))


def whole(registry, descriptor=BLOB, offset=0):
    return b"".join(registry.blob("team/app", descriptor, offset))


# --- manifests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["v1", str(MANIFEST.descriptor.digest)])
def test_a_manifest_comes_as_it_is(full, registry, reference):
    assert registry.manifest("team/app", reference) == (OCI_MANIFEST, MANIFEST.raw)
    (asked,) = full.asked
    assert all(kind in asked.headers["Accept"] for kind in (*MANIFESTS, *INDEXES))


def test_a_manifest_of_docker_keeps_its_bytes(full, registry):
    raw = json.dumps({**json.loads(MANIFEST.raw), "mediaType": DOCKER_MANIFEST}, indent=3).encode()
    full.hold_manifest("team/app", DOCKER_MANIFEST, raw, "old")
    assert registry.manifest("team/app", "old") == (DOCKER_MANIFEST, raw)


@pytest.mark.parametrize("reference", ["v1", str(MANIFEST.descriptor.digest)])
def test_another_manifest_than_was_promised_is_refused(full, registry, reference):
    full.fail("GET", "manifests", alter=lambda raw: raw.replace(b"amd64", b"arm64") + b" ")
    with pytest.raises(DigestMismatch, match=r"team/app: the manifest .* was promised"):
        registry.manifest("team/app", reference)


def test_a_digest_that_is_asked_for_counts_more_than_one_that_the_registry_names(full, registry):
    other = Manifest.make(Descriptor.of(OCI_CONFIG, CONFIG), []).raw
    full.answer("GET", "manifests", 200, other, Docker_Content_Digest=str(Digest.of_bytes(other)))
    with pytest.raises(DigestMismatch, match="was promised"):
        registry.manifest("team/app", str(MANIFEST.descriptor.digest))


def test_a_truncated_manifest_is_asked_for_again(full, registry, naps):
    full.fail("GET", "manifests", cut_after=20)
    assert registry.manifest("team/app", "v1")[1] == MANIFEST.raw
    assert len(naps) == 1


def test_a_manifest_that_is_always_truncated_is_an_error(full, registry, naps):
    full.fail("GET", "manifests", cut_after=20, times=ALL)
    with pytest.raises(Dropped, match=r"127\.0\.0\.1:\d+/team/app: fetching the manifest v1: the connection broke"):
        registry.manifest("team/app", "v1")
    assert len(full.asked) == 6


def test_a_manifest_that_ends_early_by_its_own_length_is_no_json(full, registry):
    full.answer("GET", "manifests", 200, MANIFEST.raw[:50])
    with pytest.raises(BadInput, match="is not JSON"):
        registry.manifest("team/app", "v1")


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1, "fsLayers": []},
        {"mediaType": "application/vnd.docker.distribution.manifest.v1+json"},
        {"mediaType": OCI_MANIFEST, "config": {}, "layers": [], "manifests": []},
        [],
    ],
)
def test_what_is_no_manifest_is_refused(full, registry, document):
    full.answer("GET", "manifests", 200, json.dumps(document).encode())
    with pytest.raises(BadInput, match="team/app"):
        registry.manifest("team/app", "v1")


def test_a_manifest_without_end_is_refused(full, registry):
    """It is said to be huge, and breaks off soon after the limit: nobody should have read so far."""
    full.answer(
        "GET", "manifests", 200, b" " * (DOCUMENT_LIMIT + (1 << 20)), Content_Length=str(1 << 40), Connection="close"
    )
    with pytest.raises(RegistryFailed, match="more than"):
        registry.manifest("team/app", "v1")


def test_an_error_names_registry_repository_and_code(full, registry):
    with pytest.raises(
        Refused, match=r"127\.0\.0\.1:\d+/team/app: .*v9.*404, MANIFEST_UNKNOWN \(manifest unknown\)"
    ) as e:
        registry.manifest("team/app", "v9")
    assert (e.value.status, e.value.codes, e.value.exit_code) == (404, ("MANIFEST_UNKNOWN",), ExitCode.REGISTRY_FAILED)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errors": 1}', b'{"errors": {"a": 1}}', b'{"errors": [1, {}]}', b"[" * 60_000]
)
def test_an_error_without_a_proper_body_is_one_too(full, registry, body):
    full.answer("GET", "manifests", 403, body)
    with pytest.raises(Refused, match="answered 403"):
        registry.manifest("team/app", "v1")


def test_urls_in_an_error_are_redacted(full, registry):
    words = "see https://somebody:s3cret@cdn.example/x?signature=s3cret"
    full.answer("GET", "manifests", 400, json.dumps({"errors": [{"code": "UNKNOWN", "message": words}]}).encode())
    with pytest.raises(Refused, match=r"cdn\.example/x") as caught:
        registry.manifest("team/app", "v1")
    assert "s3cret" not in str(caught.value)


def test_a_tag_is_resolved_without_its_manifest(full, registry):
    assert registry.resolve("team/app", "v1") == MANIFEST.descriptor.digest
    assert registry.resolve("team/app", "v9") is None
    assert {each.method for each in full.asked} == {"HEAD"}


def test_a_tag_is_resolved_where_the_registry_tells_no_digest(full, registry):
    full.answer("HEAD", "manifests", 200)
    assert registry.resolve("team/app", "v1") == MANIFEST.descriptor.digest


# --- blobs that come -------------------------------------------------------------------------------


def test_a_blob_comes(full, registry, naps):
    assert whole(registry) == DATA
    assert whole(registry, offset=2_000_000) == DATA[2_000_000:]
    assert whole(registry, offset=len(DATA)) == b""
    assert naps == []


def test_an_empty_blob_comes(full, registry):
    full.hold("team/app", b"")
    assert whole(registry, Descriptor.of(OCI_LAYER, b"")) == b""


def test_a_blob_is_taken_up_where_it_broke(full, registry, naps):
    full.fail("GET", "blobs", cut_after=1_000_000)
    full.fail("GET", "blobs", cut_after=1_500_000)
    assert whole(registry) == DATA
    assert [each.headers.get("Range") for each in full.asked] == [None, "bytes=1000000-", "bytes=2500000-"]
    assert len(naps) == 2


def test_a_server_without_ranges_begins_again(full, registry):
    full.fail("GET", "blobs", cut_after=1_000_000)
    full.fail("GET", "blobs", cut_after=2_000_000, ignore_range=True)
    full.fail("GET", "blobs", ignore_range=True)
    assert whole(registry) == DATA
    assert len(full.asked) == 3


def test_drops_are_forgotten_after_progress(full, registry):
    for _ in range(12):
        full.fail("GET", "blobs", cut_after=240_000)
    assert whole(registry) == DATA
    assert len(full.asked) == 13


def test_progress_counts_only_once(full, registry):
    full.fail("GET", "blobs", cut_after=1_200_000)
    full.fail("GET", "blobs", cut_after=10, times=30)
    with pytest.raises(Dropped):
        whole(registry)
    assert len(full.asked) == 6


def test_a_server_that_drops_everything_is_left(full, registry, naps):
    full.fail("GET", "blobs", cut_after=1, times=ALL)
    with pytest.raises(Dropped, match="the connection broke"):
        whole(registry)
    assert len(full.asked) == 6
    assert len(naps) == 5
    assert all(0.25 * 2**number <= nap <= 0.5 * 2**number for number, nap in enumerate(naps))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(full, registry, naps, status):
    full.answer("GET", "blobs", status, times=2)
    assert whole(registry) == DATA
    assert len(full.asked) == 3
    assert len(naps) == 2


@pytest.mark.parametrize(("asked", "waited"), [("7", 7), ("Fri, 01 Jan 1990 00:00:00 GMT", 0), ("soon", 0), ("-5", 0)])
def test_retry_after_is_heeded(full, registry, naps, asked, waited):
    full.answer("GET", "blobs", 429, Retry_After=asked)
    assert whole(registry) == DATA
    assert naps[0] == waited or (not waited and 0.25 <= naps[0] <= 0.5)


def test_nobody_waits_for_an_hour(full, registry, naps):
    full.answer("GET", "blobs", 429, Retry_After="3600")
    with pytest.raises(Dropped, match="answered 429 and asks to be left alone for 3600 s"):
        whole(registry)
    assert naps == []


def test_a_server_that_is_always_busy_is_an_error(full, registry):
    full.answer("GET", "blobs", 500, times=ALL)
    with pytest.raises(Dropped, match=r"team/app: fetching the blob sha256:\w+: the server answered 500"):
        whole(registry)
    assert len(full.asked) == 6


def test_a_refusal_is_not_tried_again(full, registry):
    full.answer("GET", "blobs", 403, times=ALL)
    with pytest.raises(Refused, match="403"):
        whole(registry)
    assert len(full.asked) == 1


@pytest.mark.parametrize("alter", [lambda data: b"x" + data[1:], lambda data: data[:-1] + b"x"])
def test_other_bytes_are_refused(full, registry, alter):
    full.fail("GET", "blobs", alter=alter)
    with pytest.raises(DigestMismatch, match=r"team/app: the blob .* was promised"):
        whole(registry)


def test_bytes_that_differ_after_a_drop_are_refused(full, registry):
    full.fail("GET", "blobs", cut_after=1_000_000)
    full.fail("GET", "blobs", alter=lambda data: b"x" + data[1:])
    with pytest.raises(DigestMismatch):
        whole(registry)


@pytest.mark.parametrize("offset", [0, 2_000_000])
def test_more_bytes_than_promised_are_refused(full, registry, offset):
    full.fail("GET", "blobs", alter=lambda data: data + b"x")
    with pytest.raises(DigestMismatch, match="more than the promised 3000000 bytes"):
        whole(registry, offset=offset)


def test_fewer_bytes_than_promised_are_an_error(full, registry):
    wrong = Descriptor(OCI_LAYER, BLOB.digest, BLOB.size + 5)
    with pytest.raises(Dropped, match="only 3000000 of 3000005 bytes"):
        whole(registry, wrong)


def test_a_server_that_always_ends_early_is_left(full, registry):
    """By its own length it sent everything, and it knows no ranges."""
    full.answer("GET", "blobs", 200, DATA[:100], times=ALL)
    with pytest.raises(Dropped, match="ended after 100 of 3000000 bytes"):
        whole(registry)
    assert len(full.asked) == 6


@pytest.mark.parametrize("content_range", [None, "bytes 2000001-2999999/3000000", "octets"])
def test_another_part_than_was_asked_for_is_not_taken(full, registry, content_range):
    headers = {"Content_Range": content_range} if content_range else {}
    full.answer("GET", "blobs", 206, DATA[2_000_001:], **headers)
    assert whole(registry, offset=2_000_000) == DATA[2_000_000:]
    assert len(full.asked) == 2


def test_a_silent_connection_is_dropped(full, naps):
    full.fail("GET", "blobs", pause=1.5, cut_after=2)
    registry = Registry(full.host, sleep=naps.append, silence=0.3)
    assert whole(registry) == DATA
    assert len(full.asked) == 2


def test_a_dripping_connection_is_dropped(full, naps):
    """Each byte comes in time, and the blob never would."""
    full.fail("GET", "blobs", pause=0.05, cut_after=400)
    registry = Registry(full.host, sleep=naps.append, silence=1)
    begun = time.monotonic()
    assert whole(registry) == DATA
    assert time.monotonic() - begun < 6
    assert len(full.asked) == 2


def test_a_blob_that_nobody_wants_any_more_is_given_up(full, registry):
    reading = registry.blob("team/app", BLOB)
    assert next(reading)
    reading.close()
    assert whole(registry) == DATA


def test_a_dismissed_thread_stops(full, registry, naps):
    full.fail("GET", "blobs", pause=0.05, cut_after=2_000)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), process.workers(1) as pool:  # noqa: PT012 - both belong together
        pool.submit(whole, registry)
        while not full.asked:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 10
    assert len(full.asked) == 1


def test_a_wait_ends_when_nobody_waits(full):
    full.answer("GET", "blobs", 429, times=ALL, Retry_After="250")
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), process.workers(1) as pool:  # noqa: PT012 - both belong together
        pool.submit(whole, Registry(full.host))
        while not full.asked:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 10


# --- redirects -------------------------------------------------------------------------------------


def test_a_redirect_elsewhere_takes_no_secret_along(full, make_registry, registry, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {full.host: {"username": "u", "password": "p"}}}))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password s3cret\n")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    full.challenge, full.tokens = 'Basic realm="r"', {"Basic dTpw": ""}
    other = make_registry()
    other.answer("GET", "/data", 200, DATA)
    assert registry.has_blob("team/app", BLOB)
    full.answer("GET", "blobs", 307, Location=f"{other.url}/data?signature=x")
    assert whole(registry) == DATA
    assert full.asked[-1].headers["Authorization"] == "Basic dTpw"
    (elsewhere,) = other.asked
    assert "Authorization" not in elsewhere.headers
    assert elsewhere.path == "/data?signature=x"


def test_a_redirect_at_home_keeps_the_login(full, registry, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {full.host: {"username": "u", "password": "p"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    full.challenge, full.tokens = 'Basic realm="r"', {"Basic dTpw": ""}
    full.hold("moved/app", DATA)
    assert registry.has_blob("team/app", BLOB)
    full.answer("GET", "team/app/blobs", 302, Location=f"/v2/moved/app/blobs/{BLOB.digest}")
    assert whole(registry) == DATA


def test_a_refusal_of_another_server_gets_no_login(full, make_registry, registry, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {full.host: {"username": "u", "password": "p"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    other = make_registry()
    other.answer("GET", "/data", 401, times=ALL, WWW_Authenticate="Basic")
    full.answer("GET", "blobs", 307, Location=f"{other.url}/data", times=ALL)
    with pytest.raises(Refused, match="401"):
        whole(registry)
    assert [each.headers.get("Authorization") for each in other.asked] == [None]


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://192.0.2.1/x", "//:x/"])
def test_redirects_to_odd_places_are_refused(full, registry, place):
    full.answer("GET", "blobs", 307, Location=place, times=ALL)
    with pytest.raises(RegistryFailed, match="not https"):
        whole(registry)
    assert len(full.asked) == 1


def test_a_circle_of_redirects_ends(full, registry):
    full.answer("GET", "blobs", 307, Location=f"/v2/team/app/blobs/{BLOB.digest}", times=ALL)
    with pytest.raises(RegistryFailed, match="redirects"):
        whole(registry)
    assert len(full.asked) < 10


def test_what_is_written_is_not_asked_for_instead(full, registry):
    full.answer("PUT", "manifests", 302, Location="/elsewhere")
    with pytest.raises(RegistryFailed, match="answered 302 to PUT"):
        registry.put_manifest("team/app", "v2", OCI_MANIFEST, MANIFEST.raw)
    assert not full.asked_for("PUT", "elsewhere")


def test_cookies_are_not_kept(full, registry):
    full.answer("HEAD", "blobs", 200, Set_Cookie="session=s3cret; Path=/")
    assert registry.has_blob("team/app", BLOB)
    assert registry.has_blob("team/app", BLOB)
    assert not any("Cookie" in each.headers for each in full.asked)


def test_bytes_are_asked_for_as_they_are(full, registry):
    assert whole(registry) == DATA
    assert [each.headers["Accept-Encoding"] for each in full.asked] == ["identity"]


# --- blobs that go ---------------------------------------------------------------------------------


def test_a_blob_goes_up(served, registry, naps):
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert served.blobs["team/app"] == {str(BLOB.digest): DATA}
    assert [each.method for each in served.asked] == ["HEAD", "POST", "PATCH", "PUT"]
    assert served.asked[2].headers["Content-Length"] == str(len(DATA))
    assert (served.uploads, naps) == ({}, [])


def test_an_empty_blob_goes_up(served, registry):
    empty = Descriptor.of(OCI_LAYER, b"")
    assert registry.put_blob("team/app", empty, lambda _: iter([]))
    assert served.blobs["team/app"] == {str(empty.digest): b""}


def test_a_blob_that_is_there_is_not_sent(full, registry):
    assert not registry.put_blob("team/app", BLOB, lambda _: pytest.fail("it was read"))
    assert [each.method for each in full.asked] == ["HEAD"]


def test_an_upload_is_taken_up_where_it_broke(served, registry, naps):
    served.fail("PATCH", "uploads", cut_body_after=1_200_000)
    served.fail("PATCH", "uploads", cut_body_after=800_000)
    begun = []

    def chunks(offset):
        begun.append(offset)
        return chunks_from(offset)

    assert registry.put_blob("team/app", BLOB, chunks)
    assert served.blobs["team/app"] == {str(BLOB.digest): DATA}
    assert begun == [0, 1_200_000, 2_000_000]
    ranges = [each.headers.get("Content-Range") for each in served.asked_for("PATCH")]
    assert ranges == [None, "1200000-2999999", "2000000-2999999"]
    assert len(served.asked_for("POST")) == 1
    assert len(naps) == 2


def test_drops_of_an_upload_are_forgotten_after_progress(served, registry, naps):
    served.fail("PATCH", "uploads", cut_body_after=350_000, times=8)
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert len(naps) == 8


def test_an_upload_that_comes_no_further_is_left(served, registry):
    served.fail("PATCH", "uploads", cut_body_after=1_200_000)
    served.fail("PATCH", "uploads", cut_body_after=0, times=30)
    with pytest.raises(Dropped):
        registry.put_blob("team/app", BLOB, chunks_from)
    assert len(served.asked_for("PATCH")) == 7


def test_an_upload_that_arrived_is_not_sent_again(served, registry):
    served.fail("PATCH", "uploads", lose_answer=True)
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert [len(served.asked_for(method)) for method in ("POST", "PATCH", "PUT")] == [1, 1, 1]


def test_an_upload_goes_on_where_the_last_answer_says(served, registry):
    place = "/v2/team/app/blobs/uploads/x?state="
    served.answer("POST", "uploads", 202, Location=f"{place}1")
    served.answer("PATCH", "uploads", 202, Location=f"{place}2")
    served.answer("PUT", "uploads", 201)
    assert registry.put_blob("team/app", BLOB, chunks_from)
    (finished,) = served.asked_for("PUT")
    assert finished.query["state"] == ["2"]


def test_a_registry_may_take_its_time_to_finish(served, naps):
    def late(body):
        time.sleep(0.6)
        return body

    served.fail("PUT", "uploads", alter=late)
    assert Registry(served.host, silence=0.3, sleep=naps.append).put_blob("team/app", BLOB, chunks_from)
    assert naps == []


@pytest.mark.parametrize("size", [1, 2, 1 << 16, (1 << 16) + 1])
def test_blobs_of_any_size_go_up(served, registry, size):
    data = DATA[:size]
    assert registry.put_blob("team/app", Descriptor.of(OCI_LAYER, data), lambda offset: iter([data[offset:]]))
    assert list(served.blobs["team/app"].values()) == [data]
    assert len(served.asked) == 4


@pytest.mark.parametrize("arrived", [0, 1, 2])
def test_an_upload_of_which_hardly_anything_arrived(served, registry, arrived):
    served.fail("PATCH", "uploads", cut_body_after=arrived)
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert served.blobs["team/app"] == {str(BLOB.digest): DATA}


def test_a_registry_that_wants_another_part_is_asked_which(served, registry):
    served.answer("PATCH", "uploads", 416)
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert served.blobs["team/app"] == {str(BLOB.digest): DATA}


def test_an_upload_elsewhere_takes_no_secret_along(served, make_registry, registry, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {served.host: {"username": "u", "password": "p"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    served.challenge, served.tokens = 'Basic realm="r"', {"Basic dTpw": ""}
    other = make_registry()
    other.answer("PATCH", "/up", 202)
    other.answer("PUT", "/up", 201)
    assert not registry.has_blob("team/app", BLOB)
    served.answer("POST", "uploads", 401, WWW_Authenticate="Basic")
    served.answer("POST", "uploads", 202, Location=f"{other.url}/up?state=x")
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert [each.path.partition("&")[0] for each in other.asked] == ["/up?state=x"] * 2
    assert not any("Authorization" in each.headers for each in other.asked)
    assert other.asked[0].body == DATA


def test_a_registry_that_has_less_than_it_took_gets_the_rest(served, registry):
    served.fail("PATCH", "uploads", answer=(202, {"Range": "0-999"}, b""))
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert served.blobs["team/app"] == {str(BLOB.digest): DATA}


@pytest.mark.parametrize("status", [400, 404, 416])
def test_an_upload_that_the_registry_forgot_begins_again(served, registry, status):
    served.fail("PATCH", "uploads", cut_body_after=1_200_000)
    served.answer("GET", "uploads", status)
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert served.blobs["team/app"] == {str(BLOB.digest): DATA}
    assert len(served.asked_for("POST")) == 2


def test_an_upload_that_the_registry_forgot_half_way_begins_at_its_start(served):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            served.uploads.clear()

    served.fail("PATCH", "uploads", cut_body_after=1_200_000)
    served.fail("PATCH", "uploads", cut_body_after=100_000)
    assert Registry(served.host, sleep=nap).put_blob("team/app", BLOB, chunks_from)
    ranges = [each.headers.get("Content-Range") for each in served.asked_for("PATCH")]
    assert ranges == [None, "1200000-2999999", None]


def test_a_lost_answer_is_no_second_upload(served, registry):
    served.fail("PUT", "uploads", lose_answer=True)
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert len(served.asked_for("PATCH")) == 1


def test_a_busy_registry_gets_the_blob_later(served, registry, naps):
    served.answer("PATCH", "uploads", 429, Retry_After="3")
    served.answer("POST", "uploads", 503)
    served.answer("PUT", "uploads", 500)
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert served.blobs["team/app"] == {str(BLOB.digest): DATA}
    assert 3 in naps


def test_a_registry_that_always_drops_uploads_is_left(served, registry):
    served.fail("PATCH", "uploads", cut_body_after=0, times=ALL)
    with pytest.raises(Dropped, match="uploading the blob"):
        registry.put_blob("team/app", BLOB, chunks_from)
    assert len(served.asked_for("PATCH")) == 6


def test_a_token_that_expires_in_an_upload_is_renewed(served, registry, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {served.host: {"username": "u", "password": "p"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    served.challenge = f'Bearer realm="{served.url}/token",service="s"'
    served.tokens = {"Bearer one": "", "Bearer two": "", "Bearer three": ""}
    for name in ("one", "two", "three"):  # to look, to push, and to push when that one has expired
        served.answer("GET", "/token", 200, json.dumps({"token": name, "expires_in": 300}).encode())
    served.fail("PATCH", "uploads", answer=(401, {"WWW-Authenticate": served.challenge}, b""))
    assert registry.put_blob("team/app", BLOB, chunks_from)
    assert served.blobs["team/app"] == {str(BLOB.digest): DATA}
    assert served.asked_for("PUT")[0].headers["Authorization"] == "Bearer three"


def test_what_is_read_must_be_the_blob(served, registry):
    with pytest.raises(DigestMismatch, match="don't have this digest"):
        registry.put_blob("team/app", BLOB, lambda _: iter([b"x" + DATA[1:]]))
    assert served.blobs == {}


@pytest.mark.parametrize("chunks", [[DATA[:-1]], [DATA, b"x"], []])
def test_what_is_read_must_have_the_size(served, registry, chunks):
    with pytest.raises(BadInput, match="promised size"):
        registry.put_blob("team/app", BLOB, lambda _: iter(chunks))
    assert served.blobs == {}


def test_what_is_read_may_not_go_on_for_ever(served, registry):
    asked: list[int] = []

    def chunks(offset):
        while len(asked) < 1000:
            asked.append(offset)
            yield DATA[:500_000]

    with pytest.raises(BadInput, match="promised size"):
        registry.put_blob("team/app", BLOB, chunks)
    assert len(asked) == 7


def test_a_disk_that_fails_is_not_the_registrys_fault(served, registry, naps):
    def chunks(offset):
        yield DATA[:100]
        raise OSError(5, "Input/output error")

    with pytest.raises(BadInput, match="can't be read: Input/output error"):
        registry.put_blob("team/app", BLOB, chunks)
    assert naps == []


def test_a_limit_on_uploads_is_told(served, registry):
    served.answer("PATCH", "uploads", 413)
    with pytest.raises(Refused, match="413") as caught:
        registry.put_blob("team/app", BLOB, chunks_from)
    assert "limits the size" in caught.value.remedy


def test_a_blob_is_mounted(full, registry):
    assert registry.mount("other/app", BLOB, "team/app")
    assert registry.has_blob("other/app", BLOB)


@pytest.mark.parametrize("status", [None, 400, 401, 403, 404, 405])
def test_a_mount_may_be_refused(full, registry, status):
    full.mounts = False
    if status:
        full.answer("POST", "uploads", status)
    assert not registry.mount("other/app", BLOB, "team/app")
    assert full.uploads == {}  # what it began instead is given up


# --- manifests that go, and lists ------------------------------------------------------------------


def test_a_manifest_goes_up(full, registry):
    digest = registry.put_manifest("team/app", "v2", OCI_MANIFEST, MANIFEST.raw)
    assert digest == MANIFEST.descriptor.digest
    assert full.manifests["team/app", "v2"] == (OCI_MANIFEST, MANIFEST.raw)
    assert not full.asked_for("GET")


def test_a_manifest_without_its_blobs_is_refused(served, registry):
    with pytest.raises(Refused, match="MANIFEST_BLOB_UNKNOWN"):
        registry.put_manifest("team/app", "v2", OCI_MANIFEST, MANIFEST.raw)


def test_a_registry_that_makes_something_else_of_a_manifest_is_noticed(full, registry):
    full.answer("PUT", "manifests", 201, Docker_Content_Digest=f"sha256:{'0' * 64}")
    with pytest.raises(DigestMismatch, match="as it was sent"):
        registry.put_manifest("team/app", "v2", OCI_MANIFEST, MANIFEST.raw)


def test_a_manifest_goes_up_after_drops(full, registry):
    full.answer("PUT", "manifests", 503)
    full.fail("PUT", "manifests", lose_answer=True)
    registry.put_manifest("team/app", "v2", OCI_MANIFEST, MANIFEST.raw)
    assert len(full.asked_for("PUT")) == 3


def test_tags_of_several_pages(full, registry):
    full.answer("GET", "tags/list$", 200, b'{"tags": ["a", "b"]}', Link='</v2/team/app/tags/list?last=b>; rel="next"')
    full.answer("GET", r"last=b", 200, b'{"tags": ["c"]}')
    assert registry.tags("team/app") == ("a", "b", "c")


def test_a_next_page_of_another_server_is_refused(full, registry):
    full.answer("GET", "tags", 200, b'{"tags": []}', Link='<http://192.0.2.1/v2/x?token=s3cret>; rel="next"')
    with pytest.raises(RegistryFailed, match="another server") as caught:
        registry.tags("team/app")
    assert "s3cret" not in str(caught.value)


def test_a_next_page_that_nobody_finds_soon_is_refused(full, registry):
    full.answer("GET", "tags", 200, b'{"tags": []}', Link="<" * 20_000)
    begun = time.process_time()
    with pytest.raises(RegistryFailed, match="a Link header of 20000 characters"):
        registry.tags("team/app")
    assert time.process_time() - begun < 1


def test_pages_without_end_end(full, registry, monkeypatch):
    monkeypatch.setattr("reprobuild.oci.registry._PAGES", 5)
    full.answer("GET", "tags", 200, b'{"tags": []}', times=ALL, Link="</v2/team/app/tags/list?n=1>; rel=next")
    with pytest.raises(RegistryFailed, match="pages"):
        registry.tags("team/app")


@pytest.mark.parametrize("body", [b'{"tags": 1}', b"[]", b"no"])
def test_a_list_of_something_else_is_refused(full, registry, body):
    full.answer("GET", "tags", 200, body)
    with pytest.raises(BadInput):
        registry.tags("team/app")


def referrer(number):
    empty = Descriptor.of(OCI_EMPTY, b"{}")
    notes = {"number": str(number)}
    subject = MANIFEST.descriptor
    return Manifest.make(empty, [empty], subject=subject, artifact_type="application/x-proof", annotations=notes)


def test_referrers_by_the_api(full, registry):
    index = Index.make([referrer(1).descriptor])
    full.answer("GET", "referrers", 200, index.raw)
    assert registry.referrers("team/app", MANIFEST.descriptor.digest) == index.manifests


def test_a_registry_without_that_method_has_no_referrers_api(full, registry):
    full.answer("GET", "referrers", 405)
    assert registry.referrers("team/app", MANIFEST.descriptor.digest) == ()


def test_a_list_that_may_not_be_read_is_not_taken_for_an_empty_one(full, registry):
    full.answer("GET", "manifests/sha256-", 403)
    with pytest.raises(Refused, match="403"):
        registry.referrers("team/app", MANIFEST.descriptor.digest)


def test_referrers_by_the_tag_that_stands_in(full, registry):
    digest = MANIFEST.descriptor.digest
    full.hold("team/app", b"{}")
    assert registry.referrers("team/app", digest) == ()
    for number in (1, 2, 1):
        one = referrer(number)
        registry.put_manifest("team/app", str(one.descriptor.digest), OCI_MANIFEST, one.raw)
    found = registry.referrers("team/app", digest)
    assert [each.digest for each in found] == [referrer(1).descriptor.digest, referrer(2).descriptor.digest]
    assert {each.artifact_type for each in found} == {"application/x-proof"}
    assert [each.annotations for each in found] == [{"number": "1"}, {"number": "2"}]
    assert full.manifests["team/app", f"sha256-{digest.hex}"][0] == OCI_INDEX


def test_what_another_writer_drops_is_listed_again(full, naps):
    """Two read the list, and both write it: the second knows nothing of the first."""
    full.hold("team/app", b"{}")
    digest = MANIFEST.descriptor.digest
    theirs = Index.make([referrer(2).descriptor])
    full.hold_manifest("team/app", OCI_MANIFEST, referrer(2).raw)

    def meanwhile(seconds):
        naps.append(seconds)
        if len(naps) == 1:
            full.hold_manifest("team/app", OCI_INDEX, theirs.raw, f"sha256-{digest.hex}")

    registry = Registry(full.host, sleep=meanwhile)
    registry.put_manifest("team/app", str(referrer(1).descriptor.digest), OCI_MANIFEST, referrer(1).raw)
    found = {each.digest for each in registry.referrers("team/app", digest)}
    assert found == {referrer(1).descriptor.digest, referrer(2).descriptor.digest}


def test_a_list_that_others_always_overwrite_is_an_error(full):
    full.hold("team/app", b"{}")
    tag = f"sha256-{MANIFEST.descriptor.digest.hex}"
    theirs = Index.make([referrer(2).descriptor])
    full.hold_manifest("team/app", OCI_MANIFEST, referrer(2).raw)
    registry = Registry(full.host, sleep=lambda _: full.hold_manifest("team/app", OCI_INDEX, theirs.raw, tag))
    with pytest.raises(RegistryFailed, match="others write to the tag"):
        registry.put_manifest("team/app", str(referrer(1).descriptor.digest), OCI_MANIFEST, referrer(1).raw)


def test_many_writers_at_once_lose_nothing(full):
    full.hold("team/app", b"{}")
    ones = [referrer(number) for number in range(6)]

    def put(one):
        Registry(full.host).put_manifest("team/app", str(one.descriptor.digest), OCI_MANIFEST, one.raw)

    writers = [threading.Thread(target=put, args=(one,)) for one in ones]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    found = Registry(full.host).referrers("team/app", MANIFEST.descriptor.digest)
    assert {each.digest for each in found} == {one.descriptor.digest for one in ones}


def test_a_registry_with_the_api_needs_no_tag(full, registry):
    full.hold("team/app", b"{}")
    full.answer("PUT", "manifests", 201, OCI_Subject=str(MANIFEST.descriptor.digest))
    registry.put_manifest("team/app", str(referrer(1).descriptor.digest), OCI_MANIFEST, referrer(1).raw)
    assert len(full.asked) == 1


# --- the way there ---------------------------------------------------------------------------------


def test_a_registry_that_is_not_there_is_an_error(naps):
    with pytest.raises(Dropped, match=r"127\.0\.0\.1:1/team/app: .*: no answer: Connection refused\."):
        Registry("127.0.0.1:1", sleep=naps.append).manifest("team/app", "v1")


def test_a_registry_that_nobody_knows_is_told_from_one_that_refuses(monkeypatch, naps):
    def unknown(*_args, **_more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Dropped, match=r"nowhere\.invalid/team/app: .*: no answer: Name or service not known\."):
        Registry("nowhere.invalid", sleep=naps.append).manifest("team/app", "v1")


def test_a_registry_that_says_nothing_is_told_from_one_that_refuses(naps):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(Dropped, match=r": no answer: timed out\."):
            Registry(host, sleep=naps.append, silence=0.1).manifest("team/app", "v1")


def test_a_proxy_that_is_not_there_is_named(monkeypatch, naps):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:1")
    with pytest.raises(Dropped, match=r": no answer from the proxy: Connection refused\.") as caught:
        Registry("registry.invalid", sleep=naps.append).manifest("team/app", "v1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["not a host", "a:b", "[::1"])
def test_an_impossible_host_is_an_error(host, naps):
    with pytest.raises(RegistryFailed):
        Registry(host, plain_http=True, sleep=naps.append).manifest("team/app", "v1")


def test_plain_http_is_not_spoken_unasked(full, naps):
    """Loopback is plain by default; who says otherwise gets TLS, which this server doesn't speak."""
    with pytest.raises(RegistryFailed, match="certificate is not trusted, or it doesn't speak TLS"):
        Registry(full.host, plain_http=False, sleep=naps.append).manifest("team/app", "v1")
    assert Registry("registry.example")._base.startswith("https://")
    assert Registry("registry.example", plain_http=True)._base.startswith("http://")


def test_the_authority_that_is_named_is_trusted(make_registry, tmp_path, monkeypatch, naps):
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
        " -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
        timeout=60,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = make_registry(context)
    server.hold("team/app", DATA)
    with pytest.raises(RegistryFailed, match="certificate is not trusted"):
        whole(Registry(server.host, plain_http=False, sleep=naps.append))
    assert naps == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    registry = Registry(server.host, plain_http=False, sleep=naps.append)
    assert whole(registry) == DATA
    server.answer("GET", "blobs", 307, Location=f"http://{server.host}/x")
    with pytest.raises(RegistryFailed, match="not https"):
        whole(registry)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(RegistryFailed) as caught:
        whole(Registry(server.host, plain_http=False, sleep=naps.append))
    assert "SSL_CERT_FILE" in caught.value.remedy


def test_a_proxy_is_used_for_others_and_not_for_this_machine(full, naps, monkeypatch, make_registry):
    proxy = make_registry()
    proxy.answer("GET", "registry.example", 200, MANIFEST.raw)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    there = Registry("registry.example", plain_http=True, sleep=naps.append)
    assert there.manifest("team/app", "v1")[1] == MANIFEST.raw
    assert proxy.asked[0].path == "http://registry.example/v2/team/app/manifests/v1"
    assert Registry(full.host, sleep=naps.append).manifest("team/app", "v1")[1] == MANIFEST.raw
    assert len(proxy.asked) == 1


def test_many_threads_share_one(full, registry):
    results = []
    threads = [threading.Thread(target=lambda: results.append(whole(registry) == DATA)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert results == [True] * 8


def test_digests_other_than_sha256_are_checked_too(full, registry):
    import hashlib  # noqa: PLC0415 - for this alone

    digest = Digest("sha512", hashlib.sha512(DATA).hexdigest())
    full.blobs["team/app"][str(digest)] = DATA
    assert whole(registry, Descriptor(OCI_LAYER, digest, len(DATA))) == DATA
    full.blobs["team/app"][str(digest)] = b"x" + DATA[1:]
    with pytest.raises(DigestMismatch):
        whole(registry, Descriptor(OCI_LAYER, digest, len(DATA)))
