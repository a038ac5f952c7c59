import string
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.lockfile import parse

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(lambda name: "--" not in name)
VERSIONS = st.from_regex(r"[1-9]?[0-9](\.[0-9]{1,2}){0,3}(rc[0-9])?(\+[a-z]{1,4})?", fullmatch=True)
DIGESTS = st.binary(max_size=8).map(Digest.of_bytes)
MARKERS = st.sampled_from(["", "sys_platform == 'win32'", "python_version < '3.12'"])
PINS = st.dictionaries(NAMES, st.tuples(VERSIONS, MARKERS, st.sets(DIGESTS, min_size=1, max_size=4)), max_size=6)
COMMENTS = st.text(string.printable, max_size=20).map(lambda text: "".join(text.split("\\")).splitlines() or [""])


def spell(pins, layout):
    """A lock's text; ``layout`` draws how each line is broken and what comments stand between."""
    for name, (version, marker, hashes) in pins.items():
        yield f"# {layout(COMMENTS)[0]}"
        separator = layout(st.sampled_from([" ", " \\\n    ", "  \\\r\n\t"]))
        head = f"{name}=={version}" + (f" ; {marker}" if marker else "")
        yield separator.join([head, *(f"--hash={each}" for each in layout(st.permutations(sorted(hashes))))])
        yield layout(st.sampled_from(["", "    # via other", "\t"]))


@settings(max_examples=50, deadline=None)
@given(PINS, st.data())
def test_every_layout_of_a_lock_reads_back(pins, data):
    lock = parse("\n".join(spell(pins, data.draw)), "x")
    assert [pin.name for pin in lock.pins] == list(pins)
    for pin, (version, marker, hashes) in zip(lock.pins, pins.values(), strict=True):
        assert pin.version == Version(version)
        assert str(pin.marker or "") == marker.replace("'", '"')
        assert pin.hashes == tuple(sorted(hashes))


@given(st.text())
def test_any_text_is_read_or_refused(text):
    with suppress(BadInput):
        assert all(pin.hashes for pin in parse(text, "x").pins)


@given(PINS, st.text(string.printable, min_size=1, max_size=30), st.floats(0, 1))
def test_a_damaged_lock_never_yields_a_pin_that_it_did_not_hold(pins, noise, where):
    text = "".join(
        f"{name}=={version} {' '.join(f'--hash={each}' for each in sorted(hashes))}\n"
        for name, (version, _, hashes) in pins.items()
    )
    at = int(where * len(text))
    known = {each for _, _, hashes in pins.values() for each in hashes}
    try:
        lock = parse(text[:at] + noise + text[at:], "x")
    except BadInput:
        return
    assert {each for pin in lock.pins for each in pin.hashes} <= known
