"""What stands before compilers, archivers and nvcc in a build."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reprobuild import backend, interpreter, toolchain
from reprobuild.errors import ToolMissing
from reprobuild.inside import nvcc
from reprobuild.project import BuildSettings
from reprobuild.sandbox import KINDS, SYSTEM_PATH, Surroundings, open_box

#: Prints each argument in brackets, so that spaces and newlines in them can be told from those between them.
ECHO = "#!/bin/sh\nprintf '[%s]' \"$@\"\n"


@pytest.fixture(params=list(KINDS))
def kind(request, sandbox_kinds):
    """Each kind of sandbox that works on this machine."""
    if why := sandbox_kinds[request.param]:
        pytest.skip(f"{request.param} doesn't work here: {why}")
    return request.param


def settings(**wheel):
    """A project's configuration, as far as compilers are concerned."""
    config: Any = SimpleNamespace(wheel=BuildSettings(**wheel))
    return config


def python(prefix="/opt/python"):
    found: Any = SimpleNamespace(prefix=Path(prefix), executable=Path(sys.executable))
    return found


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def own(tmp_path):
    """A folder with fake programs, which a project has put before the system's."""
    folder = tmp_path / "own"
    for name in ("cc", "ar", "ranlib"):
        script(folder / name, ECHO)
    return folder


@pytest.fixture
def box(tmp_path, own):
    """A box without namespaces in which the fake programs are wrapped."""
    with open_box("plain", Surroundings(root=str(tmp_path / "a box"))) as opened:
        toolchain.wrap(opened, python(), settings(path=(str(own),)))
        yield opened


def run(box, *words, cwd=None, **environment):
    """Run a program that is looked for on the PATH that a build has."""
    folder = Path(cwd or box.inside("src"))
    folder.mkdir(parents=True, exist_ok=True)
    return box.run(["sh", "-c", '"$@"', "sh", *words], cwd=str(folder), env={"PATH": box.path(), **environment})


def called(box, *words, cwd=None):
    """The arguments that a wrapped program gets."""
    return run(box, *words, cwd=cwd).stdout.decode()[1:-1].split("][")


def seed(arguments):
    return next(each for each in arguments if each.startswith("-frandom-seed="))


# --- compilers, really called ------------------------------------------------------------------------


@pytest.fixture
def wrapped(kind, tmp_path):
    """A box of each kind in which the system's compilers are wrapped."""
    around = Surroundings(root=str(tmp_path / "fixed")) if kind == "plain" else Surroundings()
    with open_box(kind, around) as opened:
        toolchain.wrap(opened, python(), settings())
        yield opened


