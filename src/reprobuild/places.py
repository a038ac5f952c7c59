"""Where uv is configured to look for packages, with the credentials that it would use.

A locked file is known by its digest, so the order of the indexes and the strategy between them don't
matter here: every place that uv knows is a place to look. Source: uv's reference on settings and on
environment variables.
"""

import netrc
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from reprobuild import process
from reprobuild.errors import BadInput, ReprobuildError
from reprobuild.files import read_text


@dataclass(frozen=True, slots=True)
class Place:
    """An index (the simple API) or a flat folder or page of links (``find-links``), without credentials.

    Attributes:
        url: an http(s) or file URL with no user information in it.
        flat: whether it is a list of files rather than an index.
        credentials: a user name and a password, or None.
    """

    url: str
    flat: bool
    credentials: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"Place({self.url!r}, flat={self.flat})"

    @property
    def folder(self) -> Path | None:
        """The local folder that it is, if it is one."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


@dataclass(frozen=True, slots=True)
class Target:
    """Where files are published, and where it can be seen what is there.

    Attributes:
        variables: what says so to uv, which takes it from nowhere else.
        url: that of the uploads, without credentials; empty for uv's default.
        listing: the index in which they appear, if that is known.
        hidden: parts of its URLs that must not be shown.
    """

    variables: Mapping[str, str] = field(repr=False)
    url: str
    listing: Place | None
    hidden: tuple[str, ...] = field(repr=False, default=())


def publishing(project: Path, index: str = "", publish_url: str = "", check_url: str = "") -> Target:
    """Where uv, run in ``project``, would publish: to a named index, to a URL, or to its default.

    Args:
        index: the name of one of uv's, which has a publish-url; empty for what UV_PUBLISH_INDEX says.
        publish_url: empty for what uv's variables and settings say; so is ``check_url``, the index to look in.

    Raises:
        BadInput: there is no such index, or nothing can be published to it; a URL is malformed.
    """
    project = project.resolve()
    settings = [_from_environment(os.environ), *_from_files(project)]
    index = index or ("" if publish_url else os.environ.get("UV_PUBLISH_INDEX", ""))
    if index:
        named = {each.text("name"): each for table in reversed(settings) for each in table.parts("index")}
        found = named.get(index)
        if found is None or not found.text("publish-url"):
            able = sorted(name for name, each in named.items() if each.text("publish-url"))
            raise BadInput(
                f"uv knows no index {index!r} with a publish-url.",
                f"It knows {', '.join(able)}." if able else "Give one to a table [[tool.uv.index]] in pyproject.toml.",
            )
        publish_url, check_url = found.text("publish-url"), check_url or found.text("url")
        variables = {"UV_PUBLISH_INDEX": index}
    else:
        publish_url = publish_url or _first(settings, "publish-url", "UV_PUBLISH_URL")
        check_url = check_url or _first(settings, "check-url", "UV_PUBLISH_CHECK_URL")
        variables = {"UV_PUBLISH_URL": publish_url, "UV_PUBLISH_CHECK_URL": check_url}
        if not publish_url and not check_url:
            from pypi_simple import PYPI_SIMPLE_ENDPOINT  # noqa: PLC0415 - slow to import

            check_url = PYPI_SIMPLE_ENDPOINT
    here = settings[0]
    listing = here.place(check_url, flat=False, name=index) if check_url else None
    place = here.place(publish_url, flat=False) if publish_url else None
    parts = urlsplit(publish_url)  # which is sound, since it is a place
    hidden = [unquote(each) for each in (parts.password, parts.username) if each]
    if place and place.credentials and place.credentials[1] not in hidden:  # netrc's
        hidden.append(place.credentials[1])
    return Target(
        {name: value for name, value in variables.items() if value},
        place.url if place else "",
        listing,
        tuple(each for each in hidden if len(each) > 3),
    )


def _first(settings: "Iterable[_Settings]", key: str, variable: str) -> str:
    """What a variable says, else the nearest configuration file."""
    said = (each.text(key) for each in settings)
    return os.environ.get(variable, "") or next(filter(None, said), "")


def configured(project: Path) -> tuple[Place, ...]:
    """Every place that uv, run in ``project``, would look at.

    Raises:
        BadInput: a configuration file of uv's isn't TOML, or something in it is not what uv expects.
    """
    project = project.resolve()
    found: dict[str, Place] = {}
    replaced = offline = False
    for settings in (_from_environment(os.environ), *_from_files(project)):
        for merged in (settings, settings.part("pip")):
            offline = offline or merged.table.get("no-index") is True
            for place, is_default in _places_of(merged):
                found.setdefault(place.url, place)
                replaced = replaced or is_default
    if offline:
        found = {url: place for url, place in found.items() if place.flat}
    elif not replaced:
        from pypi_simple import PYPI_SIMPLE_ENDPOINT  # noqa: PLC0415 - slow to import, and rarely reached

        found[PYPI_SIMPLE_ENDPOINT] = _place(PYPI_SIMPLE_ENDPOINT, Path(), flat=False)
    return tuple(found.values())


def paths_from_here(*links: Path) -> dict[str, str]:
    """Those of uv's variables that hold paths, for a uv that is run in another folder than this process.

    Args:
        links: folders of files to be added.
    """
    known = [each for each in os.environ.get("UV_FIND_LINKS", "").split(",") if each]
    absolute = [each if "://" in each else str(Path(each).absolute()) for each in [*map(str, links), *known]]
    variables = {"UV_FIND_LINKS": ",".join(absolute)}
    if named := os.environ.get("UV_CONFIG_FILE"):
        variables["UV_CONFIG_FILE"] = str(Path(named).absolute())
    return {name: value for name, value in variables.items() if value}


def refuse_no_binary(project: Path) -> None:
    """Make sure that ``--no-build`` holds: for a package that uv's ``no-binary`` names, uv builds in spite of it.

    Raises:
        BadInput: uv, run in ``project``, would.
    """
    for settings in _from_files(project.resolve()):
        for where, key in (
            (settings, "no-binary"),
            (settings, "no-binary-package"),
            (settings.part("pip"), "no-binary"),
        ):
            if where.table.get(key):
                raise BadInput(
                    f"{settings.name}: uv's setting {key} has packages built from their sdists, on this machine and "
                    "outside of any sandbox, whoever requires them.",
                    "Take it out, or have UV_CONFIG_FILE name a file without it.",
                )


def secrets(project: Path) -> tuple[str, ...]:
    """What must not be shown of the credentials of :func:`configured`, as it is and as a URL has it."""
    logins = [place.credentials for place in configured(project) if place.credentials]
    found = [password or user for user, password in logins]
    found += [quote(each, safe="") for each in found]
    return tuple(sorted({each for each in found if len(each) > 3}, key=len, reverse=True))  # "x" is in every text


@dataclass(frozen=True, slots=True)
class _Settings:
    """A table of uv's settings, the folder that paths in it are relative to, and its name in messages."""

    table: Mapping[str, Any]
    base: Path
    name: str

    def _checked(self, key: str, value: object, kind: type, what: str) -> Any:  # noqa: ANN401 - of that kind
        if not isinstance(value, kind):
            raise BadInput(f"{self.name}: uv's setting {key} is not {what}.", "uv's reference on settings has it.")
        return value

    def part(self, key: str) -> "_Settings":
        return replace(self, table=self._checked(key, self.table.get(key, {}), dict, "a table"))

    def text(self, key: str) -> str:
        value: str = self._checked(key, self.table.get(key, ""), str, "a text")
        return value

    def texts(self, key: str) -> list[str]:
        values = self._checked(key, self.table.get(key, []), list, "a list")
        return [self._checked(key, each, str, "a list of texts") for each in values]

    def parts(self, key: str) -> "list[_Settings]":
        values = self._checked(key, self.table.get(key, []), list, "a list")
        return [replace(self, table=self._checked(key, each, dict, "a list of tables")) for each in values]

    def place(self, url: str, *, flat: bool, name: str = "") -> Place:
        try:
            return _place(url, self.base, flat=flat, name=name)
        except ValueError:  # its message would show the URL, which may hold a credential
            raise BadInput(
                f"{self.name}: the URL of a place where uv is to look is malformed.",
                "Write it like https://index.example.org/simple/.",
            ) from None


