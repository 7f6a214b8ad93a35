"""What is compared, from the settings; and the engine against plain autograd for all of it."""

import itertools
from fractions import Fraction

import pytest
import torch

from hoptm import adjoint, augment, path_losses, unroll
from hoptm.config import MatchConfig, NetworkConfig, configure, generator
from hoptm.errors import ConfigError
from hoptm.inner import Plan, check_waypoints, waypoints_on
from hoptm.inner_losses import named
from hoptm.matching import matching, outcome
from hoptm.networks import network
from hoptm.outer import Problem, State, outer_step

NET = network(NetworkConfig("convnet", depth=2, width=4), channels=1, classes=3, size=8)
COUNTS = torch.tensor([10, 30, 60])


def _inputs(steps=8, waypoints=5):
    chance = generator(0, "matching", steps)
    images = torch.randn(6, 1, 8, 8, generator=chance, dtype=torch.float64)
    batches = tuple(torch.randperm(6, generator=chance)[:4] for _ in range(steps))
    plan = Plan(batches, tuple(augment.draw("dsa", 4, 8, chance) for _ in batches))
    start = NET.initial(chance).double()
    steps_out = torch.randn(waypoints, NET.layout.size, generator=chance, dtype=torch.float64).cumsum(0)
    return images, torch.arange(6) % 3, plan, start + 0.02 * (steps_out - steps_out[0])


MATCHES = {
    "between": MatchConfig(steps=8, waypoints=5, between_weight=0.7),
    "velocity": MatchConfig(steps=8, waypoints=5, orders=(0.5,)),
    "curvature": MatchConfig(steps=8, waypoints=5, orders=(0.0, 0.5)),
    "torsion": MatchConfig(steps=8, waypoints=5, orders=(0.0, 0.0, 0.5)),
    "all orders and the shape": MatchConfig(steps=8, waypoints=5, orders=(0.3, 0.2, 0.1, 0.1), between_weight=0.2, shape_weight=0.5),
    "between steps": MatchConfig(steps=8, waypoints=4, orders=(0.3, 0.2, 0.1), between_weight=0.5),
    "adaptive end": MatchConfig(steps=8, waypoints=3, orders=(0.3, 0.2), end="adaptive"),
    "orders alone": MatchConfig(steps=8, waypoints=5, position_weight=0.0, orders=(1.0,)),
}


@pytest.mark.parametrize("loss", ["cross_entropy", "prior", "balanced_softmax"])
@pytest.mark.parametrize("name", MATCHES)
def test_the_engine_equals_plain_autograd_for_every_order(name, loss):
    match = MATCHES[name]
    compare, (images, labels, plan, expert) = matching(match), _inputs(waypoints=match.waypoint_count)
    total, lr = path_losses.weighted_sum(list(compare.weighed(None, 0.5).values())), torch.tensor(0.05, dtype=torch.float64)
    inner_loss = named(loss, COUNTS)
    steps = compare.steps(adjoint.forward(NET, expert[0], images, labels, lr, plan, inner_loss), expert)
    ours, wanted = (engine.path_gradient(NET, total, expert, images, labels, lr, plan, steps, inner_loss) for engine in (adjoint, unroll))
    for part in ("loss", "images", "lr", "path"):
        one, other = getattr(ours, part), getattr(wanted, part)
        assert float((one - other).abs().max() / other.abs().max()) < 1e-10
    assert wanted.images.abs().max() > 0


MASKED = {
    "sticky": {"mask": "sticky", "threshold": 1e-4},
    "fresh": {"mask": "fresh", "threshold": 1e-4},
    "quantile": {"mask": "quantile", "quantile": (0.3, 0.9)},
    "layers": {"mask": "layers", "quantile": (0.3, 0.9)},
}


@pytest.mark.parametrize("kind", MASKED)
def test_an_outer_step_with_every_mask_follows_plain_autograd(kind):
    match = MatchConfig(steps=8, lr=0.05, lr_lr=1e-6, lr_images=1.0, momentum=0.0, iterations=10, **MASKED[kind])
    images, labels, plan, expert = _inputs(waypoints=2)
    problem = Problem(NET, labels, match, matching(match), alive=NET.alive, layout=NET.layout)
    state, look, found = outer_step(State.first(images, 0.05), problem, expert, plan)
    assert 0 < look.utilisation < 1 and state.mask is not None
    end = matching(match).terms(state.mask.double())["end_point"][1]
    wanted = unroll.path_gradient(NET, end, expert, images, labels, torch.tensor(0.05, dtype=torch.float64), plan, (0, 8))
    assert float((found.images - wanted.images).abs().max() / wanted.images.abs().max()) < 1e-10
    assert torch.allclose(state.leaf, images - wanted.images)


