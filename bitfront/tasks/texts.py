"""Text and token data for language tasks: read, cut into sequences, drawn.

Two layouts:
    joined      one long stream of tokens, cut into windows of equal length (default for text files
                and data sets of the hub, whose rows are lines)
    documents   the first ``length`` tokens of each document, shorter ones padded at the right and
                masked (default for JSON, JSONL and token ids with lengths)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import DataError

from .boundary import foreign
from .npz import opened
from .paths import expanded

Ids = NDArray[np.int64]
Weights = NDArray[np.float32]
LAYOUTS = ("auto", "joined", "documents")
_LEAST = 2  # tokens: one to predict from, one to predict


@dataclass(frozen=True, eq=False)
class Tokens:
    """A sequence of token ids (T,), and what predicting each of them counts for (None: 1)."""

    ids: Ids
    weights: Weights | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Tokens:
        """Tokens ``start`` to ``stop``, or fewer at the end."""
        weights = None if self.weights is None else self.weights[start:stop]
        return Tokens(self.ids[start:stop], weights)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents, as texts or as token ids. ``name`` is for messages."""

    name: str
    layout: str
    texts: Sequence[str] | None = None
    tokens: Sequence[Tokens] | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """Sequences that can be drawn: ``fetch(i)`` gives sequence ``i`` of ``size``.

    A document too short to predict anything from gives none.
    """

    name: str
    size: int
    fetch: Callable[[int], Tokens | None]
    unit: str
    tokens: int | None = None  # in all, where known
    start: int = 0

    def part(self, start: int, stop: int) -> Pool:
        """Sequences ``start`` to ``stop`` of this pool."""
        return Pool(self.name, stop - start, self.fetch, self.unit, self.tokens, self.start + start)


def read_corpus(source: str, field: str = "text") -> Corpus:
    """The data in a text, JSONL, JSON or ``.npz`` file, or in ``hub:NAME[:CONFIG][:SPLIT]``.

    Raises ``DataError`` when there is no such data, or it is empty or damaged.
    """
    if source.startswith("hub:"):
        return _hub(source, field)
    path = expanded(source)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(
            f"data {source!r} {what}", "give a .txt, .jsonl, .json or .npz file, or hub:NAME"
        )
    if path.suffix == ".npz":
        corpus = _token_file(path)
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path.name} is not UTF-8 text (byte {error.start})", "convert it, or use .npz ids"
            ) from None
        if "\0" in text:
            raise DataError(
                f"{path.name} is binary (byte 0 at character {text.index(chr(0))})",
                "give a text file, or token ids in .npz",
            )
        corpus = _text_file(path, text, field)
    if not any(len(d) for d in corpus.texts or corpus.tokens or ()):
        raise DataError(f"{path.name} is empty", "give a file with text or token ids")
    return corpus


def sequences(corpus: Corpus, length: int, layout: str, tokenizer: Callable[[], Any]) -> Pool:
    """What can be drawn from ``corpus``. ``tokenizer()`` is called only if there are texts."""
    if layout not in LAYOUTS:
        raise DataError(f"unknown layout {layout!r}", f"use {', '.join(LAYOUTS)}")
    if (corpus.layout if layout == "auto" else layout) == "documents":
        return _documents(corpus, length, tokenizer)
    if corpus.tokens is not None:
        stream = _joined(corpus.tokens)
    else:
        assert corpus.texts is not None
        stream = encode(tokenizer(), "\n\n".join(t for t in corpus.texts if t))
    count = len(stream) // length

    def window(index: int) -> Tokens:
        return stream.part(index * length, (index + 1) * length)

    return Pool(corpus.name, count, window, f"windows of {length} tokens", len(stream))


