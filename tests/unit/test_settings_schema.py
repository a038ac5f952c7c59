"""docs/schemas/tool-reprobuild.schema.json and the code know the same settings, and refuse the same mistakes."""

import copy
import json
import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, validators

from reprobuild import policy, project
from reprobuild.errors import BadInput
from reprobuild.keys import PrivateKey

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "tool-reprobuild.schema.json").read_text())
#: A date of TOML is a text to JSON's schemas.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine(
    "string", lambda _, value: isinstance(value, str) or type(value) is date
)
VALIDATOR = validators.extend(Draft202012Validator, type_checker=_TYPES)(SCHEMA)
#: Every setting at once, each with a value that isn't its default.
FULL = {
    "exclude-newer": "2026-05-01",
    "python": "3.12",
    "archive": "oci:bases",
    "wheel": {
        "environment": {"A": "b"},
        "config-settings": {"one": "1", "many": ["1", "2"]},
        "readable": ["/opt/x"],
        "path": ["/opt/x/bin"],
        "sandbox": "plain",
        "timeout": 60,
        "memory": 1024,
        "sbom": True,
    },
    "audit": {
        "ignore": [{"id": "CVE-2025-27516", "reason": "why", "expires": date(2026, 12, 31), "package": "jinja2"}]
    },
    "environments": {
        "dev": {"project": True, "extras": ["more"], "groups": ["dev"], "python": "3.12", "platform": "linux"}
    },
    "images": {
        "one": {
            "project": True,
            "extras": ["more"],
            "groups": ["dev"],
            "python": "3.12",
            "platform": "x86_64-manylinux_2_28",
            "interpreter": "/usr/bin/python3.12",
            "apt": ["git"],
            "apt-snapshot": "20261101T000000Z",
        },
        "two": {"platforms": ["linux/amd64", "linux/arm64"], "manylinux": "2_28"},
    },
    "policy": {
        "keys": ["ci.pub"],
        "identities": [{"identity": "release@example.org", "issuer": "https://accounts.example.org"}],
        "github": {"repository": "acme/demo", "workflow": "release.yml", "ref": "refs/tags/*"},
        "predicates": ["provenance", "https://example.org/type"],
        "builders": ["https://example.org/builder"],
        "level": "container",
        "rebuilds": 2,
        "distinct": True,
        "max-age": "30d",
        "bases": ["docker.io/nvidia/cuda:*"],
        "audit": {"max-age": "7d", "max-severity": "medium", "ignores": False},
    },
}
DECLARED = {
    "project": {"name": "demo", "version": "1", "optional-dependencies": {"more": []}},
    "dependency-groups": {"dev": []},
}


@pytest.fixture
def load(tmp_path):
    """Read settings as the commands do: the policy when it is asked for, the rest with pyproject.toml."""
    key = PrivateKey.generate()
    (tmp_path / "ci.pub").write_bytes(key.public.pem)

    def read(settings):
        project._parse({**DECLARED, "tool": {"reprobuild": settings}}, tmp_path, "pyproject.toml")
        if "policy" in settings:
            policy.read(settings["policy"], "[tool.reprobuild.policy]", tmp_path)

    return read


def refused(load, settings):
    try:
        load(settings)
    except BadInput:
        return True
    return False


def resolved(schema):
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def settings_of(schema, path=()):
    """Each setting of the schema as the path of its keys, where ``*`` stands for a name that the user gives."""
    for key, inner in resolved(schema).get("properties", {}).items():
        yield (*path, key)
        table = resolved(inner)
        more = table.get("additionalProperties")
        if isinstance(more, dict) and "$ref" in more:
            yield from settings_of(more, (*path, key, "*"))
        else:
            yield from settings_of(table.get("items", table), (*path, key))


def known_to_the_code(load, monkeypatch):
    """The same of the code: what it asks each table for while it reads all of them."""
    found: set[tuple[str, ...]] = set()

    def known(self, table, where, keys):
        path = tuple(
            re.sub(r"^(environments|images)\.[^.]+", r"\1.*", where.removeprefix("tool.reprobuild").lstrip(".")).split(
                "."
            )
        )
        found.update((*filter(None, path), key) for key in keys)

    monkeypatch.setattr(project._Reader, "known", known)
    load(FULL)
    with pytest.raises(BadInput) as error:
        policy.read({"?": 1}, "here", Path())
    found.update(("policy", key) for key in error.value.remedy.removeprefix("It has ").rstrip(".").split(", "))
    return found


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)
    assert [error.message for error in VALIDATOR.iter_errors(FULL)] == []


def test_both_know_the_same_settings(load, monkeypatch):
    inner = {("policy", name) for name in ("identities", "github", "audit")}  # their keys are compared below, by values
    in_schema = {path for path in settings_of(SCHEMA) if path[:2] not in inner or len(path) == 2}
    in_code = known_to_the_code(load, monkeypatch)
    assert {"only in the schema": in_schema - in_code, "only in the code": in_code - in_schema} == {
        "only in the schema": set(),
        "only in the code": set(),
    }


