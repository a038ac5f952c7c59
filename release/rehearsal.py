#!/usr/bin/env python3
"""A whole release on this machine, as release.yml does it, each job in a clone and a home of its own.

Nothing outside is written to: registry, index, advisories and Sigstore are those of release/services.py.
Every step is the recipe that the workflow runs. A step whose inputs, by digest, are those of an earlier run is not done
again, so that after a failure the release goes on where it was. Ends with a table of what was released.

What differs from the real one: the image `cli` alone, on Debian in place of its base; that is a commit on top of the
one that is released.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import services as local  # this file is run from its folder's path
from steps import Release

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "example/reprobuild"
#: What a job doesn't inherit from whoever runs this.
_OF_OTHERS = tuple(
    "REPROBUILD_ RELEASE_ GITHUB_ ACTIONS_ SIGSTORE_ DOCKER_ XDG_ GIT_ VIRTUAL_ENV MAKE MFLAGS PYTHON JUST_".split()
)
_KEPT = {"GIT_SSL_CAINFO"}
BUILT = ("*.whl", "*.tar.gz", "*.intoto.json")
#: Of a layout, what stays as it was written; its index grows with each statement.
LAYOUT = ("cli/blobs/**/*",)
IMAGE = "cli/**/*"
POLICIES = ("policy.toml", "policy-release.toml")
VOTES = ("*.rebuild.*.sigstore.json",)
#: When the commit that puts the other base in was made: the same commit gives the same digests.
WHEN = "1790856000 +0000"


class Failed(Exception):
    """A step didn't end well.

    Attributes:
        code: its exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Actor:
    """A machine of the CI: a clone, a home, a umask, and who it is to Sigstore.

    Attributes:
        workflow: the file of the workflow, if the job may have an identity.
        key: whether it signs with a key of its own instead.
    """

    name: str
    umask: int = 0o022
    workflow: str = ""
    key: bool = False


@dataclass(frozen=True)
class Step:
    """One recipe on one machine, or several in a row.

    Attributes:
        reads: what it begins with, as (machine, patterns) pairs; what is on another machine is copied.
        makes: what it leaves.
        fresh: it begins with an empty `dist`.
        drops: what it removes before it copies.
        always: it asks about the present, so that it is never skipped.
        audits, signs, pushes: it depends on the advisories, on the Sigstore, or on the registry, that are there now.
        uploads: it logs in to the index.
    """

    recipes: tuple[str, ...]
    actor: str
    reads: tuple[tuple[str, tuple[str, ...]], ...] = ()
    makes: tuple[str, ...] = ()
    arguments: str = ""
    drops: tuple[str, ...] = ()
    fresh: bool = False
    always: bool = False
    audits: bool = False
    signs: bool = False
    pushes: bool = False
    uploads: bool = False

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{' '.join(self.recipes)} ({self.actor})"


BUILDER, RUNNER, SIGNER, VOTER, REBUILDER, USER = ACTORS = (
    Actor("builder"),
    Actor("runner", 0o027),
    Actor("signer", workflow="release.yml"),
    Actor("voter", 0o077, workflow="vote.yml"),
    Actor("rebuilder", 0o002, key=True),
    Actor("user", 0o077),
)


def phases() -> Iterator[tuple[Step, ...]]:
    """The steps in their order; those of one phase run at the same time."""
    yield (Step(("check",), "builder", audits=True),)
    for recipe, pattern in (("wheel", "*.whl*"), ("sdist", "*.tar.gz*")):
        yield tuple(Step((recipe,), name, makes=(pattern,)) for name in ("builder", "runner"))
    both = (("builder", BUILT), ("runner", BUILT))
    yield (Step(("compare",), "builder", both, arguments="{builder} {runner}"),)
    yield (Step(("images",), "builder", makes=LAYOUT),)
    built = (("builder", (*BUILT, IMAGE)),)
    signed = (IMAGE, "*.cdx.json", "*.sigstore.json", "*.attestation", *BUILT)
    yield (Step(("sbom", "sign"), "signer", built, signed, fresh=True, audits=True, signs=True),)
    yield (Step(("push",), "signer", (("signer", (IMAGE,)),), ("images.json",), pushes=True),)
    theirs = (("signer", (*BUILT, "images.json")),)
    yield tuple(
        Step(("vote",), name, theirs, VOTES, fresh=True, signs=True, pushes=True) for name in ("voter", "rebuilder")
    )
    yield (Step(("policy",), "user", makes=POLICIES, arguments="{key}"),)
    votes = (("voter", VOTES), ("rebuilder", VOTES))
    everything = (("signer", ("*",)), *votes)
    yield (Step(("verify",), "user", everything, ("release.json",), drops=VOTES, always=True),)
    decided = (("user", (*POLICIES, "release.json")), *votes)
    yield (Step(("publish",), "signer", decided, drops=VOTES, always=True, uploads=True),)
    yield (Step(("try",), "user", always=True),)
    yield (Step(("notes",), "user", always=True),)


