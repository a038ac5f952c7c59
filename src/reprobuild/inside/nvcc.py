"""nvcc, with the flags that keep folders and chance out of what it writes.

It runs in the build, under the build's own Python and by itself: it imports nothing of reprobuild's, and keeps to what
Python 3.9 knows. docs/adr/0008-compiler-wrappers.md says what each flag is for, and what was measured.

Usage: nvcc.py REAL ROOT TOOLS [ARGUMENT…], with the real nvcc, the workspace, and the folder of the wrappers.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

#: Options whose value may be the next argument; without their dashes.
_VALUED = frozenset(
    """o output-file include pre-include l library D define-macro U undefine-macro I include-path isystem system-include
    L library-path odir output-directory ccbin compiler-bindir arbin archiver-binary ldir libdevice-directory
    target-dir target-directory cudart cudadevrt opt-info optimization-info O optimize dopt x std m machine
    ftemplate-backtrace-limit ftemplate-depth Xcompiler compiler-options Xlinker linker-options Xarchive archive-options
    Xptxas ptxas-options Xnvlink nvlink-options Xcudafe cudafe-options Xcicc nvvm-options Xfatbin fatbin-options
    static-global-template-stub device-entity-has-hidden-visibility t threads split-compile split-compile-extended
    fdevice-time-trace keep-dir time run-args idp input-drive-prefix ddp dependency-drive-prefix dp drive-prefix
    MF dependency-output MT dependency-target-name arch gpu-architecture code gpu-code gencode generate-code
    rdc relocatable-device-code e entries maxrregcount ftz prec-div prec-sqrt fmad default-stream Werror
    diag-error diag-suppress diag-warn hls host-linker-script brief-diag brief-diagnostics jtd jump-table-density
    compress-mode Ofast-compile frandom-seed sanitize optf options-file device-stack-protector""".split()
)
#: What compiles nothing, or is asked by someone who reads what nvcc prints and keeps.
_ASIDE = frozenset(
    """V version h help dryrun list-gpu-arch list-gpu-code arch-ls code-ls E preprocess M generate-dependencies
    MM generate-nonsystem-dependencies clean clean-targets run cuda""".split()
)
_KEEPS = frozenset("keep save-temps v verbose".split())
_COMPILES = frozenset("c compile dc device-c dw device-w ptx cubin fatbin optix-ir ltoir".split())
_TO_OBJECTS = frozenset("c compile dc device-c dw device-w".split())
_SHOWS_LINES = frozenset("lineinfo generate-line-info G device-debug".split())
_DEVICE_LINK = frozenset("dlink device-link".split())
_SOURCE = re.compile(r".*\.(cu|c|cc|cpp|cxx|C)")
_LINKED = re.compile(r".*\.(o|obj|a|so|lib|res)(\.[0-9.]+)?")
_PLAIN = re.compile(r"[\w./+=@%-]+")
#: The workspace under a name that is the same in every folder; the number is one that nobody else uses.
_FOLDER = 63


@dataclass(frozen=True)
class Call:
    """One call of nvcc.

    Attributes:
        arguments: all of them, those in options files and variables among them.
        inputs: the places in ``arguments`` of files to compile or to link.
        options: the value of each option by its name without dashes; empty for one without a value.
    """

    arguments: tuple[str, ...]
    inputs: tuple[int, ...]
    options: dict[str, str]

    @property
    def sources(self) -> tuple[int, ...]:
        """Those of the inputs that are compiled."""
        kinds = re.compile(".*") if self.options.get("x") else _SOURCE
        words = ((at, self.arguments[at]) for at in self.inputs)
        return tuple(at for at, word in words if kinds.fullmatch(word) and not _LINKED.fullmatch(word))

    @property
    def output(self) -> str:
        """What ``-o`` says; empty if it isn't there."""
        return self.options.get("o") or self.options.get("output-file") or ""

    def is_cuda(self, at: int) -> bool:
        """Whether an input is compiled for the device too."""
        return self.options.get("x", "cu" if self.arguments[at].endswith(".cu") else "") == "cu"

    def has(self, names: frozenset[str]) -> bool:
        """Whether any option of these is there."""
        return not names.isdisjoint(self.options)

    def without(self, names: frozenset[str], inputs: bool = False) -> list[str]:
        """The arguments but these options with their values, and, if asked, but the inputs."""
        kept = []
        skip = False
        for at, word in enumerate(self.arguments):
            if skip:
                skip = False
            elif at in self.inputs:
                kept += [] if inputs else [word]
            elif _name(word)[0] in names:
                skip = _takes_next(word)
            else:
                kept.append(word)
                if _takes_next(word):
                    kept += self.arguments[at + 1 : at + 2]
                    skip = True
        return kept


