import importlib.util
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from reprobuild.cli.app import cli
from reprobuild.errors import BadInput, ExitCode
from reprobuild.image.lint import lint, lint_text, rules
from reprobuild.image.lint.rules import RULES
from reprobuild.image.lint.shell import read

CASES = Path(__file__).parents[1] / "dockerfiles"
DIGEST = "sha256:" + "a" * 64
FROM = f"FROM registry.example/base:1@{DIGEST}\nARG SOURCE_DATE_EPOCH\n"
#: Rules about waivers, which no image differs by.
ABOUT_WAIVERS = {"bad-waiver", "unused-waiver"}


def found(text, **more):
    """Line and rule of each finding."""
    return [(each.line, each.rule.name) for each in lint_text(text, "D", **more).findings]


def names(body):
    """The rules that the body of a stage breaks, which has a pinned base and an epoch."""
    return [name for _, name in found(FROM + body)]


# --- reading the shell ---------------------------------------------------------------------------------------------


def commands(text):
    return read(text, lambda at: text.count("\n", 0, at) + 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a && b; c | d & e || f", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]),
        ("'a b' \"c $X\" d\\ e $'f g'", [["a b", "c $X", "d e", "$'f g'"]]),
        ("A=1 B='x y' cmd -x # the rest\nnext", [["cmd", "-x"], ["next"]]),
        ("if a; then b; else c; fi; while d; do e; done", [["a"], ["b"], ["c"], ["d"], ["e"]]),
        ("{ a; b; } > f; (c; d)", [["a"], ["b"], ["c"], ["d"]]),
        ("for i in x y; do a $i; done", [["for", "i", "in", "x", "y"], ["a", "$i"]]),
        ("case $x in y) a;; *) b;; esac", [["case", "$x", "in", "y"], ["a"], ["*"], ["b"]]),
        ("sh -c 'a; b'", [["a"], ["b"], ["sh", "-c", "a; b"]]),
        ("sudo -u me env X=1 exec a b", [["a", "b"]]),
        ("xargs -n 1 apt-get install", [["apt-get", "install"]]),
        ('echo "$(a "$(b)")" `c`', None),
        ("cat <<E > /f\n$(a)\nE\nb", [["cat"], ["a"], ["b"]]),
        ("cat <<'E'\n$(a)\nE\nb", [["cat"], ["b"]]),
        ("bash -e <<-E\n\ta\n\tE\nb", [["bash", "-e"], ["a"], ["b"]]),
        ("bash <(a) 2>&1 >> log", [["bash", "<(a)"], ["a"]]),
        ("a \\\n  b", [["a", "b"]]),
        ("a '", [["a", ""]]),
        ("$(", [["$("]]),
    ],
)
def test_the_commands_of_a_script(text, words):
    got = [list(each.words) for each in commands(text) if each.words]
    if words is None:
        assert {each[0] for each in got} == {"echo", "a", "b", "c"}
    else:
        assert got == words


def test_where_output_goes():
    date, tee, echo, at = commands('date | tee /f; echo "$(at)" > /g')
    assert (date.feeds, at.feeds) == (1, 2)
    assert (tee.writes, echo.writes) == (False, True)
    first, second = commands("{ a; b; } > /f")
    assert first.writes
    assert second.writes
    assert [each.feeds for each in commands("(a; b) | c")] == [2, 2, None]
    assert not commands("a > /dev/null 2>&1")[0].writes


def test_variables_are_those_that_the_shell_would_replace():
    (one,) = commands("echo $A \"${B:-x}\" '$C' \\$D")
    assert one.variables == {"A", "B"}


def test_lines_are_those_of_the_dockerfile():
    body = "RUN echo a \\\n  # a comment\n\n  && date > /f \\\n  && git clone x\nRUN <<E\nset -e\n\nhostname > /g\nE\n"
    assert found(FROM + body) == [(6, "clock-in-file"), (7, "git-moving"), (11, "machine-in-file")]


@pytest.mark.parametrize(
    ("script", "programs"),
    [
        ("sh <<E | tee log\ncurl x\nE\npwd\n", ["sh", "curl", "tee", "pwd"]),
        ("cat <<E; ls\ncurl x\nE\npwd\n", ["cat", "ls", "pwd"]),
        ("cat <<A | sh <<B && ls <<C\na\nA\ncurl x\nB\nc\nC\npwd\n", ["cat", "sh", "curl", "ls", "pwd"]),
        ("(sh <<E)\ncurl x\nE\npwd\n", ["sh", "curl", "pwd"]),
        ("cat <<E)", ["cat"]),
    ],
)
def test_a_here_document_is_read_though_its_command_ends_before_the_line(script, programs):
    assert sorted(each.program for each in read(script, lambda _: 1)) == sorted(programs)