def test_a_compiler_is_what_it_is_elsewhere_but_for_the_prefix_maps(wrapped, compiler):
    if not compiler:
        pytest.skip("there is no C compiler here")
    wrapped.outside("src", "a.c").write_text("const char *where = __FILE__;\n#include <stdio.h>\n")
    command = 'command -v cc; cc -c "$1/a.c" -o a.o -g && strings -a a.o 2>/dev/null || cat a.o'
    said = wrapped.run(["sh", "-c", command, "sh", wrapped.inside("src")], cwd=wrapped.inside("tmp")).stdout
    assert said.startswith(f"{wrapped.tools[1]}/bin/cc".encode())
    assert b"/reprobuild/src/a.c" in said
    assert wrapped.inside("src", "a.c").encode() not in said
    asked = ["sh", "-c", "cc --version"]
    own = subprocess.run(asked, capture_output=True, check=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    assert wrapped.run(asked).stdout == own.stdout


def test_a_compiler_that_is_not_there_is_not_wrapped(wrapped, compiler):
    names = {path.name for path in (wrapped.tools[0] / "bin").iterdir()} - {"nvcc"}
    assert names == {name for name in names if shutil.which(name, path=SYSTEM_PATH)}
    assert ("cc" in names) is bool(compiler)
    assert not names & {"gcc-nm", "c++filt", "gcov"}


def test_objects_are_the_same_from_folders_with_other_random_names(wrapped, compiler):
    if not compiler:
        pytest.skip("there is no C compiler here")
    made = []
    for name in ("tmpabc", ".longer-pep517-x1y2"):
        folder = wrapped.outside("tmp", name, "deep")
        folder.mkdir(parents=True)
        (folder / "a.c").write_text('#include "b.h"\nstatic int hidden(void) { return b; }\nint (*a)(void) = hidden;\n')
        (folder.parent / "b.h").write_text("static const char *where = __FILE__;\nstatic int b = 3;\n")
        above = wrapped.inside("tmp", name)
        command = (
            'cc -g "-I$1" -c a.c -o a.o && ar rcU a.a a.o && '
            'cc -g -fPIC -flto "-I$1" -c a.c -o l.o && cc -g -shared -flto l.o -o l.so'
        )
        wrapped.run(["sh", "-c", command, "sh", above], cwd=f"{above}/deep")
        made.append([(folder / each).read_bytes() for each in ("a.o", "a.a", "l.so")])
        time.sleep(1.1)  # to have another time in the archive, if it had any
    assert b"/reprobuild/" in made[0][0]
    assert made[0] == made[1]


# --- compilers, as they are called -------------------------------------------------------------------


def test_arguments_arrive_as_they_were(box):
    odd = ["-DTEXT=a b", "two\nlines", "it's", '"', "$HOME `id`", "*", "", "@list.rsp", "-o", "x y.o", "-I", "\\n"]
    assert called(box, "cc", *odd)[-len(odd) :] == odd


def test_a_folder_of_the_project_is_looked_through_first(kind, tmp_path, own):
    around = Surroundings(root=str(tmp_path / "fixed")) if kind == "plain" else Surroundings()
    with open_box(kind, around, readable=[own]) as box:
        toolchain.wrap(box, python("/opt/my python"), settings(path=(str(own),)))
        said = box.run(["sh", "-c", "cc -c 'a b.c'"], env={"PATH": box.path([str(own)])}).stdout.decode()
    assert "[-ffile-prefix-map=/opt/my python=/reprobuild/python]" in said
    assert said.endswith("[-c][a b.c]")


def test_each_output_has_a_seed_of_its_own_that_no_folder_changes(box, tmp_path):
    first = seed(called(box, "cc", "-c", "a.c", "-o", "a.o"))
    assert first == "-frandom-seed=a.c:a.o"
    assert seed(called(box, "cc", "-c", "a.c", "-o", "b.o")) != first
    assert seed(called(box, "cc", "-c", "b.c", "-o", "a.o")) != first
    for folder in (box.inside("src"), box.inside("tmp", "one"), str(tmp_path / "elsewhere")):
        assert seed(called(box, "cc", "-c", f"{folder}/a.c", "-o", "a.o", cwd=folder)) == first
    assert seed(called(box, "cc", "-c", "a.c", "-o", f"tmpx1y2{box.root}/tmp/z3/a.o")) == first
    randomly = [seed(called(box, "cc", "-c", box.inside("tmp", name, "a.c"), "-o", "a.o")) for name in ("x1", "y22")]
    assert randomly == [first, first]


def test_what_the_project_asks_for_comes_last(box):
    arguments = called(box, "cc", "-frandom-seed=mine", "-ffile-prefix-map=/x=/y", "-c", "a.c")
    assert arguments[-4:] == ["-frandom-seed=mine", "-ffile-prefix-map=/x=/y", "-c", "a.c"]


def test_the_nearest_folder_is_mapped_last(box):
    maps = [each for each in called(box, "cc", "-c", "a.c", cwd=box.inside("tmp", "x1", "y")) if "-map=" in each]
    root = box.root
    assert maps.index(f"-ffile-prefix-map={root}=/reprobuild") < maps.index(
        f"-ffile-prefix-map={root}/tmp/x1/y=/reprobuild/work"
    )
    named = called(box, "cc", "-c", f"{root}/tmp/r2/a.c", f"-I{root}/tmp/r3", cwd=box.inside("src"))
    assert {f"-ffile-prefix-map={root}/tmp/{each}=/reprobuild/tmp" for each in ("r2", "r3")} <= set(named)
    assert f"-ffile-prefix-map={root}/src=/reprobuild/work" not in named


@pytest.mark.parametrize("flag", ["-march=native", "-mtune=native", "-mcpu=native", "-Wl,--build-id=uuid"])
def test_what_depends_on_the_machine_is_left_out_and_said(box, flag):
    done = run(box, "cc", "-O2", flag, "-c", "a b.c")
    assert flag not in done.stdout.decode()
    assert done.stdout.decode().endswith("[-O2][-c][a b.c]")
    assert done.log.startswith(f"{toolchain.SAYING}left out {flag}, ")


def test_a_build_warns_once_of_what_was_left_out():
    heard: dict[str, list[str]] = {"line": [], "warn": []}
    observer: Any = SimpleNamespace(line=heard["line"].append, warn=heard["warn"].append)
    heed = backend._heeding(observer)
    lines = ["a.c: warning", "reprobuild: left out -march=native", "reprobuild: left out -march=native"]
    lines += [f"reprobuild: {number}" for number in range(100)]
    for line in lines:
        heed(line)
    assert heard["line"] == lines
    assert heard["warn"][:2] == ["The build left out -march=native.", "The build 0."]
    assert len(heard["warn"]) == 10


def test_what_a_compiler_of_cuda_gets_to_read_is_mapped_too(box, own):
    markers = '# 1 "{}/a.cu"\n# 5 "{}/env/x.h" 2\n# 1 "k.h"\n# 1 "/usr/include/x.h"\n# 0 "<built-in>"\n#1 is "{}"\n'
    text = markers.replace("{}", "$ROOT").replace('"', '\\"')
    fake = 'while [ "$1" != -o ]; do shift; done\n'
    script(own / "cc", f'#!/bin/sh\n{fake}printf \'%s\' "{text}" > "$2"\n')
    folder = box.outside("tmp", "x1")
    folder.mkdir()
    run(box, "cc", "-E", "-D__CUDACC__", "a.cu", "-o", "a.ii", cwd=folder, ROOT=box.inside("tmp", "x1"))
    assert (folder / "a.ii").read_text().splitlines() == [
        '# 1 "/reprobuild/tmp/a.cu"',
        '# 5 "/reprobuild/tmp/env/x.h" 2',
        '# 1 "/reprobuild/tmp/k.h"',
        '# 1 "/usr/include/x.h"',
        '# 0 "<built-in>"',
        f'#1 is "{box.root}/tmp/x1"',
    ]


def test_the_exit_status_is_the_compilers(box, own):
    script(own / "cc", "#!/bin/sh\nexit 7\n")
    for more in ([], ["-D__CUDACC__", "-E", "-o", "x.ii"]):
        assert run(box, "sh", "-c", 'cc "$@"; echo "ended with $?"', "sh", *more).stdout == b"ended with 7\n"


# --- archives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["rcs", "lib.a", "a b.o"], ["rcsD", "lib.a", "a b.o"]),
        (["-rcsU", "lib.a", "U.o"], ["-rcsD", "lib.a", "U.o"]),
        (["qU", "lib.a"], ["qD", "lib.a"]),
        (["UrUc", "lib.a"], ["rcD", "lib.a"]),
        (["t", "lib.a"], ["t", "lib.a"]),
        (["x", "lib.a", "a.o"], ["x", "lib.a", "a.o"]),
        (["--version"], ["--version"]),
        (["@words"], ["@words"]),
    ],
)
def test_archives_are_made_without_times_and_owners(box, asked, expected):
    assert called(box, "ar", *asked) == expected


