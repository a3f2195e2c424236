"""What EWC cannot do: noise on weights, the cost of a shifted logit, and the last lesson of a class-incremental sequence."""

from dataclasses import replace

import pytest
import torch
from ewc import AccuracyMatrix, full_fisher, mlp
from ewc.chapters.what_ewc_cannot_do import experiments, figures
from ewc.datasets import digits, letters
from ewc.noise import cost_of_a_shift, curvature_along, direction, divergence, in_use, mean_kl, scales, turned
from torch.nn.utils import parameters_to_vector, vector_to_parameters

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network():
    """A small network in float64, some images, and its weights in a row."""
    model = mlp((5,), inputs=6, classes=4, seed=3).double()
    return model, normal(7, 6, seed=1), parameters_to_vector(model.parameters()).detach().clone()


def moved(model, weights):
    other = mlp((5,), inputs=6, classes=4).double()
    vector_to_parameters(weights, other.parameters())
    return other


# ---- noise


def test_the_curvature_along_a_step_is_the_quadratic_form_of_the_full_fisher():
    model, inputs, weights = network()
    fisher = full_fisher(model, inputs)
    for seed in range(3):
        step = normal(len(weights), seed=seed)
        assert curvature_along(model, inputs, step) == pytest.approx(float(step @ fisher @ step), rel=1e-9)


def test_the_divergence_is_the_mean_kl_of_the_predictions_and_leaves_the_weights_alone():
    model, inputs, weights = network()
    step = 0.3 * normal(len(weights), seed=5)
    with torch.no_grad():
        p, q = model(inputs).softmax(-1), moved(model, weights + step)(inputs).softmax(-1)
    wanted = sum(float((a * (a / b).log()).sum()) for a, b in zip(p, q, strict=True)) / len(inputs)
    assert divergence(model, inputs, step) == pytest.approx(wanted, rel=1e-9)
    assert torch.equal(parameters_to_vector(model.parameters()), weights)


def test_what_a_step_turns_is_the_slope_of_the_logits_along_it():
    model, inputs, weights = network()
    step, tiny = normal(len(weights), seed=6), 1e-6
    with torch.no_grad():
        slopes = (moved(model, weights + tiny * step)(inputs) - moved(model, weights - tiny * step)(inputs)) / (2 * tiny)
        logits, found = turned(model, inputs, step)
        torch.testing.assert_close(found, slopes, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(logits, model(inputs), **EXACT)
        p, q = logits.softmax(-1), (logits + slopes).softmax(-1)
    assert mean_kl(logits, logits + slopes) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-9)


def test_half_the_curvature_is_what_a_short_step_costs():
    model, inputs, weights = network()
    step = 1e-4 * normal(len(weights), seed=7)
    assert divergence(model, inputs, step) == pytest.approx(curvature_along(model, inputs, step) / 2, rel=1e-3)


def test_independent_noise_meets_the_diagonal_of_the_fisher_and_nothing_else():
    model, inputs, weights = network()
    fisher, scale = full_fisher(model, inputs), 0.1 + normal(len(weights), seed=8).abs()
    draws = scale * normal(40_000, len(weights), seed=9)
    mean = ((draws @ fisher) * draws).sum(1).mean()
    off = fisher - fisher.diagonal().diag()
    assert off.abs().sum() > fisher.diagonal().sum()  # there is a lot beside the diagonal to be met
    torch.testing.assert_close(mean, (fisher.diagonal() * scale.square()).sum(), rtol=0.02, atol=0)


def test_the_shaped_scale_squared_is_the_covariance_of_the_posterior_up_to_the_number_of_examples():
    fisher, examples, prior = normal(20).square(), 50, 3.0
    covariance = torch.linalg.inv(examples * fisher.diag() + prior * torch.eye(20, dtype=torch.float64))
    damping = prior / examples / fisher.mean()
    found = scales(fisher, "shaped", damping=float(damping)).square().diag() / examples
    torch.testing.assert_close(found, covariance, **EXACT)


def test_the_null_weights_are_those_in_use_with_the_smallest_fisher():
    fisher, used = torch.tensor([0.0, 3.0, 1.0, 0.0, 2.0, 5.0]), torch.tensor([False, True, True, True, True, True])
    assert scales(fisher, "null", share=0.4, used=used).tolist() == [0, 0, 1, 1, 0, 0]
    assert scales(fisher, "uniform", used=used).tolist() == [0, 1, 1, 1, 1, 1]
    assert scales(fisher, "shaped", used=used)[0] == 0


def test_a_direction_has_length_one_and_stays_where_its_scale_is():
    scale = torch.tensor([0.0, 1.0, 10.0, 0.0])
    for seed in range(3):
        found = direction(scale, torch.Generator().manual_seed(seed))
        assert float(found.norm()) == pytest.approx(1)
        assert found[0] == found[3] == 0


def test_weights_that_are_not_in_use_change_no_logit_however_far_they_move():
    model, inputs, weights = network()
    inputs[:, [1, 4]] = 0
    used = in_use(model, inputs)
    assert int((~used).sum()) == 2 * 5
    with torch.no_grad():
        torch.testing.assert_close(moved(model, weights + 100 * normal(len(weights)) * ~used)(inputs), model(inputs), **EXACT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(dict(kind="loud"), "kind is 'loud'"), (dict(kind="shaped", damping=0), "damping is 0"), (dict(kind="null", share=0), "share is 0")],
)
def test_noise_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        scales(torch.ones(3), **arguments)


# ---- the cost of a shift


