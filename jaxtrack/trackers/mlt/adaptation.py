"""Adapting the last layer of a network to a target: gradients, memory, and ways to adapt side by side.

Nothing here knows a network. A `Problem` holds the last layer's kernel, a function that gives the response
on one patch under any kernel, a loss of a response, and patches with weights. The ways to adapt
(`meta_learned`, `gradient_steps`, `adam_steps`, `ridge`) all take a `Problem` and return an `Adapted`,
so that they can be exchanged and compared; all are differentiable, also with respect to their settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops.response import entropy

Patch = Any  # a tree of arrays: what one patch is for the network
PatchLoss = Callable[[Array, Patch], Array]
Moments = tuple[Any, Any, Any]  # values with Adam's two moments


class Adapted(NamedTuple):
    """A last layer made for one target.

    Attributes:
        template_kernel: ``(kh, kw, i, p)`` for the template; p = o, or more with new kernels behind.
        search_kernel: likewise for the search region (the same array, unless only that branch adapts).
        attention: ``(p,)`` factor of each channel.
    """

    template_kernel: Float[Array, "kh kw i p"]
    search_kernel: Float[Array, "kh kw i p"]
    attention: Float[Array, "p"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What there is to adapt to.

    Attributes:
        kernel: ``(kh, kw, i, o)`` the last layer's own kernel.
        respond: ``(template_kernel, search_kernel, patch, attention=None) -> (m, m)`` response (logits).
        loss: ``response -> ()``, the loss against labels that assume the target at the centre.
        labels: ``(m, m)`` those labels, 1 and 0.
        patches: tree of arrays with a leading axis of n patches.
        weights: ``(n,)`` weight of each patch in the mean; zero: not there.
    """

    kernel: Float[Array, "kh kw i o"]
    respond: Callable[..., Float[Array, "m m"]]
    loss: Callable[[Float[Array, "m m"]], Float[Array, ""]]
    labels: Float[Array, "m m"]
    patches: Patch
    weights: Float[Array, "n"]

    def patch_loss(self, kernel: Array, patch: Patch) -> Float[Array, ""]:
        """Return the loss of one patch with one kernel in both branches."""
        return self.loss(self.respond(kernel, kernel, patch))


def mean_loss(
    kernel: Array, loss: PatchLoss, patches: Patch, weights: Float[Array, "n"] | None = None
) -> Float[Array, ""]:
    """Return the weighted mean of a loss over patches (without weights: all alike; all zero: zero)."""
    losses = jax.vmap(loss, in_axes=(None, 0))(kernel, patches)
    if weights is None:
        return jnp.mean(losses)
    total = jnp.sum(weights)
    return jnp.sum(weights * losses) / jnp.where(total > 0, total, 1)


def negative_gradient(
    kernel: Array, loss: PatchLoss, patches: Patch, weights: Float[Array, "n"] | None = None
) -> Array:
    """Return ``delta = -(1 / M) sum_i d loss(kernel, patch_i) / d kernel``, by automatic differentiation.

    Args:
        kernel: the last layer's values (an array, or a tree).
        loss: ``(kernel, patch) -> ()``: the real loss through the real network.
        patches: tree of arrays with a leading axis of M patches.
        weights: ``(M,)``; None: all alike.

    Reference:
        MLT, equation 2.
    """
    gradient = jax.grad(mean_loss)(kernel, loss, patches, weights)
    return jax.tree.map(jnp.negative, gradient)


def scale_gradient(delta: Array, kind: Literal["none", "rms"], factor: float | Array) -> Array:
    """Bring a gradient to the order of one: times ``factor``, with ``rms`` divided by its root mean square.

    The magnitude of a gradient falls by orders as the patches are matched better; ``rms`` keeps the
    direction alone. A gradient of zero stays zero.
    """
    if kind == "rms":
        power = jnp.mean(jnp.square(delta))
        positive = power > 0
        delta = delta * jnp.where(positive, lax.rsqrt(jnp.where(positive, power, 1)), 0)
    return delta * factor