def test_an_index_of_an_archive_has_no_time(box):
    assert called(box, "ranlib", "-U", "a b.a") == ["-D", "a b.a"]


# --- nvcc --------------------------------------------------------------------------------------------


@pytest.fixture
def toolkit(tmp_path):
    """A CUDA toolkit whose nvcc notes its arguments, makes its output and knows every flag."""
    home = tmp_path / "toolkit"
    note = f"printf '[%s]' \"$@\" >> '{tmp_path}/calls'; echo >> '{tmp_path}/calls'\n"
    make = 'while [ $# -gt 0 ]; do if [ "$1" = -o ]; then : > "$2"; fi; shift; done\n'
    dry = 'if [ "$1" = --dryrun ]; then echo \'#$ cicc --orig_src_path_name "x"\' >&2; exit; fi\n'
    script(home / "bin" / "nvcc", f"#!/bin/sh\n{dry}{note}{make}")
    script(home / "bin" / "ptxas", "#!/bin/sh\n")
    (home / "bin" / "nvcc.profile").touch()
    (home / "include").mkdir()
    return home


@pytest.fixture
def cuda(tmp_path, toolkit, own):
    """Call the wrapped nvcc in a box; what calls of the real one it comes down to."""
    config = settings(environment={"CUDA_HOME": str(toolkit)}, path=(str(own),))
    with open_box("plain", Surroundings(root=str(tmp_path / "box"))) as opened:
        toolchain.wrap(opened, python(), config)

        def call(*words, cwd=None, **environment):
            (tmp_path / "calls").unlink(missing_ok=True)
            folder = cwd or opened.inside("src")
            variables = {"PATH": opened.path(), **toolchain.variables(opened, config), **environment}
            opened.run(["sh", "-c", '"$CUDACXX" "$@"', "sh", *words], cwd=folder, env=variables)
            return [line[1:-1].split("][") for line in (tmp_path / "calls").read_text().splitlines()]

        call.box = opened  # type: ignore[attr-defined]
        yield call


