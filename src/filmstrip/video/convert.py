"""Conversion of decoded frames to RGB bytes: crop, scale, convert and rotate in one pass, into existing memory."""

from __future__ import annotations

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from filmstrip.video.decoder import Crop, DecodeError, VideoInfo

_PLANES_GBR = (1, 2, 0)
"""RGB channel indices of FFmpeg's planar ``gbrp`` order: green, blue, red."""

_UNSPECIFIED = 2
"""Values of colour properties (ITU-T H.273) that mean unspecified."""

_MATRICES = (0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 16, 17)
_PRIMARIES = (1, 2, *range(4, 23))
_TRANSFERS = (1, 2, *range(4, 9), *range(11, 19))
_RANGES = (0, 1, 2)
"""Values that FFmpeg's scaler supports; it refuses frames with others, such as reserved ones."""

_NEAREST_MATRIX = {10: 9, 12: _UNSPECIFIED}
"""Nearest supported values of unsupported matrices: BT.2020 constant luminance, and those derived from primaries."""


class Converter:
    """Crops frames to ``crop`` (displayed pixels), scales to ``size`` (height, width) and rotates clockwise.

    Scaling goes through FFmpeg's filters to planar RGB: cropping copies nothing, chroma is interpolated rather than
    repeated, and rounding is unbiased (scaling to packed RGB loses one level on average, and is slower). Without
    scaling, FFmpeg's default conversion is used, bit-exact with other readers.
    """

    def __init__(self, info: VideoInfo, crop: Crop | None, size: tuple[int, int] | None):
        """``info`` describes the stream; a ``crop`` must lie inside its frame."""
        self._crop = crop or Crop(0, 0, info.height, info.width)
        top, left, height, width = self._crop
        if min(top, left) < 0 or min(height, width) < 1 or top + height > info.height or left + width > info.width:
            raise ValueError(f"{self._crop} is not inside a frame of {info.height} x {info.width} (height x width)")
        self._info = info
        self._turns = info.rotation // 90
        self._frame = (info.height, info.width) if self._turns % 2 == 0 else (info.width, info.height)
        self.size = tuple(size or self._crop[2:])
        self._scales = self.size != self._crop[2:]
        self._reformatter = VideoReformatter()
        self._graphs: dict[tuple, tuple[Graph, object, object]] = {}

    def allocate(self, count: int) -> np.ndarray:
        """Memory for ``count`` frames, shaped ``T C H W`` (a view of ``T H W C`` when nothing is scaled)."""
        height, width = self.size
        if self._scales:
            return np.empty((count, 3, height, width), np.uint8)
        return np.empty((count, height, width, 3), np.uint8).transpose(0, 3, 1, 2)

    def __call__(self, frame: VideoFrame, out: np.ndarray) -> None:
        """Write one frame into ``out`` (``C H W``).

        Raises:
            DecodeError: the frame has properties that FFmpeg cannot convert from.
        """
        try:
            self._convert(frame, out)
        except (av.FFmpegError, ValueError) as error:
            kind = f"{frame.width} x {frame.height} {frame.format.name}"
            raise DecodeError(self._info.path, self._info.stream, f"cannot convert {kind}: {error}") from None

    def _convert(self, frame: VideoFrame, out: np.ndarray) -> None:
        _make_possible(frame)
        turned = np.rot90(out, self._turns, axes=(1, 2))  # rotated back: a view with the stored orientation
        if self._scales:
            scaled = self._scaled(frame, turned.shape[1:])
            for channel, plane in zip(_PLANES_GBR, scaled.planes):
                turned[channel] = _rows(plane, scaled.height)[:, : scaled.width]
        else:
            top, left, height, width = self._stored_crop()
            rgb = self._reformatter.reformat(frame, *self._frame[::-1], "rgb24", threads=1)
            packed = _rows(rgb.planes[0], rgb.height)[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
            turned[:] = packed[top : top + height, left : left + width].transpose(2, 0, 1)

    def _stored_crop(self) -> Crop:
        """The crop before rotation."""
        (top, left, height, width), (stored_height, stored_width) = self._crop, self._frame
        match self._turns:
            case 1:
                return Crop(stored_height - left - width, top, width, height)
            case 2:
                return Crop(stored_height - top - height, stored_width - left - width, height, width)
            case 3:
                return Crop(left, stored_width - top - height, width, height)
        return self._crop

    def _scaled(self, frame: VideoFrame, size: tuple[int, ...]) -> VideoFrame:
        """One frame through the filters; filters are rebuilt when the stream changes its format."""
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if kind not in self._graphs:
            self._graphs[kind] = self._filters(frame, size)
        _, source, sink = self._graphs[kind]
        source.push(frame)
        return sink.pull()

    def _filters(self, frame: VideoFrame, size: tuple[int, ...]) -> tuple[Graph, object, object]:
        top, left, height, width = self._stored_crop()
        ratio_y, ratio_x = frame.height / self._frame[0], frame.width / self._frame[1]
        cut = [
            max(1, round(width * ratio_x)),
            max(1, round(height * ratio_y)),
            round(left * ratio_x),
            round(top * ratio_y),
        ]
        graph = Graph()
        graph.threads = 1
        source = graph.add(
            "buffer",
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/90000:pixel_aspect=1/1"
            f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
        )
        crop = graph.add("crop", ":".join(map(str, cut)) + ":exact=1")
        flags = "bilinear+accurate_rnd+full_chroma_int" + ("+full_chroma_inp" if frame.format.is_rgb else "")
        scale = graph.add("scale", f"{size[1]}:{size[0]}:flags={flags}")
        planar = graph.add("format", "gbrp")
        sink = graph.add("buffersink")
        graph.link_nodes(source, crop, scale, planar, sink).configure()
        return graph, source, sink


def _make_possible(frame: VideoFrame) -> None:
    """Reset invalid colour properties, which damaged headers contain and nothing here needs."""
    matrix = _NEAREST_MATRIX.get(int(frame.colorspace), int(frame.colorspace))
    if matrix not in _MATRICES or (matrix == 0 and not frame.format.is_rgb):
        matrix = _UNSPECIFIED
    if matrix != int(frame.colorspace):
        frame.colorspace = matrix
    if int(frame.color_primaries) not in _PRIMARIES:
        frame.color_primaries = _UNSPECIFIED
    if int(frame.color_trc) not in _TRANSFERS:
        frame.color_trc = _UNSPECIFIED
    if int(frame.color_range) not in _RANGES:
        frame.color_range = 0


def _rows(plane: object, height: int) -> np.ndarray:
    """A plane's bytes as rows, padding included."""
    return np.frombuffer(plane, np.uint8, plane.line_size * height).reshape(height, plane.line_size)
