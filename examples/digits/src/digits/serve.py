"""``digits-serve``: POST /predict with {"image": [64 numbers from 0 to 16]} answers with the digit."""

from __future__ import annotations

import argparse
import json
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from digits.model import PIXELS, Floats, Model

LONGEST = 1 << 16  # bytes of a request


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def __init__(self, model: Model, *arguments: object) -> None:
        self._model = model
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """GET /health."""
        if self.path == "/health":
            self._answer(200, {"status": "ready"})
        else:
            self._answer(404, {"error": "ask GET /health or POST /predict"})

    def do_POST(self) -> None:
        """POST /predict."""
        if self.path != "/predict":
            self._answer(404, {"error": "ask GET /health or POST /predict"})
            return
        try:
            image = self._image()
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._answer(400, {"error": f"send an object with image, a list of {PIXELS} numbers: {error}"})
            return
        likely = self._model.probabilities(image)[0]
        self._answer(200, {"digit": int(likely.argmax()), "probabilities": [round(float(each), 6) for each in likely]})

    def _image(self) -> Floats:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= LONGEST:
            raise ValueError(f"the request has {length} bytes")
        image = np.asarray(json.loads(self.rfile.read(length))["image"], np.float64)
        if image.shape != (PIXELS,) or not np.isfinite(image).all():
            raise ValueError(f"its shape is {image.shape}")
        return image[np.newaxis]

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Answer predictions over HTTP.")
    parser.add_argument("--model", type=Path, default=Path("out/model.safetensors"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    options = parser.parse_args()
    with ThreadingHTTPServer((options.host, options.port), partial(Handler, Model.load(options.model))) as server:
        print(f"listening on {options.host}:{server.server_port}", flush=True)
        server.serve_forever()
