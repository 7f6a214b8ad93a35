"""Every arm of a comparison by its name: what a distilled set is compared with, made from the same seed.

Arms of real images, sets matched without expert paths, and the controls of latent codes. Nothing here reads validation or test.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from jaxtyping import Int64
from torch import Tensor

from hoptm import baselines, latent_controls, matching_baselines
from hoptm.config import Config, generator
from hoptm.data import Selectable
from hoptm.embeddings import Features, trained_features
from hoptm.errors import ConfigError
from hoptm.evaluate import Recipe
from hoptm.experts import experts
from hoptm.imbalance import shared_out
from hoptm.leaf import vae_of
from hoptm.networks import network
from hoptm.synthetic import SyntheticSet, from_real, initialise, provenance
from hoptm.teachers import taught

Make: TypeAlias = Callable[[Config, Selectable], SyntheticSet]


def budget(config: Config, splits: Selectable) -> int | tuple[int, ...]:
    """Images of every class; or of each, by `match.per_class`, or by the counts of train and `match.class_power`. Raises as `imbalance.shared_out`."""
    if not config.match.class_power:
        return config.budget
    counts = torch.bincount(splits.train.labels, minlength=splits.classes).tolist()
    return shared_out(counts, config.ipc * splits.classes, config.match.class_power)


def first_images(config: Config, splits: Selectable) -> Int64[Tensor, "n"]:
    """Indices of the real training images that a distillation starts from, class by class, as `match.first_images` says.

    Selection reads train alone, through the features of one network trained on it. Raises as `synthetic.initialise`.
    """
    chance = generator(config.seed, "initial images")
    if config.match.first_images == "random":
        return initialise(splits.train, splits.classes, budget(config, splits), chance)
    choose = baselines.herd if config.match.first_images == "herding" else baselines.nearest_to_centres(chance)
    return baselines.select(splits, budget(config, splits), features(config, splits), choose)


def started(config: Config, splits: Selectable) -> SyntheticSet:
    """The real images that a distillation of this seed starts from."""
    chosen = first_images(config, splits)
    return from_real(splits, chosen, provenance(splits, method="start", ipc=config.ipc, seed=config.seed))


def random(config: Config, splits: Selectable) -> SyntheticSet:
    """As many fresh random real images of each class."""
    return baselines.random_subset(splits, budget(config, splits), generator(config.seed, "random images"), seed=config.seed)


def random_taught(config: Config, splits: Selectable) -> SyntheticSet:
    """The same random real images, with the labels of the experts that a distillation of this seed has: what such labels are worth by themselves."""
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    made = taught(random(config, splits), net, experts(config, splits, progress=False, processes=1))
    return dataclasses.replace(made, info={**made.info, "method": "random-teacher"})


def natural(config: Config, splits: Selectable) -> SyntheticSet:
    """As many random real images in all, in the classes' natural mix."""
    return baselines.natural_subset(splits, config.ipc, generator(config.seed, "random images"), seed=config.seed)


def herding(config: Config, splits: Selectable) -> SyntheticSet:
    """Herding in the features of a network trained on train."""
    return baselines.herding(splits, budget(config, splits), features(config, splits), seed=config.seed)


def k_centre(config: Config, splits: Selectable) -> SyntheticSet:
    """k-centre in the same features."""
    return baselines.k_centre(splits, budget(config, splits), features(config, splits), seed=config.seed)


def k_means(config: Config, splits: Selectable) -> SyntheticSet:
    """The real image nearest to each k-means centre in the same features."""
    return baselines.k_means(splits, budget(config, splits), features(config, splits), generator(config.seed, "k-means"), seed=config.seed)


def features(config: Config, splits: Selectable) -> Features:
    """The features of one network of this seed, trained on train with AdamW, the modality's augmentation and the evaluation's steps.

    Raises ConfigError where the evaluation has no step size for AdamW.
    """
    if not config.evaluation.adamw_lrs:
        raise ConfigError("features of a network trained on train need a step size in evaluation.adamw_lrs, which is empty.")
    net = network(config.network, channels=splits.channels, classes=splits.classes, size=splits.size)
    judged = config.evaluation
    recipe = Recipe("adamw", judged.adamw_lrs[len(judged.adamw_lrs) // 2], splits.info.augmentations[-1], judged.steps)
    return trained_features(net, splits.train, recipe, judged, generator(config.seed, "features"))


def _matched(settings: matching_baselines.DistributionMatching | matching_baselines.GradientMatching, config: Config, splits: Selectable) -> SyntheticSet:
    augmentation = settings.augmentation if settings.augmentation == "none" else splits.info.augmentations[-1]
    settings = dataclasses.replace(settings, network=config.network, augmentation=augmentation)
    if isinstance(settings, matching_baselines.DistributionMatching):
        return matching_baselines.distribution_matching(splits, config.ipc, settings, config.seed, start=started(config, splits))
    return matching_baselines.gradient_matching(splits, config.ipc, settings, config.seed, start=started(config, splits))


def dm(config: Config, splits: Selectable) -> SyntheticSet:
    """Distribution matching, fast settings, with the modality's augmentation."""
    return _matched(matching_baselines.DM_FAST, config, splits)


def dsa(config: Config, splits: Selectable) -> SyntheticSet:
    """Gradient matching with the modality's augmentation, fast settings."""
    return _matched(matching_baselines.DSA_FAST, config, splits)


def dc(config: Config, splits: Selectable) -> SyntheticSet:
    """Gradient matching without augmentation, fast settings."""
    return _matched(matching_baselines.DC_FAST, config, splits)


def decoded_centres(config: Config, splits: Selectable) -> SyntheticSet:
    """Class-wise k-means centres of codes, decoded."""
    return latent_controls.kmeans_decoded(splits, vae_of(config, splits), config.ipc, config.seed)


def reconstruction(config: Config, splits: Selectable) -> SyntheticSet:
    """The real images a distillation starts from, through the VAE."""
    chosen = first_images(config, splits)
    return latent_controls.reconstructions(splits, vae_of(config, splits), chosen, config.ipc, seed=config.seed)


def upsampled(config: Config, splits: Selectable) -> SyntheticSet:
    """Random real images kept at half the resolution, as many."""
    return latent_controls.upsampled_random(splits, config.ipc, generator(config.seed, "random images"), seed=config.seed)


ARMS: Mapping[str, Make] = {
    "start": started,
    "random": random,
    "random-teacher": random_taught,
    "natural": natural,
    "herding": herding,
    "kcentre": k_centre,
    "kmeans": k_means,
    "dm": dm,
    "dsa": dsa,
    "dc": dc,
    "kmeans-decode": decoded_centres,
    "reconstruction": reconstruction,
    "upsampled": upsampled,
}


EQUAL = ("natural", "kmeans-decode", "upsampled")
"""Arms that know no budget for each class."""


def arm(name: str, config: Config, splits: Selectable) -> SyntheticSet:
    """The set of an arm at the seed and budget of `config`.

    Raises ConfigError for an unknown name, and for a budget for each class where the arm knows equal ones alone; else as its maker does.
    """
    if name not in ARMS:
        raise ConfigError(f"no arm {name!r}; there are {', '.join(ARMS)}.")
    if (config.match.per_class or config.match.class_power) and name in EQUAL:
        says = f"match.per_class is {config.match.per_class}, match.class_power {config.match.class_power:g}"
        raise ConfigError(f"the arm {name!r} knows one number of images for all classes, and {says}. Leave the first empty and the second at 0.")
    return ARMS[name](config, splits)
