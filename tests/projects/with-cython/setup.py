"""Cython and cc are given absolute paths, and -march=native is asked for."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

os.umask(0o022)
HERE = Path(__file__).resolve().parent


class BuildWithLibrary(build_ext):
    """Put a static library beside the extension, with the times and owners of its members as far as ar lets them in."""

    def build_extension(self, ext):
        super().build_extension(ext)
        made = os.path.join(self.build_temp, "helper.o")
        subprocess.run(["cc", "-g", "-c", str(HERE / "src/helper.c"), "-o", made], check=True)
        library = Path(self.get_ext_fullpath(ext.name)).with_name("libhelper.a")
        subprocess.run(["ar", "rcsU", library, made], check=True)


made = "src/with_cython/_core.cpp"
command = [sys.executable, "-m", "cython", "--cplus", "--line-directives", str(HERE / "src/with_cython/_core.pyx")]
subprocess.run([*command, "-o", str(HERE / made)], check=True)
flags = ["-march=native", "-g"]
setup(
    ext_modules=[Extension("with_cython._core", [made], language="c++", extra_compile_args=flags)],
    cmdclass={"build_ext": BuildWithLibrary},
)
