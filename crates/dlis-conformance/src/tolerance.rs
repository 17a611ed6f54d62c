//! How far from the reference a result may be.

use dlis_backend::KernelId;

use crate::reference::{Element, Expected};
use crate::tensor::{Tensor, indices};

/// How far from the reference a kernel's results may be.
///
/// An element may differ by `factor * f32::EPSILON *` [`bound`](Element::bound), where the bound covers
/// any order of the definition's own additions and multiplications, and by `coarse *`
/// [`magnitude`](Element::magnitude), which covers operands and results of fewer bits. Results that are infinite or NaN must
/// be infinite with the same sign, or NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Multiple of the bound that is allowed.
    pub factor: f64,
    /// Whether the algorithm computes in a transformed domain (Winograd, FFT), where the largest values
    /// of a tile determine the rounding error of all its outputs: the largest bound of an output's plane
    /// then counts for the whole plane, and where an operand of the plane is infinite or NaN only
    /// outputs that should be NaN are compared.
    pub transformed: bool,
    /// What rounding the operands and the result to fewer bits than f32 has may change, relative to the absolute
    /// terms.
    pub coarse: f64,
    /// The smallest difference of numbers near zero: less is nothing.
    pub smallest: f64,
}

impl Tolerance {
    /// For algorithms that multiply and add what the definition says, in any order.
    pub const DIRECT: Self = Self { factor: 1.0, transformed: false, coarse: 0.0, smallest: 0.0 };

    /// For Winograd's algorithms: those up to F(4x4, 3x3) have transform matrices whose rows sum up to
    /// 19 absolutely, and lose about an order of magnitude of accuracy (Lavin and Gray 2016, "Fast
    /// Algorithms for Convolutional Neural Networks", table 5).
    pub const WINOGRAD: Self = Self { factor: 16.0, transformed: true, ..Self::DIRECT };

    /// For F(6x6, 3x3), whose matrices have rows that sum up to 67 absolutely: of random layers of 4 to 512
    /// channels its largest error is 1.2 to 3 times that of F(4x4, 3x3).
    pub const WINOGRAD_6X6: Self = Self { factor: 48.0, ..Self::WINOGRAD };

    /// For activations and weights in f16, sums in f32: both operands of a product, a residual and the result are
    /// rounded to 11 bits, and results below the smallest subnormal of f16 are zero.
    pub const HALF: Self = Self { coarse: 4.0 / 2048.0, smallest: 1.0 / (1 << 24) as f64, ..Self::DIRECT };

    /// For products of operands rounded to the 11 bits of NVIDIA's tf32.
    pub const TF32: Self = Self { coarse: 2.0 / 2048.0, ..Self::DIRECT };

    /// The tolerance that a kernel's name declares: that of its type, [`HALF`](Self::HALF), [`TF32`](Self::TF32) or
    /// [`DIRECT`](Self::DIRECT); of [`WINOGRAD`](Self::WINOGRAD)'s kind if its algorithm's name starts so.
    pub fn of(kernel: &KernelId) -> Self {
        let of_type = match kernel.dtype() {
            "f16" => Self::HALF,
            "tf32" => Self::TF32,
            _ => Self::DIRECT,
        };
        let transformed = match kernel.algorithm() {
            "winograd-6x6" => Self::WINOGRAD_6X6,
            algorithm if algorithm.starts_with("winograd") => Self::WINOGRAD,
            _ => return of_type,
        };
        // What the transforms amplify are roundings of whatever size.
        Self { coarse: transformed.factor * of_type.coarse, smallest: of_type.smallest, ..transformed }
    }

    /// Compares a result with the reference; the first difference is described.
    ///
    /// # Errors
    ///
    /// A description of the first element that differs by more than is allowed.
    pub fn compare(self, expected: &Expected, found: &Tensor) -> Result<(), String> {
        if found.dims() != expected.dims {
            return Err(format!("expected extents {:?}, found {:?}", expected.dims, found.dims()));
        }
        let plane = (expected.dims[2] * expected.dims[3]).max(1);
        let planes = expected.elements.chunks(plane).zip(found.values().chunks(plane));
        let mut indices = indices(expected.dims);
        for (expected, found) in planes {
            let widest = self.transformed.then(|| Plane::of(expected));
            for ((element, &found), index) in expected.iter().zip(found).zip(&mut indices) {
                let (bound, magnitude) =
                    widest.map_or((element.bound, element.magnitude), |plane| (plane.bound, plane.magnitude));
                let mut allowed = self.factor * f64::from(f32::EPSILON) * bound;
                if self.coarse > 0.0 {
                    allowed += self.coarse * magnitude + self.smallest;
                }
                if widest.is_some_and(|plane| plane.special) {
                    if element.value.is_nan() && !found.is_nan() {
                        return Err(difference(index, *element, found, allowed));
                    }
                } else if !agrees(*element, found, allowed) {
                    return Err(difference(index, *element, found, allowed));
                }
            }
        }
        Ok(())
    }
}

