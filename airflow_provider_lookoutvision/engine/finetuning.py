"""Trains the network itself, with a small decoder for masks and a head for the image; needs torch.

The network starts from the pretrained weights; its batch normalisations stay as they are, and so do its
layers at strides 2 and 4, whose features are general and whose gradients cost most. The decoder sums the
features of strides 4 to 32 at stride 4 and ends in a logit for each class, as the patch head has; the image
head is logistic on generalised means of the same features. The image's logit mixes that head with the mean of
the highest places of the map. What is trained is written back as weights, of which `tuned_network` builds the
ONNX graph: torch is needed only here, and no exporter of its.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from airflow_provider_lookoutvision.engine import network, tuned_network
from airflow_provider_lookoutvision.engine.backbone import FloatArray
from airflow_provider_lookoutvision.engine.images import Pixels
from airflow_provider_lookoutvision.engine.tuned_network import (
    GROUPS,
    MEAN_POWER_DOUBLINGS,
    TAPS,
    WIDTH,
)
from airflow_provider_lookoutvision.engine.weights import Weights

_BATCH = 8
_HEAD_RATE, _NETWORK_RATE = 1e-3, 2e-4
_WEIGHT_DECAY = 1e-2
_GAIN, _OFFSET = 0.15, 12.0
_DEFECT_WEIGHT = 3.0
_DROPOUT = 0.2
_FROZEN_BLOCKS = 3
_ENCODER = ("stem.", "blocks.")


@dataclass(frozen=True)
class Example:
    """An image to train on.

    :param pixels: `height x width x 3`
    :param covered: how much of each place each class covers, 0 to 255, `classes x height / 4 x width / 4`;
        None without a mask
    """

    pixels: Pixels
    anomalous: bool
    covered: NDArray[np.uint8] | None


def device() -> torch.device:
    """A CUDA device if there is one; otherwise the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Convolution(nn.Module):
    """A convolution and its batch normalisation, whose statistics and gain stay as they are."""

    gain: Tensor

    def __init__(
        self, weights: Weights, name: str, norm: str, stride: int = 1, *, activate: bool = True
    ) -> None:
        super().__init__()
        self.name, self.norm, self.stride, self.activate = name, norm, stride, activate
        weight, gain, bias = network.folded(weights, name, norm)
        self.weight = nn.Parameter(torch.from_numpy(weight.copy()))
        self.bias = nn.Parameter(torch.from_numpy(bias.copy()))
        self.register_buffer("gain", torch.from_numpy(gain.copy()))
        self.groups = 1 if weight.shape[1] > 1 or weight.shape[0] == 1 else weight.shape[0]
        kernel = weight.shape[2]
        padding = kernel - stride if stride > 1 else kernel - 1
        before = padding // 2
        self.pads = (before, padding - before, before, padding - before)

    def forward(self, value: Tensor) -> Tensor:
        if any(self.pads):
            value = functional.pad(value, self.pads)
        weight = self.weight * self.gain[:, None, None, None]
        value = functional.conv2d(value, weight, self.bias, self.stride, groups=self.groups)
        return functional.relu6(value) if self.activate else value


class _Block(nn.Module):
    def __init__(self, weights: Weights, index: int, stride: int) -> None:
        super().__init__()
        prefix = f"_blocks.{index}"
        layers = []
        expanded = f"{prefix}._expand_conv.weight" in weights
        if expanded:
            layers.append(_Convolution(weights, f"{prefix}._expand_conv", f"{prefix}._bn0"))
        layers.append(_Convolution(weights, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride))
        layers.append(_Convolution(weights, f"{prefix}._project_conv", f"{prefix}._bn2", activate=False))
        self.layers = nn.Sequential(*layers)
        first, last = layers[0].weight, layers[-1].weight
        self.adds = expanded and stride == 1 and first.shape[1] == last.shape[0]

    def forward(self, value: Tensor) -> Tensor:
        inner: Tensor = self.layers(value)
        return inner + value if self.adds else inner