def test_a_here_document_of_another_interpreter_is_no_script():
    assert names("RUN <<E\n#!/usr/bin/env python3\ndate > 5\nE\n") == []
    assert names("RUN <<E\n#!/bin/bash\ndate > /f\nE\n") == ["clock-in-file"]
    assert names("RUN cat <<E > /f\ndate > 5\nE\n") == []
    assert names('SHELL ["pwsh", "-c"]\nRUN date > /f\n') == []


def test_the_exec_form_is_read_too():
    assert names('RUN ["/bin/sh", "-c", "date > /f"]\n') == ["clock-in-file"]
    assert names('RUN ["git", "clone", "x"]\n') == ["git-moving"]


# --- the rules -----------------------------------------------------------------------------------------------------


def contexts(tmp_path, rule, kind):
    """A fixture's context, which for copy-git is a clone."""
    folder = tmp_path / kind
    shutil.copytree(CASES / rule / kind, folder)
    if rule == "copy-git":
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder / "Dockerfile"


def test_every_rule_has_a_fixture():
    assert {path.parent.name for path in CASES.glob("*/case.json")} == set(RULES) - ABOUT_WAIVERS


@pytest.mark.parametrize("rule", sorted(set(RULES) - ABOUT_WAIVERS))
def test_each_rule_finds_its_defect_alone_and_likes_its_remedy(tmp_path, rule):
    case = json.loads((CASES / rule / "case.json").read_text())
    bad, good = (lint(contexts(tmp_path, rule, kind)) for kind in ("bad", "good"))
    assert {each.rule.name for each in bad.findings} == {rule, *case.get("also", [])}
    assert good.findings == ()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("COPY --from=busybox:1 /bin /bin\n", ["unpinned-image"]),
        ("COPY --from=environment / /opt/venv/\n", []),
        ("RUN --mount=type=bind,from=busybox,target=/x cmp a b\n", ["latest-tag"]),
        ("RUN --mount=type=bind,from=apt,target=/apt apt-get install -y x && rm -rf /var/log /var/cache\n", []),
        ("RUN apt-get update -S 20260101T000000Z --snapshot x; apk add x\n", ["apt-lists"]),
        ("RUN apk add x\n", ["moving-archive"]),
        ("RUN pip install --no-deps --no-cache-dir --no-compile ./x.whl\n", []),
        ("RUN python3 -m pip install --no-cache-dir x\n", ["pip-unhashed"]),
        ("ENV PIP_REQUIRE_HASHES=1 PIP_NO_CACHE_DIR=1\nRUN pip install -r r.txt\n", []),
        ("RUN --mount=type=cache,target=/root/.cache uv sync --locked --no-install-project\n", []),
        ("ENV UV_NO_CACHE=1\nRUN uv sync --frozen\n", ["uv-installer-metadata"]),
        ("ENV UV_NO_CACHE=1 UV_NO_INSTALLER_METADATA=1\nRUN uv sync\n", ["uv-unlocked"]),
        ("RUN pip install --no-cache-dir --no-index --target=/x y\n", ["bytecode"]),
        ("RUN yarn install --frozen-lockfile\n", []),
        ("RUN yarn install\n", ["npm-unlocked"]),
        ("RUN npm ci && rm -rf ~/.npm\n", []),
        ("RUN go install x.org/y@v1.2.3 && go install ./cmd/x\n", []),
        ("RUN cargo install --locked x@1.2.3\n", []),
        ("RUN mamba env update -f environment.yml\n", ["conda-unlocked"]),
        ("RUN apt-get update && rm -rf /var/lib/{apt,dpkg}/lists\n", []),
        ("RUN dpkg -i x.deb\n", ["apt-logs", "ldconfig-cache"]),
        ("RUN --mount=type=tmpfs,target=/var/log --mount=type=tmpfs,target=/var/cache dpkg -i x.deb\n", []),
        ("RUN useradd x\n", []),
        ("RUN adduser -D x\n", ["shadow-date"]),
        ("RUN adduser -D x && chage -d 0 x\n", []),
        ("RUN passwd -l x\n", []),
        ("RUN echo x:y | chpasswd\n", ["password-salt"]),
        ("RUN useradd -p $(openssl passwd -6 y) x\n", ["password-salt"]),
        ("RUN useradd -p $(openssl passwd -6 -salt abc y) x\n", []),
        ("RUN systemd-machine-id-setup\n", ["machine-id"]),
        ("RUN python3 -m compileall /x\n", []),
        ("ADD https://x.org/y.tgz /\n", ["add-unverified"]),
        (f"ADD --checksum=sha256:{'0' * 64} https://x.org/y.tgz /\n", []),
        ("ADD https://x.org/y.git#main /y\n", ["git-moving"]),
        (f"ADD https://x.org/y.git#{'0' * 40} /y\n", []),
        ("COPY .git /x\n", ["copy-git"]),
        ("RUN curl -f x | bash -s -- -y\n", ["curl-pipe-shell"]),
        ('RUN sh -c "$(curl -f x)"\n', ["curl-pipe-shell"]),
        ("RUN bash <(curl -f x)\n", ["curl-pipe-shell"]),
        ("RUN curl -fL x | tar xz\n", ["download-unverified"]),
        ("RUN wget x && echo 'h  x' | sha256sum -c\n", []),
        ('RUN curl -fo x y && test "$(openssl sha512 -r x)" = z\n', []),
        ("RUN curl -f http://localhost/health\n", []),
        (f"ARG C={'0' * 40}\nRUN git clone x y && git -C y checkout $C && rm -rf y/.git\n", []),
        ("ARG C=main\nRUN git clone x y && git -C y checkout $C\n", ["git-moving"]),
        ("RUN date\n", []),
        ('RUN echo "started $(date)"\n', []),
        ("RUN date | tee /f\n", ["clock-in-file"]),
        ("RUN D=$(date) && make VERSION=$D\n", ["clock-in-file"]),
        ("RUN D=$(date) && echo $D\n", []),
        ("RUN sed -i s/x/$(date +%s)/ /f\n", ["clock-in-file"]),
        ("RUN date > /tmp/x && rm /tmp/x\n", []),
        ("RUN echo $RANDOM > /f\n", ["random-in-file"]),
        ("RUN echo '$RANDOM' > /f\n", []),
        ("RUN uuidgen > /f\n", ["random-in-file"]),
        ("RUN d=$(mktemp -d) && make -C $d && rm -rf $d\n", []),
        ("RUN cd $(mktemp -d) && make\n", ["random-in-file"]),
        ("RUN uname -r > /f\n", ["machine-in-file"]),
        ("RUN tar cf - x | tar xf - -C /y\n", []),
        ("RUN tar xzf a.tgz\n", []),
        ("RUN tar -czf a.tgz x\n", ["archive-times"]),
        ("RUN tar -cf a.tar --mtime=@0 x\n", ["archive-times"]),
        ("RUN tar -cf a.tar --sort=name x\n", ["archive-times"]),
        ("RUN gzip -9 x\n", ["archive-times"]),
        ("RUN gzip -9n x; cat y | gzip > z\n", []),
        ("RUN zip -r x.zip y\n", ["archive-times"]),
        ('RUN find y -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} + && zip -Xr x.zip y\n', []),
        ("RUN ssh-keygen -A\n", ["generated-key"]),
        ("RUN ssh-keygen -A && rm /etc/ssh/ssh_host_*\n", []),
        ("RUN openssl req -x509 -newkey rsa:2048 -keyout k -out c\n", ["generated-key"]),
    ],
)
def test_what_each_rule_takes_and_leaves(body, expected):
    assert names(body) == expected


