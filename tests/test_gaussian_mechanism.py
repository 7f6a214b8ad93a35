"""The analytic Gaussian mechanism against delta by numerical integration, and against the classical bound."""

import math

import pytest
from scipy import integrate, stats

from hoptm.errors import ConfigError
from hoptm.gaussian_mechanism import delta_of, noise_for


def integrated(sigma: float, epsilon: float) -> float:
    """delta = integral of max(0, p - e^epsilon q) for p = N(1, sigma^2) and q = N(0, sigma^2), by quadrature from where p passes e^epsilon q."""
    start = epsilon * sigma**2 + 0.5
    found, _ = integrate.quad(
        lambda at: stats.norm.pdf(at, 1, sigma) - math.exp(epsilon) * stats.norm.pdf(at, 0, sigma), start, start + 40 * sigma, epsabs=1e-15, limit=400
    )
    return float(found)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0, 10.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_delta_is_that_of_quadrature(epsilon: float, delta: float) -> None:
    sigma = noise_for(epsilon, delta)
    assert delta_of(sigma, 1.0, epsilon) == pytest.approx(integrated(sigma, epsilon), rel=1e-5)
    assert delta_of(sigma, 1.0, epsilon) == pytest.approx(delta, rel=1e-8)
    assert delta_of(sigma, 1.0, epsilon) <= delta < delta_of(sigma * (1 - 1e-6), 1.0, epsilon)


def test_it_is_below_the_classical_bound_and_scales() -> None:
    classical = math.sqrt(2 * math.log(1.25 / 1e-5)) / 0.5  # valid for epsilon below 1
    assert 0.5 * classical < noise_for(0.5, 1e-5) < classical
    assert noise_for(2.0, 1e-5, 0.03) == pytest.approx(0.03 * noise_for(2.0, 1e-5))
    assert noise_for(1.0, 1e-5) == pytest.approx(3.7306, abs=2e-4)
    assert delta_of(2.0, 1.0, 0.0) == pytest.approx(stats.norm.cdf(0.25) - stats.norm.cdf(-0.25))


def test_more_is_asked_for_less() -> None:
    values = [noise_for(epsilon, 1e-5) for epsilon in (0.01, 0.1, 1.0, 10.0, 100.0)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("wrong", [(0.0, 1e-5, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1e-5, 0.0), (math.inf, 1e-5, 1.0), (math.nan, 1e-5, 1.0)])
def test_odd_wishes_are_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        noise_for(*wrong)
    with pytest.raises(ConfigError):
        delta_of(0.0, 1.0, 1.0)
