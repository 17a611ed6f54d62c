//! Chooses an algorithm per layer, plans memory, runs sessions and traces layers.
