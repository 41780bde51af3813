"""Google's TPUs, AMD's MI300X, Amazon's Trainium, and classes of CPUs."""

from __future__ import annotations

from bigzoo.cost._device import Device, Figure, Source

_SEEN = "seen 2026-11"
_GIB = 2**30

# --- Google -------------------------------------------------------------------------------------

_V3 = Source("Google Cloud, TPU v3, https://cloud.google.com/tpu/docs/v3", _SEEN)
_V4 = Source("Google Cloud, TPU v4, https://docs.cloud.google.com/tpu/docs/v4", _SEEN)
_V5E = Source("Google Cloud, TPU v5e, https://docs.cloud.google.com/tpu/docs/v5e", _SEEN)
_V5P = Source("Google Cloud, TPU v5p, https://docs.cloud.google.com/tpu/docs/v5p", _SEEN)
_V6E = Source("Google Cloud, TPU v6e, https://docs.cloud.google.com/tpu/docs/v6e", _SEEN)
_V7X = Source("Google Cloud, TPU7x (Ironwood), https://docs.cloud.google.com/tpu/docs/tpu7x", _SEEN)
_MEAN = "the mean of what was measured, not a rating"
_ICI = "inter-chip interconnect of a chip, both directions"


def _tpu(
    name: str,
    title: str,
    flops: dict[str, Figure],
    memory: Figure,
    bandwidth: Figure,
    power: Figure | None = None,
    interconnect: Figure | None = None,
) -> Device:
    """A chip, which may hold two cores that frameworks show as two devices."""
    return Device(name, title, "Google", "tpu", flops, memory, bandwidth, power, interconnect)


_TPUS = (
    _tpu(
        "tpu-v3",
        "TPU v3, one chip of two cores",
        _V3.tera({"bfloat16": 123}),
        _V3.figure(32 * _GIB),
        _V3.figure(900e9),
        _V3.figure(220, _MEAN),
    ),
    _tpu(
        "tpu-v4",
        "TPU v4, one chip",
        _V4.tera({"bfloat16": 275, "int8": 275}),
        _V4.figure(32 * _GIB),
        _V4.figure(1200e9),
        _V4.figure(170, _MEAN),
    ),
    _tpu(
        "tpu-v5e",
        "TPU v5e, one chip",
        _V5E.tera({"bfloat16": 197, "int8": 393}),
        _V5E.figure(16e9, "GB read as 10^9 bytes, the smaller reading"),
        _V5E.figure(819e9),
        interconnect=_V5E.figure(400e9, _ICI),
    ),
    _tpu(
        "tpu-v5p",
        "TPU v5p, one chip",
        _V5P.tera({"bfloat16": 459, "float8": 459}),
        _V5P.figure(95 * _GIB, "what programs can use; 96 GiB are there"),
        _V5P.figure(2765e9),
        interconnect=_V5P.figure(1200e9, _ICI),
    ),
    _tpu(
        "tpu-v6e",
        "TPU v6e (Trillium), one chip",
        {**_V6E.tera({"bfloat16": 918, "int8": 1836}), **_V7X.tera({"float8": 918})},
        _V7X.figure(32 * _GIB),
        _V6E.figure(1638e9),
        interconnect=_V6E.figure(800e9, _ICI),
    ),
    _tpu(
        "tpu7x",
        "TPU7x (Ironwood), one chip; not for TensorFlow",
        _V7X.tera({"bfloat16": 2307, "float8": 4614}),
        _V7X.figure(192 * _GIB),
        _V7X.figure(7380e9),
        interconnect=_V7X.figure(1200e9, _ICI),
    ),
)

# --- AMD ----------------------------------------------------------------------------------------

_AMD_ROOFLINE = Source("AMD's roofline table `_PEAK_TFLOPS_MI300`, source code by AMD", "2026")
_MLPERF_MI300X = Source(
    "AMD's submission to MLPerf Inference v4.1, https://raw.githubusercontent.com/mlcommons/"
    "inference_results_v4.1/main/closed/AMD/systems/8xMI300X_2xEPYC-9374F.json",
    _SEEN,
)
_GPU_BLOG = Source("https://gpu.blog/gpus/instinct-mi300x-mi300x", _SEEN)

_AMD = (
    Device(
        name="mi300x",
        title="Instinct MI300X",
        vendor="AMD",
        kind="gpu",
        flops=_AMD_ROOFLINE.tera(
            {"float32": 163.4, "float16": 1307.4, "bfloat16": 1307.4, "float8": 2614.9}
        ),
        memory_bytes=_MLPERF_MI300X.figure(192e9, "GB read as 10^9 bytes, the smaller reading"),
        bandwidth_bytes_per_second=_AMD_ROOFLINE.figure(5300e9),
        power_watts=_MLPERF_MI300X.figure(750),
        interconnect_bytes_per_second=_GPU_BLOG.figure(
            896e9, "Infinity Fabric, 7 links of 128 GB/s, both directions"
        ),
    ),
)

# --- Amazon -------------------------------------------------------------------------------------

_TRN1 = Source(
    "AWS Neuron, Trainium Architecture, https://awsdocs-neuron.readthedocs-hosted.com/en/latest/"
    "general/arch/neuron-hardware/trainium.html",
    _SEEN,
)
_TRN2 = Source(
    "AWS Neuron, Trainium2 Architecture, https://awsdocs-neuron.readthedocs-hosted.com/en/latest/"
    "about-neuron/arch/neuron-hardware/trainium2.html",
    _SEEN,
)

_AMAZON = (
    Device(
        name="trainium",
        title="Trainium, one chip of two cores",
        vendor="Amazon",
        kind="accelerator",
        flops=_TRN1.tera(
            {
                "float32": 47.5,
                "tfloat32": 190,
                "float16": 190,
                "bfloat16": 190,
                "float8": 190,
                "int8": 380,
            }
        ),
        memory_bytes=_TRN1.figure(32 * _GIB),
        bandwidth_bytes_per_second=_TRN1.figure(
            820e9, "820 GiB/s in one version of the document, GB/s in another: the smaller reading"
        ),
        interconnect_bytes_per_second=_TRN2.figure(384e9, "NeuronLink-v2, of a chip"),
    ),
    Device(
        name="trainium2",
        title="Trainium2, one chip of eight cores",
        vendor="Amazon",
        kind="accelerator",
        flops=_TRN2.tera(
            {"float32": 181, "tfloat32": 667, "float16": 667, "bfloat16": 667, "float8": 1299}
        ),
        memory_bytes=_TRN2.figure(96 * _GIB),
        bandwidth_bytes_per_second=_TRN2.figure(2.9e12),
        interconnect_bytes_per_second=_TRN2.figure(1.28e12, "NeuronLink-v3, of a chip"),
    ),
)

# --- CPUs ---------------------------------------------------------------------------------------

# Their speed depends on cores, clock under load, and memory slots, which no class fixes: measure it
# with `bigzoo.cost.calibrate`.
_CPUS = tuple(
    Device(
        name=name,
        title=f"CPU with {units}; its speed is measured, not listed",
        vendor="any",
        kind="cpu",
    )
    for name, units in (
        ("cpu-avx2", "AVX2"),
        ("cpu-avx512", "AVX-512"),
        ("cpu-amx", "AVX-512 and AMX"),
        ("cpu-neon", "Arm NEON or SVE"),
    )
)

DEVICES = (*_AMD, *_TPUS, *_AMAZON, *_CPUS)
