"""What Google calls a slice: the accelerator types of `gcloud compute tpus`, their shapes and their runtime images."""

from dataclasses import dataclass

from clip_jax.errors import UserError
from clip_jax.tpu.topology import Topology

# Names and images: cloud.google.com/tpu/docs/runtimes and the pages of each version (v4, v5e, v5p, v6e), looked up on
# 2026-11-21. For TPU7x the documentation knows GKE and Compute Engine only; name and image are those that public
# scripts ask the Cloud TPU API for (AI-Hypercomputer's microbenchmarks), in projects that Google has let in.


@dataclass(frozen=True)
class SliceType:
    """An accelerator type's name, the units of its number that one chip counts for, and the image of its workers."""

    name: str
    per_chip: int
    image: str


TYPES = {
    "v4": SliceType("v4", 2, "tpu-ubuntu2204-base"),
    "v5e": SliceType("v5litepod", 1, "v2-alpha-tpuv5-lite"),
    "v5p": SliceType("v5p", 2, "v2-alpha-tpuv5"),
    "v6e": SliceType("v6e", 1, "v2-alpha-tpuv6e"),
    "tpu7x": SliceType("tpu7x", 2, "v2-alpha-tpu7-ubuntu2404"),
}
SQUARES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))  # all that there is of v5e and v6e
CUBES = ((1, 2, 2), (2, 2, 2), (2, 2, 4), (2, 4, 4))  # of v4, v5p and TPU7x beside multiples of 4x4x4


def generation(topology: Topology) -> str:
    """'v5e' of v5e:16x16."""
    return topology.name.partition(":")[0]


def accelerator_type(topology: Topology) -> str:
    """The name by the number of chips or cores, such as v5litepod-256 for v5e:16x16."""
    kind = TYPES[generation(topology)]
    return f"{kind.name}-{topology.chips * kind.per_chip}"


def has_several_workers(topology: Topology) -> bool:
    """Whether a machine has fewer chips than this: 8 of v5e and v6e, where it is the only one, 4 of the others."""
    return topology.slices > 1 or topology.chips > (8 if generation(topology) in ("v5e", "v6e") else 4)


def image(topology: Topology) -> str:
    """The runtime image of a slice's workers."""
    return TYPES[generation(topology)].image


def type_flags(topology: Topology) -> list[str]:
    """The flags that ask gcloud for this shape.

    gcloud takes a shape for v4 only (528.0.0: `--type` is one of v2, v3, v4); of the others it takes the number of
    chips, and the shape is the most cubic one. Raises UserError for a shape that cannot be had so.
    """
    shape = tuple(sorted(int(side) for side in topology.name.partition(":")[2].split("x")))
    flat = len(shape) == 2
    if not (shape in SQUARES if flat else shape in CUBES or all(side % 4 == 0 for side in shape)):
        like = ", ".join(_text(one) for one in SQUARES) if flat else "2x2x1, 2x2x2, 2x2x4, 2x4x4 and multiples of 4x4x4"
        raise UserError(f"no slice of {generation(topology)} is {_text(shape)}; there are {like}")
    if generation(topology) == "v4":
        return ["--type=v4", f"--topology={topology.name.partition(':')[2]}"]
    usual = shape if flat else _most_cubic(topology.chips)
    if shape != usual:
        raise UserError(
            f"{topology.name} cannot be asked for by name: {accelerator_type(topology)} is {_text(usual)}; "
            f"plan with {generation(topology)}:{_text(usual)}"
        )
    return [f"--accelerator-type={accelerator_type(topology)}"]


def _most_cubic(chips: int) -> tuple[int, ...]:
    multiples = [
        (a, b, chips // (a * b))
        for a in range(4, chips + 1, 4)
        for b in range(a, chips // a + 1, 4)
        if chips % (4 * a * b) == 0 and chips // (a * b) >= b
    ]
    small = [shape for shape in CUBES if shape[0] * shape[1] * shape[2] == chips]
    return min(small + multiples, key=sum)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
