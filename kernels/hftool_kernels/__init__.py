"""Products of weights in 4 or 8 bits, attention, and the step of a decoder for one token, in C.

The structures are those of kernels.c, which says what their fields mean. Pointers are the addresses
of memory that the caller keeps. Import torch first: both then compute with the same threads.
"""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

__version__ = "0.3.0"


class Linear(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("levels", "scales", "bias")),
        *((name, c_int32) for name in ("inputs", "outputs", "bits", "compact")),
    ]


class Layer(Structure):
    _fields_ = [
        *((name, Linear) for name in ("qkv", "out", "gate_up", "down")),
        *((name, c_void_p) for name in ("attention_norm", "mlp_norm")),
        *((name, c_void_p) for name in ("after_attention", "after_mlp")),
        *((name, c_void_p) for name in ("query_norm", "key_norm")),
        ("rotation", c_int32),
    ]


class Decoder(Structure):
    _fields_ = [
        ("layers", POINTER(Layer)),
        ("head", Linear),
        ("norm", c_void_p),
        *((name, c_int32) for name in ("count", "hidden", "heads", "kv_heads", "head_dim")),
        *((name, c_int32) for name in ("rotated", "gelu", "bfloat16")),
        *((name, c_float) for name in ("eps", "scaling")),
    ]


class Cached(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("keys", "values")),
        ("capacity", c_int64),
        *((name, c_int32) for name in ("start", "window")),
    ]


class Rotation(Structure):
    _fields_ = [*((name, c_void_p) for name in ("cos", "sin"))]


BFLOAT16, GELU = 1, 2  # what `product` does


class Attention(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("query", "keys", "values", "mask")),
        *((name, c_int64) for name in ("query_step", "key_step")),
        *((name, c_int32) for name in ("sequences", "queries", "tokens", "heads", "size")),
        ("bfloat16", c_int32),
    ]


def _loaded(instructions: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(__file__).with_name(f"_{instructions}.abi3.so")))


_library = _loaded("avx512")
if not _library.hftool_supported():
    _library = _loaded("avx2")
supported = _library.hftool_supported
product = _library.hftool_product
product.argtypes = [POINTER(Linear), c_void_p, c_int32, c_int64, c_void_p]
attention = _library.hftool_attention
attention.argtypes = [POINTER(Attention), c_void_p]
step = _library.hftool_step
step.argtypes = [POINTER(Decoder), POINTER(Cached), POINTER(Rotation), c_int32, c_void_p, c_void_p]
