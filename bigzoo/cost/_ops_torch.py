"""What torch's operations ask of hardware: name -> (kind, keeps, FLOPs per element).

The last is arithmetic per output element, or per input element for reductions. A transcendental
function counts as one, as in XLA's analysis; functions that torch fuses count as their formula
written out. Products, which have functions of their own, are at the end of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from bigzoo.cost._products import Axis, convolution, matmul

Rule = tuple[str, str, float]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _rules(kind: str, keeps: str, flops: float, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), (kind, keeps, flops))


# Memory that is asked for, and values that leave the program: no work.
FREE = _names(
    """empty empty_like empty_strided empty_permuted new_empty new_empty_strided is_same_size
    sym_size sym_stride sym_numel sym_storage_offset _assert_async _assert_scalar
    _assert_tensor_metadata resize"""
)

# The same tensor again.
SAME = _names("alias lift_fresh")

# Of these the inputs give the shape alone, not the values.
SHAPE_ONLY = _names(
    """zeros_like ones_like full_like rand_like randn_like randint_like new_zeros new_ones
    new_full uniform normal random exponential fill zero"""
)

RULES: dict[str, Rule] = {
    **_rules(
        "view",
        "none",
        0,
        """as_strided detach diagonal expand expand_as permute real imag
        _reshape_alias reshape select slice split split_with_sizes chunk squeeze t transpose
        unbind unfold unsqueeze _unsafe_view view view_as view_as_complex view_as_real
        _conj _neg_view movedim swapaxes numpy_T mT""",
    ),
    **_rules(
        "move",
        "none",
        0,
        """_to_copy arange cat clone constant_pad_nd contiguous copy diag_embed embedding eye fill
        flip full full_like gather index index_copy index_fill index_put index_select lift
        lift_fresh_copy linspace masked_fill masked_scatter masked_select new_full new_ones
        new_zeros nonzero ones ones_like pixel_shuffle pixel_unshuffle reflection_pad1d
        reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d
        replication_pad2d replication_pad3d roll rot90 scalar_tensor scatter searchsorted bucketize
        select_scatter slice_scatter stack take tril tril_indices triu triu_indices
        upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
        _upsample_nearest_exact2d _upsample_nearest_exact3d im2col unique_consecutive zero zeros
        zeros_like resolve_conj resolve_neg split_with_sizes_copy unfold_copy""",
    ),
    **_rules(
        "elementwise",
        "none",
        1,
        """add sub rsub neg floor ceil round trunc frac sign sgn eq ne lt le gt ge logical_and
        logical_or logical_not logical_xor isnan isinf isfinite isneginf isposinf floor_divide
        bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift
        __and__ __or__ __xor__ __lshift__ __rshift__ signbit nextafter complex angle scatter_add
        index_add nan_to_num heaviside""",
    ),
    **_rules("elementwise", "operands", 1, "mul div true_divide xlogy special_xlog1py ldexp"),
    **_rules("elementwise", "operands", 2, "addcmul addcdiv addr"),
    **_rules("elementwise", "operands", 3, "lerp"),
    **_rules(
        "elementwise",
        "output",
        1,
        """exp exp2 expm1 sigmoid tanh relu relu6 sqrt rsqrt reciprocal elu celu selu erfinv
        hardtanh threshold""",
    ),
    **_rules("elementwise", "output", 5, "_softmax _log_softmax _safe_softmax"),
    **_rules(
        "elementwise",
        "inputs",
        1,
        """square maximum minimum fmax fmin clamp clamp_min clamp_max abs log log2 log10 log1p pow
        erf erfc sin cos tan asin acos atan atan2 sinh cosh asinh acosh atanh lgamma digamma
        softplus log_sigmoid_forward leaky_relu softshrink hardshrink where remainder fmod hypot
        logaddexp logaddexp2 copysign gcd lcm i0 special_i0e special_i1 special_i1e special_ndtri
        polygamma sinc logit _prelu_kernel rad2deg deg2rad""",
    ),
    **_rules("elementwise", "inputs", 2, "silu glu"),  # x * sigmoid(x)
    **_rules("elementwise", "inputs", 3, "hardsigmoid mish"),  # mish: x * tanh(softplus(x))
    **_rules("elementwise", "inputs", 4, "hardswish"),
    # 0.5 * x * (1 + erf(x * c)); -(t * log(x) + (1 - t) * log(1 - x)) has as many and two more.
    **_rules("elementwise", "inputs", 5, "gelu"),
    **_rules("elementwise", "inputs", 7, "binary_cross_entropy"),
    # Mean, deviation, square, their mean; then difference, scaling, gain and offset.
    **_rules(
        "elementwise",
        "inputs",
        7,
        """native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
        _batch_norm_with_update _batch_norm_no_update cudnn_batch_norm native_layer_norm
        native_group_norm _fused_rms_norm batch_norm layer_norm""",
    ),
    **_rules(
        "reduction",
        "none",
        1,
        """sum mean nansum cumsum any all argmax argmin count_nonzero trace""",
    ),
    **_rules(
        "reduction",
        "inputs",
        1,
        """amax amin max min prod cumprod cummax cummin logcumsumexp median nanmedian mode sort
        argsort topk kthvalue bincount histc aminmax scatter_reduce index_reduce segment_reduce
        _unique2 unique_dim isin""",
    ),
    **_rules("reduction", "inputs", 2, "norm linalg_vector_norm _cdist_forward"),
    **_rules("reduction", "inputs", 3, "var std logsumexp nll_loss_forward mse_loss"),
    **_rules("reduction", "inputs", 4, "var_mean std_mean"),
    # Per output element, times the positions of the window: see `_window`.
    **_rules(
        "pool",
        "inputs",
        1,
        """max_pool1d max_pool2d_with_indices max_pool3d_with_indices max_pool2d max_pool3d""",
    ),
    **_rules("pool", "none", 1, "avg_pool1d avg_pool2d avg_pool3d"),
    # Windows of an adaptive pooling cover the input: one FLOP per input element, as `reduction`.
    **_rules(
        "reduction",
        "none",
        1,
        "adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool2d",
    ),
    **_rules("reduction", "inputs", 1, "adaptive_max_pool2d adaptive_max_pool3d"),
    **_rules(
        "pool",
        "none",
        8,
        """upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
        _upsample_bilinear2d_aa _upsample_bicubic2d_aa""",
    ),
    **_rules("pool", "inputs", 8, "grid_sampler_2d grid_sampler_3d"),
    **_rules(
        "random",
        "none",
        1,
        """rand randn randint rand_like randn_like randint_like randperm uniform normal bernoulli
        native_dropout multinomial random exponential poisson binomial _standard_gamma
        _sample_dirichlet normal_functional""",
    ),
}


def elementwise_flops(name: str, args: Sequence[Any], inputs: list[Any], outputs: list[Any]) -> int:
    """Arithmetic of an operation by its rule, from torch's tensors."""
    kind, _, flops = RULES[name]
    measured = inputs if kind == "reduction" else outputs
    size = measured[0].numel() if measured else 0
    if kind == "pool" and "_pool" in name:
        size *= _window(args, outputs[0].ndim)
    return int(flops * size)


