"""NVIDIA's GPUs: what their documents, and those who copy from them, say.

Peaks are those of dense matrices. NVIDIA's sheets for Ampere and later print the figures for sparse
matrices, twice as high, in the same table; they are never taken here.
"""

from __future__ import annotations

from bigzoo.cost._device import Device, Figure, Source

_SEEN = "seen 2026-11"

# Documents by NVIDIA.
_H100_BRIEF = Source(
    "NVIDIA H100 PCIe GPU, Product Brief PB-11133-001_v02, copied at "
    "https://manuals.plus/m/56b0c3ef7d0a1c470c0af8f05a0bd1f29a778007472ba941201fbbb185c9bccd",
    "2022-11",
)
_MLPERF_H200 = Source(
    "NVIDIA's submission to MLPerf Inference v4.1, https://raw.githubusercontent.com/mlcommons/"
    "inference_results_v4.1/main/closed/NVIDIA/systems/H200-SXM-141GBx8_TRT_MaxQ.json",
    _SEEN,
)
# Others, who name NVIDIA's document that they copy from.
_LIGHTNING = Source(
    "NVIDIA's data sheets as cited in https://github.com/Lightning-AI/pytorch-lightning/blob/master/"
    "src/lightning/fabric/utilities/throughput.py",
    _SEEN,
)
_LLM_C = Source(
    "NVIDIA's white papers as cited in https://github.com/karpathy/llm.c/blob/master/llmc/mfu.h",
    _SEEN,
)
_SPECS = Source(
    "NVIDIA's data sheets as collected in https://github.com/gmasse/gpu-specs/blob/main/specs.md",
    _SEEN,
)
_GARDEN_A100 = Source("https://glennklockwood.com/garden/processors/A100", _SEEN)
_GARDEN_H100 = Source("https://glennklockwood.com/garden/processors/h100", _SEEN)
_GARDEN_B200 = Source("https://glennklockwood.com/garden/processors/B200", _SEEN)
# Secondary sources.
_A100_GUIDE = Source("https://www.thundercompute.com/blog/nvidia-a100-specs-full-guide", "2026-05")
_L40S_RESELLER = Source("https://www.mullet.se/product.html?product_id=355414", _SEEN)
_T4_SPECS = Source("https://sysrqmts.com/en/gpus/nvidia/tesla/t4", _SEEN)
_NVLINK = Source("https://wikimili.com/en/NVLink", _SEEN)
_H200_GUIDE = Source(
    "https://ai-hpc.github.io/ai-hardware-engineer-roadmap/Phase%205%20-%20Advanced%20Topics%20and"
    "%20Specialization/1.%20GPU%20Infrastructure/Nvidia%20GPU/HPC%20Setup/L40S-x12-Inference",
    _SEEN,
)
_RTX_3090 = Source(
    "https://holynerdvana.blogspot.com/2022/10/nvidia-geforce-rtx-3090-specifications.html",
    "2022-11",
)
_RTX_5090 = Source(
    "https://www.tomshardware.com/pc-components/gpus/nvidia-geforce-rtx-5090-versus-rtx-4090-"
    "how-does-the-new-halo-gpu-compare-with-its-predecessor",
    _SEEN,
)

_ACCUMULATE = "products summed in float32; half of what is printed for sums in float16"
_HALVED = "printed for sparse matrices; half of that for dense ones"


def _memory(source: Source, gigabytes: int) -> Figure:
    # Vendors write GB and mostly mean GiB, of which the driver keeps some: an A100 of 40 GB reports
    # 42,405,855,232 bytes. The smaller reading never promises memory that isn't there.
    note = "GB read as 10^9 bytes, the smaller reading; the driver may report up to 7% more"
    return source.figure(gigabytes * 1e9, note)


def _gpu(
    name: str,
    title: str,
    flops: dict[str, Figure],
    memory: Figure,
    bandwidth: Figure,
    power: Figure,
    interconnect: Figure | None = None,
) -> Device:
    return Device(name, title, "NVIDIA", "gpu", flops, memory, bandwidth, power, interconnect)


def _v100(gigabytes: int) -> Device:
    return _gpu(
        f"v100-{gigabytes}",
        f"Tesla V100 SXM2 {gigabytes} GB",
        _LIGHTNING.tera({"float32": 15.7, "float16": 125}),
        _memory(_SPECS, gigabytes),
        _SPECS.figure(900e9),
        _SPECS.figure(300),
        _NVLINK.figure(300e9, "NVLink 2, 6 links, both directions"),
    )


_A100_FLOPS = _GARDEN_A100.tera(
    {"float32": 19.5, "tfloat32": 156, "float16": 312, "bfloat16": 312, "int8": 624}
)


def _a100_sxm(gigabytes: int, bandwidth: float) -> Device:
    return _gpu(
        f"a100-{gigabytes}",
        f"A100 SXM4 {gigabytes} GB",
        _A100_FLOPS,
        _memory(_GARDEN_A100, gigabytes),
        _GARDEN_A100.figure(bandwidth),
        _GARDEN_A100.figure(400),
        _GARDEN_A100.figure(600e9, "NVLink 3, both directions"),
    )


def _a100_pcie(gigabytes: int, bandwidth: float, watts: float) -> Device:
    return _gpu(
        f"a100-pcie-{gigabytes}",
        f"A100 PCIe {gigabytes} GB",
        _A100_FLOPS,
        _memory(_A100_GUIDE, gigabytes),
        _A100_GUIDE.figure(bandwidth),
        _A100_GUIDE.figure(watts),
    )


