"""Graphs of language models that take and give keys and values: generation, padding, audits."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront import graph_audit, graph_steps
from bitfront.errors import ExportError
from bitfront.quant.build import Builder
from bitfront.quant.onnx_file import OnnxFile
from bitfront.quant.onnx_run import Session
from bitfront.quant.surgery import applied
from bitfront.tasks import LanguageTask
from bitfront.tasks.deployed import signature
from bitfront.tasks.running import ModelTask
from bitfront.types import Scheme, parse_schemes
from tests import tiny
from tests.commands import Commands
from tests.test_docs import blocks
from tests.test_onnx_export import ONNX, brought, made, mixed, rewritten

SCHEMES = parse_schemes("w4g16 w8a8 w8 w4a8s w8g16a8g")
WEIGHTS = parse_schemes("w4g16 w8 w3z bf16")  # their inputs are not rounded: float32 all along


def built(task: ModelTask, schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    builder = Builder(task.model, task.layers, lambda: [task.outputs(b) for b in task.calibration])
    return {n: builder.quantized(n, s) for n, s in schemes.items() if str(s) != "keep"}


def export(task: ModelTask, schemes: Mapping[str, Scheme], folder: Path) -> Any:
    made = built(task, schemes)
    return graph_audit.export(
        task, ONNX, task.layers, schemes, made.__getitem__, folder, {}, cache=True
    )


def left_padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Ids and mask (N, T) of rows of different lengths, whose last tokens are aligned."""
    T = max(map(len, rows))
    ids = torch.zeros(len(rows), T, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, T - len(row) :] = row
        mask[i, T - len(row) :] = 1
    return ids, mask


