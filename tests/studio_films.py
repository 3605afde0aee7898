"""Small films for the tests of the studio."""

import av
import torch


def colours(num_frames=12, height=32, width=48):
    """A video whose brightness tells the frame, ``T C H W``."""
    ramp = torch.linspace(20, 230, num_frames)[:, None, None, None]
    return ramp.expand(num_frames, 3, height, width).to(torch.uint8)


def write_avi(path, video, fps=8):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = video.shape[2:]
        stream.pix_fmt = "yuv420p"
        for frame in video.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
