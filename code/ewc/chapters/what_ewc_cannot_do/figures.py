"""The figures of the chapter on what EWC cannot do: one function a figure, drawn from records, with its alt text."""

from collections.abc import Sequence
from math import log10 as power

import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    Picture,
    apart,
    draw,
    percent,
)
from ewc.workshop.page import spelled
from ewc.workshop.tuning import Tuned
from torch import Tensor

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# A raster cannot follow the page's colours: this one, over a see-through ground, reads on white and on black.
_READ = (0.20, 0.49, 0.85)


def _matrix(title, shares, names):
    """A panel of shares, a row for what an image is and a column for what it is read as, with those of a tenth and more in figures."""

    def panel(axes):
        colour = torch.tensor(_READ).expand(*shares.shape, 3)
        # Half of it at most, so that the figures in it can be read.
        axes.imshow(torch.cat([colour, 0.5 * shares[..., None].float()], -1).numpy(), interpolation="nearest")
        for i in range(len(shares)):
            for j in range(len(shares)):
                if shares[i, j] >= 0.1:
                    axes.annotate(f"{100 * shares[i, j]:.0f}", (j, i), ha="center", va="center", color=INK)
        axes.set_xticks(range(len(shares)), names, rotation=90 if max(map(len, names)) > 4 or (len(names) > 5 and max(map(len, names)) > 2) else 0)
        axes.set_yticks(range(len(shares)), names)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_linewidth(0.6)
        axes.set_xlabel("read as")
        axes.set_ylabel("what it is")
        axes.set_title(title)

    return panel


def confusions(counts: dict[str, Tensor], task) -> Picture:
    """For each method, in row i, column j, the share of the test images of class i that are read as class j."""

    last = {name: float(matrix[:, -2:].sum() / matrix.sum()) for name, matrix in counts.items()}
    right = {name: float(matrix.diagonal().sum() / matrix.sum()) for name, matrix in counts.items()}
    said = " ".join(
        f"{name}: {last[name]:.0%} of all images are read as one of the last two classes, {right[name]:.0%} lie on the diagonal."
        for name in counts
    )
    return draw(
        f"Confusion matrices of {task.name}, a row for what an image is and a column for what it is read as, with shares in per cent. {said}",
        *(_matrix(name, matrix / matrix.sum(1, keepdim=True), task.classes) for name, matrix in counts.items()),
        size=(3.5, 3.5),
    )


def pairs_answered(shares: dict[str, Tensor], pairs: Sequence[str]) -> Picture:
    """For each way, in row i, column j, the share of the images of pair i that are answered with a class of pair j."""
    said = " ".join(
        f"{name}: of each pair's own, {', '.join(f'{100 * value:.0f}' for value in matrix.diagonal())}; most answered is the pair {pairs[int(matrix.mean(0).argmax())]}, "
        f"with {matrix.mean(0).max():.0%}."
        for name, matrix in shares.items()
    )
    return draw(
        f"Matrices, a row for the pair that an image belongs to and a column for the pair it is answered with, in per cent. {said}",
        *(_matrix(name, matrix, pairs) for name, matrix in shares.items()),
        size=(2.9, 2.9),
    )


def standings(found: dict[str, dict[str, Sequence[float]]], chance: dict[str, float], published: dict[str, dict[str, float]]) -> Picture:
    """Mean accuracy after the last task: a panel for each scenario, a row for each method, a mark for each seed.

    Args:
        found: by scenario and method, the accuracies of the seeds.
        chance: by scenario, the accuracy of guessing.
        published: as `found`, one number each, of another network and more training; drawn as a bar across the row.
    """
    methods = list(next(iter(found.values())))
    colours = {"plain": GREY, "joint": GREY, "EWC": INK, "L2": ORANGE, "replay": GREEN}

    def of(scenario, rows):
        low, high = _from_the_lowest([*(value for values in rows.values() for value in values), *published.get(scenario, {}).values()])

        def panel(axes):
            for row, method in enumerate(methods):
                axes.axhline(row, color=GREY, lw=0.4, alpha=0.5)
                colour = colours.get(method, BLUE)
                axes.plot(rows[method], [row] * len(rows[method]), ls="", marker="o", ms=5, mec="none", alpha=0.75, color=colour)
                if method in published.get(scenario, {}):
                    axes.plot(published[scenario][method], row, ls="", marker="|", ms=13, mew=1.8, color=RED)
            if chance[scenario] > low:
                axes.axvline(chance[scenario], color=GREY, lw=1, ls=":")
            axes.set_yticks(range(len(methods)), methods)
            for label, method in zip(axes.get_yticklabels(), methods, strict=True):
                label.set_color(colours.get(method, BLUE))
            axes.set_ylim(len(methods) - 0.5, -0.5)
            axes.set_xlim(low, high)
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.set_title(scenario)
            axes.set_xlabel("read correctly")
            percent(axes, "x")

        return panel

    said = "; ".join(
        f"{scenario}: "
        + ", ".join(f"{method} {sum(values) / len(values):.1%}" for method, values in rows.items())
        + f", guessing {chance[scenario]:.0%}"
        for scenario, rows in found.items()
    )
    return draw(
        f"Mean accuracy over all tasks after the last one, {len(found)} panels for the scenarios, a row a method, a dot a seed. Means: {said}.",
        *(of(scenario, rows) for scenario, rows in found.items()),
        size=(3.0, 0.26 * len(methods) + 0.9),
    )