def test_a_rendering_passes_the_gradient_on():
    """Codes through a fixed linear map: the gradient is the map's transpose of the images' gradient; the penalty is added."""
    match = MatchConfig(steps=4, lr=0.05, lr_lr=1e-6, lr_images=1.0, momentum=0.0)
    _, labels, plan, expert = _inputs(steps=4, waypoints=2)
    decoder = torch.randn(5, 64, generator=generator(0, "decoder"), dtype=torch.float64)
    codes = torch.randn(6, 5, generator=generator(0, "codes"), dtype=torch.float64)

    def render(leaf):
        return torch.tanh(leaf @ decoder).view(6, 1, 8, 8)

    problem = Problem(NET, labels, match, matching(match), render=render, penalty=lambda leaf: 0.1 * leaf.square().sum())
    state, _, found = outer_step(State.first(codes, 0.05), problem, expert, plan)
    leaf = codes.clone().requires_grad_()
    shown = render(leaf)
    assert torch.allclose(
        found.images, unroll.path_gradient(NET, path_losses.end_point, expert, shown.detach(), labels, state.lr * 0 + 0.05, plan, (0, 4)).images
    )
    ((shown * found.images).sum() + 0.1 * leaf.square().sum()).backward()
    assert torch.allclose(state.leaf, codes - leaf.grad)


def test_outcome_is_the_loss_on_real_images_at_the_end():
    images, labels, plan, expert = _inputs(waypoints=1)
    real, classes = torch.randn(9, 1, 8, 8, dtype=torch.float64, generator=generator(0, "real")), torch.arange(9) % 3
    loss, lr = outcome(NET, real, classes), torch.tensor(0.05, dtype=torch.float64)
    found = adjoint.path_gradient(NET, loss, expert, images, labels, lr, plan, (8,))
    path = adjoint.forward(NET, expert[0], images, labels, lr, plan)
    assert float(found.loss) == pytest.approx(float(torch.nn.functional.cross_entropy(NET(path[-1], real), classes)))
    wanted = unroll.path_gradient(NET, loss, expert, images, labels, lr, plan, (8,))
    assert float((found.images - wanted.images).abs().max() / wanted.images.abs().max()) < 1e-10


def test_waypoints_are_aligned_in_time():
    compare = matching(MatchConfig(steps=20, expert_epochs=2, waypoints=5, orders=(1.0,)))
    assert compare.student_steps == (0, 5, 10, 15, 20)
    assert compare.expert_epochs(3) == (3, Fraction(7, 2), 4, Fraction(9, 2), 5)
    odd = matching(MatchConfig(steps=7, expert_epochs=3, waypoints=3, between_weight=1.0))
    assert odd.expert_epochs(0) == (0, Fraction(3, 2), 3), "only the published middle may be out of step"


def test_only_the_published_method_is_out_of_step():
    odd = {"steps": 7, "expert_epochs": 3, "shape_weight": 0.5}
    assert matching(MatchConfig(**odd, threshold=1e-6)).expert_epochs(0) == (0, 1, 3)
    for other in ({}, {"threshold": 1e-6, "mask": "fresh"}, {"mask": "quantile", "quantile": (0.5, 1.0)}):
        compare = matching(MatchConfig(**odd, **other))
        assert compare.expert_epochs(0) == (0, Fraction(3, 2), 3) and compare.student_steps == (0, Fraction(7, 2), 7)
    with pytest.raises(ConfigError, match=r"raise experts\.per_epoch"):
        configure("phantom", method="shape", ipc=1, seed=0).changed(match={"expert_epochs": 3}, experts={"per_epoch": 1})
    assert configure("phantom", method="shape", ipc=1, seed=0, profile="smoke").experts.per_epoch == 2


