"""What a guard was told is kept in its state, and a guard that was told something else refuses it by name."""

import functools
import json
import warnings

import pytest
import torch
from ewc import (
    EWC,
    L2,
    DarkReplay,
    Distillation,
    KroneckerEWC,
    MemoryAwareSynapses,
    OrthogonalWeights,
    Replay,
    SynapticIntelligence,
)
from ewc.checks import OPTIONS, options_of
from ewc.likelihoods import Categorical, Gaussian
from ewc.steps import Capped, Proximal
from safetensors.torch import load, save
from test_methods import TARGETS
from test_penalties import data, move, network

pytestmark = pytest.mark.usefixtures("float64")


class Own:
    """A likelihood of a reader's."""

    def log_prob(self, outputs, targets):
        return -(outputs - targets).square().sum(1) / 2

    def sample(self, outputs, generator):
        return outputs + torch.randn(outputs.shape, generator=generator)


def straight(model, batch):
    return model(batch)


def twice(model, batch):
    return 2 * model(batch)


few = {"examples": 4, "batch_size": 6}
# A guard, what it is told, what another may be told instead, and how the refusal names both.
DIFFER = [
    (EWC, {}, {"decay": 0.5}, r"decay=1.0, and this guard has decay=0.5"),
    (EWC, {"labels": "empirical"}, {}, r"labels='empirical', and this guard has labels='exact or sampled'"),
    (EWC, {"labels": "exact"}, {"labels": "sampled"}, r"labels='exact', and this guard has labels='sampled'"),
    (EWC, {"labels": "sampled", "samples": 2}, {"labels": "sampled"}, r"samples=2, and this guard has samples=1"),
    (EWC, {"likelihood": "gaussian"}, {}, r"likelihood='gaussian', and this guard has likelihood='categorical'"),
    (EWC, {"likelihood": Gaussian(noise=4.0)}, {"likelihood": "gaussian"}, r"likelihood='gaussian, noise=4.0', and .* likelihood='gaussian'"),
    (EWC, {"likelihood": Categorical(class_axis=1)}, {}, r"likelihood='categorical, class_axis=1', and"),
    (KroneckerEWC, {"decay": 0.9}, {"decay": 0.8}, r"decay=0.9, and this guard has decay=0.8"),
    (KroneckerEWC, {"labels": "argmax"}, {}, r"labels='argmax', and this guard has labels='exact or sampled'"),
    (KroneckerEWC, {}, {"likelihood": "bernoulli"}, r"likelihood='categorical', and this guard has likelihood='bernoulli'"),
    (SynapticIntelligence, {}, {"damping": 0.2}, r"damping=0.1, and this guard has damping=0.2"),
    (Distillation, {"temperature": 3}, {}, r"temperature=3.0, and this guard has temperature=2.0"),
    (Replay, few, {**few, "examples": 2}, r"examples=4, and this guard has examples=2"),
    (DarkReplay, few, {**few, "examples": 2}, r"examples=4, and this guard has examples=2"),
]
ALIKE = [
    (EWC, {}, {"labels": "exact"}),
    (EWC, {"labels": "sampled", "samples": 3}, {}),
    (EWC, {"labels": "exact", "samples": 3}, {"labels": "exact"}),
    (EWC, {"likelihood": Categorical()}, {"likelihood": "categorical"}),
    (EWC, {"likelihood": Gaussian(noise=torch.ones(3))}, {"likelihood": "gaussian"}),
    (EWC, {"batch_size": 2, "max_examples": 5}, {"generator": torch.Generator()}),
    (EWC, {"anchors": "merged"}, {}),
    (KroneckerEWC, {"factors": "added"}, {"batch_size": 4}),
    (Replay, few, {**few, "batch_size": 2, "seed": 3}),
]
EVERY = [
    (EWC, {}),
    (L2, {}),
    (KroneckerEWC, {}),
    (SynapticIntelligence, {}),
    (MemoryAwareSynapses, {}),
    (OrthogonalWeights, {}),
    (Distillation, {}),
    (Replay, few),
    (DarkReplay, few),
]
names = [kind.__name__ for kind, _ in EVERY]


