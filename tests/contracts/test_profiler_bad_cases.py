"""What every profiler does with networks that have something wrong, or odd: works, or says what.

Whatever happens, the model is afterwards as it was, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.quant.build import Builder
from bitfront.quant.suitability import takes
from bitfront.scratch import Scratch
from bitfront.sensitivity import PROFILERS, NoCheckpoints, Subject
from bitfront.sensitivity.base import Profiler
from bitfront.sensitivity.eigen import Eigen
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.hutchinson import Hutchinson
from bitfront.sensitivity.perturb import Perturb
from bitfront.tasks import ModuleTask
from bitfront.types import Scheme
from tests import bad_models as bad
from tests.profiling import MEASURING
from tests.small_tasks import TASKS

GRADIENT_FREE = ("perturb", "decoupled", "mse")
SCHEMES = ("w3", "w4a8")

every = pytest.mark.parametrize("name", MEASURING)
of_gradients = pytest.mark.parametrize("name", [n for n in MEASURING if n not in GRADIENT_FREE])


def run(
    profiler: Profiler, task: ModuleTask, schemes: tuple[str, ...] = SCHEMES, layers: str = "*"
) -> Any:
    """(layer, scheme) -> measurement, of the layers that a glob names."""
    parsed = [Scheme.parse(s) for s in schemes]
    wanted = [la for la in task.layers if fnmatchcase(la.name, layers)]
    pairs = [(la, s) for la in wanted for s in parsed if takes(la, s) is None]
    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, lambda: None, scratch), scratch)
        found = [m for part in profiler.measure(subject, pairs, NoCheckpoints()) for m in part]
    assert len(found) == len(pairs)
    return {(m.layer, m.scheme): m for m in found}


def values(profiler: Profiler, task: ModuleTask, schemes: tuple[str, ...] = SCHEMES) -> Any:
    """(layer, scheme) -> value of the profiler's first table."""
    found = run(profiler, task, schemes)
    layers = [layer.name for layer in task.layers]
    table = next(iter(profiler.tables(found.values(), layers, schemes).values()))
    return {pair: table.at(*pair) for pair in found}


@contextmanager
def unchanged(task: ModuleTask) -> Iterator[None]:
    """Odd flags, and a check that they and all else are the same afterwards."""
    model = task.model
    assert task.layers  # looked for while it is in evaluation mode
    model.train()
    for i, p in enumerate(model.parameters()):
        p.requires_grad_(i % 3 > 0)
    before = state_of(model)
    yield
    after = state_of(model)
    assert after.keys() == before.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        assert same, key


def state_of(model: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    state: dict[str, Any] = {k: v.clone() for k, v in model.state_dict().items()}
    for name, module in model.named_modules():
        state[f"{name} training"] = module.training
        state[f"{name} hooks"] = [len(getattr(module, kind)) for kind in hooks]
        state[f"{name} forward"] = "forward" in vars(module)
    for name, p in model.named_parameters():
        state[f"{name} grad"] = (p.requires_grad, p.grad is None, p._backward_hooks is None)
    state["global"] = (
        torch.is_grad_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        len(torch.overrides._get_current_function_mode_stack()),
    )
    return state


def refused(profiler: Profiler, task: ModuleTask, message: str) -> None:
    with unchanged(task), pytest.raises(ModelError, match=message) as caught:
        run(profiler, task)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- no dependence, no gradient


@every
def test_a_layer_that_the_outputs_do_not_depend_on(name: str) -> None:
    """Gradients name it. Measuring finds 0; ``mse`` looks at the layer's own output alone."""
    task, profiler = bad.task_of(bad.Aside), PROFILERS[name]()
    if name not in GRADIENT_FREE:
        refused(
            profiler, task, "^no (gradient|relevance) reached layer 'aside'.*: leave out layers"
        )
        return
    with unchanged(task):
        found = values(profiler, task)
    assert (found["aside", "w3"] == 0) == (name != "mse")
    assert found["first", "w3"] > 0


STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": Tensor.detach,
    "under no_grad": bad.without_gradient,
    "without a backward pass": bad.NoBackward.apply,
}


@pytest.mark.parametrize("step", list(STEPS))
@every
def test_an_operation_without_a_gradient(name: str, step: str) -> None:
    """The first of all layers before it is named, and how many more there are."""
    task, profiler = bad.task_of(lambda: bad.Chain(STEPS[step])), PROFILERS[name]()
    if name in GRADIENT_FREE:
        with unchanged(task):
            assert min(values(profiler, task).values()) > 0
        return
    why = r" \(.*NotImplementedError: .*\)" if step == "without a backward pass" else ""
    refused(profiler, task, f"reached layer 'first' and 1 more{why}: .* profiler without gradients")