def _from_the_lowest(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of accuracies, from a little below the lowest of them to a little above 1: near 1 little else is in sight."""
    room = 0.06 * (1 - min(values))
    return max(0.0, min(values) - room), 1 + room


def searches(tried: dict[str, dict[str, Tuned]]) -> Picture:
    """Accuracy on held-out images against the strengths: a panel for each scenario, a line for each method.

    A panel begins below the least of what was chosen: a strength that ruins a method would press all others together.
    """
    looks = {"L2": (ORANGE, "D"), "EWC": (INK, "o"), "SI": (BLUE, "s"), "MAS": (PURPLE, "^"), "Kronecker": (RED, "v")}
    looks |= {"LwF": (GREEN, "P"), "replay": (GREEN, "s")}

    def of(scenario, methods):
        chosen = [max(each.found) for each in methods.values()]
        lowest = min(value for each in methods.values() for value in each.found)
        low = max(lowest, min(chosen) - 1.2 * max(max(chosen) - min(chosen), 0.02))
        room = 0.08 * (max(chosen) - low)
        ends = [power(value) for each in methods.values() for value in (each.values[0], each.values[-1])]

        def panel(axes):
            for method, each in methods.items():
                colour, mark = looks[method]
                axes.semilogx(each.values, each.found, color=colour, marker=mark, ms=4.5, lw=1.2)
                axes.plot(each.chosen, max(each.found), color=colour, marker=mark, ms=8.5)
            heights = apart([max(each.found) for each in methods.values()], 1.15 * room)
            for method, height in zip(methods, heights, strict=True):
                axes.annotate(method, (10 ** max(ends), height), (9, 0), textcoords="offset points", color=looks[method][0], va="center", annotation_clip=False)  # fmt: skip
            ticks = range(round(min(ends)), round(max(ends)) + 1, 2)
            axes.set_xticks([10.0**tick for tick in ticks], [f"10{str(tick).translate(_RAISED)}" for tick in ticks])
            axes.minorticks_off()
            axes.set_xlim(10 ** (min(ends) - 0.3), 10 ** (max(ends) + 0.3))
            axes.set_ylim(low - room, max(chosen) + room)
            axes.set_xlabel("λ")
            axes.set_title(scenario)
            percent(axes)

        return panel

    said = "; ".join(
        f"{scenario}: " + ", ".join(f"{method} best at {spelled(each.chosen)} with {max(each.found):.0%}" for method, each in methods.items())
        for scenario, methods in tried.items()
    )
    return draw(
        f"Accuracy on held-out images against the strengths tried, a panel a scenario, a line a method. {said}.",
        *(of(scenario, methods) for scenario, methods in tried.items()),
        size=(3.3, 2.9),
    )


def the_push(looks: dict[str, list[dict]], old: Sequence[int]) -> Picture:
    """While the last classes are learned: what probability the old ones still have on new images, and what old images are read as."""
    steps = [look["step"] for look in next(iter(looks.values()))]
    x = [max(step, 0.7) for step in steps]
    styles = dict(zip(looks, ((GREY, ":"), (INK, "-"), (ORANGE, "-."), (BLUE, "--")), strict=False))

    def panel_of(value, title, label):
        def panel(axes):
            for name, found in looks.items():
                colour, line = styles[name]
                axes.plot(x, [value(look) for look in found], color=colour, ls=line)
            ends = apart([value(found[-1]) for found in looks.values()], 0.085)
            for name, end in zip(looks, ends, strict=True):
                axes.annotate(name, (x[-1], end), (5, 0), textcoords="offset points", color=styles[name][0], va="center", annotation_clip=False)
            axes.set_xscale("log")
            ticks = [tick for tick in (1, 10, 100, 1000) if tick <= steps[-1]]
            axes.set_xticks([0.7, *ticks], ["0", *(str(tick) for tick in ticks)])
            axes.minorticks_off()
            axes.set_xlim(0.65, steps[-1])
            axes.set_ylim(0, 1.03)
            axes.set_xlabel("steps of the last lesson")
            axes.set_title(title)
            axes.set_ylabel(label)

        return panel

    def pushed(look):
        return sum(look["probabilities"][number] for number in old)

    said = " ".join(
        f"{name}: the slope falls from {pushed(found[0]):.2f} to {pushed(found[-1]):.2g}, and the share of old images read as new rises from "
        f"{found[0]['read as new']:.0%} to {found[-1]['read as new']:.0%}."
        for name, found in looks.items()
    )
    return draw(
        f"Two panels against the steps of the last lesson, on a logarithmic axis: the sum over the old classes of the loss's slope on new images, and the share of old test images that are read as new. {said}",
        panel_of(pushed, "the push, on new images", "sum of the old classes’ $p_k$"),
        panel_of(lambda look: look["read as new"], "old images read as new", "share"),
    )


def blind_parabola(shift: Tensor, truth: Tensor, parabola: Tensor, reached: float, probability: float) -> Picture:
    """What it costs the old task, per image, when the logit of a class rises that it has never seen; and what the Fisher says."""

    def panel(axes):
        axes.plot(shift, truth, color=BLUE)
        axes.plot(shift, parabola, color=ORANGE, ls="--")
        axes.annotate("true cost", (shift[-1], truth[-1]), (5, 0), textcoords="offset points", color=BLUE, va="center", annotation_clip=False)
        axes.annotate("parabola of\nthe Fisher", (shift[-1], parabola[-1]), (5, 4), textcoords="offset points", color=ORANGE, va="center",
                      annotation_clip=False)  # fmt: skip
        axes.axvline(reached, color=GREY, lw=1, ls=":")
        axes.annotate("as far as the\nlast lesson goes", (reached, float(truth.max())), (-4, 0), textcoords="offset points", color=GREY, va="top", ha="right")
        axes.set_xlim(0, float(shift[-1]))
        axes.set_ylim(0, None)
        axes.set_xlabel("rise $c$ of one new class’s logit")
        axes.set_ylabel("cost per old image, in nats")

    at = int((shift - reached).abs().argmin())
    return draw(
        f"The divergence of an old image's prediction against the rise of the logit of a class that had probability {probability:.2g}. The parabola of the Fisher stays near "
        f"zero, {parabola[-1]:.2g} at {shift[-1]:.0f}. The true cost is as flat at first, then turns into a straight line: {truth[at]:.2g} at {reached:.1f}, where the last lesson ends, "
        f"against {parabola[at]:.2g}.",
        panel,
        size=(4.6, 3.0),
    )


_KINDS = {"uniform": (GREY, "o"), "shaped": (BLUE, "s"), "null": (ORANGE, "D")}


def noise_by_size(sizes: Sequence[float], accuracy: dict[str, Tensor], divergence: dict[str, Tensor], promised: dict[str, Tensor]) -> Picture:
    """The paper's Figure 3C: accuracy against the length of the noise, and beside it what the Fisher promised of each.

    Args:
        sizes: lengths of the noise, (S,).
        accuracy, divergence: by kind, the measured values, (draws, S).
        promised: by kind, ½ Σᵢ Fᵢ εᵢ², (draws, S).
    """

    def measured(axes):
        for kind, values in accuracy.items():
            colour, mark = _KINDS[kind]
            axes.plot(sizes, values.mean(0), color=colour, marker=mark, ms=4.5)
            axes.fill_between(sizes, values.amin(0), values.amax(0), color=colour, alpha=0.2, linewidth=0)
        ends = apart([float(values.mean(0)[-1]) for values in accuracy.values()], 0.08)
        for kind, end in zip(accuracy, ends, strict=True):
            axes.annotate(kind, (sizes[-1], end), (6, 0), textcoords="offset points", color=_KINDS[kind][0], va="center", annotation_clip=False)
        axes.set_ylim(0, 1.03)
        axes.set_xlim(0, sizes[-1])
        axes.set_title("read correctly")
        axes.set_xlabel("length of the noise")
        percent(axes)

    def cost(axes):
        for kind, values in divergence.items():
            colour, mark = _KINDS[kind]
            axes.loglog(sizes, values.mean(0), color=colour, marker=mark, ms=4.5)
            axes.loglog(sizes, promised[kind].mean(0), color=colour, ls="--", lw=1.2)
        axes.annotate("promised, dashed", (sizes[0], float(promised["uniform"].mean(0)[0])), (2, 40), textcoords="offset points")
        axes.set_xticks([5, 10, 20, 40], ["5", "10", "20", "40"])
        axes.minorticks_off()
        axes.set_title("divergence")
        axes.set_xlabel("length of the noise")

    half = len(sizes) - 1
    said = "; ".join(
        f"{kind} noise leaves {values.mean(0)[half]:.0%} at length {sizes[half]:g} and costs {divergence[kind].mean(0)[half] / promised[kind].mean(0)[half]:.3g} times what was promised"
        for kind, values in accuracy.items()
    )
    return draw(
        f"Two panels against the length of the noise. First, accuracy, mean and range over draws and seeds. Second, with logarithmic axes, the mean divergence of the predictions, and dashed what the diagonal Fisher promised: {said}.",
        measured,
        cost,
    )


def lesson_by_lesson(found: dict[str, Tensor], chance: float) -> Picture:
    """Accuracy over all pairs seen so far, after each lesson, of networks and of means: a line for each way, a band for its seeds.

    Args:
        found: by way, (seeds, lessons).
        chance: the accuracy of guessing among all classes.
    """
    colours = {"EWC": INK, "plain Adam": GREY}
    looks = dict(zip((name for name in found if name not in colours), ((GREEN, "s", "-"), (BLUE, "D", "-"), (ORANGE, "^", "-"), (PURPLE, "v", "--"), (RED, "P", "--")), strict=False))
    looks |= {name: (colour, "o", "-") for name, colour in colours.items()}

    def panel(axes):
        lessons = range(1, 1 + len(next(iter(found.values()))[0]))
        for name, values in found.items():
            colour, mark, line = looks[name]
            axes.plot(lessons, values.mean(0), color=colour, marker=mark, ms=5, ls=line)
            axes.fill_between(lessons, values.amin(0), values.amax(0), color=colour, alpha=0.2, linewidth=0)
        ends = apart([float(values.mean(0)[-1]) for values in found.values()], 0.08)
        for name, end in zip(found, ends, strict=True):
            axes.annotate(name, (lessons[-1], end), (7, 0), textcoords="offset points", color=looks[name][0], va="center", annotation_clip=False)
        axes.axhline(chance, color=GREY, lw=1, ls=":")
        axes.set_xticks(lessons)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("lessons learned, a pair of classes each")
        axes.set_ylabel("of all pairs so far, read correctly")
        percent(axes)

    said = "; ".join(f"{name} from {values.mean(0)[0]:.1%} to {values.mean(0)[-1]:.1%}" for name, values in found.items())
    return draw(
        f"Accuracy over the pairs of classes seen so far against the number of lessons, a line for each way of learning, with the range of its seeds. From the first lesson to the last: {said}.",
        panel,
        size=(4.6, 3.6),
    )


def two_pasts(read: Tensor, reach: float, classes: Sequence[str]) -> Picture:
    """What one network answers, and where the images of two pasts lie: the old ones below the new, or above.

    Args:
        read: (H, W), the class answered at each place, from the lowest height up and from left to right.
        reach: how far the places go to each side.
    """
    shades = torch.tensor([[0.20, 0.49, 0.85], [0.90, 0.55, 0.15], [0.25, 0.62, 0.35], [0.60, 0.40, 0.75]])

    def of(title, height):
        def panel(axes):
            ground = torch.cat([shades[read], torch.full((*read.shape, 1), 0.45)], -1).numpy()
            axes.imshow(ground, origin="lower", extent=(-reach, reach, -reach, reach), interpolation="nearest")
            for name, x, y in zip(classes, (-1, 1, -1, 1), (height, height, 0, 0), strict=True):
                axes.annotate(name, (x, y), ha="center", va="center", fontsize=13, color=INK, weight="bold")
            axes.set_xticks([-1, 0, 1])
            axes.set_yticks([-1, 0, 1])
            axes.set_title(title)
            axes.set_xlabel("left or right")
            axes.set_ylabel("height")

        return panel

    rows, columns = read.shape

    def at(x, y):
        return classes[int(read[round((y + reach) / (2 * reach) * (rows - 1)), round((x + reach) / (2 * reach) * (columns - 1))])]

    said = ", ".join(f"{at(x, y)} {'left' if x < 0 else 'right'} at height {y}" for y in (-1, 0, 1) for x in (-1, 1))
    return draw(
        f"Two planes with the same ground, the answers of one network: {said}. In the first, the old classes {classes[0]} and {classes[1]} lie at height −1, in the second at +1; the new ones, {classes[2]} and {classes[3]}, at height 0 in both.",
        of("the old below", -1),
        of("the old above", 1),
        size=(3.2, 3.0),
    )
