"""Every basis and every reference, and banks of energies of given size: the lists that the laws run over."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy import stats

import kaem_ppl as kp

from . import oracle

DOMAIN = (-3.0, 3.0)


def _constructor(basis):
    return lambda key, batch_shape=(), domain=DOMAIN: kp.UnivariateKAN.init(
        key, batch_shape, basis=basis, domain=domain
    )


BASES = {
    "RBF": _constructor(kp.RBF(20)),
    "BSpline3": _constructor(kp.BSpline(3)),
    "BSpline1": _constructor(kp.BSpline(1)),
    "Fourier": _constructor(kp.Fourier(20)),
    "Chebyshev": _constructor(kp.Chebyshev(10)),
    "RSWAF": _constructor(kp.RSWAF(20)),
    "Morlet": _constructor(kp.Morlet(20)),
}

# Each with SciPy's distribution of the same law. Made by a call, for their arrays take the precision of the moment.
REFERENCES = {
    "Normal": (lambda: dist.Normal(0.0, 1.0), stats.norm(0, 1)),
    "LogNormal": (lambda: dist.LogNormal(0.0, 1.0), stats.lognorm(s=1)),
    "Uniform": (lambda: dist.Uniform(-3.0, 3.0), stats.uniform(-3, 6)),
    "TruncatedNormal": (lambda: dist.TruncatedNormal(0.0, 1.0, low=-2.0, high=4.0), stats.truncnorm(-2, 4)),
}

PAIRS = [(basis, reference) for basis in BASES for reference in REFERENCES]
ONE_PER_BASIS = list(zip(BASES, list(REFERENCES) * 2, strict=False))
# Every reference once: what the fast tests compile. The exhaustive ones run over the rest.
FAST_PAIRS = ONE_PER_BASIS[:4]
SLOW_PAIRS = [pair for pair in PAIRS if pair not in FAST_PAIRS]


@cache
def _float32_bank(basis, sizes, domain, seed):
    """Arrays of a bank whose functions have, in turn, the sizes max|f| asked for; None leaves a function as drawn."""
    # Known numbers, wherever the first call stands, a trace included.
    with jax.enable_x64(False), jax.ensure_compile_time_eval():
        bank = BASES[basis](jax.random.key(seed), (len(sizes),), domain)
        bank = jax.tree.map(np.asarray, bank)
    z = np.linspace(*domain, 20_001)
    factors = []
    for i, size in enumerate(sizes):
        values = oracle.energy(bank, i)(z)
        largest = values[np.argmax(np.abs(values))]
        # A signed size asks for the sign of the extreme value too, but sizes up to 100 take what was drawn.
        factors.append(1.0 if size is None else size / (largest if abs(size) > 100 else abs(largest)))
    factors = np.asarray(factors, np.float32)
    return dataclasses.replace(bank, coef=bank.coef * factors[:, None], base_weight=bank.base_weight * factors)


def bank(basis, sizes=(1, 10, 100), domain=DOMAIN, seed=0):
    """A bank of batch shape (len(sizes),), the same numbers in either precision."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), _float32_bank(basis, tuple(sizes), tuple(domain), seed))


def tilted(basis, reference, sizes=(1, 10, 100), domain=DOMAIN, seed=0):
    return kp.KANTilted(bank(basis, sizes, domain, seed), REFERENCES[reference][0]())


@cache
def density(basis, reference, size_index, sizes=(1, 10, 100), domain=DOMAIN, seed=0):
    """The oracle of one function of `tilted(...)`."""
    arrays = _float32_bank(basis, tuple(sizes), tuple(domain), seed)
    return oracle.Density.of(arrays, size_index, REFERENCES[reference][1])


def oracle_of(basis, reference, domain, size=1.0, seed=0):
    """The oracle of `bank(basis, (size,), domain, seed)` over one of SciPy's distributions."""
    return oracle.Density.of(_float32_bank(basis, (size,), tuple(domain), seed), 0, reference)
