"""BOS-aware schemes do what they are for: the other tokens are spared the first one's range."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bitfront
from bitfront.errors import ModelError
from bitfront.quant.build import Builder
from bitfront.quant.suitability import takes
from bitfront.quant.surgery import applied
from bitfront.scratch import Scratch
from bitfront.sensitivity import PROFILERS, NoCheckpoints, Subject
from bitfront.tasks import ModuleTask
from bitfront.types import Layer, Scheme
from tests.diffusion import task


class Reader(nn.Module):
    """Keys and values of a CLIP text encoder's last but one states, as SDXL reads them.

    A token's own vector reaches these states by the residual stream, so a large one stays large.
    """

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModel

        self.encoder: nn.Module = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                num_attention_heads=4, max_position_embeddings=16, bos_token_id=0, eos_token_id=1,
                pad_token_id=1,
            )
        )  # fmt: skip
        self.to_k, self.to_v = (nn.Linear(32, 24, bias=False) for _ in range(2))
        table = self.encoder.get_parameter("embeddings.token_embedding.weight")
        nn.init.normal_(table)
        with torch.no_grad():
            table[0, 5] = 800  # MixDQ: over 800 in SDXL-turbo, and 10 to 15 at others

    def read(self, ids: Tensor) -> Tensor:
        states: tuple[Tensor, ...] = self.encoder(ids, output_hidden_states=True).hidden_states
        return states[-2]

    def forward(self, ids: Tensor) -> Tensor:
        h = self.read(ids)
        return torch.cat([self.to_k(h), self.to_v(h)], -1)


@pytest.fixture(scope="module")
def reader() -> Reader:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Reader().eval()


def prompts() -> Tensor:
    ids = torch.randint(2, 60, (8, 16), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 0
    return ids


def of_reader(reader: Reader) -> ModuleTask:
    ids = prompts()
    return ModuleTask(
        lambda: {"model": reader, "calibration": [ids[:4], ids[4:6]], "evaluation": [ids[6:]]},
        device="cpu",
    )


@pytest.fixture
def subject(reader: Reader) -> Iterator[Subject]:
    task = of_reader(reader)

    def run() -> None:
        with torch.no_grad():
            for batch in task.calibration:
                task.outputs(batch)

    with Scratch() as scratch:
        yield Subject(task, Builder(task.model, task.layers, run, scratch), scratch)


def test_other_tokens_keep_their_precision_and_the_first_its_value(
    reader: Reader, subject: Subject
) -> None:
    ids = prompts()
    with torch.no_grad():
        h, full = reader.read(ids), reader(ids)
    assert h[:, 0].abs().max() > 150 * h[:, 1:].abs().max()
    assert torch.equal(h[:, 0], h[:1, 0].expand(8, -1)), "the first token sees no other"
    error, output = {}, {}
    for text in ("w8", "w8a8", "w8a8b", "w8a8s", "w8a8sb"):
        scheme = Scheme.parse(text)
        taken: list[Tensor] = []
        layers = {name: subject.builder.quantized(name, scheme) for name in ("to_k", "to_v")}
        with torch.no_grad(), applied(reader, layers):
            handle = reader.to_k.register_forward_hook(lambda _, x, __, to=taken: to.append(x[0]))
            output[text] = reader(ids)
            handle.remove()
        if scheme.activation is None or scheme.activation.bos:
            assert torch.equal(taken[0][:, 0], h[:, 0])
        change = (output[text] - full)[:, 1:].double()
        error[text] = float(change.square().sum() / full[:, 1:].double().square().sum())
    # one step for 800 and for 4: every other token is rounded to nearly nothing
    assert error["w8a8s"] > 0.5
    assert error["w8a8sb"] < 1e-3 * error["w8a8s"]
    # a step for each token never had to cover the first
    assert torch.equal(output["w8a8b"][:, 1:], output["w8a8"][:, 1:])
    for text in ("w8a8b", "w8a8sb"):
        assert torch.equal(output[text][:, 0], output["w8"][:, 0])
    assert not torch.equal(output["w8a8s"][:, 0], output["w8"][:, 0])


@pytest.mark.parametrize("name", ["mse", "fisher", "perturb"])
def test_profilers_see_it(name: str, subject: Subject) -> None:
    layers = [la for la in subject.task.layers if la.name in ("to_k", "to_v")]
    pairs = [(la, Scheme.parse(s)) for la in layers for s in ("w8a8s", "w8a8sb", "w8")]
    profiler = PROFILERS[name]()
    measured = [m for part in profiler.measure(subject, pairs, NoCheckpoints()) for m in part]
    schemes = ["w8a8s", "w8a8sb", "w8"]
    table = next(iter(profiler.tables(measured, [la.name for la in layers], schemes).values()))
    for layer in table.layers:
        assert table.at(layer, "w8a8sb") < 0.1 * table.at(layer, "w8a8s")


@pytest.mark.parametrize("name", ["mse", "fisher", "perturb"])
@pytest.mark.parametrize("text", ["w8a8b", "w8a8sb"])
def test_layers_without_tokens_are_named(name: str, text: str) -> None:
    """Where discovery could not know: the batch that it watched had tokens."""
    layer = nn.Linear(8, 5)
    x = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))
    task = ModuleTask(
        lambda: {"model": nn.Sequential(layer), "calibration": [x, x[:, 0]], "evaluation": [x]},
        device="cpu",
    )

    def run() -> None:
        for batch in task.calibration:
            task.outputs(batch)

    with Scratch() as scratch:
        subject = Subject(task, Builder(task.model, task.layers, run, scratch), scratch)
        pairs = [(la, Scheme.parse(text)) for la in task.layers]
        with pytest.raises(ModelError, match="layer '0' is to keep the first token of its input"):
            list(PROFILERS[name]().measure(subject, pairs, NoCheckpoints()))
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Layer("a", "linear", 4, 4), None),
        (Layer("a", "hf_conv1d", 4, 4), None),
        (Layer("a", "linear", 4, 4, flat=True), "its inputs are single vectors"),
        (Layer("a", "conv1d", 4, 4), "the input of a conv1d has none"),
        (Layer("a", "conv_transpose2d", 4, 4), "the input of a conv_transpose2d has none"),
        (Layer("a", "embedding", 4, 4), "indices"),
    ],
    ids=lambda case: "" if isinstance(case, str | None) else f"{case.kind}-{case.flat}",
)
def test_only_layers_that_are_given_tokens_take_it(layer: Layer, reason: str | None) -> None:
    for text in ("w8a8b", "w8a8sb"):
        found = takes(layer, Scheme.parse(text))
        assert found is None if reason is None else reason in str(found)
        assert layer.kind == "embedding" or takes(layer, Scheme.parse(text[:4])) is None


def test_a_search_over_a_pipeline_with_its_text_encoder(tmp_path: Path) -> None:
    """Under guidance: ``to_k`` reads prompts and empty ones in one call, all with BOS first."""
    found = task(tmp_path, "by prompt", text_encoders=True)
    schemes = ["w4a8s", "w4a8sb", "w8a8s", "w8a8sb"]
    with bitfront.open_study("sd", found, tmp_path / "b.db") as study:
        table = bitfront.profile(study, schemes, "mse")["mse"]
        costs = bitfront.cost(study, schemes)
        [answer] = bitfront.search(
            study, schemes, ["6bpw"], profiler="mse", max_measurements=0, explore=0
        )
    texts = [n for n in table.layers if n.startswith("text_encoder.encoder") or "attn2.to_k" in n]
    vectors = [n for n in table.layers if "time_emb" in n]
    assert texts
    assert vectors
    for name in texts:
        assert all(np.isfinite(table.at(name, s)) for s in schemes)
    for name in vectors:
        assert [np.isnan(table.at(name, s)) for s in schemes] == [False, True, False, True]
        assert costs.reasons[name, "w8a8sb"].endswith("its inputs are single vectors")
    for resource in ("bytes", "bits", "stored_bits", "bops"):
        plain, bos = (costs.tables[resource][:, schemes.index(s)] for s in ("w8a8s", "w8a8sb"))
        assert np.array_equal(plain[~np.isnan(bos)], bos[~np.isnan(bos)])
    assert {"w4a8sb", "w8a8sb"} & {answer.trial.schemes[name] for name in texts}
    assert answer.trial.metrics["kl"].value > 0
