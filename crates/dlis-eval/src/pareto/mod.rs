//! Pareto fronts, and how good they are.
//!
//! A point is a slice of numbers, one per objective. The rules, for [`dominates`], [`front`] and
//! [`hypervolume`] alike:
//! - **Dominance**: at least as good in every objective and better in one.
//! - **Ties**: points equal in every objective do not dominate each other, so duplicates of a
//!   member are members too. `-0.0` equals `0.0`.
//! - **NaN**: a point with a NaN, that is, one whose measurement failed, is never a member,
//!   dominates nothing and adds no volume.
//! - **Infinities** are ordinary extreme values.
//!
//! ```
//! use dlis_eval::pareto::{Objective::{Maximise, Minimise}, front, hypervolume};
//!
//! // Accuracy and milliseconds.
//! let points = [[0.93, 9.0], [0.92, 4.0], [0.91, 5.0], [0.88, 2.0]];
//! let objectives = [Maximise, Minimise];
//! assert_eq!(front(&points, &objectives)?, [0, 1, 3]); // 2 is worse than 1 in both
//! let volume = hypervolume(&points, &objectives, &[0.85, 10.0])?;
//! assert!((volume - (0.08 * 1.0 + 0.07 * 5.0 + 0.03 * 2.0)).abs() < 1e-12);
//! # Ok::<(), dlis_eval::pareto::ParetoError>(())
//! ```

mod volume;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use volume::hypervolume;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// More is better, e.g. accuracy.
    Maximise,
    /// Less is better, e.g. latency.
    Minimise,
}

impl Objective {
    /// The value such that less is better.
    fn cost(self, value: f64) -> f64 {
        match self {
            Self::Maximise => -value,
            Self::Minimise => value,
        }
    }
}

/// What is wrong with the points, the objectives or the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParetoError {
    /// A point has not one value per objective.
    #[error("point {point}: expected {expected} values, one per objective, found {found}")]
    PointLength {
        /// Index of the point.
        point: usize,
        /// Number of objectives.
        expected: usize,
        /// Number of its values.
        found: usize,
    },
    /// The reference has not one value per objective.
    #[error("reference: expected {expected} values, one per objective, found {found}")]
    ReferenceLength {
        /// Number of objectives.
        expected: usize,
        /// Number of its values.
        found: usize,
    },
    /// The reference has an infinite value or a NaN.
    #[error("reference: expected finite values, found another for objective {objective}")]
    ReferenceNotFinite {
        /// Index of the objective.
        objective: usize,
    },
    /// The volume is only computed in two and three dimensions.
    #[error("hypervolume: expected 2 or 3 objectives, found {found}")]
    Dimensions {
        /// Number of objectives.
        found: usize,
    },
}

/// Whether `a` is at least as good as `b` in every objective and better in one.
///
/// Values beyond the number of objectives are ignored; points with a NaN neither dominate nor
/// are dominated.
pub fn dominates(a: &[f64], b: &[f64], objectives: &[Objective]) -> bool {
    better(a, b, objectives.iter())
}

fn better<'a>(a: &[f64], b: &[f64], objectives: impl Iterator<Item = &'a Objective>) -> bool {
    let mut better = false;
    for ((&a, &b), objective) in a.iter().zip(b).zip(objectives) {
        match objective.cost(a).partial_cmp(&objective.cost(b)) {
            Some(Ordering::Less) => better = true,
            Some(Ordering::Equal) => {}
            Some(Ordering::Greater) | None => return false,
        }
    }
    better
}

/// The indices of the points no other point dominates, ascending.
///
/// With no objectives no point dominates another, and all are members. Takes time in proportion
/// to the number of points times the size of the front.
///
/// # Errors
/// [`ParetoError::PointLength`].
pub fn front<P: AsRef<[f64]>>(points: &[P], objectives: &[Objective]) -> Result<Vec<usize>, ParetoError> {
    let costs = costs(points, objectives)?;
    let mut members: Vec<usize> = nondominated(costs).into_iter().map(|(index, _)| index).collect();
    members.sort_unstable();
    Ok(members)
}

/// The members of the front of `costs`, in lexicographic order.
fn nondominated(mut costs: Vec<(usize, Vec<f64>)>) -> Vec<(usize, Vec<f64>)> {
    // In this order a point can only be dominated by one before it; and if that one is no member
    // itself, then by the member that dominates both.
    costs.sort_unstable_by(|a, b| lexicographic(&a.1, &b.1).then(a.0.cmp(&b.0)));
    let mut members: Vec<(usize, Vec<f64>)> = Vec::new();
    for candidate in costs {
        let minimise = std::iter::repeat(&Objective::Minimise);
        let dominated = members.iter().any(|member| better(&member.1, &candidate.1, minimise.clone()));
        if !dominated {
            members.push(candidate);
        }
    }
    members
}

