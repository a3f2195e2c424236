"""Variational continual learning: a Gaussian over the weights is fitted to each task, with the one before as its prior.

It does not fit into `training.fit`, where a penalty is added to the loss of one set of weights: here every forward pass draws,
and each weight has a variance that is learned beside its mean. So this file has a loop of its own, for networks side by side.

What a layer gives is drawn in the place of its weights, once for each image and step: of independent Gaussian weights it is
Gaussian too, and two products give its mean and variance (the local reparametrisation of Kingma, Salimans & Welling, 2015).

Source: Nguyen, Li, Bui & Turner, Variational continual learning, ICLR 2018, equation 4, without coresets. Their code draws
weights, ten times a step, moves means and variances by Adam, a hundred passes a task, and begins with the means of a network
that was trained without variances for as long. Here the means take the steps of the chapter's other methods, and no others.
"""

from dataclasses import dataclass
from math import nan
from statistics import median

import torch
from ewc.chapters.the_family.experiments import now
from ewc.models import mlp
from ewc.tasks import held_out, permuted
from ewc.together import fit_together
from ewc.training import Descent, rows_of_batches
from ewc.workshop.records import LEARNING, depends_on
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector

START = -6.0  # the logarithm of every variance before the first task, as in the paper's code
VARIANCES = {"optimizer": "adam", "learning_rate": 1e-3, "momentum": 0.0}  # how the logarithms move, as there
DRAWS, SHOWN = 10, 500  # the answers that are averaged, for so many test images of each task


@dataclass(frozen=True)
class Gaussians:
    """M distributions over P weights, each weight Gaussian on its own: means and logarithms of the variances, (M, P)."""

    means: Tensor
    logs: Tensor

    def fixed(self) -> "Gaussians":
        """The same numbers, which stay when these are trained."""
        return Gaussians(self.means.detach().clone(), self.logs.detach().clone())

    def __getitem__(self, number: int) -> "Gaussians":
        """One of the M alone."""
        return Gaussians(self.means[number : number + 1], self.logs[number : number + 1])


class _Divergence(torch.autograd.Function):
    """Σ over weights of the divergence, with its gradient kept from the forward pass: autograd's own takes three times as long."""

    @staticmethod
    def forward(context, means, logs, prior_means, prior_logs):
        apart = logs - prior_logs
        excess = apart.expm1()  # Λ*/Λ − 1
        gap = means - prior_means
        pull = gap / prior_logs.exp()
        context.save_for_backward(pull, excess)
        return (excess - apart).addcmul_(pull, gap).sum(1) / 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        pull, excess = context.saved_tensors
        scale = gradient[:, None]
        return scale * pull, scale / 2 * excess, None, None


def divergence(q: Gaussians, prior: Gaussians) -> Tensor:
    """KL(q ‖ prior) of each of the M, (M,); the prior is not differentiated."""
    return _Divergence.apply(q.means, q.logs, prior.means, prior.logs)


def bound(logits: Tensor, targets: Tensor, q: Gaussians, prior: Gaussians, strength: Tensor, count: int) -> Tensor:
    """What is descended, (M,): the mean loss of logits that were drawn, (M, B, C), plus λ/N of the divergence.

    Args:
        strength: λ, (M,); the paper's is 1.
        count: N, how many images the task has.
    """
    losses = cross_entropy(logits.mT, targets, reduction="none").mean(1)
    return losses + strength / count * divergence(q, prior)


def drawn(q: Gaussians, shapes: list[tuple[int, int]], inputs: Tensor, noise: Tensor | None) -> Tensor:
    """The logits (M, B, C) of a multilayer perceptron for images (M, B, …), with a ReLU between its layers.

    Args:
        shapes: outputs and inputs of each layer, whose weights and then biases lie one after another in the P.
        noise: standard normal, (M, B, outputs of all layers together); None for the logits at the means.
    """
    sizes = [size for out, into in shapes for size in (out * into, out)]
    means = q.means.split(sizes, 1)
    variances = None if noise is None else q.logs.exp().split(sizes, 1)

    def layer(values, place, x):
        out, into = shapes[place]
        return torch.baddbmm(values[2 * place + 1].unflatten(1, (1, out)), x, values[2 * place].unflatten(1, (out, into)).mT)

    x, noises = inputs.flatten(2), None if noise is None else noise.split([out for out, _ in shapes], 2)
    for place in range(len(shapes)):
        x = x.relu() if place else x
        found = layer(means, place, x)
        x = found if noise is None else found + layer(variances, place, x.square()).sqrt() * noises[place]
    return x


