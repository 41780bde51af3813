"""h5: streams, gives what the file holds, and says what is wrong with it."""

import os
import pickle
import threading
import tracemalloc

import h5py
import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data import Batches, _h5
from bigzoo.data._h5 import H5Rows


@pytest.fixture
def small_cache(monkeypatch):
    """As if the files were far larger: little is read at a time, little is kept."""
    monkeypatch.setattr(_h5, "_BLOCK_BYTES", 256)
    monkeypatch.setattr(_h5, "_CACHE_BYTES", 2048)
    monkeypatch.setattr("bigzoo.data._batches._WINDOW_BYTES", 1024)


def make(path, n=500, chunks=True, **options):
    x = np.arange(n * 3, dtype="float32").reshape(n, 3)
    with h5py.File(path, "w") as file:
        file.create_dataset("train/x", data=x, chunks=chunks, **options)
        file["train/y"] = np.arange(n) % 4
        file["weight"] = np.ones(n)
        file["names"] = ["a", "b"]
        file["scalar"] = 3.0
    return x


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": None},
        {"chunks": (7, 3)},
        {"chunks": (64, 2), "compression": "gzip"},
        {"chunks": (500, 3), "compression": "lzf"},
    ],
    ids=str,
)
def test_every_sample_once_in_an_order_of_its_own(tmp_path, small_cache, options):
    x = make(tmp_path / "a.h5", **options)
    batches = bz.data.h5(tmp_path / "a.h5", x="train/x", y="train/y", batch_size=32, seed=1)
    orders = []
    for epoch in range(2):
        batches.epoch = epoch
        parts = [(x_batch, y_batch) for x_batch, y_batch in batches]
        order = batches.order(epoch)
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
        np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), x[order])
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), order % 4)
        orders.append(order.tolist())
    assert orders[0] != orders[1]
    assert orders[0] == bz.data.h5(tmp_path / "a.h5", x="train/x", seed=1).order(0).tolist()


def test_without_shuffle_the_stored_order(tmp_path, small_cache):
    x = make(tmp_path / "a.h5")
    batches = bz.data.h5(tmp_path / "a.h5", x="train/x", batch_size=100, shuffle=False)
    np.testing.assert_array_equal(np.concatenate([part for (part,) in batches]), x)
    np.testing.assert_array_equal(batches.arrays()[0], x)


def test_each_block_is_read_about_once_in_an_epoch(tmp_path, small_cache, monkeypatch):
    make(tmp_path / "a.h5", chunks=(16, 3))
    batches = bz.data.h5(tmp_path / "a.h5", x="train/x", batch_size=8)
    read = []
    reader = batches.x
    dataset = reader._dataset

    class Spy:
        def __getitem__(self, rows):
            read.append((rows.start, rows.stop))
            return dataset()[rows]

    monkeypatch.setattr(reader, "_dataset", Spy)
    for _ in batches:
        pass
    blocks = -(-500 // reader._block)
    assert blocks > 10
    assert max(stop - start for start, stop in read) * 12 <= 512
    assert blocks <= len(read) <= 1.5 * blocks


def test_memory_stays_flat(tmp_path, monkeypatch):
    monkeypatch.setattr(_h5, "_CACHE_BYTES", 2**20)
    monkeypatch.setattr("bigzoo.data._batches._WINDOW_BYTES", 2**19)
    x = np.repeat(np.arange(8000, dtype="float32")[:, None], 500, axis=1)  # 16 MB
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(25, 500))
    del x
    tracemalloc.start()
    try:
        batches = bz.data.h5(tmp_path / "big.h5", x="x", batch_size=64)
        rows = [batch[:, 0].astype(int) for (batch,) in batches]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(np.concatenate(rows), batches.order(0))
    assert peak < 4e6


def test_a_sorted_file_gives_mixed_batches(tmp_path, small_cache):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((4000, 3), "float32"), chunks=(10, 3))
        file["y"] = np.repeat([0, 1], 2000)
    batches = bz.data.h5(tmp_path / "a.h5", x="x", y="y", batch_size=64)
    assert batches.x.block_rows is not None
    mixed = [0 < y.mean() < 1 for _, y in batches]
    assert np.mean(mixed) > 0.9


