"""What the slips of `slips` cost: scale, best λ and result of each on the same networks, and three that no scale explains."""

from dataclasses import replace

import torch
from ewc.chapters.reading_other_peoples_ewc.slips import FISHERS, Overwritten, likeness, term
from ewc.in_turn import learn_together
from ewc.models import mlp
from ewc.penalties import EWC
from ewc.steps import Proximal
from ewc.tasks import permuted
from ewc.together import fit_together
from ewc.training import accuracy
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on

SIZES = {
    "cpu": {
        "examples": 8000,
        "held": 1000,
        "passes": (3, 40),
        "stiffness": (2e3, 1e4, 5e4, 2.5e5, 1.2e6, 6e6, 3e7),
        "hidden": (100, 100),
        "steps": 100,
    },
    "embedded": {"examples": 800, "held": 300, "passes": (10, 100), "stiffness": (2e3, 2e4, 2e5, 2e6, 2e7), "hidden": (50, 50), "steps": 50},
}
FOLLOWING = {
    "cpu": {"first_steps": 300, "rounds": 20, "round_steps": 25, "look": (5, 10, 20), "hidden": (100, 100)},
    "embedded": {"first_steps": 100, "rounds": 20, "round_steps": 10, "look": (5, 10, 20), "hidden": (50, 50)},
}
OVERWRITTEN = {"cpu": {"hidden": (100, 100), "steps": 150}, "embedded": {"hidden": (50, 50), "steps": 80}}
_RUN = (*LEARNING, *SPRINGS, *FISHER, "together", "in_turn", "steps", "chapters.reading_other_peoples_ewc.slips")