def _name(word: str) -> tuple[str, str]:
    """An option's name without dashes, and its value if that is in the same word; ("", "") for no option."""
    if not word.startswith("-") or word == "-":
        return "", ""
    bare, equals, value = word.lstrip("-").partition("=")
    if bare in _VALUED or equals:
        return bare, value
    if not word.startswith("--") and bare[:1] in ("o", "x", "I", "L", "l", "D", "U", "O", "t") and _is_joined(bare):
        return bare[0], word[2:]
    return bare, ""


def _is_joined(bare: str) -> bool:
    """Whether a word is a one-letter option with its value right behind, such as ``-ofile``, not another option."""
    known = "optix-ir use_fast_math list-gpu-arch list-gpu-code link lib lineinfo ltoir lto objtemp objdir-as-tempdir"
    return len(bare) > 1 and bare not in known.split()


def _takes_next(word: str) -> bool:
    return word.startswith("-") and word.lstrip("-") in _VALUED


def parse(arguments: list[str]) -> Call:
    """Take a command line apart, with the options files that it names.

    Raises:
        ValueError, OSError: an options file can't be read.
    """
    flat = list(_flattened(arguments))
    inputs, options = [], {}
    words = iter(enumerate(flat))
    for at, word in words:
        name, value = _name(word)
        if not name:
            inputs.append(at)
        elif _takes_next(word):
            options[name] = next(words, (0, ""))[1]
        else:
            options[name] = value
    return Call(tuple(flat), tuple(inputs), options)


def _flattened(arguments: list[str], depth: int = 0) -> list[str]:
    flat: list[str] = []
    words = iter(arguments)
    for word in words:
        name, value = _name(word)
        if name in ("optf", "options-file") and depth < 8:
            for path in (value or next(words, "")).split(","):
                text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
                flat += _flattened(shlex.split(text), depth + 1)
        else:
            flat.append(word)
    return flat


def mapped(path: str, root: str) -> str:
    """A path as it is written into what is compiled: the same in every workspace, and for nvcc's shell a plain word."""
    path = os.path.realpath(path)
    inner = os.path.relpath(path, root) if path.startswith(root + "/") else path.lstrip("/")
    parts = inner.split("/")
    if parts[0] == "tmp" and len(parts) > 2:  # a folder with a random name
        del parts[1]
    inner = "/".join(parts)
    if not _PLAIN.fullmatch(inner):
        inner = f"{zlib.crc32(os.fsencode(inner)):08x}{Path(path).suffix}"
    return f"/reprobuild/{inner}"