def _from_environment(environ: Mapping[str, str]) -> _Settings:
    """uv's variables in the shape of its configuration file."""
    table: dict[str, Any] = {
        "extra-index-url": environ.get("UV_EXTRA_INDEX_URL", "").split(),
        "find-links": environ.get("UV_FIND_LINKS", "").split(","),
        "index": [],
        "no-index": environ.get("UV_NO_INDEX", "").lower() in {"1", "true", "yes", "on"},
    }
    for text in environ.get("UV_INDEX", "").split():
        table["index"].append(_named(text))
    if default := environ.get("UV_DEFAULT_INDEX"):
        table["index"].append({**_named(default), "default": True})
    if legacy := environ.get("UV_INDEX_URL"):
        table["index-url"] = legacy
    return _Settings(table, Path.cwd(), "the variables UV_…")


def _named(text: str) -> dict[str, Any]:
    name, equals, url = text.partition("=")
    return {"name": name, "url": url} if equals and re.fullmatch(r"[\w.-]+", name) else {"url": text}


def _from_files(project: Path) -> Iterator[_Settings]:
    """uv's own configuration files, nearest first."""
    if named := os.environ.get("UV_CONFIG_FILE"):
        yield _toml(Path(named))
        return
    if os.environ.get("UV_NO_CONFIG", "").lower() in {"1", "true"}:
        return
    for folder in (project, *project.parents):
        own, shared = folder / "uv.toml", folder / "pyproject.toml"
        if own.is_file():
            yield _toml(own)
            break
        if shared.is_file() and (found := _toml(shared).part("tool").part("uv")).table:
            yield found
            break
    system = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    folders = [*_own_path("XDG_CONFIG_HOME", ".config"), *map(Path, system.split(":"))]
    for path in (*(folder / "uv/uv.toml" for folder in folders), Path("/etc/uv/uv.toml")):
        if path.is_file():
            yield _toml(path)


