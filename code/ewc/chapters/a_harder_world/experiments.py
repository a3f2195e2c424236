"""The three scenarios with a convolutional network: the second data set's classes, two at a time."""

import torch
from ewc.chapters.a_harder_world.network import convolutional
from ewc.tasks import held_out, joint, split
from ewc.training import accuracy, fit, use_units
from ewc.workshop.records import FISHER, LEARNING, READINGS, SPRINGS, depends_on
from ewc.workshop.sequences import bytes_carried, penalty_of_run

_USES = {"plain": (), "joint": (), "l2": SPRINGS, "ewc": (*SPRINGS, *FISHER), "replay": ("replay", *READINGS)}
SIZES = {"cpu": {"steps": 60}, "embedded": {"steps": 60}}


@depends_on(
    lambda configuration: (*LEARNING, "workshop.sequences", "chapters.a_harder_world.network", *_USES[configuration["method"]]), sizes=SIZES
)
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
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    fisher_examples: int = 250,
    tuning: bool = False,
    seed: int = 0,
):
    """Learn the classes of the second data set in `groups` tasks with Adam, in one of the scenarios of `tasks.split`.

    Args:
        method: ``"plain"``, ``"l2"``, ``"ewc"``, ``"replay"`` or ``"joint"``, which sees all tasks so far at each place.
        memory: how many images of each task ``"replay"`` keeps.
        tuning: test on held-out training images, and train without them.

    Keeps the accuracies after each task on the tasks so far, what the method carries, in bytes, and the weights after the first task and
    after the last.
    """
    base = held_out(tasks[1]) if tuning else tasks[1]
    parts = split(base, groups, scenario=scenario)
    classes = len(parts[0].classes) if scenario == "domain" else len(base.classes)
    model = convolutional(channels, hidden, classes=classes, units=scenario == "task", seed=seed).to(base.train_targets.device)
    run = {"method": method, "strength": strength, "memory": memory, "fisher_examples": fisher_examples, "batch_size": batch_size}
    run |= {"anchors": "merged", "decay": 1.0, "labels": "exact", "way": "explicit", "optimizer": "adam", "momentum": 0.9, "seed": seed}
    penalty = penalty_of_run(run, model)
    rows, weights = [], {}
    for place, part in enumerate(parts):
        fit(
            model,
            joint(parts[: place + 1]) if method == "joint" else part,
            penalty=penalty,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimizer="adam",
            schedule="constant",
            seed=seed * 1000 + place,
            label=f"{method}, {scenario}, seed {seed}, task {place + 1}",
        )
        rows.append([accuracy(model, other) for other in parts[: place + 1]])  # tasks to come would cost more tests, and none is asked for
        last = place + 1 == groups
        if last or not place:
            weights[f"after {place + 1}"] = torch.nn.utils.parameters_to_vector(model.parameters()).detach().cpu()
        if penalty is not None and not last:
            use_units(model, part.units)
            penalty.consolidate(part.train_inputs, part.train_targets)
    return {"matrix": rows, "bytes": bytes_carried(penalty)}, weights
