"""`doctor` on computers that aren't there: what keeps a GPU from work, and what mends it."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import sys

import keras
import pytest

from bigzoo.cost import _doctor, _doctor_gpu, _matmul_speed, _processor
from bigzoo.cost._accelerators import DriverReport, Reported
from bigzoo.cost._doctor_gpu import Evidence, Finding, gpu_findings, missing_libraries

WORKS = DriverReport("ok", (Reported("NVIDIA L4", 24 * 2**30),), "550.54.15")
AND_CUDA = 'pip install "tensorflow[and-cuda]"'
MISSING = {"libcudnn.so.9": "nvidia-cudnn-cu12"}
TF = {"tensorflow": "2.21.0"}
JAX = {"jaxlib": "0.10.2"}


def only(**changes) -> Finding:
    """The one finding about GPUs, on a Linux computer without a GPU, with changes."""
    (found,) = gpu_findings(Evidence(**{"system": "linux", "backend": "tensorflow", **changes}))
    return found


# === Why the GPU isn't used ===

CASES = {
    "no GPU at all": ({}, "note", "no NVIDIA GPU and no driver", ""),
    "GPU without driver": (
        {"on_bus": True},
        "problem",
        "its driver isn't installed",
        "sudo ubuntu-drivers install && sudo reboot",
    ),
    "container without the GPU": (
        {"kernel_module": True, "container": True},
        "problem",
        "no `nvidia-smi` in this container",
        "docker run --gpus all ...",
    ),
    "half a driver": (
        {"kernel_module": True},
        "problem",
        "kernel module is loaded, but there is no `nvidia-smi`",
        "sudo ubuntu-drivers install",
    ),
    "driver not running": (
        {"driver": DriverReport("failed", error="NVIDIA-SMI has failed because it couldn't")},
        "problem",
        '`nvidia-smi` fails: "NVIDIA-SMI has failed',
        "sudo modprobe nvidia",
    ),
    "driver updated": (
        {"driver": DriverReport("failed", error="Driver/library version mismatch")},
        "problem",
        "mismatch",
        "sudo reboot",
    ),
    "driver without GPU": (
        {"driver": DriverReport("failed", error="No devices were found")},
        "problem",
        "No devices were found",
        "",
    ),
    "AMD": ({"amd_driver": True}, "note", "AMD's GPU driver", ""),
    "macOS": ({"system": "darwin"}, "note", "macOS", "KERAS_BACKEND=torch"),
    "TensorFlow without libraries": (
        {"driver": WORKS, "packages": TF, "missing": MISSING, "cuda_build": "12.5.1"},
        "problem",
        "libcudnn.so.9 (nvidia-cudnn-cu12)",
        AND_CUDA,
    ),
    "TensorFlow for CPUs": (
        {"driver": WORKS, "packages": {"tensorflow-cpu": "2.21.0"}},
        "problem",
        "tensorflow-cpu is a build for CPUs alone",
        f"pip uninstall -y tensorflow-cpu && {AND_CUDA}",
    ),
    "TensorFlow's build for CPUs": (
        {"driver": WORKS, "packages": TF, "cuda_build": ""},
        "problem",
        "the installed tensorflow is a build for CPUs alone",
        f"pip uninstall -y tensorflow && {AND_CUDA}",
    ),
    "TensorFlow on Windows": (
        {"driver": WORKS, "packages": TF, "system": "win32"},
        "problem",
        "TensorFlow for Windows",
        f"wsl --install; then, in WSL: {AND_CUDA}",
    ),
    "TensorFlow, nothing missing": (
        {"driver": WORKS, "packages": TF, "cuda_build": "12.5.1"},
        "problem",
        "but TensorFlow sees no GPU",
        "TF_CPP_MAX_VLOG_LEVEL=3 python -c",
    ),
    "JAX without plugin": (
        {"driver": WORKS, "backend": "jax", "packages": JAX},
        "problem",
        "JAX is installed without its CUDA plugin",
        'pip install -U "jax[cuda12]"',
    ),
    "JAX with another version's plugin": (
        {"driver": WORKS, "backend": "jax", "packages": {**JAX, "jax-cuda12-plugin": "0.9.0"}},
        "problem",
        "jax-cuda12-plugin 0.9.0 goes with another jaxlib than 0.10.2",
        'pip install -U "jax[cuda12]"',
    ),
    "JAX with its plugin": (
        {"driver": WORKS, "backend": "jax", "packages": {**JAX, "jax-cuda13-plugin": "0.10.2"}},
        "problem",
        "but JAX sees no GPU",
        'JAX_PLATFORMS=cuda python -c "import jax; print(jax.devices())"',
    ),
    "JAX on Windows": (
        {"driver": WORKS, "backend": "jax", "packages": JAX, "system": "win32"},
        "problem",
        "JAX for Windows",
        'wsl --install; then, in WSL: pip install -U "jax[cuda12]"',
    ),
    "torch for CPUs": (
        {"driver": WORKS, "backend": "torch", "packages": {"torch": "2.13.0+cpu"}},
        "problem",
        "torch 2.13.0+cpu is a build for CPUs alone",
        "pip uninstall -y torch && pip install torch",
    ),
    "torch on Windows": (
        {
            "driver": WORKS,
            "backend": "torch",
            "packages": {"torch": "2.13.0"},
            "cuda_build": "",
            "system": "win32",
        },
        "problem",
        "torch 2.13.0 is a build for CPUs alone",
        "pip install torch --index-url https://download.pytorch.org/whl/cu126",
    ),
    "torch, old driver": (
        {
            "driver": WORKS,
            "backend": "torch",
            "packages": {"torch": "2.15.0"},
            "cuda_build": "13.2",
        },
        "problem",
        "torch 2.15.0 (CUDA 13.2) can't use it",
        'python -c "import torch; torch.cuda.init()"',
    ),
    "another backend": (
        {"driver": WORKS, "backend": "openvino"},
        "note",
        "the backend openvino sees no GPU",
        "",
    ),
    "all is well": (
        {"driver": WORKS, "seen": (Reported("NVIDIA L4"),)},
        "ok",
        "sees 1 accelerator(s): NVIDIA L4",
        "",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_reason_and_command(world, name):
    changes, kind, seen, command = CASES[name]
    found = only(**changes)
    assert found.kind == kind
    assert seen in found.seen
    assert command in found.command
    assert bool(found.command) == bool(command)
    assert found.means
    if changes.get("driver") is WORKS and kind == "problem":
        assert "the driver 550.54.15 shows NVIDIA L4" in found.seen


def test_a_hidden_gpu(world):
    for value in ("", "-1", " -1", "none", "NoDevFiles"):
        world.variables["CUDA_VISIBLE_DEVICES"] = value
        found = only(driver=WORKS, packages=TF, missing=MISSING)
        assert found.command == "unset CUDA_VISIBLE_DEVICES"
        assert "hides all GPUs" in found.seen
    world.variables["CUDA_VISIBLE_DEVICES"] = "0"
    assert only(driver=WORKS, packages=TF, missing=MISSING).command == AND_CUDA


def test_jax_told_to_use_the_cpu(world):
    packages = {**JAX, "jax-cuda12-plugin": "0.10.2"}
    world.variables["JAX_PLATFORMS"] = "cpu"
    found = only(driver=WORKS, backend="jax", packages=packages)
    assert found.command == "unset JAX_PLATFORMS JAX_PLATFORM_NAME"
    world.variables["JAX_PLATFORMS"] = "cuda,cpu"
    assert "print(jax.devices())" in only(driver=WORKS, backend="jax", packages=packages).command


# === Which library is missing ===


@pytest.fixture
def asks(world):
    """TensorFlow's metadata, as pip shows them."""
    world.requirements["tensorflow"] = (
        "numpy>=1.26",
        'nvidia-cudnn-cu12<10.0,>=9.3; extra == "and-cuda"',
        'nvidia-cublas-cu12 <13.0 ; extra == "and-cuda"',
        'nvidia-curand-cu12<11; extra == "and-cuda"',  # has no line in our table
    )
    return world


