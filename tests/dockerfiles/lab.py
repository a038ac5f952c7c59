"""Builds the Dockerfiles beside it with a real BuildKit, twice each, and tells what came out otherwise.

Each folder is a rule of `reprobuild lint`: ``bad`` and ``good`` are build contexts, ``case.json`` says what to expect.
What may change between two builds does: the clock by more than a year for programs that use the C library, the host
name, the times of the context's files, what a server on loopback serves, a branch of git's, and what a tag means.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: The time that everything in an image gets: 2026-10-01 12:00 UTC.
EPOCH = 1_790_856_000
#: What stands in the Dockerfiles for the registry of the tests, and for the digest of an image there.
HOST, DIGEST = "registry.example.org", "sha256:" + "0" * 64
TURNS = (1, 2)
FIELDS = "Architecture: all\nMaintainer: a <a@example.org>\nDescription: a test\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SECONDS = 1.1  # between two builds of a Dockerfile, for clocks that count seconds


@dataclass(frozen=True)
class Case:
    """A rule's folder.

    Attributes:
        differs: what the two images of ``bad`` differ in, as `reprobuild diff` says it.
        also: rules that ``bad`` breaks, too, because it can't be otherwise.
        unshown: why no build shows it; empty where one does.
        needs: a program of this machine that goes into the base.
        note: what is a stand-in.
    """

    rule: str
    differs: str = ""
    also: tuple[str, ...] = ()
    unshown: str = ""
    needs: str = ""
    note: str = ""

    @property
    def folder(self) -> Path:
        """Where ``bad`` and ``good`` are."""
        return HERE / self.rule


def cases() -> list[Case]:
    """All, in the order of their names."""
    found = []
    for path in sorted(HERE.glob("*/case.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        found.append(Case(path.parent.name, **{**said, "also": tuple(said.get("also", ()))}))
    return found


@dataclass(frozen=True)
class Image:
    """What a build made: its name in the registry, its digest, what its FROM said, and the diff IDs of its layers."""

    reference: str
    digest: str
    base: str
    layers: tuple[str, ...]


class Lab:
    """The engine, the registry, a server and a git daemon on loopback, and the bases.

    Args:
        docker: the environment of the docker command.
        bases: references of ``busybox`` and ``debian`` in the registry.
        clock: a library that shows programs another time; None for none.
    """

    def __init__(self, docker: Mapping[str, str], bases: Mapping[str, str], scratch: Path, clock: Path | None) -> None:
        self._environment = {**os.environ, **docker}
        self._bases = bases
        self._scratch = scratch
        self._clock = clock
        self._registry = bases["busybox"].partition("/")[0]
        self._name = f"lab/{uuid.uuid4().hex}"
        self._count = itertools.count(1)

    @contextmanager
    def open(self) -> Iterator[Lab]:
        """With its servers."""
        with ExitStack() as stack:
            self._site = stack.enter_context(serving(self._folder("site")))
            self._git = stack.enter_context(git_daemon(self._folder("git")))
            self._write_site()
            assert self._workbench  # made here, since two builds at once would make them twice
            assert self._moved
            yield self

    def build(self, case: Case, kind: str, turn: int, change: Callable[[str], str] = str) -> Image:
        """Build ``bad`` or ``good`` for the first or the second time; ``change`` is made to the Dockerfile.

        Raises:
            RuntimeError: it can't be built, with what BuildKit said.
        """
        text = change((case.folder / kind / "Dockerfile").read_text(encoding="utf-8"))
        context = self._context(case, kind, turn, text)
        (context / "Dockerfile").write_text(self._placed(text, turn), encoding="utf-8")
        arguments = {
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "BUILDKIT_SANDBOX_HOSTNAME": f"builder-{turn}",
            "SITE": self._site,
            "GIT": self._git,
            "PIP_INDEX_URL": f"{self._site}/moving/simple",
            "UV_DEFAULT_INDEX": f"{self._site}/moving/simple",
        }
        arguments = {
            name: value for name, value in arguments.items() if name in text or name.startswith(("SOU", "BUI"))
        }
        tag = context.name.partition("-")[0]
        # Nothing of an earlier build is used, and the fixtures need the server on loopback. What isn't stored can have
        # its times rewritten on the way to a registry, which moves nothing of the base; buildx then looks for the image
        # that wasn't stored, and ends with an error, so that whether it worked is asked of the registry.
        said = self._docker(
            "buildx", "build", "--no-cache", "--network=host", "--provenance=false", "--progress=plain",
            "--platform=linux/amd64", *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            f"--output=type=image,name={self._registry}/{self._name}:{tag},push=true,store=false,rewrite-timestamp=true,"
            "oci-mediatypes=true", str(context), check=False,
        )  # fmt: skip
        try:
            return self._image(tag, self._placed(text, turn).partition("FROM ")[2].partition("\n")[0])
        except LookupError:
            raise RuntimeError(said) from None

    def _image(self, tag: str, base: str) -> Image:
        raw = self._ask("GET", f"/v2/{self._name}/manifests/{tag}", None, {"Accept": MANIFEST})
        config = json.loads(self._ask("GET", f"/v2/{self._name}/blobs/{json.loads(raw)['config']['digest']}", None, {}))
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        return Image(f"{self._registry}/{self._name}@{digest}", digest, base, tuple(config["rootfs"]["diff_ids"]))

    def twice(self, case: Case) -> dict[str, tuple[Image, Image]]:
        """Build ``bad`` and ``good``, wait until clocks show another second, and build both again."""
        turns = []
        for turn in TURNS:
            began = time.monotonic()
            self.serve(turn)
            with ThreadPoolExecutor() as pool:
                turns.append(list(pool.map(lambda kind, turn=turn: self.build(case, kind, turn), ("bad", "good"))))
            time.sleep(max(0.0, SECONDS - (time.monotonic() - began)))
        (bad, good), (bad_again, good_again) = turns
        return {"bad": (bad, bad_again), "good": (good, good_again)}

    # What a build is given.

    def _context(self, case: Case, kind: str, turn: int, text: str) -> Path:
        context = self._scratch / f"{next(self._count)}-{case.rule}-{kind}-{turn}"
        shutil.copytree(case.folder / kind, context)
        for name, content in packages().items():
            if name in text:
                (context / name).write_bytes(content)
        if ".git" in text or "COPY . " in text:
            git(context, "init", "--quiet", "--initial-branch=main")
            git(context, "add", "--all")
            git(context, "commit", "--quiet", "--message=a state")
        for path in context.rglob("*"):
            if ".git" not in path.parts:
                os.utime(path, (EPOCH + turn * 100_000,) * 2)  # as in a checkout of a commit that is older
        return context

    def _placed(self, text: str, turn: int) -> str:
        """A Dockerfile with the references of this registry in place of the examples."""

        def place(match: re.Match[str]) -> str:
            name = match[1]
            if name == "base/moving":
                return self._moved[1] if match[3] else f"{self._registry}/{self._name}/moving{match[2] or ''}"
            return self._workbench[turn] if name == "base/workbench" else self._bases[name.rpartition("/")[2]]

        return re.sub(rf"{re.escape(HOST)}/([a-z/]+)(:[a-z0-9.]+)?(@{DIGEST})?", place, text)

    # What is served.

    def serve(self, turn: int) -> None:
        """Let the server, the branch and the tag show what they show at this turn."""
        link = self._folder("site") / "moving"
        link.unlink(missing_ok=True)
        link.symlink_to(f"turn-{turn}")
        repository = self._folder("git") / "demo"
        git(repository, "update-ref", "refs/heads/main", self._commits[turn - 1])
        self._tag(turn)

    def _write_site(self) -> None:
        site = self._folder("site")
        files = {"fixed/tool": "the tool\n", "fixed/install.sh": "echo installed > /installed\n"}
        for turn in TURNS:
            files[f"turn-{turn}/tool"] = f"the tool, release {turn}\n"
            files[f"turn-{turn}/install.sh"] = f"echo release {turn} > /installed\n"
        for name, text in files.items():
            write(site / name, text.encode())
        for turn in TURNS:
            write_index(site / f"turn-{turn}", [f"1.{n}" for n in range(turn)])
            write_archive(site / f"turn-{turn}" / "debian", f"1.{turn - 1}")
        write_archive(site / "fixed" / "debian" / "20261001T000000Z", "1.0")

    @cached_property
    def _commits(self) -> list[str]:
        """Two commits of a repository that the git daemon serves."""
        repository = self._folder("git") / "demo"
        repository.mkdir()
        git(repository, "init", "--quiet", "--initial-branch=main")
        found = []
        for turn in TURNS:
            write(repository / "demo.txt", f"state {turn}\n".encode())
            git(repository, "add", "--all")
            git(repository, "commit", "--quiet", f"--message=state {turn}")
            found.append(git(repository, "rev-parse", "HEAD"))
        git(repository, "checkout", "--quiet", "--detach")
        return found

    # The bases.

    @cached_property
    def _workbench(self) -> dict[int, str]:
        """Debian with git, pip, uv and openssl; in the second turn its settings ask for another clock."""
        folder = self._folder("workbench")
        (folder / "bin").mkdir()
        for program in ("git", "openssl"):
            if found := shutil.which(program):
                shutil.copy(found, folder / "bin" / program)
        shutil.copy(self._uv, folder / "bin" / "uv")
        install = [self._uv, "pip", "install", "--quiet", "--target", str(folder / "lib/pip"), "pip==25.3"]
        subprocess.run([*install, "--python", sys.executable], check=True, capture_output=True, timeout=300)
        if self._clock:
            shutil.copy(self._clock, folder / "lib/clock.so")
        script = folder / "bin/pip"
        script.write_text('#!/bin/sh\nPYTHONPATH=/usr/local/lib/pip exec python3 -B -m pip "$@"\n')
        script.chmod(0o755)
        settings = "PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1"
        start = f"FROM {self._bases['debian']}\nCOPY . /usr/local/\nENV {settings} PIP_TRUSTED_HOST=127.0.0.1\n"
        first = self._pushed(folder, start, "workbench")
        other = "ENV LD_PRELOAD=/usr/local/lib/clock.so\n" if self._clock else ""
        return {1: first, 2: self._pushed(self._folder("none"), f"FROM {first}\n{other}", "workbench")}

    @property
    def _uv(self) -> str:
        from uv import find_uv_bin  # noqa: PLC0415 - only where it is needed

        return str(find_uv_bin())

    @cached_property
    def _moved(self) -> dict[int, str]:
        """Two images, which a tag names one after the other."""
        made = {}
        start = f"FROM {self._bases['busybox']}\nCOPY release /release\n"
        for turn in TURNS:
            folder = self._folder(f"release-{turn}")
            write(folder / "release", f"{turn}\n".encode())
            made[turn] = self._pushed(folder, start, "moving", f":release-{turn}")
        return made

    def _tag(self, turn: int) -> None:
        """Let the tags of base/moving name the image of this turn."""
        digest = self._moved[turn].partition("@")[2]
        raw = self._ask("GET", f"/v2/{self._name}/moving/manifests/{digest}", None, {"Accept": MANIFEST})
        for tag in ("1", "latest"):
            self._ask("PUT", f"/v2/{self._name}/moving/manifests/{tag}", raw, {"Content-Type": MANIFEST})

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        connection = http.client.HTTPConnection(self._registry, timeout=60)
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        if answer.status >= 300:
            raise LookupError(f"{method} {path}: {answer.status} {said!r}")
        return said

    def _pushed(self, folder: Path, dockerfile: str, name: str, tag: str = "") -> str:
        """Build and push a base: its reference. The engine keeps it under the tag, and would take it from there."""
        path = self._scratch / f"{next(self._count)}.Dockerfile"
        path.write_text(dockerfile)
        told = path.with_suffix(".json")
        self._docker(
            "buildx", "build", "--provenance=false", "--platform=linux/amd64", f"--file={path}",
            f"--metadata-file={told}", str(folder),
            f"--output=type=image,name={self._registry}/{self._name}/{name}{tag},push=true,oci-mediatypes=true",
        )  # fmt: skip
        return f"{self._registry}/{self._name}/{name}@{json.loads(told.read_text())['containerimage.digest']}"

    def _docker(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["docker", *arguments], env=self._environment, capture_output=True, text=True, timeout=300, check=False
        )
        if check and done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return done.stderr[-3000:]

    def _folder(self, name: str) -> Path:
        folder = self._scratch / name
        folder.mkdir(exist_ok=True)
        return folder


# --- servers ---------------------------------------------------------------------------------------------------------


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def end_headers(self) -> None:
        """What an index says of files, so that pip keeps them."""
        self.send_header("Cache-Control", "max-age=600" if "/files/" in self.path else "no-store")
        super().end_headers()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server of files on loopback: its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def git_daemon(folder: Path) -> Iterator[str]:
    """A git server on loopback: its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        "git",
        "daemon",
        f"--base-path={folder}",
        "--export-all",
        "--listen=127.0.0.1",
        f"--port={port}",
        str(folder),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as daemon:
        try:
            yield f"git://127.0.0.1:{port}"
        finally:
            daemon.terminate()


