import importlib.util
import json
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta

import pytest
from packaging.version import Version

from reprobuild import advisories, attest, audit, process
from reprobuild.advisories import Advisory, Package, Service, Severity, read_answer, severity_of
from reprobuild.audit import Finding, Pinned, Report, Source
from reprobuild.cli import audit as cli
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, LockMissing, NotAudited, RecordUnusable, SourceUnusable, ToolMissing
from reprobuild.project import Ignore, load

JINJA = Package.of("jinja2", Version("3.1.4"))
HASH = f"--hash=sha256:{'0' * 64}"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
V3_HIGH = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"}
V4_MEDIUM = {"type": "CVSS_V4", "score": "CVSS:4.0/AV:L/AC:L/AT:P/PR:L/UI:P/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}
V2_HIGH = {"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:C/I:C/A:C"}
V3_CRITICAL = {"type": "CVSS_V3", "score": "CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}
V3_NONE = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:N"}


def source(*pins, name="requirements.txt"):
    split = (pin.split("==") for pin in pins)
    asked = (Package.of(package, Version(version)) for package, version in split)
    return Source(name, Digest.of_bytes(name.encode()), tuple(Pinned(each, line) for line, each in enumerate(asked, 1)))


def advisory(name="CVE-2025-27516", *aliases, package=JINJA, severity=Severity.HIGH, fixed=("3.1.6",)):
    return Advisory(package, name, aliases, tuple(map(Version, fixed)), "A sandbox that isn't one", severity)


@pytest.fixture
def answering(monkeypatch, tmp_path):
    """Audit a source with a service that knows some advisories."""

    def run(found, ignores=(), sources=None, now=NOW):
        monkeypatch.setattr(
            audit, "ask", lambda packages, *_: tuple(each for each in found if each.package in packages)
        )
        times = iter([now, now + timedelta(seconds=9)])
        asked = sources or [source("jinja2==3.1.4", "click==8.2.0")]
        return audit.audit(asked, Service(), ignores, tmp_path, clock=lambda: next(times))

    return run


# --- severity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "severity"),
    [
        ([], "unknown"),
        ([{}], "unknown"),
        ([{"severity": [V3_HIGH]}], "high"),
        ([{"severity": [V4_MEDIUM]}], "medium"),
        ([{"severity": [V2_HIGH]}], "high"),
        ([{"severity": [V4_MEDIUM, V3_HIGH]}], "high"),
        ([{"severity": [V3_HIGH]}, {"severity": [V3_CRITICAL]}], "critical"),
        ([{"severity": [V3_HIGH]}, {}], "high"),
        ([{"severity": [V3_NONE]}], "low"),
        ([{"affected": [{"severity": [V3_HIGH]}]}], "high"),
        # The word counts only where no vector does.
        ([{"severity": [V3_HIGH], "database_specific": {"severity": "CRITICAL"}}], "high"),
        ([{"database_specific": {"severity": "MODERATE"}}], "medium"),
        ([{"affected": [{"database_specific": {"severity": "low"}}]}], "low"),
        ([{"affected": [{"ecosystem_specific": {"severity": "Critical"}}]}], "critical"),
        ([{"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:L"}]}], "unknown"),
        ([{"severity": [{"type": "CVSS_V3", "score": "x"}], "database_specific": {"severity": "LOW"}}], "low"),
        ([{"severity": [{"type": "CVSS_V3"}]}], "unknown"),
        ([{"severity": [{"type": ["CVSS_V3"], "score": "x"}]}], "unknown"),
        ([{"severity": [{"type": "CVSS_V2", "score": V3_HIGH["score"]}]}], "unknown"),
        ([{"severity": [{"type": "Ubuntu", "score": "high"}]}], "unknown"),
        ([{"severity": "high", "affected": 3, "database_specific": []}], "unknown"),
        ([{"database_specific": {"severity": "NONE"}}], "unknown"),
        ([{"database_specific": {"severity": {"a": 1}}}], "unknown"),
    ],
)
def test_how_severe_records_are(records, severity):
    assert severity_of(records) == severity


def test_what_nobody_weighed_is_the_worst():
    assert max(Severity, key=lambda each: each.rank) is Severity.UNKNOWN


# --- pip-audit's answer ---------------------------------------------------------------------------------


def answer(*dependencies):
    return json.dumps({"dependencies": list(dependencies), "fixes": []}).encode()


