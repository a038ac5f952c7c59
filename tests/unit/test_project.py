import json
from datetime import UTC, datetime

import pytest
from packaging.requirements import Requirement

from reprobuild.errors import BadInput
from reprobuild.oci.model import Platform
from reprobuild.project import BuildSettings, Selection, check_time, load

TOOL = "[tool.reprobuild]\n"
WHEEL = "[tool.reprobuild.wheel]\n"


@pytest.fixture
def config(tmp_path):
    """Read a pyproject.toml with some text."""

    def read(text):
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
        return load(tmp_path)

    return read


@pytest.fixture
def refusal(config, tmp_path):
    """The message about a pyproject.toml, which must name the file, and its remedy."""

    def read(text):
        with pytest.raises(BadInput) as caught:
            config(text)
        path = f"{tmp_path / 'pyproject.toml'}"
        assert caught.value.reason.startswith((f"{path}: ", f"{path} is "))
        return caught.value.reason.removeprefix(path).removeprefix(": "), caught.value.remedy

    return read


# --- what is there ---------------------------------------------------------------------------------


def test_an_empty_file_is_a_legacy_project(config, tmp_path):
    read = config("")
    assert (read.root, read.name, read.requires_python, read.python, read.exclude_newer) == (
        tmp_path,
        "",
        "",
        None,
        None,
    )
    assert read.build_requires == (Requirement("setuptools>=40.8.0"),)
    assert read.backend == "setuptools.build_meta:__legacy__"
    assert not read.has_metadata
    assert read.wheel == BuildSettings()
    assert read.selections == (Selection(name="", output="requirements.txt"),)


def test_a_setup_py_alone_is_a_project_too(tmp_path, config):
    (tmp_path / "setup.py").write_text("")
    assert load(tmp_path) == config("")


def test_everything_at_once(config):
    read = config(
        """
        [build-system]
        requires = ["hatchling >= 1.27", "editables; python_version < '3'"]
        build-backend = "own.backend"
        backend-path = ["tools"]
        [project]
        name = "Demo_App"
        requires-python = ">=3.11"
        [tool.reprobuild]
        python = "3.12"
        exclude-newer = 2026-05-01T02:00:00+02:00
        [tool.reprobuild.wheel]
        environment = { MAKEFLAGS = "-s", CFLAGS = "" }
        config-settings = { one = "1", many = ["2", "3"] }
        readable = ["/opt/cuda"]
        path = ["/opt/cuda/bin"]
        sandbox = "plain"
        timeout = 60
        memory = 4096
        [tool.other]
        anything = "goes"
        """
    )
    assert (read.name, read.requires_python, read.python, read.has_metadata) == ("demo-app", ">=3.11", "3.12", True)
    assert [str(each) for each in read.build_requires] == ["hatchling>=1.27", 'editables; python_version < "3"']
    assert (read.backend, read.backend_path) == ("own.backend", ("tools",))
    assert read.exclude_newer == "2026-05-01T00:00:00Z"
    assert read.wheel == BuildSettings(
        environment={"MAKEFLAGS": "-s", "CFLAGS": ""},
        config_settings={"one": "1", "many": ("2", "3")},
        readable=("/opt/cuda",),
        path=("/opt/cuda/bin",),
        sandbox="plain",
        timeout=60,
        memory=4096,
    )


def test_an_image_says_what_runs_it(config):
    read = config(
        """
        [tool.reprobuild.images.serve]
        project = false
        python = "3.12"
        interpreter = "/usr/bin/python3.12"
        platforms = ["linux/amd64", "linux/arm64/v8"]
        manylinux = "2_28"
        [tool.reprobuild.images.train]
        """
    )
    serve, train = read.images
    assert (serve.selection, train.selection) == read.selections[1:]
    assert serve.interpreter == "/usr/bin/python3.12"
    assert serve.platforms == (Platform("linux", "amd64"), Platform("linux", "arm64", "v8"))
    assert serve.manylinux == "2_28"
    assert (train.interpreter, train.platforms, train.manylinux) == ("", (), "")


