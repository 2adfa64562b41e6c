"""Traces and eigenvalues against exact Hessian blocks (torch.func, float64), and what goes wrong.

Networks are small enough that a layer's whole block is formed: smooth and not, with a layer that
runs twice, with attention, with an embedding and a head that share their weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from bitfront.errors import DataError, InvalidInput, ModelError
from bitfront.quant.build import Builder
from bitfront.quant.formats import dequantize
from bitfront.quant.layers import adapter_of
from bitfront.scratch import Scratch
from bitfront.sensitivity import Checkpoints, NoCheckpoints, Profiler, Subject
from bitfront.sensitivity.eigen import Eigen
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.hutchinson import Hutchinson
from bitfront.tasks import ModuleTask
from bitfront.types import Estimate, Measurement, Scheme
from tests.small_tasks import Attention, Conv, uneven

IGNORED = -100
W3 = Scheme.parse("w3")


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(self.second(torch.tanh(self.first(x)))))


class Tied(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.head.weight = self.embed.weight


class TiedByMemory(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.double()  # converting later would part them
        self.head.weight = nn.Parameter(self.embed.weight.data)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "conv": Conv, "mlp": MLP, "attention": Attention, "tied": Tied, "tied by memory": TiedByMemory,
    "weighted mlp": MLP, "weighted attention": Attention,
}  # fmt: skip


def labelled(kind: str, dtype: str = "float64", labels: bool = True) -> ModuleTask:
    """A network with random weights and labels; in sequences some positions are not scored.

    Where ``kind`` says so, positions have weights, some of them 0.
    """
    generator = torch.Generator().manual_seed(1)
    if kind == "conv":
        x, y = (
            torch.randn(8, 3, 6, 6, generator=generator),
            torch.randint(5, (8,), generator=generator),
        )
    elif kind.endswith("mlp"):
        x, y = torch.randn(8, 6, generator=generator), torch.randint(4, (8,), generator=generator)
    else:
        x = torch.randint(11, (8, 5), generator=generator)
        y = torch.randint(11, (8, 5), generator=generator)
        y[:, 0] = IGNORED

    def make() -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(4)
            model = MODELS[kind]().eval()
        pairs = [(x[i : i + 3], y[i : i + 3]) for i in (0, 3, 6)]
        made = {"model": model, "calibration": pairs, "evaluation": pairs}
        made["forward"] = lambda model, pair: model(pair[0])
        if kind.startswith("weighted"):
            made["weights"] = lambda pair: uneven(len(pair[1]), y[0].numel())
        return made | ({"labels": lambda pair: pair[1]} if labels else {})

    return ModuleTask(make, dtype=dtype)


@cache
def blocks(kind: str, loss: str) -> tuple[dict[str, list[Tensor]], list[float]]:
    """Owner -> its exact Hessian block of each batch's summed loss, (n, n); and sums of weights.

    The loss is written out, with the full model's output held fixed where it is KL.
    """
    task = labelled(kind)
    counts, found = [], {}
    for layer in task.layers:
        if layer.shares is None:
            found[layer.name] = [
                hessian(task, f"{layer.name}.weight", index, loss)
                for index in range(len(task.calibration))
            ]
    for batch in task.calibration:
        assert batch.labels is not None
        w = torch.ones(batch.labels.shape) if batch.weights is None else batch.weights
        counts.append(float((w if batch.scored is None else w[batch.scored]).sum()))
    return found, counts


def hessian(task: ModuleTask, name: str, index: int, loss: str) -> Tensor:
    batch = task.calibration[index]
    x, y = batch.args[0]
    x, y = x.double() if x.is_floating_point() else x, y.reshape(len(y), -1)
    scored = y != IGNORED
    y = y.clamp(min=0)
    W = task.model.get_parameter(name).detach()
    replaced = [name]
    if isinstance(task.model, TiedByMemory) and name == "embed.weight":
        replaced.append("head.weight")

    def logits(w: Tensor) -> Tensor:
        z = functional_call(task.model, dict.fromkeys(replaced, w.reshape(W.shape)), (x,))
        return torch.log_softmax(z if z.dim() == 3 else z[:, None], -1)

    full = logits(W).detach()

    def summed(w: Tensor) -> Tensor:
        log_q = logits(w)
        if loss == "labels":
            each = -log_q.gather(-1, y[..., None])[..., 0]
        else:
            each = (full.exp() * (full - log_q)).sum(-1)
        if batch.weights is not None:
            each = each * batch.weights
        return (each * scored).sum()

    with sdpa_kernel(SDPBackend.MATH):
        H = jacrev(jacrev(summed))(W.flatten())
    assert isinstance(H, Tensor)
    return H.detach()


def measured(
    task: ModuleTask, profiler: Profiler, layers: list[str] | None = None,
    checkpoints: Checkpoints | None = None,
) -> dict[str, Measurement]:  # fmt: skip
    """Layer -> its measurement under ``W3``."""
    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, lambda: None, scratch), scratch)
        pairs = [(la, W3) for la in task.layers if layers is None or la.name in layers]
        (found,) = profiler.measure(subject, pairs, checkpoints or NoCheckpoints())
        return {m.layer: m for m in found}


def squared_change(task: ModuleTask, name: str) -> float:
    builder = Builder(task.model, task.layers, lambda: None)
    W = adapter_of(task.module(name)).matrix(task.module(name))
    dW = dequantize(builder.quantized(name, W3).weight, W.dtype) - W
    return float(dW.square().sum())


@pytest.mark.parametrize("kind", list(MODELS))
def test_kl_traces_approach_the_exact_ones(kind: str) -> None:
    found, _ = blocks(kind, "kl")
    probes = 100
    got = measured(labelled(kind), Hutchinson(until=1e-9, probes=probes))
    for name, of_batches in found.items():
        m = got[name]
        assert m.vectors["probes"].tolist() == [probes] * 3
        for H, trace, noise in zip(of_batches, m.vectors["trace"], m.vectors["noise"], strict=True):
            # a probe of signs has variance 2 (‖G‖² - Σ G_ii²) of some G with H's eigenvalues: at
            # most 2 ‖H‖². Five sigma, over some 70 comparisons
            sigma = float((2 * H.square().sum() / probes) ** 0.5)
            assert trace == pytest.approx(float(H.trace()), abs=5 * sigma)
            # the spread of 100 probes, heavier-tailed than normal ones, knows it to about a third
            assert noise**0.5 < 1.33 * sigma


@pytest.mark.parametrize("kind", list(MODELS))
def test_traces_of_the_labels_loss_approach_the_exact_ones(kind: str) -> None:
    found, _ = blocks(kind, "labels")
    got = measured(labelled(kind), Hutchinson(loss="labels", until=1e-9, probes=100))
    for name, of_batches in found.items():
        m = got[name]
        traces = [float(H.trace()) for H in of_batches]
        # the noise that 100 probes themselves show, at five sigma
        off = np.abs(m.vectors["trace"] - traces) / np.sqrt(m.vectors["noise"])
        assert off.max() < 5, (name, off)


def test_labels_and_kl_differ_where_the_model_is_not_piecewise_linear() -> None:
    """Else the two tests above could not tell the parts of the trace apart."""
    kl, labels = blocks("mlp", "kl")[0], blocks("mlp", "labels")[0]
    parts = [
        float((b - a).trace() / a.trace())
        for a, b in zip(kl["first"], labels["first"], strict=True)
    ]
    assert max(map(abs, parts)) > 0.05


@pytest.mark.parametrize("loss", ["kl", "labels"])
@pytest.mark.parametrize("kind", list(MODELS))
def test_eigenvalues_are_the_exact_ones(kind: str, loss: str) -> None:
    found, _ = blocks(kind, loss)
    got = measured(labelled(kind), Eigen(loss=loss, until=1e-7, iterations=2000))
    for name, of_batches in found.items():
        top = [float(torch.linalg.eigvalsh(H)[-1]) for H in of_batches]
        # steps that change by 1e-7 may have 1e-7 / (1 - ρ²) to go, ρ the ratio to the next
        # eigenvalue in size: 1e-3 up to ρ = 0.99995
        assert got[name].vectors["eigenvalue"].tolist() == pytest.approx(top, rel=1e-3)


def test_the_largest_eigenvalue_is_not_the_one_of_largest_size() -> None:
    Q, _ = torch.linalg.qr(
        torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    M = Q @ torch.diag(torch.tensor([-3.0, 2.0, 1.0, 0.5]).double()) @ Q.T
    value, taken = Eigen(until=1e-9, iterations=500)._top(lambda v: M @ v, torch.ones(4).double())
    assert value == pytest.approx(2.0, rel=1e-6)
    assert taken < 1000


@pytest.mark.parametrize("kind", ["attention", "weighted attention"])
@pytest.mark.parametrize("profiler", [Hutchinson(), Eigen()])
def test_sensitivities_are_half_the_curvature_times_the_squared_change(
    profiler: Profiler, kind: str
) -> None:
    task = labelled(kind)
    _, counts = blocks(kind, "kl")
    for name, m in measured(task, profiler).items():
        n = task.module(name).weight.numel() if profiler.name == "hutchinson" else 1  # type: ignore[operator]
        of_batches = m.vectors["trace" if profiler.name == "hutchinson" else "eigenvalue"]
        curvature = of_batches.sum() / n / sum(counts)
        expected = 0.5 * curvature * squared_change(task, name)
        assert m.values["kl"].value == pytest.approx(expected, rel=1e-6)
        assert m.values["kl"].samples == 8


@pytest.mark.parametrize("profiler", [Hutchinson(), Hutchinson(loss="labels"), Eigen()])
@pytest.mark.parametrize("kind", ["tied", "tied by memory"])
def test_a_shared_tensor_counts_once(kind: str, profiler: Profiler) -> None:
    task = labelled(kind)
    assert next(la for la in task.layers if la.name == "head").shares == "embed"
    got = measured(task, profiler)
    (value,) = got["head"].values.values()
    assert (value.value, value.stderr) == (0.0, 0.0)
    (value,) = got["embed"].values.values()
    assert value.value > 0
    alone = measured(task, profiler, ["head"])
    assert alone["head"].values == got["head"].values


def test_settled_layers_take_no_more_probes() -> None:
    profiler = Hutchinson(until=0.2, probes=500)
    got = measured(labelled("conv"), profiler)
    table = profiler.tables(got.values(), list(got), [str(W3)])["kl"]
    taken = np.concatenate([m.vectors["probes"] for m in got.values()])
    assert len(set(taken.tolist())) > 1
    assert taken.max() == table.notes["probes"] < 500
    # each of three batches may be off by √3 as much; their traces are not equal, which costs a bit
    assert table.notes["probe_error"] < 0.25


@pytest.mark.parametrize("profiler", [Hutchinson(loss="labels"), Eigen(loss="labels")])
def test_the_labels_loss_of_a_pair_does_not_depend_on_the_others(profiler: Profiler) -> None:
    task = labelled("mlp")
    together, alone = measured(task, profiler), measured(task, profiler, ["second"])
    assert alone["second"].values["nll"].value == pytest.approx(
        together["second"].values["nll"].value, rel=1e-9
    )


class Killed:
    """Checkpoints of which the batch ``at`` is never finished."""

    def __init__(self, at: int | None) -> None:
        self.parts: dict[int, dict[str, NDArray[Any]]] = {}
        self.at = at

    def load(self) -> dict[int, dict[str, NDArray[Any]]]:
        return dict(self.parts)

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        if index == self.at:
            raise KeyboardInterrupt
        assert index not in self.parts
        self.parts[index] = dict(arrays)


@pytest.mark.parametrize("profiler", [Hutchinson(loss="labels"), Eigen(loss="labels", until=0.1)])
def test_a_killed_pass_ends_with_the_same_numbers(profiler: Profiler) -> None:
    task, kept = labelled("mlp"), Killed(at=1)
    with pytest.raises(KeyboardInterrupt):
        measured(task, profiler, checkpoints=kept)
    kept.at = None
    resumed, straight = measured(task, profiler, checkpoints=kept), measured(task, profiler)
    assert {n: m.values for n, m in resumed.items()} == {n: m.values for n, m in straight.items()}


@pytest.mark.parametrize("calls", [1, 2, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("profiler", [Hutchinson(loss="labels"), Eigen()])
def test_the_model_is_bit_identical_after_an_exception(
    profiler: Profiler, error: type[BaseException], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = labelled("attention")
    task.model.train()
    task.model.get_parameter("q.weight").requires_grad_(False)
    state = {k: v.clone() for k, v in task.model.state_dict().items()}
    flags = {n: p.requires_grad for n, p in task.model.named_parameters()}
    kernels = torch.backends.cuda.flash_sdp_enabled()
    grad, made = torch.autograd.grad, 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        if made == calls:
            raise error
        return grad(*args, **kwargs)

    assert task.layers
    monkeypatch.setattr(torch.autograd, "grad", failing)
    with pytest.raises((KeyboardInterrupt, ModelError, RuntimeError)):
        measured(task, profiler)
    assert made >= calls  # more, to find out which layers are cut off
    assert all(torch.equal(v, state[k]) for k, v in task.model.state_dict().items())
    assert {n: p.requires_grad for n, p in task.model.named_parameters()} == flags
    assert all(p.grad is None for p in task.model.parameters())
    assert all(m.training for m in task.model.modules())
    assert torch.backends.cuda.flash_sdp_enabled() == kernels


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["conv", "attention"])
@pytest.mark.parametrize("profiler", [Hutchinson(), Hutchinson(loss="labels"), Eigen()])
def test_half_precision(profiler: Profiler, kind: str, dtype: str) -> None:
    (metric,) = profiler.tables((), (), ())
    full = measured(labelled(kind, "float32"), profiler)
    for name, m in measured(labelled(kind, dtype), profiler).items():
        assert m.values[metric].value == pytest.approx(full[name].values[metric].value, rel=0.2)


@pytest.mark.parametrize("T", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["conv", "mlp", "attention"])
def test_the_empirical_fisher_is_made_of_the_labels_gradients(kind: str, T: float) -> None:
    """s_i = g_i · ΔW, g_i the gradient of sample i's log-likelihood, one sample at a time."""
    task = labelled(kind)
    got = measured(task, Fisher(temperatures=(T,), probe="empirical"))
    for name, m in got.items():
        module = task.module(name)
        adapter = adapter_of(module)
        W = adapter.matrix(module).clone()
        builder = Builder(task.model, task.layers, lambda: None)
        What = dequantize(builder.quantized(name, W3).weight, W.dtype)
        adapter.assign(module, What)
        quantized = module.weight.detach().clone()  # type: ignore[operator]
        adapter.assign(module, W)
        expected = []
        for batch in task.calibration:
            assert batch.labels is not None
            for i in range(batch.samples):
                z = task.outputs(batch)[i]
                scored = torch.ones(len(z)).bool() if batch.scored is None else batch.scored[i]
                likelihood = torch.log_softmax(z / T, -1)[scored, batch.labels[i][scored]].sum()
                # scores at every temperature are in the nats of T = 1: u = y - p, not (y - p) / T
                (g,) = torch.autograd.grad(T * likelihood, module.weight)  # type: ignore[arg-type]
                dW = quantized - module.weight.detach()  # type: ignore[operator]
                expected.append(float((g * dW).sum()))
        scale = float(np.abs(expected).max())
        # float32 against float64; sums of products of either sign lose some digits
        assert m.vectors[f"s@{T:g}"][0] == pytest.approx(expected, rel=1e-3, abs=1e-4 * scale)


