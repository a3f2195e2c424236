"""The three scenarios with a convolutional network: the second data set's classes, two at a time."""

from ewc.chapters.a_harder_world.network import convolutional
from ewc.in_turn import learn_together
from ewc.tasks import held_out, joint, split
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on
from ewc.workshop.sequences import bytes_carried, penalty_of_run

_LEARNING = (*LEARNING, "together", "in_turn", "workshop.sequences", "chapters.a_harder_world.network")
_USES = {"plain": (), "joint": (), "l2": SPRINGS, "ewc": (*SPRINGS, *FISHER), "replay": ("replay", "scores", "checks")}
SIZES = {
    "cpu": {"steps": 60, "batch_size": 32, "learning_rate": 2e-3, "fisher_examples": 250},
    "embedded": {"steps": 20, "batch_size": 12, "learning_rate": 6e-3, "fisher_examples": 60},
}


@depends_on(lambda configuration: _LEARNING + _USES[configuration["method"]], sizes=SIZES)
def clothes_in_turn(
    tasks,
    *,
    scenario: str,
    method: str = "plain",
    strength: float | None = None,
    memory: int = 50,
    groups: int = 5,
    channels: tuple[int, int] = (8, 16),
    hidden: int = 32,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    fisher_examples: int | None = None,
    tuning: bool = False,
    seed: int = 0,
):
    """Learn the classes of the second data set in `groups` tasks with Adam, in one of the scenarios of `tasks.split`.

    Args:
        method: ``"plain"``, ``"l2"``, ``"ewc"``, ``"replay"`` or ``"joint"``, which sees all tasks so far at each place.
        memory: how many images of each task ``"replay"`` keeps.
        tuning: test on held-out training images, and train without them.

    Keeps the accuracies after the last task, and what the method carries from task to task, in bytes.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _in_turn(tasks, [run])[0]


def _in_turn(tasks, runs):
    """Runs that differ in their strength and seed, side by side."""
    shared = runs[0]
    base = held_out(tasks[1]) if shared["tuning"] else tasks[1]
    parts = split(base, shared["groups"], scenario=shared["scenario"])
    classes = len(parts[0].classes) if shared["scenario"] == "domain" else len(base.classes)
    models = [
        convolutional(shared["channels"], shared["hidden"], classes=classes, units=shared["scenario"] == "task", seed=run["seed"]) for run in runs
    ]
    models = [model.to(base.train_targets.device) for model in models]
    fixed = {"anchors": "merged", "decay": 1.0, "labels": "exact", "way": "explicit", "optimizer": "adam", "momentum": 0.9}
    penalties = [penalty_of_run(run | fixed, model) for run, model in zip(runs, models, strict=True)]
    lessons = [joint(parts[: place + 1]) for place in range(len(parts))] if shared["method"] == "joint" else parts
    matrices, _ = learn_together(
        models,
        [lessons] * len(runs),
        penalties=penalties,
        tests=[parts] * len(runs),
        between="nothing",  # tests would take longer than lessons, and the page asks for the end alone
        idle_at_first=True,
        seeds=[run["seed"] for run in runs],
        steps=shared["steps"],
        batch_size=shared["batch_size"],
        learning_rate=shared["learning_rate"],
        optimizer="adam",
        schedule="constant",
        label=f"{shared['method']}, {shared['scenario']},",
    )
    return [({"matrix": matrix.values.tolist(), "bytes": bytes_carried(penalty)}, {}) for matrix, penalty in zip(matrices, penalties, strict=True)]


clothes_in_turn.together, clothes_in_turn.own = _in_turn, ("strength",)
