"""Training speed of bigzoo against plain Keras and PyTorch, measured in one run.

python -m benchmarks                 # everything; about half an hour on 2 cores
python -m benchmarks --quick         # a smoke test of a minute or two; its figures mean nothing
python -m benchmarks --help
"""
