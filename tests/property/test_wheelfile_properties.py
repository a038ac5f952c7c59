import base64
import hashlib
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from reprobuild.errors import BadInput
from reprobuild.wheelfile import read_wheel

NAME, INFO = "demo-1.0-py3-none-any.whl", "demo-1.0.dist-info"
METADATA = b"Metadata-Version: 2.4\nName: demo\nVersion: 1.0\nSummary: of many words\n\nA description.\n"
WHEEL = b"Wheel-Version: 1.0\nGenerator: some-backend 3.1\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"9" * 5000, b"\0", b"\xff", "é".encode(), b"\n", b"\r", b",", b'"', b" =?utf-8?q?=FF?=", b"-", b"."]
    ),
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["METADATA", "WHEEL", "RECORD"]), st.floats(0, 1), st.integers(0, 9), PIECES)
)


@settings(max_examples=500, deadline=None)
@given(EDITS)
def test_a_wheel_is_read_or_refused_whatever_its_texts_are(edits):
    """Its RECORD is right, but for what is done to RECORD itself."""
    texts = {"METADATA": METADATA, "WHEEL": WHEEL, "RECORD": b""}
    for passing in (("METADATA", "WHEEL"), ("RECORD",)):
        for name, where, cut, new in edits:
            if name in passing:
                at = int(where * len(texts[name]))
                texts[name] = texts[name][:at] + new + texts[name][at + cut :]
        if "RECORD" not in passing:
            rows = [
                f"{INFO}/{name},sha256={_b64(hashlib.sha256(texts[name]).digest())},{len(texts[name])}"
                for name in ("METADATA", "WHEEL")
            ]
            texts["RECORD"] = "\n".join([*rows, f"{INFO}/RECORD,,", ""]).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, NAME)
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in texts.items():
                archive.writestr(f"{INFO}/{name}", text)
        if not edits:
            assert read_wheel(path).dist_info == INFO
        with suppress(BadInput):
            read_wheel(path)


def _b64(digest):
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
