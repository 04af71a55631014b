"""The demo leaves readable results behind, also when it is cut short."""

import csv

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
import kaem_ppl as kp
from kaem_ppl.cli import demo
from kaem_ppl.inference import ImportanceSampling, log_evidence


@pytest.mark.slow
def test_a_short_run_writes_everything(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "NUM_EVIDENCE_DRAWS", 2000)
    demo.main(["--out", str(tmp_path / "digits"), "--epochs", "2", "--particles", "50"])
    out = tmp_path / "digits"
    names = ["demo.json", "history.csv", "parameters.npz", "posterior_check.csv", "prior.png", "samples.png"]
    assert sorted(path.name for path in out.iterdir()) == names

    parameters = np.load(out / "parameters.npz")
    assert parameters["prior$params/coef"].shape == (8, 1, 20)
    assert parameters["generator$params/layer_0/weight"].shape == (8, 256)
    with (out / "posterior_check.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 297
    assert {"digit", "log_evidence", "effective_sample_size"} < set(rows[0])
    assert all(1 <= float(row["effective_sample_size"]) <= 2000.1 for row in rows)
    assert len((out / "history.csv").read_text().splitlines()) == 3

    opened = kp.open_run(out)
    assert opened.data.values.shape == (297, 64)
    assert opened.training_data().values.shape == (1500, 64)
    np.testing.assert_array_equal(opened.params["prior$params"]["coef"], parameters["prior$params/coef"])
    np.testing.assert_array_equal(opened.history["epoch"], [1, 2])
    # Oracle: the evidence in the table, by the same model and other draws.
    evidence = log_evidence(
        jax.random.key(9), opened.model, opened.data.values[:20], params=opened.params, method=ImportanceSampling(2000),
        plate="data", num_chains=1, progress_bar=False,
    )  # fmt: skip
    assert abs(np.mean(evidence.value) - np.mean([float(row["log_evidence"]) for row in rows[:20]])) < 5
    assert "held-out log-evidence:" in capsys.readouterr().out
