"""Motion of the synthetic world: where everything is at each frame of a clip.

All paths are functions of a seed alone. Attributes are switches of the amplitudes, so that one
compiled program draws every kind of clip.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from jaxtrack.synthetic.objects import Pose
from jaxtrack.synthetic.realism import PLAIN, Realism, calmness, thin_aspect
from jaxtrack.synthetic.textures import Draws, child

ATTRIBUTES = (
    "scale_variation",
    "aspect_ratio_change",
    "fast_motion",
    "in_plane_rotation",
    "occlusion",
    "out_of_view",
    "illumination_variation",
    "motion_blur",
    "background_clutter",
    "deformation",
    "camera_motion",
    "low_resolution",
)


class Switches(NamedTuple):
    """One number, 0 or 1, for each attribute."""

    scale: Array
    aspect: Array
    fast: Array
    rotation: Array
    occlusion: Array
    out_of_view: Array
    light: Array
    blur: Array
    clutter: Array
    deformation: Array
    camera: Array
    low_resolution: Array


class Script(NamedTuple):
    """Everything that changes in a clip; leaves lead with time, poses with time and object."""

    poses: Pose
    origin: Float[Array, "t 2"]  # world position of the frame's top-left corner
    step: Float[Array, " t"]  # world units per pixel
    gain: Float[Array, "t 3"]


def switches(attributes: Bool[Array, " a"]) -> Switches:
    """Name the entries of an attribute vector."""
    return Switches(*attributes.astype(jnp.float32))


def smooth_path(draws: Draws, time: Float[Array, " t"], shape: tuple[int, ...]) -> Array:
    """Smooth random paths, zero at time 0, about -1 to 1. Time is 0 to 1. Shape: (t,) + shape."""
    total = jnp.zeros(time.shape + shape, jnp.float32)
    moment = time.reshape((-1,) + (1,) * len(shape))
    for cycles in ((0.3, 0.8), (0.8, 1.8), (1.8, 3.5)):
        frequency = draws.uniform(*cycles, *shape)[None]
        phase = draws.uniform(0.0, 2.0 * np.pi, *shape)[None]
        amplitude = draws.uniform(0.2, 1.0, *shape)[None] / (1.0 + cycles[0])
        turn = 2.0 * np.pi * frequency * moment + phase
        total = total + amplitude * (jnp.sin(turn) - jnp.sin(phase))
    return total


def jumps(draws: Draws, time: Float[Array, " t"], count: int) -> Float[Array, "t 2"]:
    """Abrupt moves to other places: steps of about unit length, each within a few frames."""
    when = draws.uniform(0.08, 0.95, count)
    direction = draws.uniform(0.0, 2.0 * np.pi, count)
    length = draws.uniform(0.4, 1.0, count)
    duration = draws.uniform(0.01, 0.06, count)
    ramp = jnp.clip((time[:, None] - when[None, :]) / duration[None, :], 0.0, 1.0)
    move = length[:, None] * jnp.stack([jnp.cos(direction), jnp.sin(direction)], 1)
    return jnp.einsum("tk,kd->td", ramp, move)


def fold(value: Array, low: Array, high: Array) -> Array:
    """Reflect values at both ends of an interval, as a ball between two walls."""
    span = high - low
    phase = (value - low) / (2.0 * span)
    return low + 2.0 * span * jnp.abs(phase - jnp.round(phase))


def event(time: Float[Array, " t"], middle: Array, duration: Array) -> Float[Array, " t"]:
    """Return a smooth bump of height 1 around `middle`, zero outside `duration`."""
    edge = 0.3 * duration
    rise = jnp.clip((0.5 * duration - jnp.abs(time - middle)) / edge, 0.0, 1.0)
    return rise * rise * (3.0 - 2.0 * rise)


class _Plan(NamedTuple):
    """What all parts of a script are drawn from; numbers are taken in the order of the calls."""

    on: Switches
    d: Draws
    paths: Draws
    time: Float[Array, " t"]
    frame: Float[Array, " 2"]  # width, height
    number: int  # of objects
    target: int  # index of the target
    real: Realism
    calm: Array | float  # factor on all motion
    roam: Array | float  # how close to the border the target may come: 1 keeps it inside


def _sizes(
    plan: _Plan, target_size: tuple[float, float], aspect: tuple[float, float], extra: Draws
) -> tuple[Float[Array, ""], Float[Array, "t n 2"]]:
    """Return the target's nominal side, and half width and height of every object over time."""
    on, d, paths, time = plan.on, plan.d, plan.paths, plan.time
    behind, count, frame = plan.target, plan.number, plan.frame
    # sizes: low resolution means a target of 10 to 20 pixels
    normal = d.log_uniform(*target_size)
    small = d.log_uniform(0.4, 0.75) * target_size[0]
    side = jnp.where(on.low_resolution > 0, small, normal)
    growth = smooth_path(paths, time, (count,)) * (0.1 + 0.5 * on.scale)
    trend = d.uniform(0.5, 1.0) * d.sign() * on.scale
    growth = growth.at[:, behind].add(trend * time)
    growth = jnp.clip(growth, -1.0, 1.0)
    stretch = smooth_path(paths, time, (count,)) * (0.05 + 0.3 * on.aspect)
    shape = jnp.log(d.log_uniform(*aspect, count))
    flip = jnp.where(shape[behind] > 0, -1.0, 1.0)  # a wide target grows narrow, a narrow one wide
    course = event(time, d.uniform(0.45, 0.8), d.uniform(0.7, 1.1))
    stretch = stretch.at[:, behind].add(flip * d.uniform(0.9, 1.5) * on.aspect * course)
    if plan.real.thin:
        slim, thin = thin_aspect(plan.real, extra, count)
        shape = jnp.where(slim, thin, shape)
    narrow = 0.18 if plan.real.thin else 0.25
    shape = jnp.clip(shape[None, :] + stretch, np.log(narrow), -np.log(narrow))
    sides = side * jnp.where(jnp.arange(count) == behind, 1.0, d.log_uniform(0.6, 1.6, count))
    sides = sides[None, :] * jnp.exp(growth)
    half = 0.5 * sides[..., None] * jnp.exp(jnp.stack([0.5 * shape, -0.5 * shape], -1))
    limit = 0.32 * jnp.min(frame)
    half = half * jnp.minimum(1.0, limit / jnp.max(half, axis=-1, keepdims=True))
    return side, half


