import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from reprobuild.errors import BadInput, redacted
from reprobuild.places import Place, configured, paths_from_here, refuse_no_binary, secrets

DEFAULT = Place(PYPI_SIMPLE_ENDPOINT, flat=False)
OWN, OTHER = "https://own.example/simple", "https://other.example/simple"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A machine on which uv isn't configured at all."""
    for name in [name for name in os.environ if name.startswith(("UV_", "XDG_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(folder / "system"))
    return folder


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "above" / "project"
    folder.mkdir(parents=True)
    return folder


def urls(project):
    return [place.url for place in configured(project)]


def test_without_configuration_there_is_the_default_index(project):
    assert configured(project) == (DEFAULT,)


# --- variables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"UV_DEFAULT_INDEX": OWN}, [OWN]),
        ({"UV_DEFAULT_INDEX": f"name={OWN}"}, [OWN]),
        ({"UV_INDEX_URL": OWN}, [OWN]),
        ({"UV_INDEX": OWN}, [OWN, PYPI_SIMPLE_ENDPOINT]),
        ({"UV_INDEX": f"first={OWN} {OTHER}"}, [OWN, OTHER, PYPI_SIMPLE_ENDPOINT]),
        ({"UV_EXTRA_INDEX_URL": f"{OWN} {OTHER}"}, [OWN, OTHER, PYPI_SIMPLE_ENDPOINT]),
        ({"UV_DEFAULT_INDEX": OWN, "UV_INDEX": OTHER}, [OTHER, OWN]),
        ({"UV_DEFAULT_INDEX": OWN, "UV_EXTRA_INDEX_URL": OWN}, [OWN]),
        ({"UV_NO_INDEX": "1", "UV_INDEX": OWN}, []),
        ({"UV_NO_INDEX": "true"}, []),
        ({"UV_NO_INDEX": "0"}, [PYPI_SIMPLE_ENDPOINT]),
        ({"UV_DEFAULT_INDEX": "", "UV_INDEX": "", "UV_FIND_LINKS": ""}, [PYPI_SIMPLE_ENDPOINT]),
        ({"UV_FIND_LINKS": f"{OWN},{OTHER}", "UV_NO_INDEX": "1"}, [OWN, OTHER]),
        # An equals sign in a URL makes no name.
        ({"UV_INDEX": f"{OWN}?a=b"}, [f"{OWN}?a=b", PYPI_SIMPLE_ENDPOINT]),
    ],
)
def test_variables_name_places(project, monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert sorted(urls(project)) == sorted(expected)


def test_find_links_are_flat_and_relative_to_where_uv_runs(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UV_FIND_LINKS", "wheels,~/more")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    found = configured(project)
    assert [place.folder for place in found] == [tmp_path / "wheels", tmp_path / "home" / "more"]
    assert all(place.flat for place in found)


# --- files -----------------------------------------------------------------------------------------


TOML = f"""
index-url = "{OWN}"
extra-index-url = ["{OTHER}"]
find-links = ["./wheels", "/opt/wheels"]
"""


@pytest.mark.parametrize("where", ["uv.toml", "pyproject.toml", "../uv.toml", "../pyproject.toml"])
def test_a_file_in_the_project_or_above_counts(project, where):
    text = TOML if where.endswith("uv.toml") else f"[tool.uv]\n{TOML}"
    (project / where).write_text(text)
    if where.startswith(".."):
        (project / "pyproject.toml").write_text("[project]\nname = 'demo'\n")
    found = configured(project)
    base = (project / where).resolve().parent
    assert [place.url for place in found] == [OWN, OTHER, (base / "wheels").as_uri(), "file:///opt/wheels"]
    assert [place.flat for place in found] == [False, False, True, True]


def test_of_two_files_in_a_folder_uvs_own_counts(project):
    (project / "uv.toml").write_text(f'index-url = "{OWN}"')
    (project / "pyproject.toml").write_text(f'[tool.uv]\nindex-url = "{OTHER}"')
    assert urls(project) == [OWN]


def test_the_pip_table_counts_too(project):
    (project / "uv.toml").write_text(f'[pip]\nextra-index-url = ["{OWN}"]\nfind-links = ["w"]')
    assert urls(project) == [OWN, (project / "w").as_uri(), PYPI_SIMPLE_ENDPOINT]


def test_named_indexes_may_be_flat_or_the_default(project):
    (project / "uv.toml").write_text(
        f"""
        [[index]]
        url = "{OWN}"
        format = "flat"
        [[index]]
        url = "./local"
        default = true
        [[index]]
        name = "only a name"
        """
    )
    found = configured(project)
    assert [(place.url, place.flat) for place in found] == [(OWN, True), ((project / "local").as_uri(), False)]


@pytest.mark.parametrize("where", [".config/uv/uv.toml", "system/uv/uv.toml"])
def test_the_users_and_the_systems_files_count(project, home, where):
    path = home / where
    path.parent.mkdir(parents=True)
    path.write_text(f'extra-index-url = ["{OWN}"]')
    (project / "uv.toml").write_text(f'extra-index-url = ["{OTHER}"]')
    assert urls(project) == [OTHER, OWN, PYPI_SIMPLE_ENDPOINT]


def test_a_named_file_counts_alone(project, monkeypatch, tmp_path):
    (project / "uv.toml").write_text(f'extra-index-url = ["{OTHER}"]')
    (tmp_path / "own.toml").write_text(f'index-url = "{OWN}"')
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "own.toml"))
    assert urls(project) == [OWN]


def test_files_can_be_switched_off(project, monkeypatch):
    (project / "uv.toml").write_text(f'index-url = "{OTHER}"')
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    assert urls(project) == [PYPI_SIMPLE_ENDPOINT]


@pytest.mark.parametrize(
    "text", ["no-binary-package = ['demo']", "no-binary = true", "[pip]\nno-binary = ['demo']"], ids=lambda text: text
)
@pytest.mark.parametrize("where", ["uv.toml", "../uv.toml", "../../home/.config/uv/uv.toml"])
def test_a_uv_that_builds_whatever_it_is_told_is_refused(project, text, where):
    path = project / where
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_no_binary(project)
    path.write_text(text)
    with pytest.raises(BadInput, match=r"no-binary.* whoever requires them"):
        refuse_no_binary(project)


def test_no_index_leaves_the_flat_places(project):
    (project / "uv.toml").write_text(f"no-index = true\n{TOML}")
    assert urls(project) == [(project / "wheels").as_uri(), "file:///opt/wheels"]


def test_which_setting_wins_does_not_matter_as_all_are_looked_at(project, monkeypatch):
    (project / "uv.toml").write_text(f'extra-index-url = ["{OTHER}", "{OWN}"]')
    monkeypatch.setenv("UV_EXTRA_INDEX_URL", OWN)
    first = set(urls(project))
    monkeypatch.setenv("UV_EXTRA_INDEX_URL", f"{OTHER} {OWN}")
    assert set(urls(project)) == first


def test_a_file_that_is_not_toml_is_named(project):
    (project / "uv.toml").write_text("index = [")
    with pytest.raises(BadInput, match=r"uv\.toml is not valid TOML"):
        configured(project)


MALFORMED = """
index = 5
pip = 5
index-url = 5
index-url = "https://[bad:s3cret@x/"
index-url = "https://own.example:s3cret/"
find-links = "abc"
extra-index-url = [5]
index = [5]
index = [{ url = 5 }]
index = [{ url = "https://own.example/", name = 5 }]
pip = { find-links = 5 }
""".strip().splitlines()


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("where", ["uv.toml", "pyproject.toml"])
def test_a_setting_that_is_malformed_is_refused_in_words(project, text, where):
    (project / where).write_text(text if where == "uv.toml" else f"[tool.uv]\n{text}")
    with pytest.raises(BadInput, match=f"{where}: ") as caught:
        configured(project)
    assert "s3cret" not in caught.value.reason


@pytest.mark.parametrize("text", ["tool = 5", "[tool]\nuv = 5"])
def test_a_tool_table_that_is_none_is_refused_in_words(project, text):
    (project / "pyproject.toml").write_text(text)
    with pytest.raises(BadInput, match="is not a table"):
        configured(project)


@pytest.mark.parametrize(
    "variable", ["UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_FIND_LINKS"]
)
def test_a_variable_that_is_malformed_is_refused_in_words(project, monkeypatch, variable):
    monkeypatch.setenv(variable, "https://user:s3cret@[bad/")
    with pytest.raises(BadInput, match=r"the variables UV_.*malformed") as caught:
        configured(project)
    assert "s3cret" not in caught.value.reason


def test_a_folder_of_links_whose_name_has_a_nul_is_refused_in_words(project):
    (project / "uv.toml").write_text('find-links = ["file:///links%00"]')
    with pytest.raises(BadInput, match=r"uv\.toml: the URL of a place .* is malformed"):
        configured(project)
    (project / "uv.toml").write_text('find-links = ["links%00"]\nno-index = true')
    assert [place.folder for place in configured(project)] == [project / "links%00"]


def test_links_are_separated_by_commas_alone(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UV_FIND_LINKS", "a b,,c")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    assert [place.folder for place in configured(project)] == [tmp_path / "a b", tmp_path / "c"]


def test_paths_in_variables_are_absolute_for_a_uv_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert paths_from_here() == {}
    monkeypatch.setenv("UV_FIND_LINKS", f"a b,/c,{OWN}")
    monkeypatch.setenv("UV_CONFIG_FILE", "own.toml")
    found = {"UV_FIND_LINKS": f"{tmp_path}/a b,/c,{OWN}", "UV_CONFIG_FILE": f"{tmp_path}/own.toml"}
    assert paths_from_here() == found
    assert paths_from_here(Path("links"))["UV_FIND_LINKS"] == f"{tmp_path}/links,{tmp_path}/a b,/c,{OWN}"


def test_without_a_home_there_are_no_settings_in_it(project, monkeypatch):
    def nobody(*path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(Path, "expanduser", nobody)
    monkeypatch.delenv("NETRC")
    (project / "uv.toml").write_text(f'extra-index-url = ["{OWN}"]\nfind-links = ["~/wheels"]')
    assert urls(project) == [OWN, (project / "~/wheels").as_uri(), PYPI_SIMPLE_ENDPOINT]


# --- credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("https://user:pass@own.example/simple", ("user", "pass")),
        ("https://us%40er:p%2Fa%3Ass@own.example/simple", ("us@er", "p/a:ss")),
        ("https://t0ken@own.example/simple", ("t0ken", "")),
        ("https://own.example/simple", None),
    ],
)
def test_credentials_leave_the_url(project, monkeypatch, url, credentials):
    monkeypatch.setenv("UV_DEFAULT_INDEX", url)
    (place,) = configured(project)
    assert place.url == OWN
    assert place.credentials == credentials


def test_credentials_are_not_shown(project, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:s3cret@own.example:8443/simple")
    (place,) = configured(project)
    for shown in (repr(place), str(place), f"{place}", place.url, repr((place,))):
        assert "s3cret" not in shown
        assert "user" not in shown
    assert place.url == "https://own.example:8443/simple"


def test_a_named_index_has_variables_of_its_own(project, monkeypatch):
    monkeypatch.setenv("UV_INDEX", f"my-own.index={OWN}")
    monkeypatch.setenv("UV_INDEX_MY_OWN_INDEX_USERNAME", "user")
    monkeypatch.setenv("UV_INDEX_MY_OWN_INDEX_PASSWORD", "pass")
    assert configured(project)[0].credentials == ("user", "pass")


def test_netrc_counts_for_its_host_alone(project, monkeypatch, home):
    (home / "netrc").write_text("machine own.example login user password pass\n")
    (home / "netrc").chmod(0o600)
    monkeypatch.setenv("UV_DEFAULT_INDEX", OWN)
    monkeypatch.setenv("UV_EXTRA_INDEX_URL", OTHER)
    found = {place.url: place.credentials for place in configured(project)}
    assert found == {OWN: ("user", "pass"), OTHER: None}


def test_a_damaged_netrc_gives_no_credentials(project, monkeypatch, home):
    (home / "netrc").write_text("nonsense and more")
    monkeypatch.setenv("UV_DEFAULT_INDEX", OWN)
    assert configured(project)[0].credentials is None


def test_an_index_that_is_not_logged_in_to_has_no_credentials(project, monkeypatch):
    monkeypatch.setenv("UV_INDEX", f"own={OWN}")
    assert configured(project)[0].credentials is None


def test_the_default_index_gets_no_credentials(project):
    assert configured(project)[-1].credentials is None
    assert urlsplit(configured(project)[-1].url).username is None


def test_a_place_knows_its_folder():
    assert Place("file:///a%20b/c", flat=True).folder == Path("/a b/c")
    assert Place(OWN, flat=True).folder is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no URL, but user:pass@host", "no URL, but user:pass@host"),
        ("GET https://user:pa%40ss@own.example/x failed", "GET https://…@own.example/x failed"),
        ("at `https://t0ken@own.example` and http://a:b@c/", "at `https://…@own.example` and http://…@c/"),
        ("(https://own.example/x?token=t0ken)", "(https://own.example/x?…)"),
        ("https://own.example/simple/a@b", "https://own.example/simple/a@b"),
        ("https://own.example/, or somebody@example.org", "https://own.example/, or somebody@example.org"),
        ("it says s3cret, s3 and s%2Fcret", "it says …, s3 and …"),
    ],
)
def test_what_is_shown_hides_credentials(text, shown):
    assert redacted(text, ("s%2Fcret", "s3cret")) == shown


def test_secrets_are_passwords_and_tokens_but_not_names(project, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://somebody:pa%2Fssword@own.example/")
    monkeypatch.setenv("UV_INDEX", f"https://t0ken@other.example/ https://somebody:abc@third.example/ {OWN}")
    assert set(secrets(project)) == {"pa/ssword", "pa%2Fssword", "t0ken"}