@every
def test_an_index_in_the_middle(name: str) -> None:
    task, profiler = bad.task_of(bad.Codes), PROFILERS[name]()
    if name in GRADIENT_FREE:
        found = values(profiler, task)
        assert found["table", "w3"] > 0
        return
    refused(profiler, task, "reached layer 'first' and 1 more: leave out")


@pytest.mark.parametrize(
    "profiler",
    [*(PROFILERS[n]() for n in MEASURING if n not in GRADIENT_FREE), Hutchinson(loss="labels"),
     Eigen(loss="labels"), Fisher(probe="empirical")],
)  # fmt: skip
def test_outputs_without_any_gradient(profiler: Profiler) -> None:
    task = bad.task_of(bad.Chain, forward=lambda model, x: model(x).detach())
    refused(profiler, task, "reached layer 'first' and 3 more: leave out")


@every
def test_inputs_that_are_integers(name: str) -> None:
    ids = torch.randint(9, (12,), generator=torch.Generator().manual_seed(0))
    task = bad.task_of(bad.Tokens, inputs=ids)
    with unchanged(task):
        found = values(PROFILERS[name](), task)
    assert {layer for layer, _ in found} == {layer.name for layer in task.layers}
    assert min(found.values()) > 0


@pytest.mark.parametrize("idle", [True, False])
@every
def test_an_expert_that_gets_nothing_of_a_batch(name: str, idle: bool) -> None:
    task, profiler = bad.task_of(lambda: bad.Routed(idle)), PROFILERS[name]()
    found = run(profiler, task)
    alone = run(profiler, task, layers="experts.1")
    assert alone
    for pair, m in alone.items():
        for value, estimate in m.values.items():
            assert estimate.value == pytest.approx(found[pair].values[value].value, rel=1e-5)


# ---------------------------------------------------------------- NaN


def logarithm(x: Tensor) -> Tensor:
    return torch.log(x - x.detach().amax() - 1)


@every
def test_the_first_module_that_is_not_finite_is_named(name: str) -> None:
    task = bad.spoiled(logarithm)
    place = r"first at module 'step' \(Step\), whose inputs are finite, in calibration batch 0"
    if name == "mse":
        place += ": check the weights"
    refused(PROFILERS[name](), task, f"outputs are not finite, {place}")


def spoiled_when_quantized(step: Callable[[Tensor], Tensor]) -> ModuleTask:
    """A task whose middle is ``step`` as soon as another weight is in the layer before it."""
    task = bad.spoiled(lambda x: torch.tanh(x) if torch.equal(weight, full) else step(x))
    weight = task.model.get_parameter("second.weight")
    full = weight.detach().clone()
    return task


def test_a_quantized_model_that_is_not_finite() -> None:
    task = spoiled_when_quantized(lambda x: x / 0)
    refused(Perturb(), task, "first at module 'step' .* finite, in calibration batch 0: check")


# ---------------------------------------------------------------- half precision


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", list(TASKS))
@every
def test_half_precision_on_the_cpu(name: str, kind: str, dtype: str) -> None:
    """In total near float32's, whatever is measured.

    Numbers have 8 bits in bfloat16, and a weight halfway between two codes may take the other one.
    Single pairs may be further off: measured KL below what rounded outputs resolve is noise.
    """
    full = run(PROFILERS[name](), TASKS[kind](dtype="float32"), ("w2", "w3"))
    found = run(PROFILERS[name](), TASKS[kind](dtype=dtype), ("w2", "w3"))
    for value in set.intersection(*(set(m.values) for m in full.values())):
        expected, got = (
            np.array([m.values[value].value for m in each.values()]) for each in (full, found)
        )
        assert np.isfinite(got).all()
        assert np.abs(got - expected).sum() <= 0.03 * np.abs(expected).sum(), value


# ---------------------------------------------------------------- one module, several calls


@every
def test_a_module_that_runs_thrice_is_scored_once(name: str) -> None:
    found = values(PROFILERS[name](), bad.task_of(bad.Looped))
    assert {layer for layer, _ in found} == {"loop.0", "head"}
    assert min(found.values()) > 0


# ---------------------------------------------------------------- interrupted


@pytest.mark.parametrize("call", [1, 3])
@every
def test_interrupted_in_the_middle_of_a_forward_pass(name: str, call: int) -> None:
    calls = 0

    def step(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return bad.interrupted(x) if calls == call else torch.tanh(x)

    task = bad.spoiled(step)
    with unchanged(task), pytest.raises(KeyboardInterrupt):
        run(PROFILERS[name](), task)


def test_interrupted_while_a_layer_is_quantized() -> None:
    task = spoiled_when_quantized(bad.interrupted)
    with unchanged(task), pytest.raises(KeyboardInterrupt):
        run(Perturb(), task)


@of_gradients
def test_interrupted_in_the_middle_of_a_backward_pass(name: str) -> None:
    task = bad.spoiled(bad.Interrupting.apply)
    with unchanged(task), pytest.raises(KeyboardInterrupt):
        run(PROFILERS[name](), task)
