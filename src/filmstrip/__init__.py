"""Filmstrip learns from video."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "allow", "load", "load_generator", "load_tokenizer", "read_video"]

if TYPE_CHECKING:
    from filmstrip.runs.encoders import load
    from filmstrip.runs.generators import load_generator
    from filmstrip.runs.outside import allow
    from filmstrip.runs.tokenizers import load_tokenizer
    from filmstrip.video.decode import read_video


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: ``import filmstrip`` alone stays immediate."""
    found: Any
    if name == "load":
        from filmstrip.runs.encoders import load

        found = load
    elif name == "load_generator":
        from filmstrip.runs.generators import load_generator

        found = load_generator
    elif name == "load_tokenizer":
        from filmstrip.runs.tokenizers import load_tokenizer

        found = load_tokenizer
    elif name == "read_video":
        from filmstrip.video.decode import read_video

        found = read_video
    elif name == "allow":
        from filmstrip.runs.outside import allow

        found = allow
    else:
        raise AttributeError(f"module 'filmstrip' has no attribute {name!r}")
    globals()[name] = found
    return found
