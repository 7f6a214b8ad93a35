"""Networks against independent builds, finite differences and published parameter counts."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hoptm.config import NetworkConfig
from hoptm.errors import ConfigError
from hoptm.layers import convolve, group_norm, halve
from hoptm.networks import FAMILIES, NORMS, network

torch.set_num_threads(1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_forward_pass_holds_is_counted(family, norm):
    net = built(family, size=28, depth=2, width=16, norm=norm)
    counts, kinds = [], (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm)
    for module in net.skeleton.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _module, _inputs, output: counts.append(output.numel()))
    net.skeleton(torch.empty(1, net.channels, net.size, net.size, device="meta"))
    assert net.held == sum(counts) > 0


def test_a_network_of_too_many_parameters_is_refused():
    assert built("convnet", size=28, depth=3, width=1024).layout.size < 2**28
    with pytest.raises(ConfigError, match=r"a convnet of depth 3 and width 4096 for 3 x 28 x 28 has \d+,\d+,\d+ parameters and may have 268,435,456"):
        built("convnet", size=28, depth=3, width=4096)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def built(family="convnet", channels=3, classes=4, size=8, **changes):
    settings = {"depth": 2, "width": 4, "norm": "instance"} | changes
    return network(NetworkConfig(family=family, **settings), channels=channels, classes=classes, size=size)


def problem(net, count=3, seed=1):
    """Parameters away from any symmetry, images, labels and an adjoint vector, in float64."""
    source = stream(seed)
    theta = net.initial(source).double() + 0.05 * torch.randn(net.layout.size, generator=source, dtype=torch.float64)
    images = torch.randn(count, net.channels, net.size, net.size, generator=source, dtype=torch.float64)
    labels = torch.randint(net.classes, (count,), generator=source)
    return theta, images, labels, torch.randn(net.layout.size, generator=source, dtype=torch.float64)


def product(predict, theta, images, labels, adjoint, graph):
    """< gradient of the loss, adjoint >."""
    loss = F.cross_entropy(predict(theta, images), labels)
    return torch.autograd.grad(loss, theta, create_graph=graph)[0] @ adjoint


def second(predict, theta, images, labels, adjoint):
    theta, images = theta.clone().requires_grad_(), images.clone().requires_grad_()
    return torch.autograd.grad(product(predict, theta, images, labels, adjoint, True), (theta, images))


def reference(net):
    """The golden definition, from the library's own layers."""
    layers, inputs, width = [], net.channels, net.config.width
    groups = {"instance": width, "layer": 1, "group": width // 2}
    for _ in range(net.config.depth):
        norm = [] if net.config.norm == "none" else [nn.GroupNorm(groups[net.config.norm], width, eps=1e-5)]
        layers += [nn.Conv2d(inputs, width, 3, padding=1), *norm, nn.ReLU(), nn.AvgPool2d(2)]
        inputs = width
    features = width * (net.size // 2**net.config.depth) ** 2
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, net.classes)).double()

    def predict(theta, images):
        named, at = {}, 0
        for name, value in module.named_parameters():
            named[name], at = theta[at : at + value.numel()].view_as(value), at + value.numel()
        return torch.func.functional_call(module, named, (images,))

    return predict


@pytest.mark.parametrize(("depth", "size", "channels", "classes", "count"), [(3, 32, 3, 9, 317_961), (5, 112, 3, 4, 599_812), (3, 28, 3, 9, 309_897)])
def test_published_parameter_counts(depth, size, channels, classes, count):
    assert built(depth=depth, width=128, size=size, channels=channels, classes=classes).layout.size == count


def test_deepest_members_are_the_known_networks():
    assert built("resnet", depth=4, width=64, size=32, classes=10).layout.size == 11_173_962  # ResNet-18 for CIFAR-10
    assert built("vgg", depth=5, width=64, size=32, classes=10).layout.size == 9_231_114  # VGG-11 with norm for CIFAR-10


