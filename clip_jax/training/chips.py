"""What accelerators can do at most: matrix products, memory and links, as their makers publish it."""

from dataclasses import dataclass

# TPUs: the system architecture pages of cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, TPU7x). GPUs: NVIDIA's data
# sheets, dense bfloat16. Links: what a chip can send over all of them together, half of a "bidirectional" figure.


@dataclass(frozen=True)
class Chip:
    """One chip: bfloat16 FLOP/s, bytes of memory and bytes/s to it, and bytes/s that it can send to others.

    `devices` is how many JAX devices one chip is: a TPU7x is two, each with half of everything.
    """

    name: str
    flops: float
    memory: int
    memory_bandwidth: float
    link_bandwidth: float
    devices: int = 1


GIB = 2**30
CHIPS = {
    "v4": Chip("TPU v4", 275e12, 32 * GIB, 1228e9, 300e9),
    "v5e": Chip("TPU v5e", 197e12, 16 * GIB, 819e9, 200e9),
    "v5p": Chip("TPU v5p", 459e12, 95 * GIB, 2765e9, 600e9),
    "v6e": Chip("TPU v6e", 918e12, 32 * GIB, 1640e9, 448e9),
    "tpu7x": Chip("TPU7x", 2307e12, 192 * GIB, 7380e9, 600e9, devices=2),
}
GPUS = {
    "A100": Chip("A100", 312e12, 80 * GIB, 2039e9, 300e9),
    "H100": Chip("H100", 989e12, 80 * GIB, 3350e9, 450e9),
    "H200": Chip("H200", 989e12, 141 * GIB, 4800e9, 450e9),
}
# How JAX names devices: `device_kind` holds one of these.
KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v6": "v6e", "TPU7x": "tpu7x"}


def chip_of(device_kind: str) -> Chip | None:
    """The chip behind JAX's name of a device; None for one whose peak is not known, such as a CPU."""
    for part, name in KINDS.items():
        if device_kind.startswith(part):
            return CHIPS[name]
    return next((chip for name, chip in GPUS.items() if name in device_kind), None)


def peak_flops(device_kind: str) -> float | None:
    """bfloat16 FLOP/s of one JAX device at most; None where that is not known."""
    chip = chip_of(device_kind)
    return None if chip is None else chip.flops / chip.devices
