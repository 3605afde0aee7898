"""All comparisons with peers as Markdown: ``python -m bench``. Leave the machine alone meanwhile."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = (
    "decode",
    "loader",
    "augment",
    "encode",
    "videomae",
    "videomae_v2",
    "next_codes",
    "layers",
    "plain_transformers",
    "llava",
    "packing",
    "blockwise",
    "context",
    "sampling",
    "tracking",
    "autoencoders",
    "diffusion_transformers",
    "vedit",
)

for script in SCRIPTS:
    print(f"\n## {script}\n", flush=True)
    subprocess.run([sys.executable, FOLDER / f"{script}.py"], check=True)
