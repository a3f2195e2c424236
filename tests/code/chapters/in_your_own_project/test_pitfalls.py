"""The table of what goes wrong and how that looks: each row is made to happen on a small model, and what it advises is tried."""

import copy
import math

import pytest
import torch
from ewc import EWC, L2, diagonal_fisher
from ewc.steps import Proximal
from house import ROOT
from torch import nn
from torch.nn.functional import cross_entropy

PAGE = ROOT / "book/beyond/in-your-own-project.md"


def drawn(seed, middles, n=300):
    """Two classes in four dimensions, about two places."""
    targets = torch.arange(n) % 2
    return middles[targets] + 0.5 * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)), targets


MIDDLES = torch.tensor([[2.0, 0.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.0]])
OLD, NEW = drawn(0, MIDDLES), drawn(1, -MIDDLES)  # the new task turns the answers round


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def read(model, task=OLD):
    with torch.no_grad():
        return (model(task[0]).argmax(1) == task[1]).float().mean().item()


def loss_of(model, task=NEW):
    with torch.no_grad():
        return cross_entropy(model(task[0]), task[1]).item()


def learn(model, task, guard=None, steps=100, rate=0.1, reduction="mean", times=1):
    """Plain descent on all of a task; the penalty after each step's pass."""
    rule, pulls = torch.optim.SGD(model.parameters(), lr=rate), []
    for _ in range(steps):
        rule.zero_grad()
        pull = torch.zeros(()) if guard is None else guard.penalty()
        (cross_entropy(model(task[0]), task[1], reduction=reduction) + times * pull).backward()
        rule.step()
        if hasattr(guard, "after_step"):
            guard.after_step(rate)
        pulls.append(pull.item())
    return pulls


def held(strength, kind=EWC):
    """A network that has learned the old task, and its guard."""
    model = network()
    learn(model, OLD)
    assert read(model) > 0.95
    guard = kind(model, strength)
    guard.consolidate(OLD[0])
    return model, guard


def the_penalty_stays_zero():
    for made in (lambda model: EWC(model, 1e3), lambda model: held(1e3)[1]):  # nothing consolidated; another copy of the model
        model, _ = held(1e3)
        assert max(learn(model, NEW, made(model))) == 0
        assert read(model) < 0.5
    model, guard = held(1e3)
    assert learn(model, NEW, guard, rate=1e-3)[-1] > 0


def consolidated_after_the_new_lesson():
    (model, _), (plain, _) = held(1.0), held(1.0)
    guard = EWC(model, 1e3)
    assert max(learn(model, NEW, guard)) == 0
    guard.consolidate(NEW[0])
    learn(plain, NEW)
    assert read(model) == read(plain) < 0.5


def everything_is_held():
    def learned_of_the_new(strength):
        model, guard = held(strength)
        before = loss_of(model)
        learn(model, NEW, Proximal(guard))
        return 1 - loss_of(model) / before

    summed = len(OLD[0])
    too_stiff, right = learned_of_the_new(100.0 * summed), learned_of_the_new(100.0)
    assert too_stiff < 0.1 < 0.3 < right
    strength, tenths = 100.0 * summed, 0
    while learned_of_the_new(strength) < 0.3:
        strength, tenths = strength / 10, tenths + 1
    assert 1 <= tenths <= 3


def past_the_bound():
    def ends_at(rate_of, way=lambda guard: guard):
        model, guard = held(1e6)
        learn(model, NEW, way(guard), rate=rate_of(2 / guard.largest_curvature()))
        return loss_of(model)

    assert math.isnan(ends_at(lambda bound: 10 * bound))
    assert math.isfinite(ends_at(lambda bound: bound / 2))
    assert math.isfinite(ends_at(lambda bound: 10 * bound, Proximal))


def kept(size=300, **options):
    """The loss on the old task after batches of this size of the new one."""
    model, guard = held(30.0)
    learn(model, [part[:size] for part in NEW], guard, steps=300, **options)
    return loss_of(model, OLD)


def larger_batches_of_a_sum():
    plain, _ = held(0.0)
    learn(plain, NEW, steps=300)
    few, many = (kept(size, reduction="sum", rate=0.1 / size) for size in (4, 300))
    assert many > 0.9 * loss_of(plain, OLD) > 1.5 * few
    assert max(kept(4), kept(300)) < 0.5 * loss_of(plain, OLD)  # of a mean


def added_in_each_part():
    assert kept(times=8) < kept()  # in each of eight micro-batches


def statistics_go_to_the_new_data():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    learn(model, OLD)
    shifted = OLD[0] + 3, OLD[1]
    lessons = {}
    for way in ("train", "eval"):
        one = copy.deepcopy(model)
        guard = L2(one, 1.0)
        guard.consolidate()
        one.train()
        one[1].train(way == "train")
        lessons[way] = learn(one, shifted, guard, rate=1e-6)[-1], read(one.eval())
    assert lessons["train"][0] < 1e-6  # next to no weight has moved
    assert read(model.eval()) == lessons["eval"][1] > 0.95
    assert lessons["train"][1] < lessons["eval"][1] - 0.2


def weights_shrink():
    def norm_after(decay):
        model, guard = held(10.0, L2)
        before = torch.cat([value.flatten() for value in model.parameters()]).norm()
        rule, chance = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=decay), torch.Generator().manual_seed(0)
        for _ in range(500):
            rule.zero_grad()
            for parameter in model.parameters():  # a lesson that says nothing, loudly
                parameter.grad = 30 * torch.randn(parameter.shape, generator=chance)
            guard.add_gradient()
            rule.step()
        return (torch.cat([value.flatten() for value in model.parameters()]).norm() / before).item()

    assert norm_after(0.0) > 0.95
    assert norm_after(1.0) < 0.9 * norm_after(0.0)


def the_fisher_is_zero():
    model = network()
    learn(model, OLD, steps=1000, rate=0.5)
    found = {
        labels: torch.cat([value.flatten() for value in diagonal_fisher(model, *OLD, labels=labels, samples=100).values()])
        for labels in ("empirical", "exact", "sampled")
    }
    small = {labels: (value < 0.01 * found["exact"].max()).float().mean().item() for labels, value in found.items()}
    assert small["empirical"] > 0.95
    assert max(small["exact"], small["sampled"]) < 0.2


ROWS = {
    "the penalty is 0 after many steps": the_penalty_stays_zero,
    "the penalty is 0, and then the first task is gone": consolidated_after_the_new_lesson,
    "everything is held, nothing new is learned": everything_is_held,
    "under SGD the loss becomes NaN after some steps": past_the_bound,
    "the same λ holds less with larger batches": larger_batches_of_a_sum,
    "the same λ holds more when you accumulate": added_in_each_part,
    "the first task fades although the penalty is small": statistics_go_to_the_new_data,
    "weights shrink that no spring lets go": weights_shrink,
    "the Fisher is zero nearly everywhere": the_fisher_is_zero,
}


@pytest.mark.parametrize("row", ROWS)
def test_what_the_table_says_one_sees_is_seen_and_what_it_advises_helps(row):
    ROWS[row]()


def test_every_row_of_the_table_is_tried():
    rows = PAGE.read_text().split("| what you see | what it is | what to do |\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(ROWS)