def draw(pool: Pool, samples: int, seed: tuple[int, int]) -> list[Tokens]:
    """``samples`` different sequences in a fixed random order of choice, sorted by position.

    Raises ``DataError``, saying how much there is and how much is needed.
    """
    if samples < 1:
        raise DataError(f"{samples} samples", "give at least 1")
    order = np.random.default_rng(seed).permutation(pool.size)
    found: dict[int, Tokens] = {}
    for index in order:
        tokens = pool.fetch(pool.start + int(index))
        if tokens is not None and len(tokens) >= _LEAST:
            found[int(index)] = tokens
        if len(found) == samples:
            return [found[i] for i in sorted(found)]
    total = f" ({pool.tokens} tokens in all)" if pool.tokens is not None else ""
    raise DataError(
        f"{pool.name} has {len(found)} {pool.unit}{total} where {samples} are needed",
        "give more data, fewer samples or a shorter length",
    )


def split(pool: Pool, samples: int, held: int) -> tuple[Pool, Pool]:
    """An earlier and a later part, sized in proportion to what is drawn from each."""
    if pool.size < samples + held:
        total = f" ({pool.tokens} tokens in all)" if pool.tokens is not None else ""
        raise DataError(
            f"{pool.name} has {pool.size} {pool.unit}{total} where {samples} for calibration and "
            f"{held} for evaluation are needed",
            "give more data, evaluation data of its own, fewer samples or a shorter length",
        )
    cut = round(pool.size * samples / (samples + held))
    cut = min(max(cut, samples), pool.size - held)
    return pool.part(0, cut), pool.part(cut, pool.size)


def encode(tokenizer: Any, text: str, limit: int | None = None) -> Tokens:
    """Tokens of ``text``, with the special tokens that the tokenizer adds; first ``limit``."""
    with foreign("tokenizing the text", error=DataError):
        options = {} if limit is None else {"truncation": True, "max_length": limit}
        ids = tokenizer(text, verbose=False, **options)["input_ids"]
    return Tokens(np.asarray(ids, dtype=np.int64))


def _joined(documents: Sequence[Tokens]) -> Tokens:
    weights = [d.weights for d in documents if d.weights is not None]
    return Tokens(
        np.concatenate([d.ids for d in documents]), np.concatenate(weights) if weights else None
    )


def _documents(corpus: Corpus, length: int, tokenizer: Callable[[], Any]) -> Pool:
    if corpus.tokens is not None:
        tokens = corpus.tokens
        total = sum(len(d) for d in tokens)
        return Pool(
            corpus.name, len(tokens), lambda i: tokens[i].part(0, length), "documents", total
        )
    assert corpus.texts is not None
    texts = [t for t in corpus.texts if t.strip()]
    tool = tokenizer()
    return Pool(corpus.name, len(texts), lambda i: encode(tool, texts[i], length), "documents")


def _text_file(path: Path, text: str, field: str) -> Corpus:
    if path.suffix == ".jsonl":
        rows = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        places = [f"{path.name}:{n}" for n, _ in rows]
        records = [_json(line, place) for place, (_, line) in zip(places, rows, strict=True)]
        texts = [_field(r, field, place) for place, r in zip(places, records, strict=True)]
        return Corpus(path.name, "documents", texts)
    if path.suffix == ".json":
        records = _json(text, path.name) if text.strip() else []
        if not isinstance(records, list):
            raise DataError(f"{path.name} holds no list", "write a JSON list of strings or objects")
        texts = [_field(r, field, f"entry {i} of {path.name}") for i, r in enumerate(records)]
        return Corpus(path.name, "documents", texts)
    return Corpus(path.name, "joined", [text])


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error})", "correct or remove it") from None


def _field(record: Any, field: str, place: str) -> str:
    """The text of a record that is a string, or an object with the text in ``field``."""
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        raise DataError(
            f"{place} is a {type(record).__name__}", f"write a string, or an object with {field!r}"
        )
    if field not in record:
        there = ", ".join(map(str, record)) or "nothing"
        raise DataError(
            f"{place} has no text in {field!r}", f"it has {there}: name the field of the text"
        )
    if not isinstance(record[field], str):
        raise DataError(
            f"{field!r} of {place} is a {type(record[field]).__name__}",
            "store text there, or name another field",
        )
    text: str = record[field]
    return text


