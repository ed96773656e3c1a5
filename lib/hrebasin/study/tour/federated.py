"""One-shot federated averaging, for notebook 30: clients train alone on their own images, a server merges once."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch.nn.functional import one_hot

from ...bank import Bank
from ...evaluation import accuracy
from ...images.sources import Images
from ...merging.distillation import distilled, fitted
from ...merging.ensemble import ensemble
from ...merging.looks import ENSEMBLE, LOOKS, RIVALS
from ...merging.methods import MERGES
from ...networks import Architecture
from ...progress import track
from ...random_streams import Seed, generator, seed_of
from ...resources import side_by_side
from ..figures.style import SCREEN, draw_points, shape, styled
from ..groups import PERCENT

LEARNING_RATE = 1e-3  # of Adam
FEWEST = 10  # images that every client has; shares are drawn again until it does
DRAWS = 1000  # of shares at most
MERGED = ("naive", "tree", "merge-many", "cycle-consistent")
WAYS = ("clients", *MERGED, "ensemble", "distilled")
SHOWN = LOOKS | RIVALS | {
    "clients": ("a client alone", "#777777"),
    "ensemble": ENSEMBLE,
    "distilled": ("ensemble distilled into MergeMany's", "#882255"),
}  # fmt: skip


def shares(labels: torch.Tensor, clients: int, alpha: float, *, seed: Seed) -> list[torch.Tensor]:
    """Places of each client's images: of every class, shares are drawn from a Dirichlet distribution.

    Args:
        labels: (image,).
        clients: how many.
        alpha: all of the distribution's parameters; clients hold few classes where it is small, all alike where large.
        seed: of the draws.

    Raises:
        ValueError: too few images for `FEWEST` each, an alpha that is not positive, or one so small that a client
            has fewer in each of `DRAWS` draws.
    """
    if alpha <= 0 or len(labels) < 2 * FEWEST * clients:
        raise ValueError(f"{len(labels)} images cannot be shared by {clients} clients with alpha {alpha}")
    stream = np.random.default_rng(seed_of(f"federated/{seed}/{clients}/{alpha}"))
    for _ in range(DRAWS):
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for label in np.unique(labels.numpy()):
            places = stream.permutation(np.flatnonzero(labels.numpy() == label))
            ends = np.round(np.cumsum(stream.dirichlet([alpha] * clients)) * len(places)).astype(int)
            for client, part in enumerate(np.split(places, ends[:-1])):
                parts[client].append(part)
        joined = [torch.from_numpy(np.sort(np.concatenate(part))) for part in parts]
        if min(map(len, joined)) >= FEWEST:
            return joined
    raise ValueError(
        f"alpha {alpha} is too small to share {len(labels)} images by {clients} clients: in {DRAWS} draws one of them "
        f"had fewer than {FEWEST}"
    )


def one_shot(
    images: Images,
    unlabelled: torch.Tensor,
    test: Images,
    *,
    clients: Sequence[int],
    alphas: Sequence[float],
    repeats: int,
    widths: Sequence[int],
    epochs: int,
    seed: Seed = 0,
) -> xr.Dataset:
    """Accuracy of what a server makes of clients' networks, and what is sent for it.

    Args:
        images: that clients share.
        unlabelled: pixels at the server, for distilling.
        test: to be accurate on.
        clients: how many, powers of two.
        alphas: of `shares`.
        repeats: of everything, with other shares and initial weights.
        widths: of the hidden layers of all networks, which start from different weights.
        epochs: of every client's training, with Adam.
        seed: of all draws.

    Returns:
        ``accuracy`` (repeat, alpha, client, way); ``up`` (client,), what all clients send, and ``down`` (client, way),
        what all of them get, in MB.
    """
    mean, std = images.statistics()
    architecture = Architecture(tuple(widths), len(images.classes), images.shape, mean, std)
    found = np.full((repeats, len(alphas), len(clients), len(WAYS)), np.nan)
    places = track(list(np.ndindex(*found.shape[:3])), label="federated", unit="round")
    for repeat, a, c in places:
        name = f"{seed}/{repeat}/{clients[c]}/{alphas[a]}"
        parts = shares(images.labels, clients[c], alphas[a], seed=f"{seed}/{repeat}")
        bank = _trained(architecture, images, parts, epochs, name)
        found[repeat, a, c] = [float(accuracy(each, test).mean()) for each in _ways(bank, unlabelled, name)]
    return _dataset(found, clients, alphas, architecture.n_parameters * 4 / 1e6)


def _trained(architecture: Architecture, images: Images, parts: list[torch.Tensor], epochs: int, seed: Seed) -> Bank:
    """A network a client, each from weights of its own."""

    def alone(client: int) -> Bank:
        stream = generator(f"federated/{seed}/client-{client}")
        start = Bank(architecture, {name: tensor[None] for name, tensor in architecture.initial(stream).items()})
        targets = one_hot(images.labels[parts[client]], len(images.classes)).float()
        how = {"seed": f"{seed}/{client}", "epochs": epochs, "learning_rate": LEARNING_RATE}
        return fitted(start, images.pixels[parts[client]], targets, **how)

    return Bank.concat(side_by_side(alone, range(len(parts)))).relabel(node=range(len(parts)))


def _ways(bank: Bank, unlabelled: torch.Tensor, seed: Seed) -> list[Bank]:
    """What `WAYS` name."""
    merged = [MERGES[name](bank, seed) for name in MERGED]
    whole = ensemble(bank)
    return [bank, *merged, whole, distilled(merged[MERGED.index("merge-many")], whole, unlabelled, seed=seed)]


def _dataset(found: np.ndarray, clients: Sequence[int], alphas: Sequence[float], megabytes: float) -> xr.Dataset:
    n = np.array(clients)
    copies = np.stack([n * (0 if way == "clients" else n if way == "ensemble" else 1) for way in WAYS], axis=1)
    return xr.Dataset(
        {
            "accuracy": (("repeat", "alpha", "client", "way"), found, {"long_name": "test accuracy", "units": "1"}),
            "up": (("client",), n * megabytes, {"long_name": "sent by all clients", "units": "MB"}),
            "down": (("client", "way"), copies * megabytes, {"long_name": "sent to all clients", "units": "MB"}),
        },
        coords={
            "repeat": ("repeat", np.arange(len(found)), {"long_name": "repeat", "units": "1"}),
            "alpha": ("alpha", np.array(alphas, float), {"long_name": "parameter of the shares", "units": "1"}),
            "client": ("client", n, {"long_name": "clients", "units": "1"}),
            "way": ("way", np.array(WAYS, dtype=object), {"long_name": "what the server makes", "units": "1"}),
        },
    )


@styled
def draw(data: xr.Dataset) -> Figure:
    """Accuracy by number of clients, a panel an alpha: every repeat a point, the mean with its spread."""
    figure = Figure((SCREEN, 75 / 25.4))
    panels = np.atleast_1d(figure.subplots(1, data.sizes["alpha"], sharey=True))
    for axes, alpha in zip(panels, data.alpha.values, strict=True):
        for position, way in enumerate(data.way.values):
            shares = data.accuracy.sel(alpha=alpha, way=way).transpose("client", "repeat").values
            where = np.arange(data.sizes["client"]) + 0.07 * (position - len(data.way) / 2)
            title, colour = SHOWN[way]
            draw_points(axes, where, list(PERCENT * shares), title, color=colour, **shape(position))
        axes.set(title=f"alpha = {alpha:g}", xticks=range(data.sizes["client"]), xticklabels=data.client.values)
        axes.set_xlabel("clients (1)")
    panels[0].set_ylabel("test accuracy (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
