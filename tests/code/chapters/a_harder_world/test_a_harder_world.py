"""The chapter on a harder world: its network, its experiment in the three scenarios, and its figures."""

import torch
from ewc import diagonal_fisher, fit
from ewc.chapters.a_harder_world import experiments, figures
from ewc.chapters.a_harder_world.experiments import clothes_in_turn
from ewc.chapters.a_harder_world.network import convolutional
from ewc.tasks import split
from tiny_runs import images

SMALL = {"channels": (2, 3), "hidden": 4, "steps": 4, "batch_size": 8, "learning_rate": 1e-2, "fisher_examples": 20, "memory": 5}


def tasks():
    return [images("first", 0), images("second", 1)]


def test_a_seed_fixes_the_weights_and_leaves_torchs_own_draws_alone():
    torch.manual_seed(5)
    before = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (convolutional(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), before)
    weights = [torch.nn.utils.parameters_to_vector(model.parameters()) for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_image_becomes_a_row_of_logits_and_a_task_may_have_its_own():
    model = convolutional((2, 3), 4, classes=6, units=True)
    seen = torch.rand(5, 1, 28, 28)
    assert model(seen).shape == (5, 6)
    model.units.chosen = (2, 3)
    assert model(seen).shape == (5, 2)
    assert convolutional((2, 3), 4)(seen).shape == (5, 10)


def test_the_fisher_of_a_kernel_adds_up_its_uses_before_it_squares():
    model = convolutional((2, 3), 4, classes=3).double()
    seen = torch.rand(6, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slow = torch.zeros_like(model.convolution1.weight)
    for image in seen:
        log_probabilities = model(image[None]).log_softmax(1)[0]
        for log_probability in log_probabilities:
            (score,) = torch.autograd.grad(log_probability, model.convolution1.weight, retain_graph=True)
            slow += log_probability.exp().detach() * score.square() / len(seen)
    torch.testing.assert_close(diagonal_fisher(model, seen)["convolution1.weight"], slow, rtol=1e-9, atol=1e-12)


def test_it_learns_the_second_data_set_and_is_tested_at_the_end():
    result, _ = clothes_in_turn(tasks(), scenario="task", **SMALL)
    matrix = torch.tensor(result["matrix"])
    assert matrix.shape == (5, 5)
    assert matrix[:-1].isnan().all() and not matrix[-1].isnan().any()
    spoiled = tasks()
    spoiled[0].train_inputs[:] = 0
    again, _ = clothes_in_turn(spoiled, scenario="task", **SMALL)
    assert torch.equal(torch.tensor(again["matrix"]).nan_to_num(), matrix.nan_to_num())


def test_side_by_side_each_run_is_what_it_is_alone(monkeypatch):
    begun, learn = [], experiments.learn_together

    def watched(models, *arguments, **how):
        begun.append([torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone() for model in models])
        return learn(models, *arguments, **how)

    monkeypatch.setattr(experiments, "learn_together", watched)
    runs = [{"strength": strength, "seed": seed} for strength, seed in ((1.0, 0), (100.0, 0), (1.0, 1))]
    shared = {"scenario": "domain", "method": "ewc", "groups": 5, "tuning": False, **SMALL}
    together = experiments._in_turn(tasks(), [shared | run for run in runs])
    for run, (result, _) in zip(runs, together, strict=True):
        alone, _ = clothes_in_turn(tasks(), **shared, **run)
        torch.testing.assert_close(torch.tensor(result["matrix"]).nan_to_num(), torch.tensor(alone["matrix"]).nan_to_num(), rtol=0, atol=0.11)
        assert result["bytes"] == alone["bytes"] == 2 * 4 * len(begun[0][0])  # two numbers a weight, however many lessons
    for run, weights in zip(runs, begun[0], strict=True):
        own = convolutional(SMALL["channels"], SMALL["hidden"], classes=2, seed=run["seed"])
        assert torch.equal(weights, torch.nn.utils.parameters_to_vector(own.parameters()))


def test_a_stiff_penalty_holds_and_a_search_meets_no_test_image():
    long = {**SMALL, "steps": 40}
    held, _ = clothes_in_turn(tasks(), scenario="domain", method="l2", strength=1e4, **long)
    free, _ = clothes_in_turn(tasks(), scenario="domain", method="l2", strength=0.0, **long)
    (held, *_, late), (lost, *_, learned) = (result["matrix"][-1] for result in (held, free))
    assert held > lost + 0.05 and late < learned - 0.05  # the first task is kept, the last not learned
    spoiled = tasks()
    spoiled[1].test_inputs[:] = 0
    for tuning in (True, False):
        found = [clothes_in_turn(each, scenario="task", tuning=tuning, **long)[0]["matrix"] for each in (tasks(), spoiled)]
        assert (str(found[0]) == str(found[1])) is tuning


def test_joint_training_sees_all_lessons_so_far(monkeypatch):
    seen, learn = [], experiments.learn_together

    def watched(models, lessons, **how):
        seen.extend(lessons[0])
        return learn(models, lessons, **how)

    monkeypatch.setattr(experiments, "learn_together", watched)
    for method in ("joint", "plain"):
        clothes_in_turn(tasks(), scenario="class", method=method, **SMALL)
    assert [len(lesson.train_targets.unique()) for lesson in seen] == [2, 4, 6, 8, 10, 2, 2, 2, 2, 2]


def test_the_figures_say_what_they_show():
    parts = split(images("second", 1), 5, scenario="class")
    said = figures.lessons(parts).alt
    assert all(parts[0].classes[label] in said for part in parts for label in part.train_targets.unique().tolist())
    shares = {"first": (torch.tensor([0.25, 0.25]), torch.tensor([0.5, 0.7])), "last": (torch.tensor([0.75, 0.75]), torch.tensor([0.5, 0.3]))}
    picture = figures.by_layer(shares)
    assert "2 seeds" in picture.alt
    assert "first: 25.0% and 60.0%" in picture.alt


def test_the_network_learns():
    task = split(images("second", 1), 5, scenario="domain")[0]
    model = convolutional((2, 3), 4, classes=2)
    fit(model, task, steps=60, batch_size=8, optimizer="adam", learning_rate=1e-2, schedule="constant")
    with torch.no_grad():
        assert (model(task.train_inputs).argmax(1) == task.train_targets).float().mean() > 0.9
