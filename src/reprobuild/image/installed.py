"""What installing a wheel gives, as the nodes of a layer: a function of the wheel's bytes and the target.

The rules are those of https://packaging.python.org/specifications/binary-distribution-format/ (what goes where),
https://packaging.python.org/specifications/recording-installed-packages/ (INSTALLER, REQUESTED, RECORD) and
https://packaging.python.org/specifications/entry-points/ (the scripts that an installer writes). Where they leave
something open we do as pip and uv do, which the tests compare with; bytecode is neither made nor taken from a wheel,
because nobody can see what it came from.
"""

import base64
import csv
import hashlib
import io
import keyword
import posixpath
import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from reprobuild.archive import Entry
from reprobuild.errors import BadInput, shown
from reprobuild.files import TEXT_LIMIT
from reprobuild.image.target import Target
from reprobuild.oci.tree import WHEEL_TIME, Content, Node, Text, has_long_name, wheel_content
from reprobuild.wheelfile import WheelFile

INSTALLER = b"reprobuild\n"
_REPLACED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")  # of a RECORD that is written anew
_SHEBANG = b"#!python"
_ENTRY_POINT = re.compile(r"([\w.]+)\s*:\s*([\w.]+)\s*(\[.*\])?")
_ASK = "Ask whoever made it for a wheel that follows the specification."


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A file of an environment.

    Attributes:
        hash: as RECORD has it, such as ``sha256=…``; empty of RECORD itself.
    """

    content: Content
    executable: bool
    hash: str

    def node(self, path: str) -> Node:
        """The file at some place."""
        return Node(path, "file", 0o755 if self.executable else 0o644, WHEEL_TIME, content=self.content)


def install(wheel: WheelFile, target: Target, *, requested: bool = False) -> dict[str, InstalledFile]:
    """The files that a wheel becomes, by their path below the target's prefix, in the order of these.

    Args:
        requested: whether it was asked for by name, rather than needed by something else.

    Raises:
        BadInput: it has what can't be installed.
    """
    site_packages = _site_packages(target)
    record = f"{site_packages}/{wheel.dist_info}/RECORD"
    files = {record: InstalledFile(Text(b""), executable=False, hash="")}
    for path, file in _files(wheel, target, requested=requested):
        if path in files:
            raise _bad(wheel, f"it has two files for {path!r}")
        if has_long_name(path):
            raise _bad(wheel, f"the name {shown(path)!r} is too long for a file system")
        files[path] = file
    files[record] = InstalledFile(Text(_record(files, site_packages)), executable=False, hash="")
    return {path: files[path] for path in sorted(files)}


def nodes(files: Mapping[str, InstalledFile], prefix: str) -> tuple[Node, ...]:
    """Files below a prefix, and every folder from the prefix downwards, sorted by path."""
    root = prefix.strip("/")
    found = {root: folder(root)}
    for path, file in files.items():
        full = f"{root}/{path}"
        above = full.rpartition("/")[0]
        while above not in found:
            found[above] = folder(above)
            above = above.rpartition("/")[0]
        found[full] = file.node(full)
    return tuple(found[path] for path in sorted(found))


def folder(path: str) -> Node:
    """A folder of an environment."""
    return Node(path, "directory", 0o755, WHEEL_TIME)


def _bad(wheel: WheelFile, what: str) -> BadInput:
    return BadInput(f"{wheel.path.name} can't be installed: {what}.", _ASK)


def _site_packages(target: Target) -> str:
    return f"lib/python{target.short}/site-packages"


def _files(wheel: WheelFile, target: Target, *, requested: bool) -> Iterator[tuple[str, InstalledFile]]:
    site_packages = _site_packages(target)
    for entry in wheel.entries:
        folder_name, _, name = entry.name.partition("/")
        if entry.kind == "directory" or "__pycache__" in entry.name.split("/")[:-1]:
            continue
        if entry.kind != "file":
            raise _bad(wheel, f"{entry.name!r} is a {entry.kind}, and a wheel holds files alone")
        if folder_name == wheel.dist_info and name in (*_REPLACED, *_SIGNATURES):
            continue
        if folder_name.endswith(".data") and name:
            yield _data_file(wheel, target, entry)
        else:
            yield f"{site_packages}/{entry.name}", _member(wheel, entry)
    for name, module, attribute in _entry_points(wheel):
        yield f"bin/{name}", _made(_script(target, module, attribute), executable=True)
    dist_info = f"{site_packages}/{wheel.dist_info}"
    yield f"{dist_info}/INSTALLER", _made(INSTALLER)
    if requested:
        yield f"{dist_info}/REQUESTED", _made(b"")


def _data_file(wheel: WheelFile, target: Target, entry: Entry) -> tuple[str, InstalledFile]:
    """A file from the ``.data`` folder: its first folder says by which scheme it is placed."""
    top, _, rest = entry.name.partition("/")
    name, _, version = top.removesuffix(".data").partition("-")
    own_name, _, own_version = wheel.dist_info.removesuffix(".dist-info").partition("-")
    if (canonicalize_name(name), version) != (canonicalize_name(own_name), own_version):
        raise _bad(wheel, f"{top!r} is not the data folder of {wheel.dist_info}")
    scheme, _, path = rest.partition("/")
    places = {
        "purelib": _site_packages(target),
        "platlib": _site_packages(target),
        "headers": f"include/site/python{target.short}/{wheel.name}",
        "scripts": "bin",
        "data": "",
    }
    if scheme not in places or not path:
        raise _bad(wheel, f"{entry.name!r} belongs to none of {', '.join(places)}")
    if scheme == "scripts":
        return f"bin/{path}", _data_script(wheel, target, entry)
    placed = posixpath.join(places[scheme], path)
    if placed.startswith("lib64/"):  # a link to lib in every environment, through which installers write
        placed = placed.replace("lib64/", "lib/", 1)
    return placed, _member(wheel, entry)


def _member(wheel: WheelFile, entry: Entry, *, executable: bool = False) -> InstalledFile:
    content = _content(wheel, entry)
    return InstalledFile(content, executable or bool(entry.mode & 0o111), wheel.record[entry.name])


def _content(wheel: WheelFile, entry: Entry) -> Content:
    """What a file of a wheel holds, checked against RECORD wherever it is read."""
    return wheel_content(wheel.path, entry, wheel.record[entry.name])


def _data_script(wheel: WheelFile, target: Target, entry: Entry) -> InstalledFile:
    """A script, whose first line is made to name the environment's Python if it names none."""
    content = _content(wheel, entry)
    if not next(content.chunks(), b"").startswith(_SHEBANG):
        return _member(wheel, entry, executable=True)
    if entry.size > TEXT_LIMIT:
        raise _bad(wheel, f"the script {entry.name!r} has {entry.size} bytes")
    _, newline, rest = b"".join(content.chunks()).partition(b"\n")
    return _made(_python_line(target) + (newline and rest), executable=True)


