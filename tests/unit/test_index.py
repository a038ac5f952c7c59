import html
import json
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.version import Version

from reprobuild import index as indexes
from reprobuild import memory
from reprobuild.digest import Digest
from reprobuild.errors import DigestMismatch, IndexFailed
from reprobuild.index import Index, LockedFile, release_key
from reprobuild.interpreter import Interpreter
from reprobuild.lockfile import Pin
from reprobuild.places import Place

WHEEL, SDIST = "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"
RELEASE = release_key("demo", "1.0")
BINARY, ABI3 = "demo-1.0-cp311-cp311-linux_x86_64.whl", "demo-1.0-cp38-abi3-linux_x86_64.whl"
FOREIGN = "demo-1.0-cp311-cp311-win_amd64.whl"
TAGS = ("cp311-cp311-linux_x86_64", "cp311-abi3-linux_x86_64", "cp38-abi3-linux_x86_64", "py3-none-any")
PYTHON = Interpreter(Path("/usr/bin/python3"), "3.11.7", "cpython", "linux-x86_64", Path("/usr"), "1.3", "cc", TAGS, {})
JSON_TYPE = "application/vnd.pypi.simple.v1+json"


def content(name):
    return f"the content of {name}".encode()


def digest(name):
    return Digest.of_bytes(content(name))


def pin(*names):
    return Pin("demo", Version("1.0"), None, tuple(sorted(digest(name) for name in names)))


def locked(name):
    return LockedFile("demo", "1.0", name, digest(name))


@dataclass
class Server:
    """A package index on a port of this machine: what it answers, and what it was asked."""

    port: int
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def url(self, path="/simple/", credentials="", host="127.0.0.1"):
        return f"http://{credentials}{host}:{self.port}{path}"

    def answer(self, path, body, content_type="text/html", status=200, **headers):
        self.answers[path] = (status, {"Content-Type": content_type, **headers}, body)

    def redirect(self, path, to):
        self.answer(path, b"", status=302, Location=to)

    def html(self, names, *, hashed=True, base="/files/", path="/simple/demo/"):
        marks = {name: f"#sha256={digest(name).hex}" if hashed else "" for name in names}
        links = "".join(f'<a href="{base}{name}{mark}">{html.escape(name)}</a>\n' for name, mark in marks.items())
        self.answer(path, f"<!DOCTYPE html><html><body>{links}</body></html>".encode())

    def json(self, names, *, hashed=True, base="/files/"):
        files = [
            {"filename": name, "url": base + name, "hashes": {"sha256": digest(name).hex} if hashed else {}}
            for name in names
        ]
        body = {"meta": {"api-version": "1.1"}, "name": "demo", "files": files, "versions": ["1.0"]}
        self.answer("/simple/demo/", json.dumps(body).encode(), JSON_TYPE)

    def files(self, *names):
        for name in names:
            self.answer(f"/files/{name}", content(name), "application/octet-stream")

    def offer(self, *names):
        self.html(names)
        self.files(*names)

    def asked_for(self, path):
        return [credentials for where, credentials in self.asked if where == path]


