"""Writes opencv_resize.npz beside itself: pictures of noise and what OpenCV's bilinear resize makes of them.

Run with `opencv-python-headless` and NumPy installed; the project itself does without OpenCV.
"""

from pathlib import Path

import cv2
import numpy as np

SIZES = ((23, 37), (64, 48), (9, 9), (32, 32), (64, 64), (1, 5), (101, 33))
SIDE = 32

if __name__ == "__main__":
    generator = np.random.default_rng(0)
    arrays = {}
    for number, (height, width) in enumerate(SIZES):
        picture = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        arrays[f"picture_{number}"] = picture
        arrays[f"resized_{number}"] = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    np.savez_compressed(Path(__file__).with_name("opencv_resize.npz"), version=cv2.__version__, **arrays)
