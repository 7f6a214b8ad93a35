"""Labels of a teacher: what an ensemble of experts says of an image, in place of its class.

A label of this kind carries more than a class does, so a set that has it is compared only with sets that have it too: the
random real images under the labels of the same experts first of all.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from hoptm.networks import Network
from hoptm.synthetic import SyntheticSet
from hoptm.trajectories import Trajectories


def teacher_labels(net: Network, experts: Trajectories, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """The mean probabilities of all experts at the last step they keep, for these standardised images."""
    with torch.no_grad():
        each = [net(experts.points(index, [experts.steps[-1]])[0], images).softmax(dim=1) for index in range(experts.count)]
    mean = torch.stack(each).mean(dim=0)
    return mean / mean.sum(dim=1, keepdim=True)


def taught(made: SyntheticSet, net: Network, experts: Trajectories) -> SyntheticSet:
    """The same images with the labels of these experts beside their classes."""
    return dataclasses.replace(made, soft=teacher_labels(net, experts, made.images))
