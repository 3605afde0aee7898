"""Opening and reading video files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import torch

from filmstrip.video.decoder import DecodeError, Decoder, FrameFolder, Frames, VideoSource
from filmstrip.video.frame_folders import FrameFolderDecoder
from filmstrip.video.images import ImageDecoder, is_image
from filmstrip.video.pyav import PyAVDecoder
from filmstrip.video.remote import RemoteFile, address_of, is_live
from filmstrip.video.torchcodec import TorchCodecDecoder

Backend = Literal["auto", "pyav", "torchcodec"]


def open_video(path: VideoSource, *, backend: Backend = "auto", stream: int = 0, threads: int = 1) -> Decoder:
    """Open one video stream, the ``stream``-th of the file, reading its header only.

    ``auto`` is PyAV: it reports damage, and it is the faster one (``bench/decode.py``). A file with the extension of
    an image is a video of one frame and a folder one of the images in it, whatever the backend. Files at addresses
    (``https://...``) are read by ranges (:mod:`filmstrip.video.remote`).

    Raises:
        DecodeError: the file is missing, empty, not a video, or has no such stream.
        UserError: ``backend`` is TorchCodec, which is not installed.
    """
    if (address := address_of(path)) is not None:
        if is_live(address):
            raise DecodeError(address, stream, "this is a live source, which `filmstrip predict` and `detect` follow")
        file = RemoteFile(address)
        if is_image(urlsplit(address).path):
            return ImageDecoder(file, stream=stream)
        decoder = TorchCodecDecoder if backend == "torchcodec" else PyAVDecoder
        return decoder(file, stream=stream, threads=threads)
    if isinstance(path, FrameFolder) or (isinstance(path, (str, Path)) and os.path.isdir(path)):
        return FrameFolderDecoder(path, stream=stream)
    if isinstance(path, (str, Path)) and is_image(path):
        return ImageDecoder(path, stream=stream)
    if backend == "torchcodec":
        return TorchCodecDecoder(path, stream=stream, threads=threads)
    return PyAVDecoder(path, stream=stream, threads=threads)


def read_video(
    path: VideoSource,
    *,
    start: float = 0.0,
    stop: float | None = None,
    size: tuple[int, int] | None = None,
    backend: Backend = "auto",
    stream: int = 0,
    threads: int = 1,
) -> Frames:
    """Decode all frames that begin in ``start <= time < stop`` (seconds), scaled to ``size`` (height, width).

    Raises:
        DecodeError: no frame could be decoded.
    """
    with open_video(path, backend=backend, stream=stream, threads=threads) as decoder:
        parts = list(decoder.frames(start, stop, size=size))
        if not parts:
            span = f"{start:g} s to {'the end' if stop is None else f'{stop:g} s'}"
            reason = f"no frame begins in {span}; it lasts {decoder.info.duration:g} s"
            raise DecodeError(decoder.info.path, stream, reason)
    return join(parts)


def join(parts: Sequence[Frames]) -> Frames:
    """Concatenate along time."""
    if len(parts) == 1:
        return parts[0]
    return Frames(
        torch.cat([part.video for part in parts]),
        np.concatenate([part.times for part in parts]),
        tuple(flag for part in parts for flag in part.damaged),
        next((part.truncated for part in parts if part.truncated), ""),
    )
