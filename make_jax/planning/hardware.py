"""Datasheet numbers of chips and of the networks that connect them. Imports no jax.

Dense matrix throughput without sparsity. A float32 product counts at JAX's default precision: TF32 on NVIDIA GPUs, one
bfloat16 pass on TPUs. Vendors add up both directions of a link; these tables count what a chip can send.

An island is a set of chips connected by their own links: the GPUs of a host, a TPU pod. Islands communicate over the
data-center network.
"""

import difflib
from dataclasses import dataclass

from make_jax.errors import InputError


@dataclass(frozen=True)
class ChipSpec:
    """Peak rates and memory of one device, as JAX counts devices."""

    bfloat16: float  # FLOP/s
    float32: float  # FLOP/s
    memory: float  # bytes of HBM
    memory_bandwidth: float  # bytes/s
    interconnect: float  # bytes/s sent to neighbors over all links: NVLink, ICI

    def flops(self, dtype: str) -> float:
        """Peak FLOP/s of matrix products in a `ModelConfig.dtype`."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


CHIPS: dict[str, ChipSpec] = {  # by `jax.Device.device_kind`
    # https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf
    "NVIDIA A100-SXM4-40GB": ChipSpec(312e12, 156e12, 40e9, 1.555e12, 300e9),
    "NVIDIA A100-SXM4-80GB": ChipSpec(312e12, 156e12, 80e9, 2.039e12, 300e9),
    # https://resources.nvidia.com/en-us-gpu-resources/h100-datasheet-24306 (half of its figures "with sparsity")
    "NVIDIA H100 80GB HBM3": ChipSpec(989.4e12, 494.7e12, 80e9, 3.35e12, 450e9),
    "NVIDIA H100 PCIe": ChipSpec(756e12, 378e12, 80e9, 2.0e12, 300e9),
    # https://nvdam.widen.net/s/nb5zzzsjdf/hpc-datasheet-sc23-h200-datasheet-3002446
    "NVIDIA H200": ChipSpec(989.4e12, 494.7e12, 141e9, 4.8e12, 450e9),
    # https://resources.nvidia.com/en-us-blackwell-architecture (HGX B200, 1,000 W)
    "NVIDIA B200": ChipSpec(2250e12, 1100e12, 180e9, 8.0e12, 900e9),
    # https://docs.cloud.google.com/tpu/docs/v4
    "TPU v4": ChipSpec(275e12, 275e12, 34.36e9, 1.2e12, 300e9),
    # https://docs.cloud.google.com/tpu/docs/v5e
    "TPU v5 lite": ChipSpec(197e12, 197e12, 16e9, 819e9, 200e9),
    # https://docs.cloud.google.com/tpu/docs/v5p
    "TPU v5": ChipSpec(459e12, 459e12, 95e9, 2.765e12, 600e9),
    # https://docs.cloud.google.com/tpu/docs/v6e
    "TPU v6 lite": ChipSpec(918e12, 918e12, 32e9, 1.638e12, 400e9),
}
CHIPS["TPU v5p"] = CHIPS["TPU v5"]  # JAX has used both names


@dataclass(frozen=True)
class Machine:
    """Chips of one kind and the network between them."""

    device_kind: str  # key of CHIPS; "" where peak rates are unknown
    links: int  # links that share `ChipSpec.interconnect`; 1 behind a switch
    ring_links: int  # links that one collective along one mesh axis uses at once: 2 for both directions of a ring
    island: int  # chips connected by their own links
    network: float  # bytes/s that a chip sends to another island
    topology: str = ""  # libtpu's name of the TPU generation; "" for other devices

    @property
    def chip(self) -> ChipSpec | None:
        """The chip's datasheet; None where it is unknown."""
        return CHIPS.get(self.device_kind)


MACHINES = {  # by the name that --device takes
    # Eight GPUs a host, one 400 Gb/s network card for each: https://docs.nvidia.com/dgx/dgxh100-user-guide
    "h200": Machine("NVIDIA H200", links=1, ring_links=1, island=8, network=50e9),
    "h100": Machine("NVIDIA H100 80GB HBM3", links=1, ring_links=1, island=8, network=50e9),
    # A pod of 256 sends 6.4 Tb/s: https://docs.cloud.google.com/tpu/docs/v5e
    "v5e": Machine("TPU v5 lite", links=4, ring_links=2, island=256, network=3.125e9, topology="v5e"),
    # A chip sends 50 Gb/s: https://docs.cloud.google.com/tpu/docs/v5p
    "v5p": Machine("TPU v5", links=6, ring_links=2, island=8960, network=6.25e9, topology="v5p"),
    "cpu": Machine("", links=1, ring_links=1, island=1, network=0.0),
}


def find_machine(name: str) -> Machine:
    """Returns the machine that `--device` names. Raises InputError with the nearest name for an unknown one."""
    if name not in MACHINES:
        nearest = difflib.get_close_matches(name, MACHINES, n=1, cutoff=0.0)[0]
        raise InputError(f"--device is {name!r}, expected one of {', '.join(MACHINES)}; did you mean {nearest}?")
    return MACHINES[name]


def machine_name(device_kind: str) -> str:
    """Returns the key of MACHINES for JAX's `device_kind`. Raises InputError for an unknown kind."""
    aliases = {"cpu": "cpu", "TPU v5p": "v5p"} | {machine.device_kind: name for name, machine in MACHINES.items()}
    if device_kind not in aliases:
        raise InputError(f"--dry-run does not know {device_kind!r}; name another one: --device {'|'.join(MACHINES)}")
    return aliases[device_kind]


def tpu_topology(name: str, count: int) -> str:
    """Returns libtpu's name of a slice of `count` chips, such as "v5e:16x16".

    Sides are powers of two, as equal as possible: two sides for v5e, three for v5p. Raises InputError for a count that
    has no such slice.
    """
    machine = find_machine(name)
    sides = [1] * (2 if name == "v5e" else 3)
    while count > 1 and count % 2 == 0 and count <= machine.island:
        count //= 2
        sides[sides.index(min(sides))] *= 2
    if count != 1:
        largest = 2 ** (machine.island.bit_length() - 1)
        raise InputError(f"--count is not a slice of {name}; expected a power of two, 1 to {largest}")
    return f"{machine.topology}:{'x'.join(map(str, sorted(sides)))}"
