"""The API's description: python -m bitfront.service.api.openapi > docs/openapi.json"""

from __future__ import annotations

import json

from .app import create_app


def text() -> str:
    """OpenAPI 3.1 as JSON, the same whatever the settings."""
    return json.dumps(create_app().openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
