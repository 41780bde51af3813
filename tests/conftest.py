"""Fixtures for all tests: a clean global state, the sample photos, skips by backend."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Skip the tests marked `tensorflow` on other backends."""
    marked = [item for item in items if item.get_closest_marker("tensorflow")]
    if not marked:
        return
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"for TensorFlow; the backend is {backend}"))


@pytest.fixture(autouse=True)
def clean_global_state():
    """Each test starts from the same seeds and leaves Keras' settings as they were.

    `keras.utils.clear_session` isn't called: it would also reset the dtype policy, and so hide a
    test or a function that leaves one behind.
    """
    before = random.getstate(), np.random.get_state()
    keras = sys.modules.get("keras")
    settings = _settings(keras) if keras else ("float32", "float32", 1e-7, "channels_last")
    random.seed(0)
    np.random.seed(0)
    if keras:
        keras.utils.set_random_seed(0)
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    keras = sys.modules.get("keras")
    if keras:
        keras.config.set_dtype_policy(settings[0])
        keras.config.set_floatx(settings[1])
        keras.config.set_epsilon(settings[2])
        keras.config.set_image_data_format(settings[3])


def _settings(keras):
    config = keras.config
    return config.dtype_policy(), config.floatx(), config.epsilon(), config.image_data_format()


@pytest.fixture(scope="session")
def cats_dogs() -> Path:
    """Folder with the class folders `cat` and `dog` of real photos, where there is one."""
    default = ROOT.parent / "shared" / "data" / "cats_dogs"
    folder = Path(os.environ.get("BIGZOO_CATS_DOGS", default))
    if not folder.is_dir():
        pytest.skip(f"no photos in {folder}; set BIGZOO_CATS_DOGS to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def run_python(tmp_path_factory):
    """Run code in a fresh Python process: `run_python(code, backend=None, **environment)`.

    The process finds the same bigzoo as the tests, in the checkout or installed.
    """
    import bigzoo

    folder = tmp_path_factory.mktemp("process")
    home = str(Path(bigzoo.__file__).resolve().parents[1])

    def run(code: str, backend: str | None = None, timeout: float = 240, **environment: str) -> str:
        env = {**os.environ, "PYTHONPATH": home, **environment}
        env.pop("KERAS_BACKEND", None)
        if backend:
            env["KERAS_BACKEND"] = backend
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}")
        return done.stdout

    return run
