"""What NumPyro's own tests ask of every distribution, for both tilted ones. Oracle: NumPyro's Normal in the same place."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

import kaem_ppl as kp

KEY = jax.random.key(0)


def _bank(shape, basis=kp.RBF(8)):  # noqa: B008 - a frozen value
    return kp.UnivariateKAN.init(KEY, shape, basis=basis, domain=(-3, 3))


MAKERS = {
    "tilted": lambda shape: kp.KANTilted(_bank(shape), dist.Normal(0.0, 1.0)),
    "mixture": lambda shape: kp.KANTiltedMixture(jnp.zeros(2), _bank((*shape, 2)), dist.Normal(0.0, 1.0)),
}


def _normal(shape):
    return dist.Normal(jnp.zeros(shape), 1.0)


@pytest.mark.parametrize("maker", MAKERS)
def test_reparametrised_parameters(maker):
    d = MAKERS[maker]((3,))
    assert d.has_rsample
    assert set(d.arg_constraints) == set(d.reparametrized_params)
    wrapped = (
        d.mask(False),
        d.expand_by([2]).to_event(1),
        dist.TransformedDistribution(d, biject_to(constraints.real)),
    )
    assert all(other.has_rsample for other in wrapped)
    for other in (d, *wrapped):
        assert np.all(np.isfinite(other.rsample(KEY)))


@pytest.mark.parametrize("maker", MAKERS)
def test_shapes_of_numpyro_and_ints(maker):
    d = MAKERS[maker]((3,))
    arguments = (d.energy, d.reference) if maker == "tilted" else (d.logits, d.energy, d.reference)
    shapes = [x.shape() if callable(x.shape) else x.shape for x in arguments]
    assert type(d).infer_shapes(*shapes) == (d.batch_shape, d.event_shape)
    for shape in (5, np.int64(5), (5,), [5]):
        assert d.sample(KEY, shape).shape == (5, 3)
    assert d.sample(KEY, (0,)).shape == (0, 3)
    with pytest.raises(ValueError, match="sample_shape"):
        d.sample(KEY, 2.5)


@pytest.mark.parametrize("shape", [(0,), pytest.param((2, 0), marks=pytest.mark.slow)])
@pytest.mark.parametrize("maker", MAKERS)
def test_an_empty_batch(maker, shape):
    uses = {
        "sample": lambda d: d.sample(KEY, (2,)),
        "log_prob": lambda d: d.log_prob(jnp.zeros((4, *shape))),
        "cdf": lambda d: d.cdf(jnp.zeros(shape)),
        "icdf": lambda d: d.icdf(0.5),
        "mean": lambda d: d.mean,
        "variance": lambda d: d.variance,
        "entropy": lambda d: d.entropy(),
    }
    for name, use in uses.items():
        assert use(MAKERS[maker](shape)).shape == use(_normal(shape)).shape, name


def test_integers_of_numpy_are_counts():
    for basis, same in (
        (kp.RBF(np.int64(20)), kp.RBF(20)),
        (kp.BSpline(np.int32(3), np.int64(9)), kp.BSpline(3, 9)),
        (kp.Fourier(np.int64(4)), kp.Fourier(4)),
        (kp.Chebyshev(np.int64(4)), kp.Chebyshev(4)),
    ):
        assert basis == same
        assert hash(basis) == hash(same)
        assert repr(basis) == repr(same)
    with pytest.raises(ValueError, match="num_grid"):
        kp.RBF(20.5)


def test_ints_are_shapes_of_one_axis():
    assert kp.UnivariateKAN.init(KEY, 8, basis=kp.RBF(8), domain=(-3, 3)).batch_shape == (8,)

    def model(shape):
        return kp.kan_prior("p", shape, basis=kp.RBF(8), domain=(-3, 3), reference=dist.Normal(0.0, 1.0))

    with handlers.seed(rng_seed=0):
        assert model(8).batch_shape == model((8,)).batch_shape == (8,)
    with pytest.raises(ValueError, match="batch_shape"):
        kp.UnivariateKAN.init(KEY, (-1,), basis=kp.RBF(8), domain=(-3, 3))


def _model():
    prior = kp.kan_prior("p", 3, basis=kp.RBF(8), domain=(-3, 3), reference=dist.Normal(0.0, 1.0))
    return numpyro.sample("z", prior)


@pytest.mark.parametrize("prior", [dist.Normal(0.0, 1.0), {"p$params": dist.Normal(0.0, 1.0)}])
def test_lift_says_what_to_do(prior):
    with pytest.raises(ValueError, match=r"handlers\.substitute"):
        handlers.seed(handlers.lift(_model, prior=prior), 0)()


def test_a_prior_over_the_parameters():
    # What the message above says to do.
    def model():
        entries = {
            "coef": numpyro.sample("coef", dist.Normal(0.0, 0.1).expand((3, 8))),
            "base_weight": jnp.zeros(3),
            "spline_weight": jnp.ones(3),
        }
        with handlers.substitute(data={"p$params": entries}):
            return _model()

    trace = handlers.trace(handlers.seed(model, 0)).get_trace()
    assert trace["z"]["value"].shape == (3,)
    np.testing.assert_array_equal(trace["z"]["fn"].energy.coef, trace["coef"]["value"])


@pytest.mark.parametrize("samples", [[np.nan, 1.0], [np.inf, 1.0]])
def test_refit_refuses_samples_that_are_not_finite(samples):
    with pytest.raises(ValueError, match="samples"):
        _bank(()).refit(samples)
