"""Formulations by platform, images one after the other, and what only some of many targets need."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend import core
from jax.interpreters import partial_eval
from jaxtyping import Array, Bool, Float

Function = Callable[[Array], Array]
_AT_ONCE = 4  # of the targets that need something rare


def by_platform(cpu: Callable[..., Any], other: Callable[..., Any], *arguments: Any) -> Any:
    """Compute with one of two formulations, chosen when the program is lowered.

    So a program for a GPU can be lowered and exported on a machine without one. Only the chosen one gets
    into the program; both are traced.

    Args:
        cpu: the formulation for CPUs.
        other: the formulation for accelerators; equal but for rounding.
        arguments: arrays, or trees of them.
    """
    return lax.platform_dependent(*arguments, cpu=cpu, default=other)


def one_by_one(function: Function, images: Float[Array, "n h w c"]) -> Float[Array, "n a b d"]:
    """Apply a function of a batch to its images in turn.

    Args:
        function: ``(1, h, w, c)`` to ``(1, a, b, d)``.
        images: ``(n, h, w, c)``.
    """
    if images.shape[0] == 1:
        return function(images)
    return lax.map(lambda image: function(image[None])[0], images)


def image_by_image(network: Function, images: Float[Array, "n h w c"]) -> Float[Array, "n a b d"]:
    """Run a network at rest on images: together, or on CPUs `one_by_one`.

    There one image's maps stay in the cache from layer to layer, and the working memory, which the
    system hands out anew at each call, is that of one image.

    Args:
        network: ``(n, h, w, c)`` to ``(n, a, b, d)``, each image for itself (no batch statistics).
        images: ``(n, h, w, c)``.
    """
    if images.shape[0] == 1:
        return network(images)
    return by_platform(lambda x: one_by_one(network, x), network, images)


def rarely(
    rare: Callable[..., Any],
    usual: Callable[..., Any],
    config: Any,
    condition: Bool[Array, ""],
    *arguments: Any,
) -> Any:
    """Compute what is rarely needed: `jax.lax.cond` that stays one under `jax.vmap`.

    There a condition becomes a selection between both, computed for all. This computes what is usual for
    all, then what is rare for those that need it, a few at a time. Gradients of any order, but no forward
    mode.

    Args:
        rare: ``(config, *arguments) -> tree``, where the condition holds; closes over no arrays.
        usual: likewise, elsewhere; much cheaper.
        config: settings (static). A search makes arrays of some: then it is computed for all.
        condition: which.
        arguments: arrays, or trees of them.
    """
    ways = functools.partial(rare, config), functools.partial(usual, config)
    try:
        hash(config)
    except TypeError:
        return lax.cond(condition, *ways, *arguments)
    return _rarely(*ways, condition, *arguments)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rarely(rare: Any, usual: Any, condition: Array, *arguments: Any) -> Any:
    return _chooser(rare, usual)(condition, arguments)


def _rarely_forward(rare: Any, usual: Any, condition: Array, *arguments: Any) -> Any:
    return _rarely(rare, usual, condition, *arguments), (condition, arguments)


def _rarely_backward(rare: Any, usual: Any, kept: Any, cotangent: Any) -> Any:
    condition, arguments = kept
    _, pull = jax.vjp(lambda *given: lax.cond(condition, rare, usual, *given), *arguments)
    return None, *pull(cotangent)


_rarely.defvjp(_rarely_forward, _rarely_backward)


def _lean(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function without what its result does not need.

    Compilation takes that out of a program, but leaves a function under `custom_vmap` as it is: what both
    call would then be there twice.
    """

    def lean(*arguments: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        needed = [True] * len(traced.jaxpr.outvars)
        jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr, needed, instantiate=True)
        run = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, traced.consts))
        return jax.tree.unflatten(jax.tree.structure(shapes), run(*jax.tree.leaves(arguments)))

    return lean


def _chooser(rare: Callable[..., Any], usual: Callable[..., Any]) -> Callable[[Array, Any], Any]:
    lean = _lean(rare)

    @custom_vmap
    def choose(condition: Array, arguments: tuple[Any, ...]) -> Any:
        return lax.cond(condition, lean, usual, *arguments)

    @choose.def_vmap
    def choose_for_all(count: int, batched: Any, condition: Array, arguments: Any) -> Any:
        one_for_all, together = not batched[0], batched[1]
        axes = jax.tree.map(lambda has: 0 if has else None, together)
        ways = [jax.vmap(way, axes, axis_size=count) for way in (lean, usual)]
        if one_for_all:
            found = lax.cond(condition, *ways, *arguments)
            return found, jax.tree.map(lambda _: True, found)
        found = ways[1](*arguments)
        few = min(_AT_ONCE, count)
        # Those that need it first; beyond the end, places that nothing is written to.
        order = jnp.argsort(~condition, stable=True).astype(jnp.int32)
        order = jnp.pad(order, (0, few), constant_values=count)
        needed = jnp.sum(condition, dtype=jnp.int32)

        def some(number: Array, found: Any) -> Any:
            places = lax.dynamic_slice(order, (few * number,), (few,))
            places = jnp.where(few * number + jnp.arange(few) < needed, places, count)
            given = jax.tree.map(
                lambda leaf, has: leaf.at[places].get(mode="clip") if has else leaf,
                arguments,
                together,
            )
            made = jax.vmap(lean, axes, axis_size=few)(*given)
            return jax.tree.map(lambda old, new: old.at[places].set(new, mode="drop"), found, made)

        found = lax.fori_loop(0, (needed + few - 1) // few, some, found)
        return found, jax.tree.map(lambda _: True, found)

    return choose
