"""csv: types, missing values, categories and targets; fitted on the training part; clear errors."""

import pickle

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data import TableEncoder

PETS = "weight,coat,age,pet\n" + "".join(
    f"{4 + i % 3},{('short', 'long')[i % 2]},{i if i % 10 else ''},{'dog' if i % 5 else 'cat'}\n"
    for i in range(60)
)


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write_file


def column(batches, name):
    return batches.x[:, batches.encoder.feature_names.index(name)]


def test_pets(write):
    train, val = bz.data.csv(write(PETS), target="pet", val_fraction=0.25)
    assert train.encoder.feature_names == (
        "weight", "coat=(other)", "coat=short", "coat=long", "age", "age is missing",
    )  # fmt: skip
    assert train.class_names == val.class_names == ("cat", "dog")
    assert (train.x.shape, val.x.shape) == ((45, 6), (15, 6))
    assert train.x.dtype == np.float32 and train.y.dtype == np.int64
    assert np.bincount(train.y).tolist() == [9, 36] and np.bincount(val.y).tolist() == [3, 12]
    assert train.shuffle and not val.shuffle and val.encoder is train.encoder
    for name in ("weight", "age"):
        assert column(train, name).mean() == pytest.approx(0, abs=1e-6)
        assert column(train, name).std() == pytest.approx(1, abs=1e-5)
    coats = column(train, "coat=short") + column(train, "coat=long")
    np.testing.assert_array_equal(coats, 1)
    assert column(train, "coat=(other)").max() == 0
    assert 0 < column(train, "age is missing").sum() < 45


def test_transform_gives_the_same_features(write, tmp_path):
    path = write(PETS)
    train, _ = bz.data.csv(path, target="pet", val_fraction=0)
    np.testing.assert_array_equal(train.encoder.transform(path), train.x)
    ages = [str(i) if i % 10 else None for i in range(60)]
    data = {
        "age": ages,
        "coat": ["long" if i % 2 else "short" for i in range(60)],
        "weight": [4 + i % 3 for i in range(60)],
        "unused": list(range(60)),
    }
    np.testing.assert_array_equal(train.encoder.transform(data), train.x)
    rows = [{key: data[key][i] for key in data} for i in range(60)]
    np.testing.assert_array_equal(train.encoder.transform(rows), train.x)
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(train.encoder.transform(pandas.read_csv(path)), train.x)
    assert train.encoder.transform({"weight": 4, "coat": "long", "age": None}).shape == (1, 6)


def test_statistics_are_those_of_the_training_part(write):
    text = "a,time,y\n" + "".join(f"{i if i < 8 else 1000},{i},{i / 3}\n" for i in range(10))
    train, val = bz.data.csv(write(text), target="y", time="time", val_fraction=0.2)
    numbers = train.encoder.columns[0]
    assert numbers.mean == pytest.approx(3.5) and numbers.variance == pytest.approx(5.25)
    np.testing.assert_allclose(val.x[:, 0], (1000 - 3.5) / 5.25**0.5, rtol=1e-5)


def test_missing_numbers_get_the_median_of_the_training_part(write):
    text = "a,y\n" + "1,0.5\n2,1.5\n9,2.5\nNA,3.5\n"
    train, _ = bz.data.csv(write(text), target="y", val_fraction=0)
    assert train.encoder.columns[0].fill == 2
    assert column(train, "a")[3] == column(train, "a")[1]
    assert column(train, "a is missing").tolist() == [0, 0, 0, 1]


def test_missing_text_is_a_category(write):
    text = "a,y\n" + "u,0.5\n,1.5\nv,2.5\n?,3.5\n"
    train, _ = bz.data.csv(write(text), target="y", val_fraction=0)
    assert column(train, "a=(missing)").tolist() == [0, 1, 0, 1]
    assert train.encoder.transform({"a": ["?"]}).tolist() == train.x[1:2].tolist()


