"""The directory of a zip archive: which record lies where, nothing unpacked.

Torch checkpoints and .npz files are zip archives.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, cast

from mhc_diag.checkpoints.source import ByteSource, SeekableSource

_LOCAL_HEADER = 30
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One file inside the archive."""

    name: str
    header: int
    """Position of its local header; the data follow it."""
    stored: int
    """Bytes in the archive."""
    size: int
    """Bytes after unpacking, as declared."""
    compression: int
    """0 stored, 8 deflated."""


def read_directory(source: ByteSource) -> Mapping[str, Record]:
    """Records by name, in the archive's order.

    Raises:
        CheckpointError: no zip directory at the end (a file cut short), or one that lies.
    """
    try:
        with zipfile.ZipFile(cast("IO[bytes]", SeekableSource(source))) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, EOFError) as error:
        raise source.fault(
            f"the zip directory at its end is missing or broken ({error}), as in a file cut short"
        ) from error
    except (NotImplementedError, ValueError, OverflowError, struct.error, OSError) as error:
        raise source.fault(f"the zip directory is broken ({error})") from error
    records: dict[str, Record] = {}
    for entry in found:
        if entry.filename in records:
            raise source.fault(f"the archive holds two records named {entry.filename!r}")
        if entry.flag_bits & _ENCRYPTED:
            raise source.fault("the archive is encrypted", "Unpack it first.")
        records[entry.filename] = Record(
            name=entry.filename,
            header=entry.header_offset,
            stored=entry.compress_size,
            size=entry.file_size,
            compression=entry.compress_type,
        )
    return records


def data_start(source: ByteSource, record: Record) -> int:
    """Position of a record's first data byte.

    Raises:
        CheckpointError: its header is not where the directory says, or its data leave the file.
    """
    header = source.read_metadata(record.header, _LOCAL_HEADER)
    if header[:4] != b"PK\x03\x04":
        raise source.fault(f"record {record.name!r} is not where the zip directory says")
    name_length, extra_length = struct.unpack_from("<HH", header, 26)
    start: int = record.header + _LOCAL_HEADER + name_length + extra_length
    if start + record.stored > source.size:
        raise source.fault(
            f"record {record.name!r} ends at byte {start + record.stored} but the file has "
            f"{source.size}"
        )
    return start


def require_stored(source: ByteSource, record: Record) -> None:
    """Refuse a compressed record: torch never writes one, and it may unpack to anything.

    Raises:
        CheckpointError: the record is compressed, or its two sizes differ.
    """
    if record.compression != zipfile.ZIP_STORED or record.stored != record.size:
        raise source.fault(
            f"record {record.name!r} is compressed ({record.stored} bytes for {record.size}), "
            "which torch.save never does",
            "Load it with torch.load(path, weights_only=True) and torch.save it again.",
        )
