"""bigzoo.models.pretrained against keras.applications itself; weights from local files."""

from __future__ import annotations

import functools
import importlib

import h5py
import keras
import numpy as np
import pytest

from bigzoo.models import pretrained
from bigzoo.models._backbones import BACKBONES, Backbone, flat_copy, scaled
from bigzoo.weights._applications import adapt

SHAPE = (32, 32, 3)
SMALL = {"options": {"alpha": 0.5}, "input_shape": SHAPE}
# What is compared here is the graph, which is the same on each backend; JAX would compile large
# networks operation by operation, for minutes. MobileNet and the small network run on all.
graph_alone = pytest.mark.tensorflow
# Module of keras.applications that has `preprocess_input` -> how its networks' names begin.
MODULES = {
    "convnext": "ConvNeXt",
    "densenet": "DenseNet",
    "efficientnet": "EfficientNetB",
    "efficientnet_v2": "EfficientNetV2",
    "inception_resnet_v2": "InceptionResNetV2",
    "inception_v3": "InceptionV3",
    "mobilenet": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3": "MobileNetV3",
    "nasnet": "NASNet",
    "resnet": "ResNet",
    "resnet_v2": "ResNet",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "xception": "Xception",
}


def small(
    include_top=True,
    weights="imagenet",
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    alpha=1.0,
    name="small",
):
    """A network with the arguments and habits of those in keras.applications, built in no time."""
    layers = keras.layers
    image = keras.Input(input_shape) if input_tensor is None else input_tensor
    width = int(8 * alpha)
    x = layers.Conv2D(width, 3, strides=2, use_bias=False, name="conv1")(image)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    for number in (1, 2):
        x = layers.DepthwiseConv2D(3, padding="same", name=f"conv_dw_{number}")(x)
        x = layers.BatchNormalization()(x)  # with a name that Keras makes up
        x = layers.ReLU(name=f"conv_{number}_relu")(x)
        x = layers.Conv2D(2 * width, 1, name=f"conv_pw_{number}")(x)
    if include_top or pooling:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    if include_top:
        x = layers.Dense(classes, activation=classifier_activation, name="predictions")(x)
    image = image if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    return keras.Model(image, x, name=name)


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(keras.applications, "Small", small, raising=False)
    monkeypatch.setitem(BACKBONES, "Small", Backbone("tf"))
    monkeypatch.setattr(keras.applications, "SmallCaffe", small, raising=False)
    monkeypatch.setitem(BACKBONES, "SmallCaffe", Backbone("caffe"))


