"""The two lessons of the first chapters again, on held-out images: how their λ is chosen.

It has a file of its own, so that what the chapter's other experiments trained does not hang on it. All trials of a search go on
from one first lesson and train side by side: `records.run_together`.
"""

import copy
import warnings

from ewc.chapters.catastrophic_forgetting.experiments import LESSONS
from ewc.models import mlp
from ewc.penalties import EWC, L2
from ewc.tasks import held_out
from ewc.together import fit_together
from ewc.training import accuracy
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on

_PENALTIES = {"l2": SPRINGS, "ewc": (*SPRINGS, *FISHER)}


@depends_on(lambda configuration: (*LEARNING, "together", *_PENALTIES[configuration["method"]]), sizes=LESSONS)
def two_lessons(
    tasks,
    *,
    method: str = "ewc",
    strength: float | None = None,
    tuning: bool = False,
    steps: int | None = None,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """Learn the first task, then the second with ``"ewc"`` or ``"l2"``, as `two_tasks` of the chapter on forgetting does.

    Args:
        tuning: test on held-out training images, and train without them.

    Keeps the accuracy matrix.
    """
    return _lessons(tasks, [{name: value for name, value in locals().items() if name != "tasks"}])[0]


def _lessons(tasks, runs):
    shared = runs[0]
    pair = [held_out(task) for task in tasks] if shared["tuning"] else tasks
    options = {name: shared[name] for name in ("steps", "batch_size", "learning_rate", "momentum")}
    seeds = sorted({run["seed"] for run in runs})
    firsts = {seed: mlp(shared["hidden"], seed=seed).to(pair[0].train_targets.device) for seed in seeds}
    first_seeds = [seed * 1000 for seed in seeds]
    fit_together(list(firsts.values()), [pair[0]] * len(seeds), seeds=first_seeds, label="first lesson", **options)
    before = {seed: [accuracy(model, task) for task in pair] for seed, model in firsts.items()}
    models, penalties, known = [], [], {}
    for run in runs:
        seed, method = run["seed"], run["method"]
        models.append(copy.deepcopy(firsts[seed]))
        penalties.append(_penalty(method, models[-1], run["strength"]))
        # What a penalty remembers does not depend on its strength: it looks at the first task once.
        if (seed, method) not in known:
            penalties[-1].consolidate(pair[0].train_inputs, pair[0].train_targets)
            known[seed, method] = penalties[-1].state_dict()
        penalties[-1].load_state_dict(known[seed, method])
    with warnings.catch_warnings():  # a grid may reach beyond the step bound; what runs away there is not chosen
        warnings.filterwarnings("ignore", "learning_rate · strength", RuntimeWarning)
        second_seeds = [run["seed"] * 1000 + 1 for run in runs]
        fit_together(models, [pair[1]] * len(runs), penalties=penalties, seeds=second_seeds, label="second lesson", **options)
    return [
        ({"matrix": [before[run["seed"]], [accuracy(model, task) for task in pair]]}, {})
        for run, model in zip(runs, models, strict=True)
    ]


two_lessons.together, two_lessons.own = _lessons, ("method", "strength")


def _penalty(method, model, strength):
    if method == "ewc":
        return EWC(model, strength, anchors="merged")
    if method == "l2":
        return L2(model, strength)
    raise ValueError(f"method is {method!r}; it may be one of {', '.join(map(repr, _PENALTIES))}")
