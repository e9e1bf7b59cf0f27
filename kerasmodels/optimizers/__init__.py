"""What Keras lacks in optimization: full-batch minimization, Caffe's SGD, Graves' RMSProp, lazy Adam, the book's
rules, and strategies.

result = km.optimizers.minimize(model, (x, y), method="lbfgs")     # the weights of a compiled model
result = km.optimizers.minimize(loss, variables=[picture])         # any scalar function of any variables
model.fit(x, y, callbacks=[km.optimizers.HandOver((x, y))])        # Adam first, then L-BFGS
"""

from kerasmodels.optimizers.graves_rmsprop import GravesRMSprop
from kerasmodels.optimizers.layerwise_sgd import LayerwiseSGD
from kerasmodels.optimizers.lazy_adam import LazyAdam
from kerasmodels.optimizers.minimize import METHOD_NAMES, MinimizeResult, minimize
from kerasmodels.optimizers.nesterov_rmsprop import BOOK, NesterovRMSprop
from kerasmodels.optimizers.strategies import Continuation, Curriculum, HandOver, PolyakAveraging, pretrain_layers

__all__ = [
    "BOOK",
    "METHOD_NAMES",
    "Continuation",
    "Curriculum",
    "GravesRMSprop",
    "HandOver",
    "LayerwiseSGD",
    "LazyAdam",
    "MinimizeResult",
    "NesterovRMSprop",
    "PolyakAveraging",
    "minimize",
    "pretrain_layers",
]
