"""Scripts run by path in a fresh Python process. They import runtimes and NumPy, and nothing of kerasmodels."""
