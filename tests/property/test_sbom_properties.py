"""A bill of materials is a function of what it says: no order of parts, edges, hashes or licences shows in it."""

import json
import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from reprobuild import bom, graph
from reprobuild.bom import Document, Licences, Part, purl_of
from reprobuild.digest import Digest
from reprobuild.graph import Node

NAMES = st.sampled_from("abcdefgh")
DIGESTS = st.integers(0, 99).map(lambda number: Digest.of_bytes(bytes([number])))
LICENCES = st.builds(
    Licences,
    st.sampled_from(["", "MIT", "MIT OR Apache-2.0"]),
    st.sampled_from(["", "BSD", "none of these"]),
    st.lists(st.sampled_from(["License :: A", "License :: B", "License :: C"]), unique=True).map(tuple),
)
EXTRAS = ["", "[x]", "[y]", "[x,y]"]
MARKERS = ["", ' ; extra == "x"', ' ; extra == "y"', ' ; sys_platform == "linux"', ' ; sys_platform == "win32"']
REQUIREMENTS = st.builds("".join, st.tuples(NAMES, st.sampled_from(EXTRAS), st.sampled_from(MARKERS)))
ENVIRONMENTS = [{"sys_platform": "linux"}, {"sys_platform": "darwin"}]


@st.composite
def documents(draw):
    """A document, and the same in another order."""
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    parts = []
    for name in names:
        files = tuple(draw(st.lists(DIGESTS, unique=True, max_size=3)))
        purl = purl_of(name, "1")
        parts.append(
            Part(
                bom.text_of(purl), name, "1", purl=purl, files=files, licences=draw(LICENCES), properties=(("k", name),)
            )
        )
    refs = [each.ref for each in parts]
    edges = {ref: frozenset(draw(st.lists(st.sampled_from(refs)))) for ref in refs if draw(st.booleans())}
    nested = tuple(Part(f"file:{name}", name, kind="file") for name in names)
    makers = tuple(Part(f"build:{name}", name) for name in names)
    document = Document(Part("s", "s", parts=nested), "build", tuple(parts), edges, makers=makers)
    shuffler = random.Random(draw(st.integers()))
    return document, shuffled(document, shuffler)


def shuffled(document, shuffler):
    def mixed(values):
        return tuple(shuffler.sample(values, len(values)))

    parts = [
        replace(
            each,
            files=mixed(each.files),
            licences=replace(each.licences, classifiers=mixed(each.licences.classifiers)),
        )
        for each in document.parts
    ]
    return replace(
        document,
        subject=replace(document.subject, parts=mixed(document.subject.parts)),
        parts=mixed(parts),
        edges=dict(mixed(list(document.edges.items()))),
        makers=mixed(document.makers),
    )


@settings(max_examples=40, deadline=None)
@given(documents())
def test_the_order_of_what_goes_in_shows_nowhere(both):
    one, other = both
    assert bom.encode(one) == bom.encode(other)


@settings(max_examples=40, deadline=None)
@given(documents())
def test_every_component_is_there_once_and_every_edge_leads_to_one(both):
    document, _ = both
    found = json.loads(bom.encode(document))
    refs = [each["bom-ref"] for each in found.get("components", [])]
    assert sorted(refs) == sorted(each.ref for each in document.parts)
    told = {each["ref"]: frozenset(each.get("dependsOn", ())) for each in found.get("dependencies", [])}
    assert told == document.edges
    aggregates = [ref for each in found["compositions"] for ref in each.get("dependencies", ())]
    assert sorted(aggregates) == sorted([*refs, "s"])  # of each it is said how much is known


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, st.none() | st.lists(REQUIREMENTS, max_size=4)), st.randoms(use_true_random=False))
def test_the_graph_is_the_same_in_any_order_and_invents_nothing(said, shuffler):
    nodes = [Node(name, name, Version("1"), None if texts is None else tuple(texts)) for name, texts in said.items()]
    found = graph.resolve(nodes, ENVIRONMENTS)
    again = [
        replace(each, requires=each.requires and tuple(shuffler.sample(each.requires, len(each.requires))))
        for each in nodes
    ]
    shuffler.shuffle(again)
    assert graph.resolve(again, ENVIRONMENTS[::-1]) == found
    for ref, targets in found.edges.items():
        asked = {text[0] for text in said[ref] or () if "win32" not in text}
        assert targets <= asked & set(said) - {ref}
    assert set(found.edges) == {name for name, texts in said.items() if texts is not None}