def told(name="jinja2", version="3.1.4", **more):
    return {"name": name, "version": version, "vulns": [], **more}


VULN = {"id": "PYSEC-1", "fix_versions": ["3.1.6", "2.9"], "aliases": ["CVE-1"], "description": "One\n line"}


def test_an_answer_is_read():
    (found,) = read_answer(answer(told(name="Jinja2", vulns=[VULN])), [JINJA])
    assert found == Advisory(JINJA, "PYSEC-1", ("CVE-1",), (Version("2.9"), Version("3.1.6")), "One line")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "can't be read"),
        (b"null", "can't be read"),
        (b"{}", "can't be read"),
        (b"[" * 100_000, "can't be read"),
        (answer(), "didn't answer about 1 of 1 packages: jinja2 3.1.4"),
        (answer(told(version="3.1.5")), "didn't answer about 1 of 1"),
        (answer(told(), told(name="click")), "answered about click 3.1.4, which nobody asked about"),
        (answer({"name": "jinja2", "skip_reason": "not found"}), "jinja2 wasn't audited: not found"),
        (answer({"name": "jinja2", "version": "3.1.4"}), "jinja2 wasn't audited"),
        (answer(told(), {"name": "click", "skip_reason": "x"}), "click wasn't audited"),
        (answer(told(vulns=[{"id": "X"}])), "can't be read"),
        (answer(told(vulns=[{**VULN, "id": 3}])), "can't be read"),
        (answer(told(vulns=[{**VULN, "fix_versions": ["soon"]}])), "can't be read"),
        (answer(told(vulns=None)), "can't be read"),
        (answer("jinja2"), "wasn't audited|can't be read"),
    ],
)
def test_an_answer_that_says_too_little_is_never_clean(raw, words):
    with pytest.raises(NotAudited, match=words):
        read_answer(raw, [JINJA])


def fake(monkeypatch, raw, code=1, output=""):
    """A pip-audit that writes this and ends so."""
    seen = []

    def run(argv, *, env, cwd, timeout, memory):
        seen.append([str(each) for each in argv])
        if raw is not None:
            (cwd / argv[argv.index("--output") + 1]).write_bytes(raw)
        if code:
            raise process.ToolFailed(["python"], code, output)

    monkeypatch.setattr(process, "run", run)
    return seen


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (None, 1, "couldn't ask https://api.osv.dev/v1: the last line"),
        (None, 0, "it didn't say why"),
        (answer(told()), 2, "the last line"),
        (answer(told()), -9, "the last line"),
        (b'{"dependencies": [', 1, "can't be read"),
    ],
)
def test_a_pip_audit_that_fails_is_never_clean(monkeypatch, tmp_path, raw, code, words):
    fake(monkeypatch, raw, code, "Traceback\nthe last line\n\n")
    with pytest.raises(NotAudited, match=words):
        advisories.ask([JINJA], Service(), tmp_path)


def test_an_error_without_words_is_told_by_its_cause(monkeypatch, tmp_path):
    """pip-audit wraps an answer such as 500 in an exception that says nothing."""
    cause = "requests.exceptions.HTTPError: 500 Server Error: Internal Server Error for url: http://x/v1/query"
    fake(monkeypatch, None, 1, f"Traceback\n{cause}\n\nThe above:\n\nTraceback\n  f()\npip_audit.ServiceError\n")
    with pytest.raises(NotAudited, match=r"couldn't ask .*: requests\.exceptions\.HTTPError: 500 Server Error"):
        advisories.ask([JINJA], Service(), tmp_path)


@pytest.mark.parametrize("kind", ["pypi", "esms"])
def test_whoever_is_asked_the_advisories_say_how_severe_it_is(monkeypatch, tmp_path, osv, kind):
    seen = fake(
        monkeypatch, answer(told("requests", "2.19.0", vulns=[{**VULN, "id": "CVE-0", "aliases": ["PYSEC-2018-28"]}]))
    )
    requests = Package.of("requests", Version("2.19.0"))
    (found,) = advisories.ask([requests], Service(kind, osv.query_url), tmp_path)
    assert found.names == {"CVE-0", "PYSEC-2018-28", "CVE-2018-18074", "GHSA-x84v-xcm2-53pg"}
    assert (found.severity, found.fixed) == ("high", (Version("2.20.0"), Version("3.1.6")))
    assert {path for path, _ in osv.asked} == {f"/v1/vulns/{name}" for name in found.names}
    (argv,) = seen
    assert argv[argv.index("--vulnerability-service") + 1] == kind


