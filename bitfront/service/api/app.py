"""The application: routes, errors and what is around them, from the operator's settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from bitfront import __version__
from bitfront.remote import API

from . import files, fronts, jobs, measurements, meta, page, points, studies, trials, workers
from .common import Service
from .outer import Outer
from .problems import ProblemDocument, install
from .settings import Settings

ABOUT = "Mixed-precision search: studies, jobs, trials, fronts (docs/service.md)."


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application of a server. Nothing is opened before it is needed."""
    settings = settings or Settings()
    service = Service(settings)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.ending.set()
        service.close()

    app = FastAPI(
        title="Bitfront", version=__version__, description=ABOUT, lifespan=living,
        docs_url=None, redoc_url=None, openapi_url=f"{API}/openapi.json",
        generate_unique_id_function=lambda route: route.name, redirect_slashes=False,
    )  # fmt: skip
    app.state.service = service
    app.include_router(meta.probes)
    app.include_router(page.router)
    whole = APIRouter(prefix=API)
    for module in (meta, studies, measurements, trials, fronts, points, jobs, files, workers):
        whole.include_router(module.router)
    app.include_router(whole)
    install(app)
    app.add_middleware(Outer, settings=settings)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with problems and tokens."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        parts = schema.setdefault("components", {})
        models = parts.setdefault("schemas", {})
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        models |= {**problem.pop("$defs", {}), "ProblemDocument": problem}
        for unused in ("HTTPValidationError", "ValidationError"):
            models.pop(unused, None)
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in schema["paths"].items():
            for route in methods.values():
                if path.startswith(API):
                    route["security"] = [{"token": []}, {}]  # none where the server has no token
        app.openapi_schema = schema
    return app.openapi_schema
