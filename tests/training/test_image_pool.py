"""The pool of generated pictures."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.training.image_pool import ImagePool


def numbered(*numbers: int) -> tf.Tensor:
    return tf.cast(tf.reshape(tf.constant(numbers), (-1, 1, 1, 1)), tf.float32)


@pytest.fixture(params=[False, True], ids=["eager", "graph"])
def pool(request: pytest.FixtureRequest):
    made = ImagePool(20, keras.random.SeedGenerator(3))
    call = tf.function(made.__call__, autograph=False) if request.param else made
    return made, lambda *numbers: call(numbered(*numbers)).numpy().ravel().tolist()


def test_first_it_fills(pool):
    made, call = pool
    for number in range(0, 20, 2):
        assert call(number, number + 1) == [number, number + 1]
    assert int(made.state()["count"]) == 20
    assert made.state()["kept"].ravel().tolist() == list(range(20))


def test_then_half_of_what_comes_out_is_older(pool):
    _, call = pool
    out = [call(number)[0] for number in range(1000)]
    assert out[:20] == list(range(20))
    late = np.array(out[20:])
    older = late < np.arange(20, 1000)
    assert 0.44 < older.mean() < 0.56
    # A picture waits for 40 others in the mean: half of them are exchanged, for one of twenty.
    assert 25 < (np.arange(20, 1000) - late)[older].mean() < 55
    # None comes out twice: what is given back is no longer kept.
    assert len(set(late.tolist())) == len(late)


def test_state_goes_on_where_it_was():
    def run(split: bool) -> list[float]:
        draws = keras.random.SeedGenerator(5)
        pool, out = ImagePool(4, draws), []
        for number in range(40):
            if split and number == 25:
                state, seed = pool.state(), draws.state.numpy()
                draws = keras.random.SeedGenerator(9)
                draws.state.assign(seed)
                pool = ImagePool(4, draws)
                pool.set_state(state)
            out.append(float(pool(numbered(number))[0, 0, 0, 0]))
        return out

    assert run(True) == run(False)


def test_no_pool():
    assert ImagePool(0, keras.random.SeedGenerator(0))(numbered(1, 2)).numpy().ravel().tolist() == [1, 2]


def test_the_last_batch_of_an_epoch_may_be_smaller():
    made = ImagePool(3, keras.random.SeedGenerator(3))
    call = tf.function(made.__call__, input_signature=[tf.TensorSpec((None, 1, 1, 1))], autograph=False)
    assert call(numbered(1, 2)).numpy().ravel().tolist() == [1, 2]
    assert call(numbered(3)).numpy().ravel().tolist() == [3]
    assert int(made.state()["count"]) == 3