/// What the elements of one plane have in common.
#[derive(Clone, Copy)]
struct Plane {
    bound: f64,
    magnitude: f64,
    special: bool,
}

impl Plane {
    fn of(elements: &[Element]) -> Self {
        let most = |of: fn(&Element) -> f64| elements.iter().map(of).fold(0.0, f64::max);
        let (bound, magnitude) = (most(|element| element.bound), most(|element| element.magnitude));
        Self { bound, magnitude, special: elements.iter().any(|element| element.special) }
    }
}

fn agrees(expected: Element, found: f32, allowed: f64) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what a kernel can store")]
    let nearest = expected.value as f32;
    if expected.or_nan && found.is_nan() {
        return true;
    }
    if nearest.is_nan() {
        return found.is_nan();
    }
    // Equality covers the infinities, and results that may have no error at all.
    nearest == found || (found.is_finite() && (f64::from(found) - expected.value).abs() <= allowed)
}

fn difference([n, c, y, x]: [usize; 4], expected: Element, found: f32, allowed: f64) -> String {
    let Element { value, .. } = expected;
    format!("at n={n} c={c} y={y} x={x}: expected {value:e} within {allowed:e}, found {found:e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(elements: &[(f64, f64)]) -> Expected {
        let element = |&(value, bound): &(f64, f64)| Element {
            value,
            bound,
            magnitude: 1.0,
            special: !value.is_finite(),
            or_nan: false,
        };
        Expected { dims: [1, 1, 1, elements.len()], elements: elements.iter().map(element).collect() }
    }

    fn found(values: &[f32]) -> Tensor {
        Tensor::new([1, 1, 1, values.len()], values.to_vec())
    }

    const EPSILON: f32 = f32::EPSILON;

    #[test]
    fn the_bound_is_the_limit() {
        let expected = expected(&[(1.0, 2.0)]);
        assert_eq!(Tolerance::DIRECT.compare(&expected, &found(&[1.0 + 2.0 * EPSILON])), Ok(()));
        let error = Tolerance::DIRECT.compare(&expected, &found(&[1.0 + 3.0 * EPSILON])).unwrap_err();
        assert!(error.starts_with("at n=0 c=0 y=0 x=0: expected 1e0 within"), "{error}");
        assert_eq!(Tolerance::WINOGRAD.compare(&expected, &found(&[1.0 + 30.0 * EPSILON])), Ok(()));
    }

    #[test]
    fn fewer_bits_are_a_share_of_the_terms() {
        let expected = expected(&[(0.25, 0.0)]);
        let half = Tolerance::HALF;
        assert_eq!(half.compare(&expected, &found(&[0.25 + 4.0 / 2048.0])), Ok(()));
        assert!(half.compare(&expected, &found(&[0.25 + 4.1 / 2048.0])).is_err());
        let named = |name: &str| Tolerance::of(&name.parse().unwrap());
        assert_eq!(named("conv2d/f16/dense/direct/opencl"), half);
        assert_eq!(named("conv2d/tf32/dense/direct/opencl"), Tolerance::TF32);
        assert_eq!(named("conv2d/f32/dense/winograd-2x2/opencl"), Tolerance::WINOGRAD);
        assert_eq!(named("conv2d/f32/dense/winograd-6x6/avx2"), Tolerance::WINOGRAD_6X6);
        assert!(named("conv2d/f16/dense/winograd-2x2/opencl").coarse > half.coarse);
    }

    #[test]
    fn classes_must_match() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let values = [f64::NAN, f64::INFINITY, 0.0].map(|value| (value, f64::INFINITY));
        let expected = expected(&values);
        assert_eq!(Tolerance::DIRECT.compare(&expected, &found(&[nan, inf, 1.0])), Ok(()));
        for wrong in [[0.0, inf, 0.0], [inf, inf, 0.0], [nan, -inf, 0.0], [nan, nan, 0.0], [nan, inf, nan]] {
            assert!(Tolerance::DIRECT.compare(&expected, &found(&wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_transform_shares_the_plane_s_largest_bound_and_its_specials() {
        let shared = expected(&[(1.0, 0.0), (1.0, 2.0)]);
        assert_eq!(Tolerance::WINOGRAD.compare(&shared, &found(&[1.0 + 30.0 * EPSILON, 1.0])), Ok(()));
        assert!(Tolerance::DIRECT.compare(&shared, &found(&[1.0 + EPSILON, 1.0])).is_err());
        let special = expected(&[(f64::NAN, 1.0), (1.0, 1.0)]);
        assert_eq!(Tolerance::WINOGRAD.compare(&special, &found(&[f32::NAN; 2])), Ok(()));
        assert!(Tolerance::WINOGRAD.compare(&special, &found(&[1.0; 2])).is_err());
    }

    #[test]
    fn extents_must_match() {
        assert!(Tolerance::DIRECT.compare(&expected(&[(1.0, 0.0)]), &found(&[1.0, 1.0])).is_err());
    }
}
