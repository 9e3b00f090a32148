"""open_clip as a reference, also where torchvision's compiled operators do not fit the installed torch."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any


@lru_cache
def _declare_torchvision_operators() -> Any:
    """Declares what `import torchvision` insists on, where its binary does not load; the transforms need neither.

    Returned and cached, because the declarations last only as long as the library object.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    for binary in Path(spec.origin).parent.glob("_C*.so"):
        try:
            return torch.ops.load_library(binary)
        except OSError:
            continue
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def import_open_clip() -> ModuleType:
    """The open_clip module. Afterwards `import torchvision` works as well. Raises ImportError."""
    _declare_torchvision_operators()
    import open_clip

    return open_clip
