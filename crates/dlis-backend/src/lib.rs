//! The words every backend shares: operations, tensors, kernels, executors and programs.
