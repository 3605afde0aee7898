"""Reading and writing video: decode, clip sampling, geometry, writers. Imports nothing of ours but the errors."""

from filmstrip.video.batched_reading import read_batched
from filmstrip.video.clips import read_clips, read_parts
from filmstrip.video.decode import open_video, read_video
from filmstrip.video.decoder import Crop, DecodeError, Decoder, Frames, Request, VideoInfo
from filmstrip.video.write import Mp4File, write_grid, write_video

__all__ = [
    "Crop",
    "DecodeError",
    "Decoder",
    "Frames",
    "Mp4File",
    "Request",
    "VideoInfo",
    "open_video",
    "read_batched",
    "read_clips",
    "read_parts",
    "read_video",
    "write_grid",
    "write_video",
]