def _values(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def preprocess(name: str, x: np.ndarray) -> np.ndarray:
    """As keras.applications tells its users to do outside of the network."""
    fitting = [
        module
        for module, start in MODULES.items()
        if name.startswith(start) and ("v2" in module) == ("V2" in name)
    ]
    if name.startswith("MobileNet"):
        fitting = ["mobilenet" + {"V2": "_v2", "V3": "_v3"}.get(name[9:11], "")]
    module = importlib.import_module(f"keras.applications.{fitting[0]}")
    return np.asarray(module.preprocess_input(x.copy()))


def randomize(model: keras.Model) -> keras.Model:
    """Statistics too, and kernels that don't let the signal fade."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.Sequential):
            randomize(layer)
            continue
        weights = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in weights])
        elif weights and weights[0].ndim > 1:
            fan_in = np.prod(weights[0].shape[:-1])
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                fan_in = 9
            kernel = rng.normal(size=weights[0].shape) * (2 / fan_in) ** 0.5
            layer.set_weights([kernel, *weights[1:]])
    return model


def reference(name: str, *, top: int = 0, shape=SHAPE, **options) -> keras.Model:
    """The network of keras.applications with random weights."""
    ends = {"include_top": True, "classes": top} if top else {"include_top": False}
    return randomize(
        getattr(keras.applications, name)(
            weights=None,
            input_shape=shape,
            **ends,
            **({} if top else {"pooling": "avg"}),
            **options,
        )
    )


def save(model: keras.Model, path) -> str:
    (model.save if path.suffix == ".keras" else model.save_weights)(path)
    return str(path)


def save_old(model: keras.Model, path) -> str:
    """In the format of the `.h5` files that Keras downloads."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{number}:0" for number in range(len(layer.weights))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(name, data=weight)
    return str(path)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape or not theirs.std() > 1e-4:
        return np.inf  # a constant would tell nothing
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


# --- pixels ----------------------------------------------------------------------------------


def test_the_table_has_every_network_of_keras():
    public = {
        name for name in dir(keras.applications) if callable(getattr(keras.applications, name))
    }
    assert set(BACKBONES) == public


# These have their scaling inside, and a `preprocess_input` that does nothing: compared below.
INSIDE = ("EfficientNet", "ConvNeXt", "MobileNetV3")


@pytest.mark.parametrize("name", [name for name in BACKBONES if not name.startswith(INSIDE)])
def test_pixels_are_scaled_as_keras_says(name):
    image = keras.Input(SHAPE)
    model = keras.Model(image, scaled(image, BACKBONES[name].scaling))
    x = pixels(2, *SHAPE)
    np.testing.assert_allclose(_values(model(x)), preprocess(name, x), rtol=1e-5, atol=1e-4)


@graph_alone
@pytest.mark.parametrize("name", ["EfficientNetV2B0", "ConvNeXtTiny"])
def test_pixels_are_scaled_as_the_networks_own_layers_do(name):
    theirs = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=SHAPE, include_preprocessing=True
    )
    inside = next(
        layer
        for layer in reversed(theirs.layers)
        if isinstance(layer, (keras.layers.Normalization, keras.layers.Rescaling))
    )
    image = keras.Input(SHAPE)
    ours = keras.Model(image, scaled(image, BACKBONES[name].scaling))
    x = pixels(2, *SHAPE)
    wanted = keras.Model(theirs.input, inside.output)(x)
    np.testing.assert_allclose(_values(ours(x)), _values(wanted), atol=1e-5)


# --- outputs ---------------------------------------------------------------------------------

# (name, options, classes of its own head or 0)
CASES = [
    ("MobileNet", {"alpha": 0.25}, 5),  # its head is a convolution
    ("ResNet50", {}, 0),
    ("MobileNetV2", {"alpha": 0.35}, 5),
    ("MobileNetV3Small", {"alpha": 0.5, "minimalistic": True}, 5),  # a head of two layers
]
MORE = [
    (name, {}, top)
    for name in (
        "ConvNeXtTiny",
        "DenseNet121",
        "EfficientNetB0",
        "EfficientNetV2S",
        "InceptionV3",
        "NASNetMobile",
        "ResNet50V2",
        "VGG16",
        "Xception",
    )
    for top in (0, 5)
]
CASES = [
    *CASES[:1],
    *[pytest.param(*case, marks=graph_alone) for case in CASES[1:]],
    *[pytest.param(*case, marks=[graph_alone, pytest.mark.large]) for case in MORE],
]


@pytest.mark.parametrize(("name", "options", "top"), CASES)
def test_outputs_equal_kerass(name, options, top, tmp_path):
    shape = (96, 96, 3) if BACKBONES[name].minimum > 32 else SHAPE
    theirs = reference(name, top=top, shape=shape, **options)
    x = pixels(2, *shape)
    wanted = _values(theirs(preprocess(name, x)))
    ours = pretrained(
        name,
        input_shape=shape,
        options=options,
        weights=save(theirs, tmp_path / "x.weights.h5"),
        num_classes=None if top else 0,
    )
    assert difference(_values(ours(x)), wanted) < 1e-5
    assert top == 0 or ours.layers[-1].name == "predictions"
    assert name == "VGG16" or ours.get_layer("global_pool").output is not None


