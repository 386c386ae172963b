"""Non-negative orthogonal matching pursuit."""

from collections.abc import Sequence

import numpy as np

from personalization.recovery.base import Array, Solver
from personalization.recovery.quadratic import TOLERANCE, minimize


class MatchingPursuit(Solver):
    """Take the atom that explains most of the residual, refit all taken atoms with x >= 0, repeat.

    (Bruckstein, Elad and Zibulevsky, 2008.) The strength plays the lasso's part: the pursuit stops as soon as no atom's
    correlation with the residual, for atoms of norm 1, exceeds that share of the largest correlation with the
    measurements. At strength 1 no atom is taken.
    """

    name = "omp"
    strengths = tuple(10.0 ** (-k / 6) for k in range(13))
    default_strength = 10.0 ** (-12 / 6)

    def path(self, design: Array, measurements: Array, strengths: Sequence[float]) -> Array:
        """See `Solver.path`; one pursuit serves all strengths."""
        steps, correlations = self.pursue(design, measurements)
        # The first step whose largest correlation is within the limit; the pursuit ends with one of 0.
        return steps[[int(np.argmax(correlations <= strength * correlations[0])) for strength in strengths]]

    def pursue(self, design: Array, measurements: Array) -> tuple[Array, Array]:
        """Return the sensitivities [steps, atoms] (nats) after 0, 1, ... atoms, and the largest correlation left.

        The correlations are [steps]. Ends when no atom is left with a positive correlation; the last one is then 0.
        """
        norms = np.linalg.norm(design, axis=0)
        norms[norms == 0.0] = 1.0  # an atom that is never on correlates with nothing and is never taken
        unit = design / norms
        hessian, linear = unit.T @ unit, unit.T @ measurements
        x, taken = np.zeros(norms.size), np.zeros(norms.size, dtype=bool)
        steps, largest = [x], [max(float(np.max(linear)), 0.0)]
        while largest[-1] > TOLERANCE * largest[0]:
            taken[np.argmax(np.where(taken, -np.inf, linear - hessian @ x))] = True
            chosen = np.flatnonzero(taken)
            zeros = np.zeros(chosen.size)
            x = x.copy()
            x[chosen] = minimize(hessian[np.ix_(chosen, chosen)], linear[chosen], zeros, zeros, x[chosen])
            steps.append(x)
            left = np.where(taken, 0.0, linear - hessian @ x)
            largest.append(max(float(np.max(left)), 0.0))
        largest[-1] = 0.0
        return np.stack(steps) / norms, np.array(largest)
