"""What a launch asks of Google: a slice's name and place, its topology, and on which terms."""

import re
from dataclasses import dataclass

from clip_jax.errors import UserError
from clip_jax.tpu.topology import Topology

NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")  # 63 at most, with what Google appends
ZONE = re.compile(r"[a-z]+(-[a-z]+)+\d+-[a-z0-9]+")
PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]")


@dataclass(frozen=True)
class Slice:
    """A slice's name and place. A queued resource of several `nodes` is several slices of one run."""

    name: str
    zone: str
    project: str | None = None
    queued: bool = False
    nodes: int = 1

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UserError(
                f"--name {self.name}: a slice's name is of a-z, 0-9 and -, begins with a letter, does not end with - "
                "and has 50 characters at most, as in my-run"
            )
        if not ZONE.fullmatch(self.zone):
            raise UserError(f"--zone {self.zone} is no zone; us-west4-a is one, of the region us-west4")
        if self.project and not PROJECT.fullmatch(self.project):
            raise UserError(
                f"--project {self.project} is no project's ID (6 to 30 of a-z, 0-9 and -); gcloud projects list"
            )
        if self.nodes < 1:
            raise UserError(f"--slices {self.nodes}: there is at least one slice")

    @property
    def kind(self) -> str:
        """What gcloud calls such resources."""
        return "queued-resources" if self.queued else "tpu-vm"

    @property
    def flags(self) -> list[str]:
        """What says to gcloud where the slice is; it asks nothing."""
        return [*([f"--project={self.project}"] if self.project else []), f"--zone={self.zone}", "--quiet"]

    @property
    def folder(self) -> str:
        """A name for a folder of this slice alone."""
        return "-".join(filter(None, (self.project, self.zone, self.name))).replace(":", "_")


@dataclass(frozen=True)
class Request:
    """What is asked of Google: a slice of a topology, and on which terms."""

    slice: Slice
    topology: Topology
    spot: bool = False
    image: str | None = None
    service_account: str | None = None

    @property
    def label(self) -> str:
        """What the slice is marked with, by which a later launch knows it as the one that it asks for."""
        terms = f"{self.topology} {'spot' if self.spot else 'on-demand'}{' queued' if self.slice.queued else ''}"
        return re.sub(r"[^a-z0-9]+", "-", terms)
