"""EWC with Kronecker factors, held to the matrix written out in float64."""

import pytest
import torch
from ewc import EWC, KroneckerEWC, factors, kronecker_fisher
from ewc.factors import Blocks, smallest_and_largest
from ewc.steps import Proximal
from test_penalties import data, move, network, nudge, values
from torch import nn
from torch.nn.utils import parameters_to_vector

pytestmark = pytest.mark.usefixtures("float64")


def convolutional():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(2, 4, 2, groups=2), nn.Tanh(), nn.Conv2d(4, 2, 2, bias=False), nn.Flatten(), nn.Linear(8, 3)
    )


def images(seed, n=5):
    return torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


KINDS = {"linear": (network, data), "convolution": (convolutional, images), "alone": (lambda: nn.Linear(4, 3), data)}


def dense(model, inputs):
    """The block-diagonal matrix that the factors stand for, in the order of parameters_to_vector."""
    size = len(parameters_to_vector(model.parameters()))
    matrix = torch.zeros(size, size)
    for b, a, places in kronecker_fisher(model, inputs).values():
        rows = places.flatten()
        matrix[rows[:, None], rows] = torch.kron(b, a)
    return matrix


def learned(guard, draw, tasks):
    """Consolidate some tasks; each one's matrix, and the weights after the last. Then the weights move on."""
    matrices = []
    for task in range(tasks):
        move(guard.model, task)
        matrices.append(dense(guard.model, draw(task)))
        guard.consolidate(draw(task))
    anchor = parameters_to_vector(guard.model.parameters()).detach()
    move(guard.model, tasks)
    return matrices, anchor


def distance(guard, anchor):
    return parameters_to_vector(guard.model.parameters()).detach() - anchor


