//! Conformance suite: every operation, on odd shapes, of any backend against the plain reference.