fn lexicographic(a: &[f64], b: &[f64]) -> Ordering {
    let differing = a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
    differing.unwrap_or(Ordering::Equal)
}

/// The points without a NaN, each with its index, as values of which less is better.
fn costs<P: AsRef<[f64]>>(points: &[P], objectives: &[Objective]) -> Result<Vec<(usize, Vec<f64>)>, ParetoError> {
    let mut costs = Vec::with_capacity(points.len());
    for (point, values) in points.iter().enumerate() {
        let values = values.as_ref();
        if values.len() != objectives.len() {
            let (expected, found) = (objectives.len(), values.len());
            return Err(ParetoError::PointLength { point, expected, found });
        }
        if values.iter().all(|value| !value.is_nan()) {
            // Adding 0.0 turns -0.0 into 0.0, which compare as equal but sort apart.
            let cost = values.iter().zip(objectives).map(|(&v, objective)| objective.cost(v) + 0.0);
            costs.push((point, cost.collect()));
        }
    }
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Objective::{Maximise, Minimise};
    use super::*;

    #[test]
    fn duplicates_stay_and_signs_of_zero_do_not_matter() {
        let points = [[1.0, 0.0], [1.0, -0.0], [0.0, 0.0], [1.0, 1.0]];
        assert_eq!(front(&points, &[Maximise, Minimise]).unwrap(), [0, 1]);
        assert!(!dominates(&points[0], &points[1], &[Maximise, Minimise]));
    }

    #[test]
    fn nan_is_no_member_and_dominates_nothing() {
        let points = [[f64::NAN, 0.0], [1.0, 5.0], [0.5, f64::NAN]];
        assert_eq!(front(&points, &[Minimise, Minimise]).unwrap(), [1]);
        assert!(!dominates(&[f64::NAN, 0.0], &[1.0, 5.0], &[Minimise, Minimise]));
        assert!(!dominates(&[0.0, 0.0], &[1.0, f64::NAN], &[Minimise, Minimise]));
        assert!(front(&[[f64::NAN]], &[Maximise]).unwrap().is_empty());
    }

    #[test]
    fn infinities_are_extreme_values() {
        let points = [[f64::INFINITY, 1.0], [0.0, 1.0], [f64::INFINITY, f64::NEG_INFINITY]];
        assert_eq!(front(&points, &[Minimise, Minimise]).unwrap(), [1, 2]);
        assert_eq!(front(&points, &[Maximise, Minimise]).unwrap(), [2]);
    }

    #[test]
    fn lengths_are_checked_and_the_empty_cases_work() {
        let error = front(&[vec![1.0, 2.0], vec![1.0]], &[Minimise, Minimise]).unwrap_err();
        assert_eq!(error.to_string(), "point 1: expected 2 values, one per objective, found 1");
        assert!(front::<[f64; 2]>(&[], &[Minimise, Minimise]).unwrap().is_empty());
        assert_eq!(front(&[[], []], &[]).unwrap(), [0, 1]);
        assert_eq!(front(&[[3.0], [2.0], [2.0]], &[Minimise]).unwrap(), [1, 2]);
    }

    fn objective() -> impl Strategy<Value = Objective> {
        prop_oneof![Just(Maximise), Just(Minimise)]
    }

    /// Few distinct values, so that ties and duplicates are common.
    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            12 => (-3_i8..4).prop_map(f64::from),
            1 => Just(f64::NAN),
            1 => Just(-0.0),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NEG_INFINITY),
        ]
    }

    proptest! {
        /// The definition itself: a member is dominated by nothing, anything else that is no NaN
        /// by a member.
        #[test]
        fn front_is_what_the_definition_says(
            (objectives, points) in (1_usize..5).prop_flat_map(|dimensions| (
                proptest::collection::vec(objective(), dimensions),
                proptest::collection::vec(proptest::collection::vec(value(), dimensions), 0..25),
            )),
        ) {
            let members = front(&points, &objectives).unwrap();
            prop_assert!(members.is_sorted_by(|a, b| a < b));
            for (index, point) in points.iter().enumerate() {
                let by = |other: &Vec<f64>| dominates(other, point, &objectives);
                if members.contains(&index) {
                    prop_assert!(!points.iter().any(by), "{index} is dominated");
                } else if point.iter().all(|value| !value.is_nan()) {
                    prop_assert!(members.iter().any(|&m| by(&points[m])), "{index} is missing");
                }
            }
        }
    }
}
