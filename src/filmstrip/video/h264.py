"""A minimal H.264 parser (ITU-T H.264, 7.3) for the contents of packets, without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_SLICES = (1, 2, 5)
"""NAL unit types that hold picture data (table 7-1)."""

_IDR = 5
"""NAL unit type of an IDR picture, at which decoding and the picture order count restart."""

_SPS = 7
"""NAL unit type of a sequence parameter set."""

_WITH_CHROMA_FORMAT = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)
"""Profiles whose sequence parameter set has chroma fields (7.3.2.1.1)."""

_HEADER = 64
"""Number of bytes of a NAL unit that are parsed: the fields needed lie in the first few dozen."""


class Picture(NamedTuple):
    """The picture of one packet, from its slice headers."""

    number: int
    """``frame_num``: both fields of a frame have the same."""
    fields: frozenset[bool]
    """Its fields, True for the bottom one; empty for a frame-coded picture."""
    order: int
    """``pic_order_cnt_lsb``, the least significant bits of its display order; 0 if not stored."""
    is_idr: bool
    is_reference: bool


class _Bits:
    """Reads a NAL unit bit by bit, without emulation prevention bytes."""

    def __init__(self, data: bytes):
        data = data.replace(b"\0\0\3", b"\0\0")
        self._bits, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        """An unsigned number of ``count`` bits."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the NAL unit ends early")
        return self._bits >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


@dataclass(frozen=True)
class Sequence:
    """Fields of a sequence parameter set."""

    number_bits: int
    """Length of ``frame_num``."""
    order_bits: int
    """Length of ``pic_order_cnt_lsb``; 0 if not stored: display order is then decoding order."""
    separate_planes: bool
    progressive: bool
    """Whether every picture is frame-coded."""

    @classmethod
    def of(cls, extradata: bytes | None) -> Sequence | None:
        """The first one in a stream's header; ``None`` if none can be parsed."""
        for unit in _parameter_sets(extradata or b""):
            if unit[:1] and unit[0] & 31 == _SPS:
                try:
                    return cls._parse(_Bits(unit[1 : 1 + 8 * _HEADER]))
                except ValueError:
                    return None
        return None

    @classmethod
    def _parse(cls, bits: _Bits) -> Sequence:
        profile = bits.take(8)
        bits.take(16)
        bits.golomb()
        separate = False
        if profile in _WITH_CHROMA_FORMAT:
            chroma = bits.golomb()
            separate = chroma == 3 and bool(bits.take(1))
            bits.golomb(), bits.golomb(), bits.take(1)
            if bits.take(1):
                for number in range(8 if chroma != 3 else 12):
                    if bits.take(1):
                        _skip_scaling_list(bits, 16 if number < 6 else 64)
        number_bits = bits.golomb() + 4
        kind, order_bits = bits.golomb(), 0
        if kind == 0:
            order_bits = bits.golomb() + 4
        elif kind == 1:
            raise ValueError("this picture order count type is not supported")
        bits.golomb(), bits.take(1), bits.golomb(), bits.golomb()
        return cls(number_bits, order_bits, separate, bool(bits.take(1)))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + (code + 1 >> 1 if code % 2 else -(code >> 1))) % 256
        last = following or last


def picture(data: bytes | memoryview, extradata: bytes | None, sequence: Sequence) -> Picture | None:
    """The picture of a packet; ``None`` if its slices cannot be parsed."""
    fields, found = set(), None
    for unit in _units(data, extradata):
        if unit[0] & 31 not in _SLICES:
            continue
        bits, is_idr = _Bits(unit[1:]), unit[0] & 31 == _IDR
        try:
            bits.golomb(), bits.golomb(), bits.golomb()
            if sequence.separate_planes:
                bits.take(2)
            number = bits.take(sequence.number_bits)
            if not sequence.progressive and bits.take(1):
                fields.add(bool(bits.take(1)))
            if is_idr:
                bits.golomb()
            order = bits.take(sequence.order_bits)
        except ValueError:
            return None
        found = found or Picture(number, frozenset(), order, is_idr, unit[0] >> 5 & 3 != 0)
    return found and found._replace(fields=frozenset(fields))


def display_keys(pictures: list[Picture | None], sequence: Sequence) -> list[tuple[int, int]] | None:
    """Sort keys from decoding order to display order (8.2.1); ``None`` if the pictures do not determine it."""
    if None in pictures:
        return None
    if not sequence.order_bits:
        return [(0, place) for place in range(len(pictures))]
    size, period, high, low = 1 << sequence.order_bits, 0, 0, 0
    keys = []
    for now in pictures:
        if now.is_idr:
            period, high, low = period + 1, 0, 0
        behind = low - now.order
        msb = high + size if behind >= size // 2 else high - size if -behind > size // 2 else high
        keys.append((period, msb + now.order))
        if now.is_reference:
            high, low = msb, now.order
    return keys if len(set(keys)) == len(keys) else None


def is_second_field(before: Picture | None, now: Picture | None) -> bool:
    """Whether a packet holds the second field of the frame of the packet before it (7.4.1.2.4)."""
    return (
        before is not None
        and now is not None
        and len(before.fields) == len(now.fields) == 1
        and before.fields != now.fields
        and before.number == now.number
    )


def is_reference(data: bytes | memoryview, extradata: bytes | None) -> bool:
    """Whether this is a reference picture, by ``nal_ref_idc``; True if that cannot be parsed."""
    for unit in _units(data, extradata):
        if unit[0] & 31 in _SLICES:
            return unit[0] >> 5 & 3 != 0
    return True


def _length_size(extradata: bytes) -> int:
    """Size in bytes of the length field before each NAL unit, or 0 with start codes."""
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


def _units(data: bytes | memoryview, extradata: bytes | None) -> Iterator[bytes]:
    """The beginnings of a packet's NAL units."""
    data, length = bytes(data), _length_size(extradata or b"")
    start = length if length else data.find(b"\0\0\1") + 3
    while (length or 3) <= start < len(data):
        yield data[start : start + _HEADER]
        if length:
            start += int.from_bytes(data[start - length : start]) + length
        else:
            start = data.find(b"\0\0\1", start) + 3


def _parameter_sets(extradata: bytes) -> Iterator[bytes]:
    """NAL units of a stream's header: ``avcC`` (ISO 14496-15) or with start codes."""
    if not _length_size(extradata):
        yield from extradata.split(b"\0\0\1")[1:]
        return
    position = 6
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        size = int.from_bytes(extradata[position : position + 2])
        yield extradata[position + 2 : position + 2 + size]
        position += 2 + size
