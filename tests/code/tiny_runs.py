"""Every experiment of the book in a form that takes a moment, and tasks of the size of its images for them."""

import importlib
from dataclasses import replace
from pathlib import Path

import ewc
from small_tasks import blobs

PACKAGE = Path(ewc.__file__).parent
MODULES = [".".join(("ewc", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in sorted(PACKAGE.rglob("*.py"))]
# The modules that hold experiments.
ENDINGS = ("workshop.sequences", "workshop.paper_cifar", ".experiments", ".two_lessons", ".without_images", ".rivals", ".variational")
HOLDERS = [name for name in MODULES if name.endswith(ENDINGS)]

LETTERS = {"examples": 8, "width": 8, "steps": 2, "second_steps": 2, "batch": 8, "count": 4, "letters": 2}
# Each experiment in a form that takes a moment, in each of its variants.
TINY = {
    "first_lesson": [{"steps": 3, "hidden": (4,)}],
    "two_tasks": [
        {"method": method, "strength": strength, "steps": 3, "hidden": (4,)}
        for method, strength in (("plain", None), ("l2", 1.0), ("ewc", 1.0))
    ],
    "first_steps": [
        {"method": method, "strength": strength, "proximal": proximal, "memory": 5, "steps": 3, "until": 2, "hidden": (4,)}
        for method, strength, proximal in (("plain", None, False), ("ewc", 1.0, False), ("ewc", 1.0, True), ("replay", 1.0, False))
    ],
    "second_lessons": [{"ways": (("slower", 0.1), ("freeze", 1), ("replay", 5)), "steps": 3, "hidden": (4,)}],
    "fisher_of_labels": [{"examples": 40, "passes": 2, "hidden": (4,)}],
    "permuted_tasks": [
        {"method": method, "strength": strength, "count": 2, "hidden": (4,), "steps": 3, "memory": 5, "looks": 1}
        for strength, methods in ((None, "plain joint"), (1.0, "ewc si lwf l2 mas kronecker replay"))
        for method in methods.split()
    ]
    + [{"method": "lwf", "growing": True, "strength": 1.0, "count": 3, "hidden": (4,), "steps": 3}]
    + [
        {"method": method, "strength": 1.0, "way": "proximal", "factors": "added", "count": 2, "hidden": (4,), "steps": 3}
        for method in ("ewc", "kronecker")
    ],
    "split_tasks": [
        {"scenario": scenario, "method": method, "strength": 1.0, "hidden": (4,), "steps": 3, "memory": 5}
        for scenario, method in (("task", "joint"), ("domain", "ewc"), ("class", "replay"))
    ]
    + [
        {"scenario": "class", "method": "l2", "strength": 1.0, "hidden": (4,), "steps": 3, "padding": 1}
        | {"normalized": True, "seen": True, "shuffled": True},
        {"scenario": "class", "method": "lwf", "strength": 1.0, "hidden": (4,), "steps": 3, "growing": True, "seen": True, "rivals": True},
    ],
    "overlap_by_layer": [{"square": 8, "strength": 1.0, "hidden": (4, 4), "steps": 3}],
    "second_task": [
        {"strength": 1.0, "way": way, "steps": 3, "hidden": (4,)} for way in ("explicit", "capped", "proximal", "joint")
    ],
    "permutations": [
        {"strength": 1.0, "way": way, "count": 2, "steps": 3, "hidden": (4,)} for way in ("explicit", "proximal", "joint")
    ],
    "two_lessons": [
        {"method": method, "strength": 1.0, "tuning": tuning, "steps": 3, "hidden": (4,)} for method, tuning in (("ewc", False), ("l2", True))
    ],
    "permuted_rivals": [
        {"method": method, "strength": 1.0, "replay_strength": 1.0, "memory": 5, "count": 2, "hidden": (4,), "steps": 3, "batch_size": 10}
        for method in ("dark replay", "ewc and replay", "orthogonal")
    ],
    "permuted_gaussians": [
        {"strength": 1.0, "count": 2, "hidden": (4,), "steps": 3, "batch_size": 10, "tuning": tuning} for tuning in (False, True)
    ],
    "step_of_gaussians": [{"hidden": (4,), "steps": 2, "repeats": 1}],
    "all_at_once": [{"scenario": scenario, "hidden": (4,), "steps": 1, "batch_size": 10} for scenario in (None, "domain", "task")],
    "importances": [{"steps": 3, "hidden": (4,)}],
    "costs": [
        {
            "methods": tuple(
                (name, {"method": name, "memory": 5})
                for name in ("ewc", "si", "mas", "l2", "kronecker", "lwf", "replay", "dark replay", "orthogonal")
            ),
            **{"count": 2, "hidden": (4,), "steps": 2, "repeats": 1},
        }
    ],
    "slips_sweep": [
        {"examples": 10, "held": 5, "passes": (1, 2), "stiffness": (1.0, 10.0), "hidden": (4,), "steps": 2, "seeds": 2}
    ],
    "anchor_that_follows": [
        {"strengths": (1.0,), "rounds": 2, "look": (1, 2), "round_steps": 2, "hidden": (4,), "first_steps": 3, "old_images": 5, "seeds": 2}
    ],
    "springs_overwritten": [{"count": 3, "hidden": (4,), "steps": 2, "seeds": 2}],
    "last_lesson": [
        {"method": method, "strength": 1.0, "masked": masked, "hidden": (4,), "steps": 3, "examples": (1,), "tuning": masked}
        | {"fisher_examples": 10}
        for method, masked in (("plain", True), ("ewc", False))
    ],
    "class_means": [
        {"features": features, "strength": 1.0, "hidden": (4,), "steps": 3, "batch_size": 8, "fisher_examples": 20}
        for features in ("pixels", "drawn", "first lesson", "elastic")
    ],
    "clothes_in_turn": [
        {"scenario": scenario, "method": method, "strength": 1.0, "memory": 5, "channels": (2, 2), "hidden": 4, "steps": 2, "batch_size": 8}
        | {"learning_rate": 1e-3, "fisher_examples": 20}
        for scenario, method in (("task", "joint"), ("class", "ewc"), ("domain", "replay"), ("class", "l2"), ("task", "plain"))
    ],
    "photographs": [
        {"method": method, "strength": 1.0, "labels": labels, "fisher_examples": 2, "groups": 2, "width": 1, "steps": 2, "batch_size": 8}
        for method, labels in (("plain", "exact"), ("joint", "exact"), ("ewc", "sampled"), ("ewc", "batched"))
    ],
    "learn_english": [{"texts": "", **LETTERS}],
    "learn_python": [
        {"texts": "", "method": method, "strength": strength, **LETTERS}
        for method, strength in (("plain", None), ("l2", 1.0), ("ewc", 1.0), ("lora", None), ("replay", None))
    ],
    "exact_and_sampled": [
        {"texts": "", "strength": 1.0, "width": 4, "length": 2, "steps": 2, "second_steps": 2, "examples": 1, "count": 4},
    ],
    "weight_noise": [{"sizes": (1.0, 2.0), "draws": 1, "priors": (1.0,), "hidden": (4,), "steps": 3, "images": 20, "batch_size": 8}],
}
MARKED = {
    name: value
    for module in HOLDERS
    for name, value in vars(importlib.import_module(module)).items()
    if hasattr(value, "begins_with") and value.__module__ == module
}


def images(name, seed):
    """A task of the size of the book's images, and small otherwise."""
    task = blobs(name, n=60, features=784, classes=10, seed=seed)
    return replace(task, **{k: getattr(task, k).view(-1, 1, 28, 28) for k in ("train_inputs", "test_inputs")})
