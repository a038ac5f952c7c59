"""The same Dockerfiles as a real BuildKit was given (tests/images/record.py): the same files and settings come out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reprobuild.errors import BadInput, ReprobuildError
from reprobuild.image import dockerfile as dockerfiles
from reprobuild.image.context import Context, Nodes, owner_of, place
from reprobuild.image.stages import Copy, Folder, resolve
from reprobuild.oci.model import Platform
from reprobuild.oci.tree import Node

IMAGES = Path(__file__).parent.parent / "images"
EPOCH = 1_700_000_000
RECORDED = json.loads((IMAGES / "buildkit.json").read_text(encoding="utf-8"))
CASES = RECORDED["cases"]
#: What BuildKit does and we refuse, with a word of the reason that we give.
REFUSED = {
    "several-noslash": "Several files",
    "heredoc-noslash2": "Several files",
    "chmod-bad": "octal",
    "chmod-sym": "octal",
    "chmod-9": "octal",
    "chown-colon": "/etc/passwd",
    "chown-trail": "/etc/group",
    "cmd-none": "nothing to run",
    "arg-json": "after the JSON list",
    "vol": "after the JSON list",
    "dupstage": "two stages",
    "heredoc-json": "no '<<A'",
    "onbuild": "ONBUILD",
    "user-empty": "USER is empty",
}
#: Where newer BuildKits (0.14 and later) do something else than the recorded one, and we do as they do.
NEWER = {"arg-multi": {"Env": "A=11"}}


class Root:
    """A file system that Nodes are added to, as a runtime unpacks layers; links are followed inside it."""

    def __init__(self, nodes=()):
        self.nodes = dict(nodes)

    def real(self, path):
        waiting, found, links = [each for each in path.split("/") if each], "", 0
        while waiting:
            part = waiting.pop(0)
            here = f"{found}/{part}".lstrip("/")
            node = self.nodes.get(here)
            if part == "..":
                found = found.rpartition("/")[0]
            elif node and node.kind == "symlink" and links < 40:
                links += 1
                waiting = node.target.split("/") + waiting
                found = "" if node.target.startswith("/") else found
            elif part:
                found = here
        return found

    def is_folder(self, path):
        real = self.real(path)
        return not real or (real in self.nodes and self.nodes[real].kind == "directory")

    def follow(self, path):
        return self.real(path), self.is_folder(path)

    def read(self, path):
        node = self.nodes.get(self.real(path))
        return b"".join(node.content.chunks()) if node and node.content else None

    def add(self, node, *, as_parent=False):
        folder, _, name = node.path.rpartition("/")
        path = f"{self.real(folder)}/{name}".lstrip("/")
        there = self.nodes.get(path)
        if as_parent and self.is_folder(path):
            return
        if there and (there.kind == "directory") != (node.kind == "directory"):
            raise BadInput("a folder and a file")
        if not self.is_folder(folder):
            raise BadInput("a file where a folder should be")
        self.nodes[path] = replace(node, path=path)

    def lines(self):
        kinds = {"directory": "folder", "symlink": "link", "file": "file"}
        for path, node in sorted(self.nodes.items()):
            said = node.target or b"".join(node.content.chunks() if node.content else ()).decode()
            yield path, f"{kinds[node.kind]} {node.mode:o} {node.uid}:{node.gid} {said}".rstrip(" ")


def built(context: Path) -> dict[str, Any]:
    """What our half makes of a context: the root file system's lines, and the settings."""
    parsed = dockerfiles.read(context / "Dockerfile")
    spec = resolve(parsed, lambda _: pytest.fail("no base"), platform=Platform("linux", "amd64"), epoch=EPOCH)
    roots: list[Root] = []
    for stage in spec.stages:
        root = Root(roots[stage.base].nodes if isinstance(stage.base, int) else ())
        for step in stage.steps:
            if isinstance(step, Folder):
                owner = owner_of(step.owner, root.read, "x") or (0, 0)
                parts = step.path.strip("/").split("/")
                for length in range(1, len(parts) + 1):
                    root.add(Node("/".join(parts[:length]), "directory", 0o755, EPOCH, *owner), as_parent=True)
            elif isinstance(step, Copy):
                here = Context.open(context, context / "Dockerfile", EPOCH)
                tree = Nodes(roots[step.origin].nodes) if isinstance(step.origin, int) else here
                placed = place(step, tree, epoch=EPOCH, where="Dockerfile", follow=root.follow, read=root.read)
                for node in placed.parents:
                    root.add(node, as_parent=True)
                for node in placed.nodes:
                    root.add(node)
        assert all(node.mtime == EPOCH for node in root.nodes.values())
        roots.append(root)
    found: dict[str, Any] = {"tree": dict(roots[-1].lines()), "settings": spec.target.settings}
    return found | ({"author": spec.target.author} if spec.target.author else {})


@pytest.fixture
def context(tmp_path, request):
    case = CASES[request.param]
    for name, said in {**RECORDED["files"], **case.get("files", {}), "Dockerfile": case["dockerfile"]}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text, mode = said if isinstance(said, list) else (said, 0o644)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_bytes(text.encode())
            path.chmod(mode)
    return request.param, tmp_path


@pytest.mark.parametrize("context", CASES, indirect=True)
def test_what_buildkit_makes_of_it(context):
    name, folder = context
    recorded = CASES[name]["buildkit"]
    if "error" in recorded or name in REFUSED:
        with pytest.raises(ReprobuildError) as caught:
            built(folder)
        assert REFUSED.get(name, "") in caught.value.reason
        assert "error" not in recorded or name not in REFUSED
        return
    found = built(folder)
    if name in NEWER:
        assert NEWER[name]["Env"] in found["settings"].pop("Env")
        assert NEWER[name]["Env"] not in recorded["settings"].pop("Env")
    assert found == recorded


def test_the_cases_are_all_there():
    assert len(CASES) > 200
    assert sum("error" in case["buildkit"] for case in CASES.values()) > 40
    assert set(REFUSED) | set(NEWER) <= set(CASES)