def _window(args: Sequence[Any], rank: int) -> int:
    """Positions of the window of a pooling: torch writes a square one as a single number."""
    sides = args[1] if isinstance(args[1], (list, tuple)) else [args[1]]
    dimensions = min(rank - 1, 3) if rank < 4 else rank - 2
    return math.prod(sides) if len(sides) > 1 else sides[0] ** dimensions


# --- products ---------------------------------------------------------------------------------

# Each takes the operation's positional arguments and gives fields of `Node`, "left" and "right" as
# tensors. `aten.linear`, `matmul`, `einsum` and the recurrent networks of torch.nn reach the trace
# as these, since torch takes them apart before the dispatch; its fused kernels for LSTM and GRU
# belong to devices (CUDA, oneDNN), and a trace on the meta device never meets them.


def _mm(left: Any, right: Any, added: bool = False) -> dict[str, Any]:
    """(m, k) @ (k, n), or with a batch before each."""
    rows, inner = left.shape[-2:]
    columns = right.shape[-1]
    groups = math.prod(left.shape[:-2])
    cost = matmul(groups, rows, inner, columns)
    extra = groups * rows * columns if added else 0
    return cost | {"left": left, "right": right, "elementwise_flops": extra}


def _mv(left: Any, right: Any, added: bool = False) -> dict[str, Any]:
    rows, inner = left.shape
    extra = rows if added else 0
    return matmul(1, rows, inner, 1) | {"left": left, "right": right, "elementwise_flops": extra}


