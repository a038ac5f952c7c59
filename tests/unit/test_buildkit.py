"""The engine found or missed, and what is made of what it says; its part is played by tests/buildx/docker.py."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from reprobuild.cli.image import image as image_command
from reprobuild.digest import canonical_json
from reprobuild.errors import BadInput, BuildFailed, DigestMismatch, ExitCode, LockStale, ToolMissing
from reprobuild.image import engine as engines
from reprobuild.image.build import Choices
from reprobuild.image.buildkit import settle
from reprobuild.image.dockerfile import NeedsBuildKit
from reprobuild.image.engine import find
from reprobuild.image.make import Destinations, How, make
from reprobuild.image.outputs import Output
from reprobuild.image.verify import verify
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import OCI_CONFIG, Descriptor, Manifest, Platform

PROGRAM = Path(__file__).parents[1] / "buildx" / "docker.py"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
DIGEST = "sha256:" + "a" * 64
EPOCH = 1_600_000_000
INSPECTED = """Name:   own
Driver: {driver}

Nodes:
Name:             own0
Endpoint:         {endpoint}
Status:           running
BuildKit version: {version}
Platforms:        linux/amd64*, linux/amd64/v2
Labels:
 org.mobyproject.buildkit.worker.executor: oci
"""
RAN = "FROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY app.py /app/\nRUN touch /made\n"


def inspected(driver="docker-container", endpoint="unix:///own.sock", version="v0.13.2"):
    return {"text": INSPECTED.format(driver=driver, endpoint=endpoint, version=version)}


class Docker:
    """The program, as a test scripts it."""

    def __init__(self, folder):
        self.script = folder / "script.json"
        self.told = {"version": {"text": "github.com/docker/buildx v0.13.1 abc"}, "inspect": inspected()}
        self.says()

    def says(self, **more):
        self.told |= more
        self.script.write_text(json.dumps(self.told))

    @property
    def calls(self):
        path = self.script.with_name("calls.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def builds(self):
        """The builds but the trial."""
        found = [each for each in self.calls if each["arguments"][:2] == ["buildx", "build"]]
        return [each for each in found if any(word.startswith("--file=") for word in each["arguments"])]


@pytest.fixture
def docker(tmp_path, monkeypatch):
    folder = tmp_path / "docker"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {PROGRAM} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "BUILDX_BUILDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_SCRIPT", str(folder / "script.json"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    engines._found.cache_clear()
    yield Docker(folder)
    engines._found.cache_clear()


@pytest.fixture
def project(tmp_path, git):
    """A function that makes a project with one image."""

    def made(dockerfile, settings="", name="project"):
        folder = tmp_path / name
        (folder / "images" / "app").mkdir(parents=True)
        (folder / "pyproject.toml").write_text(
            f"[project]\nname = 'demo'\nversion = '1'\n[tool.reprobuild.images.app]\nproject = false\n{settings}"
        )
        (folder / "images" / "app" / "Dockerfile").write_text(dockerfile)
        (folder / "app.py").write_text("print('app')\n")
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "a state of the test")
        return folder

    return made


class Told:
    """An observer that remembers."""

    def __init__(self):
        self.steps, self.lines, self.warnings = [], [], []

    def step(self, message):
        self.steps.append(message)

    def line(self, text):
        self.lines.append(text)

    def warn(self, message):
        self.warnings.append(message)


def built(folder, engine="auto", observer=None, platforms=(AMD64,), builder="", **choices):
    to = Destinations((Output(folder.parent / "out", "latest", archived=False),))
    return make(
        folder,
        "app",
        Choices(platforms=platforms, **choices),
        to,
        how=How(engine, builder),
        observer=observer or Told(),
    )


# --- found or missed -----------------------------------------------------------------------------------


def test_an_engine_says_what_it_is_and_is_asked_once(docker):
    engine = find()
    assert (engine.name, engine.driver, engine.endpoint) == ("own", "docker-container", "unix:///own.sock")
    assert engine.versions == {"buildx": "0.13.1", "buildkit": "v0.13.2"}
    assert engine.runs(AMD64)
    assert not engine.runs(ARM64)
    number = len(docker.calls)
    assert find() == engine
    assert len(docker.calls) == number == 3


def test_another_host_is_another_engine(docker, monkeypatch):
    find()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    find()
    assert len(docker.calls) == 6


def test_credentials_of_an_endpoint_are_not_told(docker):
    docker.says(inspect=inspected(driver="remote", endpoint="tcp://me:secret@builder.example:1234?token=secret"))
    assert find().endpoint == "tcp://…@builder.example:1234?…"


def test_no_docker(tmp_path, monkeypatch, docker):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="'docker' is not on") as caught:
        find()
    assert "26" in caught.value.remedy


def test_no_buildx(docker):
    docker.says(version={"text": "docker: 'buildx' is not a docker command.", "exit": 1})
    with pytest.raises(ToolMissing, match="has no buildx") as caught:
        find()
    assert "buildx 0.13" in caught.value.remedy


@pytest.mark.parametrize(
    "said",
    [
        {"text": "Name: own\nDriver:\nError: Cannot connect to the Docker daemon at tcp://a:b@c."},
        {"text": "Name: own\nDriver: remote\nNodes:\nName: own0\nError: Cannot connect to it at tcp://a:b@c."},
        {"text": "ERROR: Cannot connect to the Docker daemon at tcp://a:b@c.", "exit": 1},
    ],
    ids=["told", "told of a node", "failed"],
)
def test_an_engine_that_is_not_there(docker, said):
    docker.says(inspect=said)
    with pytest.raises(ToolMissing, match=r"0\.13\.1 reaches no engine: Cannot connect .* tcp://…@c") as caught:
        find()
    assert "DOCKER_HOST" in caught.value.remedy


def test_a_builder_that_is_not_there(docker):
    docker.says(inspect={"text": 'ERROR: no builder "far" found', "exit": 1})
    with pytest.raises(ToolMissing, match='doesn\'t reach the builder far: no builder "far" found'):
        find("far")
    assert docker.calls[-1]["arguments"][-1] == "far"


def test_a_context_is_no_builder_to_buildx(docker):
    docker.says(build={"fails": 'ERROR: use `docker --context=far buildx` to switch to context "far"'})
    with pytest.raises(ToolMissing) as caught:
        find("far")
    assert caught.value.remedy == "It is a context of Docker: DOCKER_CONTEXT=far without DOCKER_HOST and --builder."


def test_an_old_buildkit_that_ignores_what_it_does_not_know(docker):
    docker.says(inspect=inspected(version="v0.0.0+unknown"), build={"old": True})
    with pytest.raises(ToolMissing, match=r"v0\.0\.0\+unknown\) ignores rewrite-timestamp") as caught:
        find()
    assert "BuildKit 0.13 or newer" in caught.value.reason


def test_an_engine_that_can_not_export(docker):
    docker.says(build={"fails": "OCI exporter is not supported for the docker driver"})
    with pytest.raises(ToolMissing, match=r"can't export an OCI image: .*not supported for the docker driver"):
        find()


@pytest.fixture
def daemon(docker, monkeypatch):
    """A Docker engine that answers what it is asked; the store that it says it has."""
    answers = {"Version": "26.1.5", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({**answers, "ApiVersion": "1.45"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_address[1]}")
        docker.says(inspect=inspected(driver="docker", endpoint="default", version="v0.0.0+unknown"))
        yield answers
        server.shutdown()
        thread.join()


def test_docker_itself_is_questioned(daemon):
    assert find().versions == {"docker": "26.1.5", "buildx": "0.13.1", "buildkit": "v0.0.0+unknown"}


@pytest.mark.parametrize("status", [None, [], [["Backing Filesystem", "extfs"]]], ids=str)
def test_docker_with_its_old_store(daemon, status):
    daemon.update(Version="20.10.24", DriverStatus=status)
    with pytest.raises(ToolMissing, match=r"Docker 20\.10\.24 keeps images in its old store") as caught:
        find()
    assert "containerd-snapshotter" in caught.value.remedy


def test_docker_that_does_not_answer(daemon, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(ToolMissing, match="of the builder own doesn't answer"):
        find()


def test_without_the_sdk(daemon, monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(ToolMissing, match="no Docker SDK") as caught:
        find()
    assert "reprobuild[docker]" in caught.value.remedy


# --- which engine --------------------------------------------------------------------------------------


def test_the_assembler_builds_what_runs_nothing(docker, project):
    told = Told()
    assert built(project("FROM scratch\nCOPY app.py /app/\n"), observer=told).built.engine == "assembler"
    assert docker.calls == []
    assert "building with the assembler: nothing has to be run" in told.steps


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("RUN true", ":2: RUN needs a machine to run on"),
        ("RUN --network=none --mount=type=cache,target=/c true", ":2: RUN needs"),
        ("COPY --exclude=a --exclude=b . /", ":2: COPY --exclude can't be assembled"),
        ("ADD --checksum=sha256:0 https://own.example/a /a", ":2: ADD --checksum can't"),
        ("ADD https://own.example/a /a", "would fetch it"),
        ("COPY --chmod=u=rwX app.py /", "is no octal number"),
        ("ONBUILD RUN true", "ONBUILD is for builds from this image"),
    ],
)
def test_buildkit_builds_what_the_assembler_can_not(docker, project, step, why):
    docker.says(build={"symbols": True})
    told = Told()
    made = built(project(f"FROM scratch\n{step}\n"), observer=told)
    assert made.built.engine == "buildkit"
    (said,) = [each for each in told.steps if each.startswith("building with")]
    assert why in said


def test_what_only_the_files_tell_needs_buildkit_too(docker, project, tmp_path, git):
    folder = project("FROM scratch\nADD data.tgz /data/\n")
    (folder / "data.tgz").write_bytes(b"\x1f\x8b\x08" + bytes(20))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "data")
    told = Told()
    assert built(folder, observer=told).built.engine == "buildkit"
    assert any("ADD would unpack" in each for each in told.steps)


def test_a_stage_that_the_target_does_not_need_decides_nothing(docker, project):
    folder = project("FROM scratch AS a\nRUN true\nFROM scratch AS b\nCOPY app.py /\n")
    assert built(folder).built.engine == "assembler"
    assert built(folder, target="a").built.engine == "buildkit"


def test_an_engine_that_is_asked_for_is_taken(docker, project):
    with pytest.raises(NeedsBuildKit):
        built(project(RAN), "assembler")
    assert built(project("FROM scratch\nCOPY app.py /\n", name="other"), "buildkit").built.engine == "buildkit"
    done = CliRunner().invoke(image_command, ["app", "--engine", "assembler", "--builder", "own"])
    assert isinstance(done.exception, BadInput)


# --- what it is asked to build -------------------------------------------------------------------------


def test_a_build_is_cold_and_without_network_or_evidence(docker, project, monkeypatch):
    monkeypatch.setenv("BUILDX_GIT_LABELS", "full")
    monkeypatch.setenv("BUILDX_CONFIG", "/own/buildx")
    monkeypatch.setenv("SECRET", "of the user")
    built(project("FROM scratch AS made\nARG A\n" + RAN[13:]), builder="own", target="made", build_args={"A": "b c"})
    (build,) = docker.builds
    words = build["arguments"]
    assert {"--no-cache", "--network=none", "--provenance=false", "--sbom=false"} <= {*words}
    assert {"--builder=own", "--target=made", "--build-arg=A=b c", "--platform=linux/amd64"} <= {*words}
    assert f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}" in words
    (output,) = [each for each in words if each.startswith("--output=")]
    assert "type=oci," in output
    assert output.endswith(",tar=false,rewrite-timestamp=true,oci-mediatypes=true,compression=gzip")
    assert build["environment"] == {"BUILDX_CONFIG": "/own/buildx"}


def test_the_record_says_how_it_was_built(docker, project):
    ((_, statement),) = built(project(RAN), network="host").built.images
    definition = statement["predicate"]["buildDefinition"]
    assert definition["internalParameters"] == {
        "engine": "buildkit",
        "versions": {"buildx": "0.13.1", "buildkit": "v0.13.2"},
        "builder": {"name": "own", "driver": "docker-container", "endpoint": "unix:///own.sock"},
        "network": "host",
        "frontend": "built-in",
        "environments": [],
    }
    assert definition["externalParameters"]["compression"] == "gzip"


@pytest.mark.parametrize(
    "top",
    [
        "# syntax=docker/dockerfile:1\n",
        "#syntax = docker/dockerfile:1@sha256:abc\n",
        "#!/usr/bin/docker\n# escape=\\\n# SYNTAX=docker/dockerfile\n",
        "\ufeff# check=skip=all\n# syntax=docker/dockerfile:1 more words\n",
        "#!/usr/bin/docker \x0bto BuildKit this is still the first line\n# syntax=docker/dockerfile:1\n",
        "# check=skip=all\u2028and this\n# syntax=docker/dockerfile:1\n",
    ],
)
def test_a_frontend_needs_a_digest(docker, project, top):
    with pytest.raises(LockStale, match=r"images/app/Dockerfile: the frontend docker/dockerfile.* has no digest"):
        built(project(top + RAN))
    assert docker.builds == []


def test_a_frontend_with_a_digest_is_recorded(docker, project):
    frontend = f"docker/dockerfile:1@{DIGEST}"
    folder = project(f"# syntax={frontend}\n{RAN}")
    ((_, statement),) = built(folder).built.images
    assert statement["predicate"]["buildDefinition"]["internalParameters"]["frontend"] == frontend


@pytest.mark.parametrize("frontend", ["other:1", f"docker/dockerfile:1@{DIGEST}"])
def test_no_record_brings_a_frontend_that_the_source_does_not_name(docker, project, frontend):
    """Whatever it makes of the Dockerfile would come out the same again, and be called identical."""
    with pytest.raises(BadInput, match="BUILDKIT_SYNTAX"):
        built(project(RAN), build_args={"BUILDKIT_SYNTAX": frontend})
    assert docker.builds == []


def test_the_time_of_an_image_is_no_build_argument(docker, project):
    with pytest.raises(BadInput, match="SOURCE_DATE_EPOCH"):
        built(project(RAN), build_args={"SOURCE_DATE_EPOCH": "99999999999"})
    assert docker.builds == []


def test_a_comment_behind_the_directives_names_no_frontend(docker, project):
    ((_, statement),) = built(project(f"# words\n# syntax=docker/dockerfile:1\n{RAN}")).built.images
    assert statement["predicate"]["buildDefinition"]["internalParameters"]["frontend"] == "built-in"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("FROM own.example/base:1\nRUN true\n", "FROM own.example/base:1 has no digest"),
        ("FROM scratch\nRUN --mount=type=bind,from=own.example/a:1,target=/a true\n", "RUN --mount from own.example/a"),
        ("FROM scratch\nRUN --mount=target=/a,FROM=later true\nFROM scratch AS later\n", "comes later"),
    ],
)
def test_images_of_stages_with_run_need_digests_too(docker, project, text, complaint):
    target = "" if "later" not in text else "first"
    with pytest.raises((LockStale, BadInput), match=complaint):
        built(project(text.replace("FROM scratch\nRUN", "FROM scratch AS first\nRUN")), target=target)


def test_a_stage_that_a_run_mounts_is_one_that_counts(docker, project):
    text = "FROM own.example/a:1 AS a\nFROM scratch\nRUN --mount=type=bind,from=a,target=/a true\n"
    with pytest.raises(LockStale, match=r":1: FROM own\.example/a:1 has no digest"):
        built(project(text))


def test_run_without_the_epoch_is_warned_of(docker, project):
    told = Told()
    built(project(RAN.replace("ARG SOURCE_DATE_EPOCH\n", "")), observer=told)
    (warning,) = told.warnings
    assert ":3: RUN doesn't see SOURCE_DATE_EPOCH" in warning
    told = Told()
    built(project(RAN, name="other"), observer=told)
    assert told.warnings == []


def put_image(served, name, settings):
    """Put an image without layers into a registry; its reference."""
    config = canonical_json(
        {"os": "linux", "architecture": "amd64", "config": settings, "rootfs": {"type": "layers", "diff_ids": []}}
    )
    manifest = Manifest.make(Descriptor.of(OCI_CONFIG, config), [])
    served.hold(name, config)
    served.hold_manifest(name, manifest.descriptor.media_type, manifest.raw)
    return f"{served.host}/{name}:1@{manifest.descriptor.digest}"


def test_every_image_that_counts_is_recorded_once(docker, project, served, monkeypatch, tmp_path):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    a, b, c, d = (put_image(served, name, {"Labels": {"is": name}}) for name in "abcd")
    text = f"FROM {b} AS b\nFROM {d} AS unused\nFROM {a}\nARG SOURCE_DATE_EPOCH\nCOPY --from=b /x /x\n"
    text += f"RUN --mount=type=bind,from={c},target=/c --mount=type=bind,from={a},target=/a true\n"
    ((_, statement),) = built(project(text)).built.images
    listed = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    roles = [(each["annotations"]["role"], each["name"][-3:]) for each in listed]
    assert [each for each in roles if each[0] in ("base", "image")] == [
        ("base", "a:1"),
        ("image", "b:1"),
        ("image", "c:1"),
    ]


def test_triggers_of_a_base_are_left_to_buildkit_and_told(docker, project, served, monkeypatch, tmp_path):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    told = Told()
    made = built(project(f"FROM {put_image(served, 'a', {'OnBuild': ['RUN true']})}\n"), observer=told)
    assert made.built.engine == "buildkit"
    assert any("has ONBUILD triggers" in each for each in told.warnings)


def test_run_for_a_platform_that_the_builder_lacks(docker, project):
    with pytest.raises(BadInput, match=r":4: RUN for linux/arm64 can't run: .* runs linux/amd64, linux/amd64/v2"):
        built(project(RAN), platforms=(AMD64, ARM64))
    made = built(project("FROM scratch\nCOPY app.py /\n", name="other"), "buildkit", platforms=(AMD64, ARM64))
    assert [image.platform for image, _ in made.built.images] == [AMD64, ARM64]
    assert Layout(project_out(made)).find().digest == made.built.top.digest


def project_out(made):
    return Path(made.places[0].split(":")[1])


def test_a_time_that_is_to_come_is_refused(docker, project, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(time.time()) + 1000))
    with pytest.raises(BadInput, match="in the future"):
        built(project(RAN))


def test_a_context_is_the_same_whatever_the_umask_was(tmp_path):
    for name, umask in (("one", 0o022), ("two", 0o077)):
        folder = tmp_path / name
        before = os.umask(umask)
        (folder / "below").mkdir(parents=True)
        (folder / "a").write_text("aaaa")
        (folder / "b").write_text("bbbb")
        (folder / "below" / "run").write_text("")
        (folder / "below" / "run").chmod(0o777 & ~umask)
        (folder / "link").symlink_to("nowhere")
        os.umask(before)
        settle(folder, EPOCH)

    def states(folder):
        paths = [folder, *sorted(folder.rglob("*"))]
        return [(path.name, stat.S_IMODE(path.lstat().st_mode), path.lstat().st_mtime_ns) for path in paths][1:]

    one, two = states(tmp_path / "one"), states(tmp_path / "two")
    assert one == two
    assert {time // 10**9 for _, _, time in one} == {EPOCH}
    assert {name: mode for name, mode, _ in one} == {
        "a": 0o644,
        "b": 0o644,
        "below": 0o755,
        "run": 0o755,
        "link": 0o777,
    }
    times = {name: time for name, _, time in one}
    assert times["a"] != times["b"], "BuildKit would take files of one size and time for the same"


# --- what comes out ------------------------------------------------------------------------------------


def test_what_comes_out_is_verified(docker, project):
    folder = project(RAN)
    made = built(folder)
    (place,) = made.places
    checked = verify(place, folder)
    assert checked.level == "identical"
    assert checked.images[0].notes == ()
    assert [words["arguments"].count("--no-cache") for words in docker.builds] == [1, 1]


def test_a_build_that_is_not_the_same_again_is_told(docker, project):
    folder = project(RAN)
    docker.says(build={"adds": {"var/log/dpkg.log": "at noon"}})
    (place,) = built(folder).places
    docker.says(build={"adds": {"var/log/dpkg.log": "at night"}})
    (checked,) = verify(place, folder).images
    assert checked.verdict.level == "payload"
    assert ["layer 0 (COPY . /)", "var/log/dpkg.log"] in [[*each.path] for each in checked.verdict.differences]


def test_another_version_of_the_engine_is_told(docker, project):
    folder = project(RAN)
    (place,) = built(folder).places
    docker.says(inspect=inspected(version="v0.14.0", endpoint="tcp://elsewhere:1"))
    engines._found.cache_clear()
    (checked,) = verify(place, folder).images
    assert checked.notes == ("buildkit: v0.13.2 at the first build, v0.14.0 now",)


def test_a_record_can_not_open_the_network(docker, project):
    folder = project(RAN)
    (place,) = built(folder, network="host").places
    number = len(docker.builds)
    with pytest.raises(BadInput, match="RUN had the network 'host', which nobody has allowed"):
        verify(place, folder)
    assert len(docker.builds) == number
    assert verify(place, folder, network="host").level == "identical"
    assert "--network=host" in docker.builds[-1]["arguments"]


FAILED = """#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#5 [2/2] RUN make
#5 0.1 cc: no input at https://me:secret@own.example/x
#5 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2
------
 > [2/2] RUN make:
