import string

from hypothesis import given
from hypothesis import strategies as st

from reprobuild.errors import BadInput
from reprobuild.image.lint import lint_text
from reprobuild.image.lint.shell import read

words = """RUN=FROM=COPY=ADD=ENV=ARG=SHELL=scratch= AS a=b=.=.git=https://x.org/y=apt-get update
apt-get install x=pip install=curl x=| sh=> /f=date=$(date)=$(=`=${=}=)=(={=}=<<E=<<-'E'=E=&&=||=;=&
|=#=\\=\\n='="=[=]="=\t=if=then=fi=for=done=case=esac=--mount=type=cache,target=/x=--from=a=sh -c '
sudo=env A=b=# reprobuild: allow git-moving x=# reprobuild: allow=git clone x=# syntax
docker/dockerfile:1=# escape=`=rm -rf /x/{a,b}=useradd x=tar cf x=mktemp=$RANDOM=> /dev/null=2>&1=<(
 =é= ="="""
pieces = st.sampled_from([*words.replace("\n", "=").split("="), "\n", "\n", "\n", " ", "=", "\0", "\ud800", "\r"])


@given(st.lists(pieces, max_size=40).map(" ".join) | st.text(), st.booleans())
def test_any_text_is_linted_or_refused(text, begun):
    text = f"FROM scratch\nRUN {text}" if begun else text
    try:
        report = lint_text(text, "D")
    except BadInput as error:
        assert error.reason.startswith("D")  # noqa: PT017 - the only error that there may be
        return
    lines = text.removeprefix("\ufeff").count("\n") + 1
    assert all(1 <= each.line <= lines and each.what for each in report.findings)
    assert [each.line for each in report.findings] == sorted(each.line for each in report.findings)
    assert len({(each.rule.name, each.line) for each in report.findings}) == len(report.findings)


@given(st.lists(pieces, max_size=60).map("".join) | st.text(string.printable))
def test_any_script_is_read(text):
    found = read(text, lambda at: text.count("\n", 0, at) + 1)
    lines = text.count("\n") + 1
    for number, each in enumerate(found):
        assert 1 <= each.line <= lines
        assert each.feeds is None or (0 <= each.feeds < len(found) and each.feeds != number)


plain = st.text(string.ascii_lowercase, min_size=1, max_size=5).filter(
    lambda word: word not in ("if", "then", "else", "elif", "fi", "do", "done", "for", "case", "esac", "while", "until",
                              "time", "select", "sh", "su", "env", "nice", "exec", "eval", "sudo", "gosu")
)  # fmt: skip
quoted = st.text(string.ascii_letters + " ;|&<>()#*", min_size=1, max_size=8)


@given(
    st.lists(st.tuples(plain, st.lists(quoted, max_size=3)), min_size=1, max_size=5),
    st.sampled_from([" && ", "; ", " | "]),
)
def test_quoted_words_come_back(made, joint):
    """A script written from its words is read as those words."""
    text = joint.join(" ".join([program, *(f"'{word}'" for word in rest)]) for program, rest in made)
    assert [list(each.words) for each in read(text, lambda _: 1)] == [[program, *rest] for program, rest in made]


@given(st.integers(1, 300), st.sampled_from(["$(", "`", "${", "(", "{ ", '"$(', "sh -c '", "<(", "$((", "<<E ", "if "]))
def test_nesting_has_no_end_that_matters(depth, opening):
    assert len(read(opening * depth, lambda _: 1)) < 20 * depth + 20
