"""Sampling that goes on: states, checkpoints, draws in files, thinning, and the rule that stops.

Oracle of what goes on: the run that nothing stopped, bit for bit.
"""

import os
import re
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from kaem_ppl import save_params
from kaem_ppl.inference import (
    MALA,
    NUTS,
    ImportanceSampling,
    NestedSampling,
    ParallelTempering,
    PowerLadder,
    TemperedSMC,
    Until,
    log_evidence,
    sample_posterior,
)

X = jnp.array([0.5, -1.0, 2.0])


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


def draw(sampler=MALA(), model=model, key=0, **settings):  # noqa: B008
    few = {"num_chains": 2, "num_warmup": 40, "num_samples": 60, "plate": "data", "progress_bar": False}
    return sample_posterior(jax.random.key(key), model, X, sampler=sampler, **few | settings)


def assert_equal(first, second):
    for name in second:
        np.testing.assert_array_equal(np.asarray(first[name]), np.asarray(second[name]), err_msg=name)


def assert_same_draws(first, second):
    assert_equal(first.samples, second.samples)
    assert_equal(first.sample_stats, second.sample_stats)
    assert_equal(first.positions, second.positions)
    assert first.summary.keys() == second.summary.keys()
    for name, value in second.summary.items():
        # Means over draws are summed in another order.
        np.testing.assert_allclose(first.summary[name], value, rtol=1e-5, err_msg=name)


