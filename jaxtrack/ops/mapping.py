"""Formulations by platform, images one after the other, and what only some of many targets need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend import core
from jax.interpreters import ad, batching, mlir, partial_eval
from jaxtyping import Array, Bool, Float

Function = Callable[[Array], Array]
_AT_ONCE = 4  # of the targets that need something rare


def by_platform(
    cpu: Callable[..., Any],
    other: Callable[..., Any],
    *arguments: Any,
    training: Callable[..., Any] | None = None,
) -> Any:
    """Compute with one of two formulations, chosen when the program is lowered.

    So a program for a GPU can be lowered and exported on a machine without one, and only the chosen one gets
    into the program. Beside it that for accelerators is traced once, for the shapes of the results
    (`jax.lax.platform_dependent` traces all of them, and all their gradients). The gradient, of any order
    but without forward mode, is chosen again, from the arguments alone.

    Args:
        cpu: the formulation for CPUs; closes over no arrays.
        other: the formulation for accelerators, likewise; equal but for rounding.
        arguments: arrays, or trees of them.
        training: the formulation for CPUs where a gradient is taken; None: the same.
    """
    leaves, tree = jax.tree.flatten(arguments)
    traced, shapes = jax.make_jaxpr(other, return_shape=True)(*arguments)
    outputs = tuple(traced.out_avals)
    forms = tuple(_Flat(form, tree) for form in (cpu, other, training or cpu))
    found = by_platform_p.bind(*leaves, forms=forms, outputs=outputs)
    return jax.tree.unflatten(jax.tree.structure(shapes), found)


@dataclasses.dataclass(frozen=True)
class _Flat:
    """A function of trees as one of their leaves, which returns its own leaves; equal ones are equal."""

    function: Callable[..., Any]
    tree: Any

    def __call__(self, *leaves: Any) -> list[Any]:
        return jax.tree.leaves(self.function(*jax.tree.unflatten(self.tree, leaves)))


@dataclasses.dataclass(frozen=True)
class _Pull:
    """The gradient of a function with respect to some of its arguments, of all of them and cotangents."""

    form: Callable[..., list[Any]]
    count: int
    places: tuple[int, ...]

    def __call__(self, *given: Any) -> list[Any]:
        arguments, cotangents = given[: self.count], given[self.count :]

        def of(*moving: Any) -> list[Any]:
            whole = list(arguments)
            for place, value in zip(self.places, moving):
                whole[place] = value
            return self.form(*whole)

        return list(jax.vjp(of, *(arguments[i] for i in self.places))[1](list(cotangents)))


@dataclasses.dataclass(frozen=True)
class _ForAll:
    """A function under `jax.vmap`."""

    form: Callable[..., list[Any]]
    axes: tuple[int | None, ...]

    def __call__(self, *leaves: Any) -> list[Any]:
        return jax.vmap(self.form, self.axes)(*leaves)


# The choice itself: ``forms`` are functions of leaves (for CPUs, for others, for CPUs in training),
# ``outputs`` the types of their results.
by_platform_p = core.Primitive("by_platform")
by_platform_p.multiple_results = True
# What it adds for small changes of the arguments at ``places``; only ever transposed.
slope_p = core.Primitive("by_platform_slope")
slope_p.multiple_results = True


@by_platform_p.def_abstract_eval
@slope_p.def_abstract_eval
def _shapes_of_choice(*_: Any, outputs: Any, **__: Any) -> list[Any]:
    return list(outputs)


@by_platform_p.def_impl
def _choice_alone(*leaves: Any, **settings: Any) -> list[Any]:
    return _compiled(leaves, tuple(settings.items()))


@functools.partial(jax.jit, static_argnums=1)
def _compiled(leaves: Any, settings: Any) -> list[Any]:
    return by_platform_p.bind(*leaves, **dict(settings))


def _choice_moves(
    primals: Any, tangents: Any, *, forms: Any, outputs: Any
) -> tuple[list[Any], list[Any]]:
    settings = {"forms": (forms[2], *forms[1:]), "outputs": outputs}
    places = tuple(i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero))
    moving = [tangents[i] for i in places]
    moves = slope_p.bind(*primals, *moving, places=places, **settings)
    return by_platform_p.bind(*primals, **settings), moves


def _slope_pulls(
    cotangents: Any, *given: Any, places: tuple[int, ...], forms: Any, outputs: Any
) -> list[Any]:
    count = len(given) - len(places)
    forms = tuple(_Pull(form, count, places) for form in forms)
    wanted = tuple(jax.typeof(given[i]) for i in places)
    whole = map(ad.instantiate_zeros, cotangents)
    pulled = by_platform_p.bind(*given[:count], *whole, forms=forms, outputs=wanted)
    return [None] * count + pulled


def _choice_for_all(leaves: Any, axes: Any, *, forms: Any, outputs: Any) -> tuple[Any, Any]:
    forms = tuple(_ForAll(form, tuple(axes)) for form in forms)
    outputs = tuple(jax.make_jaxpr(forms[1])(*leaves).out_avals)
    return by_platform_p.bind(*leaves, forms=forms, outputs=outputs), [0] * len(outputs)


def _lowered_form(place: int) -> Any:
    def form(*leaves: Any, forms: Any, outputs: Any) -> list[Any]:
        return forms[place](*leaves)

    return mlir.lower_fun(form, multiple_results=True)


ad.primitive_jvps[by_platform_p] = _choice_moves
ad.primitive_transposes[slope_p] = _slope_pulls
batching.primitive_batchers[by_platform_p] = _choice_for_all
mlir.register_lowering(by_platform_p, _lowered_form(0), platform="cpu")
mlir.register_lowering(by_platform_p, _lowered_form(1))


def one_by_one(function: Function, images: Float[Array, "n h w c"]) -> Float[Array, "n a b d"]:
    """Apply a function of a batch to its images in turn.

    Args:
        function: ``(1, h, w, c)`` to ``(1, a, b, d)``.
        images: ``(n, h, w, c)``.
    """
    if images.shape[0] == 1:
        return function(images)
    return lax.map(lambda image: function(image[None])[0], images)


def image_by_image(
    network: Callable[[Array, Any], Array], images: Float[Array, "n h w c"], variables: Any
) -> Float[Array, "n a b d"]:
    """Run a network at rest on images: together, or on CPUs `one_by_one`.

    There one image's maps stay in the cache from layer to layer, and the working memory, which the
    system hands out anew at each call, is that of one image.

    Args:
        network: ``(n, h, w, c)`` and variables to ``(n, a, b, d)``, each image for itself (no batch
            statistics); closes over no arrays.
        images: ``(n, h, w, c)``.
        variables: of the network.
    """
    if images.shape[0] == 1:
        return network(images, variables)

    def in_turn(images: Array, variables: Any) -> Array:
        return one_by_one(lambda image: network(image, variables), images)

    return by_platform(in_turn, network, images, variables)


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
