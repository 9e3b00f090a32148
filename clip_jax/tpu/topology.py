"""Names of TPU slices, v5e:16x16 and their like, as libtpu knows them."""

import re
from dataclasses import dataclass
from math import prod

from clip_jax.errors import UserError
from clip_jax.training.chips import CHIPS, Chip

NAME = re.compile(r"(?P<chip>[a-z0-9]+):(?P<shape>\d+x\d+(x\d+)?)")
EXAMPLES = "v5e:16x16, v6e:8x16, v4:4x4x4, v5p:8x8x8 and tpu7x:4x4x4 are such names"
DIMENSIONS = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}


@dataclass(frozen=True)
class Topology:
    """`slices` equal slices of chips, `name` being that of one of them."""

    name: str
    chip: Chip
    chips: int
    slices: int

    @property
    def devices(self) -> int:
        """JAX devices of all slices."""
        return self.chips * self.chip.devices * self.slices

    def __str__(self) -> str:
        return self.name if self.slices == 1 else f"{self.slices} x {self.name}"


def parse_topology(name: str, slices: int = 1) -> Topology:
    """A topology by its name. Raises UserError for one that is none, saying what would be."""
    match = NAME.fullmatch(name)
    if not match or match["chip"] not in CHIPS:
        raise UserError(f"'{name}' is no TPU topology; {EXAMPLES}")
    sides = [int(side) for side in match["shape"].split("x")]
    wanted = DIMENSIONS[match["chip"]]
    if len(sides) != wanted or min(sides) < 1:
        raise UserError(f"'{name}' is no TPU topology: a slice of {match['chip']} has {wanted} sides; {EXAMPLES}")
    if slices < 1:
        raise UserError(f"there is at least one slice, not {slices}")
    return Topology(name, CHIPS[match["chip"]], prod(sides), slices)
