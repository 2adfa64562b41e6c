"""Targets that load files of weights, whose speed is not known here."""

from __future__ import annotations

from bitfront.types import Layer, Scheme

from .base import Target


class LlamaCpp(Target):
    """llama.cpp, which has kernels for every block type."""

    name = "llama.cpp"
    container = "gguf"
    candidates = "q2_k q3_k q4_k q5_k q6_k q4_0 q5_0 q8_0 keep"


class Transformers(Target):
    """transformers with compressed-tensors, which decompresses weights before it computes."""

    name = "transformers"
    container = "compressed-tensors"
    candidates = "w2g32 w3g32 w4g32 w5g32 w6g32 w8g32 w8 keep"


class Vllm(Target):
    """vLLM on GPUs. Its source (0.33) has fast kernels for weights of 4 and 8 bits only."""

    name = "vllm"
    container = "compressed-tensors"
    candidates = "w4g128 w4g32 w8 w8a8 fp8 fp8a8 keep"

    def reason(self, layer: Layer, scheme: Scheme) -> str | None:
        why = super().reason(layer, scheme)
        if why is not None or scheme.format != "int":
            return why
        if scheme.bits not in (4, 8):
            return "vLLM has fast kernels for weights of 4 and 8 bits"
        activation = scheme.activation
        if activation is not None and (activation.bits, scheme.bits) not in ((8, 8), (8, 4)):
            return "vLLM has kernels for inputs of 8 bits with weights of 4 and 8"
        return None
