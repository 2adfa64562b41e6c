"""The HTTP API: routes over what is stored, and jobs for workers to do. It never imports torch.

``create_app(settings)`` makes it; every answer comes from ``bitfront.storage``,
``bitfront.queries`` or ``bitfront.documents``.
"""

from __future__ import annotations

from .app import create_app
from .settings import Settings

__all__ = ["Settings", "create_app"]
