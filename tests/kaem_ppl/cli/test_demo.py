"""The demo leaves readable results behind, also when it is cut short."""

import csv

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
from kaem_ppl.cli import demo


@pytest.mark.slow
def test_a_short_run_writes_everything(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "NUM_EVIDENCE_DRAWS", 2000)
    demo.main(["--out", str(tmp_path / "digits"), "--epochs", "2", "--particles", "50"])
    out = tmp_path / "digits"
    names = ["history.csv", "parameters.npz", "posterior_check.csv", "prior.png", "samples.png"]
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
    assert "held-out log-evidence:" in capsys.readouterr().out