def test_difference_sees_a_swap_a_shape_and_a_constant():
    theirs = np.float32([[1, 2], [3, 5]])
    assert difference(theirs, theirs) == 0
    assert difference(theirs[::-1], theirs) > 0.1
    assert difference(theirs[:1], theirs) == difference(theirs * 0, theirs * 0) == np.inf


@pytest.mark.parametrize("kind", ["x.keras", "x.weights.h5", "x.h5"])
@pytest.mark.parametrize("top", [0, 5])
def test_every_kind_of_file_is_read(kind, top, tmp_path):
    theirs = reference("Small", top=top, alpha=0.5)
    write = save_old if kind == "x.h5" else save
    ours = pretrained(
        "Small",
        weights=write(theirs, tmp_path / kind),
        num_classes=None if top else 0,
        **SMALL,
    )
    x = pixels(2, *SHAPE)
    assert difference(_values(ours(x)), _values(theirs(x / 127.5 - 1))) < 1e-5


@pytest.mark.parametrize("kind", ["x.keras", "x.weights.h5"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 4},
        {"num_classes": 2, "classifier_activation": "sigmoid"},
        {"num_classes": 0},
    ],
)
def test_own_files_are_read(kind, arguments, tmp_path):
    model = randomize(pretrained("Small", weights=None, **arguments, **SMALL))
    more = {} if arguments["num_classes"] == 4 else arguments
    again = pretrained("Small", weights=save(model, tmp_path / kind), **more, **SMALL)
    x = pixels(2, *SHAPE)
    assert difference(_values(again(x)), _values(model(x))) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [({"num_classes": 3}, (None, 3)), ({"num_outputs": 5}, (None, 5)), ({"num_classes": 0}, None)],
)
def test_another_number_of_classes_gets_a_new_layer(arguments, shape, tmp_path):
    theirs = reference("Small", top=5, alpha=0.5)
    file = save(theirs, tmp_path / "x.weights.h5")
    ours = pretrained("Small", weights=file, **arguments, **SMALL)
    assert shape is None or ours.output_shape == shape
    features = [layer for layer in theirs.layers if "pool" in layer.name][-1].output
    x = pixels(2, *SHAPE)
    wanted = _values(keras.Model(theirs.input, features)(x / 127.5 - 1)).reshape(2, -1)
    found = keras.Model(ours.input, ours.get_layer("global_pool").output)(x)
    assert difference(_values(found), wanted) < 1e-5


def test_a_network_of_sequentials_becomes_flat(tmp_path):
    """ConvNeXt of Keras has Sequentials inside; a small graph of that kind."""
    keras_layers = keras.layers
    image = keras.Input(SHAPE, name="image")
    stem = keras.Sequential(
        [keras_layers.Conv2D(4, 3, name="stem_conv"), keras_layers.BatchNormalization()]
    )
    x = stem(image)
    x = x + keras_layers.Conv2D(4, 1)(x)
    graph = randomize(keras.Model(image, keras_layers.GlobalAveragePooling2D()(x)))
    copy, copies = flat_copy(graph, "float32", with_head=False, is_last=True)
    assert [layer.name for layer in copy.layers] == [
        "image",
        "stem_conv",
        "backbone_batch_normalization_1",
        "backbone_conv2d_1",
        "global_pool",
    ]
    for old, new in zip(stem.layers, copy.layers[1:3], strict=True):
        copies[id(old)].set_weights(old.get_weights())
        assert copies[id(old)] is new
    copy.layers[3].set_weights(graph.layers[2].get_weights() or graph.layers[3].get_weights())
    for layer in copy.layers:
        keras.Model(copy.inputs, layer.output)
    x = pixels(2, *SHAPE)
    assert (
        difference(_values(keras.Model(copy.inputs[0], copy.output)(x)), _values(graph(x))) < 1e-6
    )