@pytest.mark.parametrize("decay", [1.0, 0.6])
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_are_those_of_the_matrix_written_out(kind, tasks, decay):
    build, draw = KINDS[kind]
    guard = KroneckerEWC(build(), 7.0, decay=decay)
    matrices, anchor = learned(guard, draw, tasks)
    matrix = sum(decay ** (tasks - 1 - task) * each for task, each in enumerate(matrices))
    d = distance(guard, anchor)
    assert guard.penalty().item() == pytest.approx(3.5 * (d @ matrix @ d).item(), rel=1e-10)
    gradient = parameters_to_vector(torch.autograd.grad(guard.penalty(), list(guard.model.parameters())))
    torch.testing.assert_close(gradient, 7 * matrix @ d, rtol=1e-9, atol=1e-12)
    guard.add_gradient()
    added = parameters_to_vector(parameter.grad for parameter in guard.model.parameters())
    torch.testing.assert_close(added, 7 * matrix @ d, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("step_size", [0, 1e-3, 0.3, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_proximal_step_ends_where_distance_and_penalty_together_are_least(kind, step_size):
    """Its minimum, written out: (1 + η λ F) (θ − θ*) = θ′ − θ*. Twice, for what was found once must not be that of an older task."""
    build, draw = KINDS[kind]
    guard = KroneckerEWC(build(), 7.0, factors="added")
    matrix = 0
    for tasks in (1, 2):
        move(guard.model, tasks)
        guard.consolidate(draw(tasks))
        anchor = parameters_to_vector(guard.model.parameters()).detach()
        move(guard.model, tasks + 5)
        before = distance(guard, anchor)
        matrix = torch.zeros(len(before), len(before))
        for (b, a), (_, _, places) in zip(added(guard), kronecker_fisher(guard.model, draw(tasks)).values(), strict=True):
            rows = places.flatten()
            matrix[rows[:, None], rows] = torch.kron(b, a)
        guard.proximal_step(step_size)
        wanted = torch.linalg.solve(torch.eye(len(before)) + step_size * 7 * matrix, before)
        torch.testing.assert_close(distance(guard, anchor), wanted, rtol=1e-8, atol=1e-10)


def added(guard):
    """The factors that the penalty holds, layer by layer, from its state."""
    state = guard.state_dict()
    return [(state[name][0], state[name.replace("outputs/", "inputs/")][0]) for name in state if name.startswith("outputs/")]


def test_a_proximal_step_leaves_frozen_layers_and_refuses_what_it_cannot_do():
    guard = KroneckerEWC(network(), 7.0, factors="added")
    guard.proximal_step(0.1)  # nothing learned, nothing held
    guard.consolidate(data(0))
    move(guard.model, 1)
    first = next(module for module in guard.model.modules() if isinstance(module, nn.Linear)).requires_grad_(False)
    frozen, rest = values(first), parameters_to_vector(guard.model.parameters()).detach()
    guard.proximal_step(0.1)
    assert all(torch.equal(frozen[name], value) for name, value in values(first).items())
    assert not torch.equal(parameters_to_vector(guard.model.parameters()), rest)
    for wrong in (-1, float("nan"), "long"):
        with pytest.raises(ValueError, match="step_size is"):
            guard.proximal_step(wrong)
    kept = KroneckerEWC(network(), 7.0, factors="kept")
    for task in range(2):
        nudge(kept.model)
        kept.consolidate(data(task))
    with pytest.raises(ValueError, match=r"factors of 2 tasks are kept.*factors=.added."):
        kept.proximal_step(0.1)


def test_steps_that_run_away_explicitly_stay_as_proximal_ones():
    def trained(wrap):
        model = network()
        guard = wrap(KroneckerEWC(model, 1e5, factors="added"))
        guard.consolidate(data(0))
        anchor = parameters_to_vector(model.parameters()).detach().clone()
        inputs, labels = data(1), torch.zeros(len(data(1)), dtype=torch.long)
        rule = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(60):
            loss = nn.functional.cross_entropy(model(inputs), labels) + guard.penalty()
            rule.zero_grad()
            loss.backward()
            rule.step()
            if hasattr(guard, "after_step"):
                guard.after_step(0.05)
        return parameters_to_vector(model.parameters()).detach() - anchor

    assert not trained(lambda guard: guard).norm() < 1e3
    free = trained(lambda guard: Proximal(KroneckerEWC(guard.model, 0.0, factors="added"))).norm()
    assert 0 < trained(Proximal).norm() < min(10, free / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_largest_curvature_is_the_largest_eigenvalue_for_one_task_and_a_bound_for_several(kind):
    build, draw = KINDS[kind]
    guard = KroneckerEWC(build(), 7.0, decay=0.8)
    (matrix,), _ = learned(guard, draw, 1)
    assert guard.largest_curvature() == pytest.approx(7 * torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-9)
    matrices, _ = learned(guard, draw, 2)
    largest = 7 * torch.linalg.eigvalsh(0.64 * matrix + 0.8 * matrices[0] + matrices[1])[-1].item()
    assert largest <= guard.largest_curvature() * (1 + 1e-9) <= 2 * largest
    twin = KroneckerEWC(guard.model, 7.0, decay=0.8)
    twin.load_state_dict(guard.state_dict())
    assert twin.largest_curvature() == pytest.approx(guard.largest_curvature(), rel=1e-9)


def test_largest_curvature_is_looked_for_when_it_is_asked_for_and_once_a_task(monkeypatch):
    counted = []
    monkeypatch.setattr(factors, "smallest_and_largest", lambda matrices: counted.extend(matrices) or smallest_and_largest(matrices))
    late, early = KroneckerEWC(network(), 7.0, decay=0.8), KroneckerEWC(network(), 7.0, decay=0.8)
    learned(late, data, 3)
    assert not counted
    for _ in range(2):
        learned(early, data, 1)
        early.largest_curvature()
        early.largest_curvature()
    assert len(counted) == 2 * 2 * len(early._blocks)  # tasks, sides
    learned(early, data, 3), learned(late, data, 2)
    for each in (*early._blocks.values(), *late._blocks.values()):
        for found in (each, each.to("cpu")):
            torch.testing.assert_close(found.steepest, Blocks(each.b, each.a).steepest, rtol=1e-12, atol=0)


# ---- factors that are added


def pair(guard, name="0"):
    return guard.state_dict()[f"outputs/{name}"][0], guard.state_dict()[f"inputs/{name}"][0]


@pytest.mark.parametrize("decay", [1.0, 0.6])
def test_the_same_task_twice_is_twice_the_task_once_added(decay):
    kept, added = (KroneckerEWC(network(), decay=decay, factors=factors) for factors in ("kept", "added"))
    for guard in (kept, added):
        for _ in range(3):
            nudge(guard.model)
            guard.consolidate(data(0))
        move(guard.model, 1)
    assert added.penalty().item() == pytest.approx(kept.penalty().item(), rel=1e-6)
    assert added.largest_curvature() == pytest.approx(kept.largest_curvature(), rel=1e-6)


@pytest.mark.parametrize("dark", [0, 1, 6])
def test_inputs_that_a_task_never_used_are_left_out_and_nothing_changes(dark):
    """Other inputs are dark in each task. For one of ten it does not pay: 81 % of the numbers of A would stay."""
    torch.manual_seed(0)
    outputs, inputs = torch.randn(3, 30, 4), torch.randn(3, 30, 10)
    for task in range(3):
        inputs[task, :, torch.arange(dark) + task] = 0
    b, a = outputs.mT @ outputs, inputs.mT @ inputs
    blocks, delta = Blocks(b, a), torch.randn(4, 10)
    assert (blocks._used is None) is (dark < 2)
    torch.testing.assert_close(blocks.times(delta), (b @ delta @ a).sum(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", ["outputs", "inputs", "both"])
def test_factors_that_are_multiples_on_one_side_are_added_exactly(side):
    torch.manual_seed(0)

    def definite(size):
        root = torch.randn(size, size)
        return root @ root.T

    b, a = definite(5), definite(5)
    total, blocks = torch.zeros(25, 25), None
    for multiple, other in ((1.0, definite(5)), (0.3, definite(5)), (2.0, definite(5))):
        new_b = multiple * b if side != "inputs" else other
        new_a = multiple**2 * a if side != "outputs" else other
        total = 0.7 * total + torch.kron(new_b, new_a)
        first = blocks is None
        blocks = Blocks(new_b[None], new_a[None]) if first else blocks.faded(0.7).joined(new_b, new_a, "added")
    torch.testing.assert_close(torch.kron(blocks.b[0], blocks.a[0]), total, rtol=1e-9, atol=1e-9)


def test_added_factors_keep_the_partial_traces_of_the_sum_and_its_definiteness():
    kept, added = (KroneckerEWC(network(), decay=0.6, factors=factors) for factors in ("kept", "added"))
    for guard in (kept, added):
        learned(guard, data, 4)
    for name in ("0", "2"):
        b, a = (kept.state_dict()[f"{kind}/{name}"] for kind in ("outputs", "inputs"))
        new_b, new_a = pair(added, name)
        traces_a, traces_b = (each.diagonal(dim1=1, dim2=2).sum(1) for each in (a, b))
        torch.testing.assert_close(new_b * new_a.trace(), torch.einsum("t,tij->ij", traces_a, b), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(new_a * new_b.trace(), torch.einsum("t,tij->ij", traces_b, a), rtol=1e-9, atol=1e-12)
        assert torch.linalg.eigvalsh(new_a)[0] > -1e-12
        assert torch.linalg.eigvalsh(new_b)[0] > -1e-12


def test_added_factors_do_not_grow_and_kept_ones_grow_by_a_task():
    def numbers(guard):
        return sum(value.numel() for key, value in guard.state_dict().items() if key.startswith(("outputs", "inputs")))

    kept, added = KroneckerEWC(network()), KroneckerEWC(network(), factors="added")
    sizes = []
    for task in range(3):
        for guard in (kept, added):
            nudge(guard.model)
            guard.consolidate(data(task))
        sizes.append((numbers(kept), numbers(added)))
    once = 5 * 5 + 5 * 5 + 3 * 3 + 6 * 6
    assert sizes == [(once, once), (2 * once, once), (3 * once, once)]


def test_added_factors_where_a_task_has_none_stay():
    guard = KroneckerEWC(nn.Linear(4, 3, bias=False), factors="added")
    for inputs in (data(0), 0 * data(0)):  # black images: A = 0
        guard.consolidate(inputs)
        move(guard.model, 1)
        assert 0 < guard.penalty().item() < torch.inf
    blank = KroneckerEWC(nn.Linear(4, 3, bias=False), factors="added")
    blank.consolidate(0 * data(0))
    nudge(blank.model)
    blank.consolidate(0 * data(0))
    move(blank.model, 1)
    assert blank.penalty().item() == 0


# ---- what differs from the diagonal


def test_a_way_on_which_no_output_changes_is_free_where_the_diagonal_holds_it():
    model = nn.Linear(4, 3)
    whole, diagonal = KroneckerEWC(model), EWC(model)
    inputs = data(0)
    inputs[:, 1] = inputs[:, 0]  # two inputs that are always the same
    for guard in (whole, diagonal):
        guard.consolidate(inputs)
    with torch.no_grad():
        model.weight[:, 0] += torch.tensor([1.0, 2.0, 3.0])
        model.weight[:, 1] -= torch.tensor([1.0, 2.0, 3.0])
    assert whole.penalty().item() == pytest.approx(0, abs=1e-14)
    assert diagonal.penalty().item() > 0.1


# ---- layers that come and go


def test_a_layer_frozen_for_one_task_is_still_held_when_it_thaws():
    model = network()
    guard = KroneckerEWC(model)
    guard.consolidate(data(0))
    model[0].requires_grad_(False)
    nudge(model[2])
    guard.consolidate(data(1))
    model[0].requires_grad_(True)
    with torch.no_grad():
        model[0].weight += 1
    assert guard.penalty().item() > 0
    state = guard.state_dict()
    assert (len(state["inputs/0"]), len(state["inputs/2"])) == (1, 2)
    twin = KroneckerEWC(model)
    twin.load_state_dict(state)
    assert twin.penalty().item() == guard.penalty().item()


def test_a_layer_that_was_frozen_at_the_task_is_free():
    model = network()
    model[0].requires_grad_(False)
    guard = KroneckerEWC(model)
    guard.consolidate(data(0))
    model[0].requires_grad_(True)
    move(model[0], 1)
    assert guard.penalty().item() == 0


def test_a_layer_frozen_in_part_and_a_layer_of_another_kind_are_refused():
    model = network()
    model[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"layer '0' is frozen in part.*both or none"):
        KroneckerEWC(model).consolidate(data(0))
    with pytest.raises(ValueError, match=r"LayerNorm.*freeze"):
        KroneckerEWC(nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))).consolidate(data(0))


def test_max_examples_takes_them_evenly_over_those_given():
    guard = KroneckerEWC(network(), max_examples=3)
    x = data(0, 9)
    guard.consolidate(x)
    wanted = kronecker_fisher(guard.model, x[[0, 4, 8]])["0"]
    torch.testing.assert_close(pair(guard), (wanted.outputs, wanted.inputs))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decay": 0}, ["decay is 0", "above 0", "at most 1"]),
        ({"decay": 1.1}, ["decay is 1.1"]),
        ({"factors": "summed"}, ["factors is 'summed'", "'kept'", "'added'"]),
        ({"max_examples": 0}, ["max_examples is 0", "at least 1"]),
    ],
)
def test_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as refusal:
        KroneckerEWC(network(), **options)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_added_refuses_the_factors_of_several_tasks_and_kept_takes_the_added_ones():
    kept, added = KroneckerEWC(network()), KroneckerEWC(network(), factors="added")
    learned(kept, data, 2)
    learned(added, data, 2)
    with pytest.raises(ValueError, match=r"state has the factors of 2 tasks; factors='added' keeps one pair"):
        added.load_state_dict(kept.state_dict())
    kept.load_state_dict(added.state_dict())
    assert kept.penalty().item() == added.penalty().item() > 0
    assert values(kept.model).keys() == values(added.model).keys()


def test_where_eigenvalues_are_not_found_in_single_precision_they_are_in_double(monkeypatch):
    real = torch.linalg.eigvalsh

    def fails_in_single(matrices):
        if matrices.dtype == torch.float32:
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return real(matrices)

    matrices = torch.tensor([[[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 0.0]]], dtype=torch.float32)
    monkeypatch.setattr(torch.linalg, "eigvalsh", fails_in_single)
    _, found = factors.smallest_and_largest(matrices)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([3.0, 1.0])