def test_the_toolkit_is_a_mirror_but_for_nvcc(cuda, toolkit):
    home = cuda.box.tools[0] / "cuda"
    assert (home / "include").resolve() == toolkit / "include"
    assert (home / "bin" / "ptxas").resolve() == toolkit / "bin" / "ptxas"
    assert not (home / "bin" / "nvcc").is_symlink()
    assert not (home / "bin").is_symlink()
    assert (home / "bin" / "nvcc").read_bytes() == (home.parent / "bin" / "nvcc").read_bytes()
    # A folder that the project names isn't what the build gets: it gets the wrapper of that folder's nvcc.
    config = settings(environment={"CUDA_HOME": str(toolkit), "CUDACXX": "/opt/other/nvcc"})
    variables = toolchain.variables(cuda.box, config)
    assert variables == dict.fromkeys(("CUDA_HOME", "CUDA_PATH", "CUDAToolkit_ROOT"), f"{cuda.box.tools[1]}/cuda")


def test_without_a_toolkit_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "TOOLKITS", (str(tmp_path / "none"), "relative"))
    config = settings(environment={"CUDA_HOME": str(tmp_path)}, path=(str(tmp_path / "bin"),))
    assert toolchain.toolkit(config) is None
    assert toolchain.toolkit_of(config) == {}
    assert toolchain.shown(config) == [tmp_path / "bin"]
    with open_box("plain", Surroundings(root=str(tmp_path / "box"))) as box:
        toolchain.wrap(box, python(), config)
        assert toolchain.variables(box, config) == {}
        assert not (box.tools[0] / "cuda").exists()
        assert not (box.tools[0] / "bin" / "nvcc").exists()


def test_the_machines_toolkit_is_shown_and_one_that_a_project_names_is_never_run(toolkit, monkeypatch, tmp_path):
    script(toolkit / "bin" / "nvcc", f"#!/bin/sh\ntouch {tmp_path}/ran; echo 'release 13.0, V13.0.88'\n")
    named = settings(environment={"CUDA_PATH": str(toolkit)})
    assert toolchain.shown(named) == []
    described = toolchain.toolkit_of(named)
    assert set(described) == {"nvcc", "ptxas"}
    assert set(described["nvcc"]) == {"sha256"}
    assert not (tmp_path / "ran").exists()
    monkeypatch.setattr(toolchain, "TOOLKITS", (str(toolkit),))
    assert toolchain.shown(settings()) == [toolkit]
    assert toolchain.toolkit_of(settings())["nvcc"]["version"] == "13.0.88"


def test_a_source_is_compiled_under_names_of_its_own(cuda):
    (call,) = cuda("-c", "a b.cu", "-o", "a.o", "-gencode", "arch=compute_80,code=sm_80")
    assert call[-6:] == ["-c", "a b.cu", "-o", "a.o", "-gencode", "arch=compute_80,code=sm_80"]
    flags = call[:-6]
    assert "-objtemp" in flags
    assert f"-Xcompiler=-ffile-prefix-map={cuda.box.root}=/reprobuild" in flags
    assert any(each.startswith("--frandom-seed=0x") for each in flags)
    (renamed,) = (each for each in flags if each.startswith("-Xcudafe"))
    assert renamed.startswith("-Xcudafe=--orig_src_path_name=/reprobuild/")  # a plain word, for nvcc's shell
    assert " " not in renamed
    (plain,) = cuda("-dc", "sub/a.cu", "-oa.o")
    assert "-Xcudafe=--orig_src_path_name=/reprobuild/src/sub/a.cu" in plain


