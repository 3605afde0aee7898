"""What the tests of sizes share: every preset of a group has a size in one of the group's tables, or is our own."""

from collections.abc import Collection

from filmstrip import systems

OWN = ("small", "resnet18_k400", "r2plus1d_18", "large_own", "table")
"""Presets that no paper has, as are all whose names begin with ``tiny``."""


def unnamed(group: str, *tables: Collection[str], elsewhere: tuple[str, ...] = ()) -> set[str]:
    """Addresses of the group's presets that no table has, and that do not begin with one of ``elsewhere``.

    For each of these, the test of the group must say what size the paper gives, or where that is tested and why.
    """
    own = {name for name in systems.names() if name.startswith(f"{group}.")}
    presets = {(name, preset) for name in own for preset in systems.presets(name)}
    papers = {f"{name}:{preset}" for name, preset in presets if preset not in OWN and not preset.startswith("tiny")}
    return {address for address in papers.difference(*tables) if not address.startswith(elsewhere)}
