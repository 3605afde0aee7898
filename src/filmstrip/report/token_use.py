"""Number of tokens of a variable-length tokenizer along a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from filmstrip.report.clips import heads_of, moving_picture, side_by_side
from filmstrip.report.curves import Curves, Series
from filmstrip.report.markup import Markup, join, tag


@dataclass(frozen=True)
class TokenUse:
    """A video (``T C H W`` uint8) beside its reconstruction, and the share of tokens used by each block."""

    title: str
    video: Tensor
    rebuilt: Tensor
    lengths: Sequence[int]
    """Number of tokens of each block; blocks are equal parts of the video."""
    tokens_per_block: int
    fps: float
    """Frames per second."""
    beside: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Further values per block, such as its motion, each in a separate chart below."""
    note: str | None = None
    """A short paragraph above."""

    def html(self) -> Markup:
        """The moving picture, then charts over the same seconds."""
        described = f"{self.title}: original on the left, decoded from its tokens on the right"
        shown = moving_picture(side_by_side([self.video, self.rebuilt]), self.fps, described)
        shares = [100 * length / self.tokens_per_block for length in self.lengths]
        used = "tokens used, %"
        drawn = [Curves(used, {used: self._steps(shares)}, x_label="second", y_label=used, shown=(0, 100)).html()]
        drawn += [
            Curves(name, {name: self._steps(values)}, x_label="second", y_label=name).html()
            for name, values in self.beside.items()
        ]
        note = tag("p", self.note, class_="note above") if self.note else None
        figure = tag("figure", heads_of(("original", "decoded")), shown)
        return join([note, tag("div", *(tag("div", part) for part in (figure, *drawn)), class_="group")])

    def _steps(self, values: Sequence[float]) -> Series:
        """A series that is constant within each block."""
        seconds = len(self.video) / self.fps / len(values)
        xs = [edge * seconds for i in range(len(values)) for edge in (i, i + 1)]
        return xs, [value for value in values for _ in range(2)]
