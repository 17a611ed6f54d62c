//! Weights in sets of vectors that are light together ([`LIGHT`]).
//!
//! Sums of 16 bits are widened once for a set, which saves most of the arithmetic of widening each vector's. Which inputs'
//! weights make a set is free, so that the vectors of a window are matched, each block's anew: large weights with small
//! ones. Few vectors are not even light alone (a channel's largest weight is 127, and of 100 pairs of neighbours 1 to 10
//! exceed 128 together): what they have too much becomes a vector of its own, which finds its place too.

use dlis_backend::AlignedBytes;

use super::super::simd::LIGHT;

/// Vectors of a large set. More fit seldom.
pub(super) const FOUR: usize = 4;
/// Vectors of a small set, for what is left over.
pub(super) const TWO: usize = 2;
/// Bytes of the widest vector of a level that needs light weights.
pub(super) const MAX_BYTES: usize = 32;
/// Vectors that are matched with one another: enough to find good partners, few enough that the time it takes grows with
/// the number of weights alone.
const MATCHED: usize = 512;
/// Sets that a set is tried to join.
const TRIED: usize = 32;

/// A vector of weights: of four inputs and as many channels as it has lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vector {
    /// Where the inputs lie, counted in fours from where the window begins.
    place: u16,
    weights: [u8; MAX_BYTES],
    /// Of each two neighbours, what of them is above zero and what below.
    sums: [u8; MAX_BYTES],
}

impl Vector {
    /// Of light weights.
    fn new(place: u16, weights: [u8; MAX_BYTES]) -> Self {
        let mut sums = [0; MAX_BYTES];
        for (sums, two) in sums.as_chunks_mut().0.iter_mut().zip(weights.as_chunks().0) {
            *sums = signed_sums(*two);
        }
        Self { place, weights, sums }
    }

    /// One or two light vectors whose sum is `weights`.
    pub(super) fn light(place: u16, weights: &[u8]) -> impl Iterator<Item = Self> {
        let (mut rest, mut excess) = ([0; MAX_BYTES], [0; MAX_BYTES]);
        rest[..weights.len()].copy_from_slice(weights);
        for (two, excess) in rest.as_chunks_mut().0.iter_mut().zip(excess.as_chunks_mut().0) {
            (*two, *excess) = lightened(*two);
        }
        let heavy = (excess != [0; MAX_BYTES]).then(|| Self::new(place, excess));
        std::iter::once(Self::new(place, rest)).chain(heavy)
    }
}

/// Sets of `N` vectors, in the order of blocks of output channels.
#[derive(Debug)]
pub(super) struct Sets<const N: usize> {
    /// Where each block begins, and the end.
    starts: Vec<usize>,
    places: Vec<[u16; N]>,
    weights: Vec<u8>,
}

impl<const N: usize> Sets<N> {
    /// Of no block yet.
    pub(super) fn new() -> Self {
        Self { starts: vec![0], places: Vec::new(), weights: Vec::new() }
    }

    /// Adds a set, filled up with zeros, of vectors of so many bytes.
    fn push<'a>(&mut self, vectors: impl Iterator<Item = &'a Vector>, bytes: usize) {
        let mut places = [0; N];
        for (place, vector) in places.iter_mut().zip(vectors) {
            *place = vector.place;
            self.weights.extend_from_slice(&vector.weights[..bytes]);
        }
        self.places.push(places);
        self.weights.resize(self.places.len() * N * bytes, 0);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds the blocks of other sets.
    pub(super) fn append(&mut self, other: Self) {
        let before = self.places.len();
        self.starts.extend(other.starts[1..].iter().map(|start| before + start));
        self.places.extend(other.places);
        self.weights.extend(other.weights);
    }

    fn finish_block(&mut self) {
        self.starts.push(self.places.len());
    }

    /// With weights where vectors can be read fast.
    pub(super) fn aligned(self) -> AlignedSets<N> {
        let mut weights = AlignedBytes::zeroed(self.weights.len());
        weights.as_mut_slice().copy_from_slice(&self.weights);
        AlignedSets { starts: self.starts, places: self.places, weights }
    }
}

/// As [`Sets`], complete.
#[derive(Debug)]
pub(super) struct AlignedSets<const N: usize> {
    starts: Vec<usize>,
    places: Vec<[u16; N]>,
    weights: AlignedBytes,
}

impl<const N: usize> AlignedSets<N> {
    /// Places and weights of a block, of vectors of so many bytes.
    #[inline(always)]
    pub(super) fn of(&self, block: usize, bytes: usize) -> (&[[u16; N]], &[u8]) {
        let (start, end) = (self.starts[block], self.starts[block + 1]);
        (&self.places[start..end], &self.weights.as_slice()[start * N * bytes..end * N * bytes])
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.places) + self.weights.allocated()
    }
}

/// Sorts the vectors of a block, of so many bytes, into sets that are light together: pairs, and pairs of pairs. In the
/// order of their first inputs, so that those stay in the first-level cache from one set to the next.
pub(super) fn match_block(vectors: &[Vector], bytes: usize, fours: &mut Sets<FOUR>, twos: &mut Sets<TWO>) {
    for some in vectors.chunks(MATCHED) {
        let single = |(index, vector): (usize, &Vector)| Open { members: vec![index], sums: vector.sums };
        let (pairs, singles) = paired(some.iter().enumerate().map(single).collect());
        let (mut pairs_of_pairs, mut others) = paired(pairs);
        others.extend(singles);
        for sets in [&mut pairs_of_pairs, &mut others] {
            sets.iter_mut().for_each(|set| set.members.sort_unstable());
            sets.sort_by_key(|set| set.members[0]);
        }
        pairs_of_pairs.iter().for_each(|set| fours.push(set.members.iter().map(|&index| &some[index]), bytes));
        others.iter().for_each(|set| twos.push(set.members.iter().map(|&index| &some[index]), bytes));
    }
    fours.finish_block();
    twos.finish_block();
}

