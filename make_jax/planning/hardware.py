"""The machines that a dry run knows by name: their chips, and how these are joined. Imports no jax.

`Peak` in `planning/devices.py` has what a chip can do; this module has the network, as its makers state it: chips of an
island (a host of GPUs, a pod of TPUs) reach each other over the chip's own links, other islands over the data centre's
network.
"""

import difflib
from dataclasses import dataclass

from make_jax.errors import InputError
from make_jax.planning.devices import PEAKS, Peak


@dataclass(frozen=True)
class Machine:
    """Chips of one kind and what joins them."""

    kind: str  # JAX's name of the chip; "" where what it can do is not known
    links: int  # that `Peak.interconnect` is shared by; behind a switch it is one
    lanes: int  # links of them that a collective over one axis of a mesh uses at once: both ways round a ring
    island: int  # chips that the links join
    outside: float  # bytes/s that a chip sends to another island
    topology: str = ""  # libtpu's name of the family; "" is no TPU

    @property
    def peak(self) -> Peak | None:
        """What a chip can do; None where that is not known."""
        return PEAKS.get(self.kind)


MACHINES = {
    # Eight GPUs a host, one network card of 400 Gb/s for each: https://docs.nvidia.com/dgx/dgxh100-user-guide
    "h200": Machine("NVIDIA H200", links=1, lanes=1, island=8, outside=50e9),
    "h100": Machine("NVIDIA H100 80GB HBM3", links=1, lanes=1, island=8, outside=50e9),
    # A pod of 256 sends 6.4 Tb/s: https://docs.cloud.google.com/tpu/docs/v5e
    "v5e": Machine("TPU v5 lite", links=4, lanes=2, island=256, outside=3.125e9, topology="v5e"),
    # A chip sends 50 Gb/s: https://docs.cloud.google.com/tpu/docs/v5p
    "v5p": Machine("TPU v5", links=6, lanes=2, island=8960, outside=6.25e9, topology="v5p"),
    "cpu": Machine("", links=1, lanes=1, island=1, outside=0.0),
}


def machine_of(name: str) -> Machine:
    """The machine of that name; InputError with the nearest one for an unknown name."""
    if name not in MACHINES:
        nearest = difflib.get_close_matches(name, MACHINES, n=1, cutoff=0.0)[0]
        raise InputError(f"--device is {name!r}, expected one of {', '.join(MACHINES)}; did you mean {nearest}?")
    return MACHINES[name]


def name_of(kind: str) -> str:
    """The name of the machine whose chips JAX calls `kind`; InputError where none is known."""
    aliases = {"cpu": "cpu", "TPU v5p": "v5p"} | {machine.kind: name for name, machine in MACHINES.items()}
    if kind not in aliases:
        raise InputError(f"--dry-run does not know {kind!r}; name another one: --device {'|'.join(MACHINES)}")
    return aliases[kind]


def topology_name(name: str, count: int) -> str:
    """What libtpu calls a slice of `count` chips, "v5e:16x16"; InputError for a count that has no such slice.

    Sides are powers of two, as even as may be: two of them for v5e, three for v5p.
    """
    machine = machine_of(name)
    sides = [1] * (2 if name == "v5e" else 3)
    while count > 1 and count % 2 == 0 and count <= machine.island:
        count //= 2
        sides[sides.index(min(sides))] *= 2
    if count != 1:
        most = 2 ** (machine.island.bit_length() - 1)
        raise InputError(f"--count is not a slice of {name}; expected a power of two, 1 to {most}")
    return f"{machine.topology}:{'x'.join(map(str, sorted(sides)))}"
