"""Which pictures show the same, although their pixels differ: re-encoded, resized, relit, slightly cut or mirrored.

Knows thumbnails only, not files or classes.

Every picture is compared with every other in two steps.

1. *Signature*: the 63 lowest frequencies of the thumbnail but for its mean, of length one. Two pictures are candidates
   from a cosine of 0.85 on. It is the perceptual hash of the DCT kept as numbers instead of 63 signs, so that a
   matrix product compares all with all and nothing is lost to the rounding. Light and contrast do not change it.
   Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions", section 3.2.1 (DCT).
2. *Detail*: of every candidate the fine structure is correlated. A pixel counts as how far it is above or below its
   surroundings, in units of their spread, so that a strong edge is worth no more than faint texture; what whole rows
   and columns have in common (a horizon, a frame) is taken out. Unrelated pictures with the same layout, say ships on
   the sea, have signatures alike and details that are not. Tried at nine places up to a pixel apart.
   Source of the local normalisation: Ruderman 1994, "The statistics of natural images", section 2.

Where more than one alike picture in twenty is of another class, as among digits and other drawings of a few strokes,
likeness is no sign of one and the same picture: then only pictures that differ by next to nothing count.

The thresholds were chosen on CIFAR-10; `benchmarks/audit.py` measures recall and false alarms, docs/audit.md has both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CANDIDATE_COSINE = 0.85
SAME_DETAIL = 0.5
STRICT_DETAIL = 0.95

_NUM_FREQUENCIES = 8
_ROWS, _COLUMNS = 1024, 8192
_MOST_CANDIDATES = 16
"""Of a picture in each split, the likeliest: among thousands of frames of one film the nearest are enough."""
_WINDOW, _NOISE = 5, 4.0
_MARGIN, _SHIFT = 3, 1
_FAINT = 0.02
"""Mean square of the detail below which a picture has none to compare: a plain sky, a gradient."""
_PAIRS = 2048
_TWO_CLASSES_SHARE, _TWO_CLASSES_IMAGES = 0.05, 20


class Alike(NamedTuple):
    """Pairs of pictures, each found once, `second` before `first` in the order of the thumbnails.

    Args:
        first: int64 `(P,)`.
        second: int64 `(P,)`.
        likeness: float32 `(P,)`, the correlation of details, up to 1.
        mirrored: bool `(P,)`.
    """

    first: Tensor
    second: Tensor
    likeness: Tensor
    mirrored: Tensor


def find_alike(
    thumbnails: Tensor,
    *,
    splits: Tensor,
    labels: Tensor,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Alike:
    """For every picture its likest among those before it: one of each split, with the same label and with another.

    Time grows with the square of the number of pictures, memory with the number itself.

    Args:
        thumbnails: uint8 `(N, S, S)`, luma.
        splits: int64 `(N,)`.
        labels: int64 `(N,)`.
        progress: Called with how many pictures are done, and how many there are.
    """
    signatures = torch.cat([_signatures(block) for block in thumbnails.split(_COLUMNS)]) if len(thumbnails) else None
    found = []
    for start in range(0, len(thumbnails), _ROWS):
        end = min(start + _ROWS, len(thumbnails))
        first, second, mirrored = _candidates(signatures, start, end, splits=splits)
        likeness = _correlations(thumbnails, first, second, mirrored)
        same = likeness >= SAME_DETAIL
        pairs = Alike(first[same], second[same], likeness[same], mirrored[same])
        found.append(_likest(pairs, splits=splits, labels=labels))
        progress(end, len(thumbnails))
    empty = torch.empty(0, dtype=torch.int64)
    none = Alike(empty, empty, torch.empty(0), torch.empty(0, dtype=torch.bool))
    return Alike(*(torch.cat(column) for column in zip(none, *found, strict=True)))


def threshold_for(pairs: Alike, *, labels: Tensor) -> float:
    """The likeness from which two pictures of these data count as the same.

    Args:
        pairs: What `find_alike` has found.
        labels: int64 `(N,)`.
    """
    has_two = labels[pairs.first] != labels[pairs.second]
    num_two, num_alike = len(pairs.first[has_two].unique()), len(pairs.first.unique())
    is_common = num_two >= _TWO_CLASSES_IMAGES and num_two > _TWO_CLASSES_SHARE * num_alike
    return STRICT_DETAIL if is_common else SAME_DETAIL


def _cosines(size: int) -> Tensor:
    """The first rows of the orthonormal DCT-II, float32 `(_NUM_FREQUENCIES, size)`."""
    frequency, place = torch.arange(_NUM_FREQUENCIES)[:, None], torch.arange(size)[None]
    basis = torch.cos(math.pi * (place + 0.5) * frequency / size) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def _signatures(thumbnails: Tensor) -> Tensor:
    """float32 `(N, 63)` of length 1, or 0 for pictures of one colour."""
    basis = _cosines(thumbnails.shape[-1])
    frequencies = (basis @ thumbnails.float() @ basis.T).flatten(1)[:, 1:]
    lengths = frequencies.norm(dim=1, keepdim=True)
    return torch.where(lengths > 1, frequencies / lengths.clamp_min(1), 0)


def _mirrored(signatures: Tensor) -> Tensor:
    """Signatures of the mirrored pictures: odd horizontal frequencies have the other sign."""
    sign = torch.tensor([1.0, -1.0]).repeat(_NUM_FREQUENCIES**2 // 2)[1:]
    return signatures * sign


def _candidates(signatures: Tensor, start: int, end: int, *, splits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of a picture in `[start, end)` and one before it whose signatures are alike."""
    firsts, seconds, mirrors, cosines = [], [], [], []
    for is_mirrored in (False, True):
        rows = _mirrored(signatures[start:end]) if is_mirrored else signatures[start:end]
        for low in [*range(0, start, _COLUMNS), start]:
            products = rows @ signatures[low : min(low + _COLUMNS, start) if low < start else end].T
            if low == start:  # a picture is compared with those before it alone
                products = products.tril(-1)
            row, column = _above(products)
            firsts.append(row + start)
            seconds.append(column + low)
            mirrors.append(torch.full_like(row, is_mirrored, dtype=torch.bool))
            cosines.append(products[row, column])
    first, second, mirrored = torch.cat(firsts), torch.cat(seconds), torch.cat(mirrors)
    rank = _rank_within(first * (int(splits.max()) + 1) + splits[second], torch.cat(cosines))
    kept = rank < _MOST_CANDIDATES
    return first[kept], second[kept], mirrored[kept]