def held(kind, strength=1.0, **told):
    guard = kind(network(), strength, **told)
    if kind is SynapticIntelligence:
        move(guard.model, 1)
    guard.consolidate(data(0), data(1)[:, :3] if "gaussian" in str(told).lower() else TARGETS)
    return guard


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize(("kind", "told", "other", "words"), DIFFER)
def test_a_state_made_with_another_option_is_refused_by_name_and_changes_nothing(kind, told, other, words):
    giver, taker = held(kind, **told), held(kind, **other)
    before = taker.state_dict()
    with pytest.raises(ValueError, match=r"state was made with " + words):
        taker.load_state_dict(giver.state_dict())
    assert same(taker.state_dict(), before)
    with pytest.raises(ValueError, match="state was made with"):
        giver.load_state_dict(before)


@pytest.mark.parametrize(("kind", "told", "other"), ALIKE)
def test_what_does_not_change_the_meaning_may_differ(kind, told, other):
    giver, taker = held(kind, **told), held(kind, strength=7.0, **other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taker.load_state_dict(load(save(giver.state_dict())))
        giver.load_state_dict(taker.state_dict())


@pytest.mark.parametrize(("kind", "told"), EVERY, ids=names)
def test_another_guards_state_is_refused_by_both_names(kind, told):
    state = held(kind, **told).state_dict()
    assert options_of(state)["guard"] == kind.__name__
    for other, its in EVERY:
        if other is not kind:
            taker = other(network(), **its)
            with pytest.raises(ValueError, match=f"it was kept by {kind.__name__}, and this is {other.__name__}"):
                taker.load_state_dict(state)


@pytest.mark.parametrize(("kind", "told"), EVERY, ids=names)
def test_a_state_of_before_options_were_kept_loads_with_nothing_said(kind, told):
    giver, taker = held(kind, **told), kind(network(), **told)
    old = {key: value for key, value in giver.state_dict().items() if key != OPTIONS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taker.load_state_dict(old)
    assert same(taker.state_dict(), giver.state_dict())


@pytest.mark.parametrize("kind", [EWC, MemoryAwareSynapses, KroneckerEWC])
def test_of_a_function_only_the_name_is_kept_and_another_name_is_warned_of(kind):
    giver, taker = held(kind, forward=twice), held(kind, forward=straight)
    assert options_of(giver.state_dict())["forward"] == {"name": "twice"}
    with pytest.warns(UserWarning, match=r"forward=twice, and this guard has forward=straight.*only if both do the same"):
        taker.load_state_dict(giver.state_dict())
    assert same({k: v for k, v in taker.state_dict().items() if k != OPTIONS}, {k: v for k, v in giver.state_dict().items() if k != OPTIONS})
    with pytest.warns(UserWarning, match=r"forward=None, and this guard has forward=straight"):
        taker.load_state_dict(held(kind).state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held(kind, forward=twice).load_state_dict(giver.state_dict())
        partial = functools.partial(straight)
        held(kind, forward=partial).load_state_dict(held(kind, forward=partial).state_dict())


def test_of_a_likelihood_of_the_readers_the_class_is_kept():
    giver = EWC(network(), likelihood=Own())
    giver.consolidate(data(0))
    assert options_of(giver.state_dict())["likelihood"] == {"name": "Own"}
    with pytest.warns(UserWarning, match=r"likelihood=Own, and this guard has likelihood='categorical'"):
        EWC(network()).load_state_dict(giver.state_dict())


def test_the_wrappers_of_a_penalty_hold_to_its_options():
    state = held(EWC, decay=0.5).state_dict()
    for wrap in (lambda guard: Capped(guard, 0.1), Proximal):
        assert same(wrap(held(EWC, decay=0.5)).state_dict(), state)
        with pytest.raises(ValueError, match=r"decay=0.5, and this guard has decay=1.0"):
            wrap(held(EWC)).load_state_dict(state)


def test_options_that_cannot_be_read_are_refused():
    guard = held(EWC)
    for wrong in (torch.tensor([123, 5], dtype=torch.uint8), torch.tensor([0.5]), torch.tensor(list(json.dumps("EWC").encode()))):
        with pytest.raises(ValueError, match=r"state has options that cannot be read, in 'options/json'"):
            guard.load_state_dict(guard.state_dict() | {OPTIONS: wrong})
