"""How a registry lets us in: what `docker login` and `podman login` left behind, and tokens for it.

Sources: docker's config.json and its credential helpers' protocol, containers-auth.json(5), and the distribution
project's token authentication (also with OAuth2). A secret is never in a program's argument or in a message.
"""

import base64
import binascii
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from reprobuild import process
from reprobuild.errors import BadInput, RegistryFailed, ReprobuildError, redacted, shown
from reprobuild.files import read_text
from reprobuild.oci.transport import Answer, Transport, origin_of

#: What docker calls its own registry in its files.
_DOCKER_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_HELPER_SECONDS = 60
#: Bytes of an answer with a token.
_TOKEN_LIMIT = 1 << 20
#: Seconds that a token is good for where the server doesn't say (the token specification), and its share that is used.
_TOKEN_SECONDS, _TOKEN_SHARE = 60, 0.9
#: Seconds after which a new one is asked for whatever the server says.
_LONGEST_TOKEN = 24 * 3600
_PARAMETER = re.compile(r'(?<![A-Za-z0-9_-])([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_LOG_IN = "Log in with `docker login` or `podman login`; or mend the file."


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is known for a registry: a user and a password, or one of the two kinds of token."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The header of basic authentication; empty without a user."""
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return f"Basic {pair}" if self.user else ""


def credentials_for(registry: str, repository: str) -> Credentials | None:
    """What the first of docker's and podman's files that knows a registry has for it.

    Args:
        registry: host and port as in a reference.

    Raises:
        BadInput: one of these files is malformed.
        RegistryFailed: a credential helper that one of them names failed.
    """
    for path, in_parts in _files():
        table = _table(path)
        if found := _from_helper(path, table, registry) or _from_table(path, table, registry, repository, in_parts):
            return found
    return None


def _files() -> Iterator[tuple[Path, bool]]:
    """The files that may be there, and whether they have credentials for parts of registries, as podman's do."""
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named), True
        return
    home = None
    with suppress(RuntimeError):
        home = Path.home()
    if folder := os.environ.get("DOCKER_CONFIG"):
        yield Path(folder, "config.json"), False
    elif home:
        yield home / ".docker/config.json", False
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers/auth.json"), True
    if named := os.environ.get("XDG_CONFIG_HOME"):
        yield Path(named, "containers/auth.json"), True
    elif home:
        yield home / ".config/containers/auth.json", True


def _table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        table = json.loads(read_text(path) or "{}")
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is not JSON.", _LOG_IN) from None  # what it says may be a secret
    if not isinstance(table, dict) or not all(
        isinstance(table.get(key) or {}, dict) for key in ("auths", "credHelpers")
    ):
        raise BadInput(f"{path} is not a file of docker's or podman's credentials.", _LOG_IN)
    return table


def _keys(registry: str) -> tuple[str, ...]:
    return _DOCKER_KEYS if registry == "docker.io" else (registry,)


def _from_helper(path: Path, table: Mapping[str, Any], registry: str) -> Credentials | None:
    """What the program that a file names for a registry, or for all, has for it."""
    helpers = table.get("credHelpers") or {}
    own = next((helpers[key] for key in _keys(registry) if helpers.get(key)), None)
    name = own or table.get("credsStore")
    if not name:
        return None
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise BadInput(f"{path} names a credential helper that can't be one: {shown(name)!r}.", _LOG_IN)
    program = f"docker-credential-{name}"
    try:
        # It is the user's own program and may need anything of the user's environment, as when docker runs it.
        asked = _keys(registry)[0].encode()
        done = process.run([program, "get"], env=dict(os.environ), stdin=asked, timeout=_HELPER_SECONDS)
        answer = json.loads(done.stdout)
        user, secret = answer["Username"], answer["Secret"]
        f"{user}{secret}".encode()
    except process.ToolFailed as error:
        if "credentials not found" in error.output:
            return None
        why = f"ended with status {error.returncode}"
    except ReprobuildError as error:
        why = f"didn't work ({type(error).__name__})"
    except (ValueError, KeyError, TypeError, RecursionError):
        why = "printed something else than credentials"
    else:
        return Credentials(identity_token=str(secret)) if user == "<token>" else Credentials(str(user), str(secret))
    # What it printed may hold the secret, so it is neither shown nor chained.
    raise RegistryFailed(f"{registry}: {program}, which {path} names, {why}.", "Try `docker login`, or mend the file.")


def _from_table(
    path: Path, table: Mapping[str, Any], registry: str, repository: str, in_parts: bool
) -> Credentials | None:
    auths = table.get("auths") or {}
    parts = f"{registry}/{repository}".split("/") if in_parts else []
    longest_first = ["/".join(parts[:count]) for count in range(len(parts), 1, -1)]
    hosts = {_host_of(key): key for key in reversed(auths)}
    for key in (*longest_first, *_keys(registry), *(hosts[each] for each in _keys(registry) if each in hosts)):
        entry = auths.get(key)
        if isinstance(entry, dict) and (found := _of_entry(entry, f"{path}: {key}")):
            return found
    return None


def _host_of(key: str) -> str:
    """The host of a key, which may be a URL of the registry; one with a path of podman's stays as it is."""
    with suppress(ValueError):
        return urlsplit(key).netloc if "://" in key else key
    return key  # as of [::1 without its end


