"""Reading training clips: ours against the bare decoder, and against decord and TorchCodec with tensor transforms.

    python bench/decode.py [--rounds 15]

A clip is 16 frames, stride 4, short side 256 to 320, crop 224, flip, normalise, on one core, file opening included;
H.264 at 340x256, key frames every 250 or 8 frames. All read the same clips: the same files, the same random starts.
Peers that are not installed are left out (pip install torchcodec==0.13.0 decord==0.6.0).
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from filmstrip.video import open_video, read_clips, read_video, write_video
from filmstrip.video.sampling import dense, dense_from, to_key_frame
from timing import alternate, ratio_table

NUM_FRAMES, STRIDE, SIZE, SHORT_SIDE = 16, 4, 224, (256, 320)
REAL = ("mmskeleton/clean_and_jerk.mp4", "mmskeleton/ta_chi.mp4", "mmaction2/demo.mp4")
SHARED = Path(__file__).parents[2] / "shared" / "data" / "decoder"
MEAN, STD = torch.tensor([0.45] * 3)[:, None, None], torch.tensor([0.225] * 3)[:, None, None]

Reader = Callable[[Path, np.random.Generator], object]


def synthetic(count: int = 300) -> Tensor:
    """A textured disc over a drifting, slightly noisy background: about the bit rate of real footage."""
    rng = np.random.default_rng(0)
    ground = functional.interpolate(
        torch.from_numpy(rng.random((1, 3, 60, 120))).float(), (512, 1024), mode="bicubic"
    )
    y, x = torch.meshgrid(torch.arange(256), torch.arange(340), indexing="ij")
    frames = []
    for t in range(count):
        picture = ground[0, :, t // 3 : t // 3 + 256, t : t + 340].clone()
        inside = (y - 128 - 60 * np.sin(t / 20)) ** 2 + (x - 170 - 90 * np.cos(t / 15)) ** 2 < 50**2
        picture[:, inside] = ground[0, :, :256, :340].flip(2)[:, inside]
        noise = torch.from_numpy(rng.normal(0, 0.01, picture.shape)).float()
        frames.append(((picture + noise).clamp(0, 1) * 255).to(torch.uint8))
    return torch.stack(frames)


def make_files(folder: Path) -> dict[str, list[Path]]:
    """The groups of files, by what they are."""
    video = synthetic()
    groups: dict[str, list[Path]] = {}
    for gop in (250, 8):
        path = folder / f"synthetic_{gop}.mp4"
        write_video(path, video, 30, gop=gop, crf=23)
        groups[f"synthetic, GOP {gop}"] = [path]
    if SHARED.is_dir():
        groups["real, GOP 250"] = [SHARED / name for name in REAL]
        groups["real, GOP 8"] = [folder / f"{Path(name).stem}_8.mp4" for name in REAL]
        for source, path in zip(groups["real, GOP 250"], groups["real, GOP 8"]):
            write_video(path, read_video(source).video, 30, gop=8, crf=23)
    return groups


def normalised(video: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip at random, and scale to zero mean and unit variance."""
    video = video.flip(-1) if rng.random() < 0.5 else video
    return video.float().div_(255).sub_(MEAN).div_(STD)


def by_tensors(video: Tensor, rng: np.random.Generator) -> Tensor:
    """What is done on tensors when the reader gives whole frames."""
    height, width = video.shape[-2:]
    scale = int(rng.integers(SHORT_SIDE[0], SHORT_SIDE[1] + 1)) / min(height, width)
    video = functional.interpolate(video, (round(height * scale), round(width * scale)), mode="bilinear")
    top, left = (int(rng.integers(side - SIZE + 1)) for side in video.shape[-2:])
    return normalised(video[:, :, top : top + SIZE, left : left + SIZE], rng)


def ours(num_clips: int = 1, **flags: bool) -> Reader:
    def read(path: Path, rng: np.random.Generator) -> list[Tensor]:
        with open_video(path) as decoder:
            clips = read_clips(
                decoder,
                num_frames=NUM_FRAMES,
                stride=STRIDE,
                size=SIZE,
                short_side=SHORT_SIDE,
                rng=rng,
                num_clips=num_clips,
                **flags,
            )
        return [normalised(clip.video, rng) for clip in clips]

    return read


def moments(info: object, rng: np.random.Generator) -> np.ndarray:
    return dense(NUM_FRAMES, STRIDE, info.fps, 0.0, info.duration, rng)