def test_names_are_the_same_each_time():
    first, second = (pretrained("Small", weights=None, **SMALL) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    for layer in first.layers:
        keras.Model(first.input, layer.output)


# --- Keras' own download ---------------------------------------------------------------------


def imagenet(monkeypatch, name: str, model=None, error: Exception | None = None) -> None:
    """Let keras.applications' function give `model`, or fail, for weights="imagenet"."""
    function = getattr(keras.applications, name)

    @functools.wraps(function)
    def replaced(*args, weights="imagenet", **kwargs):
        if weights == "imagenet":
            if error is not None:
                raise error
            return model
        return function(*args, weights=weights, **kwargs)

    monkeypatch.setattr(keras.applications, name, replaced)


def test_imagenet_is_the_default_and_keeps_the_head(monkeypatch):
    theirs = reference("Small", top=1000, alpha=0.5)
    imagenet(monkeypatch, "Small", theirs)
    ours = pretrained("Small", **SMALL)
    x = pixels(2, *SHAPE)
    assert difference(_values(ours(x)), _values(theirs(x / 127.5 - 1))) < 1e-5


def test_without_network_the_error_says_what_to_do(monkeypatch):
    fault = Exception("URL fetch failure on https://storage.googleapis.com/x: None -- refused")
    imagenet(monkeypatch, "Small", error=fault)
    text = r"can't download the ImageNet weights of Small: URL fetch.*~/\.keras/models.*weights="
    with pytest.raises(ConnectionError, match=text):
        pretrained("Small", num_classes=2, **SMALL)


def test_options_without_imagenet_weights(monkeypatch):
    fault = ValueError("If imagenet weights are being loaded, alpha can be one of 0.25, 0.5")
    imagenet(monkeypatch, "Small", error=fault)
    with pytest.raises(ValueError, match=r"no ImageNet weights for Small with options=\{'alpha"):
        pretrained("Small", num_classes=2, **SMALL)


@graph_alone
def test_second_scaling_of_efficientnet_is_folded_into_the_first(monkeypatch):
    """With ImageNet's weights Keras divides by sqrt(std) in two places, without them in one."""
    theirs = reference("EfficientNetB0")
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    norm = next(each for each in theirs.layers if isinstance(each, keras.layers.Normalization))
    norm.set_weights([mean, std, norm.get_weights()[2]])
    norm.finalize_state()
    imagenet(monkeypatch, "EfficientNetB0", theirs)
    ours = pretrained("EfficientNetB0", input_shape=SHAPE, num_classes=0)
    x = pixels(2, *SHAPE)
    rest = keras.Model(theirs.get_layer("stem_conv_pad").input, theirs.output)
    assert difference(_values(ours(x)), _values(rest((x / 255 - mean) / std))) < 1e-5
    assert ours.get_layer("preprocess").scale == 1 / 255


@pytest.mark.parametrize(("channels", "expected"), [(3, [1, 2, 6]), (1, [3]), (2, [3, 3])])
def test_own_scaling_of_efficientnet_for_other_channels(channels, expected):
    norm = keras.layers.Normalization()
    norm.build((None, 8, 8, channels))
    found = [np.float32([1, 2, 6]), np.float32([4, 5, 9]), np.float32(0)]
    ((mean, variance, _),) = adapt([norm], [found], bgr=False)
    np.testing.assert_allclose(mean, expected)
    np.testing.assert_allclose(variance, [4, 5, 9] if channels == 3 else [6] * channels)


# --- channels --------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "weights"), [(1, "sum"), (5, "repeat")])
def test_grey_pictures_give_the_same_answer_in_any_number_of_channels(channels, weights, tmp_path):
    theirs = reference("Small", alpha=0.5)
    file = save(theirs, tmp_path / "x.weights.h5")
    shape = (32, 32, channels)
    ours = pretrained(
        "Small", input_shape=shape, num_classes=0, weights=file, options={"alpha": 0.5}
    )
    kernel = theirs.get_layer("conv1").get_weights()[0]
    found = ours.get_layer("conv1").get_weights()[0]
    if weights == "sum":
        np.testing.assert_allclose(found[:, :, 0], kernel.sum(axis=2), rtol=1e-5, atol=1e-6)
        grey = pixels(2, 32, 32, 1)
        wanted = theirs(np.repeat(grey, 3, axis=-1) / 127.5 - 1)
        assert difference(_values(ours(grey)), _values(wanted)) < 1e-5
    else:
        np.testing.assert_allclose(found, kernel[:, :, [0, 1, 2, 0, 1]] * 0.6, rtol=1e-6)


def test_networks_for_blue_green_red_see_the_first_channel_as_red(tmp_path):
    theirs = reference("SmallCaffe")
    file = save(theirs, tmp_path / "x.weights.h5")
    ours = pretrained("SmallCaffe", input_shape=(32, 32, 4), num_classes=0, weights=file)
    kernel = theirs.get_layer("conv1").get_weights()[0]
    found = ours.get_layer("conv1").get_weights()[0]
    np.testing.assert_allclose(found, kernel[:, :, [2, 1, 0, 2]] * 0.75, rtol=1e-6)
    assert not any(type(each).__name__ == "Flip" for each in ours.operations)


# --- what is trained -------------------------------------------------------------------------


def free(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if layer.trainable_weights]


def test_head_alone_is_trained_by_default():
    assert free(pretrained("Small", weights=None, **SMALL)) == ["predictions"]


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        (1, ["conv_pw_2", "predictions"]),
        (3, ["conv_pw_1", "conv_dw_2", "conv_pw_2", "predictions"]),
        (np.int64(2), ["conv_dw_2", "conv_pw_2", "predictions"]),
    ],
)
def test_last_layers_are_trained(trainable, expected):
    assert free(pretrained("Small", weights=None, trainable=trainable, **SMALL)) == expected