@pytest.fixture
def saves_always(monkeypatch):
    monkeypatch.setattr("kaem_ppl.inference.sampling.storage.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("kaem_ppl.inference.sampling.storage.checkpoint.SHARE", 1e9)


class Stop(Exception):  # noqa: N818 - it is no error
    pass


def stop_after(number):
    """A callback that fails after so many pieces of work."""
    reports = []

    def callback(report):
        reports.append(report)
        if len(reports) == number:
            raise Stop

    return callback


@pytest.mark.parametrize(
    ("sampler", "plate"),
    [
        (MALA(), "data"),
        pytest.param(MALA(), None, marks=pytest.mark.slow),
        pytest.param(NUTS(max_tree_depth=4), None, marks=pytest.mark.slow),
        pytest.param(ParallelTempering(MALA()), "data", marks=pytest.mark.slow),
        pytest.param(ParallelTempering(), None, marks=pytest.mark.slow),
    ],
)
def test_a_run_in_parts_is_the_run_as_a_whole(sampler, plate, tmp_path, saves_always, capsys):
    settings = {"sampler": sampler, "plate": plate}
    whole = draw(**settings)
    first = draw(num_samples=25, **settings)
    second = draw(num_samples=35, state=first.state, **settings)
    assert_equal(second.samples, {name: x[:, 25:] for name, x in whole.samples.items()})
    # The state of the first part may be used again: it was not given away.
    assert_same_draws(first.extend(35, progress_bar=False), whole)

    thinned = draw(num_samples=20, thinning=3, **settings)
    assert_equal(thinned.samples, {name: x[:, 2::3] for name, x in whole.samples.items()})

    # In a folder: stopped in the warm-up, stopped while drawing, and made longer.
    folder = tmp_path / "run"
    for number in (2, 8):
        with pytest.raises(Stop):
            draw(checkpoint=folder, num_samples=40, callback=stop_after(number), **settings)
    draw(checkpoint=folder, num_samples=40, progress_bar=True, **settings)
    assert re.search(r"chains go on after step \d+ of (drawing|40 of warm-up)\n", capsys.readouterr().err)
    assert_same_draws(draw(checkpoint=folder, **settings), whole)

    spooled = draw(checkpoint=folder, spool=True, **settings)
    assert_same_draws(spooled, whole)
    moved = spooled.folder.rename(tmp_path / "moved")
    import xarray

    with xarray.open_dataset(moved / "draws.nc", group="posterior", engine="h5netcdf") as dataset:
        np.testing.assert_array_equal(dataset["z"], whole.samples["z"])
        assert dataset["z"].dims == ("chain", "draw", "data")
    moved.rename(folder)
    tree = spooled.to_arviz()
    assert isinstance(tree["posterior"]["z"].variable._data, xarray.core.indexing.MemoryCachedArray)
    longer = spooled.extend(5, progress_bar=False)
    np.testing.assert_array_equal(np.asarray(longer.samples["z"])[:, :60], whole.samples["z"])
    assert longer.num_samples == 65
    assert "2 chains of 60 draws" in repr(whole)
    assert "float32[2, 60" in spooled._repr_html_()


def test_blocks_of_draws_are_one_array(tmp_path, monkeypatch):
    monkeypatch.setattr("kaem_ppl.inference.sampling.storage.spool.BYTES_OF_BLOCK", 1000)
    spooled = draw(checkpoint=tmp_path / "run", spool=True)
    assert len(list((tmp_path / "run" / "draws").iterdir())) > 5
    assert_same_draws(spooled, draw())
    whole = np.asarray(draw().samples["z"])
    for index in (
        (1, slice(7, 20, 3), 2), (slice(None), -1), (..., 0), (0, slice(-5, None)), 1, (slice(None), [3, 4]),
        (0, np.int64(2), slice(1, 3)),
    ):  # fmt: skip
        np.testing.assert_array_equal(spooled.samples["z"][index], whole[index])
    # Draws that are added later are not part of these.
    assert spooled.extend(10, progress_bar=False).num_samples == 70
    assert_same_draws(spooled, draw())
    assert spooled.to_arviz()["posterior"].sizes["draw"] == 60
    with pytest.raises(IndexError, match="There are 60 draws of each chain"):
        spooled.samples["z"][0, 60]
    # A lost block is told by the next call, and read as NaN and not as 0.
    blocks = sorted((tmp_path / "run" / "draws").iterdir())
    kept = blocks[2].read_bytes()
    blocks[2].unlink()
    assert np.isnan(spooled.samples["z"]).any()
    for content in (
        None,
        kept[: len(kept) // 2],
        blocks[0].read_bytes() if len(blocks[0].read_bytes()) != len(kept) else b"",
    ):
        if content is not None:
            blocks[2].write_bytes(content)
        with pytest.raises(ValueError, match=r"`checkpoint`: .*000003\.h5 is lost or damaged"):
            draw(checkpoint=tmp_path / "run", num_samples=70)
    blocks[2].write_bytes(kept)
    assert_same_draws(draw(checkpoint=tmp_path / "run", num_samples=70), draw(num_samples=70))
    (tmp_path / "run").rename(tmp_path / "moved")
    for use in (lambda: spooled.samples["z"][0], spooled.to_arviz, lambda: spooled.extend(5, progress_bar=False)):
        with pytest.raises((FileNotFoundError, ValueError), match="is no longer there: move"):
            use()


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.exhaustive), 7])
def test_populations_and_live_points_go_on(number, tmp_path, saves_always, capsys):
    def evidence(method, progress_bar=False, **settings):
        return log_evidence(
            jax.random.key(1), model, X, method=method, plate="data", num_chains=2, num_samples=10, num_warmup=20,
            progress_bar=progress_bar, **settings,
        )  # fmt: skip

    methods = {"smc": TemperedSMC(30, MALA(), num_mutation_steps=2)}
    if number > 2:
        methods |= {"nested": NestedSampling(20, 2), "tempering": ParallelTempering(MALA(), PowerLadder(4))}
    for name, method in methods.items():
        whole = evidence(method)
        # Particles reach the posterior in four temperatures.
        at = min(number, 3) if name == "smc" else number
        with pytest.raises(Stop):
            evidence(method, checkpoint=tmp_path / name, callback=stop_after(at))
        for is_shown in (True, False):
            found = evidence(method, is_shown, checkpoint=tmp_path / name)
            np.testing.assert_array_equal(found.value, whole.value)
            np.testing.assert_array_equal(found.std_error, whole.std_error)
        words = {
            "smc": "were done before the stop",
            "nested": "live points go on after",
            "tempering": "chains go on after step",
        }
        assert words[name] in capsys.readouterr().err
    if number > 2:
        sampler = methods["smc"]
        whole = draw(sampler)
        with pytest.raises(Stop):
            draw(sampler, checkpoint=tmp_path / "particles", callback=stop_after(2))
        assert_same_draws(draw(sampler, checkpoint=tmp_path / "particles"), whole)


