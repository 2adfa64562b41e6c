"""``bitfront serve``: what a database holds over HTTP, and jobs for workers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from bitfront.errors import InvalidInput

from .common import AllowFunctions, AllowHub, Db, Roots
from .output import quiet_stdout
from .remote import refuse


def serve(
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="To listen on; but for loopback a token is needed."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8765,
    root: Roots = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for exports and reports.")
    ] = None,
    allow_hub: AllowHub = False,
    allow_functions: AllowFunctions = False,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Token for everything (default: BITFRONT_TOKEN)."),
    ] = None,
    read_token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Token for reading (default: BITFRONT_READ_TOKEN)."),
    ] = None,
    path_prefix: Annotated[
        str, typer.Option(metavar="PATH", help="Under which a proxy shows it, like /bitfront.")
    ] = "",
    worker: Annotated[
        bool, typer.Option("--worker", help="Run a worker too, as a child process.")
    ] = False,
    db: Db = None,
) -> None:
    """Serve the HTTP API until interrupted (docs/service.md)."""
    refuse("serve")
    try:
        with quiet_stdout():
            from bitfront.service.api.serving import address, beside, bound, opened
            from bitfront.service.api.serving import serve as answer
            from bitfront.service.api.settings import Settings, secret
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "pydantic"):
            raise
        raise InvalidInput(
            f"the service needs {error.name}", "run pip install 'bitfront[service]'"
        ) from None
    settings = Settings(
        db=db, host=host, port=port, prefix=path_prefix, roots=tuple(root or ()), output=output,
        token=secret(token_file, "BITFRONT_TOKEN"),
        read_token=secret(read_token_file, "BITFRONT_READ_TOKEN"),
        allow_hub=allow_hub, allow_functions=allow_functions,
    )  # fmt: skip
    with contextlib.closing(bound(settings)) as listening:
        with quiet_stdout():
            application = opened(settings)
        typer.echo(f"serving on {address(listening, path_prefix)}")
        with quiet_stdout(), beside(settings) if worker else contextlib.nullcontext():
            answer(application, listening)
