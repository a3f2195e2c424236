"""The two lessons that most chapters look at: the first data set, then the second, with and without a penalty."""

from ewc.models import mlp
from ewc.penalties import EWC, L2
from ewc.training import accuracy, fit
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, Record, depends_on
from torch.nn.utils import parameters_to_vector

# What two cores can afford, with the full data and with the embedded stand-ins.
LESSONS = {"cpu": {"steps": 1000, "strength": 300.0}, "embedded": {"steps": 200, "strength": 300.0}}
# At which steps of a task the accuracies are looked at: often where they change fast.
LOOKS = (0, 1, 2, 4, 8, 15, 30, 60, 125, 250, 500, 700, 1000)
_PENALTIES = {"plain": (), "l2": SPRINGS, "ewc": (*SPRINGS, *FISHER)}


@depends_on(lambda configuration: LEARNING, sizes=LESSONS)
def first_lesson(
    tasks,
    *,
    steps: int | None = None,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """Learn the first task. `two_tasks` and `second_lessons` go on from its weights, so that it is trained once.

    Keeps the accuracies on both tasks, before and after, and the weights.
    """
    model = mlp(hidden, seed=seed).to(tasks[0].train_inputs.device)
    untrained = [accuracy(model, task) for task in tasks]
    options = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "momentum": momentum}
    fit(model, tasks[0], seed=seed * 1000, label=f"first lesson, seed {seed}", **options)
    weights = parameters_to_vector(model.parameters()).detach().cpu()
    return {"untrained": untrained, "after": [accuracy(model, task) for task in tasks]}, {"after 1": weights}


@depends_on(lambda configuration: LEARNING + _PENALTIES[configuration["method"]], sizes=LESSONS, begins_with=first_lesson)
def two_tasks(
    tasks,
    first: Record,
    *,
    method: str = "plain",
    strength: float | None = None,
    steps: int | None = None,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    on_the_way: bool = True,
    seed: int = 0,
):
    """After the first task learn the second, with ``"plain"`` descent, ``"l2"`` or ``"ewc"``; the same ten outputs for both.

    Keeps the accuracy matrix, the accuracies on the way through the second task if they are asked for, those of the untrained
    network, the weights after each task, and for the first seed the weights on the way.
    """
    model = first.model("after 1").to(tasks[0].train_inputs.device)
    makers = {
        "plain": lambda: None,
        "l2": lambda: L2(model, strength),
        "ewc": lambda: EWC(model, strength, anchors="merged"),
    }
    penalty = makers[method]()
    if penalty is not None:
        penalty.consolidate(tasks[0].train_inputs, tasks[0].train_targets)
    weights, looks = {"after 1": first.tensors["after 1"]}, []

    def look(step):
        if step == steps or (on_the_way and step in LOOKS and method != "l2"):  # no page shows L2 on its way
            looks.append({"task": 1, "step": step, "accuracies": [accuracy(model, task) for task in tasks]})
            if step == steps or seed == 0:
                weights["after 2" if step == steps else f"step {step}"] = parameters_to_vector(model.parameters()).detach().cpu()

    fit(
        model,
        tasks[1],
        penalty=penalty,
        watch=look,
        seed=seed * 1000 + 1,
        label=f"{method}, seed {seed}",
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
    )
    matrix = [first.result["after"], looks[-1]["accuracies"]]
    return {"matrix": matrix, "looks": looks, "untrained": first.result["untrained"]}, weights
