"""The Python that an image's environment is for: which wheels it takes, and what its markers say.

Nothing of it is guessed: what neither pyproject.toml nor the base's config says is an error. The C library is
nowhere in a config, so how new a wheel may be for it has to be in pyproject.toml.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.version import Version

from reprobuild.errors import BadInput, shown
from reprobuild.interpreter import ranked
from reprobuild.oci.model import ImageConfig, Platform
from reprobuild.project import ImageSettings

PREFIX = "/opt/venv"
_PLATFORM = re.compile(r"(?P<machine>[a-z0-9_]+)-manylinux(_2_(?P<minor>[0-9]{1,3})|2014)")
#: The architectures of an image in Go's words, and what Python calls them; for each the first glibc that has it.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_OLDEST = {"x86_64": 5, "aarch64": 17}
#: The names that some of glibc's versions had in wheels before PEP 600.
_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
_VERSION = re.compile(r"3\.[0-9]{1,3}(\.[0-9]{1,3}((a|b|rc)[0-9]{1,3})?)?")
_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._+-]+)+")
_SHEBANG_LIMIT = 127  # what older kernels read of one
#: Where official Python images have their interpreter, which is then the first folder of PATH.
_OFFICIAL = "/usr/local/bin"


@dataclass(frozen=True)
class Target:
    """CPython in an image.

    Attributes:
        python: its version: ``3.12``, or with its patch ``3.12.7``.
        executable: the interpreter's absolute path in the base.
        platform: a uv platform that names a manylinux, such as ``x86_64-manylinux_2_28``.
        prefix: the folder of the environment.

    Raises:
        BadInput: one of them is something else.
    """

    python: str
    executable: str
    platform: str
    prefix: str = PREFIX

    def __post_init__(self) -> None:
        _version(self.python)
        for what, path in (("interpreter", self.executable), ("environment", self.prefix)):
            if not _PATH.fullmatch(path):
                raise BadInput(
                    f"{shown(path)!r} can't be the place of an image's {what}.",
                    "Give an absolute path in plain letters.",
                )
        if len(f"#!{self.prefix}/bin/python\n") > _SHEBANG_LIMIT:
            raise BadInput(f"{shown(self.prefix)!r} is too long for the first line of a script.", "Shorten it.")
        self._glibc  # noqa: B018 - a platform that can't be read is refused here and now

    @property
    def short(self) -> str:
        """Major and minor version, such as ``3.12``."""
        version = Version(self.python)
        return f"{version.major}.{version.minor}"

    @property
    def version(self) -> str:
        """The full version; where no patch is known its first, as for uv."""
        return self.python if len(Version(self.python).release) == 3 else f"{self.short}.0"

    @property
    def machine(self) -> str:
        """As ``platform.machine()`` says it."""
        return self.platform.partition("-")[0]

    @cached_property
    def _glibc(self) -> int:
        found = _PLATFORM.fullmatch(self.platform)
        if found is None or found["machine"] not in _OLDEST:
            raise BadInput(
                f"{shown(self.platform)!r} doesn't say which wheels run on an image.",
                "Name the manylinux that the base's glibc can run, such as x86_64-manylinux_2_28.",
            )
        minor = int(found["minor"] or 17)
        if minor < _OLDEST[found["machine"]]:
            raise BadInput(f"There is no {self.platform}.", f"The oldest is manylinux_2_{_OLDEST[found['machine']]}.")
        return minor

    @cached_property
    def tag_ranks(self) -> Mapping[Tag, int]:
        """Each accepted wheel tag with its place in the order of preference, 0 for the best."""
        version = Version(self.python)
        release, name = (version.major, version.minor), f"cp{version.major}{version.minor}"
        platforms = list(self._platforms())
        # The ABI is named, for otherwise `packaging` asks the interpreter that runs here.
        tags = (
            *cpython_tags(release, abis=[name], platforms=platforms),
            *compatible_tags(release, name, platforms=platforms),
        )
        return ranked(tags)

    def _platforms(self) -> Iterator[str]:
        yield f"linux_{self.machine}"
        for minor in range(self._glibc, _OLDEST[self.machine] - 1, -1):
            yield f"manylinux_2_{minor}_{self.machine}"
            if minor in _LEGACY:
                yield f"{_LEGACY[minor]}_{self.machine}"

    @property
    def markers(self) -> dict[str, str]:
        """Its environment markers (PEP 508); those that only a running kernel knows are empty, as for uv."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.version,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.version,
            "python_version": self.short,
            "sys_platform": "linux",
        }


