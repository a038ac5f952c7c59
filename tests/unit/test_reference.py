import pytest

from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.oci.reference import Reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("debian", "docker.io", "library/debian", ""),
        ("debian:12", "docker.io", "library/debian", "12"),
        ("nvidia/cuda:13.0.1-base", "docker.io", "nvidia/cuda", "13.0.1-base"),
        ("docker.io/debian", "docker.io", "library/debian", ""),
        ("index.docker.io/debian", "docker.io", "library/debian", ""),
        ("localhost/debian", "localhost", "debian", ""),
        ("localhost:5000/debian:12", "localhost:5000", "debian", "12"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", ""),
        ("[::1]:5000/a", "[::1]:5000", "a", ""),
        ("registry.example/a", "registry.example", "a", ""),
        ("example/a", "docker.io", "example/a", ""),
        ("UPPER/a", "UPPER", "a", ""),
        ("registry.example:443/a_b/c__d/e---f.g:T_1.-", "registry.example:443", "a_b/c__d/e---f.g", "T_1.-"),
        ("debian:5000", "docker.io", "library/debian", "5000"),
    ],
)
def test_names_are_read_as_docker_reads_them(text, registry, repository, tag):
    for digest in (None, Digest("sha256", HEX)):
        whole = f"{text}@{digest}" if digest else text
        read = Reference.parse(whole)
        assert read == Reference(registry, repository, tag, digest)
        assert Reference.parse(str(read)) == read


def test_what_a_registry_is_asked_for():
    assert Reference.parse("a").target == "latest"
    assert Reference.parse("a:1").target == "1"
    assert Reference.parse(f"a:1@sha256:{HEX}").target == f"sha256:{HEX}"
    assert str(Reference.parse(f"a:1@sha256:{HEX}")) == f"docker.io/library/a:1@sha256:{HEX}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        ":",
        "@",
        "a/",
        "/a",
        "a//b",
        "A",
        "registry.example/A",
        "a:",
        "a:.b",
        "a:b c",
        f"a:{'b' * 129}",
        "a@",
        "a@sha256:12",
        f"a@md5:{HEX}",
        f"a@sha256:{HEX.upper()}",
        HEX,
        "a..b",
        "a___b",
        "-a",
        "a-",
        "a b",
        "a\n",
        "registry.example/../a",
        "-registry.example/a",
        "registry..example/a",
        "registry.example:/a",
        "registry.example:0/a",
        "registry.example:65536/a",
        "registry.example:99999/a",
        "[::g]:1/a",
        "[::1/a",
        "[::1::2]/a",
        "user:pass@registry.example/a",
        "registry.example/a?b",
        "ä/b",
        "https://registry.example/a",
        "a" * 250,
        "a:b:c",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(BadInput):
        Reference.parse(text)


def test_a_name_has_at_most_255_characters():
    registry = "registry.example:65535"
    fits = "a" * (254 - len(registry))
    assert Reference.parse(f"{registry}/{fits}").repository == fits
    with pytest.raises(BadInput, match="too long"):
        Reference.parse(f"{registry}/{fits}a")


def test_a_url_is_not_shown():
    with pytest.raises(BadInput) as caught:
        Reference.parse("https://user:s3cret@registry.example/a")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("registry", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("::1", True),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
        ("128.0.0.1", False),
        ("[::2]:1", False),
        ("docker.io", False),
    ],
)
def test_this_machine_is_known_by_its_names(registry, loopback):
    assert Reference(registry, "a").is_loopback == loopback
