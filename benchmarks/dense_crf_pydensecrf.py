"""The peer, in an environment with pydensecrf2: lattices and ten iterations, as a worker of `interleaved`."""

from pathlib import Path

import numpy as np
import pydensecrf.densecrf as dcrf
from interleaved import Job, Prepared, serve


def prepare(job: Job) -> Prepared:
    folder = Path(job["folder"])
    picture = np.load(folder / "picture.npy")
    probabilities = np.load(folder / "probabilities.npy")
    height, width, labels = probabilities.shape
    unary = np.ascontiguousarray(-np.log(np.maximum(probabilities, 1e-5)).reshape(-1, labels).T)

    def infer() -> np.ndarray:
        field = dcrf.DenseCRF2D(width, height, labels)
        field.setUnaryEnergy(unary)
        field.addPairwiseGaussian(sxy=3, compat=3)
        field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=picture, compat=10)
        return np.array(field.inference(10))

    np.save(folder / "pydensecrf.npy", infer().T.reshape(height, width, labels))
    return infer, {"versions": {"pydensecrf2": "1.1", "numpy": np.__version__}}


if __name__ == "__main__":
    serve(prepare)
