"""`kaem convert`: settings of the two earlier programs, written here in their formats, as settings of this one."""

import pytest

from kaem_ppl.cli import main
from kaem_ppl.cli.commands.convert import convert_settings
from kaem_ppl.cli.settings.config import read_config

PRIOR = """
[EbmModel]
layer_widths = 3, 7
spline_function = {basis}
spline_degree = 4
grid_size = 12
grid_range = -2, 2.5
π_0 = {reference}
GaussQuad_nodes = 50
[MixtureModel]
use_mixture_prior = {mixture}
"""
REST = """
[GeneratorModel]
widths = 7, 11, 13
generator_variance = 0.25
resampler = stratified
output_activation = sigmoid
[CNN]
use_cnn_lkhood = {conv}
hidden_feature_dims = 32, 16
[POST_LANGEVIN]
use_langevin = {chain}   ; posterior draws by Langevin steps
initial_step_size = 0.004
iters = 25
[THERMODYNAMIC_INTEGRATION]
num_temps = {temperatures}
p_start = 2
p_end = 5
num_cycles = 2
[TRAINING]
batch_size = 64
N_train = 900
N_test = 80
N_epochs = 30
gen_every = 5
dataset = {dataset}
resampling_threshold_factor = 0.4
[OPTIMIZER]
type = adam
learning_rate = 3e-4
[SEQ]
sequence_length = 60
vocab_size = 70
d_model = 48
"""
PLAIN = {
    "basis": "FFT", "reference": "ebm", "mixture": "false", "conv": "false", "chain": "false", "temperatures": 0,
    "dataset": "MNIST",
}  # fmt: skip
YAML = """
defaults:
  - training: tiny
  - _self_
model:
  z_dim: 9
  seed: 4
  base: kaem
  gen:
    gaussian_stddev: 0.4
    mcmc: {stepsize: 2e-3, numsteps: 12}
    optim: {lr_init: 1e-3, lr_end: 1e-4}
  ebm:
    optim: {lr_init: 1e-3}
  kaem:
    mixture: true
    kan:
      basis: rbf
      rbf: {D: 6, grid_range: [-2, 2]}
  thermo:
    num_temps: 5
logging:
  sample_every: 3
run_name: ${training.dataset}
"""
TINY = """
dataset: svhn_cropped
epochs: 17
global_batch_size: 40
image_res: 16
model_overrides:
  gen:
    blocks:
      - {channels: 24, kernel_size: 4, stride: 1, padding: VALID}
      - {channels: 12, kernel_size: 4, stride: 2, padding: SAME}
"""


def ini(tmp_path, prior=PRIOR, **changes):
    file = tmp_path / "old.ini"
    file.write_text((prior + REST).format(**PLAIN | changes))
    return file


def test_every_key_of_an_ini_that_has_a_counterpart(tmp_path, capsys):
    out = tmp_path / "new.toml"
    assert main(["convert", str(ini(tmp_path)), "--out", str(out)]) == 0
    config = read_config(out)
    assert (config.dataset, config.mode, config.seed) == ("MNIST", "importance", 0)
    assert (config.data.num_train, config.data.num_test, config.data.size) == (900, 80, None)
    model = config.model
    assert (model.kind, model.layout, model.num_latents, model.num_components) == ("kaem", "product", 7, 3)
    assert (model.basis, model.num_basis, model.domain, model.reference) == ("Fourier", 12, (-2.0, 2.5), "uniform")
    assert (model.generator, model.hidden, model.scale) == ("kan", (11, 13), 0.25)
    strategy = config.strategy
    # Without `importance_sample_size` there are as many draws as data in a batch.
    assert (strategy.num_particles, strategy.ess_threshold, strategy.resampler) == (64, 0.4, "stratified")
    training = config.training
    assert (training.num_epochs, training.batch_size, training.learning_rate) == (30, 64, 3e-4)
    assert training.sample_every == 5
    output = capsys.readouterr()
    assert f"kaem train --config {out}" in output.out
    lines = output.err.splitlines()
    assert any(line.startswith("[EbmModel] GaussQuad_nodes = 50: no counterpart; panels") for line in lines)
    assert any(line.startswith("[POST_LANGEVIN] iters = 25: not used by a KAEM with generator kan") for line in lines)
    # A file that is there is replaced only by --force.
    assert main(["convert", str(ini(tmp_path)), "--out", str(out)]) == 2
    assert "exists: give another --out, or --force" in capsys.readouterr().err
    assert main(["convert", str(ini(tmp_path, chain="true")), "--out", str(out), "--force"]) == 0
    assert read_config(out).mode == "langevin"


def test_chains_temperatures_deconvolutions_and_mixtures(tmp_path):
    file = ini(tmp_path, chain="true", temperatures=4, conv="true", mixture="true", dataset="CIFAR10")
    config, remarks = convert_settings(file)
    assert (config.dataset, config.mode, config.data.size) == ("CIFAR10", "thermo", 32)
    assert (config.model.layout, config.model.generator, config.model.hidden) == ("mixture", "conv", (32, 16))
    strategy = config.strategy
    assert (strategy.kernel, strategy.step_size, strategy.num_steps) == ("ula", 0.004, 25)
    # 30 epochs are two cycles and a half; t = 0 is counted here.
    assert (strategy.num_temperatures, strategy.power, strategy.power_period) == (5, (2.0, 5.0), 12)
    assert any(line.startswith("[THERMODYNAMIC_INTEGRATION] num_temps = 4: changed; 5,") for line in remarks)
    config, _ = convert_settings(file, "SVHN", "vanilla")
    assert (config.dataset, config.mode, config.strategy.num_steps) == ("SVHN", "langevin", 25)


