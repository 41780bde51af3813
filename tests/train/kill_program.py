"""Trains a tiny model in processes that are killed or interrupted, and once in peace.

Usage: python kill_program.py FOLDER. Each run is a forked process: libraries are loaded once,
before any of them does work. Weights go to FOLDER/NAME.npz and the history to FOLDER/NAME.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import bigzoo as bz
from bigzoo.data import Batches
from bigzoo.train import fit

EPOCHS = 3


def noise(x: Any, y: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    return x + rng.normal(0.0, 0.1, x.shape).astype("float32"), y


def make_data() -> tuple[Batches, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int64")
    train = Batches(x[:90], y[:90], batch_size=10, shuffle=True, seed=4, augment=noise)
    return train, (x[90:], y[90:])


def make_model() -> keras.Model:
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(2, "softmax"),
        ]
    )
    model.compile(
        keras.optimizers.AdamW(0.02, use_ema=True, ema_momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=2,
    )
    return model


class At(keras.callbacks.Callback):
    """Does something at one moment of a training."""

    def __init__(self, hook: str, epoch: int, batch: int, action: Callable[[], Any]) -> None:
        super().__init__()
        self.moment = (hook, epoch, batch)
        self.action = action
        self.now = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.moment == ("train", self.now, batch):
            self.action()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.moment == ("test", self.now, batch):
            self.action()


def train(result: Path, resume: Path | None, *extra: keras.callbacks.Callback) -> None:
    model = make_model()
    batches, validation = make_data()
    history = fit(
        model,
        batches,
        validation_data=validation,
        epochs=EPOCHS,
        resume=resume,
        save_seconds=0,
        verbose=0,
        callbacks=[keras.callbacks.EarlyStopping("loss", patience=5), *extra],
    )
    np.savez(result.with_suffix(".npz"), *model.get_weights())
    told = {
        "history": history.history,
        "epoch": history.epoch,
        "interrupted": history.interrupted,
        "handler": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    }
    result.with_suffix(".json").write_text(json.dumps(told))


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_write(number: int) -> None:
    """Die while checkpoint `number` is being written, with its file half there."""
    real, calls = os.fsync, []

    def fsync(file: int) -> None:
        calls.append(file)
        if len(calls) == 2 * number:  # one for the file and one for the folder
            kill()
        real(file)

    os.fsync = fsync


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_twice() -> None:
    interrupt()
    interrupt()


def in_process(work: Callable[[], Any]) -> int:
    """The exit code of `work` in a process of its own; minus the number of a signal."""
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        code = 1
        try:
            work()
            code = 0
        except KeyboardInterrupt:
            code = 130
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def main(folder: Path) -> None:
    # As in a terminal: a shell starts what runs in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _ = bz.train.check  # loaded once, before the processes
    codes = {"peace": in_process(lambda: train(folder / "peace", None))}
    moments: dict[str, Callable[[], list[keras.callbacks.Callback]]] = {
        "batch": lambda: [At("train", 1, 4, kill)],
        "validation": lambda: [At("test", 1, 0, kill)],
        "write": lambda: [At("train", 1, 2, lambda: kill_in_write(1))],
        "interrupt": lambda: [At("train", 1, 4, interrupt)],
        "twice": lambda: [At("train", 1, 4, interrupt_twice)],
    }
    for name, callbacks in moments.items():
        target, resume = folder / name, folder / f"run-{name}"
        codes[name] = in_process(lambda t=target, r=resume, c=callbacks: train(t, r, *c()))
        if name == "interrupt":
            target.with_suffix(".json").rename(folder / "interrupted.json")
        if name == "twice":
            continue
        codes[f"{name}-again"] = in_process(lambda t=target, r=resume: train(t, r))
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
