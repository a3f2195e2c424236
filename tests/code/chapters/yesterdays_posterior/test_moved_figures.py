"""The figures that the reader moves: every frame says what it draws, and the axes stand still from frame to frame."""

import re

import pytest
import torch
from ewc.chapters.fisher_information.figures import fisher_and_truth
from ewc.chapters.laplace_approximation.figures import laplace_moved
from ewc.chapters.yesterdays_posterior.conjugate import beta_log_density, learn_coin
from ewc.chapters.yesterdays_posterior.figures import coin_toss_by_toss
from ewc.chapters.yesterdays_posterior.grid import Grid
from ewc.workshop.drawing import ellipse

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def coin():
    tosses, theta = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 1.0]), torch.linspace(0.0005, 0.9995, 1000)
    cards = [(1, 1)]
    for toss in tosses:
        cards.append(learn_coin(*cards[-1], toss[None]))
    return coin_toss_by_toss(theta, tosses, [beta_log_density(theta, *card).exp() for card in cards])


@pytest.fixture(scope="module")
def bells():
    theta = torch.linspace(-0.1, 1.2, 1301)
    cases = {}
    for mean in (0.2, 0.5):
        for width in (0.05, 0.2):
            bell = torch.distributions.Normal(mean, width).log_prob(theta).exp()
            inside = torch.where((theta > 0) & (theta < 1), bell, torch.zeros(()))
            cases[mean, width] = inside, bell, torch.tensor(mean * width)
    return laplace_moved(theta, cases, ("middle", "width"), start=(0.5, 0.2))


@pytest.fixture(scope="module")
def ellipses():
    grid = Grid(*[torch.linspace(-3, 3, 61)] * 2)
    cases = {}
    for steep in (2.0, 4.0):
        for level in (0.1, 0.5):
            fisher = torch.tensor([[steep, 0.5], [0.5, 1.0]])
            truth = torch.einsum("xyi,ij,xyj->xy", grid.points, fisher, grid.points) / 2
            cases[steep, level] = truth, fisher, level, torch.tensor(0.9 * level), torch.tensor(1.1 * level)
    return fisher_and_truth(grid, cases, ("steepness", "KL divergence"), start=(2.0, 0.1))


@pytest.mark.parametrize("name", ["coin", "bells", "ellipses"])
def test_the_axes_stand_still_from_frame_to_frame(request, name):
    figure = request.getfixturevalue(name)
    # The first path of a panel is its paper, the second the box of its axes; then the ticks, each with its place.
    boxes = [
        tuple(re.findall(r'<path d="([^"]*)"', panel)[:2]) for picture in figure.pictures for panel in picture.panels
    ]
    ticks = [
        tuple(re.findall(r'<use xlink:href="#\w+-m\w+" (x="\S+" y="\S+")', panel))
        for picture in figure.pictures
        for panel in picture.panels
    ]
    assert len(set(boxes)) == 1
    assert len({marks[:5] for marks in ticks}) == 1


def test_a_toss_moves_the_peak_to_the_share_of_heads(coin):
    heads = 0
    for count, toss in enumerate((0, 0, 1, 0, 1, 1), start=1):
        heads += toss
        said = coin.pictures[count].alt
        assert f"After toss {count}, a {'head' if toss else 'tail'}" in said
        assert f"So far {heads} heads and {count - heads} tails" in said
        assert float(re.search(r"its peak is at (\d\.\d\d)", said)[1]) == pytest.approx(heads / count, abs=0.006)


def test_the_start_is_the_toss_of_the_first_head(coin):
    assert coin.start == (3,) and "After toss 3, a head" in repr(coin)


def test_a_bell_says_its_divergence_and_how_much_of_it_lies_where_no_coin_can_be(bells):
    for picture, (middle, width) in zip(
        bells.pictures, [(0.2, 0.05), (0.2, 0.2), (0.5, 0.05), (0.5, 0.2)], strict=True
    ):
        bell = torch.distributions.Normal(middle, width)
        outside = float(bell.cdf(torch.tensor(0.0)) + 1 - bell.cdf(torch.tensor(1.0)))
        assert f"KL divergence is {middle * width:#.2g}" in picture.alt
        shown = float(re.search(r"([\d.]+)% of the Gaussian", picture.alt)[1]) / 100
        assert shown == pytest.approx(outside, abs=0.003)


def test_the_ellipse_is_where_half_the_quadratic_form_is_the_level():
    fisher, level = torch.tensor([[2.0, 0.5], [0.5, 1.0]]), 0.03
    steps = ellipse(torch.zeros(2), fisher, (2 * level) ** 0.5)
    values = torch.einsum("it,ij,jt->t", steps, fisher, steps) / 2
    torch.testing.assert_close(values, torch.full_like(values, level), rtol=1e-10, atol=0)
    assert steps.square().sum(0).std() > 0.01  # an ellipse, and no circle


def test_the_drawn_ellipse_lies_on_the_line_of_a_divergence_that_is_a_parabola(ellipses):
    """There the truth is ½ εᵀFε itself: the highest and the lowest points of both lines are the same."""
    for picture in ellipses.pictures:
        (panel,) = picture.panels
        lines = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none;[^"]* stroke: var\(--series-[12],', panel)
        heights = [[float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", line)] for line in lines]
        long = [line for line in heights if len(line) > 20]
        assert len(long) == 2
        assert (min(long[0]), max(long[0])) == pytest.approx((min(long[1]), max(long[1])), abs=0.6)


def test_frames_of_the_ellipse_say_the_range_of_the_truth(ellipses):
    assert "runs from 0.090 to 0.11" in repr(ellipses)
