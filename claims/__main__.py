"""``python -m claims [NAME ...] [--seeds N] [--list]``, the same as ``filmstrip claims``."""

import sys

from filmstrip.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["claims", *sys.argv[1:]]))
