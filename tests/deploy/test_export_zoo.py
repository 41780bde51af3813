"""Every model of the zoo as a file that gives the same answers.

On TensorFlow each model goes to one format in the everyday tests, in turn, and to all of them in
the large ones. On other backends one process converts all of them.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import keras
import pytest

from bigzoo.deploy._convert import make_job, notes_for, run_jobs
from bigzoo.deploy._export import export
from bigzoo.deploy._limits import LIMITS
from bigzoo.deploy._notes import write_notes
from bigzoo.deploy._runtime import open_file
from bigzoo.deploy._signature import example_inputs, nest_inputs
from bigzoo.deploy._verify import make_checks, verify

TESTS = Path(__file__).resolve().parents[1]
NAMES = {"onnx": "m.onnx", "litert": "m.tflite", "saved_model": "folder"}
NEEDS = {"onnx": ("onnx", "onnxruntime", "tf2onnx")}


def _zoo():
    spec = importlib.util.spec_from_file_location(
        "zoo_cases", TESTS / "zoo" / "test_conformance.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ZOO = _zoo()
# (model, format) -> what the table of limits says of it; the file is made with a batch of 1 then.
FIXED_BATCH = {("rnn", "litert"): "recurrent", ("rnn/series", "litert"): "recurrent"}
# A network of keras.applications, of 3 million weights: the same layers as others, but slow.
SLOW = {"pretrained"}
# One format each; the others are large.
EVERYDAY = {
    (label, list(NAMES)[index % len(NAMES)])
    for index, label in enumerate(sorted(set(ZOO.CASES) - SLOW))
}


def cases():
    for label in ZOO.CASES:
        for format in NAMES:
            everyday = (label, format) in EVERYDAY or (label, format) in FIXED_BATCH
            marks = [] if everyday else [pytest.mark.large]
            yield pytest.param(label, format, marks=marks)


def job_for(label, format, folder):
    model = ZOO.build(label)
    dynamic = (label, format) not in FIXED_BATCH
    folder.mkdir(parents=True)
    return model, make_job(model, folder / NAMES[format], format, dynamic_batch=dynamic)


def check(model, job, checks=None):
    """The file's answers, with the notes inside that decide on names."""
    write_notes(job.path, job.format, notes_for(model, job))
    checks = checks or make_checks(model, job.signature)
    verify(checks, open_file(job.path), job.signature, 1e-5, job.path.name)


@pytest.mark.tensorflow
@pytest.mark.parametrize(("label", "format"), list(cases()))
def test_exports(tmp_path, label, format):
    for package in NEEDS.get(format, ()):
        pytest.importorskip(package)
    model, job = job_for(label, format, tmp_path / "f")
    run_jobs([job])
    check(model, job)


@pytest.mark.parametrize(("label", "format"), list(FIXED_BATCH))
def test_what_needs_a_fixed_batch_is_in_the_table(tmp_path, label, format):
    word = FIXED_BATCH[label, format]
    assert [limit for limit in LIMITS if format in limit.formats and word in limit.what]
    with pytest.raises(ValueError, match=f"{word}.*dynamic_batch=False"):
        export(ZOO.build(label), tmp_path / NAMES[format], latency=False)


def _elsewhere(labels, folder):
    """Make the files of all models, in all formats, by one process."""
    sets = []
    for number, label in enumerate(labels):
        three = [job_for(label, format, folder / f"{number}-{format}") for format in NAMES]
        model = three[0][0]
        jobs = [replace(job, model=three[0][1].model) for _, job in three]
        # Once for all formats, and of one size: JAX compiles the model for each.
        rows = nest_inputs(jobs[0].signature, example_inputs(model, 3))
        sets.append((model, jobs, make_checks(model, jobs[0].signature, rows)))
    run_jobs([job for _, jobs, _ in sets for job in jobs])
    for model, jobs, checks in sets:
        for job in jobs:
            check(model, job, checks)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="for the other backends")
def test_one_exports_from_this_backend(tmp_path):
    pytest.importorskip("tf2onnx")
    _elsewhere(["bert"], tmp_path)


@pytest.mark.large
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="for the other backends")
def test_all_export_from_this_backend(tmp_path):
    pytest.importorskip("tf2onnx")
    _elsewhere(list(ZOO.CASES), tmp_path)


def test_a_wrong_file_is_found(tmp_path):
    """The check above can fail."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the same check; files are made sooner on TensorFlow")
    _, job = job_for("mlp", "litert", tmp_path / "f")
    run_jobs([job])
    other = ZOO.build("mlp")
    other.layers[-1].bias.assign(other.layers[-1].bias + 0.1)
    with pytest.raises(ValueError, match="differs by"):
        check(other, make_job(other, job.path, "litert"))


@pytest.mark.large
@pytest.mark.tensorflow
@pytest.mark.parametrize("format", NAMES)
def test_networks_of_keras_applications(tmp_path, format):
    """Full depth and width, with weights from a fixed seed; on random pixels they compute much."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(input_shape=(96, 96, 3), weights=None, classes=10)
    receipt = export(model, tmp_path / NAMES[format], latency=False)
    assert receipt.difference.relative <= 1e-5