def test_libraries_from_pip(asks):
    assert missing_libraries() == {
        "libcudnn.so.9": "nvidia-cudnn-cu12",
        "libcublas.so.12": "nvidia-cublas-cu12",
    }
    asks.packages["nvidia-cudnn-cu12"] = "9.10.2"
    assert list(missing_libraries()) == ["libcublas.so.12"]
    asks.packages["nvidia-cublas-cu12"] = "12.6.4"
    assert missing_libraries() == {}


@pytest.mark.parametrize(
    "place",
    ["/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu", "/opt/mine"],
)
def test_libraries_of_the_system(asks, place):
    asks.variables["LD_LIBRARY_PATH"] = "/nothing::/opt/mine"
    asks.files = {f"{place}/libcudnn.so.9.3.0": "", f"{place}/libcublas.so.11": ""}
    assert list(missing_libraries()) == ["libcublas.so.12"], "version 11 is another library"


def test_libraries_that_the_loader_lists(asks):
    asks.programs["ldconfig"] = (0, "2 libs\n\tlibcudnn.so.9 (libc6,x86-64) => /usr/lib/a.so.9\n")
    assert list(missing_libraries()) == ["libcublas.so.12"]


def test_tensorflow_asks_for_libraries_that_the_table_knows():
    """The real metadata: if TensorFlow moves to another CUDA, the table must follow."""
    try:
        lines = metadata.requires("tensorflow") or []
    except metadata.PackageNotFoundError:
        pytest.skip("needs TensorFlow")
    wanted = {line.partition("<")[0].partition(">")[0] for line in lines if "and-cuda" in line}
    assert set(_doctor_gpu._LIBRARIES) <= wanted


