"""Broken files give what is there, and say what is not."""

import io
import random

import av
import numpy as np
import pytest
import torch
from numbered_videos import encode, numbered

from filmstrip.video import DecodeError, open_video, read_clips, read_video

COUNT = 60
NOISE = np.clip(numbered(COUNT, 96, 128) + np.random.default_rng(0).integers(0, 30, (COUNT, 96, 128, 3)), 0, 255)
FRAMES = NOISE.astype(np.uint8)


def faststart(tmp_path) -> bytes:
    """An mp4 whose header comes first, so that cutting off its end leaves the header whole."""
    path = tmp_path / "faststart.mp4"
    with (
        av.open(io.BytesIO(encode(FRAMES, g="12", bf="2"))) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path.read_bytes()


def whole(kind: str, tmp_path) -> bytes:
    if kind == "mp4":
        return faststart(tmp_path)
    return encode(FRAMES, format={"mkv": "matroska", "ts": "mpegts"}[kind], g="12", bf="2")


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.95])
def test_a_file_cut_off_gives_the_frames_that_are_there(kind, share, tmp_path):
    data = whole(kind, tmp_path)
    complete = read_video(io.BytesIO(data))
    assert len(complete) == COUNT and not complete.truncated and not any(complete.damaged)
    size = int(len(data) * share)
    size += size % 188 == 0  # a transport stream cut between its packets cannot be told from a whole one
    with open_video(io.BytesIO(data[:size])) as decoder:
        parts = list(decoder.frames())
        times = np.concatenate([part.times for part in parts])
        video = torch.cat([part.video for part in parts])
        intact = ~np.array([flag for part in parts for flag in part.damaged])
        late = decoder.frames_at([0.1, 99.0])
    assert share * COUNT - 8 < len(times) < COUNT
    assert intact.sum() >= len(times) - 2
    assert parts[-1].truncated and late.truncated
    places = np.round(times * 25).astype(int)
    assert torch.equal(video[torch.from_numpy(intact)], complete.video[places[intact]])
    assert late.times[1] <= times[-1]


def test_clips_come_from_the_part_that_is_there(tmp_path):
    data = faststart(tmp_path)
    with open_video(io.BytesIO(data[: len(data) // 2])) as decoder:
        held = decoder.times()[-1]
        for seed in range(8):
            (clip,) = read_clips(decoder, num_frames=4, stride=2, size=48, rng=np.random.default_rng(seed))
            assert clip.truncated and clip.times[-1] <= held
            assert len(set(clip.times)) == 4, "no frame stands in for missing ones"


def flip(data: bytes, number: int, rng: random.Random) -> bytes:
    """The file with a few bytes changed in the middle of one packet, in file order."""
    with av.open(io.BytesIO(data)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        position, size = packets[number].pos, packets[number].size
    changed = bytearray(data)
    for _ in range(6):
        changed[position + rng.randrange(min(24, size // 2), size)] ^= rng.randrange(1, 256)
    return bytes(changed)


def check_flags(data: bytes, packets: list[int]) -> tuple[int, int, int]:
    """Frames that differ, those of them that are not flagged, and those flagged although they do not differ.

    Not all can be flagged: now and then changed bytes are valid ones, and what they say cannot be known to be wrong.
    """
    good = read_video(io.BytesIO(data))
    different = missed = alarms = 0
    for number in packets:
        bad = read_video(io.BytesIO(flip(data, number, random.Random(number))))
        places = np.abs(good.times[None] - bad.times[:, None]).argmin(axis=1)
        differ = (bad.video != good.video[places]).flatten(1).any(dim=1).numpy()
        flagged = np.array(bad.damaged)
        different += differ.sum()
        missed += (differ & ~flagged).sum()
        alarms += (flagged & ~differ).sum()
    return different, missed, alarms


@pytest.mark.parametrize("gop", ["12", "250"])
def test_changed_bytes_flag_the_frames_that_they_spoil(gop):
    different, missed, alarms = check_flags(encode(FRAMES, g=gop, bf="2"), list(range(5, 55, 7)))
    assert different > 20
    assert missed <= 0.2 * different
    assert alarms <= 0.15 * different


@pytest.mark.parametrize("name", ["mmaction2/demo.mp4", "mmskeleton/ta_chi.mp4"])
def test_changed_bytes_in_a_real_file_are_flagged(name, awkward):
    different, missed, alarms = check_flags(awkward(name).read_bytes(), [88, 111, 125, 211])
    assert different > 100
    assert missed <= 0.2 * different
    assert alarms <= 0.15 * different


def test_damage_is_flagged_when_seeking_too():
    data = flip(encode(FRAMES, g="12", bf="0"), 15, random.Random(0))
    with open_video(io.BytesIO(data)) as decoder:
        flags = decoder.frames_at(np.array([5, 14, 18, 23, 24, 40]) / 25 + 0.01).damaged
    assert flags == (False, False, True, True, False, False)


def test_zeroed_picture_data_is_an_error_or_flagged():
    data = bytearray(encode(FRAMES, g="250", bf="0"))
    with av.open(io.BytesIO(bytes(data))) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    with (
        pytest.raises(DecodeError, match="no frame could be decoded"),
        open_video(io.BytesIO(bytes(data))) as decoder,
    ):
        decoder.frames_at([0.5])


@pytest.mark.parametrize("seed", range(25))
def test_random_damage_never_breaks_more_than_the_file(seed, tmp_path):
    """Whatever bytes change, anywhere: frames or a DecodeError, never another exception."""
    rng = random.Random(seed)
    data = bytearray(whole(rng.choice(["mp4", "mkv", "ts"]), tmp_path))
    for _ in range(rng.choice([1, 10, 200])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
        data = data[: rng.randrange(len(data))]
    try:
        with open_video(io.BytesIO(bytes(data))) as decoder:
            read_clips(decoder, num_frames=4, size=32, rng=np.random.default_rng(seed))
            decoder.frames_at([0.0, 1.0, 2.0], size=(32, 32))
            for part in decoder.frames(size=(32, 32)):
                assert len(part) == len(part.damaged)
    except DecodeError as error:
        assert error.reason
