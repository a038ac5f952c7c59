"""An extension in the steps that big projects take, and beside it a library in one step."""

import os
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

os.umask(0o022)
CUDA_HOME = os.environ.get("CUDA_HOME", "/usr/local/cuda")
NVCC = [f"{CUDA_HOME}/bin/nvcc", "-gencode", "arch=compute_80,code=sm_80"]
NVCC += ["-gencode", "arch=compute_90,code=[sm_90,compute_90]", "-rdc=true", "-Xcompiler", "-fPIC"]
SOURCES = ["src/first.cu", "src/second.cu"]


class BuildCuda(build_ext):
    """Compile and link what only nvcc can, then leave the rest to setuptools."""

    def build_extension(self, ext):
        temporary = Path(self.build_temp)
        temporary.mkdir(parents=True, exist_ok=True)
        objects = [str(temporary / Path(source).with_suffix(".o").name) for source in SOURCES]
        for source, made in zip(SOURCES, objects):
            subprocess.run([*NVCC, "-lineinfo", "-c", source, "-o", made], check=True)
        linked = str(temporary / "linked.o")
        subprocess.run([*NVCC, "-dlink", *objects, "-o", linked], check=True)
        ext.extra_objects = [*objects, linked]
        super().build_extension(ext)
        library = Path(self.get_ext_fullpath(ext.name)).with_name("one_step.so")
        subprocess.run([*NVCC, "-shared", *SOURCES, "-o", library], check=True)


setup(
    ext_modules=[
        Extension(
            "cuda_extension._kernels",
            ["src/module.c"],
            library_dirs=[f"{CUDA_HOME}/lib64"],
            libraries=["cudadevrt", "cudart_static", "stdc++", "rt", "pthread", "dl"],
        )
    ],
    cmdclass={"build_ext": BuildCuda},
)
