"""Making locks: from what pyproject.toml wants to exact, hashed, index-neutral files."""

import difflib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from reprobuild import backend, export, lockfile, places, process, sdistfile, source, toolchain
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed, IndexFailed, LockStale, SourceUnusable, redacted
from reprobuild.files import read_text, scratch_folder, write_atomically
from reprobuild.index import Index, LockedFile
from reprobuild.interpreter import Interpreter
from reprobuild.progress import SILENT, Observer
from reprobuild.project import Config, Selection
from reprobuild.sandbox import Surroundings, open_box
from reprobuild.source import Source

BUILD_LOCK = "constraints.txt"
#: How the reason begins when no versions fit together.
UNRESOLVED = "uv can't resolve the requirements"
_ROUNDS = 8
#: How often uv may have to be asked until all is known of the releases without a wheel that it chooses.
_RESOLUTIONS = 64
#: How uv says that it would have to build something.
_WHEELS_WANTED = re.compile(r"Wheels are required for `([^`]+)`")
#: How uv says that it got no answer, as against an answer that it doesn't like.
_UNREACHABLE = re.compile(
    r"error sending request|Failed to fetch|dns error|[Cc]onnection refused|timed out|HTTP status"
    r"|authentication credentials"
)
_NO_LIMIT = "9999-01-01T00:00:00Z"
_TIME = re.compile(r"^# exclude-newer: .*\n", re.MULTILINE)
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_STDIN = re.compile(r"(# via|#  ) -r -$|(# via|#  ) -$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What may move when a lock is made again: nothing, some names, or everything."""

    everything: bool = False
    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.everything or bool(self.names)


def make(
    config: Config,
    interpreter: Interpreter,
    *,
    exclude_newer: str | None = None,
    upgrade: Upgrade = Upgrade(),
    pylock: bool = False,
    observer: Observer = SILENT,
) -> dict[str, str]:
    """Every lock of a project, as text by path relative to the project. Nothing is written.

    Args:
        exclude_newer: only files that were uploaded before this time; none means the configured time,
            else the one in the present lock's header, else now.

    Raises:
        BuildFailed: the requirements can't be resolved, or a backend fails.
        BadInput: a requirement is a URL, which a lock can't hold.
        IndexFailed: the index can't be reached.
    """
    when = _moment(config, exclude_newer, upgrade)
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-lock-") as scratch:
        exported = export.open_source(config.root, scratch, allow_dirty=True)
        (scratch / "src").mkdir()
        source.place(exported, scratch / "src", "sorted")
        here = scratch / "src" / exported.subdirectory
        if not any((here / name).is_file() for name in ("pyproject.toml", "setup.py")):
            raise SourceUnusable(f"git ignores the project in {config.root}.", "Take it out of .gitignore.")
        index = Index(config.root, observer=observer)
        resolver = _Resolver(config, interpreter, when, upgrade, scratch, here, observer, config.root, index)
        locks = {BUILD_LOCK: _build_lock(resolver, exported, scratch)}
        (scratch / BUILD_LOCK).write_text(locks[BUILD_LOCK], encoding="utf-8")
        for selection in config.selections:
            observer.step(f"resolving {selection.output}")
            locks[selection.output] = resolver.runtime(selection)
        if pylock:
            for selection in config.selections:
                output = str(Path(selection.output).with_name("pylock.toml"))
                locks[output] = resolver.pylock(selection, locks[selection.output])
    # A later time alone is no news.
    if upgrade and exclude_newer is None and all(_says_the_same(config.root / name, locks[name]) for name in locks):
        return {name: read_text(config.root / name) for name in locks}
    return locks


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of build requirements that no lock holds.

    Attributes:
        pins: requirements beyond the source's own.
        when: only files that were uploaded before this time; empty for now.
        constraints: lines that limit the versions of whatever is required, whenever it was uploaded.
    """

    pins: tuple[Requirement, ...] = ()
    when: str = ""
    constraints: str = ""


def as_of(
    config: Config,
    interpreter: Interpreter,
    exported: Source,
    known: Known,
    *,
    settings: Path,
    scratch: Path,
    observer: Observer = SILENT,
) -> lockfile.Lockfile:
    """The build requirements of a source that has no lock, as an index had them at some time, for one interpreter.

    Args:
        settings: the folder whose uv settings count; a stranger's own must not.

    Raises:
        BuildFailed, BadInput, IndexFailed: as :func:`make`.
        BadInput: uv is configured to build some packages whatever it is told.
    """
    places.refuse_no_binary(settings)
    wanted = replace(config, build_requires=(*config.build_requires, *known.pins))
    everything = Upgrade(everything=True)
    index = Index(settings, observer=observer)
    resolver = _Resolver(
        wanted,
        interpreter,
        known.when,
        everything,
        scratch,
        config.root,
        observer,
        settings,
        index,
        universal=False,
        with_sdist=False,
        constraints=known.constraints,
        stand_ins=_StandIns(index, interpreter, scratch, known),
    )
    return lockfile.parse(_build_lock(resolver, exported, scratch), BUILD_LOCK)


def unknown(root: Path, locks: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Those of some names that neither these locks nor the ones on disk hold, each with one that they do hold."""
    texts = [*locks.values(), *(read_text(root / name) for name in locks if (root / name).is_file())]
    known = {canonicalize_name(found) for text in texts for found, _ in _PINNED.findall(text)}
    absent = [name for name in names if canonicalize_name(name) not in known]
    return {name: next(iter(difflib.get_close_matches(canonicalize_name(name), known, n=1)), "") for name in absent}


def drift(root: Path, locks: dict[str, str]) -> str:
    """A unified diff from the locks on disk to these; empty when they are the same."""
    differences: list[str] = []
    for name, text in locks.items():
        path = root / name
        present = read_text(path) if path.is_file() else ""
        wanted = text.replace("\r\n", "\n")  # a Dockerfile may have either, and keeps it
        if present != wanted or not path.is_file():
            lines = present.splitlines(keepends=True), wanted.splitlines(keepends=True)
            differences += difflib.unified_diff(*lines, f"{name} (on disk)", f"{name} (resolved)", n=1)
    return "".join(differences)


def write(root: Path, locks: dict[str, str]) -> list[str]:
    """Write the locks that differ from what is on disk; their paths, relative to the project."""
    written = []
    for name, text in locks.items():
        path = root / name
        data = text.encode()
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, [data])
            written.append(name)
    return written


