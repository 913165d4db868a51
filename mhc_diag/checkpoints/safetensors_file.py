"""safetensors: 8 bytes header length, a JSON header, then the bytes of the tensors.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mhc_diag.checkpoints.dtypes import nbytes
from mhc_diag.checkpoints.location import MAX_DIMENSIONS, Contents, Location
from mhc_diag.checkpoints.source import ByteSource
from mhc_diag.checkpoints.strict_json import MAX_JSON, json_object

DTYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F6_E2M3": "float6_e2m3",
    "F6_E3M2": "float6_e3m2",
    "F4": "float4_e2m1",
}
_LENGTH = 8


def read_header(source: ByteSource) -> tuple[dict[str, Any], dict[str, str], int]:
    """The header: entries, metadata, position of the first data byte.

    Raises:
        CheckpointError: the length lies, or the header is no JSON object.
    """
    if source.size < _LENGTH:
        raise source.fault(f"the file has only {source.size} bytes")
    length = int.from_bytes(source.read_metadata(0, _LENGTH), "little")
    if length > min(source.size - _LENGTH, MAX_JSON):
        raise source.fault(
            f"the header declares {length} bytes, the file has {source.size} and the limit is "
            f"{MAX_JSON}"
        )
    entries = json_object(source, _LENGTH, length, what="safetensors header", unique=True)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise source.fault("__metadata__ is no table of strings")
    return entries, metadata, _LENGTH + length


def open_safetensors(source: ByteSource) -> Contents:
    """Names, types, shapes and places of the tensors, in the order of their bytes.

    Raises:
        CheckpointError: anything declared does not fit the file.
    """
    entries, _, data = read_header(source)
    places = [(name, _location(source, name, entry, data)) for name, entry in entries.items()]
    places.sort(key=lambda place: (place[1].start, place[1].length))
    end = data
    for name, place in places:
        if place.start < end:
            raise source.fault(f"tensor {name!r} overlaps another one")
        end = place.start + place.length
    return Contents(format="safetensors", tensors=dict(places), sources=(source,))


def _location(source: ByteSource, name: str, entry: Any, data: int) -> Location:
    """Check one entry of the header against the file."""
    if not isinstance(entry, dict):
        raise source.fault(f"the entry of tensor {name!r} is no object")
    dtype = DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise source.fault(
            f"tensor {name!r} has the unknown type {str(entry.get('dtype'))[:40]!r}",
            "Save it as float32 or bfloat16.",
        )
    shape, offsets = _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if shape is None or len(shape) > MAX_DIMENSIONS:
        raise source.fault(f"tensor {name!r} has no valid shape")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise source.fault(f"tensor {name!r} has no valid data_offsets")
    begin, end = offsets
    if data + end > source.size:
        raise source.fault(
            f"tensor {name!r} ends at byte {data + end} but the file has {source.size}"
        )
    needed = nbytes(dtype, math.prod(shape))
    if needed != end - begin:
        raise source.fault(
            f"tensor {name!r} of shape {list(shape)} needs {needed} bytes, {end - begin} declared"
        )
    return Location(source=source, start=data + begin, length=end - begin, dtype=dtype, shape=shape)


def _counts(value: Any) -> tuple[int, ...] | None:
    """``value`` as a tuple of sizes, None when it is anything else."""
    if not isinstance(value, list):
        return None
    if not all(type(item) is int and 0 <= item < 2**63 for item in value):
        return None
    return tuple(value)
