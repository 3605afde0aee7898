"""Commands in processes of their own: what they say, how they fail, and that they can be stopped."""

import sys
import time

import pytest

from filmstrip.studio import jobs
from filmstrip.studio.jobs import Failed, Job, Jobs, last_words


def wait(job):
    while job.state in ("waiting", "running"):
        time.sleep(0.02)
    return job


def test_a_command_writes_its_output_and_its_line(tmp_path):
    job = Job("a", tmp_path)
    job.run(["--version"], tmp_path / "out")
    assert (tmp_path / "out").read_text().startswith("filmstrip ")
    assert (tmp_path / "log.txt").read_text() == "$ filmstrip --version\n"


def test_a_command_that_fails_gives_its_last_line(tmp_path):
    with pytest.raises(Failed, match="did you mean 'train'"):
        Job("a", tmp_path).run(["tran"])


def test_jobs_work_one_after_another_and_once_at_a_time(tmp_path):
    found, seen = Jobs(), []

    def work(job):
        seen.append(job.key)
        time.sleep(0.1)
        return job.key

    first = found.submit("a", tmp_path, work)
    assert found.submit("a", tmp_path, work) is first
    second = found.submit("b", tmp_path, work)
    assert second.state == "waiting"
    assert wait(second).result == "b" and first.state == "done" and seen == ["a", "b"]
    found.close()


def test_a_job_is_stopped_while_it_works_and_while_it_waits(tmp_path, monkeypatch):
    """In place of a long command, a process that ends when it is told to."""

    def sleeping(arguments, log, out=None):
        import subprocess

        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    monkeypatch.setattr(jobs, "start", sleeping)
    found = Jobs()
    works = found.submit("a", tmp_path, lambda job: job.run(["train"]))
    waits = found.submit("b", tmp_path, lambda job: job.run(["train"]))
    while works.process is None:
        time.sleep(0.02)
    found.stop("b")
    found.stop("a")
    assert wait(works).state == "stopped" and works.process.poll() is not None
    assert wait(waits).state == "stopped" and waits.process is None
    found.close()


def test_closing_stops_everything(tmp_path):
    found = Jobs()
    job = found.submit("a", tmp_path, lambda job: 1 / 0 if job.is_stopped else None)
    found.close()
    assert job.state in ("done", "stopped", "waiting")


def test_last_words_of_a_long_log(tmp_path):
    (tmp_path / "log").write_text("x" * 100_000 + "\n\nstep 1\nstep 2\n\n")
    assert last_words(tmp_path / "log") == "step 2"
    assert last_words(tmp_path / "no") == ""
