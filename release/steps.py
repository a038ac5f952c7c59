#!/usr/bin/env python3
"""The steps of a release, one at a time, each a recipe of the justfile: `just release-STEP`.

Each step reads what lies in `dist`, does one thing with `reprobuild`, and leaves files there for the next, which may
run on another machine. It ends with the exit code of the command that stopped it. Nothing gets a name that others look
for, a tag or a version on an index, before `publish`, and that verifies everything first.

    steps.py STEP [ARGUMENT…]

RELEASE_REGISTRY   where images go: registry.example.org/team/reprobuild, each below it under its own name
RELEASE_IMAGES     which, with spaces between them; without it, all of pyproject.toml
RELEASE_ENGINES    `both` (the default): BuildKit builds each image, too, and all files are compared; `one`: it doesn't
RELEASE_SIGNER     a key's file; without it, the identity that the CI gives the job
RELEASE_SIGSTORE   an instance of Sigstore of one's own: its ClientTrustConfig
RELEASE_REPOSITORY OWNER/NAME of the repository whose workflows sign; without it, GITHUB_REPOSITORY
RELEASE_TAG        the git tag that is released, v and the version
RELEASE_OSV        a server of advisories other than the public one: the URL of its query
RELEASE_INDEX      where wheels and sdists are uploaded to; without it, where uv does that
RELEASE_SIMPLE     where they can be installed from then; without it, where pip and uv look
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Json = dict[str, Any]
#: Who may sign: the workflow that builds, and the one that only votes. Each is a party of its own.
WORKFLOWS = ("release.yml", "vote.yml")
_REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9_.-]+")


class Stopped(Exception):
    """The release can't go on.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Release:
    """What is released, and where to."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def setting(self, name: str, default: str = "") -> str:
        """One of the RELEASE_ variables; without a default it has to be there."""
        if value := self.settings.get(f"RELEASE_{name}") or default:
            return value
        raise Stopped(f"RELEASE_{name} isn't set; release/steps.py says what it is.")

    @property
    def out(self) -> Path:
        """Where the artifacts are."""
        return self.folder / "dist"

    @property
    def project(self) -> Json:
        """pyproject.toml."""
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))

    @property
    def version(self) -> str:
        """The project's."""
        return str(self.project["project"]["version"])

    @property
    def images(self) -> list[str]:
        """The names of the images that are released."""
        return sorted(self.settings.get("RELEASE_IMAGES", "").split() or self.project["tool"]["reprobuild"]["images"])

    def policy(self, *, strict: bool = True) -> Path:
        """The policy that everything has to pass before it is released; or the one for those who use the release."""
        return self.out / ("policy-release.toml" if strict else "policy.toml")

    @property
    def attest(self) -> list[str]:
        """The options for who signs what comes out."""
        return ["--attest", self.setting("SIGNER", "keyless"), *self._instance("--trust-config")]

    @property
    def sign(self) -> list[str]:
        """The options for who signs."""
        key = self.settings.get("RELEASE_SIGNER")
        return ["--key", key] if key else self._instance("--trust-config")

    @property
    def trust(self) -> list[str]:
        """The options for what is believed."""
        config = self.settings.get("RELEASE_SIGSTORE")
        return ["--policy", str(self.policy()), *(["--trusted-root", config] if config else [])]

    def _instance(self, option: str) -> list[str]:
        config = self.settings.get("RELEASE_SIGSTORE")
        return [option, config] if config and not self.settings.get("RELEASE_SIGNER") else []

    def one(self, pattern: str) -> Path:
        """The only file in `dist` of a kind."""
        found = sorted(self.out.glob(pattern))
        if len(found) != 1:
            has = ", ".join(each.name for each in found) or "none"
            raise Stopped(f"{self.out} should hold one {pattern}, and holds {has}.")
        return found[0]

    def files(self) -> list[Path]:
        """The wheel and the sdist."""
        return [self.one("*.whl"), self.one("*.tar.gz")]

    def layouts(self) -> list[Path]:
        """The OCI layout of each image."""
        return [self.out / name for name in self.images]

    def pushed(self) -> dict[str, str]:
        """Where each image is, by digest, as `push` left it."""
        path = self.out / "images.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if sorted(found) != self.images:
            raise Stopped(f"{path} names {sorted(found)} and {self.images} are released: push them first.")
        return {str(name): str(reference) for name, reference in found.items()}

    def run(self, *arguments: str | Path) -> None:
        """Run reprobuild; its output is the step's.

        Raises:
            Stopped: it failed; with its exit code.
        """
        call([sys.executable, "-m", "reprobuild", *map(str, arguments)], self.folder)

    def ask(self, *arguments: str | Path) -> Json:
        """The JSON that reprobuild prints."""
        command = [sys.executable, "-m", "reprobuild", *map(str, arguments), "--json"]
        said: Json = json.loads(call(command, self.folder, read=True))
        return said


