"""What devices can do at most, as their makers say: plain numbers, by JAX's name of the device (`device_kind`).

The makers' figures for dense matrices, without sparsity. A float32 product counts at JAX's default precision: TF32 on
NVIDIA's, one bfloat16 pass on TPUs. Makers add up both directions of a link; here stands what a chip can send.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """The bounds of one device, as JAX counts devices."""

    bfloat16: float  # FLOP/s
    float32: float  # FLOP/s
    memory: float  # bytes of HBM
    memory_bandwidth: float  # bytes/s
    interconnect: float  # bytes/s that it sends to its neighbours, over all links: NVLink, ICI

    def flops(self, dtype: str) -> float:
        """FLOP/s of products of a `ModelConfig.dtype`."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


PEAKS: dict[str, Peak] = {
    # https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 156e12, 40e9, 1.555e12, 300e9),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 156e12, 80e9, 2.039e12, 300e9),
    # https://resources.nvidia.com/en-us-gpu-resources/h100-datasheet-24306 (half of its figures "with sparsity")
    "NVIDIA H100 80GB HBM3": Peak(989.4e12, 494.7e12, 80e9, 3.35e12, 450e9),
    "NVIDIA H100 PCIe": Peak(756e12, 378e12, 80e9, 2.0e12, 300e9),
    # https://nvdam.widen.net/s/nb5zzzsjdf/hpc-datasheet-sc23-h200-datasheet-3002446
    "NVIDIA H200": Peak(989.4e12, 494.7e12, 141e9, 4.8e12, 450e9),
    # https://resources.nvidia.com/en-us-blackwell-architecture (HGX B200, 1,000 W)
    "NVIDIA B200": Peak(2250e12, 1100e12, 180e9, 8.0e12, 900e9),
    # https://docs.cloud.google.com/tpu/docs/v4
    "TPU v4": Peak(275e12, 275e12, 34.36e9, 1.2e12, 300e9),
    # https://docs.cloud.google.com/tpu/docs/v5e
    "TPU v5 lite": Peak(197e12, 197e12, 16e9, 819e9, 200e9),
    # https://docs.cloud.google.com/tpu/docs/v5p
    "TPU v5": Peak(459e12, 459e12, 95e9, 2.765e12, 600e9),
    # https://docs.cloud.google.com/tpu/docs/v6e
    "TPU v6 lite": Peak(918e12, 918e12, 32e9, 1.638e12, 400e9),
}
PEAKS["TPU v5p"] = PEAKS["TPU v5"]  # JAX has used both names