def test_seeds_differ_by_source_and_by_output(cuda):
    calls = [
        cuda("-c", source, "-o", output)[0] for source, output in (("a.cu", "a.o"), ("b.cu", "a.o"), ("a.cu", "c.o"))
    ]
    seeds = [next(each for each in call if "seed" in each) for call in calls]
    assert len(set(seeds)) == 3
    cuda.box.outside("src", "tmpx1y2").mkdir()
    again = cuda("-c", cuda.box.inside("src", "a.cu"), "-o", "tmpx1y2/a.o")[0]
    assert seeds[0] in again


def test_one_step_becomes_a_call_for_each_source_and_one_to_link(cuda):
    calls = cuda("-x", "cu", "-shared", "-rdc=true", "-Ix", "a.cu", "lib.o", "b.cpp", "-lz", "-o", "out/x.so", "-MD")
    first, second, last = calls
    for call, source, made in ((first, "a.cu", "out/x.so.nvcc/0-a.o"), (second, "b.cpp", "out/x.so.nvcc/1-b.o")):
        assert call[-4:] == ["-c", "-o", made, source]
        assert {"-rdc=true", "-Ix", "-objtemp"} <= set(call)
        assert not {"-shared", "lib.o", "x.so"} & set(call)
    objects = ["out/x.so.nvcc/0-a.o", "lib.o", "out/x.so.nvcc/1-b.o"]
    assert last == [
        "--keep",
        "--keep-dir",
        "out/x.so.nvcc",
        "-shared",
        "-rdc=true",
        "-Ix",
        *objects,
        "-lz",
        "-o",
        "out/x.so",
    ]
    assert not cuda.box.outside("src", "out", "x.so.nvcc").exists()


def test_sources_of_a_device_link_are_compiled_for_one(cuda):
    first, last = cuda("-dlink", "a.cu", "-o", "d.o")
    assert "-dc" in first
    assert "-dlink" not in first
    assert last == ["--keep", "--keep-dir", "d.o.nvcc", "-dlink", "d.o.nvcc/0-a.o", "-o", "d.o"]


def test_several_sources_are_compiled_one_by_one(cuda):
    calls = cuda("-O2", "-c", "a.cu", "-arch", "sm_80", "b.cu")
    assert [call[-1] for call in calls] == ["a.cu", "b.cu"]
    assert [call[-5:-1] for call in calls] == [["-O2", "-c", "-arch", "sm_80"]] * 2


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["-V"],
        ["--dry-run-like"],
        ["--list-gpu-arch"],
        ["-E", "a.cu"],
        ["-M", "a.cu", "-o", "a.d"],
        ["-v", "--keep", "--keep-dir", "tmp", "a.cu"],
        ["--options-file", "none.rsp", "a.cu"],
    ],
)
def test_everything_else_passes_through(cuda, words):
    assert cuda(*words) == [words]


def test_an_nvcc_that_does_not_know_the_flags_gets_none(cuda, toolkit, tmp_path):
    script(
        toolkit / "bin" / "nvcc",
        f"#!/bin/sh\n[ \"$1\" != --dryrun ] || exit 1\nprintf '[%s]' \"$@\" > '{tmp_path}/calls'\n",
    )
    assert cuda("-c", "a.cu", "-o", "a.o") == [["-c", "a.cu", "-o", "a.o"]]


def test_an_option_that_is_given_anyway_is_not_given_twice(cuda):
    (call,) = cuda("-c", "a.cu", "--frandom-seed", "7", "-objtemp", "-o", "a.o")
    assert [each for each in call if "seed" in each] == ["--frandom-seed"]
    assert call.count("-objtemp") == 1


