"""The GPU architectures that a wheel's device code was compiled for, read from the wheel itself.

nvcc puts device code into sections of an ELF file as "fat binaries": a header with a magic number, then one entry for
each cubin (kind 2) and PTX text (kind 1) with the number of its architecture. The layout isn't documented; this follows
what nvcc 13.0 writes, and what cuobjdump says of it.
"""

import os
import re
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from reprobuild.archive import Entry, open_archive
from reprobuild.digest import chunks_of
from reprobuild.elf import Section, read_sections

_SECTIONS = (".nv_fatbin", "__nv_relfatbin")
_LIBRARY = re.compile(r".*\.so(\.[0-9.]+)?")
_MAGIC = 0xBA55ED50
_HEADER, _ENTRY = struct.Struct("<IHHQ"), struct.Struct("<HHIQ12xI")
_PREFIXES = {1: "compute_", 2: "sm_"}
_STEPS = 1_000_000  # headers that are read of one section
_MEMORY = 16 << 20


def architectures(wheel: Path) -> tuple[str, ...]:
    """The architectures of all device code in a wheel's shared libraries, such as ``("compute_90", "sm_80", "sm_90")``.

    Variants such as ``sm_90a`` are named by their number alone, which is what is stored.

    Raises:
        BadInput: it isn't a sound zip file.
    """
    found: set[str] = set()
    with open_archive(wheel) as archive:
        libraries: list[Entry] = [each for each in archive.entries if _LIBRARY.fullmatch(each.name)]
        for entry in libraries:
            with tempfile.SpooledTemporaryFile(_MEMORY) as copy:
                for chunk in chunks_of(archive.open(entry)):
                    copy.write(chunk)
                found.update(_of_library(copy))
    return tuple(sorted(found))


def _of_library(stream: IO[bytes]) -> Iterator[str]:
    for section in read_sections(stream, stream.seek(0, os.SEEK_END)) or ():
        if section.name in _SECTIONS:
            yield from _of_section(stream, section)


def _of_section(stream: IO[bytes], section: Section) -> Iterator[str]:
    at, end, inner = section.offset, section.offset + section.stored, 0
    for _ in range(_STEPS):
        if at + _HEADER.size > end:
            return
        stream.seek(at)
        head = stream.read(_ENTRY.size)
        if at >= inner:
            magic, _, header_size, size = _HEADER.unpack_from(head)
            if magic != _MAGIC:  # what aligns the next one
                at += 8
                continue
            at, inner = at + max(header_size, _HEADER.size), at + header_size + size
            continue
        if at + _ENTRY.size > end:
            return
        kind, _, header_size, size, number = _ENTRY.unpack(head)
        if kind in _PREFIXES:
            yield f"{_PREFIXES[kind]}{number}"
        at += max(header_size + size, _ENTRY.size)
