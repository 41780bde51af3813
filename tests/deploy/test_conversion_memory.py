"""Conversions that are made one after the other don't fill the memory."""

import gc
from pathlib import Path

import pytest

import bigzoo as bz
from bigzoo.deploy._convert import convert

STATM = Path("/proc/self/statm")
PAGE = 4096


def resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * PAGE


def growth(step, warm_up: int, count: int) -> int:
    """Bytes that `count` steps add, after some that fill caches."""
    for _ in range(warm_up):
        step()
    gc.collect()
    before = resident_bytes()
    for _ in range(count):
        step()
    gc.collect()
    return resident_bytes() - before


@pytest.mark.large
@pytest.mark.tensorflow
@pytest.mark.skipif(not STATM.exists(), reason="reads the memory of the process from /proc")
def test_conversions_to_litert_do_not_leak(tmp_path):
    model = bz.models.cnn((32, 32, 3), num_classes=2)  # 5.5 MiB of weights
    count = iter(range(100))

    def step():
        convert(model, tmp_path / f"{next(count)}.tflite", "litert", mode="dynamic")

    # One copy of the weights that stays each time would be 55 MiB.
    assert growth(step, warm_up=4, count=10) < 45 * 2**20


@pytest.mark.skipif(not STATM.exists(), reason="reads the memory of the process from /proc")
def test_a_leak_is_found():
    kept = []
    assert growth(lambda: kept.append(b"x" * 40 * 2**20), 1, 10) > 45 * 2**20
