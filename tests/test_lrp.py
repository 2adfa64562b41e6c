"""Relevance through functions and whole models, the rules' grammar, and the profiler's sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bitfront.errors import InvalidInput, ModelError, UnknownName
from bitfront.quant.build import Builder
from bitfront.scratch import Scratch
from bitfront.sensitivity import NoCheckpoints, Subject
from bitfront.sensitivity.lrp import LRP, relevances
from bitfront.sensitivity.lrp_composite import FAMILIES, family_of, parse_composite
from bitfront.sensitivity.lrp_operations import Operations
from bitfront.sensitivity.lrp_propagation import propagating
from bitfront.sensitivity.mse import MSE
from bitfront.sensitivity.stability import scaled_ratio_estimate
from bitfront.tasks import ModuleTask
from bitfront.types import Scheme
from tests.small_tasks import TASKS, attentive, convolutional

RULES = parse_composite(FAMILIES["transformer"])


def r(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def through(f: Callable[..., Tensor], *inputs: Tensor, rules: str = "") -> tuple[Tensor, ...]:
    """R at the output, drawn at random, and then at each input."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    with Operations(parse_composite(f"{rules} {FAMILIES['transformer']}")):
        y = f(*(leaf.clone() for leaf in leaves))
    R = r(*y.shape, seed=9)
    y.backward(R / y.detach())
    found = [torch.zeros_like(x) if x.grad is None else (x * x.grad).detach() for x in leaves]
    return R, *found


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "f",
    [torch.mul, torch.multiply, Tensor.mul, lambda a, b: a * b, lambda a, b: torch.mul(a, other=b)],
)
def test_factors_share_a_product_equally(f: Callable[..., Tensor]) -> None:
    R, a, b = through(f, r(3, 4), r(3, 4, seed=1))
    close(a, R / 2)
    close(b, R / 2)


def test_a_product_in_place_is_shared_too() -> None:
    def f(a: Tensor, b: Tensor) -> Tensor:
        a *= b
        return a + 0

    R, a, b = through(f, r(3, 4), r(3, 4, seed=1))
    close(a, R / 2)
    close(b, R / 2)


def test_a_square_as_a_product_keeps_relevance() -> None:
    R, a = through(lambda a: a * a, r(3, 4))
    close(a, R)


def test_a_constant_factor_gets_nothing() -> None:
    R, a = through(lambda a: 3 * a * torch.full((4,), 0.5, dtype=torch.float64), r(3, 4))
    close(a, R)


@pytest.mark.parametrize(
    "f",
    [
        torch.matmul, torch.mm, lambda a, b: a @ b,
        lambda a, b: torch.einsum("ik,kj->ij", a, b),
        lambda a, b: torch.bmm(a[None], b[None])[0],
        lambda a, b: torch.addmm(torch.zeros(3, 5, dtype=a.dtype), a, b),
        lambda a, b: F.linear(a, b.T),
    ],
)  # fmt: skip
def test_factors_share_a_matrix_product_equally(f: Callable[..., Tensor]) -> None:
    x, w = r(3, 4), r(4, 5, seed=1)
    R, a, b = through(f, x, w)
    z = x[:, :, None] * w[None]  # (i, k, j)
    parts = z / z.sum(1, keepdim=True) * R[:, None] / 2
    close(a, parts.sum(2))
    close(b, parts.sum(0))


def test_softmax_is_expanded_to_first_order() -> None:
    x = r(3, 4)
    R, found = through(lambda x: torch.softmax(x, -1), x)
    s = torch.softmax(x, -1)
    close(found, x * (R - s * R.sum(-1, keepdim=True)))
    assert not through(lambda x: F.softmax(x, -1) + 0 * x, x, rules="softmax=detach")[1].any()


@pytest.mark.parametrize("rules", ["", "softmax=detach", "matmul=gradient"])
def test_fused_attention_is_attention(rules: str) -> None:
    inputs = r(2, 3, 5, 4), r(2, 3, 5, 4, seed=1), r(2, 3, 5, 4, seed=2)

    def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v

    def named(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query=q, key=k, value=v)

    expected = through(written, *inputs, rules=rules)
    for f in (F.scaled_dot_product_attention, named):
        for found, wanted in zip(through(f, *inputs, rules=rules), expected, strict=True):
            close(found, wanted)


