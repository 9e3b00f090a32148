"""What the contrastive loss alone, forward and backward, takes of a TPU chip's memory, by method, batch and slice.

    python experiments/benchmarks/loss_memory.py [--quick] [--json FILE]

Compiles for slices that are not there (needs libtpu: pip install -e '.[tpu]'), each in a process of its own, since
libtpu may abort. Temporaries are what the compiler sets aside beside arguments and results; "does not fit" is its own
word, with what it would have needed. `textbook` is the loss on whole arrays, which the compiler partitions as it likes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

WIDTH = 768
LARGE = 1 << 20
# topology, global batch, kind, method, type of the features
ROWS = (
    ("v5e:16x16", 32_768, "softmax", "textbook", "float32"),
    ("v5e:16x16", 32_768, "softmax", "gather", "float32"),
    ("v5e:16x16", 32_768, "softmax", "ring", "float32"),
    ("v5e:16x16", LARGE, "softmax", "textbook", "float32"),
    ("v5e:16x16", LARGE, "softmax", "gather", "float32"),
    ("v5e:16x16", LARGE, "softmax", "ring", "float32"),
    ("v5e:16x16", LARGE, "softmax", "ring", "bfloat16"),
    ("v5e:16x16", LARGE, "sigmoid", "textbook", "float32"),
    ("v5e:16x16", LARGE, "sigmoid", "gather", "float32"),
    ("v5e:16x16", LARGE, "sigmoid", "ring", "float32"),
    ("v6e:16x16", LARGE, "softmax", "ring", "float32"),
    ("v6e:32x32", 4 * LARGE, "softmax", "ring", "float32"),
    ("v6e:16x16", LARGE, "sigmoid", "ring", "float32"),
    ("v6e:32x32", 4 * LARGE, "sigmoid", "ring", "float32"),
)


def compile_one(topology: str, batch: int, kind: str, method: str, dtype: str) -> dict[str, float]:
    """Runs in a child process: the compiler's own figures, in MiB a chip."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import NamedSharding, PartitionSpec

    from clip_jax.losses import contrastive_loss, sigmoid_loss, softmax_loss
    from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh

    mesh = make_mesh(MeshConfig(), topologies.get_topology_desc(topology, "tpu").devices)

    def loss(image, text, scale, bias):
        if method != "textbook":
            return contrastive_loss(image, text, scale, bias, kind=kind, method=method, mesh=mesh)  # pyright: ignore[reportArgumentType]
        return sigmoid_loss(image, text, scale, bias) if kind == "sigmoid" else softmax_loss(image, text, scale)

    features = jax.ShapeDtypeStruct((batch, WIDTH), dtype, sharding=batch_sharding(mesh))
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    placed = (features.sharding, features.sharding, scalar.sharding, scalar.sharding)
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)), out_shardings=(scalar.sharding, placed))
    memory: Any = step.lower(features, features, scalar, scalar).compile().memory_analysis()
    return {
        "temporaries": memory.temp_size_in_bytes / 2**20,
        "arguments": memory.argument_size_in_bytes / 2**20,
        "results": memory.output_size_in_bytes / 2**20,
    }


def measure(row: tuple[str, int, str, str, str]) -> dict[str, Any]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    command = [sys.executable, __file__, "--one", json.dumps(row)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    names = dict(zip(("topology", "batch", "kind", "method", "dtype"), row, strict=True))
    if done.returncode == 0:
        return names | json.loads(done.stdout.splitlines()[-1])
    needed = re.search(r"temporaries \(([\d.]+[KMGT])\) exceeds available HBM \(([\d.]+[KMGT])\)", done.stderr)
    why = f"needs {needed[1]} of {needed[2]}" if needed else done.stderr.strip().splitlines()[-1][-200:]
    return names | {"does_not_fit": why}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="only the smallest slice's rows")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(compile_one(*arguments.one)))
        return
    rows = []
    say = partial(print, flush=True)
    say(f"{'slice':<10} {'batch':>9} {'kind':<8} {'method':<9} {'features':<9} {'temporaries MiB a chip':>24}")
    for row in ROWS[:3] if arguments.quick else ROWS:
        found = measure(row)
        rows.append(found)
        shown = f"{found['temporaries']:.1f}" if "temporaries" in found else f"does not fit: {found['does_not_fit']}"
        say(f"{row[0]:<10} {row[1]:>9,} {row[2]:<8} {row[3]:<9} {row[4]:<9} {shown:>24}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