def test_options_in_variables_and_files_count_too(cuda):
    cuda.box.outside("src", "more.rsp").write_text("-o\n'a b.o' -DX=1\n")
    variables = {"NVCC_PREPEND_FLAGS": "-c", "NVCC_APPEND_FLAGS": "-DY"}
    (call,) = cuda("a.cu", "--options-file", "more.rsp", **variables)
    assert call[-6:] == ["-c", "a.cu", "-o", "a b.o", "-DX=1", "-DY"]
    assert "-objtemp" in call


def test_the_systems_host_compiler_is_the_wrapper(cuda, compiler):
    if not Path("/usr/bin/gcc").exists():
        pytest.skip("there is no /usr/bin/gcc here")
    wrappers = f"{cuda.box.tools[1]}/bin"
    for words, expected in (
        (["-ccbin", "/usr/bin/gcc"], ["-ccbin", f"{wrappers}/gcc"]),
        (["--compiler-bindir=/usr/bin"], [f"--compiler-bindir={wrappers}"]),
        (["-ccbin=/opt/other/g++"], ["-ccbin=/opt/other/g++"]),
    ):
        (call,) = cuda("-c", "a.cu", "-o", "a.o", *words)
        assert call[-len(words) :] == expected


def test_the_architecture_of_this_machines_gpu_is_left_out(cuda):
    (call,) = cuda("-c", "a.cu", "-arch", "native", "-o", "a.o")
    assert call[-4:] == ["-c", "a.cu", "-o", "a.o"]


def test_with_line_information_the_source_has_a_name_that_no_folder_changes(cuda, toolkit, tmp_path):
    depends = "printf 'a.o: /proc/self/fd/63/src/k.h' > a.d\n"
    real = toolkit / "bin" / "nvcc"
    script(real, real.read_text() + depends + f"cat /proc/self/fd/63/src/a.cu > '{tmp_path}/seen'\n")
    cuda.box.outside("src", "a.cu").write_text("the source")
    (call,) = cuda("-c", "a.cu", "-lineinfo", "-MD", "-MF", "a.d", "-o", "a.o")
    assert "/proc/self/fd/63/src/a.cu" in call
    assert (tmp_path / "seen").read_text() == "the source"
    assert cuda.box.outside("src", "a.d").read_text() == f"a.o: {cuda.box.root}/src/k.h"


@pytest.mark.parametrize(
    ("words", "inputs", "output"),
    [
        (["-o", "x", "a.cu"], ["a.cu"], "x"),
        (["-ox", "a.cu"], ["a.cu"], "x"),
        (["--output-file", "x", "a.cu"], ["a.cu"], "x"),
        (["--output-file=x", "a.cu"], ["a.cu"], "x"),
        (["-optix-ir", "a.cu"], ["a.cu"], ""),
        (["-Xcompiler", "a.cu", "-I", "b.cu", "-include", "c.cu", "d.cu"], ["d.cu"], ""),
        (["-Xptxas=-v", "-l", "m", "-lcudart", "-t", "4", "-t4", "a.o"], ["a.o"], ""),
        (["-Xlinker", "-o", "a.o"], ["a.o"], ""),
        (["-objtemp", "-rdc", "true", "a.cu"], ["a.cu"], ""),
    ],
)
def test_command_lines_are_taken_apart(words, inputs, output):
    call = nvcc.parse(words)
    assert [call.arguments[at] for at in call.inputs] == inputs
    assert call.output == output
    assert call.arguments == tuple(words)


@pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="there is no nvcc on this machine, whose options could be read"
)
def test_nvccs_options_with_a_value_are_known():
    lines = subprocess.run(["nvcc", "--help"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.split() for line in lines if line.startswith("--") and len(line.split()) > 1]
    valued = {words[0].lstrip("-") for words in found if words[1][:1] in "<{["}
    assert len(valued) > 40
    # These two may have a value only in the same word, or none.
    assert valued - nvcc._VALUED <= {"qpp-config", "jobserver"}


def test_the_wrapper_runs_under_an_older_python_too(tmp_path):
    try:
        older = interpreter.find("3.9").executable
    except ToolMissing:
        pytest.skip("there is no Python 3.9 here")
    command = [str(older), "-I", "-S", nvcc.__file__, "/bin/echo", str(tmp_path), str(tmp_path), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == subprocess.run(["/bin/echo", "--version"], capture_output=True, text=True, check=True).stdout
