"""What the operator decides: where the server listens, who may ask, what jobs may load."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from bitfront.errors import InvalidInput
from bitfront.service.policy import Policy, check_roots

SHORTEST = 16  # characters of a token
HIDDEN = "[token]"


@dataclass(frozen=True)
class Settings:
    """Of one server. Raises ``InvalidInput`` for what cannot be, or would not be safe.

    db: as of ``Store.open``. prefix: of the path under which a proxy shows the server. token: for
    everything, read_token: for reading; without any, only loopback addresses are listened on.
    roots: folders under which jobs may name models, data and weights. allow_hub: names on the hub.
    allow_functions: Python files under the roots are run. output: folder for what jobs write; it
    must be the workers' too. max_body: bytes of a request. rate: requests a second of one client,
    after the first ``burst``. streams: of events, at once. poll, heartbeat: seconds between two
    looks at a job that is streamed, and between signs of life.
    """

    db: str | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    prefix: str = ""
    token: str | None = field(default=None, repr=False)
    read_token: str | None = field(default=None, repr=False)
    roots: tuple[Path, ...] = ()
    allow_hub: bool = False
    allow_functions: bool = False
    output: Path | None = None
    max_body: int = 1 << 20
    rate: float = 200.0
    burst: int = 400
    streams: int = 256
    poll: float = 0.5
    heartbeat: float = 15.0

    def __post_init__(self) -> None:
        for name, token in (("token", self.token), ("read token", self.read_token)):
            if token is not None and (len(token) < SHORTEST or not _printable(token)):
                raise InvalidInput(
                    f"the {name} is short, or has spaces",
                    f"give at least {SHORTEST} characters of ASCII, at random",
                )
        if self.token is not None and self.token == self.read_token:
            raise InvalidInput("both tokens are the same", "give reading a token of its own")
        if not self.guarded and not is_loopback(self.host):
            raise InvalidInput(
                f"host {self.host!r} without a token",
                "give a token (BITFRONT_TOKEN or --token-file), or listen on 127.0.0.1",
            )
        if self.prefix and (not self.prefix.startswith("/") or self.prefix.endswith("/")):
            raise InvalidInput(f"path prefix {self.prefix!r}", "write it like /bitfront")
        check_roots(self.roots)
        if self.output is not None and self.output.exists() and not self.output.is_dir():
            raise InvalidInput(f"output {str(self.output)!r} is no folder", "name a folder")

    @property
    def policy(self) -> Policy:
        """What jobs may load."""
        return Policy(self.roots, self.allow_hub, self.allow_functions)

    @property
    def guarded(self) -> bool:
        """Whether a token is needed."""
        return self.token is not None or self.read_token is not None

    def redacted(self, text: str) -> str:
        """``text`` without any token in it, however it is spelled in a URL."""
        for token in (self.token, self.read_token):
            if token is not None:
                for spelling in {token, quote(token), quote(token, safe="")}:
                    text = text.replace(spelling, HIDDEN)
        return text


def is_loopback(host: str) -> bool:
    """Whether nobody outside of this machine reaches ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def secret(file: Path | None, variable: str) -> str | None:
    """The token in a file, or else in an environment variable; None for neither."""
    if file is None:
        return os.environ.get(variable) or None
    try:
        found = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InvalidInput(
            f"cannot read the token in {str(file)!r} ({why})", "name a file with a token in it"
        ) from None
    if not found:
        raise InvalidInput(f"{str(file)!r} is empty", "write the token into it")
    return found


def _printable(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token
