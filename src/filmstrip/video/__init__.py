"""Reading and writing video: decode, clip sampling, geometry, writers. Imports nothing of ours but the errors."""

from filmstrip.video.clips import read_clips, read_parts
from filmstrip.video.decode import open_video, read_video
from filmstrip.video.decoder import Box, DecodeError, Decoder, Frames, Request, VideoInfo
from filmstrip.video.in_turn import read_in_turn
from filmstrip.video.write import Mp4File, write_grid, write_video

__all__ = [
    "Box",
    "DecodeError",
    "Decoder",
    "Frames",
    "Mp4File",
    "Request",
    "VideoInfo",
    "open_video",
    "read_clips",
    "read_in_turn",
    "read_parts",
    "read_video",
    "write_grid",
    "write_video",
]
