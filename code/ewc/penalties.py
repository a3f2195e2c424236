"""What the posterior after one task becomes in the loss of the next: a quadratic pull towards the old weights.

After task A the posterior is approximately Gaussian, with its mode at the weights θ* and the Fisher information as its
precision. Its negative logarithm, up to a constant, is the penalty that the next task's loss carries:

    penalty(θ) = λ/2 Σᵢ Fᵢ (θᵢ − θ*ᵢ)²              gradient: λ Fᵢ (θᵢ − θ*ᵢ)

Every penalty has the same three calls: `consolidate` when a task has been learned, `penalty` in each step of the next (or
`add_gradient`, which is faster), and `state_dict` / `load_state_dict` to keep it. Add it to a loss that is a mean over examples:

    ewc = EWC(model, strength=100)
    for inputs, targets in tasks:
        ...  loss = cross_entropy(model(x), y) + ewc.penalty()  ...
        ewc.consolidate(inputs)

This file needs torch and the fisher.py beside it. MIT licence; from the book Weights that Remember.
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

try:
    from ewc.fisher import LABELS, diagonal_fisher
except ImportError:  # copied out of the package
    from fisher import LABELS, diagonal_fisher


class EWC:
    """Elastic weight consolidation: λ/2 Σ_tasks Σᵢ Fᵢ (θᵢ − θ*ᵢ)², with F the diagonal Fisher information of each task.

    Args:
        model: the network; its parameters that require grad are protected.
        strength: λ ≥ 0. With losses that are means over examples, Bayes' rule gives N_old / N_new.
        anchors: ``"separate"`` keeps θ* and F of every task (Kirkpatrick et al. 2017); ``"merged"`` keeps the latest θ* and
            the sum of all F (Huszár 2018), so that memory and time do not grow with the number of tasks.
        decay: γ in (0, 1]. At each consolidation the Fishers of earlier tasks are multiplied by it (online EWC, Schwarz et al. 2018).
        labels: of `fisher.diagonal_fisher`.
        max_examples: how many examples the Fisher is taken over, spread evenly over those given; None for all.

    Raises:
        ValueError: an argument is not what it may be.

    Sources: Kirkpatrick et al., PNAS 114(13) 3521; Huszár, PNAS 115(11) E2496; Schwarz et al., ICML 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float = 1.0,
        *,
        anchors: str = "separate",
        decay: float = 1.0,
        labels: str = "exact",
        max_examples: int | None = None,
    ):
        if anchors not in ("separate", "merged"):
            raise ValueError(f"anchors is {anchors!r}; it may be 'separate' or 'merged'")
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay!r}; it must be above 0 and at most 1")
        if labels not in LABELS:
            raise ValueError(f"labels is {labels!r}; it may be one of {', '.join(map(repr, LABELS))}")
        self.model, self.strength = model, _checked_strength(strength)
        self.anchors, self.decay, self.labels = anchors, decay, labels
        self.max_examples = _checked_most(max_examples)
        self._terms: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # (θ*, F), one a task, or one in all

    def consolidate(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """Take the present weights as θ* and their Fisher information on `inputs`. Call it when the task has been learned.

        Raises:
            ValueError: as `fisher.diagonal_fisher`; nothing has changed then.
        """
        inputs, targets = _spread(self.max_examples, inputs, targets)
        fisher = diagonal_fisher(self.model, inputs, targets, labels=self.labels)
        faded = [(anchor, {name: self.decay * value for name, value in old.items()}) for anchor, old in self._terms]
        anchor = _weights(self.model)
        if self.anchors == "merged":
            for held, old in faded:  # what is frozen now keeps the anchor and importance that it had
                fisher = old | {name: value + old.get(name, 0) for name, value in fisher.items()}
                anchor = held | anchor
            faded = []
        self._terms = [*faded, (anchor, fisher)]

    def penalty(self) -> Tensor:
        """λ/2 Σ_tasks Σᵢ Fᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 before the first task."""
        return _quadratic(self.model, self.strength, self._terms)

    def add_gradient(self) -> None:
        """Add λ Σ_tasks Fᵢ (θᵢ − θ*ᵢ) to the parameters' ``.grad``: all that descent needs of the penalty, without its value.

        In the place of ``penalty()``, after ``loss.backward()``, as an optimiser adds weight decay. It costs less than half.
        """
        _add_gradient(self.model, self.strength, self._terms)

    def largest_curvature(self) -> float:
        """λ maxᵢ Σ_tasks Fᵢ, the steepest second derivative of the penalty: explicit steps of more than 2 over it diverge."""
        return _largest_curvature(self.strength, self._terms)

    def parabola(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The whole penalty as one parabola a parameter, however many tasks: where its minimum is, and its curvature.

            curvature = λ Σ_tasks Fᵢ        minimum = Σ_tasks Fᵢ θ*ᵢ / Σ_tasks Fᵢ        gradient = curvature · (θᵢ − minimum)

        Returns:
            (minimum, curvature), each one tensor a parameter; empty before the first task. Where the curvature is 0, the
            minimum is the latest anchor.
        """
        return _parabola(self.strength, self._terms)

    def state_dict(self) -> dict[str, Tensor]:
        """θ* and F of every term, as a flat dictionary of tensors that safetensors and torch.save both take."""
        return _state(self._terms)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: the state belongs to another model, or has several anchors where this penalty merges them.
        """
        terms = _terms_from(state, self.model)
        if self.anchors == "merged" and len(terms) > 1:
            raise ValueError(
                f"state has {len(terms)} anchors; anchors='merged' keeps one: load it into anchors='separate'"
            )
        self._terms = terms


class L2:
    """The control for EWC: every weight is held equally, λ/2 Σᵢ (θᵢ − θ*ᵢ)², at the weights after the latest task."""

    def __init__(self, model: nn.Module, strength: float = 1.0):
        self.model, self.strength = model, _checked_strength(strength)
        self._terms: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def consolidate(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> None:
        """Take the present weights as θ*; the data are not looked at."""
        anchor = _weights(self.model)
        self._terms = [(anchor, {name: torch.ones_like(value) for name, value in anchor.items()})]

    def penalty(self) -> Tensor:
        """λ/2 Σᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 before the first task."""
        return _quadratic(self.model, self.strength, self._terms)

    def add_gradient(self) -> None:
        """Add λ (θᵢ − θ*ᵢ) to the parameters' ``.grad``, as `EWC.add_gradient`."""
        _add_gradient(self.model, self.strength, self._terms)

    def largest_curvature(self) -> float:
        """λ once a task has been learned, 0 before."""
        return _largest_curvature(self.strength, self._terms)

    def parabola(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(θ*, λ) for every parameter, as `EWC.parabola`."""
        return _parabola(self.strength, self._terms)

    def state_dict(self) -> dict[str, Tensor]:
        """As `EWC.state_dict`."""
        return _state(self._terms)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As `EWC.load_state_dict`."""
        self._terms = _terms_from(state, self.model)


class _Quadratic(torch.autograd.Function):
    """λ/2 Σᵢ Fᵢ dᵢ², d = θ − θ*, with its gradient λ F d kept from the forward pass: half the time of autograd's own."""

    @staticmethod
    def forward(context, strength, anchors, importances, *parameters):
        pulls, total = [], 0
        for parameter, anchor, importance in zip(parameters, anchors, importances, strict=True):
            distance = parameter - anchor
            pull = importance * distance
            total = total + torch.dot(pull.flatten(), distance.flatten().to(pull.dtype))
            pulls.append(pull)
        context.strength, context.pulls = strength, pulls
        return strength / 2 * total

    @staticmethod
    @once_differentiable
    def backward(context, gradient):
        scale = context.strength * gradient
        return None, None, None, *(scale * pull for pull in context.pulls)


def _quadratic(model, strength, terms, parameters=None):
    parameters = parameters or dict(model.named_parameters())
    if not terms:
        return torch.zeros((), device=next(iter(parameters.values())).device)
    # Only what the anchor knows is pulled: a head that was added, or a layer unfrozen, after the task is free.
    return sum(
        _Quadratic.apply(
            strength, list(anchor.values()), [fisher[name] for name in anchor], *(parameters[name] for name in anchor)
        )
        for anchor, fisher in terms
    )


@torch.no_grad()
def _add_gradient(model, strength, terms):
    parameters = _trainable(model)
    for anchor, fisher in terms:
        for name in anchor.keys() & parameters.keys():
            parameter = parameters[name]
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.addcmul_(fisher[name], parameter - anchor[name], value=strength)


def _spread(most, inputs, targets):
    """At most so many of the examples, evenly over those given; all where it is None."""
    if most is None or most >= len(inputs):
        return inputs, targets
    spread = torch.linspace(0, len(inputs) - 1, most, device=inputs.device).round().long()
    return inputs[spread], None if targets is None else targets[spread]


def _trainable(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _weights(model):
    return {name: parameter.detach().clone() for name, parameter in _trainable(model).items()}


def _largest_curvature(strength, terms):
    if not terms:
        return 0.0
    sums = {
        name: sum(importance[name] for _, importance in terms if name in importance)
        for _, fisher in terms
        for name in fisher
    }
    return strength * max(float(value.max()) for value in sums.values())


def _parabola(strength, terms):
    minimum, curvature = {}, {}
    for (
        anchor,
        importance,
    ) in terms:  # each term moves the minimum towards its own anchor, by its share of the curvature
        for name, value in importance.items():
            curvature[name] = curvature.get(name, 0) + value
            share = torch.where(curvature[name] > 0, value / curvature[name], 1)
            before = minimum.get(name, anchor[name])
            minimum[name] = torch.where(share == 1, anchor[name], before + share * (anchor[name] - before))
    return minimum, {name: strength * value for name, value in curvature.items()}


def _checked_strength(strength):
    if not (isinstance(strength, (int, float)) and math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength is {strength!r}; it must be a finite number of at least 0")
    return float(strength)


def _checked_most(max_examples):
    if max_examples is not None and max_examples < 1:
        raise ValueError(f"max_examples is {max_examples!r}; it must be at least 1, or None for all")
    return max_examples


def _state(terms):
    return {
        f"{task}/{kind}/{name}": value
        for task, (anchor, importance) in enumerate(terms)
        for kind, values in (("anchor", anchor), ("importance", importance))
        for name, value in values.items()
    }


def _fitting(key, value, name, parameter):
    """A value of a state as a copy beside the parameter that it speaks of; an error where it does not fit, or there is none."""
    if parameter is None:
        raise ValueError(f"state is for another model: it has {key!r}, and this model no such parameter")
    if value.shape != parameter.shape:
        shapes = f"{tuple(value.shape)} in the state and {tuple(parameter.shape)} in the model"
        raise ValueError(f"state is for another model: {name!r} is {shapes}")
    if not value.isfinite().all():
        raise ValueError(f"state holds a value that is not finite, in {key!r}")
    return value.detach().to(parameter.device, copy=True)


def _terms_from(state, model):
    parameters = dict(model.named_parameters())
    terms: dict[int, dict[str, dict[str, Tensor]]] = {}
    for key, value in state.items():
        task, kind, name = [*key.split("/", 2), "", ""][:3]
        known = task.isdigit() and kind in ("anchor", "importance")
        value = _fitting(key, value, name, parameters.get(name) if known else None)
        terms.setdefault(int(task), {"anchor": {}, "importance": {}})[kind][name] = value
    for task, term in terms.items():
        missing = term["anchor"].keys() ^ term["importance"].keys()
        if missing:
            raise ValueError(
                f"state is incomplete: task {task} lacks the anchor or the importance of {sorted(missing)[0]!r}"
            )
    return [(terms[task]["anchor"], terms[task]["importance"]) for task in sorted(terms)]
