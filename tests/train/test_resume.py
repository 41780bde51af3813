"""Checkpoints and the way back: a run that was cut equals one that wasn't, bit for bit."""

import json
import signal
import zipfile

import keras
import numpy as np
import pytest

from bigzoo.data import Batches
from bigzoo.train import _checkpoint, fit, warmup_cosine
from bigzoo.train._checkpoint import Checkpoint
from bigzoo.train._schedule import schedule_of

# Dropout on torch draws from torch's own random numbers, which no checkpoint has.
ON_TORCH = keras.backend.backend() == "torch"
ROWS, BATCH = 45, 10  # five batches, the last of five rows


class Crash(Exception):
    pass


class CrashAt(keras.callbacks.Callback):
    def __init__(self, epoch, batch, hook="train"):
        super().__init__()
        self.moment = (hook, epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.moment == ("train", self.now, batch):
            raise Crash

    def on_test_batch_begin(self, batch, logs=None):
        if self.moment == ("test", self.now, batch):
            raise Crash


def make_data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(ROWS + 20, 5)).astype("float32")
    y = (x[:, 0] + x[:, 1] > 0).astype("int64")
    return (x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:])


def make_model(optimizer=None, steps=1, seed=3, compiled=False):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.0 if ON_TORCH else 0.4),
            keras.layers.Dense(2, "softmax"),
        ]
    )
    model.compile(
        optimizer or keras.optimizers.AdamW(0.01),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps,
        run_eagerly=not compiled and steps == 1,
    )
    return model


def noise(x, y, rng):
    return x + rng.normal(0.0, 0.1, x.shape).astype("float32"), y


def files(folder):
    return [path.name for path in folder.iterdir()]


def weights(model):
    return [value.tobytes() for value in model.get_weights()]


def run(model, data, validation, folder=None, callbacks=(), epochs=3, **settings):
    x, y = data if isinstance(data, tuple) else (data, None)
    return fit(
        model,
        x,
        y,
        validation_data=validation,
        epochs=epochs,
        resume=folder,
        save_seconds=0,
        callbacks=list(callbacks),
        verbose=0,
        check=False,
        **settings,
    )


def arrays():
    return make_data()[0], {"batch_size": BATCH, "seed": 5}


def augmented():
    x, y = make_data()[0]
    return Batches(x, y, batch_size=BATCH, shuffle=True, seed=5, augment=noise), {}


def averaged():
    return keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.8)


def scheduled():
    return keras.optimizers.Adam(warmup_cosine(0.02, 2))


def plateau():
    return [
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10.0),
        keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True),
    ]


