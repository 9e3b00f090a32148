"""What a slice costs an hour, by a table that people edit."""

import json
from dataclasses import dataclass
from pathlib import Path

from clip_jax.errors import UserError
from clip_jax.tpu.launch.slice_types import generation
from clip_jax.tpu.topology import Topology

PRICES = Path("experiments/tpu/prices.json")
PRICE_LIST = "https://cloud.google.com/tpu/pricing"


@dataclass(frozen=True)
class Cost:
    """US dollars of a chip and hour, None where the table has no price, and the sentence that says what that makes."""

    chip_hour: float | None
    chips: int
    sentence: str

    @property
    def hour(self) -> float | None:
        """US dollars of all chips and an hour."""
        return None if self.chip_hour is None else self.chip_hour * self.chips


def cost(topology: Topology, zone: str, spot: bool, table: Path = PRICES) -> Cost:
    """The estimated cost of slices in a zone. Raises UserError for a table that cannot be read."""
    kind, region, terms = generation(topology), zone.rpartition("-")[0], "spot" if spot else "on_demand"
    chips = topology.chips * topology.slices
    price = None
    looked_up = ""
    if table.is_file():
        try:
            prices = json.loads(table.read_text(encoding="utf-8"))
            price = prices["chip_hour"].get(kind, {}).get(region, {}).get(terms)
            price = None if price is None else float(price)
            looked_up = prices["looked_up"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{table} is no table of prices: {error!r}; it needs looked_up and chip_hour") from error
    words = terms.replace("_", " ")
    if price is None:
        return Cost(None, chips, f"the {words} price of {kind} in {region} is not in {table}; see {PRICE_LIST}")
    return Cost(
        price,
        chips,
        f"about ${price * chips:,.2f} an hour: {chips} chips at ${price:g}, {words} in {region} "
        f"({table}, {looked_up}, to be checked at {PRICE_LIST})",
    )