def test_a_password_is_no_argument(monkeypatch, tmp_path):
    seen = fake(monkeypatch, None)
    with pytest.raises(NotAudited) as caught:
        advisories.ask([JINJA], Service(osv_url="https://me:secret@osv.example.org/v1/query"), tmp_path)
    assert "secret" not in " ".join(*seen) + caught.value.reason


def test_a_local_version_is_asked_about_as_the_one_that_was_published():
    assert str(Package.of("Torch", Version("2.3.0+cu121"))) == "torch 2.3.0"


def test_no_version_of_a_name_keeps_another_from_being_asked_about():
    two = [Package.of("a", Version(each)) for each in ("1", "2", "3")] + [Package.of("b", Version("1"))]
    rounds = list(advisories._rounds(two))
    assert sorted(package for each in rounds for package in each) == sorted(two)
    assert all(len({package.name for package in each}) == len(each) for each in rounds)


@pytest.mark.parametrize("module", ["pip_audit", "cvss"])
def test_without_the_extra_it_says_which_one(monkeypatch, module, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    with pytest.raises(ToolMissing) as caught:
        advisories.ask([JINJA], Service(), tmp_path)
    assert "reprobuild[audit]" in caught.value.remedy


@pytest.mark.parametrize(
    "url",
    [
        "https://osv.example.org",
        "ftp://osv.example.org/v1/query",
        "/v1/query",
        "http:///query",
        "https://me:s3cret@[bad/query",
    ],
)
def test_an_osv_url_has_to_be_that_of_its_questions(url, tmp_path):
    with pytest.raises(BadInput, match="isn't where an OSV server takes questions"):
        advisories.ask([JINJA], Service(osv_url=url), tmp_path)


def test_a_password_in_the_url_is_not_shown():
    assert "secret" not in Service(osv_url="https://me:secret@osv.example.org/v1/query").database


# --- a server that would keep us for ever ---------------------------------------------------------------


@pytest.fixture
def client(osv):
    """Asks the server, whose answers are what a test's function gives for a path."""

    def make(answer):
        osv.answer = lambda path, body: (200, answer(path.removeprefix("/v1/"), body))
        return advisories._Client(Service(osv_url=osv.query_url))

    return make


def test_names_that_lead_to_ever_more_names_have_an_end(client, monkeypatch):
    monkeypatch.setattr(advisories, "_MOST_NAMES", 50)

    def answer(path, _):
        number = int(path.rpartition("-")[2])
        return {"id": f"X-{number}", "aliases": [f"X-{2 * number + 1}", f"X-{2 * number + 2}"]}

    asking = client(answer)
    with pytest.raises(NotAudited, match="more than 50 names of advisories"):
        asking.records({"X-0"})


def test_one_advisory_with_countless_names_is_followed_to_none_of_them(client, osv, monkeypatch):
    monkeypatch.setattr(advisories, "_MOST_NAMES", 50)
    asking = client(lambda *_: {"id": "X-0", "aliases": [f"X-{number}" for number in range(1000)]})
    with pytest.raises(NotAudited, match="more than 50 names of advisories"):
        asking.records({"X-0"})
    osv.answer = lambda *_: pytest.fail("it asks for more")


def test_a_list_without_end_has_one(client, monkeypatch):
    monkeypatch.setattr(advisories, "_MOST_PAGES", 5)
    numbers = iter(range(10_000))
    asking = client(lambda *_: {"results": [{"vulns": [{"id": f"X-{next(numbers)}"}], "next_page_token": "more"}]})
    with pytest.raises(NotAudited, match="more than 5 pages of advisories about jinja2"):
        asking.listed([JINJA])
    monkeypatch.setattr(advisories, "_MOST_NAMES", 3)
    with pytest.raises(NotAudited, match="more than 3 advisories"):
        asking.listed([JINJA])


def test_one_page_with_countless_advisories_is_too_many(client, monkeypatch):
    monkeypatch.setattr(advisories, "_MOST_NAMES", 50)
    asking = client(lambda *_: {"results": [{"vulns": [{"id": f"X-{number}"} for number in range(51)]}]})
    with pytest.raises(NotAudited, match="more than 50 advisories"):
        asking.listed([JINJA])


def test_what_pip_audit_tells_has_an_end_too(monkeypatch, tmp_path):
    monkeypatch.setattr(advisories, "_MOST_NAMES", 50)
    fake(monkeypatch, answer(told(vulns=[{**VULN, "id": f"X-{number}"} for number in range(51)])))
    with pytest.raises(NotAudited, match="more than 50 advisories"):
        advisories.ask([JINJA], Service("pypi"), tmp_path)


def test_all_answers_together_have_so_many_bytes(client, monkeypatch):
    monkeypatch.setattr(advisories, "_ANSWERS_LIMIT", 10_000)
    asking = client(lambda path, _: {"id": path.rpartition("/")[2], "details": "x" * 1500})
    asking.records({f"X-{number}" for number in range(5)})
    with pytest.raises(NotAudited, match="more than 0 MiB in all"):
        asking.records({f"X-{number}" for number in range(5)})


@contextmanager
def endless(head, piece, pause=0.0):
    """A server that begins an answer and never ends it."""
    over = threading.Event()

    def serve(connection):
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(head)
            while not over.wait(pause):
                connection.sendall(piece)

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/query"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{"


def test_an_answer_that_never_ends(monkeypatch):
    monkeypatch.setattr(advisories, "_ANSWER_LIMIT", 1 << 20)
    with endless(HEAD, b" " * 65536) as url, pytest.raises(NotAudited, match="more than 1 MiB at http"):
        advisories._Client(Service(osv_url=url)).records({"X-1"})


def test_an_answer_that_comes_byte_by_byte(monkeypatch):
    """Each byte is in time, and the last one never comes."""
    monkeypatch.setattr(advisories, "_LONGEST", 0.5)
    with endless(HEAD, b" ", pause=0.05) as url, pytest.raises(NotAudited, match=r"within 0\.5 seconds"):
        advisories._Client(Service(osv_url=url)).records({"X-1"})


def test_an_answer_without_end_does_not_fill_the_memory_of_pip_audit(monkeypatch, tmp_path):
    monkeypatch.setattr(advisories, "_MEMORY", 256 << 20)
    with endless(HEAD, b" " * (1 << 20)) as url, pytest.raises(NotAudited, match="pip-audit couldn't ask"):
        advisories.ask([JINJA], Service(osv_url=url), tmp_path)


# --- one vulnerability under several names --------------------------------------------------------------


def test_a_vulnerability_with_several_names_is_one():
    first, second = advisory("PYSEC-1", "CVE-1"), advisory("GHSA-1", "CVE-1", fixed=("3.1.7",))
    other = advisory("CVE-2")
    (merged, alone) = advisories._merged([first, second, other])
    assert (merged.id, merged.aliases, merged.fixed) == (
        "PYSEC-1",
        ("CVE-1", "GHSA-1"),
        (Version("3.1.6"), Version("3.1.7")),
    )
    assert alone == other


def test_two_that_a_third_connects_are_one():
    (merged,) = advisories._merged([advisory("A"), advisory("B"), advisory("C", "A", "B")])
    assert merged.names == {"A", "B", "C"}


def test_the_same_name_in_two_packages_is_two():
    click = Package.of("click", Version("1"))
    assert len(advisories._merged([advisory("A"), advisory("A", package=click)])) == 2


def test_a_version_that_is_not_later_mends_nothing():
    record = {
        "id": "A",
        "affected": [
            {
                "package": {"name": "Jinja2", "ecosystem": "PyPI"},
                "ranges": [
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.11.3"}, {"fixed": "3.1.5"}]},
                    {"type": "GIT", "events": [{"fixed": "90000000"}]},
                ],
            },
            {"package": {"name": "other"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "9"}]}]},
        ],
    }
    found = advisories._weighed(advisory("A"), {"A": record})
    assert found.fixed == (Version("3.1.5"), Version("3.1.6"))