def _of_entry(entry: Mapping[str, Any], where: str) -> Credentials | None:
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if pair := entry.get("auth"):
        try:
            decoded = base64.b64decode(pair, validate=True).decode().rstrip("\0")
        except (binascii.Error, ValueError, TypeError):
            raise BadInput(f"{where}: auth is not base64.", _LOG_IN) from None
        user, colon, password = decoded.partition(":")
        if not colon:
            raise BadInput(f"{where}: auth has no password.", _LOG_IN)
    identity, token = str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
    try:
        f"{user}{password}{identity}{token}".encode()
    except UnicodeEncodeError:
        raise BadInput(f"{where}: half a surrogate pair stands in it.", _LOG_IN) from None
    return Credentials(user, password, identity, token) if user or identity or token else None


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server asks for: a scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def challenges_of(header: str) -> list[Challenge]:
    """Read WWW-Authenticate (RFC 9110): several challenges in one line are told apart by their schemes."""
    found: list[Challenge] = []
    for part in re.split(r"\b(?=(?:basic|bearer|negotiate|digest)\b(?:\s|,|$))", header, flags=re.IGNORECASE):
        scheme, _, rest = part.strip().partition(" ")
        if scheme:
            pairs = {m[1].lower(): re.sub(r"\\(.)", r"\1", m[2] or "") or m[3] or "" for m in _PARAMETER.finditer(rest)}
            found.append(Challenge(scheme.strip(",").lower(), pairs))
    return found


class Login:
    """The way into one registry, from any number of threads: what to say, and what to say after a refusal.

    Args:
        registry: its name in references.
        transport: for asking token servers.
        find: what is known for a repository; asked only where the registry wants something.
    """

    def __init__(
        self, registry: str, transport: Transport, find: Callable[[str, str], Credentials | None] = credentials_for
    ) -> None:
        self._registry = registry
        self._transport = transport
        self._find = find
        self._known: dict[str, Credentials | None] = {}
        self._headers: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def header(self, scope: str) -> str:
        """The header that worked for a scope, while it is good; empty if there is none."""
        header, until = self._headers.get(scope, ("", 0.0))
        return header if self._transport.clock() < until else ""

    def renew(self, refusal: Answer, repository: str, scope: str, used: str) -> str:
        """What to say after a refusal (401) of what was used; empty if there is nothing else to say.

        Args:
            scope: what is to be done, as ``repository:NAME:pull,push``; several with spaces between.

        Raises:
            BadInput, RegistryFailed: credentials can't be read, or the token server doesn't work.
        """
        with self._lock:
            if (known := self.header(scope)) and known != used:  # another thread was here
                return known
            if repository not in self._known:
                self._known[repository] = self._find(self._registry, repository)
            credentials = self._known[repository] or Credentials()
            challenges = {each.scheme: each for each in challenges_of(refusal.headers.get("WWW-Authenticate", ""))}
            header, good_for = "", float("inf")
            if bearer := challenges.get("bearer"):
                if credentials.registry_token:
                    header = f"Bearer {credentials.registry_token}"
                else:
                    token, good_for = self._token(bearer, refusal.url, repository, scope, credentials)
                    header = f"Bearer {token}"
            elif "basic" in challenges:
                header = credentials.basic
            if header == used:
                return ""
            self._headers[scope] = header, self._transport.clock() + good_for * _TOKEN_SHARE
            return header

    def _token(
        self, challenge: Challenge, asked: str, repository: str, scope: str, credentials: Credentials
    ) -> tuple[str, float]:
        """A token, and for how many seconds it is good."""
        where = f"{self._registry}/{repository}: asking for a token"
        realm = challenge.parameters.get("realm", "")
        if origin_of(realm)[0] != "https" and (origin_of(realm)[0] != "http" or origin_of(asked)[0] == "https"):
            raise RegistryFailed(
                f"{where}: the registry sends us to {redacted(realm) or 'nobody'}, which is not https."
            )
        service = challenge.parameters.get("service", "")
        scopes = _merged([*scope.split(), *challenge.parameters.get("scope", "").split()])
        fields = [("service", service)] if service else []
        parts = urlsplit(realm)
        if credentials.identity_token:
            fields += [("grant_type", "refresh_token"), ("client_id", "reprobuild"), ("scope", " ".join(scopes))]
            fields += [("refresh_token", credentials.identity_token)]
            method, url, body = "POST", realm, urlencode(fields).encode()
        else:
            query = urlencode([*fields, *(("scope", each) for each in scopes)])
            url = urlunsplit(parts._replace(query="&".join(each for each in (parts.query, query) if each)))
            method, body = "GET", None
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        authorization = "" if body else credentials.basic
        with self._transport.ask(
            method, url, where, headers=headers, authorization=authorization, body=body, follow=not body
        ) as answer:
            if answer.status != 200:
                raise RegistryFailed(
                    f"{where}: {origin_of(url)[1]} answered {answer.status}.", f"Run `docker login {self._registry}`."
                )
            return _token_in(answer.start(_TOKEN_LIMIT), where)


def _token_in(raw: bytes, where: str) -> tuple[str, float]:
    with suppress(ValueError, RecursionError, AttributeError):
        answer = json.loads(raw)
        token = answer.get("token") or answer.get("access_token")
        seconds = answer.get("expires_in") or _TOKEN_SECONDS
        if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token) and isinstance(seconds, int | float):
            return token, float(max(0, min(seconds, _LONGEST_TOKEN)))
    raise RegistryFailed(f"{where}: the answer has none.", "Ask whoever runs the registry.")


def _merged(scopes: Iterable[str]) -> list[str]:
    """Scopes with one entry for each resource."""
    actions: dict[str, set[str]] = {}
    for scope in scopes:
        resource, colon, verbs = scope.rpartition(":")
        if colon:
            actions.setdefault(resource, set()).update(verbs.split(","))
    return [f"{resource}:{','.join(sorted(verbs))}" for resource, verbs in actions.items()]
