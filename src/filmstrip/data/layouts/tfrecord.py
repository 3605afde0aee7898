"""TFRecord files and the ``tf.train.Example`` messages in them, as far as data sets of video use them.

A record is a length (8 bytes), its checksum (4), the message, and its checksum (4). A message is a map from names to
lists of bytes, floats or whole numbers, in protocol buffers' wire format. ``tf.train.SequenceExample`` begins with
such a map too. Only lengths' checksums are verified: one over the messages would take Python longer than decoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Values = list[bytes] | np.ndarray
"""A feature: some byte strings, or numbers."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _FLOAT_LIST, _INT_LIST = 1, 2, 3


def records(path: Path) -> Iterator[bytes]:
    """The messages of a file.

    Raises:
        ValueError: it is not a TFRecord file, or is cut short.
    """
    with path.open("rb") as file:
        while header := file.read(12):
            if len(header) < 12 or _masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
                raise ValueError("it is no TFRecord file, or is damaged: a length does not match its checksum")
            (length,) = struct.unpack("<Q", header[:8])
            message = file.read(length + 4)
            if len(message) < length + 4:
                raise ValueError(f"it ends in the middle of a record of {length} bytes")
            yield message[:-4]


def features(message: bytes) -> dict[str, Values]:
    """The features of an example by name.

    Raises:
        ValueError: it is no such message.
    """
    try:
        return dict(
            _entry(_content(entry))
            for number, part in _fields(memoryview(message))
            if number == 1 and isinstance(part, memoryview)
            for _, entry in _fields(part)
        )
    except (IndexError, TypeError, struct.error, UnicodeDecodeError, KeyError) as error:
        raise ValueError(f"a record is no tf.train.Example ({error})") from None


def _entry(entry: memoryview) -> tuple[str, Values]:
    """A name and its feature, from an entry of the map."""
    parts = dict(_fields(entry))
    return bytes(_content(parts[1])).decode(), _feature(_content(parts.get(2, memoryview(b""))))


def _feature(feature: memoryview) -> Values:
    for kind, values in _fields(feature):
        found = list(_fields(_content(values)))
        if kind == _BYTES_LIST:
            return [bytes(_content(value)) for _, value in found]
        if kind == _FLOAT_LIST:  # packed into one string of bytes, or one by one
            return np.concatenate(
                [np.zeros(0, "<f4"), *(np.frombuffer(_content(value), "<f4") for _, value in found)]
            )
        if kind == _INT_LIST:
            unpacked = [n for _, v in found for n in (_varints(v) if isinstance(v, memoryview) else [v])]
            return np.array(unpacked, np.uint64).astype(np.int64)
    return []


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The numbers and contents of a message's fields."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        wire = key & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            length, place = _varint(message, place)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise IndexError(f"wire type {wire}")
        if place + length > len(message):
            raise IndexError("a field reaches beyond its message")
        yield key >> 3, message[place : place + length]
        place += length


def _content(field: memoryview | int) -> memoryview:
    """The content of a field that is a message, bytes or a number of fixed size.

    Raises:
        TypeError: it is a number of variable size.
    """
    if isinstance(field, int):
        raise TypeError(f"the number {field} where bytes are expected")
    return field


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise IndexError("a number is longer than 64 bits")


def _varints(message: memoryview) -> Iterator[int]:
    place = 0
    while place < len(message):
        value, place = _varint(message, place)
        yield value


def _table() -> list[int]:
    """CRC-32C by byte (Castagnoli's polynomial, reflected)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord does."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
