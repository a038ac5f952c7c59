"""Which architectures are in a wheel's device code."""

import struct
import zipfile

import pytest
from tests.unit.test_compare import elf_of

from reprobuild.errors import BadInput
from reprobuild.fatbin import architectures


def fat(*entries, padding=0):
    """A fat binary with an entry for each kind and number: 1 is PTX, 2 a cubin."""
    body = b"".join(
        struct.pack("<HHIQ12xI", kind, 0x101, 64, 24, number) + bytes(32) + b"code" * 6 for kind, number in entries
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body + bytes(padding)


@pytest.fixture
def wheel(tmp_path):
    def make(**sections):
        path = tmp_path / "demo-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("demo/__init__.py", "")
            for name, content in sections.items():
                archive.writestr(f"demo/{name}.so", content if isinstance(content, bytes) else elf_of(content))
        return path

    return make


def test_every_entry_of_every_library_counts_once(wheel):
    one = {".nv_fatbin": fat((2, 80), (2, 90), padding=8) + fat((2, 80)), "__nv_relfatbin": fat((1, 90))}
    path = wheel(a=one, b={".text": b"\x90"}, c={".nv_fatbin": fat((2, 120))})
    assert architectures(path) == ("compute_90", "sm_120", "sm_80", "sm_90")


def test_a_wheel_without_device_code_has_none(wheel):
    assert architectures(wheel(a={".text": fat((2, 80))}, b=b"no ELF file")) == ()


def test_other_kinds_of_entries_are_passed_over(wheel):
    assert architectures(wheel(a={".nv_fatbin": fat((64, 7), (2, 80))})) == ("sm_80",)


@pytest.mark.parametrize(
    "section",
    [
        b"",
        b"\x50\xed\x55\xba",
        bytes(4096),
        fat((2, 80))[:30],
        struct.pack("<IHHQ", 0xBA55ED50, 1, 0, 0) * 50,
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 1 << 63) + struct.pack("<HHIQ12xI", 7, 0, 1 << 31, 1 << 63, 80),
    ],
)
def test_nonsense_ends(wheel, section):
    assert architectures(wheel(a={".nv_fatbin": section})) in ((), ("sm_80",))


def test_what_is_no_wheel_is_refused(tmp_path):
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.write_bytes(b"nothing")
    with pytest.raises(BadInput):
        architectures(path)