/// A set that others may join.
struct Open {
    /// Indices of vectors, which are in the order of their inputs.
    members: Vec<usize>,
    sums: [u8; MAX_BYTES],
}

impl Open {
    /// What all of it adds up to.
    fn total(&self) -> u16 {
        self.sums.iter().map(|&sum| u16::from(sum)).sum()
    }

    /// Whether both are light together.
    fn fits(&self, other: &Self) -> bool {
        // Without a branch for each, which would keep it from being vectorised.
        self.sums.iter().zip(&other.sums).fold(true, |fits, (a, b)| fits & (a.saturating_add(*b) <= LIGHT))
    }

    fn join(&mut self, other: Self) {
        self.members.extend(other.members);
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, more)| *sum += more);
    }
}

/// Joins sets by two where they are light together, and returns those joined and those left. The heaviest choose first, as
/// they fit the fewest, and each takes the heaviest that it fits of some from all weights.
fn paired(mut sets: Vec<Open>) -> (Vec<Open>, Vec<Open>) {
    // The heaviest last, where taking out is cheap.
    sets.sort_by_cached_key(Open::total);
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    while let Some(mut set) = sets.pop() {
        let tried = sets.len().min(TRIED);
        let place = |index: usize| sets.len() - 1 - index * sets.len() / tried;
        match (0..tried).map(place).find(|&at| set.fits(&sets[at])) {
            Some(at) => {
                set.join(sets.remove(at));
                joined.push(set);
            }
            None => left.push(set),
        }
    }
    (joined, left)
}

/// What of two weights is above zero, and what below, without its sign.
fn signed_sums(two: [u8; 2]) -> [u8; 2] {
    let [a, b] = two.map(u8::cast_signed);
    [a.max(0).unsigned_abs() + b.max(0).unsigned_abs(), a.min(0).unsigned_abs() + b.min(0).unsigned_abs()]
}

/// Two weights that are light, and what they have too much.
fn lightened(mut two: [u8; 2]) -> ([u8; 2], [u8; 2]) {
    let [above, below] = signed_sums(two);
    let too_much = above.max(below).saturating_sub(LIGHT);
    // Both are of one sign if it is anything, as one alone is at most 127, and the larger has enough to give.
    let larger = usize::from(two[1].cast_signed().unsigned_abs() > two[0].cast_signed().unsigned_abs());
    let off = if above > below { too_much } else { too_much.wrapping_neg() };
    let mut excess = [0; 2];
    excess[larger] = off;
    two[larger] = two[larger].wrapping_sub(off);
    (two, excess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_weights_become_light_and_lose_nothing() {
        for a in -127..=127i8 {
            for b in -127..=127i8 {
                let (two, excess) = lightened([a, b].map(i8::cast_unsigned));
                for light in [two, excess] {
                    assert!(signed_sums(light).iter().all(|&sum| sum <= LIGHT), "{a} {b}: {two:?} {excess:?}");
                }
                assert_eq!([0, 1].map(|i| two[i].cast_signed() + excess[i].cast_signed()), [a, b]);
            }
        }
    }

    #[test]
    fn sets_are_light_together_and_hold_every_weight_once() {
        let bytes = 16;
        let weight = |place: u16, at: u16| {
            let size = u8::try_from((place * 31 + at * 17) % 127).unwrap();
            if (place + at / 2).is_multiple_of(2) { size } else { size.wrapping_neg() }
        };
        let (mut fours, mut twos) = (Sets::<FOUR>::new(), Sets::<TWO>::new());
        let all: Vec<Vec<u8>> = (0..60).map(|place| (0..16).map(|at| weight(place, at)).collect()).collect();
        for block in all.chunks(20) {
            let vectors = (0u16..).zip(block).flat_map(|(place, weights)| Vector::light(place, weights));
            match_block(&vectors.collect::<Vec<_>>(), bytes, &mut fours, &mut twos);
        }
        let (fours, twos) = (fours.aligned(), twos.aligned());
        for (block, expected) in all.chunks(20).enumerate() {
            let mut found = vec![vec![0u8; bytes]; expected.len()];
            let mut check = |places: &[u16], weights: &[u8]| {
                let mut sums = [[0u32; 2]; 8];
                for (&place, vector) in places.iter().zip(weights.chunks_exact(bytes)) {
                    let of_place = &mut found[usize::from(place)];
                    of_place.iter_mut().zip(vector).for_each(|(sum, &weight)| *sum = sum.wrapping_add(weight));
                    for (sums, two) in sums.iter_mut().zip(vector.as_chunks().0) {
                        let more = signed_sums(*two);
                        *sums = [0, 1].map(|i| sums[i] + u32::from(more[i]));
                    }
                }
                assert!(sums.iter().flatten().all(|&sum| sum <= u32::from(LIGHT)), "{sums:?}");
            };
            let (places, weights) = fours.of(block, bytes);
            places.iter().zip(weights.chunks_exact(FOUR * bytes)).for_each(|(places, weights)| check(places, weights));
            let (places, weights) = twos.of(block, bytes);
            places.iter().zip(weights.chunks_exact(TWO * bytes)).for_each(|(places, weights)| check(places, weights));
            assert_eq!(found, expected);
        }
        assert!(!fours.places.is_empty() && !twos.places.is_empty());
    }
}
