"""One run of `kill_program.py` for the tests of `_resume` and of `_interrupt`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Killed:
    """What the processes left."""

    def __init__(self, folder):
        self.folder = folder
        self.codes = self.told("codes")

    def told(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())

    def result(self, name):
        with np.load(self.folder / f"{name}.npz") as file:
            values = [file[key].tobytes() for key in file.files]
        return values, self.told(name)


@pytest.fixture(scope="session")
def killed(tmp_path_factory):
    if keras.backend.backend() == "torch" or not hasattr(os, "fork"):
        pytest.skip("needs steps_per_execution, which Keras on torch lacks, and os.fork")
    folder = tmp_path_factory.mktemp("killed")
    program = Path(__file__).with_name("kill_program.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(program), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder / "out.json").write_text(json.dumps(done.stdout))
    return Killed(folder)
