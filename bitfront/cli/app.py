"""The commands, and the one place where errors become a line and an exit code.

0    done
1    a bug in Bitfront: one line; BITFRONT_DEBUG=1 shows the traceback
2    bad input, a budget that cannot be met, a file that cannot be read or written
130  interrupted
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any, NoReturn

import typer

from bitfront import __version__
from bitfront.errors import BitfrontError, BitfrontWarning
from bitfront.files import remedy

from .demo import demo
from .doctor import doctor
from .export import export
from .front import front
from .imports import import_scores
from .jobs import app as jobs
from .latency import latency
from .optuna import optuna
from .output import STDOUT, naming
from .profile import profile
from .recipe import recipe
from .remote import SERVER
from .report import report
from .search import search
from .serve import serve
from .show import show
from .solve import solve
from .studies import studies
from .worker import worker
from .workers import workers

# the root of what typer raises for a wrong command line; its module differs between versions
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]

INTERRUPTED = 130

app = typer.Typer(
    name="bitfront", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)
for command in (
    profile, latency, search, front, show, report, export, recipe, optuna, solve, studies, serve,
    worker, workers, doctor, demo,
):  # fmt: skip
    app.command()(command)
app.command("import")(import_scores)
app.add_typer(jobs)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bitfront {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask a service, instead of a database (default: BITFRONT_SERVER); its token is "
            "BITFRONT_TOKEN.",
        ),
    ] = None,
) -> None:
    """Mixed-precision search and allocation for neural networks."""
    if server is not None:
        os.environ[SERVER] = server
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line ``arguments`` (default: the process's own) and exit."""
    debug = os.environ.get("BITFRONT_DEBUG", "") not in ("", "0")
    _open_closed()
    # before torch is loaded: threads that wait for a core another program uses would spin for ever
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not debug:
        warnings.simplefilter("ignore")  # what libraries have to say to each other
        warnings.simplefilter("always", BitfrontWarning)
        warnings.showwarning = _warn
    try:
        code = app(arguments, prog_name="bitfront", standalone_mode=False)
        with naming(STDOUT):
            sys.stdout.flush()
        if code == INTERRUPTED:  # typer has caught it already
            _line("interrupted")
    except (
        BitfrontError,
        OSError,
        MemoryError,
        KeyboardInterrupt,
        typer.Abort,
        _UsageError,
    ) as error:
        if debug:
            raise
        code = _explain(error)
    except Exception:
        if not debug:
            sys.excepthook = _bug  # only now: typer sets its own
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: BaseException) -> int:
    """Print one line on standard error; the exit code."""
    if isinstance(error, BrokenPipeError):  # the reader has gone: nothing is left to be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        _line("interrupted")
        return INTERRUPTED
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BitfrontError):
        where = f"{error.filename}: " if error.filename else ""
        _line(f"{where}{error.strerror}: {remedy(error, 'check the path')}")
    elif isinstance(error, MemoryError):
        _line(f"out of memory: {error}" if str(error) else "out of memory")
    elif isinstance(error, _UsageError):
        _line(_usage(error))
    else:
        _line(str(error))
    return 2


def _usage(error: Any) -> str:
    """A wrong command line: typer's words, the value where these lack it, and where to look."""
    words = " ".join(error.format_message().split()).rstrip(".")
    details = getattr(error.__cause__, "errors", None)  # pydantic's, of a value it cannot convert
    given = details()[0].get("input") if callable(details) else None
    if isinstance(given, str) and repr(given) not in words:
        words += f", not {given!r}"
    command = error.ctx.command_path if getattr(error, "ctx", None) else "bitfront"
    return f"{words}: {command} --help shows what can be given"


def _open_closed() -> None:
    """Give a process that was started without standard output or error somewhere to write."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (lives as long as the process)


def _bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _line(f"unexpected {kind.__name__}: {error} (a bug; BITFRONT_DEBUG=1 shows where)")


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print("warning:", " ".join(str(message).split()), file=sys.stderr)


def _line(text: str) -> None:
    print("error:", " ".join(text.split()), file=sys.stderr)
