"""How well a device's own samples determine each atom.

    information_j = 1 / [(A'A + kappa I)^-1]_jj - kappa,   kappa = 0.1
    precision_j   = p_j / (1 + p_j),   p_j = information_j * tau^2 / sigma^2

information_j counts clean looks at atom j: 1 for each probe of it alone, less where other atoms are switched on with
it, 0 where it never is. It is the inverse squared standard error of x_j in units of the noise (the Schur complement of
the Gram matrix) when the other atoms are only known to within 1 / sqrt(kappa), about 3, noise scales; kappa keeps it
finite with fewer probes than atoms. A further probe never lowers it, since it only adds to A'A.

tau is the noise to expect, 10 % of the mean measurement, so that the unit of measurement cancels. sigma^2 = tau^2 +
(1.4826 median |residual|)^2 adds what the additive model leaves unexplained at its best, x >= 0 without any penalty: a
prior that is far off must not make a device that measured well look uncertain. With fewer probes than atoms the
residuals can be near 0, and tau then decides. So 0 <= precision < 1: one clean look gives up to 1/2, nine up to 0.9.
"""

import numpy as np
from numpy.typing import NDArray

from personalization.recovery.quadratic import minimize

Array = NDArray[np.float64]

_KAPPA = 0.1
_EXPECTED_NOISE = 0.1
_MAD_TO_DEVIATION = 1.4826


def design_information(design: Array) -> Array:
    """Return how many clean looks `design` [probes, atoms] has at each atom, [atoms], >= 0 (formula above)."""
    gram = design.T @ design
    inverse = np.linalg.inv(gram + _KAPPA * np.eye(len(gram)))
    information = np.maximum(1.0 / np.diag(inverse) - _KAPPA, 0.0)
    return np.where(np.diag(gram) > 0.0, information, 0.0)


def sample_precision(design: Array, measurements: Array) -> Array:
    """Return the precision [atoms] in [0, 1) (formula above).

    design [probes, atoms], measurements [probes] in nats, at least one probe.
    """
    zeros = np.zeros(design.shape[1])
    best = minimize(design.T @ design, design.T @ measurements, zeros, zeros, zeros)
    expected = _EXPECTED_NOISE * float(np.mean(np.abs(measurements)))
    unexplained = _MAD_TO_DEVIATION * float(np.median(np.abs(measurements - design @ best)))
    # Measurements that are all 0 have no scale, but neither do they contradict each other.
    share = 1.0 if unexplained == 0.0 else expected**2 / (expected**2 + unexplained**2)
    scaled = share * design_information(design)
    return scaled / (1.0 + scaled)