def test_images_of_arguments_and_stages():
    assert found("ARG B=python:3.12\nFROM $B AS one\nFROM one\nCOPY --from=one /a /b\nCOPY --from=0 /a /b\n") == [
        (2, "unpinned-image")
    ]
    assert found("ARG B\nFROM $B\n") == []
    assert found("FROM scratch\n") == []
    assert found(f"# escape=\\\n# syntax=docker/dockerfile:1\nFROM x:1@{DIGEST}\n") == [(2, "unpinned-frontend")]
    assert found(f"# syntax=docker/dockerfile:1@{DIGEST}\nFROM x:1@{DIGEST}\n") == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("FROM scratch AS tools\nFROM tols\n", "tols (did you mean the stage tools?)"),
        ("FROM scratch AS tools\nFROM scratch\nCOPY --from=Tols /a /b\n", "Tols (did you mean the stage tools?)"),
        (f"FROM x:1@{DIGEST[:-2]}\n", f"x:1@{DIGEST[:-2]} (no digest: sha256: and 64 hex digits)"),
        ("FROM x:1\n", "x:1"),
    ],
)
def test_what_may_be_meant_by_an_image_without_a_digest_is_said(text, what):
    assert [each.what for each in lint_text(text, "D").findings] == [what]


@pytest.mark.parametrize("above", ["#!/usr/bin/docker\n", "# other=directive\n", "# check=a; b\n", "#!x \x0b y\n"])
def test_a_frontend_is_seen_wherever_buildkit_sees_it(above):
    text = f"{above}# syntax=docker/dockerfile:1 words\nFROM x:1@{DIGEST}\n"
    assert found(text) == [(2, "unpinned-frontend")]
    assert found(text.replace(":1 words", f":1@{DIGEST} words")) == []