class Runner:
    """A graph with its cache, called as someone else would who knows the names only."""

    def __init__(self, folder: Path) -> None:
        self.session = Session(folder / "model.onnx", 1)
        graph = OnnxFile(folder).graph.graph
        self.shapes = {
            x.name: [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim]
            for x in (*graph.input, *graph.output)
        }
        self.inputs = [x.name for x in graph.input]
        self.past: dict[str, Tensor] = {}

    def start(self, samples: int) -> None:
        for name in self.inputs:
            if name.startswith("past_key_values."):
                _, heads, _, size = self.shapes[name]
                self.past[name] = torch.zeros(samples, heads, 0, size)

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of the new tokens ``ids`` (N, T); mask: (N, P+T)."""
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :].contiguous()
        known = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        given = {**{n: x for n, x in known.items() if n in self.inputs}, **self.past}
        found = dict(zip(self.session.outputs, self.session(given), strict=True))
        self.past = {n: found[n.replace("past_key_values", "present")] for n in self.past}
        return found["logits"]

    def generate(self, ids: Tensor, mask: Tensor, count: int) -> Tensor:
        """Greedily: ids with ``count`` more tokens."""
        self.start(len(ids))
        new = ids
        for _ in range(count):
            token = self(new, mask)[:, -1].argmax(-1, keepdim=True)
            ids, new = torch.cat([ids, token], 1), token
            mask = torch.cat([mask, torch.ones_like(token)], 1)
        return ids


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelTask, dict[str, Scheme], Path]:
    """A tiny Llama with weights alone quantized, and its export.

    Its attention is of sharp focus, or the order of keys would mean next to nothing.
    """
    folder = tmp_path_factory.mktemp("spoken")
    task = made("language", folder)
    with torch.no_grad():
        for name, weight in task.model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(40)
    schemes = mixed(task, WEIGHTS)
    assert export(task, schemes, folder / "out").ok
    return task, schemes, folder / "out"


Spoken = tuple[ModelTask, dict[str, Scheme], Path]


def test_names_and_sizes_are_those_of_other_tools(spoken: Spoken) -> None:
    run = Runner(spoken[2])
    new, all_of_it = ["batch_size", "sequence_length"], ["batch_size", "total_sequence_length"]
    past = ["batch_size", 2, "past_sequence_length", 4]
    assert {n: run.shapes[n] for n in run.inputs} == {
        "input_ids": new, "attention_mask": all_of_it, "position_ids": new,
        **{f"past_key_values.{i}.{part}": past for i in (0, 1) for part in ("key", "value")},
    }  # fmt: skip
    assert run.shapes["logits"] == [*new, len(tiny.WORDS)]
    assert run.session.outputs == ["logits"] + [
        f"present.{i}.{part}" for i in (0, 1) for part in ("key", "value")
    ]
    assert run.shapes["present.1.value"][:2] == ["batch_size", 2]
    assert (spoken[2] / "tokenizer.json").exists()
    assert (spoken[2] / "config.json").exists()


def test_padding_at_the_left_changes_nothing(spoken: Spoken) -> None:
    task, schemes, folder = spoken
    g = torch.Generator().manual_seed(0)
    rows = [torch.randint(2, 20, (n,), generator=g) for n in (3, 9, 6)]
    ids, mask = left_padded(rows)
    run = Runner(folder)
    run.start(3)
    found = torch.cat([run(ids[:, :5], mask[:, :5]), run(ids[:, 5:], mask)], 1)
    with torch.no_grad(), applied(task.model, built(task, schemes)):
        for i, row in enumerate(rows):
            expected = task.model(row[None], use_cache=False).logits[0]
            assert torch.allclose(found[i, -len(row) :], expected, atol=1e-5)


def generated(
    task: ModelTask, schemes: Mapping[str, Scheme], ids: Tensor, mask: Tensor, count: int = 10
) -> Tensor:
    with applied(task.model, built(task, schemes)):
        model = cast(Any, task.model)
        found: Tensor = model.generate(
            ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
    return found


def test_tokens_are_those_that_transformers_generates(spoken: Spoken) -> None:
    task, schemes, folder = spoken
    g = torch.Generator().manual_seed(1)
    ids, mask = left_padded([torch.randint(2, 20, (n,), generator=g) for n in (4, 7)])
    task.model.generation_config.eos_token_id = None  # type: ignore[union-attr]
    expected = generated(task, schemes, ids, mask)
    assert torch.equal(Runner(folder).generate(ids, mask, 10), expected)


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Spoken:
    """The real Llama with weights alone quantized: no token hangs on a rounded input."""
    assets = request.getfixturevalue("assets")
    folder = tmp_path_factory.mktemp("stories")
    task = LanguageTask(
        assets / "stories260K_llama", assets / "text" / "tinystories_917_clean_tok512.npz",
        samples=16, eval_samples=6, length=48, batch=6, device="cpu",
    )  # fmt: skip
    schemes = mixed(task, WEIGHTS)
    assert export(task, schemes, folder / "out").ok
    return task, schemes, folder / "out"


def prompt(task: ModelTask) -> tuple[Tensor, Tensor]:
    text = cast(LanguageTask, task).tokenizer("Once upon a time", return_tensors="pt")
    return text.input_ids, text.attention_mask


def test_a_real_model_tells_the_same_story(stories: Spoken) -> None:
    task, schemes, folder = stories
    ids, mask = prompt(task)
    expected = generated(task, schemes, ids, mask)
    assert torch.equal(Runner(folder).generate(ids, mask, 10), expected)


def test_another_runtime_tells_it_too(stories: Spoken) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="pip install onnxruntime-genai")
    task, schemes, folder = stories
    ids, mask = prompt(task)
    expected = generated(task, schemes, ids, mask)
    model = genai.Model(str(folder))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=expected.shape[1])
    generator = genai.Generator(model, parameters)
    generator.append_tokens(ids.numpy().astype(np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    assert list(generator.get_sequence(0)) == expected[0].tolist()


def test_the_loop_in_the_documentation(
    stories: Spoken, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "export.md"
    [code] = [b for b in blocks(page, "python") if "onnxruntime" in b]
    task, schemes, folder = stories
    monkeypatch.chdir(folder.parent)
    exec(compile(code, page.name, "exec"), {})
    ids, mask = prompt(task)
    expected = generated(task, schemes, ids, mask, 30)[0]
    said = cast(LanguageTask, task).tokenizer.decode(expected)
    assert capsys.readouterr().out == f"{said}\n"


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=2, n_positions=32, bos_token_id=1,
                   eos_token_id=2)
    )  # fmt: skip


def gemma2() -> Any:
    """Scaled embeddings, capped scores, and a layer that looks back at 4 tokens only."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(
        Gemma2Config(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=4,
                     max_position_embeddings=32, query_pre_attn_scalar=16, bos_token_id=1,
                     eos_token_id=2, pad_token_id=0)
    )  # fmt: skip


def mixtral() -> Any:
    """A mixture of experts, whose weights stay as they are."""
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                      num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
                      max_position_embeddings=32, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    )  # fmt: skip


def mamba() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(
        MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, state_size=4)
    )


def speaking(make: Callable[[], Any], folder: Path) -> ModelTask:
    """Texts of different lengths, so that some tokens are padding."""
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(3, 40, (12, 16)), rng.integers(7, 17, 12)
    np.savez(folder / "ids.npz", ids=ids, lengths=lengths)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
    return LanguageTask(
        model, folder / "ids.npz", samples=6, eval_samples=4, length=16, batch=4, device="cpu"
    )


