"""The experiment of Tempting fixes: the second lesson, in several ways that are no penalty."""

from ewc.chapters.catastrophic_forgetting.experiments import LESSONS, first_lesson
from ewc.replay import Replay
from ewc.training import accuracy, fit
from ewc.workshop.records import LEARNING, Record, depends_on


@depends_on(lambda configuration: (*LEARNING, "replay", "scores", "checks"), sizes=LESSONS, begins_with=first_lesson)
def second_lessons(
    tasks,
    first: Record,
    *,
    ways: tuple[tuple[str, float], ...],
    steps: int | None = None,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """After the first task learn the second in several ways, each from the same weights.

    A way is a name and an amount: ``("slower", 0.1)`` takes steps of a tenth of the size, ``("freeze", 1)`` holds the first
    layer still, ``("replay", 200)`` keeps that many images of the first task. Keeps both accuracies before and after each.
    """
    options = {"steps": steps, "batch_size": batch_size, "momentum": momentum}
    after = []
    for way, amount in ways:
        model = first.model("after 1").to(tasks[0].train_inputs.device)
        layers = [layer for layer in model if list(layer.parameters())]
        penalty, rate, frozen = None, learning_rate, 0
        if way == "slower":
            rate = amount * learning_rate
        elif way == "freeze":
            frozen = amount
        elif way == "replay":
            penalty = Replay(model, examples=amount, batch_size=batch_size, seed=seed)
            penalty.consolidate(tasks[0].train_inputs, tasks[0].train_targets)
        else:
            raise ValueError(f"a way is {way!r}; it may be 'slower', 'freeze' or 'replay'")
        for place, layer in enumerate(layers):
            layer.requires_grad_(place >= frozen)
        label = f"{way} {amount}, seed {seed}"
        fit(model, tasks[1], penalty=penalty, learning_rate=rate, seed=seed * 1000 + 1, label=label, **options)
        after.append([accuracy(model, task) for task in tasks])
    return {"before": first.result["after"], "after": after}, {}
