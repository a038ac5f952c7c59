"""Audits with the real pip-audit, against a server of advisories on loopback."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli, Git, Projects
    from tests.osv.server import Osv
    from tests.sigstore.stack import Stack

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
SERVER = Path(__file__).parents[1] / "osv" / "server.py"
HASH = f"--hash=sha256:{'0' * 64}"
VULNERABLE, SOUND = "jinja2==3.1.4", "click==8.2.0"
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lock(tmp_path: Path) -> Callable[..., Path]:
    """Write a lock of some pins."""

    def write(*pins: str) -> Path:
        path = tmp_path / "requirements.txt"
        path.write_text("".join(f"{pin} {HASH}\n" for pin in pins))
        return path

    return write


@pytest.fixture
def audit(reprobuild: Cli, osv: Osv) -> Callable[..., Any]:
    """`reprobuild audit` with the server on loopback."""

    def run(*arguments: str | Path, code: int = 0, **more: Any) -> Any:
        return reprobuild("audit", *arguments, "--osv-url", osv.query_url, code=code, **more)

    return run


# --- what is found --------------------------------------------------------------------------------------


def test_a_vulnerable_lock_names_the_version_that_mends_it(audit: Any, lock: Any, tmp_path: Path) -> None:
    path = lock(SOUND, VULNERABLE, "requests==2.19.0")
    said = audit(path, code=ExitCode.VULNERABLE).stdout
    (row,) = (line for line in said.splitlines() if line.startswith("jinja2"))
    assert row.split()[:6] == ["jinja2", "3.1.4", "PYSEC-2025-9001", "high", "3.1.6", f"{path}:2"]
    assert "remedy: jinja2 3.1.6 or later" in said
    assert "remedy: requests 2.32.4 or later" in said  # 2.20.0 and 2.32.0 mend one vulnerability each
    assert "vulnerable: 4 known vulnerabilities; 3 packages" in said
    found = audit(path, "--json", "--sarif", tmp_path / "a.sarif", code=ExitCode.VULNERABLE).json
    assert found["vulnerable"]
    jinja = found["findings"][0]
    assert jinja["aliases"] == ["CVE-2025-27516", "GHSA-cpwx-vrp4-4pq7"]
    assert jinja["where"] == [{"source": str(path), "line": 2}]
    (run,) = json.loads((tmp_path / "a.sarif").read_text())["runs"]
    assert len(run["results"]) == len(found["findings"]) == 4
    assert len(run["tool"]["driver"]["rules"]) == 4


def test_a_sound_lock_is_clean(audit: Any, lock: Any, osv: Osv) -> None:
    said = audit(lock(SOUND, "jinja2==3.1.6"))
    assert said.stdout.startswith("clean: 2 packages in ")
    assert "asking" in said.stderr
    assert [body["package"]["name"] for path, body in osv.asked if path == "/v1/query"] == ["click", "jinja2"]


def test_one_package_is_told_as_one(audit: Any, lock: Any) -> None:
    said = audit(lock(SOUND))
    assert said.stdout.startswith("clean: 1 package in ")
    assert "about 1 package\n" in said.stderr
    assert "how severe" not in said.stderr  # nobody is asked


def test_markers_hide_nothing_and_every_version_is_asked_about(audit: Any, lock: Any) -> None:
    path = lock(
        "jinja2==3.1.6 ; sys_platform != 'win32'",
        "jinja2==3.1.4 ; sys_platform == 'win32'",
        "urllib3==2.0.1 ; python_version < '2'",
        "pyyaml==5.3+local",
    )
    found = audit(path, "--json", code=ExitCode.VULNERABLE).json
    assert {(each["package"], each["version"]) for each in found["findings"]} == {
        ("jinja2", "3.1.4"),
        ("urllib3", "2.0.1"),
        ("pyyaml", "5.3"),
    }
    assert found["packages"] == 4


def test_what_was_withdrawn_is_no_vulnerability(audit: Any, lock: Any) -> None:
    assert audit(lock("py==1.11.0"), "--json").json["findings"] == []


@pytest.mark.parametrize(("least", "code"), [("low", 26), ("medium", 26), ("high", 26), ("critical", 0)], ids=str)
def test_how_severe_it_has_to_be(audit: Any, lock: Any, least: str, code: int) -> None:
    audit(lock(VULNERABLE), "--fail-on", least, code=code)


def test_what_nobody_weighed_fails_at_any_severity(audit: Any, lock: Any, osv: Osv) -> None:
    osv.failing["/v1/vulns"] = "404"
    found = audit(lock(VULNERABLE), "--fail-on", "critical", "--json", code=ExitCode.VULNERABLE).json
    assert [each["severity"] for each in found["findings"]] == ["unknown"]


# --- what is never clean --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        *(("/", mode) for mode in ("500", "404", "cut", "text", "null", "list", "slow")),
        *(("/v1/query", mode) for mode in ("500", "404", "cut", "text", "null", "list", "slow")),
        *(("/v1/querybatch", mode) for mode in ("500", "404", "cut", "text", "null", "list", "page")),
        *(("/v1/vulns", mode) for mode in ("500", "cut", "text", "null", "list", "slow")),
    ],
)
def test_a_server_that_fails_leaves_nothing_clean(audit: Any, lock: Any, osv: Osv, path: str, mode: str) -> None:
    osv.failing[path] = mode
    ended = audit(lock(VULNERABLE), "--timeout", "1", code=ExitCode.NOT_AUDITED)
    assert ended.stdout == ""
    assert "remedy: Nothing is known about these packages" in ended.stderr or "pip-audit leaves it out" in ended.stderr
    assert "Traceback" not in ended.stderr
    if mode == "500" and path in ("/v1/querybatch", "/v1/vulns"):
        assert "status 500 at http" in ended.stderr


def test_a_server_that_fails_leaves_a_sound_lock_unaudited_too(audit: Any, lock: Any, osv: Osv, tmp_path: Path) -> None:
    osv.failing["/v1/query"] = "500"
    sarif = tmp_path / "a.sarif"
    said = audit(lock(SOUND), "--json", "--sarif", sarif, code=ExitCode.NOT_AUDITED).json
    assert said["error"] == "NOT_AUDITED"
    assert not sarif.exists()


def test_nobody_is_there(reprobuild: Cli, lock: Any) -> None:
    dead = "http://127.0.0.1:9/v1/query"
    assert dead.removesuffix("/query") in reprobuild("audit", lock(SOUND), "--osv-url", dead, code=27).stderr


def test_what_pip_audit_leaves_out_is_not_clean(audit: Any, lock: Any, osv: Osv) -> None:
    """It passes over advisories in a format that it doesn't know, with a warning."""
    path = osv.advisories.folder / "GHSA-8q59-q68h-6hv4.json"
    advisory = json.loads(path.read_text())
    path.write_text(json.dumps({**advisory, "schema_version": "2.0.0"}))
    ended = audit(lock("pyyaml==5.3"), code=ExitCode.NOT_AUDITED)
    assert "lists GHSA-8q59-q68h-6hv4 about pyyaml 5.3, and pip-audit leaves it out" in ended.stderr


