import base64
import json
import time
import traceback
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest

from reprobuild.errors import BadInput, RegistryFailed
from reprobuild.oci.auth import Credentials, Login, challenges_of, credentials_for
from reprobuild.oci.model import OCI_LAYER, Descriptor
from reprobuild.oci.registry import Refused, Registry
from reprobuild.oci.transport import Transport

DATA = b"some content"
BLOB = Descriptor.of(OCI_LAYER, DATA)
BASIC = "Basic " + base64.b64encode(b"somebody:s3cret").decode()


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    """Where docker and podman keep their files, all of them in one folder of the test."""
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def keep(path, **table):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table))


def login(user="somebody", password="s3cret"):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def user_for(registry, repository):
    found = credentials_for(registry, repository)
    return found and found.user


@pytest.fixture
def docker(homes):
    """Writes docker's config.json."""
    return lambda **table: keep(homes / ".docker/config.json", **table)


@pytest.fixture
def helper(homes, monkeypatch):
    """Writes a credential helper; what it is told goes to the file `told`."""
    folder = homes / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def write(name, script):
        path = folder / f"docker-credential-{name}"
        path.write_text(f'#!/bin/sh\necho "$@" "$(cat)" >>{homes}/told\n{script}\n')
        path.chmod(0o755)
        return homes / "told"

    return write


# --- what is known ---------------------------------------------------------------------------------


def test_nobody_has_logged_in():
    assert credentials_for("registry.example", "a/b") is None


@pytest.mark.parametrize(
    ("place", "variable"),
    [
        (".docker/config.json", None),
        ("d/config.json", ("DOCKER_CONFIG", "d")),
        ("own.json", ("REGISTRY_AUTH_FILE", "own.json")),
        ("run/containers/auth.json", ("XDG_RUNTIME_DIR", "run")),
        (".config/containers/auth.json", None),
        ("c/containers/auth.json", ("XDG_CONFIG_HOME", "c")),
    ],
)
def test_each_file_is_looked_into(homes, monkeypatch, place, variable):
    if variable:
        monkeypatch.setenv(variable[0], str(homes / variable[1]))
    keep(homes / place, auths={"registry.example": login()})
    assert credentials_for("registry.example", "a") == Credentials("somebody", "s3cret")
    assert credentials_for("other.example", "a") is None


def test_the_file_that_is_named_comes_first_and_hides_the_others(homes, docker, monkeypatch):
    docker(auths={"registry.example": login("docker"), "other.example": login("docker")})
    keep(homes / "own.json", auths={"registry.example": login("own")})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(homes / "own.json"))
    assert user_for("registry.example", "a") == "own"
    assert credentials_for("other.example", "a") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io"])
def test_dockers_own_registry_has_names_of_its_own(docker, key):
    docker(auths={key: login()})
    assert user_for("docker.io", "library/debian") == "somebody"


@pytest.mark.parametrize("key", ["https://registry.example:5000/v1/", "http://registry.example:5000"])
def test_older_files_have_urls(docker, key):
    docker(auths={"https://registry.example/": login("other"), key: login()})
    assert user_for("registry.example:5000", "a") == "somebody"


def test_a_key_that_is_no_url_is_no_harm(docker):
    docker(auths={"http://[::1": login("odd"), "r.example": login()})
    assert user_for("r.example", "a") == "somebody"
    assert user_for("other.example", "a") is None


@pytest.mark.parametrize("key", ["username", "password", "identitytoken", "registrytoken"])
def test_half_a_surrogate_pair_is_no_credential(docker, key):
    docker(auths={"r.example": {"username": "u", "password": "s3cret", key: "s3cret\ud800"}})
    with pytest.raises(BadInput, match=r"config\.json: r\.example: half a surrogate pair") as caught:
        credentials_for("r.example", "a")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_of_two_urls_of_a_registry_the_first_counts(docker):
    docker(auths={"https://a.example/v1/": login("first"), "https://a.example/v2/": login("second")})
    assert user_for("a.example", "a") == "first"


def test_a_password_may_be_padded(docker):
    docker(auths={"a.example": login(password="s3cret\0\0")})
    found = credentials_for("a.example", "a")
    assert found is not None
    assert found.password == "s3cret"


def test_podman_has_credentials_for_parts(homes, monkeypatch):
    keys = {"registry.example": "all", "registry.example/team": "team", "registry.example/team/app": "app"}
    keep(homes / ".config/containers/auth.json", auths={key: login(user) for key, user in keys.items()})
    users = [user_for("registry.example", name) for name in ("x", "team/x", "team/app", "team/app/y")]
    assert users == ["all", "team", "app", "app"]


