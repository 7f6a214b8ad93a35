"""Several students at once: as one network of groups, in turn, and recorded, they give the gradients of the students apart."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from test_captured import RECORD
from torch import Tensor

from hoptm import adjoint, distill, inner_losses, kernels, layers, unroll
from hoptm.captured import Captured
from hoptm.config import MatchConfig, NetworkConfig, configure, generator
from hoptm.data import load
from hoptm.errors import ConfigError
from hoptm.experts import experts
from hoptm.inner import Eager, Plan, Step
from hoptm.matching import matching, side_by_side
from hoptm.networks import FAMILIES, NORMS, Network, network
from hoptm.outer import Problem, State, draw_plan_of_several, outer_step
from hoptm.path_losses import weighted_sum
from hoptm.side_by_side import InTurn, Several, Summed, step_of

COPIES = 3


def small(family: str = "convnet", norm: str = "instance") -> Network:
    return network(NetworkConfig(family, 2, 4, norm), channels=2, classes=3, size=8)


def parameters(net: Network, name: str) -> Tensor:
    """(B, P), away from any symmetry."""
    chance = generator(0, name)
    each = torch.stack([net.initial(chance) for _ in range(COPIES)]).double()
    return each + 0.05 * torch.randn(each.shape, generator=chance, dtype=torch.float64)


@pytest.mark.parametrize(("family", "norm"), [*(("convnet", norm) for norm in NORMS), *((family, "instance") for family in FAMILIES)])
def test_logits_are_those_of_each_copy(family: str, norm: str) -> None:
    net = small(family, norm)
    thetas, images = parameters(net, "logits"), torch.randn(COPIES * 5, 2, 8, 8, generator=generator(1, "images"), dtype=torch.float64)
    wanted = torch.cat([net(theta, shown) for theta, shown in zip(thetas, images.chunk(COPIES), strict=True)])
    torch.testing.assert_close(Several(net, COPIES)(thetas.flatten(), images), wanted, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_shared_out_is_refused() -> None:
    net = small()
    for theta, count in ((parameters(net, "odd").flatten(), 4), (parameters(net, "odd").flatten()[1:], 3)):
        with pytest.raises(ConfigError, match="3 copies of a network"):
            Several(net, COPIES)(theta, torch.zeros(count, 2, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_convolutions_and_their_derivatives(groups: int) -> None:
    chance = generator(0, "groups")
    images, weight = (torch.randn(*shape, generator=chance, dtype=torch.float64).requires_grad_() for shape in ((2, 4, 5, 5), (6, 4 // groups, 3, 3)))
    torch.testing.assert_close(layers.convolve(images, weight, None, groups), F.conv2d(images, weight, None, padding=1, groups=groups))
    assert torch.autograd.gradgradcheck(lambda x, w: layers.convolve(x, w, None, groups) ** 3, (images, weight))


def steps(net: Network, loss: inner_losses.InnerLoss) -> dict[str, Step]:
    """Every way to do the work of several students."""
    copies, summed = Several(net, COPIES), Summed(loss, COPIES)
    return {"groups": Eager(copies, summed), "in turn": InTurn(Eager(net, loss), COPIES), "recorded": Captured(copies, summed, RECORD)}


@pytest.mark.parametrize("way", ["groups", "in turn", "recorded", "kept in turn"])
@pytest.mark.parametrize(("loss_name", "soft"), [("cross_entropy", False), ("cross_entropy", True), ("prior", False)])
def test_an_outer_step_is_the_mean_over_the_students_apart(loss_name: str, way: str, soft: bool) -> None:
    match = MatchConfig(
        steps=7, batch=4, lr=0.05, lr_lr=1e-6, lr_images=1.0, momentum=0.0, segments=COPIES,  # the middle lies between two steps
        waypoints=3, orders=(0.4, 0.2), between_weight=0.3, shape_weight=0.2, keep=2 if way.startswith("kept") else 0, student_momentum=0.5,
    )  # fmt: skip
    net, chance = small(), generator(2, "several", way)
    images, labels = torch.randn(6, 2, 8, 8, generator=chance, dtype=torch.float64), torch.arange(6) % 3
    targets = F.one_hot(labels, 3).double() * 0.8 + 0.2 / 3 if soft else labels
    loss, compare, lr = inner_losses.named(loss_name, torch.tensor([10, 30, 60])), matching(match), torch.tensor(0.05, dtype=torch.float64)
    ends = parameters(net, "experts")
    paths = torch.stack([parameters(net, "starts"), ends, 0.5 * ends], dim=1)  # (B, K, P)
    plan = draw_plan_of_several(6, 8, match, chance)
    joined = Problem(
        Several(net, COPIES), targets, match, side_by_side(compare, COPIES), inner_loss=Summed(loss, COPIES), step=steps(net, loss)[way.removeprefix("kept ")]
    )
    state, _, found = outer_step(State.first(images, 0.05), joined, torch.cat(list(paths), dim=1), plan)
    total, each = weighted_sum(list(compare.weighed(None, 0.0).values())), []
    for copy in range(COPIES):
        batches = tuple(batch.chunk(COPIES)[copy] for batch in plan.batches)
        draws = tuple(dataclasses.replace(draw, values={name: value.chunk(COPIES)[copy] for name, value in draw.values.items()}) for draw in plan.draws)
        way_of = compare.steps(torch.empty(0), paths[copy])
        each.append(unroll.path_gradient(net, total, paths[copy], images, targets, lr, Plan(batches, draws), way_of, loss, momentum=0.5))
    assert float(found.loss) == pytest.approx(sum(float(one.loss) for one in each) / COPIES, rel=1e-12)
    for name in ("images", "lr", *(("targets",) if soft else ())):
        wanted = torch.stack([getattr(one, name) for one in each]).mean(dim=0)
        assert float((getattr(found, name) - wanted).abs().max() / wanted.abs().max()) < 1e-10, name
    assert torch.allclose(state.leaf, images - found.images)


def test_turns_of_the_compiled_step_are_those_of_the_eager_one() -> None:
    net, chance = small(), generator(3, "compiled")
    match = MatchConfig(steps=5, batch=4, segments=COPIES)
    images, labels, plan = torch.randn(6, 2, 8, 8, generator=chance, dtype=torch.float64), torch.arange(6) % 3, draw_plan_of_several(6, 8, match, chance)
    theta, lr = parameters(net, "compiled").flatten(), torch.tensor(0.05, dtype=torch.float64)
    step = step_of(kernels.fastest, net, F.cross_entropy, COPIES, torch.device("cpu"), torch.float64)
    assert isinstance(step, InTurn) and (not kernels.available() or isinstance(step.step, kernels.Compiled))
    plain = adjoint.forward(Several(net, COPIES), theta, images, labels, lr, plan, Summed(F.cross_entropy, COPIES))
    ours = adjoint.forward(Several(net, COPIES), theta, images, labels, lr, plan, Summed(F.cross_entropy, COPIES), step=step)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)
    assert step.kept_bytes(theta, images, labels[:6], plan.draws[0]) == COPIES * step.step.kept_bytes(
        theta[: net.layout.size], images[:2], labels[:2], plan.draws[0]
    )


def test_a_run_with_several_segments_and_its_resumption(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HOPTM_CACHE", str(tmp_path / "cache"))
    splits = load("phantom:450")
    config = configure(
        "phantom:450", method="velocity", ipc=1, seed=0, profile="smoke", match={"segments": 2, "outcome_weight": 0.2, "optimiser": "adam", "lr_images": 0.05}
    )
    paths = experts(config, splits, progress=False, processes=1)
    whole = distill.distill(config, splits, paths, progress=False)
    assert len(whole.history) == config.match.iterations and {"end_point", "velocity", "outcome"} == set(whole.history[0].terms)

    class Stop(Exception):
        pass

    def stop(state, look):  # type: ignore[no-untyped-def]
        if state.iteration == 2:
            raise Stop

    with pytest.raises(Stop):
        distill.distill(config, splits, paths, progress=False, resume=tmp_path / "state", save_every=1, callbacks=[stop])
    assert torch.equal(distill.distill(config, splits, paths, progress=False, resume=tmp_path / "state").last.images, whole.last.images)
    for wrong in ({"end": "adaptive"}, {"threshold": 1e-6}, {"quantile": (0.5, 1.0), "mask": "quantile"}):
        with pytest.raises(ConfigError, match="several segments at once"):
            config.changed(match=wrong)
    with pytest.raises(ConfigError, match=r"match\.end must be fixed"):
        side_by_side(matching(MatchConfig(steps=8, waypoints=3, orders=(1.0,), end="adaptive")), 2)