def test_an_empty_lock_is_not_clean(audit: Any, lock: Any) -> None:
    assert "names no package" in audit(lock(), code=ExitCode.NOT_AUDITED).stderr


def test_modules_in_the_present_folder_are_not_run(audit: Any, lock: Any, tmp_path: Path) -> None:
    (tmp_path / "pip_audit.py").write_text("raise SystemExit('planted')\n")
    audit(lock(VULNERABLE), cwd=tmp_path, code=ExitCode.VULNERABLE)


# --- ignores --------------------------------------------------------------------------------------------


def ignoring(folder: Path, expires: datetime, name: str = "CVE-2025-27516") -> None:
    """A project whose two locks hold something vulnerable that it ignores."""
    (folder / "constraints.txt").write_text(f"{SOUND} {HASH}\n")
    (folder / "requirements.txt").write_text(f"{VULNERABLE} {HASH}\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "demo"\nversion = "1"\n[[tool.reprobuild.audit.ignore]]\n'
        f'id = "{name}"\nreason = "no template comes from outside"\nexpires = {expires:%Y-%m-%d}\n'
    )


def test_what_is_ignored_is_shown_and_counts_again_when_that_expires(audit: Any, tmp_path: Path) -> None:
    today = datetime.now(UTC)
    ignoring(tmp_path, today + 30 * DAY)
    said = audit("--project", tmp_path, "--sarif", tmp_path / "a.sarif").stdout
    assert f"ignored until {today + 30 * DAY:%Y-%m-%d}: jinja2 3.1.4: PYSEC-2025-9001 (high), also CVE" in said
    assert "also CVE-2025-27516, GHSA-cpwx-vrp4-4pq7: no template comes" in said
    assert "clean: 2 packages in constraints.txt, requirements.txt, 1 ignored" in said
    (result,) = json.loads((tmp_path / "a.sarif").read_text())["runs"][0]["results"]
    assert result["suppressions"][0]["justification"].startswith("no template")
    ignoring(tmp_path, today - DAY)
    said = audit("--project", tmp_path, code=ExitCode.VULNERABLE).stdout
    assert f"counts again, ignored until {today - DAY:%Y-%m-%d}: jinja2" in said
    assert "reprobuild lock --upgrade jinja2" in said


