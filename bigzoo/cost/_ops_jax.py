"""What JAX's primitives ask of hardware: name -> (kind, keeps, FLOPs per element).

The last is arithmetic per output element, or per input element for reductions. A transcendental
function counts as one, as in XLA's analysis.
"""

from __future__ import annotations

Rule = tuple[str, str, float]


def _rules(kind: str, keeps: str, flops: float, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), (kind, keeps, flops))


RULES: dict[str, Rule] = {
    **_rules(
        "view",
        "none",
        0,
        """reshape squeeze expand_dims stop_gradient copy_p broadcast_in_dim bitcast_convert_type
        sharding_constraint optimization_barrier random_wrap random_unwrap name reduce_precision
        create_token pvary mesh_cast reshard shard_alike""",
    ),
    **_rules(
        "move",
        "none",
        0,
        """transpose concatenate slice dynamic_slice dynamic_update_slice pad gather scatter rev
        iota
        copy split tile stack unstack""",
    ),
    **_rules("elementwise", "none", 0, "convert_element_type real imag"),
    **_rules(
        "elementwise",
        "none",
        1,
        """add sub neg add_any floor ceil round sign eq ne lt le gt ge eq_to lt_to le_to and or not
        xor is_finite rem shift_left shift_right_arithmetic shift_right_logical clamp nextafter
        complex conj population_count clz scatter-add scatter_add scatter_sub""",
    ),
    **_rules("elementwise", "operands", 1, "mul div"),
    **_rules(
        "elementwise", "output", 1, "exp exp2 expm1 logistic tanh sqrt rsqrt cbrt erf_inv max min"
    ),
    **_rules(
        "elementwise",
        "inputs",
        1,
        """square abs log log1p pow integer_pow erf erfc sin cos tan asin acos atan atan2 sinh
        cosh asinh acosh atanh lgamma digamma select_and_gather_add igamma igammac
        regularized_incomplete_beta bessel_i0e bessel_i1e zeta polygamma scatter_mul scatter_min
        scatter_max""",
    ),
    **_rules("elementwise", "first", 1, "select_n"),
    **_rules(
        "reduction",
        "none",
        1,
        """reduce_sum argmax argmin reduce_and reduce_or reduce_xor cumsum""",
    ),
    **_rules(
        "reduction",
        "inputs",
        1,
        """reduce_max reduce_min reduce_prod cumprod cummax cummin cumlogsumexp sort top_k reduce
        approx_top_k""",
    ),
    **_rules("pool", "none", 1, "reduce_window_sum"),
    **_rules("pool", "inputs", 1, "reduce_window_max reduce_window_min reduce_window"),
    **_rules(
        "random",
        "none",
        1,
        """threefry2x32 random_bits rng_bit_generator random_seed random_split random_fold_in
        random_clone rng_uniform random_gamma""",
    ),
}
