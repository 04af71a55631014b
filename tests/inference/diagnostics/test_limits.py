"""The test of agreement, against SciPy; and the page that states the limits."""

import re
from pathlib import Path

import numpy as np
import scipy.stats as st

from kaem_ppl.inference.diagnostics import limits
from kaem_ppl.inference.diagnostics.limits import disagreement_p


def test_chance_of_a_disagreement():
    rng = np.random.default_rng(0)
    values, errors = rng.normal(size=(4, 5)), rng.uniform(0.5, 2, size=(4, 5))
    precision = 1 / (errors**2 + 1e-6)
    mean = (precision * values).sum(0) / precision.sum(0)
    expected = st.chi2.sf((precision * (values - mean) ** 2).sum(0), 3)
    np.testing.assert_allclose(disagreement_p(values, errors), expected, rtol=1e-4)
    assert (disagreement_p(values[:1], errors[:1]) == 1).all()
    assert disagreement_p(np.array([0.0, 50.0]), np.array([1.0, 1.0])) < 1e-12


def test_the_page_states_every_limit():
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "diagnose.md").read_text()
    stated = {name: float(value) for name, value in re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|", page, re.M)}
    assert stated == {name: value for name, value in vars(limits).items() if name.isupper()}