def call(command: Sequence[str], folder: Path, *, read: bool = False, text: str | None = None) -> str:
    """Run a program; its standard output, if that is to be read.

    Args:
        text: what it reads from its standard input.

    Raises:
        Stopped: it failed.
    """
    name = shlex.join(["reprobuild", *command[3:]] if command[1:3] == ["-m", "reprobuild"] else command)
    if not read:
        print(f"$ {name}", flush=True)
    try:
        out = subprocess.PIPE if read else None
        done = subprocess.run(command, cwd=folder, input=text, stdout=out, text=True, check=False)
    except OSError as error:
        raise Stopped(f"`{name}` can't be run: {error.strerror}.") from error
    if done.returncode:
        raise Stopped(f"`{name}` ended with {done.returncode}.", max(done.returncode, 1))
    return done.stdout or ""


def digest(path: Path) -> str:
    """A file's, as everything here writes it."""
    with path.open("rb") as stream:
        found = sha256()
        while chunk := stream.read(1 << 20):
            found.update(chunk)
    return f"sha256:{found.hexdigest()}"


# --- The steps, in their order ----------------------------------------------------------------------------------------


def check(release: Release, *_: str) -> None:
    """The locks are fresh, nothing in them is known to be vulnerable; tag, version and changelog agree."""
    tag = release.settings.get("RELEASE_TAG")
    if tag and tag != f"v{release.version}":
        raise Stopped(f"The tag is {tag}, and pyproject.toml says {release.version}.")
    changes(release)
    # A tag of a base image that has moved since is no reason to stop: its digest is in the lock.
    release.run("lock", "--check", "--no-images")
    release.run("audit", *_advisories(release))


def wheel(release: Release, *_: str) -> None:
    """The wheel of the commit, built twice."""
    release.run("wheel")
    release.run("verify-wheel", release.one("*.whl"))


def sdist(release: Release, *_: str) -> None:
    """The sdist of the commit, built twice."""
    release.run("sdist")
    release.run("verify-sdist", release.one("*.tar.gz"))


def compare(release: Release, *folders: str) -> None:
    """What two machines built has the same bytes."""
    if len(folders) != 2:
        raise Stopped("compare takes two folders.")
    here, there = ({each.name: each for each in built_in(Path(folder))} for folder in folders)
    if not here or here.keys() != there.keys():
        raise Stopped(f"{folders[0]} holds {sorted(here)}, and {folders[1]} holds {sorted(there)}.")
    for name, path in here.items():
        if digest(path) != digest(there[name]):
            print(f"{name} differs between the two machines:", flush=True)
            release.run("diff", path, there[name])  # ends here, with what differs
            raise Stopped(f"{name} differs, though `reprobuild diff` saw nothing.")
        print(f"identical on both machines: {name}  {digest(path)}")


def built_in(folder: Path) -> list[Path]:
    """The wheels and sdists in a folder."""
    return sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])


def images(release: Release, *_: str) -> None:
    """Each image, built twice, and by the other engine, whose files have to be the same."""
    engines = release.setting("ENGINES", "both")
    if engines not in {"both", "one"}:
        raise Stopped(f"RELEASE_ENGINES is both or one, not {engines}.")
    for name, layout in zip(release.images, release.layouts(), strict=True):
        release.run("image", name)
        release.run("verify-image", layout, *(["--cross-engine"] if engines == "both" else []))


def sbom(release: Release, *_: str) -> None:
    """A bill of materials beside each file and each image."""
    for artifact in (*release.files(), *release.layouts()):
        release.run("sbom", artifact)


