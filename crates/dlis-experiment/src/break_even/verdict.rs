//! From times at several sparsities to the sparsity at which a format pays.

/// When a format is faster than dense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// From this sparsity on, interpolated between two measured ones.
    From(f64),
    /// At every measured sparsity; the lowest of them.
    Always(f64),
    /// At none, or not at the highest.
    Never {
        /// The least time, over dense.
        best_ratio: f64,
        /// The sparsity where that was.
        at: f64,
    },
}

/// The verdict on `points`, each a sparsity and the time over that of dense, in any order. `None` if there are
/// none, or one is not a positive number.
///
/// The break-even is the sparsity from which on every measured point is faster: an earlier win that is lost
/// again is noise, or a fluke of one mask. Times change by factors, so that the logarithm of the ratio is
/// interpolated.
///
/// ```
/// use dlis_experiment::break_even::{Verdict, verdict};
/// let Some(Verdict::From(sparsity)) = verdict(&[(0.5, 2.0), (0.9, 0.5)]) else { panic!() };
/// assert!((sparsity - 0.7).abs() < 1e-12);
/// ```
pub fn verdict(points: &[(f64, f64)]) -> Option<Verdict> {
    let valid = |&(sparsity, ratio): &(f64, f64)| sparsity.is_finite() && ratio.is_finite() && ratio > 0.0;
    if !points.iter().all(valid) {
        return None;
    }
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let &(at, best_ratio) = points.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let Some(last_slow) = points.iter().rposition(|point| point.1 >= 1.0) else {
        return Some(Verdict::Always(points.first()?.0));
    };
    let Some(&(next, next_ratio)) = points.get(last_slow + 1) else {
        return Some(Verdict::Never { best_ratio, at });
    };
    let (slow, slow_ratio) = points[last_slow];
    let (above, below) = (slow_ratio.ln(), next_ratio.ln());
    Some(Verdict::From(slow + (next - slow) * above / (above - below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crossing_is_interpolated_in_the_logarithm() {
        // 4x slower to 2x faster: two thirds of the way.
        let Some(Verdict::From(at)) = verdict(&[(0.8, 0.5), (0.5, 4.0), (0.95, 0.2)]) else { panic!() };
        assert!((at - 0.7).abs() < 1e-12, "{at}");
        // Equal is not faster, and is itself the break-even.
        assert_eq!(verdict(&[(0.5, 1.0), (0.9, 0.25)]), Some(Verdict::From(0.5)));
    }

    #[test]
    fn a_win_that_is_lost_again_does_not_count() {
        let Some(Verdict::From(at)) = verdict(&[(0.5, 0.9), (0.7, 2.0), (0.9, 0.5)]) else { panic!() };
        assert!((at - 0.8).abs() < 1e-12, "{at}");
        assert_eq!(verdict(&[(0.5, 0.8), (0.9, 1.2)]), Some(Verdict::Never { best_ratio: 0.8, at: 0.5 }));
    }

    #[test]
    fn all_or_none() {
        assert_eq!(verdict(&[(0.9, 0.2), (0.5, 0.7)]), Some(Verdict::Always(0.5)));
        assert_eq!(verdict(&[(0.0, 1.3)]), Some(Verdict::Never { best_ratio: 1.3, at: 0.0 }));
        assert_eq!(verdict(&[(0.0, 0.7)]), Some(Verdict::Always(0.0)));
        assert_eq!(verdict(&[]), None);
        for wrong in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            assert_eq!(verdict(&[(0.5, 1.0), (0.9, wrong)]), None);
        }
    }
}
