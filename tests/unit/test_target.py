import json
import platform
import sys
import sysconfig

import pytest
from packaging.markers import default_environment
from packaging.tags import sys_tags

from reprobuild.errors import BadInput
from reprobuild.image.target import Target, platforms_of, target_of
from reprobuild.oci.model import ImageConfig, Platform
from reprobuild.project import ImageSettings, Selection

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")
OFFICIAL = ("PATH=/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.12.7")


def base(*environment):
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Env": list(environment)},
    }
    return ImageConfig.read(json.dumps(document).encode(), "a config")


def image(python="3.12", platform="x86_64-manylinux_2_28", **more):
    return ImageSettings(Selection("serve", "images/serve/requirements.txt", python=python, platform=platform), **more)


def refusal(function, *arguments):
    with pytest.raises(BadInput) as caught:
        function(*arguments)
    assert caught.value.remedy
    return caught.value.reason


def test_accepts_what_an_interpreter_of_that_kind_accepts():
    """The oracle is `packaging`, asked about the interpreter that runs this."""
    if platform.libc_ver()[0] != "glibc" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("wheels for other systems than Linux with glibc on x86_64 and aarch64 aren't chosen")
    minor = platform.libc_ver()[1].split(".")[1]
    target = Target(platform.python_version(), sys.executable, f"{platform.machine()}-manylinux_2_{minor}")
    assert list(target.tag_ranks) == list(dict.fromkeys(sys_tags()))
    assert list(target.tag_ranks.values()) == list(range(len(target.tag_ranks)))
    own = default_environment()
    unknown = {"platform_release": "", "platform_version": ""}
    assert target.markers == {**own, **unknown}


def test_prefers_the_newest_manylinux_and_knows_the_old_names():
    tags = [str(tag) for tag in Target("3.12", "/usr/bin/python3.12", "x86_64-manylinux2014").tag_ranks]
    names = ("linux", "manylinux_2_17", "manylinux2014", "manylinux_2_16")
    assert tags[:4] == [f"cp312-cp312-{name}_x86_64" for name in names]
    assert tags.index("cp312-cp312-manylinux1_x86_64") < tags.index("cp312-abi3-linux_x86_64")
    assert tags[-1] == "py30-none-any"
    assert not any("2_18" in tag or "2_4_" in tag for tag in tags)
    arm = [str(tag) for tag in Target("3.12", "/usr/bin/python3.12", "aarch64-manylinux_2_28").tag_ranks]
    assert "cp312-cp312-manylinux_2_17_aarch64" in arm
    assert not any("2_16" in tag or "manylinux1_" in tag or "x86_64" in tag for tag in arm)


def test_the_python_that_runs_this_has_no_say(monkeypatch):
    """As if it were one without a GIL, whose wheels have another ABI."""
    usual = Target("3.13", "/usr/bin/python3.13", "x86_64-manylinux_2_28").tag_ranks
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: int(name in ("Py_GIL_DISABLED", "Py_DEBUG")))
    assert Target("3.13", "/usr/bin/python3.13", "x86_64-manylinux_2_28").tag_ranks == usual


@pytest.mark.parametrize(
    ("python", "short", "version"),
    [("3.12", "3.12", "3.12.0"), ("3.12.7", "3.12", "3.12.7"), ("3.15.0rc2", "3.15", "3.15.0rc2")],
)
def test_a_version_has_a_patch(python, short, version):
    target = Target(python, "/usr/bin/python3", "x86_64-manylinux_2_28")
    assert (target.short, target.version, target.markers["python_full_version"]) == (short, version, version)


@pytest.mark.parametrize("python", ["", "3", "2.7", "4.0", "3.12.1.1", ">=3.12", "3.12+local", "3.12.0.dev1", "x"])
def test_refuses_what_is_no_python(python):
    refusal(Target, python, "/usr/bin/python3", "x86_64-manylinux_2_28")


@pytest.mark.parametrize(
    "platform",
    ["", "linux", "x86_64-unknown-linux-gnu", "x86_64-manylinux_2_4", "aarch64-manylinux_2_16", "x86_64-manylinux_2_",
     "riscv64-manylinux_2_39", "windows", "x86_64-manylinux_2_28\n", "aarch64-apple-darwin", "x86_64-manylinux_3_1"],
)  # fmt: skip
def test_refuses_a_platform_without_its_glibc(platform):
    refusal(Target, "3.12", "/usr/bin/python3", platform)


@pytest.mark.parametrize("platform", ["x86_64-manylinux_2_5", "aarch64-manylinux_2_17"])
def test_the_oldest_glibc_is_one(platform):
    assert Target("3.12", "/usr/bin/python3", platform).tag_ranks