def test_tokens_are_read(docker):
    docker(auths={"a.example": {"identitytoken": "t"}, "b.example": {"registrytoken": "r"}, "c.example": {}})
    assert credentials_for("a.example", "a") == Credentials(identity_token="t")
    assert credentials_for("b.example", "a") == Credentials(registry_token="r")
    assert credentials_for("c.example", "a") is None


@pytest.mark.parametrize(
    "content",
    [
        "{s3cret",
        "[]",
        "[" * 100_000,
        '{"auths": [1]}',
        '{"credHelpers": 3}',
        '{"credsStore": "../../bin/s3cret"}',
        '{"auths": {"r.example": {"auth": "s3cret!"}}}',
        '{"auths": {"r.example": {"auth": "czNjcmV0"}}}',
    ],
)
def test_a_malformed_file_is_named_and_not_shown(homes, content):
    path = homes / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(BadInput, match=r"config\.json") as caught:
        credentials_for("r.example", "a")
    assert "czNjcmV0" not in str(caught.value)
    assert caught.value.__suppress_context__ or not caught.value.__context__  # which holds the whole text


def test_secrets_are_not_in_a_repr():
    text = repr(Credentials("somebody", "s3cret", "s3cret", "s3cret"))
    assert "somebody" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("table", [{"credsStore": "x"}, {"credHelpers": {"r.example": "x"}, "credsStore": "y"}])
def test_a_helper_is_asked_over_its_input(docker, helper, table):
    docker(**table)
    told = helper("x", """echo '{"ServerURL": "r", "Username": "somebody", "Secret": "s3cret"}'""")
    assert credentials_for("r.example", "a") == Credentials("somebody", "s3cret")
    assert told.read_text() == "get r.example\n"


def test_a_helper_may_have_an_identity_token(docker, helper):
    docker(credsStore="x")
    helper("x", """echo '{"Username": "<token>", "Secret": "t"}'""")
    assert credentials_for("r.example", "a") == Credentials(identity_token="t")


def test_a_helper_that_knows_nothing_leaves_it_to_the_file(docker, helper):
    docker(credsStore="x", auths={"r.example": login()})
    helper("x", "echo 'credentials not found in native keychain'; exit 1")
    assert user_for("r.example", "a") == "somebody"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo s3cret; exit 3", "ended with status 3"),
        ("echo s3cret >&2; exit 3", "ended with status 3"),
        ("echo s3cret", "printed something else"),
        ("""echo '{"Username": "s3cret"}'""", "printed something else"),
        (r"""printf '%s' '{"Username": "u", "Secret": "s3cret\ud800"}'""", "printed something else"),
        ("sleep 30", "ToolTimeout"),
    ],
)
def test_a_helper_that_fails_is_named_and_what_it_said_is_not_shown(docker, helper, monkeypatch, script, why):
    monkeypatch.setattr("reprobuild.oci.auth._HELPER_SECONDS", 2)
    docker(credsStore="x")
    helper("x", script)
    with pytest.raises(RegistryFailed, match=f"docker-credential-x.*{why}") as caught:
        credentials_for("r.example", "a")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_helper_that_is_missing_is_named(docker):
    docker(credsStore="gone")
    with pytest.raises(RegistryFailed, match=r"docker-credential-gone.*ToolMissing"):
        credentials_for("r.example", "a")


# --- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a, b"', [("basic", {"realm": "a, b"})]),
        (
            'BEARER Realm="https://t.example/x",service=s',
            [("bearer", {"realm": "https://t.example/x", "service": "s"})],
        ),
        ('Bearer scope="repository:a:pull,push"', [("bearer", {"scope": "repository:a:pull,push"})]),
        ('Basic realm="r", Bearer realm="t"', [("basic", {"realm": "r"}), ("bearer", {"realm": "t"})]),
        ("Negotiate , Bearer", [("negotiate", {}), ("bearer", {})]),
        ("Bearer a-b = c, d_e= f", [("bearer", {"a-b": "c", "d_e": "f"})]),
        ('Negotiate, Basic realm="a \\"b\\""', [("negotiate", {}), ("basic", {"realm": 'a "b"'})]),
    ],
)
def test_challenges_are_read(header, expected):
    assert [(each.scheme, dict(each.parameters)) for each in challenges_of(header)] == expected


@pytest.mark.parametrize(
    "header",
    [
        "x" + " " * 60_000 + "y",
        "Bearer " + "a" * 60_000,
        "Bearer " + "a " * 30_000,
        "Bearer " + "a=" * 30_000,
        'Bearer a="' + "\\" * 60_000,
        "Basic," * 10_000,
        "Bearer a=" + " " * 60_000,
    ],
)
def test_reading_a_challenge_takes_no_time(header):
    begun = time.process_time()
    challenges_of(header)
    assert time.process_time() - begun < 1


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(served, clock):
    served.hold("team/app", DATA)
    return Registry(served.host, clock=clock, sleep=lambda _: None)