def test_torchs_own_attention_module_is_opened() -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).double().eval().requires_grad_(False)
    W, b = module.in_proj_weight, module.in_proj_bias

    def written(x: Tensor) -> Tensor:
        q, k, v = (x @ W.T + b).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return mixed @ module.out_proj.weight.T + module.out_proj.bias

    x = r(2, 5, 8)
    for weights in (True, False):
        found = through(lambda x, w=weights: module(x, x, x, need_weights=w)[0], x)
        close(found[1], through(written, x)[1])


NORMS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "layer": (
        lambda x, w: F.layer_norm(x, (4,), w, None, 1e-5),
        lambda x, w: (x - x.mean(-1, keepdim=True)) * w,
    ),
    "rms": (lambda x, w: F.rms_norm(x, (4,), w), lambda x, w: x * w),
    "rms by hand": (
        lambda x, w: w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
        lambda x, w: x * w,
    ),
    "rms by powers": (
        lambda x, w: w * (x * torch.pow(x.square().mean(-1, keepdim=True), -0.5)),
        lambda x, w: x * w,
    ),
    "rms by division": (
        lambda x, w: w * (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True))),
        lambda x, w: x * w,
    ),
    "normalize": (lambda x, w: F.normalize(x, dim=-1) * w, lambda x, w: x * w),
    "group": (
        lambda x, w: F.group_norm(x[..., None], 2, w)[..., 0],
        lambda x, w: (x.unflatten(-1, (2, 2)) - x.unflatten(-1, (2, 2)).mean(-1, keepdim=True))
        .flatten(-2) * w,
    ),
    "instance": (
        lambda x, w: F.instance_norm(x[None])[0] * w,
        lambda x, w: (x - x.mean(-1, keepdim=True)) * w,
    ),
}  # fmt: skip


@pytest.mark.parametrize("norm", list(NORMS))
def test_statistics_of_norms_are_constants(norm: str) -> None:
    """Relevance is that of the linear part, whatever it is scaled by; without a shift all of it."""
    f, linear = NORMS[norm]
    x, w = r(3, 4), torch.tensor([0.5, 1.0, -1.0, 2.0], dtype=torch.float64)
    R, found = through(lambda x: f(x, w), x)
    close(found, through(lambda x: linear(x, w), x)[1])
    assert float(found.sum()) == pytest.approx(float(R.sum()), rel=1e-9)


@pytest.mark.parametrize("norm", ["layer", "rms", "group", "normalize"])
def test_norms_give_the_values_that_torch_gives(norm: str) -> None:
    x, w = r(3, 4).requires_grad_(), r(4, seed=3)
    with Operations(RULES):
        found = NORMS[norm][0](x, w)
    close(found, NORMS[norm][0](x, w))


@pytest.mark.parametrize(
    "f",
    [
        F.gelu, F.silu, F.mish, torch.tanh, F.hardswish, F.elu, F.relu6, torch.square, F.relu,
        F.leaky_relu, lambda x: x**3, lambda x: x.tanh_() + 0,
        lambda x: F.silu(x, inplace=True) + 0, lambda x: F.gelu(x, approximate="tanh"),
    ],
)  # fmt: skip
def test_activations_hand_all_relevance_on(f: Callable[..., Tensor]) -> None:
    x = r(3, 40)
    if f in (F.relu, F.relu6, F.hardswish):  # where they are 0 there is none
        x = 3 * x.abs()
    R, found = through(f, x)
    close(found, R)


def test_an_activation_at_zero_has_its_slope() -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    with Operations(RULES):
        F.gelu(x).sum().backward()
    assert x.grad is not None
    close(x.grad, torch.full_like(x, 0.5).detach())


def test_what_no_rule_is_for_is_gradient_times_input() -> None:
    x = r(3, 4)
    R, found = through(torch.sigmoid, x)
    close(found, R * x * (1 - torch.sigmoid(x)))


def network(model: nn.Module, x: Tensor, rules: str) -> tuple[dict[str, Tensor], Tensor]:
    """Relevance of every layer, by name, and of the inputs."""
    found: dict[str, Tensor] = {}
    x = x.clone().requires_grad_()
    with propagating(model, parse_composite(rules), lambda name, R: found.update({name: R})):
        z = model(x)
    z.backward(F.one_hot(z.argmax(-1), z.shape[-1]).to(z))
    assert x.grad is not None
    return found, (x * x.grad).detach()


