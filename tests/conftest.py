"""Fixtures that every kind of test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of real models and data: ``BITFRONT_ASSETS``, or ``shared/assets`` beside the checkout."""
    folder = Path(os.environ.get("BITFRONT_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no real assets: {folder.name!r} is not there; set BITFRONT_ASSETS to its path")
    return folder
