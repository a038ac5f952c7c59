import pytest
from click.testing import CliRunner

from reprobuild import interpreter, lock
from reprobuild.cli import app
from reprobuild.cli import lock as commands
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, ExitCode, RegistryFailed
from reprobuild.image import pins
from reprobuild.image.pins import Moved, moved, pin
from reprobuild.oci.model import OCI_INDEX, OCI_MANIFEST, Index
from reprobuild.project import load

OLD = "sha256:" + "0" * 64


def digest_of(name):
    return Digest.of_bytes(name.encode())


def at(name):
    return f"@{digest_of(name)}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FROM a:1", f"FROM a:1{at('a:1')}"),
        (f"FROM a:1@{OLD}", f"FROM a:1{at('a:1')}"),
        ("FROM a", f"FROM a:latest{at('a:latest')}"),
        ("FROM host:5000/a/b", f"FROM host:5000/a/b:latest{at('host:5000/a/b:latest')}"),
        (
            "  from\t--platform=$TARGETPLATFORM  a:1\tas A  ",
            f"  from\t--platform=$TARGETPLATFORM  a:1{at('a:1')}\tas A  ",
        ),
        ("FROM a:1 AS x\r\nFROM x\r\n", f"FROM a:1{at('a:1')} AS x\r\nFROM x\r\n"),
        ('FROM "a:1"', f'FROM "a:1"{at("a:1")}'),
        (f'FROM "a:1@{OLD}"', f'FROM "a:1{at("a:1")}"'),
        ("from from", f"from from:latest{at('from:latest')}"),
        ("FROM from", f"FROM from:latest{at('from:latest')}"),
        ("FROM a AS a", f"FROM a:latest{at('a:latest')} AS a"),
        ("# escape=`\nFROM `\n # a:1\n\n  a:1`\n  AS x", f"# escape=`\nFROM `\n # a:1\n\n  a:1{at('a:1')}`\n  AS x"),
        ("\ufeffFROM a:1", f"\ufeffFROM a:1{at('a:1')}"),
        ("ARG V=1\nFROM a:$V", f"ARG V=1\nFROM a:$V{at('a:1')}"),
        ("ARG V=1\nFROM a:${V:-2}", f"ARG V=1\nFROM a:${{V:-2}}{at('a:1')}"),
        (f"ARG V=1\nFROM a:$V@{OLD}", f"ARG V=1\nFROM a:$V{at('a:1')}"),
        (f'ARG B="a:1@{OLD}"\nFROM $B\nFROM $B', f'ARG B="a:1{at("a:1")}"\nFROM $B\nFROM $B'),
        (
            f"ARG T=1\n# was a:1@{OLD}\nARG B=a:1@{OLD}\nFROM \\\n# a:1@{OLD}\n a:1@{OLD}\nFROM $B",
            f"ARG T=1\n# was a:1@{OLD}\nARG B=a:1{at('a:1')}\nFROM \\\n# a:1@{OLD}\n a:1{at('a:1')}\nFROM $B",
        ),
        (
            "FROM scratch\nCOPY --link --from=a:1 --chown=1 x y",
            f"FROM scratch\nCOPY --link --from=a:1{at('a:1')} --chown=1 x y",
        ),
        (
            "FROM scratch\nCOPY <<EOF --from=a:1 /x\nFROM b:1\nEOF\nCOPY --from=a:1 <<E /x\nCOPY --from=a:1 x y\nE",
            None,
        ),
    ],
)
def test_a_digest_is_put_behind_the_tag(before, after):
    if after is None:  # flags come before words: what stands in a here-document is a text
        after = before.replace("COPY --from=a:1 <<E", f"COPY --from=a:1{at('a:1')} <<E")
    assert pin(before, digest_of) == after
    assert pin(after, digest_of) == after
    assert moved(after, digest_of) == ()


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch",
        f"FROM a@{OLD}",
        "FROM scratch AS x\nFROM x\nCOPY --from=X a b\nCOPY --from=0 a b\nCOPY --from=environment / /opt/venv/",
        "FROM scratch\nRUN echo --mount=from=a:1 x\nENV A='FROM b:1'\n# FROM c:1",
    ],
)
def test_what_names_no_tag_of_an_image_stays(text):
    assert pin(text, pytest.fail) == text


