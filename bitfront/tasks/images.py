"""Images from ``.npz`` files or arrays: found, checked, drawn, batched when asked for.

N images, C channels, H × W pixels; stored as they are (uint8 usually), converted batch by batch
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitfront.errors import DataError

from .base import Batch
from .boundary import foreign
from .npz import opened
from .paths import expanded

IMAGE_KEYS = ("x", "images", "image", "pixel_values", "data", "arr_0")
LABEL_KEYS = ("y", "labels", "label", "targets", "target", "arr_1")
_TRAIN = ("train", "calibration", "calib")
_TEST = ("test", "val", "valid", "validation", "evaluation", "eval")
_PARTS = {"calibration": (*_TRAIN, "", *_TEST), "evaluation": (*_TEST, "", *_TRAIN)}


@dataclass(frozen=True, eq=False)
class Images:
    """x: (N, H, W, C), (N, C, H, W) or (N, H, W). y: (N,) integers or None. keys: of both."""

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64] | None
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.ndim not in (3, 4) or x.dtype.kind not in "uif":
            raise DataError(
                f"images of {self.name} are {x.dtype} of shape {x.shape}",
                "store numbers as (N, H, W, C), (N, C, H, W) or (N, H, W)",
            )
        if not len(x):
            raise DataError(f"{self.name} has no images", "give at least one")
        if not x.size:
            raise DataError(
                f"images of {self.name} have shape {x.shape}", "give them at least one pixel"
            )
        if x.dtype.kind == "f" and not all(np.isfinite(image).all() for image in x):
            raise DataError(
                f"images of {self.name} have pixels that are NaN or infinite", "repair them"
            )
        if y is not None and y.shape != (len(x),):
            raise DataError(
                f"labels of {self.name} have shape {y.shape} for {len(x)} images",
                "store one integer for each image",
            )
        if y is not None and y.dtype.kind not in "ui":
            raise DataError(f"labels of {self.name} are {y.dtype}", "store integers")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[np.int64]) -> Images:
        """The images of the given indices."""
        return Images(self.name, self.x[rows], None if self.y is None else self.y[rows], self.keys)


def read_images(source: str, part: str = "calibration") -> Images:
    """Images (and labels) of ``file.npz`` or ``file.npz:x_key,y_key``.

    Without keys, those of the file's ``part`` are taken (``x_train`` for calibration, ``x_test``
    for evaluation), else plain ones (``x``), else the other part's. Raises ``DataError`` that
    lists the keys.
    """
    path, keys = _split(source)
    if not path.is_file():
        raise DataError(f"no images {str(path)!r}", "give an .npz file, or file.npz:x_key,y_key")
    with opened(path) as file:
        there = list(file.keys)
        found = keys or _guess(there, part)
        missing = [k for k in found if k not in there]
        if missing or not found:
            wanted = f"no array {missing[0]!r}" if missing else "no images that can be guessed"
            raise DataError(
                f"{path.name} has {wanted}; its keys are {', '.join(there) or 'none'}",
                f"name them: {path.name}:x_key,y_key",
            )
        arrays = [file[k] for k in found]
    return Images(path.name, arrays[0], arrays[1] if len(arrays) > 1 else None, tuple(found))


def draw_images(images: Images, samples: int | None, seed: tuple[int, int]) -> Images:
    """``samples`` different images in a fixed random choice, in their order; None for all."""
    if samples is None or samples == len(images):
        return images
    if not 1 <= samples <= len(images):
        raise DataError(
            f"{images.name} has {len(images)} images where {samples} are needed",
            "give more images or ask for fewer samples",
        )
    order = np.random.default_rng(seed).permutation(len(images))[:samples]
    return images.take(np.sort(order))


class ImageBatches(Sequence[Batch]):
    """Batches of ``size`` images; each is converted by ``prepare`` when it is asked for."""

    def __init__(
        self, images: Images, size: int, prepare: Callable[[NDArray[Any]], Tensor]
    ) -> None:
        self.images, self.size, self.prepare = images, size, prepare

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = index % len(self) * self.size
        x = self.images.x[start : start + self.size]
        y = self.images.y
        labels = (
            None if y is None else torch.from_numpy(y[start : start + self.size].astype(np.int64))
        )
        with foreign("preparing the images", "use another size", DataError):
            pixels = self.prepare(x)
        return Batch(
            args=(pixels,),
            samples=len(x),
            labels=None if labels is None else labels[:, None],
        )


@dataclass(frozen=True)
class Pixels:
    """Turns stored images into what a plain network takes: (x / 255 − mean) / std, (N, C, H, W).

    Integers are divided by 255, floating-point numbers taken as they are. size: (H, W) to resize to
    (bilinear, antialiased), None to leave.
    """

    channels: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None

    def __call__(self, x: NDArray[Any]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(channels_first(x, self.channels)))
        pixels = pixels.float() if x.dtype.kind == "f" else pixels.float() / 255
        if self.size is not None and tuple(pixels.shape[2:]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        if self.mean is not None:
            pixels = pixels - torch.tensor(self.mean).view(1, -1, 1, 1)
        if self.std is not None:
            pixels = pixels / torch.tensor(self.std).view(1, -1, 1, 1)
        return pixels


def channels_first(x: NDArray[Any], channels: int) -> NDArray[Any]:
    """Images as (N, C, H, W), grey ones repeated if ``channels`` is 3; C is found by its size."""
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[1] not in (1, channels) or (x.shape[3] == channels and x.shape[1] != channels):
        x = x.transpose(0, 3, 1, 2)
    if x.shape[1] == 1 and channels > 1:
        x = np.repeat(x, channels, axis=1)
    if x.shape[1] != channels:
        raise DataError(
            f"images with {x.shape[1]} channels", f"the model takes {channels}: (N, C, H, W)"
        )
    return x


def _split(source: str) -> tuple[Path, list[str]]:
    path, mark, keys = source.rpartition(".npz:")
    if not mark:
        return expanded(source), []
    return expanded(path + ".npz"), [k for k in keys.split(",") if k]


def _guess(there: list[str], part: str) -> list[str]:
    for suffix in _PARTS[part]:
        named = {key.lower(): key for key in there}
        for x in IMAGE_KEYS:
            key = _variant(named, x, suffix)
            if key is not None:
                labels = (_variant(named, y, suffix) for y in LABEL_KEYS)
                label = next((y for y in labels if y is not None), None)
                return [key] if label is None else [key, label]
    return []


def _variant(named: dict[str, str], base: str, suffix: str) -> str | None:
    spellings = [f"{base}_{suffix}", f"{suffix}_{base}"] if suffix else [base]
    return next((named[s] for s in spellings if s in named), None)
