"""The first steps of the second lesson, watched one by one: how deep the accuracy on the first task dips, and what makes it dip less."""

import contextlib

import torch
from ewc.chapters.catastrophic_forgetting.experiments import LESSONS, first_lesson
from ewc.penalties import EWC
from ewc.replay import Replay
from ewc.steps import Proximal
from ewc.training import accuracy, fit
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, Record, depends_on

# After which steps the accuracies are measured: after each while they change from step to step, then less often.
LOOKS = (*range(25), *range(26, 61, 2), *range(70, 201, 10))
SIZES = {**LESSONS, "embedded": {**LESSONS["embedded"], "until": 80}}
_USES = {"plain": (), "ewc": (*SPRINGS, *FISHER, "steps"), "replay": ("replay", "scores", "heads", "checks")}


class _SeenEnough(Exception):
    """Raised after the last step that is watched: the schedule is that of the whole lesson, and the rest of it is not needed."""


@depends_on(lambda configuration: LEARNING + _USES[configuration["method"]], sizes=SIZES, begins_with=first_lesson)
def first_steps(
    tasks,
    first: Record,
    *,
    method: str = "plain",
    strength: float | None = None,
    proximal: bool = False,
    second_rate: float = 0.06,
    second_momentum: float = 0.9,
    memory: int = 1000,
    fisher_examples: int = 5000,
    images: int = 1000,
    steps: int | None = None,
    until: int | None = None,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """Begin the second lesson of `two_tasks` and stop after the last of LOOKS, with ``"plain"`` descent, ``"ewc"`` or ``"replay"``.

    Args:
        proximal: the pull of EWC is taken as a step of its own after plain descent's (`steps.Proximal`), which no strength makes diverge.
        second_rate, second_momentum: step size and momentum of the steps that are watched; `learning_rate` and `momentum` are the
            first lesson's.
        memory: how many images of the first task are shown again, by ``"replay"``.
        fisher_examples: how many of them the Fisher is taken on: all of them would take longer than the steps do.
        images: how many of the first task's test images are looked at.
        steps: of the whole lesson, which the schedule of the step size is for.
        until: the step after which no more is watched; None for the last of LOOKS.

    Keeps the steps, the accuracies there on the first task, and the one on the second after the last of them.
    """
    model = first.model("after 1").to(tasks[0].train_inputs.device)
    penalty = None
    if method == "ewc":
        penalty = EWC(model, strength, anchors="merged", max_examples=fisher_examples)
        penalty = Proximal(penalty, second_momentum) if proximal else penalty
    elif method == "replay":
        penalty = Replay(model, strength, examples=memory, batch_size=batch_size, seed=seed)
    if penalty is not None:
        penalty.consolidate(tasks[0].train_inputs, tasks[0].train_targets)
    looks = [step for step in LOOKS if step <= steps and (until is None or step <= until)]
    inputs, targets = tasks[0].test_inputs[:images], tasks[0].test_targets[:images]
    right = []

    @torch.no_grad()
    def look(step):
        if step in looks:
            right.append((model(inputs).argmax(1) == targets).float().mean())
        if step == looks[-1]:
            raise _SeenEnough

    with contextlib.suppress(_SeenEnough):
        fit(
            model,
            tasks[1],
            penalty=penalty,
            watch=look,
            seed=seed * 1000 + 1,
            label=f"first steps, {method}, seed {seed}",
            steps=steps,
            batch_size=batch_size,
            learning_rate=second_rate,
            momentum=second_momentum,
        )
    return {"steps": looks, "first": torch.stack(right).tolist(), "second": accuracy(model, tasks[1])}, {}
