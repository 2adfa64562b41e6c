"""Language tasks: causal language models of transformers, on text or token ids.

N  sequences      T  tokens of a sequence      P = T − 1  predicted tokens      V  vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bitfront.errors import DataError, ModelError
from bitfront.types import Layer

from .base import Batch
from .counting import refuse_nothing
from .domains import Source, check_left, in_turn, metrics_of, shares, sources, spelled
from .holding import HOLD_BACK, checked_share
from .kvcache import with_attention
from .metrics import METRICS, Metric
from .numbers import require
from .padding import batched
from .pretrained import context_length, load_pretrained, load_tokenizer, resolved
from .running import ModelTask
from .texts import Corpus, Pool, draw, read_corpus, sequences, split

METRICS_OF_TEXT = ("kl", "nll", "perplexity")


class LanguageTask(ModelTask):
    """A causal LM judged by how well it predicts the next token.

    model: folder, name on the hub, or a live transformers model (then ``tokenizer`` is needed for
        texts, and no other process can make the task again).
    calibration, evaluation: ``.txt``, ``.jsonl``, ``.json``, ``.npz`` of token ids, or
        ``hub:NAME[:CONFIG][:SPLIT]``. Without evaluation data, or when it is the same file, it is a
        later part of the calibration data that calibration never draws from. Several calibration
        sources are domains (``domains``), with as many of evaluation data in their order, one for
        all or none; metrics are then of each domain too (``kl_d1`` of the first).
    samples, eval_samples: numbers of sequences, drawn with ``seed``, equally many of each domain.
    length: tokens of a sequence, lowered to the model's context.
    layout: ``joined``, ``documents`` or ``auto``; see ``bitfront.tasks.texts``.
    field: the key or column that holds the text. batch: sequences in one call of the model.
    hold_back: share of the calibration batches that nothing is chosen by, to the nearest batch.

    Outputs are the logits of all tokens but the last (N, T−1, V), labels the tokens that follow;
    a position is scored when both are real tokens, not padding. Weights of token ids are those of
    predicting each token.
    """

    kind = "language"

    def __init__(
        self,
        model: str | Path | nn.Module,
        calibration: Source,
        evaluation: Source | None = None,
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
            "calibration": _recorded(calibration),
            "evaluation": None if evaluation is None else _recorded(evaluation),
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
        self._sources = sources(calibration, evaluation)
        self._own = metrics_of(METRICS_OF_TEXT, len(self._sources.calibration))
        self.metrics = (*METRICS_OF_TEXT, *self._own)
        corpora = self._corpora()  # before the model: bad data is found at once
        if isinstance(model, nn.Module):
            loaded = model
        else:
            loaded = load_pretrained(
                "AutoModelForCausalLM", str(model), dtype=dtype, trust_remote_code=trust_remote_code
            )
        self.place(loaded, device, dtype)
        self.length = min(length, context_length(self.model) or length)
        given, self.evaluation = self._batches(*corpora)
        self.calibrate(given, hold_back)
        check_left(self.calibration, self._sources)

    def called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        logits: Tensor = self.model(*args, **kwargs, use_cache=False).logits
        return logits

    def shaped(self, output: Tensor, batch: Batch) -> Tensor:
        return output[:, :-1]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return with_attention(self.model, self.survey.layers)

    def metric(self, name: str) -> Metric:
        return self._own[name] if name in self._own else METRICS[name]

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

    def _corpora(self) -> tuple[list[Corpus], list[Corpus | None]]:
        field = self._recipe["field"]
        first = [read_corpus(source, field) for source in self._sources.calibration]
        others = self._sources.evaluation
        return first, [None if source is None else read_corpus(source, field) for source in others]

    def _batches(
        self, calibration: Sequence[Corpus], evaluation: Sequence[Corpus | None]
    ) -> tuple[list[Batch], list[Batch]]:
        recipe = self._recipe
        samples = shares(recipe["samples"], len(calibration), "samples")
        held = shares(recipe["eval_samples"], len(evaluation), "eval_samples")

        def pool(corpus: Corpus) -> Pool:
            return sequences(corpus, self.length, recipe["layout"], lambda: self.tokenizer)

        first = [pool(corpus) for corpus in calibration]
        second = []
        for k, corpus in enumerate(evaluation):
            if corpus is None:
                first[k], later = split(first[k], samples[k], held[k])
            else:
                later = pool(corpus)
            second.append(later)
        found = self._drawn(first, samples, 0), self._drawn(second, held, 1)
        for batches, what in zip(found, ("calibration", "evaluation"), strict=True):
            refuse_nothing(batches, what, "give some of the tokens that it draws a weight above 0")
        return found

    def _drawn(self, pools: Sequence[Pool], samples: Sequence[int], stream: int) -> list[Batch]:
        seed = self._recipe["seed"], stream
        pairs = zip(pools, samples, strict=True)
        rows, parts = in_turn(draw(pool, count, seed) for pool, count in pairs)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        least, most = min(int(r.ids.min()) for r in rows), max(int(r.ids.max()) for r in rows)
        if least < 0 or most >= vocabulary:
            raise DataError(
                f"token ids from {least} to {most} for a vocabulary of {vocabulary}",
                "use the ids, or the tokenizer, of this model",
            )
        return batched(rows, parts if len(pools) > 1 else None, self._recipe["batch"])


def _recorded(source: Source) -> str | list[str]:
    found = spelled(source)
    return found[0] if len(found) == 1 else list(found)
