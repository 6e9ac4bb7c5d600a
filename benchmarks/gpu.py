"""Speed of embedding and training on a GPU, and how much of the GPU they use.

Usage: ``python -m benchmarks.gpu``

Prints what the GPU can do (products of large matrices, copies within its memory), patches per second of nm.tl.embed and
of the encoder alone, with several numbers of patches per pass and in lower precision, and seconds per step of the
default training and of the preset paper-imc. Shares are of the rate of float32 products, by operations, and of the rate
of copies, by the bytes of the features that the layers read and write.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

import nextmarker as nm
from benchmarks.embedding import ROTATIONS, make_image
from nextmarker.nn.device import patches_at_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialdata import SpatialData

PANELS = {(34, 10): 20_000, (41, 24): 8_000}
"""Cells of each panel, (markers, width of a patch in pixels)."""
PASSES = (256, 1024, 4096)
STEPS = 20
GPU = torch.device("cuda")


def main() -> None:
    """Print all figures."""
    if not torch.cuda.is_available():
        sys.exit("torch.cuda.is_available() is False: this benchmark needs a GPU.")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    rate, copied = product_rate(), copy_rate()
    print(f"float32 products {rate / 1e12:.0f} TFLOP/s, copies {copied / 1e9:,.0f} GB/s", flush=True)
    for (markers, side), cells in PANELS.items():
        sdata = make_image(markers, cells, side)
        print(f"\n{markers} markers x {side} px", flush=True)
        measure_embedding(sdata, side)
        measure_encoder(make_model(markers, side), rate, copied)
        measure_training(sdata, side, "default", 200)
        measure_training(sdata, side, "paper-imc", 1200)


def measure_embedding(sdata: SpatialData, side: int) -> None:
    """Print the patches per second of nm.tl.embed, everything included."""
    adata = sdata["table"]
    model = make_model(adata.n_vars, side)
    nm.tl.embed(sdata, model, rotations=ROTATIONS, progress=False)
    start = time.perf_counter()
    nm.tl.embed(sdata, model, rotations=ROTATIONS, progress=False)
    took = time.perf_counter() - start
    print(f"nm.tl.embed: {ROTATIONS * adata.n_obs / took:,.0f} patches/s, {took:.1f} s for {adata.n_obs:,} cells")


def measure_encoder(model: nm.nn.NeXtMarker, rate: float, copied: float) -> None:
    """Print the patches per second of the network alone."""
    markers, side = len(model.config.markers), model.config.patch_size
    model = model.to(GPU)
    in_precision("float32")
    exact = respond(model, markers, side, patches_at_once(GPU))
    for precision in ("float32", "tf32", "bfloat16"):
        for patches in PASSES:
            with in_precision(precision), torch.inference_mode():
                counts = random_counts(patches, markers, side)
                seconds = seconds_per_call(lambda counts=counts: model.respond(counts))
                error = (respond(model, markers, side, patches_at_once(GPU)) - exact).abs().max() / exact.abs().max()
            speed = patches / seconds
            products, copies = speed * operations(model) / rate, speed * traffic(model) / copied
            used = f"{products:.1%} of products, {copies:.0%} of copies"
            print(
                f"encoder, {precision}, {patches} per pass: {speed:,.0f} patches/s, {used}, error {error:.0e}",
                flush=True,
            )


def measure_training(sdata: SpatialData, side: int, preset: str, steps: int) -> None:
    """Print the seconds of a step, and the minutes of a whole training."""
    training, network = nm.nn.PRESETS[preset]

    def run(count: int) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        nm.tl.train(sdata, side, training=replace(training, steps=count), network=network, progress=False)
        return time.perf_counter() - start, sdata["table"].uns["nextmarker"]["train"]["loss"]

    run(2)  # loads libraries of the GPU
    (short, _), (long, loss), (_, again) = run(STEPS), run(2 * STEPS), run(2 * STEPS)
    step = (long - short) / STEPS
    same = "losses are repeated" if np.array_equal(loss, again) else "losses are not repeated"
    minutes = (short + (steps - STEPS) * step) / 60
    print(f"train, {preset}: {step:.3f} s per step, {minutes:.1f} min in all, {same}", flush=True)


def make_model(markers: int, side: int) -> nm.nn.NeXtMarker:
    """Make an untrained model of the default network."""
    torch.manual_seed(0)
    names = tuple(f"marker {number}" for number in range(markers))
    return nm.nn.NeXtMarker(nm.nn.ModelConfig(names, side), [2.0] * markers).eval()


def random_counts(patches: int, markers: int, side: int) -> torch.Tensor:
    """Counts of random patches, (patches, markers, side, side)."""
    generator = torch.Generator(GPU).manual_seed(0)
    return torch.poisson(torch.full((patches, markers, side, side), 2.0, device=GPU), generator)


def respond(model: nm.nn.NeXtMarker, markers: int, side: int, patches: int) -> torch.Tensor:
    """Responses to random patches."""
    with torch.inference_mode():
        return model.respond(random_counts(patches, markers, side)).float()


def in_precision(name: str) -> torch.autocast | nullcontext:
    """Compute in float32, in TF32, or in bfloat16 where autocast does."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    return torch.autocast("cuda", torch.bfloat16) if name == "bfloat16" else nullcontext()


def seconds_per_call(function: Callable[[], object], calls: int = 10) -> float:
    """Mean of several calls on the GPU, after two that are not counted."""
    for _ in range(2):
        function()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def product_rate(side: int = 8192) -> float:
    """Operations per second of a product of large matrices in float32."""
    matrix = torch.randn(side, side, device=GPU)
    return 2 * side**3 / seconds_per_call(lambda: matrix @ matrix)


def copy_rate(size: int = 2**30) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8, device=GPU)
    target = torch.empty_like(source)
    return 2 * size / seconds_per_call(lambda: target.copy_(source))


def positions(model: nm.nn.NeXtMarker) -> int:
    """Number of positions in a patch at which features are computed."""
    return (model.config.patch_size // model.encoder.stem.stride[0]) ** 2


def operations(model: nm.nn.NeXtMarker) -> int:
    """Multiplications and additions of all convolutions for a patch."""
    weights = sum(weight.numel() for weight in model.encoder.parameters())
    return 2 * positions(model) * weights


def traffic(model: nm.nn.NeXtMarker) -> int:
    """Bytes that the convolutions read and write for a patch, if nothing stays in the caches."""
    pixels = len(model.config.markers) * model.config.patch_size**2
    features = positions(model) * model.encoder.stem.out_channels
    # signal and stem; then the spatial layer, the wider one, its positive part, the narrower one, and their sum
    return 4 * (3 * pixels + 16 * features)


if __name__ == "__main__":
    main()