@pytest.mark.parametrize(
    ("basis", "there", "num_basis"),
    [("RBF", "RBF", 12), ("BSpline", "B-spline", 12), ("Chebyshev", "Cheby", 4), ("RSWAF", "RSWAF", 12)],
)
def test_bases(basis, there, num_basis, tmp_path):
    config, remarks = convert_settings(ini(tmp_path, basis=there))
    assert (config.model.basis, config.model.num_basis) == (basis, num_basis)
    assert any("spline_degree = 4: changed; 3" in line for line in remarks) == (basis == "BSpline")


@pytest.mark.parametrize(
    ("there", "reference", "domain"),
    [
        ("gaussian", "normal", (-1.2, 1.2)),
        ("lognormal", "lognormal", (0.0, 4.0)),
        ("uniform", "uniform", (0.0, 1.0)),
        ("learnable_gaussian", "normal", (-2.0, 2.5)),
    ],
)
def test_references(there, reference, domain, tmp_path):
    config, remarks = convert_settings(ini(tmp_path, reference=there))
    assert (config.model.reference, config.model.domain) == (reference, domain)
    assert any("changed" in line and ("grid_range" in line or "π_0" in line) for line in remarks)


def test_texts_and_deep_priors(tmp_path):
    config, _ = convert_settings(ini(tmp_path, dataset="SMS_SPAM"))
    assert (config.data.length, config.data.vocabulary_size) == (60, 70)
    assert (config.model.generator, config.model.width, config.training.sample_every) == ("sequence", 48, None)
    deep = PRIOR.replace("3, 7", "100, 50, 40, 1")
    config, remarks = convert_settings(ini(tmp_path, deep, temperatures=4))
    assert (config.mode, config.model.kind) == ("langevin", "latent-ebm")
    assert (config.model.num_latents, config.model.energy_hidden) == (100, (50, 40))
    assert any("num_temps = 4: changed; a latent-ebm" in line for line in remarks)


def test_every_key_of_a_yaml_that_has_a_counterpart(tmp_path):
    file = tmp_path / "base.yaml"
    file.write_text(YAML)
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "tiny.yaml").write_text(TINY)
    config, remarks = convert_settings(file)
    assert (config.dataset, config.mode, config.seed, config.data.size) == ("SVHN", "thermo", 4, 16)
    model = config.model
    assert (model.kind, model.layout, model.num_latents, model.num_components) == ("kaem", "mixture", 9, 4)
    assert (model.basis, model.num_basis, model.domain, model.reference) == ("RBF", 6, (-2.0, 2.0), "normal")
    # Images lie in [-1, 1] there.
    assert (model.generator, model.hidden, model.scale) == ("conv", (24, 12), 0.2)
    strategy = config.strategy
    assert (strategy.step_size, strategy.num_steps, strategy.num_temperatures, strategy.power) == (2e-3, 12, 5, ())
    training = config.training
    assert (training.num_epochs, training.batch_size, training.sample_every) == (17, 40, 3)
    assert training.learning_rate == 1e-3
    assert any(line.startswith("model.gen.gaussian_stddev = 0.4: changed; 0.2,") for line in remarks)
    assert any(line.startswith("model.gen.optim.lr_end = 1e-4: no counterpart") for line in remarks)
    file.write_text(YAML.replace("base: kaem", "base: neural").replace("mixture: true", "mixture: false"))
    config, _ = convert_settings(file)
    assert (config.model.kind, config.mode, config.model.energy_hidden) == ("latent-ebm", "langevin", (200, 200))


WRONG = {
    ("old.ini", "[EbmModel]\ngrid_sise = 3\n"): "has [EbmModel] grid_sise, which is no key of the original settings",
    ("old.ini", "[EbmModel\n"): "is not INI",
    ("old.ini", "[EbmModel]\ngrid_size = many\n"): "[EbmModel] grid_size in {file} is 'many': expected a whole number",
    ("old.ini", "[EbmModel]\nspline_function = Haar\n"): "is 'Haar': expected RBF, B-spline",
    ("old.ini", "[EbmModel]\nlayer_widths = 4\n"): "layer_widths is [4]: expected P and Q",
    ("old.ini", "[GeneratorModel]\ngenerator_variance = NaN\n"): "is nan: expected a finite number",
    ("old.ini", "[TRAINING]\nN_epochs = 0\n"): "num_epochs in what {file} becomes is 0: expected at least 1",
    ("old.yaml", "model: {z_dimension: 3}"): "has model.z_dimension, which is no key",
    ("old.yaml", "model: [1"): "is not YAML",
    ("old.yaml", "- 1"): "is not a table of settings",
    ("old.yaml", "defaults: [model: none]"): "a default of {file}, can't be read",
    ("old.yaml", "model: {z_dim: 3}"): "lacks model.gen.blocks",
    ("old.toml", ""): "ends in '.toml': expected one of .ini, .yaml, .yml",
    ("none.ini", None): "none.ini does not exist: expected a .ini file with settings of an earlier program",
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_what_is_no_settings_of_theirs_is_answered_in_one_line(case, tmp_path, capsys):
    file, out = tmp_path / case[0], tmp_path / "new.toml"
    if case[1] is not None:
        file.write_text(case[1])
    assert main(["convert", str(file), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert WRONG[case].format(file=file) in error
    assert error.count("\n") == 1
    assert not out.exists()