def _dot(args: Sequence[Any]) -> dict[str, Any]:
    return matmul(1, 1, args[0].numel(), 1) | {"left": args[0], "right": args[1]}


def _addbmm(args: Sequence[Any]) -> dict[str, Any]:
    """Sum over the batch of products: one long product."""
    batch, rows, inner = args[1].shape
    columns = args[2].shape[-1]
    cost = matmul(1, rows, batch * inner, columns)
    return cost | {"left": args[1], "right": args[2], "elementwise_flops": rows * columns}


def _linear(args: Sequence[Any]) -> dict[str, Any]:
    left, right = args[:2]
    rows = math.prod(left.shape[:-1])
    cost = matmul(1, rows, left.shape[-1], right.shape[0])
    extra = rows * right.shape[0] if len(args) > 2 and args[2] is not None else 0
    return cost | {"left": left, "right": right, "elementwise_flops": extra}


def _attention(args: Sequence[Any]) -> dict[str, Any]:
    """Scores and weighted sum in one kernel, all of them: a causal mask saves nothing.

    Arrays are (batch, heads, length, dim). As one product: each score is a sum over the query's
    dim, and is then spread over the value's.
    """
    query, key, value = args[:3]
    groups = math.prod(query.shape[:-2])
    rows, columns = query.shape[-2], key.shape[-2]
    cost = matmul(groups, rows, query.shape[-1] + value.shape[-1], columns)
    softmax = 5 * groups * rows * columns
    return cost | {"left": query, "right": key, "elementwise_flops": softmax}


def convolution_cost(args: Sequence[Any], output: Any, padded: Sequence[tuple[int, int]]) -> Any:
    """aten.convolution(input, weight, bias, stride, padding, dilation, transposed, _, groups).

    `padded` gives the zeros before and after each axis that the input already holds. Of a
    transposed convolution it is what is cut off its output afterwards.
    """
    data, weight, bias, stride, padding, dilation, transposed = args[:7]
    groups = args[8]
    axes = []
    for i, kernel in enumerate(weight.shape[2:]):
        before, after = padded[i] if padded else (0, 0)
        inputs, outputs = data.shape[2 + i], output.shape[2 + i]
        inputs, outputs = (
            (inputs, outputs - before - after) if transposed else (inputs - before - after, outputs)
        )
        start = _one(padding, i) + before
        axes.append(
            Axis(inputs, outputs, kernel, _one(stride, i), _one(dilation, i), start, transposed)
        )
    cost = convolution(data.shape[0], data.shape[1], output.shape[1], groups, axes)
    extra = output.numel() if bias is not None else 0
    return cost | {"left": data, "right": weight, "elementwise_flops": extra}


def _one(values: Sequence[int], index: int) -> int:
    """Torch writes the same value for all axes once."""
    return values[index] if len(values) > 1 else values[0]


_ATTENTION = "_scaled_dot_product_"
PRODUCTS: dict[str, Callable[[Sequence[Any]], dict[str, Any]]] = {
    **dict.fromkeys(("mm", "bmm", "_int_mm", "matmul"), lambda args: _mm(args[0], args[1])),
    **dict.fromkeys(("addmm", "baddbmm"), lambda args: _mm(args[1], args[2], added=True)),
    "_scaled_mm": lambda args: _mm(args[0], args[1]),
    "mv": lambda args: _mv(args[0], args[1]),
    "addmv": lambda args: _mv(args[1], args[2], added=True),
    "dot": _dot,
    "vdot": _dot,
    "addbmm": _addbmm,
    "linear": _linear,
    **dict.fromkeys(
        (
            f"{_ATTENTION}flash_attention",
            f"{_ATTENTION}flash_attention_for_cpu",
            f"{_ATTENTION}efficient_attention",
            f"{_ATTENTION}cudnn_attention",
            f"{_ATTENTION}fused_attention_overrideable",
            f"{_ATTENTION}attention_math",
            "scaled_dot_product_attention",
        ),
        _attention,
    ),
}
CONVOLUTIONS = frozenset(("convolution", "_convolution", "convolution_overrideable"))
