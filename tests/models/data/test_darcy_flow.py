"""Darcy flow: the solver against solutions known in closed form, and the fields against their covariance."""

import numpy as np
import pytest

from kaem_ppl.models import LogNormalPermeability, ThresholdPermeability, gaussian_fields, solve_darcy


def centres(n):
    return np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(n) + 0.5) / n, indexing="ij")


def test_a_manufactured_solution_is_met_with_second_order():
    # u = sin(pi x) sin(2 pi y) with k = exp(x + y / 2) solves the equation for the source below.
    errors = []
    for n in (16, 32, 64):
        x, y = centres(n)
        k = np.exp(x + y / 2)
        u = np.sin(np.pi * x) * np.sin(2 * np.pi * y)
        u_x = np.pi * np.cos(np.pi * x) * np.sin(2 * np.pi * y)
        u_y = 2 * np.pi * np.sin(np.pi * x) * np.cos(2 * np.pi * y)
        source = -k * (u_x + u_y / 2 - 5 * np.pi**2 * u)
        errors.append(np.abs(solve_darcy(k, source) - u).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 2e-3
    assert ((orders > 1.9) & (orders < 2.1)).all()


def test_the_membrane_has_the_height_of_its_series():
    # k = 1: u(1/2, 1/2) = sum over odd m, n of 16 / (pi^4 m n (m^2 + n^2)) sin(m pi / 2) sin(n pi / 2) = 0.0736713...
    m = np.arange(1, 400, 2)
    signs = np.where(m % 4 == 1, 1, -1)
    series = (16 / np.pi**4 * np.outer(signs / m, signs / m) / np.add.outer(m**2, m**2)).sum()
    u = solve_darcy(np.ones((63, 63)))
    np.testing.assert_allclose(u[31, 31], series, rtol=1e-3)
    np.testing.assert_allclose(solve_darcy(np.full((63, 63), 4.0)), u / 4, rtol=1e-10)


def test_flow_is_conserved_across_jumps():
    # Gauss: what arises in the square leaves through its boundary, whatever the permeability.
    n = 24
    k = ThresholdPermeability()(gaussian_fields(np.random.default_rng(0), 1, n)[0])
    assert set(np.unique(k)) == {3.0, 12.0}
    u = solve_darcy(k)
    outflow = sum((2 * k[edge] * u[edge]).sum() for edge in ((0, ...), (-1, ...), (..., 0), (..., -1)))
    np.testing.assert_allclose(outflow, 1, rtol=1e-10)
    assert (u > 0).all()


def test_fields_have_the_covariance_of_their_operator():
    # Oracle: the Green's series at three pairs of points, sum of (pi^2 |n|^2 + 9)^-2 phi_n(a) phi_n(b).
    # 6 averages of 4,000 fields, each within 4 standard errors: false alarms in 4 of 10,000 seeds.
    n, num_fields = 12, 4000
    fields = gaussian_fields(np.random.default_rng(0), num_fields, n)
    x, y = centres(n)
    modes = np.arange(n)

    def cosines(t):
        return np.where(modes == 0, 1, np.sqrt(2)) * np.cos(np.pi * modes * t)

    variances = 1 / (np.pi**2 * np.add.outer(modes**2, modes**2) + 9.0) ** 2
    for a, b in (
        ((0, 0), (0, 0)),
        ((5, 6), (5, 6)),
        ((0, 0), (11, 11)),
        ((2, 7), (3, 7)),
        ((0, 5), (6, 1)),
        ((9, 9), (4, 2)),
    ):
        phi_a, phi_b = (np.outer(cosines(x[i]), cosines(y[i])) for i in (a, b))
        products = fields[:, *a] * fields[:, *b]
        standard_error = products.std() / np.sqrt(num_fields)
        assert abs(products.mean() - (variances * phi_a * phi_b).sum()) < 4 * standard_error


def test_log_permeability_has_its_standard_deviation():
    # Mean over the square of 2,000 fields; its standard error is under 2 %, the bar 5 of them.
    fields = gaussian_fields(np.random.default_rng(1), 2000, 16)
    log_k = np.log(LogNormalPermeability(0.7)(fields))
    np.testing.assert_allclose(np.sqrt(np.square(log_k).mean()), 0.7, rtol=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve_darcy(np.ones((3, 4))), r"shape \(3, 4\)"),
        (lambda: solve_darcy(np.zeros((3, 3))), "from 0.0 to 0.0"),
        (lambda: solve_darcy(np.ones((3, 3)), np.ones(3)), "`source` has shape"),
        (lambda: LogNormalPermeability(0), "`log_std`"),
    ],
)
def test_arguments_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()
