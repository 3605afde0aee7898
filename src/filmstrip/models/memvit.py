"""MViT that reads a long video clip by clip and remembers the clips before (MeMViT)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from filmstrip.models.mvit import MViT, Plan
from filmstrip.nn.memory_attention import LayerMemory, MemoryAttention
from filmstrip.nn.pooling_attention import PoolingAttention
from filmstrip.protocols import Features, Grid, check_video


class Memory:
    """What a :class:`MeMViT` remembers of the videos that it is reading, ``B`` of them at a time."""

    def __init__(self, layers: int, length: int) -> None:
        self.layers = [LayerMemory(length) for _ in range(layers)]
        self.length = length
        self.same_video: Tensor | None = None
        """Which of the remembered clips are of the sample's present video, ``B clips``, oldest first."""

    def start(self, batch: int, new_video: Tensor | None, device: torch.device) -> None:
        """Make ready for the next clips; where ``new_video`` (``B``) is true, what is remembered is of another."""
        if self.same_video is None:
            self.same_video = torch.zeros(batch, 0, dtype=torch.bool, device=device)
        if self.same_video.shape[0] != batch:
            raise ValueError(
                f"this memory is of {self.same_video.shape[0]} videos read side by side, got {batch} clips"
            )
        if new_video is not None:
            self.same_video = self.same_video & ~new_video[:, None]

    def end(self) -> None:
        """The clips have been read: they are remembered, and the oldest forgotten."""
        newest = self.same_video.new_ones(self.same_video.shape[0], 1)
        self.same_video = torch.cat([self.same_video, newest], dim=1)[:, -self.length :]


class MeMViT(MViT):
    """An :class:`~filmstrip.protocols.Encoder` of video of any number of clips, in ``memory_layers`` of whose layers
    a clip also sees the ``memory`` clips before it.

    Wu et al. 2022. Every clip costs the same, and layer upon layer what it sees reaches further back: ``L`` layers
    with ``M`` clips of memory see ``L M`` clips. The tokens of all clips lie one after the other in time.
    """

    def __init__(self, *, memory: int = 2, memory_layers: tuple[int, ...], **network: object) -> None:
        self.memory_length = memory
        self.memory_layers = memory_layers
        super().__init__(improved=True, **network)

    def _attention(self, index: int, sizes: Plan) -> PoolingAttention:
        shape = (sizes.width, sizes.attention_width, sizes.num_heads)
        strides = {"grid": sizes.grid, "q_stride": sizes.q_stride, "kv_stride": sizes.kv_stride}
        if index in self.memory_layers:
            return MemoryAttention(*shape, **strides, length=self.memory_length)
        return PoolingAttention(*shape, **strides, relative=True, residual=True, pool_first=True)

    def new_memory(self) -> Memory:
        """The memory of one that has seen nothing."""
        return Memory(len(self.memory_layers), self.memory_length)

    def read(
        self, clip: Tensor, memory: Memory, *, new_video: Tensor | None = None, layers: bool = False
    ) -> Features:
        """Encode the next clip of each video, ``B T C H W``, in the light of ``memory``, which then holds it too.

        ``new_video`` (``B``, true or false) says whose clip is the first of another video: it sees no memory.

        Raises:
            ValueError: the clip is not of the size that the network was built for, or the memory of other videos.
        """
        tokens, grid = self._embedded(clip)
        memory.start(clip.shape[0], new_video, clip.device)
        remembered = iter(memory.layers)
        seen = []
        for block in self.blocks:
            past = (next(remembered), memory.same_video) if isinstance(block.attention, MemoryAttention) else ()
            tokens, grid = block(tokens, grid, *past)
            if layers:
                seen.append(tokens[:, 1:])
        memory.end()
        return self._features(tokens, grid, seen)

    def clips(self, video: Tensor, layers: bool = False) -> Iterator[Features]:
        """The features of each clip of ``B T C H W`` video in order, each read with the ones before in memory.

        Raises:
            ValueError: the frames are not a whole number of clips.
        """
        check_video(video)
        length = self.clip[0]
        if video.shape[1] % length:
            raise ValueError(f"{video.shape[1]} frames are not a whole number of clips of {length}")
        memory = self.new_memory()
        for clip in video.split(length, dim=1):
            yield self.read(clip, memory, layers=layers)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video of any number of clips; the class token is the last's, which has seen most.

        Raises:
            ValueError: the frames are not a whole number of clips, or of another size than the network's.
        """
        parts = list(self.clips(video, layers))
        grid = parts[0].grid
        return replace(
            parts[-1],
            tokens=torch.cat([part.tokens for part in parts], dim=1),
            grid=Grid(len(parts) * grid.t, grid.h, grid.w),
            layers=tuple(torch.cat(tokens, dim=1) for tokens in zip(*(part.layers for part in parts))),
        )
