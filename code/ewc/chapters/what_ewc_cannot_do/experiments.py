"""The experiments of the chapter on what EWC cannot do: the last lesson of a class-incremental sequence, and noise on weights.

Runs that differ only in method, strength or seed train side by side: `experiments.run_together`.
"""

import copy

import torch
from ewc.fisher import diagonal_fisher
from ewc.in_turn import learn_together
from ewc.models import mlp
from ewc.noise import KINDS, curvature_along, direction, divergence, in_use, mean_kl, scales, turned
from ewc.penalties import EWC
from ewc.tasks import held_out, joint, split
from ewc.together import fit_together
from ewc.training import accuracy, use_units
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on
from torch.nn.utils import parameters_to_vector, vector_to_parameters

_LEARNING = (*LEARNING, *SPRINGS, *FISHER, "together", "in_turn")

LAST = {
    "cpu": {"hidden": (100, 100), "steps": 300, "strength": 3e3},
    "embedded": {"hidden": (50, 50), "steps": 40, "strength": 100.0},
}
LOOKS = (0, 1, 2, 4, 7, 12, 20, 35, 60, 100, 170, 300)


@depends_on(lambda configuration: _LEARNING, sizes=LAST)
def last_lesson(
    tasks,
    *,
    method: str = "plain",
    strength: float | None = None,
    masked: bool = False,
    examples: tuple[int, ...] = (1, 10, 50),
    groups: int = 5,
    hidden: tuple[int, ...] | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    fisher_examples: int = 10_000,
    tuning: bool = False,
    seed: int = 0,
):
    """Learn the classes in `groups` tasks with ``"plain"`` Adam or ``"ewc"``, and watch the outputs while the last task is learned.

    Args:
        masked: whether the loss of a task is over the outputs of its own classes alone.
        examples: from how many training images of each class the biases of the outputs are corrected afterwards.
        tuning: test on held-out training images, and train without them.

    Keeps the accuracies after the last task, with all outputs to choose from and with each task's own; at each look the mean
    probability of each class on the last task's training images, and on test images of the old classes how much the mean
    logit of the new classes is above that of the old; what of that rise came through biases, weights of the outputs, and
    hidden layers; the median probability that old images gave a new class before; and the accuracy once the biases have
    been corrected.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _last(tasks, [run])[0]


def _last(tasks, runs):
    shared, device = runs[0], tasks[0].train_targets.device
    base = held_out(tasks[0]) if shared["tuning"] else tasks[0]
    together = split(base, shared["groups"], scenario="class")
    apart = split(base, shared["groups"], scenario="task")
    classes = len(base.classes)
    new = list(apart[-1].units)
    old = [number for number in range(classes) if number not in new]
    models = [mlp(shared["hidden"], classes=classes, units=True, seed=run["seed"]).to(device) for run in runs]
    guards = [
        EWC(model, run["strength"], anchors="merged", max_examples=run["fisher_examples"]) if run["method"] == "ewc" else None
        for run, model in zip(runs, models, strict=True)
    ]
    options = {name: shared[name] for name in ("steps", "batch_size", "learning_rate")}
    options |= {"optimizer": "adam", "schedule": "constant"}
    lessons = apart if shared["masked"] else together
    many, seeds = len(runs), [run["seed"] for run in runs]
    matrices, _ = learn_together(
        models, [lessons[:-1]] * many, penalties=guards, tests=[together[:-1]] * many, seeds=seeds, label="classes",
        between="nothing", idle_at_first=True, **options,
    )  # fmt: skip
    for guard in guards:
        if guard is not None:  # `learn_together` leaves its last task unconsolidated, and here one more follows
            use_units(guard.model, lessons[-2].units)
            guard.consolidate(lessons[-2].train_inputs, lessons[-2].train_targets)
    before = copy.deepcopy(models)
    fresh = together[-1].train_inputs[:2000]
    earlier = torch.cat([task.test_inputs[:500] for task in together[:-1]])
    looks = [[] for _ in runs]

    @torch.no_grad()
    def watch(step):
        if step not in LOOKS and step != shared["steps"]:
            return
        for model, kept in zip(models, looks, strict=True):
            chosen = use_units(model, None)
            logits = model(earlier)
            kept.append(
                {
                    "step": step,
                    "probabilities": model(fresh).softmax(-1).mean(0).tolist(),
                    "lead": float(logits[:, new].mean() - logits[:, old].mean()),
                    "read as new": float((logits.argmax(1) >= min(new)).float().mean()),
                }
            )
            use_units(model, chosen)

    place = shared["groups"] - 1
    fit_together(
        models,
        [lessons[-1]] * many,
        penalties=guards,
        seeds=[seed * 1000 + place for seed in seeds],
        watch=watch,
        label="the last classes",
        **options,
    )
    results, everything = [], joint(together)
    for model, first, matrix, kept, run in zip(models, before, matrices, looks, runs, strict=True):
        with torch.no_grad():
            use_units(first, None)
            rare = first(earlier).softmax(-1)[:, new].median()
        after = [accuracy(model, task) for task in together]
        result = {
            "matrix": [[*row, float("nan")] for row in matrix.values.tolist()] + [after],
            "after": after,
            "own outputs": [accuracy(model, task) for task in apart],
            "looks": kept,
            "rare": float(rare),
            "rise": _rise(first, model, earlier, old, new),
            "corrected": [_corrected(model, together, everything, count, run["seed"]) for count in run["examples"]],
        }
        results.append((result, {}))
    return results


last_lesson.together, last_lesson.own = _last, ("method", "strength")


@torch.no_grad()
def _rise(before, after, inputs, old, new):
    """How much the lead of the new classes' mean logit rose, through the biases, the outputs' weights and the hidden layers.

    With z = Wa + b, the change is z′ − z = (b′ − b) + (W′ − W)a′ + W(a′ − a), exactly.
    """
    hidden = [torch.nn.Sequential(*list(model)[:-2])(inputs) for model in (before, after)]
    w, b = before.logits.weight, before.logits.bias
    parts = {
        "biases": (after.logits.bias - b).expand(len(inputs), -1),
        "weights": hidden[1] @ (after.logits.weight - w).T,
        "hidden": (hidden[1] - hidden[0]) @ w.T,
    }
    return {name: float(change[:, new].mean() - change[:, old].mean()) for name, change in parts.items()}


def _corrected(model, tasks, everything, count, seed):
    """Mean accuracy once the biases of the outputs alone have been trained on `count` images of each class. everything: the joint task."""
    model = copy.deepcopy(model)
    use_units(model, None)
    inputs, targets = everything.train_inputs, everything.train_targets
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed)).to(targets.device)
    rows = torch.cat([order[targets[order] == label][:count] for label in targets.unique()])
    with torch.no_grad():
        logits, labels = model(inputs[rows]), targets[rows]
    shift = torch.zeros_like(model.logits.bias, requires_grad=True)
    rule = torch.optim.LBFGS([shift], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        rule.zero_grad()
        # A trace of weight decay: one image of a class may be separated by ever larger biases.
        value = torch.nn.functional.cross_entropy(logits + shift, labels) + 1e-4 * shift.square().mean()
        value.backward()
        return value

    rule.step(loss)
    with torch.no_grad():
        model.logits.bias += shift
    return sum(accuracy(model, task) for task in tasks) / len(tasks)


NOISE = {"cpu": {"steps": 1000, "batch_size": 64}, "embedded": {"steps": 350, "batch_size": 128}}


@depends_on(lambda configuration: (*_LEARNING, "noise"), sizes=NOISE)
def weight_noise(
    tasks,
    *,
    sizes: tuple[float, ...] = (2.5, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0),
    draws: int = 3,
    damping: float = 1e-3,
    share: float = 0.25,
    priors: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0, 10_000.0),
    strength: float = 300.0,
    images: int = 3000,
    steps: int | None = None,
    hidden: tuple[int, ...] = (100, 100),
    batch_size: int | None = None,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """Learn the first task and disturb the weights, by the three noises of `noise.scales` and by the posterior's own.

    Args:
        sizes: lengths of the noise.
        draws: of each kind.
        priors: τ, for which the Gaussian with precision N F + τ is drawn from as it is, at its own length.
        strength: of EWC in a second lesson, on the second task.
        images: on how many of the training images the Fisher is taken and the divergence measured.

    Keeps for each noise the share of its squared length that lies on the null weights, dᵀFd for d of length 1 with the whole
    Fisher and its diagonal, and at each size the divergence, that of the network made straight, and the accuracy; and dᵀFd,
    divergence and accuracy for the way of a second lesson with EWC, as it is and with its signs thrown anew.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _noise(tasks, [run])[0]