def test_all_means_all_but_normalisations():
    model = pretrained("Small", weights=None, trainable="all", **SMALL)
    everything = [
        layer.name
        for layer in model.layers
        if layer.weights and not isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert free(model) == everything
    assert len(everything) == 6


def test_without_a_head_the_last_layers_are_the_backbones():
    model = pretrained("Small", weights=None, num_classes=0, trainable=1, **SMALL)
    assert free(model) == ["conv_pw_2"]
    assert free(pretrained("Small", weights=None, num_classes=0, **SMALL)) == []


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_normalisations_stay_as_they_are_in_training(trainable):
    model = randomize(
        pretrained("Small", weights=None, num_classes=2, trainable=trainable, **SMALL)
    )
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    before = [weight for norm in norms for weight in norm.get_weights()]
    kernel = model.get_layer("conv1").get_weights()[0]
    jit = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", jit_compile=jit)
    for _ in range(2):
        model.train_on_batch(pixels(4, *SHAPE), np.array([0, 1, 0, 1]))
    after = [weight for norm in norms for weight in norm.get_weights()]
    assert len(before) == 3 * 4
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    changed = not np.array_equal(kernel, model.get_layer("conv1").get_weights()[0])
    assert changed == (trainable == "all")


# --- dtypes ----------------------------------------------------------------------------------


def test_policy_is_the_arguments_not_the_global_one():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = pretrained("Small", weights=None, dtype="float32", **SMALL)
    assert {layer.compute_dtype for layer in model.layers[1:]} == {"float32"}
    model = pretrained("Small", weights=None, **SMALL)
    kinds = {layer.name: layer.compute_dtype for layer in model.layers[1:]}
    assert {name for name, kind in kinds.items() if kind == "float32"} == {
        "preprocess",
        "predictions",
    }
    assert _values(model(pixels(1, *SHAPE))).dtype == "float32"


def test_dropout_is_before_the_head():
    model = pretrained("Small", weights=None, dropout=0.4, **SMALL)
    assert model.layers[-2].name == "dropout"
    assert model.layers[-2].rate == 0.4


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"backbone": "Resnet50"}, ValueError, "`backbone` is 'Resnet50'.*Did you mean 'ResNet50'"),
        ({"backbone": 50}, TypeError, "`backbone` is 50; expected one of 'VGG16'"),
        ({"input_shape": (31, 32, 3)}, ValueError, r"`input_shape\[0\]` is 31; .*at least 32"),
        (
            {"backbone": "InceptionV3", "options": None, "input_shape": (74, 80, 3)},
            ValueError,
            "at least 75",
        ),
        (
            {"backbone": "NASNetMobile", "options": None, "input_shape": (None, None, 3)},
            ValueError,
            "NASNetMobile needs a fixed size",
        ),
        ({"trainable": "none"}, ValueError, '`trainable` is \'none\'; expected "head", "all"'),
        ({"trainable": 0}, ValueError, '`trainable` is 0; .*"head" frees the head alone'),
        ({"trainable": 100}, ValueError, "is 100; expected at most 5. It has 5 layers"),
        ({"trainable": True}, TypeError, "`trainable` is True; expected"),
        ({"trainable": None}, TypeError, "`trainable` is None; expected"),
        ({"options": {"alhpa": 1}}, ValueError, "`options` is 'alhpa'.*Did you mean 'alpha'"),
        ({"options": {"classes": 3}}, ValueError, "`options` is 'classes'; expected arguments of"),
        ({"options": 0.25}, TypeError, "`options` is 0.25; expected a dict"),
        ({"num_classes": 3, "num_outputs": 1}, ValueError, "expected None with num_outputs"),
        ({"weights": "no.weights.h5"}, FileNotFoundError, "There is no such file"),
        ({"weights": "imagnet"}, FileNotFoundError, "`weights` is 'imagnet'"),
        ({"weights": 3}, TypeError, '`weights` is 3; expected "imagenet", None'),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        pretrained(**{"backbone": "Small", "weights": None, **SMALL, **arguments})