def test_the_cost_of_a_shift_is_the_kl_divergence_of_the_two_predictions():
    logits = normal(5, 4)
    p = logits.softmax(-1)
    for shift in (-2.0, 0.0, 0.5, 6.0):
        raised = logits + shift * torch.tensor([0.0, 0.0, 1.0, 0.0])
        wanted = (p * (p / raised.softmax(-1)).log()).sum(-1)
        torch.testing.assert_close(cost_of_a_shift(p[:, 2], shift), wanted, rtol=1e-9, atol=1e-14)


# ---- the experiments, on the images that the book carries


def last_lesson(**arguments):
    return experiments.last_lesson(
        [digits()], hidden=(100, 100), steps=200, fisher_examples=100, examples=(5,), **arguments
    )[0]


@pytest.fixture(scope="module")
def lessons():
    return {
        "plain": last_lesson(),
        "ewc": last_lesson(method="ewc", strength=1e3),
        "masked": last_lesson(method="ewc", strength=1e3, masked=True),
    }


def test_the_rise_of_the_new_classes_is_the_sum_of_what_came_through_each_part(lessons):
    for result in lessons.values():
        looks = result["looks"]
        assert sum(result["rise"].values()) == pytest.approx(looks[-1]["lead"] - looks[0]["lead"], rel=1e-3, abs=1e-3)


def test_plain_descent_reads_every_image_as_one_of_the_last_classes(lessons):
    result = lessons["plain"]
    assert sum(result["after"][:-1]) < 0.1
    assert result["after"][-1] > 0.95
    assert result["looks"][0]["read as new"] < 0.1
    assert result["looks"][-1]["read as new"] > 0.9


def test_the_last_row_of_the_matrix_is_what_is_read_at_the_end(lessons):
    for result in lessons.values():
        matrix = result["matrix"]
        assert matrix[-1] == result["after"] and [len(row) for row in matrix] == [5] * 5
        assert AccuracyMatrix(matrix).average() == pytest.approx(sum(result["after"]) / 5)


def test_a_search_sees_no_test_image():
    """With test images that are all black, a search reads as before, and what follows it does not."""
    task = digits()
    dark = replace(task, test_inputs=torch.zeros_like(task.test_inputs))
    options = dict(hidden=(30,), steps=60, batch_size=32, examples=(1,))
    seen = [experiments.last_lesson([its], tuning=True, **options)[0]["after"] for its in (task, dark)]
    assert seen[0] == seen[1]
    assert experiments.last_lesson([dark], **options)[0]["after"] != experiments.last_lesson([task], **options)[0]["after"]


def test_the_pairs_that_are_answered_are_told_in_words():
    shares = torch.tensor([[0.25, 0.75], [0.0, 1.0]], dtype=torch.float64)
    drawn = figures.pairs_answered({"λ = 7": shares}, ["0, 1", "2, 3"])
    assert "λ = 7: of each pair's own, 25, 100; most answered is the pair 2, 3, with 88%." in drawn.alt
    (panel,) = drawn.panels
    assert all(f">{text}</text>" in panel for text in ("25", "75", "100", "λ = 7")) and ">0</text>" not in panel


def test_with_outputs_of_its_own_a_task_is_read_better_than_among_all(lessons):
    for result in lessons.values():
        assert all(own >= among - 1e-9 for own, among in zip(result["own outputs"], result["after"], strict=True))
    assert sum(lessons["masked"]["own outputs"]) > sum(lessons["masked"]["after"])


def test_a_few_images_for_the_biases_alone_bring_something_back(lessons):
    for result in lessons.values():
        assert result["corrected"][0] > sum(result["after"]) / 5


def test_runs_side_by_side_are_the_runs_alone():
    runs = [dict(method="plain"), dict(method="ewc", strength=1e3)]
    shared = dict(masked=False, examples=(5,), groups=5, hidden=(20,), steps=8, batch_size=32, learning_rate=1e-3,
                  fisher_examples=50, tuning=False, seed=1)  # fmt: skip
    both = experiments.last_lesson.together([digits()], [{"strength": None} | run | shared for run in runs])
    for run, (found, _) in zip(runs, both, strict=True):
        alone, _ = experiments.last_lesson([digits()], **{"strength": None} | run | shared)
        torch.testing.assert_close(torch.tensor(found["after"]), torch.tensor(alone["after"]), rtol=0, atol=0.02)
        torch.testing.assert_close(torch.tensor(list(found["rise"].values())), torch.tensor(list(alone["rise"].values())), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def disturbed():
    tasks = [digits(), letters()]
    sizes = (1.0, 3.0, 10.0, 20.0, 40.0)
    return experiments.weight_noise(tasks, sizes=sizes, steps=300, batch_size=64, hidden=(50, 50), images=600, strength=100.0)[0]


def mean(result, kind, name):
    return torch.tensor([draw[name] for draw in result["kinds"][kind]]).mean(0)


def test_shaped_noise_harms_less_than_uniform_noise_of_the_same_length(disturbed):
    """The first claim of the paper's Figure 3C, on the record: at every size on average, and where it matters by far."""
    uniform, shaped = (mean(disturbed, kind, "divergence") for kind in ("uniform", "shaped"))
    assert (shaped < uniform).all()
    assert shaped[-1] < 0.5 * uniform[-1]


def test_null_noise_harms_far_more_than_the_fisher_says(disturbed):
    """The second claim: the weights that the Fisher thinks free are not, once the noise is long enough to be seen."""
    promised = mean(disturbed, "null", "diagonal") * 40.0**2 / 2
    assert mean(disturbed, "null", "divergence")[-1] > 3 * promised


def test_thrown_signs_keep_the_diagonal_form_and_lose_the_whole_one(disturbed):
    lesson = disturbed["lesson"]
    for thrown in disturbed["thrown"]:
        assert thrown["diagonal"] == pytest.approx(lesson["diagonal"], rel=1e-4)
        assert thrown["whole"] < lesson["whole"] / 3
