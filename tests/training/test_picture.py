"""A model whose only weight is a picture, and what drives it. The objective: be near a target, and small."""

import csv
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasmodels.config import TrainingConfig
from kerasmodels.data import read_image
from kerasmodels.errors import DivergedError, StorageError, UsageError
from kerasmodels.family import without_examples
from kerasmodels.layers import Picture
from kerasmodels.training import Interrupted
from kerasmodels.training.picture import PictureModel, Stage, optimize_picture, to_uint8

TARGET = np.random.default_rng(0).uniform(20, 235, (1, 10, 14, 3)).astype("float32")


class Near:
    """Distance to TARGET, and a term that becomes NaN once the picture is `nan_below` levels near it."""

    def __init__(self, nan_below: float = -1.0):
        self.nan_below = nan_below

    def terms(self, picture):
        distance = ops.mean(ops.square(picture - TARGET))
        return {"near": distance, "far": ops.where(distance < self.nan_below, np.nan, 0.0)}


class Config(TrainingConfig):
    """A picture of TARGET's size."""

    shape = (10, 14)


class Found(PictureModel):
    """The picture that is to become TARGET."""

    Config = Config
    family_name = "found"

    def loss_terms(self):
        return ("loss", "near", "far")


def stage(steps: int, objective=None, rate: float = 20.0) -> Stage:
    def model(before):
        made = Found()
        if before is not None:
            made.picture.show(before)
        made.compile(keras.optimizers.Adam(rate), objective or Near())
        return made

    return Stage(steps, model)


@pytest.mark.parametrize(("method", "steps"), [("adam", (30, 20)), ("lbfgs", (3, 2)), ("cg", (4, 3))])
def test_every_method_finds_the_picture(method, steps, tmp_path):
    done = optimize_picture(
        [stage(n) for n in steps],
        tmp_path / "out.png",
        method=method,
        log=tmp_path / "log",
        log_every=1,
        progress=False,
    )
    np.testing.assert_allclose(done.picture, TARGET[0], atol=25 if method == "adam" else 1.5)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), done.picture)
    assert done.loss == pytest.approx(done.terms["near"] + done.terms["far"])
    assert done.loss < 1e-2 * done.history[0][0]
    # The second stage goes on from the first one's picture.
    assert done.history[1][0] == pytest.approx(done.history[0][-1], rel=1e-3)
    assert done.steps <= sum(steps)
    assert done.evaluations >= done.steps
    rows = list(csv.DictReader((tmp_path / "log" / "log.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, done.steps + 1))
    assert all(float(row["near"]) == pytest.approx(float(row["loss"]), rel=1e-4) for row in rows)
    assert (tmp_path / "log" / "gallery.html").read_text().count("<svg") >= 1


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_a_term_that_is_not_finite_is_named(method, tmp_path):
    with pytest.raises(DivergedError, match="far is nan at step") as caught:
        optimize_picture(
            [stage(50, Near(nan_below=1e9))], tmp_path / "out.png", method=method, preview_every=1, progress=False
        )
    assert caught.value.term == "far"


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_ctrl_c_saves_the_picture_so_far(method, tmp_path):
    class Slow(Near):
        def terms(self, picture):
            def interrupt(value):
                # The fifth evaluation; later ones must not abort for good.
                self.count = getattr(self, "count", 0) + 1
                if self.count == 5:
                    os.kill(os.getpid(), signal.SIGINT)
                return value

            found = super().terms(picture)
            near = tf.numpy_function(interrupt, [tf.stop_gradient(found["near"])], tf.float32)
            # Quartic, so that no method is done in five evaluations.
            return {"near": ops.mean((picture - TARGET) ** 4) + 0 * tf.reshape(near, ())}

    with pytest.raises(Interrupted, match="the picture so far is in") as caught:
        optimize_picture([stage(50, Slow()), stage(50)], tmp_path / "out.png", method=method, progress=False)
    assert caught.value.exit_code == 130
    assert read_image(tmp_path / "out.png").shape == (10, 14, 3)


def test_previews_are_written_on_the_way(tmp_path):
    seen = []

    def finish(pixels):
        seen.append(pixels.shape)
        return to_uint8(pixels)

    optimize_picture([stage(10)], tmp_path / "out.png", method="adam", finish=finish, preview_every=4, progress=False)
    assert seen == [(10, 14, 3)] * 3


def test_wrong_requests(tmp_path):
    with pytest.raises(UsageError, match="unknown method 'adan'"):
        optimize_picture([stage(1)], tmp_path / "out.png", method="adan")
    with pytest.raises(UsageError, match="at least 1 step"):
        optimize_picture([], tmp_path / "out.png")
    with pytest.raises(UsageError, match="a picture name"):
        optimize_picture([stage(1)], tmp_path / "out.txt")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "log.csv").write_text("step\n")
    with pytest.raises(UsageError, match="a new folder to log into"):
        optimize_picture([stage(1)], tmp_path / "out.png", log=tmp_path / "log")


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    never = Stage(1, lambda before: pytest.fail("it began"))
    with pytest.raises(StorageError):
        optimize_picture([never], tmp_path / "file" / "out.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(StorageError):
        optimize_picture([never], tmp_path / "folder.png")


def test_a_model_without_an_objective():
    with pytest.raises(UsageError, match="no objective yet"):
        Found().terms()
    with pytest.raises(UsageError, match="no objective of its own"):
        Found().compile()


def test_fit_needs_no_examples():
    model, batches = Found(), without_examples(Config()).batches(Found(), 7)
    model.compile(keras.optimizers.Adam(20.0), Near())
    history = model.fit(batches, steps_per_epoch=5, epochs=4, shuffle=False, verbose=0).history
    assert [batch.shape for batch in batches.take(2)] == [(1, 0)] * 2
    assert int(model.optimizer.iterations) == 20
    assert history["loss"][-1] < 0.5 * history["loss"][0]


def test_the_picture_can_be_handed_in_and_is_saved(tmp_path):
    model = Found(picture=Picture(2, 3, np.full((2, 3, 3), 7.0)))
    keras.saving.register_keras_serializable("tests")(Found)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.pixels(), np.full((2, 3, 3), 7.0))
