"""`clip-jax plan`: what a run would need of a TPU slice that is not there."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import Parser, write_json
from clip_jax.cli.config_arguments import joined, overrides_of
from clip_jax.errors import UserError


def run(arguments: Sequence[str]) -> None:
    """Compiles the train step of a config for a topology, and prints whether it fits and what it costs."""
    parser = Parser(
        "plan",
        "Compile the very train step of a config for a TPU slice that is not there: does it fit and by how much, what\n"
        "does it communicate, how many FLOPs is it, and what is the least time that it can take. Needs libtpu\n"
        "(pip install '.[tpu]'), no TPU. A compilation takes seconds to four minutes on two cores; a batch that does\n"
        "not fit is refused in seconds, and the exit code is then 1. --config.KEY=VALUE overrides any key, as in\n"
        "--config.batch_size=16384.",
        "clip-jax plan --config=configs/openai_vit_b32.py --topology v5e:16x16 --mesh data=64,fsdp=4",
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="the config that train would be given")
    parser.add_argument("--topology", required=True, metavar="NAME", help="such as v5e:16x16, v4:4x4x4, v6e:8x16")
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="that many slices of it (default: 1)")
    parser.add_argument("--mesh", metavar="AXES", help="such as data=64,fsdp=4 (default: the config's)")
    parser.add_argument("--largest-batch", action="store_true", help="find the largest that fits, in five compilations")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw where the memory goes (.png, .svg, .pdf)")
    options, rest = parser.parse_known_args(joined(arguments))
    overrides = overrides_of(parser, rest)
    if options.mesh:
        overrides += _mesh(options.mesh)

    from clip_jax.tpu.plan import Plan, largest_batch, plan
    from clip_jax.tpu.plan_picture import FORMATS, draw_plans
    from clip_jax.tpu.plan_text import plan_text
    from clip_jax.tpu.topology import parse_topology
    from clip_jax.training.chips import GIB
    from clip_jax.training.config_file import load_config

    if options.picture and options.picture.suffix not in FORMATS:
        raise UserError(f"--picture {options.picture}: a picture ends in {', '.join(FORMATS)}")
    topology = parse_topology(options.topology, options.slices)
    config = load_config(options.config, overrides, needs_data=False)
    tried: list[Plan] = []

    def say(one: Plan) -> None:
        tried.append(one)
        outcome = f"peak {one.peak / GIB:.2f} GiB" if one.peak is not None else "does not fit"
        print(f"compiled a batch of {one.config.batch_size:,}: {outcome}", flush=True)

    found = largest_batch(config, topology, say) if options.largest_batch else plan(config, topology)
    print(plan_text(found))
    write_json(options.json, found.to_dict())
    if options.picture:
        draw_plans(tried or [found], options.picture)
        print(f"\npicture: {options.picture}")
    if not found.fits:
        sys.exit(1)  # so that `clip-jax plan ... && ...` goes no further


def _mesh(text: str) -> list[tuple[str, str]]:
    """'data=64,fsdp=4' as overrides of the config; what is not named is 1, and data takes the rest."""
    sizes = {"data": "-1", "fsdp": "1", "tensor": "1"}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(data|fsdp|tensor)=(-?\d+)\s*", part)
        if not match:
            raise UserError(f"--mesh {text}: '{part}' is no axis; data=64,fsdp=4,tensor=1 would be a mesh")
        sizes[match[1]] = match[2]
    return [(f"mesh.{axis}", size) for axis, size in sizes.items()]
