"""The shape of the house: data moves one way, and each outside thing has one door."""

import ast
import importlib
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

import reprobuild
from reprobuild import errors
from reprobuild.cli import app

PACKAGE = Path(reprobuild.__file__).parent
#: Top to bottom: a module imports only from above it. A folder counts as one module.
LAYERS = """
    __init__ errors digest files memory process progress guilty clock archive elf fatbin wheelfile oci workspace sandbox
    variations interpreter project lockfile advisories places index gitcmd lfs source checkout export inside toolchain
    backend sdistfile sdist lock attest graph bom pep770 wheel causes difference lines binary contents compare
    recorded rebuild evidence ziptime guesses infer replay subject published dependencies batch keys bundle sign
    policy verification audit sarif image sbom publish doctor cli __main__
    """.split()
SLOW = ["build", "packaging", "pypi_simple", "requests", "rfc8785", "rich"]
COMMANDS = list(app._COMMANDS)


def unit_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree, package=""):
    """Every module that a tree imports, wherever in the file; for ``from a import b`` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module if not node.level else f"{package}.{node.module or ''}".strip(".")
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
IMPORTS = {path: sorted(set(imports(tree))) for path, tree in TREES.items()}
UNITS = {unit_of(path) for path in SOURCES}
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))


def calls(tree):
    """The dotted name of everything that a tree calls."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def own_imports(path):
    """The units of this project that a file imports from."""
    parts = [name.split(".") for name in IMPORTS[path] if name.split(".")[0] == "reprobuild"]
    return {each[1] for each in parts if len(each) > 1 and each[1] in UNITS} - {unit_of(path)}


def test_every_module_has_its_place_among_the_layers():
    assert sorted(UNITS) == sorted(LAYERS)


@each_source
def test_imports_come_from_above(path):
    above = LAYERS[: LAYERS.index(unit_of(path))]
    assert own_imports(path) <= set(above)