def sign(release: Release, *_: str) -> None:
    """The records, the bills of materials and what the audit said, signed."""
    for artifact in (*release.files(), *release.layouts()):
        release.run("sign", artifact, *release.sign)
        release.run("sbom", artifact, *release.attest)
        release.run("audit", artifact, *_advisories(release), *release.attest)


def push(release: Release, *_: str) -> None:
    """The images and all that is signed about them into the registry, without any tag."""
    registry, found = release.setting("REGISTRY").lower(), {}  # an owner's name may have capitals, a repository not
    for name, layout in zip(release.images, release.layouts(), strict=True):
        repository = f"{registry}/{name}"
        found[name] = f"{repository}@{release.ask('push', layout, repository)['digest']}"
        print(f"pushed {found[name]}")
    (release.out / "images.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def vote(release: Release, *_: str) -> None:
    """Make everything again from its record, on a machine that built none of it, and sign what came out."""
    again(release, *release.attest)


def again(release: Release, *options: str) -> None:
    """Make everything again from its record."""
    made_wheel, made_sdist = release.files()
    release.run("verify-wheel", made_wheel, *options)
    release.run("verify-sdist", made_sdist, *options)
    for reference in release.pushed().values():
        release.run("verify-image", reference, *options)


def policy(release: Release, *keys: str) -> None:
    """Write the policies: who may sign for this release, and that two of them have to have got the same bytes."""
    repository = release.setting("REPOSITORY", release.settings.get("GITHUB_REPOSITORY", ""))
    if not _REPOSITORY.fullmatch(repository):
        raise Stopped(f"{repository} is not OWNER/NAME.")
    release.out.mkdir(exist_ok=True)
    tag = release.setting("TAG", f"v{release.version}")
    for strict in (False, True):
        path = release.policy(strict=strict)
        path.write_text(policy_text(repository, tag, keys, strict=strict), encoding="utf-8")
        print(f"wrote {path}")


def policy_text(repository: str, tag: str, keys: Sequence[str] = (), *, strict: bool = False) -> str:
    """The policy of one release.

    Args:
        keys: files with public keys of others who rebuild releases.
        strict: also ask for a bill of materials and a clean audit of these days, as before publishing; who uses it
            a year later can't.
    """
    predicates = ["provenance", "rebuild", *(["sbom"] if strict else [])]
    lines = [f"keys = {json.dumps([str(Path(key).absolute()) for key in keys])}"] if keys else []
    lines += [f"predicates = {json.dumps(predicates)}", "rebuilds = 2"]
    lines += ['audit = { max-age = "2d" }'] if strict else []
    for workflow in WORKFLOWS:
        lines += ["", "[[github]]", f'repository = "{repository}"', f'workflow = "{workflow}"']
        lines += [f'ref = "refs/tags/{tag}"']
    return "\n".join(lines) + "\n"


def verify(release: Release, *_: str) -> None:
    """Hold everything against the policy, and write dist/release.json: what there is, by digest, and who vouches."""
    found = []
    for name, artifact in artifacts(release):
        release.run("verify", artifact, *release.trust)
        (said,) = release.ask("verify", artifact, *release.trust)["artifacts"]
        accepted = said["accepted"]
        votes = sorted({each["signer"] for each in accepted if "/rebuild/" in each["predicateType"]})
        found.append(
            {
                "name": name,
                "digest": said["digest"],
                "where": artifact if "@" in artifact else "",
                "level": "identical",  # the policy's, which `verify` has just held them against
                "votes": votes,
                "statements": sorted({each["predicateType"] for each in accepted}),
                "verdict": "verified",
            }
        )
    text = json.dumps({"version": release.version, "artifacts": found}, indent=1) + "\n"
    (release.out / "release.json").write_text(text, encoding="utf-8")


def artifacts(release: Release) -> Iterator[tuple[str, str]]:
    """What is released: names, and what to give to `verify`."""
    for path in release.files():
        yield path.name, str(path)
    yield from release.pushed().items()


def publish(release: Release, *_: str) -> None:
    """Once everything is verified: the files to the index, then the tags of the images.

    Run again, it goes on where it was: what is there with the same digest stays as it is.
    """
    verify(release)
    tags = {}
    for name, layout in zip(release.images, release.layouts(), strict=True):
        repository, wanted = release.pushed()[name].split("@")
        tags[layout] = f"{repository}:{release.version}"
        has = release.ask("push", layout, tags[layout], "--dry-run")["digest"]
        if has != wanted:
            raise Stopped(f"{layout} holds {has}, and {wanted} was verified.")
    where = release.settings.get("RELEASE_INDEX")
    simple = release.settings.get("RELEASE_SIMPLE")
    to = [*(["--publish-url", where] if where else []), *(["--check-url", simple] if simple else [])]
    release.run("publish", *release.files(), *to, *release.trust)
    for layout, tag in tags.items():
        release.run("push", layout, tag)


def try_out(release: Release, *_: str) -> None:
    """Install what was published with pip and with uv, by its hash; run it from there, and from the image."""
    made = release.one("*.whl")
    said = f"reprobuild {release.version}"
    with tempfile.TemporaryDirectory(prefix="release-try-") as scratch:
        own = Path(scratch, "own.txt")
        own.write_text(f"reprobuild=={release.version} --hash={digest(made)}\n", encoding="utf-8")
        wanted = ["--require-hashes", "-r", str(release.folder / "requirements.txt"), "-r", str(own)]
        simple = release.settings.get("RELEASE_SIMPLE")
        for tool in ("pip", "uv"):
            venv = Path(scratch, tool)
            call([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, str(venv)], Path(scratch))
            call([*_installer(tool, venv, simple), *wanted], Path(scratch))
            _expect([str(venv / "bin" / "reprobuild"), "--version"], said, Path(scratch))
            print(f"installed by {tool}, and runs: {said}")
    for name, reference in release.pushed().items():
        if name == "cli":
            _expect(["docker", "run", "--rm", "--network", "none", reference, "--version"], said, release.folder)
            print(f"runs from {reference}: {said}")


def _installer(tool: str, venv: Path, simple: str | None) -> list[str]:
    python = str(venv / "bin" / "python")
    if tool == "pip":
        return [sys.executable, "-m", "pip", "--python", python, *_install("--extra-index-url", simple)]
    return [sys.executable, "-m", "uv", "pip", *_install("--index", simple), "--python", python]


def _install(option: str, simple: str | None) -> list[str]:
    return ["install", "--quiet", *([option, simple] if simple else [])]


def _expect(command: Sequence[str], said: str, folder: Path) -> None:
    if (found := call(command, folder, read=True).strip()) != said:
        raise Stopped(f"`{shlex.join(command)}` said {found!r}, and not {said!r}.")


def notes(release: Release, *_: str) -> None:
    """The changelog's section, the digests, and how to verify them, as Markdown."""
    print(notes_text(release), end="")


def notes_text(release: Release) -> str:
    """The same."""
    path = release.out / "release.json"
    text = changes(release)
    if path.is_file():
        text += "\n" + how_to_verify(release, json.loads(path.read_text(encoding="utf-8"))["artifacts"])
    return text


def changes(release: Release) -> str:
    """The section of CHANGELOG.md about this version."""
    text = (release.folder / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    found = [each for each in sections if each.startswith(f"## [{release.version}]")]
    if not found:
        raise Stopped(f"CHANGELOG.md has no section for {release.version}.")
    return found[0].rstrip() + "\n"


def how_to_verify(release: Release, found: Sequence[Json]) -> str:
    """The digests, and the exact commands."""
    lines = ["### Digests", "", "| artifact | digest | made again by |", "|---|---|---|"]
    lines += [f"| `{each['name']}` | `{each['digest']}` | {len(each['votes'])} |" for each in found]
    lines += [
        "",
        "### Verify",
        "",
        "With `policy.toml`, the files and their `.sigstore.json` of this release in one folder:",
    ]
    lines += ["", "```sh"]
    lines += [f"reprobuild verify {each['where'] or each['name']} --policy policy.toml" for each in found]
    made = next(each["name"] for each in found if each["name"].endswith(".whl"))
    lines += [
        f"git checkout v{release.version} && reprobuild verify-wheel {made}    # and make it again yourself",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _advisories(release: Release) -> list[str]:
    url = release.settings.get("RELEASE_OSV")
    return ["--vulnerability-service", "osv", "--osv-url", url] if url else []


def announce(release: Release, *_: str) -> None:
    """The release on the git host: notes, files, evidence; run again, it brings what is there up to date."""
    tag = release.setting("TAG", f"v{release.version}")
    files = sorted(str(each) for each in release.out.iterdir() if each.is_file())
    with tempfile.TemporaryDirectory(prefix="release-notes-") as scratch:
        path = Path(scratch, "notes.md")
        path.write_text(notes_text(release), encoding="utf-8")
        listed = call(["gh", "release", "list", "--limit", "10000", "--json", "tagName"], release.folder, read=True)
        if any(each["tagName"] == tag for each in json.loads(listed)):
            call(["gh", "release", "edit", tag, "--notes-file", str(path)], release.folder)
            call(["gh", "release", "upload", tag, "--clobber", *files], release.folder)
        else:
            create = ["gh", "release", "create", tag, "--verify-tag", "--title", tag, "--notes-file", str(path)]
            call([*create, *files], release.folder)


def nightly(release: Release, *_: str) -> None:
    """What the newest tag released, made again from its locks with what was released then."""
    tag = newest(call(["git", "tag", "--list", "v[0-9]*"], release.folder, read=True).split())
    if not tag:
        print("nothing was released yet")
        return
    with tempfile.TemporaryDirectory(prefix="release-nightly-") as scratch:
        there = Path(scratch, tag)
        call(["git", "clone", "--quiet", "--branch", tag, str(release.folder), str(there)], release.folder)
        call(["gh", "release", "download", tag, "--dir", str(there / "dist")], release.folder)
        call(["make", "-f", "Makefile.ci", "release-again"], there)


def newest(tags: Sequence[str]) -> str:
    """The one of the highest version; git would put 1.0rc1 after 1.0. Empty where none is of a version."""
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415 - which reprobuild brings

    found: dict[Version, str] = {}
    for tag in tags:
        with contextlib.suppress(InvalidVersion):
            found[Version(tag.removeprefix("v"))] = tag
    return found[max(found)] if found else ""


def alarm(release: Release, *_: str) -> None:
    """An issue that says that the last release can't be made again, or one more line in the one that is open."""
    title = "The last release can't be made again"
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (release.settings.get(name, "") for name in names)
    body = f"{server}/{repository}/actions/runs/{run} tells what differs, or what could not be had."
    search = ["gh", "issue", "list", "--state", "open", "--search", f'in:title "{title}"', "--json", "number,title"]
    open_ones = [each for each in json.loads(call(search, release.folder, read=True)) if each["title"] == title]
    if open_ones:
        call(["gh", "issue", "comment", str(open_ones[0]["number"]), "--body", body], release.folder)
    else:
        call(["gh", "issue", "create", "--title", title, "--body", body], release.folder)


def login(release: Release, *_: str) -> None:
    """Log in to the registry, with the job's own token, which goes through standard input."""
    host = release.setting("REGISTRY").lower().partition("/")[0]
    user, token = (release.settings.get(name, "") for name in ("GITHUB_ACTOR", "REGISTRY_TOKEN"))
    call(["docker", "login", host, "--username", user, "--password-stdin"], release.folder, text=token)


STEPS: dict[str, Callable[..., None]] = {
    "check": check,
    "wheel": wheel,
    "sdist": sdist,
    "compare": compare,
    "images": images,
    "sbom": sbom,
    "sign": sign,
    "push": push,
    "policy": policy,
    "vote": vote,
    "again": again,
    "verify": verify,
    "publish": publish,
    "try": try_out,
    "notes": notes,
    "announce": announce,
    "nightly": nightly,
    "alarm": alarm,
    "login": login,
}


def main(arguments: Sequence[str]) -> int:
    """Do one step in this folder; the exit code."""
    if not arguments or arguments[0] not in STEPS:
        print(f"steps.py STEP, which is one of {', '.join(STEPS)}", file=sys.stderr)
        return 2
    name, *rest = arguments
    try:
        STEPS[name](Release(Path.cwd()), *rest)
    except Stopped as why:
        print(f"release-{name}: stopped: {why}", file=sys.stderr)
        return why.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
