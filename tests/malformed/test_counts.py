"""How many malformed inputs are tried."""

from __future__ import annotations

from tests.malformed.test_http import ASKED
from tests.malformed.test_words import WORDS


def test_there_are_two_hundred_and_more() -> None:
    requests = {(a.method, a.path, a.body, tuple(a.headers.items()), a.guarded) for a in ASKED}
    assert len(requests) == len(ASKED)
    assert (len(ASKED) >= 100, len(WORDS) >= 100) == (True, True)
    verbs = {words.split()[0] for words in WORDS}
    assert verbs >= {
        "serve", "worker", "workers", "jobs", "studies", "front", "show", "report", "optuna",
        "export", "search", "solve", "demo", "doctor", "import",
    }  # fmt: skip
