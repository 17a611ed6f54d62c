//! Experiments: stack points, grids, the resumable store, launchers and reports.
