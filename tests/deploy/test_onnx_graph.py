"""Rewrites of ONNX graphs: the same answers from less."""

import numpy as np
import pytest

from bigzoo.deploy._onnx_graph import fold_shapes, split_gemms

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)).astype("float32")


def model(nodes, constants, outputs):
    h = onnx.helper
    float32 = onnx.TensorProto.FLOAT
    return h.make_model(
        h.make_graph(
            nodes,
            "g",
            [h.make_tensor_value_info("x", float32, [None, 4])],
            [h.make_empty_tensor_value_info(name) for name in outputs],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[h.make_opsetid("", 17)],
        ir_version=8,
    )


def answers(proto):
    session = runtime.InferenceSession(proto.SerializeToString())
    return session.run(None, {"x": X})


GEMMS = {
    "bias": ({}, True),
    "no bias": ({"beta": 0.0}, False),
    "turned": ({"transB": 1}, True),
    "turned, no bias": ({"transB": 1, "beta": 0.0}, False),
}


@pytest.mark.parametrize(("settings", "biased"), GEMMS.values(), ids=GEMMS)
def test_gemm_becomes_matmul(settings, biased):
    shape = (5, 4) if settings.get("transB") else (4, 5)
    constants = {"w": RNG.normal(size=shape).astype("float32"), "b": np.arange(5, dtype="float32")}
    inputs = ["x", "w", "b"] if biased else ["x", "w"]
    nodes = [
        onnx.helper.make_node("Gemm", inputs, ["h"], "gemm", **settings),
        onnx.helper.make_node("Relu", ["h"], ["y"], "relu"),
    ]
    proto = model(nodes, constants, ["y"])
    before = answers(proto)
    split_gemms(proto.graph)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds == (["MatMul", "Add", "Relu"] if biased else ["MatMul", "Relu"])
    np.testing.assert_allclose(answers(proto)[0], before[0], rtol=1e-5, atol=1e-6)
    assert "w" not in {one.name for one in proto.graph.initializer} or not settings.get("transB")


@pytest.mark.parametrize("settings", [{"alpha": 2.0}, {"beta": 0.5}])
def test_gemm_that_does_more_stays(settings):
    constants = {"w": RNG.normal(size=(4, 5)).astype("float32"), "b": np.ones(5, "float32")}
    node = onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"], "gemm", **settings)
    proto = model([node], constants, ["y"])
    split_gemms(proto.graph)
    assert [node.op_type for node in proto.graph.node] == ["Gemm"]


def test_shapes_of_constants_are_constants():
    constants = {"w": np.ones((4, 5), "float32"), "other": np.ones((7, 5), "float32")}
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"], "matmul"),
        onnx.helper.make_node("Shape", ["other"], ["shape"], "shape"),
        onnx.helper.make_node("Cast", ["shape"], ["s"], "cast", to=onnx.TensorProto.FLOAT),
    ]
    proto = model(nodes, constants, ["h", "s"])
    fold_shapes(proto.graph)
    assert [node.op_type for node in proto.graph.node] == ["MatMul", "Cast"]
    assert {one.name for one in proto.graph.initializer} == {"w", "shape"}
    assert answers(proto)[1].tolist() == [7.0, 5.0]
