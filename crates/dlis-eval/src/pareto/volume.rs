//! The hypervolume of a front: how much of the space it covers.

use super::{Objective, ParetoError, costs, nondominated};

/// The area, or volume, of all that is worse than some point and better than `reference`.
///
/// Exact, in two dimensions by a sweep and in three by a sweep over such sweeps (n^2 log n).
/// Points that are not better than the reference in every objective add nothing; dominated ones
/// add nothing either, so there is no need to pass the front alone. A point that is infinitely
/// good covers an infinite volume. See Zitzler and Thiele, *Multiobjective Evolutionary
/// Algorithms: A Comparative Case Study and the Strength Pareto Approach* (1999).
///
/// Its unit is the product of the units of the objectives, and it depends on the reference:
/// compare volumes only where that is the same.
///
/// # Errors
/// [`ParetoError`] unless there are two or three objectives, each with one finite reference value
/// and one value per point.
pub fn hypervolume<P: AsRef<[f64]>>(
    points: &[P],
    objectives: &[Objective],
    reference: &[f64],
) -> Result<f64, ParetoError> {
    let dimensions = objectives.len();
    if !(2..=3).contains(&dimensions) {
        return Err(ParetoError::Dimensions { found: dimensions });
    }
    if reference.len() != dimensions {
        return Err(ParetoError::ReferenceLength { expected: dimensions, found: reference.len() });
    }
    if let Some(objective) = reference.iter().position(|value| !value.is_finite()) {
        return Err(ParetoError::ReferenceNotFinite { objective });
    }
    let limits: Vec<f64> = reference.iter().zip(objectives).map(|(&v, objective)| objective.cost(v)).collect();
    let mut inside = costs(points, objectives)?;
    inside.retain(|(_, cost)| cost.iter().zip(&limits).all(|(cost, limit)| cost < limit));
    if inside.iter().any(|(_, cost)| cost.contains(&f64::NEG_INFINITY)) {
        return Ok(f64::INFINITY);
    }
    let members = nondominated(inside);
    if dimensions == 2 {
        let corners: Vec<(f64, f64)> = members.iter().map(|(_, cost)| (cost[0], cost[1])).collect();
        return Ok(area(&corners, limits[0], limits[1]));
    }

    let mut layers: Vec<(f64, f64, f64)> = members.iter().map(|(_, c)| (c[2], c[0], c[1])).collect();
    layers.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut corners: Vec<(f64, f64)> = Vec::with_capacity(layers.len());
    let mut volume = 0.0;
    for (index, &(depth, x, y)) in layers.iter().enumerate() {
        let at = corners.partition_point(|corner| *corner < (x, y));
        corners.insert(at, (x, y));
        let next = layers.get(index + 1).map_or(limits[2], |layer| layer.0);
        if next > depth {
            volume += area(&corners, limits[0], limits[1]) * (next - depth);
        }
    }
    Ok(volume)
}

