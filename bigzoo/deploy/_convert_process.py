"""Conversion in a TensorFlow process of its own, for models on JAX and PyTorch.

`run_elsewhere` saves each model into a temporary folder and starts this module there, where Keras
runs on TensorFlow. One process makes all files: TensorFlow takes seconds to start.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigzoo._errors import shorten

if TYPE_CHECKING:
    from bigzoo.deploy._convert import Job

_JOBS = "jobs.json"
_ERROR = "error.json"
_KNOWN = ("keras", "bigzoo", "builtins")
_ERRORS = {"ValueError": ValueError, "ImportError": ImportError, "OSError": OSError}


def run_elsewhere(jobs: Sequence[Job]) -> None:
    """Make the files of all jobs in one process.

    Raises:
        ValueError: if a format can't hold a model, or a class of it can't be imported there.
        OSError, ImportError: as in this process.
    """
    with tempfile.TemporaryDirectory(prefix="bigzoo-convert-") as folder:
        home = Path(folder)
        entries = [_write_job(job, home, number) for number, job in enumerate(jobs)]
        (home / _JOBS).write_text(json.dumps(entries), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "bigzoo.deploy._convert_process", folder],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        _raise_error(home, done)


def _environment(folder: str) -> dict[str, str]:
    """This process's own, with its search path for modules and TensorFlow as the backend."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    return {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": os.pathsep.join(paths),
        # It only converts: a GPU is left to this process, which may hold all of its memory.
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # A file in the current folder that is called keras.py isn't meant.
        "PYTHONSAFEPATH": "1",
        # What it leaves, should it be killed, goes with the folder.
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder),
    }


def _write_job(job: Job, home: Path, number: int) -> dict[str, Any]:
    """Save what the other process needs; the entry that says where it is."""
    import numpy as np

    try:
        modules = own_modules(job.model)
        job.model.save(home / f"{number}.keras")
    except (NotImplementedError, TypeError) as error:  # a layer that doesn't describe itself
        fix = "Give the layer a `get_config`."
        text = f"`model` can't be saved for the process that converts it: {shorten(error)}. {fix}"
        raise ValueError(text) from error
    if job.calibration is not None:
        np.savez(home / f"{number}.npz", *job.calibration)
    return {
        "signature": job.signature.to_json(),
        "path": str(job.path.absolute()),
        "format": job.format,
        "mode": job.mode,
        "calibrated": job.calibration is not None,
        "modules": modules,
    }


def own_modules(model: Any) -> list[str]:
    """Modules of the model's own classes and functions, which the other process must import.

    Raises:
        ValueError: for a class from a script or a notebook, which can't be imported there.
    """
    import keras

    from bigzoo.deploy._limits import every_layer

    # A class that isn't registered is in no list but the model itself.
    own: set[Any] = {type(layer) for layer in every_layer(model)}
    for node in _nodes(json.loads(model.to_json())):
        registered = keras.saving.get_registered_object(str(node.get("registered_name")))
        own |= {registered} if hasattr(registered, "__module__") else set()
    own = {each for each in own if each.__module__.partition(".")[0] not in _KNOWN}
    for each in own:
        if each.__module__ == "__main__" or "<locals>" in each.__qualname__:
            raise ValueError(
                f"{each.__name__!r} in `model` can't be imported by the process that converts on "
                "TensorFlow. Put it into a module of its own, with "
                "`@keras.saving.register_keras_serializable()`, and import it from there."
            )
    return sorted({each.__module__ for each in own})


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a model's description that names a registered class or function."""
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "registered_name" in item:
                yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _raise_error(home: Path, done: subprocess.CompletedProcess[str]) -> None:
    file = home / _ERROR
    if file.is_file():
        said = json.loads(file.read_text(encoding="utf-8"))
        raise _as_error(said["kind"], said["text"], said["errno"])
    if not done.returncode:
        return
    text = "The process that converts on TensorFlow"
    if done.returncode < 0:
        fix = "It may need more memory than there is."
        raise ValueError(f"{text} was ended by the system (signal {-done.returncode}). {fix}")
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    raise ValueError(f"{text} ended with status {done.returncode}: {lines[-1][:200]}.")


def _as_error(kind: str, text: str, number: int | None) -> Exception:
    if kind == "OSError" and number is not None:
        return OSError(number, text)
    return _ERRORS.get(kind, ValueError)(text)


# --- in the other process --------------------------------------------------------------------


def main(folder: str) -> int:
    """Run the jobs in `folder`; 0 if all went well."""
    home = Path(folder)
    try:
        for number, entry in enumerate(json.loads((home / _JOBS).read_text(encoding="utf-8"))):
            _run_entry(home, number, entry)
    # Whatever it is: the caller gets it as an error of its own.
    except Exception as error:
        kinds = [kind for kind in _ERRORS if isinstance(error, _ERRORS[kind])]
        said = {
            "kind": kinds[0] if kinds else "ValueError",
            "text": getattr(error, "strerror", None) or shorten(error, 600),
            "errno": getattr(error, "errno", None),
        }
        (home / _ERROR).write_text(json.dumps(said), encoding="utf-8")
        return 1
    return 0


def _run_entry(home: Path, number: int, entry: dict[str, Any]) -> None:
    import keras
    import numpy as np

    from bigzoo.deploy._convert import Job, run_job
    from bigzoo.deploy._signature import Signature

    for module in entry["modules"]:
        importlib.import_module(module)
    # Not a stranger's file: the model was in the caller's memory a moment ago.
    model = keras.saving.load_model(home / f"{number}.keras", compile=False, safe_mode=False)
    signature = Signature.from_json(entry["signature"])
    calibration = None
    if entry["calibrated"]:
        with np.load(home / f"{number}.npz") as arrays:
            calibration = tuple(arrays[f"arr_{i}"] for i in range(len(signature.inputs)))
    path = Path(entry["path"])
    run_job(Job(model, signature, path, entry["format"], entry["mode"], calibration))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
