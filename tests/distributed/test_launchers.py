"""Training as it is started on one machine or a cluster: torchrun, accelerate launch, Slurm."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from colour_videos import write_colours

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(1200)]
SETTINGS = ["--data.num-workers", "0", "--data.batch-size", "4", "--train.log-every", "1", "--train.tracker"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Without labels, so that nothing is evaluated."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        write_colours(folder / f"{number}.mp4", ("red", "blue")[number % 2])
    return folder


def environment(**more):
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | more


def arguments(videos, out, steps):
    fixed = ["--data", str(videos), "--out", str(out), "--train.steps", str(steps)]
    return ["train", "pretraining.videomae:tiny", *fixed, *SETTINGS]


def start(command, **more):
    done = subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(folder):
    path = folder / "metrics.jsonl"
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.fixture(scope="module")
def alone(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    start([sys.executable, "-m", "filmstrip", *arguments(videos, out, 3)])
    return out


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"],
}


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("accelerate", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(videos, alone, tmp_path, launcher):
    out = tmp_path / "run"
    start([sys.executable, "-m", *LAUNCHERS[launcher], "-m", "filmstrip", *arguments(videos, out, 3)])
    assert json.loads((out / "environment.json").read_text())["processes"] == 2
    expected, got = losses(alone), losses(out)
    assert got == pytest.approx(expected, rel=1e-4) and len((out / "metrics.jsonl").read_text().splitlines()) == 3
    one, other = (load_file(folder / "weights.safetensors") for folder in (alone, out))
    for name, tensor in one.items():
        assert other[name].flatten().tolist() == pytest.approx(tensor.flatten().tolist(), abs=1e-4), name


SRUN = """#!/bin/bash
# As srun does: the command once for each task, which it forwards signals to, and the highest of their exit codes.
shift  # --kill-on-bad-exit
export SLURM_NTASKS=2
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & pids+=($!); done
echo "${pids[@]}" > "$PIDS"
code=0
for pid in "${pids[@]}"; do wait "$pid"; one=$?; [ "$one" -gt "$code" ] && code=$one; done
exit "$code"
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && echo localhost
[ "$1" = requeue ] && echo "$2" >> "$REQUEUED"
exit 0
"""


def test_a_slurm_job_that_is_stopped_saves_and_is_queued_again(videos, tmp_path):
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    names = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost", "PYTHON": sys.executable}
    files = {"PIDS": str(tmp_path / "pids"), "REQUEUED": str(tmp_path / "requeued")}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    given = environment(**names, **files, **path)
    out = tmp_path / "run"
    script = ["bash", str(ROOT / "deploy/train.slurm")]
    job = [*script, *arguments(videos, out, 40000)[1:], "--train.save-every", "40000"]

    def interrupted(after):
        """The step after which a job is saved that gets SIGTERM when it has done more steps than ``after``."""
        with (tmp_path / "output").open("w") as output:
            running = subprocess.Popen(job, env=given, stdout=output, stderr=output)
            try:
                end = time.monotonic() + 600
                while time.monotonic() < end and running.poll() is None and max(losses(out), default=0) <= after:
                    time.sleep(0.5)
                for pid in Path(files["PIDS"]).read_text().split():
                    os.kill(int(pid), signal.SIGTERM)
                code = running.wait(timeout=300)
            finally:
                running.kill()
        said = (tmp_path / "output").read_text()
        assert code == 143, said
        return int(re.search(r"keeps the state after step (\d+)", said)[1])

    first = interrupted(0)
    second = interrupted(first)
    assert first < second < 40000 and list(losses(out)) == list(range(1, second + 1))
    assert Path(files["REQUEUED"]).read_text().split() == [names["SLURM_JOB_ID"]] * 2
    without = subprocess.run([*script, job[2]], env=given, capture_output=True, text=True)
    assert without.returncode == 2 and "give --out FOLDER" in without.stderr


def test_the_image_is_made_of_what_is_there():
    """Docker is not at hand where tests run: only what can be told without it."""
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    pinned = re.search(r"torch==([\d.]+)", "\n".join(lines))[1]
    assert f"torch=={pinned}" in (ROOT / "constraints.txt").read_text()


def test_the_kubernetes_job_says_the_same_everywhere(tmp_path):
    """A cluster is not at hand where tests run: its names and numbers agree, and the programs take its arguments."""
    yaml = pytest.importorskip("yaml")
    from torch.distributed.run import get_args_parser

    from filmstrip import systems

    service, job = yaml.safe_load_all((ROOT / "deploy/train.k8s.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    name, spec, pod = job["metadata"]["name"], job["spec"], job["spec"]["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {"job-name": name}
    (container,) = pod["containers"]
    assert container["command"] == ["torchrun"]
    (index,) = container["env"]
    words = [word.replace(f"$({index['name']})", "1") for word in container["args"]]
    given = get_args_parser().parse_args(words)
    assert given.node_rank == 1
    assert int(given.nnodes) == spec["parallelism"] == spec["completions"] and spec["completionMode"] == "Indexed"
    assert int(given.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert given.master_addr == f"{name}-0.{pod['subdomain']}" and pod["subdomain"] == service["metadata"]["name"]
    assert given.module and given.training_script == "filmstrip" and given.training_script_args[0] == "train"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    address, *words = given.training_script_args[1:]
    assert systems.find(address) and words[::2] == ["--data", "--out"]
    assert pod["restartPolicy"] == "OnFailure" and pod["terminationGracePeriodSeconds"] >= 60
