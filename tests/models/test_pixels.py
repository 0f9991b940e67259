"""Our pictures are transformers' own, within one grey level of 255 but for a pixel here and there."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from drivetrain.models.pixels import Pixels

PROCESSORS = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
    "clip-bilinear": CLIPImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, resample=2
    ),
    "clip-wider-crop": CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 64, "width": 80}),
    "clip-odd-crop": CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 61, "width": 75}),
    "clip-no-resize": CLIPImageProcessorPil(do_resize=False, crop_size={"height": 64, "width": 64}),
    "clip-raw": CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, do_center_crop=False, do_normalize=False, do_rescale=False
    ),
    "siglip": SiglipImageProcessorPil(size={"height": 64, "width": 64}),
    "siglip-oblong": SiglipImageProcessorPil(size={"height": 48, "width": 56}),
}
SIZES = [(64, 64), (96, 96), (240, 320), (320, 240), (97, 101), (48, 200), (31, 43)]


def picture(height, width, seed=0):
    """Something smooth with edges in it and some noise: what cameras see."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    drawn = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).copy()
    drawn[height // 4 : height // 2, width // 3 : width // 2] = (255, 0, 0)
    return np.clip(drawn + random.normal(0, 8, drawn.shape), 0, 255).astype(np.uint8)


def grey_levels(processor, difference):
    """How far apart, on the scale of 0 to 255."""
    std = torch.tensor(processor.image_std if processor.do_normalize else [1.0] * 3).view(3, 1, 1)
    return (difference * std / (processor.rescale_factor if processor.do_rescale else 1.0)).abs()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_pictures_are_those_of_transformers(name, size):
    processor = PROCESSORS[name]
    seen = picture(*size)
    theirs = torch.from_numpy(np.asarray(processor(seen, return_tensors="np")["pixel_values"]))
    ours = Pixels(processor)(seen[None])
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    apart = grey_levels(processor, ours - theirs)
    assert (apart > 1.01).float().mean() < 2e-4  # of much enlarged edges some pixels round twice
    assert apart.max() <= 2.01
    assert apart.mean() < 0.05


def test_many_sizes_go_into_one_batch():
    pixels = Pixels(PROCESSORS["clip"])
    several = [picture(*size, seed=i) for i, size in enumerate(SIZES)]
    assert torch.equal(pixels(several), torch.cat([pixels(one[None]) for one in several]))


def test_arrays_lists_and_tensors_are_the_same():
    pixels = Pixels(PROCESSORS["siglip"])
    several = np.stack([picture(50, 70, seed=i) for i in range(4)])
    assert torch.equal(pixels(several), pixels(list(several)))
    assert torch.equal(pixels(several), pixels(torch.from_numpy(several)))


def test_pictures_are_left_as_they_were():
    several = np.stack([picture(64, 64)] * 2)
    before = several.copy()
    Pixels(PROCESSORS["clip-raw"])(several)
    Pixels(PROCESSORS["clip"])(several)
    assert np.array_equal(several, before)
