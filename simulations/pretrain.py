"""Pre-train the bundled ViT: `python -m simulations.pretrain IDX_FOLDER`.

A small vision transformer learns Fashion-MNIST from the images that no simulated client holds. Same seed, same
machine and thread count: same weights. Writes safetensors in half precision, the config and a model card.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from simulations.bundle import ASSETS, CLASS_NAMES, FashionMnist, held_out_of_training, read_fashion_mnist

MODEL_FOLDER = ASSETS / "vit_fashion_mnist"


@dataclass(frozen=True)
class PretrainSettings:
    """Hyper-parameters of pre-training; `threads` is one of them because sums depend on their order."""

    epochs: int = 30
    batch: int = 128
    peak_learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    largest_shift: int = 2
    erased_share: float = 0.3
    seed: int = 0
    threads: int = 2


def model_config() -> ViTConfig:
    """Return the shape of the bundled ViT: 0.68 million weights, 12 layers of 4 heads or 384 channels."""
    return ViTConfig(
        hidden_size=96,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=384,
        image_size=28,
        patch_size=7,
        num_channels=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(CLASS_NAMES)),
        label2id={name: i for i, name in enumerate(CLASS_NAMES)},
    )


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Return images [samples, height, width] of bytes as pixel values [samples, 1, height, width] in [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0).unsqueeze(1)


def augment(pixels: Tensor, settings: PretrainSettings, generator: torch.Generator) -> Tensor:
    """Flip, shift and partly erase a batch [samples, 1, height, width]; the background is -1."""
    samples, _, height, width = pixels.shape
    flip = torch.rand(samples, generator=generator) < 0.5
    pixels = torch.where(flip[:, None, None, None], pixels.flip(-1), pixels)
    most = settings.largest_shift
    padded = nn.functional.pad(pixels, (most, most, most, most), value=-1.0)
    rows = torch.randint(0, 2 * most + 1, (samples, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * most + 1, (samples, 1), generator=generator) + torch.arange(width)
    pixels = padded[torch.arange(samples)[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
    erased = torch.rand(samples, generator=generator) < settings.erased_share
    top = torch.randint(0, height - 7, (samples, 1), generator=generator)
    left = torch.randint(0, width - 7, (samples, 1), generator=generator)
    row_hit = (torch.arange(height) >= top) & (torch.arange(height) < top + 8)
    column_hit = (torch.arange(width) >= left) & (torch.arange(width) < left + 8)
    hit = row_hit[:, :, None] & column_hit[:, None, :] & erased[:, None, None]
    return torch.where(hit.unsqueeze(1), torch.full_like(pixels, -1.0), pixels)


def accuracy(model: ViTForImageClassification, pixels: Tensor, labels: Tensor) -> float:
    """Return the share of samples classified right."""
    model.eval()
    with torch.inference_mode():
        right = [
            (model(pixel_values=x).logits.argmax(-1) == y).sum().item()
            for x, y in zip(pixels.split(500), labels.split(500), strict=True)
        ]
    return float(sum(right)) / len(labels)


def pretrain(data: FashionMnist, settings: PretrainSettings) -> tuple[ViTForImageClassification, float]:
    """Train on the images that clients do not hold; return the model in evaluation mode and its test accuracy."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    generator = torch.Generator().manual_seed(settings.seed)
    usable = held_out_of_training(data)
    pixels, labels = to_pixels(data.train_images[usable]), torch.from_numpy(data.train_labels[usable]).long()
    test_pixels, test_labels = to_pixels(data.test_images), torch.from_numpy(data.test_labels).long()
    model = ViTForImageClassification(model_config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=settings.weight_decay)
    per_epoch = len(labels) // settings.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.peak_learning_rate, epochs=settings.epochs, steps_per_epoch=per_epoch, pct_start=0.15
    )
    for epoch in range(settings.epochs):
        started, total = time.perf_counter(), 0.0
        model.train()
        order = torch.randperm(len(labels), generator=generator)
        for step in range(per_epoch):
            pick = order[step * settings.batch : (step + 1) * settings.batch]
            logits = model(pixel_values=augment(pixels[pick], settings, generator)).logits
            loss = nn.functional.cross_entropy(logits, labels[pick], label_smoothing=settings.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - started
        print(
            f"epoch {epoch + 1}/{settings.epochs}: training loss {total / per_epoch:.4f}, {seconds:.0f} s", flush=True
        )
    model = model.half().float()
    return model.eval(), accuracy(model, test_pixels, test_labels)


def model_card(settings: PretrainSettings, images: int, test_accuracy: float, weights: int) -> str:
    """Return the text that stands beside the checkpoint."""
    return f"""# ViT for Fashion-MNIST, bundled with fedsieve

- {weights:,} weights, half precision. Input [samples, 1, 28, 28], pixel values (byte / 127.5 - 1).
- Trained on {images:,} of the 60,000 training images of Fashion-MNIST: those that no simulated client holds, without
  exact copies of the bundled subset or of test images.
- Accuracy on the 10,000 test images: {test_accuracy:.4f} (not used for any choice: the last epoch is kept).
- Command: `python -m simulations.pretrain /usr/share/datasets/fashion-mnist`
- Settings: `{json.dumps(asdict(settings))}`, torch {torch.__version__}.
- Licence: Apache-2.0. Data: Fashion-MNIST, MIT, Copyright (c) 2017 Zalando SE.
"""


def main() -> None:
    """Train and save the bundled model."""
    parser = argparse.ArgumentParser(description="Pre-train the bundled ViT on images that no client holds.")
    parser.add_argument("folder", type=Path, help="folder with the four idx files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder to write (default: the bundled one)")
    parser.add_argument("--epochs", type=int, default=PretrainSettings.epochs)
    parser.add_argument("--seed", type=int, default=PretrainSettings.seed)
    arguments = parser.parse_args()
    settings = PretrainSettings(epochs=arguments.epochs, seed=arguments.seed)
    data = read_fashion_mnist(arguments.folder)
    model, test_accuracy = pretrain(data, settings)
    model.half().save_pretrained(arguments.out)
    images, weights = len(held_out_of_training(data)), sum(p.numel() for p in model.parameters())
    (arguments.out / "README.md").write_text(model_card(settings, images, test_accuracy, weights))
    print(f"{arguments.out}: accuracy {test_accuracy:.4f} on 10,000 test images")


if __name__ == "__main__":
    main()
