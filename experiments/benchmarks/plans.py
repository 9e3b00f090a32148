"""Recipes on TPU slices that are not there: does the update fit, and how long does the compiler take to say so.

    python experiments/benchmarks/plans.py [--quick] [--json FILE]

Needs libtpu (pip install -e '.[tpu]'). Each row compiles the very update of a recipe, `clip-jax plan`'s way. The least
time is the largest of its three estimated limits.
"""

import argparse
import json
import time
from pathlib import Path

from clip_jax.tpu.plan import plan
from clip_jax.tpu.topology import parse_topology
from clip_jax.training.chips import GIB
from clip_jax.training.config_file import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
# recipe, topology, slices
ROWS = (
    ("openai_vit_l14", "v5e:2x2", 1),
    ("openai_vit_b32", "v5e:16x16", 1),
    ("openai_vit_l14", "v5e:16x16", 1),
    ("openai_vit_b16", "v4:4x4x4", 1),
    ("siglip_b16", "v6e:8x8", 1),
    ("openai_vit_b32", "v5e:8x8", 2),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the first two rows")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(
        f"{'recipe':<16} {'slice':<14} {'GiB a device':>14} {'least ms':>9} {'bound by':<9} {'seconds to say so':>18}"
    )
    found = []
    for recipe, name, slices in ROWS[:2] if arguments.quick else ROWS:
        topology, start = parse_topology(name, slices), time.perf_counter()
        one = plan(load_config(str(CONFIGS / f"{recipe}.py"), needs_data=False), topology)
        seconds, limits = time.perf_counter() - start, one.roofline
        memory = f"{(one.peak or one.needed or 0) / GIB:.2f} of {one.available / GIB:.2f}"
        slice_name = f"{slices} x {name}" if slices > 1 else name
        milliseconds = 1e3 * limits.seconds
        print(
            f"{recipe:<16} {slice_name:<14} {memory:>14} {milliseconds:>9.1f} {limits.limit:<9} {seconds:>18.1f}",
            flush=True,
        )
        found.append(one.to_dict() | {"seconds_to_compile": seconds})
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
