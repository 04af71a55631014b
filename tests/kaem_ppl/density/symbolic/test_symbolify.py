"""Formulae: planted energies are found again, divergences are SciPy's, families are recognised, results print and learn."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import integrate, stats

import kaem_ppl as kp

ENERGIES = ["polynomial", "abs", "exp", "sin", "logistic", "gaussian"]
# Energies over a standard normal reference on [-3, 3], and the constants that are to be found.
PLANTED = {
    "z + z^2": (lambda z: z - 1.5 * z**2, {"a1": 1.0, "a2": -1.5}),
    "z^2 + z^4": (lambda z: 2 * z**2 - 0.5 * z**4, {"a1": 2.0, "a2": -0.5}),
    "sin": (lambda z: 1.5 * np.sin(3 * z + 0.5), {"a1": 1.5, "b1": 3.0, "c1": 0.5}),
    "abs": (lambda z: -2 * np.abs(z - 0.5), {"a1": -2.0, "c1": -0.5}),
    "logistic": (lambda z: 3 / (1 + np.exp(-(4 * z - 1))), {"a1": 3.0, "b1": 4.0, "c1": -1.0}),
}


def draw(energy, number, seed):
    """By inverse transform on a grid."""
    z = np.linspace(-6, 6, 400_001)
    mass = np.exp(energy(np.clip(z, -3, 3)) - 0.5 * z**2)
    cumulative = np.concatenate([[0], np.cumsum(0.5 * (mass[1:] + mass[:-1]))])
    return np.interp(np.random.default_rng(seed).uniform(size=number), cumulative / cumulative[-1], z)


@pytest.mark.exhaustive
def test_planted_energies_are_found_with_their_constants():
    samples = np.stack([draw(energy, 20_000, i) for i, (energy, _) in enumerate(PLANTED.values())], axis=1)
    fitted = kp.KANTilted.fit(samples.astype(np.float32), reference=dist.Normal(0.0, 1.0), domain=(-3, 3))
    for (name, (_, constants)), found in zip(PLANTED.items(), kp.symbolify(fitted, library=ENERGIES), strict=True):
        best = found.best
        assert best.name == name
        assert best.kl < 0.002
        # Twelve constants within three standard errors: 3 % false alarms over seeds.
        for label, value in constants.items():
            assert abs(best.constants[label] - value) < 3 * best.std_errors[label], (name, label)
        complexities = [x.complexity for x in found.front]
        divergences = [x.kl for x in found.front]
        assert complexities == sorted(complexities)
        assert divergences == sorted(divergences, reverse=True)


def tilted(terms, coefficients, reference=None):
    basis = kp.FormulaBasis(terms)
    energy = kp.UnivariateKAN.init(0, basis=basis, domain=(-3, 3))
    energy = kp.UnivariateKAN(**{**vars(energy), "coef": jnp.asarray(coefficients), "base_weight": jnp.zeros(())})
    return kp.KANTilted(energy, dist.Normal(0.0, 1.0) if reference is None else reference)


@pytest.fixture(scope="module")
def wavy():
    return tilted((("sin", 3.0, 0.5), ("z", 1.0, 0.0)), (0.8, 0.3))


@pytest.fixture(scope="module")
def formulae(wavy):
    return kp.symbolify(wavy, library=["polynomial", "abs", "sin"])


@pytest.mark.slow
def test_divergences_are_those_of_adaptive_quadrature(wavy, formulae):
    found = [*formulae.front, *kp.symbolify(wavy, library=["abs", "Laplace"]).front]
    found += kp.symbolify(wavy, library="Normal").front
    assert {"abs", "sin", "Normal", "Laplace"} <= {x.name for x in found}
    energy = wavy.energy

    def unnormalised(z):
        z = np.clip(z, -3, 3)
        return float(energy.coef[0]) * np.sin(3 * z + 0.5) + float(energy.coef[1]) * z

    def candidate(expression):
        if expression.name == "reference":
            return lambda z: 0.0 * z
        if expression.terms:
            values = zip(expression.coefficients, expression.terms, strict=True)
            pairs = list(values)
            return lambda z: sum(a * term(np, np.clip(z, -3, 3)) for a, term in pairs)
        law = stats.norm if expression.name == "Normal" else stats.laplace
        known = law(expression.constants["loc"], expression.constants["scale"])
        return lambda z: known.logpdf(z) - stats.norm.logpdf(z)

    def total(function, points):
        inner = integrate.quad(function, -3, 3, points=points, epsabs=1e-12, epsrel=1e-12, limit=500)[0]
        return inner + sum(integrate.quad(function, *ends, epsabs=1e-13)[0] for ends in ((-12, -3), (3, 12)))

    normal = stats.norm.pdf
    mass = total(lambda z: np.exp(unnormalised(z)) * normal(z), None)
    for expression in found:
        log_ratio = candidate(expression)
        kinks = [-t.shift for t in expression.terms if t.function == "abs"]
        kinks += [expression.constants.get("loc")] * (expression.name == "Laplace")
        other = total(lambda z, f=log_ratio: np.exp(f(z)) * normal(z), kinks or None)
        divergence = total(
            lambda z, f=log_ratio: np.exp(unnormalised(z)) * normal(z) / mass * (unnormalised(z) - f(z)), kinks or None
        )
        divergence += np.log(other / mass)
        assert expression.kl == pytest.approx(divergence, abs=1e-6), expression


@pytest.mark.slow
def test_a_formula_prints_and_its_distribution_goes_on(formulae):
    best = formulae.best
    assert best is None or best.kl <= 0.01
    by_name = {x.name: x for x in formulae.front}
    sine = by_name["sin"]
    assert "sin(" in str(sine)
    assert r"\sin(" in sine.to_latex()
    assert "complexity" in repr(formulae)
    # The formula's density is a tilted one, and its basis serves `kan_prior`, which learns the coefficient.
    basis = sine.distribution.energy.basis
    assert basis.terms == sine.terms

    def model():
        prior = kp.kan_prior("prior", (2,), basis=basis, domain=(-3, 3), reference=dist.Normal(0, 1))
        numpyro.sample("z", prior.to_event(1))

    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, jax.random.key(0))).get_trace()
    assert trace["prior$params"]["value"]["coef"].shape == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "law", "arguments"),
    [
        ("Normal", stats.norm(1, 2), {}),
        pytest.param("Laplace", stats.laplace(1, 2), {}, marks=pytest.mark.exhaustive),
        ("Logistic", stats.logistic(-1, 0.5), {}),
        pytest.param("Gamma", stats.gamma(3, scale=0.5), {"support": (0, None)}, marks=pytest.mark.exhaustive),
        pytest.param("Beta", stats.beta(2, 5), {"support": (0, 1)}, marks=pytest.mark.exhaustive),
        ("NormalMixture", stats.norm(0, 1), {}),
    ],
)
def test_families_are_recognised(name, law, arguments):
    samples = law.rvs(size=10_000, random_state=0)
    if name == "NormalMixture":
        samples = np.where(np.arange(10_000) < 3000, samples - 2, 0.7 * samples + 2)
    fitted = kp.KANTilted.fit(samples.astype(np.float32), **arguments)
    best = kp.symbolify(fitted, max_kl=0.005).best
    assert best.name == name
    truth = {"Normal": (1, 2), "Laplace": (1, 2), "Logistic": (-1, 0.5), "Gamma": (3, 2), "Beta": (2, 5)}.get(name)
    if truth is not None:
        z = (np.array(list(best.constants.values())) - truth) / np.array(list(best.std_errors.values()))
        assert np.all(np.abs(z) < 4)
    assert best.distribution.log_prob(jnp.asarray(0.5)).shape == ()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"density": dist.Normal(0, 1)}, "density"),
        ({"library": ["tan"]}, "library"),
        ({"library": []}, "library"),
        ({"max_kl": 0}, "max_kl"),
    ],
)
def test_wrong_arguments_are_refused(wavy, arguments, name, assert_refused):
    assert_refused(lambda: kp.symbolify(**{"density": wavy} | arguments), name)


@pytest.mark.parametrize("terms", [(), (("tan", 1.0, 0.0),), ((1.0,),)])
def test_wrong_terms_are_refused(terms, assert_refused):
    assert_refused(lambda: kp.FormulaBasis(terms), "terms")
