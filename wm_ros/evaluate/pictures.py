"""How alike two pictures are: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

import cv2
import numpy as np

#: Gaussian windows of 11x11 with a deviation of 1.5, and the constants, after Wang et al. 2004.
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
#: Equal pictures have no noise; a byte's rounding alone would leave 59 dB.
MOST_DB = 59.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return 10 lg(255^2 / mean squared difference) of uint8 pictures, decibels, at most 59."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return MOST_DB if error == 0 else min(MOST_DB, 10.0 * np.log10(255.0 ** 2 / error))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """
    Return the mean structural similarity of uint8 pictures (H, W, 3), over windows and channels.

    Wang, Bovik, Sheikh, Simoncelli, Image quality assessment, IEEE TIP 2004; windows lie wholly
    inside the picture.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    edge = WINDOW // 2

    def mean(x: np.ndarray) -> np.ndarray:
        smooth = cv2.GaussianBlur(x, (WINDOW, WINDOW), SIGMA)
        return smooth[edge:-edge, edge:-edge]

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a ** 2, mean(b * b) - mean_b ** 2
    cov = mean(a * b) - mean_a * mean_b
    values = ((2 * mean_a * mean_b + C1) * (2 * cov + C2)
              / ((mean_a ** 2 + mean_b ** 2 + C1) * (var_a + var_b + C2)))
    return float(values.mean())