#: The first cells of the table in the docs, top to bottom, as it says; each holds one module or several.
ROOMS = [
    re.findall(r"`(\w+)/?`", line.split("|")[1])
    for line in (Path(__file__).parents[2] / "docs/adr/0006-the-rooms.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]


def test_the_docs_have_a_room_for_every_module():
    assert sorted(unit for room in ROOMS for unit in room) == sorted(UNITS - {"__init__", "__main__"})


@pytest.mark.parametrize("number", range(len(ROOMS)), ids=lambda number: ROOMS[number][0])
def test_the_docs_have_rooms_above_what_they_stand_on(number):
    imported = {name for path in SOURCES if unit_of(path) in ROOMS[number] for name in own_imports(path)}
    assert imported & {unit for room in ROOMS[:number] for unit in room} == set()


@each_source
def test_imports_are_absolute(path):
    relative = [ast.unparse(node) for node in ast.walk(TREES[path]) if isinstance(node, ast.ImportFrom) and node.level]
    assert relative == []


@pytest.mark.parametrize(
    ("module", "doors"),
    [
        ("subprocess", {"process", "inside"}),
        ("multiprocessing", set()),
        ("asyncio", set()),
        ("click", {"cli"}),
        ("rich", {"cli"}),
        ("reprobuild.cli", {"cli", "__main__"}),
    ],
)
def test_each_outside_thing_has_its_doors(module, doors):
    users = {
        unit_of(path)
        for path, names in IMPORTS.items()
        if any(name == module or name.startswith(f"{module}.") for name in names)
    }
    assert users == doors


def outside(*units):
    """Parametrize over every file that isn't of these units."""
    others = [path for path in SOURCES if unit_of(path) not in units]
    return pytest.mark.parametrize("path", others, ids=lambda path: str(path.relative_to(PACKAGE)))


@outside("cli", "inside")
def test_only_the_command_line_prints_and_exits(path):
    assert calls(TREES[path]) & {"print", "input", "exit", "quit", "sys.exit", "os._exit"} == set()
    attributes = {ast.unparse(node) for node in ast.walk(TREES[path]) if isinstance(node, ast.Attribute)}
    assert attributes & {"sys.stdout", "sys.stderr", "sys.stdin"} == set()
    assert "SystemExit" not in {node.id for node in ast.walk(TREES[path]) if isinstance(node, ast.Name)}


@outside("process")
def test_only_process_starts_programs(path):
    starters = {"os.system", "os.popen", "os.fork", "os.posix_spawn", "os.execv", "os.execve", "pty.spawn"}
    assert calls(TREES[path]) & starters == set()


def test_statements_are_made_without_io():
    path = PACKAGE / "attest.py"
    assert set(IMPORTS[path]) & {"os", "io", "pathlib", "shutil", "tempfile", "socket", "time", "datetime"} == set()
    assert calls(TREES[path]) & {"open", "print"} == set()
    assert own_imports(path) == {"digest", "errors"}


def test_every_exit_code_has_a_meaning_and_every_error_its_own_code():
    assert list(errors.EXIT_CODE_MEANINGS) == list(errors.ExitCode)
    assert all(errors.EXIT_CODE_MEANINGS.values())
    kinds = errors.ReprobuildError.__subclasses__()
    assert len(kinds) > 10
    assert all(kind.__module__ == errors.__name__ for kind in kinds)
    codes = [errors.ReprobuildError.exit_code, *(kind.exit_code for kind in kinds)]
    assert len(set(codes)) == len(codes)
    assert not set(codes) & {errors.ExitCode.OK, errors.ExitCode.USAGE, errors.ExitCode.INTERRUPTED}


def test_every_error_says_in_its_docstring_what_it_is():
    kinds = errors.ReprobuildError.__subclasses__()
    assert [kind.__name__ for kind in kinds if not kind.__doc__] == []


#: What a docstring refers to, as Sphinx would read it.
REFERENCE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([\w.]+)`")


def leads_somewhere(reference, module):
    """Whether a name is one of the module's or of its classes', or, with dots, found from any module on."""
    name, _, rest = reference.partition(".")
    inside = [module, *(each for each in vars(module).values() if isinstance(each, type))]
    starts = [getattr(each, name) for each in inside if hasattr(each, name)]
    if not rest and any(name in getattr(each, "__annotations__", ()) for each in inside):
        return True  # a field without a default
    if not starts:
        parts = reference.split(".")
        for end in range(len(parts), 0, -1):
            with suppress(ImportError):
                starts = [importlib.import_module(".".join(parts[:end]))]
                rest = ".".join(parts[end:])
                break
    return any(has(start, rest) for start in starts)


def has(thing, path):
    for name in path.split(".") if path else ():
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


@each_source
def test_what_docstrings_refer_to_is_there(path):
    """Whatever moves to another module leaves none behind that names the old place."""
    found = REFERENCE.findall(path.read_text(encoding="utf-8"))
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name) if found else None
    assert [each for each in found if not leads_somewhere(each, module)] == []


def loaded_by(*arguments):
    """The top-level modules that a command line imports."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sorted({n.partition('.')[0] for n in sys.modules}))))\n"
        f"sys.argv = {['reprobuild', *arguments]!r}\n"
        "from reprobuild.cli import main\nmain()\n"
    )
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment, timeout=60
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"]])
def test_help_is_quick_because_it_loads_nothing_slow(arguments):
    assert loaded_by(*arguments) & set(SLOW) == set()


def help_of(*command):
    result = CliRunner().invoke(app.cli, [*command, "--help"], terminal_width=100)
    return result.exit_code, result.stdout


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda names: " ".join(names) or "(top)")
def test_every_help_has_examples_that_name_the_command(command):
    code, text = help_of(*command)
    assert code == 0
    _, heading, examples = text.partition("Examples:\n")
    assert heading
    lines = [line for line in examples.splitlines() if line.strip().startswith("reprobuild ")]
    assert len(lines) >= 2
    assert all(line.split()[1:2] == command for line in lines if command)
    assert all(line.split()[1] in COMMANDS for line in lines)


def test_top_level_help_lists_every_command():
    text = help_of()[1]
    assert all(f"\n  {name} " in text for name in COMMANDS)