def _moment(config: Config, asked: str | None, upgrade: Upgrade) -> str:
    if asked is not None:
        return asked
    if config.exclude_newer is False:
        return ""
    if isinstance(config.exclude_newer, str):
        return config.exclude_newer
    present = config.root / BUILD_LOCK
    if present.is_file() and not upgrade:
        recorded = lockfile.read(present).exclude_newer
        if recorded:
            return recorded
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _says_the_same(path: Path, text: str) -> bool:
    return path.is_file() and _TIME.sub("", read_text(path)) == _TIME.sub("", text)


# --- the build requirements ------------------------------------------------------------------------


def _build_lock(resolver: "_Resolver", exported: Source, scratch: Path) -> str:
    """Resolve, ask the backend what else it needs, and resolve again until it needs nothing more."""
    config, interpreter, observer = resolver.config, resolver.interpreter, resolver.observer
    requires = list(config.build_requires)
    new: list[Requirement] = []
    index = resolver.index
    for _ in range(_ROUNDS):
        observer.step(f"resolving {BUILD_LOCK}")
        text = resolver.build(requires)
        pins = lockfile.parse(text, BUILD_LOCK).selected(interpreter.markers).values()
        files = index.choose(pins, interpreter)
        more = _sdists_require(files, index, scratch) or _project_requires(resolver, exported, files, index)
        known = {str(each) for each in requires}
        new = [each for each in more if str(each) not in known]
        if not new:
            return text
        requires += sorted(new, key=str)
    raise BuildFailed(
        f"The build requirements of {config.root} don't come to an end: after {_ROUNDS} rounds the backend still asks "
        f"for {', '.join(str(each) for each in new)}.",
        "This is a defect of the build backend or of setup.py.",
    )


def _sdists_require(files: Sequence[LockedFile], index: Index, scratch: Path) -> list[Requirement]:
    """What the locked files that are sdists need to be built themselves, if that isn't locked yet."""
    sdists = [file for file in files if not file.is_wheel]
    index.fetch(sdists, scratch)
    locked = {file.name: file for file in files}
    wanted = []
    for file in sdists:
        for requirement in sdistfile.requires_to_build(scratch / file.filename):
            found = locked.get(requirement.name.lower().replace("_", "-"))
            if found is None or not requirement.specifier.contains(found.version, prereleases=True):
                wanted.append(requirement)
    return wanted