@pytest.mark.parametrize(
    "path", ["python3", "usr/bin/python3", "/usr/../python3", "/usr/bin/", "/usr/my python", "//x", "/a\nb"]
)
def test_an_images_interpreter_is_a_plain_absolute_path(refusal, path):
    reason, remedy = refusal(TOOL + f"images.a.interpreter = {json.dumps(path)}")
    assert reason == f"tool.reprobuild.images.a.interpreter: {path!r} is not an absolute path in plain letters."
    assert "/usr/bin/python3.12" in remedy


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("platforms = ['linux']", "platforms: 'linux' is not a platform."),
        ("platforms = ['linux/amd64', 'linux/amd64']", "platforms names one twice."),
        ("platforms = 'linux/amd64'", "platforms is not a list of strings."),
        ("manylinux = '2.28'", "manylinux: '2.28' is not a version of glibc."),
        ("manylinux = 2", "manylinux is not a string."),
        (
            "manylinux = '2_28', platform = 'x86_64-manylinux_2_28'",
            "has a platform, which names its manylinux already.",
        ),
        ("interpreter = 3", "interpreter is not a string."),
    ],
)
def test_what_an_image_says_is_checked(refusal, settings, said):
    assert said in refusal(TOOL + f"images.a = {{ {settings} }}")[0]


@pytest.mark.parametrize("key", ["interpreter", "platforms", "manylinux"])
def test_only_images_say_what_runs_them(refusal, key):
    reason, _ = refusal(TOOL + f"environments.a.{key} = ''")
    assert reason == f"[tool.reprobuild.environments.a] has no key {key!r}."


def test_selections_are_environments_then_images(config):
    read = config(
        """
        [tool.reprobuild.images.serve]
        project = false
        groups = ["inference"]
        python = "3.12"
        platform = "x86_64-manylinux_2_28"
        [tool.reprobuild.environments.dev]
        extras = ["gpu"]
        groups = ["dev", "docs"]
        [dependency-groups]
        dev = []
        docs = []
        inference = []
        """
    )
    assert read.selections == (
        Selection(name="", output="requirements.txt"),
        Selection("dev", "environments/dev/requirements.txt", project=True, extras=("gpu",), groups=("dev", "docs")),
        Selection(
            "serve",
            "images/serve/requirements.txt",
            project=False,
            groups=("inference",),
            python="3.12",
            platform="x86_64-manylinux_2_28",
        ),
    )


# --- what is refused -------------------------------------------------------------------------------


def test_a_folder_without_a_project_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"There is no pyproject\.toml in") as caught:
        load(tmp_path)
    assert str(tmp_path) in caught.value.reason
    assert caught.value.remedy


def test_text_that_is_not_toml_is_refused_with_its_line(refusal):
    reason, remedy = refusal("[tool]\nx = \n")
    assert reason.startswith(" is not valid TOML:")
    assert "line 2" in reason
    assert remedy


def test_bytes_that_are_not_text_are_refused(tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(BadInput, match=r"pyproject\.toml is not UTF-8"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tool = 1", "tool is not a table."),
        ("[tool]\nreprobuild = 1", "tool.reprobuild is not a table."),
        ("build-system = []", "build-system is not a table."),
        ("project = 'x'", "project is not a table."),
        ("[build-system]\nrequires = 'x'", "build-system.requires is not a list of strings."),
        ("[build-system]\nrequires = [1]", "build-system.requires is not a list of strings."),
        ("[build-system]\nbuild-backend = 1", "build-system.build-backend is not a string."),
        ("[build-system]\nbackend-path = 'x'", "build-system.backend-path is not a list of strings."),
        (TOOL + "python = 3.12", "tool.reprobuild.python is not a string."),
        (TOOL + "wheel = 1", "tool.reprobuild.wheel is not a table."),
        (TOOL + "images = []", "tool.reprobuild.images is not a table."),
        (TOOL + "images.a = 1", "tool.reprobuild.images.a is not a table."),
        (TOOL + "images.a.project = 'no'", "tool.reprobuild.images.a.project is not true or false."),
        (TOOL + "images.a.groups = 'x'", "tool.reprobuild.images.a.groups is not a list of strings."),
        (TOOL + "environments.a.extras = [true]", "tool.reprobuild.environments.a.extras is not a list of strings."),
        (TOOL + "images.a.python = 3", "tool.reprobuild.images.a.python is not a string."),
        (TOOL + "images.a.platform = []", "tool.reprobuild.images.a.platform is not a string."),
        (TOOL + "exclude-newer = 5", "tool.reprobuild.exclude-newer is neither a time nor false."),
        (TOOL + "exclude-newer = true", "tool.reprobuild.exclude-newer is neither a time nor false."),
        (TOOL + "exclude-newer = 12:00:00", "tool.reprobuild.exclude-newer is neither a time nor false."),
        (WHEEL + "environment = 1", "tool.reprobuild.wheel.environment is not a table."),
        (
            WHEEL + "environment.A = 1",
            "tool.reprobuild.wheel.environment.A is not a variable with a string value.",
        ),
        (
            WHEEL + "environment.'A=B' = ''",
            "tool.reprobuild.wheel.environment.A=B is not a variable with a string value.",
        ),
        (
            WHEEL + "environment.1A = ''",
            "tool.reprobuild.wheel.environment.1A is not a variable with a string value.",
        ),
        (WHEEL + "config-settings = 1", "tool.reprobuild.wheel.config-settings is not a table."),
        (WHEEL + "config-settings.a = 1", "tool.reprobuild.wheel.config-settings.a is not a list of strings."),
        (WHEEL + "sandbox = 1", "tool.reprobuild.wheel.sandbox is not a string."),
        (
            WHEEL + "sandbox = 'docker'",
            "tool.reprobuild.wheel.sandbox is 'docker', not one of auto, bubblewrap, unshare, plain.",
        ),
        *(
            (WHEEL + f"timeout = {value}", "tool.reprobuild.wheel.timeout is not a number of seconds, at most 2592000.")
            for value in ("0", "-1", "'9'", "true", "1.5", "9000000000000000000")
        ),
        *(
            (
                WHEEL + f"memory = {value}",
                "tool.reprobuild.wheel.memory is not a number of MiB between 64 and 16777216.",
            )
            for value in ("0", "63", "'9'", "true", "16777217")
        ),
        *(
            (WHEEL + f"{key} = ['opt/x']", f"tool.reprobuild.wheel.{key}: 'opt/x' is not an absolute path.")
            for key in ("readable", "path")
        ),
    ],
)
def test_a_wrong_value_is_named_by_file_and_key(refusal, text, reason):
    assert refusal(text)[0] == reason


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("[project]\nrequires-python = '3.x'", "project.requires-python: Invalid specifier"),
        ("[project]\nrequires-python = []", "project.requires-python: Invalid specifier"),
        ("[build-system]\nrequires = ['a b']", "build-system.requires: 'a b' is not a requirement"),
        (TOOL + "exclude-newer = 'soon'", "tool.reprobuild.exclude-newer: 'soon' is not a time."),
        (TOOL + "exclude-newer = 2026-05-01T00:00:00", "tool.reprobuild.exclude-newer: '2026-05-01T00:00:00' has no"),
    ],
)
def test_a_value_that_others_define_is_refused_in_their_words(refusal, text, starts):
    assert refusal(text)[0].startswith(starts)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a ", "-a", "a-", "é"])
