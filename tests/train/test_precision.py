"""Which policy the hardware gets."""

import keras
import pytest

import bigzoo
from bigzoo.train._precision import (
    Accelerator,
    _parse_capability,
    decide,
    find_accelerators,
    read_processor_flags,
    uses_onednn,
)


@pytest.fixture(autouse=True)
def policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


NONE: list[Accelerator] = []


@pytest.mark.parametrize(
    ("accelerators", "flags", "onednn", "expected", "reason"),
    [
        (NONE, {"avx2"}, True, "float32", "no units for bfloat16"),
        (NONE, set(), True, "float32", "no units"),
        (NONE, {"amx_bf16", "avx512_bf16"}, True, "mixed_bfloat16", "AMX"),
        (NONE, {"avx512_bf16"}, True, "mixed_bfloat16", "AVX512-BF16"),
        (NONE, {"amx_bf16"}, False, "float32", "TF_ENABLE_ONEDNN_OPTS"),
        ([Accelerator("tpu")], set(), True, "mixed_bfloat16", "TPU"),
        ([Accelerator("gpu", (8, 0))], set(), True, "mixed_bfloat16", "Ampere"),
        ([Accelerator("gpu", (9, 0))], set(), False, "mixed_bfloat16", "Ampere"),
        ([Accelerator("gpu", (7, 5))], {"amx_bf16"}, True, "float32", "compute capability 7.5"),
        ([Accelerator("gpu", None)], {"amx_bf16"}, True, "float32", "isn't known"),
        (
            [Accelerator("gpu", (9, 0)), Accelerator("gpu", (7, 0))],
            set(),
            True,
            "float32",
            "compute capability 7.0",
        ),
    ],
)
def test_decision(accelerators, flags, onednn, expected, reason):
    probes = lambda: accelerators, lambda: frozenset(flags), lambda: onednn
    found, why = decide(*probes, "tensorflow")
    assert found == expected
    assert reason in why


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_processors_compute_in_float32_on_other_backends(backend):
    """Their kernels for bfloat16 are slower than those for float32."""

    def on(accelerators, flags):
        return decide(lambda: accelerators, lambda: frozenset(flags), lambda: True, backend)

    policy, why = on(NONE, {"amx_bf16"})
    assert policy == "float32"
    assert why == f"on processors bfloat16 is fast with TensorFlow, but not with {backend}"
    assert on(NONE, {"avx2"}) == ("float32", "this processor has no units for bfloat16")
    assert on([Accelerator("gpu", (9, 0))], {"avx2"})[0] == "mixed_bfloat16"


def test_the_decision_asks_for_the_backend():
    flags = frozenset({"amx_bf16"})
    policy, _ = decide(lambda: NONE, lambda: flags, lambda: True)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    assert policy == ("mixed_bfloat16" if on_tensorflow else "float32")


def test_processor_flags(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\nbugs\t: x\n", encoding="utf-8")
    assert read_processor_flags(str(path)) == {"fpu", "avx2", "amx_bf16"}
    path.write_text("processor : 0\nFeatures : asimd\n", encoding="utf-8")
    assert read_processor_flags(str(path)) == frozenset()
    assert read_processor_flags(str(tmp_path / "none")) == frozenset()


def test_onednn_switch(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not uses_onednn()
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    assert uses_onednn()


def test_compute_capability_text():
    assert _parse_capability("8.0") == (8, 0)
    assert _parse_capability("gfx90a") is None
    assert _parse_capability("") is None


def test_the_backend_can_be_asked():
    assert all(device.kind in ("gpu", "tpu") for device in find_accelerators())


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_by_name(name, capsys):
    assert bigzoo.precision(name) == name
    assert keras.config.dtype_policy().name == name
    assert capsys.readouterr().out == f"bigzoo.precision: {name} (as asked)\n"


def test_auto_sets_what_it_returns(capsys):
    name = bigzoo.precision()
    assert name == decide()[0]
    assert keras.config.dtype_policy().name == name
    assert capsys.readouterr().out.count("\n") == 1
    bigzoo.precision("auto", verbose=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"policy": "mixed_bfloat"}, ValueError, "Did you mean 'mixed_bfloat16'"),
        ({"policy": "half"}, ValueError, "`policy` is 'half'; expected a known name"),
        ({"policy": 16}, TypeError, "`policy` is 16; expected one of 'auto'"),
        ({"policy": None}, TypeError, "`policy` is None"),
        ({"verbose": 1}, TypeError, "`verbose` is 1; expected True or False"),
    ],
)
def test_bad_input(arguments, error, text):
    before = keras.config.dtype_policy()
    with pytest.raises(error, match=text):
        bigzoo.precision(**arguments)
    assert keras.config.dtype_policy() is before