def platforms_of(settings: ImageSettings) -> tuple[Platform, ...]:
    """What an image is built for: the platforms that are named, else the one that its lock is for.

    Raises:
        BadInput: neither says it.
    """
    if settings.platforms:
        return settings.platforms
    machine = settings.selection.platform.partition("-")[0]
    for architecture, name in _MACHINES.items():
        if name == machine:
            return (Platform("linux", architecture),)
    raise BadInput(
        f"{_where(settings)} doesn't say which platform the image is for.",
        'Add platform = "x86_64-manylinux_2_28", or platforms = ["linux/amd64"] and manylinux = "2_28".',
    )


def target_of(settings: ImageSettings, base: ImageConfig, platform: Platform, prefix: str = PREFIX) -> Target:
    """The Python of an image on some base.

    Raises:
        BadInput: neither pyproject.toml nor the base says what it is, or they contradict one another.
    """
    python, executable = _interpreter(settings, base)
    _check_name(executable, python, settings)
    return Target(python, executable, _uv_platform(settings, platform), prefix)


def _interpreter(settings: ImageSettings, base: ImageConfig) -> tuple[str, str]:
    """Version and path of the interpreter."""
    wanted, named = settings.selection.python, settings.interpreter
    if wanted and named:
        return wanted, named
    version, path = base.environment.get("PYTHON_VERSION", ""), base.environment.get("PATH", "")
    if not version or path.partition(":")[0] != _OFFICIAL:
        add = 'Add python and interpreter to [{}], such as "3.12" and "/usr/bin/python3.12".'
        if _VERSION.fullmatch(wanted):
            add = f'Add interpreter to [{{}}], such as "/usr/bin/python{".".join(wanted.split(".")[:2])}".'
        raise BadInput(
            f"The config of the base of image {settings.selection.name} doesn't say where its Python is: it has not "
            f"both PYTHON_VERSION and a PATH that starts with {_OFFICIAL}.",
            add.format(_where(settings)),
        )
    own, asked = _version(version), _version(wanted or version)
    if own.release[: len(asked.release)] != asked.release:
        raise BadInput(
            f"{_where(settings)}.python is {wanted}, and the base has Python {version}.",
            "Take another base, or lock for the Python that it has.",
        )
    return version, named or f"{_OFFICIAL}/python{own.major}.{own.minor}"


def _version(text: str) -> Version:
    if not _VERSION.fullmatch(text):
        raise BadInput(f"{shown(text)!r} is not a version of Python 3.", "Write it like 3.12 or 3.12.7.")
    return Version(text)


def _check_name(executable: str, python: str, settings: ImageSettings) -> None:
    said = re.search(r"/python([0-9]+\.[0-9]+)$", executable)
    if said and Version(said[1]).release != Version(python).release[:2]:
        raise BadInput(
            f"{executable} is not Python {python}, which image {settings.selection.name} is for.",
            f"Make python and interpreter of [{_where(settings)}] agree.",
        )


def _uv_platform(settings: ImageSettings, platform: Platform) -> str:
    where, named = _where(settings), settings.selection.platform
    machine = _MACHINES.get(platform.architecture)
    if platform.os != "linux" or machine is None:
        raise BadInput(f"An environment can't be made for {platform}.", "It can for linux/amd64 and linux/arm64.")
    if named and not named.startswith(f"{machine}-"):
        raise BadInput(
            f"{where} has a lock for {named}, and the image is to be built for {platform}.",
            'Drop its platform and name a manylinux instead, such as "2_28": the lock is then for every platform.',
        )
    if not named and not settings.manylinux:
        raise BadInput(
            f"{where} doesn't say which glibc the base has, and no config of an image does.",
            'Add manylinux = "2_28", or what the base can run.',
        )
    return named or f"{machine}-manylinux_{settings.manylinux}"


def _where(settings: ImageSettings) -> str:
    return f"tool.reprobuild.images.{settings.selection.name}"
