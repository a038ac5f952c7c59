import dataclasses
import itertools
from pathlib import Path

import pytest

from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.image.environment import Environment, InstalledWheel
from reprobuild.image.installed import InstalledFile, nodes
from reprobuild.image.listing import Listing
from reprobuild.image.plan import plan
from reprobuild.image.target import Target
from reprobuild.index import LockedFile
from reprobuild.oci.layer import packed_size
from reprobuild.oci.tree import Text

TARGET = Target("3.12", "/usr/bin/python3.12", "x86_64-manylinux_2_28")
HEAVY = 1000
SKELETON = nodes({"pyvenv.cfg": InstalledFile(Text(b"home = /usr/bin\n"), executable=False, hash="")}, "/opt/venv")


def wheel(name, size=10, files=1, *, own=False, shared=()):
    sizes = [size // files + (number < size % files) for number in range(files)]
    contents = {f"lib/{name}/{number}.py": text(b"x" * size) for number, size in enumerate(sizes)}
    contents |= {f"lib/{path}": text(b"") for path in shared}
    file = LockedFile(name, "1.0", f"{name}-1.0-py3-none-any.whl", Digest.of_bytes(name.encode()))
    found = nodes(contents, TARGET.prefix)
    files = {path: (each.executable, each.content.size, each.hash) for path, each in contents.items()}
    listing = Listing(name, "1.0", "", (), files, frozenset(), packed_size(found))
    return InstalledWheel(file, Path(file.filename), listing, lambda: found, own)


def text(data):
    return InstalledFile(Text(data), executable=False, hash="")


def environment(*wheels):
    return Environment(TARGET, SKELETON, tuple(wheels), ())


def names(layers):
    return [[each.file.name for each in layer.wheels] for layer in layers]


def test_the_skeleton_is_first_heavy_wheels_are_alone_and_the_own_one_is_last():
    small, big = [wheel(f"small{number}") for number in range(40)], [wheel("big1", 2000), wheel("big2", HEAVY)]
    layers = plan(environment(*big, *small, wheel("app", own=True)), heavy=HEAVY)
    assert names(layers)[:3] == [[], ["big1"], ["big2"]]
    assert layers[0].nodes == SKELETON
    assert names(layers)[-1] == ["app"]
    shared = names(layers)[3:-1]
    assert len(shared) == 8
    assert sorted(itertools.chain(*shared)) == sorted(each.file.name for each in small)
    assert all(group == sorted(group) for group in shared)


def test_nothing_but_the_skeleton():
    assert names(plan(environment())) == [[]]
    assert names(plan(environment(wheel("app", own=True)))) == [[], ["app"]]
    assert names(plan(environment(), others=99)) == [[]]


def test_a_layer_is_complete_and_sorted():
    layers = plan(environment(wheel("a", shared=["x/same.py"]), wheel("b", shared=["x/same.py"])), most=3)
    assert [node.path for node in layers[1].nodes] == [
        "opt/venv", "opt/venv/lib", "opt/venv/lib/a", "opt/venv/lib/a/0.py", "opt/venv/lib/b", "opt/venv/lib/b/0.py",
        "opt/venv/lib/x", "opt/venv/lib/x/same.py",
    ]  # fmt: skip


def test_where_there_is_no_room_the_heaviest_are_alone():
    heavy = [wheel(f"w{number:02}", HEAVY + number) for number in range(30)]
    layers = plan(environment(*heavy, wheel("small"), wheel("app", own=True)), heavy=HEAVY, others=80)
    assert len(layers) <= 20
    assert names(layers)[1:11] == [[f"w{number}"] for number in range(20, 30)]
    assert sorted(itertools.chain(*names(layers))) == sorted([*(each.file.name for each in heavy), "small", "app"])
    # All of them have room when there is no small one to keep a place for.
    assert len(plan(environment(*heavy), heavy=HEAVY, others=69)) == 31
    assert [len(group) for group in names(plan(environment(*heavy), heavy=HEAVY, others=98))] == [0, 30]


@pytest.mark.parametrize("others", [98, 99, 100, 120])
def test_an_image_without_room_is_refused(others):
    with pytest.raises(BadInput, match="no room for an environment") as caught:
        plan(environment(wheel("a"), wheel("app", own=True)), others=others)
    assert caught.value.remedy


def test_what_is_too_large_for_a_layer_is_cut_between_files():
    big = wheel("big", 40_000, files=10)
    layers = plan(environment(big, wheel("app", own=True)), largest=20_000, heavy=HEAVY)
    parts = layers[1:-1]
    assert len(parts) > 2
    assert {part.wheels for part in parts} == {(big,)}
    files = [node.path for part in parts for node in part.nodes if node.kind == "file"]
    assert files == [node.path for node in big.nodes if node.kind == "file"]
    assert all(
        [node.path for node in part.nodes][:3] == ["opt/venv", "opt/venv/lib", "opt/venv/lib/big"] for part in parts
    )


def test_a_file_that_no_layer_can_hold_is_refused():
    with pytest.raises(BadInput, match=r"0\.py from big-1\.0-py3-none-any\.whl is larger than a layer") as caught:
        plan(environment(wheel("big", 40_000)), largest=20_000)
    assert caught.value.remedy


def test_layers_that_were_cut_count():
    with pytest.raises(BadInput, match="more than 100"):
        plan(environment(wheel("big", 40_000, files=10)), largest=20_000, heavy=HEAVY, others=98)


def test_another_version_of_a_small_wheel_changes_one_layer():
    wheels = [wheel(f"small{number}") for number in range(40)]
    other = dataclasses.replace(wheels[7], file=dataclasses.replace(wheels[7].file, version="2.0"))
    before, after = (plan(environment(*each)) for each in (wheels, [*wheels[:7], other, *wheels[8:]]))
    assert names(before) == names(after)
    assert sum(one != two for one, two in zip(before, after, strict=True)) == 1