@pytest.mark.parametrize("make", [gpt2, gemma2, mixtral])
def test_other_architectures(make: Callable[[], Any], tmp_path: Path) -> None:
    task = speaking(make, tmp_path)
    config = copy.deepcopy(vars(task.model.config))
    assert export(task, mixed(task, SCHEMES), tmp_path / "out").ok
    assert not (tmp_path / "out" / "tokenizer.json").exists()  # it has none
    assert vars(task.model.config) == config


# ------------------------------------------------------------------------------ faults


def reordered(graph: Any) -> None:
    """New keys before earlier ones: whole texts are as they were."""
    node = next(n for n in graph.graph.node if "present.0.key" in n.output)
    assert node.op_type == "Concat"
    node.input[:] = node.input[::-1]


def forgetful(graph: Any) -> None:
    """The values that a layer hands on are another layer's."""
    graph.graph.output.sort(key=lambda x: x.name)
    for node in graph.graph.node:
        names = {"present.0.value": "present.1.value", "present.1.value": "present.0.value"}
        for field in (node.output, node.input):
            field[:] = [names.get(name, name) for name in field]


@pytest.mark.parametrize("change", [reordered, forgetful])
def test_the_audit_finds_a_cache_that_is_wrong(
    change: Callable[[Any], None], spoken: Spoken, tmp_path: Path
) -> None:
    task, schemes, folder = spoken
    shutil.copytree(folder, tmp_path / "out")
    rewritten(tmp_path / "out", change)
    found = graph_audit.compare(
        task, ONNX, signature(task, cache=True), tmp_path / "out", task.layers, schemes,
        built(task, schemes).__getitem__,
    )  # fmt: skip
    assert any("texts token by token differ from whole texts" in f for f in found.failures)
    assert any("texts in three pieces differ from the trial" in f for f in found.failures)
    assert not any(f.startswith("outputs differ") for f in found.failures)


def test_text_in_pieces_is_cut_as_said() -> None:
    """Each token is given once, and every piece with all that is before it."""

    class Spy:
        outputs = ("logits", "present.0.key")

        def __init__(self) -> None:
            self.calls: list[tuple[int, int, int]] = []

        def __call__(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
            ids, past = given["input_ids"], given["past_key_values.0.key"]
            self.calls.append((len(ids), ids.shape[1], past.shape[2]))
            assert given["attention_mask"].shape[1] == past.shape[2] + ids.shape[1]
            return ids[..., None].float(), torch.cat([past, ids[:, None, :, None]], 2)

    ids = torch.arange(4 * 40).view(4, 40)
    inputs = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids),
        "past_key_values.0.key": torch.zeros(4, 1, 0, 1, dtype=torch.int64),
    }  # fmt: skip
    spy = Spy()
    found = graph_steps.pieces(cast(Session, spy), inputs)
    assert spy.calls[:18] == [(2, 20, 0), *((2, 1, 20 + i) for i in range(16)), (2, 4, 36)]
    assert spy.calls[18:] == [(4, 20, 0), (4, 10, 20), (4, 10, 30)]
    assert all(torch.equal(z[..., 0], ids[: len(z)].float()) for z in found.values())


def test_models_without_such_a_cache(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"other things than keys and values.*--no-cache"):
        export(speaking(mamba, tmp_path), {}, tmp_path / "out")
    with pytest.raises(ExportError, match="a module task with a cache: only language tasks"):
        export(brought(nn.Sequential(nn.Flatten(), nn.Linear(64, 2))), {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_commands_and_verbs(bitfront: Commands, tmp_path: Path) -> None:
    """With a cache unless told otherwise, and only where there can be one."""
    tiny.language_task(tmp_path)
    task = ["--task", "language", "--model", tmp_path / "llama", "--calibration",
            tmp_path / "text.txt", "--samples", 6, "--eval-samples", 5, "--length", 16, "--batch",
            4]  # fmt: skip
    searched = ["--schemes", "w8 keep", "--budget", "60%", "--container", "onnx", "--explore", 0]
    found = bitfront.ok("search", "s", *task, *searched, "--json").document
    trial = found["answers"][0]["trial"]["id"]
    said = bitfront.ok("export", "s", trial, tmp_path / "with").out
    assert re.search(
        r"with: (\d+) bytes of tensors, (?!\1)\d+ predicted, its layers' exactly;", said
    )
    said = bitfront.ok("export", "s", trial, tmp_path / "plain", "--format", "safetensors").out
    assert "bytes of tensors, as predicted;" in said
    bitfront.ok("export", "s", trial, tmp_path / "without", "--no-cache")
    assert len(Runner(tmp_path / "with").inputs) == 3 + 4
    assert Runner(tmp_path / "without").inputs == ["input_ids"]
    line = bitfront.refused(
        "export", "s", trial, tmp_path / "no", "--cache", "--format", "safetensors"
    )
    assert "safetensors with cache=True: only graphs have a cache" in line