# === Traps of the environment ===


@pytest.mark.parametrize(
    ("variables", "quota", "kind", "seen", "command"),
    [
        ({}, None, None, "", ""),
        ({"OMP_NUM_THREADS": "8"}, None, None, "", ""),
        ({"OMP_NUM_THREADS": "32"}, None, "problem", "OMP_NUM_THREADS=32", "=8"),
        ({"TF_NUM_INTRAOP_THREADS": "16"}, None, "problem", "INTRAOP_THREADS=16", "=8"),
        ({"MKL_NUM_THREADS": "1"}, None, "note", "MKL_NUM_THREADS=1", "unset MKL_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "all"}, None, "problem", "OMP_NUM_THREADS=all", "unset"),
        ({"TF_NUM_INTRAOP_THREADS": "0"}, None, None, "", ""),  # 0 leaves it to TensorFlow
        ({}, 2.0, "note", "the time of 2 cores, and shows 8", "export TF_NUM_INTRAOP_THREADS=2"),
        ({}, 8.0, None, "", ""),
        ({"TF_NUM_INTRAOP_THREADS": "2"}, 2.0, None, "", ""),
    ],
)
def test_threads(world, variables, quota, kind, seen, command):
    world.variables = variables
    found = _doctor._threads(8, quota)
    assert [one.kind for one in found] == ([] if kind is None else [kind])
    for one in found:
        assert seen in one.seen
        assert command in one.command


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, None, ""),
        ("1", "note", "the others stay idle"),
        ("0,9,1", "problem", "there is no GPU 9"),
    ],
)
def test_some_gpus_hidden(world, value, kind, text):
    if value is not None:
        world.variables["CUDA_VISIBLE_DEVICES"] = value
    found = _doctor._hidden_gpus((Reported("NVIDIA L4"),), 4)
    assert [one.kind for one in found] == ([] if kind is None else [kind])
    assert all(text in one.means for one in found)
    assert _doctor._hidden_gpus((Reported("NVIDIA L4"),) * 4, 4) == []


def test_little_room(tmp_path):
    found = _doctor._room(tmp_path, 10**8, 10**8)
    assert [one.kind for one in found] == ["problem", "problem"]
    assert "KERAS_HOME" in found[0].command
    assert _doctor._room(tmp_path, None, None) == []
    assert _doctor._room(tmp_path, 10**12, 10**11) == []


def test_the_disk_of_a_folder_that_isnt_there_yet(world, tmp_path):
    world.variables["KERAS_HOME"] = str(tmp_path / "a" / "b")
    home, free = _doctor._disk()
    assert home == tmp_path / "a" / "b"
    assert free > 0


# === Speed ===


