"""Running a model for its structure only, where drawing its latents would cost more than all else."""

import jax.numpy as jnp
from numpyro import handlers


def undrawn() -> handlers.substitute:
    """A handler that puts zeros in the place of every continuous latent that has no value."""

    def zeros(site):
        has_value = site["value"] is not None
        if site["type"] != "sample" or has_value or site["fn"].support.is_discrete:
            return None
        return jnp.zeros(site["fn"].shape(site["kwargs"].get("sample_shape", ())))

    return handlers.substitute(substitute_fn=zeros)
