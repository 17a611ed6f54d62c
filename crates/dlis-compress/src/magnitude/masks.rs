//! Which elements of weights survive.

use ndarray::ArrayD;

use super::Pattern;

/// Rows and columns of a weight in the matrix view.
fn matrix(dims: &[usize]) -> [usize; 2] {
    [dims.first().copied().unwrap_or(1), dims.iter().skip(1).product()]
}

/// A group of elements that stand or fall together.
struct Group {
    /// Mean of the squares.
    score: f32,
    weight: usize,
    index: usize,
}

/// The groups of a weight: a grid over its matrix view, the last ones of a row or column cut off.
#[derive(Clone, Copy)]
struct Grid {
    matrix: [usize; 2],
    block: [usize; 2],
}

impl Grid {
    fn of(weight: &ArrayD<f32>, pattern: Pattern) -> Self {
        Self { matrix: matrix(weight.shape()), block: pattern.block() }
    }

    fn across(&self) -> usize {
        self.matrix[1].div_ceil(self.block[1])
    }

    fn len(&self) -> usize {
        self.matrix[0].div_ceil(self.block[0]) * self.across()
    }

    /// Row-major indices of a group's elements.
    fn elements(self, group: usize) -> impl Iterator<Item = usize> {
        let [row, column] = [group / self.across() * self.block[0], group % self.across() * self.block[1]];
        let rows = row..(row + self.block[0]).min(self.matrix[0]);
        let columns = column..(column + self.block[1]).min(self.matrix[1]);
        rows.flat_map(move |row| columns.clone().map(move |column| row * self.matrix[1] + column))
    }
}

