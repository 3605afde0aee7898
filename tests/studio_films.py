"""Small films for the tests of the studio, and its commands without processes of their own."""

import contextlib
import io

import av
import torch

from filmstrip.__main__ import main
from filmstrip.studio.films import Film
from filmstrip.studio.jobs import LOG, Failed, Job, command_line, last_words


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


def run_here(job, arguments, out=None):
    """:meth:`Job.run` within this process, which spares a command the time to import torch."""
    output, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(said):
        code = main(list(arguments))
    (out or job.folder / "output.txt").write_text(output.getvalue(), encoding="utf-8")
    with (job.folder / LOG).open("a", encoding="utf-8") as log:
        log.write(f"$ {command_line(arguments)}\n{said.getvalue()}")
    if code:
        raise Failed(last_words(job.folder / LOG).removeprefix("filmstrip: "))


def answer_of(work, folder, video, job_folder, more=(), **options):
    """What a work of the studio answers about a video, by its real command with ``more`` arguments."""
    job_folder.mkdir(exist_ok=True)
    job = Job("key", job_folder)
    job.run = lambda arguments, out=None: run_here(job, [*arguments, *more], out)
    return work(job, folder, Film(video, video.name, {}), options)