@pytest.mark.parametrize("more", [{}, {"mask": "quantile", "quantile": (0.5, 1.0)}, {"threshold": 1e-3}, {"shape_weight": 0.5}, {"between_weight": 0.5}])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_the_adaptive_end_goes_with_every_order(order, more):
    """The student's waypoints are those of its own end, and the gradient is that of plain autograd at these."""
    weights = tuple(0.5 if number == order else 0.0 for number in range(1, order + 1))
    match = MatchConfig(steps=8, lr=0.01, lr_lr=1e-8, lr_images=1.0, momentum=0.0, end="adaptive", waypoints=5, orders=weights, **more)
    images, labels, plan, _ = _inputs()
    compare, chance, lr = matching(match), generator(3, "adaptive", order), torch.tensor(0.01, dtype=torch.float64)
    theta = NET.initial(chance).double()
    path = adjoint.forward(NET, theta, images, labels, lr, plan)
    expert = torch.stack([theta + share * (path[5] - theta) for share in (0, 0.25, 0.5, 0.75, 1.0)])  # nearest at step 5 of 8: waypoints between steps
    expert[1:] += 1e-5 * torch.randn(4, theta.numel(), generator=chance, dtype=torch.float64)
    state, look, found = outer_step(State.first(images, 0.01), Problem(NET, labels, match, compare), expert, plan)
    steps, mask = compare.steps(path, expert), state.mask
    assert look.end == steps[-1] == 5 and steps[1] == Fraction(5, 4)
    total = path_losses.weighted_sum(list(compare.weighed(None if mask is None else mask.double(), 0.0).values()))
    wanted = unroll.path_gradient(NET, total, expert, images, labels, lr, plan, steps)
    scale = wanted.images.abs().max()
    assert scale > 0 and float((found.images - wanted.images).abs().max() / scale) < 1e-10


def test_the_adaptive_end_moves_all_waypoints_with_it():
    compare = matching(MatchConfig(steps=8, waypoints=5, orders=(1.0,), end="adaptive"))
    path = torch.arange(9.0)[:, None]
    assert compare.steps(path, torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])) == (0, 1, 2, 3, 4)
    assert compare.steps(path, torch.tensor([[0.0]] * 4 + [[-5.0]])) == (0, 1, 2, 3, 4), "not before as many steps as stretches"


@pytest.mark.parametrize("steps", [8, 10, 13])
@pytest.mark.parametrize("end", ["fixed", "adaptive"])
def test_a_student_on_the_experts_way_is_in_time_with_it(steps, end):
    """At constant speed along the expert's way every loss is 0, at the end and at every earlier one that can be chosen."""
    match = MatchConfig(steps=steps, waypoints=5, orders=(1.0, 1.0, 1.0), between_weight=1.0, end=end, expert_epochs=3)
    compare, way = matching(match), torch.randn(6, generator=generator(0, "way"), dtype=torch.float64)
    expert = torch.stack([way * float(epoch - 2) for epoch in compare.expert_epochs(2)])
    for last in range(max(4, steps // 4), steps + 1):  # the step at which the student is where the expert ends
        path = torch.stack([way * 3 * step / last for step in range(steps + 1)])
        chosen = compare.steps(path, expert)
        assert chosen[0] == 0 and chosen[-1] == (last if end == "adaptive" else steps)
        if chosen[-1] == last:
            for name, (_, loss) in compare.weighed(None, 1.0).items():
                assert float(loss(waypoints_on(path, chosen), expert)) < 1e-12, name


def test_a_waypoint_between_two_steps_is_on_the_line_between_them():
    path = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 8.0]])
    assert waypoints_on(path, (0, Fraction(1, 4), 1, Fraction(3, 2), 2)).tolist() == [[0, 0], [1, 0], [4, 0], [4, 4], [4, 8]]
    for wrong in (Fraction(-1, 2), Fraction(5, 2)):
        with pytest.raises(ConfigError, match="outside the path of 2"):
            check_waypoints((0, wrong), 2, 2)


def test_weights_of_the_orders_rise_and_the_end_point_stays():
    compare = matching(MatchConfig(steps=8, waypoints=3, orders=(0.6,), orders_rise=0.5))
    weights = [{name: weight for name, (weight, _) in compare.weighed(None, progress).items()} for progress in (0.0, 0.25, 0.5, 1.0)]
    assert [found["velocity"] for found in weights] == pytest.approx([0.0, 0.3, 0.6, 0.6])
    assert {found["end_point"] for found in weights} == {1.0}