def _project_requires(
    resolver: "_Resolver", exported: Source, files: Sequence[LockedFile], index: Index
) -> tuple[Requirement, ...]:
    config, interpreter, observer = resolver.config, resolver.interpreter, resolver.observer
    observer.step("asking the backend what it needs")
    readable = [interpreter.prefix, *exported.objects, *toolchain.shown(config)]
    with open_box(
        config.wheel.sandbox,
        Surroundings(),
        readable=readable,
        source_size=exported.size,
        memory=config.wheel.memory,
        timeout=config.wheel.timeout,
    ) as box:
        folders: dict[str, backend.What] = {"src": "wheel"}
        if resolver.with_sdist:
            folders["asked"] = "sdist"
        for folder in folders:  # of its own, as what one hook writes isn't the other's business
            source.place(exported, box.outside(folder), "sorted")
        backend.prepare(box, config, interpreter, files, index, observer)
        variables = backend.environment_of(box, config, interpreter, exported.epoch)
        answers = [
            backend.requires_to_build(
                box, config, backend.inside(box, folder, exported.subdirectory), variables, what=what, observer=observer
            )
            for folder, what in folders.items()
        ]
        return tuple({str(each): each for answer in answers for each in answer}.values())


# --- uv --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Resolver:
    """`uv pip compile`, as this project's locks need it.

    uv has a backend say what pyproject.toml doesn't, and backends write where they run: that is an export, ``here``.
    uv itself runs in ``settings``, the folder where its settings are looked for.

    Attributes:
        universal: whether the build requirements are resolved for every Python that the project admits.
        with_sdist: whether what the backend needs for an sdist is locked too, beside what it needs for a wheel.
        constraints: lines that limit the versions, and are above ``when``.
        stand_ins: what is known of releases without a wheel, where uv must not build them to learn it: it would do so
            outside of any sandbox.
    """

    config: Config
    interpreter: Interpreter
    when: str
    upgrade: Upgrade
    scratch: Path
    here: Path
    observer: Observer
    settings: Path
    index: Index
    universal: bool = True
    with_sdist: bool = True
    constraints: str = ""
    stand_ins: "_StandIns | None" = None

    def build(self, requires: Iterable[Requirement]) -> str:
        requires = list(requires)
        for each in requires:
            if each.url:  # uv would fetch it and run what it finds there
                raise _is_url(f"{each.name} @ {each.url.partition('://')[0]}")
        lines = "".join(f"{each}\n" for each in requires)
        body = self._compile(["-"], self._universal(), BUILD_LOCK, stdin=lines)
        title = f"The build requirements of {self._name}, exact and hashed"
        return self._headed(title, _STDIN.sub(r"\1\2 build-system.requires", body))

    def runtime(self, selection: Selection) -> str:
        inputs, options = self._selected(selection)
        what = f"The requirements of {selection.name or self._name}, exact and hashed"
        if not inputs:
            return self._headed(what, "")
        return self._headed(what, self._compile(inputs, options, selection.output))

    def pylock(self, selection: Selection, locked: str) -> str:
        """The same pins in the format of PEP 751. It holds the URLs that the format asks for."""
        _, options = self._selected(selection, groups=False)
        text = self._compile(["-"], [*options, "--no-deps"], "pylock.toml", stdin=locked, fresh=True)
        for url in re.findall(r'"(\w+://[^"]*)"', text):
            if "@" in url.partition("://")[2].partition("/")[0]:
                raise BadInput("uv put a credential into pylock.toml; nothing was written.")
        return text

    @property
    def _name(self) -> str:
        return self.config.name or self.config.root.resolve().name

    def _headed(self, title: str, body: str) -> str:
        header = f"# {title}.\n# Written by `reprobuild lock`; change pyproject.toml and run it again instead.\n"
        if self.when:
            header += f"# exclude-newer: {self.when}\n"
        if "://" in body:
            line = next(line for line in body.splitlines() if "://" in line)
            raise _is_url(line.strip().partition("://")[0])
        return header + body

    def _universal(self) -> list[str]:
        return ["--universal", "--python-version", self._lowest_python()] if self.universal else []

    def _lowest_python(self) -> str:
        """The oldest minor version that requires-python admits; without one, the interpreter's own."""
        own = ".".join(self.interpreter.version.split(".")[:2])
        if not self.config.requires_python:
            return own
        admitted = SpecifierSet(self.config.requires_python)
        minors = (f"3.{minor}" for minor in range(7, 40))
        return next((each for each in minors if admitted.contains(f"{each}.99") or admitted.contains(each)), own)

    def _selected(self, selection: Selection, *, groups: bool = True) -> tuple[list[str], list[str]]:
        manifest, setup = self.here / "pyproject.toml", self.here / "setup.py"
        if not manifest.is_file() or (not self.config.has_metadata and setup.is_file()):
            manifest = setup
        inputs = [str(manifest)] if selection.project else []
        if groups:
            for group in selection.groups:
                inputs += ["--group", f"{self.here / 'pyproject.toml'}:{group}"]
        options: list[str] = []
        if groups:
            for extra in selection.extras:
                options += ["--extra", extra]
        if selection.platform:
            options += ["--python-platform", selection.platform]
            options += ["--python-version", selection.python or self._lowest_python()]
        elif selection.python:
            options += ["--universal", "--python-version", selection.python]
        else:
            options += self._universal()
        return inputs, options

    def _compile(
        self, inputs: Sequence[str], options: Sequence[str], output: str, *, stdin: str = "", fresh: bool = False
    ) -> str:
        with scratch_folder(self.scratch, "compile-") as folder:
            target = folder / Path(output).name
            present = self.config.root / output
            if present.is_file() and not self.upgrade.everything and not fresh:
                target.write_text(read_text(present), encoding="utf-8")
            argv = ["uv", "pip", "compile", *inputs, *options, "--generate-hashes", "--no-header", "--no-sources"]
            argv += ["--annotation-style", "split", "--quiet", "--no-progress", "--output-file", str(target)]
            argv += ["--python", str(self.interpreter.executable)]
            if self.when and not fresh:
                argv += ["--exclude-newer", self.when]
            if self.stand_ins:
                argv += ["--no-build"]
            if self.constraints:
                (folder / "named.txt").write_text(self.constraints, encoding="utf-8")
                argv += ["--constraints", str(folder / "named.txt")]
            for line in self.constraints.splitlines() if self.when and not fresh else ():
                argv += ["--exclude-newer-package", f"{Requirement(line).name}={_NO_LIMIT}"]
            for name in self.upgrade.names:
                argv += ["--upgrade-package", name]
            if output != BUILD_LOCK:
                argv += ["--build-constraints", str(self.scratch / BUILD_LOCK)]

            def run() -> str:
                self._run_uv(argv, folder, stdin)
                return read_text(target)

            return self._without_paths(self.stand_ins.settle(run, target) if self.stand_ins else run())

    def _without_paths(self, text: str) -> str:
        """uv says where a requirement comes from: of an export, which is elsewhere each time."""
        for path in (self.here, os.path.relpath(self.here, self.settings)):
            text = text.replace(f"({path}/", "(")
        return text

    def _run_uv(self, argv: Sequence[str], temporary: Path, stdin: str) -> None:
        secrets = places.secrets(self.settings)

        def on_line(line: str) -> None:
            self.observer.line(redacted(line, secrets))

        links = [self.stand_ins.folder] if self.stand_ins else []  # --find-links would hide those of the variable
        environment = process.tool_environment({"TMPDIR": str(temporary), **places.paths_from_here(*links)})
        try:
            process.run(argv, env=environment, cwd=self.settings, stdin=stdin.encode(), on_line=on_line)
        except process.ToolFailed as error:
            raise _uv_failed(redacted(error.output.strip(), secrets)) from None


