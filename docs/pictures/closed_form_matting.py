"""Draws closed_form_matting.jpg: python docs/pictures/closed_form_matting.py (its photo is scikit-image's, CC0)."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from kerasmodels.data import write_image
from kerasmodels.models.closed_form_matting import Config, matte
from kerasmodels.tasks.cut_out import estimate_foreground

# In pixels of the cat, 451 x 300: strokes well inside it and well outside.
INSIDE = [
    [(60, 30), (55, 60), (70, 110), (110, 150), (60, 190), (20, 180), (15, 290)],
    [(90, 12), (180, 8), (290, 12), (325, 70), (340, 120), (330, 180), (300, 220), (310, 260)],
    [(335, 10), (362, 45)],
    [(60, 290), (150, 240), (230, 285), (300, 285)],
]
OUTSIDE = [
    [(6, 6), (14, 60), (10, 100)],
    [(352, 225), (345, 290)],
    [(410, 6), (400, 60), (390, 110), (385, 190), (400, 290)],
    [(440, 10), (440, 290)],
]

photo = data.chelsea()
marks = Image.new("L", photo.shape[1::-1], 128)
for strokes, shade in ((INSIDE, 255), (OUTSIDE, 0)):
    for stroke in strokes:
        ImageDraw.Draw(marks).line(stroke, fill=shade, width=9, joint="curve")
trimap = np.asarray(marks)
known = trimap != 128
alpha, _ = matte(photo, known, trimap / 255, Config(softness=None))
front, _ = estimate_foreground(photo / 255, alpha)
green = np.array([0.35, 0.6, 0.45])
new = alpha[..., None] * front + (1 - alpha)[..., None] * green
shown = np.where(known[..., None], trimap[..., None], photo)
gray = np.repeat(alpha[..., None], 3, axis=-1)
rows = [np.concatenate([photo / 255, shown / 255], axis=1), np.concatenate([gray, new], axis=1)]
picture = np.rint(255 * np.concatenate(rows)).astype("uint8")
print(write_image(Path(__file__).with_suffix(".jpg"), picture))
