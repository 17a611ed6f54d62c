//! Whether a weight fulfils a constraint.

use dlis_formats::Weight;

use crate::Constraint;

/// How far a value may be from its grid, as a share of the grid's step: rounding of `q * scale` in f32.
const OFF_GRID: f64 = 1e-3;

impl Constraint {
    /// What is wrong with the weight under this constraint, if anything.
    pub fn broken_by(&self, weight: &Weight) -> Option<String> {
        let dense = weight.to_f32();
        match self {
            Self::Mask(mask) => masked(mask, weight),
            Self::Ternary { .. } => {
                let mut levels: Vec<f32> = Vec::with_capacity(2);
                for &value in dense.iter().filter(|&&value| value != 0.0) {
                    if !levels.contains(&value) {
                        levels.push(value);
                    }
                    if levels.len() > 2 {
                        return Some(format!("{levels:?} and more are not two magnitudes and 0"));
                    }
                }
                None
            }
            Self::Int { bits, mask } => {
                let most = largest(*bits);
                for (row, values) in dense.outer_iter().enumerate() {
                    let step = values.iter().fold(0f64, |max, &value| max.max(f64::from(value.abs()))) / most;
                    let off = |&&value: &&f32| {
                        let q = f64::from(value) / step;
                        step > 0.0 && (q - q.round()).abs() > OFF_GRID
                    };
                    if let Some(value) = values.iter().find(off) {
                        return Some(format!("row {row}: {value} is not on the {bits}-bit grid of step {step}"));
                    }
                }
                mask.as_ref().and_then(|mask| masked(mask, weight))
            }
        }
    }
}

/// The largest integer of so many bits on a symmetric grid.
pub(crate) fn largest(bits: u8) -> f64 {
    f64::from((1i32 << (bits.clamp(2, 16) - 1)) - 1)
}

fn masked(mask: &ndarray::ArrayD<bool>, weight: &Weight) -> Option<String> {
    if mask.shape() != weight.dims() {
        return Some(format!("its mask has the shape {:?}, not {:?}", mask.shape(), weight.dims()));
    }
    let dense = weight.to_f32();
    let broken = mask.iter().zip(&dense).position(|(&keep, &value)| !keep && value != 0.0);
    broken.map(|index| format!("element {index} is not zero, but masked"))
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, arr2};

    use super::*;

    fn weight(rows: &[[f32; 3]]) -> Weight {
        Weight::F32(arr2(rows).into_dyn())
    }

    #[test]
    fn masks() {
        let mask = arr2(&[[true, false, true]]).into_dyn();
        assert_eq!(Constraint::Mask(mask.clone()).broken_by(&weight(&[[1.0, 0.0, 0.0]])), None);
        assert!(Constraint::Mask(mask).broken_by(&weight(&[[1.0, 0.5, 0.0]])).is_some());
        assert!(Constraint::Mask(arr1(&[true]).into_dyn()).broken_by(&weight(&[[1.0; 3]])).is_some());
    }

    #[test]
    fn ternary() {
        let ternary = Constraint::Ternary { threshold: 0.05 };
        assert_eq!(ternary.broken_by(&weight(&[[0.5, -0.25, 0.0], [0.5, 0.0, -0.25]])), None);
        assert!(ternary.broken_by(&weight(&[[0.5, -0.25, 0.0], [0.4, 0.0, -0.25]])).is_some());
    }

    #[test]
    fn grids() {
        let int = |mask| Constraint::Int { bits: 4, mask };
        assert_eq!(int(None).broken_by(&weight(&[[0.7, -0.2, 0.0], [0.0; 3]])), None);
        assert!(int(None).broken_by(&weight(&[[0.7, -0.25, 0.0]])).is_some());
        let mask = arr2(&[[true, false, true]]).into_dyn();
        assert!(int(Some(mask)).broken_by(&weight(&[[0.7, -0.2, 0.0]])).is_some());
    }
}
