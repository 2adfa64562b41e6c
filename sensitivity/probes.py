"""Random directions at the outputs whose second moment is the output's Fisher matrix.

    z  (N, P, K)  outputs: logits, or the mean of a unit Gaussian      p = softmax(z / T)
    u  (N, P, K)  probe with E[u uᵀ] = diag p - p pᵀ, the Fisher matrix of one position's logits

Back-propagating u from z gives s_i = u_i · (∂z_i/∂w) · ΔW, and ½ E[s²] = ½ Δzᵀ (diag p - p pᵀ) Δz:
to second order the KL between the distributions at temperature T, times T² (so that every
temperature is in the nats of T = 1). Positions draw independently: cross terms between them vanish
in expectation, and s_i may be summed over the positions of a sample before it is squared.

``labels`` draws y from p and takes the gradient of log p(y): the textbook Monte Carlo Fisher. For a
confident network almost all draws are the predicted class, and a rare one carries the whole score.
``rademacher`` draws independent signs ε and takes (diag √p - p √pᵀ) ε, whose second moment is the
same matrix diag p - p pᵀ exactly, but whose length never depends on a rare event: on a ResNet-20
one backward pass with it ranks as well as four with labels (docs/profilers.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

PROBES = ("rademacher", "labels")


def probe(
    z: Tensor,
    output: str,
    *,
    kind: str,
    temperature: float,
    generator: torch.Generator,
    scored: Tensor | None = None,
) -> Tensor:
    """A probe u (N, P, K), float32, zero at positions that are not ``scored`` (N, P).

    The generator lives on the CPU, so that a seed gives the same probes on every device.
    """
    if output == "gaussian":
        u = _signs(z.shape, generator).to(z.device)
    else:
        p = torch.softmax(z.detach().float() / temperature, dim=-1)
        if kind == "labels":
            rows = p.reshape(-1, p.shape[-1]).cpu()
            y = torch.multinomial(rows, 1, generator=generator).reshape(p.shape[:-1]).to(z.device)
            u = -p
            u.scatter_add_(-1, y[..., None], torch.ones_like(p[..., :1]))
        else:
            rooted = p.sqrt() * _signs(p.shape, generator).to(z.device)
            u = rooted - p * rooted.sum(-1, keepdim=True)
    if scored is not None:
        u = u * scored[..., None].to(u)
    return u


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator).float().mul_(2).sub_(1)
