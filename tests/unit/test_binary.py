"""The first byte that differs, wherever the pieces end in which two streams are read."""

import io

import pytest
from tests.unit.test_compare import elf_of

from reprobuild import binary
from reprobuild.elf import read_sections


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (b"", b"", (0, "end of file", "end of file")),
        (b"abcdefgh", b"abcdefgh", (8, "end of file", "end of file")),
        (b"abcdefgh", b"abcdeXgh", (5, "66 67 68", "58 67 68")),
        (b"abcd", b"abcdefgh", (4, "end of file", "65 66 67 68")),
        (b"abcdefgh", b"abcd", (4, "65 66 67 68", "end of file")),
        (b"abcdef", b"abcde", (5, "66", "end of file")),
    ],
)
def test_the_first_byte_that_differs(monkeypatch, left, right, expected):
    monkeypatch.setattr(binary, "_CHUNK", 4)
    assert binary.first_difference(io.BytesIO(left), io.BytesIO(right)) == expected


@pytest.mark.parametrize("swapped", [False, True])
def test_a_section_that_goes_on_differs_where_the_other_ends(monkeypatch, swapped):
    monkeypatch.setattr(binary, "_CHUNK", 4)
    streams = [io.BytesIO(elf_of({".text": data})) for data in (b"\x90" * 8, b"\x90" * 8 + b"\xc3")]
    streams = streams[::-1] if swapped else streams
    sections = [read_sections(each, len(each.getvalue())) or () for each in streams]
    found = binary.section_differences(streams[0], sections[0], streams[1], sections[1], ())
    (text,) = (each for each in found if each.path == (".text",))
    assert {text.left, text.right} == {"0x8: end of 8 bytes", "0x8: c3"}
