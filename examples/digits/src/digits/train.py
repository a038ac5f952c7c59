"""``digits-train``: the same seed and the same versions give the same model, byte for byte."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from digits.model import Model


def train(seed: int, epochs: int) -> tuple[Model, dict[str, float | int]]:
    """Train on three quarters of scikit-learn's digits; the model, and how well it reads the rest."""
    images, digits = load_digits(return_X_y=True)
    images, held_images, digits, held_digits = train_test_split(
        images, digits, test_size=0.25, random_state=seed, stratify=digits
    )
    generator = np.random.default_rng(seed)
    model = Model.random(hidden=32, generator=generator)
    with threadpool_limits(limits=1):  # with more threads the order of sums depends on how many
        for _ in range(epochs):
            for batch in np.array_split(generator.permutation(len(digits)), 40):
                for name, gradient in model.gradients(images[batch], digits[batch]).items():
                    model.weights[name] -= 0.3 * gradient
        right = model.probabilities(held_images).argmax(axis=1) == held_digits
    return model, {
        "accuracy": float(right.mean()),
        "epochs": epochs,
        "held_out": len(held_digits),
        "seed": seed,
        "trained_on": len(digits),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Train the model; write it and its metrics.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for model.safetensors and metrics.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    model, metrics = train(options.seed, options.epochs)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "model.safetensors").write_bytes(model.bytes())
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    print(f"{metrics['accuracy']:.1%} of {metrics['held_out']} held-out digits are read right")
