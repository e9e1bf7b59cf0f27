"""What Keras lacks in optimization: full-batch minimization by line-search methods, SGD as Caffe does it, lazy Adam.

result = km.optimizers.minimize(model, (x, y), method="lbfgs")     # the weights of a compiled model
result = km.optimizers.minimize_function(loss, [picture])          # any variables, any scalar function
"""

from kerasmodels.optimizers.layerwise_sgd import LayerwiseSGD
from kerasmodels.optimizers.lazy_adam import LazyAdam
from kerasmodels.optimizers.minimize import MinimizeResult, minimize, minimize_function

__all__ = ["LayerwiseSGD", "LazyAdam", "MinimizeResult", "minimize", "minimize_function"]
