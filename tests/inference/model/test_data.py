import jax.numpy as jnp
import numpy as np
import pytest

from kaem_ppl.inference.model.data import call_model, check_data


def test_accepts_arrays_tuples_and_dicts():
    x = np.ones((4, 2))
    for data in (x, (x, np.arange(4)), {"x": x, "y": {"a": jnp.ones(4)}}):
        assert check_data(data)[1] == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((), "holds no array"),
        ({"x": None}, r"`data\['x'\]` is None"),
        ({"x": np.array([1.0, np.nan])}, r"`data\['x'\]` holds values that are not finite"),
        ((np.ones(2), np.array([1.0, np.inf])), r"`data\[1\]` holds values that are not finite"),
        ({"x": 3.0}, "is a scalar"),
        (np.array(["a", "b"]), "`data` has dtype <U1"),
        ({"x": np.ones(3), "y": np.ones(4)}, r"`data\['y'\]` has leading size 4, but `data\['x'\]` has 3"),
        (np.ones((0, 3)), "has no rows"),
    ],
)
def test_refuses(data, message):
    with pytest.raises(ValueError, match=message):
        check_data(data)


def test_calls_the_model_as_the_data_are_shaped():
    def model(x, y=None):
        return x, y

    assert call_model(model, 1) == (1, None)
    assert call_model(model, (1, 2)) == (1, 2)
    assert call_model(model, {"y": 2, "x": 1}) == (1, 2)
