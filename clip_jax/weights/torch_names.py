"""The names that a torch file of tensors may use, from torch's own `weights_only` list.

Source: torch/_weights_only_unpickler.py and torch/jit/_pickle.py of torch 2.13. What that list has beyond plain dense
tensors is refused here by its kind.
"""

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype] = {
    f"torch.{name}": np.dtype(getattr(ml_dtypes, name, None) or getattr(np, name))
    for name in (
        *("float64", "float32", "float16", "bfloat16"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
    )
}

STORAGES: dict[str, np.dtype | None] = {  # of an untyped storage, each tensor tells its own
    "torch.DoubleStorage": DTYPES["torch.float64"],
    "torch.FloatStorage": DTYPES["torch.float32"],
    "torch.HalfStorage": DTYPES["torch.float16"],
    "torch.BFloat16Storage": DTYPES["torch.bfloat16"],
    "torch.LongStorage": DTYPES["torch.int64"],
    "torch.IntStorage": DTYPES["torch.int32"],
    "torch.ShortStorage": DTYPES["torch.int16"],
    "torch.CharStorage": DTYPES["torch.int8"],
    "torch.ByteStorage": DTYPES["torch.uint8"],
    "torch.BoolStorage": DTYPES["torch.bool"],
    "torch.storage.UntypedStorage": None,
}

BUILDERS = {
    "collections.OrderedDict",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
}

TYPE_TAGS = {  # TorchScript's remarks on the type of their first argument
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.restore_type_tag",
}

OPAQUE = {  # beside tensors, and of no interest
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
}

ALLOWED = BUILDERS | TYPE_TAGS | OPAQUE | STORAGES.keys() | DTYPES.keys()

OTHER_TENSORS = {
    "torch.ComplexDoubleStorage": "complex",
    "torch.ComplexFloatStorage": "complex",
    "torch.QInt32Storage": "quantised",
    "torch.QInt8Storage": "quantised",
    "torch.QUInt2x4Storage": "quantised",
    "torch.QUInt4x2Storage": "quantised",
    "torch.QUInt8Storage": "quantised",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "saved from an unusual device",
    "torch._utils._rebuild_device_tensor_from_numpy": "saved from an unusual device",
    "torch._utils._rebuild_meta_tensor_no_storage": "without values",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_wrapper_subclass": "wrapped in a class of its own",
}
