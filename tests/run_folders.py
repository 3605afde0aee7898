"""Run folders without training."""

from dataclasses import replace

import torch
from safetensors.torch import save_file

from filmstrip import systems
from filmstrip.data.config import DataInfo
from filmstrip.runs.config import write_config
from filmstrip.runs.loading import save_data_info

INFO = DataInfo(classes=("left", "right", "über"), num_train=6, directional=True)


def save_run(folder, address, **changes):
    """A run folder with random weights, as training leaves it."""
    run = systems.find(address).bound(INFO)
    run = replace(run, objective=replace(run.objective, **changes))
    torch.manual_seed(0)
    objective = run.objective.build().eval()
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    folder.mkdir()
    write_config(run, folder / "config.json")
    save_file(objective.state_dict(), folder / "weights.safetensors")
    save_data_info(INFO, folder)
    return objective, run