@pytest.mark.parametrize("kind", ["images", "environments"])
def test_a_selection_becomes_a_folder_so_its_name_must_be_one(refusal, kind, name):
    reason, _ = refusal(f"[tool.reprobuild.{kind}.'{name}']")
    assert reason == f"tool.reprobuild.{kind}.{name}: {name!r} can't be a folder's name."


def test_extras_need_the_project(refusal):
    reason, remedy = refusal(TOOL + "images.a = { project = false, extras = ['x'] }")
    assert reason == "tool.reprobuild.images.a names extras but has project = false."
    assert "drop one" in remedy


@pytest.mark.parametrize(
    "name",
    """PATH HOME TMPDIR USER LOGNAME TZ LC_ALL LANG PYTHONHASHSEED SOURCE_DATE_EPOCH VIRTUAL_ENV PYTHONPATH
    PYTHONHOME LD_PRELOAD LD_LIBRARY_PATH UV_OFFLINE UV_INDEX""".split(),
)
def test_variables_that_are_held_fixed_cannot_be_set(refusal, name):
    reason, remedy = refusal(WHEEL + f"environment.{name} = ''")
    assert reason == f"tool.reprobuild.wheel.environment.{name} can't be set here."
    assert "fixed" in remedy


@pytest.mark.parametrize(
    ("text", "where", "key", "hint"),
    [
        (TOOL + "exclude_newer = false", "tool.reprobuild", "exclude_newer", "Did you mean 'exclude-newer'?"),
        (TOOL + "image = {}", "tool.reprobuild", "image", "Did you mean 'images'?"),
        (WHEEL + "enviroment = {}", "tool.reprobuild.wheel", "enviroment", "Did you mean 'environment'?"),
        (TOOL + "images.a.group = []", "tool.reprobuild.images.a", "group", "Did you mean 'groups'?"),
        (
            TOOL + "images.a.zzz = []",
            "tool.reprobuild.images.a",
            "zzz",
            (
                "It can hold: project, extras, groups, python, platform, interpreter, platforms, manylinux, apt, "
                "apt-snapshot."
            ),
        ),
    ],
)
def test_a_typing_mistake_gets_a_hint(refusal, text, where, key, hint):
    assert refusal(text) == (f"[{where}] has no key {key!r}.", hint)


