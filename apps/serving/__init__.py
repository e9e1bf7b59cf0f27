"""A server for exported models: TensorFlow Serving's REST paths, the V2 protocol, and pictures in, pictures out."""