def test_an_ignore_that_means_nothing_here_is_told(audit: Any, tmp_path: Path) -> None:
    ignoring(tmp_path, datetime.now(UTC) + DAY, "CVE-1999-1")
    found = audit("--project", tmp_path, "--json", code=ExitCode.VULNERABLE).json
    assert [each["id"] for each in found["unused"]] == ["CVE-1999-1"]
    assert "note: CVE-1999-1 is to be ignored" in audit("--project", tmp_path, code=ExitCode.VULNERABLE).stdout
    # Of one lock among several that says nothing.
    one = audit(tmp_path / "constraints.txt", "--project", tmp_path, "--json").json
    assert one["unused"] == []


def test_nobody_ignores_for_ever(audit: Any, tmp_path: Path) -> None:
    ignoring(tmp_path, datetime.now(UTC) + 400 * DAY)
    assert "in more than a year" in audit("--project", tmp_path, code=ExitCode.BAD_INPUT).stderr


# --- artifacts ------------------------------------------------------------------------------------------

POLICY = 'keys = ["a.pub", "b.pub"]\naudit = { max-age = "7d", max-severity = "medium" }\n'


@pytest.fixture
def keys(tmp_path: Path, reprobuild: Cli) -> Path:
    folder = tmp_path / "keys"
    for name in ("a", "b"):
        reprobuild("keys", "new", folder / f"{name}.key")
    (folder / "policy.toml").write_text(POLICY)
    return folder


@pytest.fixture
def wheel(project: Projects, keys: Path, git: Git, reprobuild: Cli) -> Path:
    """A signed wheel, of a project with something vulnerable in its runtime lock."""
    where = project("with-hatchling")
    (where / "requirements.txt").write_text(f"{VULNERABLE} {HASH}\n")
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message", "A lock")
    reprobuild("wheel", where)
    (made,) = (where / "dist").glob("*.whl")
    reprobuild("sign", made, "--key", keys / "a.key")
    return made


def statement_in(bundle: Path) -> Any:
    return json.loads(base64.b64decode(json.loads(bundle.read_text())["dsseEnvelope"]["payload"]))


def failed(said: Any) -> dict[str, str]:
    (one,) = said["artifacts"]
    return {check["name"]: check["text"] for check in one["checks"] if not check["passed"]}


def test_a_wheel_is_audited_signed_and_held_against_a_policy(
    wheel: Path, keys: Path, audit: Any, osv: Osv, reprobuild: Cli
) -> None:
    where = wheel.parent.parent
    (where / "requirements.txt").write_text(f"{SOUND} {HASH}\n")  # not what it was built beside
    verify: list[str | Path] = ["verify", wheel, "--policy", keys / "policy.toml", "--json"]
    said = reprobuild(*verify, code=ExitCode.NOT_VERIFIED).json
    assert failed(said) == {"audit": "no trusted audit says what it asked about"}
    command: list[str | Path] = [wheel, "--project", where, "--attest", keys / "b.key", "--json"]
    found = audit(*command, code=ExitCode.VULNERABLE).json
    assert [each["package"] for each in found["findings"]] == ["jinja2"]
    assert [each["name"].partition(" of ")[0] for each in found["sources"]] == ["the record", "requirements.txt"]
    bundle = Path(found["attested"][0])
    assert bundle.name.startswith(f"{wheel.name}.audit.key-")
    schema = json.loads((SCHEMAS / "audit-v1.schema.json").read_text())
    assert [each.message for each in Draft202012Validator(schema).iter_errors(statement_in(bundle))] == []
    assert "hatchling" in {body["package"]["name"] for path, body in osv.asked if path == "/v1/query"}
    said = reprobuild(*verify, code=ExitCode.NOT_VERIFIED).json
    assert "found PYSEC-2025-9001 (high); the policy bears medium at most" in failed(said)["audit"]
    # The advisory is withdrawn, and a newer audit takes the place of the older one.
    shutil.copy(bundle, wheel.with_name(f"{wheel.name}.older.sigstore.json"))
    for path in osv.advisories.folder.glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "withdrawn": "2026-01-01T00:00:00Z"}))
    audit(*command)
    assert reprobuild(*verify).json["passed"]


