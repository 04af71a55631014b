"""Where Markov chains stand, to go on from."""

from typing import Any, NamedTuple


class ChainsState(NamedTuple):
    """Where Markov chains stand between two steps: a tree of arrays and numbers, from which they go on bit for bit.

    Attributes:
        carry: what moves, and what it has learnt, arrays (C, N, ...).
        key: key data of the random stream.
        num_warmup: steps of warm-up in all.
        num_warmed_up: steps of warm-up that are done.
        num_steps: steps after warm-up.
        num_replicas: of each chain.
        chunk_length: steps of a compiled chunk.
        seconds: time spent on drawing.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import HMC, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> options = {"sampler": HMC(num_integration_steps=3), "num_warmup": 20, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, num_samples=20, **options)
        >>> more = sample_posterior(jax.random.key(0), model, 2.0, num_samples=20, state=draws.state, **options)
        >>> whole = sample_posterior(jax.random.key(0), model, 2.0, num_samples=40, **options)
        >>> bool((more.samples["z"] == whole.samples["z"][:, 20:]).all())
        True
    """

    carry: Any
    key: Any
    num_warmup: Any
    num_warmed_up: Any
    num_steps: Any
    num_replicas: Any
    chunk_length: Any
    seconds: Any
