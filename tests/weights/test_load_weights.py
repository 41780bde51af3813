"""From a checkpoint into a model: everything, or an error that lists both sides."""

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import bigzoo as bz
from bigzoo.weights import _transforms as transforms
from bigzoo.weights import load_weights, open_checkpoint

TABLE = {
    "hidden1/kernel": ("fc1.weight", transforms.dense),
    "hidden1/bias": ("fc1.bias", transforms.same),
    "predictions/kernel": ("fc2.weight", transforms.dense),
    "predictions/bias": ("fc2.bias", transforms.same),
}


def model(classes=3):
    return bz.models.mlp(4, (5,), num_outputs=classes, task="multiclass")


def tensors(classes=3):
    rng = np.random.default_rng(0)
    shapes = {
        "fc1.weight": (5, 4),
        "fc1.bias": (5,),
        "fc2.weight": (classes, 5),
        "fc2.bias": (classes,),
    }
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def checkpoint(tmp_path, arrays):
    save_file(arrays, tmp_path / "model.safetensors")
    return open_checkpoint(tmp_path)


def test_all_weights_are_assigned(tmp_path):
    arrays, net = tensors(), model()
    load_weights(net, checkpoint(tmp_path, arrays), TABLE)
    x = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")
    hidden = np.maximum(x @ arrays["fc1.weight"].T + arrays["fc1.bias"], 0)
    logits = hidden @ arrays["fc2.weight"].T + arrays["fc2.bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict(x, verbose=0), expected, atol=1e-6)


def test_a_new_head_keeps_its_weights(tmp_path):
    net = model(classes=2)
    before = net.get_layer("predictions").get_weights()
    load_weights(
        net, checkpoint(tmp_path, tensors()), TABLE, skip=["predictions"], ignore=["fc2.*"]
    )
    for old, new in zip(before, net.get_layer("predictions").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(net.get_layer("hidden1").get_weights()[1], tensors()["fc1.bias"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop("fc1.bias"), r"1 missing in the checkpoint: fc1.bias for hidden1/bias"),
        (lambda t: t.update(extra=t["fc1.bias"]), r"1 that the model has no weight for: extra"),
        (
            lambda t: t.update({"fc2.bias": np.zeros(7, "float32")}),
            r"1 of another shape: fc2.bias \(7,\) doesn't fit predictions/bias \(3,\)",
        ),
        (
            lambda t: t.update({"fc1.weight": np.zeros((5, 4, 2), "float32")}),
            r"1 of another shape: fc1.weight \(5, 4, 2\) doesn't fit hidden1/kernel \(4, 5\)",
        ),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path, change, text):
    arrays, net = tensors(), model()
    change(arrays)
    before = [weight.copy() for weight in net.get_weights()]
    with pytest.raises(ValueError, match=text) as caught:
        load_weights(net, checkpoint(tmp_path, arrays), TABLE)
    assert "left as it was" in str(caught.value)
    for old, new in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_long_lists_are_cut(tmp_path):
    arrays = {**tensors(), **{f"more{i}": np.zeros(1, "float32") for i in range(9)}}
    with pytest.raises(ValueError, match=r"9 that the model has.*, and 3 more"):
        load_weights(model(), checkpoint(tmp_path, arrays), TABLE)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_native_files(tmp_path, suffix):
    old, path = model(), tmp_path / f"m{suffix}"
    old.save(path) if suffix == ".keras" else old.save_weights(path)
    net = model()
    load_weights(net, open_checkpoint(path), {})
    for a, b in zip(old.get_weights(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other = model(classes=4)
    head = other.get_layer("predictions").get_weights()
    with pytest.raises(ValueError, match="don't fit the model"):
        load_weights(other, open_checkpoint(path), {})
    load_weights(other, open_checkpoint(path), {}, skip=["predictions"])
    for a, b in zip(head, other.get_layer("predictions").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(old.get_weights()[:2], other.get_weights()[:2], strict=True):
        np.testing.assert_array_equal(a, b)


# --- transforms, against the operation that they are for --------------------------------------


def test_conv_and_depthwise_layouts():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 5, 5, 3)).astype("float32")
    torch_kernel = rng.normal(size=(4, 3, 3, 3)).astype("float32")  # out, in, height, width
    got = keras.ops.conv(image, transforms.conv(torch_kernel, (3, 3, 3, 4)), padding="valid")
    window = image[0, 1:4, 2:5, :]
    expected = np.einsum("hwi,oihw->o", window, torch_kernel)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(got)[0, 1, 2], expected, rtol=1e-5)
    per_channel = rng.normal(size=(3, 1, 3, 3)).astype("float32")
    kernel = transforms.depthwise(per_channel, (3, 3, 3, 1))
    got = keras.ops.depthwise_conv(image, kernel, padding="valid")
    expected = np.einsum("hwc,chw->c", window, per_channel[:, 0])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(got)[0, 1, 2], expected, rtol=1e-5)


def test_head_layouts():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 6)), rng.normal(size=(12, 6))  # 3 heads of 4
    kernel = transforms.heads_in(weight, (6, 3, 4))
    np.testing.assert_allclose(np.einsum("bi,ihd->bhd", x, kernel), (x @ weight.T).reshape(2, 3, 4))
    values, out = rng.normal(size=(2, 3, 4)), rng.normal(size=(6, 12))
    kernel = transforms.heads_out(out, (3, 4, 6))
    np.testing.assert_allclose(
        np.einsum("bhd,hdo->bo", values, kernel), values.reshape(2, 12) @ out.T
    )
    assert transforms.heads_bias(np.zeros(12), (3, 4)).shape == (3, 4)
    assert transforms.flat(np.zeros((1, 1, 5)), (5,)).shape == (5,)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_grey_brightness_gives_the_same_answer(channels):
    """What `input_conv` is for: an image with equal channels is the same image."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype("float32")
    kernel = transforms.input_conv(weight, (3, 3, channels, 4))
    assert kernel.shape == (3, 3, channels, 4)
    if channels in (1, 3):
        np.testing.assert_allclose(kernel.sum(axis=2), weight.transpose(2, 3, 1, 0).sum(axis=2))
    else:  # as timm: colours in turn, so that the sum is right only for multiples of 3
        turn = [weight[:, i % 3].transpose(1, 2, 0) * 3 / channels for i in range(channels)]
        np.testing.assert_allclose(kernel, np.stack(turn, axis=2), rtol=1e-6)
