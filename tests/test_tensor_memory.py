"""Bytes that are counted against bytes that are known, through graphs, views and work in place."""

import torch
import torch.nn.functional as F

from hoptm import adjoint, augment, path_losses, unroll
from hoptm.config import NetworkConfig, generator
from hoptm.inner import Plan
from hoptm.networks import network
from hoptm.tensor_memory import peak_bytes


def test_what_is_held_at_once_counts_and_what_is_gone_does_not():
    assert peak_bytes(lambda: [torch.zeros(1000) for _ in range(3)]) == 12_000
    assert peak_bytes(lambda: [torch.zeros(1000).sum() for _ in range(3)]) == 4_000 + 3 * 4
    assert peak_bytes(lambda: None) == 0


def test_views_and_work_in_place_take_nothing():
    given = torch.zeros(50, dtype=torch.float64)
    assert peak_bytes(lambda: given.view(5, 10).T.add_(1)) == 0
    assert peak_bytes(lambda: torch.zeros(50).view(5, 10).T.add_(1)) == 200


def test_a_graph_holds_what_it_saves():
    """A chain of exponentials saves each result; without a graph two are alive at once."""

    def chain(count: int) -> torch.Tensor:
        value = leaf
        for _ in range(count):
            value = value.exp()
        return value

    leaf = torch.zeros(1000, requires_grad=True)
    assert peak_bytes(lambda: chain(5)) == 5 * 4_000
    with torch.no_grad():
        assert peak_bytes(lambda: chain(5)) == 2 * 4_000


def test_backward_frees_what_it_has_read():
    weight = torch.ones(100, 100, requires_grad=True)
    shown = torch.ones(10, 100)
    once = peak_bytes(lambda: torch.autograd.grad(F.relu(shown @ weight).sum(), weight))
    assert peak_bytes(lambda: [torch.autograd.grad(F.relu(shown @ weight).sum(), weight)[0].sum() for _ in range(5)]) < once + 100


def test_the_unrolled_graph_grows_with_steps_and_the_sweep_with_the_path_alone():
    net = network(NetworkConfig("convnet", depth=2, width=4), channels=1, classes=2, size=8)
    chance = generator(0, "memory")
    images, labels = torch.randn(6, 1, 8, 8, generator=chance), torch.arange(6) % 2
    start = net.initial(chance)
    expert = torch.stack([start, start + 0.1])

    def peak(engine, steps: int) -> int:
        plan = Plan((torch.arange(6),) * steps, (augment.draw("none", 6, 8, chance),) * steps)
        return peak_bytes(lambda: engine.path_gradient(net, path_losses.end_point, expert, images, labels, torch.tensor(0.1), plan, (0, steps)))

    longer, longest = peak(unroll, 20) - peak(unroll, 10), peak(unroll, 30) - peak(unroll, 20)
    assert longer > 0 and abs(longest - longer) < 0.05 * longer
    swept = peak(adjoint, 20) - peak(adjoint, 10)
    assert swept < 3 * 10 * 4 * net.layout.size < longer / 2
