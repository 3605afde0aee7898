"""The synthetic sets by name, for ``filmstrip data make``."""

from __future__ import annotations

from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.actors import Actors
from filmstrip.data.synthetic.cups import Cups
from filmstrip.data.synthetic.demonstrations import Demonstrations
from filmstrip.data.synthetic.edits import EditedScenes
from filmstrip.data.synthetic.haystack import Haystack
from filmstrip.data.synthetic.haystack_videos import HaystackVideos
from filmstrip.data.synthetic.mazes import Mazes
from filmstrip.data.synthetic.motions import Motions
from filmstrip.data.synthetic.moving_mnist import MovingMNIST
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.data.synthetic.pushing import Pushing
from filmstrip.data.synthetic.reaches import Reaches
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.data.synthetic.untrimmed import Untrimmed
from filmstrip.data.synthetic.video_queries import VideoQueries
from filmstrip.errors import UserError

SETS: dict[str, type[Synthetic]] = {
    "motions": Motions,
    "moving_mnist": MovingMNIST,
    "mazes": Mazes,
    "pushing": Pushing,
    "recipes": Recipes,
    "untrimmed": Untrimmed,
    "actors": Actors,
    "cups": Cups,
    "narrated": NarratedShapes,
    "reaches": Reaches,
    "demonstrations": Demonstrations,
    "video_queries": VideoQueries,
    "haystack": Haystack,
    "haystack_videos": HaystackVideos,
    "edits": EditedScenes,
}


def named(name: str) -> type[Synthetic]:
    """The synthetic set of that name.

    Raises:
        UserError: there is none; lists those there are.
    """
    if name not in SETS:
        raise UserError(f"there is no synthetic set {name!r}; there are {', '.join(SETS)}")
    return SETS[name]
