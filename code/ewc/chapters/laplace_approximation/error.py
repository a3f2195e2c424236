# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""How far a posterior of one weight is from its Laplace approximation, to the first order: what the cube in Taylor's series costs.

This file needs nothing else. From the book Weights that Remember.
"""


def divergence_of_the_cube(third: float, precision: float) -> float:
    """5/24 · g‴²/Λ³, half the variance of the cube that the parabola leaves out; what KL(p‖q) comes to when data are many.

    Args:
        third: g‴, the third derivative of the log posterior at its top.
        precision: Λ, minus its second derivative there.
    """
    return 5 / 24 * third**2 / precision**3
