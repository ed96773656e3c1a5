"""Colours as they are seen in grey print and by colour-blind readers, and whether they stay apart."""

import numpy as np

# Linear RGB to linear RGB. Grey: luminance of ITU-R BT.709; the others: Machado, Oliveira and Fernandes 2009, "A
# Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1.0.
VISIONS = {
    "full colour": np.eye(3),
    "grey": np.tile([0.2126, 0.7152, 0.0722], (3, 1)),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ.sum(1)  # D65


def linear(rgb) -> np.ndarray:
    """Linear RGB of sRGB values in [0, 1], (..., channel) (IEC 61966-2-1)."""
    rgb = np.asarray(rgb, dtype=float)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb, vision: str = "full colour") -> np.ndarray:
    """CIELAB (D65) of sRGB values in [0, 1] as a kind of vision of `VISIONS` sees them, (..., 3).

    >>> lab([1, 1, 1], "grey").round(1) + 0.0
    array([100.,   0.,   0.])
    """
    seen = np.clip(linear(rgb) @ VISIONS[vision].T, 0, 1) @ XYZ.T / WHITE
    f = np.where(seen > 216 / 24389, np.cbrt(seen), (24389 / 27 * seen + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def distance(a, b, vision: str = "full colour") -> float:
    """Distance of two sRGB colours in CIELAB: about 2 is just noticeable side by side, 10 is seen at a glance."""
    return float(np.linalg.norm(lab(a, vision) - lab(b, vision)))


def contrast(a, b) -> float:
    """Contrast ratio of two sRGB colours, from 1 to 21 (Web Content Accessibility Guidelines 2.2).

    >>> contrast([0, 0, 0], [1, 1, 1])
    21.0
    """
    dark, light = sorted(float(linear(colour) @ VISIONS["grey"][0]) for colour in (a, b))
    return round((light + 0.05) / (dark + 0.05), 6)
