"""The Fisher information of random networks, which random_models.py builds, is the one by a loop over examples.

`EWC_RANDOM_MODELS=500` tries that many networks, new ones each time; `EWC_RANDOM_SEED=17` tries those of that seed again.
"""

import os

import pytest
from by_loop import hold_to_the_loop
from ewc.scores import LABELS
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from random_models import OPEN, Recipe, build, known, one_of_each, recipes

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.filterwarnings("ignore")]

# Without a number asked for, a few and the same ones each time, so that what fails is what was changed (conftest.py).
MANY, SEED = int(os.environ.get("EWC_RANDOM_MODELS", "25")), int(os.environ.get("EWC_RANDOM_SEED", "0"))


@pytest.mark.parametrize(
    "recipe",
    known(one_of_each(), Recipe.names),
    ids=lambda recipe: " ".join((*recipe.parts, recipe.pool, recipe.head, *map(str, recipe.changes))),
)
def test_the_fisher_of_each_part_is_the_one_by_loop(recipe):
    hold_to_the_loop(*build(recipe), batch_sizes=(3,))


@seed(SEED)
@settings(max_examples=MANY, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(recipe=recipes(), batch_size=st.integers(1, 7), samples=st.integers(1, 3), full=st.sampled_from(LABELS))
def test_the_fisher_of_a_random_network_is_the_one_by_loop(recipe, batch_size, samples, full):
    assume(not recipe.names() & OPEN)
    print(f"EWC_RANDOM_SEED={SEED}")
    hold_to_the_loop(*build(recipe), batch_sizes=(batch_size, 1024), samples=samples, full=full)