class _StandIns:
    """By which uv learns without running code what a release without a wheel requires: wheels of metadata alone.

    Those of the newest releases come first, since a resolver goes back to whatever it is offered, and with no
    requirements: only what uv chooses is read.

    Attributes:
        folder: where they are, a folder of links.
    """

    def __init__(self, index: Index, interpreter: Interpreter, scratch: Path, known: Known) -> None:
        self.folder = scratch / "stand-ins"
        self.folder.mkdir()
        self._index = index
        self._interpreter = interpreter
        self._scratch = scratch
        self._when = known.when
        self._timeless = {canonicalize_name(Requirement(line).name) for line in known.constraints.splitlines()}
        self._waiting: dict[str, list[tuple[str, str]]] = {}
        self._unread: dict[tuple[str, str], str] = {}
        self._sdists: dict[tuple[str, str], LockedFile] = {}

    def settle(self, run: Callable[[], str], target: Path) -> str:
        """Have uv resolve until all that it chooses is known; what it says then, with the sdists' own digests.

        Args:
            run: runs it, and gives what it wrote to ``target``.
        """
        for _ in range(_RESOLUTIONS):
            target.unlink(missing_ok=True)  # it would prefer the versions that it finds there
            try:
                text = run()
            except BuildFailed as error:
                if not self._offer_more({canonicalize_name(name) for name in _WHEELS_WANTED.findall(error.reason)}):
                    raise
                continue
            chosen = [pin for pin in _PINNED.findall(text) if pin in self._unread]
            if not chosen:
                return self._with_own_digests(text)
            for name, version in chosen:
                self._read(name, version)
        raise BuildFailed(f"{UNRESOLVED}: too many releases without a wheel would have to be read.")

    def _offer_more(self, names: Iterable[str]) -> bool:
        """Offer the newest release of each new name, else as many more of each name as are offered already."""
        new = [name for name in names if name not in self._waiting]
        for name in new:
            before = "" if name in self._timeless else self._when
            found = self._index.without_wheel(name, self._interpreter, before)
            fitting = [item for item in found.items() if sdistfile.fits(name, item[0])]
            self._waiting[name] = sorted(fitting, key=lambda item: _preferred(item[0]))
        return self._offer(new) or self._offer(names)

    def _offer(self, names: Iterable[str]) -> bool:
        more = False
        for name in names:
            waiting = self._waiting[name]
            offered = sum(known == name for known, _ in [*self._unread, *self._sdists])
            for _ in range(min(len(waiting), max(1, offered))):
                version, python = waiting.pop()
                sdistfile.write_stand_in(self.folder, name, version, python)
                self._unread[name, version] = python
                more = True
        return more

    def _read(self, name: str, version: str) -> None:
        sdist = self._index.sdist_of(name, version)
        self._index.fetch([sdist], self._scratch)
        try:
            requires = sdistfile.requires_to_run(self._scratch / sdist.filename, self._scratch)
        except BadInput as error:  # another guess may do without it
            raise BuildFailed(error.reason, error.remedy) from error
        sdistfile.write_stand_in(self.folder, name, version, self._unread.pop((name, version)), requires)
        self._sdists[name, version] = sdist

    def _with_own_digests(self, text: str) -> str:
        for (name, version), sdist in self._sdists.items():
            stand_in = sdistfile.stand_in(self.folder, name, version)
            text = text.replace(str(Digest.of_file(stand_in)), str(sdist.digest))
        return text