def adapt(
    kernel: Array,
    loss: PatchLoss,
    patches: Patch,
    learner: Callable[[Array], tuple[Array, Array]],
    weights: Float[Array, "n"] | None = None,
    first_order: bool = False,
) -> Adapted:
    """Extend a last layer by what a meta-learner makes of its gradient.

    Args:
        kernel: ``(kh, kw, i, o)`` the last layer's kernel; it stays as it is, bit for bit.
        loss: ``(kernel, patch) -> ()``.
        patches: tree of arrays with a leading axis of M patches.
        learner: ``delta -> (new kernels (kh, kw, i, t), attention (o + t,))``.
        weights: ``(M,)`` weight of each patch.
        first_order: treat the gradient as a constant in later differentiation.

    Reference:
        MLT, equations 2 to 4: ``w_adapt = [w_N, g(delta)]``.
    """
    delta = negative_gradient(kernel, loss, patches, weights)
    if first_order:
        delta = lax.stop_gradient(delta)
    new, attention = learner(delta)
    extended = jnp.concatenate([kernel, new.astype(kernel.dtype)], axis=-1)
    return Adapted(extended, extended, attention)


def unadapted(problem: Problem) -> Adapted:
    """Return the layer as it is."""
    ones = jnp.ones(problem.kernel.shape[-1:], problem.kernel.dtype)
    return Adapted(problem.kernel, problem.kernel, ones)


def meta_learned(
    problem: Problem,
    learner: Callable[[Array], tuple[Array, Array]],
    first_order: bool = False,
) -> Adapted:
    """Call `adapt` on a `Problem`: one gradient, one forward pass of the meta-learner."""
    return adapt(
        problem.kernel, problem.patch_loss, problem.patches, learner, problem.weights, first_order
    )


def gradient_steps(problem: Problem, steps: int, rate: float | Array) -> Adapted:
    """Run plain gradient descent on the kernel, as in the inner loop of MAML.

    Args:
        problem: what to adapt to.
        steps: how many (1 to 5 are usual).
        rate: step size; an array may be learned, one for all or one per element of the kernel.

    Reference:
        Finn, Abbeel and Levine, Model-Agnostic Meta-Learning, 2017, equation 1; a learned rate per
        element: Li et al., Meta-SGD, 2017.
    """

    def step(kernel: Array, _: None) -> tuple[Array, None]:
        delta = negative_gradient(kernel, problem.patch_loss, problem.patches, problem.weights)
        return kernel + rate * delta, None

    kernel, _ = lax.scan(step, problem.kernel, None, length=steps)
    return unadapted(dataclasses.replace(problem, kernel=kernel))