def _noise(tasks, runs):
    shared = runs[0]
    options = {name: shared[name] for name in ("steps", "batch_size", "learning_rate", "momentum")}
    models = [mlp(shared["hidden"], seed=run["seed"]).to(tasks[0].train_targets.device) for run in runs]
    many = len(runs)
    fit_together(models, tasks[:1] * many, seeds=[run["seed"] * 1000 for run in runs], label="noise", **options)
    firsts = copy.deepcopy(models)
    guards = [
        EWC(model, run["strength"], anchors="merged", max_examples=run["images"])
        for model, run in zip(models, runs, strict=True)
    ]
    for guard in guards:
        guard.consolidate(tasks[0].train_inputs)
    seeds = [run["seed"] * 1000 + 1 for run in runs]
    fit_together(models, tasks[1:] * many, penalties=guards, seeds=seeds, label="noise: second lesson", **options)
    found = []
    for run, first, second in zip(runs, firsts, models, strict=True):
        way = parameters_to_vector(second.parameters()).detach() - parameters_to_vector(first.parameters()).detach()
        found.append((_disturbed(first, tasks[0], way, run), {}))
    return found


weight_noise.together, weight_noise.own = _noise, ()


def _disturbed(model, task, way, run):
    generator = torch.Generator().manual_seed(run["seed"])
    inputs = task.train_inputs[: run["images"]]
    fisher = torch.cat([value.flatten() for value in diagonal_fisher(model, inputs).values()])
    start = parameters_to_vector(model.parameters()).detach().clone()
    used = in_use(model, task.train_inputs)
    null = scales(fisher, "null", share=run["share"], used=used) > 0

    def read(step):
        vector_to_parameters(start + step, model.parameters())
        right = accuracy(model, task)
        vector_to_parameters(start.clone(), model.parameters())
        return right

    def costs(step):
        return {"divergence": divergence(model, inputs, step), "accuracy": read(step)}

    def forms(step):
        return {"whole": curvature_along(model, inputs, step), "diagonal": float((fisher * step.square()).sum())}

    kinds = {}
    for kind in KINDS:
        scale = scales(fisher, kind, damping=run["damping"], share=run["share"], used=used)
        kinds[kind] = []
        for _ in range(run["draws"]):
            unit = direction(scale, generator)
            logits, slopes = turned(model, inputs, unit)
            at = [costs(size * unit) | {"straight": mean_kl(logits, logits + size * slopes)} for size in run["sizes"]]
            by_size = {name: [each[name] for each in at] for name in at[0]}
            kinds[kind].append(forms(unit) | by_size | {"on null": float(unit[null].square().sum())})
    posterior = []
    for prior in run["priors"]:
        spread = 1 / (len(task.train_targets) * fisher + prior).sqrt()
        steps = [spread * torch.randn(spread.shape, generator=generator).to(spread.device) for _ in range(run["draws"])]
        posterior.append({"length": [float(step.norm()) for step in steps], "accuracy": [read(step) for step in steps]})
    thrown = [way * (2 * torch.randint(0, 2, way.shape, generator=generator) - 1).to(way.device) for _ in range(run["draws"])]
    return {
        "kinds": kinds,
        "posterior": posterior,
        "lesson": {"length": float(way.norm())} | forms(way) | costs(way),
        "thrown": [forms(step) | costs(step) for step in thrown],
        "accuracy": accuracy(model, task),
        "in use": float(used.float().mean()),
        "null below": float(fisher[null].max() / fisher[used].mean()),
        "length": float(start.norm()),
    }