# --- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("'2026-05-01'", "2026-05-01T00:00:00Z"),
        ("2026-05-01", "2026-05-01T00:00:00Z"),
        ("'2026-05-01T12:30:00Z'", "2026-05-01T12:30:00Z"),
        ("2026-05-01T12:30:00Z", "2026-05-01T12:30:00Z"),
        ("2026-05-01T00:30:00.25+01:00", "2026-04-30T23:30:00Z"),
        ("'0999-01-01'", "0999-01-01T00:00:00Z"),
        ("false", False),
    ],
)
def test_exclude_newer_is_a_time_in_utc_or_false(config, written, expected):
    assert config(TOOL + f"exclude-newer = {written}").exclude_newer == expected


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo"])
def test_a_date_means_the_same_moment_everywhere(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    assert check_time("2026-05-01", "x") == "2026-05-01T00:00:00Z"


@pytest.mark.parametrize(
    "text", ["", "now", "2026-13-01", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "2026-05-01T25:00Z"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadInput, match=r"--exclude-newer: .* is not a time") as caught:
        check_time(text, "--exclude-newer")
    assert "2026-05-01" in caught.value.remedy


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(BadInput, match="has no time zone"):
        check_time("2026-05-01T00:00", "--exclude-newer")


def test_a_normalised_time_reads_back_as_the_same_moment():
    text = "2026-05-01T10:00:00+05:30"
    assert datetime.fromisoformat(check_time(text, "x")) == datetime(2026, 5, 1, 4, 30, tzinfo=UTC)


IMAGE = "[tool.reprobuild.images.serve]\n"
DECLARED = "[project]\nname = 'demo'\noptional-dependencies.GPU_all = []\n[dependency-groups]\ntraining = []\n"


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        (
            DECLARED + IMAGE + "extras = ['gpu']",
            "tool.reprobuild.images.serve.extras names 'gpu', which [project.optional-dependencies] doesn't hold.",
            "Did you mean 'gpu-all'?",
        ),
        (
            DECLARED + IMAGE + "groups = ['trainin']",
            "tool.reprobuild.images.serve.groups names 'trainin', which [dependency-groups] doesn't hold.",
            "Did you mean 'training'?",
        ),
        (
            IMAGE + "groups = ['x']",
            "tool.reprobuild.images.serve.groups names 'x', which [dependency-groups] doesn't hold.",
            "Declare it in [dependency-groups].",
        ),
    ],
)
def test_a_selection_of_what_is_not_declared_is_refused(refusal, text, reason, remedy):
    assert refusal(text) == (reason, remedy)


@pytest.mark.parametrize(
    "text",
    [
        DECLARED + IMAGE + "extras = ['gpu.All']\ngroups = ['Training']",
        "[project]\nname = 'demo'\ndynamic = ['optional-dependencies']\n" + IMAGE + "extras = ['who-knows']",
        IMAGE + "extras = ['setup-py-knows']",
    ],
)
def test_a_selection_may_name_what_is_declared_or_what_only_the_backend_knows(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(text)
    assert load(tmp_path).selections[1].name == "serve"


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_what_no_parser_can_take_is_not_toml(refusal, text):
    assert refusal(text)[0].strip().startswith("is not valid TOML")


NUL = '"a\\u0000b"'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"[project]\nname = {NUL}", "project.name"),
        (f"[build-system]\nbackend-path = ['.', {NUL}]", "build-system.backend-path"),
        (f"[tool.reprobuild]\npython = {NUL}", "tool.reprobuild.python"),
        (f"{WHEEL}environment = {{ A = {NUL} }}", "tool.reprobuild.wheel.environment.A"),
        (f"{WHEEL}config-settings = {{ {NUL} = 'x' }}", "tool.reprobuild.wheel.config-settings.a\\0b"),
        (f"{WHEEL}readable = ['/a', {NUL}]", "tool.reprobuild.wheel.readable"),
    ],
)
def test_what_no_path_or_option_can_hold_is_refused(refusal, text, key):
    assert refusal(text)[0] == f"{key} has a NUL character in it."


DIGITS = "1." + "9" * 5000


@pytest.mark.parametrize(
    "requirement",
    [f"a=={DIGITS}", f"a<0,=={DIGITS}", "a; " + "(" * 3000 + "os_name == 'x'" + ")" * 3000, "a" * 5000 + "!"],
)
def test_what_no_requirement_can_be_is_refused_in_few_words(refusal, requirement):
    reason, _ = refusal(f'[build-system]\nrequires = ["{requirement}"]')
    assert reason.startswith("build-system.requires: 'a")
    assert "is not a requirement: " in reason
    assert len(reason) < 600


def test_a_python_of_very_many_digits_is_refused(refusal):
    assert refusal(f'[project]\nrequires-python = ">={DIGITS}"')[0].startswith("project.requires-python: ")
