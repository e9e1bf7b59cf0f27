"""Draws closed_form_matting.jpg: python docs/pictures/closed_form_matting.py (photo: scikit-image, CC0)."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from kerasmodels.data import write_image
from kerasmodels.models.closed_form_matting import Config, estimate_foreground, matte

# In pixels of the cat, 451 x 300: strokes well inside it and well outside.
INSIDE = [
    [(255, 70), (200, 95), (185, 150), (210, 200), (260, 215)],
    [(240, 60), (300, 75), (320, 120), (300, 180), (250, 190)],
    [(150, 250), (215, 240), (290, 270), (360, 270)],
]
OUTSIDE = [[(8, 8), (150, 10), (120, 40)], [(8, 8), (10, 130)], [(440, 10), (440, 110)], [(330, 6), (440, 8)]]

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
grey = np.repeat(alpha[..., None], 3, axis=-1)
rows = [np.concatenate([photo / 255, shown / 255], axis=1), np.concatenate([grey, new], axis=1)]
picture = np.rint(255 * np.concatenate(rows)).astype("uint8")
print(write_image(Path(__file__).with_suffix(".jpg"), picture))
