"""A `docker` that does what a test scripts: enough of buildx to build Dockerfiles of COPY, and to fail in known ways.

DOCKER_SCRIPT names a JSON file: `version` and `inspect` are what these print (an `exit` with it makes them fail), and
`build` is what a build does beside the right thing. Each call is noted in the file's neighbour `calls.jsonl`.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path

SCRIPT = Path(os.environ["DOCKER_SCRIPT"])
OCI = "application/vnd.oci.image"


def main(arguments):
    script = json.loads(SCRIPT.read_text())
    environment = {name: value for name, value in os.environ.items() if name.startswith(("BUILDX", "SECRET"))}
    with SCRIPT.with_name("calls.jsonl").open("a") as calls:
        calls.write(json.dumps({"arguments": arguments, "environment": environment}) + "\n")
    if arguments[:2] in (["buildx", "version"], ["buildx", "inspect"]):
        said = script[arguments[1]]
        (sys.stderr if said.get("exit") else sys.stdout).write(said["text"] + "\n")
        return said.get("exit", 0)
    return build(arguments, script.get("build", {}))


def build(arguments, script):
    options = dict(each.removeprefix("--").partition("=")[::2] for each in arguments if each.startswith("--"))
    context = Path(arguments[-1])
    is_probe = (context / "probe").exists()
    if not is_probe and "says" in script:
        sys.stderr.write(script["says"] + "\n")
    if not is_probe and script.get("hangs"):
        SCRIPT.with_name("hangs").write_text(str(os.getpid()))
        time.sleep(60)
    if (is_probe and script.get("fails")) or (not is_probe and script.get("exit")):
        sys.stderr.write(f"ERROR: failed to solve: {script.get('fails', 'a step failed')}\n")
        return 1
    epoch = next(int(each.rpartition("=")[2]) for each in arguments if "SOURCE_DATE_EPOCH" in each)
    out = Path(options["output"].split('"dest=')[1].split('"')[0])
    write_image(out, context, epoch, script, options.get("platform", "linux/amd64"))
    return 0


def write_image(out, context, epoch, script, platform):
    """A layout of one image, whose one layer has all of the context."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as layer:
        for path in sorted(path for path in context.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(path.relative_to(context).as_posix())
            state = path.stat()
            member.size, member.mode = state.st_size, state.st_mode & 0o7777
            if (
                script.get("symbols")
                and path.name == "probe"
                and "--chmod=u=rw,go=" in (context / "Dockerfile").read_text()
            ):
                member.mode = 0o600
            member.mtime = int(state.st_mtime) if script.get("old") else min(int(state.st_mtime), epoch)
            layer.addfile(member, io.BytesIO(path.read_bytes()))
        for name, text in script.get("adds", {}).items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(text), epoch
            layer.addfile(member, io.BytesIO(text.encode()))
    packed = gzip.compress(tar.getvalue(), mtime=0)
    system, architecture = platform.split("/")[:2]
    diff_id = "0" * 64 if script.get("lies") and not (context / "probe").exists() else digest(tar.getvalue())
    config = {
        "architecture": architecture,
        "os": system,
        "config": {},
        "history": [{"created_by": "COPY . / # buildkit"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }
    layers = [put(out, f"{OCI}.layer.v1.tar+gzip", packed)]
    described = put(out, f"{OCI}.config.v1+json", json.dumps(config).encode())
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": described, "layers": layers}
    entry = put(out, f"{OCI}.manifest.v1+json", json.dumps(manifest).encode())
    entry["platform"] = {"os": system, "architecture": architecture}
    (out / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (out / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    if script.get("damages") and not (context / "probe").exists():
        (out / "blobs" / "sha256" / layers[0]["digest"].removeprefix("sha256:")).write_bytes(packed[::-1])


def put(out, kind, data):
    path = out / "blobs" / "sha256" / digest(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{path.name}", "size": len(data)}


def digest(data):
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
