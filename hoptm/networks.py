"""Networks as functions of one flat parameter vector.

A `Network` holds no weights: `network(theta, images)` gives logits, and can be differentiated twice. None keeps
state besides its parameters: no batch statistics, no dropout. Trajectory matching differentiates through training
steps, so two layers have their own formulas here (`group_norm`, `halve`): same numbers, quicker second derivative.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hoptm.config import NetworkConfig
from hoptm.errors import ConfigError
from hoptm.layers import EPS, convolve, group_norm, halve
from hoptm.parameters import Layout, layout_of, unflatten

NORMS = ("instance", "group", "layer", "none")
LARGEST = 2**28
"""Parameters of a network, 1 GiB of them: more than VGG-16 has, and a bound on what a stranger's file can ask for."""


@dataclass(frozen=True)
class Network:
    """A member of a family, bound to the shape of its images. Build it with `network`."""

    config: NetworkConfig
    channels: int
    classes: int
    size: int
    """Height and width of the images, in pixels."""
    layout: Layout
    skeleton: nn.Module = field(repr=False, compare=False)
    """The modules without memory for their weights (on the meta device)."""

    @property
    def alive(self) -> Bool[Tensor, "p"]:
        """False for parameters that no output depends on: a convolution's bias before a norm that takes each channel's mean away."""
        dead = {f"{name}.conv.bias" for name, module in self.skeleton.named_modules() if _loses_bias(module)}
        parts = [torch.full((size,), name not in dead) for name, size in zip(self.layout.names, self.layout.sizes, strict=True)]
        return torch.cat(parts)

    @property
    def held(self) -> int:
        """Numbers that the convolutions, linear maps and norms of a forward pass give for one image; a training step keeps these at least."""
        total, edge = 0, self.size
        for module in self.skeleton.modules():
            if isinstance(module, nn.Conv2d):
                edge //= module.stride[0] if module.kernel_size[0] > 1 else 1  # a shortcut of 1 x 1 follows what it goes around
                total += module.out_channels * edge**2
            elif isinstance(module, nn.Linear | nn.GroupNorm | nn.LayerNorm):
                total += edge**2 * (module.out_features if isinstance(module, nn.Linear) else module.weight.numel())
            elif isinstance(module, _Halve):
                edge //= 2
            elif isinstance(module, nn.Flatten | _GlobalMean | _TokenMean):
                edge = 1
        return total

    def initial(self, generator: torch.Generator) -> Float[Tensor, "p"]:
        """Fresh float32 parameters: U(-1, 1) / sqrt(fan-in) for the weights and biases of linear maps and
        convolutions (torch's default), ones and zeros for norms, N(0, 0.02) for positions. Uses `generator` alone.
        """
        parts = [_fresh(module, name, value.shape, generator) for module in self.skeleton.modules() for name, value in module.named_parameters(recurse=False)]
        return torch.cat([part.reshape(-1) for part in parts])

    def __call__(self, theta: Float[Tensor, "p"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of standardised images under the parameters `theta`, both of one float type.

        Raises ConfigError when the images or the parameters are not of this network's shape.
        """
        expected = (self.channels, self.size, self.size)
        if images.shape[1:] != expected:
            raise ConfigError(f"images of shape {tuple(images.shape[1:])} were given to a network for {expected} (channels, height, width).")
        logits: Tensor = torch.func.functional_call(self.skeleton, unflatten(theta, self.layout), (images,))
        return logits


def network(config: NetworkConfig, *, channels: int, classes: int, size: int) -> Network:
    """The network of `config` for square images of `size` pixels.

    `width` scales the channels and `depth` counts what the family repeats; see each family. Raises ConfigError for
    an unknown family or norm, a depth or width below 1, an image too small for the depth, or more than `LARGEST` parameters.
    """
    if config.family not in FAMILIES:
        raise ConfigError(f"no network family {config.family!r}; there are {', '.join(FAMILIES)}.")
    if config.norm not in NORMS:
        raise ConfigError(f"no norm {config.norm!r}; there are {', '.join(NORMS)}.")
    if min(config.depth, config.width, channels, classes, size) < 1:
        raise ConfigError(f"depth {config.depth}, width {config.width}, channels {channels}, classes {classes} and size {size} must all be 1 or more.")
    with torch.device("meta"):
        skeleton = FAMILIES[config.family](config, channels, classes, size)
    layout = layout_of(skeleton)
    if layout.size > LARGEST:
        words = f"a {config.family} of depth {config.depth} and width {config.width} for {channels} x {size} x {size}"
        raise ConfigError(f"{words} has {layout.size:,} parameters and may have {LARGEST:,}. Take a smaller depth or width.")
    return Network(config, channels, classes, size, layout, skeleton)


def _fresh(module: nn.Module, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if isinstance(module, nn.Conv2d | nn.Linear):
        bound = 1 / math.sqrt(module.weight[0].numel())
        return (2 * torch.rand(shape, generator=generator) - 1) * bound
    if isinstance(module, nn.GroupNorm | nn.LayerNorm):
        return torch.ones(shape) if name == "weight" else torch.zeros(shape)
    return 0.02 * torch.randn(shape, generator=generator)


def _loses_bias(module: nn.Module) -> bool:
    norm = getattr(module, "norm", None)
    return hasattr(module, "conv") and isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels


class _Halve(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return halve(images)


class _Convolution(nn.Conv2d):
    """3 x 3 with a border of zeros. On a CPU the library's own, whose bits the stored results have."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if images.device.type == "cpu" else convolve(images, self.weight, self.bias)


class _GroupNorm(nn.GroupNorm):
    def forward(self, images: Tensor) -> Tensor:
        return group_norm(images, self.weight, self.bias, self.num_groups)


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.Identity() if kind == "none" else _GroupNorm(norm_groups(kind, channels), channels, eps=EPS)


def norm_groups(kind: str, channels: int) -> int:
    """Groups of a norm: instance: a group a channel; group: at most 32 groups of 2 channels or more; layer: one group."""
    shared = math.gcd(channels, 32)
    return {"instance": channels, "group": shared // 2 if shared == channels > 1 else shared, "layer": 1}[kind]


# --- the families ------------------------------------------------------------------------------------------------


def _fits(size: int, halvings: int, config: NetworkConfig) -> None:
    if size >> halvings < 1:
        raise ConfigError(f"images of {size} pixels are too small for a {config.family} of depth {config.depth}, which needs {2**halvings}. Lower the depth.")


def _deepest(config: NetworkConfig, most: int) -> None:
    if config.depth > most:
        raise ConfigError(f"a {config.family} has depth 1 to {most}, not {config.depth}.")


def _convolved(inputs: int, outputs: int, norm: str, *end: tuple[str, nn.Module], bias: bool = True) -> nn.Module:
    conv = _Convolution(inputs, outputs, 3, padding=1, bias=bias)
    return nn.Sequential(OrderedDict([("conv", conv), ("norm", _norm(norm, outputs)), ("relu", nn.ReLU()), *end]))


def convnet(config: NetworkConfig, channels: int, classes: int, size: int) -> nn.Module:
    """`depth` blocks of 3 x 3 convolution to `width` channels, norm, ReLU, 2 x 2 average pooling; then a linear map.

    The network of the trajectory-matching literature (Gidaris and Komodakis, 2018; Cazenavette et al., 2022).
    """
    _fits(size, config.depth, config)
    inputs = [channels] + [config.width] * (config.depth - 1)
    blocks = nn.Sequential(*[_convolved(count, config.width, config.norm, ("pool", _Halve())) for count in inputs])
    features = config.width * (size >> config.depth) ** 2
    return nn.Sequential(OrderedDict([("blocks", blocks), ("flatten", nn.Flatten()), ("classifier", nn.Linear(features, classes))]))


class _GlobalMean(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def vgg(config: NetworkConfig, channels: int, classes: int, size: int) -> nn.Module:
    """VGG-like (Simonyan and Zisserman, 2015): `depth` stages (1 to 5; 5 is VGG-11) of `width` times 1, 2, 4, 8, 8
    channels with 1, 1, 2, 2, 2 convolutions. Pooling stops at maps of 2 or 3 pixels; then the mean of each map.
    """
    _deepest(config, 5)
    _fits(size, 1, config)
    layers: list[nn.Module] = []
    inputs = channels
    for times, convolutions in [(1, 1), (2, 1), (4, 2), (8, 2), (8, 2)][: config.depth]:
        for _ in range(convolutions):
            layers.append(_convolved(inputs, times * config.width, config.norm))
            inputs = times * config.width
        if size >= 4:
            layers.append(_Halve())
            size //= 2
    return nn.Sequential(OrderedDict([("layers", nn.Sequential(*layers)), ("pool", _GlobalMean()), ("classifier", nn.Linear(inputs, classes))]))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        biased = norm == "none"
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=biased)
        self.first_norm = _norm(norm, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=biased)
        self.second_norm = _norm(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=biased), _norm(norm, outputs))

    def forward(self, images: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(images)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(images))


def resnet(config: NetworkConfig, channels: int, classes: int, size: int) -> nn.Module:
    """ResNet-like (He et al., 2016), with a 3 x 3 stem for small images: `depth` stages (1 to 4; 4 is ResNet-18) of
    two residual blocks and `width` times 1, 2, 4, 8 channels, each stage but the first at half the resolution.
    """
    _deepest(config, 4)
    _fits(size, config.depth, config)
    blocks: list[nn.Module] = [_convolved(channels, config.width, config.norm, bias=config.norm == "none")]
    inputs = config.width
    for stage in range(config.depth):
        outputs = config.width * 2**stage
        blocks += [_Residual(inputs, outputs, 2 if stage else 1, config.norm), _Residual(outputs, outputs, 1, config.norm)]
        inputs = outputs
    return nn.Sequential(OrderedDict([("blocks", nn.Sequential(*blocks)), ("pool", _GlobalMean()), ("classifier", nn.Linear(inputs, classes))]))


def _feature_norm(kind: str, features: int) -> nn.Module:
    return nn.Identity() if kind == "none" else nn.LayerNorm(features, eps=EPS)


def mlp(config: NetworkConfig, channels: int, classes: int, size: int) -> nn.Module:
    """Multi-layer perceptron: `depth` hidden layers of `width` units, each a linear map, norm and ReLU.

    Without maps every norm but "none" is layer norm.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = channels * size * size
    for _ in range(config.depth):
        layers += [nn.Linear(inputs, config.width), _feature_norm(config.norm, config.width), nn.ReLU()]
        inputs = config.width
    return nn.Sequential(OrderedDict([("layers", nn.Sequential(*layers)), ("classifier", nn.Linear(inputs, classes))]))


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in (8, 4, 2, 1) if width % heads == 0 and (width >= 16 * heads or heads == 1))
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        count, places, width = tokens.shape
        parts = self.mix(tokens).view(count, places, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(-1)  # fused attention has no second derivative
        return self.out((weights @ value).transpose(1, 2).reshape(count, places, width))  # type: ignore[no-any-return]


class _Layer(nn.Module):
    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.attention_norm, self.attention = _feature_norm(norm, width), _Attention(width)
        self.hidden_norm, self.hidden, self.out = _feature_norm(norm, width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.out(F.gelu(self.hidden(self.hidden_norm(tokens))))  # type: ignore[no-any-return]


class _Patches(nn.Module):
    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        patch = min((side for side in range(1, size + 1) if size % side == 0), key=lambda side: abs(side - size / 7))
        self.project = nn.Conv2d(channels, width, patch, patch)
        self.position = nn.Parameter(torch.empty((size // patch) ** 2, width))

    def forward(self, images: Tensor) -> Tensor:
        return self.project(images).flatten(2).transpose(1, 2) + self.position  # type: ignore[no-any-return]


class _TokenMean(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


def vit(config: NetworkConfig, channels: int, classes: int, size: int) -> nn.Module:
    """Small vision transformer (Dosovitskiy et al., 2021): `depth` layers of `width` features over about 7 x 7 patches
    (the divisor of `size` nearest to a seventh of it), learned positions, the mean over tokens, no dropout.

    Every norm but "none" is layer norm.
    """
    layers: list[nn.Module] = [_Patches(channels, config.width, size), *[_Layer(config.width, config.norm) for _ in range(config.depth)]]
    layers += [_feature_norm(config.norm, config.width), _TokenMean()]
    return nn.Sequential(OrderedDict([("layers", nn.Sequential(*layers)), ("classifier", nn.Linear(config.width, classes))]))


FAMILIES: dict[str, Callable[[NetworkConfig, int, int, int], nn.Module]] = {"convnet": convnet, "resnet": resnet, "vgg": vgg, "mlp": mlp, "vit": vit}
