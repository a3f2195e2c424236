# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""One look at a model with all that may be said of it: its examples, how it is asked, what its outputs mean, and which labels are taken.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py, labels.py, likelihoods.py, scores.py,
readings.py, ways.py, mixing.py, calls.py, gradients.py, places.py, batches.py, processes.py and evaluating.py. From the book
Weights that Remember.
"""

from contextlib import contextmanager

if __package__:
    from .batches import Asked, Batches
    from .checks import by_name, checked_count, unwrapped
    from .evaluating import evaluated
    from .labels import LabelScores
    from .likelihoods import kept
    from .processes import summed
    from .readings import readings
    from .scores import check_model, names_of_trainable
else:  # copied into a folder, without a package
    from batches import Asked, Batches
    from checks import by_name, checked_count, unwrapped
    from evaluating import evaluated
    from labels import LabelScores
    from likelihoods import kept
    from processes import summed
    from readings import readings
    from scores import check_model, names_of_trainable


def checked_options(**options):
    """What a guard is told of how to look at its model; an error where it cannot be."""
    LabelScores(options["likelihood"], options["labels"], options["samples"], options["generator"])
    if options["batch_size"] is not None:
        checked_count("batch_size", options["batch_size"])
    checked_forward(options["forward"])
    return options


def kept_options(likelihood, labels, samples, forward, **_):
    """What a state keeps of these: what decides what is estimated, and of what the batches' size or a generator change nothing."""
    found = {"likelihood": kept(likelihood), "labels": labels or "exact or sampled", "forward": kept_forward(forward)}
    return found | ({"samples": samples} if labels == "sampled" else {})


def kept_forward(forward):
    """A function of a model and a batch as a state keeps it: by its name."""
    return None if forward is None else by_name(forward)


def checked_forward(forward):
    """The function; an error where it is none, and not None."""
    if forward is not None and not callable(forward):
        raise TypeError(f"forward is {type(forward).__name__}; it must be a function of a model and a batch")
    return forward


class Look:
    """What a curvature is taken of. The arguments are those of `fisher.diagonal_fisher`; `most` is how many examples are taken."""

    def __init__(
        self,
        model,
        inputs,
        targets=None,
        *,
        likelihood="categorical",
        labels=None,
        samples=1,
        batch_size=None,
        forward=None,
        generator=None,
        progress=False,
        most=None,
    ):
        self.scores = LabelScores(likelihood, labels, samples, generator)
        self.model = unwrapped(model)
        device = check_model(self.model)
        self.data = Batches(inputs, targets, device=device, batch_size=batch_size, most=most, progress=progress)
        self.names, self.asked = names_of_trainable(self.model), Asked(self.model, checked_forward(forward))

    def begun_unlabelled(self):
        """The model as it is looked at, where nothing is asked of its labels; afterwards as it was."""
        return evaluated(self.model)

    @contextmanager
    def begun(self):
        """The model as it is looked at, and afterwards as it was; an error at the end if its outputs were probabilities all along."""
        with evaluated(self.model):
            yield
        self.scores.end()

    def readings(self, ways=None):
        """Yield, a few examples at a time, a reading and the weighted scores of its outputs."""
        for _, reading, scores in readings(self.asked, self.names, self.data, ways, self._scores):
            yield reading, scores

    def _scores(self, logits, targets):
        return self.scores.scores(logits, self.asked.shape, targets)

    def plain_readings(self, ways=None):
        """Yield, a few examples at a time, their targets and a reading."""
        for targets, reading, _ in readings(self.asked, self.names, self.data, ways):
            yield targets, reading

    def means(self, totals):
        """Totals by name over the examples, as means over those of all processes."""
        return summed(totals, self.data.count)
