"""mlx-lm's ``dynamic_quant``: ``MODEL_sensitivities.json``, a list of ``[layer, sensitivity]``.

    s[l] = ⟨∇KL, W_low[l] − W_high[l]⟩ / (weights of l / 10⁶)

with the gradient of KL(full ‖ model) at the model whose layers all are in the low format (mlx-lm
0.32.2, ``quant/dynamic_quant.py``). So s times the layer's millions of weights is, to first order,
the nats that the layer gains when it goes from the low format to the high one: the difference of
the two is known, and nothing of either against full precision. Here the high format counts as zero.

The file does not say which formats they were. MLX quantizes with a scale and an offset for each
group, so the defaults of its ``--low-bits`` and ``--high-bits`` are ``w4g64z`` and ``w5g64z``.
"""

from __future__ import annotations

from bitfront.errors import InvalidInput
from bitfront.scheme import Scheme

from .base import IMPORTERS, Asked, Importer, Score, Scores, number, shown
from .source import Source

DEFAULT = (Scheme.parse("w4g64z"), Scheme.parse("w5g64z"))


@IMPORTERS.register("mlx-lm")
class MlxLm(Importer):
    """Pairs of a layer and a number."""

    name = "mlx-lm"
    takes = frozenset({"schemes"})

    def recognises(self, source: Source) -> bool:
        if not source.looks_like_json:
            return False
        data = source.json
        return isinstance(data, list) and bool(data) and all(map(_pair, data[:3]))

    def read(self, source: Source, asked: Asked) -> Scores:
        data = source.json
        if not isinstance(data, list) or not data:
            raise InvalidInput(f"it has {shown(data)}", "give a list of [layer, sensitivity] pairs")
        low, high = _formats(asked.schemes)
        scores = []
        for entry in data:
            if not _pair(entry):
                raise InvalidInput(
                    f"an entry is {shown(entry)}", "give a list of [layer, sensitivity] pairs"
                )
            layer, value = entry
            figure = number(value, f"the sensitivity of {layer!r}")
            scores += [Score((layer,), low, figure), Score((layer,), high, 0.0)]
        notes = [
            f"{low} counts against {high}, which counts as zero: keep is no better than {high}"
        ]
        if not asked.schemes:
            notes.append(
                f"the file names no formats: mlx-lm's defaults, {low} and {high}, are taken"
            )
        return Scores(
            "kl-difference", f"nats of KL, to first order, that {low} loses against {high}",
            tuple(scores), per_million=True, notes=tuple(notes),
        )  # fmt: skip


def _pair(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)


def _formats(given: tuple[Scheme, ...]) -> tuple[Scheme, Scheme]:
    if not given:
        return DEFAULT
    if len(given) != 2:
        raise InvalidInput(
            f"{len(given)} schemes for a file of mlx-lm",
            'give its low and its high format, like "w4g64z w5g64z"',
        )
    return given[0], given[1]