def test_a_folder_belongs_to_one_call(tmp_path):
    folder = tmp_path / "run"
    draw(checkpoint=folder)

    def shifted(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.1, 1))
            numpyro.sample("x", dist.Normal(z, 1), obs=x)

    for settings, words in (
        ({"sampler": MALA(0.5)}, "its sampler was 'MALA(step_size=None"),
        ({"key": 1}, "its key was [0, 0], and is [0, 1] now"),
        ({"num_chains": 3}, "its num_chains was '2', and is '3' now"),
        ({"thinning": 2}, "its thinning was '1', and is '2' now"),
        ({"model": shifted}, "its model differ"),
        ({"num_samples": 10}, "`num_samples` is 10, but `checkpoint` holds 60 draws"),
    ):
        with pytest.raises(ValueError, match="checkpoint") as error:
            draw(checkpoint=folder, **settings)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="its kind was 'sample_posterior', and is 'log_evidence' now"):
        log_evidence(jax.random.key(0), model, X, plate="data", checkpoint=folder, progress_bar=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds other files, such as thesis\.tex"):
        draw(checkpoint=tmp_path / "mine")
    (folder / "chains.npz").write_bytes(b"PK not really")
    with pytest.raises(ValueError, match="is damaged, or holds something else"):
        draw(checkpoint=folder)
    save_params(folder / "chains.npz", {"z": jnp.ones(3)})
    with pytest.raises(ValueError, match="holds something else than a state"):
        draw(checkpoint=folder)
    (folder / "run.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"damaged run\.json: expected a table, got \[1\]"):
        draw(checkpoint=folder)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"thinning": 0}, ValueError, "`thinning` must be a whole number of at least 1, got 0"),
        ({"stop": 400}, TypeError, "`stop` must be an `Until`"),
        ({"state": (1,)}, TypeError, "`state` must be the `state` of draws"),
        ({"checkpoint": 3}, TypeError, "`checkpoint` must be the path of a folder, got 3"),
        ({"checkpoint": ""}, ValueError, "`checkpoint` is empty"),
        ({"checkpoint": "a\0b"}, ValueError, "can't be written: embedded null byte"),
        ({"callback": 3}, TypeError, "`callback` must be a function of one argument"),
        ({"spool": "yes"}, TypeError, "`spool` must be True or False, got 'yes'"),
        ({"spool": True}, ValueError, "`spool` keeps draws in the folder of a `checkpoint`, which is missing"),
        (
            {"sampler": TemperedSMC(), "stop": Until()},
            ValueError,
            "`stop` is for Markov chains, and TemperedSMC has none",
        ),
        (
            {"sampler": ImportanceSampling(), "checkpoint": "x"},
            ValueError,
            "ImportanceSampling can't go on after a stop",
        ),
    ],
)
def test_refuses(settings, error, message):
    with pytest.raises(error, match=message):
        draw(**settings)


def test_a_state_of_other_chains_is_refused():
    state = draw().state
    for settings in ({"num_chains": 3}, {"sampler": ParallelTempering(MALA())}):
        with pytest.raises(ValueError, match="`state` is not a state of these chains"):
            draw(state=state, **settings)
    with pytest.raises(ValueError, match="ImportanceSampling has no chains that could go on"):
        draw(ImportanceSampling(50)).extend(3)


