import fnmatch
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, ReprobuildError
from reprobuild.image import dockerfile as dockerfiles
from reprobuild.image.context import Context, Nodes, place
from reprobuild.image.pins import moved, pin
from reprobuild.image.resolve import resolve
from reprobuild.image.stages import Copy
from reprobuild.oci.model import Platform
from reprobuild.oci.tree import Node, Text

AMD64 = Platform("linux", "amd64")
PIN = re.compile(r"@sha256:[0-9a-f]{64}")
spaces = st.text(" \t", min_size=1, max_size=3)
names = st.from_regex(r"([a-z]{1,5}(\.[a-z]{1,3}|:[1-9][0-9]{0,3})/)?[a-z]{1,6}(-[a-z]{1,3})?", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
ends = st.sampled_from(["\n", "\r\n", "  \n", "\n\n", "\n# FROM a:1\n"])
noise = st.sampled_from(
    [
        "ENV A='FROM b:1'",
        "LABEL x=y@sha256:00",
        "COPY <<E /x\nFROM c:1\nE",
        "# c:1",
        "RUN echo --mount=from=d:1",
        'CMD ["FROM"]',
    ]
)


@st.composite
def froms(draw):
    flag = draw(st.sampled_from(["", "--platform=linux/arm64", "--platform=$TARGETPLATFORM"]))
    digest = draw(st.sampled_from(["", "@sha256:" + "0" * 64]))
    image = f"{draw(names)}:{draw(tags)}{digest}"
    joint = draw(st.sampled_from([" ", "\t ", " \\\n", " \\\n  # x:1 in a comment\n\t"]))
    words = [draw(st.sampled_from(["FROM", "from"])), *([flag] if flag else []), image]
    return joint.join(words) + draw(st.sampled_from(["", " AS me", "\tas\tme2", " \\\n AS q"])), image


@st.composite
def files(draw):
    text, images, seen = draw(st.sampled_from(["", "# escape=\\\n", "\ufeff", "ARG X=1\n"])), [], set()
    for line, image in draw(st.lists(froms(), min_size=1, max_size=4)):
        name = re.split(r"\s[aA][sS]\s", line)[1:]
        if name and name[0].strip() in seen:
            continue
        seen |= {each.strip() for each in name}
        text += line + draw(ends)
        images.append(image)
        for each in draw(st.lists(noise, max_size=2)):
            text += each + draw(st.sampled_from(["\n", "\n\n"]))
        if draw(st.booleans()):
            other = f"{draw(names)}:{draw(tags)}"
            text += f"COPY --from={other}{draw(spaces)}--chown=1 a /b{draw(ends)}"
            images.append(other)
    return text, images


@given(files(), st.integers(0, 3))
def test_pinning_changes_digests_and_nothing_else(made, salt):
    text, images = made
    asked = []

    def digest_of(name):
        asked.append(name)
        return Digest.of_bytes(f"{name}{salt}".encode())

    done = pin(text, digest_of)
    assert PIN.sub("", done) == PIN.sub("", text)
    assert asked == [PIN.sub("", image) for image in images]
    assert PIN.findall(done) == [f"@{digest_of(PIN.sub('', image))}" for image in images]
    assert moved(done, digest_of) == ()
    assert len(moved(text, digest_of)) == len(images)
    assert pin(done, digest_of) == done


values = st.text(string.ascii_letters + " -./:@é", max_size=6)


@given(values, values, st.sampled_from(["", ":"]), st.booleans())
def test_expansion_is_that_of_a_shell(value, other, colon, is_set):
    """What POSIX says of ${X-word} and ${X+word}, and of quotes (Shell Command Language, 2.6.2)."""
    parsed = dockerfiles.parse("FROM scratch", "D")
    variables = {"X": value} if is_set else {}
    counts = is_set and (bool(value) or not colon)
    assert parsed.expand(f"${{X{colon}-{other}}}", variables, 1) == (value if counts else other)
    assert parsed.expand(f"${{X{colon}+{other}}}", variables, 1) == (other if counts else "")
    assert parsed.expand('a"$X"b${X}c', variables, 1) == (f"a{value}b{value}c" if is_set else "abc")
    assert parsed.expand("'$X'\\$X", variables, 1) == "$X$X"
    if not counts:
        with pytest.raises(BadInput, match="D:1: "):
            parsed.expand(f"${{X{colon}?{other}}}", variables, 1)


words = """ARG=FROM=scratch= AS=a=b=/=.=1=COPY=ADD=ENV=LABEL=WORKDIR=USER=EXPOSE=VOLUME=STOPSIGNAL=HEALTHCHECK
CMD=NONE=SHELL=ENTRYPOINT=
MAINTAINER=RUN=--from==--chown==--chmod==--link=<<E=E=[=]=,="=\'=\\=#=$a=${a:-=${=}=escape=*=`=é= = = ="""
pieces = st.sampled_from([*words.replace("\n", "=").split("="), "\n", "\n", "\n", "=", "\0", "\ud800", "\t", "\r"])


@given(st.lists(pieces, max_size=30).map("".join), st.booleans())
def test_any_text_is_a_dockerfile_or_refused(text, begun):
    """Nothing else than our own errors, which name the file."""
    try:
        parsed = dockerfiles.parse(f"FROM scratch AS x\n{text}" if begun else text, "D")
        spec = resolve(parsed, lambda _: pytest.fail("no base"), platform=AMD64, epoch=0)
    except ReprobuildError as error:
        refused = error.reason
    else:
        refused = ""
        assert len(spec.stages) <= len(parsed.stages)
    assert refused == "" or refused.startswith("D")


@given(st.text(st.sampled_from("FROMscratch\nb:1@ ARG$V\"'\\#=\t\r`")).map(lambda text: f"FROM {text}"))
def test_any_text_is_pinned_or_refused(text):
    try:
        done = pin(text, lambda name: Digest.of_bytes(name.encode()))
    except ReprobuildError:
        return
    assert PIN.sub("", done).replace(":latest", "") == text.replace(":latest", "")


paths = st.lists(
    st.text("ab.-", min_size=1, max_size=3).filter(lambda part: part not in (".", "..")), min_size=1, max_size=4
)


@given(st.sets(paths.map("/".join), max_size=8), st.text("ab*?[]^-\\/.", max_size=6), st.randoms())
def test_what_is_copied_does_not_depend_on_the_order_of_a_tree(found, pattern, random):
    found = {path for path in found if not any(path.startswith(f"{other}/") for other in found)}
    shuffled = sorted(found)
    random.shuffle(shuffled)
    step = Copy("COPY", 1, (pattern.strip("/"),), "/to/", None, "", None, (), unpacks=False)

    def copied(paths):
        tree = Nodes({path: Node(path, "file", 0o644, 1, content=Text(path.encode())) for path in paths})
        try:
            done = place(step, tree, epoch=9, where="D", follow=lambda path: (path, False), read=lambda _: None)
        except BadInput as error:
            return error.reason
        assert [node.path.split("/") for node in done.nodes] == sorted(node.path.split("/") for node in done.nodes)
        return done

    assert copied(shuffled) == copied(sorted(found))


def copied_by(pattern, found):
    step = Copy("COPY", 1, (pattern,), "/to/", None, "", None, (), unpacks=False)
    tree = Nodes({path: Node(path, "file", 0o644, 1, content=Text(b"")) for path in found})
    placed = place(step, tree, epoch=9, where="D", follow=lambda path: (path, False), read=lambda _: None)
    return {node.path.removeprefix("to/") for node in placed.nodes}


@given(
    st.lists(st.sampled_from(["a", "b", "*", "*", "?", "[ab]", "[b-c]"]), min_size=1, max_size=12).map("".join),
    st.sets(st.text("abc", min_size=1, max_size=9), max_size=9),
)
def test_patterns_match_as_those_of_a_shell(pattern, found):
    assume(set(pattern) & set("*?["))
    assert copied_by(pattern, found) == set(fnmatch.filter(found, pattern))


def test_a_pattern_of_many_stars_comes_to_an_end():
    assert copied_by("a*" * 40 + "b", ["a" * 250, "a" * 249 + "b"]) == {"a" * 249 + "b"}


@given(st.lists(st.text("ab/*!?.[]#\\ -", max_size=6), max_size=5), st.lists(paths.map("/".join), max_size=4))
def test_any_dockerignore_is_followed_or_refused(tmp_path_factory, lines, found):
    root = tmp_path_factory.getbasetemp()
    try:
        context = Context(root, 1, lines)
    except BadInput:
        return
    for path in found:
        assert context.find(path) is None  # nothing is there, whatever is ignored
