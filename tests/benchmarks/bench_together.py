"""Two sweeps of six λ and three seeds, trained side by side and one after another, and a step by width of the network."""

import copy
import sys
from dataclasses import replace

from ewc import EWC, fit, learn_in_sequence, learn_together, mlp, paired, permuted
from ewc.together import fit_together
from ewc.training import device
from timing import at_most, medians, verdict, where

# A fifth of the chapter's sweeps: of the steps, of the images that are tested on, and of those for the Fisher.
STRENGTHS, SEEDS, STEPS, TESTED, REMEMBERED = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0), (0, 1, 2), 60, 2000, 400
HIDDEN, LEARNING_RATE = (100, 100), 0.01  # so small a step that no λ makes it run away: what is NaN might be faster


def permutations(first):
    """Three permutations under each λ: one after another, and as one stack."""
    sequences = [permuted(first, 3, seed) for seed in SEEDS]
    runs = [(strength, seed) for strength in STRENGTHS for seed in SEEDS]
    options = {"steps": STEPS, "learning_rate": LEARNING_RATE}

    def made():
        models = [mlp(HIDDEN, seed=seed).to(device()) for _, seed in runs]
        return models, [
            EWC(model, strength, anchors="merged", max_examples=REMEMBERED)
            for (strength, _), model in zip(runs, models, strict=True)
        ]

    def one_after_another():
        for (_, seed), model, penalty in zip(runs, *made(), strict=True):
            learn_in_sequence(model, sequences[seed], penalty=penalty, seed=seed, **options)

    def together():
        models, penalties = made()
        learn_together(
            models,
            [sequences[seed] for _, seed in runs],
            penalties=penalties,
            seeds=[seed for _, seed in runs],
            **options,
        )

    return one_after_another, together


def second_lessons(first, second, hidden=HIDDEN, steps=2 * STEPS):
    """The second of two tasks under each λ, from one first lesson for each seed."""
    learned = []
    for seed in SEEDS:
        model = mlp(hidden, seed=seed).to(device())
        fit(model, first, steps=steps, seed=seed)
        guard = EWC(model, max_examples=REMEMBERED)
        guard.consolidate(first.train_inputs)
        learned.append((model, guard.state_dict()))
    runs = [(strength, seed) for strength in STRENGTHS for seed in SEEDS]
    options = {"steps": steps, "learning_rate": LEARNING_RATE}

    def made():
        models = [copy.deepcopy(learned[seed][0]) for _, seed in runs]
        penalties = [EWC(model, strength) for (strength, _), model in zip(runs, models, strict=True)]
        for (_, seed), penalty in zip(runs, penalties, strict=True):
            penalty.load_state_dict(learned[seed][1])
        return models, penalties

    def one_after_another():
        for (_, seed), model, penalty in zip(runs, *made(), strict=True):
            fit(model, second, penalty=penalty, seed=seed, **options)

    def together():
        models, penalties = made()
        fit_together(models, [second] * len(runs), penalties=penalties, seeds=[seed for _, seed in runs], **options)

    return one_after_another, together


def main():
    first, second = (
        replace(task, test_inputs=task.test_inputs[:TESTED], test_targets=task.test_targets[:TESTED]).to(device())
        for task in paired()
    )
    print(f"{len(STRENGTHS)} λ × {len(SEEDS)} seeds, {first.name} and {second.name}, {where()}")
    print(f"{'':44}{'one by one':>12}{'together':>12}{'ratio':>8}")
    total = [0.0, 0.0]
    for name, works in (
        (f"3 permutations, 2×100, {STEPS} steps each", permutations(first)),
        (f"second of two tasks, 2×100, {2 * STEPS} steps", second_lessons(first, second)),
    ):
        apart, beside = medians(*works)
        total = [total[0] + apart, total[1] + beside]
        print(f"{name:44}{apart:10.2f} s{beside:10.2f} s{apart / beside:8.2f}")
    print("milliseconds for a step of one network:")
    for width in (100, 256, 400):
        steps = 20
        apart, beside = (
            1e3 * seconds / steps / len(STRENGTHS) / len(SEEDS)
            for seconds in medians(*second_lessons(first, second, (width, width), steps))
        )
        print(f"{f'second of two tasks, 2×{width}':44}{apart:9.2f} ms{beside:9.2f} ms{apart / beside:8.2f}")
    return verdict(at_most("both sweeps together", total[1], 0.67, total[0], "one after another"))


if __name__ == "__main__":
    sys.exit(main())