def _own_path(variable: str, name: str) -> list[Path]:
    """A path that a variable names, else one in the home folder; nothing where there is no home."""
    if named := os.environ.get(variable):
        return [Path(named)]
    with suppress(RuntimeError):
        return [Path.home() / name]
    return []


def _toml(path: Path) -> _Settings:
    try:
        return _Settings(tomllib.loads(read_text(path)), path.parent, str(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}.") from error


def _places_of(settings: _Settings) -> Iterable[tuple[Place, bool]]:
    for index in settings.parts("index"):
        if url := index.text("url"):
            flat = index.table.get("format") == "flat"
            yield index.place(url, flat=flat, name=index.text("name")), index.table.get("default") is True
    if url := settings.text("index-url"):
        yield settings.place(url, flat=False), True
    for key, flat in (("extra-index-url", False), ("find-links", True)):
        for url in settings.texts(key):
            if url:
                yield settings.place(url, flat=flat), False


def _place(url: str, base: Path, *, flat: bool, name: str = "") -> Place:
    if "://" not in url:
        path = Path(url)
        with suppress(RuntimeError):  # nobody's home
            path = path.expanduser()
        return Place((base / path).resolve().as_uri(), flat)
    if "\0" in unquote(url):
        raise ValueError("no path can hold a NUL character")
    parts = urlsplit(url)
    host, _ = parts.hostname or "", parts.port  # a port that is no number is an error too
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    inline = (unquote(parts.username or ""), unquote(parts.password or ""))
    return Place(clean, flat, inline if any(inline) else _credentials(name, clean, host))


def _credentials(name: str, url: str, host: str) -> tuple[str, str] | None:
    """What uv would log in with: its variables for a named index, netrc, its own store."""
    key = re.sub(r"[^A-Z0-9]", "_", name.upper())
    user, password = os.environ.get(f"UV_INDEX_{key}_USERNAME"), os.environ.get(f"UV_INDEX_{key}_PASSWORD")
    if name and (user or password):
        return user or "", password or ""
    with suppress(OSError, ValueError, netrc.NetrcParseError):
        for file in _own_path("NETRC", ".netrc"):
            if found := netrc.netrc(file).authenticators(host):
                return found[0], found[2] or ""
    if host and name and not _is_default(host):
        with suppress(ReprobuildError):
            done = process.run(["uv", "auth", "token", url], env=process.tool_environment(), timeout=10)
            return "__token__", done.stdout.decode().strip()
    return None


def _is_default(host: str) -> bool:
    from pypi_simple import PYPI_SIMPLE_ENDPOINT  # noqa: PLC0415 - as above

    return host == urlsplit(PYPI_SIMPLE_ENDPOINT).hostname