@pytest.mark.parametrize(
    "values, task, names",
    [
        (["no", "yes"] * 10, None, ("no", "yes")),
        (["0", "1"] * 10, None, ("0", "1")),
        (["10", "2", "1.0", "1"] * 5, None, ("1", "2", "10")),
        (["0.5", "1"] * 10, None, None),
        ([str(i) for i in range(20)], None, None),
        ([str(i) for i in range(12)] * 5, None, None),
        (["0", "1"] * 10, "regression", None),
        ([str(i) for i in range(12)] * 5, "classification", tuple(map(str, range(12)))),
        (["True", "False"] * 10, None, ("False", "True")),
    ],
)
def test_the_target_is_classes_or_numbers_by_rule(write, values, task, names):
    text = "a,y\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values))
    train, _ = bz.data.csv(write(text), target="y", task=task)
    assert train.class_names == names
    assert train.y.ndim == (2 if names is None else 1)
    train, _ = bz.data.csv(write(text), target="y", task=task, val_fraction=0)
    if names is None:
        np.testing.assert_allclose(train.y[:, 0], [float(value) for value in values])
    else:
        shown = [names[label] for label in train.y]
        assert shown == [value.removesuffix(".0") for value in values]


def test_numbers_as_categories_and_dropped_columns(write):
    text = "zip,id,x,y\n" + "".join(f"{10 + i % 2},{i},{i},{i / 7}\n" for i in range(20))
    train, _ = bz.data.csv(write(text), target="y", categories=["zip"], drop=["id"])
    names = train.encoder.feature_names
    assert names == ("zip=(other)", "zip=11", "zip=10", "x")