# --- ignores --------------------------------------------------------------------------------------------


def ignore(name="CVE-2025-27516", days=30, package=""):
    return Ignore(name, "it does no harm here", NOW.date() + timedelta(days=days), package)


@pytest.mark.parametrize(
    ("one", "counts", "expired"),
    [
        (ignore(), False, False),
        (ignore("GHSA-1"), False, False),
        (ignore(package="jinja2"), False, False),
        (ignore(package="click"), True, False),
        (ignore("CVE-2"), True, False),
        (ignore("cve-2025-27516"), True, False),
        (ignore(days=0), False, False),
        (ignore(days=-1), True, True),
    ],
)
def test_what_an_ignore_does(answering, one, counts, expired):
    report = answering([advisory("CVE-2025-27516", "GHSA-1")], [one])
    (finding,) = report.findings
    assert finding.counts(Severity.LOW) is counts
    assert finding.expired == (one if expired else None)
    assert report.unused == (() if expired or not counts else (one,))


def test_all_that_an_ignore_covers_is_shown(answering, capsys):
    report = answering([advisory("A", "B", "C"), advisory("D", "E"), advisory("F")], [ignore("B")])
    cli._tell(report, report.counting(), (), None)
    said = capsys.readouterr().out
    assert "jinja2 3.1.4: A (high), also B, C: it does no harm here" in said
    head, *rows = said.splitlines()[:3]
    assert [row[head.index("also") :].split("  ")[0].strip() for row in rows] == ["E", ""]
    assert cli._json(report, Severity.LOW)["findings"][0]["aliases"] == ["B", "C"]


