"""A build backend in a few lines, which makes whatever wheel or sdist the file `mode` asks for."""

import base64
import hashlib
import io
import random
import subprocess
import tarfile
import time
import warnings
import zipfile
from pathlib import Path

NAME = "in_tree_backend-1.0-py3-none-any.whl"
INFO = "in_tree_backend-1.0.dist-info"


def get_requires_for_build_wheel(config_settings=None):
    if mode() == "hook-fails":
        raise RuntimeError("not in the mood")
    if mode().startswith("swaps "):
        swap(mode().removeprefix("swaps "))
    if mode() == "asks-for-a-number":
        return [5]
    return ["packaging>=24"] if mode() == "asks-for-more" else []


def get_requires_for_build_sdist(config_settings=None):
    return ["packaging>=24"] if mode() == "asks-for-more-in-an-sdist" else []


def build_sdist(sdist_directory, config_settings=None):
    wanted = mode().removeprefix("sdist-")
    name = "in-tree.tar.gz" if wanted == "no-name" else "in_tree_backend-1.0.tar.gz"
    path = Path(sdist_directory, name)
    if wanted == "not-a-tar":
        path.write_bytes(b"this is no tar file")
        return path.name
    named = "other" if wanted == "of-another" else "in-tree-backend"
    files = {"in_tree_backend-1.0/in_tree_backend.py": b"WORKS = True\n"}
    if wanted != "no-metadata":
        about = f"Metadata-Version: 2.1\nName: {named}\nVersion: 1.0\n"
        files["in_tree_backend-1.0/PKG-INFO"] = about.encode()
    if wanted == "two-folders":
        files["another/file"] = b""
    if wanted == "escaping":
        files["in_tree_backend-1.0/../../outside"] = b""
    with tarfile.open(path, "w:gz") as tar:
        for each, content in files.items():
            member = tarfile.TarInfo(each)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if wanted == "device":
            device = tarfile.TarInfo("in_tree_backend-1.0/device")
            device.type = tarfile.CHRTYPE
            tar.addfile(device)
    return path.name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    wanted = mode()
    if wanted.startswith("sleep "):
        subprocess.run(wanted.split(), check=True)
    name = "other_name-1.0-py3-none-any.whl" if wanted == "wrong-name" else NAME
    path = Path(wheel_directory, name)
    write_wheel(path, wanted)
    if wanted == "two-wheels":
        write_wheel(path.with_name(NAME.replace("1.0", "2.0")), wanted)
    return path.name


def swap(target):
    """Wait for the wheel of the build that runs beside, and put a link in its place."""
    out = Path("..", "out")
    for _ in range(600):
        if (out / NAME).exists():
            time.sleep(1)  # until that build has ended well
            (out / NAME).unlink()
            (out / NAME).symlink_to(target)
            return
        time.sleep(0.05)


def mode():
    return Path("mode").read_text().strip()


def write_wheel(path, wanted):
    if wanted == "not-a-zip":
        path.write_bytes(b"this is no zip file")
        return
    files = {
        "in_tree_backend.py": b"WORKS = True\n",
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: in-tree-backend\nVersion: 1.0\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if wanted == "large":
        files["in_tree_backend.bin"] = random.Random(0).randbytes(300_000)
    if wanted == "escaping":
        files["../outside.py"] = b"ESCAPED = True\n"
    rows = [f"{name},sha256={digest(content)},{len(content)}" for name, content in files.items()]
    if wanted == "wrong-record":
        files["in_tree_backend.py"] = b"WORKS = None\n"
    if wanted == "unrecorded":
        files["in_tree_backend_extra.py"] = b"\n"
    files[f"{INFO}/RECORD"] = ("\n".join([*rows, f"{INFO}/RECORD,,"]) + "\n").encode()
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as wheel:
        warnings.simplefilter("ignore")
        for name, content in files.items():
            wheel.writestr(zipfile.ZipInfo(name), content)
        if wanted == "twice":
            wheel.writestr(zipfile.ZipInfo("in_tree_backend.py"), b"WORKS = 'twice'\n")
    data = path.read_bytes()
    if wanted == "truncated":
        path.write_bytes(data[: len(data) // 2])
    if wanted == "huge":  # the central directory says of the first file that it has 4 GB
        at = data.index(b"PK\x01\x02")
        path.write_bytes(data[: at + 24] + b"\xf0\xff\xff\xff" + data[at + 28 :])


def digest(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
