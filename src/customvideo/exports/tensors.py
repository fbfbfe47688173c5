"""Writing safetensors files with several metadata keys, the same bytes each time."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from customvideo.files import write_bytes

__all__ = ["write_tensors"]

_LENGTH = struct.Struct("<Q")
_ALIGNED = 8


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `tensors` as `dtype` with `metadata`, all or nothing.

    Raises:
        StorageError: the place cannot be written.
    """
    whole = {
        name: tensor.detach().to("cpu", dtype).contiguous().clone()
        for name, tensor in tensors.items()
    }
    data = safetensors.torch.save(whole)
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    header = json.loads(data[_LENGTH.size : start])
    # The library keeps no order among metadata keys.
    header = {"__metadata__": {"format": "pt", **dict(sorted(metadata.items()))}, **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    write_bytes(path, _LENGTH.pack(len(text)) + text + data[start:])