CASES = {
    "arrays": (arrays, CrashAt(1, 3), None, 1, list, {}),
    "augmented, averages": (augmented, CrashAt(1, 2), averaged, 1, list, {}),
    "schedule, 2 steps at a time": (augmented, CrashAt(1, 4), scheduled, 2, list, {}),
    "in validation": (arrays, CrashAt(1, 0, "test"), averaged, 1, list, {}),
    "between epochs": (arrays, CrashAt(2, 0), averaged, 1, plateau, {}),
    "callbacks": (arrays, CrashAt(1, 4), None, 1, plateau, {}),
    "three batches an epoch": (arrays, CrashAt(1, 1), None, 1, list, {"steps_per_epoch": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_crashed_equals_one_that_did_not(name, tmp_path):
    source, crash, optimizer, steps, callbacks, more = CASES[name]
    if ON_TORCH:
        steps = 1  # Keras on torch can't do more at a time
    (data, settings), (_, validation) = source(), make_data()
    settings = {**settings, **more}

    def model(seed=3):
        is_compiled = name == "augmented, averages"
        return make_model(optimizer() if optimizer else None, steps, seed, is_compiled)

    whole = model()
    expected = run(whole, data, validation, callbacks=callbacks(), **settings)
    with pytest.raises(Crash):
        run(model(), data, validation, tmp_path, [*callbacks(), crash], **settings)
    # Other first weights: all must come from the file.
    other = model(seed=99)
    history = run(other, data, validation, tmp_path, callbacks(), **settings)

    assert weights(other) == weights(whole)
    assert history.history == expected.history
    assert history.epoch == expected.epoch
    assert history.interrupted is None


@pytest.mark.skipif(ON_TORCH, reason="without Dropout there is no random state")
def test_the_file_has_random_states_and_metrics_that_matter(tmp_path):
    """Without them the comparison above must fail: it can."""
    (data, settings), (_, validation) = arrays(), make_data()
    whole = make_model()
    run(whole, data, validation, **settings)
    with pytest.raises(Crash):
        run(make_model(), data, validation, tmp_path, [CrashAt(1, 3)], **settings)
    saved = _checkpoint.read(tmp_path)
    paths = [path for path, *_ in saved.fingerprint["variables"]]
    place = next(i for i, path in enumerate(paths) if "seed_generator" in path)
    values = list(saved.arrays)
    values[place] = values[place] + 1
    saved.arrays = []
    _checkpoint.write(tmp_path, saved, values)
    other = make_model()
    run(other, data, validation, tmp_path, **settings)
    assert weights(other) != weights(whole)


def test_a_finished_run_gives_history_and_weights_back(tmp_path, capsys):
    (data, settings), (_, validation) = arrays(), make_data()
    first = make_model(averaged())
    expected = run(first, data, validation, tmp_path, plateau(), **settings)
    again = make_model(averaged(), seed=8)
    history = run(again, data, validation, tmp_path, [*plateau(), CrashAt(0, 0)], **settings)
    assert history.history == expected.history
    assert weights(again) == weights(first)


def test_more_epochs_go_on_as_if_all_had_been_asked_for(tmp_path):
    (data, settings), (_, validation) = arrays(), make_data()
    whole = make_model(averaged())
    expected = run(whole, data, validation, epochs=4, **settings)
    run(make_model(averaged()), data, validation, tmp_path, epochs=2, **settings)
    longer = make_model(averaged())
    history = run(longer, data, validation, tmp_path, epochs=4, **settings)
    assert weights(longer) == weights(whole)
    assert history.history == expected.history
    assert history.epoch == [0, 1, 2, 3]


def test_a_longer_run_stretches_the_schedule_and_says_so(tmp_path, capsys):
    (data, settings), (_, validation) = arrays(), make_data()
    run(make_model(scheduled()), data, validation, tmp_path, epochs=2, **settings)
    longer = make_model(scheduled())
    fit(longer, *data, epochs=4, resume=tmp_path, verbose=2, check=False, **settings)
    assert "stretched from 2 epochs" in capsys.readouterr().out
    schedule = schedule_of(longer)
    assert (schedule.first_step, schedule.total_steps) == (0, 20)


def test_without_a_seed_the_order_of_the_first_start_is_kept(tmp_path):
    data, validation = make_data()
    np.random.seed(1)
    whole = make_model()
    np.random.seed(1)
    run(whole, data, validation, batch_size=BATCH)
    cut = make_model()
    np.random.seed(1)
    with pytest.raises(Crash):
        run(cut, data, validation, tmp_path, [CrashAt(1, 2)], batch_size=BATCH)
    other = make_model()
    np.random.seed(77)
    run(other, data, validation, tmp_path, batch_size=BATCH)
    assert weights(other) == weights(whole)


def test_a_notebook_may_build_the_same_model_twice(tmp_path):
    """Keras then numbers the layers anew, which is no other model."""
    (data, settings), (_, validation) = arrays(), make_data()
    names = {make_model().layers[0].name for _ in range(2)}
    assert len(names) == 2
    with pytest.raises(Crash):
        run(make_model(), data, validation, tmp_path, [CrashAt(1, 1)], **settings)
    history = run(make_model(), data, validation, tmp_path, **settings)
    assert history.epoch == [0, 1, 2]


def wider():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.AdamW(), loss="sparse_categorical_crossentropy")
    return model


def slower():
    model = make_model()
    model.optimizer.learning_rate = 0.5
    return model


OTHERS = {
    "model": (wider, lambda d: d, {}, "the model has the variable"),
    "optimizer": (
        lambda: make_model("sgd"),
        lambda d: d,
        {},
        "the optimizer is SGD here and AdamW",
    ),
    "learning rate": (slower, lambda d: d, {}, "the learning rate is 0.5 here and 0.0"),
    "rows": (make_model, lambda d: (d[0][:40], d[1][:40]), {}, "the number of rows of `x` is 40"),
    "data": (make_model, lambda d: (d[0] * 3, d[1]), {}, "rows of the data aren't the same"),
    "batch": (make_model, lambda d: d, {"batch_size": 15}, "the batch size is 15 here and 10"),
    "seed": (make_model, lambda d: d, {"seed": 6}, "the seed is 6 here and 5 in the file"),
    "steps": (
        make_model,
        lambda d: d,
        {"steps_per_epoch": 2},
        "number of batches in an epoch is 2",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_folder_of_another_run_is_refused(name, tmp_path):
    model, change, more, text = OTHERS[name]
    (data, settings), (_, validation) = arrays(), make_data()
    run(make_model(), data, validation, tmp_path, epochs=1, **settings)
    before = (tmp_path / _checkpoint.FILE).read_bytes()
    with pytest.raises(ValueError, match=text) as error:
        run(model(), change(data), validation, tmp_path, epochs=2, **{**settings, **more})
    assert "Give another folder as `resume`" in str(error.value)
    assert (tmp_path / _checkpoint.FILE).read_bytes() == before


# === The file ===


def small_checkpoint(**values):
    return Checkpoint(
        epoch=1,
        step=2,
        steps=5,
        stopped=False,
        initial_epoch=0,
        epochs=3,
        seed=4,
        data_epoch=0,
        history={"epoch": [0], "history": {"loss": [0.1, float("nan"), float("inf")]}},
        schedule=None,
        callbacks=[],
        fingerprint={},
        num_variables=2,
        **values,
    )


def test_every_bit_comes_back_also_of_bfloat16(tmp_path):
    import ml_dtypes

    rng = np.random.default_rng(0)
    written = [
        rng.normal(size=(3, 4)).astype(ml_dtypes.bfloat16),
        np.float32([np.nan, -0.0, np.inf]),
        np.array(7, dtype="int64"),
        rng.integers(0, 2**32, 2, dtype="uint32"),
        np.array([], dtype="float16"),
        np.array(1.5, dtype=ml_dtypes.bfloat16),
    ]
    _checkpoint.write(tmp_path, small_checkpoint(), written)
    found = _checkpoint.read(tmp_path)
    assert [value.dtype for value in found.arrays] == [value.dtype for value in written]
    assert [value.shape for value in found.arrays] == [value.shape for value in written]
    assert [value.tobytes() for value in found.arrays] == [value.tobytes() for value in written]
    assert found.history["history"]["loss"][0] == 0.1
    assert found.history["history"]["loss"][2] == float("inf")
    assert files(tmp_path) == [_checkpoint.FILE]


def spoil_end(path):
    path.write_bytes(path.read_bytes()[:-30])


def spoil_middle(path):
    content = bytearray(path.read_bytes())
    content[200] ^= 255  # in the first array's numbers
    path.write_bytes(bytes(content))


def spoil_all(path):
    path.write_bytes(b"not a checkpoint")


def spoil_empty(path):
    path.write_bytes(b"")


def foreign(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state.json", json.dumps({"format": 1, "dtypes": []}))


def pickled(path):
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("00000.npy", "w") as member:
            np.lib.format.write_array(member, np.array([{}], dtype=object))
        archive.writestr("state.json", json.dumps({"format": 1, "dtypes": ["object"]}))


@pytest.mark.parametrize(
    "spoil", [spoil_end, spoil_middle, spoil_all, spoil_empty, foreign, pickled]
)
def test_a_damaged_file_is_one_clear_error(spoil, tmp_path):
    _checkpoint.write(tmp_path, small_checkpoint(), [np.arange(100.0)])
    spoil(tmp_path / _checkpoint.FILE)
    with pytest.raises(ValueError, match=r"checkpoint.npz can't be read .* Delete it to begin"):
        fit(make_model(), *make_data()[0], resume=tmp_path, verbose=0)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    _checkpoint.write(tmp_path, small_checkpoint(), [np.arange(3.0)])
    before = (tmp_path / _checkpoint.FILE).read_bytes()

    def values():
        yield np.arange(4.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _checkpoint.write(tmp_path, small_checkpoint(), values())
    assert (tmp_path / _checkpoint.FILE).read_bytes() == before
    assert files(tmp_path) == [_checkpoint.FILE]


def test_a_full_disk_warns_and_training_goes_on(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_checkpoint, "write", full)
    data, settings = arrays()
    with pytest.warns(RuntimeWarning, match="No space left on device. Training goes on"):
        history = fit(
            make_model(),
            *data,
            resume=tmp_path / "new",
            epochs=2,
            verbose=0,
            check=False,
            **settings,
        )
    assert history.epoch == [0, 1]


def test_half_written_files_of_a_killed_run_are_removed(tmp_path):
    stale = tmp_path / f".{_checkpoint.FILE}.1.tmp"
    stale.write_bytes(b"half")
    data, settings = arrays()
    fit(make_model(), *data, resume=tmp_path, verbose=0, check=False, **settings)
    assert files(tmp_path) == [_checkpoint.FILE]


# === Processes that are killed ===


@pytest.mark.parametrize("name", ["batch", "validation", "write"])
def test_kill_9_and_the_same_command_again(killed, name):
    codes = killed.codes
    assert codes["peace"] == 0
    assert codes[name] == -signal.SIGKILL
    assert codes[f"{name}-again"] == 0
    assert killed.result(name) == killed.result("peace")
