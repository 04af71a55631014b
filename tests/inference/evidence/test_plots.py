import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_ppl.inference import Curve, Estimate, LogEvidence, LogEvidenceBounds, ParallelTempering, TemperedSMC
from kaem_ppl.inference.evidence.plots import plot_bounds, plot_estimates, plot_thermodynamic_curve


def evidence(*, trust=True, plate=None, method=ParallelTempering()):  # noqa: B008
    """As `log_evidence` returns it: a curve t - 2 at three temperatures, whose area is -1.5."""
    t = np.array([0.0, 0.25, 1.0])
    steps, mean = np.diff(t), t - 2
    curve = Curve(t, mean, np.full(3, 0.05), (steps * mean[:-1]).sum(), (steps * mean[1:]).sum())
    estimates = {
        name: Estimate(np.array(value), np.array(0.1), np.array(trust))
        for name, value in (("steppingstone", -1.4), ("thermodynamic_integration", -1.5))
    }
    curve, estimates = curve if isinstance(method, ParallelTempering) else None, estimates
    if plate is not None:
        curve, estimates = jax.tree.map(lambda x: np.stack([x, x]), (curve, estimates))
    return LogEvidence(*estimates["steppingstone"][:3], (), estimates, curve, {}, method, plate, 1.0)


@pytest.mark.parametrize("plate", [None, "data"])
def test_the_area_is_the_estimate(plate):
    figure = plot_thermodynamic_curve(evidence(plate=plate), datum=1)
    panel = figure.axes[0]
    line = panel.lines[0]
    np.testing.assert_allclose(np.trapezoid(line.get_ydata(), line.get_xdata()), -1.5)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["area -1.50 ± 0.10", "lower sum -1.81", "upper sum -1.19"]
    assert "temperature" in panel.get_xlabel()
    assert "nats" in panel.get_ylabel()
    assert panel.get_title(loc="left") == ("" if plate is None else "datum 1 of 2")
    # Far from 0 the curve fills the picture, not a box under it.
    far = evidence()
    far = dataclasses.replace(far, curve=far.curve._replace(mean=far.curve.mean + 500))
    low, high = plot_thermodynamic_curve(far).axes[0].get_ylim()
    assert high - low < 3
    assert low < 498 < 499 < high


def test_bounds_stand_around_their_middle():
    lower, upper = np.array([-3.0, -7.0]), np.array([-2.0, -6.5])
    bounds = LogEvidenceBounds(lower, np.full(2, 0.1), upper, np.full(2, 0.2), {"x": jnp.zeros(2)})
    panel = plot_bounds(bounds).axes[0]
    above, below = (container.lines[0].get_ydata() for container in panel.containers)
    # By log-evidence: the second datum comes first.
    np.testing.assert_allclose(above, [0.25, 0.5])
    np.testing.assert_allclose(below, [-0.25, -0.5])
    assert panel.get_title() == "mean gap 0.75 nats"


def test_estimators_side_by_side():
    figure = plot_estimates({"first": evidence(), "second": evidence(trust=False)}, exact=-1.45)
    panel = figure.axes[0]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == [
        f"{name}: {kind}" for name in ("first", "second") for kind in ("steppingstone", "thermodynamic integration")
    ]
    points = [container.lines[0] for container in panel.containers]
    np.testing.assert_allclose([point.get_xdata()[0] for point in points], [-1.4, -1.5] * 2)
    # What does not trust itself is hollow.
    assert [point.get_markerfacecolor() == "white" for point in points] == [False, False, True, True]


def test_refuses():
    with pytest.raises(ValueError, match="TemperedSMC, which measures no curve"):
        plot_thermodynamic_curve(evidence(method=TemperedSMC()))
    with pytest.raises(IndexError):
        plot_thermodynamic_curve(evidence(plate="data"), datum=2)
    with pytest.raises(ValueError, match="`evidences` is empty"):
        plot_estimates({})


def test_numbers_at_the_ticks_are_written_in_full():
    # Far from 0, matplotlib writes 0.2 and adds 1.305e3 in a corner.
    found = evidence()
    estimates = {name: Estimate(x.value + 1306.8, x.std_error, x.is_trustworthy) for name, x in found.estimates.items()}
    figure = plot_estimates({"tempering": dataclasses.replace(found, estimates=estimates)})
    figure.canvas.draw()
    axis = figure.axes[0].xaxis
    assert axis.get_offset_text().get_text() == ""
    assert all(1300 < float(label.get_text()) < 1310 for label in axis.get_ticklabels())
