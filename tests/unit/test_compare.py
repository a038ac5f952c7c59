import bz2
import gzip
import io
import json
import lzma
import struct
import zipfile
import zlib

import pytest

from reprobuild.archive import open_archive, write_tar
from reprobuild.causes import cause_of
from reprobuild.compare import CAUSES, Hint, Level, compare
from reprobuild.contents import Effort, stream_differences
from reprobuild.errors import BadInput, ExitCode
from reprobuild.progress import Silent, size_text

INFO = "demo-1.0.dist-info"
FILES = {
    "demo/__init__.py": b"x = 1\n",
    "demo/data.bin": bytes(range(256)) * 40,
    f"{INFO}/METADATA": b"Metadata-Version: 2.3\nName: demo\nVersion: 1.0\n",
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: hatchling 1.26.0\n",
    f"{INFO}/RECORD": b"demo/__init__.py,sha256=abc,6\ndemo/data.bin,sha256=def,10240\n",
}


def zip_of(files, *, time=(2024, 1, 1, 0, 0, 0), mode=0o644, system=3, level=6):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, time)
            info.external_attr, info.create_system = (0o100000 | mode) << 16, system
            archive.writestr(info, data, zipfile.ZIP_DEFLATED, level)
    return buffer.getvalue()


def tar_of(files, mtime=0):
    buffer = io.BytesIO()
    write_tar(buffer, [(name, 0o644, data) for name, data in files.items()], mtime=mtime)
    return buffer.getvalue()


@pytest.fixture
def verdict(tmp_path):
    def run(left, right, *hints, suffix=".whl"):
        paths = (tmp_path / f"left{suffix}", tmp_path / f"right{suffix}")
        for path, data in zip(paths, (left, right), strict=True):
            path.write_bytes(zip_of(data) if isinstance(data, dict) else data)
        return compare(*paths, hints=hints)

    return run


def only(found):
    assert len(found.differences) == 1, found.differences
    return found.differences[0]


def test_equal_bytes_are_identical_whatever_they_hold(verdict):
    found = verdict(b"PK\x03\x04 broken", b"PK\x03\x04 broken")
    assert (found.level, found.differences, found.left_size) == (Level.IDENTICAL, (), 11)


def test_two_missing_files_are_not_the_same(tmp_path):
    with pytest.raises(BadInput, match="not a file"):
        compare(tmp_path / "a.whl", tmp_path / "a.whl")


FRAMINGS = {
    "clock": (zip_of(FILES, time=(2025, 2, 3, 4, 5, 6)), "time"),
    "compression": (zip_of(FILES, level=1), "compression"),
    "zip-tool": (zip_of(FILES, system=19), "create system"),
    "operating-system": (zip_of(FILES, system=0), "create system"),
    "file-order": (zip_of(dict(reversed(FILES.items()))), "order"),
}


@pytest.mark.parametrize("cause", FRAMINGS)
def test_framing_is_the_container_level(verdict, cause):
    data, field = FRAMINGS[cause]
    found = verdict(zip_of(FILES), data)
    assert found.level is Level.CONTAINER
    assert found.causes == (cause,)
    assert {difference.field for difference in found.differences} == {field}


def test_framing_that_has_no_name_is_still_found(verdict):
    data = zip_of(FILES)
    changed = bytearray(data)
    changed[10] ^= 1  # the time in the first local header, which the central directory repeats
    assert only(verdict(data, bytes(changed))).field == "bytes at 0xa"


def test_modes_are_payload_and_umask_is_named(verdict):
    found = verdict(zip_of(FILES, mode=0o644), zip_of(FILES, mode=0o664))
    assert (found.level, found.causes) == (Level.PAYLOAD, ("umask",))
    assert verdict(zip_of(FILES, mode=0o644), zip_of(FILES, mode=0o755)).causes == ()


def test_dist_info_is_the_metadata_level(verdict):
    found = verdict(FILES, FILES | {f"{INFO}/WHEEL": FILES[f"{INFO}/WHEEL"].replace(b"1.26", b"1.27")})
    assert (found.level, found.causes) == (Level.METADATA, ("backend-version",))
    assert only(found).field == "line 2"
    assert verdict(FILES, FILES | {f"{INFO}/extra.txt": b""}).level is Level.METADATA
    newer = FILES[f"{INFO}/METADATA"].replace(b"2.3", b"2.4")
    assert verdict(FILES, FILES | {f"{INFO}/METADATA": newer}).causes == ("metadata-version",)