def test_an_sdist_is_asked_about_as_its_wheel_is(wheel: Path, keys: Path, audit: Any, reprobuild: Cli) -> None:
    where = wheel.parent.parent
    reprobuild("sdist", where)
    (sdist,) = wheel.parent.glob("*.tar.gz")
    of_wheel, of_sdist = (
        audit(each, "--project", where, "--attest", keys / "b.key", "--json", code=ExitCode.VULNERABLE).json
        for each in (wheel, sdist)
    )
    assert of_sdist["packages"] == of_wheel["packages"] > 1
    assert [each["package"] for each in of_sdist["findings"]] == ["jinja2"]
    reprobuild("sbom", sdist, "--project", where, "--offline", "--attest", keys / "a.key")
    reprobuild("sign", sdist, "--key", keys / "a.key")
    policy = keys / "policy.toml"
    policy.write_text(f'{POLICY}predicates = ["sbom"]\n')
    said = reprobuild("verify", sdist, "--policy", policy, "--json", code=ExitCode.NOT_VERIFIED).json
    assert failed(said).keys() == {"audit"}
    policy.write_text(policy.read_text().replace("medium", "high"))
    assert reprobuild("verify", sdist, "--policy", policy, "--json").json["passed"]


def test_an_unanswered_audit_signs_nothing(wheel: Path, keys: Path, audit: Any, osv: Osv) -> None:
    osv.failing["/v1/querybatch"] = "500"
    before = sorted(wheel.parent.iterdir())
    audit(wheel, "--project", wheel.parent.parent, "--attest", keys / "b.key", code=ExitCode.NOT_AUDITED)
    assert sorted(wheel.parent.iterdir()) == before


def test_a_wheel_without_its_record_or_commit_is_not_audited(wheel: Path, audit: Any, tmp_path: Path) -> None:
    assert "has no requirements.txt in the commit" in audit(wheel, cwd=tmp_path, code=ExitCode.SOURCE_UNUSABLE).stderr
    alone = tmp_path / wheel.name
    shutil.copy(wheel, alone)
    assert "There is no record" in audit(alone, code=ExitCode.RECORD_UNUSABLE).stderr
    record = json.loads(wheel.with_name(f"{wheel.name}.intoto.json").read_text())
    record["subject"][0]["digest"]["sha256"] = "0" * 64
    alone.with_name(f"{alone.name}.intoto.json").write_text(json.dumps(record))
    assert "about something else" in audit(alone, code=ExitCode.RECORD_UNUSABLE).stderr


def test_an_audit_that_is_signed_without_a_key(
    wheel: Path, audit: Any, reprobuild: Cli, sigstore_stack: Stack, tmp_path: Path
) -> None:
    trust = tmp_path / "trust.json"
    trust.write_bytes(Path(sigstore_stack.trust_config).read_bytes())
    env = {"REPROBUILD_IDENTITY_TOKEN": sigstore_stack.token()}
    command: list[str | Path] = [
        wheel,
        "--project",
        wheel.parent.parent,
        "--attest",
        "keyless",
        "--trust-config",
        trust,
    ]
    audit(*command, env=env, code=ExitCode.VULNERABLE)
    (bundle,) = wheel.parent.glob("*.audit.id-*.sigstore.json")
    assert statement_in(bundle)["predicateType"] == "https://in-toto.io/attestation/vulns/v0.2"