def fit_gaussians(q: Gaussians, prior: Gaussians, tasks, *, shapes, strengths, seeds, steps, batch_size, learning_rate, momentum, schedule):
    """Descend each of the M bounds on the training images of its task; q's tensors are leaves and are changed.

    Runs of one seed see the same images and the same noise, so that a run ends as it would have ended alone.

    Args:
        strengths: λ, (M,).
        seeds: M of them, of the order of the images and of the noise.
        learning_rate, momentum, schedule: of the means. The logarithms of the variances move as VARIANCES says, on this schedule.
    """
    width = sum(out for out, _ in shapes)
    size = {"steps": steps, "batch_size": batch_size}
    moving = [
        Descent([q.means], "sgd", schedule, learning_rate, momentum, **size),
        Descent([q.logs], schedule=schedule, **VARIANCES, **size),
    ]
    known = dict(zip(seeds, tasks, strict=True))
    rows = {seed: rows_of_batches(task, batch_size, seed) for seed, task in known.items()}
    draws = {seed: torch.Generator().manual_seed(seed) for seed in known}
    count = len(tasks[0].train_targets)
    for _ in range(steps):
        seen = {seed: task.batch(next(rows[seed])) for seed, task in known.items()}
        noise = {seed: torch.randn(len(seen[seed][1]), width, generator=draws[seed]).to(seen[seed][0]) for seed in known}
        inputs, targets = (torch.stack([seen[seed][part] for seed in seeds]) for part in (0, 1))
        logits = drawn(q, shapes, inputs, torch.stack([noise[seed] for seed in seeds]))
        for leaf in (q.means, q.logs):
            leaf.grad = None
        bound(logits, targets, q, prior, strengths, count).sum().backward()
        for each in moving:
            each.step()


@torch.no_grad()
def accuracies(q: Gaussians, shapes, tasks, known: int) -> list[list[float]]:
    """For each of the M the share of test images that are read right at the means: of the first `known` tasks, NaN for the others."""
    found = [[nan] * len(sequence) for sequence in tasks]
    for place in range(min(known, len(tasks[0]))):
        images = {id(sequence): sequence[place].test_inputs for sequence in tasks}  # made once for all
        for number, sequence in enumerate(tasks):
            read = drawn(q[number], shapes, images[id(sequence)][None], None)[0].argmax(1)
            found[number][place] = float((read == sequence[place].test_targets).double().mean())
    return found


@torch.no_grad()
def averaged(q: Gaussians, shapes, task, seed: int) -> tuple[float, float]:
    """The shares of the first SHOWN test images read right by the mean of DRAWS drawn answers, and at the means."""
    images, targets = task.test_inputs[None, :SHOWN], task.test_targets[:SHOWN]
    generator = torch.Generator().manual_seed(seed)
    size = (DRAWS, 1, images.shape[1], sum(out for out, _ in shapes))
    noise = torch.randn(size, generator=generator).to(images)
    answers = sum(drawn(q, shapes, images, each).softmax(2)[0] for each in noise)
    return tuple(float((read.argmax(1) == targets).double().mean()) for read in (answers, drawn(q, shapes, images, None)[0]))


