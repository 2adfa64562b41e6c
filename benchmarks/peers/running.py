"""Peers in environments of their own, each run as a script on a folder (``job``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT
from benchmarks.peers.models import MODELS, write_job

ENVIRONMENTS = ROOT / ".venv-peers"


@dataclass(frozen=True)
class Peer:
    """environment: of ``.venv-peers``, with a script and a version file of that name."""

    environment: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    language_only: bool = False

    def takes(self, model: str) -> bool:
        return MODELS[model].language or not self.language_only


PEERS = {
    "ModelOpt gradient": Peer("modelopt", {"method": "gradient", "algorithm": "max"}),
    "ModelOpt KL": Peer("modelopt", {"method": "kl_div", "algorithm": "max"}),
    "AutoRound": Peer("autoround", language_only=True),
    "NNCF": Peer("nncf"),
}


def chosen_by(name: str, model: str, assets: Path, budgets: list[float]) -> dict[str, Any]:
    """The peer's answer, unchecked. Raises ``CalledProcessError`` where its script fails."""
    peer = PEERS[name]
    python = ENVIRONMENTS / peer.environment / "bin" / "python"
    script = Path(__file__).parent / f"run_{peer.environment}.py"
    with tempfile.TemporaryDirectory(prefix="bitfront-") as folder:
        write_job(Path(folder), model, assets, budgets, peer.settings)
        print(f"{name}, {model} ...", file=sys.stderr)
        subprocess.run(
            [str(python), str(script), folder],
            check=True,
            stdout=sys.stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        answer: dict[str, Any] = json.loads((Path(folder) / "answer.json").read_text())
    return answer
