"""Fused kernels under the models: Triton for GPUs, native code for CPUs, each beside a slow twin in plain torch."""