def test_matrix_speed_is_measured():
    rates = _matmul_speed.matmul_rates(seconds=0.05, largest=256)
    assert set(rates) == {"float32", "bfloat16"}
    assert 1e7 < rates["float32"] < 1e16


def test_a_dtype_that_fails_is_none(monkeypatch):
    def fail(*_):
        raise NotImplementedError

    monkeypatch.setattr(_matmul_speed, "_matrix", fail)
    assert _matmul_speed.matmul_rates(0.01) == {"float32": None, "bfloat16": None}


# === All of it ===


@pytest.fixture
def no_speed(monkeypatch):
    rates = {"float32": 2e11, "bfloat16": None}
    monkeypatch.setattr(_doctor, "matmul_rates", lambda **_: rates)


@pytest.fixture
def tensorflow_on_linux(world, no_speed, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(_processor, "affinity", lambda: frozenset(range(8)))
    monkeypatch.setattr(_doctor, "affinity", lambda: frozenset(range(8)))
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(_doctor, "backend_devices", lambda backend: ())
    monkeypatch.setattr(_doctor_gpu, "_cuda_build", lambda backend: "12.5.1")
    world.packages = {"tensorflow": "2.21.0", "keras": "3.15.1"}
    return world


def test_no_driver(tensorflow_on_linux):
    found = _doctor.doctor()
    assert found.ok
    assert found.versions["torch"] is None
    assert [one.kind for one in found.findings] == ["note"]
    assert "[note] no NVIDIA GPU and no driver" in str(found)


def test_gpu_on_the_bus_without_driver(tensorflow_on_linux):
    folder = "/sys/bus/pci/devices/0000:01:00.0"
    tensorflow_on_linux.files[f"{folder}/vendor"] = "0x10de\n"
    tensorflow_on_linux.files[f"{folder}/class"] = "0x030200\n"
    found = _doctor.doctor()
    assert not found.ok
    assert "its driver isn't installed" in found.findings[0].seen
    # A sound card by the same maker is no GPU.
    tensorflow_on_linux.files[f"{folder}/class"] = "0x040300\n"
    assert _doctor.doctor().ok


def test_driver_without_libraries(tensorflow_on_linux):
    tensorflow_on_linux.programs["nvidia-smi"] = (0, "NVIDIA L4, 23034, 550.54.15\n")
    tensorflow_on_linux.requirements["tensorflow"] = (
        'nvidia-cudnn-cu12<10.0,>=9.3; extra == "and-cuda"',
    )
    found = _doctor.doctor()
    assert not found.ok
    text = str(found)
    assert "libcudnn.so.9 (nvidia-cudnn-cu12)" in " ".join(text.split())
    assert f"\n    {AND_CUDA}" in text, "a command stands in a line of its own"
    assert found.machine.accelerators[0].usable is False


def test_all_well(tensorflow_on_linux, monkeypatch):
    tensorflow_on_linux.programs["nvidia-smi"] = (0, "NVIDIA L4, 23034, 550.54.15\n")
    monkeypatch.setattr(_doctor, "backend_devices", lambda backend: (Reported("NVIDIA L4"),))
    found = _doctor.doctor()
    assert found.ok
    assert [one.kind for one in found.findings] == ["ok"]
    assert found.machine.accelerators[0].device.name == "l4"


def test_problems_come_first_and_json_holds_all(tensorflow_on_linux):
    tensorflow_on_linux.variables["OMP_NUM_THREADS"] = "64"
    found = _doctor.doctor()
    assert [one.kind for one in found.findings] == ["problem", "note"]
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["ok"] is False
    assert plain["findings"][0]["command"] == "export OMP_NUM_THREADS=8"
    assert plain["matmul_flops_per_second"] == {"float32": 2e11, "bfloat16": None}
    page = found._repr_html_()
    assert "export OMP_NUM_THREADS=8" in page
    text = str(found)
    assert "float32 200 GFLOP/s, bfloat16 not possible" in text
    assert text.index("PROBLEM") < text.index("[note]")


def test_this_computer(no_speed):
    found = _doctor.doctor()
    assert found.backend == keras.backend.backend()
    assert found.versions[found.backend]
    assert found.findings
    assert all(one.kind in ("ok", "note", "problem") for one in found.findings)