/// The area between corners, in ascending order, and the limits. Dominated corners add nothing.
fn area(corners: &[(f64, f64)], limit_x: f64, limit_y: f64) -> f64 {
    let mut covered_above = limit_y;
    let mut area = 0.0;
    for &(x, y) in corners {
        if y < covered_above {
            area += (limit_x - x) * (covered_above - y);
            covered_above = y;
        }
    }
    area
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Objective::{Maximise, Minimise};
    use super::*;

    #[test]
    fn boxes_by_hand() {
        let both = [Minimise, Minimise];
        assert_eq!(hypervolume(&[[1.0, 2.0]], &both, &[4.0, 4.0]), Ok(6.0));
        assert_eq!(hypervolume(&[[1.0, 2.0], [2.0, 1.0]], &both, &[4.0, 4.0]), Ok(8.0));
        let three = [Maximise, Minimise, Maximise];
        assert_eq!(hypervolume(&[[3.0, 1.0, 5.0]], &three, &[1.0, 4.0, 1.0]), Ok(24.0));
    }

    #[test]
    fn points_at_or_beyond_the_reference_add_nothing() {
        let both = [Minimise, Maximise];
        let points = [[4.0, 9.0], [1.0, 0.0], [f64::NAN, 9.0], [f64::INFINITY, 9.0]];
        assert_eq!(hypervolume(&points, &both, &[4.0, 0.0]), Ok(0.0));
        assert_eq!(hypervolume(&[[1.0, f64::INFINITY]], &both, &[4.0, 0.0]), Ok(f64::INFINITY));
        assert_eq!(hypervolume::<[f64; 2]>(&[], &both, &[4.0, 0.0]), Ok(0.0));
    }

    #[test]
    fn arguments_are_checked() {
        let volume = |objectives: &[Objective], reference: &[f64]| hypervolume(&[[1.0, 2.0]], objectives, reference);
        assert_eq!(volume(&[Minimise], &[1.0]), Err(ParetoError::Dimensions { found: 1 }));
        let both = [Minimise; 2];
        assert_eq!(volume(&both, &[1.0]), Err(ParetoError::ReferenceLength { expected: 2, found: 1 }));
        assert_eq!(volume(&both, &[1.0, f64::NAN]), Err(ParetoError::ReferenceNotFinite { objective: 1 }));
        let wrong = Err(ParetoError::PointLength { point: 0, expected: 3, found: 2 });
        assert_eq!(volume(&[Minimise; 3], &[9.0; 3]), wrong);
    }

    /// Counts the unit cells of a grid that some point covers.
    fn cells(points: &[Vec<i8>], reference: i8) -> u32 {
        let dimensions = points.first().map_or(2, Vec::len);
        let count = |cell: [i8; 3]| points.iter().any(|p| p.iter().zip(cell).all(|(&p, c)| p <= c));
        let range = 0..reference;
        let deep = if dimensions == 3 { 0..reference } else { 0..1 };
        let mut covered = 0;
        for x in range.clone() {
            for y in range.clone() {
                covered += deep.clone().filter(|&z| count([x, y, z])).map(|_| 1).sum::<u32>();
            }
        }
        covered
    }

    proptest! {
        /// On whole numbers the sweeps must count cells exactly, whichever way is better.
        #[test]
        fn volume_is_the_number_of_covered_cells(
            points in (2_usize..4).prop_flat_map(|dimensions|
                proptest::collection::vec(proptest::collection::vec(0_i8..10, dimensions), 1..14)),
            flip in proptest::collection::vec(any::<bool>(), 3),
        ) {
            let dimensions = points[0].len();
            let sign = |at: usize| if flip[at] { -1.0 } else { 1.0 };
            let objectives: Vec<Objective> =
                (0..dimensions).map(|at| if flip[at] { Maximise } else { Minimise }).collect();
            let signed: Vec<Vec<f64>> = points
                .iter()
                .map(|p| p.iter().enumerate().map(|(at, &v)| f64::from(v) * sign(at)).collect())
                .collect();
            let reference: Vec<f64> = (0..dimensions).map(|at| 8.0 * sign(at)).collect();
            let volume = hypervolume(&signed, &objectives, &reference).unwrap();
            prop_assert_eq!(volume, f64::from(cells(&points, 8)));
        }

        /// For any numbers: the sum over all subsets, with signs, of what they cover in common.
        #[test]
        fn volume_agrees_with_inclusion_and_exclusion(
            points in (2_usize..4).prop_flat_map(|dimensions|
                proptest::collection::vec(proptest::collection::vec(0.0_f64..1.2, dimensions), 1..8)),
        ) {
            let dimensions = points[0].len();
            let mut expected = 0.0;
            for subset in 1_u32..1 << points.len() {
                let chosen = (0..points.len()).filter(|&i| subset >> i & 1 == 1);
                let common: f64 = (0..dimensions)
                    .map(|at| chosen.clone().map(|i| (1.0 - points[i][at]).max(0.0)).fold(1.0, f64::min))
                    .product();
                expected += if subset.count_ones() % 2 == 1 { common } else { -common };
            }
            let objectives = vec![Minimise; dimensions];
            let volume = hypervolume(&points, &objectives, &vec![1.0; dimensions]).unwrap();
            prop_assert!((volume - expected).abs() < 1e-9, "{} {}", volume, expected);
        }
    }
}