def _preferred(version: str) -> tuple[bool, Version]:
    """By which a resolver would sort releases, the one that it takes first last."""
    parsed = Version(version)
    return not parsed.is_prerelease, parsed


def _is_url(start: str) -> BadInput:
    return BadInput(
        f"The requirement {start}://… is a URL, and a lock holds names, versions and hashes alone.",
        "Publish it to an index, or name a released version.",
    )


def _uv_failed(output: str) -> IndexFailed | BuildFailed:
    if _UNREACHABLE.search(output):
        return IndexFailed(f"uv can't reach the index:\n{output}", "Check the network and uv's index settings.")
    remedy = "Loosen the requirement that uv names."
    if "exclude-newer" in output or "upload" in output:
        remedy = (
            "The index may not tell upload times: set exclude-newer = false in [tool.reprobuild], or lock as of a "
            "later time with --upgrade."
        )
    return BuildFailed(f"{UNRESOLVED}:\n{output}", remedy)


def require_satisfied(
    locked: lockfile.Lockfile, requirements: Iterable[Requirement], interpreter: Interpreter, who: str
) -> None:
    """Raise LockStale unless the build lock satisfies some requirements.

    Args:
        who: who has these requirements, for the message.
    """
    problems = locked.unsatisfied(requirements, interpreter.markers)
    if problems:
        raise LockStale(
            f"{BUILD_LOCK} doesn't hold what {who} asks for: {'; '.join(problems)}.",
            "Run `reprobuild lock` and commit the result.",
        )