def test_only_a_wheel_has_a_metadata_level(verdict):
    plain = {name: data for name, data in FILES.items() if not name.endswith("WHEEL")}
    assert verdict(plain, plain | {f"{INFO}/METADATA": b"x"}).level is Level.PAYLOAD
    assert not verdict(plain, plain | {f"{INFO}/METADATA": b"x"}).wheels
    assert not verdict(tar_of(FILES), tar_of(FILES, mtime=1), suffix=".tar").wheels
    assert not verdict(b"a", b"b", suffix=".txt").wheels
    assert verdict(FILES, FILES | {f"{INFO}/METADATA": b"x"}).wheels


def test_a_record_line_follows_its_member(verdict):
    changed = FILES | {
        "demo/__init__.py": b"x = 2\n",
        f"{INFO}/RECORD": FILES[f"{INFO}/RECORD"].replace(b"abc", b"abd"),
    }
    found = verdict(FILES, changed)
    assert found.level is Level.PAYLOAD
    assert [(d.path, d.field, d.follows) for d in found.differences] == [
        (("demo/__init__.py",), "line 1", False),
        ((f"{INFO}/RECORD",), "line", True),
    ]
    alone = verdict(FILES, FILES | {f"{INFO}/RECORD": changed[f"{INFO}/RECORD"]})
    assert only(alone).follows is False


def test_the_order_of_record_is_file_order(verdict):
    lines = FILES[f"{INFO}/RECORD"].splitlines(keepends=True)
    found = verdict(FILES, FILES | {f"{INFO}/RECORD": b"".join(reversed(lines))})
    assert (found.level, found.causes) == (Level.METADATA, ("file-order",))


def test_a_missing_file_is_named(verdict):
    found = only(verdict(FILES, FILES | {"demo/old.py": b""}))
    assert (found.path, found.field, found.left, found.cause) == (("demo/old.py",), "missing", "absent", "missing-file")


def with_dist_info(folder, **changes):
    """FILES with another dist-info folder, and some of its members changed."""
    moved = {name.replace(INFO, folder): data.replace(INFO.encode(), folder.encode()) for name, data in FILES.items()}
    return moved | {f"{folder}/{name}": data for name, data in changes.items()}


@pytest.mark.parametrize("folder", ["Demo-1.0.dist-info", "DEMO-1.0.dist-info", "demo-1.0.post1.dist-info"])
def test_dist_info_folders_of_one_project_are_compared_with_one_another(verdict, folder):
    left = FILES | {f"{INFO}/RECORD": FILES[f"{INFO}/RECORD"] + f"{INFO}/WHEEL,sha256=abc,9\n".encode()}
    right = with_dist_info(folder, RECORD=left[f"{INFO}/RECORD"].replace(INFO.encode(), folder.encode()))
    for pair in ((left, right), (right, left)):
        found = verdict(*pair)
        first, second = (next(name.split("/")[0] for name in side if "dist-info" in name) for side in pair)
        assert [(d.path, d.field, d.left, d.right) for d in found.differences if not d.follows] == [
            ((first,), "name", first, second)
        ]
        assert [(d.path, d.left.split("/")[0]) for d in found.differences if d.follows] == [
            ((f"{first}/RECORD",), first)
        ]
        assert found.level is Level.METADATA
    changed = verdict(left, right | {f"{folder}/METADATA": b"Metadata-Version: 2.4\nName: demo\nVersion: 1.0\n"})
    assert changed.causes == ("metadata-version",)


def test_a_clock_in_the_version_is_named(verdict):
    folders = (f"demo-1.0+2024010{day}.dist-info" for day in (1, 2))
    assert verdict(*map(with_dist_info, folders)).causes == ("clock",)


@pytest.mark.parametrize("folder", ["other-1.0.dist-info", "demo_2-1.0.dist-info"])
def test_dist_info_folders_of_two_projects_are_not(verdict, folder):
    found = verdict(FILES, with_dist_info(folder))
    assert {d.field for d in found.differences if not d.follows} == {"missing"}


def test_of_several_dist_info_folders_none_is_taken_for_another(verdict):
    found = verdict(FILES, with_dist_info("Demo-1.0.dist-info") | {"more-1.dist-info/WHEEL": b""})
    assert {d.field for d in found.differences if not d.follows} == {"missing"}


