"""Each method's own hyperparameter, chosen by the same budget: equally many values, tried on held-out training images.

The search sees no test image. The value that does best in it is then trained once for each seed and meets them. The whole
search is handed back with the result, because a comparison is only as fair as its searches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ewc.workshop.records import Record, run_together

VALUES = 5
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Tuned:
    """What the search for one method tried, and the runs with what it chose; one that has nothing to choose has no search."""

    values: tuple[float, ...]
    search: tuple[tuple[Record, ...], ...]  # for each value, a record a search seed
    records: tuple[Record, ...]  # with the chosen value, on the test images, one a seed

    @property
    def found(self) -> tuple[float, ...]:
        """For each value the mean final accuracy on the held-out images, from 0 to 1."""
        return tuple(fmean(record.matrix.average() for record in tried) for tried in self.search)

    @property
    def chosen(self) -> float | None:
        """The value that did best in the search; the smallest of those that did equally well."""
        return self.values[self.found.index(max(self.found))] if self.values else None

    @property
    def at_the_edge(self) -> bool:
        """Whether the best value is the first or the last of those tried, so that a better one may lie outside."""
        return bool(self.values) and self.chosen in (self.values[0], self.values[-1])


def grid(centre: float, count: int = VALUES) -> tuple[float, ...]:
    """`count` values around `centre`, each √10 times the one before, and rounded to one digit: 1, 3, 10, 30, 100 around 10.

    Raises:
        ValueError: centre is not above 0, or count not an odd whole number.
    """
    if not centre > 0:
        raise ValueError(f"centre is {centre!r}; it must be above 0")
    if not isinstance(count, int) or count < 1 or count % 2 == 0:
        raise ValueError(f"count is {count!r}; it must be an odd whole number, so that centre is in the middle")
    values = (centre * 10 ** (place / 2) for place in range(-(count // 2), count // 2 + 1))
    return tuple(float(f"{value:.1g}") for value in values)


def tuned(
    experiment: Callable,
    rivals: dict[str, tuple[dict, float | None]],
    *,
    values: int = VALUES,
    search_seeds: Sequence[int] = (0,),
    seeds: Sequence[int] = SEEDS,
    **shared,
) -> dict[str, Tuned]:
    """Search for every rival's strength on held-out images, then run each with its best on the test images.

    All runs of the searches train side by side where the experiment can do that, and so do those that follow.

    Args:
        experiment: as for `experiments.run_together`; it takes `strength` and `tuning`.
        rivals: by name, the configuration of a method and the centre of its `grid`; None for one without a strength.
        values: how many strengths each rival may try.
        search_seeds, seeds: of the runs in the search, and of those on the test images.
        shared: the configuration that all have.

    Raises:
        ValueError: a rival's configuration sets what the search sets, or there is no seed.
    """
    if not search_seeds or not seeds:
        raise ValueError(f"seeds is {seeds!r} and search_seeds {search_seeds!r}; each must hold at least one")
    for name, (configuration, _) in rivals.items():
        if taken := {"strength", "tuning", "seed"} & {*configuration, *shared}:
            raise ValueError(f"the configuration of {name!r} sets {sorted(taken)[0]}; the search does that")
    grids = {name: () if centre is None else grid(centre, values) for name, (_, centre) in rivals.items()}
    trials = [
        {**shared, **configuration, "strength": strength, "tuning": True, "seed": seed}
        for name, (configuration, _) in rivals.items()
        for strength in grids[name]
        for seed in search_seeds
    ]
    tried = iter(run_together(experiment, trials))
    searches = {
        name: tuple(tuple(next(tried) for _ in search_seeds) for _ in each) for name, each in grids.items()
    }
    chosen = {name: Tuned(grids[name], searches[name], ()).chosen for name in rivals}
    finals = [
        {**shared, **configuration, **({} if chosen[name] is None else {"strength": chosen[name]}), "seed": seed}
        for name, (configuration, _) in rivals.items()
        for seed in seeds
    ]
    ran = iter(run_together(experiment, finals))
    return {name: Tuned(grids[name], searches[name], tuple(next(ran) for _ in seeds)) for name in rivals}
