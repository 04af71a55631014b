"""One method on one problem in a process of its own: a line of JSON for each budget, which doubles until it is enough.

Run by `evidence_rivals.py` as `PYTHON evidence_runs.py PROBLEM METHOD SEED DOUBLINGS`, with our Python or the rivals'.
A budget is enough where the stated error is at most 0.1 nat and the method has no complaint. Times are those of the call
that a user makes, compilation included; imports are counted apart.
"""

import json
import resource
import sys
import time

LARGEST_ERROR = 0.1


def by_ours(name, method):
    """`log_evidence` at its defaults, times a factor."""
    import jax
    from evidence_models import make_model

    from kaem_ppl.inference import ImportanceSampling, NestedSampling, ParallelTempering, TemperedSMC, log_evidence

    model, settings = make_model(name)

    def choose(factor):
        # What a larger budget is: draws for ParallelTempering, particles or live points of the others.
        return {
            "ParallelTempering": (ParallelTempering(), 1000 * factor),
            "TemperedSMC": (TemperedSMC(1000 * factor), 1000),
            "NestedSampling": (NestedSampling(500 * factor), 1000),
            "ImportanceSampling": (ImportanceSampling(10_000 * factor), 1000),
        }[method]

    def call(factor, seed):
        chosen, draws = choose(factor)
        found = log_evidence(
            jax.random.key(seed),
            model,
            method=chosen,
            num_samples=draws,
            num_warmup=draws,
            progress_bar=False,
            **settings,
        )
        count = 4 * chosen.num_particles if method == "ImportanceSampling" else None
        return {
            "estimate": float(found.value), "std_error": float(found.std_error),
            "trusted": bool(found.is_trustworthy), "warnings": list(found.warnings), "evaluations": count,
        }  # fmt: skip

    return call


def by_dynesty(name):
    """Its static sampler, the one for evidences, at the defaults, live points times a factor."""
    import dynesty
    import numpy as np
    from evidence_problems import PROBLEMS
    from scipy.special import ndtri

    problem = PROBLEMS[name]()

    def call(factor, seed):
        sampler = dynesty.NestedSampler(
            lambda z: float(problem.log_likelihood(z, np)), lambda u: problem.transform(u, np, ndtri), problem.dimension,
            nlive=500 * factor, rstate=np.random.default_rng(seed),
        )  # fmt: skip
        # By default it ends the earlier, the more live points there are, so that its error would not shrink with them.
        sampler.run_nested(print_progress=False, dlogz=None if factor == 1 else 0.01)
        found = sampler.results
        return {
            "estimate": float(found.logz[-1]), "std_error": float(found.logzerr[-1]), "trusted": None, "warnings": [],
            "evaluations": int(np.sum(found.ncall)),
        }  # fmt: skip

    return call


def by_nautilus(name):
    """At its defaults, vectorised; its error is that of a mean of as many draws as its effective sample size."""
    import numpy as np
    from evidence_problems import PROBLEMS
    from nautilus import Sampler
    from scipy.special import ndtri

    problem = PROBLEMS[name]()

    def call(factor, seed):
        sampler = Sampler(
            lambda u: problem.transform(u, np, ndtri), lambda z: problem.log_likelihood(z, np), n_dim=problem.dimension,
            n_live=2000 * factor, vectorized=True, seed=seed,
        )  # fmt: skip
        sampler.run()
        return {
            "estimate": float(sampler.log_z), "std_error": float(sampler.n_eff**-0.5), "trusted": None, "warnings": [],
            "evaluations": int(sampler.n_like),
        }  # fmt: skip

    return call


def by_jaxns(name):
    """At its defaults, by its own loop until the stated error is small enough, roots times a factor."""
    import jax
    import jax.numpy as jnp
    from evidence_problems import PROBLEMS
    from jax.scipy.special import ndtri
    from jaxns.core import NestedSampler
    from jaxns.model import Model
    from jaxns.priors import Prior
    from tensorflow_probability.substrates.jax import distributions as tfpd

    problem = PROBLEMS[name]()

    def prior_model():
        zero, one = jnp.zeros(problem.dimension), jnp.ones(problem.dimension)
        u = Prior(tfpd.Uniform(zero, one), name="u").realise()
        return problem.log_likelihood(problem.transform(u, jnp, ndtri), jnp)

    def is_enough(state):
        return int(state.goal_loop_iter) > 0 and float(state.expected_log_Z_uncert) <= LARGEST_ERROR

    def call(factor, seed):
        # Its own loop ends before its goal at the most samples that it holds by default, 1000 for each root.
        roots = None if factor == 1 else 30 * problem.dimension * factor
        sampler = NestedSampler(model=Model(prior_model=prior_model), root_allocation_degree=roots)
        found = sampler.run_until_goal(is_enough, key=jax.random.PRNGKey(seed)).to_result()
        return {
            "estimate": float(found.log_Z_mean), "std_error": float(found.log_Z_uncert), "trusted": None, "warnings": [],
            "evaluations": int(found.total_num_likelihood_evaluations),
        }  # fmt: skip

    return call


# How each rival runs, and the package that it comes in.
RIVALS = {
    "dynesty": (by_dynesty, "dynesty"),
    "nautilus": (by_nautilus, "nautilus-sampler"),
    "jaxns": (by_jaxns, "jaxns"),
}


def main(name, method, seed, doublings):
    """Run the budgets one after another."""
    start = time.perf_counter()
    call = RIVALS[method][0](name) if method in RIVALS else by_ours(name, method)
    imports = time.perf_counter() - start
    for doubling in range(int(doublings) + 1):
        start, start_of_cpu = time.perf_counter(), time.process_time()
        found = call(2**doubling, int(seed) + 1000 * doubling)
        found |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_of_cpu}
        found |= {"budget": 2**doubling, "import_seconds": imports}
        scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
        found["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
        print(json.dumps(found), flush=True)
        if found["trusted"] is not False and found["std_error"] <= LARGEST_ERROR:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