def _target_path(plan: _Plan, half: Float[Array, " 2"]) -> Float[Array, "t 2"]:
    """Return the target's centre in the frame: wandering, jumping, leaving and coming back."""
    on, d, paths, time = plan.on, plan.d, plan.paths, plan.time
    frame = plan.frame
    margin = jnp.minimum(jnp.max(half) * 1.2, 0.35 * jnp.min(frame))
    start = margin + d.uniform(0.0, 1.0, 2) * (frame - 2.0 * margin)
    reach = 0.13 * frame * (1.0 + 0.6 * on.fast)
    path = start[None] + smooth_path(paths, time, (2,)) * (reach * plan.calm)[None]
    path = path + on.fast * jumps(d, time, 5) * (0.4 * frame)[None]
    tremble = d.uniform(-1.0, 1.0, 2)[None] * jnp.sin(40.0 * time)[:, None]
    walls = jnp.broadcast_to(margin * plan.roam, (1, 2))
    path = fold(path + tremble, walls, frame[None] - walls)
    leave_at, leave_for = d.uniform(0.4, 0.7), d.uniform(0.25, 0.45)
    gone = event(time, leave_at, leave_for) * on.out_of_view  # and back again
    exit_side = d.sign()
    exit_x = jnp.where(exit_side > 0, frame[0] + 1.5 * margin, -1.5 * margin)
    return jnp.stack([path[:, 0] + gone * (exit_x - path[:, 0]), path[:, 1]], 1)


def _centres(
    plan: _Plan, side: Float[Array, ""], half: Float[Array, "t n 2"]
) -> Float[Array, "t n 2"]:
    """Centres of all objects in the frame."""
    on, d, paths, time = plan.on, plan.d, plan.paths, plan.time
    behind, count = plan.target, plan.number
    target = _target_path(plan, half[0, behind])
    others = d.uniform(-0.1, 1.1, count, 2)[None] + 0.5 * smooth_path(paths, time, (count, 2))
    others = others * plan.frame[None, None]
    # those behind stay around the target when clutter is asked for
    near = (
        1.6 * side * (d.uniform(-1.0, 1.0, count, 2)[None] + smooth_path(paths, time, (count, 2)))
    )
    others = others + on.clutter * (target[:, None] + near - others)
    crossing = _crossings(d, time, target, half[:, behind], half[:, behind + 1 :], on.occlusion)
    return jnp.concatenate([others[:, :behind], target[:, None], crossing], 1)


def _camera(plan: _Plan) -> tuple[Float[Array, "t 2"], Float[Array, " t"]]:
    """World position of the frame's corner, and world units per pixel, over time."""
    on, paths, time, frame = plan.on, plan.paths, plan.time, plan.frame
    pan = smooth_path(paths, time, (2,)) * (0.02 + 0.4 * on.camera) * frame[None]
    shake = jnp.stack([jnp.sin(97.0 * time), jnp.cos(83.0 * time)], 1) * on.camera * 2.0
    zoom = jnp.exp(smooth_path(paths, time, ()) * 0.15 * on.camera)
    step = 1.0 / zoom
    origin = pan + shake + 0.5 * frame[None] * (1.0 - step[:, None])
    return origin, step