class Rounded(nn.Module):
    """Its first layer's output is rounded, by an operation without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.round(self.before(x)).detach())


class Once(torch.autograd.Function):
    """An operation whose backward pass cannot be differentiated, as that of many fused kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (1 - torch.tanh(x) ** 2)


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(Once.apply(self.before(x)))


def small(model: nn.Module, **more: Any) -> ModuleTask:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    made = {"model": model, "calibration": [x[:2], x[2:]], "evaluation": [x], **more}
    return ModuleTask(lambda: made)


@pytest.mark.parametrize("profiler", [Hutchinson(), Eigen()])
def test_a_layer_that_no_gradient_reaches_is_named(profiler: Profiler) -> None:
    task = small(Rounded())
    with pytest.raises(ModelError, match="no gradient reached layer 'before'"):
        measured(task, profiler)
    assert measured(task, profiler, ["after"])["after"].values["kl"].value > 0


def test_kernels_without_a_second_derivative() -> None:
    task = small(Fused())
    with pytest.raises(ModelError, match=r"without a second derivative: .*fisher"):
        measured(task, Eigen())
    assert measured(task, Hutchinson())["before"].values["kl"].value > 0  # needs the first alone


@pytest.mark.parametrize(
    "profiler", [Hutchinson(loss="labels"), Eigen(loss="labels"), Fisher(probe="empirical")]
)
def test_labels_must_be_there(profiler: Profiler) -> None:
    with pytest.raises(DataError, match="have no labels: give them labels"):
        measured(labelled("mlp", labels=False), profiler)
    with pytest.raises(DataError, match="labels of gaussian outputs"):
        measured(small(MLP(), output="gaussian"), profiler)