@pytest.fixture
def make_server():
    running = []

    def make(context=None):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                known.asked.append((self.path, self.headers["Authorization"]))
                status, headers, body = known.answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        known = Server(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return known

    yield make
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(make_server, configure):
    made = make_server()
    configure(UV_DEFAULT_INDEX=made.url())
    return made


@pytest.fixture(autouse=True)
def configure(tmp_path, monkeypatch):
    """uv's variables, and nothing else of this machine's: no proxy, no netrc, no file."""
    settings = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    for name in (*settings, *proxies):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.fixture
def index(tmp_path):
    """A new index each time: what it knows comes from the cache or from the network."""
    return lambda **options: Index(tmp_path, **options)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def kept(tmp_path):
    return sorted(path for path in (tmp_path / "cache" / "files").rglob("*") if path.is_file())


# --- asking and fetching ---------------------------------------------------------------------------


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("page", [Server.html, Server.json])
def test_a_locked_file_is_chosen_and_fetched(server, index, out, page, hashed):
    page(server, [WHEEL, SDIST], hashed=hashed)
    server.files(WHEEL, SDIST)
    files = index().choose([pin(WHEEL, SDIST)], PYTHON)
    assert files == (locked(WHEEL),)
    assert files[0].is_wheel
    index().fetch(files, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {WHEEL: content(WHEEL)}


def test_what_was_fetched_once_needs_no_network(server, index, out):
    server.offer(WHEEL)
    index().fetch(index().choose([pin(WHEEL)], PYTHON), out)
    server.answers.clear()
    server.asked.clear()
    (out / WHEEL).unlink()
    offline = index(offline=True)
    offline.fetch(offline.choose([pin(WHEEL)], PYTHON), out)
    assert (out / WHEEL).read_bytes() == content(WHEEL)
    assert server.asked == []


def test_offline_means_no_question(server, index, out):
    server.offer(WHEEL)
    with pytest.raises(IndexFailed, match="it is to stay offline"):
        index(offline=True).choose([pin(WHEEL)], PYTHON)
    with pytest.raises(IndexFailed, match="it is to stay offline"):
        index(offline=True).fetch([locked(WHEEL)], out)
    assert server.asked == []


def test_a_project_is_asked_about_once(server, index, out):
    server.offer(WHEEL)
    one = index()
    one.fetch(one.choose([pin(WHEEL)], PYTHON), out)
    one.fetch([locked(WHEEL)], out)
    assert [path for path, _ in server.asked] == ["/simple/demo/", f"/files/{WHEEL}"]


def test_many_files_come_in_their_own_order(server, index, out):
    names = [f"demo{number}-1.0-py3-none-any.whl" for number in range(12)]
    for name in names:
        server.html([name], path=f"/simple/{name.partition('-')[0]}/")
    server.files(*names)
    pins = [Pin(name.partition("-")[0], Version("1.0"), None, (digest(name),)) for name in reversed(names)]
    chosen = index().choose(pins, PYTHON)
    index().fetch(chosen, out)
    assert [file.filename for file in chosen] == sorted(names)
    assert sorted(path.name for path in out.iterdir()) == sorted(names)


# --- which file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "best"),
    [
        ([SDIST, WHEEL, ABI3, BINARY, FOREIGN], BINARY),
        ([SDIST, WHEEL, ABI3, FOREIGN], ABI3),
        ([SDIST, WHEEL, FOREIGN], WHEEL),
        ([SDIST, FOREIGN], SDIST),
        ([SDIST], SDIST),
        (["demo-1.0-1-py3-none-any.whl", "demo-1.0-10-py3-none-any.whl", WHEEL], "demo-1.0-10-py3-none-any.whl"),
        (["demo-1.0-py2.py3-none-any.whl", SDIST], "demo-1.0-py2.py3-none-any.whl"),
        (["Demo-1.0.0-py3-none-any.whl"], "Demo-1.0.0-py3-none-any.whl"),
    ],
)
def test_the_interpreters_tags_choose(server, index, offered, best):
    for names in (offered, offered[::-1]):
        server.html(names)
        assert index().choose([pin(*offered)], PYTHON) == (locked(best),)


def test_a_file_that_was_added_later_is_not_chosen(server, index, tmp_path, configure):
    server.html([WHEEL, SDIST])
    assert index().choose([pin(WHEEL, SDIST)], PYTHON) == (locked(WHEEL),)
    server.html([WHEEL, SDIST, BINARY])
    for cache in ("cache", "another-cache"):
        configure(REPROBUILD_CACHE_DIR=str(tmp_path / cache))
        assert index().choose([pin(WHEEL, SDIST)], PYTHON) == (locked(WHEEL),)


def test_an_sdist_does_not_stand_in_for_a_wheel_that_nobody_offers(server, index):
    server.html([SDIST])
    with pytest.raises(IndexFailed, match=r"No suitable file of demo 1\.0"):
        index().choose([pin(SDIST, WHEEL)], PYTHON)
    server.html([SDIST, WHEEL])
    assert index().choose([pin(SDIST, WHEEL)], PYTHON) == (locked(WHEEL),)


@pytest.mark.parametrize("zeroed", [BINARY, ABI3, SDIST])
def test_an_index_must_list_each_locked_file(server, index, zeroed):
    """The hash that nobody has may be the better file's: another one that fits is no answer."""
    server.html([SDIST, WHEEL, ABI3, BINARY])
    hashes = {digest(name) for name in (SDIST, WHEEL, ABI3, BINARY) if name != zeroed} | {Digest("sha256", "0" * 64)}
    wrong = Pin("demo", Version("1.0"), None, tuple(sorted(hashes)))
    with pytest.raises(IndexFailed, match=f"without a file that has sha256:{'0' * 64}") as caught:
        index().choose([wrong], PYTHON)
    assert "reprobuild lock" in caught.value.remedy


def test_the_choice_does_not_depend_on_what_was_offered_before(server, index):
    server.html([WHEEL])
    with pytest.raises(IndexFailed, match="without a file"):
        index().choose([pin(WHEEL, BINARY)], PYTHON)
    server.html([WHEEL, BINARY])
    for _ in range(2):
        assert index().choose([pin(WHEEL, BINARY)], PYTHON) == (locked(BINARY),)
    assert len(server.asked_for("/simple/demo/")) == 2


@pytest.mark.parametrize("kind", ["folder", "page", "local index"])
def test_a_mirror_may_hold_some_of_the_files(server, configure, index, tmp_path, kind):
    """`pip download` fetches one platform's wheels, and a lock names everybody's."""
    folder = tmp_path / "wheels" / "demo" if kind == "local index" else tmp_path / "wheels"
    folder.mkdir(parents=True)
    (folder / ABI3).write_bytes(content(ABI3))
    server.html([ABI3], path="/links.html")
    if kind == "local index":
        configure(UV_DEFAULT_INDEX=str(tmp_path / "wheels"))
    else:
        configure(UV_FIND_LINKS=str(folder) if kind == "folder" else server.url("/links.html"), UV_NO_INDEX="1")
    everything = pin(SDIST, WHEEL, ABI3, BINARY, FOREIGN)
    assert index().choose([everything], PYTHON) == (locked(ABI3),)
    (folder / BINARY).write_bytes(content(BINARY))
    server.html([ABI3, BINARY], path="/links.html")
    assert index().choose([everything], PYTHON) == (locked(BINARY),)


def test_a_file_of_an_unusable_kind_is_not_gone(server, index):
    server.html([WHEEL, "demo-1.0.tar.bz2", "demo-1.0.win32.exe"])
    wide = pin(WHEEL, "demo-1.0.tar.bz2", "demo-1.0.win32.exe")
    assert index().choose([wide], PYTHON) == (locked(WHEEL),)


def test_an_index_without_the_release_has_no_say_in_a_folders(server, configure, index, tmp_path):
    (tmp_path / WHEEL).write_bytes(content(WHEEL))
    server.html(["demo-2.0-py3-none-any.whl"])
    configure(UV_FIND_LINKS=str(tmp_path))
    assert index().choose([pin(WHEEL, SDIST)], PYTHON) == (locked(WHEEL),)


@pytest.mark.parametrize(
    "name", ["../../x.whl", "../../demo-1.0-py3-none-any.whl", "other-1.0.tar.gz", "x", "", None, 1]
)
def test_a_remembered_name_is_checked_like_an_offered_one(server, index, name):
    memory.remember("releases", RELEASE, {str(digest(WHEEL)): name})
    server.offer(WHEEL)
    assert index().choose([pin(WHEEL)], PYTHON) == (locked(WHEEL),)


@pytest.mark.parametrize("offered", [[], [FOREIGN], ["demo-1.1-py3-none-any.whl"], ["other-1.0-py3-none-any.whl"]])
def test_a_release_without_a_fitting_file_is_an_error(server, index, offered):
    server.html(offered)
    with pytest.raises(
        IndexFailed, match=r"No suitable file of demo 1\.0 .* Python 3\.11\.7 on linux-x86_64"
    ) as caught:
        index().choose([pin(*offered, WHEEL)], PYTHON)
    assert "reprobuild lock" in caught.value.remedy


@pytest.mark.parametrize(
    "filename",
    [
        "../../demo-1.0-py3-none-any.whl",
        "/tmp/demo-1.0-py3-none-any.whl",
        "..\\demo-1.0-py3-none-any.whl",
        "x/../demo-1.0.tar.gz",
        "..",
        "demo-1.0.exe",
        "demo-1.0-py3-none-any.whl.exe",
        "demo.whl",
        "demo-one-py3-none-any.whl",
    ],
)
@pytest.mark.parametrize("page", [Server.html, Server.json])
def test_a_hostile_file_name_is_not_offered(server, index, out, page, filename):
    page(server, [filename], base="/files/x?")
    server.answer("/files/x?" + filename, content(filename))
    with pytest.raises(IndexFailed, match="No suitable file"):
        index().choose([pin(filename)], PYTHON)
    with pytest.raises(IndexFailed, match="No index offers"):
        index().fetch([locked(filename)], out / "inner")
    assert list(out.rglob("*")) == []


@pytest.mark.parametrize("content_of_cache", [b"", b"{", b"[]", b"[1]", b"null", b'{"a": 1}', b"\xff"])
def test_a_damaged_memory_of_names_is_replaced(server, index, content_of_cache):
    server.html([WHEEL])
    path = memory.place("releases", RELEASE, "json")
    path.parent.mkdir(parents=True)
    path.write_bytes(content_of_cache)
    assert index().choose([pin(WHEEL)], PYTHON) == (locked(WHEEL),)
    assert memory.recall("releases", RELEASE)[str(digest(WHEEL))] == WHEEL


@pytest.mark.parametrize("known", [[], [1], "x", {"a": 1}, {"sha256:x": None}])
def test_what_somebody_else_kept_as_names_is_replaced(server, index, known):
    server.html([WHEEL])
    memory.remember("releases", RELEASE, known)
    assert index().choose([pin(WHEEL)], PYTHON) == (locked(WHEEL),)
    assert memory.recall("releases", RELEASE)[str(digest(WHEEL))] == WHEEL


def test_no_damage_of_a_name_makes_another_wheel_the_best(server, index):
    """A bit is enough to make a file for another Python of a name."""
    other = "demo-1.0-cp311-cp311-linux_x86_64.whl"
    server.html([WHEEL, other])
    best = index().choose([pin(WHEEL, other)], PYTHON)
    assert best == (locked(other),)
    path = memory.place("releases", RELEASE, "json")
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert index().choose([pin(WHEEL, other)], PYTHON) == best


# --- wrong bytes -----------------------------------------------------------------------------------


def test_wrong_bytes_are_refused_and_not_kept(server, index, out, tmp_path):
    server.html([WHEEL])
    server.answer(f"/files/{WHEEL}", b"something else")
    with pytest.raises(DigestMismatch, match=f"{WHEEL} has sha256:.*, but {digest(WHEEL)} was promised"):
        index().fetch([locked(WHEEL)], out)
    assert kept(tmp_path) == []
    assert list(out.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(server, index, out, tmp_path):
    server.html([WHEEL])
    server.answer(f"/files/{WHEEL}", content(WHEEL)[:-1])
    with pytest.raises((DigestMismatch, IndexFailed)):
        index().fetch([locked(WHEEL)], out)
    assert kept(tmp_path) == []
    assert list(out.iterdir()) == []


def test_another_place_may_have_the_right_bytes(server, make_server, configure, index, out):
    other = make_server()
    configure(UV_DEFAULT_INDEX=other.url(), UV_EXTRA_INDEX_URL=server.url())
    server.html([WHEEL], hashed=False)
    server.answer(f"/files/{WHEEL}", b"something else")
    other.offer(WHEEL)
    index().fetch([locked(WHEEL)], out)
    assert (out / WHEEL).read_bytes() == content(WHEEL)


def test_a_file_that_was_replaced_is_named_with_its_new_digest(server, index, out):
    server.html([WHEEL])
    file = LockedFile("demo", "1.0", WHEEL, Digest.of_bytes(b"as it was"))
    with pytest.raises(IndexFailed, match=f"it offers {digest(WHEEL)} under that name") as caught:
        index().fetch([file], out)
    assert "replaced" in caught.value.remedy
    assert server.asked_for(f"/files/{WHEEL}") == []


class Listener:
    def __init__(self):
        self.warnings = []

    def step(self, message):
        pass

    def line(self, text):
        pass

    def warn(self, message):
        self.warnings.append(message)


def test_a_damaged_file_in_the_cache_is_fetched_again(server, index, out, tmp_path):
    server.offer(WHEEL)
    index().fetch([locked(WHEEL)], out)
    (path,) = kept(tmp_path)
    path.write_bytes(b"bit rot")
    listener = Listener()
    index(observer=listener).fetch([locked(WHEEL)], out)
    assert (out / WHEEL).read_bytes() == path.read_bytes() == content(WHEEL)
    assert listener.warnings == [f"{WHEEL} was damaged in the cache and is fetched again."]


def test_a_kept_file_is_fetched_once_and_checked_once(server, index, tmp_path, monkeypatch):
    server.offer(WHEEL)
    path = index().kept(locked(WHEEL))
    assert path.read_bytes() == content(WHEEL)
    assert path.name == WHEEL
    server.answers.clear()
    checks = []
    original = Digest.check

    def counted(*arguments):
        checks.append(1)
        return original(*arguments)

    monkeypatch.setattr(Digest, "check", counted)
    again = index()
    assert [again.kept(locked(WHEEL)) for _ in range(3)] == [path] * 3
    assert len(checks) == 1


def test_a_file_that_is_only_placed_is_fetched_but_not_checked(server, index):
    server.offer(WHEEL)
    path = index().placed(locked(WHEEL))
    assert path.read_bytes() == content(WHEEL)
    path.write_bytes(b"damaged")
    assert index().placed(locked(WHEEL)) == path
    assert path.read_bytes() == b"damaged"
    assert index().kept(locked(WHEEL)).read_bytes() == content(WHEEL)


def test_a_damaged_file_is_never_gone_while_it_is_fetched_again(server, index, monkeypatch):
    """Another process may be about to do the same."""
    server.offer(WHEEL)
    path = index().kept(locked(WHEEL))
    path.write_bytes(b"damaged")
    there = []
    original = Index._download

    def download(self, file, kept):
        there.append(kept.is_file())
        original(self, file, kept)

    monkeypatch.setattr(Index, "_download", download)
    assert index().kept(locked(WHEEL)).read_bytes() == content(WHEEL)
    assert there == [True]


def test_a_damaged_file_is_not_handed_out_in_place(server, index):
    server.offer(WHEEL)
    path = index().kept(locked(WHEEL))
    path.write_bytes(b"bit rot")
    listener = Listener()
    assert index(observer=listener).kept(locked(WHEEL)).read_bytes() == content(WHEEL)
    assert len(listener.warnings) == 1


def test_a_file_with_other_bytes_than_the_lock_names_is_not_handed_out(server, index):
    server.offer(WHEEL)
    server.answer(f"/files/{WHEEL}", b"something else")
    one = index()
    for _ in range(2):
        with pytest.raises(DigestMismatch):
            one.kept(locked(WHEEL))


# --- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_an_index_that_refuses_says_how_and_shows_no_credential(server, configure, index, status):
    configure(UV_DEFAULT_INDEX=server.url(credentials="user:s3cret@"))
    server.answer("/simple/demo/", b"", status=status)
    with pytest.raises(IndexFailed, match=f"asked about demo: the server answered {status}") as caught:
        index().choose([pin(WHEEL)], PYTHON)
    assert "s3cret" not in caught.value.reason + caught.value.remedy


def test_an_index_that_is_not_there_says_so_without_its_url(configure, index):
    configure(UV_DEFAULT_INDEX="http://user:s3cret@127.0.0.1:9/simple/")
    with pytest.raises(IndexFailed, match=r"about demo: 127\.0\.0\.1: Connection refused\.$") as caught:
        index().choose([pin(WHEEL)], PYTHON)
    assert "s3cret" not in caught.value.reason + caught.value.remedy


@pytest.fixture
def over_tls(make_server, tmp_path, configure):
    """An index over TLS whose certificate nobody knows; the file that would make it trusted."""
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
        " -addext subjectAltName=IP:127.0.0.1"
    )
    made = [*command.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = make_server(context)
    configure(UV_DEFAULT_INDEX=server.url(credentials="user:s3cret@").replace("http:", "https:"))
    server.offer(WHEEL)
    return server, certificate


def test_a_certificate_that_is_not_trusted_is_told_with_its_host(over_tls, index, configure, tmp_path, out):
    _, certificate = over_tls
    where = r"asked about demo: the certificate of 127\.0\.0\.1 is not trusted, or it doesn't speak TLS: self.signed"
    with pytest.raises(IndexFailed, match=where) as caught:
        index().choose([pin(WHEEL)], PYTHON)
    assert "SSL_CERT_FILE" in caught.value.remedy
    assert "s3cret" not in caught.value.reason + caught.value.remedy
    configure(SSL_CERT_FILE=str(certificate), REQUESTS_CA_BUNDLE=str(tmp_path / "of-another-tool.pem"))
    index().fetch([locked(WHEEL)], out)
    assert (out / WHEEL).read_bytes() == content(WHEEL)


@pytest.mark.parametrize("content_of_file", [None, "no certificate"])
def test_a_file_of_certificates_that_is_none_is_told(over_tls, index, configure, tmp_path, content_of_file):
    configure(SSL_CERT_FILE=str(tmp_path / "own.pem"))
    if content_of_file:
        (tmp_path / "own.pem").write_text(content_of_file)
    with pytest.raises(IndexFailed, match="asked about demo: ") as caught:
        index().choose([pin(WHEEL)], PYTHON)
    assert "SSL_CERT_FILE" in caught.value.remedy


def test_a_server_that_speaks_no_tls_is_told_with_its_host(server, index, configure):
    configure(UV_DEFAULT_INDEX=server.url().replace("http:", "https:"))
    with pytest.raises(IndexFailed, match=r"127\.0\.0\.1 is not trusted, or it doesn't speak TLS") as caught:
        index().choose([pin(WHEEL)], PYTHON)
    assert "SSL_CERT_FILE" in caught.value.remedy


def test_a_page_of_an_unknown_type_is_refused(server, index):
    server.answer("/simple/demo/", b"{}", "application/x-unknown")
    with pytest.raises(IndexFailed, match="UnsupportedContentType"):
        index().choose([pin(WHEEL)], PYTHON)


def test_a_file_that_is_gone_says_how(server, index, out):
    server.html([WHEEL])
    with pytest.raises(IndexFailed, match=f"{WHEEL} could not be fetched: the server answered 404"):
        index().fetch([locked(WHEEL)], out)


# --- credentials -----------------------------------------------------------------------------------

SENT = "Basic dXNlcjpzM2NyZXQ="  # user:s3cret


@pytest.fixture
def with_credentials(server, configure):
    configure(UV_DEFAULT_INDEX=server.url(credentials="user:s3cret@"))
    return server


def test_a_places_own_host_gets_its_credentials(with_credentials, index, out):
    with_credentials.offer(WHEEL)
    index().fetch([locked(WHEEL)], out)
    assert with_credentials.asked == [("/simple/demo/", SENT), (f"/files/{WHEEL}", SENT)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_link_to_another_place_does_not_carry_them(with_credentials, make_server, index, out, host):
    other = make_server()
    other.files(WHEEL)
    with_credentials.html([WHEEL], base=other.url("/files/", host=host))
    index().fetch([locked(WHEEL)], out)
    assert other.asked == [(f"/files/{WHEEL}", None)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_redirect_to_another_place_does_not_carry_them(with_credentials, make_server, index, out, host):
    other = make_server()
    other.files(WHEEL)
    other.html([WHEEL], base=with_credentials.url("/files/"))
    with_credentials.redirect("/simple/demo/", other.url("/simple/demo/", host=host))
    with_credentials.redirect(f"/files/{WHEEL}", other.url(f"/files/{WHEEL}", host=host))
    index().fetch([locked(WHEEL)], out)
    assert other.asked == [("/simple/demo/", None), (f"/files/{WHEEL}", None)]
    assert with_credentials.asked_for("/simple/demo/") == [SENT]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://own.example/files/x", ("user", "s3cret")),
        ("http://own.example/files/x", None),
        ("https://own.example:8443/files/x", None),
        ("https://own.example.evil/files/x", None),
    ],
)
def test_credentials_go_to_the_same_scheme_host_and_port(url, expected):
    place = Place("https://own.example/simple/", flat=False, credentials=("user", "s3cret"))
    assert indexes._session(place, url).auth == expected


# --- other kinds of place --------------------------------------------------------------------------


def test_a_flat_folder_is_a_place(configure, index, out, tmp_path):
    folder = tmp_path / "wheels"
    (folder / "sub").mkdir(parents=True)
    for name in (WHEEL, SDIST, "other-1.0-py3-none-any.whl", "notes.txt"):
        (folder / name).write_bytes(content(name))
    configure(UV_FIND_LINKS=str(folder), UV_NO_INDEX="1")
    assert index(offline=True).choose([pin(WHEEL, SDIST)], PYTHON) == (locked(WHEEL),)
    index(offline=True).fetch([locked(WHEEL)], out)
    assert (out / WHEEL).read_bytes() == content(WHEEL)


def test_a_folder_that_is_missing_offers_nothing(configure, index, tmp_path):
    configure(UV_FIND_LINKS=str(tmp_path / "absent"), UV_NO_INDEX="1")
    with pytest.raises(IndexFailed, match="No suitable file"):
        index().choose([pin(WHEEL)], PYTHON)


def test_a_flat_page_is_a_place(server, configure, index, out):
    server.html([WHEEL, "other-1.0-py3-none-any.whl"], path="/links.html")
    server.files(WHEEL)
    configure(UV_FIND_LINKS=server.url("/links.html"), UV_NO_INDEX="1")
    index().fetch(index().choose([pin(WHEEL)], PYTHON), out)
    assert (out / WHEEL).read_bytes() == content(WHEEL)


@pytest.mark.parametrize("with_page", [True, False])
def test_a_local_index_is_a_place(configure, index, out, tmp_path, with_page):
    folder = tmp_path / "a simple index" / "demo"
    folder.mkdir(parents=True)
    (folder / WHEEL).write_bytes(content(WHEEL))
    if with_page:
        (folder / "index.html").write_text(f'<a href="{WHEEL}#sha256={digest(WHEEL).hex}">{WHEEL}</a>')
    configure(UV_DEFAULT_INDEX=str(folder.parent))
    index(offline=True).fetch(index(offline=True).choose([pin(WHEEL)], PYTHON), out)
    assert (out / WHEEL).read_bytes() == content(WHEEL)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_page_from_the_network_cannot_open_files_of_this_machine(server, index, out, tmp_path, hashed):
    (tmp_path / WHEEL).write_bytes(content(WHEEL))
    server.html([WHEEL], base=f"{tmp_path.as_uri()}/", hashed=hashed)
    with pytest.raises(IndexFailed, match=f"{WHEEL} could not be fetched: InvalidSchema"):
        index().fetch([locked(WHEEL)], out)


# --- a release -------------------------------------------------------------------------------------

UPLOADED = {WHEEL: "2026-03-01T10:00:00.250000Z", SDIST: "2026-03-01T10:00:01Z"}


def test_a_release_tells_when_each_file_was_uploaded_in_json(index, server):
    files = [
        {"filename": name, "url": f"/files/{name}", "hashes": {"sha256": digest(name).hex}, "upload-time": time}
        for name, time in UPLOADED.items()
    ]
    other = {"filename": "demo-2.0.tar.gz", "url": "/files/x", "hashes": {"sha256": "0" * 64}}
    body = {"meta": {"api-version": "1.1"}, "name": "demo", "files": [*files, other], "versions": ["1.0", "2.0"]}
    server.answer("/simple/demo/", json.dumps(body).encode(), JSON_TYPE)
    found = {each.file.filename: each for each in index().release("demo", "1.0")}
    assert found.keys() == UPLOADED.keys()
    assert found[WHEEL].file == locked(WHEEL)
    assert found[WHEEL].uploaded == "2026-03-01T10:00:00.250000+00:00"
    assert found[SDIST].uploaded == "2026-03-01T10:00:01+00:00"


def test_a_release_tells_when_each_file_was_uploaded_in_html(index, server):
    """Some indexes answer in HTML whatever is asked for, with an attribute that only uv reads."""
    links = "".join(
        f'<a href="/files/{name}#sha256={digest(name).hex}" data-upload-time="{time}">{name}</a>'
        for name, time in UPLOADED.items()
    )
    server.answer("/simple/demo/", f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
    assert {each.file.filename: each.uploaded for each in index().release("demo", "1.0")} == UPLOADED


def test_a_release_without_times_or_files(index, server):
    server.offer(WHEEL)
    assert [each.uploaded for each in index().release("demo", "1.0")] == [""]
    assert index().release("demo", "3.0") == ()


def test_a_file_name_that_means_millions_of_tags_is_passed_over(index, server):
    part = ".".join(f"a{number}" for number in range(400))
    server.offer(f"demo-1.0-{part}-{part}-{part}.whl", WHEEL)
    assert [each.file.filename for each in index().release("demo", "1.0")] == [WHEEL]


# --- releases without a wheel ----------------------------------------------------------------------


def test_releases_that_an_interpreter_would_have_to_build(index, server):
    files: list[dict[str, str | None]] = [
        {"filename": "demo-1.0.tar.gz", "requires-python": ">=3.6"},
        {"filename": "demo-2.0.tar.gz"},
        {"filename": "demo-2.0-py3-none-any.whl"},
        {"filename": "demo-3.0.zip"},
        {"filename": f"demo-3.0-{FOREIGN.partition('-1.0-')[2]}"},
        {"filename": "demo-4.0.tar.gz", "yanked": "broken"},
        {"filename": "demo-5.0.tar.gz", "upload-time": "2026-03-01T00:00:00Z"},
        {"filename": "demo-6.0.tar.gz", "upload-time": None},
        {"filename": "demo-7.0-py3-none-any.whl", "upload-time": "2026-03-01T00:00:00Z"},
        {"filename": "demo-7.0.tar.gz"},
        {"filename": "demo-more-8.0.tar.gz"},
        {"filename": "demo-9.0.tar.gz"},
        {"filename": "demo-9.0.0-py3-none-any.whl"},
    ]
    usual = {"url": "/x", "hashes": {}, "upload-time": "2026-01-01T00:00:00Z"}
    listed = [{**usual, **each} for each in files]
    body = {"meta": {"api-version": "1.1"}, "name": "demo", "files": listed, "versions": []}
    server.answer("/simple/demo/", json.dumps(body).encode(), JSON_TYPE)
    assert index().without_wheel("demo", PYTHON, "2026-02-01T00:00:00Z") == {"1.0": ">=3.6", "3.0": "", "7.0": ""}
    assert index().without_wheel("demo", PYTHON).keys() == {"1.0", "3.0", "5.0", "6.0"}


def test_files_in_a_folder_of_links_have_no_time(tmp_path, index, configure):
    (tmp_path / SDIST).write_bytes(b"")
    configure(UV_FIND_LINKS=str(tmp_path), UV_NO_INDEX="1")
    assert index().without_wheel("demo", PYTHON, "2000-01-01T00:00:00Z") == {"1.0": ""}
    assert index().sdist_of("demo", "1.0").filename == SDIST


def test_a_release_without_an_sdist_is_told(index, server):
    server.offer(WHEEL)
    with pytest.raises(IndexFailed, match=r"No index offers an sdist of demo 1\.0"):
        index().sdist_of("demo", "1.0")
