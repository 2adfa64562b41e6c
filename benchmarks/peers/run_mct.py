"""Sony's Model Compression Toolkit, in its own environment: ``run_mct.py JOB``.

Mixed precision of weights alone, for convolutional networks: every layer's width costs its
toolkit's own distance between the outputs of inner layers, an integer program chooses within bytes
of weights, then a greedy step spends what is left. Statistics are of all calibration data,
distances of the 32 images that are its default. Weights have one
scale per channel; it has no groups.

It imports torchvision for what is not used here (generated images, boxes); the build of that on the
package index needs a CUDA build of torch, so empty stand-ins take its place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from job import Job
from torch import Tensor, nn

BATCH = 32


def stand_in(name: str, *members: str) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__path__ = []
    module.__version__ = "0.28.0"
    for member in members:
        setattr(module, member, type(member, (), {}))
    sys.modules[name] = module


def main() -> None:
    job = Job("model-compression-toolkit", "pulp")
    batches = job.batches(BATCH)
    bytes_of = sum(layer["weights"] for layer in job.layers.values()) / 8

    def data() -> Iterator[list[Tensor]]:
        for inputs, _ in batches:
            yield [inputs]

    def solve(asked: float) -> dict[str, int] | None:
        quantized, _ = mct.ptq.pytorch_post_training_quantization(
            job.model(),
            data,
            target_resource_utilization=mct.core.ResourceUtilization(
                weights_memory=asked * bytes_of
            ),
            core_config=mct.core.CoreConfig(
                mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig()
            ),
            target_platform_capabilities=platform(job.bits),
        )
        return widths(quantized, job)

    job.answer({budget: job.fitting(solve, budget) for budget in job.budgets})


def platform(bits: list[int]) -> Any:
    """Convolutions and linear layers of these widths, activations in floating point."""

    def attribute(width: int, enabled: bool) -> Any:
        return schema.AttributeQuantizationConfig(
            weights_quantization_method=QuantizationMethod.SYMMETRIC,
            weights_n_bits=width,
            weights_per_channel_threshold=True,
            enable_weights_quantization=enabled,
            lut_values_bitwidth=None,
        )

    def operation(mapping: dict[str, Any]) -> Any:
        return schema.OpQuantizationConfig(
            default_weight_attr_config=attribute(8, False),
            attr_weights_configs_mapping=mapping,
            activation_quantization_method=QuantizationMethod.POWER_OF_TWO,
            activation_n_bits=8,
            supported_input_activation_n_bits=8,
            enable_activation_quantization=False,
            quantization_preserving=False,
            fixed_scale=None,
            fixed_zero_point=None,
            simd_size=None,
            signedness=schema.Signedness.AUTO,
        )

    mapped = {
        b: operation({KERNEL_ATTR: attribute(b, True), BIAS_ATTR: attribute(32, False)})
        for b in bits
    }
    options = schema.QuantizationConfigOptions(
        quantization_configurations=tuple(mapped[b] for b in sorted(bits, reverse=True)),
        base_config=mapped[max(bits)],
    )
    names = (schema.OperatorSetNames.CONV, schema.OperatorSetNames.FULLY_CONNECTED)
    return schema.TargetPlatformCapabilities(
        default_qco=schema.QuantizationConfigOptions(quantization_configurations=(operation({}),)),
        operator_set=tuple(schema.OperatorsSet(name=n, qc_options=options) for n in names),
        fusing_patterns=(),
        tpc_minor_version=1,
        tpc_patch_version=0,
        add_metadata=False,
    )


def widths(model: nn.Module, job: Job) -> dict[str, int]:
    """Read from the wrapped layers, whose names are the traced ones."""
    names = {name.replace(".", "_"): name for name in job.layers}
    found = {}
    for name, module in model.named_modules():
        quantizers = getattr(module, "weights_quantizers", None)
        if quantizers:
            (quantizer,) = quantizers.values()
            found[names[name.removesuffix("_bn")]] = int(quantizer.num_bits)
    return found


if __name__ == "__main__":
    stand_in("torchvision")
    stand_in(
        "torchvision.transforms", "Normalize", "RandomCrop", "RandomHorizontalFlip", "CenterCrop"
    )
    stand_in("torchvision.transforms.transforms", "_setup_size")
    import model_compression_toolkit as mct
    from mct_quantizers import QuantizationMethod
    from model_compression_toolkit.target_platform_capabilities.constants import (
        BIAS_ATTR,
        KERNEL_ATTR,
    )
    from model_compression_toolkit.target_platform_capabilities.schema import (
        mct_current_schema as schema,
    )

    main()
