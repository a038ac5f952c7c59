"""The same Dockerfiles as a real BuildKit was given (tests/images/record.py): the same files and settings come out."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reprobuild.errors import ReprobuildError
from reprobuild.image import dockerfile as dockerfiles
from reprobuild.image.assembler import Assembly, Origins, assemble
from reprobuild.image.context import Context, Nodes
from reprobuild.image.resolve import resolve
from reprobuild.image.stages import BaseImage, Copy, ImageSpec, Step
from reprobuild.oci.layer import Compression
from reprobuild.oci.model import Platform
from reprobuild.oci.tree import Node, Text

IMAGES = Path(__file__).parent.parent / "images"
EPOCH = 1_700_000_000
AMD64 = Platform("linux", "amd64")
RECORDED = json.loads((IMAGES / "buildkit.json").read_text(encoding="utf-8"))
CASES = RECORDED["cases"]
#: What BuildKit does and we refuse, with a word of the reason that we give.
REFUSED = {
    "several-noslash": "Several files",
    "heredoc-noslash2": "Several files",
    "chmod-bad": "octal",
    "chmod-sym": "can't be assembled",
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


def other() -> Nodes:
    """The image that record.py makes for `COPY --from=other`."""
    found: dict[str, Node] = {}
    for path, mode, uid, gid, mtime, text in RECORDED["other"]:
        content = None if text is None else Text(text.encode())
        found[path] = Node(path, "file" if content else "directory", mode, mtime, uid, gid, content=content)
    return Nodes(found)


def fetched(step: Step) -> Step:
    """A step with an image in the place of the named context that BuildKit is given."""
    if isinstance(step, Copy) and step.origin == "other":
        return replace(step, origin=BaseImage("other", AMD64, step.line))
    return step


def lines(assembly: Assembly) -> Iterator[tuple[str, str]]:
    """What is there in the end, as record.py writes it: the layers lie one on the other."""
    kinds = {"directory": "folder", "symlink": "link", "file": "file"}
    nodes = {node.path: node for part in assembly.parts for node in part.nodes}
    for path, node in sorted(nodes.items()):
        said = node.target or b"".join(node.content.chunks() if node.content else ()).decode()
        line = f"{kinds[node.kind]} {node.mode:o} {node.uid}:{node.gid} {said}".rstrip(" ")
        yield path, line if node.mtime == EPOCH else f"{line} @{node.mtime}"


def built(context: Path) -> dict[str, Any]:
    """What the assembler makes of a context: the root file system's lines, and the settings."""
    spec = resolve(
        dockerfiles.read(context / "Dockerfile"),
        lambda _: pytest.fail("no base"),
        platform=AMD64,
        epoch=EPOCH,
        contexts=("other",),
    )
    stages = [replace(stage, steps=tuple(map(fetched, stage.steps))) for stage in spec.stages]
    origins = Origins(
        Context.open(context, context / "Dockerfile", EPOCH),
        lambda _: pytest.fail("no base"),
        lambda _: other(),
        lambda *_: pytest.fail("no environment"),
    )
    assembly = assemble(
        ImageSpec(tuple(stages)), origins, epoch=EPOCH, where="Dockerfile", compression=Compression.SPLICE
    )
    found: dict[str, Any] = {"tree": dict(lines(assembly)), "settings": assembly.settings}
    return found | ({"author": assembly.author} if assembly.author else {})


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
