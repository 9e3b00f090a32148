"""What a Google Cloud VM knows of itself, and whether its buckets are near."""

import os
from collections.abc import Callable, Iterable

from clip_jax.data import files
from clip_jax.errors import UserError
from clip_jax.tpu.doctor.examination import Finding
from clip_jax.tpu.launch.slice_types import TYPES
from clip_jax.training.chips import CHIPS
from clip_jax.training.google_cloud import metadata

CHIPS_OF = {kind.name: chip for chip, kind in TYPES.items()}


def accelerator_type() -> str:
    """Of the slice that this VM is a worker of, such as v5litepod-16; nothing where it is none."""
    return os.environ.get("TPU_ACCELERATOR_TYPE") or metadata("instance/attributes/accelerator-type")


def expected_devices(accelerator: str) -> int | None:
    """How many devices JAX should see on such a slice; None for a type that is not known."""
    name, _, number = accelerator.rpartition("-")
    if name not in CHIPS_OF or not number.isdecimal():
        return None
    chip = CHIPS_OF[name]
    return int(number) // TYPES[chip].per_chip * CHIPS[chip].devices


def buckets(places: Iterable[str]) -> list[str]:
    """The Google buckets among paths, URLs and data SPECs."""
    found = [place.partition("gs://")[2].partition("/")[0] for place in places if "gs://" in place]
    return list(dict.fromkeys(found))


def location_of(bucket: str) -> str:
    """Such as US-WEST4, or US for a multi-region; nothing where one may not know. Raises UserError."""
    system, name = files.remote(f"gs://{bucket}")
    return str(files.attempt(f"gs://{bucket}", lambda: system.info(name)).get("location", ""))


def check_region(names: Iterable[str], zone: str, location_of: Callable[[str], str] = location_of) -> Finding:
    """Whether buckets lie in the region of the VM, whose `zone` is as the metadata server gives it."""
    region = zone.rpartition("/")[2].rpartition("-")[0]
    names = list(names)
    if not region or not names:
        return Finding("skipped", "no bucket in use" if region else "not on a Google Cloud VM")
    locations, unknown = {}, []
    for name in names:
        try:
            locations[name] = location_of(name).lower()
        except UserError as error:
            unknown.append(str(error))
    far = {name: location for name, location in locations.items() if location and location != region}
    seen = [f"gs://{name} is in {location or 'an unknown place'}" for name, location in locations.items()] + unknown
    advice = f"keep buckets in {region}: between regions, traffic is slower and costs" if far else ""
    status = "warning" if far or unknown or not all(locations.values()) else "ok"
    return Finding(
        status, f"this VM is in {region}; {', '.join(seen)}", advice, {"region": region, "buckets": locations}
    )