@pytest.mark.network
def test_an_image_is_audited_where_it_lies(
    project: Projects,
    base_image: Callable[[str], str],
    keys: Path,
    repository: str,
    git: Git,
    audit: Any,
    reprobuild: Cli,
    tmp_path: Path,
) -> None:
    where = project("with-hatchling")
    folder = where / "images" / "app"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(f"FROM {base_image('busybox')}\nCOPY --from=environment / /opt/venv/\n")
    with (where / "pyproject.toml").open("a") as stream:
        stream.write('\n[dependency-groups]\napp = ["jinja2==3.1.4"]\n[tool.reprobuild.images.app]\ngroups = ["app"]\n')
        stream.write('project = false\npython = "3.12"\ninterpreter = "/usr/bin/python3.12"\n')
        stream.write('platform = "x86_64-manylinux_2_28"\n')
    reprobuild("lock", "--project", where, "--no-images")
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message", "An image")
    layout, archive, reference = tmp_path / "layout", tmp_path / "app.tar", f"{repository}:1"
    reprobuild("image", "app", where, "-o", f"oci:{layout}")
    reprobuild("sign", layout, "--key", keys / "a.key")
    reprobuild("push", layout, reference)
    reprobuild("image", "app", where, "-o", f"oci-archive:{archive}")
    reprobuild("sign", archive, "--key", keys / "a.key")
    verify: list[str | Path] = ["--policy", keys / "policy.toml", "--json"]
    for what in (layout, archive, reference):
        assert "audit" in failed(reprobuild("verify", what, *verify, code=ExitCode.NOT_VERIFIED).json)
        found = audit(what, "--attest", keys / "b.key", "--json", code=ExitCode.VULNERABLE).json
        assert [(each["package"], each["fixed"]) for each in found["findings"]] == [("jinja2", ["3.1.6"])]
        assert found["packages"] == 2  # and markupsafe
        said = reprobuild("verify", what, *verify, code=ExitCode.NOT_VERIFIED).json
        assert "found PYSEC-2025-9001" in failed(said)["audit"]
    relaxed = keys / "relaxed.toml"
    relaxed.write_text(POLICY.replace("medium", "high"))
    assert reprobuild("verify", reference, "--policy", relaxed, "--json").json["passed"]
    # Whoever has the image without its record is told so.
    bare = tmp_path / "bare"
    shutil.copytree(layout, bare)
    index = json.loads((bare / "index.json").read_text())
    index["manifests"] = [each for each in index["manifests"] if "artifactType" not in each]
    (bare / "index.json").write_text(json.dumps(index))
    assert "no record of how it was built" in audit(bare, code=ExitCode.RECORD_UNUSABLE).stderr


# --- what is named by mistake ---------------------------------------------------------------------------


def test_what_is_named_by_mistake(audit: Any, lock: Any, tmp_path: Path, reprobuild: Cli) -> None:
    path = lock(SOUND)
    reprobuild("keys", "new", tmp_path / "a.key")
    key = tmp_path / "a.key"
    assert "is for one wheel, sdist or image" in audit(path, "--attest", key, code=ExitCode.USAGE).stderr
    assert "is for one wheel, sdist or image" in audit("--attest", key, code=ExitCode.USAGE).stderr
    assert "There is no lock" in audit(tmp_path / "none.txt", code=ExitCode.BAD_INPUT).stderr
    assert "There is no file" in audit(tmp_path / "none.whl", code=ExitCode.BAD_INPUT).stderr
    assert "There is no pyproject.toml" in audit("--project", tmp_path, code=ExitCode.BAD_INPUT).stderr
    path.write_text("click>=8\n")
    assert "not pinned" in audit(path, code=ExitCode.BAD_INPUT).stderr
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "demo"\n')
    assert "constraints.txt isn't there" in audit("--project", tmp_path, code=ExitCode.LOCK_MISSING).stderr


def test_the_server_by_hand(reprobuild: Cli, lock: Any, tmp_path: Path) -> None:
    """As the recipes of a release start it; settings come from pip-audit's own variable."""
    command = [sys.executable, str(SERVER), str(tmp_path), "--port", "0", "--fail", "500@/v1/vulns"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            url = server.stdout.readline().strip()
            env = {"PIP_AUDIT_OSV_URL": f"{url}/v1/query"}
            reprobuild("audit", lock(VULNERABLE), env=env)
            shutil.copy(SERVER.with_name("advisories") / "PYSEC-2025-9001.json", tmp_path)
            reprobuild("audit", lock(VULNERABLE), env=env, code=ExitCode.NOT_AUDITED)
        finally:
            server.terminate()