def test_every_setting_has_a_word_about_it():
    tables = {"": SCHEMA, **SCHEMA["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, table in tables.items()
        for key, inner in table["properties"].items()
        if not {"description", "$ref"} & inner.keys()
    ]
    assert silent == []


def test_all_of_it_is_read(load):
    load(FULL)


def places(value, path=()):
    """The path of each value in settings."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def value_at(path, settings=FULL):
    for key in path:
        settings = settings[key]
    return settings


def changed(path, value):
    settings = copy.deepcopy(FULL)
    value_at(path[:-1], settings)[path[-1]] = value
    return settings


def judged(load, settings):
    """Whether the schema, and whether the code, takes settings."""
    return VALIDATOR.is_valid(settings), not refused(load, settings)


def test_a_value_of_the_wrong_type_is_refused_by_both(load):
    """A float, a list in a list and a table of nonsense are right nowhere."""
    nonsense: tuple[object, ...] = (3.5, [[]], {"no-such-key": {"x": 1}})
    wrong = [(path, value) for path in places(FULL) for value in nonsense]
    # That the policy is a table at all is looked at by the command that reads it.
    wrong = [(path, value) for path, value in wrong if path != ("policy",) or isinstance(value, dict)]
    assert len(wrong) > 100
    assert [each for each in wrong if judged(load, changed(*each)) != (False, False)] == []


def test_a_typing_mistake_is_refused_by_both(load):
    free = {"environment", "config-settings", "environments", "images"}  # the user names their keys
    tables = [(), *(path for path in places(FULL) if path[-1] not in free)]
    mistaken = [(*path, "exlude-newer") for path in tables if isinstance(value_at(path), dict)]
    assert len(mistaken) > 6
    assert [path for path in mistaken if judged(load, changed(path, "2026-01-01")) != (False, False)] == []


BAD = [
    (("exclude-newer",), True),
    (("exclude-newer",), "yesterday"),
    (("wheel", "environment", "PATH"), "/bin"),
    (("wheel", "environment", "UV_OFFLINE"), "1"),
    (("wheel", "environment", "a b"), "1"),
    (("wheel", "readable"), ["opt"]),
    (("wheel", "sandbox"), "docker"),
    (("wheel", "timeout"), 0),
    (("wheel", "timeout"), True),
    (("wheel", "memory"), 63),
    (("environments", "a/b"), {}),
    (("environments", "dev", "project"), False),  # with extras
    (("environments", "dev", "interpreter"), "/usr/bin/python3"),  # a setting of images
    (("images", "one", "interpreter"), "python3"),
    (("images", "one", "interpreter"), "/usr/../bin/python3"),
    (("images", "one", "manylinux"), "2_28"),  # beside a platform
    (("images", "one", "apt"), ["git=1.0"]),
    (("images", "one", "apt"), []),  # beside a snapshot
    (("images", "one", "apt-snapshot"), "2026-11-01"),
    (("images", "two", "platforms"), ["linux"]),
    (("images", "two", "platforms"), ["linux/amd64", "linux/amd64"]),
    (("images", "two", "manylinux"), "2.28"),
    (("policy",), {}),
    (("policy", "keys"), []),
    (("policy", "github", "repository"), "*/demo"),
    (("policy", "github", "branch"), "main"),
    (("policy", "identities"), [{"identity": "a"}]),
    (("policy", "predicates"), ["provenanse"]),
    (("policy", "level"), "not-comparable"),
    (("policy", "rebuilds"), 0),  # beside a level
    (("policy", "rebuilds"), 1001),
    (("policy", "max-age"), "30"),
    (("policy", "github"), []),
    (("policy", "audit"), {}),
    (("policy", "audit", "max-severity"), "unknown"),
    (("audit", "ignore", 0, "reason"), " "),
    (("audit", "ignore"), [{"id": "CVE-2025-27516", "expires": date(2026, 12, 31)}]),
    (("policy", "bases"), [""]),
]


@pytest.mark.parametrize(
    ("path", "value"), BAD, ids=lambda each: ".".join(map(str, each)) if isinstance(each, tuple) else None
)
def test_what_means_nothing_is_refused_by_both(load, path, value):
    settings = changed(path, value)
    assert judged(load, settings) == (False, False)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("exclude-newer",), False),
        (("exclude-newer",), "2026-05-01T12:00:00+02:00"),
        (("images", "one", "apt-snapshot"), ""),
        (("images", "one", "platforms"), ["linux/arm64/v8"]),
        (("policy", "predicates"), ["vsa"]),
        (("policy", "github"), [{"repository": "acme/demo"}, {"repository": "acme/other"}]),
        (("wheel", "timeout"), 2_592_000),
    ],
)
def test_what_means_something_is_taken_by_both(load, path, value):
    settings = changed(path, value)
    assert judged(load, settings) == (True, True)


def test_the_defaults_are_those_of_the_code(tmp_path):
    wheel = {
        name: each["default"] for name, each in SCHEMA["$defs"]["wheel"]["properties"].items() if "default" in each
    }
    assert wheel == {name: getattr(project.BuildSettings(), name) for name in wheel}
    table = {
        name: each["default"] for name, each in SCHEMA["$defs"]["policy"]["properties"].items() if "default" in each
    }
    assert table == {name: getattr(policy.Policy(), name) for name in table}
    image = {
        name: each["default"] for name, each in SCHEMA["$defs"]["image"]["properties"].items() if "default" in each
    }
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in image.items()} == {
        name: getattr(project.Selection("", ""), name) for name in image
    }


def test_the_page_of_settings_shows_each(load):
    """The blocks of docs/configuration.md and the policy's page together hold every setting."""
    shown = set()
    for page, prefix in (("configuration", ()), ("evidence", ("policy",))):
        text = (ROOT / "docs" / f"{page}.md").read_text()
        for block in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            document = tomllib.loads(block)
            table = document if prefix else document["tool"]["reprobuild"]
            shown |= {
                tuple(
                    "*" if path[:1] in {("environments",), ("images",)} and at == 1 else key
                    for at, key in enumerate((*prefix, *path))
                    if not isinstance(key, int)
                )
                for path in places(table)
            }
    missing = {path for path in settings_of(SCHEMA) if path not in shown and path[:2] != ("policy", "github")}
    missing -= {path for path in missing if path[0] == "policy" and len(path) > 2}
    own = {("environments", "*", name) for name in project._SELECTION} | {("policy",)}  # as of images, which show them
    assert missing - own == set()