_H100_FLOPS = {"float32": 66.9, "tfloat32": 494.7, "float16": 989.4, "bfloat16": 989.4}
_HOPPER_FLOPS = _GARDEN_H100.tera({**_H100_FLOPS, "float8": 1978.9, "int8": 1978.9})

_HOPPER = (
    _gpu(
        "h100-sxm",
        "H100 SXM5",
        _HOPPER_FLOPS,
        _memory(_GARDEN_H100, 80),
        _GARDEN_H100.figure(3.35e12),
        _GARDEN_H100.figure(700),
        _GARDEN_H100.figure(900e9, "NVLink 4, both directions"),
    ),
    _gpu(
        "h100-pcie",
        "H100 PCIe",
        {
            **_LIGHTNING.tera({"float32": 51}),
            **_LLM_C.tera({"tfloat32": 378, "float16": 756, "bfloat16": 756, "float8": 1513}),
            **_LIGHTNING.tera({"int8": 1513}, _HALVED),
        },
        _memory(_SPECS, 80),
        _H100_BRIEF.figure(2e12, 'the document says "greater than 2,000 GB/s"'),
        _H100_BRIEF.figure(350),
    ),
    _gpu(
        "h200",
        "H200 SXM",
        {
            dtype: _GARDEN_H100.figure(figure.value, "the same processor as the H100 SXM5")
            for dtype, figure in _HOPPER_FLOPS.items()
        },
        _memory(_MLPERF_H200, 141),
        _H200_GUIDE.figure(4.8e12, "38.4 TB/s are given for 8 of them"),
        _MLPERF_H200.figure(700),
        _MLPERF_H200.figure(900e9, "NVLink 4, both directions"),
    ),
)

_BLACKWELL = (
    _gpu(
        "b200",
        "B200 (HGX, 1,000 W)",
        _GARDEN_B200.tera(
            {
                "float32": 80,
                "tfloat32": 1100,
                "float16": 2250,
                "bfloat16": 2250,
                "float8": 4500,
                "int8": 4500,
            }
        ),
        _memory(_GARDEN_B200, 192),
        _GARDEN_B200.figure(8e12),
        _GARDEN_B200.figure(1000),
        _GARDEN_B200.figure(1.8e12, "NVLink 5, both directions"),
    ),
)

_INFERENCE = (
    _gpu(
        "t4",
        "Tesla T4",
        _LIGHTNING.tera({"float32": 8.1, "float16": 65, "int8": 130}),
        _memory(_SPECS, 16),
        _T4_SPECS.figure(320e9, "256 bits at 10 Gbit/s; NVIDIA's data sheet says 300"),
        _SPECS.figure(70),
    ),
    _gpu(
        "a10",
        "A10",
        {
            **_LIGHTNING.tera({"float32": 31.2, "float16": 125, "bfloat16": 125}),
            **_SPECS.tera({"tfloat32": 62.5, "int8": 250}),
        },
        _memory(_SPECS, 24),
        _SPECS.figure(600e9),
        _SPECS.figure(150),
    ),
    _gpu(
        "l4",
        "L4",
        _SPECS.tera(
            {
                "float32": 30.3,
                "tfloat32": 60,
                "float16": 121,
                "bfloat16": 121,
                "float8": 242,
                "int8": 242,
            }
        ),
        _memory(_SPECS, 24),
        _SPECS.figure(300e9),
        _SPECS.figure(72),
    ),
    _gpu(
        "l40s",
        "L40S",
        {
            **_L40S_RESELLER.tera({"float32": 91.6, "tfloat32": 183}),
            **_L40S_RESELLER.tera({"float16": 362.05, "bfloat16": 362.05, "float8": 733}),
            **_SPECS.tera({"int8": 733}),
        },
        _memory(_L40S_RESELLER, 48),
        _L40S_RESELLER.figure(864e9),
        _L40S_RESELLER.figure(350),
    ),
)

_GEFORCE = (
    _gpu(
        "rtx-3090",
        "GeForce RTX 3090",
        {
            **_RTX_3090.tera({"float32": 35.6}),
            **_LLM_C.tera(
                {"tfloat32": 35.6, "float16": 71.2, "bfloat16": 71.2},
                "the RTX 3090 Ti's, by the number of tensor cores and the clock; sums in float32",
            ),
        },
        _memory(_RTX_3090, 24),
        _RTX_3090.figure(936e9),
        _RTX_3090.figure(350),
    ),
    _gpu(
        "rtx-4090",
        "GeForce RTX 4090",
        {
            **_RTX_5090.tera({"float32": 82.6}),
            **_LLM_C.tera({"tfloat32": 82.6}),
            **_LLM_C.tera({"float16": 165.2, "bfloat16": 165.2, "float8": 330.3}, _ACCUMULATE),
            **_SPECS.tera({"int8": 660.6}),
        },
        _memory(_RTX_5090, 24),
        _RTX_5090.figure(1008e9),
        _RTX_5090.figure(450),
    ),
    _gpu(
        "rtx-5090",
        "GeForce RTX 5090",
        # Of its tensor cores only figures for sparse matrices, or for sums in float16, were found.
        _RTX_5090.tera({"float32": 104.8}),
        _memory(_RTX_5090, 32),
        _RTX_5090.figure(1792e9),
        _RTX_5090.figure(575),
    ),
)

DEVICES = (
    _v100(16),
    _v100(32),
    *_INFERENCE,
    _a100_sxm(40, 1555e9),
    _a100_sxm(80, 2039e9),
    _a100_pcie(40, 1555e9, 250),
    _a100_pcie(80, 1935e9, 300),
    *_HOPPER,
    *_BLACKWELL,
    *_GEFORCE,
)
