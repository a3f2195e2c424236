# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The labels that one pass over the examples takes: under which likelihood, which of its targets, and where the draws come from.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py, likelihoods.py and scores.py. From the book
Weights that Remember.
"""

import warnings

import torch

if __package__:
    from .checks import checked_count
    from .likelihoods import likelihood_of
    from .scores import checked_kind
else:  # copied into a folder, without a package
    from checks import checked_count
    from likelihoods import likelihood_of
    from scores import checked_kind

# Where nothing is said of the labels, and exact ones take more backward passes a batch than this, they are sampled.
MOST_PASSES = 1000


class LabelScores:
    """The labels of a whole pass: which likelihood, which of its targets, and where the draws come from."""

    def __init__(self, likelihood, labels, samples=1, generator=None):
        self.likelihood, self.labels = likelihood_of(likelihood), checked_kind(labels)
        if labels == "exact" and not self.likelihood.exact:
            raise ValueError("labels is 'exact'; a likelihood that is an object has no closed form here: labels='sampled'")
        self.draws = Draws(checked_count("samples", samples), generator)

    def scores(self, outputs, shape, targets):
        """Yield weighted scores of the outputs, (examples, numbers), of which an example has this shape."""
        outputs = outputs.unflatten(1, shape) if len(shape) else outputs[:, 0]
        self.likelihood.check(outputs)
        outputs = outputs.detach()
        if self.labels is None:
            self.labels = self._affordable(outputs)
        if self.labels == "empirical" and targets is None:
            raise ValueError("targets is None; labels='empirical' needs the class index, or the target, of each example")
        for score in self.likelihood.scores(outputs, self.labels, targets, self.draws):
            yield (score.flatten(1) if score.ndim > 1 else score[:, None]).to(outputs.dtype)

    def end(self):
        """To be called after the last batch, out of `evaluating.evaluated`: an error where all outputs were probabilities already."""
        self.draws.settle()
        self.likelihood.end()

    def _affordable(self, outputs):
        if not self.likelihood.exact:
            return "sampled"
        passes = self.likelihood.passes(outputs)
        if passes > MOST_PASSES:
            warnings.warn(
                f"labels is None, and exact ones take {passes:,} backward passes a batch: they are sampled, {self.draws.samples} an example. Say "
                "labels='sampled' or labels='exact'",
                stacklevel=5,
            )
        return "exact" if passes <= MOST_PASSES else "sampled"


class Draws:
    """Uniform draws, example after example, so that they do not depend on the size of a batch.

    Without a generator they are those that torch's own source would give; `settle` moves it on, if any were drawn.
    """

    def __init__(self, samples, generator):
        self.samples, self.generator, self._before = samples, generator, None
        if generator is None:
            self.generator, self._before = torch.Generator(), torch.get_rng_state()
            self.generator.set_state(self._before)
        elif generator.device.type != "cpu":  # there the draws of two batches are not those of one
            self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))

    def __call__(self, shape, device):
        """(N, samples, …) for outputs or places of shape (N, …)."""
        return torch.rand(shape[0], self.samples, *shape[1:], generator=self.generator).to(device)

    def settle(self):
        """To be called when torch's own source is no longer held."""
        if self._before is not None and not torch.equal(self.generator.get_state(), self._before):
            torch.set_rng_state(self.generator.get_state())