def test_image_data_format_of_keras_is_told():
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="set_image_data_format"):
        pretrained("Small", weights=None, **SMALL)


def fewer(model):
    return keras.Model(model.input, model.get_layer("conv_2_relu").output)


def more(model):
    x = model.output
    for units in (8, 7, 6, 5):
        x = keras.layers.Dense(units)(x)
    return keras.Model(model.input, x)


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        (
            lambda model: model,
            {"alpha": 1.0},
            r"conv1: model .*3, 8.*file .*3, 4.*other `options`",
        ),
        (fewer, {"alpha": 0.5}, "it has 7 layers with weights, Small 8 without its head"),
        (more, {"alpha": 0.5}, "it has 12 layers with weights, Small 8 without its head"),
    ],
)
@pytest.mark.parametrize("kind", ["x.weights.h5", "x.h5"])
def test_files_of_other_models(change, options, text, kind, tmp_path):
    model = change(reference("Small", alpha=0.5))
    file = (save_old if kind == "x.h5" else save)(model, tmp_path / kind)
    with pytest.raises(ValueError, match=text):
        pretrained("Small", input_shape=SHAPE, weights=file, options=options)


@pytest.mark.parametrize("kind", ["x.weights.h5", "x.keras", "x.h5"])
def test_damaged_files(kind, tmp_path):
    file = (save_old if kind == "x.h5" else save)(reference("Small", alpha=0.5), tmp_path / kind)
    data = (tmp_path / kind).read_bytes()
    (tmp_path / kind).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged"):
        pretrained("Small", weights=file, **SMALL)


def test_checkpoints_of_other_libraries(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"x": np.zeros(2, "float32")}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"timm are for bz\.models\.resnet, convnext"):
        pretrained("Small", weights=tmp_path / "x.safetensors", **SMALL)
