"""Build every case of buildkit.json with the BuildKit of the docker on PATH, and write down what comes out.

Run it by hand where a Docker engine with the containerd image store is: `python tests/images/record.py`.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CASES = Path(__file__).with_name("buildkit.json")
EPOCH = 1_700_000_000


def make_context(folder, dockerfile, files):
    """Write a build context: a text is a file's, `->target` a link's, and a list holds a text and a mode."""
    for name, said in {**files, "Dockerfile": dockerfile}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text, mode = said if isinstance(said, list) else (said, 0o644)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_bytes(text.encode())
            path.chmod(mode)


def make_other(folder, things):
    """Write an image, as a layout, for `COPY --from=other`; its reference.

    Args:
        things: path, mode, uid, gid, time and text of each; a folder has no text.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.USTAR_FORMAT) as members:
        for path, mode, uid, gid, mtime, text in things:
            member = tarfile.TarInfo(path)
            member.mode, member.uid, member.gid, member.mtime = mode, uid, gid, mtime
            member.type = tarfile.DIRTYPE if text is None else tarfile.REGTYPE
            data = (text or "").encode()
            member.size = len(data)
            members.addfile(member, io.BytesIO(data))
    described = put(layer.getvalue(), "layer.v1.tar")
    config = {"architecture": "amd64", "os": "linux", "config": {}}
    config["rootfs"] = {"type": "layers", "diff_ids": [described["digest"]]}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    manifest["config"] = put(json.dumps(config).encode(), "config.v1+json")
    manifest["layers"] = [described]
    top = put(json.dumps(manifest).encode(), "manifest.v1+json")
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci-layout://{folder}@{top['digest']}"


def build(context, other):
    """What BuildKit makes of a context: the words of an error, or the files and the settings."""
    out = context.with_name("out.tar")
    argv = ["docker", "buildx", "build", "--no-cache", "--network=none", "--provenance=false", "--progress=plain"]
    argv += ["--platform=linux/amd64", f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}"]
    argv += [f"--build-context=other={other}"]
    argv += [f"--output=type=oci,dest={out},rewrite-timestamp=true", str(context)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        return {"error": [line for line in done.stderr.splitlines() if "ERROR" in line][-1].rpartition(": ")[2]}
    with tarfile.open(out) as image:

        def blob(digest):
            return content(image, f"blobs/sha256/{digest.partition(':')[2]}")

        manifest = json.loads(blob(json.loads(content(image, "index.json"))["manifests"][0]["digest"]))
        if "manifests" in manifest:
            manifest = json.loads(blob(manifest["manifests"][0]["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        layers = [blob(layer["digest"]) for layer in manifest["layers"] or []]
    found = {"tree": tree_of(layers), "settings": config["config"]}
    return found | ({"author": config["author"]} if "author" in config else {})


def content(archive, member):
    """The bytes of a file in a tar."""
    stream = archive.extractfile(member)
    assert stream
    return stream.read()


def tree_of(layers):
    """One line for each thing in some layers, by its path; its time is there where it isn't the epoch."""
    found = {}
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as members:
            for member in members:
                path = member.name.strip("/")
                if ".wh." in path:
                    raise ValueError(f"{path}: no case removes anything")
                text = content(members, member).decode() if member.isfile() else ""
                kind = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.REGTYPE: "file"}[member.type]
                line = f"{kind} {member.mode:o} {member.uid}:{member.gid} {member.linkname or text}".rstrip(" ")
                found[path] = line if member.mtime == EPOCH else f"{line} @{member.mtime}"
    return dict(sorted(found.items()))


def main():
    """Record each case that is named, or all."""
    cases = json.loads(CASES.read_text(encoding="utf-8"))
    for name, case in cases["cases"].items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder) / "context"
            context.mkdir()
            make_context(context, case["dockerfile"], {**cases["files"], **case.get("files", {})})
            case["buildkit"] = build(context, make_other(Path(folder) / "other", cases["other"]))
    text = json.dumps(cases, indent=1, ensure_ascii=False) + "\n"
    CASES.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.umask(0o022)
    main()
