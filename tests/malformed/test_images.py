"""Images that cannot be read or prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands import Commands
from tests.malformed.cases import (
    VISION,
    Case,
    arrays,
    cut,
    nothing_is_begun,
    overwrite,
    search,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), dtype=np.uint8)


IMAGES: dict[str, Case] = {
    "no such file": (
        search(VISION, calibration="@/none.npz"),
        r"no images '.*none\.npz': give an \.npz file",
    ),
    "a text": (
        search(VISION, calibration="@/text.txt"),
        r"text\.txt is not an \.npz file, or damaged: save it with numpy\.savez",
    ),
    "cut": (search(VISION, cut("images.npz", 700)), r"images\.npz is not an \.npz.*: save it with"),
    "damaged": (
        search(VISION, lambda folder: overwrite(folder / "images.npz", 400, b"\xff" * 500)),
        r"reading 'x_train' of images\.npz failed: .*CRC.*: copy or save it again",
    ),
    "no images in it": (
        arrays(VISION, tokens=PIXELS),
        r"d\.npz has no images that can be guessed; its keys are tokens: name them: d\.npz:x_key",
    ),
    "no such key": (
        search(VISION, calibration="@/images.npz:photos"),
        r"images\.npz has no array 'photos'; its keys are x_train, .*: name them",
    ),
    "objects": (
        arrays(VISION, x=np.array([1, None])),
        r"'x' of d\.npz holds Python objects, not numbers: save arrays of one numeric dtype",
    ),
    "no pixels": (
        arrays(VISION, x=PIXELS[:, :0]),
        r"images of d\.npz have shape \(30, 0, 6, 3\): give them at least one pixel",
    ),
    "NaN in pixels": (
        arrays(VISION, x=PIXELS * np.float32("nan")),
        r"images of d\.npz have pixels that are NaN or infinite: repair them",
    ),
    "not images": (
        arrays(VISION, x=PIXELS[:, 0, 0]),
        r"images of d\.npz are uint8 of shape \(30, 3\): store numbers as \(N, H, W, C\)",
    ),
    "other channels": (
        arrays(VISION, x=PIXELS.repeat(2, 3)[..., :5]),
        r"images with 5 channels: the model takes 3",
    ),
    "too few labels": (
        arrays(VISION, x=PIXELS, y=np.zeros(29, int)),
        r"labels of d\.npz have shape \(29,\) for 30 images: store one integer for each image",
    ),
    "labels that are not whole": (
        arrays(VISION, x=PIXELS, y=np.zeros(30)),
        r"labels of d\.npz are float64: store integers",
    ),
    "labels beyond the classes": (
        arrays(VISION, x=PIXELS, y=np.full(30, 3)),
        "labels from 3 to 3 for 3 classes: labels are class indices from 0 to 2",
    ),
    "too few images": (search(VISION, samples=999), "has 20 images where 999 .*: give more images"),
    "means of nothing": (search(VISION, mean="a,b,c"), "--mean 'a,b,c': write finite numbers like"),
    "means that are not finite": (search(VISION, mean="nan"), "--mean 'nan': write finite numbers"),
    "a mean too few": (
        search(VISION, mean="1,2"),
        "mean of 2 numbers: give one for each of 3 channels",
    ),
    "a deviation of 0": (search(VISION, std="0"), r"std of 0\.0: give positive numbers"),
    "a size of nothing": (search(VISION, size="x"), "--size 'x': write it like 224 or 192x256"),
    "a size of 0": (search(VISION, size="0x6"), r"image size \[0, 6\]: give one or two positive"),
    "a size beyond memory": (
        search(VISION, size="1000000000"),
        "preparing the images failed: .*1000000000.*: use another size",
    ),
}


@pytest.mark.parametrize("case", IMAGES)
def test_nothing_is_begun_with(case: str, bitfront: Commands, folder: Path) -> None:
    nothing_is_begun(IMAGES[case], bitfront, folder)
