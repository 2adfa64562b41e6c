"""A tokenizer of transformers as llama.cpp's ``tokenizer.ggml`` metadata.

    model   "llama"   BPE with bytes to fall back on, as SentencePiece makes it: llama.cpp merges
                      the pair whose token has the greatest score, so a token's score is the rank
                      of its merges, negative
            "gpt2"    byte-level BPE: merges as they are, and a name for how texts are split first
            "none"    no tokenizer: the file is run on token ids

What llama.cpp would split otherwise than the tokenizer does is refused, not approximated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitfront.errors import ExportError

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's kinds of tokens
_SPACE = "▁"
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# patterns that texts are split by before merging -> llama.cpp's name for that
_SPLITS = {
    rf"{_LETTERS}|\p{{N}}{{1,3}}|{_REST}": "llama-bpe",
    rf"{_LETTERS}|\p{{N}}|{_REST}": "qwen2",
}
_REMEDY = "export to another container, or give the model a tokenizer of these kinds"

Fields = dict[str, Any]


def load(folder: Path) -> Any | None:
    """The tokenizer of a model's folder; None where there is none.

    Raises ``ExportError`` for one that does not load.
    """
    from transformers import AutoTokenizer

    if not any(folder.glob("tokenizer*")):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises nothing narrower
        kind = type(error).__name__
        raise ExportError(f"its tokenizer does not load: {kind}: {error}", "repair it") from error


def fields(tokenizer: Any | None, size: int) -> Fields:
    """Metadata without the prefix ``tokenizer.``. size: tokens that the model knows.

    Raises ``ExportError`` for a tokenizer that llama.cpp would not follow.
    """
    if tokenizer is None:
        return {"ggml.model": "none"}
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ExportError("its tokenizer is not one of the tokenizers library", _REMEDY)
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    model = spec["model"]
    if model["type"] != "BPE":
        raise ExportError(f"its tokenizer is {model['type']}, not BPE", _REMEDY)
    vocabulary: Mapping[str, int] = model["vocab"]
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    tokens, kinds = _tokens(spec, vocabulary, size)
    found: Fields = {"ggml.tokens": tokens, "ggml.token_type": kinds}
    if _is_byte_level(spec):
        found |= {"ggml.model": "gpt2", "ggml.pre": _split(spec)}
        found["ggml.merges"] = [" ".join(pair) for pair in merges]
    elif model.get("byte_fallback") and _replaces_spaces(spec):
        found |= {"ggml.model": "llama", "ggml.pre": "default"}
        found["ggml.scores"] = _scores(tokens, kinds, merges)
        found["ggml.add_space_prefix"] = _prefixes(spec)
    else:
        raise ExportError("its BPE has neither bytes to fall back on nor is it of bytes", _REMEDY)
    return {**found, **_special(tokenizer)}


def _tokens(
    spec: Mapping[str, Any], vocabulary: Mapping[str, int], size: int
) -> tuple[list[str], list[int]]:
    """Tokens by their ids, and their kinds; ids that are no token's are unused."""
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [_UNUSED] * size
    added = {entry["id"]: entry for entry in spec["added_tokens"]}
    unknown = spec["model"].get("unk_token")
    for token, i in [*vocabulary.items(), *((a["content"], i) for i, a in added.items())]:
        if i >= size:
            raise ExportError(
                f"token {token!r} is number {i} of its tokenizer, and the model knows {size}",
                "give the model's own tokenizer",
            )
        tokens[i], kinds[i] = token, _NORMAL
        if i in added:
            kinds[i] = _CONTROL if added[i]["special"] else _USER
        elif spec["model"].get("byte_fallback") and _is_byte(token):
            kinds[i] = _BYTE
        if token == unknown:
            kinds[i] = _UNKNOWN
    return tokens, kinds


def _scores(tokens: list[str], kinds: list[int], merges: list[list[str]]) -> list[float]:
    """The rank of each token's merges, negative; tokens that are not merged come last.

    llama.cpp merges any two tokens whose text together is one. So every such pair must be a merge,
    and merges of one token must follow each other.
    """
    ranks: dict[str, int] = {}
    pairs, last = set(), ""
    for left, right in merges:
        token = left + right
        if token in ranks and token != last:
            raise ExportError(f"merges of its token {token!r} are of several ranks", _REMEDY)
        ranks.setdefault(token, len(ranks))
        pairs.add((left, right))
        last = token
    known = {token for token, kind in zip(tokens, kinds, strict=True) if kind == _NORMAL}
    for token in known:
        for i in range(1, len(token)):
            left, right = token[:i], token[i:]
            if left in known and right in known and (left, right) not in pairs:
                raise ExportError(f"its token {token!r} is not merged from {left!r}", _REMEDY)
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _special(tokenizer: Any) -> Fields:
    """Ids of special tokens, which of them are added, and the template of chats."""
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {to: getattr(tokenizer, f"{of}_token_id") for of, to in names.items()}
    found: Fields = {f"ggml.{to}_token_id": i for to, i in ids.items() if i is not None}
    one = tokenizer("a")["input_ids"]
    found["ggml.add_bos_token"] = bool(one) and ids["bos"] is not None and one[0] == ids["bos"]
    found["ggml.add_eos_token"] = len(one) > 1 and one[-1] == ids["eos"]
    if isinstance(tokenizer.chat_template, str):
        found["chat_template"] = tokenizer.chat_template
    return found


def _parts(spec: Mapping[str, Any], name: str, inner: str) -> list[Mapping[str, Any]]:
    """The steps of a part of a tokenizer, whether it is a sequence or a single one."""
    part = spec.get(name)
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]


def _is_byte_level(spec: Mapping[str, Any]) -> bool:
    return any(p["type"] == "ByteLevel" for p in _parts(spec, "pre_tokenizer", "pretokenizers"))


def _split(spec: Mapping[str, Any]) -> str:
    """llama.cpp's name of how texts are split before they are merged."""
    steps = _parts(spec, "pre_tokenizer", "pretokenizers")
    kinds = [step["type"] for step in steps]
    pattern = steps[0].get("pattern", {}).get("Regex", "")
    if kinds == ["Split", "ByteLevel"] and not steps[1]["use_regex"] and pattern in _SPLITS:
        return _SPLITS[pattern]
    if kinds == ["ByteLevel"] and steps[0]["use_regex"] and not steps[0]["add_prefix_space"]:
        return "gpt-2"
    raise ExportError("its tokenizer splits texts in a way that has no name here", _REMEDY)


def _replaces_spaces(spec: Mapping[str, Any]) -> bool:
    steps = _parts(spec, "normalizer", "normalizers")
    steps += _parts(spec, "pre_tokenizer", "pretokenizers")
    return any(
        (step["type"] == "Replace" and step["content"] == _SPACE) or step["type"] == "Metaspace"
        for step in steps
    )


def _prefixes(spec: Mapping[str, Any]) -> bool:
    """Whether a text begins with a space that it does not have."""
    return any(
        step["type"] == "Prepend" for step in _parts(spec, "normalizer", "normalizers")
    ) or any(
        step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never"
        for step in _parts(spec, "pre_tokenizer", "pretokenizers")
    )


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
