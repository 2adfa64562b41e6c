"""Random directions at the outputs whose second moment is the output's Fisher matrix.

    z  (N, P, K)  outputs: logits, or the mean of a unit Gaussian      p = softmax(z / T)
    u  (N, P, K)  probe with E[u uᵀ] = diag p - p pᵀ, the Fisher matrix of one position's logits

Back-propagating u from z gives s_i = u_i · (∂z_i/∂w) · ΔW, and ½ E[s²] = ½ Δzᵀ (diag p - p pᵀ) Δz:
to second order the KL between the distributions at temperature T, times T² (so that every
temperature is in the nats of T = 1). Positions draw independently: cross terms between them vanish
in expectation, and s_i may be summed over the positions of a sample before it is squared. Where a
position counts w times, its probe is √w times as long.

``labels`` draws y from p and takes the gradient of log p(y): the textbook Monte Carlo Fisher. For a
confident network almost all draws are the predicted class, and a rare one carries the whole score.
``rademacher`` draws independent signs ε and takes (diag √p - p √pᵀ) ε, whose second moment is the
same matrix diag p - p pᵀ exactly, but whose length never depends on a rare event: on a ResNet-20
one backward pass with it ranks as well as four with labels (docs/profilers.md).
``empirical`` draws nothing: y are the task's own labels, and u uᵀ is their outer product of
gradients, the empirical Fisher. It is the Fisher matrix only of a model whose probabilities are
right, and where it is wrong the gradient's mean, which KL knows nothing of, is counted in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitfront.errors import DataError
from bitfront.tasks.base import Batch

PROBES = ("rademacher", "labels", "empirical")


def probe(
    z: Tensor,
    output: str,
    *,
    kind: str,
    temperature: float,
    generator: torch.Generator,
    scored: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """A probe u (N, P, K), float32, zero at positions that do not count.

    scored: (N, P), what each position counts for (``Batch.counted``), or None for 1. labels:
    (N, P), what ``empirical`` takes in place of draws (``labels_of``). The generator lives on the
    CPU, so that a seed gives the same probes on every device.
    """
    if output == "gaussian":
        u = signs(z.shape, generator).to(z.device)
    else:
        p = torch.softmax(z.detach().float() / temperature, dim=-1)
        if kind == "rademacher":
            rooted = p.sqrt() * signs(p.shape, generator).to(z.device)
            u = rooted - p * rooted.sum(-1, keepdim=True)
        else:
            y = _drawn(p, generator) if labels is None else labels
            y = y.clamp(min=0).to(z.device)  # negative labels mark positions that are not scored
            u = -p
            u.scatter_add_(-1, y[..., None], torch.ones_like(p[..., :1]))
    if scored is not None:
        u = u * scored[..., None].to(u).sqrt()
    return u


def labels_of(batch: Batch, output: str) -> Tensor:
    """The task's own labels of a batch, (N, P). Raises ``DataError`` when it has none."""
    if output != "categorical":
        raise DataError(
            f"the task's own labels of {output} outputs", "only class labels can be used"
        )
    if batch.labels is None:
        raise DataError(
            "the calibration batches have no labels",
            "give them labels, or a setting that takes the model's own output",
        )
    return batch.labels


def _drawn(p: Tensor, generator: torch.Generator) -> Tensor:
    rows = p.reshape(-1, p.shape[-1]).cpu()
    return torch.multinomial(rows, 1, generator=generator).reshape(p.shape[:-1])


def signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Independent ±1, float32, on the CPU."""
    return torch.randint(0, 2, shape, generator=generator).float().mul_(2).sub_(1)
