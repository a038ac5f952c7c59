import click
import pytest
from click.testing import CliRunner

from reprobuild.cli.render import echo_verdict, verdict_lines
from reprobuild.compare import CAUSES, Difference, Level, Verdict
from reprobuild.digest import Digest

ONE, TWO = Digest.of_bytes(b"1"), Digest.of_bytes(b"2")


def text_of(*differences, level=Level.PAYLOAD, **more):
    verdict = Verdict(level, ONE, TWO, 1000, 2, differences, **{"wheels": True, **more})
    return [click.unstyle(line) for line in verdict_lines(verdict, "a.whl", "long.whl")]


def test_digests_level_and_tree():
    lines = text_of(
        Difference((), "order", "1. a", "1. b", "file-order", level=Level.CONTAINER),
        Difference(("a.so", ".debug_str"), "section", "/x", "/y", "build-path"),
        Difference(("a.so", ".text"), "section", "90", "91"),
    )
    assert lines == [
        f"a.whl     {ONE}  1,000 bytes",
        f"long.whl  {TWO}  2 bytes",
        "payload: what gets installed differs",
        "  a.so",
        "    .debug_str",
        "      section: /x → /y [build-path]",
        "    .text",
        "      section: 90 → 91",
        "  order: 1. a → 1. b [file-order]",
        f"build-path: {CAUSES['build-path'].summary}",
        f"  {CAUSES['build-path'].remedy}",
        f"file-order: {CAUSES['file-order'].summary}",
        f"  {CAUSES['file-order'].remedy}",
    ]


@pytest.mark.parametrize(
    ("wheels", "says"), [(True, "payload: what gets installed differs"), (False, "payload: the contents differ")]
)
def test_only_a_wheel_gets_installed(wheels, says):
    assert text_of(wheels=wheels)[2] == says


def test_consequences_take_one_line():
    follows = [Difference(("RECORD",), "line", "a", "b", None, follows=True)] * 3
    lines = text_of(Difference(("a",), "line 1", "1", "2"), *follows)
    assert lines[-1] == "  follows from these: RECORD (3)"
    assert sum("RECORD" in line for line in lines) == 1


def test_what_is_not_shown_is_counted():
    many = [Difference((f"f{i}",), f"line {i}", "1", "2") for i in range(60)]
    assert text_of(*many, omitted=(("time", 4980),))[-1] == "  not shown: 4,980 time, 10 line"


def test_not_comparable_says_why():
    assert text_of(level=Level.NOT_COMPARABLE, reason="a is a zip file")[2] == "not-comparable: a is a zip file"


def test_hostile_text_cannot_reach_the_terminal():
    lines = text_of(Difference(("\x1b[2Jname\n",), "line 1", "\x07", "\u202e"))
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[2Jname\\n" in lines[3]


def test_colours_are_dropped_off_a_terminal():
    verdict = Verdict(Level.IDENTICAL, ONE, ONE, 1, 1)
    assert "\x1b" in "".join(verdict_lines(verdict, "a", "b"))

    @click.command()
    def show():
        echo_verdict(verdict, "a", "b")

    assert "\x1b" not in CliRunner().invoke(show).output