def adam(
    descent: Callable[[Any], Any],
    start: Any,
    steps: int,
    rate: float | Array,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> Any:
    """Run Adam from moments of zero.

    Args:
        descent: values -> negative gradient of what is to fall.
        start: values, an array or a tree.
        steps: how many.
        rate: learning rate.
        betas: of Adam.
        epsilon: of Adam.

    Reference:
        Kingma and Ba, Adam, algorithm 1.
    """

    def step(carry: Moments, count: Array) -> tuple[Moments, None]:
        values, first, second = carry
        delta = descent(values)
        first = jax.tree.map(lambda m, d: betas[0] * m + (1 - betas[0]) * d, first, delta)
        second = jax.tree.map(
            lambda v, d: betas[1] * v + (1 - betas[1]) * jnp.square(d), second, delta
        )

        def move(value: Array, first: Array, second: Array) -> Array:
            one = first / (1 - betas[0] ** count)
            two = second / (1 - betas[1] ** count)
            # The root of an exact zero has no derivative: those elements do not move.
            root = jnp.where(two > 0, jnp.sqrt(jnp.where(two > 0, two, 1)), 0)
            return value + rate * one / (root + epsilon)

        return (jax.tree.map(move, values, first, second), first, second), None

    counts = jnp.arange(1, steps + 1).astype(jax.tree.leaves(start)[0].dtype)
    zeros = jax.tree.map(jnp.zeros_like, start)
    (values, _, _), _ = lax.scan(step, (start, zeros, zeros), counts)
    return values


def adam_steps(
    problem: Problem,
    steps: int,
    rate: float | Array,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> Adapted:
    """Run `adam` on the kernel: the fine-tuning of MLT's ``mt+ft``.

    Args:
        problem: what to adapt to; starts from its kernel.
        steps: how many.
        rate: learning rate.
        betas: of Adam.
        epsilon: of Adam.

    Reference:
        MLT, the variant "mt+ft".
    """

    def descent(kernel: Array) -> Array:
        return negative_gradient(kernel, problem.patch_loss, problem.patches, problem.weights)

    kernel = adam(descent, problem.kernel, steps, rate, betas, epsilon)
    return unadapted(dataclasses.replace(problem, kernel=kernel))


def appended_steps(problem: Problem, start: Adapted, steps: int, rate: float | Array) -> Adapted:
    """Run `adam` on the appended kernels and the attention: what a meta-learner could at best have answered.

    Args:
        problem: what to adapt to; its own kernel stays as it is.
        start: the layer to start from, such as a meta-learner's answer.
        steps: how many.
        rate: learning rate.

    Returns:
        The layer after the last step.
    """
    count = problem.kernel.shape[-1]

    def loss(learned: Any, patch: Patch) -> Float[Array, ""]:
        kernel = jnp.concatenate([problem.kernel, learned[0]], axis=-1)
        return problem.loss(problem.respond(kernel, kernel, patch, learned[1]))

    def descent(learned: Any) -> Any:
        return negative_gradient(learned, loss, problem.patches, problem.weights)

    new, attention = adam(descent, (start.search_kernel[..., count:], start.attention), steps, rate)
    kernel = jnp.concatenate([problem.kernel, new], axis=-1)
    return Adapted(kernel, kernel, attention)


def ridge(problem: Problem, penalty: float | Array, target_gain: float = 3.0) -> Adapted:
    """Solve a ridge regression in closed form: the search branch's kernel that fits the labels best.

    With the template held, the response is affine in the search kernel, so the minimum of
    ``sum_i weight_i |response_i - target_i|^2 + penalty * |kernel - own kernel|^2`` is one linear system,
    solved in the dual (one unknown per cell of the responses). Positives and negatives have equal total
    weight in each patch.

    Args:
        problem: what to adapt to. Needs ``n * m * m * kernel.size`` floats: for study.
        penalty: pull towards the kernel as it is.
        target_gain: the regressed logits are plus and minus this value.

    Reference:
        Bertinetto et al., Meta-learning with differentiable closed-form solvers, 2019, section 3.2.
    """
    kernel, labels = problem.kernel, problem.labels

    def response(search_kernel: Array, patch: Patch) -> Array:
        return problem.respond(kernel, search_kernel, patch).reshape(-1)

    now = jax.vmap(response, in_axes=(None, 0))(kernel, problem.patches)
    slopes = jax.vmap(jax.jacrev(response), in_axes=(None, 0))(kernel, problem.patches)
    positive = (labels == 1).astype(kernel.dtype)
    negative = (labels == 0).astype(kernel.dtype)
    balance = 0.5 * positive / jnp.maximum(jnp.sum(positive), 1)
    balance = (balance + 0.5 * negative / jnp.maximum(jnp.sum(negative), 1)).reshape(-1)
    share = problem.weights / jnp.maximum(jnp.sum(problem.weights), 1e-12)
    cell = (share[:, None] * balance[None, :]).reshape(-1)
    # The root of an exact zero (a neutral cell, an empty slot) has no derivative: such rows are empty.
    root = jnp.where(cell > 0, jnp.sqrt(jnp.where(cell > 0, cell, 1)), 0)
    goal = target_gain * (2 * labels.reshape(-1) - 1)
    rest = (goal[None, :] - now).reshape(-1) * root
    rows = slopes.reshape(rest.shape[0], -1) * root[:, None]
    gram = jnp.dot(rows, rows.T, precision="highest")
    dual = jax.scipy.linalg.solve(gram + penalty * jnp.eye(gram.shape[0]), rest, assume_a="pos")
    search = kernel + jnp.dot(dual, rows, precision="highest").reshape(kernel.shape)
    return Adapted(kernel, search, jnp.ones(kernel.shape[-1:], kernel.dtype))


class Memory(NamedTuple):
    """Context patches of one target, in slots of fixed shape; the first frame's patch keeps slot 0.

    Attributes:
        features: ``(k, h, w, c)`` the patches' trunk outputs.
        responses: ``(k, m, m)`` each patch's response when it entered.
        weights: ``(k,)`` weight of each patch; 1 where a patch has simply passed tau.
        filled: ``()`` int32 patches that ever entered; the first ``min(filled, k)`` slots are in use.
    """

    features: Float[Array, "k h w c"]
    responses: Float[Array, "k m m"]
    weights: Float[Array, "k"]
    filled: Int[Array, ""]


def empty_memory(slots: int, features: tuple[int, ...], response: tuple[int, int]) -> Memory:
    """Return a memory of ``slots`` patches with nothing in it."""
    return Memory(
        jnp.zeros((slots, *features), jnp.float32),
        jnp.zeros((slots, *response), jnp.float32),
        jnp.zeros((slots,), jnp.float32),
        jnp.zeros((), jnp.int32),
    )


def remember(
    memory: Memory, features: Array, response: Array, weight: Float[Array, ""] | float = 1.0
) -> Memory:
    """Put a patch into the next slot; when all are in use, the oldest but the first frame's gives way."""
    slots = memory.weights.shape[0]
    later = jnp.zeros((), jnp.int32)
    if slots > 1:  # where it counts, all slots are filled: nothing here is negative
        later = 1 + jax.lax.rem(memory.filled - 1, jnp.int32(slots - 1))
    slot = jnp.where(memory.filled < slots, memory.filled, later)
    return Memory(
        memory.features.at[slot].set(features),
        memory.responses.at[slot].set(response),
        memory.weights.at[slot].set(weight),
        memory.filled + 1,
    )


def least_entropy(
    responses: Float[Array, "k m m"], count: int, filled: Int[Array, ""] | int | None = None
) -> tuple[Int[Array, "count"], Float[Array, "count"]]:
    """Return the patches whose normalised responses have the least entropy: one clear peak each.

    Args:
        responses: responses of all slots.
        count: M, how many are wanted.
        filled: slots in use, from the first on; None: all. Where it is traced (inside a compiled
            step) it may be less than M, as in the first frames: those that are there are taken.

    Returns:
        Slots by rising entropy (the earlier slot on ties), and 1 where the slot is in use, else 0.

    Raises:
        JaxtrackError: fewer patches than M, where that is known beforehand.

    Reference:
        MLT, section 3.4 as described; entropy: `ops.response.entropy`.
    """
    slots = responses.shape[0]
    known = slots if filled is None else filled
    if isinstance(known, int) and min(known, slots) < count:
        raise JaxtrackError(
            f"M = {count} patches are to be chosen, but the memory holds {min(known, slots)}: give a"
            " smaller M (samples), or wait until more patches are in"
        )
    used = jnp.arange(slots) < known
    order = jnp.argsort(jnp.where(used, entropy(responses), jnp.inf), stable=True)[:count]
    return order.astype(jnp.int32), used[order].astype(responses.dtype)