@dataclass
class Outcome:
    """How a step ended."""

    step: str
    status: str
    seconds: float = 0.0
    code: int = 0


@dataclass
class Rehearsal:
    """One release.

    Attributes:
        state: the folder where everything lies, and what a second run goes on from.
        source: the repository whose HEAD is released.
        signer: whom the job that signs is to Sigstore, in place of the workflow that the policy trusts.
        repository: below which the images go in the registry.
    """

    state: Path
    source: Path
    services: local.Services
    signer: str = f"{REPOSITORY}/.github/workflows/release.yml"
    repository: str = "reprobuild"
    outcomes: list[Outcome] = field(default_factory=list)
    running: set[subprocess.Popen[str]] = field(default_factory=set)
    ended: bool = False

    def run(self) -> Json:
        """All of it, until a step fails; the report, which also lies in the state's folder."""
        for name in ("log", "homes", "downloads"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        commit, stopped = self.commit(), None
        try:
            for phase in phases():
                with ThreadPoolExecutor(len(phase)) as pool:
                    waiting = [pool.submit(self.step, step, commit) for step in phase]
                    try:
                        for each in waiting:
                            each.result()
                    except Failed:
                        raise
                    except BaseException:
                        self.end()  # before the pool waits for them
                        raise
        except Failed as why:
            stopped = {"message": str(why), "code": why.code}
        report = {
            "commit": commit,
            "passed": stopped is None,
            "stopped": stopped,
            "steps": [asdict(each) for each in self.outcomes],
            "artifacts": [] if stopped else self.artifacts(),
        }
        (self.state / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        return report

    def end(self) -> None:
        """End the steps that still run, and let none begin."""
        self.ended = True
        for each in list(self.running):
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGTERM)

    def artifacts(self) -> list[Json]:
        """What was released, as `verify` wrote it down, and that it is published."""
        found: list[Json] = json.loads((self.dist("user") / "release.json").read_text())["artifacts"]
        for each in found:
            ran = "ran" if self.services.has_docker else "not run: no Docker here"
            each["published"] = f"tagged, {ran}" if each["where"] else "uploaded"
            if each["name"].endswith(".whl"):
                each["published"] += ", installed by pip and uv, ran"
        return found

    # --- The commit ----------------------------------------------------------------------------------------------

    def commit(self) -> str:
        """A clone of the source with one commit more, which puts the base of the tests in; the commit."""
        folder = self.state / "source"
        if not folder.exists():
            git(self.state, "clone", "--quiet", "--no-local", "--no-checkout", str(self.source), str(folder))
        git(folder, "fetch", "--quiet", "origin", "HEAD")
        git(folder, "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
        replace(folder / "images/cli/Dockerfile", r"^FROM .*$", f"FROM {self.services.base}")
        settings = '[tool.reprobuild.images.cli]\npython = "3.11"\ninterpreter = "/usr/bin/python3.11"'
        replace(folder / "pyproject.toml", r"^\[tool\.reprobuild\.images\.cli\]$", settings)
        git(folder, "commit", "--quiet", "--all", "--message", "The base of the rehearsal")
        return git(folder, "rev-parse", "HEAD")

    def clone(self, actor: str, commit: str) -> Path:
        """A machine's clone, at the commit; what an older one built there is gone."""
        folder = self.state / actor
        if not folder.exists():
            git(self.state, "clone", "--quiet", "--no-local", "--no-checkout", str(self.state / "source"), str(folder))
        if not (folder / "justfile").exists() or git(folder, "rev-parse", "HEAD") != commit:
            git(folder, "fetch", "--quiet", "origin", commit)
            git(folder, "checkout", "--quiet", "--force", "--detach", commit)
            shutil.rmtree(folder / "dist", ignore_errors=True)
        return folder

    def dist(self, actor: str) -> Path:
        """Where a machine's artifacts are."""
        return self.state / actor / "dist"

    # --- One step ------------------------------------------------------------------------------------------------

    def step(self, step: Step, commit: str) -> None:
        """Do it, unless it was done with the same inputs and what it made is still there.

        Raises:
            Failed: it ended with an error.
        """
        folder, settings = self.clone(step.actor, commit), self.settings(step)
        key = self.key(step, commit, settings)
        path = self.state / "log" / f"{step.name.replace(' ', '-')}.json"
        done: Json = json.loads(path.read_text()) if path.exists() else {}
        there = self.digests(step.actor, step.makes)  # and later steps may have laid more beside it
        if not step.always and done.get("key") == key and done["made"].items() <= there.items():
            self.outcomes.append(Outcome(step.name, "as before"))
            say(f"as before  {step.name}")
            return
        path.unlink(missing_ok=True)
        self.bring(step)
        began = time.monotonic()
        code = self.make(step, folder, settings, path.with_suffix(".log"))
        took = round(time.monotonic() - began, 1)
        if code and self.ended:
            self.outcomes.append(Outcome(step.name, "stopped", took, code))
            say(f"stopped    {step.name}, {took} s")
            raise Failed(f"{step.name} was stopped", code)
        self.outcomes.append(Outcome(step.name, "failed" if code else "done", took, code))
        if code:
            said = path.with_suffix(".log").read_text().splitlines()[-40:]
            say(f"failed     {step.name}, {took} s\n" + "\n".join(f"    {line}" for line in said))
            raise Failed(f"{step.name} ended with {code}: {path.with_suffix('.log')}", code)
        say(f"done       {step.name}, {took} s")
        path.write_text(json.dumps({"key": key, "made": self.digests(step.actor, step.makes)}))

    def bring(self, step: Step) -> None:
        """Lay out what a step begins with, as a CI hands files from job to job."""
        there = self.dist(step.actor)
        if step.fresh:
            shutil.rmtree(there, ignore_errors=True)
        there.mkdir(exist_ok=True)
        for path in matching(there, step.drops):
            path.unlink()
        for actor, patterns in step.reads:
            if actor == step.actor or step.recipes == ("compare",):  # which reads them where they are
                continue
            for path in matching(self.dist(actor), patterns):
                target = there / path.relative_to(self.dist(actor))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    def make(self, step: Step, folder: Path, settings: dict[str, str], log: Path) -> int:
        """Run its recipes; the exit code of the last command that failed, as it said, or 0."""
        places = {each.name: str(self.dist(each.name)) for each in ACTORS}
        arguments = step.arguments.format(**places, key=self.state / "homes" / "rebuilder" / "rebuilder.pub")
        umask = next(each.umask for each in ACTORS if each.name == step.actor)
        targets = [f"release-{recipe}" for recipe in step.recipes]
        with log.open("w") as out:
            process = subprocess.Popen(
                ["make", "-f", "Makefile.ci", *targets, f"ARGS={arguments}"],
                cwd=folder,
                env=settings,
                umask=umask,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # so that it can be ended with all that it has started
            )
            self.running.add(process)
            try:
                if self.ended:  # meanwhile
                    self.end()
                code = process.wait()
            finally:
                self.running.discard(process)
        if not code:
            return 0
        # make has exit codes of its own; just says the step's.
        said = re.findall(
            r"^error: recipe `\S+` failed on line \d+ with exit code (\d+)$", log.read_text(), re.MULTILINE
        )
        return int(said[-1]) if said else code

    def settings(self, step: Step) -> dict[str, str]:
        """The environment of a step."""
        actor = next(each for each in ACTORS if each.name == step.actor)
        home, services = self.state / "homes" / actor.name, self.services
        if not home.exists():
            home.mkdir()
            copy_index_settings(home)
        own = {
            "HOME": str(home),
            # Downloads alone are shared: each file's hash is checked by whoever uses it.
            "UV_CACHE_DIR": str(self.state / "downloads" / "uv"),
            "PIP_CACHE_DIR": str(self.state / "downloads" / "pip"),
            "PYTHON": sys.executable,
            "RELEASE_REGISTRY": f"{services.registry}/{self.repository}",
            "RELEASE_IMAGES": "cli",
            "RELEASE_ENGINES": "both" if services.has_docker else "one",
            "RELEASE_SIGSTORE": str(services.sigstore.trust_config),
            "RELEASE_REPOSITORY": REPOSITORY,
            "RELEASE_OSV": services.osv,
            "RELEASE_INDEX": services.index.url,
            "RELEASE_SIMPLE": services.index.simple,
        }
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(_OF_OTHERS) or name in _KEPT
        }
        docker = {
            name: value for name, value in services.variables.items() if name.startswith(("DOCKER_", "CONTAINERD"))
        }
        path = {"PATH": f"{services.variables['PATH']}:{os.environ['PATH']}"}
        login = services.index.environment if step.uploads else {}
        return {**inherited, **docker, **path, **own, **login, **(self.identity(actor) if step.signs else {})}

    def identity(self, actor: Actor) -> dict[str, str]:
        """Who a machine is when it signs."""
        if actor.key:
            key = self.state / "homes" / actor.name / f"{actor.name}.key"
            if not key.exists():
                new = [sys.executable, "-m", "reprobuild", "keys", "new", str(key)]
                subprocess.run(new, check=True, capture_output=True)
            return {"RELEASE_SIGNER": str(key)}
        usual = f"{REPOSITORY}/.github/workflows/{actor.workflow}"
        workflow = self.signer if actor is SIGNER else usual
        claims = local.module(local.TESTS / "sigstore" / "stack.py").github(f"{workflow}@refs/tags/v{self.version}")
        return {"REPROBUILD_IDENTITY_TOKEN": self.services.sigstore.token(claims, seconds=3600)}

    @property
    def version(self) -> str:
        """The project's."""
        return Release(self.state / "source").version

    def key(self, step: Step, commit: str, settings: dict[str, str]) -> str:
        """A digest of all that a step depends on."""
        services = self.services
        parts: list[Any] = [commit, asdict(step)]
        parts += [sorted((name, value) for name, value in settings.items() if name.startswith("RELEASE_"))]
        parts += [self.digests(actor, patterns, but=step.makes) for actor, patterns in step.reads]
        parts += [sorted(map(file_digest, services.advisories.glob("*.json")))] if step.audits else []
        parts += [file_digest(services.sigstore.trusted_root)] if step.signs else []
        parts += [self.signer] if step.signs and step.actor == SIGNER.name else []
        parts += [services.instance] if step.pushes else []
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def digests(self, actor: str, patterns: Sequence[str], but: Sequence[str] = ()) -> dict[str, str]:
        """The digests of files in a machine's `dist`, by name."""
        folder = self.dist(actor)
        left_out = set(matching(folder, but))
        return {
            str(path.relative_to(folder)): file_digest(path)
            for path in matching(folder, patterns)
            if path not in left_out
        }


# --- Small things -----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Progress, for whoever watches."""
    sys.stderr.write(f"{text}\n")  # with print, two at a time would share a line
    sys.stderr.flush()


def git(folder: Path, *arguments: str) -> str:
    """Run git as nobody in particular; what it prints."""
    who = {
        f"GIT_{role}_{key}": "rehearsal@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")
    }
    when = {f"GIT_{role}_DATE": WHEN for role in ("AUTHOR", "COMMITTER")}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**outside, **who, **when}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"git {arguments[0]}: {done.stderr.strip()}", 1)
    return done.stdout.strip()


