"""Gradients that old inputs do not feel, held to the definition and to what it is for, in float64."""

import pytest
import torch
from by_hand import assert_untouched, whole_state
from ewc import EWC, OrthogonalWeights, Task, fit, fit_together, kronecker_fisher, mlp
from small_tasks import blobs
from test_penalties import data, move, network, nudge
from torch import nn
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.usefixtures("float64")


def shown(model, inputs):
    """What each linear layer of `network` is shown, with a column of ones for the bias."""
    found = (inputs, model[:2](inputs).detach())
    return [torch.cat([x, x.new_ones(len(x), 1)], 1) for x in found]


def test_the_projector_is_the_papers_over_the_inputs_of_all_tasks():
    guard, alpha, rows = OrthogonalWeights(network(), 5.0), 6 / 5.0, [[], []]
    for task in range(2):
        move(guard.model, task)
        guard.consolidate(data(task))
        for own, x in zip(rows, shown(guard.model, data(task)), strict=True):
            own.append(x)
    for found, own in zip(guard.projectors().values(), rows, strict=True):
        x = torch.cat(own)
        inner = torch.linalg.inv(x @ x.T + alpha * torch.eye(len(x)))
        torch.testing.assert_close(found, torch.eye(x.shape[1]) - x.T @ inner @ x, rtol=1e-9, atol=1e-12)


def kept_by(guard):
    return [(name, value) for name, value in guard.state_dict().items() if name in guard.projectors()]


def test_what_is_kept_of_the_inputs_is_the_factor_of_the_kronecker_fisher():
    guard = OrthogonalWeights(network())
    guard.consolidate(data(0), batch_size=4)
    for (name, (_, a, _)), (own, kept) in zip(kronecker_fisher(guard.model, data(0)).items(), kept_by(guard), strict=True):
        assert name == own
        torch.testing.assert_close(kept, a)


def test_gradients_are_multiplied_from_the_right_weight_and_bias_together():
    guard = OrthogonalWeights(network(), 5.0)
    guard.consolidate(data(0))
    cross_entropy(guard.model(data(1)), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    layers = [guard.model[0], guard.model[2]]
    before = [torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1) for layer in layers]
    guard.add_gradient()
    for layer, was, projector in zip(layers, before, guard.projectors().values(), strict=True):
        torch.testing.assert_close(torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1), was @ projector)


def test_a_step_that_is_projected_hard_is_not_felt_by_old_inputs_that_leave_room():
    layer = nn.Linear(6, 3)
    old = data(0, n=3)
    old = torch.cat([old, old[:, :2]], 1)
    guard = OrthogonalWeights(layer, 1e9)
    guard.consolidate(old)
    before, new = layer(old).detach(), torch.cat([data(1), data(2)[:, :2]], 1)
    said = layer(new).detach()
    layer(new).square().sum().backward()
    guard.add_gradient()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter -= 0.1 * parameter.grad
    assert (layer(old) - before).abs().max() < 1e-6
    assert (layer(new) - said).abs().max() > 0.1


def test_nothing_is_changed_before_the_first_task_and_nothing_is_added_to_the_loss():
    guard = OrthogonalWeights(network())
    guard.model(data(0)).sum().backward()
    before = [parameter.grad.clone() for parameter in guard.model.parameters()]
    guard.add_gradient()
    assert all(torch.equal(parameter.grad, was) for parameter, was in zip(guard.model.parameters(), before, strict=True))
    guard.consolidate(data(0))
    move(guard.model, 1)
    assert guard.penalty().item() == 0.0


def test_a_strength_of_zero_leaves_gradients_as_they_are():
    guard = OrthogonalWeights(network(), 0.0)
    guard.consolidate(data(0))
    for projector in guard.projectors().values():
        torch.testing.assert_close(projector, torch.eye(len(projector)))


def test_looking_at_a_task_changes_nothing_about_the_model():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False), nn.Dropout(), nn.Linear(5, 3)).train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = whole_state(model)
    OrthogonalWeights(model).consolidate(data(0))
    assert_untouched(before, whole_state(model))