def _token_file(path: Path) -> Corpus:
    with opened(path) as file:
        keys = file.keys
        ids = file["ids"] if "ids" in keys else None
        lengths = file["lengths"] if "lengths" in keys else None
        weights = file["weights"] if "weights" in keys else None
    if ids is None:
        raise DataError(f"{path.name} has no 'ids'", f"it has {', '.join(keys) or 'nothing'}")
    if lengths is not None and (lengths.dtype.kind not in "ui" or lengths.ndim != 1):
        raise DataError(
            f"lengths of {path.name} are {lengths.dtype} of shape {lengths.shape}",
            "store one row of integers",
        )
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim not in (1, 2):
        raise DataError(
            f"ids of {path.name} are {ids.dtype} of shape {ids.shape}",
            "store integers, one row or one stream with lengths",
        )
    tokens = Tokens(ids.astype(np.int64), _token_weights(weights, ids, path.name))
    if ids.ndim == 2:
        widths = np.full(len(ids), ids.shape[1]) if lengths is None else np.asarray(lengths)
        if len(widths) != len(ids) or (widths > ids.shape[1]).any() or (widths < 0).any():
            raise DataError(f"lengths of {path.name} do not fit its ids", f"shape {ids.shape}")
        rows = [_row(tokens, i).part(0, int(width)) for i, width in enumerate(widths)]
        return Corpus(path.name, "documents", tokens=rows)
    if lengths is None:
        return Corpus(path.name, "joined", tokens=[tokens])
    if int(np.sum(lengths)) != len(ids) or (np.asarray(lengths) < 0).any():
        raise DataError(
            f"lengths of {path.name} sum to {int(np.sum(lengths))}", f"there are {len(ids)} ids"
        )
    stops = np.cumsum(lengths, dtype=np.int64)
    documents = [tokens.part(int(b - n), int(b)) for b, n in zip(stops, lengths, strict=True)]
    return Corpus(path.name, "documents", tokens=documents)


def _row(tokens: Tokens, index: int) -> Tokens:
    weights = None if tokens.weights is None else tokens.weights[index]
    return Tokens(tokens.ids[index], weights)


def _token_weights(given: NDArray[Any] | None, ids: NDArray[Any], name: str) -> Weights | None:
    """The weights beside ``ids``, checked."""
    if given is None:
        return None
    if given.dtype.kind not in "fiub" or given.shape != ids.shape:
        raise DataError(
            f"weights of {name} are {given.dtype} of shape {given.shape}",
            f"store one number for each of the ids, of shape {ids.shape}",
        )
    with np.errstate(over="ignore"):  # what overflows is refused below
        weights = given.astype(np.float32)
    bad = weights[~(np.isfinite(weights) & (weights >= 0))]
    if len(bad):
        raise DataError(
            f"{len(bad)} weights of {name} are negative or not finite, like {bad[0]:g}",
            "store finite numbers, 0 or more",
        )
    return weights


def _hub(source: str, field: str) -> Corpus:
    parts = source.removeprefix("hub:").split(":")
    if not parts[0] or len(parts) > 3:
        raise DataError(f"cannot read data {source!r}", "write hub:NAME[:CONFIG][:SPLIT]")
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{source!r} needs the package datasets", "pip install 'bitfront[datasets]'"
        ) from None
    name, config = parts[0], parts[1] if len(parts) > 1 and parts[1] else None
    wanted = parts[2] if len(parts) > 2 else "train"
    with foreign(f"loading {source!r}", "check the name and the connection", DataError):
        rows = datasets.load_dataset(name, config, split=wanted)
    if field not in rows.column_names:
        raise DataError(
            f"{source!r} has no column {field!r}", f"it has {', '.join(rows.column_names)}"
        )
    return Corpus(source, "joined", list(rows[field]))
