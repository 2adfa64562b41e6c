"""Vision tasks: image classifiers of transformers, of a Python file, or live ones.

N  images      K  classes      P = 1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.errors import DataError, InvalidInput, ModelError

from .arguments import parse_arguments
from .base import Batch
from .boundary import foreign, function_at
from .holding import HOLD_BACK, checked_share
from .images import ImageBatches, Images, Pixels, channels_first, draw_images, read_images
from .numbers import require
from .paths import absolute, is_reference
from .placement import floating_dtype
from .pretrained import load_pretrained, load_processor, local_folder, located
from .running import ModelTask
from .weights import load_weights

Source = str | Path | tuple[Any, ...]

CALLING = "correct it, or the arguments it is given"  # of a user's function that raises


class VisionTask(ModelTask):
    """An image classifier judged by its class probabilities.

    model: transformers folder or name on the hub; ``path/to/file.py:callable``, called with
        ``arguments``; or a live module (which no other process can make again).
    weights: state dict for a model of a Python file: ``.safetensors``, or ``.pt``, ``.pth``,
        ``.bin`` with tensors only.
    calibration, evaluation: ``file.npz``, ``file.npz:x_key,y_key``, or arrays (x,) or (x, y).
        Without evaluation images, the file's own test images (``x_test``) are taken if it has some,
        else those that calibration did not draw. Labels are optional.
    samples, eval_samples: numbers of images, drawn with ``seed``; None for all.
    mean, std: per channel, of pixels from 0 to 1; without them a transformers model's own image
        processor prepares the images, and other models get pixels from 0 to 1.
    size: (H, W) that images are resized to; by default a transformers model's own.
    hold_back: share of the calibration batches that nothing is chosen by, to the nearest batch.
    fold_norms: fold batch norms into the convolutions before them.

    Metrics other than KL and agreement need labels, those of them on calibration images too.
    """

    kind = "vision"

    def __init__(
        self,
        model: str | Path | nn.Module,
        calibration: Source,
        evaluation: Source | None = None,
        *,
        arguments: Mapping[str, Any] | str | None = None,
        weights: str | Path | None = None,
        samples: int | None = 512,
        eval_samples: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: Sequence[int] | int | None = None,
        batch: int = 128,
        hold_back: float = HOLD_BACK,
        fold_norms: bool = False,
        dtype: str = "auto",
        device: str = "auto",
        seed: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        require(1, samples=samples, eval_samples=eval_samples, batch=batch)
        require(0, seed=seed)
        if str(model).endswith(".py"):
            raise ModelError(f"{str(model)!r} names no function", "write path/to/file.py:function")
        self._recipe: dict[str, Any] = {
            "model": _spelled(model),
            "calibration": _absolute(calibration),
            "evaluation": None if evaluation is None else _absolute(evaluation),
            "arguments": parse_arguments(arguments),
            "weights": None if weights is None else str(absolute(weights)),
            "samples": samples,
            "eval_samples": eval_samples,
            "mean": None if mean is None else [float(v) for v in mean],
            "std": None if std is None else [float(v) for v in std],
            "size": None if size is None else _pair(size),
            "batch": batch,
            "hold_back": checked_share(hold_back),
            "fold_norms": fold_norms,
            "dtype": dtype,
            "device": device,
            "seed": seed,
            "trust_remote_code": trust_remote_code,
        }
        first, second = self._images()
        self.place(self._load(), device, dtype)
        self.cast = floating_dtype(self.model)
        prepare = self._preparation(first)
        self.calibrate(ImageBatches(first, batch, prepare), hold_back)
        self.evaluation = ImageBatches(second, batch, prepare)
        if fold_norms:
            self.fold_norms()
        self.metrics = ("kl", "agreement")
        if second.y is not None:
            self.metrics = ("kl", "nll", "top1", "flips", "agreement")

    def called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        return logits_of(self.model(*args, **kwargs))

    def shaped(self, output: Tensor, batch: Batch) -> Tensor:
        if output.dim() != 2:
            raise ModelError(
                f"the classifier's outputs have shape {tuple(output.shape)}",
                "they must be logits (images, classes); bring other models as a module task",
            )
        return output[:, None]

    def recipe(self) -> dict[str, Any]:
        for name in ("model", "calibration", "evaluation"):
            if not isinstance(self._recipe[name], str | None):
                raise ModelError(
                    f"the task was made from a live {name}", "give its file to use other processes"
                )
        return {"kind": self.kind, **self._recipe}

    def _load(self) -> nn.Module:
        model, weights, arguments = (self._recipe[k] for k in ("model", "weights", "arguments"))
        if isinstance(model, nn.Module):
            made: Any = model
        elif isinstance(model, str) and is_reference(model):
            make = function_at(model)
            with foreign(f"calling {model.rpartition(':')[2]}", CALLING):
                made = make(**arguments)
            if not isinstance(made, nn.Module):
                raise ModelError(f"{model!r} returned {type(made).__name__}", "return an nn.Module")
        else:
            for name, value in (("weights", weights), ("arguments", arguments)):
                if value:
                    raise InvalidInput(
                        f"{name} for {model!r}",
                        "they are for models of a Python file: file.py:name",
                    )
            return load_pretrained(
                "AutoModelForImageClassification",
                model,
                dtype=self._recipe["dtype"],
                trust_remote_code=self._recipe["trust_remote_code"],
            )
        if weights is not None:
            load_weights(made, weights)
        return made

    def _images(self) -> tuple[Images, Images]:
        recipe = self._recipe
        samples, held, seed = recipe["samples"], recipe["eval_samples"], recipe["seed"]
        source, other = recipe["calibration"], recipe["evaluation"]
        first = _open(source, "calibration")
        second = _open(source if other is None else other, "evaluation")
        if other is not None or first.keys != second.keys:
            return draw_images(first, samples, (seed, 0)), draw_images(second, held, (seed, 1))
        # one set of images for both: what calibration does not draw is for evaluation
        count = len(first) // 2 if samples is None else samples
        if not 1 <= count < len(first):
            raise DataError(
                f"{first.name} has {len(first)} images for {count} to calibrate on and the rest to "
                "judge by",
                "give more images, evaluation images of their own, or ask for fewer samples",
            )
        order = np.random.default_rng((seed, 0)).permutation(len(first))
        rest = first.take(np.sort(order[count:]))
        return first.take(np.sort(order[:count])), draw_images(rest, held, (seed, 1))

    def _preparation(self, images: Images) -> Callable[[NDArray[Any]], Tensor]:
        mean, std, size = (self._recipe[k] for k in ("mean", "std", "size"))
        channels, own = input_format(self.model, images)
        folder = self._recipe["model"]
        if mean is None and std is None and size is None and isinstance(folder, str):
            processor = _processor(folder, self._recipe["trust_remote_code"])
            if processor is not None:
                return _Processed(processor, channels)
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) not in (1, channels):
                raise InvalidInput(
                    f"{name} of {len(values)} numbers", f"give one for each of {channels} channels"
                )
            if values is not None and not np.isfinite(values).all():
                raise InvalidInput(f"{name} of {values}", "give finite numbers")
        if std is not None and min(std) <= 0:
            raise InvalidInput(f"std of {min(std)}", "give positive numbers")
        return Pixels(
            channels,
            None if mean is None else tuple(mean),
            None if std is None else tuple(std),
            tuple(size) if size is not None else own,
        )


class _Processed:
    """Prepares images by the model's own processor: its size, scale, mean and deviation."""

    def __init__(self, processor: Any, channels: int) -> None:
        self.processor, self.channels = processor, channels

    def __call__(self, x: NDArray[Any]) -> Tensor:
        pixels = channels_first(x, self.channels)
        options = {"do_rescale": False} if x.dtype.kind == "f" else {}
        with foreign("preparing images", "give mean= and std= instead of the model's processor"):
            made = self.processor(
                list(pixels), return_tensors="pt", input_data_format="channels_first", **options
            )
        pixel_values: Tensor = made["pixel_values"]
        return pixel_values


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returned: itself, its ``.logits``, or its first element."""
    logits = getattr(output, "logits", output)
    if isinstance(logits, (list, tuple)) and logits:
        logits = logits[0]
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"the model returned {type(output).__name__}",
            "return a tensor, an object with .logits, or a tuple that begins with the tensor",
        )
    return logits


def input_format(model: nn.Module, images: Images) -> tuple[int, tuple[int, int] | None]:
    """(channels, (H, W) or None) that the model takes: from its configuration, else its first
    convolution, else as the images have them."""
    config = getattr(model, "config", None)
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", None)
    convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if channels is None and convolution is not None:
        channels = convolution.in_channels
    if channels is None:
        shape = images.x.shape
        channels = 1 if len(shape) == 3 else shape[1] if shape[1] <= 4 < shape[3] else shape[3]
    return int(channels), None if size is None else _pair(size)


def _processor(name: str, trusted: bool) -> Any:
    folder = local_folder(name) if not is_reference(name) else None
    if is_reference(name) or (folder and not (folder / "preprocessor_config.json").is_file()):
        return None
    return load_processor(name, trust_remote_code=trusted)


def _open(source: Any, part: str) -> Images:
    if isinstance(source, str):
        return read_images(source, part)
    arrays = [v.numpy(force=True) if isinstance(v, Tensor) else np.asarray(v) for v in source]
    return Images("the given images", arrays[0], arrays[1] if len(arrays) > 1 else None)


def _spelled(model: Any) -> Any:
    return model if isinstance(model, nn.Module) else located(str(model))


def _absolute(source: Any) -> Any:
    if isinstance(source, tuple):
        return source
    path, mark, keys = str(source).rpartition(".npz:")
    plain = absolute(path + ".npz" if mark else str(source))
    return f"{plain}:{keys}" if mark else str(plain)


def _pair(size: Any) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise InvalidInput(f"image size {size!r}", "give one or two positive integers")
    return pair