PINNED = """
[build-system]
requires = ["jinja2<3"]
[project]
dependencies = ["Jinja2==3.1.4", "jinja2>=2", "click==8.2.0", "not a requirement", 3]
optional-dependencies = {more = ["jinja2<=3.1.5"]}
[dependency-groups]
dev = ["jinja2~=3.1.0", {include-group = "other"}]
odd = "jinja2==1"
[tool.uv]
constraint-dependencies = ["jinja2<3.1.6"]
override-dependencies = "jinja2==1"
"""
HELD = """remedy: jinja2 3.1.6 or later
  first change jinja2<3 in build-system.requires of pyproject.toml: it keeps jinja2 from 3.1.6
  first change Jinja2==3.1.4 in project.dependencies of pyproject.toml: it keeps jinja2 from 3.1.6
  first change jinja2<3.1.6 in tool.uv.constraint-dependencies of pyproject.toml: it keeps jinja2 from 3.1.6
  first change jinja2<=3.1.5 in project.optional-dependencies.more of pyproject.toml: it keeps jinja2 from 3.1.6
  reprobuild lock --upgrade jinja2"""


def test_a_remedy_names_what_the_project_itself_pins(tmp_path, answering):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "demo"\nversion = "1"\n')
    config = load(tmp_path)
    counting = answering([advisory()]).counting()
    (tmp_path / "pyproject.toml").write_text(PINNED)
    assert "\n".join(cli._remedies(counting, config)) == HELD
    assert list(cli._remedies(counting, None)) == ["remedy: jinja2 3.1.6 or later"]
    for text in ("", "project = 3", "build-system = []", "[", "[dependency-groups]\na = {}"):
        (tmp_path / "pyproject.toml").write_text(text)
        assert len(list(cli._remedies(counting, config))) == 2
    (tmp_path / "pyproject.toml").unlink()
    assert len(list(cli._remedies(counting, config))) == 2
    unmended = answering([advisory(fixed=())]).counting()
    assert list(cli._remedies(unmended, config)) == ["remedy: none known for all of jinja2: replace it"]


def test_the_day_is_that_of_utc(answering):
    late = datetime(2026, 6, 2, 1, tzinfo=UTC)  # still the first of June in New York
    (finding,) = answering([advisory()], [ignore(days=0)], now=late).findings
    assert finding.expired


def test_an_ignore_that_is_good_still_stands_before_one_that_has_expired(answering):
    (finding,) = answering([advisory("A", "B")], [ignore("A", -1), ignore("B", 1)]).findings
    assert (finding.ignored, finding.expired) == (ignore("B", 1), None)


def test_nobody_may_ignore_for_more_than_a_year(answering):
    assert answering([], [ignore(days=366)])
    with pytest.raises(BadInput, match="more than a year"):
        answering([], [ignore(days=367)])


def test_to_ask_about_nothing_is_not_clean(answering):
    with pytest.raises(NotAudited, match=r"a\.txt names no package"):
        answering([], sources=[source(name="a.txt")])


@pytest.mark.parametrize(
    ("severity", "least", "counts"),
    [
        ("low", "low", True),
        ("medium", "high", False),
        ("high", "high", True),
        ("critical", "high", True),
        ("unknown", "critical", True),
        ("high", "critical", False),
    ],
)
def test_what_counts(answering, severity, least, counts):
    report = answering([advisory(severity=Severity(severity))])
    assert bool(report.counting(Severity(least))) is counts