@pytest.mark.parametrize("rule", ["zplus", "epsilon", "gamma(0.25)"])
def test_relevance_is_conserved_from_layer_to_layer(rule: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.GELU(), nn.AvgPool2d(2),
            nn.Conv2d(8, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5, bias=False),
        ).double().eval()  # fmt: skip
    x = r(1, 3, 6, 6)
    found, inputs = network(model, x, f"conv*={rule} linear=epsilon activation=identity")
    logit = float(model(x).detach().max())
    assert list(found) == ["9", "6", "3", "0"]
    # ε of 1e-6 beside denominators of 1e-3 and more, at each of four layers; epsilon's are nearer 0
    for R in [*found.values(), inputs]:
        assert float(R.sum()) == pytest.approx(logit, rel=1e-2 if rule == "epsilon" else 1e-3)


def test_a_batch_norm_behind_a_layer_is_folded_into_it() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, norm, head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            assert tensor is not None
            tensor.uniform_(0.2, 2.0)
    tail = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head]
    apart = nn.Sequential(conv, norm, *tail).double().eval()
    fused = nn.Sequential(fuse_conv_bn_eval(conv, norm), nn.Identity(), *tail)
    x = r(2, 3, 6, 6)
    one, other = network(apart, x, "*=zplus"), network(fused, x, "*=zplus")
    close(one[1], other[1])
    close(one[0]["0"], other[0]["0"])


