"""Markov kernels: Langevin, Hamiltonian, elliptical slice, preconditioned Crank-Nicolson, and how they adapt."""
