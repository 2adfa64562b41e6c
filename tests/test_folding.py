"""Batch norms folded into convolutions: which ones, the same outputs, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitfront.errors import ModelError
from bitfront.tasks import ModuleTask, VisionTask, from_recipe
from tests import tiny
from tests.commands import Commands


class Several(nn.Module):
    """Norms of which some follow a convolution that nothing else has to do with."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.own = nn.Conv2d(6, 6, 3, groups=3)
        self.own_norm = nn.BatchNorm2d(6, eps=1e-2, affine=False)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
        self.up_norm = nn.BatchNorm2d(4)
        self.after_relu = nn.Conv2d(4, 4, 1)
        self.after_relu_norm = nn.BatchNorm2d(4)
        self.read_twice = nn.Conv2d(4, 4, 1)
        self.read_twice_norm = nn.BatchNorm2d(4)
        self.called_twice = nn.Conv2d(4, 4, 1)
        self.called_twice_norm = nn.BatchNorm2d(4)
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.shared_norm = nn.BatchNorm2d(4)
        self.tied, self.tied_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.twin = nn.Conv2d(4, 4, 1)
        self.twin.weight = self.tied.weight
        self.line, self.line_norm = nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5)
        self.head, self.head_norm = nn.Linear(5, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(x)
        x = torch.relu(self.up_norm(self.up(self.own_norm(self.own(x)))))
        x = self.after_relu_norm(torch.relu(self.after_relu(x)))
        y = self.read_twice(x)
        x = self.read_twice_norm(y) + y
        x = self.called_twice_norm(self.called_twice(x)) + self.called_twice(x)
        x = self.shared_norm(self.one(x)) + self.shared_norm(self.two(x))
        x = self.tied_norm(self.tied(x)) + self.twin(x)
        return self.head_norm(self.head(self.line_norm(self.line(x.mean(2))).mean(2)))


FOLDED = {"plain.1", "own_norm", "up_norm", "line_norm"}


def task(make: Callable[[], nn.Module], fold_norms: bool = True, dtype: str = "auto") -> ModuleTask:
    """With statistics of norms as training leaves them."""
    x = torch.randn(12, 3, 9, 9, generator=torch.Generator().manual_seed(0))

    def bring() -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = make()
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    for tensor in (*module.parameters(), *module.buffers()):
                        if tensor.is_floating_point():
                            tensor.data.uniform_(0.3, 2)
        return {"model": model.eval(), "calibration": [x[:6]], "evaluation": [x[6:]]}

    return ModuleTask(bring, hold_back=0, fold_norms=fold_norms, dtype=dtype, device="cpu")


def test_norms_that_alone_read_a_convolution_are_folded() -> None:
    folded, plain = task(Several), task(Several, fold_norms=False)
    left = {
        name
        for name, module in folded.model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    norms = {
        name
        for name, module in plain.model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    assert norms - left == FOLDED
    assert all(isinstance(folded.model.get_submodule(n), nn.Identity) for n in FOLDED)
    for batch in (plain.calibration[0], plain.evaluation[0]):
        with torch.no_grad():
            a, b = folded.outputs(batch), plain.outputs(batch)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
    assert "4 batch norms are folded into convolutions" in folded.notes
    assert not any("folded" in note for note in plain.notes)
    assert {layer.name for layer in folded.layers} == {layer.name for layer in plain.layers}


def test_it_is_part_of_the_fingerprint_and_the_live_model_stays() -> None:
    live = Several().eval()
    plain, folded = (task(lambda: live, fold_norms=f) for f in (False, True))
    assert folded.model is not live
    assert isinstance(live.own_norm, nn.BatchNorm2d)
    assert plain.model is live
    one, other = folded.fingerprint(), plain.fingerprint()
    assert one["folded"] == "4 batch norms"
    assert "folded" not in other
    assert one["weights"] != other["weights"]


class Alone(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.relu(self.conv(x))).mean((2, 3)))


class Asking(Alone):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.sum()) > 0 else -x)


@pytest.mark.parametrize(
    ("make", "dtype", "line"),
    [
        (lambda: Alone(False), "auto", "no batch norm of the Alone directly follows a convolution"),
        (lambda: Alone(True), "auto", "no batch norm of the Alone directly follows a convolution"),
        (lambda: Asking(True), "auto", "torch cannot trace a Asking to fold its norms: "),
        (
            Several,
            "bfloat16",
            "folding 4 batch norms changes outputs by up to .* use a wider dtype",
        ),
    ],
)
def test_what_is_refused(make: Callable[[], nn.Module], dtype: str, line: str) -> None:
    with pytest.raises(ModelError, match=line) as refused:
        task(make, dtype=dtype)
    assert "--fold-norms" in str(refused.value)


def test_a_vision_task_is_made_again_from_its_recipe(tmp_path: Path) -> None:
    tiny.vision_task(tmp_path)
    made = VisionTask(
        f"{tmp_path / 'net.py'}:Net", tmp_path / "images.npz", arguments={"width": 4},
        weights=tmp_path / "net.pt", samples=12, batch=5, fold_norms=True, device="cpu",
    )  # fmt: skip
    again = from_recipe(made.recipe())
    assert again.fingerprint() == made.fingerprint()
    assert made.fingerprint()["folded"] == "1 batch norms"
    recipe = made.recipe()
    del recipe["fold_norms"]  # as recorded before there was the option
    assert "folded" not in from_recipe(recipe).fingerprint()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.vision_task(tmp_path)
    bitfront = Commands(tmp_path / "b.db", capsys)
    words: list[object] = [
        "profile", "v", "--task", "vision", "--model", f"{tmp_path / 'net.py'}:Net",
        "--arguments", '{"width": 4}', "--weights", tmp_path / "net.pt",
        "--calibration", tmp_path / "images.npz", "--samples", 12, "--batch", 5,
        "--schemes", "w8a8szo", "--profiler", "mse",
    ]  # fmt: skip
    done = bitfront.ok(*words, "--fold-norms")
    assert "1 batch norms are folded into convolutions" in done.err
    assert "1 batch norms are folded" in bitfront.ok("profile", "v", "--schemes", "w4").err
    refusal = bitfront.refused(
        "profile", "w", "--task", "language", "--model", "m", "--calibration", "c.txt",
        "--schemes", "w4", "--fold-norms",
    )  # fmt: skip
    assert "--fold-norms for a language task" in refusal
