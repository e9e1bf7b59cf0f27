"""Weights of other people's code, read into our networks: Caffe, PyTorch, keras.applications."""
