"""Learning classes without an image kept: the means and the covariance of features, of a network that is frozen and of one that is not.

Runs that differ only in strength or seed train side by side: `records.run_together`.
"""

import torch
from ewc.chapters.what_ewc_cannot_do.class_means import ClassMeans
from ewc.in_turn import learn_together
from ewc.models import mlp
from ewc.penalties import EWC
from ewc.tasks import split
from ewc.together import fit_together
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on
from ewc.workshop.sequences import COMPARED

FEATURES = ("pixels", "drawn", "first lesson", "elastic")


def _modules(configuration):
    elastic = (*SPRINGS, *FISHER) if configuration["features"] == "elastic" else ()
    return (*LEARNING, "together", "in_turn", "chapters.what_ewc_cannot_do.class_means", *elastic)


@depends_on(_modules, sizes=COMPARED)
def class_means(
    tasks,
    *,
    features: str = "drawn",
    strength: float | None = None,
    shrinkage: float = 1e-4,
    groups: int = 5,
    hidden: tuple[int, ...] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    fisher_examples: int | None = None,
    seed: int = 0,
):
    """Learn the classes of the first data set in `groups` lessons by the means and the covariance of features; no image is seen twice
    by these.

    Args:
        features: what describes an image. ``"pixels"``: itself; otherwise the units of the first hidden layer of a network that is
            frozen as its weights were ``"drawn"``, or after the ``"first lesson"``, or that goes on to learn all lessons with EWC,
            ``"elastic"``: there a class is described by the features that the network had in its lesson.
        strength: of EWC, where there is any.

    Keeps the accuracies on all lessons after each of them, with one covariance and by the nearest mean, over all classes seen so far;
    and how many numbers were kept.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _class_means(tasks, [run])[0]


def _class_means(tasks, runs):
    shared, device = runs[0], tasks[0].train_targets.device
    if shared["features"] not in FEATURES:
        raise ValueError(f"features is {shared['features']!r}; it may be one of {', '.join(map(repr, FEATURES))}")
    if shared["features"] == "elastic" and any(run["strength"] is None for run in runs):
        raise ValueError("strength is None; features 'elastic' need a number")
    base = tasks[0]
    lessons = split(base, shared["groups"], scenario="class")
    classes, pixels = len(base.classes), base.train_inputs[0].numel()
    models = [mlp(shared["hidden"], inputs=pixels, classes=classes, seed=run["seed"]).to(device) for run in runs]
    size = pixels if shared["features"] == "pixels" else shared["hidden"][0]
    kept = [ClassMeans(size, classes, device=device) for _ in runs]
    found = [{"matrix": [], "nearest": []} for _ in runs]

    @torch.no_grad()
    def describe(model, images):
        return images.flatten(1) if shared["features"] == "pixels" else model.relu1(model.hidden1(images.flatten(1)))

    seen = {}  # by model, the test images of all lessons as its features see them

    def after(place):
        for number, (model, means, rows) in enumerate(zip(models, kept, found, strict=True)):
            for images, targets in zip(lessons[place].train_inputs.split(4096), lessons[place].train_targets.split(4096), strict=True):
                means.learn(describe(model, images), targets)
            if number not in seen or shared["features"] == "elastic":  # no other features change from lesson to lesson
                seen[number] = torch.cat([describe(model, lesson.test_inputs) for lesson in lessons]).to(means.means)
            for name, shrinkage in (("matrix", shared["shrinkage"]), ("nearest", 1.0)):
                read = means.logits(seen[number], shrinkage).argmax(1).split([len(lesson.test_targets) for lesson in lessons])
                rows[name].append([(a == lesson.test_targets).double().mean().item() for a, lesson in zip(read, lessons, strict=True)])

    options = {name: shared[name] for name in ("steps", "batch_size", "learning_rate")}
    options |= {"optimizer": "adam", "schedule": "constant", "label": "features"}
    if shared["features"] == "elastic":
        guards = [
            EWC(model, run["strength"], anchors="merged", max_examples=run["fisher_examples"])
            for run, model in zip(runs, models, strict=True)
        ]
        seeds = [run["seed"] for run in runs]
        idle = {"between": "nothing", "idle_at_first": True}
        learn_together(models, [lessons] * len(runs), penalties=guards, seeds=seeds, after=after, **idle, **options)
    else:
        if shared["features"] == "first lesson":  # with the images in the order in which `learn_together` has them
            fit_together(models, [lessons[0]] * len(runs), seeds=[1000 * run["seed"] for run in runs], **options)
        for place in range(len(lessons)):
            after(place)
    return [({**rows, "numbers": means.numbers}, {}) for rows, means in zip(found, kept, strict=True)]


class_means.together, class_means.own = _class_means, ("strength",)