@pytest.mark.parametrize("profiler", [Hutchinson(loss="labels"), Eigen(), Eigen(loss="labels")])
def test_a_batch_without_scored_positions_adds_nothing(profiler: Profiler) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    pairs = [(x[:2], torch.tensor([1, 3])), (x[2:], torch.full((2,), IGNORED))]
    more = {"forward": lambda model, pair: model(pair[0]), "labels": lambda pair: pair[1]}
    task = small(MLP(), calibration=pairs, evaluation=pairs, **more)
    for m in measured(task, profiler).values():
        of_batches = m.vectors["trace" if profiler.name == "hutchinson" else "eigenvalue"]
        assert of_batches[1] == 0
        assert m.vectors["count"].tolist() == [2, 0]
        assert all(np.isfinite(v.value) for v in m.values.values())


@pytest.mark.parametrize("profiler", [Hutchinson(until=1e-9, probes=400), Eigen(until=1e-6)])
def test_gaussian_outputs(profiler: Profiler) -> None:
    """A linear layer's block is x xᵀ for each output: trace and eigenvalue in closed form."""
    task = small(nn.Sequential(nn.Linear(6, 3)), output="gaussian")
    (m,) = measured(task, profiler).values()
    for index, batch in enumerate(task.calibration):
        G = (batch.args or tuple(batch.kwargs.values()))[0]
        G = G.T @ G
        if profiler.name == "eigen":
            top = float(torch.linalg.eigvalsh(G)[-1])
            assert m.vectors["eigenvalue"][index] == pytest.approx(top, rel=1e-3)
        else:  # √(2 ‖H‖² / probes) is at most 7 % of the trace of a sum of two: three sigma
            assert m.vectors["trace"][index] == pytest.approx(3 * float(G.trace()), rel=0.21)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Hutchinson, {"loss": "mse"}, "loss 'mse': choose from kl, labels"),
        (Hutchinson, {"until": 0.0}, "until 0.0: give a relative error above 0"),
        (Hutchinson, {"probes": 1}, "1 probes: allow 2 at least"),
        (Eigen, {"loss": "mse"}, "loss 'mse': choose from kl, labels"),
        (Eigen, {"until": -1.0}, "until -1.0: give a relative change above 0"),
        (Eigen, {"iterations": 1}, "1 iterations: allow 2 at least"),
        (Fisher, {"probe": "empirical", "draws": 2}, "2 draws of the empirical probe: use 1"),
    ],
)
def test_settings_are_checked(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        kind(**settings)


@pytest.mark.parametrize("kind", [Hutchinson, Eigen])
@pytest.mark.parametrize("loss", ["kl", "labels"])
def test_tables_of_either_loss_are_made_again(kind: Any, loss: str) -> None:
    metric = {"kl": "kl", "labels": "nll"}[loss]
    values = {metric: Estimate(0.5, 0.1, 4)}
    recorded = [Measurement(kind.name, "", "a", "w4", values)]
    assert kind.reader(recorded) == kind(loss=loss)
    (table,) = kind.reader(recorded).tables(recorded, ["a"], ["w4"]).values()
    assert (table.metric, table.at("a", "w4")) == (metric, 0.5)