class _Tuned(nn.Module):
    """The network, the decoder and the image head: from RGB images to logits of places and of the image."""

    def __init__(self, weights: Weights, class_count: int, top_count: int) -> None:
        super().__init__()
        self.top_count = top_count
        self.stem = _Convolution(weights, "_conv_stem", "_bn0", 2)
        self.blocks = nn.ModuleList(
            _Block(weights, index, stride) for index, stride in enumerate(network.block_strides())
        )
        for frozen in (self.stem, *self.blocks[:_FROZEN_BLOCKS]):
            frozen.requires_grad_(False)
        channels = [self.blocks[index].layers[-1].weight.shape[0] for index in TAPS]
        self.laterals = nn.ModuleList(nn.Conv2d(count, WIDTH, 1) for count in channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, WIDTH) for _ in range(2))
        self.classes = nn.Conv2d(WIDTH, class_count, 1)
        self.image = nn.Linear(sum(channels), 1)
        self.mix = nn.Linear(2, 1)
        with torch.no_grad():
            # Defects are rare: a map that begins without any.
            self.classes.bias.fill_(-3.0)
            self.mix.weight.fill_(0.5)
            self.mix.bias.fill_(1.0)

    def features(self, images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            value = self.stem((images - network.MEAN) / network.SCALE)
            for block in self.blocks[:_FROZEN_BLOCKS]:
                value = block(value)
        taps = [value]
        for index, block in enumerate(self.blocks[_FROZEN_BLOCKS:], start=_FROZEN_BLOCKS):
            value = block(value)
            if index in TAPS:
                taps.append(value)
        return taps

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The logits of places, `n x classes x rows x columns`, and of the images: mixed, head, top."""
        taps = self.features(images)
        total = self.laterals[-1](taps[-1])
        for tap, lateral in zip(taps[-2::-1], self.laterals[-2::-1], strict=True):
            total = _doubled(total) + lateral(tap)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            total = functional.relu(norm(convolution(functional.relu(total))))
        logits = self.classes(total)
        pooled = torch.cat([_generalised_mean(tap) for tap in taps], 1)
        head = self.image(functional.dropout(pooled, _DROPOUT, self.training))[:, 0]
        anywhere = torch.logsumexp(logits.float(), 1).flatten(1)
        top = anywhere.topk(min(self.top_count, anywhere.shape[1]), 1).values.mean(1)
        mixed = self.mix(torch.stack([head.float(), top], 1))[:, 0]
        return logits, mixed, head, top


def _doubled(value: Tensor) -> Tensor:
    # By products with matrices: torch's own interpolation is not deterministic on a GPU.
    rows, columns = (_doubling(length).to(value) for length in value.shape[2:])
    return rows @ value @ columns.T


def _doubling(length: int) -> Tensor:
    centres = (torch.arange(2 * length) + 0.5) / 2 - 0.5
    low = centres.floor()
    result = torch.zeros(2 * length, length)
    places = torch.arange(2 * length)
    result[places, low.clamp(0, length - 1).long()] += 1 - (centres - low)
    result[places, (low + 1).clamp(0, length - 1).long()] += centres - low
    return result


def _generalised_mean(value: Tensor) -> Tensor:
    power = 2**MEAN_POWER_DOUBLINGS
    # A root has no derivative at zero.
    return ((value.float() ** power).mean((2, 3)) + 1e-6) ** (1 / power)


class Tuner:
    """A network in training.

    :param class_count: of the masks; 1 without any
    :param top_count: how many places of the map are averaged for the image's score
    :param flips: whether images may be mirrored and turned upside down
    :param threads: on the processor
    """

    def __init__(
        self,
        weights: Weights,
        class_count: int,
        top_count: int,
        *,
        flips: bool,
        seed: int,
        threads: int,
    ) -> None:
        self._device, self._flips = device(), flips
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        self._rng = np.random.default_rng([seed, 2])
        self._pretrained = weights
        self._tuned = _Tuned(weights, class_count, top_count).to(
            self._device, memory_format=torch.channels_last
        )

    def train(
        self, examples: Sequence[Callable[[], Example]], epochs: int, on_step: Callable[[float], None]
    ) -> None:
        """Train for some epochs, one cycle of the learning rate, half of each batch anomalous.

        :param examples: each returns an image, of the same size, or another crop of it at each call
        :param on_step: called with the fraction done, 0 to 1, before each step; may raise to stop
        """
        tuned = self._tuned.train()
        anomalous = np.array([example().anomalous for example in examples])
        steps = max(1, epochs * -(-len(examples) // _BATCH))
        pretrained = [p for block in self._tuned.blocks for p in block.parameters() if p.requires_grad]
        known = {id(parameter) for parameter in pretrained}
        fresh = [p for p in tuned.parameters() if p.requires_grad and id(p) not in known]
        groups = [{"params": fresh, "lr": _HEAD_RATE}, {"params": pretrained, "lr": _NETWORK_RATE}]
        optimizer = torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [_HEAD_RATE, _NETWORK_RATE], total_steps=steps, pct_start=0.2
        )
        scaler = torch.amp.GradScaler(self._device.type, enabled=self._device.type == "cuda")
        decks = [_Deck(np.flatnonzero(anomalous == kind), self._rng) for kind in (False, True)]
        for step in range(steps):
            on_step(step / steps)
            chosen = [examples[decks[place % 2].draw()]() for place in range(_BATCH)]
            images, labels, covered, masked = self._batch(chosen)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self._device.type, torch.float16, enabled=scaler.is_enabled()):
                logits, *scores = tuned(images)
            loss = _loss(logits.float(), [score.float() for score in scores], labels, covered, masked)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([*fresh, *pretrained], 5.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()

    def scores(self, pixels: Pixels) -> tuple[float, FloatArray]:
        """The logit of an image, and those of its places, `rows x columns x classes`, at stride 4."""
        self._tuned.eval()
        with torch.no_grad():
            images = torch.from_numpy(pixels[None].copy()).to(self._device).permute(0, 3, 1, 2).float()
            logits, mixed, _, _ = self._tuned(images)
        return float(mixed[0]), logits[0].permute(1, 2, 0).float().cpu().numpy()

    def network(self) -> onnx.ModelProto:
        """What has been trained, as the graph of `tuned_network`."""
        tuned, weights = self._tuned, dict(self._pretrained)
        for module in tuned.modules():
            if isinstance(module, _Convolution):
                weights[f"{module.name}.weight"] = _array(module.weight)
                mean, gain = weights[f"{module.norm}.running_mean"], _array(module.gain)
                weights[f"{module.norm}.bias"] = _array(module.bias) + mean * gain
        decoder = {
            name: _array(value) for name, value in tuned.state_dict().items() if not name.startswith(_ENCODER)
        }
        return tuned_network.build(weights, decoder, tuned.top_count)

    def _batch(self, chosen: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        pixels, masks = [], []
        like = next((example.covered for example in chosen if example.covered is not None), None)
        for example in chosen:
            image, covered = example.pixels.astype(np.float32), example.covered
            if covered is None and like is not None:
                covered = np.zeros_like(like)
            if self._flips:
                for axis in (0, 1):
                    if self._rng.random() < 0.5:
                        image = np.flip(image, axis)
                        covered = covered if covered is None else np.flip(covered, axis + 1)
            gain = 1 + self._rng.uniform(-_GAIN, _GAIN)
            image = np.clip(image * gain + self._rng.uniform(-_OFFSET, _OFFSET), 0, 255)
            pixels.append(np.ascontiguousarray(image))
            if covered is not None:
                masks.append(np.ascontiguousarray(covered))
        images = torch.from_numpy(np.stack(pixels)).to(self._device).permute(0, 3, 1, 2)
        labels = torch.tensor([float(example.anomalous) for example in chosen], device=self._device)
        # The places of a normal image are known: none is defective.
        masked = torch.tensor(
            [example.covered is not None or not example.anomalous for example in chosen], device=self._device
        )
        covered_all = torch.from_numpy(np.stack(masks)).to(self._device).float() / 255 if masks else None
        return images.contiguous(memory_format=torch.channels_last), labels, covered_all, masked


class _Deck:
    """Draws indices in random order, all before any again."""

    def __init__(self, indices: NDArray[np.intp], rng: np.random.Generator) -> None:
        self._indices, self._rng, self._left = indices, rng, list[int]()

    def draw(self) -> int:
        if not self._left:
            self._left = self._rng.permutation(self._indices).tolist()
        return self._left.pop()


def _loss(
    logits: Tensor, scores: Sequence[Tensor], labels: Tensor, covered: Tensor | None, masked: Tensor
) -> Tensor:
    """Of the three scores of an image and, where there are masks, of any defect and of its class."""
    total = sum(
        (functional.binary_cross_entropy_with_logits(score, labels) for score in scores),
        torch.zeros((), device=labels.device),
    )
    if covered is None or not bool(masked.any()):
        return total
    logits, covered = logits[masked], covered[masked]
    anywhere = torch.logsumexp(logits, 1)
    target = covered.sum(1).clamp(max=1)
    weight = 1 + (_DEFECT_WEIGHT - 1) * target
    entropy = functional.binary_cross_entropy_with_logits(anywhere, target, weight)
    found = torch.sigmoid(anywhere)
    overlap = (found * target).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (found.sum((1, 2)) + target.sum((1, 2)) + 1)
    total = total + 2 * entropy + dice.mean()
    if logits.shape[1] > 1:
        inside = covered.sum(1) > 0.5
        if bool(inside.any()):
            places = logits.permute(0, 2, 3, 1)[inside]
            total = total + 0.5 * functional.cross_entropy(places, covered.argmax(1)[inside])
    return total


def _array(tensor: Any) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