def _poses(plan: _Plan, world: Float[Array, "t n 2"], half: Float[Array, "t n 2"]) -> Pose:
    """Poses from centres and sizes in the world."""
    on, d, paths, time = plan.on, plan.d, plan.paths, plan.time
    length, count = world.shape[:2]
    exposure = 0.3 + 1.2 * on.blur
    velocity = jnp.diff(world, axis=0, append=world[-1:])
    turn = smooth_path(paths, time, (count,)) * (0.12 + 0.5 * on.rotation)
    spin = d.uniform(-2.0, 2.0, count)[None] * time[:, None] * on.rotation
    bend = smooth_path(paths, time, (count, 2)) * (0.03 + 0.16 * on.deformation)
    rate = d.uniform(1.0, 5.0, count)[None]
    return Pose(
        centre=world,
        half=half,
        angle=turn + spin + d.uniform(-0.4, 0.4, count)[None],
        wave=bend,
        phase=2.0 * np.pi * rate * time[:, None] + d.uniform(0.0, 2.0 * np.pi, count)[None],
        swing=jnp.broadcast_to(0.25 + 0.75 * on.deformation, (length, count)),
        opacity=jnp.ones((length, count), jnp.float32),
        blur=exposure * velocity,
    )


def _gain(plan: _Plan) -> Float[Array, "t 3"]:
    """Return the light over time, by channel."""
    on, d, paths, time = plan.on, plan.d, plan.paths, plan.time
    dim = smooth_path(paths, time, (1,)) * (0.06 + 0.35 * on.light)
    sudden = jnp.where(time > d.uniform(0.2, 0.8), d.uniform(-0.5, 0.4), 0.0) * on.light
    tint = smooth_path(paths, time, (3,)) * (0.01 + 0.1 * on.light)
    return jnp.exp(jnp.clip(dim + sudden[:, None], -0.9, 0.6) + tint)


def draw_script(
    seed: UInt32[Array, " 2"],
    attributes: Bool[Array, " a"],
    size: tuple[int, int],
    length: int,
    behind: int,
    front: int,
    target_size: tuple[float, float],
    aspect: tuple[float, float],
    real: Realism = PLAIN,
) -> Script:
    """Draw the motion of a whole clip.

    Args:
        seed: of all paths.
        attributes: which attributes the clip shall have, in the order of `ATTRIBUTES`.
        size: frame height and width in pixels.
        length: frames.
        behind: objects that pass behind the target.
        front: objects that pass before it.
        target_size: smallest and largest sqrt(width x height) of the target, pixels.
        aspect: smallest and largest width / height of any object.
        real: shares of thin objects, of calm clips, and of targets that roam to the border.

    Returns:
        The script; objects are ordered back to front, the target has index `behind`.
    """
    count = behind + 1 + front
    extra = Draws(child(seed, 2), 64 + 8 * count)
    calm = calmness(real, extra) if real.calm else 1.0
    roam = jnp.where(extra.uniform(0.0, 1.0) < real.border, 0.35, 1.0) if real.border else 1.0
    plan = _Plan(
        on=switches(attributes),
        d=Draws(child(seed, 0), 64 + 64 * count),
        paths=Draws(child(seed, 1), 64 + 96 * count),
        time=jnp.arange(length, dtype=jnp.float32) / max(length - 1, 1),
        frame=jnp.asarray([size[1], size[0]], jnp.float32),
        number=count,
        target=behind,
        real=real,
        calm=calm,
        roam=roam,
    )
    side, half = _sizes(plan, target_size, aspect, extra)
    centre = _centres(plan, side, half)
    origin, step = _camera(plan)
    poses = _poses(plan, origin[:, None] + centre * step[:, None, None], half * step[:, None, None])
    return Script(poses, origin, step, _gain(plan))


def _crossings(
    d: Draws,
    time: Float[Array, " t"],
    target: Float[Array, "t 2"],
    half: Float[Array, "t 2"],
    half_front: Float[Array, "t f 2"],
    on: Array,
) -> Float[Array, "t f 2"]:
    """Places of the front objects: each crosses the target once, or stays far away."""
    front = half_front.shape[1]
    when = d.uniform(0.25, 0.85, front)
    direction = d.uniform(0.0, 2.0 * np.pi, front)
    heading = jnp.stack([jnp.cos(direction), jnp.sin(direction)], 1)
    size = jnp.max(half, axis=-1)[0] + jnp.max(half_front, axis=-1)[0]
    # fast enough to be clear of the target at the first frame
    speed = 2.0 * size / (when * d.uniform(0.4, 0.9, front))
    miss = d.uniform(-0.5, 0.5, front, 2) * size[:, None] * 0.5
    travel = (time[:, None] - when[None, :]) * speed[None, :]
    place = target[:, None] + travel[..., None] * heading[None] + miss[None]
    return jnp.where(on > 0, place, -1e4)  # far from every frame