def test_groups_stay_whole(write):
    text = "a,patient,y\n" + "".join(f"{i},p{i // 4},{i / 7}\n" for i in range(40))
    train, val = bz.data.csv(write(text), target="y", groups="patient", val_fraction=0.25)
    assert train.encoder.feature_names == ("a",)
    patients = [set((np.round(part.y[:, 0] * 7) // 4).tolist()) for part in (train, val)]
    assert not patients[0] & patients[1] and val.num_samples in (8, 12)


def test_a_category_of_the_validation_part_alone_counts_as_unknown(write):
    text = "a,t,y\n" + "".join(f"{'u' if i < 18 else 'new'},{i},{i / 7}\n" for i in range(20))
    text = text.replace("u,3,", "v,3,")
    _, val = bz.data.csv(write(text), target="y", time="t", val_fraction=0.1)
    assert column(val, "a=(other)").tolist() == [1, 1]


def test_unknown_and_missing_values_at_inference(write):
    text = "a,b,y\n" + "".join(f"{'uv'[i % 2]},{i},{i / 7}\n" for i in range(20))
    encoder = bz.data.csv(write(text), target="y")[0].encoder
    with pytest.raises(ValueError, match=r"unknown category 'w' in row 1. Known: 'u', 'v'."):
        encoder.transform({"a": ["u", "w"], "b": [1, 2]})
    with pytest.raises(
        ValueError, match="'a' has no value in row 0; none was missing in the train"
    ):
        encoder.transform({"a": None, "b": 1})
    with pytest.raises(ValueError, match="'b' has no value in rows 0, 1"):
        encoder.transform({"a": ["u", "u"], "b": [None, float("nan")]})
    other = encoder.transform({"a": ["w", None], "b": [None, 1]}, unknown="other")
    assert other[:, encoder.feature_names.index("a=(other)")].tolist() == [1, 1]
    assert other[0, -1] == pytest.approx((encoder.columns[1].fill - 9.5) / 5.9, abs=0.5)


def test_features_are_float32_under_a_mixed_policy(write):
    text = "a,b,y\n" + "".join(f"{i}.123,{'uv'[i % 2]},{i / 7}\n" for i in range(20))
    plain = bz.data.csv(write(text), target="y")[0].x
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = bz.data.csv(write(text), target="y")[0].x
    np.testing.assert_array_equal(mixed, plain)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_save_load_pickle(write, tmp_path):
    train, _ = bz.data.csv(write(PETS), target="pet")
    train.encoder.save(tmp_path / "encoder.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "table.csv"]
    for copy in (
        TableEncoder.load(tmp_path / "encoder.json"),
        pickle.loads(pickle.dumps(train.encoder)),
    ):
        assert copy.columns == train.encoder.columns and copy.class_names == ("cat", "dog")
        np.testing.assert_array_equal(
            copy.transform(tmp_path / "table.csv"), train.encoder.transform(tmp_path / "table.csv")
        )
    with pytest.raises(FileNotFoundError, match=r"encoder.save"):
        TableEncoder.load(tmp_path / "absent.json")
    with pytest.raises(FileNotFoundError, match="a folder that exists"):
        train.encoder.save(tmp_path / "absent" / "encoder.json")
    for content in ("{", "[]", "{}", '{"bigzoo": "TableEncoder", "columns": 3}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=r"expected a file that `encoder.save` wrote"):
            TableEncoder.load(tmp_path / "bad.json")


def test_other_encodings_delimiters_and_quotes(write):
    text = 'größe;stadt;y\n1;"Köln; Mitte";0.5\n2;"zwei\nZeilen";1.5\n\n3;Köln;2.5\n'
    for encoding in ("utf-8", "utf-8-sig", "latin-1"):
        path = write(text, encoding=encoding)
        argument = "latin-1" if encoding == "latin-1" else "utf-8"
        train, _ = bz.data.csv(path, target="y", val_fraction=0, delimiter=";", encoding=argument)
        assert train.encoder.feature_names[0] == "größe"
        assert {"stadt=Köln; Mitte", "stadt=zwei\nZeilen"} <= set(train.encoder.feature_names)


def test_constant_columns_are_said(write):
    text = "a,b,y\n" + "".join(f"{i},7,{i / 7}\n" for i in range(20))
    with pytest.warns(UserWarning, match="Constant in the training part: b"):
        train, _ = bz.data.csv(write(text), target="y")
    np.testing.assert_array_equal(column(train, "b"), 0)


def test_the_same_for_a_seed(write):
    path = write(PETS)
    first, second = (bz.data.csv(path, target="pet", seed=3) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.x, two.x)
    other, _ = bz.data.csv(path, target="pet", seed=4)
    assert not np.array_equal(other.x, first[0].x)


def test_keras_trains_on_it(write):
    train, val = bz.data.csv(write(PETS), target="pet")
    model = keras.Sequential(
        [keras.Input((train.x.shape[1],)), keras.layers.Dense(2, activation="softmax")]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    history = model.fit(train, validation_data=val, shuffle=False, verbose=0)
    assert np.isfinite(history.history["val_loss"][0])


def test_without_tensorflow_the_error_says_so(write, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match="needs TensorFlow, which is not installed: Keras' Feature"
    ):
        bz.data.csv(write(PETS), target="pet")


def test_jax_without_tensorflow(run_python):
    """What needs no TensorFlow works where there is none, and `csv` says what it lacks."""
    pytest.importorskip("jax")
    code = """
import sys
sys.modules["tensorflow"] = None  # as if it were not installed
import keras, numpy as np, bigzoo as bz
x, y = bz.data.linear(40)
train, val, _ = bz.data.normalize(*bz.data.split(bz.data.arrays(x, y)))
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(optimizer="sgd", loss="mse")
model.fit(train, validation_data=val, shuffle=False, verbose=0)
try:
    bz.data.csv("table.csv", target="pet")
except ImportError as error:
    print(error)
"""
    output = run_python(code, backend="jax")
    assert "needs TensorFlow, which is not installed" in output and "'jax'" in output


ROWS = "".join(f"{i},u,{i / 7}\n" for i in range(20)).replace("3,u", "3,v")
NAMES = "".join(f"{i},name {i},{i / 7}\n" for i in range(60))
BAD_TABLES = {
    "empty": ("", "is empty; expected a first line"),
    "no rows": ("a,y\n", "has a first line and no rows"),
    "no name": ("a,,y\n1,2,3\n", "column 2 has no name in line 1"),
    "name twice": ("a,y,a\n1,2,3\n", "the column 'a' is there twice"),
    "short line": ("a,b,y\n1,2,3\n\n1,2\n", "line 4 has 2 values; expected 3"),
    "long line": ('a,b,y\n1,"u\nv",3\n1,2,3,4\n', "line 4 has 4 values; expected 3"),
    "open quote": ('a,b,y\n1,"2,3\n', "is not a comma-separated text file"),
    "no target": ("a,b,z\n" + ROWS, r"no column 'y' \(`target`\). .*Known: 'a', 'b', 'z'"),
    "near target": ("a,b,Y \n" + ROWS, r"no column 'y' .*Known: 'Y', 'a', 'b'"),
    "target missing": ("a,y\n1,2\n2,\n3,NA\n4,5\n", "target 'y' has no value in lines 3, 4"),
    "one class": ("a,y\n1,u\n2,u\n", "target 'y' is 'u' in each row; expected 2 classes"),
    "target typo": ("a,y\n" + "1,2.5\n" * 20 + "1,x\n", "numbers, but 'x' in line 22"),
    "number typo": (
        "a,y\n" + "1,2.5\n" * 20 + "x,2.5\n",
        r"numbers, but 'x' in line 22.*missing_v",
    ),
    "names of rows": ("a,b,y\n" + NAMES, r"'b' \(48\).*drop=\['b'\]"),
    "only target": ("y\n1.5\n2.5\n3.5\n", "no column left as a feature beside 'y'"),
    "nothing known": (
        "a,b,y\n" + ",1,2.5\n,2,3.5\n,3,4.5\n",
        r"'a' has no value in the training part.*drop=\['a'\]",
    ),
    "infinite target": ("a,y\n" + "1,2.5\n" * 20 + "1,inf\n", "numbers, but 'inf' in line 22"),
    "semicolons": (
        "a;b;y\n" + "1;2;0.5\n" * 4,
        "has no column 'y' .*one name, 'a;b;y'. Pass `delimiter=\";\"`",
    ),
    "semicolons and commas": ("a;y\n" + "1,5;2\n" * 4, 'line 2 has 2 values.*`delimiter=";"`'),
    "tabs": ("a\tb\ty\n" + "1\t2\t0.5\n" * 4, r"Pass `delimiter=\"\\t\"`"),
    "decimal commas": (
        "a,y\n" + "".join(f'"{i},5",{i / 7}\n' for i in range(9)) + "9,1.5\n",
        r"Column 'a' holds numbers with a comma in them, such as '0,5'.*decimal=\",\".*"
        r"`categories=\['a'\]`",
    ),
    "decimal commas and thousands": (
        "a,y\n" + "".join(f'"{i}.234,50",{i / 7}\n' for i in range(9)),
        "numbers with a comma in them, such as '0.234,50'",
    ),
    "decimal commas in the target": (
        "a,y\n" + "".join(f'{i},"{i},5"\n' for i in range(9)),
        "The target 'y' holds numbers with a comma.*pandas.read_csv",
    ),
    "many classes": (
        "a,y\n" + "".join(f"{i},k{i}\n" for i in range(30)),
        "30 classes in 30 rows",
    ),
}


@pytest.mark.parametrize("text, error", BAD_TABLES.values(), ids=BAD_TABLES)
@pytest.mark.filterwarnings("ignore:Constant")
def test_bad_tables(write, text, error):
    with pytest.raises(ValueError, match=error):
        bz.data.csv(write(text), target="y")


@pytest.mark.parametrize(
    ("rows", "names", "refused"),
    [(25, 20, False), (25, 21, True), (41, 21, True), (42, 21, False), (42, 22, True)],
)
def test_how_many_texts_count_as_names_of_rows(write, rows, names, refused):
    """More than 20, and more than half as many as there are rows."""
    text = "a,y\n" + "".join(f"n{i % names},{i / 7}\n" for i in range(rows))
    path = write(text)
    if refused:
        with pytest.raises(ValueError, match=rf"more than half as many .*'a' \({names}\)"):
            bz.data.csv(path, target="y", val_fraction=0)
    else:
        assert bz.data.csv(path, target="y", val_fraction=0)[0].num_samples == rows


def test_commas_in_names_are_no_numbers(write):
    text = "a,b,y\n" + "".join(f'"{i % 2},5","u,{i % 3}",{i / 7}\n' for i in range(12))
    train, _ = bz.data.csv(write(text), target="y", val_fraction=0, categories=["a"])
    assert {"a=0,5", "a=1,5", "b=u,0"} <= set(train.encoder.feature_names)


BAD_ARGUMENTS = {
    "target": ({"target": "wieght"}, ValueError, "Did you mean 'weight'"),
    "target type": ({"target": 3}, TypeError, "`target` is 3; expected the name of a column"),
    "task": ({"task": "classify"}, ValueError, "Did you mean 'classification'"),
    "task impossible": ({"task": "regression"}, ValueError, "'pet' is 'cat' in lines 2"),
    "drop": ({"drop": ["cot"]}, ValueError, "no column 'cot'. Did you mean 'coat'"),
    "drop type": ({"drop": "coat"}, TypeError, "`drop` is 'coat'; expected names of columns"),
    "categories": ({"categories": ["zip"]}, ValueError, "no column 'zip'"),
    "groups": ({"groups": "owner"}, ValueError, r"no column 'owner'"),
    "groups missing": (
        {"groups": "age"},
        ValueError,
        r"'age' \(`groups`\) has no value in lines 2",
    ),
    "two ways": ({"groups": "coat", "time": "weight"}, ValueError, "More than one of"),
    "fraction": ({"val_fraction": 1}, ValueError, "`val_fraction` is 1"),
    "seed": ({"seed": -1}, ValueError, "`seed` is -1"),
    "batch_size": ({"batch_size": 0}, ValueError, "`batch_size` is 0"),
    "delimiter": ({"delimiter": ", "}, ValueError, "`delimiter` is ', '; expected one character"),
    "encoding": ({"encoding": "utf-88"}, ValueError, "a known encoding"),
    "missing_values": ({"missing_values": "NA"}, TypeError, "several texts"),
}


@pytest.mark.parametrize("arguments, error, text", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments(write, arguments, error, text):
    with pytest.raises(error, match=text):
        bz.data.csv(write(PETS), **{"target": "pet", **arguments})


def test_bad_files(tmp_path):
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "zeros.csv").write_bytes(b"a,b\n\x00\x00")
    for path, error, text in [
        (tmp_path / "absent.csv", FileNotFoundError, "a comma-separated file that exists"),
        (tmp_path, ValueError, "expected a file, not a folder"),
        (3, TypeError, "`path` is 3"),
        (tmp_path / "bytes.csv", ValueError, "is not text in utf-8"),
        (tmp_path / "zeros.csv", ValueError, "zeros.csv"),
    ]:
        with pytest.raises(error, match=text):
            bz.data.csv(path, target="b")


@pytest.mark.parametrize(
    "rows, error, text",
    [
        ({"weight": [1], "coat": ["long"]}, ValueError, "no column 'age'"),
        ({"weight": [1], "coat": ["long"], "agee": [1]}, ValueError, "Did you mean 'agee'"),
        ({"weight": ["x"], "coat": ["long"], "age": [1]}, ValueError, "'x' in row 0"),
        ({"weight": [1, 2], "coat": ["long"], "age": [1]}, ValueError, "differ in length"),
        ([{"weight": 1}, {"coat": "long"}], ValueError, "Row 1 has other columns than row 0"),
        (np.zeros((2, 3)), TypeError, "a data frame, a dict of columns"),
        ([], TypeError, "a data frame, a dict of columns"),
        ("absent.csv", FileNotFoundError, "absent.csv"),
    ],
)
def test_bad_rows(write, rows, error, text):
    encoder = bz.data.csv(write(PETS), target="pet")[0].encoder
    with pytest.raises(error, match=text):
        encoder.transform(rows)
    with pytest.raises(ValueError, match="`unknown` is 'ignore'"):
        encoder.transform(rows, unknown="ignore")
