"""Parameters in a file and back, trees of other kinds refused, and what values print."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp
from kaem_ppl.printing import describe_arrays
from kaem_ppl.saving.trees import load_tree, save_tree

PARAMS = {
    "prior$params": {"coef": jnp.arange(6.0).reshape(2, 3) / 7, "empty": jnp.zeros((0, 2))},
    "file": jnp.float32(3),
    "layers": [jnp.ones(2, jnp.int32), (jnp.array(True),)],
    "numbered": {0: jnp.ones(1), 10: jnp.zeros(1), 2: jnp.ones(2)},
}


def test_parameters_come_back_bit_for_bit_under_their_names(tmp_path):
    kp.save_params(tmp_path / "params", PARAMS)
    found = kp.load_params(tmp_path / "params.npz")
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(PARAMS), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)
    # Oracle: NumPy reads the file by itself, without pickles.
    with np.load(tmp_path / "params.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["prior$params/coef"], PARAMS["prior$params"]["coef"])
    assert set(load_tree(tmp_path / "params.npz")[1]["versions"]) >= {"kaem-ppl", "jax"}
    assert [path.name for path in tmp_path.iterdir()] == ["params.npz"]


def test_files_that_are_missing_damaged_or_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz does not exist: expected a file that `save_params` wrote"):
        kp.load_params(tmp_path / "none")
    kp.save_params(tmp_path / "params", PARAMS)
    content = bytearray((tmp_path / "params.npz").read_bytes())
    content[content.find(np.asarray(PARAMS["prior$params"]["coef"]).tobytes()) + 5] ^= 0xFF
    (tmp_path / "damaged.npz").write_bytes(content)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("damaged", "other"):
        with pytest.raises(ValueError, match=f"{name}.npz is damaged, or holds something else"):
            kp.load_params(tmp_path / name)
    with pytest.raises(TypeError, match="has a of type bfloat16, which can't be saved"):
        kp.save_params(tmp_path / "half", {"a": jnp.zeros(2, jnp.bfloat16)})
    for params in ([jnp.ones(2)], {1: jnp.ones(2), "a": jnp.ones(2)}):
        with pytest.raises(TypeError, match="`params` must be a dictionary of arrays by name"):
            kp.save_params(tmp_path / "list", params)
    save_tree(tmp_path / "tree.npz", {"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="holds something else than parameters"):
        kp.load_params(tmp_path / "tree")
    with pytest.raises(TypeError, match="The tree holds a"):
        save_tree(tmp_path / "bank.npz", kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(5), domain=(-1, 1)))


def test_values_print_in_few_lines():
    bank = kp.UnivariateKAN.init(jax.random.key(0), (300, 40), basis=kp.RBF(20), domain=(-3, 3))
    prior = kp.KANTilted(bank, dist.Normal(0, 1))
    assert repr(bank).startswith("UnivariateKAN(batch_shape=(300, 40), basis=RBF(")
    assert "domain=(-3, 3)" in repr(bank)
    assert repr(prior).startswith("KANTilted(batch_shape=(300, 40), reference=Normal, energy=UnivariateKAN(")
    for value in (bank, prior):
        assert len(repr(value)) < 300
        assert value._repr_html_().startswith("<pre>")
    # Inside a traced function too, where numbers are not known.
    seen = []
    jax.jit(lambda bank: seen.append(repr(bank)) or 0)(bank)
    assert "UnivariateKAN(batch_shape=(300, 40)" in seen[0]
    assert describe_arrays(PARAMS) == [
        "  prior$params  2 arrays, 6 numbers", "  file          float32[]", "  layers        2 arrays, 3 numbers",
            "  numbered      3 arrays, 4 numbers",
    ]  # fmt: skip
