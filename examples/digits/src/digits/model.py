"""A network of one hidden layer, in NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

if TYPE_CHECKING:
    from pathlib import Path

PIXELS, CLASSES = 64, 10
BRIGHTEST = 16.0  # of a pixel in scikit-learn's data set

Floats = NDArray[np.float64]


@dataclass
class Model:
    """Its weights, by the names that they have in a file."""

    weights: dict[str, Floats]

    @classmethod
    def random(cls, hidden: int, generator: np.random.Generator) -> Self:
        """Weights to begin with (He et al. 2015)."""
        return cls(
            {
                "hidden.bias": np.zeros(hidden),
                "hidden.weight": generator.standard_normal((PIXELS, hidden)) * np.sqrt(2 / PIXELS),
                "output.bias": np.zeros(CLASSES),
                "output.weight": generator.standard_normal((hidden, CLASSES)) * np.sqrt(2 / hidden),
            }
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read weights from a safetensors file."""
        return cls({name: np.asarray(value, np.float64) for name, value in load_file(path).items()})

    def bytes(self) -> bytes:
        """The weights as a safetensors file, rounded to 32 bits."""
        return save({name: value.astype(np.float32) for name, value in sorted(self.weights.items())})

    def probabilities(self, images: Floats) -> Floats:
        """For each image (a row of 64 values from 0 to 16) how likely each digit is."""
        return self._forward(images)[1]

    def gradients(self, images: Floats, digits: NDArray[np.int64]) -> dict[str, Floats]:
        """How the mean cross-entropy changes with each weight."""
        hidden, likely = self._forward(images)
        likely[np.arange(len(digits)), digits] -= 1
        back_output = likely / len(digits)
        back_hidden = back_output @ self.weights["output.weight"].T * (hidden > 0)
        return {
            "hidden.bias": back_hidden.sum(axis=0),
            "hidden.weight": (images / BRIGHTEST).T @ back_hidden,
            "output.bias": back_output.sum(axis=0),
            "output.weight": hidden.T @ back_output,
        }

    def _forward(self, images: Floats) -> tuple[Floats, Floats]:
        named = self.weights
        hidden = np.maximum(images / BRIGHTEST @ named["hidden.weight"] + named["hidden.bias"], 0)
        scores = hidden @ named["output.weight"] + named["output.bias"]
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return hidden, raised / raised.sum(axis=1, keepdims=True)