def _above(products: Tensor) -> tuple[Tensor, Tensor]:
    """Where candidates are; where nearly all are, the best of each row, because nobody has memory for all."""
    rows = (products.amax(1) > CANDIDATE_COSINE).nonzero()[:, 0]  # few; a whole matrix of answers would take longer
    some = products[rows]
    above = some > CANDIDATE_COSINE
    if torch.count_nonzero(above) <= 4 * _MOST_CANDIDATES * len(products):
        row, column = above.nonzero(as_tuple=True)
        return rows[row], column
    best = some.topk(min(4 * _MOST_CANDIDATES, some.shape[1]), dim=1)
    row, rank = (best.values > CANDIDATE_COSINE).nonzero(as_tuple=True)
    return rows[row], best.indices[row, rank]


def _rank_within(groups: Tensor, values: Tensor) -> Tensor:
    """The place of each value in its group, 0 for the largest."""
    order = values.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    _, counts = groups[order].unique_consecutive(return_counts=True)
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - starts
    return rank


def _correlations(thumbnails: Tensor, first: Tensor, second: Tensor, mirrored: Tensor) -> Tensor:
    """Of the details of each pair, at the best of nine places, float32 `(P,)`."""
    best = torch.full((len(first),), -1.0)
    for start in range(0, len(first), _PAIRS):
        part = slice(start, start + _PAIRS)
        # A picture stands in many pairs: its detail is computed once.
        names, where = torch.stack([2 * first[part] + mirrored[part], 2 * second[part]]).unique(return_inverse=True)
        pictures = thumbnails[names // 2].float()
        pictures = torch.where((names % 2 == 1)[:, None, None], pictures.flip(2), pictures)
        details = _detail(pictures)
        middle = _window(details, 0, 0)[where[0]]
        for down in range(-_SHIFT, _SHIFT + 1):
            for right in range(-_SHIFT, _SHIFT + 1):
                other = _window(details, down, right)[where[1]]
                best[part] = torch.maximum(best[part], (middle * other).sum(1))
    return best


def _detail(pictures: Tensor) -> Tensor:
    """How far each pixel is above its surroundings, in units of their spread, float32 `(N, S, S)`."""
    padded = functional.pad(pictures[:, None], (_WINDOW // 2,) * 4, mode="reflect")
    mean = functional.avg_pool2d(padded, _WINDOW, 1)
    spread = (functional.avg_pool2d(padded * padded, _WINDOW, 1) - mean * mean).clamp_min(0).sqrt()
    return ((pictures[:, None] - mean) / (spread + _NOISE))[:, 0]


def _window(details: Tensor, down: int, right: int) -> Tensor:
    """The part inside a margin, some pixels aside, without its rows' and columns' means, of length 1 or 0 if faint."""
    size = details.shape[-1] - 2 * _MARGIN
    part = details[:, _MARGIN + down :, _MARGIN + right :][:, :size, :size]
    part = part - part.mean(1, keepdim=True)
    part = (part - part.mean(2, keepdim=True)).flatten(1)
    lengths = part.norm(dim=1, keepdim=True)
    return torch.where(lengths > math.sqrt(_FAINT) * size, part / lengths.clamp_min(1e-6), 0)


def _likest(pairs: Alike, *, splits: Tensor, labels: Tensor) -> Alike:
    """Of each first picture the likest partner in every split, with its own label and with another."""
    same_label = (labels[pairs.first] == labels[pairs.second]).long()
    group = (pairs.first * (int(splits.max()) + 1) + splits[pairs.second]) * 2 + same_label
    kept = _rank_within(group, pairs.likeness) == 0
    return Alike(*(column[kept] for column in pairs))
