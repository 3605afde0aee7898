"""The optional TorchCodec decoder; the file's properties are read through PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from filmstrip.errors import UserError
from filmstrip.video.decoder import ROUNDING, Crop, DecodeError, Decoder, Frames, Request, VideoInfo, VideoSource
from filmstrip.video.pyav import PyAVDecoder


class TorchCodecDecoder(Decoder):
    """See :class:`filmstrip.video.decoder.Decoder`. It does not detect damaged frames, and never snaps."""

    def __init__(self, source: VideoSource, *, stream: int = 0, threads: int = 1):
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError, OSError) as error:
            raise UserError(
                "the torchcodec backend needs TorchCodec and FFmpeg's shared libraries (pip install "
                f"'filmstrip[scale]'); importing it failed: {str(error).splitlines()[0]}. Or use backend='pyav'."
            ) from None
        self._header = PyAVDecoder(source, stream=stream, threads=threads)
        if self._header.works_out_times:
            self.close()
            raise DecodeError(
                self.info.path,
                self.info.stream,
                "its packets do not tell when their frames are shown, which TorchCodec relies on: use backend='pyav'",
            )
        if not isinstance(source, (str, Path)):
            source.seek(0)
            source = source.read()
        try:
            self._decoder = VideoDecoder(source, stream_index=self.info.stream_index, num_ffmpeg_threads=threads)
        except (RuntimeError, ValueError) as error:
            self.close()
            raise self._error(error) from None

    def _error(self, error: Exception) -> DecodeError:
        return DecodeError(self.info.path, self.info.stream, str(error).splitlines()[0])

    @property
    def info(self) -> VideoInfo:
        """Properties from the header."""
        return self._header.info

    def times(self) -> np.ndarray:
        """Start time of each frame, ascending float64 seconds."""
        return self._header.times()

    def key_times(self) -> np.ndarray:
        """Start time of each key frame, seconds."""
        return self._header.key_times()

    def close(self) -> None:
        """Close the file."""
        self._header.close()
        self._decoder = None

    def read(self, requests: Sequence[Request], *, snap: bool = False) -> list[Frames]:
        """Answer several requests from one pass over the file; ``snap`` has no effect.

        Raises:
            DecodeError: a frame could not be decoded.
        """
        begins = self.times()
        wanted = [
            np.maximum(begins.searchsorted(np.asarray(request.times) + ROUNDING, "right") - 1, 0)
            for request in requests
        ]
        needed, positions = np.unique(np.concatenate(wanted).astype(np.int64), return_inverse=True)
        images = self._images(needed)
        bounds = np.cumsum([len(indices) for indices in wanted])[:-1]
        return [
            self._frames(images[torch.from_numpy(position)], begins[indices], request.crop, request.size)
            for request, indices, position in zip(requests, wanted, np.split(positions, bounds))
        ]

    def frames(
        self,
        start: float = 0.0,
        stop: float | None = None,
        *,
        crop: Crop | None = None,
        size: tuple[int, int] | None = None,
        chunk: int = 32,
    ) -> Iterator[Frames]:
        """All frames that begin in ``start <= time < stop``, in order, up to ``chunk`` at a time."""
        begins = self.times()
        inside = np.flatnonzero((begins >= start) & (begins < (np.inf if stop is None else stop)))
        for first in range(0, len(inside), chunk):
            indices = inside[first : first + chunk]
            yield self._frames(self._images(indices), begins[indices], crop, size)

    def _images(self, indices: np.ndarray) -> Tensor:
        if self._decoder is None:
            raise DecodeError(self.info.path, self.info.stream, "the decoder is closed")
        try:
            return self._decoder.get_frames_at(indices.tolist()).data
        except (RuntimeError, IndexError, ValueError) as error:
            raise self._error(error) from None

    def _frames(self, video: Tensor, times: np.ndarray, crop: Crop | None, size: tuple[int, int] | None) -> Frames:
        if crop is not None:
            video = video[:, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        if size is not None and tuple(size) != tuple(video.shape[-2:]):
            video = functional.interpolate(video, tuple(size), mode="bilinear", antialias=True)
        return Frames(video, times, (False,) * len(times))