SETTINGS = '[[tool.reprobuild.audit.ignore]]\nid = "CVE-1"\nreason = "r"\nexpires = 2026-12-31\n'


def test_an_ignore_in_pyproject(tmp_path):
    (tmp_path / "pyproject.toml").write_text(SETTINGS + 'package = "My_Package"\n')
    assert load(tmp_path).ignored == (Ignore("CVE-1", "r", date(2026, 12, 31), "my-package"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SETTINGS.replace("reason", "raeson"), "has no key 'raeson'"),
        (SETTINGS.replace("ignore]]", "ignores]]"), "has no key 'ignores'"),
        (SETTINGS.replace('reason = "r"\n', ""), "has no reason"),
        (SETTINGS.replace('"r"', '" "'), "has no reason"),
        (SETTINGS.replace('id = "CVE-1"\n', ""), "has no id"),
        (SETTINGS.replace("expires = 2026-12-31\n", ""), "has no date in expires"),
        (SETTINGS.replace("2026-12-31", '"2026-12-31"'), "has no date in expires"),
        (SETTINGS.replace("2026-12-31", "2026-12-31T00:00:00Z"), "has no date in expires"),
        (SETTINGS + SETTINGS, "names CVE-1 twice"),
        ('[tool.reprobuild.audit]\nignore = ["CVE-1"]\n', "not a list of tables"),
        ("[tool.reprobuild]\naudit = 1\n", "audit is not a table"),
        (SETTINGS + "package = 1\n", "package is not a string"),
    ],
)
def test_what_no_ignore_can_say(tmp_path, text, words):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(BadInput) as caught:
        load(tmp_path)
    assert words in caught.value.reason


# --- sources --------------------------------------------------------------------------------------------