def test_what_run_mounts_is_pinned_where_it_stands():
    text = "FROM scratch\nRUN --mount=type=bind,from=a:1,target=/from=a:1 --mount=from=b:2 \\\n  echo from=a:1\n"
    done = text.replace("bind,from=a:1,", f"bind,from=a:1{at('a:1')},").replace("=b:2 ", f"=b:2{at('b:2')} ")
    assert pin(text, digest_of) == done
    assert pin(done, digest_of) == done


def test_what_moved_is_told_with_its_line():
    text = f"FROM a:1@{OLD}\n\nFROM b:1\nFROM c:1{at('c:1')}\n"
    assert moved(text, digest_of) == (
        Moved("a:1", 1, Digest.parse(OLD), digest_of("a:1")),
        Moved("b:1", 3, None, digest_of("b:1")),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FROM a:\\\n1", "D:1: a:1 can't be pinned where it stands"),
        ('FROM scratch\nCOPY --from="a:1" x y', "D:2: a:1 can't be pinned where it stands"),
        ("FROM a:$TARGETARCH", "another image on each platform"),
        ("ARG B\nFROM $B", r"D:2: FROM \$B is empty"),
        ("FROM a:1@sha256:12", "D:1: What is behind the @ of a:1@sha256:12 is no digest"),
        (f"ARG D={OLD}\nFROM a:1@$D\nFROM b:1@$D", "can't be pinned in place"),
        (f"ARG D={OLD[:40]}\nARG E={OLD[40:]}\nFROM a:1@$D$E", "nowhere in one piece"),
        ("RUN x", "stands before|has no FROM"),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused(text, words):
    with pytest.raises(BadInput, match=words):
        pin(text, digest_of, "D")


def test_a_digest_that_is_none_says_what_to_do():
    with pytest.raises(BadInput) as caught:
        pin(f"FROM a:1@{OLD[:-2]}", digest_of, "D")
    assert caught.value.remedy == "Take it away with its @, and run `reprobuild lock`."


@pytest.mark.parametrize("kind", [RegistryFailed, BadInput])
@pytest.mark.parametrize("look", [pin, moved])
def test_a_name_that_no_registry_knows_may_be_a_mistyped_stage(look, kind):
    def refuse(name):
        raise kind(f"There is no {name}.", "Check the name.")

    with pytest.raises(kind) as caught:
        look("FROM scratch AS tools\nFROM scratch\nCOPY --from=tols a b\n", refuse, "D")
    assert caught.value.reason == "D:3: There is no tols:latest."
    assert caught.value.remedy == "Did you mean the stage tools? Check the name."
    with pytest.raises(kind, match=r"^There is no other:latest") as caught:
        look("FROM scratch AS tools\nFROM other\n", refuse, "D")
    assert caught.value.remedy == "Check the name."


@pytest.fixture
def config(tmp_path):
    tables = "".join(f"[tool.reprobuild.images.{name}]\nproject = false\n" for name in ("one", "two", "three"))
    (tmp_path / "pyproject.toml").write_text(f"{tables}[tool.reprobuild.environments.dev]\nproject = false\n")
    for name in ("images/one", "images/two", "environments/dev"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "Dockerfile").write_bytes(
            b"# one\r\nFROM a:1 # no comment\r\n".replace(b" # no comment", b"")
        )
    return load(tmp_path)


def test_each_image_with_a_dockerfile_is_pinned_and_each_tag_asked_for_once(config):
    asked = []

    def resolve_digest(name):
        asked.append(name)
        return digest_of(name)

    found = pins.pinned(config, resolve_digest)
    wanted = f"# one\r\nFROM a:1{at('a:1')}\r\n"
    assert found == {"images/one/Dockerfile": wanted, "images/two/Dockerfile": wanted}
    assert asked == ["a:1"]
    drift = lock.drift(config.root, found)
    assert [line for line in drift.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        *("-FROM a:1", f"+FROM a:1{at('a:1')}") * 2
    ]
    assert lock.write(config.root, found) == list(found)
    assert (config.root / "images/one/Dockerfile").read_bytes() == wanted.encode()
    assert lock.drift(config.root, pins.pinned(config, resolve_digest)) == ""
    assert lock.write(config.root, found) == []


def test_a_dockerfile_that_is_not_text_is_refused(config):
    (config.root / "images/two/Dockerfile").write_bytes(b"FROM \xff\n")
    with pytest.raises(BadInput, match="images/two/Dockerfile is not UTF-8"):
        pins.pinned(config, digest_of)


def test_a_dockerfile_that_is_too_large_is_refused(config, monkeypatch):
    monkeypatch.setattr(pins, "TEXT_LIMIT", 10)
    with pytest.raises(BadInput, match="is too large for a Dockerfile"):
        pins.pinned(config, digest_of)


def test_the_digest_is_that_of_the_bytes_that_the_registry_has():
    raw = Index.make([]).raw + b"\n"
    manifest = canonical_json({"config": {"mediaType": "x", "digest": OLD, "size": 1}, "layers": []})
    answers = {"a:1": (OCI_INDEX, raw), "b:1": (OCI_MANIFEST, manifest), "c:1": (OCI_INDEX, b"<html>")}
    resolve_digest = pins.digest_by(answers.__getitem__)
    assert resolve_digest("a:1") == Digest.of_bytes(raw)
    assert resolve_digest("b:1") == Digest.of_bytes(manifest)
    with pytest.raises(BadInput, match="c:1 is not JSON"):
        resolve_digest("c:1")


@pytest.fixture
def lock_command(config, monkeypatch):
    """`reprobuild lock` in a project of images alone, and a registry that has one tag."""
    raw = Index.make([]).raw
    monkeypatch.setattr(interpreter, "find", lambda *_, **__: None)
    monkeypatch.setattr(lock, "make", lambda *_, **__: {})
    monkeypatch.setattr(commands, "_manifest_of", lambda: {"a:1": (OCI_INDEX, raw)}.__getitem__)

    def run(*options, code=0):
        done = CliRunner().invoke(app.cli, ["lock", "--project", str(config.root), *options], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.stdout

    return run, f"FROM a:1@{Digest.of_bytes(raw)}\r\n"


def test_lock_pins_and_check_tells_what_moved(config, lock_command):
    run, wanted = lock_command
    path = config.root / "images/one/Dockerfile"
    before = path.read_bytes()
    assert f"+{wanted.strip()}" in run("--check", code=ExitCode.LOCK_STALE)
    assert path.read_bytes() == before
    assert run("--no-images", "--check") == "every lock is up to date\n"
    assert run() == "wrote images/one/Dockerfile\nwrote images/two/Dockerfile\n"
    assert path.read_bytes() == b"# one\r\n" + wanted.encode()
    assert run("--check") == "every lock is up to date\n"
    assert run() == "unchanged images/one/Dockerfile\nunchanged images/two/Dockerfile\n"


def test_lock_asks_no_registry_where_no_image_has_a_dockerfile(config, lock_command, monkeypatch):
    run, _ = lock_command
    monkeypatch.setattr(commands, "_manifest_of", lambda: pytest.fail("asked"))
    for name in ("one", "two"):
        (config.root / f"images/{name}/Dockerfile").unlink()
    assert run() == ""


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        ("x86_64-manylinux2_28", "'x86_64-manylinux2_28' doesn't say which wheels run on an image"),
        ("x86_64-manylinux_2_4", "There is no x86_64-manylinux_2_4"),
        ("x86_64-unknown-linux-gnu", ""),
        ("linux", ""),
        ("x86_64-manylinux2014", ""),
        ("aarch64-manylinux_2_28", ""),
    ],
)
def test_lock_says_which_platform_of_an_image_is_none(config, lock_command, monkeypatch, platform, words):
    with (config.root / "pyproject.toml").open("a") as stream:
        stream.write(f'[tool.reprobuild.images.four]\nproject = false\nplatform = "{platform}"\n')
    run, _ = lock_command
    if not words:
        assert run("--no-images") == ""
        return
    monkeypatch.setattr(lock, "make", lambda *_, **__: pytest.fail("uv was asked"))
    with pytest.raises(BadInput, match=f"^tool.reprobuild.images.four: {words}") as caught:
        run("--no-images")
    assert "manylinux_2_" in caught.value.remedy
