"""What ``tools/fuzz.py`` is made of: seeds, mutations, targets and the workers that run them.

Every input follows from the seed, the target's name and the input's number alone.
"""
