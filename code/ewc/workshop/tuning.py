"""The protocol of comparison: each method's own strength, chosen by one rule and a budget that is equal to begin with.

A method is tried with a few strengths, a factor of √10 apart, on held-out training images; every method with the same number
of them. The strength with the best mean accuracy is chosen. Of those that are best alike one inside the grid goes before one at
its edge, and a smaller before a larger one: it holds the weights less. Where the choice lies at an edge a better one may lie
outside, so the grid is continued there by a decade and the rule asked again, twice at the most.

The search sees no test image. What it chose is then trained once for each seed and meets them. The whole search is handed back
with the result, because a comparison is only as fair as its searches.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ewc.workshop.page import spelled, told_apart
from ewc.workshop.records import Record, run_together

VALUES = 5
WIDENINGS = 2
DECADE = 2  # values that a grid is continued by: √10 twice
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Tuned:
    """What the search for one method tried, and the runs with what it chose; one that has nothing to choose has no search."""

    values: tuple[float, ...]
    search: tuple[tuple[Record, ...], ...]  # for each value, a record a search seed
    records: tuple[Record, ...]  # with the chosen value, on the test images, one a seed
    centre: float | None = None  # the middle of the grid as it was to begin with
    widened: int = 0  # how often the grid was continued beyond an edge

    @property
    def found(self) -> tuple[float, ...]:
        """For each value the mean final accuracy on the held-out images, from 0 to 1."""
        return tuple(fmean(_accuracies(tried)) for tried in self.search)

    @property
    def chosen(self) -> float | None:
        """The value that did best in the search, by `best`; None where there was nothing to choose."""
        return best(dict(zip(self.values, self.found, strict=True))) if self.values else None

    @property
    def level(self) -> tuple[float, ...]:
        """The values that the search does not tell apart from the chosen one, by the interval of the difference, seed by seed.

        They play no part in the choice. Of one seed there is no interval, and nothing is told apart.
        """
        if not self.values:
            return ()
        top = _accuracies(self.search[self.values.index(self.chosen)])
        others = [(value, _accuracies(tried)) for value, tried in zip(self.values, self.search, strict=True) if value != self.chosen]
        return tuple(value for value, its in others if len(top) < 2 or not told_apart(top, its))

    @property
    def at_the_edge(self) -> bool:
        """Whether the chosen value is the first or the last of those tried, so that a better one may lie outside."""
        return bool(self.values) and self.chosen in (self.values[0], self.values[-1])


def best(found: dict[float, float]) -> float:
    """The strength with the highest accuracy; of equal ones one inside the grid, if there is one, and of these the smallest.

    Inside, both neighbours were seen to be no better. Accuracies are equal if they differ by less than 10⁻⁹, which is rounding.

    Args:
        found: by strength, the mean accuracy.

    Raises:
        ValueError: nothing was tried, or an accuracy is no finite number.
    """
    if not found or not all(math.isfinite(accuracy) for accuracy in found.values()):
        raise ValueError(f"found is {found!r}; it must hold an accuracy, a finite number, for at least one strength")
    highest = max(found.values()) - 1e-9
    edges = (min(found), max(found))
    return min((strength in edges, strength) for strength, accuracy in found.items() if accuracy >= highest)[1]


def grid(centre: float, count: int = VALUES) -> tuple[float, ...]:
    """`count` values around `centre`, each √10 times the one before, and rounded to one digit: 1, 3, 10, 30, 100 around 10.

    Raises:
        ValueError: centre is not above 0, or count not an odd whole number.
    """
    if not (centre > 0 and math.isfinite(centre)):
        raise ValueError(f"centre is {centre!r}; it must be above 0")
    if not isinstance(count, int) or count < 1 or count % 2 == 0:
        raise ValueError(f"count is {count!r}; it must be an odd whole number, so that centre is in the middle")
    return _between(centre, -(count // 2), count // 2)


def searched(
    experiment: Callable,
    rivals: dict[str, tuple[dict, float | None]],
    *,
    values: int = VALUES,
    widenings: int = WIDENINGS,
    search_seeds: Sequence[int] = (0,),
    **shared,
) -> dict[str, Tuned]:
    """Search for every rival's strength on held-out images, each with the same budget to begin with; nothing meets a test image.

    All runs of a round of the search train side by side where the experiment can do that.

    Args:
        experiment: as for `records.run_together`; it takes `strength` and `tuning`.
        rivals: by name, the configuration of a method and the centre of its `grid`; None for one without a strength.
        values: how many strengths each rival may try to begin with.
        widenings: how often the grid of a rival is continued by a decade where its best lies at an edge.
        search_seeds: of the runs in the search.
        shared: the configuration that all have.

    Raises:
        ValueError: a rival's configuration sets what the search sets, there is no seed, or widenings is below 0.
    """
    if not search_seeds:
        raise ValueError(f"search_seeds is {search_seeds!r}; it must hold at least one")
    if not isinstance(widenings, int) or widenings < 0:
        raise ValueError(f"widenings is {widenings!r}; it must be a whole number of at least 0")
    for name, (configuration, _) in rivals.items():
        if taken := {"strength", "tuning", "seed"} & {*configuration, *shared}:
            raise ValueError(f"the configuration of {name!r} sets {sorted(taken)[0]}; the search does that")
    wanted = {name: () if centre is None else grid(centre, values) for name, (_, centre) in rivals.items()}
    tried = {name: {} for name in rivals}  # by rival and strength, its records
    ends = dict.fromkeys(rivals, (-(values // 2), values // 2))  # of each grid, in steps of √10 from its centre
    widened = dict.fromkeys(rivals, 0)
    while any(wanted.values()):
        trials = [
            {**shared, **configuration, "strength": strength, "tuning": True, "seed": seed}
            for name, (configuration, _) in rivals.items()
            for strength in wanted[name]
            for seed in search_seeds
        ]
        ran = iter(run_together(experiment, trials))
        for name, strengths in wanted.items():
            tried[name] |= {strength: tuple(next(ran) for _ in search_seeds) for strength in strengths}
        for name, strengths in wanted.items():
            wanted[name] = ()
            if strengths and widened[name] < widenings and (now := _searched(tried[name])).at_the_edge:
                low, high = ends[name]
                below = now.chosen == now.values[0]
                more = (low - DECADE, low - 1) if below else (high + 1, high + DECADE)
                wanted[name] = _between(rivals[name][1], *more)
                ends[name] = (more[0], high) if below else (low, more[1])
                widened[name] += 1
    return {name: _searched(tried[name], centre=rivals[name][1], widened=widened[name]) for name in rivals}


def tuned(
    experiment: Callable,
    rivals: dict[str, tuple[dict, float | None]],
    *,
    seeds: Sequence[int] = SEEDS,
    values: int = VALUES,
    widenings: int = WIDENINGS,
    search_seeds: Sequence[int] = (0,),
    **shared,
) -> dict[str, Tuned]:
    """Search as `searched`, then run each rival with its best on the test images, once for each of the seeds.

    Raises:
        ValueError: as `searched`, and where there is no seed.
    """
    if not seeds:
        raise ValueError(f"seeds is {seeds!r}; it must hold at least one")
    found = searched(experiment, rivals, values=values, widenings=widenings, search_seeds=search_seeds, **shared)
    finals = [
        {**shared, **configuration, **({} if (chosen := found[name].chosen) is None else {"strength": chosen}), "seed": seed}
        for name, (configuration, _) in rivals.items()
        for seed in seeds
    ]
    ran = iter(run_together(experiment, finals))
    return {name: replace(each, records=tuple(next(ran) for _ in seeds)) for name, each in found.items()}


def edges(found: dict[str, Tuned]) -> str:
    """What a page must say of its searches, in a sentence or two without the last stop: whose grid was widened, and who is at its edge."""
    wider = [f"{name} ({'once' if each.widened == 1 else 'twice' if each.widened == 2 else f'{each.widened} times'})"
             for name, each in found.items() if each.widened]  # fmt: skip
    still = [f"{name} ({spelled(each.chosen)})" for name, each in found.items() if each.at_the_edge]
    said = f"A grid was widened for {_listed(wider)}" if wider else "No grid had to be widened"
    return f"{said}. " + (f"At an edge even so lies the choice for {_listed(still)}" if still else "No choice lies at an edge")


def _searched(tried, **more):
    """The search so far, in the order of the strengths."""
    values = tuple(sorted(tried))
    return Tuned(values, tuple(tried[value] for value in values), (), **more)


def _between(centre, low, high):
    """The values of a grid from `low` to `high` steps of √10 away from its centre, rounded to one digit."""
    return tuple(float(f"{centre * 10 ** (place / 2):.1g}") for place in range(low, high + 1))


def _accuracies(records):
    return [record.matrix.average() for record in records]


def _listed(names):
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])
