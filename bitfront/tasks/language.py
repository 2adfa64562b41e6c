"""Language tasks: causal language models of transformers, on text or token ids.

N  sequences      T  tokens of a sequence      P = T − 1  predicted tokens      V  vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import DataError, ModelError

from .base import Batch
from .holding import HOLD_BACK, checked_share
from .numbers import require
from .paths import absolute
from .pretrained import load_pretrained, load_tokenizer, resolved
from .running import ModelTask
from .texts import Corpus, Ids, draw, read_corpus, sequences, split


class LanguageTask(ModelTask):
    """A causal LM judged by how well it predicts the next token.

    model: folder, name on the hub, or a live transformers model (then ``tokenizer`` is needed for
        texts, and no other process can make the task again).
    calibration, evaluation: ``.txt``, ``.jsonl``, ``.json``, ``.npz`` of token ids, or
        ``hub:NAME[:CONFIG][:SPLIT]``. Without evaluation data, or when it is the same file, it is a
        later part of the calibration data that calibration never draws from.
    samples, eval_samples: numbers of sequences, drawn with ``seed``.
    length: tokens of a sequence, lowered to the model's context.
    layout: ``joined``, ``documents`` or ``auto``; see ``bitfront.tasks.texts``.
    field: the key or column that holds the text. batch: sequences in one call of the model.
    hold_back: share of the calibration batches that nothing is chosen by, to the nearest batch.

    Outputs are the logits of all tokens but the last (N, T−1, V), labels the tokens that follow;
    a position is scored when both are real tokens, not padding.
    """

    kind = "language"
    metrics = ("kl", "nll", "perplexity")

    def __init__(
        self,
        model: str | Path | nn.Module,
        calibration: str | Path,
        evaluation: str | Path | None = None,
        *,
        samples: int = 128,
        eval_samples: int = 128,
        length: int = 128,
        batch: int = 16,
        hold_back: float = HOLD_BACK,
        layout: str = "auto",
        field: str = "text",
        tokenizer: str | Any | None = None,
        dtype: str = "auto",
        device: str = "auto",
        seed: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        require(1, samples=samples, eval_samples=eval_samples, batch=batch)
        require(2, length=length)  # a token to predict from, and one to predict
        require(0, seed=seed)
        if isinstance(model, str | Path) and str(model).endswith(".py"):
            raise ModelError(
                f"{str(model)!r} is no folder",
                "give one of transformers, or bring Python code as a vision or module task",
            )
        self._recipe: dict[str, Any] = {
            "model": model if isinstance(model, nn.Module) else resolved(str(model)),
            "calibration": _absolute(calibration),
            "evaluation": None if evaluation is None else _absolute(evaluation),
            "samples": samples,
            "eval_samples": eval_samples,
            "length": length,
            "batch": batch,
            "hold_back": checked_share(hold_back),
            "layout": layout,
            "field": field,
            "tokenizer": resolved(tokenizer) if isinstance(tokenizer, str) else tokenizer,
            "dtype": dtype,
            "device": device,
            "seed": seed,
            "trust_remote_code": trust_remote_code,
        }
        self._tokenizer = tokenizer
        corpora = self._corpora()  # before the model: bad data is found at once
        if isinstance(model, nn.Module):
            loaded = model
        else:
            loaded = load_pretrained(
                "AutoModelForCausalLM", str(model), dtype=dtype, trust_remote_code=trust_remote_code
            )
        self.place(loaded, device, dtype)
        self.length = min(length, _context(self.model) or length)
        calibration, self.evaluation = self._batches(*corpora)
        self.calibrate(calibration, hold_back)

    def predict(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: Batch) -> Tensor:
        logits: Tensor = self.model(*args, **kwargs, use_cache=False).logits
        return logits[:, :-1]

    def fingerprint(self) -> dict[str, str]:
        return {**super().fingerprint(), "length": str(self.length)}

    def recipe(self) -> dict[str, Any]:
        for name in ("model", "tokenizer"):
            if not isinstance(self._recipe[name], str | None):
                raise ModelError(
                    f"the task was made from a live {name}",
                    "give its folder to use other processes",
                )
        return {"kind": self.kind, **self._recipe}

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer; loaded when texts are read."""
        given, model = self._tokenizer, self._recipe["model"]
        if given is not None and not isinstance(given, str):
            return given
        if given is None and isinstance(model, nn.Module):
            raise ModelError("texts for a live model", "give tokenizer=, or token ids in .npz")
        trusted = self._recipe["trust_remote_code"]
        return load_tokenizer(given or model, trust_remote_code=trusted)

    def _corpora(self) -> tuple[Corpus, Corpus | None]:
        calibration, evaluation = self._recipe["calibration"], self._recipe["evaluation"]
        field = self._recipe["field"]
        first = read_corpus(calibration, field)
        apart = evaluation is not None and evaluation != calibration
        return first, read_corpus(evaluation, field) if apart else None

    def _batches(
        self, calibration: Corpus, evaluation: Corpus | None
    ) -> tuple[list[Batch], list[Batch]]:
        recipe = self._recipe
        samples, held, seed = recipe["samples"], recipe["eval_samples"], recipe["seed"]

        def pool(corpus: Corpus) -> Any:
            return sequences(corpus, self.length, recipe["layout"], lambda: self.tokenizer)

        first = pool(calibration)
        if evaluation is None:
            first, second = split(first, samples, held)
        else:
            second = pool(evaluation)
        drawn = draw(first, samples, (seed, 0)), draw(second, held, (seed, 1))
        return self._cut(drawn[0]), self._cut(drawn[1])

    def _cut(self, rows: Sequence[Ids]) -> list[Batch]:
        vocabulary = self.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        least, most = min(int(r.min()) for r in rows), max(int(r.max()) for r in rows)
        if least < 0 or most >= vocabulary:
            raise DataError(
                f"token ids from {least} to {most} for a vocabulary of {vocabulary}",
                "use the ids, or the tokenizer, of this model",
            )
        size = self._recipe["batch"]
        return [padded(rows[i : i + size]) for i in range(0, len(rows), size)]


def padded(rows: Sequence[Ids]) -> Batch:
    """One batch of sequences, padded at the right with masked zeros where lengths differ."""
    T = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), T, dtype=torch.int64)
    mask = torch.zeros(len(rows), T, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.from_numpy(row)
        mask[i, : len(row)] = 1
    full = bool(mask.all())
    return Batch(
        args=(),
        kwargs={"input_ids": ids} if full else {"input_ids": ids, "attention_mask": mask},
        samples=len(rows),
        labels=ids[:, 1:],
        scored=None if full else mask[:, 1:].bool(),
    )


def _context(model: nn.Module) -> int | None:
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = getattr(text, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def _absolute(source: str | Path) -> str:
    text = str(source)
    return text if text.startswith("hub:") else str(absolute(text))