def replace(path: Path, pattern: str, by: str) -> None:
    """Replace a line that has to be there."""
    text, times = re.subn(pattern, lambda _: by, path.read_text(), count=1, flags=re.MULTILINE)
    if not times:
        raise Failed(f"{path} has no line like {pattern}.", 1)
    path.write_text(text)


def matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files below a folder that one of the patterns means."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def file_digest(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def copy_index_settings(home: Path) -> None:
    """The way to the package index is the machine's, not the user's."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for name in ("uv/uv.toml", "pip/pip.conf"):
        if (config / name).is_file():
            target = home / ".config" / name
            target.parent.mkdir(parents=True)
            shutil.copyfile(config / name, target)


def table(report: Json) -> str:
    """What was released, for people."""
    head = ("artifact", "digest", "level", "made again by", "verdict")
    rows = [
        (each["name"], f"{each['digest'][:23]}…", each["level"], f"{len(each['votes'])} signers", _verdict(each))
        for each in report["artifacts"]
    ]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def _verdict(artifact: Json) -> str:
    return f"{artifact['verdict']}, {artifact['published']}"


def main() -> int:
    """Rehearse a release; 0 if it went through, else the exit code of the step that stopped it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "rehearsal", help="to go on from the next time")
    parser.add_argument("--source", type=Path, default=ROOT, help="the repository whose HEAD is released")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    state = options.state.absolute()
    state.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with local.running(state) as services:
            report = Rehearsal(state, options.source.absolute(), services).run()
    except local.CantHere as why:
        say(f"release-dry-run: can't run here: {why}")
        return local.CANT_HERE
    except KeyboardInterrupt:
        say("release-dry-run: interrupted; run it again to go on")
        return 130
    print(json.dumps(report, indent=1) if options.json else table(report))
    if report["passed"]:
        return 0
    say(f"release-dry-run: stopped: {report['stopped']['message']}")
    return int(report["stopped"]["code"])


if __name__ == "__main__":
    sys.exit(main())