def git(folder: Path, *arguments: str) -> str:
    """Run git with an identity and a time that are always the same."""
    who = {f"GIT_{role}_{key}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    when = {f"GIT_{role}_DATE": f"{EPOCH} +0000" for role in ("AUTHOR", "COMMITTER")}
    env = {**os.environ, **who, **when, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


# --- packages --------------------------------------------------------------------------------------------------------


def write(path: Path, data: bytes) -> None:
    """Write a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def wheel(version: str) -> bytes:
    """A wheel ``demo`` whose bytes depend on its version alone."""
    info = f"demo-{version}.dist-info"
    files = {
        "demo.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return out.getvalue()


def write_index(folder: Path, versions: list[str]) -> None:
    """A package index that offers these versions of ``demo``."""
    links = []
    for version in versions:
        name, data = f"demo-{version}-py3-none-any.whl", wheel(version)
        write(folder / "files" / name, data)
        links.append(f'<a href="../../files/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>')
    write(folder / "simple" / "demo" / "index.html", f"<!DOCTYPE html>{''.join(links)}".encode())


def deb(name: str, version: str, files: Mapping[str, str], postinst: str = "") -> bytes:
    """A Debian package whose bytes depend on what is in it alone."""
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a test\n"
    )
    members = {"debian-binary": b"2.0\n"}
    scripts = {"./control": control, **({"./postinst": f"#!/bin/sh\nset -e\n{postinst}\n"} if postinst else {})}
    members["control.tar.gz"] = packed(scripts, 0o755)
    members["data.tar.gz"] = packed(files, 0o644)
    out = b"!<arch>\n"
    for member, data in members.items():
        out += (
            f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return out


def packed(files: Mapping[str, str], mode: int) -> bytes:
    """A tar.gz of some files, with the folders that they are in."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
        for folder in sorted(folders):
            member = tarfile.TarInfo(f"./{folder}")
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            tar.addfile(member)
        for name, text in files.items():
            member = tarfile.TarInfo(name if name.startswith("./") else f"./{name}")
            member.size, member.mode, member.mtime = len(text.encode()), mode, EPOCH
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(raw.getvalue(), mtime=0)


def packages() -> dict[str, bytes]:
    """Files that a context gets if its Dockerfile names them."""
    identity = "tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id"
    return {
        "demo-1.0-py3-none-any.whl": wheel("1.0"),
        "hello_1.0_all.deb": deb("hello", "1.0", {"usr/share/hello/version": "1.0\n"}),
        "dbus_1.0_all.deb": deb("dbus", "1.0", {"usr/share/dbus-1/version": "1.0\n"}, identity),
    }


def write_archive(folder: Path, version: str) -> None:
    """An archive of apt's with one package."""
    data = deb("hello", version, {"usr/share/hello/version": f"{version}\n"})
    write(folder / f"hello_{version}_all.deb", data)
    entry = (
        f"Package: hello\nVersion: {version}\n{FIELDS}"
        f"Filename: ./hello_{version}_all.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    )
    write(folder / "Packages", entry.encode())