def test_leavings_of_a_stage_that_is_not_kept_do_not_count():
    build = f"FROM x:1@{DIGEST} AS build\nARG SOURCE_DATE_EPOCH\nRUN dpkg -i x.deb && date > /opt/f\n"
    last = f"FROM x:1@{DIGEST}\n"
    assert found(f"{build}{last}COPY --from=build /usr /usr\n") == []
    assert found(f"{build}{last}COPY --from=build /opt /opt\n") == [(3, "clock-in-file")]
    assert {name for _, name in found(f"{build}{last}COPY --from=build / /\n")} == {
        "apt-logs", "ldconfig-cache", "clock-in-file",
    }  # fmt: skip
    assert len(found(f"{build}FROM build\n")) == 3


def test_what_is_removed_in_a_later_run_is_still_in_the_layer():
    assert names("RUN apt-get update\nRUN rm -rf /var/lib/apt/lists/*\n") == ["apt-lists"]


def test_a_stage_goes_on_with_what_its_base_said():
    text = f"FROM x:1@{DIGEST} AS one\nARG SOURCE_DATE_EPOCH\nENV PIP_REQUIRE_HASHES=1 PIP_NO_CACHE_DIR=1\nFROM one\n"
    assert found(text + "RUN pip install -r r.txt\n") == []


def test_a_new_environment_has_the_bytecode_of_its_own_pip():
    body = f"FROM x:1@{DIGEST}\nRUN {{}}\n"
    for making in ("python3 -m venv /opt/venv", "python3.12 -m ensurepip"):
        assert found(body.format(making)) == [(2, "bytecode"), (2, "missing-epoch")]
    assert found(body.format("python3 -m venv --without-pip /v")) == [(2, "missing-epoch")]
    assert names("RUN python3 -m venv /v\n") == []


def test_requirements_with_hashes_are_found_in_the_context(tmp_path):
    (tmp_path / "r.txt").write_text("x==1 --hash=sha256:00\n")
    body = FROM + "COPY r.txt /src/\nRUN pip install --no-cache-dir -r /src/r.txt\n"
    assert found(body, folders=(tmp_path,)) == []
    (tmp_path / "r.txt").write_text("x==1\n")
    assert found(body, folders=(tmp_path,)) == [(4, "pip-unhashed")]


def test_two_values_may_reach_one_file():
    body = "RUN X=$(date); Y=$X$(openssl rand -hex 8); echo $Y > /f\n"
    assert sorted(names(body)) == ["clock-in-file", "random-in-file"]
    assert names(body.replace(" > /f", "")) == []


def test_long_chains_of_variables_end():
    """Each of these hands its value to all that follow."""
    assert names("RUN " + "X=$X$(date); " * 500 + "echo $X > /f\n") == ["clock-in-file"]
    assert names("RUN " + "X=$X$(date); " * 500 + "echo $X\n") == []
    assert names("RUN " + "X=$X$(date); " * 500 + "echo $X; Y=$X; echo $Y > /f\n") == ["clock-in-file"]


# --- waivers -------------------------------------------------------------------------------------------------------


def test_a_waiver_needs_a_rule_and_a_reason():
    report = lint_text(FROM + "# reprobuild: allow git-moving it is our own\nRUN git clone x\n", "D")
    assert (report.findings, report.waived) == ((), 1)
    assert names("# reprobuild: allow git-moving\nRUN git clone x\n") == ["bad-waiver", "git-moving"]
    assert names("# reprobuild: allow git-movin it is our own\nRUN git clone x\n") == ["bad-waiver", "git-moving"]
    assert names("# reprobuild: allow\nRUN git clone x\n") == ["bad-waiver", "git-moving"]


def test_a_waiver_is_for_one_instruction_and_one_rule():
    waiver = "# reprobuild: allow git-moving it is our own\n"
    assert names(f"{waiver}RUN git clone x\nRUN git clone x\n") == ["git-moving"]
    assert names(f"{waiver}RUN git clone x && date > /f\n") == ["clock-in-file"]
    assert names(f"RUN true && \\\n  {waiver}  git clone x\n") == []
    assert names(f"{waiver}RUN true\n") == ["unused-waiver"]