def test_a_lock_is_asked_about_whole_with_its_lines(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text(f'# exclude-newer: x\na==1 \\\n  {HASH}\na==2 ; sys_platform == "win32" {HASH}\n\nB==3 {HASH}\n')
    found = audit.lock_at(path)
    assert [(str(pin.package), pin.line) for pin in found.pins] == [("a 1", 2), ("a 2", 4), ("b 3", 6)]
    assert found.digest == Digest.of_file(path)


def test_every_lock_of_a_project_has_to_be_there(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\n[tool.reprobuild.images.x]\n')
    for name in ("constraints.txt", "requirements.txt"):
        (tmp_path / name).write_text(f"a==1 {HASH}\n")
    with pytest.raises(LockMissing, match=r"images/x/requirements\.txt isn't there"):
        audit.locks_of(load(tmp_path))
    (tmp_path / "images/x").mkdir(parents=True)
    (tmp_path / "images/x/requirements.txt").write_text("")
    names = [each.name for each in audit.locks_of(load(tmp_path))]
    assert names == ["constraints.txt", "requirements.txt", "images/x/requirements.txt"]


@pytest.mark.parametrize("text", ["jinja2>=3\n", "jinja2==3.1.4\n", "[project]\n"])
def test_a_file_that_others_wrote_gets_a_remedy_for_it(tmp_path, text):
    (tmp_path / "dev.txt").write_text(text)
    with pytest.raises(BadInput) as refused:
        audit.lock_at(tmp_path / "dev.txt")
    assert "pip-compile --generate-hashes" in refused.value.remedy


def record(kind="wheel", dependencies=(), name="demo_app-1.0-py3-none-any.whl", **external):
    types = {
        "wheel": attest.WHEEL_BUILD_TYPE,
        "sdist": attest.SDIST_BUILD_TYPE,
        "image": attest.IMAGE_BUILD_TYPE,
    }
    return attest.provenance(
        attest.descriptor({"sha256": "1" * 64}, name=name),
        build_type=types.get(kind, kind),
        external={"source": {"kind": "git", "subdirectory": ""}, **external},
        internal={},
        dependencies=dependencies,
        builder_version={},
    )


def dependency(name, role, uri=""):
    return attest.descriptor({"sha256": "2" * 64}, name=name, uri=uri, annotations={"role": role})


def test_of_an_image_every_wheel_is_asked_about(tmp_path):
    wheels = [
        dependency("numpy-2.1.0-cp312-cp312-linux_x86_64.whl", "wheel", "pkg:pypi/numpy@2.1.0"),
        dependency("torch-2.3.0+cu121-cp312-cp312-linux_x86_64.whl", "wheel", "pkg:pypi/torch@2.3.0%2Bcu121"),
        dependency("Demo_App-1.0-py3-none-any.whl", "own-wheel"),
        dependency("base", "base", "docker://x"),
    ]
    (found,) = audit.sources_of(record("image", wheels), "it", tmp_path)
    assert [str(each.package) for each in found.pins] == ["numpy 2.1.0", "torch 2.3.0", "demo-app 1.0"]


@pytest.mark.parametrize(
    ("name", "uri", "words"),
    [
        ("no wheel", "", "which is neither a wheel nor an sdist"),
        ("a.whl", "pkg:pypi/a@one", "which has no version"),
        # What gets installed is what the file's name says.
        ("jinja2-3.1.4-py3-none-any.whl", "pkg:pypi/jinja2@3.1.6", "as 'pkg:pypi/jinja2@3.1.6'"),
        ("jinja2-3.1.4-py3-none-any.whl", "pkg:pypi/click@3.1.4", "as 'pkg:pypi/click@3.1.4'"),
        ("jinja2.whl", "pkg:pypi/jinja2@3.1.4", "which is neither a wheel nor an sdist"),
    ],
)
def test_a_record_that_names_no_package_is_refused(tmp_path, name, uri, words):
    with pytest.raises(RecordUnusable, match=words):
        audit.sources_of(record("image", [dependency(name, "wheel", uri)]), "it", tmp_path)


def test_the_record_of_another_tool_is_refused(tmp_path):
    with pytest.raises(RecordUnusable, match="is not the record of a wheel build"):
        audit.sources_of(record("https://example.org/build/v1"), "it", tmp_path)


def committed(folder, git, lock=f"click==8.1.0 {HASH}\n"):
    git(folder, "init", "-q")
    if lock is not None:
        (folder / "requirements.txt").write_text(lock)
    (folder / "x").write_text("")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x")
    return git(folder, "rev-parse", "HEAD").strip()


def built_from(commit, kind="wheel", **more):
    parts = [
        attest.descriptor({"gitCommit": commit, "gitTree": "0" * 40}, name="source", annotations={"role": "source"}),
        dependency("hatchling-1.27.0-py3-none-any.whl", "build-requirement", "pkg:pypi/hatchling@1.27.0"),
        dependency("old-1.0.tar.gz", "build-requirement", "pkg:pypi/old@1.0"),
    ]
    return record(kind, parts, **more)


def test_of_a_wheel_it_takes_what_built_it_and_the_lock_of_its_commit(tmp_path, git):
    commit = committed(tmp_path, git)
    (tmp_path / "requirements.txt").write_text(f"other==1 {HASH}\n")
    built, runtime = audit.sources_of(built_from(commit), "demo.whl", tmp_path)
    assert [str(each.package) for each in built.pins] == ["demo-app 1.0", "hatchling 1.27.0", "old 1.0"]
    assert [str(each.package) for each in runtime.pins] == ["click 8.1.0"]
    assert runtime.name == f"requirements.txt of the commit {commit[:12]}"
    assert runtime.digest == Digest.of_bytes(f"click==8.1.0 {HASH}\n".encode())


def test_of_an_sdist_it_takes_the_same(tmp_path, git):
    said = built_from(committed(tmp_path, git), "sdist", name="demo_app-1.0.tar.gz")
    built, runtime = audit.sources_of(said, "demo_app-1.0.tar.gz", tmp_path)
    assert [str(each.package) for each in built.pins] == ["demo-app 1.0", "hatchling 1.27.0", "old 1.0"]
    assert [str(each.package) for each in runtime.pins] == ["click 8.1.0"]


def test_a_wheel_whose_lock_is_not_to_be_had_is_not_audited(tmp_path, git):
    commit = committed(tmp_path, git, lock=None)
    for said, project in (
        (built_from(commit), tmp_path),
        (built_from("1" * 40), tmp_path),
        (built_from("HEAD"), tmp_path),
        (built_from(commit, source={"kind": "dirty", "subdirectory": ""}), tmp_path),
        (built_from(commit, source={"kind": "git", "subdirectory": "deeper"}), tmp_path),
        (built_from(commit, source="git"), tmp_path),
    ):
        with pytest.raises(SourceUnusable):
            audit.sources_of(said, "demo.whl", project)
    with pytest.raises(BadInput, match="not a folder"):
        audit.sources_of(built_from(commit), "demo.whl", tmp_path / "none")


# --- what is said ---------------------------------------------------------------------------------------


def test_a_statement_says_what_was_asked_and_what_was_ignored(answering):
    found = [advisory("CVE-2025-27516", "GHSA-1"), advisory("CVE-2", severity=Severity.UNKNOWN)]
    said = answering(found, [ignore()]).statement({"name": "x", "digest": {"sha256": "1" * 64}})
    predicate = said["predicate"]
    assert said["predicateType"] == "https://in-toto.io/attestation/vulns/v0.2"
    assert predicate["metadata"] == {"scanStartedOn": "2026-06-01T12:00:00Z", "scanFinishedOn": "2026-06-01T12:00:09Z"}
    assert predicate[attest.AUDIT_COVERAGE]["packages"] == 2
    assert [each["name"] for each in predicate[attest.AUDIT_COVERAGE]["sources"]] == ["requirements.txt"]
    notes = [each["annotations"][0] for each in predicate["scanner"]["result"]]
    assert [each.get("ignored") for each in notes] == ["it does no harm here", None]
    assert [each["severity"][0]["score"] for each in predicate["scanner"]["result"]] == ["high", "unknown"]
    assert attest.encode(said)


def test_a_part_of_a_report_is_about_its_own_sources_alone(answering):
    one, two = source("jinja2==3.1.4", name="one"), source("jinja2==3.1.4", "click==1", name="two")
    click = advisory("CVE-2", package=Package.of("click", Version("1")))
    report = answering([advisory(), click], sources=[one, two])
    part = report.of([one])
    assert [(each.advisory.id, [where.name for where, _ in each.where]) for each in part.findings] == [
        ("CVE-2025-27516", ["one"])
    ]
    assert len(part.packages) == 1


def test_which_version_mends_all_of_a_package():
    def finding(name, *fixed, package=JINJA):
        return Finding(advisory(name, package=package, fixed=fixed), ())

    click = Package.of("click", Version("1"))
    moves = audit.summary_of(
        [
            finding("A", "3.1.6", "4.0"),
            finding("B", "3.1.10"),
            finding("C", "2", package=click),
            finding("D", package=click),
        ]
    )
    assert list(moves) == [("click", ""), ("jinja2", "3.1.10")]


@pytest.mark.parametrize(
    ("fixed", "version"),
    [
        # Mended in two branches: 4.0.2 is later than 3.2.13, and still has the first.
        ([("3.2.13", "4.0.4"), ("4.0.2",)], "4.0.4"),
        ([("3.2.13", "4.0.4"), ("3.2.13", "4.0.3")], "3.2.13"),
        ([("3.2.13", "4.0.4"), ("3.2.15", "4.0.4")], "3.2.15"),
        ([("2.9", "3.1.6")], "2.9"),
    ],
)
def test_a_branch_that_mends_one_need_not_mend_another(fixed, version):
    findings = [Finding(advisory(f"CVE-{number}", fixed=each), ()) for number, each in enumerate(fixed)]
    assert list(audit.summary_of(findings)) == [("jinja2", version)]


@pytest.mark.parametrize("kind", ["git", "folder", None])
def test_the_lock_is_that_of_the_project_s_own_folder_in_a_commit_alone(tmp_path, git, kind):
    (tmp_path / "packages" / "demo").mkdir(parents=True)
    (tmp_path / "packages" / "demo" / "requirements.txt").write_text(f"jinja2==3.1.4 {HASH}\n")
    commit = committed(tmp_path, git)
    statement = built_from(commit, source={"kind": kind, "subdirectory": "packages/demo"})
    if kind != "git":  # such as a tree with changes upon the commit
        with pytest.raises(SourceUnusable, match="wasn't built from a commit alone"):
            audit.sources_of(statement, "it", tmp_path)
        return
    _, lock = audit.sources_of(statement, "it", tmp_path)
    assert [each.package for each in lock.pins] == [JINJA]
    assert lock.name.startswith("packages/demo/requirements.txt of the commit ")


def test_a_report_knows_its_packages_once():
    report = Report((source("a==1", "a==1"), source("a==1", name="b")), (), (), Service(), "2", NOW, NOW)
    assert len(report.packages) == 1