@depends_on(lambda configuration: LEARNING)
def permuted_gaussians(
    tasks,
    *,
    strength: float,
    count: int = 5,
    hidden: tuple[int, ...] = (100, 100),
    steps: int = 100,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    schedule: str = "linear",
    tuning: bool = False,
    seed: int = 0,
):
    """`rivals.permuted_rivals` for variational continual learning: the same tasks, first weights, order of images and steps.

    Before the first task each mean is the network's weight, the prior N(0, 1).

    Args:
        strength: λ, what the divergence is multiplied by.

    Keeps the accuracy matrix at the means, the accuracies before training, what is carried from task to task, in bytes, and the
    mean accuracies of `averaged` after the last task; the logarithms of the variances then.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _permuted(tasks, [run])[0]


def _permuted(tasks, runs):
    shared, device = runs[0], tasks[0].train_inputs.device
    base = held_out(tasks[0]) if shared["tuning"] else tasks[0]
    known = {run["seed"]: permuted(base, shared["count"], run["seed"]) for run in runs}
    sequences, seeds = [known[run["seed"]] for run in runs], [run["seed"] for run in runs]
    q, prior, shapes = beginning([mlp(shared["hidden"], seed=seed).to(device) for seed in seeds])
    strengths = torch.tensor([float(run["strength"]) for run in runs], device=device)
    options = {name: shared[name] for name in ("steps", "batch_size", "learning_rate", "momentum", "schedule")}
    asked = () if shared["tuning"] else known  # a search asks for the end alone
    untrained = {seed: accuracies(q[seeds.index(seed)], shapes, [known[seed]], shared["count"])[0] for seed in asked}
    rows = []
    for place in range(shared["count"]):
        now = [sequence[place] for sequence in sequences]
        fit_gaussians(q, prior, now, shapes=shapes, strengths=strengths, seeds=[seed * 1000 + place for seed in seeds], **options)
        prior = q.fixed()
        tested = not shared["tuning"] or place + 1 == shared["count"]
        rows.append(accuracies(q, shapes, sequences, place + 2 if tested else 0))
    results = []
    for number, (sequence, seed) in enumerate(zip(sequences, seeds, strict=True)):
        result = {
            "matrix": [row[number] for row in rows],
            "untrained": untrained.get(seed),
            "bytes": sum(values.numel() * values.element_size() for values in vars(prior[number]).values()),
        }
        if not shared["tuning"]:
            pairs = [averaged(prior[number], shapes, task, seed) for task in sequence]
            result["averaged"], result["at means"] = (sum(part) / len(pairs) for part in zip(*pairs, strict=True))
        results.append((result, {"logs": prior.logs[number].cpu()}))
    return results


permuted_gaussians.together, permuted_gaussians.own = _permuted, ("strength",)


def beginning(models) -> tuple[Gaussians, Gaussians, list[tuple[int, int]]]:
    """q around the weights of these networks, ready to be trained; the prior N(0, 1) of the first task; the shapes of the layers."""
    means = torch.stack([parameters_to_vector(model.parameters()).detach() for model in models])
    prior = Gaussians(torch.zeros_like(means), torch.zeros_like(means))
    q = Gaussians(means.requires_grad_(), torch.full_like(means, START, requires_grad=True))
    return q, prior, [tuple(values.shape) for values in models[0].parameters() if values.dim() == 2]


@depends_on(lambda configuration: (*LEARNING, "together", "chapters.the_family.experiments"))
def step_of_gaussians(
    tasks, *, hidden: tuple[int, ...] = (100, 100), steps: int = 40, repeats: int = 7, batch_size: int = 64, seed: int = 0
):
    """What a step of `fit_gaussians` costs.

    Args:
        steps: so many are timed at once, and right after them as many of plain descent; the median of `repeats` ratios counts.

    Keeps the time of a step over that of plain descent.
    """
    task, models = permuted(tasks[0], 2, seed)[1], [mlp(hidden, seed=seed).to(tasks[0].train_inputs.device) for _ in range(2)]
    q, prior, shapes = beginning(models[:1])
    lesson = {"steps": steps, "batch_size": batch_size, "learning_rate": 1e-3, "momentum": 0.9, "schedule": "linear"}

    def seconds(fit, *parts, **options):
        started = now()
        fit(*parts, [task], seeds=[seed], **lesson, **options)
        return now() - started

    strengths = torch.ones(1, device=q.means.device)
    ratios = [
        seconds(fit_gaussians, q, prior, shapes=shapes, strengths=strengths) / seconds(fit_together, models[1:]) for _ in range(repeats)
    ]
    return {"step": median(ratios)}, {}