def wants_token(served, *names, seconds=300, **more):
    served.challenge = f'Bearer realm="{served.url}/token?x=y",service="s",scope="repository:real/name:pull"'
    served.tokens = {f"Bearer {name}": "" for name in names}
    for name in names:
        served.answer("GET", "^/token", 200, json.dumps({"token": name, "expires_in": seconds, **more}).encode())


def test_a_registry_that_wants_nothing_gets_nothing(served, registry, docker):
    docker(credsStore="gone")
    assert b"".join(registry.blob("team/app", BLOB)) == DATA
    assert "Authorization" not in served.asked[0].headers


def test_basic(served, registry, docker):
    docker(auths={served.host: login()})
    served.challenge, served.tokens = 'Basic realm="r"', {BASIC: ""}
    assert b"".join(registry.blob("team/app", BLOB)) == DATA
    assert b"".join(registry.blob("team/app", BLOB)) == DATA
    assert [each.headers.get("Authorization") for each in served.asked] == [None, BASIC, BASIC]


def test_anonymous_token(served, registry):
    wants_token(served, "one")
    for _ in range(3):
        assert b"".join(registry.blob("team/app", BLOB)) == DATA
    (asked,) = served.asked_for("GET", "^/token")
    assert "Authorization" not in asked.headers
    assert asked.query == {
        "x": ["y"],
        "service": ["s"],
        "scope": ["repository:team/app:pull", "repository:real/name:pull"],
    }


def test_token_for_a_user(served, registry, docker):
    docker(auths={served.host: login()})
    wants_token(served, "one", "two")
    assert registry.put_blob("team/app", Descriptor.of(OCI_LAYER, b"x"), lambda _: iter([b"x"]))
    scopes = [each.query["scope"][0] for each in served.asked_for("GET", "^/token")]
    assert scopes == ["repository:team/app:pull", "repository:team/app:pull,push"]
    assert {each.headers["Authorization"] for each in served.asked_for("GET", "^/token")} == {BASIC}


def test_scopes_of_one_repository_are_merged(served, registry):
    wants_token(served, "one")
    served.challenge = served.challenge.replace("real/name:pull", "team/app:delete")
    assert registry.has_blob("team/app", BLOB)
    assert served.asked_for("GET", "^/token")[0].query["scope"] == ["repository:team/app:delete,pull"]


def test_a_mount_asks_for_both_repositories(served, registry):
    wants_token(served, "one")
    assert registry.mount("other/app", BLOB, "team/app")
    scopes = served.asked_for("GET", "^/token")[0].query["scope"]
    assert scopes[:2] == ["repository:other/app:pull,push", "repository:team/app:pull"]


def test_a_token_is_renewed_before_it_expires(served, registry, clock):
    wants_token(served, "one", "two", seconds=100)
    fetched = []
    for clock.now in (0, 80, 95, 100, 180):
        assert registry.has_blob("team/app", BLOB)
        fetched.append(len(served.asked_for("GET", "^/token")))
    assert fetched == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(("seconds", "good"), [(10**400, True), (-(10**400), False), (float("nan"), False)])
def test_a_life_beyond_reason_is_cut(served, registry, clock, seconds, good):
    wants_token(served, "one", "two", seconds=seconds)
    registry.has_blob("team/app", BLOB)
    assert bool(registry._login.header("repository:team/app:pull")) is good
    clock.now = 24 * 3600
    assert not registry._login.header("repository:team/app:pull")


def test_a_token_that_expired_early_is_renewed(served, registry):
    wants_token(served, "one", "two")
    assert registry.has_blob("team/app", BLOB)
    del served.tokens["Bearer one"]
    assert registry.has_blob("team/app", BLOB)


def test_identity_tokens_are_posted(served, registry, docker):
    docker(auths={served.host: {"identitytoken": "s3cret"}})
    wants_token(served)
    served.tokens = {"Bearer one": ""}
    served.answer("POST", "^/token", 200, b'{"access_token": "one"}')
    assert registry.has_blob("team/app", BLOB)
    (asked,) = served.asked_for("POST", "^/token")
    fields = parse_qs(asked.body.decode())
    assert fields["refresh_token"] == ["s3cret"]
    assert fields["scope"] == ["repository:team/app:pull repository:real/name:pull"]
    assert "s3cret" not in asked.path


def test_no_password_goes_with_an_identity_token(served, registry, docker):
    docker(auths={served.host: {**login(), "identitytoken": "s3cret"}})
    wants_token(served)
    served.tokens = {"Bearer one": ""}
    served.answer("POST", "^/token", 200, b'{"access_token": "one"}')
    assert registry.has_blob("team/app", BLOB)
    (asked,) = served.asked_for("POST", "^/token")
    assert "Authorization" not in asked.headers