def test_a_newer_backends_files_are_not_left_over_from_an_old_build(verdict):
    """The remedy would be a clean export, which is no help against another version."""
    newer = FILES[f"{INFO}/WHEEL"].replace(b"1.26", b"1.27")
    right = FILES | {f"{INFO}/WHEEL": newer, f"{INFO}/licenses/LICENSE": b"free"}
    found = verdict(FILES, right)
    assert found.causes == ("backend-version",)
    assert [d.path[0] for d in found.differences if d.field == "missing"] == [f"{INFO}/licenses/LICENSE"]
    assert verdict(FILES, right | {f"{INFO}/WHEEL": FILES[f"{INFO}/WHEEL"]}).causes == ("missing-file",)
    assert "missing-file" in verdict(FILES, right | {"demo/old.py": b""}).causes


def test_different_kinds_are_not_comparable(verdict):
    found = verdict(zip_of(FILES), tar_of(FILES), suffix="")
    assert found.level is Level.NOT_COMPARABLE
    assert "zip" in found.reason
    assert "tar" in found.reason
    assert not any(level.accepts(found.level) for level in Level)


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"\0" + data])
def test_a_damaged_wheel_is_bad_input_on_either_side(verdict, damage):
    good = zip_of(FILES)
    for pair in ((good, damage(good)[:300]), (damage(good)[:300], good)):
        with pytest.raises(BadInput):
            verdict(*pair)


def test_tars_compare_like_zips(verdict):
    found = verdict(gzip.compress(tar_of(FILES), mtime=4), gzip.compress(tar_of(FILES, 99), mtime=5), suffix=".tar.gz")
    assert (found.level, found.causes) == (Level.CONTAINER, ("clock",))
    assert {d.field for d in found.differences} == {"time", "gzip time"}
    changed = tar_of(FILES | {"demo/__init__.py": b"x = 2\n"})
    assert verdict(tar_of(FILES), changed, suffix=".tar").level is Level.PAYLOAD


def test_a_gzip_of_the_same_content_is_compression(verdict):
    data = bytes(range(256)) * 400
    found = verdict(
        gzip.compress(data, 9, mtime=0)[:8] + b"\0" + gzip.compress(data, 1, mtime=0)[9:],
        gzip.compress(data, 9, mtime=0)[:8] + b"\0" + gzip.compress(data, 9, mtime=0)[9:],
        suffix=".gz",
    )
    assert (found.level, found.causes) == (Level.CONTAINER, ("compression",))