class Wrapper:
    """The real nvcc, and where it works."""

    def __init__(self, real: str, root: str, tools: str) -> None:
        self.real = real
        self.root = os.path.realpath(root)
        self.tools = tools

    def main(self, arguments: list[str]) -> int:
        """Run the call, or the calls that it comes down to; the exit status."""
        before, after = (shlex.split(os.environ.get(f"NVCC_{each}_FLAGS", "")) for each in ("PREPEND", "APPEND"))
        try:
            call = parse([*before, *arguments, *after])
        except (ValueError, OSError):  # nvcc has the better words for it
            return self.run(arguments)
        for name in ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"):
            os.environ.pop(name, None)
        call = _without_native(self.with_wrapped_host_compiler(call))
        if call.has(_ASIDE) or not call.inputs:
            return self.run(call.arguments)
        if call.has(_COMPILES):
            return self.compile_each(call)
        if call.has(_KEEPS):
            return self.run(call.arguments)
        return self.link(call)

    def run(self, arguments: list[str] | tuple[str, ...]) -> int:
        """Run the real nvcc to its end."""
        return subprocess.call([self.real, *arguments])  # noqa: S603 - the arguments are the build's own

    def with_wrapped_host_compiler(self, call: Call) -> Call:
        """A host compiler of the system's is called through its wrapper, also where it is named with its folder."""
        arguments = list(call.arguments)
        for at, word in enumerate(arguments):
            name, value = _name(word)
            if name in ("ccbin", "compiler-bindir"):
                if _takes_next(word):
                    arguments[at + 1 : at + 2] = [self.wrapped(each) for each in arguments[at + 1 : at + 2]]
                else:
                    arguments[at] = f"{word.partition('=')[0]}={self.wrapped(value)}"
        if os.environ.get("NVCC_CCBIN"):
            os.environ["NVCC_CCBIN"] = self.wrapped(os.environ["NVCC_CCBIN"])
        return Call(tuple(arguments), call.inputs, call.options)

    def wrapped(self, compiler: str) -> str:
        """The wrapper of a compiler or of a folder of compilers in the system's folders; itself for any other."""
        system = ("/usr/bin", "/bin", "/usr/local/bin")
        if compiler.rstrip("/") in system:
            return f"{self.tools}/bin"
        folder, name = os.path.split(compiler)
        own = f"{self.tools}/bin/{name}"
        return own if folder in system and os.access(own, os.X_OK) else compiler

    def compile_each(self, call: Call) -> int:
        """Compile each source by a call of its own: what names it can be told to nvcc only once for each call."""
        if len(call.sources) < 2 or call.output:
            at = call.sources[0] if call.sources else call.inputs[0]
            return self.compile(call, at, call.output)
        options = call.without(frozenset(), inputs=True)
        for at in call.sources:
            one = parse([*options, call.arguments[at]])
            if status := self.compile(one, one.inputs[0], ""):
                return status
        return 0

    def compile(self, call: Call, at: int, output: str) -> int:
        """Compile one source, the same way wherever it lies."""
        source = call.arguments[at]
        arguments = list(call.arguments)
        flags = []
        if not call.has(frozenset(("frandom-seed",))):
            # An output's folder may have a random name, in a folder of the project's own.
            name = f"{mapped(source, self.root)}:{os.path.basename(output)}"  # noqa: PTH119 - of "a/" there is none
            flags.append(f"--frandom-seed=0x{zlib.crc32(os.fsencode(name)):08x}")
        if call.has(_TO_OBJECTS) and not call.has(_KEEPS | {"objtemp", "objdir-as-tempdir"}):
            flags.append("-objtemp")
        if _PLAIN.fullmatch(self.root):
            flags.append(f"-Xcompiler=-ffile-prefix-map={self.root}=/reprobuild")
        depends = call.options.get("MF") or call.options.get("dependency-output") or ""
        lists = call.has(frozenset("MD MMD generate-dependencies-with-compile".split()))
        renamed = call.is_cuda(at) and call.has(_SHOWS_LINES) and (bool(depends) or not lists)
        real = os.path.realpath(source)
        if renamed and real.startswith(self.root + "/"):  # with line information nvcc writes the path that it was given
            os.dup2(os.open(self.root, os.O_RDONLY), _FOLDER)
            arguments[at] = f"/proc/self/fd/{_FOLDER}{real[len(self.root) :]}"
            flags.append(f"-Xcompiler=-ffile-prefix-map=/proc/self/fd/{_FOLDER}=/reprobuild")
        told = self.told(flags, arguments)
        if told is None:  # an nvcc that doesn't know these flags, or a command line that is wrong anyway
            return self.run(call.arguments)
        if call.is_cuda(at) and "--orig_src_path_name" in told:
            flags.append(f"-Xcudafe=--orig_src_path_name={mapped(source, self.root)}")
        status = subprocess.call([self.real, *flags, *arguments], pass_fds=self.folder())  # noqa: S603 - the same
        if not status and depends and arguments[at] != source:
            _replace(Path(depends), f"/proc/self/fd/{_FOLDER}/", f"{self.root}/")
        return status

    def folder(self) -> tuple[int, ...]:
        """The workspace's descriptor, if it was opened."""
        return (_FOLDER,) if Path(f"/proc/self/fd/{_FOLDER}").exists() else ()

    def told(self, flags: list[str], arguments: list[str]) -> str | None:
        """What nvcc would do, in its own words; None if it would refuse. It takes a few hundredths of a second."""
        command = [self.real, "--dryrun", *flags, *arguments]
        done = subprocess.run(command, capture_output=True, check=False, pass_fds=self.folder())  # noqa: S603 - the same
        return done.stderr.decode(errors="replace") if not done.returncode else None

    def link(self, call: Call) -> int:
        """Compile each source to an object, then link these: in one step nvcc gives objects random names."""
        parts = f"{call.output or 'a'}.nvcc"
        shutil.rmtree(parts, ignore_errors=True)
        Path(parts).mkdir(parents=True)
        try:
            arguments = list(call.arguments)
            dropped = frozenset("o output-file dlink device-link lib link shared".split())
            options = call.without(dropped, inputs=True)
            for number, at in enumerate(call.sources):
                made = f"{parts}/{number}-{Path(arguments[at]).stem}.o"
                phase = "-dc" if call.has(_DEVICE_LINK) else "-c"
                one = parse([*options, phase, "-o", made, call.arguments[at]])
                if status := self.compile(one, one.inputs[-1], made):
                    return status
                arguments[at] = made
            linked = Call(tuple(arguments), call.inputs, call.options)
            only_compiled = frozenset("x MD MMD MF MT MP dependency-output dependency-target-name".split())
            again = linked.without(only_compiled if call.sources else frozenset())
            return self.run(["--keep", "--keep-dir", parts, *again])
        finally:
            shutil.rmtree(parts, ignore_errors=True)


def _without_native(call: Call) -> Call:
    """The call for nvcc's own choice of an architecture, where it asks for that of the GPU in this machine."""
    names = frozenset(("arch", "gpu-architecture"))
    if "native" not in {call.options.get(name) for name in names}:
        return call
    what = "left out -arch=native, with which the wheel would be another one on another machine"
    sys.stderr.write(f"reprobuild: {what}\n")
    sys.stderr.flush()
    return parse(call.without(names))


def _replace(path: Path, old: str, new: str) -> None:
    path.write_bytes(path.read_bytes().replace(os.fsencode(old), os.fsencode(new)))


if __name__ == "__main__":
    sys.exit(Wrapper(*sys.argv[1:4]).main(sys.argv[4:]))
