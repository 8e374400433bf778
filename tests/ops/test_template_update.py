"""Running means of templates."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.ops import template_update
from jaxtrack.ops.template_update import FIXED, TemplateUpdate

RULE = TemplateUpdate(rate=0.5, above=0.3, share=0.25)


def test_the_mean_runs_and_the_first_look_stays_beside_it():
    first = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    now = {"a": jnp.full(3, 8.0), "b": jnp.full((2, 2), -8.0)}
    seen = template_update.begin(RULE, first)
    seen, template = template_update.followed(RULE, seen, jnp.asarray(0.3), now)
    np.testing.assert_array_equal(seen.mean["a"], 4)
    np.testing.assert_array_equal(template["a"], 1)
    np.testing.assert_array_equal(template["b"], -1)
    seen, template = template_update.followed(RULE, seen, jnp.asarray(1.0), now)
    np.testing.assert_array_equal(seen.mean["a"], 6)
    np.testing.assert_array_equal(template["a"], 1.5)
    np.testing.assert_array_equal(seen.first["a"], 0)


def test_a_lost_target_teaches_nothing():
    seen = template_update.begin(RULE, jnp.zeros(3))
    after, template = template_update.followed(RULE, seen, jnp.asarray(0.29), jnp.ones(3))
    np.testing.assert_array_equal(after.mean, 0)
    np.testing.assert_array_equal(template, 0)


def test_features_keep_their_dtype():
    first = jnp.zeros(3, jnp.bfloat16)
    seen = template_update.begin(RULE, first)
    seen, template = template_update.followed(RULE, seen, jnp.asarray(1.0), first + 1)
    assert seen.mean.dtype == template.dtype == jnp.bfloat16


def test_nothing_is_remembered_where_the_template_stays():
    assert not FIXED.on
    assert template_update.begin(FIXED, jnp.zeros(3)) == ()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"rate": 1.5}, "template_update.rate is 1.5; from 0 to 1"),
        ({"rate": -0.1}, "template_update.rate is -0.1; from 0 to 1"),
        ({"rate": 0.1, "share": 2.0}, "template_update.share is 2; from 0 to 1"),
    ],
)
def test_numbers_without_a_meaning_are_named(fields, line):
    with pytest.raises(JaxtrackError, match=line):
        TemplateUpdate(**fields)
