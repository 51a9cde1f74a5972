"""Runs that go on: the same bits as without a stop, whenever and however it came."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stopping import Stopped, stopping

import fastrnn as fr
from fastrnn import serialization
from fastrnn.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ReduceLROnPlateau,
)
from fastrnn.checkpoint import flatten, unflatten

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 5, (20, 12)), RNG.integers(0, 5, (20, 12))


def new_model(optimizer: str = "adam") -> fr.Sequential:
    """Without seeds where masks are drawn: what they draw must come from the checkpoint."""
    model = fr.Sequential(
        [
            fr.Embedding(5, 4, seed=1),
            fr.LSTM(4, 6, 2, dropout=0.3, zoneout_h=0.1, recurrent_dropout=0.2, seed=2),
            fr.Dropout(0.2, seed=3),
            fr.Dense(6, 5, seed=4),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy", "f1"])
    return model


def new_callbacks(path: Path, after_batch: Any) -> list[Callback]:
    return [
        ReduceLROnPlateau(patience=1, factor=0.5, cooldown=0),
        EarlyStopping(patience=5, restore_best_weights=True),
        CSVLogger(path.with_suffix(".csv")),
        LambdaCallback(on_train_batch_end=after_batch),
    ]


def run(path: Path, stop_at: int | None = None, tbptt: int | None = None, **options: Any) -> Any:
    """Train 3 epochs of 5 batches, from the checkpoint if there is one; end like a killed process
    after `stop_at` steps of this process."""
    model = new_model()
    history = model.fit(
        X, Y, epochs=3, batch_size=4, validation_data=(X[:8], Y[:8]), checkpoint=path, seed=5,
        tbptt=tbptt, callbacks=new_callbacks(path, stopping(stop_at)), **options,
    )  # fmt: skip
    weights = b"".join(value.tobytes() for value in model.state_dict().values())
    return weights, history.history, path.with_suffix(".csv").read_text()


@pytest.mark.parametrize("tbptt", [None, 5])
@pytest.mark.parametrize("every", [1, 2, None])
def test_a_run_goes_on_with_the_same_bits(tmp_path: Path, every: int | None, tbptt: Any) -> None:
    want = run(tmp_path / "whole.safetensors", tbptt=tbptt)
    steps = 15 * (1 if tbptt is None else 3)
    for stop_at in (1, 4, steps // 3, steps // 3 + 1, steps - 1, steps):
        path = tmp_path / f"{stop_at}.safetensors"
        with pytest.raises(Stopped):
            run(path, stop_at, tbptt, checkpoint_every=every)
        assert run(path, None, tbptt, checkpoint_every=every) == want, stop_at
        assert run(path, None, tbptt, checkpoint_every=every) == want, "once more"


def test_a_run_that_is_stopped_again_and_again_ends(tmp_path: Path) -> None:
    want = run(tmp_path / "whole.safetensors")
    path = tmp_path / "often.safetensors"
    for _ in range(7):
        with pytest.raises(Stopped):
            run(path, 3, checkpoint_every=2)
    assert run(path, checkpoint_every=2) == want


def test_ctrl_c_leaves_a_checkpoint_of_the_last_batch(tmp_path: Path) -> None:
    want = run(tmp_path / "whole.safetensors")
    path = tmp_path / "stopped.safetensors"

    def interrupt(batch: int, logs: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    model, callbacks = new_model(), new_callbacks(path, interrupt)
    for done in range(1, 4):
        history = model.fit(
            X, Y, epochs=3, batch_size=4, validation_data=(X[:8], Y[:8]), checkpoint=path, seed=5,
            callbacks=callbacks,
        )  # fmt: skip
        assert history.interrupted and model._optimizer.iterations == done
    assert run(path) == want


def test_more_epochs_go_on_and_other_runs_do_not(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    model = new_model()
    fit = {"batch_size": 4, "checkpoint": path}
    model.fit(X, Y, epochs=1, **fit)
    assert model.fit(X, Y, epochs=3, **fit).epoch == [0, 1, 2]
    assert model.fit(X, Y, epochs=3, **fit).epoch == [0, 1, 2]
    before = path.read_bytes()
    for change, message in (
        ({"batch_size": 5}, "a run with batch_size 4, this one has 5"),
        ({"tbptt": 3}, "a run with tbptt None, this one has 3"),
        ({"shuffle": False}, "a run with shuffle True, this one has False"),
        ({"callbacks": [LambdaCallback()]}, r"callbacks \[\], this one has \['Lambda"),
    ):
        with pytest.raises(ValueError, match=message):
            new_model().fit(X, Y, epochs=4, **{**fit, **change})
    with pytest.raises(ValueError, match=r"a run with optimizer .*Adam.*, this one has .*SGD"):
        new_model("sgd").fit(X, Y, **fit)
    other = fr.Sequential([fr.Embedding(5, 4), fr.Dense(4, 5)])
    other.compile("adam", "sparse_categorical_crossentropy", ["accuracy", "f1"])
    with pytest.raises(ValueError, match="a checkpoint of another model"):
        other.fit(X, Y, **fit)
    assert path.read_bytes() == before


def test_a_checkpoint_is_a_model_file(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    model = new_model()
    model.fit(X, Y, batch_size=4, checkpoint=path)
    loaded = fr.load(path)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    model = new_model()
    model.save(path)
    with pytest.raises(ValueError, match="a model, but not a checkpoint"):
        model.fit(X, Y, checkpoint=path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a model file"):
        model.fit(X, Y, checkpoint=path)
    assert path.read_bytes() == b"something else"
    path.unlink()
    model.fit(X, Y, checkpoint=path, batch_size=4)
    content = serialization.read(path)
    for name in list(content.extra["training"]["dict"]):
        extra = json.loads(json.dumps(content.extra))
        del extra["training"]["dict"][name]
        damaged = serialization.ModelFile(content.tensors, content.description, extra)
        serialization.write(path, damaged)
        with pytest.raises(ValueError, match="a damaged checkpoint"):
            new_model().fit(X, Y, checkpoint=path, batch_size=4)
    with pytest.raises(ValueError, match="there is no folder"):
        model.fit(X, Y, checkpoint=tmp_path / "none" / "run.safetensors")
    with pytest.raises(ValueError, match="checkpoint_every: expected with checkpoint"):
        model.fit(X, Y, checkpoint_every=3)


def test_trees_come_back() -> None:
    tree = {
        "a": [1, 2.5, None, True, "text", float("inf"), float("-inf")],
        "b": (np.arange(3), [np.float64(0.1)], {}),
        "c": {"d": {"e": np.zeros((2, 0), np.float32)}},
    }
    tensors: dict[str, Any] = {}
    back = unflatten(json.loads(json.dumps(flatten(tree, "t/", tensors))), tensors)
    assert back["a"] == tree["a"]
    assert isinstance(back["b"], tuple) and back["b"][0].tolist() == [0, 1, 2]
    assert back["b"][1][0] == 0.1 and back["b"][2] == {}
    assert back["c"]["d"]["e"].shape == (2, 0)
    assert all(name.startswith("t/") for name in tensors)
    assert np.isnan(unflatten(flatten(float("nan"), "t/", tensors), tensors))
    with pytest.raises(TypeError, match="t/x: a checkpoint cannot hold object"):
        flatten({"x": object()}, "t/", tensors)


SCRIPT = textwrap.dedent(
    """
    import sys, hashlib
    from pathlib import Path
    import test_checkpoint_files as t
    weights, history, log = t.run(Path(sys.argv[1]), checkpoint_every=1)
    print(hashlib.sha256(weights + repr(history).encode() + log.encode()).hexdigest())
    """
)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL while it trains, or writes: what is left is a whole file, and the end is the same."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }

    def start(path: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(path)], env=environment, text=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip

    whole = start(tmp_path / "whole.safetensors")
    want = whole.communicate()[0]
    assert whole.returncode == 0
    path = tmp_path / "killed.safetensors"
    chance = random.Random(1)
    killed = seen = 0
    for _ in range(40):
        process = start(path)
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns != before):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))  # a few steps on, in the midst of anything
        process.send_signal(signal.SIGKILL)
        out = process.communicate()[0]
        if path.exists():
            serialization.read(path)
            seen += 1
        if out:
            break
        killed += 1
    else:
        out = start(path).communicate()[0]
    assert out == want
    assert killed >= 2 and seen >= 2
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
