"""Means and one covariance, gathered in one pass, against all at once, the formulas of their docstring, and scikit-learn."""

import re

import pytest
import torch
from ewc import AccuracyMatrix, fit_together, mlp
from ewc.chapters.what_ewc_cannot_do import figures, without_images
from ewc.chapters.what_ewc_cannot_do.class_means import ClassMeans
from ewc.chapters.what_ewc_cannot_do.without_images import class_means
from ewc.tasks import split
from ewc.workshop.tuning import Tuned
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid
from tiny_runs import images

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CLASSES, SIZE = 4, 6


@pytest.fixture(scope="module")
def cloud():
    """Features of four classes of unlike sizes, with a covariance that is no multiple of the identity, and their classes."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 20, (400,), generator=generator).clamp(max=CLASSES - 1)
    shape = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    centres = 2 * torch.randn(CLASSES, SIZE, generator=generator, dtype=torch.float64)
    return centres[targets] + torch.randn(len(targets), SIZE, generator=generator, dtype=torch.float64) @ shape, targets


def learned(features, targets, order=None, batch=7, **options):
    means = ClassMeans(SIZE, CLASSES, **options)
    order = torch.arange(len(targets)) if order is None else order
    for rows in order.split(batch):
        means.learn(features[rows], targets[rows])
    return means


def test_what_is_kept_is_what_the_formulas_say(cloud):
    features, targets = cloud
    means = learned(*cloud)
    for k in range(CLASSES):
        own = features[targets == k]
        assert means.counts[k] == len(own) > 5
        torch.testing.assert_close(means.means[k], own.mean(0), **EXACT)
    scatter = sum(torch.outer(a - means.means[k], a - means.means[k]) for a, k in zip(features, targets, strict=True))
    torch.testing.assert_close(means.scatter, scatter, **EXACT)
    assert means.numbers == CLASSES * (1 + SIZE) + len(torch.triu_indices(SIZE, SIZE)[0])


@pytest.mark.parametrize("batch", [1, 7, 400])
def test_neither_batches_nor_the_order_leave_a_trace(cloud, batch):
    whole, by_class = learned(*cloud, batch=400), learned(*cloud, order=cloud[1].argsort(), batch=batch)
    for name in ("counts", "means", "scatter"):
        torch.testing.assert_close(getattr(by_class, name), getattr(whole, name), **EXACT)


def test_an_empty_batch_changes_nothing(cloud):
    means = learned(*cloud)
    before = means.scatter.clone()
    means.learn(cloud[0][:0], cloud[1][:0])
    assert torch.equal(means.scatter, before) and means.counts.sum() == 400


@pytest.mark.parametrize("shrinkage", [1e-4, 0.3])
def test_the_answers_are_those_of_linear_discriminant_analysis(cloud, shrinkage):
    features, targets = cloud
    other = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[1 / CLASSES] * CLASSES)
    # Its covariance weighs classes by their priors, ours by their sizes, as its own does where priors are those of the data.
    sized = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(features.numpy(), targets.numpy())
    means, new = learned(*cloud), torch.randn(50, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.from_numpy(new.numpy() @ sized.coef_.T + sized.intercept_) - (means.counts / means.counts.sum()).log()
    torch.testing.assert_close(means.logits(new, shrinkage), wanted, rtol=1e-7, atol=1e-7)
    even = torch.arange(400) < 0  # as many of each class: there priors and sizes are one, and nothing need be taken away
    for k in range(CLASSES):
        even[(targets == k).nonzero()[:9, 0]] = True
    other.fit(features[even].numpy(), targets[even].numpy())
    found = learned(features[even], targets[even]).logits(new, shrinkage)
    gap = torch.from_numpy(other.decision_function(new.numpy())) - found
    torch.testing.assert_close(gap, gap[:, :1].expand_as(gap), rtol=1e-7, atol=1e-7)  # the priors, the same for all


def test_at_shrinkage_one_the_answer_is_the_nearest_mean(cloud):
    new = 3 * torch.randn(200, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = NearestCentroid().fit(cloud[0].numpy(), cloud[1].numpy()).predict(new.numpy())
    means = learned(*cloud)
    found = means.logits(new, 1.0).argmax(1)
    assert torch.equal(found, torch.from_numpy(wanted))
    assert not torch.equal(found, means.logits(new).argmax(1))


def test_a_class_that_never_came_is_never_named_and_a_feature_that_never_varies_does_no_harm(cloud):
    features, targets = cloud[0].clone(), cloud[1]
    features[:, 2] = 1.5
    seen = targets != 1
    means = learned(features[seen], targets[seen])
    logits = means.logits(features)
    assert logits[:, 1].eq(-torch.inf).all() and logits[:, [0, 2, 3]].isfinite().all()
    without = ClassMeans(SIZE - 1, CLASSES)
    others = [0, 1, 3, 4, 5]
    without.learn(features[seen][:, others], targets[seen])
    assert torch.equal(without.logits(features[:, others], 1e-9).argmax(1), means.logits(features, 1e-9).argmax(1))


def test_single_precision_keeps_what_matters(cloud):
    exact, single = learned(*cloud), learned(cloud[0].float(), cloud[1])
    assert single.means.dtype == torch.float64
    torch.testing.assert_close(single.scatter, exact.scatter, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: ClassMeans(0, 3), "features is 0"),
        (lambda: ClassMeans(3, 2.5), "classes is 2.5"),
        (lambda: ClassMeans(3, 2).learn(torch.zeros(5, 2), torch.zeros(5, dtype=torch.long)), r"features is of shape \(5, 2\)"),
        (lambda: ClassMeans(3, 2).learn(torch.zeros(5, 3), torch.zeros(4, dtype=torch.long)), r"targets of \(4,\)"),
        (lambda: ClassMeans(3, 2).learn(torch.zeros(2, 3), torch.tensor([0, 2])), "targets holds 0 to 2"),
        (lambda: ClassMeans(3, 2).learn(torch.zeros(2, 3), torch.tensor([-1, 0])), "targets holds -1 to 0"),
        (lambda: ClassMeans(3, 2).covariance(0.0), "shrinkage is 0.0"),
        (lambda: ClassMeans(3, 2).covariance(1.1), "shrinkage is 1.1"),
        (lambda: ClassMeans(3, 2).logits(torch.zeros(1, 3)), "no class has two features that differ"),
    ],
)
def test_what_cannot_be_is_refused_by_name(act, message):
    with pytest.raises(ValueError, match=message):
        act()


# ---- the experiment

TINY = {"hidden": (4,), "steps": 3, "batch_size": 8, "fisher_examples": 20}


def by_hand(task, network):
    """Accuracies on each lesson once all images were seen at once, with the features of this network."""
    features = lambda x: x.flatten(1) if network is None else network.relu1(network.hidden1(x.flatten(1)))  # noqa: E731
    with torch.no_grad():
        means = ClassMeans(len(features(task.test_inputs)[0]), 10)
        means.learn(features(task.train_inputs), task.train_targets)
        lessons = split(task, 5, scenario="class")
        return [(means.logits(features(part.test_inputs)).argmax(1) == part.test_targets).double().mean().item() for part in lessons]


@pytest.mark.parametrize("features", ["pixels", "drawn", "first lesson"])
def test_frozen_features_learn_lesson_by_lesson_what_they_learn_at_once(features):
    task = images("first", 0)
    result, _ = class_means([task], features=features, seed=3, **TINY)
    network = None if features == "pixels" else mlp((4,), seed=3)
    if features == "first lesson":
        options = {"steps": 3, "batch_size": 8, "learning_rate": 1e-3, "optimizer": "adam", "schedule": "constant"}
        fit_together([network], split(task, 5, scenario="class")[:1], seeds=[3000], **options)
    assert result["matrix"][-1] == by_hand(task, network)
    # After the first lesson nothing else is named, so nothing else is right.
    assert result["matrix"][0][1:] == result["nearest"][0][1:] == [0.0] * 4
    assert result["numbers"] == (784 * 785 // 2 + 7850 if network is None else 10 + 50)


def test_features_that_go_on_learning_are_described_as_they_were_in_each_lesson(monkeypatch):
    seen = []
    learn = ClassMeans.learn
    monkeypatch.setattr(ClassMeans, "learn", lambda means, a, y: seen.append((a.clone(), y)) or learn(means, a, y))
    task = images("first", 0)
    result, _ = class_means([task], features="elastic", strength=1.0, seed=0, **TINY | {"steps": 20})
    assert [sorted(set(y.tolist())) for _, y in seen] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    first = split(task, 5, scenario="class")[0]
    network = mlp((4,), seed=0)
    options = {"steps": 20, "batch_size": 8, "learning_rate": 1e-3, "optimizer": "adam", "schedule": "constant"}
    fit_together([network], [first], seeds=[0], **options)
    with torch.no_grad():
        torch.testing.assert_close(seen[0][0], network.relu1(network.hidden1(first.train_inputs.flatten(1))))
        again = network.relu1(network.hidden1(split(task, 5, scenario="class")[1].train_inputs.flatten(1)))
    assert not torch.allclose(seen[1][0], again, atol=1e-3)  # by then the network is another
    assert len(result["matrix"]) == 5


def test_features_that_are_not_there_and_a_missing_strength_are_refused():
    with pytest.raises(ValueError, match="features is 'learned'"):
        class_means([images("first", 0)], features="learned", **TINY)
    with pytest.raises(ValueError, match="strength is None"):
        class_means([images("first", 0)], features="elastic", **TINY)
    assert set(without_images.FEATURES) == {"pixels", "drawn", "first lesson", "elastic"}


# ---- the figures


def test_the_figure_says_where_each_way_begins_and_ends():
    found = {"EWC": torch.tensor([[1.0, 0.5], [0.8, 0.3]]), "the pixels": torch.tensor([[0.99, 0.9]])}
    alt = figures.lesson_by_lesson(found, 0.1).alt
    assert alt.endswith("From the first lesson to the last: EWC from 90.0% to 40.0%; the pixels from 99.0% to 90.0%.")


def test_a_search_is_drawn_against_the_strengths_from_below_the_least_choice():
    def searched(values, found):
        runs = [(type("Ran", (), {"matrix": AccuracyMatrix([[value]])})(),) for value in found]
        return Tuned(values, tuple(runs), (), centre=values[1], widened=0)

    methods = {"EWC": searched((1.0, 10.0, 100.0, 1e4), (0.2, 0.3, 0.9, 0.6)), "L2": searched((0.1, 1.0, 10.0), (0.1, 0.88, 0.4))}
    drawn = figures.searches({"class": methods})
    assert "class: EWC best at 100 with 90%, L2 best at 1 with 88%" in drawn.alt
    (panel,) = drawn.panels
    words = {re.sub("<[^>]*>", "", text) for text in re.findall(r"<text.*?</text>", panel, re.DOTALL)}
    assert {"EWC", "L2", "λ", "90%"} <= words and not {"80%", "60%"} & words
    ticks = [f"10{power}" in words for power in ["⁻²", "⁻¹", "⁰", "¹", "²", "³", "⁴", "⁵"]]
    assert ticks == [False, True, False, True, False, True, False, False]  # the axis counts in λ, over all that was tried
