"""How many digits products are computed with: one choice for tracking and training.

``highest``: float32 products, what parity is measured with. ``high``: inputs of products are rounded to
TF32 where the device has it (NVIDIA GPUs from Ampere on); sums stay float32. ``bfloat16``: networks compute
in bfloat16; parameters, normalisation, softmax and box arithmetic stay float32, and so do the master
weights of training. On a CPU ``high`` is ``highest``.

``auto`` is ``highest`` on a CPU and ``high`` on accelerators. bfloat16 is a choice and no default: what it
changes is to be measured for each tracker first (``python -m eval.studies.precision``).

A command takes the choice as a field ``precision: Choice = "auto"`` of its options and encloses everything
that compiles in ``with precision.using(options.precision):``. Nothing else has to know of it: products ask
`of` and networks ask `compute_dtype` while they are traced. The context is JAX's own
``jax_default_matmul_precision``, which belongs to the key of every compiled function, so that two
precisions never share a program; like every context of JAX it holds in the thread that entered it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

Precision = Literal["highest", "high", "bfloat16"]
Choice = Literal["auto", "highest", "high", "bfloat16"]


def using(choice: Choice, platform: str | None = None) -> AbstractContextManager[Any]:
    """Return the context in which programs are made with a precision.

    Args:
        choice: see the module.
        platform: ``cpu``, ``gpu``, ``tpu``; None: where JAX runs.
    """
    if choice == "auto":
        choice = "highest" if (platform or jax.default_backend()) == "cpu" else "high"
    return jax.default_matmul_precision(choice)


def current() -> Precision:
    """Return the precision in force; ``highest`` where none was chosen."""
    chosen = getattr(jax.config, "jax_default_matmul_precision", None)
    if chosen in ("bfloat16", "high"):
        return chosen
    return "highest"


def of(dtype: Any) -> lax.Precision | None:
    """Return the precision of a product of arrays of a dtype: real float32 unless less was chosen.

    Args:
        dtype: of the operands.
    """
    if dtype != jnp.float32:
        return None
    return lax.Precision.HIGHEST if current() == "highest" else lax.Precision.HIGH


def compute_dtype(dtype: Any = jnp.float32) -> Any:
    """Return the dtype that networks compute in: their own, or bfloat16 where that was chosen.

    Args:
        dtype: what the network's config asks for.
    """
    return jnp.bfloat16 if current() == "bfloat16" else jnp.dtype(dtype)
