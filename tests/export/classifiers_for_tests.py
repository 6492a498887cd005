"""Classifiers that were never trained, with random weights and running statistics: exporting asks for no more."""

from dataclasses import replace

import torch
from torch import nn

from cvtrain import build
from cvtrain.check import expected_facts
from cvtrain.classifier import Classifier
from cvtrain.compose import compose
from cvtrain.data.statistics import Statistics
from cvtrain.engine.device import Compute
from cvtrain.export.exported_model import ExportedModel


def classifier_of(*words, class_names=None):
    """A classifier as `cvtrain.load` makes it, in float32, for what a command line says."""
    config = compose(list(words))
    facts = expected_facts(config)
    channels = facts.in_channels
    if not facts.preprocessing.is_point:
        facts = replace(facts, statistics=Statistics((0.3, 0.45, 0.5)[:channels], (0.2, 0.25, 0.31)[:channels]))
    if class_names:
        facts = replace(facts, class_names=class_names)
    loss_fn = build.loss(config, facts)
    model = build.model(config, facts, num_outputs=loss_fn.num_outputs)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return Classifier(model, loss_fn, facts=facts, compute=Compute(torch.device("cpu")), config=config)


def exported_of(classifier):
    return ExportedModel(classifier.model, classifier.loss_fn, classifier.facts)


def some_inputs(classifier, *, num=20):
    """Pixels as the classifier takes them, and the same as an exported model takes them."""
    facts, generator = classifier.facts, torch.Generator().manual_seed(2)
    shape = (num, facts.image_size, facts.image_size, facts.in_channels)
    if facts.preprocessing.is_point:
        pixels = torch.empty(shape).uniform_(-255, 255, generator=generator)
        return pixels, (pixels / 255).flatten(1)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return pixels, (pixels.float() / 255).permute(0, 3, 1, 2).contiguous()
