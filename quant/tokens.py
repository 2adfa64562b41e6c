"""Tokens, and the first of a text, which BOS-aware schemes leave as it is.

In a causal text encoder (CLIP) the first token, begin-of-sentence, is the same for every prompt and
some hundred times larger than all others (MixDQ, arXiv:2405.17873).
"""

from __future__ import annotations

from torch import Tensor

from bitfront.errors import ModelError


def split_first(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The first token (..., 1, K) and the others (..., T - 1, K) of an input of layer ``name``.

    x: (N, T, K), or with more leading dimensions. Raises ``ModelError`` for one without tokens.
    """
    if x.ndim < 3:
        raise ModelError(
            f"layer {name!r} is to keep the first token of its input, and {tuple(x.shape)} has"
            " no tokens",
            "give it (N, T, K), or choose its scheme without b",
        )
    return x[..., :1, :], x[..., 1:, :]
