"""The commands, one file each: a dataclass with its options, its help and what it does when it is called.

Nothing here imports torch until a command is called; what takes more than a few lines to do is in ``work``.
"""