def _python_line(target: Target) -> bytes:
    return f"#!{target.prefix}/bin/python\n".encode()


def _script(target: Target, module: str, attribute: str) -> bytes:
    imported = attribute.partition(".")[0]
    lines = (
        f"import sys\n\nfrom {module} import {imported}\n\nif __name__ == '__main__':\n    sys.exit({attribute}())\n"
    )
    return _python_line(target) + lines.encode()


def _made(data: bytes, *, executable: bool = False) -> InstalledFile:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return InstalledFile(Text(data), executable, f"sha256={digest}")


def _entry_points(wheel: WheelFile) -> Iterator[tuple[str, str, str]]:
    """Name, module and attribute of each script that the wheel wants written."""
    text = _entry_points_text(wheel)
    # As importlib.metadata reads it, where no section is the default of others; but what is there twice is refused.
    parser = ConfigParser(delimiters=("=",), interpolation=None, default_section="")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except ConfigError as error:
        raise _bad(wheel, f"its entry_points.txt is malformed ({shown(error)})") from error
    for section in ("console_scripts", "gui_scripts"):
        for name, value in parser.items(section) if parser.has_section(section) else ():
            found = _ENTRY_POINT.fullmatch(value.strip())
            if found is None or not all(map(_is_name, f"{found[1]}.{found[2]}".split("."))):
                raise _bad(wheel, f"the script {shown(name)!r} is {shown(value)!r}, which names no function")
            if name in ("", ".", "..") or {"/", "\\", "\0"} & set(name) or not name.isprintable():
                raise _bad(wheel, f"a script can't have the name {shown(name)!r}")
            yield name, found[1], found[2]


def _is_name(part: str) -> bool:
    return part.isidentifier() and not keyword.iskeyword(part)


def _entry_points_text(wheel: WheelFile) -> str:
    for entry in wheel.entries:
        if entry.name == f"{wheel.dist_info}/entry_points.txt" and entry.kind == "file":
            if entry.size > TEXT_LIMIT:
                raise _bad(wheel, f"{entry.name} has {entry.size} bytes")
            try:
                return b"".join(_content(wheel, entry).chunks()).decode()
            except UnicodeDecodeError as error:
                raise _bad(wheel, f"{entry.name} is not UTF-8 text") from error
    return ""


def _record(files: Mapping[str, InstalledFile], site_packages: str) -> bytes:
    """RECORD: a row for each file, sorted, the path relative to site-packages; its own has neither hash nor size."""
    within = f"{site_packages}/"
    above = "../" * (site_packages.count("/") + 1)

    def relative(path: str) -> str:
        """As ``posixpath.relpath``, which takes longer for all of a wheel's files than reading its directory."""
        if path.startswith(within):
            return path.removeprefix(within)
        return posixpath.relpath(path, site_packages) if path.startswith("lib/") else above + path

    rows = ((relative(path), file.hash, str(file.content.size) if file.hash else "") for path, file in files.items())
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    return text.getvalue().encode()
