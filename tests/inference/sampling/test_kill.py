"""Sampling and evidence killed at random moments, by every signal, and resumed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def kill_and_compare(folder, num_kills, jobs):
    """How many runs were stopped before they were done; all of them end as the one that nothing stopped."""
    script = Path(__file__).with_name("kill.py")
    command = [sys.executable, str(script), str(folder), str(num_kills), "0", *jobs]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    output = done.stdout
    assert done.returncode == 0, output
    for job in jobs:
        whole = np.load(folder / job / "whole.npz")
        results = list((folder / job).glob("killed-*.npz"))
        assert len(results) == num_kills, output
        for path in results:
            found = np.load(path)
            for name in whole.files:
                np.testing.assert_array_equal(found[name], whole[name], err_msg=f"{path} {name}")
    return output.count("stopped")


@pytest.mark.slow
def test_a_few_moments(tmp_path):
    assert kill_and_compare(tmp_path, 2, ["nuts"]) >= 1


@pytest.mark.exhaustive
def test_many_moments(tmp_path):
    assert kill_and_compare(tmp_path, 12, ["nuts", "tempering", "smc", "nested"]) >= 40