def test_a_student_without_an_expert_is_compared_with_none():
    with pytest.raises(ConfigError, match="own_start"):
        configure("phantom", method="endpoint", ipc=1, seed=0).changed(match={"own_start": 5})
    with pytest.raises(ConfigError, match="must be fixed"):
        configure("phantom", method="outcome", ipc=1, seed=0).changed(match={"end": "adaptive"})
    with pytest.raises(ConfigError, match="nothing to match"):
        configure("phantom", method="endpoint", ipc=1, seed=0).changed(match={"position_weight": 0.0})
    with pytest.raises(ConfigError, match="stored checkpoints"):
        configure("phantom", method="endpoint", ipc=1, seed=0).changed(match={"waypoints": 4, "orders": (1.0,)})
    with pytest.raises(ConfigError, match="4 waypoints do not fall on stored checkpoints"):
        configure("phantom", method="endpoint", ipc=1, seed=0).changed(match={"orders": (0.1, 0.1, 0.1)})
    with pytest.raises(ConfigError, match="3 waypoints do not fall on stored checkpoints"):
        configure("phantom", method="endpoint", ipc=1, seed=0).changed(match={"between_weight": 0.1, "expert_epochs": 1})


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 2),
        ({"orders": (1.0,)}, 2),
        ({"orders": (0.0, 1.0)}, 3),
        ({"orders": (1.0, 0.0, 0.5)}, 4),
        ({"orders": (1.0, 0.0)}, 2),
        ({"between_weight": 0.1}, 3),
        ({"shape_weight": 0.1}, 3),
        ({"shape_weight": 0.1, "orders": (0.0, 0.0, 1.0)}, 4),
        ({"waypoints": 5}, 5),
    ],
)
def test_as_many_waypoints_as_the_losses_need(changes, count):
    assert MatchConfig(**changes).waypoint_count == count


def test_inner_losses_by_hand():
    logits, labels = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.2, 0.1]], dtype=torch.float64), torch.tensor([2, 0])
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert float(named("prior", COUNTS)(logits, labels)) == pytest.approx(float((plain * torch.tensor([1.8, 0.3])).mean()))
    shifted = torch.nn.functional.cross_entropy(logits - torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64).log(), labels)
    assert float(named("balanced_softmax", COUNTS)(logits, labels)) == pytest.approx(float(shifted))
    even = torch.tensor([5, 5, 5])
    for name in ("prior", "balanced_softmax"):
        assert float(named(name, even)(logits, labels)) == pytest.approx(float(plain.mean()))
    with pytest.raises(ConfigError, match="inner loss"):
        named("hinge", COUNTS)


@pytest.mark.parametrize("held", [None, torch.tensor([6, 3, 1])])
def test_inner_losses_ask_of_any_set_what_experts_learned_from_train(held):
    """On images of a class drawn from q, the best logits are log q plus the log of train's shares, those of an expert, whatever shares the set has."""
    likelihood = torch.rand(3, 8, generator=generator(0, "likelihoods"), dtype=torch.float64)
    likelihood = likelihood / likelihood.sum(dim=1, keepdim=True)
    expert = likelihood.T.log() + (COUNTS.double() / COUNTS.sum()).log()
    shares = torch.ones(3).double() / 3 if held is None else held.double() / held.sum()
    for name in ("prior", "balanced_softmax"):
        logits, loss = expert.clone().requires_grad_(), named(name, COUNTS, held)
        total = torch.zeros((), dtype=torch.float64)
        for label, image in itertools.product(range(3), range(8)):
            total = total + shares[label] * likelihood[label, image] * loss(logits[image][None], torch.tensor([label]))
        (gradient,) = torch.autograd.grad(total, logits)
        assert float(gradient.abs().max()) < 1e-12, name
    plain = sum(
        shares[label] * likelihood[label, image] * torch.nn.functional.cross_entropy(logits[image][None], torch.tensor([label]))
        for label, image in itertools.product(range(3), range(8))
    )
    assert float(torch.autograd.grad(plain, logits)[0].abs().max()) > 1e-2
