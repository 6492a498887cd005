"""Figures from predictions: confusion matrix, per-class precision, recall and F1, top-k, AUROC.

Knows labels and probabilities, not how they were made. Everything is computed over all images at once, never averaged
over batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassFigures:
    """One row of the per-class table; a figure without images to judge by is None.

    Args:
        name: Of the class.
        num_images: Images that belong to it.
        precision: Of the images called so, the share that are.
        recall: Of the images that are, the share called so.
        f1: Harmonic mean of both.
    """

    name: str
    num_images: int
    precision: float | None
    recall: float | None
    f1: float | None


def predicted_classes(logits: Tensor) -> Tensor:
    """int64 `(B,)`: the largest of `(B, K)` logits; for one logit `(B, 1)`, whether it is positive."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).long()
    return logits.argmax(1)


def confusion_matrix(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """int64 `(K, K)`: entry `[i, j]` counts images of class i that were called j."""
    return torch.bincount(labels * num_classes + predictions, minlength=num_classes**2).view(num_classes, num_classes)


def class_figures(confusion: Tensor, class_names: tuple[str, ...]) -> list[ClassFigures]:
    """Precision, recall and F1 of every class. Source: van Rijsbergen 1979, Information Retrieval, chapter 7."""
    hits, belong, called = confusion.diag().tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()
    figures = []
    for name, hit, num, said in zip(class_names, hits, belong, called, strict=True):
        f1 = 2 * hit / (num + said) if num + said else None
        figures.append(ClassFigures(name, num, hit / said if said else None, hit / num if num else None, f1))
    return figures


def balanced_accuracy(confusion: Tensor) -> float:
    """Mean recall over the classes that have images. Source: Brodersen et al. 2010, ICPR."""
    num_images = confusion.sum(1)
    present = num_images > 0
    return (confusion.diag()[present] / num_images[present]).double().mean().item()


def macro_f1(figures: list[ClassFigures]) -> float:
    """Mean F1 over the classes that have images."""
    values = [f.f1 or 0.0 for f in figures if f.num_images]
    return sum(values) / len(values)


def top_k_accuracy(probabilities: Tensor, labels: Tensor, k: int) -> float:
    """Share of images whose label is among the k most probable of `(N, K)`; 1 when there are no more than k classes."""
    k = min(k, probabilities.shape[1])
    return (probabilities.topk(k, 1).indices == labels[:, None]).any(1).double().mean().item()


def auroc(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve: the chance that a positive image scores above a negative one, ties counting half.

    Args:
        scores: float `(N,)`, higher means more positive.
        positive: bool `(N,)`.

    Returns:
        0..1, or None when one of the two kinds is absent. Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return None
    _, inverse, counts = scores.double().unique(return_inverse=True, return_counts=True)
    last_rank = counts.cumsum(0).double()
    mean_rank = last_rank - (counts - 1) / 2
    rank_sum = mean_rank[inverse][positive].sum().item()
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)