def test_flat_order_of_the_convnet():
    block = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    expected = [f"blocks.{index}.{name}" for index in range(2) for name in block] + ["classifier.weight", "classifier.bias"]
    net = built()
    assert list(net.layout.names) == expected
    assert net.layout.shapes[:4] == ((4, 3, 3, 3), (4,), (4,), (4,))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("size", "depth"), [(8, 2), (7, 1), (28, 3)])
def test_convnet_equals_the_librarys_layers(norm, size, depth):
    net = built(norm=norm, size=size, depth=depth, channels=2)
    theta, images, labels, adjoint = problem(net)
    predict = reference(net)
    torch.testing.assert_close(net(theta, images), predict(theta, images), rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(second(net, theta, images, labels, adjoint), second(predict, theta, images, labels, adjoint), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12 * float(theirs.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", NORMS)
def test_double_gradient_against_finite_differences(family, norm):
    net = built(family, norm=norm, width=8)
    theta, images, labels, adjoint = problem(net)
    for_theta, for_images = second(net, theta, images, labels, adjoint)
    step, source = 1e-9, stream(7)  # so short that no ReLU switches
    for ours, place in ((for_theta, 0), (for_images, 1)):
        direction = torch.randn(ours.shape, generator=source, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            point = [theta, images]
            point[place] = point[place] + sign * step * direction
            ends.append(product(net, point[0].requires_grad_(), point[1], labels, adjoint, False))
        numeric = float((ends[0] - ends[1]).detach() / (2 * step))
        assert float((ours * direction).sum()) == pytest.approx(numeric, rel=1e-4, abs=1e-6 * float(ours.norm() * direction.norm()))
        assert float(ours.abs().max()) > 1e-6


def test_first_gradient_is_an_adjoints_product():
    net = built()
    theta, images, labels, adjoint = problem(net)
    ends = [F.cross_entropy(net(theta + sign * 1e-6 * adjoint, images), labels) for sign in (1, -1)]
    numeric = float((ends[0] - ends[1]) / 2e-6)
    assert float(product(net, theta.requires_grad_(), images, labels, adjoint, False).detach()) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_passes_gradient_checks(groups):
    source = stream()
    images = (3 + torch.randn(2, 4, 2, 2, generator=source, dtype=torch.float64)).requires_grad_()
    weight, bias = (torch.randn(4, generator=source, dtype=torch.float64).requires_grad_() for _ in range(2))

    def function(x, w, b):
        return group_norm(x, w, b, groups)

    torch.testing.assert_close(function(images, weight, bias), F.group_norm(images, groups, weight, bias, 1e-5), rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(function, (images, weight, bias))
    assert torch.autograd.gradgradcheck(function, (images, weight, bias))


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_convolve_passes_gradient_checks_to_the_third_order(wanted):
    source = stream()
    images, weight = torch.randn(2, 3, 4, 3, generator=source, dtype=torch.float64), torch.randn(2, 3, 3, 3, generator=source, dtype=torch.float64)
    bias = torch.randn(2, generator=source, dtype=torch.float64)
    torch.testing.assert_close(convolve(images, weight, bias), F.conv2d(images, weight, bias, padding=1), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(convolve(images, weight, None), F.conv2d(images, weight, None, padding=1), rtol=1e-13, atol=1e-13)
    given = tuple(tensor.requires_grad_(asked) for tensor, asked in zip((images, weight), wanted, strict=True))

    def cubed(x, w):
        return convolve(x, w, bias) ** 3

    def gradients(x, w):
        leaves = [tensor for tensor in (x, w) if tensor.requires_grad]
        return torch.autograd.grad(cubed(x, w).sum(), leaves, create_graph=True)

    assert torch.autograd.gradcheck(cubed, given)
    assert torch.autograd.gradgradcheck(cubed, given)
    assert torch.autograd.gradgradcheck(gradients, given, atol=1e-4)


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (2, 3)])
def test_halve_is_average_pooling(size):
    images = torch.randn(2, 3, *size, generator=stream(), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(halve(images), F.avg_pool2d(images, 2), rtol=1e-14, atol=1e-14)
    assert torch.autograd.gradcheck(halve, (images,))
    assert torch.autograd.gradgradcheck(halve, (images,))
    narrow = images.detach().float()
    torch.testing.assert_close(halve(narrow), F.avg_pool2d(narrow, 2))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_what_is_not_right_is_refused_not_wrong():
    images = torch.randn(2, 4, 3, 3, generator=stream(), dtype=torch.float64, requires_grad=True)
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(group_norm(images, weight, weight, 4).pow(3).sum(), images, create_graph=True)
    (second_order,) = torch.autograd.grad(first.pow(2).sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second_order.sum().backward()
    with pytest.raises(RuntimeError, match="jvp"):
        torch.func.jvp(lambda x: group_norm(x, weight.detach(), weight.detach(), 4), (images.detach(),), (images.detach(),))


def test_a_bias_before_instance_norm_is_dead():
    for norm, dead in (("instance", True), ("none", False)):
        net = built(norm=norm)
        theta, images, labels, _ = problem(net)
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(theta.requires_grad_(), images), labels), theta)
        pieces = dict(zip(net.layout.names, gradient.split(net.layout.sizes), strict=True))
        for name, piece in pieces.items():
            silent = float(piece.abs().max()) < 1e-12
            assert silent == (dead and name.endswith("conv.bias")), name


@pytest.mark.parametrize("family", FAMILIES)
def test_stateless_and_without_memory(family):
    net = built(family, size=28, depth=3)
    assert not list(net.skeleton.buffers())
    assert all(value.is_meta for value in net.skeleton.parameters())
    theta, images, _, _ = problem(net)
    together = net(theta, images)
    alone = torch.cat([net(theta, image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)  # an image's logits do not depend on its batch
    assert together.shape == (3, 4)
    assert float(together.std(0).min()) > 1e-6  # and do depend on the image
    assert net(theta.float(), images.float()).dtype == torch.float32
    again = pickle.loads(pickle.dumps(net))
    assert again == net
    assert torch.equal(again(theta, images), together)


@pytest.mark.parametrize("family", FAMILIES)
def test_initial_uses_only_its_generator(family):
    before = torch.get_rng_state()
    net = built(family, size=28, depth=3)
    first, same, other = (net.initial(stream(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float32
    assert first.shape == (net.layout.size,)


def test_initial_has_the_default_ranges():
    net = built(width=64, channels=3, size=16)
    pieces = dict(zip(net.layout.names, net.initial(stream()).split(net.layout.sizes), strict=True))
    fans = {"blocks.0.conv": 27, "blocks.1.conv": 64 * 9, "classifier": 64 * 16}
    for name, fan in fans.items():
        bound = 1 / math.sqrt(fan)
        assert float(pieces[f"{name}.weight"].abs().max()) <= bound
        assert float(pieces[f"{name}.bias"].abs().max()) <= bound
        assert float(pieces[f"{name}.weight"].std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert float(pieces[f"{name}.weight"].mean()) == pytest.approx(0, abs=0.1 * bound)
    assert pieces["blocks.1.norm.weight"].eq(1).all()
    assert pieces["blocks.1.norm.bias"].eq(0).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "alexnet"}, "alexnet.*convnet"),
        ({"norm": "batch"}, "batch.*instance"),
        ({"depth": 4, "size": 8}, "8 pixels.*16"),
        ({"depth": 0}, "depth 0"),
        ({"width": 0}, "width 0"),
        ({"classes": 0}, "classes 0"),
        ({"family": "resnet", "depth": 5, "size": 64}, "1 to 4"),
        ({"family": "vgg", "depth": 6, "size": 64}, "1 to 5"),
        ({"family": "resnet", "depth": 4}, "too small"),
    ],
)
def test_bad_settings_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        built(**changes)


def test_wrong_images_and_parameters_are_named():
    net = built()
    theta, images, _, _ = problem(net)
    with pytest.raises(ConfigError, match=r"\(3, 8, 6\)"):
        net(theta, images[..., :6])
    with pytest.raises(ConfigError, match="another network"):
        net(theta[1:], images)
