"""The mesh (data, fsdp, tensor), which parameter lives where on it, and activation constraints.

Modules carry no sharding metadata: a table of (regex on the parameter's path, PartitionSpec) says it all, as in
big_vision. The same rules serve one device and a pod; an axis of size one costs nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clip_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Paths are '/'-joined keys of the parameter dict; the first match wins. Stacked layers lead with an axis that is
# never split, so the specs of a block's parameters start with None.
PARAMETER_RULES: tuple[tuple[str, P], ...] = (
    (r"block/attention/qkv/kernel", P(None, "fsdp", "tensor")),
    (r"block/attention/out/kernel", P(None, "tensor", "fsdp")),
    (r"block/mlp/up/kernel", P(None, "fsdp", "tensor")),
    (r"block/mlp/down/kernel", P(None, "tensor", "fsdp")),
    (r"pool/qkv/kernel", P("fsdp", "tensor")),
    (r"pool/out/kernel", P("tensor", "fsdp")),
    (r"pool/mlp/up/kernel", P("fsdp", "tensor")),
    (r"pool/mlp/down/kernel", P("tensor", "fsdp")),
    (r"conv(_\d)?/kernel", P(None, None, None, "fsdp")),
    (r"token_embedding", P(None, "fsdp")),  # vocabularies may be odd, widths are not
    (r"patch_embedding/kernel", P(None, "fsdp")),
    (r"projection$", P("fsdp", None)),
    (r".*", P()),
)


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; at most one may be -1, which takes all that the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over `devices` (default: all of every process). Raises UserError where the sizes do not multiply up."""
    devices = list(jax.devices() if devices is None else devices)
    sizes = [config.data, config.fsdp, config.tensor]
    known = int(np.prod([size for size in sizes if size != -1]))
    sensible = sizes.count(-1) <= 1 and all(size == -1 or size > 0 for size in sizes)
    if not sensible or len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise UserError(
            f"mesh data={config.data}, fsdp={config.fsdp}, tensor={config.tensor} does not fit {len(devices)} devices; "
            "the sizes must multiply to that number (one of them may be -1)"
        )
    shape = [len(devices) // known if size == -1 else size for size in sizes]
    return Mesh(_arranged(shape, devices), AXES, axis_types=(AxisType.Auto,) * 3)


def _arranged(shape: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """The devices so that neighbours in the mesh are neighbours by wire; only the data axis crosses slices of a pod."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    data, *others = shape
    if slices == 1:
        return create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if data % slices:
        raise UserError(f"mesh data={data} does not divide over {slices} slices; fsdp and tensor stay within a slice")
    return create_hybrid_device_mesh((data // slices, *others), (slices, 1, 1), devices, allow_split_physical_axes=True)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the global batch."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    """The number of parts into which the mesh splits a batch."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def parameter_specs(params: Mapping[str, Any], mesh: Mesh, rules=PARAMETER_RULES) -> Any:
    """The NamedSharding of each parameter, as a tree like `params` (arrays or ShapeDtypeStructs).

    An axis that a parameter's dimension does not divide by is left whole: a small tower on a large mesh still runs.
    """

    def spec_of(path, leaf) -> NamedSharding:
        name = "/".join(str(key.key) for key in path)
        spec = next(spec for pattern, spec in rules if re.search(pattern, name))
        return NamedSharding(mesh, _fitting(spec, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(spec_of, params)


def _fitting(spec: P, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> P:
    """`spec` without the axes that a dimension does not divide by."""

    def fits(axes: str | tuple[str, ...] | None, size: int) -> bool:
        names = (axes,) if isinstance(axes, str) else axes or ()
        return size % int(np.prod([mesh.shape[name] for name in names])) == 0

    return P(*(axes if fits(axes, size) else None for axes, size in zip(spec, shape, strict=False)))


def constrain(x: jax.Array, *spec: Any) -> jax.Array:
    """Pin an activation's sharding where our mesh is set, do nothing elsewhere: models stay mesh-free.

    Without these, fsdp meshes silently double memory, as the compiler shards activations along parameter axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != AXES or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return x  # no mesh, or a user's own, which is theirs to steer
    return jax.lax.with_sharding_constraint(x, _fitting(P(*spec), x.shape, mesh))
