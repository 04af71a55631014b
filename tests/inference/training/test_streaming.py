"""Data in memory maps: what is learnt is what is learnt from the same data in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

from kaem_ppl.inference import MALA, LangevinMLE, fit
from kaem_ppl.inference.training import streaming

pytest.importorskip("grain")


def model(image, shift):
    weight = numpyro.param("weight", jnp.array([0.5, 0.1, -0.2, 0.3]))
    noise = numpyro.param("noise", 0.6, constraint=constraints.positive)
    with numpyro.plate("data", len(image)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        loc = z[..., None] * weight + shift[..., None]
        numpyro.sample("x", dist.Normal(loc, noise).to_event(1), obs=image / 255)


@pytest.fixture
def data(tmp_path):
    """Bytes in a file, and floats in memory."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (50, 4), dtype=np.uint8))
    return {"image": np.load(tmp_path / "images.npy", mmap_mode="r"), "shift": rng.normal(size=50)}


def test_training_is_that_of_data_in_memory(data, monkeypatch):
    # Oracle: the same data in memory. Chains start a part of the data at a time, here of 12 and at last 2.
    monkeypatch.setattr(streaming, "_NUMBERS_AT_ONCE", 60)
    # Three batches of seven are read together.
    monkeypatch.setattr(streaming, "_NUMBERS_AHEAD", 120)
    settings = {
        "strategy": LangevinMLE(MALA(0.1), num_steps=1),
        "num_epochs": 3,
        "batch_size": 8,
        "progress_bar": False,
    }
    streamed, in_memory = (
        fit(jax.random.key(0), model, {**data, "image": images}, optimizer=optax.adam(0.01), **settings)
        for images in (data["image"], np.array(data["image"]))
    )
    for new, old in zip(jax.tree.leaves(streamed.state), jax.tree.leaves(in_memory.state), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(streamed.history["loss"], in_memory.history["loss"], rtol=1e-6)


def test_rows_come_in_order_and_are_copies(data):
    index = np.random.default_rng(1).permutation(50).reshape(10, 5)
    batches = list(streaming.read_ahead(data, index))
    np.testing.assert_array_equal(np.stack([batch["image"] for batch in batches]), np.array(data["image"])[index])
    np.testing.assert_array_equal(
        np.stack([batch["shift"] for batch in batches]), data["shift"][index].astype(np.float32)
    )
    # Slices of a mapping, whose first row is not the file's.
    sliced = streaming.read_rows(data["image"][7::2], index[0] // 5)
    np.testing.assert_array_equal(sliced, np.array(data["image"])[7::2][index[0] // 5])


def test_refuses(data, tmp_path):
    np.save(tmp_path / "floats.npy", np.r_[np.zeros(49), np.nan])
    broken = np.load(tmp_path / "floats.npy", mmap_mode="r")
    changed = np.load(tmp_path / "images.npy", mmap_mode="c")
    wrong = {
        r"`data\['shift'\]` holds values that are not finite": {**data, "shift": broken},
        r"`data\['shift'\]` has leading size 49, but `data\['image'\]` has 50": {**data, "shift": broken[:49]},
        r"`data\['shift'\]` is None": {**data, "shift": None},
        r"`data\['shift'\]` is a scalar": {**data, "shift": 1.0},
        r"`data\['image'\]` is mapped copy-on-write": {**data, "image": changed},
        r"The rows of `data\['image'\]` are not contiguous": {**data, "image": data["image"][:, ::2]},
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            fit(jax.random.key(0), model, given, num_epochs=1, progress_bar=False)
