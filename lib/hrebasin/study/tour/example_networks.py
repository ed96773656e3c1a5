"""An example of what a user may bring: networks as safetensors files and images as a folder."""

from pathlib import Path

from PIL import Image
from safetensors.torch import save_file

from ...files import replacing
from ...images.sources import Images, load_images
from ...networks import Architecture
from ...training.recipe import Recipe
from ...training.train import train


def write_example(
    folder: Path | str, *, data: Path | str, n: int = 4, widths=(256, 128), epochs: int = 12, n_images: int = 2000
) -> tuple[Path, Path, list[float], list[float]]:
    """Train some networks on the shipped sample and write them and the images as somebody else would have.

    Args:
        folder: where to write.
        data: the project's data folder.
        n: networks.
        widths: units of the hidden layers.
        epochs: passes over the training images.
        n_images: training images; a quarter as many test images.

    Returns:
        The folder of the networks, ``network-0.safetensors`` and so on with tensors as in a `torch.nn.Sequential`, and
        that of the images, ``{train,test}/<class>/<number>.png``; and the mean and standard deviation of each channel
        that the networks want the images normalised with.
    """
    networks, images = Path(folder) / "networks", Path(folder) / "example"
    networks.mkdir(parents=True)
    parts = {"train": n_images, "test": n_images // 4}
    loaded = {split: load_images("cifar10-sample", split, root=data, at_most=size) for split, size in parts.items()}
    for split, part in loaded.items():
        _write_images(part, images / split)
    mean, std = loaded["train"].statistics()
    architecture = Architecture(widths, len(loaded["train"].classes), loaded["train"].shape, mean, std)
    recipe = Recipe(batch_size=100, epochs=epochs)
    bank = train(architecture, loaded["train"], range(n), recipe, label="example networks")
    for number, network in enumerate(bank):
        # 0 flattens, 1 is the first affine layer, 2 a ReLU, 3 the second affine layer, ...
        places = {layer: 2 * position + 1 for position, layer in enumerate(architecture.layers)}
        tensors = {
            f"{places[layer]}.{kind}": getattr(getattr(network, layer), kind).detach()
            for layer in architecture.layers
            for kind in ("weight", "bias")
        }
        with replacing(networks / f"network-{number}.safetensors") as temporary:
            save_file(tensors, temporary)
    return networks, images, list(mean), list(std)


def _write_images(images: Images, folder: Path) -> None:
    for number, (pixels, label) in enumerate(zip(images.pixels, images.labels.tolist(), strict=True)):
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        with replacing(folder / images.classes[label] / f"{number}.png") as temporary:
            picture.save(temporary, compress_level=1)