def ours_plain(path: Path, rng: np.random.Generator) -> Tensor:
    with open_video(path) as decoder:
        return decoder.frames_at(moments(decoder.info, rng)).video


def bare(skip: bool = False, key_starts: bool = False) -> Reader:
    """Only decoding: from the key frame to the clip's last frame, keeping nothing.

    ``skip`` leaves out frames that neither are in the clip nor are needed by others, as we do.
    """

    def read(path: Path, rng: np.random.Generator) -> int:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context
            codec.thread_count = 1
            fps, scale = float(stream.average_rate), float(stream.time_base)
            times = dense(NUM_FRAMES, STRIDE, fps, 0.0, stream.duration * scale, rng)
            if key_starts:
                keys = np.array([p.pts * scale for p in container.demux(stream) if p.size and p.is_keyframe])
                times = dense_from(
                    to_key_frame(times[0], keys, 0.0), NUM_FRAMES, STRIDE, fps, stream.duration * scale
                )
            container.seek(int(times[0] / scale), stream=stream)
            wanted = {round(time * fps - 0.5) for time in times}
            last, decoded = times[-1] / scale, 0
            for packet in container.demux(stream):
                if packet.dts is None or packet.dts > last:
                    break
                if skip:
                    needed = round(packet.pts * scale * fps) in wanted
                    codec.skip_frame = "DEFAULT" if needed else "NONREF"
                decoded += len(codec.decode(packet))
            return decoded + len(codec.decode(None))

    return read


def peers() -> dict[str, Reader]:
    """The other readers that are installed, used plainly."""
    found: dict[str, Reader] = {}
    if importlib.util.find_spec("torchcodec"):
        from torchcodec.decoders import VideoDecoder

        def frames(path: Path, rng: np.random.Generator) -> Tensor:
            decoder = VideoDecoder(str(path))
            count, fps = decoder.metadata.num_frames, decoder.metadata.average_fps
            times = dense(NUM_FRAMES, STRIDE, fps, 0.0, count / fps, rng)
            return decoder.get_frames_at([int(time * fps) for time in times]).data

        found["TorchCodec, whole frames"] = frames
        found["TorchCodec + tensors"] = lambda path, rng: by_tensors(frames(path, rng), rng)
    if importlib.util.find_spec("decord"):
        import decord

        def decord_clip(path: Path, rng: np.random.Generator) -> Tensor:
            reader = decord.VideoReader(str(path), num_threads=1)
            fps = reader.get_avg_fps()
            times = dense(NUM_FRAMES, STRIDE, fps, 0.0, len(reader) / fps, rng)
            images = reader.get_batch([int(time * fps) for time in times]).asnumpy()
            return by_tensors(torch.from_numpy(images).permute(0, 3, 1, 2), rng)

        found["decord + tensors"] = decord_clip
    return found


READERS: dict[str, Reader] = {
    "bare decoder": bare(),
    "bare decoder, skipping": bare(skip=True),
    "bare decoder, skipping, key starts": bare(skip=True, key_starts=True),
    "ours, whole frames": ours_plain,
    "ours, exact": ours(),
    "ours, neighbours allowed": ours(snap=True),
    "ours, key starts": ours(key_starts=True),
    "ours, both": ours(snap=True, key_starts=True),
    "ours, exact, 4 clips a decode": ours(num_clips=4),
    "ours, both, 4 clips a decode": ours(num_clips=4, snap=True, key_starts=True),
}


def turns(reader: Reader, paths: list[Path]) -> Callable[[], object]:
    """Calls of a reader with file after file and start after start, the same for every reader."""
    state = {"call": 0}

    def call() -> object:
        number = state["call"]
        state["call"] += 1
        return reader(paths[number % len(paths)], np.random.default_rng(number))

    return call


def main() -> None:
    """Print one table a group of files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    readers = {**READERS, **peers()}
    with tempfile.TemporaryDirectory() as folder:
        for title, paths in make_files(Path(folder)).items():
            medians = alternate({name: turns(reader, paths) for name, reader in readers.items()}, rounds)
            for name in medians:
                medians[name] /= 4 if "4 clips" in name else 1
            rivals = [name for name in medians if "+ tensors" in name]
            reference = min(rivals, key=medians.__getitem__) if rivals else "bare decoder"
            print(f"\n{title} (ms a clip)\n\n{ratio_table(medians, reference)}", flush=True)


if __name__ == "__main__":
    main()