def test_a_posted_token_does_not_follow_a_redirect(served, registry, docker, make_registry):
    other = make_registry()
    docker(auths={served.host: {"identitytoken": "s3cret"}})
    wants_token(served)
    served.answer("POST", "^/token", 307, Location=f"{other.url}/token")
    with pytest.raises(RegistryFailed, match="307"):
        registry.has_blob("team/app", BLOB)
    assert other.asked == []


def test_a_registry_token_is_used_as_it_is(served, registry, docker):
    docker(auths={served.host: {"registrytoken": "r"}})
    wants_token(served)
    served.tokens = {"Bearer r": ""}
    assert registry.has_blob("team/app", BLOB)
    assert served.asked_for("GET", "^/token") == []


@pytest.mark.parametrize("kind", ["basic", "same token", "new tokens", "no credentials", "odd"])
def test_a_refusal_that_never_ends_ends(served, registry, docker, kind):
    if kind == "basic":
        docker(auths={served.host: login()})
    if kind in {"basic", "no credentials"}:
        served.challenge = 'Basic realm="r"'
    elif kind == "odd":
        served.challenge = "Negotiate"
    elif kind == "same token":
        wants_token(served, *["one"] * 50)
    else:
        wants_token(served, *(f"t{number}" for number in range(50)))
    served.tokens = {}
    for _ in range(2):
        with pytest.raises(Refused, match="401, UNAUTHORIZED") as caught:
            list(registry.blob("team/app", BLOB))
        assert "docker login" in caught.value.remedy
    assert len(served.asked) <= (3 if kind == "basic" else 8)


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nX: y"}', b'{"token": "t", "expires_in": "x"}']
)
def test_a_token_server_that_says_something_else_is_an_error(served, registry, answer):
    wants_token(served)
    served.answer("GET", "^/token", 200, answer)
    with pytest.raises(RegistryFailed, match="asking for a token"):
        registry.has_blob("team/app", BLOB)


def test_a_token_server_that_refuses_is_an_error(served, registry, docker):
    docker(auths={served.host: login()})
    wants_token(served)
    served.answer("GET", "^/token", 401)
    with pytest.raises(RegistryFailed, match=r"asking for a token: 127\.0\.0\.1 answered 401") as caught:
        registry.has_blob("team/app", BLOB)
    assert "docker login" in caught.value.remedy


def test_a_busy_token_server_is_asked_again(served, registry):
    served.answer("GET", "^/token", 503)
    wants_token(served, "one")
    assert registry.has_blob("team/app", BLOB)


@pytest.mark.parametrize("realm", ["", "ftp://127.0.0.1/t", "http://192.0.2.1/t", "x", "file:///etc/passwd"])
def test_a_token_server_somewhere_odd_gets_nothing(served, registry, docker, realm):
    docker(auths={served.host: login()})
    served.challenge = f'Bearer realm="{realm}"'
    with pytest.raises(RegistryFailed, match="not https"):
        registry.has_blob("team/app", BLOB)


def test_threads_that_were_refused_together_share_a_token(served, clock):
    wants_token(served, "one")
    way = Login(served.host, Transport(plain=False, clock=clock))
    refusal: Any = SimpleNamespace(headers={"WWW-Authenticate": served.challenge}, url=f"{served.url}/v2/")
    for _ in range(3):
        assert way.renew(refusal, "team/app", "repository:team/app:pull", "") == "Bearer one"
    assert len(served.asked) == 1


def test_who_asks_over_https_sends_no_password_over_http(served, clock):
    wants_token(served, "one")
    found = Credentials("somebody", "s3cret")
    way = Login("registry.example", Transport(plain=True, clock=clock), lambda *_: found)
    refusal: Any = SimpleNamespace(headers={"WWW-Authenticate": served.challenge}, url="https://registry.example/v2/")
    with pytest.raises(RegistryFailed, match="not https"):
        way.renew(refusal, "team/app", "repository:team/app:pull", "")
    assert served.asked == []


def test_a_password_stays_with_its_token_server(served, registry, docker, make_registry):
    """A token server on another host gets the login, as docker does it; where it redirects to doesn't."""
    tokens, third = make_registry(), make_registry()
    docker(auths={served.host: login()})
    served.challenge, served.tokens = f'Bearer realm="{tokens.url}/token"', {"Bearer one": ""}
    tokens.answer("GET", "^/token", 302, Location=f"{third.url}/token")
    third.answer("GET", "^/token", 200, b'{"token": "one"}')
    assert registry.has_blob("team/app", BLOB)
    assert tokens.asked[0].headers["Authorization"] == BASIC
    assert "Authorization" not in third.asked[0].headers
