"""Checkpoints: everything comes back bit for bit, damage is passed over, and the right ones are kept."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kaem_ppl.cli import main
from kaem_ppl.cli.errors import CommandError
from kaem_ppl.cli.settings.config import resolve
from kaem_ppl.cli.storage.checkpoints import Checkpoint, Checkpoints, Place
from kaem_ppl.inference import TrainingState
from kaem_ppl.inference.training.strategies.persistent_chains import PersistentChains
from kaem_ppl.saving.trees import describe, rebuild

pytest.importorskip("orbax.checkpoint")


def state_after(epoch):
    params = {"prior$params": {"coef": jnp.arange(3.0) / 7 + epoch}, "generator$params": {"bias": jnp.zeros(0)}}
    optimizer = optax.multi_transform(
        {"prior": optax.adam(1e-3), "generator": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9))},
        {"prior$params": "prior", "generator$params": "generator"},
    )
    memory = PersistentChains({"z": jnp.ones((4, 2))}, jnp.full(4, -jnp.inf), jnp.zeros(4, jnp.int32))
    key = jax.random.key_data(jax.random.key(3))
    return TrainingState(
        params, {}, optimizer.init(params), memory, jnp.int32(epoch), jnp.int32(0), {"loss": jnp.zeros(())}, key, (),
        (params, {}), jnp.array(True),
    )  # fmt: skip


def checkpoint(epoch, losses, step=0):
    rows = [{"epoch": number + 1, "loss": loss} for number, loss in enumerate(losses[:epoch])]
    return Checkpoint(Place(epoch, step), state_after(epoch), rows, "seed = 0\n")


def fail(message):
    raise AssertionError(message)


def test_a_state_comes_back_bit_for_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    saved = checkpoint(2, [0.1, float("nan")])
    checkpoints.save(saved)
    loaded = checkpoints.load_last(fail)
    assert jax.tree.structure(loaded.state) == jax.tree.structure(saved.state)
    for new, old in zip(jax.tree.leaves(loaded.state), jax.tree.leaves(saved.state), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)
    assert loaded.config == saved.config
    np.testing.assert_equal(loaded.rows, saved.rows)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["000002"]


def test_the_last_ones_and_the_best_are_kept_and_damaged_ones_passed_over(tmp_path):
    checkpoints = Checkpoints(tmp_path, num_kept=2)
    losses = [3.0, 1.0, 2.0, 4.0, 5.0]
    for epoch in range(1, 6):
        checkpoints.save(checkpoint(epoch, losses))
    assert checkpoints.places() == [(2, 0), (4, 0), (5, 0)]
    assert checkpoints.load_best(fail).place == (2, 0)
    # A byte of the largest file turned over.
    largest = max((tmp_path / "000005" / "arrays").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    (tmp_path / "000004" / "notes.json").write_text('{"rows": [')
    # What a killed process leaves behind is not a checkpoint.
    (tmp_path / ".000006.part").mkdir()
    warnings = []
    assert checkpoints.load_last(warnings.append).place == (2, 0)
    assert [str(tmp_path / name) in text for name, text in zip(("000005", "000004"), warnings, strict=True)] == [
        True
    ] * 2
    (tmp_path / "000002" / "notes.json").unlink()
    with pytest.raises(CommandError, match=r"All checkpoints in .* are damaged") as error:
        checkpoints.load_last(warnings.append)
    assert error.value.status == 1


def test_a_checkpoint_that_can_not_be_written_leaves_the_others(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(checkpoint(1, [1.0, 2.0]))
    # A file where the next one is to be written.
    (tmp_path / "checkpoints" / ".000002.part").write_text("")
    with pytest.raises(CommandError, match=r"epoch 2 can't be written .* The last good one is that of epoch 1"):
        checkpoints.save(checkpoint(2, [1.0, 2.0]))
    assert checkpoints.load_last(fail).place == (1, 0)


def test_a_full_disk_is_noticed_before_training(tmp_path, monkeypatch):
    checkpoints, state = Checkpoints(tmp_path / "checkpoints"), checkpoint(1, [1.0]).state
    checkpoints.check_space(state)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3))
    with pytest.raises(CommandError, match=r"A checkpoint takes .* MB, and the disk of .* has 0\.0 MB left") as error:
        checkpoints.check_space(state)
    assert error.value.status == 1


def test_inside_an_epoch(tmp_path):
    # The best is one after an epoch: inside of one, its loss is not known.
    checkpoints, losses = Checkpoints(tmp_path, num_kept=2), [1.0, 2.0]
    for epoch, step in ((1, 0), (1, 20), (1, 130), (2, 0), (2, 9)):
        checkpoints.save(checkpoint(epoch, losses, step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000002", "000002+000009"]
    assert checkpoints.load_last(fail).place == (2, 9)
    assert checkpoints.load_best(fail).place == (1, 0)
    assert [str(place) for place in checkpoints.places()] == ["epoch 1", "epoch 2", "epoch 3, step 9"]


def test_structures_of_other_packages_are_refused():
    for description in ({"named_tuple": ["os", "stat_result"], "fields": [0]}, {"set": []}, "x"):
        with pytest.raises(ValueError, match="unknown structure"):
            rebuild(description, [1])
    with pytest.raises(TypeError, match=r"holds a builtins\.dict"):
        describe({1.5: 2})


def test_a_read_only_run_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    # The oracle is the operating system: root may write anywhere, so the folder is taken by a file.
    (tmp_path / "config.toml").write_text(resolve("DIGITS", "importance", None, {}).to_toml())
    (tmp_path / "results").write_text("")
    for command in ("sample", "evaluate", "diagnose", "evidence", "plot", "traverse", "interpolate"):
        assert main([command, str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert f"{tmp_path / 'results'} can't be written: " in error
        assert "Give a folder by --out." in error
        assert error.count("\n") == 1
        # With another place for its results it goes on to what is wrong next.
        assert main([command, str(tmp_path), "--out", str(tmp_path / "elsewhere" / command)]) == 2
        assert "has no checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.glob("elsewhere/*"))
