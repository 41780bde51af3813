"""Ctrl-C during `fit`."""

import os
import signal
import threading

import keras
import numpy as np
import pytest

from bigzoo.train import fit
from bigzoo.train._interrupt import CtrlC, StopFit

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    """As in a terminal: a shell starts what runs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def make_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


class Press(keras.callbacks.Callback):
    """Presses Ctrl-C at one moment."""

    def __init__(self, **moments):
        super().__init__()
        self.moments = moments
        self.ended = 0
        self.validated = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.moments.get("train") == (self.epoch, batch):
            ctrl_c()

    def on_test_batch_begin(self, batch, logs=None):
        self.validated += 1
        if self.moments.get("test") == (self.epoch, batch):
            ctrl_c()

    def on_epoch_end(self, epoch, logs=None):
        if self.moments.get("end") == epoch:
            ctrl_c()

    def on_train_end(self, logs=None):
        self.ended += 1


def run(press, **more):
    model = make_model()
    history = fit(
        model,
        X,
        Y,
        batch_size=10,
        epochs=3,
        seed=0,
        verbose=0,
        check=False,
        callbacks=press,
        **more,
    )
    return model, history


def test_the_batch_ends_and_the_epoch_is_not_counted(capsys):
    press = Press(train=(1, 2))
    model, history = run(press, validation_data=(X, Y))
    assert history.epoch == [0]
    assert len(history.history["loss"]) == len(history.history["val_loss"]) == 1
    assert history.interrupted == (1, 3)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 4 + 3
    assert press.ended == 1
    assert press.validated == 4  # batches of epoch 0 alone
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 1
    assert "interrupted in epoch 2 of 3 after batch 3 of 4" in lines[0]
    assert 'resume="FOLDER"' in lines[0]


def test_during_validation_and_after_an_epoch(tmp_path, capsys):
    _, history = run(Press(test=(0, 0)), validation_data=(X, Y), resume=tmp_path / "a")
    assert (history.epoch, history.interrupted) == ([], (0, 4))
    assert f"go on from {tmp_path / 'a'}" in capsys.readouterr().out
    _, history = run(Press(end=0), resume=tmp_path / "b")
    assert (history.epoch, history.interrupted) == ([0], (1, 0))
    _, history = run(Press(end=2))
    assert (history.epoch, history.interrupted) == ([0, 1, 2], None)


@pytest.mark.parametrize("moment", [{"train": (1, 1)}, {"test": (1, 0)}, {"end": 1}])
def test_the_same_call_goes_on_exactly(moment, tmp_path):
    keras.utils.set_random_seed(1)
    first, expected = run(Press(), validation_data=(X, Y))
    keras.utils.set_random_seed(1)
    _, cut = run(Press(**moment), validation_data=(X, Y), resume=tmp_path)
    assert cut.interrupted is not None
    model, history = run(Press(), validation_data=(X, Y), resume=tmp_path)
    assert history.history == expected.history
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in first.get_weights()]


def test_a_handler_that_somebody_has_set_stays():
    presses = []
    before = signal.signal(signal.SIGINT, lambda *_: presses.append(1))
    try:
        _, history = run(Press(train=(0, 0)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert presses == [1]
    assert history.interrupted is None


@pytest.mark.parametrize("ends", [None, ValueError, KeyboardInterrupt])
def test_the_handler_is_put_back(ends):
    before = signal.getsignal(signal.SIGINT)
    try:
        with CtrlC() as keys:
            ctrl_c()
            assert keys.requested
            if ends is KeyboardInterrupt:
                ctrl_c()
            elif ends:
                raise ends
    except (ValueError, KeyboardInterrupt) as error:
        assert type(error) is ends
    assert signal.getsignal(signal.SIGINT) is before


def test_fit_in_another_thread_works_and_takes_no_signal():
    found = []
    thread = threading.Thread(target=lambda: found.append(run(Press())[1].epoch))
    thread.start()
    thread.join()
    assert found == [[0, 1, 2]]


def test_no_except_exception_swallows_the_stop():
    assert not issubclass(StopFit, Exception)


def test_in_a_process_of_its_own(killed):
    assert killed.codes["interrupt"] == 0
    told = killed.told("interrupted")
    assert told["epoch"] == [0]
    assert told["interrupted"] == [1, 6]  # two steps at a time: the second is finished, too
    assert told["handler"]
    assert killed.result("interrupt") == killed.result("peace")
    assert "interrupted in epoch 2 of 3 after batch 6 of 9" in killed.told("out")


def test_the_second_ctrl_c_stops_at_once(killed):
    assert killed.codes["twice"] == 130
