"""What is drawn for each sample: independent of its neighbours, uniform, and crops as torchvision draws them."""

import numpy as np
import pytest

from clip_jax.data.draws import ASPECT_RATIOS, NUMBERS, Draws

POSITIONS = np.arange(20_000)
DRAWS = Draws.at(0, POSITIONS)


def test_each_position_has_its_own_numbers():
    some = np.array([7, 19_999, 3])
    np.testing.assert_array_equal(Draws.at(0, some).numbers, DRAWS.numbers[some])
    assert len(np.unique(DRAWS.numbers)) == 20_000 * NUMBERS
    assert not (Draws.at(1, POSITIONS).numbers == DRAWS.numbers).any()
    far = Draws.at(0, POSITIONS[:10] + 10**12).numbers
    assert ((far >= 0) & (far < 1)).all()


def test_numbers_are_uniform_and_uncorrelated():
    for number in range(NUMBERS):
        counts, _ = np.histogram(DRAWS.numbers[:, number], 20, (0, 1))
        chi_squared = ((counts - 1000) ** 2 / 1000).sum()
        assert chi_squared < 60  # 19 degrees of freedom; one in 100,000 is above 55
    correlations = np.corrcoef(DRAWS.numbers.T) - np.eye(NUMBERS)
    assert np.abs(correlations).max() < 0.035
    assert abs(np.corrcoef(DRAWS.numbers[:-1, 0], DRAWS.numbers[1:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize("size", [(384, 512), (1, 1), (500, 20), (20, 3000), (224, 224)], ids=str)
@pytest.mark.parametrize("scale", [(0.9, 1.0), (0.08, 1.0), (1.0, 1.0)], ids=str)
def test_crops_lie_in_the_image_and_keep_their_ratios(size, scale):
    sizes = np.tile(size, (len(POSITIONS), 1))
    top, left, height, width = DRAWS.crops(sizes, scale).T
    assert ((top >= 0) & (left >= 0) & (height >= 1) & (width >= 1)).all()
    assert ((top + height <= size[0]) & (left + width <= size[1])).all()
    if min(size) > 100:
        ratios, areas = width / height, height * width / (size[0] * size[1])
        assert ratios.min() > ASPECT_RATIOS[0] * 0.98
        assert ratios.max() < ASPECT_RATIOS[1] * 1.02
        assert areas.max() <= scale[1]
        if scale == (0.08, 1.0):
            assert areas.min() == pytest.approx(0.08, abs=0.01)


def test_crops_are_distributed_as_torchvisions():
    """Means and deviations of RandomResizedCrop's own draws for 384 x 512."""
    torch = pytest.importorskip("torch")
    from support.open_clip_shim import import_open_clip

    import_open_clip()  # torchvision may need its help
    from torchvision import transforms

    torch.manual_seed(0)
    image = torch.zeros(3, 384, 512)
    for scale in ((0.9, 1.0), (0.08, 1.0)):
        theirs = np.array(
            [transforms.RandomResizedCrop.get_params(image, list(scale), list(ASPECT_RATIOS)) for _ in range(8000)]
        )
        ours = DRAWS.crops(np.tile((384, 512), (len(POSITIONS), 1)), scale)
        spread = theirs.std(axis=0)
        assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 0.06 * spread + 0.05).all()
        assert (np.abs(ours.std(axis=0) - spread) < 0.05 * spread + 0.05).all()


def test_captions_by_weight():
    taken = [DRAWS.caption(row, 3, (1.0, 1.0, 2.0)) for row in range(8000)]
    np.testing.assert_allclose(np.bincount(taken) / 8000, [0.25, 0.25, 0.5], atol=0.02)
    assert {DRAWS.caption(row, 1, (0.0, 1.0)) for row in range(50)} == {0}
    assert {DRAWS.caption(row, 5, ()) for row in range(200)} == {0, 1, 2, 3, 4}