@pytest.mark.parametrize("together", [False, True])
def test_training_takes_it_in_the_place_of_a_penalty(together):
    """fit, one network at a time and side by side, projects what plain descent with momentum then steps along."""
    task = blobs("a", n=40, features=4, classes=3, seed=1)
    task = Task(**vars(task) | {name: getattr(task, name).double() for name in ("train_inputs", "test_inputs")})
    models = [mlp((5,), inputs=4, classes=3).double() for _ in range(2)]
    guards = [OrthogonalWeights(model, 3.0) for model in models]
    for guard in guards:
        guard.consolidate(data(0))
    options = {"steps": 4, "batch_size": 40, "learning_rate": 0.1, "momentum": 0.5, "schedule": "constant"}
    if together:
        fit_together(models, [task, task], penalties=guards, **options)
    else:
        fit(models[0], task, penalty=guards[0], **options)
    model, twin = mlp((5,), inputs=4, classes=3).double(), models[0]
    velocity = {name: 0.0 for name in ("hidden1", "logits")}
    for _ in range(4):
        model.zero_grad()
        cross_entropy(model(task.train_inputs), task.train_targets).backward()
        for name, projector in guards[0].projectors().items():
            layer = getattr(model, name)
            gradient = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1) @ projector
            velocity[name] = 0.5 * velocity[name] + gradient
            with torch.no_grad():
                layer.weight -= 0.1 * velocity[name][:, :-1]
                layer.bias -= 0.1 * velocity[name][:, -1]
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_a_state_comes_back_and_one_of_another_model_is_refused():
    guard, twin = OrthogonalWeights(network(), 2.0), OrthogonalWeights(network(), 2.0)
    guard.consolidate(data(0))
    twin.load_state_dict(guard.state_dict())
    for one, other in zip(guard.projectors().values(), twin.projectors().values(), strict=True):
        assert torch.equal(one, other)
    state = guard.state_dict()
    for change, words in (
        ({"0": torch.eye(4)}, r"it has torch.float64 of shape \(4, 4\) in '0', which must be floating-point numbers \(5, 5\)"),
        ({"0": torch.eye(5).long()}, r"it has torch.int64 of shape \(5, 5\) in '0', which must be floating-point"),
        ({"7": torch.eye(5)}, r"for another model: it has \(5, 5\) in '7', and this model no nn.Linear of that name"),
        ({"1": torch.eye(5)}, r"for another model: it has \(5, 5\) in '1', and this model no nn.Linear"),
        ({"0": -torch.eye(5)}, "not symmetric and positive semi-definite"),
        ({"0": torch.eye(5) + torch.eye(5).roll(1, 0)}, "not symmetric and positive semi-definite"),
    ):
        with pytest.raises(ValueError, match=words):
            twin.load_state_dict(state | change)
    with pytest.raises(ValueError, match=r"incomplete: it has the weights of '2.(weight|bias)', and not what its layer was shown"):
        twin.load_state_dict({name: value for name, value in state.items() if name != "2"})
    with pytest.raises(ValueError, match="for another model"):
        EWC(network()).load_state_dict(dict(kept_by(guard)))


def test_a_second_call_with_the_same_weights_is_refused_and_changes_nothing():
    guard = OrthogonalWeights(network(), 2.0)
    guard.consolidate(data(0))
    kept = {name: value.clone() for name, value in guard.state_dict().items()}
    twin = OrthogonalWeights(guard.model, 2.0)
    twin.load_state_dict(kept)
    for each in (guard, guard, twin):
        with pytest.raises(ValueError, match=r"weights of the last call unchanged.*all examples of a task in one call"):
            each.consolidate(data(1))
        assert all(torch.equal(value, kept[name]) for name, value in each.state_dict().items())
    nudge(guard.model)
    for each in (guard, twin):
        each.consolidate(data(1))
    assert not torch.equal(guard.state_dict()["0"], kept["0"])


@pytest.mark.parametrize("frozen", [(), ("0",), ("2",), ("0", "2")])
@pytest.mark.parametrize("later", [(), ("0",), ("2",), ("0", "2")])
def test_a_state_comes_back_whatever_was_frozen_then_and_is_frozen_now(frozen, later):
    def freeze(model, names):
        for name in ("0", "2"):
            model.get_submodule(name).requires_grad_(name not in names)

    guard = OrthogonalWeights(network(), 2.0)
    guard.consolidate(data(0))
    freeze(guard.model, frozen)
    move(guard.model, 1)
    if len(frozen) < 2:
        guard.consolidate(data(1))
    fresh = OrthogonalWeights(network(), 2.0)
    freeze(fresh.model, frozen)
    if len(frozen) < 2:
        fresh.consolidate(data(0))
    for giver in (guard, fresh):
        taker = OrthogonalWeights(network(), 2.0)
        freeze(taker.model, later)
        taker.load_state_dict(giver.state_dict())
        assert taker.projectors().keys() == giver.projectors().keys()
        assert all(torch.equal(value, giver.state_dict()[name]) for name, value in taker.state_dict().items())
        freeze(taker.model, ())
        taker.model(data(2)).square().sum().backward()
        before = {name: taker.model.get_submodule(name).weight.grad.clone() for name in ("0", "2")}
        taker.add_gradient()
        for name, was in before.items():
            changed = not torch.equal(taker.model.get_submodule(name).weight.grad, was)
            assert changed == (name in giver.projectors())  # what was frozen while it was shown is free when it thaws