0.1 cc: no input at https://me:secret@own.example/x
------
Dockerfile:2
--------------------
   2 | >>> RUN make
--------------------"""


def test_a_step_that_fails_is_shown_with_what_it_said(docker, project, tmp_path):
    docker.says(build={"says": FAILED, "exit": 1})
    told = Told()
    made = project(RAN)
    with pytest.raises(BuildFailed) as caught:
        built(made, observer=told)
    lines = caught.value.reason.splitlines()
    assert lines[0] == "BuildKit couldn't build images/app/Dockerfile:"
    assert "0.1 cc: no input at https://…@own.example/x" in lines
    assert lines[-1].startswith("ERROR: failed to solve")
    assert "secret" not in caught.value.reason
    assert "[2/2] RUN make" in told.steps
    assert not any("internal" in each for each in told.steps)
    assert Layout(tmp_path / "out").index().manifests == ()
    assert "Mend the step" in caught.value.remedy
    docker.says(build={"says": f"{FAILED}\nERROR: write /x: no space left on device", "exit": 1})
    with pytest.raises(BuildFailed) as caught:
        built(made)
    assert caught.value.remedy.startswith("Free some space")


@pytest.mark.parametrize(
    ("script", "complaint"), [({"damages": True}, "the digest"), ({"lies": True}, "and its config says")]
)
def test_blobs_are_what_their_digests_say(docker, project, tmp_path, script, complaint):
    docker.says(build=script)
    with pytest.raises(DigestMismatch):
        built(project(RAN))
    assert Layout(tmp_path / "out").index().manifests == ()


@pytest.mark.parametrize("frontend", ["", f"docker/dockerfile@sha256:{'0' * 64}"])
def test_symbols_for_modes_are_for_engines_that_know_them(docker, project, reprobuild, tmp_path, frontend):
    syntax = f"# syntax={frontend}\n" if frontend else ""
    folder = project(f"{syntax}FROM scratch\nCOPY --chmod=u=rwX,go= app.py /\n")
    command = ("image", "app", folder, "-o", f"oci:{tmp_path / 'out'}", "--platform", "linux/amd64")
    refused = reprobuild(*command, code=ExitCode.BAD_INPUT)
    assert "Dockerfile:" in refused.stderr
    assert "ignores --chmod=u=rwX,go=." in refused.stderr
    assert docker.builds == []
    docker.says(build={"symbols": True})
    reprobuild(*command)
    assert len(docker.builds) == 1


def test_ctrl_c_ends_the_build(docker, project, tmp_path):
    docker.says(build={"hangs": True})
    folder = project(RAN)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "reprobuild", "image", "app", str(folder), "-o", f"oci:{tmp_path / 'out'}"]
    command += ["--platform", "linux/amd64"]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.PIPE) as process:
        hangs = docker.script.with_name("hangs")
        for _ in range(300):
            if hangs.exists() and hangs.read_text():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(hangs.read_text()), 0)
    assert [path.name for path in scratch.iterdir()] == []
    assert Layout(tmp_path / "out").index().manifests == ()
