"""The protocol on CIFAR starts and learns, on a few hundred images drawn at random; its Fishers are what they are called."""

import json

import pytest
import torch
from ewc import Task, diagonal_fisher
from ewc.cifar import cifar
from ewc.workshop import paper, paper_cifar
from ewc.workshop.paper_cifar import BatchedEWC, photographs, squared_batch_means
from ewc.workshop.residual import Reduced
from torch.nn.functional import cross_entropy


def drawn(classes=4, count=120, seed=0):
    """Noise in three colours, around one random picture for each class."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(classes, 3, 32, 32, generator=generator)
    targets = torch.arange(2 * count) % classes
    images = pictures[targets] + torch.randn(2 * count, 3, 32, 32, generator=generator)
    parts = (images[:count], targets[:count], images[count:], targets[count:])
    return Task("drawn", "pictures", tuple("abcd"[:classes]), *parts, embedded=True, source="drawn here", checksum=f"drawn {seed}")


TINY = {"classes": 4, "groups": 2, "width": 4, "steps": 25, "batch_size": 20, "fisher_examples": 30}


@pytest.mark.parametrize("fisher", paper_cifar.FISHERS)
def test_it_starts_and_makes_progress(fisher):
    own = {**TINY, "method": "ewc", "strength": 1.0} | paper_cifar.FISHERS[fisher]
    result, _ = photographs([drawn()], **{**own, "fisher_examples": 30})
    assert [len(row) for row in result["matrix"]] == [1, 2]
    assert min(row[-1] for row in result["matrix"]) > 0.75  # of two classes
    assert result["bytes"] > 0


def test_joint_sees_all_and_plain_keeps_nothing():
    joint, _ = photographs([drawn()], method="joint", **TINY)
    plain, _ = photographs([drawn()], method="plain", **TINY)
    assert min(joint["matrix"][-1]) > 0.75
    assert joint["bytes"] == plain["bytes"] == 0


def test_a_fisher_by_the_batch_is_the_empirical_one_where_a_batch_is_one_image():
    model, task = Reduced(4, 2).eval(), drawn(count=8)
    inputs, targets = task.train_inputs, task.train_targets
    ones = squared_batch_means(model, inputs, targets, 1)
    empirical = diagonal_fisher(model, inputs, targets, labels="empirical")
    for name, value in ones.items():
        torch.testing.assert_close(value, empirical[name], rtol=1e-3, atol=1e-7)
    whole = squared_batch_means(model, inputs, targets, 8)
    slopes = torch.autograd.grad(cross_entropy(model(inputs), targets), list(model.parameters()))
    for value, slope in zip(whole.values(), slopes, strict=True):
        torch.testing.assert_close(value, slope.square())


def test_the_penalty_by_the_batch_keeps_a_term_a_task():
    model, task = Reduced(4, 2), drawn(count=20)
    guard = BatchedEWC(model, 2.0)
    guard.consolidate(task.train_inputs, task.train_targets)
    assert float(guard.penalty()) == 0
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    assert float(guard.penalty()) > 0
    guard.consolidate(task.train_inputs, task.train_targets)
    assert len(guard._terms) == 2


def test_the_network_is_as_deep_and_as_wide_as_the_papers():
    model = Reduced(10)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) == 20  # 17 and three on the way around
    assert model.logits.in_features == 160
    assert 1.0e6 < sum(parameter.numel() for parameter in model.parameters()) < 1.2e6
    state = torch.get_rng_state()
    Reduced(4, 2, seed=5)
    assert torch.equal(state, torch.get_rng_state())


def test_what_it_is_asked_wrongly_is_refused():
    with pytest.raises(ValueError, match="method is 'si'"):
        photographs([drawn()], method="si", **TINY)
    with pytest.raises(ValueError, match="classes is 10; drawn has 4"):
        photographs([drawn()])


def test_both_data_sets_and_all_fishers_are_in_the_protocol():
    runs = paper_cifar.runs()
    assert {run["classes"] for run, _ in runs} == {10, 100}
    assert len(runs) == 2 * (len(paper_cifar.FISHERS) + 2)
    configurations = [paper.complete(photographs, run)[0] for run, _ in runs]
    assert len({json.dumps(each) for each in configurations}) == len(runs)


def test_a_protocol_without_its_data_is_left_out_and_said_to_be(monkeypatch, tmp_path):
    def none_found(classes):
        raise FileNotFoundError("CIFAR-10 was not found")

    said = []
    monkeypatch.setattr(paper_cifar, "cifar", none_found)
    monkeypatch.setattr(paper, "folder", lambda: tmp_path)
    paper.make({"fisher": [(photographs, run) for run, _ in paper_cifar.runs()]}, say=said.append)
    assert [line for line in said if "left out" in line] == ["fisher is left out: CIFAR-10 was not found"]
    assert not list(tmp_path.rglob("*.json"))


def test_cifar_has_no_stand_in_and_says_where_it_was_looked_for(monkeypatch, tmp_path):
    cifar.cache_clear()
    with pytest.raises(ValueError, match="classes is 20"):
        cifar(20)
    monkeypatch.setenv("EWC_DATA", "embedded")
    with pytest.raises(FileNotFoundError, match="no stand-in for CIFAR-10"):
        cifar(10)
    monkeypatch.setenv("EWC_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"CIFAR-100 was not found whole in {tmp_path}"):
        cifar(100)
