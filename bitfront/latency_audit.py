"""What an exported model takes, in a fresh process with the target's runtime, against what its
trial was predicted to.

``python -m bitfront.latency_audit ROOM`` is the fresh process.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save_file

from bitfront.audit import ask
from bitfront.budget import SECONDS
from bitfront.errors import ExportError
from bitfront.interleaving import pinned, quickest
from bitfront.study import Study
from bitfront.targets import Aimed, Timed, aimed
from bitfront.tasks.deployed import signature
from bitfront.tasks.running import ModelTask
from bitfront.tasks.sized import sized
from bitfront.types import Trial

INPUTS = "inputs.safetensors"


def latencies(
    study: Study, trial: Trial, folder: str | Path, container: str, *, cache: bool = False
) -> dict[str, tuple[float, float]]:
    """Target -> seconds predicted, and seconds of the model in ``folder``.

    For each target that the trial's seconds were counted on and that loads ``container``. cache: as
    of the export. Raises ``ExportError`` where the runtime does not run it at the target's shape.
    """
    task, found = study.task, {}
    assert isinstance(task, ModelTask)
    for aim, predicted in _aims(trial, container):
        shape = aim.shape
        assert shape is not None
        if shape.past is not None and not cache:
            continue  # another call than the export's
        inputs = sized(signature(task, cache=cache), shape.batch, shape.tokens, shape.past)
        with tempfile.TemporaryDirectory(prefix="bitfront-latency-") as name:
            room = Path(name)
            save_file({n: x.detach().cpu().contiguous() for n, x in inputs.items()}, room / INPUTS)
            request = {"folder": str(Path(folder).absolute()), "target": str(aim)}
            (room / "request.json").write_text(json.dumps(request))
            answer = ask(room, __name__)
        if answer["failures"]:
            raise ExportError(f"{aim} does not run it: {answer['failures'][0]}", "export it again")
        found[str(aim)] = (predicted, float(answer["seconds"]))
    return found


def _aims(trial: Trial, container: str) -> Iterator[tuple[Aimed, float]]:
    """Targets that can be timed here, and what was predicted."""
    from bitfront.targets import TARGETS

    for resource, seconds in trial.costs.items():
        kind, at, text = resource.partition("@")
        name, colon, _ = text.partition(":")
        if kind == SECONDS and at and colon and isinstance(TARGETS.get(name), Timed):
            aim = aimed(text)
            if aim.target.container == container:
                yield aim, seconds


def respond(room: Path) -> dict[str, object]:
    """What the fresh process finds for the request in ``room``."""
    request = json.loads((room / "request.json").read_text())
    aim = aimed(request["target"])
    target, shape = aim.target, aim.shape
    assert isinstance(target, Timed)
    assert shape is not None
    folder, inputs = Path(request["folder"]), load_file(room / INPUTS)
    size = sum(path.stat().st_size for path in folder.rglob("*"))
    with pinned(shape.used):
        try:
            (found,) = quickest([partial(target.exported, folder, inputs, shape.used)], size)
        except ExportError as error:
            return {"failures": [str(error)]}
    return {"failures": [], "seconds": found.seconds}


def main() -> None:
    """The fresh process."""
    room = Path(sys.argv[1])
    (room / "answer.json").write_text(json.dumps(respond(room)))


if __name__ == "__main__":
    main()