def test_two_processes_do_not_write_to_one_folder(tmp_path):
    script = "import sys, time; from pathlib import Path; from kaem_ppl.saving.files import locked\n"
    script += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    try:
        with pytest.raises(ValueError, match=f"is being written by process {other.pid}: wait for it"):
            draw(checkpoint=tmp_path)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told_in_one_line_and_what_was_saved_is_kept(tmp_path, monkeypatch, saves_always):
    folder = tmp_path / "run"
    with pytest.raises(Stop):
        draw(checkpoint=folder, callback=stop_after(5))
    kept = (folder / "chains.npz").read_bytes()

    def fill(file, array, allow_pickle):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"0" * 100)

    with monkeypatch.context() as patched:
        patched.setattr("numpy.lib.format.write_array", fill)
        with pytest.raises(OSError, match=r"can't be written: No space left on device\. What was saved before is kept"):
            draw(checkpoint=folder)
    assert (folder / "chains.npz").read_bytes() == kept
    assert_same_draws(draw(checkpoint=folder), draw())


@pytest.mark.slow
def test_the_rule_that_stops():
    # Oracle: ArviZ's own numbers for the draws at which it stopped, and that it did not stop before.
    from arviz_stats.base.array import array_stats

    rule = Until(r_hat=1.05, ess=300, max_samples=10_000)
    draws = draw(num_samples=30, num_warmup=200, stop=rule)
    z = np.asarray(draws.samples["z"])
    figures = rule.measure(draws.samples)
    settings = {"bulk": {}, "tail": {"prob": (0.05, 0.95)}}
    sizes = [array_stats.ess(z, chain_axis=0, draw_axis=1, method=x, **more) for x, more in settings.items()]
    np.testing.assert_allclose(figures["ess"], np.min(sizes))
    np.testing.assert_allclose(figures["r_hat"], np.max(array_stats.rhat(z, chain_axis=0, draw_axis=1)))
    assert rule.is_reached(figures)
    checks = [number for number in rule.checks(30) if number <= z.shape[1]]
    assert checks[-1] == z.shape[1]
    assert not rule.is_reached(rule.measure({"z": z[:, : checks[-2]]}))
    assert_equal(draws.samples, draw(num_samples=z.shape[1], num_warmup=200).samples)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert draw(num_samples=30, stop=Until(ess=1e6, max_samples=50)).num_samples == 50
    assert "`stop` was not reached in 50 draws of each chain" in str(caught[-1].message)
    # What does not move has no effective size.
    assert Until().measure({"z": np.zeros((2, 30))}) == {"r_hat": np.inf, "ess": 0.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r_hat": 1.0}, "`r_hat` must be a number above 1, got 1.0"),
        ({"ess": 0}, "`ess` must be a number above 0, got 0"),
        ({"ess": "many"}, "`ess` must be a number above 0, got 'many'"),
        ({"max_samples": 1.5}, "whole"),
    ],
)
def test_rules_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Until(**settings)


@pytest.mark.exhaustive
def test_means_of_runs_that_stop_by_themselves_are_covered():
    # 200 posteriors of a conjugate model, each a run of its own that all stop together with the slowest; intervals of the
    # posterior's mean, known exactly. 190 are expected to cover; outside 90 to 98 % in fewer than 1 of 500 seeds.
    from arviz_stats.base.array import array_stats

    covered = []
    for key in range(200):
        draws = sample_posterior(
            jax.random.key(key), model, X[:1], sampler=MALA(), num_warmup=200, num_samples=50, stop=Until(ess=400),
            progress_bar=False,
        )  # fmt: skip
        z = np.asarray(draws.samples["z"])[..., 0]
        error = z.std() / np.sqrt(array_stats.ess(z, chain_axis=0, draw_axis=1, method="mean"))
        covered.append(abs(z.mean() - float(X[0]) / 2) < 1.96 * error)
    assert 0.9 <= np.mean(covered) <= 0.98