class Overwriting(nn.Module):
    """Changes a layer's input in place after the layer ran, or does not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace
        self.stem, self.branch, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        b = self.branch(h)
        h = F.relu(h, inplace=self.inplace)
        return self.head(h + b)


def test_inputs_that_are_overwritten_are_kept() -> None:
    tasks = []
    for inplace in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = Overwriting(inplace)
        data = {"model": model, "calibration": [r(4, 4).float()], "evaluation": [r(4, 4).float()]}
        tasks.append(ModuleTask(lambda data=data: data))
    one, other = (relevances(t, t.calibration[0], RULES)[0] for t in tasks)
    for name, values in one.items():
        assert values == pytest.approx(other[name], rel=1e-6)


def test_an_exception_leaves_no_trace() -> None:
    task = convolutional()
    model = task.model
    model.train()

    def explode(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = model.get_submodule("head").register_forward_hook(explode)
    hooks = [list(m._forward_hooks) for m in model.modules()]
    with pytest.raises(KeyboardInterrupt):
        relevances(task, task.calibration[0], RULES)
    assert [list(m._forward_hooks) for m in model.modules()] == hooks
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    handle.remove()
    x = torch.ones(2, requires_grad=True)
    (x * x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2, 2]  # no mode is left on


def test_composites_round_trip_and_the_first_entry_decides() -> None:
    composite = parse_composite("name:b*=gamma(0.1) first=flat conv*=zplus linear=epsilon")
    assert parse_composite(str(composite)) == composite
    layer = composite.layer
    assert str(layer("blocks.0", "conv2d", first=True)) == "gamma(0.1)"
    assert str(layer("stem", "conv2d", first=True)) == "flat"
    assert str(layer("stem", "conv_transpose1d", first=False)) == "zplus"
    assert str(layer("head", "linear", first=False)) == "epsilon(1e-06)"
    assert composite.operation("softmax") == "gradient"
    with pytest.raises(InvalidInput, match="no relevance rule for hf_conv1d"):
        layer("c", "hf_conv1d", first=False)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("conv2d", "write WHERE=RULE"),
        ("conv4d=zplus", "no place 'conv4d'"),
        ("softmax=half", "choose from gradient, detach"),
        ("linear=zminus", "no relevance rule named 'zminus'"),
        ("linear=gamma(-1)", "give a number from 0"),
    ],
)
def test_rules_that_cannot_be_are_refused(rules: str, message: str) -> None:
    with pytest.raises((InvalidInput, UnknownName), match=message):
        LRP(rules=rules)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UnknownName, match="auto, convolutional, transformer"):
        LRP(family="recurrent")
    with pytest.raises(UnknownName, match="no layer matches"):
        LRP(rules="name:block.*=zplus").composite(convolutional())


def test_families_are_told_by_their_modules() -> None:
    assert family_of(convolutional().model) == "convolutional"
    assert family_of(attentive().model) == "transformer"
    assert family_of(nn.Sequential(nn.Conv2d(3, 4, 2), nn.LayerNorm(4))) == "transformer"


@pytest.mark.parametrize("kind", list(TASKS))
def test_scores_are_shares_of_relevance_times_errors(kind: str) -> None:
    task = TASKS[kind]()
    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, lambda: None, scratch), scratch)
        pairs = [(layer, Scheme.parse(s)) for layer in task.layers for s in ("w2", "w4")]
        (found,) = LRP().measure(subject, pairs, NoCheckpoints())
        (errors,) = MSE().measure(subject, pairs, NoCheckpoints())
    of_all = [relevances(task, batch, LRP().composite(task))[0] for batch in task.calibration]
    whole = np.concatenate([sum(part.values(), np.zeros(1)) for part in of_all])
    for m, e in zip(found, errors, strict=True):
        share = np.concatenate([part[m.layer] for part in of_all]) / whole
        assert m.values["lrp"].value == pytest.approx(share.mean() * e.values["mse"].value)
        assert m.values["lrp"].samples == len(share)


def test_the_standard_error_is_that_of_the_jackknife() -> None:
    rng = np.random.default_rng(0)
    shares, weights = rng.uniform(0.1, 0.3, 400), rng.uniform(1, 2, 400)
    scores = weights * shares * rng.uniform(0.5, 1.5, 400)
    value, stderr = scaled_ratio_estimate(shares, scores, weights)
    kept = ~np.eye(400, dtype=bool)
    left = [shares[k].mean() * scores[k].sum() / weights[k].sum() for k in kept]
    assert value == pytest.approx(shares.mean() * scores.sum() / weights.sum())
    # the two differ by terms of order 1 / N
    assert stderr == pytest.approx(np.sqrt(399) * np.std(left), rel=0.01)


def test_a_layer_that_no_relevance_reaches_is_named() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).detach())

    data = {"model": Detached(), "calibration": [r(4, 4).float()], "evaluation": [r(4, 4).float()]}
    task = ModuleTask(lambda: data)
    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, lambda: None, scratch), scratch)
        with pytest.raises(ModelError, match="no relevance reached layer 'a'"):
            list(LRP().measure(subject, [(task.layers[0], Scheme.parse("w4"))], NoCheckpoints()))


def transformers_model(kind: str, attention: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A tiny random model of transformers and its inputs."""
    import transformers as hf

    ids = {"input_ids": torch.randint(0, 20, (2, 7), generator=torch.Generator().manual_seed(0))}
    own: dict[str, Any] = {"attn_implementation": attention}
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, **own}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "llama":
            config: Any = hf.LlamaConfig(
                **size, vocab_size=20, intermediate_size=24, num_key_value_heads=2
            )  # fmt: skip
            return hf.LlamaForCausalLM(config).eval(), ids
        if kind == "gpt2":
            config = hf.GPT2Config(
                vocab_size=20, n_positions=16, n_embd=16, n_layer=2, n_head=4, bos_token_id=0,
                eos_token_id=0, **own,
            )  # fmt: skip
            return hf.GPT2LMHeadModel(config).eval(), ids
        config = hf.ViTConfig(**size, intermediate_size=24, image_size=8, patch_size=4)
        return hf.ViTForImageClassification(config).eval(), {"pixel_values": r(2, 3, 8, 8).float()}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "vit"])
def test_attention_of_transformers_is_seen_fused_or_written_out(kind: str) -> None:
    results = []
    for attention in ("sdpa", "eager"):
        model, inputs = transformers_model(kind, attention)
        found: dict[str, Tensor] = {}
        with propagating(model, RULES, lambda name, R, f=found: f.update({name: R})):  # type: ignore[misc]
            z = model(**inputs).logits
        z.backward(F.one_hot(z.argmax(-1), z.shape[-1]).to(z))
        results.append(found)
    one, other = results
    assert list(one) == list(other)
    assert len(one) >= 2 * 4 + 1
    for name, R in one.items():
        scale = float(R.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(R, other[name], rtol=0, atol=1e-4 * scale)
