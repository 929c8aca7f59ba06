"""Relaxation of many structures at once: their forces in one batch, each with an optimiser of its own.

``settings`` says what is asked for; ``fire`` and ``lbfgs`` are the optimisers, in the ``coordinates`` of one structure
with or without its cell; ``walker`` is one structure on its way, ``batch`` some of them together; ``run`` takes all of
them through a ``folder``, which is right at every instant. Inside: eV, Å; bar and GPa at the borders, by name.
"""