@pytest.mark.parametrize(
    "path", ["", "/", "opt/venv", "/opt/../venv", "/opt/./venv", "/opt/venv/", "//venv", "/a b", "/a\nb", "/a/..", "/é"]
)
def test_refuses_a_place_that_a_shebang_or_another_layer_could_take_for_another(path):
    refusal(Target, "3.12", path, "x86_64-manylinux_2_28")
    refusal(Target, "3.12", "/usr/bin/python3", "x86_64-manylinux_2_28", path)


def test_a_prefix_has_to_fit_into_a_shebang():
    longest = "/" + "p" * (126 - len("#!//bin/python"))
    Target("3.12", "/usr/bin/python3", "x86_64-manylinux_2_28", longest)
    refusal(Target, "3.12", "/usr/bin/python3", "x86_64-manylinux_2_28", longest + "p")


# --- where it comes from ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "environment", "python", "executable"),
    [
        (image(), OFFICIAL, "3.12.7", "/usr/local/bin/python3.12"),
        (image(""), OFFICIAL, "3.12.7", "/usr/local/bin/python3.12"),
        (image("3.12.7"), OFFICIAL, "3.12.7", "/usr/local/bin/python3.12"),
        (image("3.12", interpreter="/usr/bin/python3.12"), (), "3.12", "/usr/bin/python3.12"),
        (image("3.12", interpreter="/opt/own/python"), OFFICIAL, "3.12", "/opt/own/python"),
        (image("", interpreter="/usr/local/bin/python3"), OFFICIAL, "3.12.7", "/usr/local/bin/python3"),
    ],
)
def test_comes_from_pyproject_or_from_the_base(settings, environment, python, executable):
    target = target_of(settings, base(*environment), AMD64)
    assert target == Target(python, executable, "x86_64-manylinux_2_28")


@pytest.mark.parametrize(
    ("settings", "environment", "said"),
    [
        (image(), (), "doesn't say where its Python is"),
        (image("", interpreter="/usr/bin/python3"), (), "doesn't say where its Python is"),
        (image(), ("PYTHON_VERSION=3.12.7", "PATH=/opt/app/bin:/usr/local/bin"), "doesn't say where its Python is"),
        (image(), ("PYTHON_VERSION=3.12.7",), "doesn't say where its Python is"),
        (image(), OFFICIAL[:1], "doesn't say where its Python is"),
        (image("3.11"), OFFICIAL, "is 3.11, and the base has Python 3.12.7"),
        (image("3.12.8"), OFFICIAL, "is 3.12.8, and the base has Python 3.12.7"),
        (image("3.12", interpreter="/usr/bin/python3.11"), (), "is not Python 3.12"),
        (image(), (OFFICIAL[0], "PYTHON_VERSION=latest"), "'latest' is not a version"),
        (image(">=3.12"), OFFICIAL, "is not a version"),
    ],
)
def test_is_never_guessed(settings, environment, said):
    assert said in refusal(target_of, settings, base(*environment), AMD64)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (image("3.11.4"), 'Add interpreter to [tool.reprobuild.images.serve], such as "/usr/bin/python3.11".'),
        (image(""), 'Add python and interpreter to [tool.reprobuild.images.serve], such as "3.12" and'),
        (image(">=3.12"), 'Add python and interpreter to [tool.reprobuild.images.serve], such as "3.12" and'),
    ],
)
def test_only_what_is_missing_is_asked_for(settings, remedy):
    with pytest.raises(BadInput) as caught:
        target_of(settings, base(), AMD64)
    assert caught.value.remedy.startswith(remedy)


def test_the_platform_is_that_of_the_lock_or_named():
    every = image(platform="", manylinux="2_34")
    assert target_of(every, base(*OFFICIAL), AMD64).platform == "x86_64-manylinux_2_34"
    assert target_of(every, base(*OFFICIAL), ARM64).platform == "aarch64-manylinux_2_34"
    assert "lock for x86_64-manylinux_2_28" in refusal(target_of, image(), base(*OFFICIAL), ARM64)
    assert "which glibc" in refusal(target_of, image(platform=""), base(*OFFICIAL), AMD64)
    for other in (Platform("linux", "riscv64"), Platform("windows", "amd64")):
        assert str(other) in refusal(target_of, every, base(*OFFICIAL), other)


def test_an_image_is_for_the_platforms_that_are_named_else_for_its_locks():
    assert platforms_of(image(platforms=(AMD64, ARM64))) == (AMD64, ARM64)
    assert platforms_of(image()) == (AMD64,)
    assert platforms_of(image(platform="aarch64-manylinux_2_28")) == (Platform("linux", "arm64"),)
    assert "doesn't say which platform" in refusal(platforms_of, image(platform=""))
    assert "doesn't say which platform" in refusal(platforms_of, image(platform="windows"))