@pytest.mark.parametrize(("kind", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)])
def test_a_tar_of_the_same_content_is_compression(verdict, kind, pack):
    tar = tar_of(FILES)
    levels = {"gz": [{"compresslevel": n, "mtime": 0} for n in (9, 1)], "xz": [{"preset": n} for n in (9, 0)]}
    packed = [pack(tar, **options) for options in levels.get(kind, [{"compresslevel": n} for n in (1, 9)])]
    if kind == "gz":  # the header says the level
        packed = [data[:8] + b"\0" + data[9:] for data in packed]
    if packed[0] == packed[1]:
        packed[1] = pack(tar[: len(tar) // 2]) + pack(tar[len(tar) // 2 :])
    found = verdict(*packed, suffix=f".tar.{kind}")
    assert (found.level, only(found).field, only(found).cause) == (Level.CONTAINER, "compression", "compression")
    inside = verdict({"demo/data": packed[0]}, {"demo/data": packed[1]})
    assert (only(inside).path, inside.causes, inside.level) == (("demo/data",), ("compression",), Level.PAYLOAD)


def test_another_tar_with_the_same_members_is_no_compression(verdict):
    tar = tar_of(FILES)
    longer = tar + bytes(10240)
    found = verdict(gzip.compress(tar, mtime=0), gzip.compress(longer, mtime=0), suffix=".tar.gz")
    assert (found.level, only(found).cause) == (Level.CONTAINER, None)


def test_nested_archives_are_descended(verdict):
    def outer(text):
        inner = tar_of({"notes.txt": text})
        return {"demo/data.zip": zip_of({"inner.tar.gz": gzip.compress(inner, mtime=0)})}

    found = verdict(
        outer(b"built in /tmp/one/src\n"), outer(b"built in /var/two/src\n"), Hint("path", "/tmp/one", "/var/two")
    )
    difference = next(d for d in found.differences if d.path[-1] == "notes.txt")
    assert difference.path == ("demo/data.zip", "inner.tar.gz", "notes.txt")
    assert (difference.cause, difference.level, found.level) == ("build-path", Level.PAYLOAD, Level.PAYLOAD)


def test_a_nested_archive_that_is_broken_is_compared_as_bytes(verdict):
    found = verdict({"a.zip": b"PK\x03\x04\0one"}, {"a.zip": b"PK\x03\x04\0two"})
    assert only(found).field == "bytes at 0x5"


def test_a_hundred_times_are_counted_not_listed(verdict):
    files = {f"f{i}": b"" for i in range(100)}
    found = verdict(files, zip_of(files, time=(2025, 1, 1, 0, 0, 0)))
    assert len(found.differences) + dict(found.omitted)["time"] == 100
    assert len(found.differences) < 20


def test_many_lines_are_capped_with_their_number(verdict):
    left = "".join(f"left {i}\n" for i in range(50)).encode()
    found = verdict({"a": left}, {"a": left.replace(b"left", b"right")})
    assert len(found.differences) == 21
    assert found.differences[-1].left == "30 more lines differ"


def test_an_inserted_line_is_one_difference(verdict):
    found = only(verdict({"a": b"1\n2\n3\n"}, {"a": b"1\nnew\n2\n3\n"}))
    assert (found.field, found.left, found.right) == ("line 2", "absent", "new")


def test_line_endings_are_named(verdict):
    assert verdict({"a": b"1\n2\n"}, {"a": b"1\r\n2\r\n"}).causes == ("line-endings",)


def test_lines_in_another_order(verdict):
    assert verdict({"a.txt": b"b.py\na.py\n"}, {"a.txt": b"a.py\nb.py\n"}).causes == ("file-order",)
    a, b = b"Provides-Extra: a\n", b"Provides-Extra: b\n"
    left, right = FILES | {f"{INFO}/METADATA": a + b}, FILES | {f"{INFO}/METADATA": b + a}
    assert verdict(left, right).causes == ("set-order",)


def test_a_pyc_holds_the_time_of_its_source(verdict):
    left = struct.pack("<4sLLL", b"\xa7\r\r\n", 0, 1_700_000_000, 9) + b"\xe3\0"
    right = struct.pack("<4sLLL", b"\xa7\r\r\n", 0, 1_700_000_009, 9) + b"\xe3\0"
    assert verdict({"a.pyc": left}, {"a.pyc": right}).causes == ("clock",)


def elf_of(sections, *, wide=True, order="<", compressed=()):
    """A minimal ELF file with the given sections, some of them compressed."""
    packed = {
        name: struct.pack("<LLQQ", 1, 0, len(sections[name]), 1) + zlib.compress(sections[name]) for name in compressed
    }
    sections = sections | packed
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    bodies = [*sections.values(), names]
    head = 64 if wide else 52
    table = head + sum(map(len, bodies))
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    step = 64 if wide else 40
    address = "Q" if wide else "L"
    data = ident + struct.pack(
        f"{order}HHL3{address}L6H", 3, 62, 1, 0, 0, table, 0, head, 0, 0, step, len(bodies) + 1, len(bodies)
    )
    rows, offset, layout = [bytes(step)], head, f"{order}2L4{address}2L2{address}"
    for name, body in zip([*sections, ".shstrtab"], bodies, strict=True):
        rows.append(
            struct.pack(
                layout,
                names.index(b"\0" + name.encode() + b"\0") + 1,
                1,
                0x800 if name in compressed else 0,
                0,
                offset,
                len(body),
                *(0, 0, 1, 0),
            )
        )
        offset += len(body)
    return data + b"".join(bodies) + b"".join(rows)


@pytest.mark.parametrize(("wide", "order"), [(True, "<"), (True, ">"), (False, "<"), (False, ">")])
def test_elf_sections_are_named_and_quoted(verdict, wide, order):
    def so(path, build_id, text=b"\x90\x90"):
        sections = {".text": text, ".debug_str": b"gcc\0" + path + b"/x.c\0", ".note.gnu.build-id": build_id}
        return {"demo/_speed.so": elf_of(sections, wide=wide, order=order)}

    hint = Hint("path", "/tmp/one", "/var/two")
    found = verdict(so(b"/tmp/one", b"\1" * 20), so(b"/var/two", b"\2" * 20), hint)
    assert [(d.path, d.cause, d.follows) for d in found.differences] == [
        (("demo/_speed.so", ".debug_str"), "build-path", False),
        (("demo/_speed.so", ".note.gnu.build-id"), "build-id", True),
    ]
    assert found.differences[0].left == "/tmp/one/x.c"
    code = only(verdict(so(b"/a", b"1"), so(b"/a", b"1", b"\x90\x91")))
    assert (code.path[-1], code.left, code.cause) == (".text", "0x1: 90", None)


def test_only_debug_sections_is_debug_info(verdict):
    def so(debug, text=b"\x90"):
        return {"a.so": elf_of({".text": text, ".debug_info": debug})}

    assert verdict(so(b"\1\2"), so(b"\1\3")).causes == ("debug-info",)
    assert verdict(so(b"\1\2"), so(b"\1\3", b"\x91")).causes == ()


def test_a_hostile_elf_is_compared_as_bytes(verdict):
    sound = elf_of({".text": b"\x90"})
    for end in range(len(sound)):
        assert verdict({"a.so": sound}, {"a.so": sound[:end]}).level is Level.PAYLOAD
    for at in range(len(sound)):
        broken = bytearray(sound)
        broken[at] ^= 0xFF
        assert verdict({"a.so": sound}, {"a.so": bytes(broken)}).level is Level.PAYLOAD


EVERYWHERE = [
    Hint("path", "/tmp/reprobuild", "/tmp/elsewhere"),
    Hint("home", "/home/one", "/root/two"),
    Hint("hostname", "alpha", "bravo"),
    Hint("user", "alice", "mallory"),
    Hint("timezone", "UTC", "Asia/Tokyo"),
    Hint("locale", "C", "de_DE.UTF-8"),
    Hint("hash-seed", "0", "42"),
    Hint("jobs", "2", "4"),
]


@pytest.mark.parametrize(
    ("left", "right", "cause"),
    [
        ("-I/tmp/reprobuild/src", "-I/tmp/elsewhere/src", "build-path"),
        ("/tmp/reprobuild2/x", "/tmp/elsewhere2/y", None),
        ("cache = /home/one/.cache", "cache = /root/two/.cache", "home"),
        ("on alpha at noon", "on bravo at noon", "hostname"),
        ("on alphabet", "on bravoes", None),
        ("by alice", "by mallory", "user"),
        ("malice", "mallory", None),
        ("LANG=C", "LANG=de_DE.UTF-8", "locale"),
        ("grade C", "grade de_DE.UTF-8", None),
        ("seed 0", "seed 42", "hash-seed"),
        ("x = 0", "x = 42", None),
        ("-j 2", "-j 4", "jobs"),
        ("2", "4", "jobs"),
        ("version 2", "version 4", None),
        ("2024-01-01T00:00:00Z", "2024-01-01T09:00:00Z", "timezone"),
        ("2024-01-01T00:00:00Z", "2024-01-01T09:00:07Z", "clock"),
    ],
)
def test_hints_are_recognised_on_word_boundaries(left, right, cause):
    assert cause_of(left, right, EVERYWHERE) == cause


@pytest.mark.parametrize(
    ("left", "right", "cause"),
    [
        ("built 2024-01-02 03:04:05", "built 2024-01-02 03:04:09", "clock"),
        ("Jan  1 2024 10:00:00", "Feb 12 2024 10:00:01", "clock"),
        ("Mon, 01 Jan 2024 10:00:00 +0000", "Tue, 02 Jan 2024 10:00:00 +0000", "clock"),
        ("t=1700000000", "t=1700000009", "clock"),
        ('{"time": 1700000000.25}', '{"time": 1700000001.5}', "clock"),
        ("version 1.2.3", "version 1.2.4", None),
        ("Copyright 2024", "Copyright 2025", None),
        ("built 2024-01-02 from abc", "built 2024-01-03 from xyz", None),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 9d5dcf4e-0d4a-4b51-a1c5-5d7d1bb4a3c5", "random-id"),
        ("/tmp/tmpab12cd34/x.c", "/tmp/tmpzz98yx76/x.c", "random-id"),
        ("/build/a/src/x.c:10", "/home/me/src/x.c:10", "build-path"),
        ("/build/a/src/x.c", "/build/a/src/y.c", None),
        ("https://a.example/x/y", "https://b.example/x/y", None),
        ("{'b', 'a'}", "{'a', 'b'}", "set-order"),
        ("Requires-Dist: x (<2,>=1)", "Requires-Dist: x (>=1,<2)", "set-order"),
        ("Keywords: b a", "Keywords: a b", "set-order"),
        ('{"a": 1, "b": 2}', '{"a": 2, "b": 1}', None),
        ("x = a - b", "x = b - a", None),
        ("same", "same", None),
    ],
)
def test_causes_need_evidence(left, right, cause):
    assert cause_of(left, right) == cause
    assert cause_of(right, left) == cause


# --- what a comparison may cost ------------------------------------------------------------------------


def test_differing_members_are_looked_into_up_to_a_limit_nested_ones_too(verdict, monkeypatch):
    monkeypatch.setattr("reprobuild.contents._EXPLAINED", 3)
    monkeypatch.setattr("reprobuild.contents.Effort", lambda: Effort(3))
    left, right = ({name: f"x = {n}\n".encode() for name in ("a.py", "b.py", "c.py")} for n in (1, 2))
    assert [d.field for d in verdict(left, right).differences] == ["line 1"] * 3
    nested = verdict({"in.zip": zip_of(left), "z.py": b"1"}, {"in.zip": zip_of(right), "z.py": b"2"})
    assert [(d.path, d.field) for d in nested.differences] == [
        (("in.zip", "a.py"), "line 1"),
        (("in.zip", "b.py"), "line 1"),
        (("in.zip", "c.py"), "content"),
        (("z.py",), "content"),
    ]
    assert nested.differences[-1].left == "1 bytes"


def test_nested_archives_are_opened_while_they_claim_little(verdict):
    """A file that can't be opened costs a part of the budget, so that many of them end."""
    limits = []

    def recording(stream, **options):
        limits.append(options["size_limit"])
        return open_archive(stream, **options)

    effort = Effort(nested=4 * 1000)
    one, two = (io.BytesIO(zip_of({"a": bytes([n]) * 600})) for n in (1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reprobuild.contents.open_archive", recording)
        found = list(stream_differences(one, two, "x", (), 1, effort))
        assert [d.path for d in found] == [("a",)]
        assert effort.nested == 4000 - 600
        found = list(stream_differences(io.BytesIO(b"PK\3\4 no zip"), io.BytesIO(b"PK\3\4 no zop"), "x", (), 1, effort))
        assert [(d.path, d.field) for d in found] == [((), "line 1")]
        assert effort.nested == 3400 * 3 // 4
        effort.nested = 599
        assert [d.path for d in stream_differences(one, two, "x", (), 1, effort)] == [()]
    assert limits == [4000, 4000, 3400, 599]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("sizes", [(100_000, 100_000), (70_000, 100_000), (100_000, 70_000)])
def test_a_large_member_is_compared_as_a_small_one_is(verdict, monkeypatch, stored, sizes):
    """Held in memory, left in the archive, held in a file with holes, or read once from both sides."""
    contents = [bytes(size - 9) + b"%d at end" % n for n, size in enumerate(sizes)]
    pair = [zip_of({"a": b"first", "b": data, "c": b"last"}, level=0 if stored else 6) for data in contents]
    if stored:
        pair = [stored_zip({"a": b"first", "b": data, "c": b"last"}) for data in contents]
    expected = only(verdict(*pair))
    assert expected.path == ("b",)
    monkeypatch.setattr("reprobuild.contents._TEXT_LIMIT", 10)
    monkeypatch.setattr("reprobuild.binary._CHUNK", 4096)
    monkeypatch.setattr("reprobuild.contents._ZEROS", bytes(4096))
    monkeypatch.setattr("reprobuild.contents._LARGE", 10)
    monkeypatch.setattr("reprobuild.contents._MEMORY", 10)
    held = only(verdict(*pair))
    assert (held.path, held.field) == (("b",), f"bytes at {min(sizes) - 9:#x}")
    assert held == expected
    monkeypatch.setattr("reprobuild.contents._HELD_LIMIT", 10)
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    streamed = only(verdict(*pair))
    assert (streamed.path, streamed.field) == (held.path, held.field)
    if not stored:
        assert streamed.left.startswith(contents[0][min(sizes) - 9 :][:9].hex(" "))
        assert streamed.right.startswith(contents[1][min(sizes) - 9 :][:9].hex(" "))


def test_zeros_at_the_end_of_a_large_member_are_content(verdict, monkeypatch):
    monkeypatch.setattr("reprobuild.contents._MEMORY", 10)
    found = only(verdict({"b": bytes(2 << 20)}, {"b": bytes(3 << 20)}))
    assert (found.field, found.left, found.right) == (f"bytes at {2 << 20:#x}", "end of file", bytes(16).hex(" "))


def test_of_several_differences_in_a_member_too_large_to_be_held_the_first_is_named(verdict, monkeypatch):
    monkeypatch.setattr("reprobuild.contents._HELD_LIMIT", 10)
    left, right = (bytearray(3 << 20) for _ in range(2))
    right[1 << 20], right[5 << 19] = 1, 2
    found = only(verdict({"b": bytes(left)}, {"b": bytes(right)}))
    assert (found.field, found.right[:5]) == (f"bytes at {1 << 20:#x}", "01 00")


def stored_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


@pytest.mark.parametrize("limit", ["_MEMORY", "_HELD_LIMIT"])
@pytest.mark.parametrize("level", [None, 6])
def test_a_crc_that_lies_is_found_in_a_large_member_too(verdict, monkeypatch, limit, level):
    monkeypatch.setattr("reprobuild.contents._MEMORY", 10)
    monkeypatch.setattr(f"reprobuild.contents.{limit}", 10)
    files = {"a": bytes(50_000) + b"end"}
    good = stored_zip(files) if level is None else zip_of(files)
    lying = bytearray(good)
    for signature, offset in ((b"PK\1\2", 16), (b"PK\3\4", 14)):
        lying[lying.index(signature) + offset] ^= 1
    for pair in ((good, bytes(lying)), (bytes(lying), good)):
        with pytest.raises(BadInput, match="another CRC"):
            verdict(*pair)


def test_a_large_member_of_a_plain_tar_stays_where_it_is(verdict, monkeypatch):
    monkeypatch.setattr("reprobuild.contents._MEMORY", 10)
    files = {"a": b"a" * 600, "so": elf_of({".text": b"\x90" * 900}), "z": b"z" * 600}
    other = files | {"so": elf_of({".text": b"\x90" * 899 + b"\x91"}), "z": b"z" * 599 + b"y"}
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    found = verdict(tar_of(files), tar_of(other), suffix=".tar")
    assert [d.path for d in found.differences] == [("so", ".text"), ("z",)]


def test_recompressed_members_are_read_ahead_on_both_sides(verdict, monkeypatch):
    monkeypatch.setattr("reprobuild.contents._LARGE", 10)
    files = {f"{n}": bytes(range(256)) * 9000 for n in range(3)}
    found = verdict(zip_of(files, level=9), zip_of(files, level=1))
    assert (found.level, found.causes, len(found.differences)) == (Level.CONTAINER, ("compression",), 3)


def test_strings_are_looked_for_in_some_sections_alone(verdict, monkeypatch):
    monkeypatch.setattr("reprobuild.binary._EXPLAINED_SECTIONS", 2)
    left, right = ({f".rodata{n}": f"at /{side}/here/x.c".encode() for n in range(3)} for side in ("one", "two"))
    found = verdict({"a.so": elf_of(left)}, {"a.so": elf_of(right)})
    assert [d.cause for d in found.differences if d.path[-1].startswith(".rodata")] == ["build-path"] * 2 + [None]
    assert found.differences[2].left.startswith("0x4: ")


def test_a_string_late_in_a_compressed_section_is_found(verdict, monkeypatch):
    monkeypatch.setattr("reprobuild.binary._WINDOW", 8192)
    rows = [f"name{n:06}".encode() for n in range(3000)]

    def so(path):
        return {"a.so": elf_of({".debug_str": b"\0".join([*rows, path, *rows[:9]])}, compressed=(".debug_str",))}

    found = verdict(so(b"/one/here/x.c"), so(b"/two/here/x.c"))
    assert (found.causes, found.differences[0].left) == (("build-path",), "/one/here/x.c")


def test_a_record_of_more_lines_than_files_is_compared_as_any_text(verdict):
    lines = [f"demo/{n},,\n" for n in range(30)]
    found = verdict(*(FILES | {f"{INFO}/RECORD": "".join(each).encode()} for each in (lines, reversed(lines))))
    assert {d.field for d in found.differences} == {f"line {n}" for n in range(1, 21)} | {"more lines"}


def test_a_zip64_field_that_repeats_an_offset_is_no_difference(verdict):
    def wide(files, extra=b""):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in files.items():
                assert archive.fp
                info = zipfile.ZipInfo(name)
                info.extra = struct.pack("<HHQQ", 1, 16, len(data), archive.fp.tell()) + extra
                archive.writestr(info, data)
        return buffer.getvalue()

    assert [d.path for d in verdict(wide({"a": b"1", "b": b"2"}), wide({"a": b"111", "b": b"2"})).differences] == [
        ("a",)
    ]
    foreign = struct.pack("<HHQ", 1, 8, 77)  # in place of what repeats the member's own
    for extra in (b"\1\2", b"\x55\x54\1\0x", struct.pack("<HHQ", 0x9999, 8, 0)):
        found = verdict(wide({"a": b"1"}), wide({"a": b"1"}, extra))
        assert {d.field for d in found.differences} == {"extra field"}
    for field in (foreign, struct.pack("<HHQ", 0x9999, 8, 1)):
        found = verdict(*(with_extra(each) for each in (field, field[:4] + struct.pack("<Q", 0))))
        assert {d.field for d in found.differences} == {"extra field"}


def with_extra(extra):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a")
        info.extra = extra
        archive.writestr(info, b"1")
    return buffer.getvalue()


# --- what is said meanwhile ----------------------------------------------------------------------------


class Listening(Silent):
    def __init__(self):
        self.steps = []

    def step(self, message):
        self.steps.append(message)


def test_long_comparisons_say_how_far_they_are(tmp_path, monkeypatch):
    paths = [tmp_path / "left.whl", tmp_path / "right.whl"]
    for path, data in zip(paths, (zip_of(FILES), zip_of(FILES | {"demo/data.bin": b""})), strict=True):
        path.write_bytes(data)
    short = Listening()
    compare(*paths, observer=short)
    assert short.steps == []
    monkeypatch.setattr("reprobuild.compare._SLOW", 10)
    monkeypatch.setattr("reprobuild.contents._SLOW", 10_000)
    big = Listening()
    compare(*paths, observer=big)
    hashed = size_text(sum(path.stat().st_size for path in paths))
    assert big.steps == [f"hashing {hashed}", "comparing member 2 of 5: demo/data.bin (10.0 KiB)"]
    monkeypatch.setattr("reprobuild.progress._PACE", 0)
    every = Listening()
    compare(*paths, observer=every)
    assert len(every.steps) == 6
    assert every.steps[1] == "comparing member 1 of 5: demo/__init__.py (6 bytes)"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 << 19, "1.5 MiB"), (5000 << 30, "5,000.0 GiB")],
)
def test_sizes_are_said_in_words(size, text):
    assert size_text(size) == text


def test_the_deepest_cause_comes_first(verdict):
    left = FILES | {"demo/__init__.py": b"id = '/build/a/src/x.c'\n"}
    right = FILES | {"demo/__init__.py": b"id = '/other/src/x.c'\n"}
    assert verdict(left, zip_of(right, time=(2025, 1, 1, 0, 0, 0))).causes == ("build-path", "clock")


def test_levels_have_exit_codes_and_an_order():
    assert [level.exit_code for level in Level] == [
        ExitCode.OK,
        ExitCode.DIFFERS_CONTAINER,
        ExitCode.DIFFERS_METADATA,
        ExitCode.DIFFERS_PAYLOAD,
        ExitCode.NOT_COMPARABLE,
    ]
    assert Level.METADATA.accepts(Level.CONTAINER)
    assert not Level.METADATA.accepts(Level.PAYLOAD)
    assert not Level.NOT_COMPARABLE.accepts(Level.NOT_COMPARABLE)


def test_json_holds_everything(verdict):
    found = verdict(FILES, FILES | {f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: flit 3\n"})
    value = json.loads(json.dumps(found.to_json()))
    assert value["level"] == "metadata"
    assert value["left"] == {"digest": str(found.left), "size": found.left_size}
    assert value["differences"][0]["path"] == [f"{INFO}/WHEEL"]
    assert value["causes"][0]["remedy"] == CAUSES["backend-version"].remedy


def test_every_cause_is_documented():
    for name, cause in CAUSES.items():
        assert cause.name == name
        assert cause.summary.endswith(".")
        assert cause.remedy.endswith(".")
