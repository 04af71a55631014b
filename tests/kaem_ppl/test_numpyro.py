"""KANTilted as a citizen of NumPyro: handlers, plates, prediction, SVI, NUTS, and no needless compilation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from scipy import integrate, stats

import kaem_ppl as kp

from . import members
from .members import BASES, tilted


def _prior():
    return tilted("RBF", "Normal", (None, 10, 100))


def _model(x=None, size=4):
    with numpyro.plate("data", size):
        z = numpyro.sample("z", _prior().to_event(1))
        numpyro.sample("x", dist.Normal(jnp.sum(z, -1), 0.5), obs=x)


def test_handlers():
    # Oracle: the log-density of each site by hand.
    trace = handlers.trace(handlers.seed(_model, 0)).get_trace()
    assert trace["z"]["value"].shape == (4, 3)
    again = handlers.trace(handlers.seed(_model, 0)).get_trace()
    np.testing.assert_array_equal(trace["z"]["value"], again["z"]["value"])
    z, x = 0.1 * jnp.arange(12.0).reshape(4, 3), jnp.arange(4.0)
    for handler in (handlers.condition, handlers.substitute):
        fixed = handlers.trace(handlers.seed(handler(_model, {"z": z}), 1)).get_trace()
        np.testing.assert_array_equal(fixed["z"]["value"], z)
    log_joint, _ = numpyro.infer.util.log_density(_model, (x,), {}, {"z": z})
    expected = jnp.sum(_prior().log_prob(z)) + jnp.sum(dist.Normal(jnp.sum(z, -1), 0.5).log_prob(x))
    np.testing.assert_allclose(log_joint, expected, rtol=1e-5)


@pytest.mark.slow
def test_predictive():
    draws = Predictive(_model, num_samples=6)(jax.random.key(0), size=4)
    assert draws["z"].shape == (6, 4, 3)
    assert draws["x"].shape == (6, 4)
    # Law: every draw has its own key.
    assert len(np.unique(np.asarray(draws["z"][..., 0]))) == 24


def test_mixture_in_a_plate():
    def model():
        with numpyro.plate("data", 4):
            logits, energy = jnp.zeros((5, 3)), BASES["RBF"](jax.random.key(0), (5, 3))
            return numpyro.sample("z", kp.KANTiltedMixture(logits, energy, dist.Normal(0.0, 1.0)).to_event(1))

    assert handlers.seed(model, 0)().shape == (4, 5)


def _energy_param(name):
    start = BASES["RBF"](jax.random.key(0))
    return dataclasses.replace(start, coef=numpyro.param(name, start.coef))


def _elbos(model, guide, steps=60):
    svi = SVI(model, guide, numpyro.optim.Adam(0.05), Trace_ELBO(num_particles=20))
    losses = np.asarray(svi.run(jax.random.key(0), steps, progress_bar=False).losses)
    assert np.all(np.isfinite(losses))
    return losses


@pytest.mark.slow
def test_svi_learns_a_prior():
    # Law: the ELBO improves when the prior is a KANTilted to be learnt; data far from its start. Key 0, deterministic.
    x = jnp.asarray(1.5 + 0.3 * np.random.default_rng(0).normal(size=30))

    def model():
        with numpyro.plate("data", 30):
            numpyro.sample("x", kp.KANTilted(_energy_param("coef"), dist.Normal(0.0, 1.0)), obs=x)

    losses = _elbos(model, lambda: None)
    assert losses[-1] < losses[0] - 10


@pytest.mark.exhaustive
def test_svi_with_a_tilted_guide():
    # Law: implicit gradients of draws let a KANTilted be the guide. Oracle: conjugate normal posterior N(0.75, 1/2).
    def model():
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=1.5)

    def guide():
        numpyro.sample("z", kp.KANTilted(_energy_param("coef"), dist.Normal(0.0, 1.0)))

    losses = _elbos(model, guide, 200)
    evidence = -stats.norm(0, np.sqrt(2)).logpdf(1.5)
    # The guide's family comes near the posterior: within 0.05 nats of the evidence, averaged over the last 50 steps.
    assert losses[-50:].mean() < losses[:5].mean() - 0.1
    assert abs(losses[-50:].mean() - evidence) < 0.05


@pytest.mark.slow
def test_nuts_under_a_tilted_prior():
    # Oracle: posterior mean by quad. Key 0; 2 x 2000 draws, five Monte Carlo standard errors (false alarm 6e-7).
    energy = members.bank("RBF", (None, 3, 10))
    d = kp.KANTilted(energy, dist.Normal(0.0, 1.0))
    x = np.array([0.8, -0.5, 1.1])

    def model():
        z = numpyro.sample("z", d.to_event(1))
        numpyro.sample("x", dist.Normal(z, 0.7).to_event(1), obs=jnp.asarray(x))

    mcmc = MCMC(
        NUTS(model), num_warmup=500, num_samples=2000, num_chains=2, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.key(0))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["z"], float)
    assert np.all(np.isfinite(draws))
    for i in range(3):
        prior = members.density("RBF", "Normal", i, (None, 3, 10))

        def weight(z, i=i, prior=prior):
            return np.exp(prior.log_prob(z) + stats.norm.logpdf(x[i], z, 0.7))

        mass = integrate.quad(weight, -6, 6, limit=500)[0]
        mean = integrate.quad(lambda z: z * weight(z), -6, 6, limit=500)[0] / mass
        variance = integrate.quad(lambda z, m=mean: (z - m) ** 2 * weight(z), -6, 6, limit=500)[0] / mass
        effective = float(numpyro.diagnostics.effective_sample_size(draws[..., i]))
        assert abs(draws[..., i].mean() - mean) < 5 * np.sqrt(variance / effective)
        assert effective > 200


class _Compilations:
    """How many XLA compilations happen inside the block."""

    def __enter__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def _listen(self, event, duration, **_):
        self.count += event == "/jax/core/compile/backend_compile_duration"

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)


def test_new_coefficients_do_not_compile_anew():
    # Oracle: JAX's own count of compilations; the control shows that it counts.
    energy, key = members.bank("RBF", (None, 10, 100)), jax.random.key(0)
    z = jnp.linspace(-2, 2, 3)

    def use(scale):
        changed = dataclasses.replace(energy, coef=scale * energy.coef)
        d = kp.KANTilted(changed, dist.Normal(0.0, 1.0))
        return jax.block_until_ready((d.sample(key, (20_000,)), d.log_prob(z), d.cdf(z), d.icdf(jnp.full(3, 0.3))))

    first = use(1.0)
    use(1.1)
    with _Compilations() as seen:
        second = use(0.7)
    assert seen.count == 0
    assert not np.array_equal(first[0], second[0])
    with _Compilations() as control:
        jax.jit(lambda x: jnp.sin(x) + 17)(jnp.ones(23))
    assert control.count > 0


def test_a_fixed_prior_is_integrated_once_under_jit():
    # Law: in a traced function a distribution whose parameters are known brings its normaliser as a constant: the
    # program has no loop that refines panels. Where the parameters are traced, it must have one.
    d = _prior()
    z = jnp.zeros(3)
    fixed = str(jax.make_jaxpr(d.log_prob)(z))
    traced = str(jax.make_jaxpr(lambda d, z: d.log_prob(z))(d, z))
    assert "while" not in fixed
    assert "while" in traced


@pytest.mark.slow
def test_both_precisions_in_one_process():
    # Law: the same numbers in float32, float64 and float32 again; the first and the last agree to the bit.
    first = np.asarray(_prior().log_normalizer)
    with jax.enable_x64(True):
        middle = np.asarray(_prior().log_normalizer)
    last = np.asarray(_prior().log_normalizer)
    assert first.dtype == last.dtype == np.float32
    assert middle.dtype == np.float64
    np.testing.assert_array_equal(first, last)
    np.testing.assert_allclose(first, middle, rtol=2e-6)
