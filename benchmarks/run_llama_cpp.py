"""llama.cpp on a GGUF file, in an environment of its own: ``run_llama_cpp.py FOLDER``.

``job.json`` in the folder asks; ``answer.json`` and ``logits.npy`` say what llama.cpp found. Any of

    model      a file; ``windows`` of token ids are run through it, each on an empty cache, and the
               logits of every position are kept; ``tokens`` are generated greedily after the first
    texts      are split into tokens with the file's vocabulary
    recipe     a file of --tensor-type words, by which ``source`` is quantized to ``target``;
               ``types`` has ggml's numbers
    matrices   an .npz file; ggml's own quantizer gives the bytes of each under each of ``types``
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

F32 = 0  # of what attention caches, so that only products differ


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    windows = job["windows"]
    length = max(map(len, windows))
    model = llama_cpp.Llama(
        job["model"], n_ctx=length + job["tokens"], n_batch=length, n_threads=1, n_threads_batch=1,
        logits_all=True, type_k=F32, type_v=F32, verbose=False,
    )  # fmt: skip
    logits = np.zeros((len(windows), length, model.n_vocab()), np.float32)
    for i, ids in enumerate(windows):
        model.reset()
        model.eval(ids)
        logits[i, : len(ids)] = model.scores[: len(ids)]
    np.save(folder / "logits.npy", logits)
    model.reset()
    generated = []
    for token in model.generate(windows[0][:8], temp=0.0):
        generated.append(int(token))
        if len(generated) == job["tokens"]:
            break
    texts = [model.tokenize(t.encode(), add_bos=True, special=False) for t in job["texts"]]
    return {"generated": generated, "texts": texts, "metadata": model.metadata}


def quantize(path: str, types: dict[str, int], sizes: dict[str, int], folder: Path) -> None:
    """ggml's own blocks of each matrix. types: ggml's numbers. sizes: bits of a weight, over 8."""
    place = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(place.glob("libggml-base.*"))))
    chunk = library.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p
    ]  # fmt: skip
    found = {}
    for name, matrix in np.load(path).items():
        source = np.ascontiguousarray(matrix, np.float32)
        for kind, number in types.items():
            out = np.zeros(source.size * sizes[kind] // 256, np.uint8)
            written = chunk(
                number, source.ctypes.data, out.ctypes.data, 0, *source.shape, None
            )  # fmt: skip
            if written != out.nbytes:
                raise RuntimeError(f"{written} bytes of {kind} where {out.nbytes} were expected")
            found[f"{kind} {name}"] = out.reshape(len(source), -1)
    np.savez(folder / "blocks.npz", **found)


def requantize(source: str, target: str, recipe: str, numbers: dict[str, int]) -> None:
    """What llama-quantize does with ``--tensor-type-file``, and Q8_0 for the rest."""
    words = [word.partition("=") for word in Path(recipe).read_text().split()]
    entries = (llama_cpp.llama_model_tensor_override * (len(words) + 1))()
    for entry, (pattern, _, kind) in zip(entries, words, strict=False):
        entry.pattern, entry.type = pattern.lower().encode(), numbers[kind.lower()]
    entries[len(words)].pattern = None
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.tt_overrides = (
        1,
        llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
        entries,
    )
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        raise RuntimeError("llama_model_quantize failed")


def main() -> None:
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    answer: dict[str, Any] = {"version": llama_cpp.__version__}
    if "matrices" in job:
        quantize(job["matrices"], job["types"], job["sizes"], folder)
    if "recipe" in job:
        requantize(job["source"], job["target"], job["recipe"], job["types"])
    if "model" in job:
        answer |= run(job, folder)
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
