"""The commands, one file each: a dataclass with its options, its help and a ``__call__`` that runs it.

Nothing here imports torch until a command is called; longer implementations are in ``work``.
"""