def test_what_has_no_projection_is_refused_by_name():
    with pytest.raises(ValueError, match="layer '0' is Conv2d"):
        OrthogonalWeights(nn.Sequential(nn.Conv2d(1, 2, 3)))
    model = network()
    model[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="layer '0' is frozen in part"):
        OrthogonalWeights(model)
    with pytest.raises(ValueError, match="strength is -1"):
        OrthogonalWeights(network(), -1)
    with pytest.raises(TypeError, match="inputs is list"):
        OrthogonalWeights(network()).consolidate([1.0])
    with pytest.raises(ValueError, match="inputs has no example"):
        OrthogonalWeights(network()).consolidate(data(0)[:0])


def test_so_many_examples_are_taken_evenly_from_first_to_last():
    few, whole = OrthogonalWeights(network(), max_examples=3), OrthogonalWeights(network())
    few.consolidate(data(0, n=5))
    whole.consolidate(data(0, n=5)[::2])
    for one, other in zip(few.state_dict().values(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_layer_without_bias_and_one_that_is_frozen():
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 3))
    model[1].requires_grad_(False)
    guard = OrthogonalWeights(model, 2.0)
    guard.consolidate(data(0))
    assert {name: tuple(value.shape) for name, value in guard.projectors().items()} == {"0": (4, 4)}
    model(data(0)).sum().backward()
    before = model[0].weight.grad.clone()
    guard.add_gradient()
    torch.testing.assert_close(model[0].weight.grad, before @ guard.projectors()["0"])


def changed(name, layer):
    model = network()
    guard = OrthogonalWeights(model)
    guard.consolidate(data(0))
    model[int(name)] = layer.double()
    return guard


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Linear(9, 5), "layer '0' has 10 inputs, a bias counted; it had 5"),
        (nn.Linear(4, 5, bias=False), "layer '0' has 4 inputs"),
        (nn.Identity(), "layer '0' is no nn.Linear of the model now"),
    ],
)
def test_a_layer_that_earlier_tasks_showed_something_else_is_refused(layer, words):
    guard = changed("0", layer)
    with pytest.raises(ValueError, match=words):
        guard.add_gradient()
    if not isinstance(layer, nn.Identity):
        state = guard.state_dict()
        with pytest.raises(ValueError, match="layer '0'"):
            guard.consolidate(torch.randn(3, layer.in_features))
        assert guard.state_dict().keys() == state.keys()


def test_outputs_that_come_later_are_projected_with_the_others():
    guard = changed("2", nn.Linear(5, 7))
    guard.model(data(1)).sum().backward()
    before = guard.model[2].weight.grad.clone(), guard.model[2].bias.grad.clone()
    guard.add_gradient()
    both = torch.cat([before[0], before[1][:, None]], 1) @ guard.projectors()["2"]
    torch.testing.assert_close(guard.model[2].weight.grad, both[:, :-1])
    guard.consolidate(data(1))  # outputs that are new make it another task
    both = torch.cat([shown(guard.model, data(task))[1] for task in (0, 1)])
    torch.testing.assert_close(guard.state_dict()["2"], both.mT @ both / 6)


def test_a_gradient_that_is_missing_is_zero():
    guard = OrthogonalWeights(network())
    guard.consolidate(data(0))
    guard.model(data(1)).square().sum().backward()
    wanted = torch.cat([guard.model[2].weight.grad, torch.zeros(3, 1)], 1) @ guard.projectors()["2"]
    guard.model[2].bias.grad = None
    guard.add_gradient()
    torch.testing.assert_close(guard.model[2].weight.grad, wanted[:, :-1])
    torch.testing.assert_close(guard.model[2].bias.grad, wanted[:, -1])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_of_few_bits_the_sums_have_more(kind):
    model = network().to(kind)
    guard = OrthogonalWeights(model, 5.0)
    guard.consolidate(data(0).to(kind))
    assert all(value.dtype == torch.float32 for _, value in kept_by(guard))
    x = torch.cat([data(0).to(kind).float(), torch.ones(6, 1, dtype=torch.float32)], 1)
    torch.testing.assert_close(guard.state_dict()["0"], x.T @ x / 6)
    model(data(0).to(kind)).sum().backward()
    guard.add_gradient()
    assert model[0].weight.grad.dtype == kind


def test_a_layer_that_is_called_by_keyword_and_a_whole_number_of_numpys():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, x):
            return self.a(input=x)

    guard = OrthogonalWeights(Named())
    guard.consolidate(data(0), batch_size=torch.ones(1).long().numpy()[0] * 2)
    x = torch.cat([data(0), torch.ones(6, 1)], 1)
    torch.testing.assert_close(guard.state_dict()["a"], x.T @ x / 6)
    with pytest.raises(ValueError, match="batch_size is 0"):
        guard.consolidate(data(0), batch_size=0)
