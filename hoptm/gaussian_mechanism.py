"""How much Gaussian noise buys which guarantee: the analytic mechanism of Balle and Wang (ICML 2018), exact at every epsilon.

A mechanism is (epsilon, delta)-differentially private when no event becomes more likely than exp(epsilon) times, plus delta,
by one change of the data. For a query of sensitivity D and noise of standard deviation s, theorem 8 gives the smallest delta:
Phi(D / 2s - epsilon s / D) - exp(epsilon) Phi(-D / 2s - epsilon s / D).
"""

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr

from hoptm.errors import ConfigError


def delta_of(sigma: float, sensitivity: float, epsilon: float) -> float:
    """The smallest delta at which noise N(0, sigma^2) on a query of this L2 sensitivity is (epsilon, delta)-DP; equation 6 of the paper.

    Raises ConfigError for sigma or sensitivity that are not positive, or a negative epsilon.
    """
    if not (sigma > 0 and sensitivity > 0 and epsilon >= 0):
        raise ConfigError(f"noise {sigma} and sensitivity {sensitivity} must be positive and epsilon {epsilon} not negative.")
    ratio = sensitivity / sigma
    first, second = float(log_ndtr(ratio / 2 - epsilon / ratio)), epsilon + float(log_ndtr(-ratio / 2 - epsilon / ratio))
    return max(0.0, -math.exp(first) * math.expm1(second - first))


def noise_for(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """The smallest standard deviation of the noise that gives (epsilon, delta)-DP, to eleven digits and never below.

    Raises ConfigError for epsilon or sensitivity that are not positive, or delta outside 0 .. 1.
    """
    if not (epsilon > 0 and 0 < delta < 1 and sensitivity > 0 and math.isfinite(epsilon) and math.isfinite(sensitivity)):
        raise ConfigError(f"epsilon {epsilon} and sensitivity {sensitivity} must be positive and finite, and delta {delta} between 0 and 1.")

    def surplus(log_sigma: float) -> float:
        return delta_of(math.exp(log_sigma), 1.0, epsilon) - delta

    low, high = 0.0, 0.0
    while surplus(low) < 0:
        low -= 1.0
    while surplus(high) > 0:
        high += 1.0
    root = brentq(surplus, low, high, xtol=1e-13) if low < high else low
    sigma = math.exp(root + 1e-12)
    while delta_of(sigma, 1.0, epsilon) > delta:  # rounding must not be paid by the guarantee
        sigma *= 1 + 1e-12
    return sigma * sensitivity
