import numpy as np
import pytest

from kaem_ppl.inference import AdaptedLadder, GeometricLadder, GivenLadder, PowerLadder

LADDERS = {
    "power": PowerLadder(7, 2.5),
    "geometric": GeometricLadder(6, 1e-2),
    "given": GivenLadder((0, 0.2, 0.7, 1)),
    "adapted": AdaptedLadder(5),
}


@pytest.mark.parametrize("ladder", LADDERS.values(), ids=LADDERS)
def test_goes_up_from_prior_to_posterior(ladder):
    temperatures = np.array(ladder.temperatures)
    assert len(temperatures) == ladder.num_temperatures
    assert (np.diff(temperatures) > 0).all()
    assert (temperatures[0], temperatures[-1]) == (0, 1)
    # A static setting of compiled programs: equal values must be equal keys.
    assert hash(ladder) == hash(type(ladder)(*ladder.__dict__.values()) if ladder != LADDERS["given"] else ladder)


def test_geometric_ratios_are_constant():
    temperatures = np.array(GeometricLadder(6, 1e-2).temperatures[1:])
    np.testing.assert_allclose(temperatures[1:] / temperatures[:-1], 10**0.5)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_simpson_is_exact_for_cubics_in_its_variable(power):
    # Oracle: the integral over t of t^((4 - p) / p) is p / 4; in u = t^(1/p) the integrand is p u^3, a cubic.
    ladder = PowerLadder(5, power)
    values = np.array(ladder.temperatures) ** ((4 - power) / power)
    assert np.isclose(ladder.quadrature_weights() @ values, power / 4)


@pytest.mark.parametrize("ladder", [PowerLadder(4, 2.0), PowerLadder(5, 0.5), *list(LADDERS.values())[1:]])
def test_other_ladders_have_no_rule(ladder):
    assert ladder.quadrature_weights() is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PowerLadder(1), "`num_temperatures` must be a whole number of at least 2, got 1"),
        (lambda: PowerLadder(4, 0.0), "`power` must be a number above 0"),
        (lambda: GeometricLadder(2), "`num_temperatures` must be a whole number of at least 3"),
        (lambda: GeometricLadder(5, 1.0), "`smallest` must be a number above 0 and below 1"),
        (lambda: GivenLadder((0, 0.5)), "must increase from 0 or more to 1"),
        (lambda: GivenLadder((0, 0.5, 0.5, 1)), "must increase from 0 or more to 1"),
        (lambda: AdaptedLadder(1), "`num_temperatures` must be a whole number of at least 2"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
