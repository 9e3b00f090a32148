"""What a slice costs, by a table."""

import json

import pytest
from support.recorded_gcloud import ROOT

from clip_jax.errors import UserError
from clip_jax.tpu.launch.prices import cost
from clip_jax.tpu.topology import parse_topology


def test_costs_are_those_of_the_table(tmp_path):
    table = tmp_path / "prices.json"
    prices = {"v5e": {"us-west4": {"on_demand": 1.25, "spot": 0.5}}}
    table.write_text(json.dumps({"looked_up": "2026-01-31", "chip_hour": prices}))
    two = parse_topology("v5e:4x4", 2)
    assert cost(two, "us-west4-a", spot=False, table=table).hour == 40.0
    assert "about $16.00 an hour: 32 chips at $0.5, spot in us-west4" in cost(two, "us-west4-a", True, table).sentence
    unknown = cost(two, "us-east5-b", True, table)
    assert unknown.hour is None
    assert "the spot price of v5e in us-east5 is not in" in unknown.sentence
    table.write_text("{}")
    with pytest.raises(UserError, match="no table of prices"):
        cost(two, "us-west4-a", True, table)


def test_the_table_that_comes_along_is_sound():
    prices = json.loads((ROOT / "experiments/tpu/prices.json").read_text())
    assert set(prices) == {"source", "looked_up", "checked", "unit", "chip_hour"}
    for regions in prices["chip_hour"].values():
        for terms in regions.values():
            assert 0 < terms["spot"] < terms["on_demand"] < 20