# --- the command ---------------------------------------------------------------------------------------------------


def run(*arguments):
    done = CliRunner().invoke(cli, ["lint", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two images, one of which has a defect."""
    monkeypatch.chdir(tmp_path)
    for name, body in (("fine", ""), ("late", "RUN date > /f\n")):
        path = Path("images", name, "Dockerfile")
        path.parent.mkdir(parents=True)
        path.write_text(FROM + body)
    return tmp_path


def test_all_images_one_image_a_file_or_a_folder(project):
    assert run("fine")[0] == ExitCode.OK
    for arguments in ((), ("late",), ("images/late/Dockerfile",), ("images",), (project,)):
        code, out = run(*arguments)
        assert code == ExitCode.LINT_FOUND
        assert "images/late/Dockerfile:3: error clock-in-file: date" in out
        assert "1 errors, 0 warnings, 0 waived" in out


def test_json_has_each_finding_with_its_remedy(project):
    code, out = run("--json")
    said = json.loads(out)
    assert code == ExitCode.LINT_FOUND
    assert said["files"] == 2
    (one,) = said["findings"]
    assert one == {
        "file": "images/late/Dockerfile", "line": 3, "rule": "clock-in-file", "severity": "error", "what": "date",
        "why": RULES["clock-in-file"].why, "remedy": RULES["clock-in-file"].remedy, "link": RULES["clock-in-file"].link,
    }  # fmt: skip


def test_warnings_count_when_asked(project):
    Path("images/late/Dockerfile").write_text(f"FROM x:1@{DIGEST}\nRUN make\n")
    assert run()[0] == ExitCode.OK
    assert run("--strict")[0] == ExitCode.LINT_FOUND


def test_rules_are_told():
    code, out = run("--list")
    assert code == 0
    assert all(f"{rule.name} ({rule.severity}): {rule.why}\n" in out for rule in rules())
    code, out = run("--explain", "apt-lists")
    assert code == 0
    assert RULES["apt-lists"].remedy in out
    assert run("--explain", "nothing")[0] == ExitCode.USAGE


def test_what_is_not_there_is_an_error(project):
    assert isinstance(CliRunner().invoke(cli, ["lint", "nothing"]).exception, BadInput)
    Path("empty").mkdir()
    assert isinstance(CliRunner().invoke(cli, ["lint", "empty"]).exception, BadInput)
    Path("images/late/Dockerfile").write_text("RUM x\n")
    assert isinstance(CliRunner().invoke(cli, ["lint"]).exception, BadInput)


def test_names_of_images_are_completed(project):
    done = CliRunner().invoke(
        cli, [], prog_name="reprobuild",
        env={"_REPROBUILD_COMPLETE": "bash_complete", "COMP_WORDS": "reprobuild lint la", "COMP_CWORD": "2"},
    )  # fmt: skip
    assert "plain,late" in done.output


def test_text_of_strangers_cannot_reach_the_terminal(project):
    Path("images/late/Dockerfile").write_text(FROM + "RUN git clone '\x1b[2J'\n")
    out = run()[1]
    assert "\x1b" not in out
    assert "\\x1b[2J" in out


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_is_what_the_rules_and_the_fixtures_say():
    specification = importlib.util.spec_from_file_location("dockerfiles_table", CASES / "table.py")
    assert specification
    assert specification.loader
    table = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(table)
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.placed(text) == text
    assert "misses it" not in text
    assert all(rule.link == f"docs/{table.PAGE.name}#{name}" for name, rule in RULES.items())


@pytest.mark.parametrize(
    "text",
    [
        "FROM x:1\nRUN " + "(a;" * 5000 + ")" * 5000 + " > x\n",
        "FROM x:1\nRUN " + "{ a; " * 2500 + "} >x; " * 2500 + "\n",
        "FROM x:1\nRUN " + "rm /a*/b*;apt-get install x;" * 740 + "\n",
        "FROM x:1 AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\nRUN date >/a\n" for n in range(500)),
    ],
    ids=["subshells", "groups", "removals", "stages"],
)
def test_what_is_nested_or_repeated_takes_no_ages(text):
    """Each took from 5 to 60 seconds, and more than twice as long for twice as much."""
    began = time.process_time()
    assert found(text)
    assert time.process_time() - began < 4


def test_a_redirect_counts_as_deep_as_anybody_nests():
    date = f"FROM x:1@{DIGEST}\nARG SOURCE_DATE_EPOCH\nRUN " + "{ " * 40 + "date; " + "}; " * 39 + "} > /f\n"
    assert (3, "clock-in-file") in found(date)