/// Masks under which at least `sparsity` of all elements together are false, and as few as the pattern allows. Zeros
/// are false before anything else; each weight keeps its largest group, so that no layer is cut off.
pub(super) fn by_sparsity(weights: &[ArrayD<f32>], sparsity: f64, pattern: Pattern) -> Vec<ArrayD<bool>> {
    let mut masks: Vec<ArrayD<bool>> = weights.iter().map(|weight| weight.mapv(|value| value != 0.0)).collect();
    let mut groups: Vec<Group> = Vec::new();
    let mut elements = 0;
    let mut zeros = 0;
    for (index, weight) in weights.iter().enumerate() {
        let grid = Grid::of(weight, pattern);
        let values = standard(weight);
        let start = groups.len();
        groups.extend((0..grid.len()).map(|group| {
            let (sum, count) = grid
                .elements(group)
                .fold((0f32, 0u8), |(sum, count), element| (sum + values[element] * values[element], count + 1));
            Group { score: sum / f32::from(count), weight: index, index: group }
        }));
        // The largest group is kept: it is no candidate.
        let largest = (start..groups.len()).max_by(|&a, &b| groups[a].score.total_cmp(&groups[b].score));
        if let Some(largest) = largest {
            groups.swap_remove(largest);
        }
        elements += weight.len();
        zeros += masks[index].iter().filter(|&&keep| !keep).count();
    }
    groups
        .sort_unstable_by(|a, b| a.score.total_cmp(&b.score).then(a.weight.cmp(&b.weight)).then(a.index.cmp(&b.index)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is one")]
    let target = (sparsity * elements as f64).round() as usize;
    for group in &groups {
        if zeros >= target {
            break;
        }
        let grid = Grid::of(&weights[group.weight], pattern);
        let mask = masks[group.weight].as_slice_mut();
        let Some(mask) = mask else { continue };
        for element in grid.elements(group.index) {
            zeros += usize::from(std::mem::replace(&mut mask[element], false));
        }
    }
    masks
}

/// Elements in row-major order.
fn standard(weight: &ArrayD<f32>) -> Vec<f32> {
    weight.iter().copied().collect()
}

/// The mask under which only magnitudes above `quality` standard deviations are true. The deviation is taken over the
/// elements that are not zero, which are what is left of the layer.
pub(super) fn by_deviation(weight: &ArrayD<f32>, quality: f64) -> ArrayD<bool> {
    let left = || weight.iter().filter(|&&value| value != 0.0).map(|&value| f64::from(value));
    let count = left().count().max(1) as f64;
    let mean = left().sum::<f64>() / count;
    let deviation = (left().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count).sqrt();
    let largest = weight.iter().fold(0f32, |max, value| max.max(value.abs()));
    weight.mapv(|value| {
        let magnitude = value.abs();
        magnitude != 0.0 && (f64::from(magnitude) > quality * deviation || magnitude == largest)
    })
}

/// The mask under which the 2 largest of every 4 consecutive input channels of a tap are true.
pub(super) fn two_of_four(weight: &ArrayD<f32>) -> ArrayD<bool> {
    let mut mask = weight.mapv(|value| value != 0.0);
    let inputs = weight.shape().get(1).copied().unwrap_or(1);
    let taps: usize = weight.shape().iter().skip(2).product();
    let values = standard(weight);
    let Some(mask_slice) = mask.as_slice_mut() else { return mask };
    for filter in 0..weight.shape().first().copied().unwrap_or(1) {
        for tap in 0..taps {
            for first in (0..inputs).step_by(4) {
                let element = |channel: usize| (filter * inputs + channel) * taps + tap;
                let mut group: Vec<usize> = (first..(first + 4).min(inputs)).map(element).collect();
                // Stable: of equal magnitudes the earlier channels are kept.
                group.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
                for &element in group.iter().skip(2) {
                    mask_slice[element] = false;
                }
            }
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weight(dims: &[usize]) -> impl Strategy<Value = ArrayD<f32>> + use<> {
        let dims = dims.to_vec();
        let len = dims.iter().product::<usize>();
        proptest::collection::vec(prop_oneof![3 => -1f32..1.0, 1 => Just(0.0)], len)
            .prop_map(move |values| ArrayD::from_shape_vec(dims.clone(), values).unwrap())
    }

    fn zeros(masks: &[ArrayD<bool>]) -> usize {
        masks.iter().flat_map(|mask| mask.iter()).filter(|&&keep| !keep).count()
    }

    const PATTERNS: [Pattern; 5] =
        [Pattern::Unstructured, Pattern::OneByFour, Pattern::FourByOne, Pattern::EightByOne, Pattern::SixteenByOne];

    proptest! {
        #[test]
        fn masks_reach_their_sparsity_and_go_no_further_than_a_group(
            a in weight(&[20, 6, 3, 3]),
            b in weight(&[13, 10]),
            sparsity in 0f64..0.7,
            pattern in 0usize..5,
        ) {
            let pattern = PATTERNS[pattern];
            let masks = by_sparsity(&[a.clone(), b.clone()], sparsity, pattern);
            let before = a.iter().chain(&b).filter(|&&value| value == 0.0).count();
            let target = (sparsity * (a.len() + b.len()) as f64).round();
            let [rows, columns] = pattern.block();
            prop_assert!(zeros(&masks) as f64 >= target);
            prop_assert!((zeros(&masks) as f64) < target.max((before + 1) as f64) + (rows * columns) as f64);
            // Never regrown: what is zero is masked.
            prop_assert!(a.iter().zip(&masks[0]).all(|(&value, &keep)| !(keep && value == 0.0)));
        }

        #[test]
        fn higher_sparsities_contain_lower_ones(a in weight(&[16, 4, 3, 3]), low in 0f64..0.9, more in 0f64..0.1) {
            let weights = [a];
            for pattern in PATTERNS {
                let low_mask = &by_sparsity(&weights, low, pattern)[0];
                let high_mask = &by_sparsity(&weights, low + more, pattern)[0];
                prop_assert!(low_mask.iter().zip(high_mask).all(|(&low, &high)| low || !high));
            }
        }

        #[test]
        fn two_of_four_keeps_the_largest(a in weight(&[3, 10, 2, 2])) {
            let mask = two_of_four(&a);
            for filter in 0..3 {
                for tap in 0..4 {
                    for first in [0, 4, 8] {
                        let group: Vec<[usize; 4]> =
                            (first..10.min(first + 4)).map(|c| [filter, c, tap / 2, tap % 2]).collect();
                        let kept: Vec<_> = group.iter().filter(|&&at| mask[&at[..]]).collect();
                        prop_assert!(kept.len() <= 2);
                        for &at in &group {
                            let larger = group.iter().filter(|&&o| a[&o[..]].abs() > a[&at[..]].abs()).count();
                            prop_assert!(larger > 0 || mask[&at[..]] || a[&at[..]] == 0.0 || kept.len() == 2);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_smallest_go_first_and_the_largest_group_stays() {
        let a = ndarray::arr2(&[[0.1f32, -0.9], [0.2, 0.3]]).into_dyn();
        let mask = |sparsity| by_sparsity(std::slice::from_ref(&a), sparsity, Pattern::Unstructured)[0].clone();
        assert_eq!(mask(0.5), ndarray::arr2(&[[false, true], [false, true]]).into_dyn());
        assert_eq!(mask(0.99), ndarray::arr2(&[[false, true], [false, false]]).into_dyn());
    }

    #[test]
    fn deviations_are_those_of_the_layer() {
        let a = ndarray::arr1(&[1.0f32, -1.0, 3.0, -3.0]).into_dyn();
        // The standard deviation is sqrt(5).
        assert_eq!(by_deviation(&a, 0.5), ndarray::arr1(&[false, false, true, true]).into_dyn());
        assert!(by_deviation(&a, 0.4).iter().all(|&keep| keep));
        assert_eq!(by_deviation(&a, 9.0).iter().filter(|&&keep| keep).count(), 2, "the largest stay");
    }
}