def test_pickle_opens_the_file_again(tmp_path):
    make(tmp_path / "a.h5")
    batches = bz.data.h5(tmp_path / "a.h5", x="train/x", y="train/y", class_names=list("abcd"))
    wanted = batches.batch(1, 2)
    stored = pickle.dumps(batches)
    assert len(stored) < 5000  # no cached rows, no handle
    np.testing.assert_array_equal(pickle.loads(stored).batch(1, 2)[0], wanted[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_reads_by_itself(tmp_path):
    x = make(tmp_path / "a.h5")
    reader = H5Rows(tmp_path / "a.h5", "train/x")
    reader[np.array([0])]
    handle = reader._handle
    reader._process = -1  # what a child sees after a fork
    np.testing.assert_array_equal(reader[np.array([499, 3])], x[[499, 3]])
    assert reader._process == os.getpid() and reader._handle is not handle


def test_threads(tmp_path, small_cache):
    x = make(tmp_path / "a.h5", chunks=(16, 3))
    batches = bz.data.h5(tmp_path / "a.h5", x="train/x", batch_size=16)
    wrong = []

    def read(first):
        for index in range(first, len(batches), 4):
            rows = batches.order(0)[index * 16 : index * 16 + 16]
            if not np.array_equal(batches.batch(0, index)[0], x[rows]):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_split_take_and_normalize_stream(tmp_path, small_cache):
    x = make(tmp_path / "a.h5")
    batches = bz.data.h5(tmp_path / "a.h5", x="train/x", y="train/y")
    train, val = bz.data.split(batches)
    assert np.bincount(val.arrays()[1]).tolist() == [25] * 4
    rows = np.sort(np.concatenate([train.arrays()[0], val.arrays()[0]])[:, 0])
    np.testing.assert_array_equal(rows, x[:, 0])
    np.testing.assert_array_equal(batches.take(3)[0][0], x[:3])
    train, val, normalizer = bz.data.normalize(train, val)
    assert not isinstance(train.x, np.ndarray)
    np.testing.assert_allclose(train.arrays()[0].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normalizer.undo(val.arrays()[0])[:, 2] % 3, 2, atol=0.02)


def test_several_inputs_weights_and_an_open_dataset(tmp_path):
    x = make(tmp_path / "a.h5")
    path = tmp_path / "a.h5"
    names = {"first": "train/x", "second": "weight"}
    batches = bz.data.h5(path, x=names, y="train/y", sample_weight="weight", shuffle=False)
    inputs, _, weight = batches[0]
    np.testing.assert_array_equal(inputs["first"], x[:32])
    assert inputs["second"].shape == weight.shape == (32,)
    with h5py.File(path) as file:
        batches = Batches(file["train/x"], shuffle=True)
    np.testing.assert_array_equal(batches[0][0], x[batches.order(0)[:32]])


def test_keras_trains_from_the_file(tmp_path):
    make(tmp_path / "a.h5")
    batches = bz.data.h5(tmp_path / "a.h5", x="train/x", y="train/y", batch_size=100)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="softmax")])
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    history = model.fit(batches, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 1


def test_a_file_that_was_changed_since_is_refused(tmp_path):
    make(tmp_path / "a.h5")
    batches = bz.data.h5(tmp_path / "a.h5", x="train/x")
    make(tmp_path / "a.h5", n=400)
    with pytest.raises(ValueError, match="was changed: 'train/x' is now"):
        batches[0]
    (tmp_path / "a.h5").unlink()
    with pytest.raises(FileNotFoundError, match="expected an HDF5 file that exists"):
        batches[0]


def test_no_handle_is_left_open_by_errors(tmp_path):
    make(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="no dataset"):
        bz.data.h5(tmp_path / "a.h5", x="nothing")
    with h5py.File(tmp_path / "a.h5", "r+") as file:  # fails while a reader has it
        file["new"] = 1


@pytest.mark.parametrize("index", [[500], [-1]])
def test_rows_that_are_not_there(tmp_path, index):
    make(tmp_path / "a.h5")
    with pytest.raises(IndexError, match="of 500"):
        H5Rows(tmp_path / "a.h5", "train/x")[np.array(index)]


BAD = {
    "absent": ({"x": "train/X"}, ValueError, "no dataset 'train/X'. Did you mean .*'train/x'"),
    "group": ({"x": "train"}, ValueError, "'train' in .* is a group; expected a dataset"),
    "scalar": ({"x": "scalar"}, ValueError, "a dataset without rows"),
    "text": ({"x": "names"}, TypeError, "`x` holds text or objects"),
    "text labels": ({"x": "train/x", "y": "names"}, TypeError, "np.unique"),
    "lengths": ({"x": "train/x", "y": "short"}, ValueError, "500 rows and `y` has 5"),
    "labels": ({"x": "train/x", "y": "train/y", "class_names": "ab"}, TypeError, "class_names"),
    "few names": (
        {"x": "train/x", "y": "train/y", "class_names": ["a", "b"]},
        ValueError,
        "labels from 0 to 3 and `class_names` has 2 names",
    ),
    "not a name": ({"x": 3}, TypeError, "`x` is 3; expected the name of a dataset"),
    "no names": ({"x": {}}, ValueError, "expected the name of a dataset"),
    "batch_size": ({"x": "train/x", "batch_size": -2}, ValueError, "`batch_size` is -2"),
}


@pytest.mark.parametrize("arguments, error, text", BAD.values(), ids=BAD)
def test_bad_names(tmp_path, arguments, error, text):
    make(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["short"] = np.zeros(5)
    with pytest.raises(error, match=text):
        bz.data.h5(tmp_path / "a.h5", **arguments)


def test_bad_files(tmp_path):
    (tmp_path / "text.h5").write_text("weight,pet")
    make(tmp_path / "cut.h5")
    content = (tmp_path / "cut.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    h5py.File(tmp_path / "empty.h5", "w").close()
    for name, error, text in [
        ("absent.h5", FileNotFoundError, "expected an HDF5 file that exists"),
        (".", ValueError, "not a folder"),
        ("text.h5", ValueError, "not an HDF5 file: it starts with b'weight,p'"),
        ("cut.h5", ValueError, "expected a whole HDF5 file"),
        ("empty.h5", ValueError, "has no datasets; expected one named 'x'"),
    ]:
        with pytest.raises(error, match=text):
            bz.data.h5(tmp_path / name, x="x")
    with pytest.raises(TypeError, match="`path` is 3"):
        bz.data.h5(3, x="x")