@depends_on(lambda configuration: _RUN, sizes=SIZES)
def slips_sweep(
    tasks,
    *,
    examples: int | None = None,
    held: int | None = None,
    passes: tuple[int, ...] | None = None,
    stiffness: tuple[float, ...] | None = None,
    hidden: tuple[int, ...] | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seeds: int = 3,
    seed: int = 0,
):
    """Learn a part of the first task, take every importance of `slips.FISHERS`, and learn the second task with each.

    An importance Ω is tried at the λ that give its springs these total stiffnesses λ Σᵢ Ωᵢ, so that each has the same
    chance, and at the λ that was best for the exact Fisher. The best is chosen on held-out training images of both tasks;
    the result is that on the test images. The penalty's step is taken implicitly, so that no λ diverges.

    Args:
        examples: of the first task, learned by Adam until it knows them by heart.
        held: the last training images of either task that serve to choose λ, and are learned by none.
        passes: after how many passes over the examples the importances are taken.
        seeds: networks, side by side; their seeds are `seed`, `seed` + 1 and so on.

    Keeps a look for each number of passes: the accuracy on the examples; the test accuracies before the second lesson and
    after a plain one; and for each importance its likeness to the exact one, its sum, λ and held-out accuracies at each
    stiffness, the place of the best, and the test accuracies there and at the exact one's best λ. Accuracies come as
    lists over seeds and the two tasks. Keeps the weights of the first seed at each look.
    """
    known = _cut(tasks[0], slice(examples))
    second = _cut(tasks[1], slice(-held))
    judges = [_judging(task, slice(-held, None)) for task in tasks]
    numbers = [seed + place for place in range(seeds)]
    networks = [mlp(hidden, seed=number).to(known.train_inputs.device) for number in numbers]
    length = -(-len(known.train_targets) // batch_size)
    kept = {}

    def keep(step):
        if step in [count * length for count in passes]:
            kept[step // length] = [_weights(network) for network in networks]

    fit_together(
        networks,
        [known] * seeds,
        steps=max(passes) * length,
        batch_size=batch_size,
        learning_rate=1e-3,
        optimizer="adam",
        schedule="constant",
        seeds=[1000 * number for number in numbers],
        watch=keep,
        label="slips: first lesson",
    )

    def second_lesson(weights, importances, strengths, label):
        """The networks after it: one for each row of strengths and each seed, row by row."""
        models = [_network(hidden, own) for _ in strengths for own in weights]
        springs = []
        for place, model in enumerate(models):
            spring = EWC(model, strengths[place // seeds][place % seeds])
            spring.load_state_dict(term(model, importances[place % seeds]))
            springs.append(Proximal(spring, momentum))
        fit_together(
            models,
            [second] * len(models),
            penalties=springs,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            seeds=[1000 * number + 1 for number in numbers] * len(strengths),
            label=f"slips: {label}",
        )
        return [models[place : place + seeds] for place in range(0, len(models), seeds)]

    looks = []
    for count, weights in kept.items():
        learned = [_network(hidden, own) for own in weights]
        (plain,) = second_lesson(weights, [{}] * seeds, [[0.0] * seeds], "plain")
        look = {
            "pass": count,
            "seen": [accuracy(model, _judging(known, slice(None))) for model in learned],
            "before": _accuracies(learned, tasks),
            "plain": _accuracies(plain, tasks),
            "rows": {},
        }
        right, best_of_right = None, []
        for name, importance in FISHERS.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found = [importance(model, known.train_inputs, known.train_targets) for model in learned]
            right = right or found
            sums = [float(sum(value.double().sum() for value in own.values())) for own in found]
            strengths = [[total / own for own in sums] for total in stiffness]
            rows = second_lesson(weights, found, strengths + best_of_right, f"{name}, {count} passes")
            held_out = [_accuracies(models, judges) for models in rows[: len(stiffness)]]
            best = int(torch.tensor(held_out).mean((1, 2)).argmax())
            likenesses = [likeness(*pair) for pair in zip(found, right, strict=True)]
            look["rows"][name] = {
                "sum": sums,
                "scale": [each.scale for each in likenesses],
                "order": [each.order for each in likenesses],
                "strengths": strengths,
                "held": held_out,
                "best": best,
                "test": _accuracies(rows[best], tasks),
                "test at right": _accuracies(rows[-1] if best_of_right else rows[best], tasks),
            }
            best_of_right = best_of_right or [strengths[best]]
        looks.append(look)
    vectors = {
        f"after {count}": torch.nn.utils.parameters_to_vector(_network(hidden, weights[0]).parameters()).detach().cpu()
        for count, weights in kept.items()
    }
    return {"looks": looks}, vectors


@depends_on(lambda configuration: _RUN, sizes=FOLLOWING)
def anchor_that_follows(
    tasks,
    *,
    strengths: tuple[float, ...] = (100.0, 1e4),
    first_steps: int | None = None,
    rounds: int | None = None,
    round_steps: int | None = None,
    look: tuple[int, ...] | None = None,
    hidden: tuple[int, ...] | None = None,
    batch_size: int = 64,
    learning_rate: float = 0.02,
    momentum: float = 0.9,
    old_images: int = 200,
    seeds: int = 3,
    seed: int = 0,
):
    """Learn the first task, then the second in rounds, with EWC made once, or made anew before each round.

    Made anew, it takes the present weights for its anchor, and their Fisher on some images of the first task.

    Keeps for each way, ``"stays"`` and ``"follows"``, and each strength the test accuracies before the second lesson and
    after the rounds in `look`: (1 + looks, seeds, tasks).
    """
    numbers = [seed + place for place in range(seeds)]
    first = [mlp(hidden, seed=number).to(tasks[0].train_inputs.device) for number in numbers]
    options = {"batch_size": batch_size, "momentum": momentum}
    fit_together(
        first,
        [tasks[0]] * seeds,
        steps=first_steps,
        learning_rate=0.06,
        seeds=[1000 * number for number in numbers],
        label="anchor: first lesson",
        **options,
    )
    ways = [(way, strength) for way in ("stays", "follows") for strength in strengths]
    models = [_network(hidden, _weights(model)) for _ in ways for model in first]
    springs = [EWC(model, ways[place // seeds][1], max_examples=old_images) for place, model in enumerate(models)]
    looks = [_accuracies(models, tasks)]
    for part in range(rounds):
        for place, spring in enumerate(springs):
            if part == 0 or ways[place // seeds][0] == "follows":
                spring.load_state_dict({})
                spring.consolidate(tasks[0].train_inputs)
        fit_together(
            models,
            [tasks[1]] * len(models),
            penalties=[Proximal(spring, momentum) for spring in springs],
            steps=round_steps,
            learning_rate=learning_rate,
            schedule="constant",
            seeds=[1000 * number + 1 + part for number in numbers] * len(ways),
            label=f"anchor: round {part + 1} of {rounds}",
            **options,
        )
        if part + 1 in look:
            looks.append(_accuracies(models, tasks))
    found = {"stays": [], "follows": []}
    for place, (way, _) in enumerate(ways):
        found[way].append([look[place * seeds : (place + 1) * seeds] for look in looks])
    return found, {}


@depends_on(lambda configuration: _RUN, sizes=OVERWRITTEN)
def springs_overwritten(
    tasks,
    *,
    strength: float = 100.0,
    count: int = 4,
    hidden: tuple[int, ...] | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    seeds: int = 3,
    seed: int = 0,
):
    """Learn permutations of the first task one after another, with the springs of all of them or of the latest alone.

    Keeps the accuracy matrices of the seeds, by way: ``"kept"`` and ``"overwritten"``.
    """
    numbers = [seed + place for place in range(seeds)]
    ways = {"kept": EWC, "overwritten": Overwritten}
    models = [mlp(hidden, seed=number).to(tasks[0].train_inputs.device) for _ in ways for number in numbers]
    springs = [
        Proximal(kind(model, strength, max_examples=10_000), momentum)
        for model, kind in zip(models, [kind for kind in ways.values() for _ in numbers], strict=True)
    ]
    sequences = {number: permuted(tasks[0], count, number) for number in numbers}
    matrices, _ = learn_together(
        models,
        [sequences[number] for _ in ways for number in numbers],
        penalties=springs,
        seeds=numbers * len(ways),
        label="springs overwritten:",
        idle_at_first=True,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
    )
    values = [matrix.values.tolist() for matrix in matrices]
    return {way: values[place * seeds : (place + 1) * seeds] for place, way in enumerate(ways)}, {}


def _cut(task, rows):
    return replace(task, train_inputs=task.train_inputs[rows], train_targets=task.train_targets[rows])


def _judging(task, rows):
    """The task, tested on these of its training images."""
    return replace(task, test_inputs=task.train_inputs[rows], test_targets=task.train_targets[rows])


def _weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def _network(hidden, weights):
    model = mlp(hidden).to(next(iter(weights.values())).device)
    model.load_state_dict(weights)
    return model


def _accuracies(models, tasks):
    return [[accuracy(model, task) for task in tasks] for model in models]
